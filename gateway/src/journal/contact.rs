//! Whether this gateway may still answer: the contact rule, as the front door
//! asks it (PROTOCOL.md 1).

use std::sync::Arc;

use parking_lot::RwLock;
use shardgate_journal::contact::{May, SharedContact};
use shardgate_journal::disks::{JournalMap, Lost};
use shardgate_wire::DiskId;
use tokio::time::Instant;

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    contact: SharedContact,
    lost: Lost,
    map: RwLock<JournalMap>,
    /// Journal disks that are reported gone, not only silent.
    gone: RwLock<Vec<DiskId>>,
}

impl Gate {
    pub(super) fn new(contact: SharedContact, lost: Lost, map: JournalMap) -> Self {
        let inner = Inner {
            contact,
            lost,
            map: RwLock::new(map),
            gone: RwLock::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What may be answered now.
    pub fn may_answer(&self) -> May {
        let (map, gone) = (self.inner.map.read(), self.inner.gone.read());
        let lost = self.inner.lost.all();
        let contact = self.inner.contact.now();
        contact.may_answer(&map, &gone, &lost, Instant::now())
    }

    /// The journal disks that were not heard for a while.
    pub(super) fn due(&self) -> Vec<DiskId> {
        let contact = self.inner.contact.now();
        contact.due(&self.inner.map.read(), Instant::now())
    }

    pub(super) fn answered(&self, disk: DiskId, sent: Instant) {
        self.inner.contact.answered(disk, sent);
    }

    pub(super) fn set_map(&self, map: JournalMap) {
        *self.inner.map.write() = map;
    }

    pub(super) fn set_gone(&self, gone: Vec<DiskId>) {
        *self.inner.gone.write() = gone;
    }
}

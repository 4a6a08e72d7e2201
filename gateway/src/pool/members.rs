//! One disk of the pool at run time.
//!
//! Invariant: `view` and `store` are of the same disk for ever; what changes
//! is whether it is there, how it stands and what it last said of itself.

use std::sync::Arc;

use parking_lot::RwLock;
use shardgate_catalog::model::{DiskRow, DiskState};
use shardgate_wire::{DiskHealth, DiskId, Medium, ShardStore};

use super::standing::{Lates, Record, Standing};
use crate::placement::DiskView;

/// A disk of the catalog.
#[derive(Debug)]
pub struct Member {
    /// Number of its server's name; equal for equal names.
    pub server: u16,
    /// Its medium, for ever.
    pub medium: Medium,
    live: RwLock<Live>,
}

struct Live {
    row: DiskRow,
    store: Option<Arc<dyn ShardStore>>,
    record: Record,
    health: Option<DiskHealth>,
    /// Errors since `errors_ms`, halved each minute.
    errors: u32,
    errors_ms: u64,
    lates: Lates,
    /// Late since its last probe.
    suspect: bool,
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("disk", &self.row.id)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

const ERRORS_HALVE_MS: u64 = 60_000;

impl Member {
    /// A disk that was opened, or could not be and why. It lives from its
    /// first probe on.
    pub fn new(row: DiskRow, server: u16, opened: Result<Arc<dyn ShardStore>, String>) -> Self {
        let (store, standing) = match opened {
            Ok(store) => (Some(store), Standing::Late),
            Err(why) => (None, Standing::Lost { why }),
        };
        Self {
            server,
            medium: row.medium,
            live: RwLock::new(Live {
                row,
                store,
                record: Record::new(standing),
                health: None,
                errors: 0,
                errors_ms: 0,
                lates: Lates::default(),
                suspect: false,
            }),
        }
    }

    /// Its record.
    pub fn row(&self) -> DiskRow {
        self.live.read().row.clone()
    }

    /// Replaces its record.
    pub fn set_row(&self, row: DiskRow) {
        self.live.write().row = row;
    }

    /// Whether the operator declared it lost.
    pub fn is_lost_for_good(&self) -> bool {
        self.live.read().row.state == DiskState::Lost
    }

    /// The way to it, while there is one.
    pub fn store(&self) -> Option<Arc<dyn ShardStore>> {
        self.live.read().store.clone()
    }

    /// Whether it takes new writes.
    pub fn is_living(&self) -> bool {
        let live = self.live.read();
        live.record.is_living() && live.row.state == DiskState::Member
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        self.live.read().record.standing().clone()
    }

    /// What it last said of itself.
    pub fn health(&self) -> Option<DiskHealth> {
        self.live.read().health.clone()
    }

    /// It was opened anew; the next probe decides.
    pub fn found_again(&self, store: Arc<dyn ShardStore>) {
        let mut live = self.live.write();
        live.store = Some(store);
        live.record = Record::new(Standing::Late);
    }

    /// It could not be opened anew, and what was open is closed.
    pub fn not_opened(&self, why: String) {
        let mut live = self.live.write();
        live.store = None;
        live.record = Record::new(Standing::Lost { why });
    }

    /// The operator declared it lost: nothing is asked of it any more.
    pub fn declared_lost(&self, row: DiskRow, why: &str, now_ms: u64) {
        let mut live = self.live.write();
        live.row = row;
        live.store = None;
        live.record
            .lapse(Standing::Lost { why: why.into() }, now_ms);
    }

    /// A call was not answered in time; how many that makes lately.
    pub fn note_late(&self, now_ms: u64) -> u32 {
        let mut live = self.live.write();
        live.suspect = true;
        live.lates.note(now_ms);
        live.lates.recent(now_ms)
    }

    /// Calls that were not answered in time lately.
    pub fn lates(&self, now_ms: u64) -> u32 {
        self.live.read().lates.recent(now_ms)
    }

    /// Whether it must be asked how it is before its turn; once.
    pub fn take_suspicion(&self) -> bool {
        let mut live = self.live.write();
        std::mem::take(&mut live.suspect) || !live.record.is_living()
    }

    /// A call showed that it is out. True if its standing changed.
    pub fn lapse(&self, standing: Standing, now_ms: u64) -> bool {
        let mut live = self.live.write();
        if now_ms.saturating_sub(live.errors_ms) > ERRORS_HALVE_MS {
            live.errors /= 2;
            live.errors_ms = now_ms;
        }
        live.errors = live.errors.saturating_add(1);
        live.record.lapse(standing, now_ms)
    }

    /// A probe was answered. True if it takes writes again.
    pub fn answered(&self, health: DiskHealth, now_ms: u64) -> bool {
        let mut live = self.live.write();
        live.health = Some(health);
        if now_ms.saturating_sub(live.errors_ms) > ERRORS_HALVE_MS {
            live.errors /= 2;
            live.errors_ms = now_ms;
        }
        live.record.answered(now_ms)
    }

    /// As placement sees it.
    pub fn view(&self) -> DiskView {
        let live = self.live.read();
        let health = live.health.as_ref();
        DiskView {
            id: live.row.id,
            server: live.row.server.clone(),
            site: live.row.site.clone(),
            device: health.map(|health| health.device),
            medium: live.row.medium,
            capacity_bytes: health.map_or(0, |health| health.capacity_bytes),
            free_bytes: health.map_or(0, |health| health.free_bytes),
            room: health.map(|health| health.room),
            load: health.map_or(0, |health| health.queued),
            p50_us: health.map_or(0, |health| health.p50_us),
            errors: live.errors,
            living: live.record.is_living(),
        }
    }

    /// Its id.
    pub fn id(&self) -> DiskId {
        self.live.read().row.id
    }
}

//! Groups for what the gateway itself keeps in the pool: files of checkpoints.
//!
//! Invariant: every disk of such a group lives when it is handed out, and the
//! scheme survives as many losses as that of any class (PROTOCOL.md 4); where
//! too few disks live for it, a narrower group is used.

use std::sync::Arc;

use shardgate_wire::{GroupId, Purpose};

use super::groups::{PlaceError, slot_bytes};
use super::open_set::{Entry, Fitness, Wanted};
use super::state::{Pool, Snapshot};
use crate::object::ports::GroupView;

impl Pool {
    /// A group for a blob of `len` bytes, all of whose disks live.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub async fn group_for_keeping(&self, len: u64) -> Result<Arc<GroupView>, PlaceError> {
        if self.is_taken_over() {
            return Err(PlaceError::TakenOver);
        }
        let snapshot = self.snapshot();
        let Some(wanted) = self.wanted_for_keeping(&snapshot, len) else {
            return Err(PlaceError::TooFewDisks {
                living: 0,
                disks: snapshot.view.disks.len(),
            });
        };
        let view = snapshot.view.for_purpose(wanted.purpose);
        let entry = match self.choose(&view, &wanted, Fitness::Whole) {
            Some(entry) => entry,
            None => {
                let _making = self.inner.making.lock().await;
                self.make_for_keeping(&wanted).await?
            }
        };
        self.account(&entry, wanted.slot_bytes).await;
        Ok(Arc::clone(&entry.group))
    }

    async fn make_for_keeping(&self, wanted: &Wanted) -> Result<Arc<Entry>, PlaceError> {
        // Another may have opened one meanwhile.
        let view = self.snapshot().view.for_purpose(wanted.purpose);
        let chosen = self.choose(&view, wanted, Fitness::Whole);
        if let Some(entry) = chosen {
            return Ok(entry);
        }
        match self.open_whole(wanted, false).await {
            Err(PlaceError::NoSpace | PlaceError::TooFewDisks { .. }) => {
                self.open_narrow(wanted).await
            }
            found => found,
        }
    }

    /// A group's record as it was last read or written here.
    pub fn known_group(&self, id: GroupId) -> Option<Arc<GroupView>> {
        self.inner.groups.read().get(&id).cloned()
    }

    /// The scheme of the class with the most parity; of several such, that
    /// which takes the least space.
    fn wanted_for_keeping(&self, snapshot: &Snapshot, len: u64) -> Option<Wanted> {
        let safest = self.inner.classes.all().filter_map(|(number, class)| {
            let scheme = *snapshot.schemes.get(number)?;
            Some((scheme, class.medium))
        });
        let (scheme, medium) = safest.max_by_key(|(scheme, _)| (scheme.parity(), scheme.data()))?;
        Some(Wanted {
            scheme,
            medium,
            narrow: false,
            slot_bytes: slot_bytes(scheme, medium, Some(len)),
            purpose: Purpose::Checkpoint,
        })
    }
}

//! The shards of a disk that are known to be damaged.
//!
//! Owns a bounded list, in memory; the record of the scrub keeps it over
//! restarts. Invariant: a shard is in it from when its damage is found until
//! it is deleted: it is never written over, so it does not become whole by
//! itself. Does not decide what becomes of them: that is for who knows the
//! other shards of their blobs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use shardgate_wire::check::{MAX_DAMAGED, bounded};
use shardgate_wire::{DamagedShard, ShardKey};

#[derive(Debug, Default)]
pub(crate) struct Damaged {
    known: Mutex<BTreeMap<ShardKey, String>>,
    /// Counts what came and went.
    changes: AtomicU64,
}

impl Damaged {
    /// Takes a shard in; true if it was not known. Beyond
    /// [`MAX_DAMAGED`] what is found is dropped: it is found again.
    pub(crate) fn found(&self, key: ShardKey, what: &str) -> bool {
        let mut known = self.known.lock();
        if known.len() >= MAX_DAMAGED || known.contains_key(&key) {
            return false;
        }
        known.insert(key, bounded(what.to_owned()));
        self.changes.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Shards that were deleted.
    pub(crate) fn forget(&self, keys: &[ShardKey]) {
        let mut known = self.known.lock();
        if known.is_empty() {
            return;
        }
        for key in keys {
            if known.remove(key).is_some() {
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How often the list changed.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.lock().len()
    }

    pub(crate) fn all(&self) -> Vec<DamagedShard> {
        let known = self.known.lock();
        let shard = |(key, what): (&ShardKey, &String)| DamagedShard {
            key: *key,
            what: what.clone(),
        };
        known.iter().map(shard).collect()
    }
}

#[cfg(test)]
mod tests {
    use shardgate_wire::{BlobId, GroupId};

    use super::*;

    #[test]
    fn what_is_found_is_known_until_it_is_deleted_and_bounded() {
        let key = |blob| ShardKey {
            group: GroupId(1),
            blob: BlobId(blob),
            index: 0,
        };
        let damaged = Damaged::default();
        assert!(damaged.found(key(2), "block 1") && damaged.found(key(1), &"x".repeat(1000)));
        assert!(!damaged.found(key(2), "block 3"));
        let all = damaged.all();
        assert_eq!(
            all.iter().map(|it| it.key).collect::<Vec<_>>(),
            [key(1), key(2)]
        );
        assert_eq!((all[0].what.len(), &*all[1].what), (200, "block 1"));
        assert_eq!(damaged.changes(), 2);
        damaged.forget(&[key(2), key(9)]);
        assert_eq!((damaged.len(), damaged.changes()), (1, 3));
        for blob in 10..2000 {
            damaged.found(key(blob), "block 0");
        }
        assert_eq!(damaged.len(), MAX_DAMAGED);
    }
}

//! The shards of a disk that are known to be damaged.
//!
//! Owns a bounded list, in memory; the record of the scrub keeps it over
//! restarts. Invariants: a shard is in it from when its damage is found until
//! it is deleted, or read again and found whole or gone: what was taken for
//! damage of a shard may have been that of a directory, which is made anew, or
//! a read beside a delete; others are told only of shards that were read again
//! since. Does not decide what becomes of them: that is for who knows the
//! other shards of their blobs.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shardgate_wire::check::{MAX_DAMAGED, bounded};
use shardgate_wire::{DamagedShard, ShardKey, StoreError};

use crate::core::Core;

/// How long it counts that a shard was read again.
const COUNTS_FOR: Duration = Duration::from_secs(300);
/// How long shards are read again in one call.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What an error says of the shard; none if it is not the shard's fault.
pub(crate) fn damage_of(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Corrupt { what } => Some(what.clone()),
        StoreError::Io { what, why } => Some(format!("{what}: {why}")),
        _ => None,
    }
}

#[derive(Debug)]
struct Known {
    what: String,
    /// When it was read again.
    again: Option<Instant>,
    /// How much of it was whole so far, while it is.
    whole_to: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Damaged {
    known: Mutex<BTreeMap<ShardKey, Known>>,
    /// Counts what came and went.
    changes: AtomicU64,
}

impl Damaged {
    /// Takes a shard in; true if it was not known. Beyond [`MAX_DAMAGED`] it
    /// takes the place of another, which is found again: those that nobody
    /// can mend must not keep all others out.
    pub(crate) fn found(&self, key: ShardKey, what: &str) -> bool {
        let mut known = self.known.lock();
        if known.contains_key(&key) {
            return false;
        }
        if known.len() >= MAX_DAMAGED {
            let behind = (Bound::Excluded(key), Bound::Unbounded);
            let next = known.range(behind).next().or(known.iter().next());
            if let Some(other) = next.map(|(other, _)| *other) {
                known.remove(&other);
            }
        }
        let what = bounded(what.to_owned());
        let new = Known {
            what,
            again: None,
            whole_to: 0,
        };
        known.insert(key, new);
        self.changes.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Shards that were deleted, or are whole.
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
        self.those(|_| true)
    }

    /// Those that were read again lately.
    fn sure(&self, now: Instant) -> Vec<DamagedShard> {
        self.those(|known| !known.is_due(now))
    }

    fn those(&self, which: impl Fn(&Known) -> bool) -> Vec<DamagedShard> {
        let known = self.known.lock();
        let chosen = known.iter().filter(|(_, known)| which(known));
        let shard = |(key, known): (&ShardKey, &Known)| DamagedShard {
            key: *key,
            what: known.what.clone(),
        };
        chosen.map(shard).collect()
    }

    /// Those to be read again, those that never were first.
    fn due(&self, now: Instant) -> Vec<ShardKey> {
        let known = self.known.lock();
        let due = known.iter().filter(|(_, known)| known.is_due(now));
        let mut due: Vec<_> = due.map(|(key, known)| (known.again, *key)).collect();
        due.sort();
        due.into_iter().map(|(_, key)| key).collect()
    }

    fn still(&self, key: ShardKey, now: Instant) {
        if let Some(known) = self.known.lock().get_mut(&key) {
            known.again = Some(now);
            known.whole_to = 0;
        }
    }

    /// Where a shard is read on.
    fn begins(&self, key: ShardKey) -> u64 {
        let known = self.known.lock();
        known.get(&key).map_or(0, |known| known.whole_to)
    }

    fn goes_on(&self, key: ShardKey, whole_to: u64) {
        if let Some(known) = self.known.lock().get_mut(&key) {
            known.whole_to = whole_to;
        }
    }
}

impl Known {
    fn is_due(&self, now: Instant) -> bool {
        let since = self.again.map(|again| now.saturating_duration_since(again));
        since.is_none_or(|since| since >= COUNTS_FOR)
    }
}

impl Core {
    /// Takes note of a damaged shard, and counts it among the disk's errors.
    pub(crate) fn found_damaged(&self, key: ShardKey, what: &str) {
        if self.damaged.found(key, what) {
            self.condition.count_error();
            let (group, blob, index) = (key.group, key.blob, key.index);
            tracing::warn!(disk = %self.identity.disk, %group, %blob, index, what, "shard is damaged");
        }
    }

    /// The shards that are damaged, each read again before it is told. What
    /// there is no time for is told by a later call.
    pub(crate) fn tell_damaged(&self) -> Result<Vec<DamagedShard>, StoreError> {
        self.condition.check_present()?;
        let begun = Instant::now();
        for key in self.damaged.due(begun) {
            if self.lanes.is_closing() || begun.elapsed() >= AT_ONCE {
                break;
            }
            match self.read_again(key) {
                Ok(Again::NotDamaged) => {
                    let (group, blob, index) = (key.group, key.blob, key.index);
                    tracing::info!(disk = %self.identity.disk, %group, %blob, index, "shard is not damaged any more");
                    self.damaged.forget(&[key]);
                }
                Ok(Again::Damaged) => self.damaged.still(key, Instant::now()),
                Ok(Again::WholeTo(offset)) => self.damaged.goes_on(key, offset),
                // Not the shard's fault: not now.
                Err(_) => {}
            }
        }
        Ok(self.damaged.sure(Instant::now()))
    }

    /// Reads a shard again as the device has it: in the page cache alone it may
    /// be whole, or damaged. Of a long file a part, and another with the next
    /// call.
    fn read_again(&self, key: ShardKey) -> Result<Again, StoreError> {
        match self.volumes.verify_on_device(key) {
            Ok(None) => self.check_file_again(key, self.damaged.begins(key)),
            Ok(Some(())) | Err(StoreError::LaterVersion { .. }) => Ok(Again::NotDamaged),
            Err(error) if damage_of(&error).is_some() => Ok(Again::Damaged),
            Err(error) => Err(error),
        }
    }
}

/// What a shard is that was read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// It is whole, gone, or not for this program to judge.
    NotDamaged,
    Damaged,
    /// It was read up to there, and is whole so far.
    WholeTo(u64),
}

#[cfg(test)]
mod tests {
    use shardgate_wire::{BlobId, GroupId};

    use super::*;

    fn key(blob: u128) -> ShardKey {
        ShardKey {
            group: GroupId(1),
            blob: BlobId(blob),
            index: 0,
        }
    }

    fn keys(shards: &[DamagedShard]) -> Vec<ShardKey> {
        shards.iter().map(|shard| shard.key).collect()
    }

    #[test]
    fn what_is_found_is_known_until_it_is_deleted_and_bounded() {
        let damaged = Damaged::default();
        assert!(damaged.found(key(2), "block 1") && damaged.found(key(1), &"x".repeat(1000)));
        assert!(!damaged.found(key(2), "block 3"));
        let all = damaged.all();
        assert_eq!(keys(&all), [key(1), key(2)]);
        assert_eq!((all[0].what.len(), &*all[1].what), (200, "block 1"));
        assert_eq!(damaged.changes(), 2);
        damaged.forget(&[key(2), key(9)]);
        assert_eq!((damaged.len(), damaged.changes()), (1, 3));
        for blob in 10..2000 {
            assert!(damaged.found(key(blob), "block 0"));
            assert!(damaged.all().iter().any(|shard| shard.key == key(blob)));
        }
        assert_eq!(damaged.len(), MAX_DAMAGED);
    }

    #[test]
    fn a_shard_is_told_while_it_counts_that_it_was_read_again() {
        let (damaged, now) = (Damaged::default(), Instant::now());
        damaged.found(key(1), "block 1");
        damaged.found(key(2), "block 2");
        assert_eq!(damaged.due(now), [key(1), key(2)]);
        assert_eq!(damaged.sure(now), []);
        damaged.still(key(1), now);
        assert_eq!(keys(&damaged.sure(now)), [key(1)]);
        assert_eq!(damaged.due(now), [key(2)]);
        let later = now + COUNTS_FOR;
        assert_eq!(damaged.sure(later), []);
        assert_eq!(damaged.due(later), [key(2), key(1)], "the new one first");
    }
}

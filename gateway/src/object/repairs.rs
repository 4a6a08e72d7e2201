//! Shards that reads found missing.
//!
//! Owns a bounded list in memory, for the job in the background to take from.
//! Losing it loses nothing that was known for long: the next read of the shard
//! finds it again. What is corrupt is not in it: disks keep that in mind.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use shardgate_catalog::model::BlobRef;
use shardgate_wire::{BlobId, GroupId};

/// How many are kept; older ones stay, further ones are dropped.
const MOST: usize = 10_000;

/// A shard that its disk does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Its blob.
    pub blob: BlobRef,
    /// Which shard.
    pub shard: u8,
}

type Name = (GroupId, BlobId, u8);

#[derive(Debug, Default)]
struct Listed {
    order: VecDeque<Name>,
    repairs: HashMap<Name, Repair>,
}

/// The list.
#[derive(Debug, Default)]
pub struct RepairQueue {
    listed: Mutex<Listed>,
}

impl RepairQueue {
    /// Adds a shard. False if it is listed already, or the list is full.
    pub fn add(&self, repair: Repair) -> bool {
        let name = (repair.blob.group, repair.blob.blob, repair.shard);
        let mut listed = self.listed.lock();
        if listed.repairs.len() >= MOST || listed.repairs.contains_key(&name) {
            return false;
        }
        listed.repairs.insert(name, repair);
        listed.order.push_back(name);
        true
    }

    /// Takes the oldest.
    pub fn take(&self) -> Option<Repair> {
        let mut listed = self.listed.lock();
        let name = listed.order.pop_front()?;
        listed.repairs.remove(&name)
    }

    /// How many are listed.
    pub fn len(&self) -> usize {
        self.listed.lock().repairs.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use shardgate_wire::BlobLayout;

    use super::*;

    #[test]
    fn each_shard_is_listed_once_and_the_list_is_bounded() {
        let queue = RepairQueue::default();
        let repair = |blob: u128, shard| Repair {
            blob: BlobRef {
                group: GroupId(1),
                blob: BlobId(blob),
                layout: BlobLayout { data: 4, parity: 2 },
                len: 5,
            },
            shard,
        };
        assert!(queue.add(repair(1, 0)) && queue.add(repair(1, 1)));
        assert!(!queue.add(repair(1, 0)));
        assert_eq!(queue.take(), Some(repair(1, 0)));
        assert!(queue.add(repair(1, 0)));
        for blob in 2..20_000 {
            queue.add(repair(blob, 0));
        }
        assert_eq!(queue.len(), MOST);
    }
}

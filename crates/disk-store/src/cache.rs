//! Footers of shards that were read lately, with their files open.
//!
//! Invariant: a footer is in here only after its checksum matched and its
//! shard is known to be finished. Bounded in files and in bytes.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_wire::ShardKey;

use crate::format::Footer;

/// A finished shard, open for reading.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) file: OwnedFd,
    pub(crate) footer: Footer,
}

impl Whole {
    fn weight(&self) -> usize {
        256 + 4 * self.footer.crcs.len()
    }
}

#[derive(Debug, Default)]
struct Held {
    by_key: HashMap<ShardKey, (u64, Arc<Whole>)>,
    by_use: BTreeMap<u64, ShardKey>,
    uses: u64,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Cache {
    held: Mutex<Held>,
    most_files: usize,
    most_bytes: usize,
}

impl Cache {
    pub(crate) fn new(most_files: usize, most_bytes: usize) -> Self {
        Self {
            held: Mutex::new(Held::default()),
            most_files,
            most_bytes,
        }
    }

    pub(crate) fn get(&self, key: ShardKey) -> Option<Arc<Whole>> {
        let mut held = self.held.lock();
        let held = &mut *held;
        let (used, whole) = held.by_key.get_mut(&key)?;
        held.by_use.remove(used);
        held.uses += 1;
        *used = held.uses;
        held.by_use.insert(*used, key);
        Some(Arc::clone(whole))
    }

    pub(crate) fn insert(&self, whole: Arc<Whole>) {
        let key = whole.footer.key;
        let mut held = self.held.lock();
        held.remove(key);
        held.uses += 1;
        let used = held.uses;
        held.bytes += whole.weight();
        held.by_use.insert(used, key);
        held.by_key.insert(key, (used, whole));
        while held.by_key.len() > self.most_files || held.bytes > self.most_bytes {
            let Some((_, oldest)) = held.by_use.pop_first() else {
                break;
            };
            held.remove(oldest);
        }
    }

    pub(crate) fn remove(&self, key: ShardKey) {
        self.held.lock().remove(key);
    }
}

impl Held {
    fn remove(&mut self, key: ShardKey) {
        if let Some((used, whole)) = self.by_key.remove(&key) {
            self.by_use.remove(&used);
            self.bytes -= whole.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_wire::ids::{BlobId, GroupId};
    use shardgate_wire::store::ShardEnd;

    fn whole(blob: u128, blocks: usize) -> Arc<Whole> {
        let key = key(blob);
        let end = ShardEnd {
            shard_len: 0,
            blob_len: 0,
        };
        let file = std::fs::File::open("/dev/null").unwrap().into();
        let crcs = vec![0; blocks];
        let footer = Footer {
            key,
            end,
            data_offset: 0,
            header_crc: 0,
            crcs,
        };
        Arc::new(Whole { file, footer })
    }

    fn key(blob: u128) -> ShardKey {
        ShardKey {
            group: GroupId(1),
            blob: BlobId(blob),
            index: 0,
        }
    }

    #[test]
    fn the_least_lately_used_goes_first() {
        let cache = Cache::new(3, 4096);
        (1..=3).for_each(|blob| cache.insert(whole(blob, 1)));
        assert!(cache.get(key(1)).is_some());
        cache.insert(whole(4, 1));
        let held = |blob| cache.get(key(blob)).is_some();
        assert_eq!([1, 2, 3, 4].map(held), [true, false, true, true]);
        // A long footer takes the place of many, and too long a one of none.
        cache.insert(whole(5, 900));
        assert_eq!([1, 3, 4, 5].map(held), [false, false, false, true]);
        cache.insert(whole(6, 2000));
        assert!(!held(6));
        cache.insert(whole(7, 1));
        cache.remove(key(7));
        assert!(!held(7));
        assert_eq!(cache.held.lock().bytes, 0);
    }
}

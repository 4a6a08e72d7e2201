//! Bucket rows in memory, exact for a single gateway.
//!
//! Invariant: a row found here is the one that the engine holds. Whoever
//! changes a bucket marks its name first and unmarks it when the change is
//! visible (or known to have failed); a marked name is neither found nor
//! filled, and a row that was read before any mark came or went is not filled.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::model::BucketRow;

/// Rows that are kept at most; beyond, the cache starts anew.
const CAPACITY: usize = 10_000;

/// A bucket row as it was read.
#[derive(Debug)]
pub(crate) struct StoredBucket {
    pub(crate) row: BucketRow,
    pub(crate) raw: Bytes,
}

#[derive(Debug, Default)]
pub(crate) struct BucketCache {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: HashMap<String, Arc<StoredBucket>>,
    changing: HashSet<String>,
    /// Rises whenever a mark comes or goes.
    marks: u64,
}

/// Taken before a row is read that may be filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp(u64);

impl BucketCache {
    pub(crate) fn get(&self, name: &str) -> Result<Arc<StoredBucket>, Stamp> {
        let state = self.state.lock();
        state.rows.get(name).cloned().ok_or(Stamp(state.marks))
    }

    pub(crate) fn fill(&self, name: &str, bucket: Arc<StoredBucket>, stamp: Stamp) {
        let mut state = self.state.lock();
        if state.marks != stamp.0 || state.changing.contains(name) {
            return;
        }
        if state.rows.len() >= CAPACITY {
            state.rows.clear();
        }
        state.rows.insert(name.to_owned(), bucket);
    }

    /// Drops a row that a failed expectation showed to be doubtful: another
    /// gateway may have changed it.
    pub(crate) fn forget(&self, name: &str) {
        self.state.lock().rows.remove(name);
    }

    /// Marks a name until the returned value is dropped. Its caller has the
    /// turn of that name.
    pub(crate) fn change(&self, name: &str) -> Change<'_> {
        let mut state = self.state.lock();
        state.rows.remove(name);
        state.marks += 1;
        let new = state.changing.insert(name.to_owned());
        assert!(new, "a bucket is changed by one task at a time");
        Change {
            cache: self,
            name: name.to_owned(),
        }
    }
}

/// See [`BucketCache::change`].
#[derive(Debug)]
pub(crate) struct Change<'c> {
    cache: &'c BucketCache,
    name: String,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        state.changing.remove(&self.name);
        state.marks += 1;
    }
}

#[cfg(test)]
mod tests {
    use shardgate_wire::BucketIncarnation;

    use super::*;
    use crate::model::BucketState;

    fn stored() -> Arc<StoredBucket> {
        Arc::new(StoredBucket {
            row: BucketRow {
                incarnation: BucketIncarnation(1),
                created: 0,
                owner: String::new(),
                state: BucketState::Active,
            },
            raw: Bytes::new(),
        })
    }

    #[test]
    fn a_row_read_before_or_during_a_change_is_not_kept() {
        let cache = BucketCache::default();
        let before = cache.get("b").unwrap_err();
        let change = cache.change("b");
        cache.fill("b", stored(), before);
        let during = cache.get("b").unwrap_err();
        cache.fill("b", stored(), during);
        assert!(cache.get("b").is_err());
        drop(change);
        cache.fill("b", stored(), during);
        let after = cache.get("b").unwrap_err();
        cache.fill("b", stored(), after);
        assert!(cache.get("b").is_ok());
        drop(cache.change("b"));
        assert!(cache.get("b").is_err());
    }
}

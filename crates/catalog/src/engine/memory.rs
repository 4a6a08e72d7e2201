//! The engine for tests: a map. Nothing outlives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_wire::CommitNumber;

use super::evaluate::{Base, Overlay};
use super::{
    Commit, CommitError, Engine, EngineError, Entry, KeyRange, MAX_COMMIT_BYTES, Scan, Snapshot,
};

type Rows = BTreeMap<Bytes, Bytes>;

/// Keeps everything in memory, with the semantics of every other engine.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    state: Mutex<State>,
    /// What each commit changed, as a journal would have it.
    #[cfg(test)]
    log: Mutex<Vec<(CommitNumber, Vec<super::Change>)>>,
}

/// Rows as of a commit. Cloning shares them until one side changes.
#[derive(Clone, Debug, Default)]
struct State {
    rows: Arc<Rows>,
    committed: CommitNumber,
}

impl MemoryEngine {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What each commit changed.
    #[cfg(test)]
    pub(crate) fn commits(&self) -> Vec<(CommitNumber, Vec<super::Change>)> {
        self.log.lock().clone()
    }

    fn state(&self) -> State {
        self.state.lock().clone()
    }
}

#[async_trait]
impl Engine for MemoryEngine {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state.lock().rows.get(key).cloned())
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError> {
        let state = self.state.lock();
        Ok(keys
            .iter()
            .map(|key| state.rows.get(key).cloned())
            .collect())
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError> {
        Ok(scan_rows(&self.state().rows, &scan))
    }

    async fn commit(&self, commit: Commit) -> Result<CommitNumber, CommitError> {
        let size = commit.size_bytes();
        if size > MAX_COMMIT_BYTES {
            return Err(CommitError::TooLarge(size));
        }
        let mut state = self.state.lock();
        let number = CommitNumber(state.committed.0 + 1);
        let mut overlay = Overlay::new(&*state.rows);
        if let Some(failed) = overlay.first_failure(&commit)? {
            return Err(CommitError::Conflict(failed));
        }
        overlay.add(commit.resolve(number));
        let changes = overlay.into_changes();
        #[cfg(test)]
        self.log
            .lock()
            .push((number, changes.clone().into_iter().collect()));
        let rows = Arc::make_mut(&mut state.rows);
        for (key, value) in changes {
            match value {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        state.committed = number;
        Ok(number)
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        Ok(Box::new(self.state()))
    }

    fn committed(&self) -> CommitNumber {
        self.state.lock().committed
    }

    /// It is gone with the process, whatever is done.
    async fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

#[async_trait]
impl Snapshot for State {
    fn committed(&self) -> CommitNumber {
        self.committed
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.rows.get(key).cloned())
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError> {
        Ok(scan_rows(&self.rows, &scan))
    }
}

impl Base for Rows {
    fn holds(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool, EngineError> {
        Ok(self.get(key).map(|held| &held[..]) == value)
    }

    fn rows(&self, range: &KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let rows = within(self, range).take(limit);
        Ok(rows.map(|(k, v)| (k.clone(), v.clone())).collect())
    }
}

/// The rows of a range that is not empty.
fn within<'r>(
    rows: &'r Rows,
    range: &KeyRange,
) -> impl DoubleEndedIterator<Item = (&'r Bytes, &'r Bytes)> {
    let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    rows.range::<Bytes, _>((Bound::Included(&range.start), end))
}

fn scan_rows(rows: &Rows, scan: &Scan) -> Vec<Entry> {
    assert!(
        !(scan.reverse && scan.fold.is_some()),
        "a fold goes forward"
    );
    let row = |(key, value): (&Bytes, &Bytes)| Entry::Row(key.clone(), value.clone());
    if scan.range.is_empty() {
        return Vec::new();
    }
    let Some(fold) = &scan.fold else {
        let found = within(rows, &scan.range);
        return if scan.reverse {
            found.rev().take(scan.limit).map(row).collect()
        } else {
            found.take(scan.limit).map(row).collect()
        };
    };
    let mut range = scan.range.clone();
    let mut entries = Vec::new();
    while entries.len() < scan.limit && !range.is_empty() {
        let Some((key, value)) = within(rows, &range).next() else {
            break;
        };
        let next = match fold.head_len(key) {
            Some(len) => {
                entries.push(Entry::Folded(key.slice(..len)));
                crate::keys::successor(&key[..len])
            }
            None => {
                entries.push(Entry::Row(key.clone(), value.clone()));
                Some(crate::keys::after(key))
            }
        };
        let Some(next) = next else { break };
        range.start = next;
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conformance;

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms() {
        conformance::suite(|| Arc::new(MemoryEngine::new())).await;
    }
}

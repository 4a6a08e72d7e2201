//! Which reads are open, and since which commit.
//!
//! Owns [`OpenReads`]. Invariant: a blob that a commit condemned is purged
//! only when no open read began before that commit was visible
//! (PROTOCOL.md 7). A read therefore registers **before** it looks up its
//! version: if the purge looked first, the condemning commit was visible to
//! the look-up.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_wire::CommitNumber;

/// The reads that are open. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct OpenReads {
    /// How many reads began at which commit.
    begun: Arc<Mutex<BTreeMap<CommitNumber, u64>>>,
}

/// One open read; over when dropped.
#[derive(Debug)]
pub struct OpenRead {
    reads: OpenReads,
    begun: CommitNumber,
}

impl OpenReads {
    /// Registers a read; `committed` gives the highest visible commit.
    pub fn open(&self, committed: impl FnOnce() -> CommitNumber) -> OpenRead {
        let mut begun = self.begun.lock();
        let commit = committed();
        *begun.entry(commit).or_default() += 1;
        OpenRead {
            reads: self.clone(),
            begun: commit,
        }
    }

    /// Whether no open read can hold what `condemned` condemned.
    pub fn allow_purge(&self, condemned: CommitNumber) -> bool {
        let begun = self.begun.lock();
        begun
            .keys()
            .next()
            .is_none_or(|oldest| *oldest >= condemned)
    }

    /// How many are open.
    pub fn count(&self) -> u64 {
        self.begun.lock().values().sum()
    }
}

impl Drop for OpenRead {
    fn drop(&mut self) {
        let mut begun = self.reads.begun.lock();
        if let Some(count) = begun.get_mut(&self.begun) {
            *count -= 1;
            if *count == 0 {
                begun.remove(&self.begun);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_read_holds_the_purge_back() {
        let reads = OpenReads::default();
        assert!(reads.allow_purge(CommitNumber(7)));
        let old = reads.open(|| CommitNumber(5));
        let same = reads.open(|| CommitNumber(5));
        let new = reads.open(|| CommitNumber(7));
        assert!(reads.allow_purge(CommitNumber(5)));
        assert!(!reads.allow_purge(CommitNumber(6)));
        drop(old);
        assert!(!reads.allow_purge(CommitNumber(6)));
        drop(same);
        assert!(reads.allow_purge(CommitNumber(7)));
        assert!(!reads.allow_purge(CommitNumber(8)));
        assert_eq!(reads.count(), 1);
        drop(new);
        assert!(reads.allow_purge(CommitNumber(u64::MAX)));
    }
}

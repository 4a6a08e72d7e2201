//! Why the journal does not start, or goes no further.

use shardgate_wire::{CommitNumber, DiskId, Epoch, StoreError};
use thiserror::Error;

use crate::format::SegmentId;

/// What is missing or wrong, so that the journal would not be complete.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Too few journal disks answer, and not all others were named lost.
    #[error(
        "{answered} of {journal} journal disks answer, a majority is needed; {}",
        who_is_missing(missing)
    )]
    NoMajority {
        /// How many answered.
        answered: usize,
        /// How many journal disks there are.
        journal: usize,
        /// Who did not answer and was not named lost.
        missing: Vec<DiskId>,
    },
    /// Commits up to this one were acknowledged, and the chain ends before.
    #[error(
        "commit {acknowledged} was acknowledged, the journal found ends at {found} (segment {segment:?}, disks reached: {})",
        ids(reached)
    )]
    Incomplete {
        /// The highest known to be acknowledged.
        acknowledged: CommitNumber,
        /// The last that is found.
        found: CommitNumber,
        /// The segment that the chain was looked for in.
        segment: Option<SegmentId>,
        /// Which disks were asked.
        reached: Vec<DiskId>,
    },
    /// A segment is needed and no disk reached has it whole.
    #[error(
        "segment {segment} is needed from commit {from} to {to}, no disk reached has it whole (reached: {})",
        ids(reached)
    )]
    MissingSegment {
        /// Which.
        segment: SegmentId,
        /// Its first commit that is needed.
        from: CommitNumber,
        /// Its last.
        to: CommitNumber,
        /// Which disks were asked.
        reached: Vec<DiskId>,
    },
    /// The local catalog is not on the journal's chain: it must be restored.
    #[error("the local catalog at commit {0} is not on the journal's chain")]
    NotOnChain(CommitNumber),
    /// The pool has a journal, and no disk reached has any of it.
    #[error("the pool has a journal, no disk reached has any of it")]
    NoJournal,
    /// A later version wrote the journal.
    #[error("disk {disk} has a journal of format version {found}")]
    Version {
        /// Where.
        disk: DiskId,
        /// Which.
        found: u16,
    },
}

/// Why the journal does not start, or goes no further.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum JournalError {
    /// Another gateway has taken over; this one must stop, and never fences
    /// in turn.
    #[error("another gateway has taken over with epoch {}", .0.number)]
    Fenced(Epoch),
    /// It would not be complete.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A record is longer than any batch.
    #[error("a record of {0} bytes is too long for the journal")]
    TooLong(usize),
    /// A disk failed in a way that cannot be passed over now; trying again is
    /// right.
    #[error("disk {disk}: {error}")]
    Disk {
        /// Which.
        disk: DiskId,
        /// How.
        error: StoreError,
    },
    /// The journal disks are those of before: too few of the old and of the
    /// new took the segment that a change begins with.
    #[error(
        "the journal disks do not change now: too few of the old and of the new take a segment"
    )]
    NotChanged,
    /// The journal was closed.
    #[error("the journal is closed")]
    Closed,
}

/// Where nobody is missing a start is refused only if no disk is left.
fn who_is_missing(missing: &[DiskId]) -> String {
    if missing.is_empty() {
        "all of them were named lost, and one at least has to be there".to_owned()
    } else {
        format!("missing: {}", ids(missing))
    }
}

fn ids(disks: &[DiskId]) -> String {
    let ids: Vec<String> = disks.iter().map(ToString::to_string).collect();
    if ids.is_empty() {
        "none".to_owned()
    } else {
        ids.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use crate::disks::{JournalMap, check_quorum};

    use super::*;

    fn said(answered: &[u128], lost: &[u128]) -> String {
        let disks = |ids: &[u128]| ids.iter().copied().map(DiskId).collect::<Vec<_>>();
        let map = JournalMap {
            number: 1,
            disks: disks(&[1, 2, 3]),
            old: None,
        };
        let refused = check_quorum(&map, &disks(answered), &disks(lost));
        refused.expect_err("too few answer").to_string()
    }

    #[test]
    fn who_is_missing_is_said_as_it_is() {
        let (two, three) = (DiskId(2), DiskId(3));
        assert_eq!(
            said(&[1], &[]),
            format!("1 of 3 journal disks answer, a majority is needed; missing: {two}, {three}")
        );
        assert_eq!(
            said(&[1], &[2]),
            format!("1 of 3 journal disks answer, a majority is needed; missing: {three}")
        );
        assert_eq!(
            said(&[], &[1, 2, 3]),
            "0 of 3 journal disks answer, a majority is needed; \
             all of them were named lost, and one at least has to be there"
        );
    }
}

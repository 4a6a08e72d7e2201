//! The state of the journal, as the operator reads it.

use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Number of the pool map in force.
    pub map: u64,
    /// What may be answered: `all`, `reads` or `nothing`.
    pub answers: String,
    /// The last commit that every member has durably.
    pub commit: u64,
    /// The journal disks' ids.
    pub disks: Vec<String>,
    /// Those that keep the segment that is written now.
    pub members: Vec<String>,
    /// Segments that get no further batch.
    pub segments: usize,
    /// Bytes of one copy of all segments.
    pub bytes: u64,
    /// Segments that too few living disks hold.
    pub not_fully_stored: Vec<SegmentSpan>,
}

/// A segment's commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSpan {
    /// Its name.
    pub segment: String,
    /// The commit before its first.
    pub from: u64,
    /// Its last.
    pub to: u64,
}

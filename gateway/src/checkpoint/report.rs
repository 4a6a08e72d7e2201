//! The state of the checkpoints, as the operator reads it.

use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// Those that are kept, the newest first.
    pub kept: Vec<KeptStatus>,
    /// Bytes of journal behind the newest.
    pub journal_since_bytes: u64,
    /// Bytes of journal at which the next one is taken.
    pub journal_every_bytes: u64,
    /// Bytes of the whole journal.
    pub journal_bytes: u64,
    /// Its bound: near it, writes wait.
    pub journal_bound_bytes: u64,
    /// Whether they wait now.
    pub writes_wait: bool,
    /// What the one that is taken now is about.
    pub progress: Option<String>,
    /// Why the last attempt failed, if it did.
    pub problem: Option<String>,
    /// Checkpoints taken since the start.
    pub taken: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// Bytes that were sent for them since the start.
    pub sent_bytes: u64,
}

/// A checkpoint that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptStatus {
    /// Its last commit.
    pub commit: u64,
    /// Seconds since it was taken.
    pub age_seconds: u64,
    /// Its files; `None` if its manifest could not be read.
    pub files: Option<usize>,
    /// Their bytes.
    pub bytes: Option<u64>,
}

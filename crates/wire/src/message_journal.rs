//! The heads of the calls of [`JournalDisk`](crate::journal::JournalDisk).
//!
//! As [`crate::message`], whose `Call` names them.

use serde::{Deserialize, Serialize};

use crate::journal::JournalFile;
use crate::store::CallContext;

/// Head of `Call::JournalStanding`; the answer is a
/// [`JournalStanding`](crate::journal::JournalStanding).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStandingHead {}

/// Head of `Call::JournalRaise` and `Call::JournalFiles`; the answer to the
/// second is [`ListedJournalFile`](crate::journal::ListedJournalFile)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalCtxHead {
    /// Who calls.
    pub ctx: CallContext,
}

/// Head of `Call::JournalBegin`; the data are the bytes. The answer is a
/// [`JournalFile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalBeginHead {
    /// Who calls.
    pub ctx: CallContext,
}

/// Head of `Call::JournalAppend`; the data are the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalAppendHead {
    /// Who calls.
    pub ctx: CallContext,
    /// Which file.
    pub file: JournalFile,
    /// Its end.
    pub offset: u64,
}

/// Head of `Call::JournalRead`; the answer's data are the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalReadHead {
    /// Who calls.
    pub ctx: CallContext,
    /// Which file.
    pub file: JournalFile,
    /// From where on.
    pub offset: u64,
    /// How many bytes.
    pub len: u32,
}

/// Head of `Call::JournalRemove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRemoveHead {
    /// Who calls.
    pub ctx: CallContext,
    /// At most [`MAX_BATCH`](crate::store::MAX_BATCH).
    pub files: Vec<JournalFile>,
}

/// Head of `Call::JournalRoots`; the answer is a [`JournalRootsAnswer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRootsHead {}

/// Answer to `Call::JournalRoots`; its data are the pool map and, behind it,
/// the checkpoint root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRootsAnswer {
    /// Number of the map.
    pub map_number: u64,
    /// Bytes of the map.
    pub map_len: u32,
}

/// Head of `Call::JournalMap`; the data are the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalMapHead {
    /// Who calls.
    pub ctx: CallContext,
    /// Number of the map.
    pub number: u64,
}

/// Head of `Call::JournalCheckpoint`; the data are the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalCheckpointHead {
    /// Who calls.
    pub ctx: CallContext,
}

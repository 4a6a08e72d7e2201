//! What can go wrong for a caller of the catalog: one variant for each
//! decision that the caller makes.

use thiserror::Error;

use crate::engine::{CommitError, EngineError};
use crate::model::GroupRow;
use crate::row::Damaged;

/// Why the catalog did not do what was asked.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CatalogError {
    /// Somebody else was first; what was read is no longer so.
    #[error("the record changed meanwhile")]
    Conflict,
    /// No such bucket, or it was deleted and made again.
    #[error("no such bucket")]
    NoSuchBucket,
    /// The name is taken.
    #[error("the bucket exists and belongs to {owner}")]
    BucketExists {
        /// By whom.
        owner: String,
    },
    /// It holds objects.
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    /// No such object.
    #[error("no such key")]
    NoSuchKey,
    /// No such upload, or not of this key, or no longer open.
    #[error("no such upload")]
    NoSuchUpload,
    /// The upload has no such part, or another one under the number.
    #[error("part {number} is missing or differs")]
    InvalidPart {
        /// Which.
        number: u16,
    },
    /// Part numbers do not ascend.
    #[error("part numbers do not ascend")]
    InvalidPartOrder,
    /// A part that is not the last is below the least size.
    #[error("part {number} is too small")]
    EntityTooSmall {
        /// Which.
        number: u16,
    },
    /// The object does not meet the client's condition.
    #[error("a condition of the request does not hold")]
    PreconditionFailed,
    /// No such group.
    #[error("no such group")]
    NoSuchGroup,
    /// A slot of the group moved while the blob was written. Shards count
    /// only where they lie on the disks that `current` names; the writer
    /// says again which slots are owed, under that generation.
    #[error("the group has moved to generation {}", current.generation.0)]
    GroupMoved {
        /// The group's record now.
        current: Box<GroupRow>,
    },
    /// More than one commit can hold.
    #[error("too much for one commit: {bytes} bytes")]
    TooLarge {
        /// How much it was.
        bytes: usize,
    },
    /// The engine does not answer. A write may or may not have happened: its
    /// shards must not be removed.
    #[error("{why}")]
    Unavailable {
        /// What it said.
        why: String,
    },
    /// A record is not readable, and a write that needed it did not happen.
    /// Never the same as absent.
    #[error("{why}")]
    Damaged {
        /// Which, and how.
        why: String,
    },
}

/// Short for results of the catalog.
pub type Result<T, E = CatalogError> = std::result::Result<T, E>;

impl From<EngineError> for CatalogError {
    fn from(error: EngineError) -> Self {
        let why = error.to_string();
        match error {
            EngineError::Unavailable(_) => Self::Unavailable { why },
            EngineError::Damaged(_) => Self::Damaged { why },
        }
    }
}

impl From<CommitError> for CatalogError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::Conflict,
            CommitError::TooLarge(bytes) => Self::TooLarge { bytes },
            CommitError::Engine(error) => error.into(),
        }
    }
}

impl From<Damaged> for CatalogError {
    fn from(error: Damaged) -> Self {
        Self::Damaged {
            why: error.to_string(),
        }
    }
}

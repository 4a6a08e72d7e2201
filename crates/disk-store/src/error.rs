//! Why a disk cannot be opened or formatted.

use std::path::PathBuf;

use rustix::io::Errno;
use shardgate_wire::DiskIdentity;
use thiserror::Error;

/// Why a disk is not opened. Nothing in its folder was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no folder: the file system is not mounted, or the folder was
    /// removed.
    #[error("no folder at {path}")]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// The folder is empty: where a disk was, it is lost; where none was, it
    /// can be formatted.
    #[error("folder {path} is empty, not a disk")]
    Blank {
        /// Where.
        path: PathBuf,
    },
    /// The folder holds something, and no identity.
    #[error("folder {path} has no identity and is not empty")]
    NoIdentity {
        /// Where.
        path: PathBuf,
    },
    /// Another cluster's disk, or another disk than the one expected here.
    #[error("{path} is disk {} of cluster {}, {expected} was expected", found.disk, found.cluster)]
    Foreign {
        /// Where.
        path: PathBuf,
        /// Who is there.
        found: DiskIdentity,
        /// Who was expected.
        expected: String,
    },
    /// Another process has the disk open, or this one has already.
    #[error("disk {path} is in use")]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// The file system has no room for a journal beside shards.
    #[error("the file system of {path} has {} MiB, and a disk takes {} MiB at least", bytes >> 20, least >> 20)]
    TooSmall {
        /// Where.
        path: PathBuf,
        /// Bytes that it has.
        bytes: u64,
        /// Bytes of the smallest disk.
        least: u64,
    },
    /// The disk's own records are damaged or of a later version.
    #[error("disk {path} is damaged: {what}")]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// The system refused.
    #[error("{what} of disk {path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: Errno,
    },
}

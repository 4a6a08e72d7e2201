//! The calls by which a disk keeps journal segments (PROTOCOL.md 1 and 2).
//!
//! A disk parses nothing of a segment, but for the checksums of its batches
//! where it is checked: it keeps files of bytes under numbers of its own.
//! Invariant: a call is refused unless its epoch is in force, a
//! higher one is made durable first; what was answered by [`JournalDisk::begin`]
//! or [`JournalDisk::append`] is durable; an append is written only at the
//! file's exact end and only after the one before was made durable.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{CommitNumber, DiskId, Epoch, LineageId};
use crate::store::{CallContext, StoreError};

/// Writes to a segment begin and end at multiples of this: a torn write never
/// touches a page with older bytes.
pub const JOURNAL_PAGE: usize = 4096;
/// Most bytes of one append, a segment's first included: one commit of the
/// largest size and what frames it.
pub const MAX_JOURNAL_APPEND_BYTES: usize = 18 * 1024 * 1024;
/// Most bytes that one read of a segment returns.
pub const MAX_JOURNAL_READ_BYTES: usize = 1024 * 1024;
/// Most files that one disk keeps.
pub const MAX_JOURNAL_FILES: usize = 4096;

/// Longest pool map, bytes.
pub const MAX_POOL_MAP_BYTES: usize = 1024 * 1024;
/// Longest checkpoint root, bytes.
pub const MAX_CHECKPOINT_ROOT_BYTES: usize = 256 * 1024;

/// A file of journal bytes on one disk. A number is not used again while the
/// disk is open.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct JournalFile(pub u64);

/// One entry of a disk's list of journal files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedJournalFile {
    /// Which.
    pub file: JournalFile,
    /// Bytes that can be read of it, zeroes behind its end included.
    pub len: u64,
}

/// What a disk knows of the journal's epochs and commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalStanding {
    /// The epoch in force.
    pub epoch: Epoch,
    /// How long ago the last call of that epoch came, milliseconds; `None`
    /// if none came since the disk was opened.
    pub last_call_ms: Option<u64>,
    /// The lineage and the highest commit number that it was told.
    pub told: (LineageId, CommitNumber),
    /// The longest file that a segment may be, bytes.
    pub segment_bytes: u64,
}

/// What a disk's root record keeps for the journal's owner (PROTOCOL.md 1);
/// its bytes mean nothing to the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskRoots {
    /// Number of the pool map; 0 before the first.
    pub map_number: u64,
    /// The pool map.
    pub map: Bytes,
    /// The checkpoint root; empty before the first.
    pub checkpoint: Bytes,
}

/// One disk that keeps journal segments, and the roots by which they are
/// found.
#[async_trait]
pub trait JournalDisk: Send + Sync + 'static {
    /// Which disk this is.
    fn disk(&self) -> DiskId;

    /// What it knows. Changes nothing and needs no epoch.
    async fn standing(&self) -> Result<JournalStanding, StoreError>;

    /// Accepts a higher epoch, durably; a repeat is done.
    async fn raise(&self, ctx: &CallContext) -> Result<(), StoreError>;

    /// Writes `bytes`, whole pages, at the start of a zeroed file and makes
    /// them durable: one write, one sync. A repeat of the last `begin` with
    /// the same bytes is done and names the same file.
    async fn begin(&self, ctx: &CallContext, bytes: Bytes) -> Result<JournalFile, StoreError>;

    /// Writes `bytes`, whole pages, at the exact end of a file and makes them
    /// durable. A repeat of the last append with the same bytes is done.
    /// `NoHandle` if the file was not begun since the disk was opened, or
    /// another epoch began it: its end is not known. `NoSpace` if the file
    /// would be longer than a segment may be.
    async fn append(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError>;

    /// The files, by number. What an unclean stop may have left in caches was
    /// made durable before.
    async fn files(&self, ctx: &CallContext) -> Result<Vec<ListedJournalFile>, StoreError>;

    /// Bytes of a file as the medium has them, never as a cache shows them;
    /// fewer than `len` only at the file's end.
    async fn read(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StoreError>;

    /// Removes files; unknown ones are done.
    async fn remove(&self, ctx: &CallContext, files: &[JournalFile]) -> Result<(), StoreError>;

    /// What the root record keeps. Changes nothing and needs no epoch.
    async fn roots(&self) -> Result<DiskRoots, StoreError>;

    /// Replaces the pool map, durably, by one of the same or a higher number;
    /// `BadCall` for a lower one, or one longer than [`MAX_POOL_MAP_BYTES`].
    async fn set_map(&self, ctx: &CallContext, number: u64, map: Bytes) -> Result<(), StoreError>;

    /// Replaces the checkpoint root, durably; `BadCall` for one longer than
    /// [`MAX_CHECKPOINT_ROOT_BYTES`].
    async fn set_checkpoint(&self, ctx: &CallContext, root: Bytes) -> Result<(), StoreError>;
}

impl fmt::Debug for dyn JournalDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalDisk {}", self.disk())
    }
}

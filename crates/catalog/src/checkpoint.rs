//! Checkpoints: copies of the catalog's own files that are kept in the pool
//! (PROTOCOL.md 4).
//!
//! Owns what a checkpoint is to the byte ([`Manifest`], [`CheckpointRoot`],
//! [`Roots`]), which files of a folder belong to it ([`folder`]), and the rows
//! by which the catalog knows the blobs that hold them ([`mod@files`]).
//! Invariants: a file is named by the hash of its content; its blob is known
//! to the catalog before its first byte is sent. Where blobs lie and how they
//! get there is not known here.

pub mod files;
pub mod folder;
mod format;

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shardgate_wire::{ClusterId, CommitNumber, DiskId, LineageId};
use thiserror::Error;

pub use files::CheckpointFile;
pub use format::{CheckpointFormatError, MAX_MANIFEST_BYTES};

use crate::engine::log::ChainPosition;
use crate::model::{BlobRef, UnixMillis};

/// Most checkpoints that a root record names.
pub const KEPT: usize = 2;

/// SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// A blob that holds a file, and the disks that had its shards when it became
/// durable: where to look first, never where alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// The blob.
    pub blob: BlobRef,
    /// The disk of each shard, in order.
    pub disks: Vec<DiskId>,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileContent {
    /// Here.
    Inline(Vec<u8>),
    /// In the pool.
    Stored(StoredFile),
}

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// What it is called in its folder ([`folder::is_file_name`]).
    pub name: String,
    /// Length, bytes.
    pub len: u64,
    /// Hash of its content.
    pub hash: ContentHash,
    /// Its bytes.
    pub content: FileContent,
}

/// Everything of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The cluster.
    pub cluster: ClusterId,
    /// The history that it is of.
    pub lineage: LineageId,
    /// The last commit in it, and the chain hash there.
    pub position: ChainPosition,
    /// Its files, in order of name.
    pub files: Vec<ManifestFile>,
}

impl Manifest {
    /// The files that lie in the pool.
    pub fn stored(&self) -> impl Iterator<Item = (&ManifestFile, &StoredFile)> {
        self.files.iter().filter_map(|file| match &file.content {
            FileContent::Stored(stored) => Some((file, stored)),
            FileContent::Inline(_) => None,
        })
    }

    /// Bytes of all its files.
    pub fn len_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.len).sum()
    }
}

/// By what a checkpoint is found: it lies outside of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRoot {
    /// The cluster.
    pub cluster: ClusterId,
    /// The history that it is of.
    pub lineage: LineageId,
    /// The last commit in it, and the chain hash there.
    pub position: ChainPosition,
    /// When it was taken. Orders nothing.
    pub taken: UnixMillis,
    /// Its manifest.
    pub manifest: StoredFile,
    /// Hash of the manifest's bytes.
    pub manifest_hash: ContentHash,
}

/// A checkpoint that is older than one that is kept: the disks name one of
/// another history.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a checkpoint at commit {taken} was taken, and the disks name one at commit {newest}")]
pub struct Backward {
    /// The commit of the newest that is kept.
    pub newest: CommitNumber,
    /// The commit of the one that was taken.
    pub taken: CommitNumber,
}

/// The checkpoints that are kept, the newest first; at most [`KEPT`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(Vec<CheckpointRoot>);

impl Roots {
    /// All of them, the newest first.
    pub fn all(&self) -> &[CheckpointRoot] {
        &self.0
    }

    /// The newest.
    pub fn newest(&self) -> Option<&CheckpointRoot> {
        self.0.first()
    }

    /// The commit up to which no record of the journal is needed: that of the
    /// older one of two.
    pub fn journal_from(&self) -> Option<CommitNumber> {
        let older = self.0.get(KEPT - 1)?;
        Some(older.position.number)
    }

    /// With a newer one, without the oldest where there were two.
    ///
    /// # Errors
    /// It is older than the newest.
    pub fn with(&self, newer: CheckpointRoot) -> Result<Self, Backward> {
        let taken = newer.position.number;
        match self.newest().map(|root| root.position.number) {
            Some(newest) if newest > taken => Err(Backward { newest, taken }),
            _ => {
                let kept = self.0.iter().take(KEPT - 1).cloned();
                Ok(Self(std::iter::once(newer).chain(kept).collect()))
            }
        }
    }

    /// Those of them that are among these.
    #[must_use]
    pub fn only(&self, these: &[CheckpointRoot]) -> Self {
        let kept = self.0.iter().filter(|root| these.contains(root));
        Self(kept.cloned().collect())
    }

    /// By what they are in order of age: the number of the newest decides,
    /// then that of the older.
    pub fn order(&self) -> Vec<(CommitNumber, UnixMillis)> {
        let of = self.0.iter();
        of.map(|root| (root.position.number, root.taken)).collect()
    }

    /// Whether it is newer than another, by [`Self::order`].
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.order() > other.order()
    }
}

#[cfg(test)]
mod tests;

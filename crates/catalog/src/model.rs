//! The rows of the catalog, as the rest of the program sees them.
//!
//! Lean where listings read them: [`VersionRow`] holds what a listing shows
//! and what a read of one blob needs; the rest has rows of its own, keyed by
//! the version's [`VersionUid`].

mod note;
mod pool;

use serde::{Deserialize, Serialize};
use shardgate_wire::{BlobId, BlobLayout, BucketIncarnation, GroupId, VersionUid};

pub use note::{NotePayload, NoteRow};
pub use pool::{
    ClassRow, ClusterRow, DiskRow, DiskState, GroupRow, GroupState, Hold, HoldReason, InstanceRow,
    LineageRow, OwedRow,
};

/// Milliseconds since 1970, as S3 shows times.
pub type UnixMillis = u64;

/// A bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketRow {
    /// Which life of the name.
    pub incarnation: BucketIncarnation,
    /// When it was made.
    pub created: UnixMillis,
    /// Access key of the identity that made it.
    pub owner: String,
    /// Whether writes are taken; `Deleting` is expected by no writer.
    pub state: BucketState,
}

/// Whether a bucket takes writes (PROTOCOL.md 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketState {
    /// It does.
    Active,
    /// It is being scanned for emptiness; writers fail their expectation.
    Deleting {
        /// Drawn anew by each deletion, so that the row of one that was given
        /// up is never taken for the row of the next: a scan counts only for
        /// the state it was made under.
        attempt: u64,
    },
}

/// Where the bytes of a version are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// In the catalog, in the inline row of the version's uid.
    Inline,
    /// One blob.
    Blob(BlobRef),
    /// Part rows of the version's uid, this many.
    Parts(u16),
}

/// A blob and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// The group whose slots hold its shards.
    pub group: GroupId,
    /// Its id.
    pub blob: BlobId,
    /// How it is cut.
    pub layout: BlobLayout,
    /// Its length, bytes.
    pub len: u64,
}

/// A checksum that the client asked for, stored and returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredChecksum {
    /// Which.
    pub algorithm: ChecksumAlgorithm,
    /// Over the whole object, or over its parts' checksums.
    pub kind: ChecksumKind,
    /// The raw digest, big-endian (4, 8, 20 or 32 bytes).
    pub digest: Vec<u8>,
}

/// The algorithms of `x-amz-checksum-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC).
    Crc32,
    /// CRC-32C.
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// What a checksum of an object covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChecksumKind {
    /// All its bytes.
    FullObject,
    /// The digests of its parts, one after another.
    Composite,
}

/// The ETag: MD5 of the bytes, or of the parts' MD5s and their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ETag {
    /// The MD5.
    pub md5: [u8; 16],
    /// Number of parts of a multipart object; 0 otherwise.
    pub parts: u16,
}

/// One version of an object: what listings show and reads of one blob need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRow {
    /// Unique for ever; keys the version's other rows.
    pub uid: VersionUid,
    /// Length, bytes.
    pub size: u64,
    /// When it was written, as S3 shows it. Orders nothing.
    pub modified: UnixMillis,
    /// Its ETag.
    pub etag: ETag,
    /// Number of its class in the catalog's table of class names; see
    /// [`ClassRow`].
    pub class: u16,
    /// Where its bytes are.
    pub content: Content,
    /// The checksum, small enough to be here.
    pub checksum: Option<StoredChecksum>,
    /// Whether it is the null version (bucket never versioned, or suspended).
    pub null: bool,
    /// Whether a [`DetailRow`] exists.
    pub has_detail: bool,
}

/// What HEAD and GET return beside the listing's fields. Absent if empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetailRow {
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`, without `aws-chunked`.
    pub content_encoding: Option<String>,
    /// `Content-Disposition`.
    pub content_disposition: Option<String>,
    /// `Content-Language`.
    pub content_language: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`, as given.
    pub expires: Option<String>,
    /// `x-amz-website-redirect-location`.
    pub website_redirect: Option<String>,
    /// `x-amz-meta-*`: name in lower case without the prefix, value. Sorted.
    pub user: Vec<(String, String)>,
}

impl DetailRow {
    /// Whether there is nothing to keep.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One part of a multipart object, by the offset at which it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRow {
    /// Number that the client gave, 1 to 10,000.
    pub number: u16,
    /// Where it starts in the object, bytes.
    pub start: u64,
    /// Its blob; `None` for a part of zero bytes.
    pub blob: Option<BlobRef>,
    /// Length, bytes.
    pub len: u64,
    /// MD5 of its bytes.
    pub md5: [u8; 16],
    /// Its checksum, if any.
    pub checksum: Option<StoredChecksum>,
}

/// A multipart upload that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadRow {
    /// The upload id; becomes the version's uid.
    pub uid: VersionUid,
    /// When it was begun.
    pub initiated: UnixMillis,
    /// Access key of who began it.
    pub owner: String,
    /// Class number.
    pub class: u16,
    /// What the object will have.
    pub detail: DetailRow,
    /// Checksum that the parts must carry, and its kind.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
    /// The group that takes its parts (one object lies in one group where it fits).
    pub group: Option<GroupId>,
}

/// A part of an open upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadPartRow {
    /// 1 to 10,000.
    pub number: u16,
    /// Its blob; `None` for a part of zero bytes.
    pub blob: Option<BlobRef>,
    /// Length, bytes.
    pub len: u64,
    /// MD5 of its bytes.
    pub md5: [u8; 16],
    /// Its checksum, if any.
    pub checksum: Option<StoredChecksum>,
    /// When it was stored.
    pub modified: UnixMillis,
}

/// What a repeated CompleteMultipartUpload is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedRow {
    /// The parts that were asked for: number and MD5, hashed (SHA-256 of the
    /// sequence), so that only the same request is a repeat.
    pub request: [u8; 32],
    /// The object's ETag.
    pub etag: ETag,
    /// Its checksum.
    pub checksum: Option<StoredChecksum>,
    /// When.
    pub completed: UnixMillis,
}

/// What the catalog knows of a blob: the row under `blob/(group, BlobId)`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobState {
    /// It belongs to a version or to a part.
    Owned(BlobRow),
    /// It was condemned before it was ever published, and never will be.
    NeverPublished,
    /// It holds a file of a checkpoint, or is going to.
    Checkpoint(CheckpointBlob),
}

impl BlobState {
    /// How a blob is cut and how long it is, if all its slots are to have
    /// their shards by now or be owed.
    pub fn extent(&self) -> Option<(BlobLayout, u64)> {
        match self {
            Self::Owned(row) => Some((row.layout, row.len)),
            Self::Checkpoint(row) if row.stored => Some((row.layout, row.len)),
            Self::Checkpoint(_) | Self::NeverPublished => None,
        }
    }
}

/// What is known of a blob that holds a checkpoint file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointBlob {
    /// Hash of the file's content.
    pub file: [u8; 32],
    /// How it is cut.
    pub layout: BlobLayout,
    /// Its length, bytes.
    pub len: u64,
    /// Whether all its shards are durable. Until then it is being sent, or
    /// was given up.
    pub stored: bool,
}

/// A file of a checkpoint: the row under `checkpoint-file/(hash, BlobId)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointFileRow {
    /// Its blob.
    pub blob: BlobRef,
    /// As in [`CheckpointBlob`].
    pub stored: bool,
}

/// What a blob belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRow {
    /// The bucket's life.
    pub incarnation: BucketIncarnation,
    /// The key.
    pub key: String,
    /// The version, or the upload that becomes it.
    pub uid: VersionUid,
    /// The part's number; 0 for an object of one blob.
    pub part: u16,
    /// How it is cut.
    pub layout: BlobLayout,
    /// Its length, bytes.
    pub len: u64,
}

/// Why a blob may be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CondemnReason {
    /// The client deleted its object.
    Deleted,
    /// Another object took its key.
    Overwritten,
    /// Its upload was aborted, or completed without it.
    UploadEnded,
    /// Its write failed, or its client left, before it was published.
    NeverPublished,
    /// It held a file that no kept checkpoint needs.
    CheckpointDropped,
}

/// A blob that waits to be purged, in commit order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedRow {
    /// The group.
    pub group: GroupId,
    /// The blob.
    pub blob: BlobId,
    /// How it is cut, so that all its shards are found.
    pub layout: BlobLayout,
    /// Why.
    pub reason: CondemnReason,
}

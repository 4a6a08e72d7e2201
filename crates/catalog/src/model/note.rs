//! What disks are told of blobs (PROTOCOL.md 9): the queue's row, and what a
//! note says.
//!
//! A note says what a shard's header cannot know: as what its blob was
//! published. Together with the headers of all disks notes make a catalog.

use serde::{Deserialize, Serialize};
use shardgate_wire::note::MAX_NOTE_BYTES;
use shardgate_wire::{BlobId, BucketIncarnation, GroupId};

use super::{BlobRef, Content, DetailRow, GroupRow, PartRow, UploadPartRow, UploadRow, VersionRow};
use crate::row::{Damaged, decode, encode};

/// A blob of which a commit said something that its slots are to be told, in
/// the order of commits; or, with no blob, a group. What it is now is looked
/// up when it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoteRow {
    /// The group.
    pub group: GroupId,
    /// The blob.
    pub blob: BlobId,
}

/// What a note of a published blob says. At most
/// [`MAX_NOTE_BYTES`](shardgate_wire::note::MAX_NOTE_BYTES) in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(
    clippy::large_enum_variant,
    reason = "it is made, encoded and dropped; few are alive at once"
)]
pub enum NotePayload {
    /// It is an object, or a part of one.
    Version {
        /// The bucket's life.
        incarnation: BucketIncarnation,
        /// The key.
        key: String,
        /// The version, whole.
        row: VersionRow,
        /// The name of its class.
        class: String,
        /// Its details. `None` where it has none, where they are too long (the
        /// shards' headers have them), and in all parts but the first.
        detail: Option<DetailRow>,
        /// The part that the blob is.
        part: Option<PartRow>,
        /// Behind the part that the blob is: the last one, which has no bytes
        /// and so no blob.
        empty_last: Option<PartRow>,
    },
    /// It is a part of an upload that is open.
    UploadPart {
        /// The bucket's life.
        incarnation: BucketIncarnation,
        /// The key.
        key: String,
        /// The upload. Its details are left out where they are too long: the
        /// shards' headers have them.
        upload: UploadRow,
        /// The name of its class.
        class: String,
        /// The part.
        part: UploadPartRow,
    },
    /// Of no blob ([`NO_BLOB`](shardgate_wire::note::NO_BLOB)): the group's
    /// record, to the disks of its slots.
    Group(GroupRow),
    /// Of no blob and no group: every note of a commit up to this one's that
    /// concerns the disk is on it.
    Mark,
}

impl NotePayload {
    /// The bytes that a disk keeps.
    pub fn encode(&self) -> Vec<u8> {
        let whole = encode(self);
        if whole.len() <= MAX_NOTE_BYTES {
            return whole.to_vec();
        }
        let short = encode(&self.without_detail());
        // Keys have at most 1,024 bytes, names of classes 64, groups 32 slots,
        // the other fields a few hundred.
        assert!(short.len() <= MAX_NOTE_BYTES, "a note without its details");
        short.to_vec()
    }

    /// The blob that it is about; `None`: about none.
    pub fn blob(&self) -> Option<BlobRef> {
        match self {
            Self::Version {
                part: Some(part), ..
            } => part.blob,
            Self::Version { row, .. } => match &row.content {
                Content::Blob(blob) => Some(*blob),
                Content::Inline | Content::Parts(_) => None,
            },
            Self::UploadPart { part, .. } => part.blob,
            Self::Group(_) | Self::Mark => None,
        }
    }

    fn without_detail(&self) -> Self {
        let mut short = self.clone();
        match &mut short {
            Self::Version { detail, .. } => *detail = None,
            Self::UploadPart { upload, .. } => upload.detail = DetailRow::default(),
            Self::Group(_) | Self::Mark => {}
        }
        short
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// The bytes are no note of a known format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        decode(bytes)
    }
}

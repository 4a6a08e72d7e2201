//! What a shard says about itself.
//!
//! A shard lies on its disk with a [`ShardHeader`] that is enough to rebuild
//! the catalog's record of its object (PROTOCOL.md 9), and to know who wrote
//! it and under which rules (epoch, instance, generation, lineage).

use serde::{Deserialize, Serialize};

use crate::ids::{
    BlobId, BucketIncarnation, ClusterId, Epoch, Generation, GroupId, LineageId, VersionUid,
};

/// Names one shard on one disk. Ordered by group, blob, index: the order in
/// which disks list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardKey {
    /// The group whose slot this disk holds.
    pub group: GroupId,
    /// The blob that the shard is a piece of.
    pub blob: BlobId,
    /// Which piece: 0..k' are data, k'..k'+m parity.
    pub index: u8,
}

/// How a blob is cut: k' data and m parity shards (DESIGN.md section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobLayout {
    /// k', at most the scheme's k; 1 means copies.
    pub data: u8,
    /// m, always the scheme's.
    pub parity: u8,
}

/// The object, or the part of an upload, that a blob belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    /// The bucket's name when the blob was written.
    pub bucket: String,
    /// Which life of that name.
    pub incarnation: BucketIncarnation,
    /// The key, literal.
    pub key: String,
    /// The version, or the upload that becomes it.
    pub version: VersionUid,
    /// The part's number, from 1; 0 for an object that is one blob.
    pub part: u16,
    /// Content type, user metadata, tags: the catalog's own encoding,
    /// opaque here. At most 16 KiB.
    pub metadata: Vec<u8>,
}

/// Longest [`ObjectRef::metadata`], bytes.
pub const MAX_METADATA_BYTES: usize = 16 * 1024;

/// The head of every shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardHeader {
    /// The cluster; a disk of another refuses it.
    pub cluster: ClusterId,
    /// The catalog's history under which it was written.
    pub lineage: LineageId,
    /// The epoch, and with it the gateway instance, that wrote it.
    pub epoch: Epoch,
    /// Group, blob and index.
    pub key: ShardKey,
    /// The group's slot that this disk holds.
    pub slot: u8,
    /// The group record's generation.
    pub generation: Generation,
    /// How the blob is cut.
    pub layout: BlobLayout,
    /// Length of the blob in bytes where it was known at the start; the
    /// footer has the true one for all.
    pub blob_len: Option<u64>,
    /// What it belongs to.
    pub object: ObjectRef,
}

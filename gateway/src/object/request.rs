//! What the S3 layer asks of the object path, and what it gets back.
//!
//! Plain data. Names and conditions have been parsed and authorised before;
//! nothing here knows HTTP.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use shardgate_catalog::model::{
    ChecksumAlgorithm, ChecksumKind, DetailRow, ETag, StoredChecksum, UnixMillis,
};
use shardgate_catalog::{BucketRef, WriteCondition};
use shardgate_wire::VersionUid;

use super::error::BodyError;

/// The bytes of a request, in order. `None` comes only after every check of
/// the body (length, signatures of chunks and trailers) was passed: an error
/// in its place means that nothing is stored.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// Gives the checksum that came behind the body; called after its end.
/// `Ok(None)`: the trailer that was announced did not come.
pub type TrailerValue = Arc<dyn Fn() -> Result<Option<Vec<u8>>, BodyError> + Send + Sync>;

/// Where the digest that a body must have is to be found.
#[derive(Clone)]
pub enum ExpectedDigest {
    /// Nowhere: compute it and keep it.
    Unknown,
    /// Known before the body (raw bytes, big-endian).
    Value(Vec<u8>),
    /// Behind the body. That it is missing there is an error.
    Trailer(TrailerValue),
}

impl fmt::Debug for ExpectedDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("Unknown"),
            Self::Value(digest) => write!(f, "Value({})", hex::encode(digest)),
            Self::Trailer(_) => f.write_str("Trailer"),
        }
    }
}

/// A checksum to compute over a body, to compare, and to keep.
#[derive(Clone, Debug)]
pub struct ChecksumRequest {
    /// Which.
    pub algorithm: ChecksumAlgorithm,
    /// What it must be.
    pub expected: ExpectedDigest,
}

/// Store an object.
#[derive(Clone, Debug)]
pub struct PutRequest {
    /// Where.
    pub bucket: BucketRef,
    /// Its key, literal.
    pub key: String,
    /// The storage class's name; `None` is the default class.
    pub class: Option<String>,
    /// Headers and user metadata to keep.
    pub detail: DetailRow,
    /// Length of the body; `None` where it is not known. For a copy it is
    /// not looked at.
    pub len: Option<u64>,
    /// Checksum to verify and keep.
    pub checksum: Option<ChecksumRequest>,
    /// `Content-MD5`.
    pub content_md5: Option<[u8; 16]>,
    /// What must hold at the commit.
    pub condition: WriteCondition,
}

/// An object that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutOutcome {
    /// Its ETag.
    pub etag: ETag,
    /// The checksum that was asked for.
    pub checksum: Option<StoredChecksum>,
    /// Its length, bytes.
    pub size: u64,
    /// Its time as S3 shows it.
    pub modified: UnixMillis,
    /// Its class's number.
    pub class: u16,
}

/// Begin a multipart upload.
#[derive(Clone, Debug)]
pub struct UploadRequest {
    /// Where the object will be.
    pub bucket: BucketRef,
    /// Its key.
    pub key: String,
    /// Access key of who begins it.
    pub owner: String,
    /// The storage class's name; `None` is the default class.
    pub class: Option<String>,
    /// Headers and user metadata of the object.
    pub detail: DetailRow,
    /// The checksum that its parts carry, and what the object's will cover.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

/// Store a part of an upload.
#[derive(Clone, Debug)]
pub struct PartRequest {
    /// The bucket.
    pub bucket: BucketRef,
    /// The object's key.
    pub key: String,
    /// The upload.
    pub upload: VersionUid,
    /// 1 to 10,000.
    pub number: u16,
    /// Length of the body; `None` where it is not known. For a copy it is
    /// not looked at.
    pub len: Option<u64>,
    /// Checksum to verify and keep. Where there is none and the upload has
    /// an algorithm, that one is computed.
    pub checksum: Option<ChecksumRequest>,
    /// `Content-MD5`.
    pub content_md5: Option<[u8; 16]>,
}

/// A part that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOutcome {
    /// MD5 of its bytes: its ETag.
    pub md5: [u8; 16],
    /// Its checksum.
    pub checksum: Option<StoredChecksum>,
    /// Its length, bytes.
    pub size: u64,
    /// When it was stored.
    pub modified: UnixMillis,
}

/// One part that CompleteMultipartUpload names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartChoice {
    /// Its number.
    pub number: u16,
    /// The MD5 in its ETag.
    pub md5: [u8; 16],
    /// Its digest, where the request gives one.
    pub digest: Option<(ChecksumAlgorithm, Vec<u8>)>,
}

/// Make an object of an upload's parts.
#[derive(Clone, Debug)]
pub struct CompleteRequest {
    /// The bucket.
    pub bucket: BucketRef,
    /// The object's key.
    pub key: String,
    /// The upload.
    pub upload: VersionUid,
    /// In the order given.
    pub parts: Vec<PartChoice>,
    /// What the checksum of the object must be, if the request says:
    /// full-object, or composite (digest of the digests).
    pub expected: Option<(ChecksumAlgorithm, ChecksumKind, Vec<u8>)>,
    /// Length that the object must have, if the request says.
    pub expected_size: Option<u64>,
    /// What must hold at the commit.
    pub condition: WriteCondition,
}

/// An upload that was completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteOutcome {
    /// The object's ETag.
    pub etag: ETag,
    /// Its checksum.
    pub checksum: Option<StoredChecksum>,
}

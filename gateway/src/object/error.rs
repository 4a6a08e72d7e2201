//! Why an object call was not done: a variant for each decision that the S3
//! layer makes. Which S3 code each becomes is decided in `s3/error.rs` alone.

use std::error::Error as StdError;

use shardgate_catalog::CatalogError;
use shardgate_catalog::model::ChecksumAlgorithm;
use thiserror::Error;

/// The body of a request broke off or failed its checks. The layer that
/// reads the body knows the source and maps it.
#[derive(Debug, Error)]
#[error("request body: {0}")]
pub struct BodyError(#[source] pub Box<dyn StdError + Send + Sync>);

/// Why an object call was not done.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// No such bucket, or it is being deleted, or it is another by now.
    #[error("no such bucket")]
    NoSuchBucket,
    /// The name is taken.
    #[error("bucket exists, owned by {owner}")]
    BucketExists {
        /// Who owns it.
        owner: String,
    },
    /// It still holds objects or uploads.
    #[error("bucket is not empty")]
    BucketNotEmpty,
    /// No such object.
    #[error("no such key")]
    NoSuchKey,
    /// The upload was never begun, is completed or aborted.
    #[error("no such upload")]
    NoSuchUpload,
    /// The object has no part of this number.
    #[error("no such part")]
    NoSuchPart,
    /// The range lies outside of the object.
    #[error("range outside of the object's {size} bytes")]
    InvalidRange {
        /// Length of the object.
        size: u64,
    },
    /// A condition of the request does not hold.
    #[error("precondition failed")]
    PreconditionFailed,
    /// Another request was first; the client may repeat.
    #[error("another request changed the same record")]
    Conflict,
    /// The body is not what `Content-MD5` says.
    #[error("body does not match its MD5")]
    BadDigest,
    /// The body is not what its checksum says.
    #[error("body does not match its {algorithm:?} checksum")]
    ChecksumMismatch {
        /// Which checksum.
        algorithm: ChecksumAlgorithm,
    },
    /// A checksum that the request announced did not come, or cannot be used.
    #[error("checksum: {what}")]
    BadChecksum {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The body is shorter or longer than was declared.
    #[error("body of {received} bytes, {declared} declared")]
    IncompleteBody {
        /// By the request's head.
        declared: u64,
        /// What came (at least).
        received: u64,
    },
    /// The body or the object is longer than S3 allows.
    #[error("more than {limit_bytes} bytes")]
    EntityTooLarge {
        /// What is allowed.
        limit_bytes: u64,
    },
    /// A part but the last is shorter than S3 allows.
    #[error("part {number} is too small")]
    EntityTooSmall {
        /// Which part.
        number: u16,
    },
    /// A part that is asked for is not there, or has another ETag.
    #[error("part {number} is not as asked for")]
    InvalidPart {
        /// Which part.
        number: u16,
    },
    /// The parts asked for do not ascend.
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    /// The parts asked for are none, or more than 10,000.
    #[error("number of parts")]
    InvalidPartCount,
    /// The object's metadata is longer than a shard's header takes.
    #[error("metadata of more than {limit_bytes} bytes")]
    MetadataTooLarge {
        /// What is allowed.
        limit_bytes: usize,
    },
    /// The storage class is not configured.
    #[error("unknown storage class")]
    UnknownClass,
    /// The memory budget did not have room in time; the client should
    /// repeat later.
    #[error("out of buffers, slow down")]
    SlowDown,
    /// Too few shards became durable.
    #[error("{acked} shards durable, {needed} needed")]
    QuorumLost {
        /// Durable shards.
        acked: usize,
        /// What the quorum is.
        needed: usize,
    },
    /// Too many shards are missing or corrupt to give the bytes back.
    #[error("unreadable: {why}")]
    Unreadable {
        /// Which shards, and why.
        why: String,
    },
    /// No disk has space for it.
    #[error("no space")]
    NoSpace,
    /// Another gateway has taken over: this one answers nothing more.
    #[error("another gateway has taken over")]
    Fenced,
    /// Not possible now; the client may repeat.
    #[error("unavailable: {why}")]
    Unavailable {
        /// Why.
        why: String,
    },
    /// A record of the catalog is damaged.
    #[error("damaged record: {why}")]
    Damaged {
        /// Which, and how.
        why: String,
    },
    /// The request's body failed.
    #[error(transparent)]
    Body(#[from] BodyError),
}

impl From<CatalogError> for ObjectError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Conflict => Self::Conflict,
            CatalogError::NoSuchBucket => Self::NoSuchBucket,
            CatalogError::BucketExists { owner } => Self::BucketExists { owner },
            CatalogError::BucketNotEmpty => Self::BucketNotEmpty,
            CatalogError::NoSuchKey => Self::NoSuchKey,
            CatalogError::NoSuchUpload => Self::NoSuchUpload,
            CatalogError::InvalidPart { number } => Self::InvalidPart { number },
            CatalogError::InvalidPartOrder => Self::InvalidPartOrder,
            CatalogError::EntityTooSmall { number } => Self::EntityTooSmall { number },
            CatalogError::PreconditionFailed => Self::PreconditionFailed,
            CatalogError::NoSuchGroup => Self::Damaged {
                why: "a blob's group has no record".into(),
            },
            CatalogError::GroupMoved { .. } => Self::Unavailable {
                why: "the group moved while it was written".into(),
            },
            CatalogError::TooLarge { .. } | CatalogError::Unavailable { .. } => Self::Unavailable {
                why: error.to_string(),
            },
            CatalogError::Damaged { why } => Self::Damaged { why },
        }
    }
}

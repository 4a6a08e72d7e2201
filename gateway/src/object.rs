//! The data path: from a request's body to shards and a commit, and back.
//!
//! Owns the order of a write (digests, coding, shards, quorum, commit), the
//! plan and the verification of a read, the memory that both may take, and
//! the purge of condemned blobs. Invariants: a write is answered only when a
//! quorum of its shards is durable and its commit too; no byte leaves that
//! was not checked against its block's checksum; nothing is deleted that no
//! commit condemned. It does not know S3's names and codes, does not choose
//! disks (`pool`), and keeps no metadata (`shardgate_catalog`).

pub mod error;
pub mod ports;
pub mod request;

pub use error::{BodyError, ObjectError};
pub use request::{
    BodyStream, BucketAt, ChecksumRequest, CompleteOutcome, CompleteRequest, ExpectedDigest,
    PartChoice, PartOutcome, PartRequest, PutOutcome, PutRequest, TrailerValue, UploadRequest,
    WriteCondition,
};

//! The data path: from a request's body to shards and a commit, and back.
//!
//! Owns the order of a write (digests, coding, shards, quorum, commit), the
//! plan and the verification of a read, the memory that both may take, and
//! the purge of condemned blobs. Invariants: a write is answered only when a
//! quorum of its shards is durable and its commit too; no byte leaves that
//! was not checked against its block's checksum; nothing is deleted that no
//! commit condemned. It does not know S3's names and codes, does not choose
//! disks (`pool`), and keeps no metadata (`shardgate_catalog`).

mod abandon;
mod admission;
mod budget;
mod buffers;
mod calls;
mod catalog_room;
mod commit;
mod core;
mod digest;
pub mod error;
mod fetch;
mod forget;
pub mod get;
mod hedge;
mod in_flight;
mod intake;
pub mod keep;
mod lane;
pub mod mend;
pub mod metrics;
pub mod multipart;
mod notes;
mod open_reads;
mod plan;
pub mod ports;
mod purge;
mod put;
mod quorum;
mod reading;
pub mod rebuild;
mod reclaim;
pub mod repairs;
pub mod request;
pub mod service;
pub mod settings;
mod store;
mod stripe;
mod writer;

pub use catalog_room::CatalogRoom;
pub use error::{BodyError, ObjectError};
pub use get::{ObjectHandle, ReadStream};
pub use metrics::ObjectMetrics;
pub use notes::NotesStanding;
pub use reclaim::Reclaiming;
pub use request::{
    BodyStream, ChecksumRequest, CompleteOutcome, CompleteRequest, ExpectedDigest, PartChoice,
    PartOutcome, PartRequest, PutOutcome, PutRequest, TrailerValue, UploadRequest,
};
pub use service::{ObjectParts, ObjectService};
pub use settings::ObjectSettings;
pub use shardgate_catalog::{BucketRef as BucketAt, DeleteCondition, WriteCondition};

#[cfg(test)]
pub(crate) mod tests;

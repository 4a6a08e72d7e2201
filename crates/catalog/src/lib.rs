//! The metadata of a cluster: buckets, versions, uploads, groups, disks.
//!
//! Owns: the ordered key-value [`engine`], the rows ([`model`]) and the typed
//! [`Catalog`] written once above every engine. Invariant: `Engine::commit` is
//! the only linearisation point. It knows nothing of shards, disks' contents
//! or S3's wire forms.

mod bucket_cache;
mod buckets;
mod catalog;
pub mod checkpoint;
mod cluster;
mod collect;
mod complete;
mod delete;
mod draft;
pub mod engine;
mod error;
mod keys;
mod lineage;
mod listing;
pub mod model;
mod notes;
mod objects;
mod owed;
mod pool;
mod publish;
pub mod rebuild;
mod row;
mod turns;
mod uploads;

pub use buckets::{BucketRef, NamedBucket};
pub use catalog::Catalog;
pub use collect::{Condemned, CondemnedCursor, CondemnedPage};
pub use complete::{CompleteFinish, CompletePart, CompleteRequest, Completed, MIN_PART_BYTES};
pub use delete::DeleteCondition;
#[cfg(feature = "rocksdb")]
pub use engine::RocksOptions as CatalogOptions;
pub use error::{CatalogError, Result};
pub use lineage::NewLineage;
pub use listing::{
    ListEntry, ListFrom, ListPage, ListQuery, UploadEntry, UploadsFrom, UploadsPage, UploadsQuery,
};
pub use notes::{NotePlace, WaitingNote, WaitingNotes};
pub use objects::ObjectRead;
pub use owed::Reopen;
pub use publish::{MAX_INLINE_BYTES, Publish, PublishBody, Published, WriteCondition, WrittenBlob};

//! What gateways and agents say to each other, and the words both use.
//!
//! Owns: ids ([`ids`]), the header that makes a shard self-describing
//! ([`shard`]), the [`ShardStore`](store::ShardStore) trait that a local disk
//! and a disk behind an agent both implement, its errors, and the checksum
//! of a block ([`checksum`]). Does not do I/O.

pub mod checksum;
pub mod disk;
pub mod ids;
pub mod shard;
pub mod store;

pub use disk::{DiskHealth, DiskIdentity, Medium, SlotAssignment};
pub use ids::{
    AgentId, BlobId, BucketIncarnation, ClusterId, CommitNumber, DiskId, Epoch, Generation,
    GroupId, InstanceId, LineageId, VersionUid,
};
pub use shard::{BlobLayout, ObjectRef, ShardHeader, ShardKey};
pub use store::{CallContext, ShardStore, StoreError};

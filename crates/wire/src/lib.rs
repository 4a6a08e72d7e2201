//! What gateways and agents say to each other, and the words both use.
//!
//! Owns: ids ([`ids`]), the header that makes a shard self-describing
//! ([`shard`]), whose write may take which space of a disk ([`space`]), the
//! [`ShardStore`] trait that a local disk
//! and a disk behind an agent both implement, its errors, the bounds of its
//! calls ([`bounds`]), the checksum of a block ([`checksum`]); the calls
//! between gateways and agents ([`message`]), how those lie in bodies
//! ([`frame`], [`frame_body`]) and who may make them ([`mac`],
//! [`mac_replay`]). Does not do I/O. With the feature `testing`: a store in
//! memory and the suite that every store must pass.

pub mod bounds;
pub mod check;
pub mod checksum;
#[cfg(feature = "testing")]
pub mod conformance;
pub mod disk;
pub mod frame;
pub mod frame_body;
pub mod ids;
pub mod journal;
#[cfg(feature = "testing")]
pub mod journal_conformance;
pub mod log_filter;
pub mod mac;
pub mod mac_replay;
#[cfg(feature = "testing")]
pub mod memory_store;
pub mod message;
pub mod message_journal;
pub mod message_notes;
pub mod note;
pub mod operator_token;
pub mod secret_file;
pub mod shard;
pub mod slots;
pub mod space;
pub mod store;

pub use check::{CheckCursor, CheckPage, Checked, DamagedShard, Finding, ScrubStanding};
pub use disk::{DiskHealth, DiskIdentity, Medium, SlotAssignment};
pub use ids::{
    AgentId, BlobId, BucketIncarnation, ClusterId, CommitNumber, DiskId, Epoch, Generation,
    GroupId, InstanceId, LineageId, VersionUid,
};
pub use note::{BlobNote, NoteCursor, NoteOrder, NotePage, NoteState};
pub use shard::{BlobLayout, ObjectRef, ShardHeader, ShardKey};
pub use space::{DiskRoom, Purpose};
pub use store::{CallContext, ShardStore, StoreError};

//! What the object path asks of the pool.
//!
//! Owns [`Disks`], the seam between the data path and the runtime state of
//! disks and groups: the pool implements it, tests have one of their own.
//! Invariant: nothing here chooses; the pool says which group, which disk and
//! how late is late.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardgate_catalog::model::{BlobRef, GroupRow};
use shardgate_erasure::{Layout, Scheme, slot_of};
use shardgate_wire::{
    CallContext, DiskId, GroupId, Medium, ShardKey, ShardStore, SlotAssignment, StoreError,
};

use super::error::ObjectError;

/// A class as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassChoice {
    /// Number in the catalog.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// What its objects get where enough disks live.
    pub scheme: Scheme,
    /// On which medium, if it matters.
    pub medium: Option<Medium>,
}

/// A group with what writes and reads need of it.
#[derive(Clone, Debug)]
pub struct GroupView {
    /// Its record.
    pub row: GroupRow,
    /// Its scheme.
    pub scheme: Scheme,
    /// The server of each slot, as numbers that are equal for equal servers.
    pub servers: Vec<u16>,
}

impl GroupView {
    /// The slot of a blob's shard.
    pub fn slot(&self, blob: &BlobRef, shard: u8) -> u8 {
        slot_of(
            blob.blob.placement_hash(),
            shard,
            self.row.slots.len() as u8,
        )
    }

    /// The disk of a blob's shard.
    pub fn disk(&self, blob: &BlobRef, shard: u8) -> DiskId {
        self.row.slots[usize::from(self.slot(blob, shard))]
    }

    /// What a shard is called on its disk.
    pub fn key(&self, blob: &BlobRef, shard: u8) -> ShardKey {
        ShardKey {
            group: self.row.id,
            blob: blob.blob,
            index: shard,
        }
    }

    /// What the disk of a slot must be told before it takes its shards.
    pub fn assignment(&self, slot: u8) -> SlotAssignment {
        SlotAssignment {
            group: self.row.id,
            slot,
            generation: self.row.generation,
        }
    }
}

/// The layout of a blob from its record.
///
/// # Errors
/// The record is damaged: no such layout.
pub fn layout_of(blob: &BlobRef) -> Result<Layout, ObjectError> {
    Layout::new(blob.layout.data, blob.layout.parity).map_err(|error| ObjectError::Damaged {
        why: format!("layout of blob {}: {error}", blob.blob),
    })
}

/// What kind of call is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// Bytes were read.
    Read,
    /// Bytes were written.
    Write,
    /// Bytes were made durable.
    Sync,
}

/// How a call to a disk went.
#[derive(Clone, Copy, Debug)]
pub enum CallReport<'a> {
    /// It answered.
    Done {
        /// What it did.
        kind: CallKind,
        /// In what time.
        took: Duration,
        /// With how many bytes.
        bytes: usize,
    },
    /// It failed.
    Failed(&'a StoreError),
    /// It was not waited for any longer.
    Late,
}

/// The pool, as the data path sees it.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// What every call carries.
    fn context(&self) -> CallContext;

    /// Every disk of the pool that is not declared lost.
    fn disks(&self) -> Vec<DiskId>;

    /// The disk itself; `None` if the pool does not have it now.
    fn store(&self, disk: DiskId) -> Option<Arc<dyn ShardStore>>;

    /// Whether the disk takes new writes now.
    fn is_living(&self, disk: DiskId) -> bool;

    /// Whether its slots need not be waited for any more: declared lost.
    fn is_lost_for_good(&self, disk: DiskId) -> bool;

    /// Takes note of how a call went.
    fn report(&self, disk: DiskId, report: CallReport<'_>);

    /// After how long a read of this size is raced.
    fn hedge_delay(&self, medium: Medium, bytes: usize) -> Duration;

    /// The longest shard of a shortened code on this medium.
    fn shard_target(&self, medium: Medium) -> u64;

    /// A class by its name; `None` is the default class.
    async fn class(&self, name: Option<&str>) -> Result<ClassChoice, ObjectError>;

    /// A class by its number.
    async fn class_by_number(&self, number: u16) -> Result<ClassChoice, ObjectError>;

    /// A group that can take a blob of this length now.
    async fn group_for_write(
        &self,
        class: &ClassChoice,
        len: Option<u64>,
        prefer: Option<GroupId>,
    ) -> Result<Arc<GroupView>, ObjectError>;

    /// A group for a blob of this length that is to be as safe as any, all of
    /// whose disks live; a narrow one if it must.
    async fn group_for_keeping(&self, len: u64) -> Result<Arc<GroupView>, ObjectError>;

    /// The group of a stored blob.
    async fn group(&self, id: GroupId) -> Result<Arc<GroupView>, ObjectError>;

    /// A disk holds another generation of a slot: tell it the one of the
    /// catalog, if that is newer.
    async fn stale_generation(&self, group: GroupId) -> Result<(), ObjectError>;
}

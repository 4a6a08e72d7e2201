//! Rows about the pool: the cluster, its disks, groups, classes and the
//! gateways that ran.

use serde::{Deserialize, Serialize};
use shardgate_wire::{
    AgentId, BlobId, ClusterId, DiskId, Epoch, Generation, GroupId, InstanceId, LineageId, Medium,
};

use super::UnixMillis;

/// The cluster: one row, written by `init` and by each start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// Its id, for ever.
    pub cluster: ClusterId,
    /// Its history (PROTOCOL.md 7).
    pub lineage: LineageId,
    /// The highest epoch that was begun.
    pub epoch: Epoch,
    /// When it was made.
    pub created: UnixMillis,
}

/// Shards of a (group, slot) that blobs were acknowledged without
/// (PROTOCOL.md 5). Counts for every blob of the group from `lowest` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedRow {
    /// The lowest BlobId that may lack the slot.
    pub lowest: BlobId,
    /// Set, to a number drawn anew each time, while full lists are compared
    /// in order to close the row; a commit that lacks the slot clears it, and
    /// so makes that comparison void.
    pub comparing: Option<u64>,
}

/// A placement group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Its id.
    pub id: GroupId,
    /// Raised whenever a slot moves.
    pub generation: Generation,
    /// k of its scheme.
    pub data: u8,
    /// m of its scheme.
    pub parity: u8,
    /// The medium of all its disks.
    pub medium: Medium,
    /// The disk of each slot.
    pub slots: Vec<DiskId>,
    /// Whether it takes writes.
    pub state: GroupState,
    /// Whether it is narrower than its class asks, for lack of living disks;
    /// its blobs are widened later (PROTOCOL.md 5).
    pub narrow: bool,
    /// Bytes that each of its slots was given, when this was last noted: it
    /// lags behind, and decides only when the group is sealed.
    pub slot_bytes: u64,
}

/// Whether a group takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupState {
    /// It does.
    Open,
    /// Full: deletes only.
    Sealed,
}

/// A class of objects: its name and what its objects get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassRow {
    /// The number that version rows carry; never reused.
    pub number: u16,
    /// As in `x-amz-storage-class`.
    pub name: String,
}

/// A disk of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRow {
    /// Its id.
    pub id: DiskId,
    /// The agent that had it last; `None` for a disk of the gateway itself.
    pub agent: Option<AgentId>,
    /// Its folder there.
    pub path: String,
    /// Its server's name (a failure domain).
    pub server: String,
    /// Its site's name.
    pub site: String,
    /// Its medium.
    pub medium: Medium,
    /// What the operator declared.
    pub state: DiskState,
}

/// What is known of a disk for good; what is true at the moment is health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskState {
    /// Part of the pool.
    Member,
    /// Declared lost for good by the operator; never taken back.
    Lost,
}

/// A run of a gateway, for the collection of orphans (PROTOCOL.md 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// Which.
    pub instance: InstanceId,
    /// Its epoch's number.
    pub epoch: u64,
    /// Whether a commit retired it: nothing of it is in flight any more.
    pub retired: bool,
}

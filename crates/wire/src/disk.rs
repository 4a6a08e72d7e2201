//! Disks as the pool sees them: identity, medium, health.

use serde::{Deserialize, Serialize};

use crate::check::ScrubStanding;
use crate::ids::{ClusterId, CommitNumber, DiskId, Epoch, Generation, GroupId, LineageId};
use crate::space::DiskRoom;

/// What kind of device a disk is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Medium {
    /// Seeks cost milliseconds.
    Rotating,
    /// Seeks are free.
    Flash,
}

/// Who a disk is: written once, when it is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskIdentity {
    /// The cluster it belongs to for ever.
    pub cluster: ClusterId,
    /// Its own id.
    pub disk: DiskId,
    /// Found from the kernel when it was formatted, or given.
    pub medium: Medium,
}

/// What a disk is worth to placement and to the operator now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskHealth {
    /// Who it is.
    pub identity: DiskIdentity,
    /// The highest epoch it accepted.
    pub epoch: Epoch,
    /// The lineage and the highest commit number that it was told.
    pub told: (LineageId, CommitNumber),
    /// Size of its file system, bytes.
    pub capacity_bytes: u64,
    /// Bytes that shards of clients may still take.
    pub free_bytes: u64,
    /// What each may still take, clients too.
    pub room: DiskRoom,
    /// `st_dev` of its folder: equal numbers on one server share `free_bytes`
    /// and a fate.
    pub device: u64,
    /// Calls that wait for it or are in it.
    pub queued: u32,
    /// Median latency of its recent calls, microseconds.
    pub p50_us: u32,
    /// 99th percentile of the same.
    pub p99_us: u32,
    /// Calls that failed by the disk's fault, and damage that was found, since
    /// it was opened.
    pub errors: u64,
    /// Shards that it knows to be damaged.
    pub damaged: u32,
    /// How far it is in reading everything that it keeps.
    pub scrub: ScrubStanding,
    /// Why it refuses writes, if it does.
    pub fenced: Option<String>,
}

/// A disk is told which slots it holds, and of which generation, before a
/// shard of that group is written to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotAssignment {
    /// The group.
    pub group: GroupId,
    /// Its slot that lies on this disk.
    pub slot: u8,
    /// The record's generation; a lower one than held is refused.
    pub generation: Generation,
}

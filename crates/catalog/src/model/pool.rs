//! Rows about the pool: the cluster, its disks, groups, classes and the
//! gateways that ran.

use serde::{Deserialize, Serialize};
use shardgate_wire::{
    AgentId, BlobId, ClusterId, CommitNumber, DiskId, Epoch, Generation, GroupId, InstanceId,
    LineageId, Medium,
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

/// Which history the catalog continues (PROTOCOL.md 7). There is none before
/// the first change of lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageRow {
    /// The one that it has, as in the [`ClusterRow`].
    pub lineage: LineageId,
    /// The epoch in which it was taken; 0 for the first one. Orders the
    /// commits of different lineages.
    pub history: u64,
    /// Those before, the newest first, and the last commit of each that is
    /// known of; at most [`LineageRow::KEPT`].
    pub before: Vec<(LineageId, CommitNumber)>,
    /// Why nothing is reclaimed, while that is so.
    pub hold: Option<Hold>,
}

impl LineageRow {
    /// Lineages that are remembered.
    pub const KEPT: usize = 16;

    /// A catalog that has had one lineage only.
    pub fn first(lineage: LineageId) -> Self {
        Self {
            lineage,
            history: 0,
            before: Vec::new(),
            hold: None,
        }
    }
}

/// Nothing is reclaimed until the operator has seen what that would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when.
    pub since: UnixMillis,
    /// Why; at most [`Hold::REASONS`].
    pub why: Vec<HoldReason>,
}

impl Hold {
    /// Reasons that are remembered.
    pub const REASONS: usize = 64;
}

/// Why the catalog may know less than the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldReason {
    /// Journal disks were named lost, and what they alone had is not known.
    JournalIncomplete,
    /// A disk was told of more commits than the catalog has.
    DiskKnowsMore {
        /// Which.
        disk: DiskId,
        /// Up to which.
        told: CommitNumber,
        /// What the catalog had.
        committed: CommitNumber,
    },
    /// A disk was told of a lineage that the catalog never had.
    OtherLineage {
        /// Which disk.
        disk: DiskId,
        /// Which lineage.
        lineage: LineageId,
    },
    /// The catalog was rebuilt from the disks.
    Rebuilt {
        /// Every commit up to this one is in it.
        vouched: CommitNumber,
        /// The last commit that is known to have been.
        last: CommitNumber,
    },
    /// What a rebuild itself condemned, by commits up to this one: no disk is
    /// told that it was deleted before the hold ends.
    Decided {
        /// Up to which commit.
        through: CommitNumber,
    },
}

impl Hold {
    /// Up to which commit disks are not told what was condemned.
    pub fn decided(&self) -> Option<CommitNumber> {
        let through = self.why.iter().filter_map(|why| match why {
            HoldReason::Decided { through } => Some(*through),
            _ => None,
        });
        through.max()
    }
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

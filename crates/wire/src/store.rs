//! The calls that a disk answers, local or behind an agent.
//!
//! Invariant: no call and no handle is bound to a client. A handle is an id
//! in the store; whoever has it may append at an offset, and an idle one ends
//! by itself. Every call that changes something carries a [`CallContext`] and
//! is refused if its epoch is not the disk's (PROTOCOL.md 1) or its
//! generation not the slot's (PROTOCOL.md 6).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::check::{CheckCursor, CheckPage, DamagedShard};
use crate::disk::{DiskHealth, SlotAssignment};
use crate::ids::{BlobId, ClusterId, CommitNumber, DiskId, Epoch, GroupId, LineageId};
use crate::note::{BlobNote, NoteCursor, NotePage};
use crate::shard::{ShardHeader, ShardKey};
use crate::space::Purpose;

/// Most bytes of one append: a stripe's block.
pub const MAX_APPEND_BYTES: usize = 256 * 1024;
/// Most bytes that one read returns.
pub const MAX_READ_BYTES: usize = 1024 * 1024;
/// Most bytes of a shard that goes by [`ShardStore::put`].
pub const MAX_PUT_BYTES: usize = 256 * 1024;
/// Most bytes of a shard: its footer stays under 1 MiB. A blob is at most one
/// part of an upload or one single put, 5 GiB.
pub const MAX_SHARD_BYTES: u64 = 8 * 1024 * 1024 * 1024;
/// Most slots that one disk holds.
pub const MAX_SLOTS: usize = 65_536;
/// Most entries of one [`ShardStore::list`] or [`ShardStore::delete`] call.
pub const MAX_BATCH: usize = 1000;

/// Who calls, and on behalf of what state of the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallContext {
    /// The cluster that the caller belongs to.
    pub cluster: ClusterId,
    /// The caller's epoch and instance.
    pub epoch: Epoch,
    /// The catalog's lineage.
    pub lineage: LineageId,
    /// A commit number that is durable; disks remember the highest.
    pub committed: CommitNumber,
    /// What shards are written for: which space they may take.
    pub purpose: Purpose,
}

impl CallContext {
    /// The same caller, who writes for another purpose.
    #[must_use]
    pub fn for_purpose(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }
}

/// An open shard that is being written. Unique in the life of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShardHandle(pub u64);

/// A small shard, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallShard {
    /// Its head.
    pub header: ShardHeader,
    /// True length of the blob, bytes.
    pub blob_len: u64,
    /// Its bytes, at most [`MAX_PUT_BYTES`].
    pub bytes: Bytes,
    /// One per 64 KiB block of `bytes`.
    pub crcs: Vec<u32>,
}

/// How a shard ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEnd {
    /// Bytes of the shard: what the appends must have covered.
    pub shard_len: u64,
    /// True length of the blob, bytes.
    pub blob_len: u64,
}

/// Bytes of a shard from a multiple of 64 KiB on, with their checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardBytes {
    /// The bytes.
    pub bytes: Bytes,
    /// One per 64 KiB block.
    pub crcs: Vec<u32>,
}

/// What is known of a stored shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStat {
    /// Its head as written.
    pub header: ShardHeader,
    /// Length of the shard and of the blob; `None` while it was never
    /// finished (its gateway died, or still writes).
    pub end: Option<ShardEnd>,
}

/// One entry of a disk's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedShard {
    /// Which shard.
    pub key: ShardKey,
    /// Bytes that it takes on the disk.
    pub disk_bytes: u64,
    /// Whether it was finished.
    pub finished: bool,
}

/// Why a call was not done. A variant for each decision that callers make.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum StoreError {
    /// The disk answers, and does not have the shard.
    #[error("no such shard")]
    NotFound,
    /// The shard is there, and these bytes of it are not what was written.
    #[error("corrupt shard: {what}")]
    Corrupt {
        /// What does not match.
        what: String,
    },
    /// A gateway with a newer epoch has taken over.
    #[error("epoch {} of another gateway is in force", held.number)]
    StaleEpoch {
        /// The epoch that the disk accepted.
        held: Epoch,
    },
    /// The slot is not this disk's, or of another generation.
    #[error("slot is held in generation {held:?}")]
    StaleGeneration {
        /// What the disk holds for that group, if anything.
        held: Option<SlotAssignment>,
    },
    /// The call is for another disk or another cluster.
    #[error("not this disk: {what}")]
    WrongDisk {
        /// What does not match.
        what: String,
    },
    /// The disk takes no writes until it is checked and reopened.
    #[error("disk is fenced: {why}")]
    Fenced {
        /// Why.
        why: String,
    },
    /// The disk is lost: its folder is gone, or another disk is there.
    #[error("disk is lost: {why}")]
    Lost {
        /// Why.
        why: String,
    },
    /// No space for this shard, of the space that its purpose may take.
    #[error("no space")]
    NoSpace,
    /// The disk's queue is full; later it may take the call.
    #[error("busy")]
    Busy,
    /// The store does not know the handle (it restarted, or the handle idled).
    #[error("no such handle")]
    NoHandle,
    /// The append does not begin where the shard ends.
    #[error("append at {given}, shard ends at {expected}")]
    WrongOffset {
        /// The shard's end.
        expected: u64,
        /// The append's offset.
        given: u64,
    },
    /// Another shard is already stored under this key.
    #[error("shard exists with other bytes")]
    Exists,
    /// The call breaks a bound or contradicts itself.
    #[error("bad call: {what}")]
    BadCall {
        /// What is wrong.
        what: String,
    },
    /// No answer within the time that the caller gave.
    #[error("no answer in {0:?}")]
    TimedOut(Duration),
    /// The agent cannot be reached, or the connection broke.
    #[error("unreachable: {why}")]
    Unreachable {
        /// Why.
        why: String,
    },
    /// The operating system refused.
    #[error("{what}: {why}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        why: String,
    },
    /// A later version of the program wrote the shard: it is neither absent
    /// nor damaged, and not to be written over.
    #[error("shard of a later version: {what}")]
    LaterVersion {
        /// What is of one.
        what: String,
    },
}

impl StoreError {
    /// Whether the disk or the way to it is at fault, so that it counts
    /// against the disk; not the caller and not the shard.
    pub fn is_disk_fault(&self) -> bool {
        matches!(
            self,
            Self::Fenced { .. }
                | Self::Lost { .. }
                | Self::TimedOut(_)
                | Self::Unreachable { .. }
                | Self::Io { .. }
        )
    }
}

/// One disk.
///
/// Answers to `put`, `finish`, `delete`, `assign`, `raise_epoch`, `put_notes`
/// and `forget_notes` mean *durable*: fsynced, the folder too.
///
/// Every call with a context is refused with `WrongDisk` if it is of another
/// cluster, and with `StaleEpoch` if the epoch in force does not admit its
/// own. A higher epoch is accepted, durably, before the call is done; the
/// handles that callers of the epoch before hold then end. Bounds that are
/// broken are `BadCall` ([`crate::bounds`]).
#[async_trait]
pub trait ShardStore: Send + Sync + 'static {
    /// Which disk this is.
    fn disk(&self) -> DiskId;

    /// Whether calls end in time by themselves: with `Busy` where they waited
    /// behind others of this process, and with `TimedOut` only where the disk
    /// itself took too long. Who calls another store has to bound its calls,
    /// and cannot tell the two apart.
    fn ends_calls_in_time(&self) -> bool {
        false
    }

    /// Accepts a higher epoch, durably, for all later calls. A repeat of the
    /// same epoch is done. [`StoreError::StaleEpoch`] if a higher one, or an
    /// equal number of another instance, is in force.
    async fn raise_epoch(&self, ctx: &CallContext) -> Result<(), StoreError>;

    /// Tells the disk which slots it holds. A higher generation replaces a
    /// lower one; the same is done; a lower, or another slot in the same
    /// generation, is `StaleGeneration` and nothing of the call is taken. At
    /// most [`MAX_BATCH`] in a call and [`MAX_SLOTS`] in all (`NoSpace`).
    async fn assign(&self, ctx: &CallContext, slots: &[SlotAssignment]) -> Result<(), StoreError>;

    /// Begins a shard that comes in appends. `shard_len` preallocates; of a
    /// shard that was begun so, what came may be gone once its handle ends
    /// without a finish, as if it had never been begun.
    /// `Exists` if a finished shard has the key, damaged or not; an
    /// unfinished one of the same key is begun anew and its handle ends.
    /// `StaleGeneration` unless the disk holds the header's slot in the
    /// header's generation; `append`, `finish` and `put` refuse so too.
    /// `Busy` while too many handles are open.
    async fn open(
        &self,
        ctx: &CallContext,
        header: ShardHeader,
        shard_len: Option<u64>,
    ) -> Result<ShardHandle, StoreError>;

    /// Appends at `offset`, a multiple of 64 KiB; only the last append may be
    /// of another length than a multiple of it. `crcs`: one per 64 KiB block,
    /// checked before the write (`BadCall`). A repeat of the last append is
    /// done; every other offset than the shard's end is `WrongOffset`.
    async fn append(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        offset: u64,
        bytes: Bytes,
        crcs: &[u32],
    ) -> Result<(), StoreError>;

    /// Ends the shard: footer, fsync. Afterwards it reads and lists. A repeat
    /// with the same end is done, as long as an idle handle lives.
    async fn finish(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        end: ShardEnd,
    ) -> Result<(), StoreError>;

    /// Gives up an open shard and its space. Unknown handles are done, and so
    /// are those of finished shards, which stay.
    async fn abort(&self, ctx: &CallContext, handle: ShardHandle) -> Result<(), StoreError>;

    /// Stores one small shard whole. Calls that are made at once share a
    /// batch and its fsync. A repeat with the same bytes is done; other bytes
    /// are `Exists`; `Corrupt` if what is stored is damaged. An unfinished
    /// shard of the same key gives way and its handle ends.
    async fn put(&self, ctx: &CallContext, shard: SmallShard) -> Result<(), StoreError>;

    /// Reads `len` bytes from `offset` (a multiple of 64 KiB; `len` at most
    /// [`MAX_READ_BYTES`], a multiple of 64 KiB or up to the shard's end).
    /// A range beyond the shard's end is `BadCall`. An unfinished shard is
    /// `NotFound`, a damaged one never is: it is `Corrupt`.
    /// The bytes were verified by the store; callers verify them again.
    async fn read(&self, key: ShardKey, offset: u64, len: u32) -> Result<ShardBytes, StoreError>;

    /// The shard's head and end, verified; of an unfinished one, its head.
    async fn stat(&self, key: ShardKey) -> Result<ShardStat, StoreError>;

    /// Deletes shards, finished or not; unknown ones are done. At most
    /// [`MAX_BATCH`]. Only for blobs that a durable commit condemned, and for
    /// corrupt shards that repair is about to write anew. Open handles of
    /// the shards end.
    async fn delete(&self, ctx: &CallContext, keys: &[ShardKey]) -> Result<(), StoreError>;

    /// Up to `limit` (1 to [`MAX_BATCH`]) shards after `after`, in order,
    /// unfinished and damaged ones too. Fewer than `limit` means the end.
    /// What is added or deleted meanwhile may be in the list or not.
    async fn list(
        &self,
        after: Option<ShardKey>,
        limit: usize,
    ) -> Result<Vec<ListedShard>, StoreError>;

    /// Keeps notes of blobs. One call is one fsync. A repeat, and a note that
    /// another overrules, are done. After a note that a blob was deleted the
    /// disk refuses to write a shard of it (`BadCall`). At most
    /// [`MAX_NOTES`](crate::note::MAX_NOTES); `NoSpace` where the disk keeps
    /// [`MAX_DELETE_NOTES`](crate::note::MAX_DELETE_NOTES) already.
    async fn put_notes(&self, ctx: &CallContext, notes: &[BlobNote]) -> Result<(), StoreError>;

    /// Drops the notes of deleted blobs; unknown ones are done. At most
    /// [`MAX_BATCH`]. Only when every disk that ever held a slot of their
    /// group had the note and has no shard any more, or is lost for good.
    async fn forget_notes(
        &self,
        ctx: &CallContext,
        blobs: &[(GroupId, BlobId)],
    ) -> Result<(), StoreError>;

    /// Notes that the disk keeps, from `after` on.
    async fn notes(&self, after: Option<NoteCursor>) -> Result<NotePage, StoreError>;

    /// The slots that it holds, by group, those behind `after`; at most
    /// [`MAX_BATCH`], and fewer only at the end.
    async fn slots(&self, after: Option<GroupId>) -> Result<Vec<SlotAssignment>, StoreError>;

    /// Shards that it knows to be damaged, in order: its scrub, a check or a
    /// read found them, they were not deleted since, and the disk has read them
    /// again lately. At most
    /// [`MAX_DAMAGED`](crate::check::MAX_DAMAGED).
    async fn damaged(&self) -> Result<Vec<DamagedShard>, StoreError>;

    /// Checks the part of the disk behind `from` (all of it: until a page has
    /// no `next`) against itself: every shard is read, and every directory
    /// compared with the records it stands for. With `repair`, directories
    /// that do not say what the records do are written anew, what is left of a
    /// damaged log is accepted, and nothing else is changed; without it `ctx`
    /// is not looked at. A call reads for a few seconds at most; how long to
    /// wait between two is the caller's affair.
    async fn check(
        &self,
        ctx: &CallContext,
        from: Option<CheckCursor>,
        repair: bool,
    ) -> Result<CheckPage, StoreError>;

    /// Identity, space and load.
    async fn health(&self) -> Result<DiskHealth, StoreError>;
}

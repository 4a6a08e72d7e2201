//! Makes one shard of a stored blob anew from the others, for the work in the
//! background.
//!
//! Owns the order in which it happens. Invariants: what is written was
//! computed from blocks that were checked; a blob is judged by the catalog's
//! current record before a byte is read, under an open read that keeps a
//! deletion's purge behind it, so that nothing is made of what is deleted; the
//! shard says of itself what its peers say.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use shardgate_catalog::model::BlobRef;
use shardgate_erasure::full_block;
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::store::{ListedShard, MAX_BATCH, MAX_PUT_BYTES, ShardEnd, SmallShard};
use shardgate_wire::{BlobId, GroupId, Purpose, ShardHeader, ShardKey, StoreError};
use thiserror::Error;

use super::calls::Target;
use super::core::Core;
use super::error::ObjectError;
use super::fetch::BlobReader;
use super::ports::GroupView;
use super::service::ObjectService;

/// Decides when the next piece of a shard may be read and written.
#[async_trait::async_trait]
pub trait Turns: Send + Sync {
    /// Waits for the turn of so many bytes to and from disks. `busy`: whether
    /// clients use these disks now.
    async fn next(&self, bytes: u64, busy: &(dyn Fn() -> bool + Send + Sync));
}

/// What became of a shard that was missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuilt {
    /// It is durable now: its bytes.
    Made(u64),
    /// The blob is not there any more, or the shard is by now.
    NotNeeded,
}

/// Why a shard was not made.
#[derive(Debug, Error)]
pub enum RebuildError {
    /// The others do not give it, or the catalog does not answer.
    #[error("{0}")]
    Source(#[from] ObjectError),
    /// Its own disk does not take it.
    #[error("{0}")]
    Target(StoreError),
}

/// Calls of clients at a disk from which on it is busy.
const BUSY_CALLS: u32 = 3;

impl ObjectService {
    /// What the disk of a slot has of its group behind `after`, up to and
    /// with `last`, in order.
    ///
    /// # Errors
    /// The disk does not answer.
    pub async fn list_slot(
        &self,
        group: &GroupView,
        slot: u8,
        after: Option<BlobId>,
        last: BlobId,
    ) -> Result<Vec<ListedShard>, StoreError> {
        let key = |blob, index| ShardKey {
            group: group.row.id,
            blob,
            index,
        };
        let target = self.core.slot_target(group, slot)?;
        let last = key(last, u8::MAX);
        // Behind every shard of `after`, or before all of the group.
        let mut cursor = after.map_or(key(BlobId(0), 0), |blob| key(blob, u8::MAX));
        let mut all = Vec::new();
        loop {
            let page = self.core.calls.list(&target, cursor, MAX_BATCH).await?;
            let whole = page.len() == MAX_BATCH;
            all.extend(page.iter().filter(|shard| shard.key <= last));
            match page.last() {
                Some(listed) if whole && listed.key < last => cursor = listed.key,
                _ => return Ok(all),
            }
        }
    }

    /// Makes a shard anew that its disk lacks.
    ///
    /// # Errors
    /// [`RebuildError`]; nothing is durable then.
    pub async fn rebuild(
        &self,
        blob: &BlobRef,
        shard: u8,
        turns: &dyn Turns,
    ) -> Result<Rebuilt, RebuildError> {
        let core = &self.core;
        core.check_in_force()?;
        // Registered before the look-up: see `open_reads`.
        let _open = core.open_reads.open(|| core.catalog.committed());
        if judged(core, blob.group, blob.blob).await?.as_ref() != Some(blob) {
            return Ok(Rebuilt::NotNeeded);
        }
        let group = core.disks.group(blob.group).await?;
        let work = Work::new(core, &group, blob, shard, turns)?;
        let made = work.run().await;
        if let Err(RebuildError::Target(StoreError::BadCall { .. })) = &made
            && judged(core, blob.group, blob.blob).await?.is_none()
        {
            // Deleted meanwhile, and its disk was told: it takes no shard.
            return Ok(Rebuilt::NotNeeded);
        }
        match made {
            // A late write of its own got there first, and it is finished.
            Err(RebuildError::Target(StoreError::Exists)) => Ok(Rebuilt::NotNeeded),
            made => Ok(Rebuilt::Made(made?)),
        }
    }
}

impl Core {
    /// The disk of a slot, for what nobody waits for.
    pub(super) fn slot_target(&self, group: &GroupView, slot: u8) -> Result<Target, StoreError> {
        let target = self.target(group, slot).ok_or_else(|| StoreError::Lost {
            why: "the pool does not have it".into(),
        })?;
        Ok(Target {
            purpose: Purpose::Background,
            ..target
        })
    }
}

/// The blob as the catalog has it now, if it belongs to something still.
pub(super) async fn judged(
    core: &Core,
    group: GroupId,
    blob: BlobId,
) -> Result<Option<BlobRef>, ObjectError> {
    let found = core.catalog.blob(group, blob).await?;
    let extent = found.and_then(|state| state.extent());
    Ok(extent.map(|(layout, len)| BlobRef {
        group,
        blob,
        layout,
        len,
    }))
}

/// What the other shards of a blob say.
pub(super) struct Peers {
    /// The shard's head, after theirs.
    pub(super) header: ShardHeader,
    /// How many of them are there.
    pub(super) whole: usize,
}

/// One shard in the making.
pub(super) struct Work<'a> {
    core: &'a Arc<Core>,
    group: &'a Arc<GroupView>,
    blob: &'a BlobRef,
    shard: u8,
    target: Target,
    reader: BlobReader,
    turns: &'a dyn Turns,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        core: &'a Arc<Core>,
        group: &'a Arc<GroupView>,
        blob: &'a BlobRef,
        shard: u8,
        turns: &'a dyn Turns,
    ) -> Result<Self, RebuildError> {
        let target = core.slot_target(group, group.slot(blob, shard));
        Ok(Self {
            reader: BlobReader::new(core, Arc::clone(group), *blob)?,
            core,
            group,
            blob,
            shard,
            target: target.map_err(RebuildError::Target)?,
            turns,
        })
    }

    /// The disk that the shard belongs on.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn shard_len(&self) -> u64 {
        self.reader.shard_len()
    }

    /// Whether it is made in one piece.
    pub(super) fn is_short(&self) -> bool {
        self.shard_len() <= self.block().min(MAX_PUT_BYTES as u64)
    }

    fn block(&self) -> u64 {
        full_block(self.reader.layout())
    }

    /// The pieces in which a long one is made.
    fn columns(&self) -> impl Iterator<Item = Range<u64>> {
        let (shard_len, block) = (self.shard_len(), self.block());
        let starts = (0..shard_len).step_by(block as usize);
        starts.map(move |start| start..shard_len.min(start + block))
    }

    /// All others that are there.
    pub(super) async fn peers(&self) -> Result<Peers, ObjectError> {
        let (mut header, mut whole) = (None, 0);
        for peer in 0..self.reader.layout().shards() {
            if let Some(of_peer) = self.peer(peer).await {
                whole += 1;
                header = header.or(Some(of_peer));
            }
        }
        let header = header.ok_or_else(|| self.alone())?;
        Ok(Peers { header, whole })
    }

    /// The shard's head, after that of any other.
    async fn header(&self) -> Result<ShardHeader, ObjectError> {
        for peer in 0..self.reader.layout().shards() {
            if let Some(header) = self.peer(peer).await {
                return Ok(header);
            }
        }
        Err(self.alone())
    }

    fn alone(&self) -> ObjectError {
        ObjectError::Unreadable {
            why: format!(
                "blob {}: no peer of shard {} answers",
                self.blob.blob, self.shard
            ),
        }
    }

    /// The shard's head, after that of this other one, if it is there.
    async fn peer(&self, peer: u8) -> Option<ShardHeader> {
        let (core, group, blob) = (self.core, self.group, self.blob);
        if peer == self.shard {
            return None;
        }
        let target = core.target(group, group.slot(blob, peer))?;
        let stat = core.calls.stat(&target, group.key(blob, peer)).await;
        let stat = stat.ok()?;
        let end = stat.end.is_some_and(|end| end.blob_len == blob.len);
        if !end || stat.header.layout != blob.layout {
            return None;
        }
        let ctx = core.disks.context();
        Some(ShardHeader {
            cluster: ctx.cluster,
            lineage: ctx.lineage,
            epoch: ctx.epoch,
            key: group.key(blob, self.shard),
            slot: group.slot(blob, self.shard),
            generation: group.row.generation,
            layout: blob.layout,
            blob_len: Some(blob.len),
            object: stat.header.object,
        })
    }

    /// A short one, made of others, each block of which was checked.
    pub(super) async fn whole(&self) -> Result<Bytes, RebuildError> {
        self.column(0..self.shard_len()).await
    }

    /// Reads and checks all that the shard would be made of, and makes
    /// nothing.
    pub(super) async fn prove(&self) -> Result<(), RebuildError> {
        for column in self.columns() {
            self.column(column).await?;
        }
        Ok(())
    }

    async fn run(&self) -> Result<u64, RebuildError> {
        let header = self.header().await?;
        let bytes = match self.is_short() {
            true => Some(self.whole().await?),
            false => None,
        };
        self.write(header, bytes).await
    }

    /// Writes it: a short one from its bytes, another as it is made. Gives its
    /// length.
    pub(super) async fn write(
        &self,
        header: ShardHeader,
        bytes: Option<Bytes>,
    ) -> Result<u64, RebuildError> {
        let calls = &self.core.calls;
        let shard_len = self.shard_len();
        if let Some(bytes) = bytes {
            let small = SmallShard {
                header,
                blob_len: self.blob.len,
                crcs: block_crcs(&bytes),
                bytes,
            };
            let put = calls.put(&self.target, small).await;
            put.map_err(RebuildError::Target)?;
            return Ok(shard_len);
        }
        let opened = calls.open(&self.target, header, Some(shard_len)).await;
        let handle = opened.map_err(RebuildError::Target)?;
        let written = async {
            for column in self.columns() {
                let start = column.start;
                let bytes = self.column(column).await?;
                let crcs = block_crcs(&bytes);
                let appended = calls.append(&self.target, handle, start, bytes, &crcs);
                appended.await.map_err(RebuildError::Target)?;
            }
            let end = ShardEnd {
                shard_len,
                blob_len: self.blob.len,
            };
            let finished = calls.finish(&self.target, handle, end).await;
            finished.map_err(RebuildError::Target)
        };
        if let Err(error) = written.await {
            // An idle handle ends by itself if this does not reach the disk.
            let _ended = calls.abort(&self.target, handle).await;
            return Err(error);
        }
        Ok(shard_len)
    }

    /// Bytes of the shard, when it is their turn.
    async fn column(&self, column: Range<u64>) -> Result<Bytes, RebuildError> {
        let len = column.end - column.start;
        let disks = &self.group.row.slots;
        let busy = || {
            let loads = disks.iter().map(|disk| self.core.calls.load(*disk));
            loads.max().unwrap_or(0) >= BUSY_CALLS
        };
        let moved = len * (u64::from(self.blob.layout.data) + 1);
        self.turns.next(moved, &busy).await;
        self.core.check_in_force()?;
        Ok(self.reader.decode_one(self.shard, &column).await?)
    }
}

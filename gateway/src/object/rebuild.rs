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
use shardgate_wire::{BlobId, Purpose, ShardHeader, ShardKey, StoreError};
use thiserror::Error;

use super::calls::Target;
use super::core::Core;
use super::error::ObjectError;
use super::fetch::BlobReader;
use super::ports::{GroupView, layout_of};
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
        let found = core.catalog.blob(blob.group, blob.blob).await;
        match found.map_err(ObjectError::from)? {
            Some(state) if state.extent() == Some((blob.layout, blob.len)) => {}
            _ => return Ok(Rebuilt::NotNeeded),
        }
        let group = core.disks.group(blob.group).await?;
        let work = Work::new(core, &group, blob, shard, turns)?;
        let made = work.run().await;
        if let Err(RebuildError::Target(StoreError::BadCall { .. })) = &made
            && !core.is_owned(blob).await?
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
    /// Whether the blob belongs to something still.
    async fn is_owned(&self, blob: &BlobRef) -> Result<bool, ObjectError> {
        let found = self.catalog.blob(blob.group, blob.blob).await?;
        Ok(found.is_some_and(|state| state.extent().is_some()))
    }

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

/// The header of a shard, after that of any of its peers.
async fn header(
    core: &Core,
    group: &GroupView,
    blob: &BlobRef,
    shard: u8,
) -> Result<ShardHeader, ObjectError> {
    let shards = layout_of(blob)?.shards();
    for peer in (0..shards).filter(|peer| *peer != shard) {
        let Some(target) = core.target(group, group.slot(blob, peer)) else {
            continue;
        };
        let Ok(stat) = core.calls.stat(&target, group.key(blob, peer)).await else {
            continue;
        };
        let end = stat.end.is_some_and(|end| end.blob_len == blob.len);
        if !end || stat.header.layout != blob.layout {
            continue;
        }
        let ctx = core.disks.context();
        return Ok(ShardHeader {
            cluster: ctx.cluster,
            lineage: ctx.lineage,
            epoch: ctx.epoch,
            key: group.key(blob, shard),
            slot: group.slot(blob, shard),
            generation: group.row.generation,
            layout: blob.layout,
            blob_len: Some(blob.len),
            object: stat.header.object,
        });
    }
    Err(ObjectError::Unreadable {
        why: format!("blob {}: no peer of shard {shard} answers", blob.blob),
    })
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

    /// Reads and checks all that the shard would be made of, and makes
    /// nothing.
    pub(super) async fn prove(&self) -> Result<(), RebuildError> {
        header(self.core, self.group, self.blob, self.shard).await?;
        let (shard_len, block) = (self.reader.shard_len(), full_block(layout_of(self.blob)?));
        for start in (0..shard_len).step_by(block as usize) {
            self.column(start..shard_len.min(start + block)).await?;
        }
        Ok(())
    }

    async fn run(&self) -> Result<u64, RebuildError> {
        let header = header(self.core, self.group, self.blob, self.shard).await?;
        let shard_len = self.reader.shard_len();
        let block = full_block(layout_of(self.blob)?);
        if shard_len <= block && shard_len <= MAX_PUT_BYTES as u64 {
            let bytes = self.column(0..shard_len).await?;
            let small = SmallShard {
                header,
                blob_len: self.blob.len,
                crcs: block_crcs(&bytes),
                bytes,
            };
            let put = self.core.calls.put(&self.target, small).await;
            put.map_err(RebuildError::Target)?;
            return Ok(shard_len);
        }
        let calls = &self.core.calls;
        let opened = calls.open(&self.target, header, Some(shard_len)).await;
        let handle = opened.map_err(RebuildError::Target)?;
        let written = async {
            for start in (0..shard_len).step_by(block as usize) {
                let bytes = self.column(start..shard_len.min(start + block)).await?;
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

//! Gives up a shard that its disk found damaged, so that it is made anew.
//!
//! Owns the order in which that happens. Invariants: a damaged shard goes only
//! when its blob's other shards gave every byte of it, checked, just now (a
//! shard with one bad block is worth more than none); its slot is owed by a
//! durable commit before it goes, so that a crash at any point leaves work to
//! do and never a blob that silently lacks a shard; what is deleted or has
//! moved meanwhile is left alone. Making it anew is the work of the job that
//! fills owed slots.

use shardgate_catalog::CatalogError;
use shardgate_catalog::model::{BlobRef, OwedRow};
use shardgate_wire::{DiskId, GroupId, ShardKey, StoreError};

use super::error::ObjectError;
use super::ports::{GroupView, layout_of};
use super::rebuild::{RebuildError, Turns, Work};
use super::service::ObjectService;

/// What became of a damaged or missing shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// Its slot is owed now, and the job that fills owed slots makes it anew.
    Owed,
    /// The blob is not there any more, or its slot is another disk's by now:
    /// the shard is left as it is.
    NotNeeded,
}

impl ObjectService {
    /// Gives up the shard of `key`, which `disk` said is damaged, after all
    /// others were read.
    ///
    /// # Errors
    /// [`RebuildError`]; the damaged shard is still there then, or its slot is
    /// owed.
    pub async fn give_up_damaged(
        &self,
        disk: DiskId,
        key: ShardKey,
        turns: &dyn Turns,
    ) -> Result<Mended, RebuildError> {
        let core = &self.core;
        core.check_in_force()?;
        // Registered before the look-up: see `open_reads`.
        let _open = core.open_reads.open(|| core.catalog.committed());
        let state = core.catalog.blob(key.group, key.blob).await;
        let Some((layout, len)) = state
            .map_err(ObjectError::from)?
            .and_then(|state| state.extent())
        else {
            return Ok(Mended::NotNeeded);
        };
        let blob = BlobRef {
            group: key.group,
            blob: key.blob,
            layout,
            len,
        };
        let group = core.disks.group(blob.group).await?;
        if key.index >= layout_of(&blob)?.shards() || group.disk(&blob, key.index) != disk {
            return Ok(Mended::NotNeeded);
        }
        let work = Work::new(core, &group, &blob, key.index, turns)?;
        work.prove().await?;
        if !self.owe(&group, &blob, key.index).await? {
            return Ok(Mended::NotNeeded);
        }
        let gone = core.calls.delete(work.target(), &[key]).await;
        gone.map_err(RebuildError::Target)?;
        Ok(Mended::Owed)
    }

    /// Has a shard made that its disk answered not to have, and still does
    /// not; nothing is done if its slot is owed already.
    ///
    /// # Errors
    /// [`RebuildError`]: the disk or the catalog does not answer.
    pub async fn owe_missing(&self, blob: &BlobRef, shard: u8) -> Result<Mended, RebuildError> {
        let core = &self.core;
        let group = core.disks.group(blob.group).await?;
        let slot = group.slot(blob, shard);
        let target = core
            .slot_target(&group, slot)
            .map_err(RebuildError::Target)?;
        // It may have been missed while it was made.
        let stat = core.calls.stat(&target, group.key(blob, shard)).await;
        match stat {
            Err(StoreError::NotFound) => {}
            Ok(stat) if stat.end.is_none() => {}
            Ok(_) => return Ok(Mended::NotNeeded),
            Err(error) => return Err(RebuildError::Target(error)),
        }
        // A row that covers the blob says so already, and to write it anew
        // would make each comparison void that is under way: so many reads
        // would keep it open for ever.
        let owed = core.catalog.owed().await.map_err(ObjectError::from)?;
        let covers = |(of, at, row): &(GroupId, u8, OwedRow)| {
            *of == blob.group && *at == slot && row.lowest <= blob.blob
        };
        if owed.iter().any(covers) || !self.owe(&group, blob, shard).await? {
            return Ok(Mended::NotNeeded);
        }
        Ok(Mended::Owed)
    }

    async fn owe(&self, group: &GroupView, blob: &BlobRef, shard: u8) -> Result<bool, ObjectError> {
        let slot = group.slot(blob, shard);
        let generation = group.row.generation;
        match self.core.catalog.owe(blob, slot, generation).await {
            Err(CatalogError::GroupMoved { .. }) => Ok(false),
            owed => Ok(owed?),
        }
    }
}

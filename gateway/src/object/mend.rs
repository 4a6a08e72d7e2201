//! Makes a shard anew in the place of one that its disk found damaged, and
//! has a missing one made.
//!
//! Owns the order in which that happens. Invariants: a damaged shard goes only
//! when others of its blob gave every byte of it, checked, just now (a shard
//! with one bad block is worth more than none); its slot is owed by a durable
//! commit before it goes, and nobody closes that row while it does, so that a
//! crash at any point leaves work to do and never a blob that silently lacks a
//! shard; under a hold nothing goes; what is deleted or has moved meanwhile is
//! left alone.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use shardgate_catalog::model::BlobRef;
use shardgate_catalog::{CatalogError, Reopen};
use shardgate_wire::{DiskId, GroupId, Purpose, ShardKey, StoreError};
use tokio::time::timeout;

use super::core::Core;
use super::error::ObjectError;
use super::ports::{GroupView, layout_of};
use super::rebuild::{RebuildError, Turns, Work, judged};
use super::service::ObjectService;

/// How much more than the shard its disk must have room for: what went gives
/// its space back later.
const SPARE_BYTES: u64 = 16 << 20;
/// How long a disk may take to say what room it has.
const ASK_TIME: std::time::Duration = std::time::Duration::from_secs(5);

/// What became of a damaged or missing shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// It is made anew.
    Made,
    /// Its slot is owed, and the job that fills owed slots makes it anew.
    Owed,
    /// The blob is not there any more, the slot is another disk's by now, or
    /// the shard is there: it is left as it is.
    NotNeeded,
    /// Nothing may go now: there is a hold, too few others are there, or its
    /// disk has no room.
    NotNow,
}

/// Shards that are deleted because they are damaged, until that is done: a
/// call whose answer did not come may be done later. A disk lists them until
/// then, so the slots they are in must not be compared and closed meanwhile.
/// Their slots are owed.
#[derive(Debug, Default)]
pub struct GivingUp(Mutex<BTreeMap<ShardKey, DiskId>>);

impl GivingUp {
    /// Whether a shard of this group goes from this disk now.
    pub fn is_under_way(&self, group: GroupId, disk: DiskId) -> bool {
        let all = self.0.lock();
        all.iter()
            .any(|(key, of)| key.group == group && *of == disk)
    }

    fn all(&self) -> Vec<(ShardKey, DiskId)> {
        let all = self.0.lock();
        all.iter().map(|(key, disk)| (*key, *disk)).collect()
    }
}

impl ObjectService {
    /// Makes the shard of `key`, which `disk` said is damaged, anew there.
    ///
    /// # Errors
    /// [`RebuildError`]; the damaged shard is still there then, or its slot is
    /// owed.
    pub async fn make_damaged_anew(
        &self,
        disk: DiskId,
        key: ShardKey,
        turns: &dyn Turns,
    ) -> Result<Mended, RebuildError> {
        let core = &self.core;
        core.check_in_force()?;
        if core.reclaiming.is_held() {
            return Ok(Mended::NotNow);
        }
        // Registered before the look-up: see `open_reads`.
        let _open = core.open_reads.open(|| core.catalog.committed());
        let Some(blob) = judged(core, key.group, key.blob).await? else {
            return Ok(Mended::NotNeeded);
        };
        let group = core.disks.group(blob.group).await?;
        if key.index >= layout_of(&blob)?.shards() || group.disk(&blob, key.index) != disk {
            return Ok(Mended::NotNeeded);
        }
        let work = Work::new(core, &group, &blob, key.index, turns)?;
        if !has_room(core, disk, work.shard_len()).await {
            return Ok(Mended::NotNow);
        }
        let peers = work.peers().await?;
        // A long one is read a second time while it is written: one more of
        // the others may fail meanwhile.
        let short = work.is_short();
        if !short && blob.layout.parity > 1 && peers.whole <= usize::from(blob.layout.data) {
            return Ok(Mended::NotNow);
        }
        let bytes = if short {
            Some(work.whole().await?)
        } else {
            work.prove().await?;
            None
        };
        // From before the row is opened: see `GivingUp`.
        core.giving_up.0.lock().insert(key, disk);
        let owed = self.owe(&group, &blob, key.index, Reopen::Always).await;
        let owed = owed.and_then(|owed| core.check_in_force().map(|()| owed));
        if !matches!(owed, Ok(true)) {
            core.giving_up.0.lock().remove(&key);
            return Ok(owed.map(|_| Mended::NotNeeded)?);
        }
        self.give_up(&work, key).await?;
        work.write(peers.header, bytes).await?;
        Ok(Mended::Made)
    }

    async fn give_up(&self, work: &Work<'_>, key: ShardKey) -> Result<(), RebuildError> {
        let core = &self.core;
        let gone = core.calls.delete(work.target(), &[key]).await;
        // Else it may be deleted later: see `finish_giving_up`.
        gone.map_err(RebuildError::Target)?;
        core.giving_up.0.lock().remove(&key);
        Ok(())
    }

    /// Asks again for deletions of damaged shards that were not answered:
    /// their slots are not compared before.
    pub async fn finish_giving_up(&self) {
        let core = &self.core;
        for (key, disk) in core.giving_up.all() {
            let Ok(group) = core.disks.group(key.group).await else {
                continue;
            };
            let slot = group.row.slots.iter().position(|of| *of == disk);
            let Some(slot) = slot.and_then(|slot| u8::try_from(slot).ok()) else {
                // It moved, with all that it owed.
                core.giving_up.0.lock().remove(&key);
                continue;
            };
            if core.disks.is_living(disk)
                && let Ok(target) = core.slot_target(&group, slot)
                && core.calls.delete(&target, &[key]).await.is_ok()
            {
                core.giving_up.0.lock().remove(&key);
            }
        }
    }

    /// Has a shard made that its disk answered not to have, and still does
    /// not, if the others give it; nothing is done if its slot is owed
    /// already.
    ///
    /// # Errors
    /// [`RebuildError`]; then nothing is owed for it.
    pub async fn owe_missing(
        &self,
        blob: &BlobRef,
        shard: u8,
        turns: &dyn Turns,
    ) -> Result<Mended, RebuildError> {
        let core = &self.core;
        core.check_in_force()?;
        let group = core.disks.group(blob.group).await?;
        if core.reclaiming.is_held() || !core.disks.is_living(group.disk(blob, shard)) {
            return Ok(Mended::NotNow);
        }
        let _open = core.open_reads.open(|| core.catalog.committed());
        if judged(core, blob.group, blob.blob).await?.as_ref() != Some(blob) {
            return Ok(Mended::NotNeeded);
        }
        let work = Work::new(core, &group, blob, shard, turns)?;
        // It may have been missed while it was made.
        let stat = core.calls.stat(work.target(), group.key(blob, shard)).await;
        match stat {
            Err(StoreError::NotFound) => {}
            Ok(stat) if stat.end.is_none() => {}
            Ok(_) => return Ok(Mended::NotNeeded),
            Err(error) => return Err(RebuildError::Target(error)),
        }
        work.peers().await?;
        work.prove().await?;
        match self.owe(&group, blob, shard, Reopen::Unless).await? {
            true => Ok(Mended::Owed),
            false => Ok(Mended::NotNeeded),
        }
    }

    async fn owe(
        &self,
        group: &GroupView,
        blob: &BlobRef,
        shard: u8,
        reopen: Reopen,
    ) -> Result<bool, ObjectError> {
        let (slot, generation) = (group.slot(blob, shard), group.row.generation);
        let owed = self.core.catalog.owe(blob, slot, generation, reopen).await;
        match owed {
            Err(CatalogError::GroupMoved { .. }) => Ok(false),
            owed => Ok(owed?),
        }
    }
}

/// Whether a disk takes a shard of this length for work in the background.
async fn has_room(core: &Core, disk: DiskId, shard_len: u64) -> bool {
    let Some(store) = core.disks.store(disk) else {
        return false;
    };
    let health = timeout(ASK_TIME, store.health()).await;
    let room = health.ok().and_then(Result::ok);
    let room = room.map_or(0, |health| health.room.of(Purpose::Background));
    room >= shard_len + SPARE_BYTES
}

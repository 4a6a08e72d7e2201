//! Deletes the shards of condemned blobs.
//!
//! Owns the background task that takes from the catalog's queue. Invariants
//! (PROTOCOL.md 7 and 9): only what a durable commit condemned is deleted, and
//! only when no open read is older than that commit; a shard goes only from a
//! disk that has the note of its blob's deletion. A row leaves the queue when
//! every disk of its slots has answered that the shard is gone and then, when
//! no write can be under way any more, that it dropped its note; or is
//! declared lost. What a disk that is away keeps is asked for again later;
//! what a damaged record names is not known and stays, beside all others.

mod settling;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use shardgate_catalog::{Condemned, CondemnedCursor};
use shardgate_wire::store::MAX_BATCH;
use shardgate_wire::{DiskId, ShardKey};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::calls::Target;
use super::core::Core;
use super::error::ObjectError;
use super::notes::{Knows, blob_of, may_delete};
use super::ports::layout_of;
use settling::Settling;

/// Blobs that are taken from the queue at once.
const AT_ONCE: usize = 500;
/// Pause between two such steps: clients come first.
const PAUSE: Duration = Duration::from_millis(20);
/// How long blobs of a disk that is away are left alone.
const RETRY: Duration = Duration::from_secs(60);
/// Damaged records that are told of, once each.
const MOST_TOLD: usize = 10_000;

/// How far the task is.
#[derive(Default)]
struct Progress {
    after: Option<CondemnedCursor>,
    /// When to look again at what was left behind `after`.
    retry_at: Option<Instant>,
    /// Damaged records that were met.
    damaged: BTreeSet<CondemnedCursor>,
    /// Nothing is left of these, and their notes stay for a while.
    settling: Settling,
}

impl Progress {
    /// Leaves a record alone, and says so once.
    fn leave(&mut self, core: &Core, cursor: CondemnedCursor, why: &str) {
        if self.damaged.len() == MOST_TOLD || !self.damaged.insert(cursor) {
            return;
        }
        core.metrics.condemned_damaged.one();
        let (commit, index) = (cursor.commit.0, cursor.index);
        error!(
            commit,
            index, why, "a condemned blob's record is damaged, its shards stay"
        );
    }
}

/// What became of some blobs.
struct Deleted {
    /// Nothing is left of these.
    gone: Vec<Condemned>,
    /// What these name is not known, and why.
    damaged: Vec<(CondemnedCursor, String)>,
}

/// Runs until the stop token is cancelled.
pub(super) async fn run(core: Arc<Core>) {
    let mut progress = Progress::default();
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(core.settings.purge_every) => {}
        }
        if core.calls.is_fenced() {
            return;
        }
        if let Err(error) = pass(&core, &mut progress).await {
            warn!(%error, "purge stopped, goes on later");
        }
    }
}

/// Takes all that may be purged now.
async fn pass(core: &Core, progress: &mut Progress) -> Result<(), ObjectError> {
    if core.reclaiming.is_held() {
        return Ok(());
    }
    if progress.retry_at.is_some_and(|at| at <= Instant::now()) {
        progress.after = None;
        progress.retry_at = None;
    }
    if settling::end(core, &mut progress.settling).await? > 0 {
        progress.retry_at.get_or_insert(Instant::now() + RETRY);
    }
    while !core.stop.is_cancelled() && !progress.settling.is_full() {
        let page = core.catalog.condemned_page(progress.after, AT_ONCE).await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        let held_back = page.rows.iter().map(|row| row.cursor);
        // One that no disk was told of yet is told soon.
        let held_back = held_back
            .filter(|cursor| {
                !core.open_reads.allow_purge(cursor.commit) || !core.notes.are_out(*cursor)
            })
            .min();
        let may_go = |cursor: &CondemnedCursor| held_back.is_none_or(|first| *cursor < first);
        let damaged = page.damaged.iter().filter(|(cursor, _)| may_go(cursor));
        for (cursor, why) in damaged {
            progress.leave(core, *cursor, why);
        }
        let rows = page.rows.iter().copied();
        let rows: Vec<_> = rows
            .filter(|row| may_go(&row.cursor) && !progress.settling.holds(row.cursor))
            .collect();
        let Deleted { gone, damaged } = delete(core, &rows).await?;
        for (cursor, why) in &damaged {
            progress.leave(core, *cursor, why);
        }
        core.metrics.blobs_purged.add(gone.len() as u64);
        if gone.len() + damaged.len() < rows.len() {
            progress.retry_at.get_or_insert(Instant::now() + RETRY);
        }
        if !gone.is_empty() {
            debug!(blobs = gone.len(), "purged");
            progress.settling.begin(gone, Instant::now());
        }
        if held_back.is_some() {
            progress.after = rows.last().map(|row| row.cursor).max(progress.after);
            return Ok(());
        }
        progress.after = Some(last);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// What to delete, by disk.
type ByDisk = BTreeMap<DiskId, (Option<Target>, Vec<ShardKey>)>;

/// Adds the shards of a blob that may go now; gives the disks that its shards
/// lie on, or `None` where some may not go yet.
async fn shards_of(
    core: &Core,
    condemned: &Condemned,
    by_disk: &mut ByDisk,
) -> Result<Option<BTreeSet<DiskId>>, ObjectError> {
    let blob = blob_of(&condemned.row);
    let group = core.disks.group(blob.group).await?;
    let mut shards: Vec<(u8, DiskId, Option<Target>)> = Vec::new();
    for shard in 0..layout_of(&blob)?.shards() {
        let slot = group.slot(&blob, shard);
        let disk = group.row.slots[usize::from(slot)];
        if !core.disks.is_lost_for_good(disk) {
            shards.push((shard, disk, core.target(&group, slot)));
        }
    }
    let knows = |(_, disk, target): &(u8, DiskId, Option<Target>)| {
        let (told, full) = core.notes.knows(*disk, condemned.cursor);
        let there = target.is_some();
        Knows { told, full, there }
    };
    let may = may_delete(&shards.iter().map(knows).collect::<Vec<_>>());
    let all = may.iter().all(|may| *may);
    let disks = shards.iter().map(|(_, disk, _)| *disk).collect();
    let going = shards.into_iter().zip(may).filter(|(_, may)| *may);
    for ((shard, disk, target), _) in going {
        let entry = by_disk.entry(disk);
        let (_, keys) = entry.or_insert_with(|| (target, Vec::new()));
        keys.push(group.key(&blob, shard));
    }
    Ok(all.then_some(disks))
}

/// Deletes the shards of these blobs.
async fn delete(core: &Core, rows: &[Condemned]) -> Result<Deleted, ObjectError> {
    let mut by_disk = ByDisk::new();
    let mut disks_of: Vec<(&Condemned, BTreeSet<DiskId>)> = Vec::with_capacity(rows.len());
    let mut damaged = Vec::new();
    for row in rows {
        match shards_of(core, row, &mut by_disk).await {
            Ok(Some(disks)) => disks_of.push((row, disks)),
            Ok(None) => {}
            Err(ObjectError::Damaged { why }) => damaged.push((row.cursor, why)),
            Err(error) => return Err(error),
        }
    }
    let mut deletions: FuturesUnordered<_> = by_disk
        .into_iter()
        .map(|(disk, (target, keys))| async move {
            let done = match target {
                Some(target) => delete_at(core, &target, &keys).await,
                None => false,
            };
            (disk, done)
        })
        .collect();
    let mut answered = BTreeSet::new();
    while let Some((disk, done)) = deletions.next().await {
        if done {
            answered.insert(disk);
        }
    }
    let gone = disks_of.into_iter();
    let gone = gone
        .filter(|(_, disks)| disks.is_subset(&answered))
        .map(|(condemned, _)| *condemned)
        .collect();
    Ok(Deleted { gone, damaged })
}

/// Whether all of them are gone from a disk.
async fn delete_at(core: &Core, target: &Target, keys: &[ShardKey]) -> bool {
    for batch in keys.chunks(MAX_BATCH) {
        if let Err(error) = core.calls.delete(target, batch).await {
            warn!(disk = %target.disk, %error, "shards were not deleted, asked for again later");
            return false;
        }
    }
    true
}

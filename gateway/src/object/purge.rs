//! Deletes the shards of condemned blobs.
//!
//! Owns the background task that takes from the catalog's queue. Invariants
//! (PROTOCOL.md 7): only what a durable commit condemned is deleted, and only
//! when no open read is older than that commit; a row leaves the queue when
//! every disk of its slots has answered that the shard is gone, or is
//! declared lost. What a disk that is away keeps is asked for again later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use shardgate_catalog::model::BlobRef;
use shardgate_catalog::{Condemned, CondemnedCursor};
use shardgate_wire::store::MAX_BATCH;
use shardgate_wire::{DiskId, ShardKey};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::calls::Target;
use super::core::Core;
use super::error::ObjectError;
use super::ports::layout_of;

/// Blobs that are taken from the queue at once.
const AT_ONCE: usize = 500;
/// Pause between two such steps: clients come first.
const PAUSE: Duration = Duration::from_millis(20);
/// How long blobs of a disk that is away are left alone.
const RETRY: Duration = Duration::from_secs(60);

/// How far the task is.
struct Progress {
    after: Option<CondemnedCursor>,
    /// When to look again at what was left behind `after`.
    retry_at: Option<Instant>,
}

/// Runs until the stop token is cancelled.
pub(super) async fn run(core: Arc<Core>) {
    let mut progress = Progress {
        after: None,
        retry_at: None,
    };
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
    if progress.retry_at.is_some_and(|at| at <= Instant::now()) {
        *progress = Progress {
            after: None,
            retry_at: None,
        };
    }
    while !core.stop.is_cancelled() {
        let page = core.catalog.condemned(progress.after, AT_ONCE).await?;
        let allowed = page.len();
        let page: Vec<Condemned> = page
            .into_iter()
            .take_while(|it| core.open_reads.allow_purge(it.cursor.commit))
            .collect();
        let Some(last) = page.last() else {
            return Ok(());
        };
        let last = last.cursor;
        let gone = delete(core, &page).await?;
        core.metrics.blobs_purged.add(gone.len() as u64);
        if gone.len() < page.len() {
            progress.retry_at.get_or_insert(Instant::now() + RETRY);
        }
        if !gone.is_empty() {
            core.catalog.purged(&gone).await?;
            debug!(blobs = gone.len(), "purged");
        }
        progress.after = Some(last);
        if page.len() < allowed {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Deletes the shards of these blobs; gives those of which nothing is left.
async fn delete(core: &Core, page: &[Condemned]) -> Result<Vec<Condemned>, ObjectError> {
    let mut by_disk: BTreeMap<DiskId, (Option<Target>, Vec<ShardKey>)> = BTreeMap::new();
    let mut disks_of: Vec<BTreeSet<DiskId>> = Vec::with_capacity(page.len());
    for condemned in page {
        let row = &condemned.row;
        let blob = BlobRef {
            group: row.group,
            blob: row.blob,
            layout: row.layout,
            len: 0,
        };
        let group = core.disks.group(row.group).await?;
        let mut disks = BTreeSet::new();
        for shard in 0..layout_of(&blob)?.shards() {
            let slot = group.slot(&blob, shard);
            let disk = group.row.slots[usize::from(slot)];
            if core.disks.is_lost_for_good(disk) {
                continue;
            }
            disks.insert(disk);
            let entry = by_disk.entry(disk);
            let (_, keys) = entry.or_insert_with(|| (core.target(&group, slot), Vec::new()));
            keys.push(group.key(&blob, shard));
        }
        disks_of.push(disks);
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
    let gone = page.iter().zip(&disks_of);
    Ok(gone
        .filter(|(_, disks)| disks.is_subset(&answered))
        .map(|(condemned, _)| *condemned)
        .collect())
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

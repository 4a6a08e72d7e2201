//! Fills owed slots: makes the shards anew that acknowledged blobs lack.
//!
//! Owns the walk over the owed rows. Invariants (PROTOCOL.md 5): a row is
//! closed only by a commit, after the comparing mark was set, then the
//! group's blobs and then the disk's list were read, and every shard that was
//! missing became durable; a commit that lacks the slot meanwhile makes the
//! comparison void. Nothing is deleted here. A slot whose disk is not living
//! is left alone. The rows are the job's memory: a restart begins with them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shardgate_catalog::{Catalog, CatalogError};
use shardgate_wire::{BlobId, GroupId, StoreError};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::compare::missing;
use crate::object::ObjectService;
use crate::object::ports::Disks;
use crate::object::rebuild::{RebuildError, Rebuilt, Turns};

/// Between two looks at the owed rows.
const EVERY: Duration = Duration::from_secs(5);
/// Blobs that are compared at once.
const PAGE: usize = 500;

/// How far the job is, since the start.
#[derive(Debug, Default)]
pub struct FillProgress {
    shards: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    closed: AtomicU64,
    now: Mutex<Option<Now>>,
}

/// What it does now.
#[derive(Clone, Copy, Debug)]
struct Now {
    group: GroupId,
    slot: u8,
    compared: u64,
    made: u64,
}

impl FillProgress {
    /// What it counted, by name.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("shards_made", of(&self.shards)),
            ("bytes_made", of(&self.bytes)),
            ("shards_failed", of(&self.failed)),
            ("slots_closed", of(&self.closed)),
        ]
    }

    /// What it does now, in words; `None` if nothing.
    pub fn now(&self) -> Option<String> {
        let now = (*self.now.lock())?;
        Some(format!(
            "filling slot {} of group {}: {} blobs compared, {} shards made",
            now.slot, now.group, now.compared, now.made
        ))
    }
}

/// How a look at one slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing is owed any more.
    Closed,
    /// It is looked at again later.
    Later,
}

/// The job.
pub(super) struct Fill {
    pub(super) catalog: Catalog,
    pub(super) disks: Arc<dyn Disks>,
    pub(super) objects: ObjectService,
    pub(super) turns: Box<dyn Turns>,
    pub(super) progress: Arc<FillProgress>,
    pub(super) stop: CancellationToken,
}

impl Fill {
    /// Runs until it is told to stop.
    pub(super) async fn run(self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if self.objects.is_fenced() {
                return;
            }
            let pass = tokio::select! {
                () = self.stop.cancelled() => return,
                pass = self.pass() => pass,
            };
            *self.progress.now.lock() = None;
            if let Err(error) = pass {
                warn!(%error, "filling of owed slots stopped, goes on later");
            }
        }
    }

    /// Looks at every owed slot once, those of the groups that lack most
    /// first.
    pub(super) async fn pass(&self) -> Result<(), CatalogError> {
        let rows = self.catalog.owed().await?;
        let mut lacking: BTreeMap<GroupId, usize> = BTreeMap::new();
        for (group, _, _) in &rows {
            *lacking.entry(*group).or_default() += 1;
        }
        let mut slots: Vec<(GroupId, u8)> = rows.iter().map(|row| (row.0, row.1)).collect();
        slots.sort_by_key(|(group, slot)| (usize::MAX - lacking[group], *group, *slot));
        for (group, slot) in slots {
            match self.fill(group, slot).await? {
                Outcome::Closed => {
                    self.progress.closed.fetch_add(1, Ordering::Relaxed);
                    info!(%group, slot, "slot is whole again");
                }
                Outcome::Later => debug!(%group, slot, "slot stays owed for now"),
            }
        }
        Ok(())
    }

    /// Compares one slot, makes what it lacks, and closes its row.
    pub(super) async fn fill(&self, group: GroupId, slot: u8) -> Result<Outcome, CatalogError> {
        let view = match self.disks.group(group).await {
            Ok(view) => view,
            Err(error) => {
                warn!(%group, %error, "group of an owed slot is not known");
                return Ok(Outcome::Later);
            }
        };
        let disk = view.row.slots.get(usize::from(slot));
        if !disk.is_some_and(|disk| self.disks.is_living(*disk)) {
            return Ok(Outcome::Later);
        }
        let Some(row) = self.catalog.compare_owed(group, slot).await? else {
            return Ok(Outcome::Later);
        };
        // The disk lists a damaged shard until it is gone. One that goes from
        // here on reopens the row.
        let disk = view.row.slots[usize::from(slot)];
        if self.objects.giving_up().is_under_way(group, disk) {
            return Ok(Outcome::Later);
        }
        let mut now = Now {
            group,
            slot,
            compared: 0,
            made: 0,
        };
        let mut whole = true;
        let mut after = row.lowest.0.checked_sub(1).map(BlobId);
        loop {
            *self.progress.now.lock() = Some(now);
            let page = self.catalog.blobs(group, after, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            let listed = match self.objects.list_slot(&view, slot, after, *last).await {
                Ok(listed) => listed,
                Err(error) => {
                    warn!(%group, slot, %error, "disk of an owed slot was not listed");
                    return Ok(Outcome::Later);
                }
            };
            for lack in missing(&view, slot, &page, &listed) {
                match self
                    .objects
                    .rebuild(&lack.blob, lack.shard, &*self.turns)
                    .await
                {
                    Ok(rebuilt) => now.made += self.made(rebuilt),
                    Err(error) => {
                        whole = false;
                        let blob = lack.blob.blob;
                        let shard = lack.shard;
                        warn!(%group, slot, %blob, shard, %error, "shard was not made anew");
                        self.progress.failed.fetch_add(1, Ordering::Relaxed);
                        if matches!(&error, RebuildError::Target(of) if !is_of_one(of)) {
                            return Ok(Outcome::Later);
                        }
                    }
                }
                *self.progress.now.lock() = Some(now);
            }
            now.compared += page.len() as u64;
            after = Some(*last);
        }
        if !whole {
            return Ok(Outcome::Later);
        }
        let generation = view.row.generation;
        match self.catalog.close_owed(group, slot, &row, generation).await {
            Ok(()) => Ok(Outcome::Closed),
            Err(CatalogError::Conflict) => Ok(Outcome::Later),
            Err(error) => Err(error),
        }
    }

    fn made(&self, rebuilt: Rebuilt) -> u64 {
        let Rebuilt::Made(bytes) = rebuilt else {
            return 0;
        };
        self.progress.shards.fetch_add(1, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        1
    }
}

/// Whether a disk that refused one shard may take the next: others need not
/// wait for it.
fn is_of_one(refusal: &StoreError) -> bool {
    matches!(
        refusal,
        StoreError::BadCall { .. } | StoreError::Corrupt { .. } | StoreError::Exists
    )
}

#[cfg(test)]
mod tests;

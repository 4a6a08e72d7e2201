//! Blobs of which nothing is left, whose notes stay until no write of them
//! can be under way any more.
//!
//! Owns that wait and its end. Invariant: a disk's note that a blob was
//! deleted is dropped only when no disk has a shard of it, and so late that a
//! call which was sent to a late disk before has ended; only then the blob
//! leaves the catalog's queue. What was not dropped, because a disk is away or
//! the process ends, is in the queue still, and goes the same way again: only
//! blobs whose time runs are in memory, whatever disks do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shardgate_catalog::{Condemned, CondemnedCursor};
use shardgate_wire::store::MAX_BATCH;
use shardgate_wire::{BlobId, DiskId, GroupId};
use tokio::time::Instant;
use tracing::warn;

use crate::object::calls::Target;
use crate::object::core::Core;
use crate::object::error::ObjectError;
use crate::object::notes::blob_of;
use crate::object::ports::layout_of;

/// How long notes stay: longer than a call to a disk goes on, repeats
/// included.
const STAY: Duration = Duration::from_secs(60);
/// Blobs that are remembered at most; beyond, the purge waits.
const MOST: usize = 100_000;
/// Blobs whose notes go at once.
const AT_ONCE: usize = 1000;

/// See the module.
#[derive(Default)]
pub(super) struct Settling {
    /// By the time they were there first.
    waiting: VecDeque<(Instant, Condemned)>,
    held: BTreeSet<CondemnedCursor>,
}

impl Settling {
    /// Nothing is left of these blobs.
    pub(super) fn begin(&mut self, gone: Vec<Condemned>, now: Instant) {
        for blob in gone {
            self.held.insert(blob.cursor);
            self.waiting.push_back((now + STAY, blob));
        }
    }

    /// Whether the blob is one of them.
    pub(super) fn holds(&self, cursor: CondemnedCursor) -> bool {
        self.held.contains(&cursor)
    }

    /// Whether no more are taken for now.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST
    }

    /// Those whose notes may go, some at a time.
    fn ripe(&mut self, now: Instant) -> Vec<Condemned> {
        let ripe = self.waiting.iter().take_while(|(at, _)| *at <= now);
        let count = ripe.take(AT_ONCE).count();
        self.waiting.drain(..count).map(|(_, blob)| blob).collect()
    }

    /// These are done with, or begin again when the queue is gone through.
    fn end(&mut self, blobs: &[Condemned]) {
        for blob in blobs {
            self.held.remove(&blob.cursor);
        }
    }
}

/// Drops the notes whose time is over, and takes their blobs from the queue;
/// how many stay there for another time.
pub(super) async fn end(core: &Core, settling: &mut Settling) -> Result<usize, ObjectError> {
    let mut left = 0;
    loop {
        let blobs = settling.ripe(Instant::now());
        if blobs.is_empty() {
            return Ok(left);
        }
        let ended = end_some(core, &blobs).await;
        settling.end(&blobs);
        left += blobs.len() - ended?;
    }
}

/// How many of them are out of the queue.
async fn end_some(core: &Core, blobs: &[Condemned]) -> Result<usize, ObjectError> {
    let whole = drop_notes(core, blobs).await?;
    let done = blobs.iter().filter(|blob| whole.contains(&blob.cursor));
    let done: Vec<Condemned> = done.copied().collect();
    core.catalog.purged(&done).await?;
    Ok(done.len())
}

/// Whose notes go, by disk.
type ByDisk = BTreeMap<DiskId, (Option<Target>, Vec<(GroupId, BlobId)>)>;

/// The blobs whose notes all disks of their slots have dropped.
async fn drop_notes(
    core: &Core,
    blobs: &[Condemned],
) -> Result<BTreeSet<CondemnedCursor>, ObjectError> {
    let mut disks_of: BTreeMap<CondemnedCursor, BTreeSet<DiskId>> = BTreeMap::new();
    let mut by_disk = ByDisk::new();
    for condemned in blobs {
        let blob = blob_of(&condemned.row);
        let group = core.disks.group(blob.group).await?;
        let disks = disks_of.entry(condemned.cursor).or_default();
        for shard in 0..layout_of(&blob)?.shards() {
            let slot = group.slot(&blob, shard);
            let disk = group.row.slots[usize::from(slot)];
            if !core.disks.is_lost_for_good(disk) && disks.insert(disk) {
                let of_disk = by_disk.entry(disk);
                let (_, noted) = of_disk.or_insert_with(|| (core.target(&group, slot), Vec::new()));
                noted.push((blob.group, blob.blob));
            }
        }
    }
    let mut answered = BTreeSet::new();
    for (disk, (target, noted)) in by_disk {
        let Some(target) = target else { continue };
        let mut whole = true;
        for some in noted.chunks(MAX_BATCH) {
            if let Err(error) = core.calls.forget_notes(&target, some).await {
                warn!(%disk, %error, "notes were not dropped, asked for again later");
                whole = false;
                break;
            }
        }
        if whole {
            answered.insert(disk);
        }
    }
    let whole = disks_of.into_iter();
    let whole = whole.filter(|(_, disks)| disks.is_subset(&answered));
    Ok(whole.map(|(cursor, _)| cursor).collect())
}

#[cfg(test)]
mod tests {
    use shardgate_catalog::model::{CondemnReason, CondemnedRow};
    use shardgate_wire::{BlobLayout, CommitNumber};

    use super::*;

    fn condemned(commit: u64) -> Condemned {
        Condemned {
            cursor: CondemnedCursor {
                commit: CommitNumber(commit),
                index: 0,
            },
            row: CondemnedRow {
                group: GroupId(1),
                blob: BlobId(commit.into()),
                layout: BlobLayout { data: 1, parity: 2 },
                reason: CondemnReason::Deleted,
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn notes_stay_for_their_time_and_are_held_until_they_went() {
        let mut settling = Settling::default();
        let now = Instant::now();
        settling.begin(vec![condemned(1), condemned(2)], now);
        settling.begin(vec![condemned(3)], now + STAY / 2);
        assert_eq!(settling.ripe(now + STAY / 2), []);
        let ripe = settling.ripe(now + STAY);
        assert_eq!(ripe, [condemned(1), condemned(2)]);
        assert!(settling.holds(ripe[0].cursor), "it is not done yet");
        settling.end(&ripe);
        assert!(!settling.holds(ripe[0].cursor) && settling.holds(condemned(3).cursor));
        assert_eq!(settling.ripe(now + STAY * 2), [condemned(3)]);
    }

    /// However many blobs a disk that is away keeps notes of, others go on.
    #[tokio::test(start_paused = true)]
    async fn what_does_not_end_takes_no_room() {
        let mut settling = Settling::default();
        let now = Instant::now();
        for round in 0..3u64 {
            let from = round * MOST as u64;
            let blobs = (from..from + MOST as u64).map(condemned).collect();
            assert!(!settling.is_full());
            settling.begin(blobs, now);
            assert!(settling.is_full());
            loop {
                let ripe = settling.ripe(now + STAY);
                if ripe.is_empty() {
                    break;
                }
                settling.end(&ripe);
            }
        }
        assert!(settling.held.is_empty());
    }
}

//! Looks after shards that are damaged or missing on a disk that lives.
//!
//! Owns the walk over what disks say is damaged, their scrubs' findings among
//! it, and over what reads found missing. Invariants: a disk's word is needed
//! to give up a shard of it, bytes that were garbled on their way are not
//! enough; what cannot be made of the others stays, and is tried again later.
//! Disks keep their lists over a restart. What is missing and not owed is found
//! by reads alone, and these read no parity while all is well.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shardgate_wire::{DamagedShard, DiskId, ShardKey};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::object::mend::Mended;
use crate::object::ports::Disks;
use crate::object::rebuild::{RebuildError, Turns};
use crate::object::{ObjectError, ObjectService};

/// Between two looks at what disks say.
const EVERY: Duration = Duration::from_secs(10);
/// Until a shard is tried again that the others did not give, or nobody knows.
const AGAIN: Duration = Duration::from_secs(600);
/// The same where something stood in the way for the moment.
const SOON: Duration = Duration::from_secs(60);
/// How long a disk may take to say what is damaged.
const ASK_TIME: Duration = Duration::from_secs(10);
/// Shards that are remembered as not to be mended now.
const MOST_KEPT: usize = 10_000;
/// Shards that were missed which are looked at between two looks at disks.
const MOST_MISSING: usize = 1000;

/// What was done about damaged and missing shards, since the start.
#[derive(Debug, Default)]
pub struct MendProgress {
    made: AtomicU64,
    missing: AtomicU64,
    kept: AtomicU64,
}

impl MendProgress {
    /// What it counted, by name.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("damaged_made", of(&self.made)),
            ("missing_owed", of(&self.missing)),
            ("damaged_kept", of(&self.kept)),
        ]
    }
}

/// The job.
pub(super) struct Mend {
    pub(super) disks: Arc<dyn Disks>,
    pub(super) objects: ObjectService,
    pub(super) turns: Box<dyn Turns>,
    pub(super) progress: Arc<MendProgress>,
    pub(super) stop: CancellationToken,
}

/// Shards that could not be mended, and when they are tried again.
pub(super) type Kept = HashMap<(DiskId, ShardKey), Instant>;

impl Mend {
    /// Runs until it is told to stop.
    pub(super) async fn run(self) {
        let mut kept = Kept::new();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if self.objects.is_fenced() {
                return;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.pass(&mut kept) => {}
            }
        }
    }

    /// Goes once over what disks say is damaged, and what reads missed.
    pub(super) async fn pass(&self, kept: &mut Kept) {
        kept.retain(|_, again| *again > Instant::now());
        self.objects.finish_giving_up().await;
        for disk in self.disks.disks() {
            if self.disks.is_living(disk) {
                self.of_disk(disk, kept).await;
            }
        }
        self.missing().await;
    }

    async fn of_disk(&self, disk: DiskId, kept: &mut Kept) {
        let Some(store) = self.disks.store(disk) else {
            return;
        };
        let damaged = match timeout(ASK_TIME, store.damaged()).await {
            Ok(Ok(damaged)) => damaged,
            Ok(Err(error)) => {
                warn!(%disk, %error, "disk did not say what is damaged on it");
                return;
            }
            Err(_) => return,
        };
        for shard in damaged {
            // What it said may be old by the time that others are mended.
            if kept.contains_key(&(disk, shard.key)) || !self.disks.is_living(disk) {
                continue;
            }
            if let Some(again) = self.mend(disk, &shard).await
                && kept.len() < MOST_KEPT
            {
                kept.insert((disk, shard.key), Instant::now() + again);
            }
        }
    }

    /// Makes one shard anew; else when it is tried again.
    async fn mend(&self, disk: DiskId, shard: &DamagedShard) -> Option<Duration> {
        let (group, blob, index) = (shard.key.group, shard.key.blob, shard.key.index);
        let what = &shard.what;
        let made = self
            .objects
            .make_damaged_anew(disk, shard.key, &*self.turns);
        match made.await {
            Ok(Mended::Made | Mended::Owed) => {
                self.progress.made.fetch_add(1, Ordering::Relaxed);
                info!(%disk, %group, %blob, index, what, "damaged shard is made anew");
                None
            }
            // Its blob's deletion takes it away, or nobody knows it.
            Ok(Mended::NotNeeded) => Some(AGAIN),
            Ok(Mended::NotNow) => Some(SOON),
            Err(RebuildError::Source(error @ ObjectError::Unreadable { .. })) => {
                self.progress.kept.fetch_add(1, Ordering::Relaxed);
                warn!(%disk, %group, %blob, index, what, %error, "damaged shard is not given by the others");
                Some(AGAIN)
            }
            Err(error) => {
                warn!(%disk, %group, %blob, index, what, %error, "damaged shard is not made anew yet");
                Some(SOON)
            }
        }
    }

    async fn missing(&self) {
        let repairs = self.objects.repairs();
        for _ in 0..repairs.len().min(MOST_MISSING) {
            let Some(repair) = repairs.take() else { return };
            let (group, blob, shard) = (repair.blob.group, repair.blob.blob, repair.shard);
            let owed = self.objects.owe_missing(&repair.blob, shard, &*self.turns);
            match owed.await {
                Ok(Mended::Made | Mended::Owed) => {
                    self.progress.missing.fetch_add(1, Ordering::Relaxed);
                    info!(%group, %blob, shard, "missing shard is made anew");
                }
                // It is looked at again when it is missed again.
                Ok(Mended::NotNeeded | Mended::NotNow) => {}
                Err(error) => warn!(%group, %blob, shard, %error, "missing shard is not made anew"),
            }
        }
    }
}

#[cfg(test)]
mod tests;

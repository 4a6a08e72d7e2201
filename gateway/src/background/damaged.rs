//! Looks after shards that are damaged or missing on a disk that lives.
//!
//! Owns the walk over what disks say is damaged, their scrubs' findings among
//! it, and over what reads found missing. Invariants: a disk's word is needed
//! to give up a shard of it, bytes that were garbled on their way are not
//! enough; what cannot be made of the others stays, and is tried again later.
//! A restart loses nothing: disks keep their lists, and reads find again what
//! is missing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shardgate_wire::{DiskId, ShardKey};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::object::ObjectService;
use crate::object::mend::Mended;
use crate::object::ports::Disks;
use crate::object::rebuild::Turns;
use crate::object::repairs::Fault;

/// Between two looks at what disks say.
const EVERY: Duration = Duration::from_secs(10);
/// Until a shard is tried again that could not be made of the others.
const AGAIN: Duration = Duration::from_secs(600);
/// How long a disk may take to say what is damaged.
const ASK_TIME: Duration = Duration::from_secs(10);
/// Shards that are remembered as not to be mended now.
const MOST_KEPT: usize = 10_000;

/// What was done about damaged shards, since the start.
#[derive(Debug, Default)]
pub struct MendProgress {
    given_up: AtomicU64,
    missing: AtomicU64,
    kept: AtomicU64,
}

impl MendProgress {
    /// What it counted, by name.
    pub fn counts(&self) -> [(&'static str, u64); 3] {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("damaged_given_up", of(&self.given_up)),
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
            let key = shard.key;
            if kept.contains_key(&(disk, key)) {
                continue;
            }
            let (group, blob, index, what) = (key.group, key.blob, key.index, shard.what);
            match self.objects.give_up_damaged(disk, key, &*self.turns).await {
                Ok(Mended::Owed) => {
                    self.progress.given_up.fetch_add(1, Ordering::Relaxed);
                    info!(%disk, %group, %blob, index, what, "damaged shard is made anew");
                }
                // Its blob's deletion takes it away, or nobody knows it.
                Ok(Mended::NotNeeded) => self.keep(kept, disk, key),
                Err(error) => {
                    self.progress.kept.fetch_add(1, Ordering::Relaxed);
                    warn!(%disk, %group, %blob, index, what, %error, "damaged shard stays for now");
                    self.keep(kept, disk, key);
                }
            }
        }
    }

    fn keep(&self, kept: &mut Kept, disk: DiskId, key: ShardKey) {
        if kept.len() < MOST_KEPT {
            kept.insert((disk, key), Instant::now() + AGAIN);
        }
    }

    async fn missing(&self) {
        let repairs = self.objects.repairs();
        for _ in 0..repairs.len() {
            let Some(repair) = repairs.take() else { return };
            // What is corrupt its disk says itself.
            if repair.fault != Fault::Missing {
                continue;
            }
            match self.objects.owe_missing(&repair.blob, repair.shard).await {
                Ok(Mended::Owed) => {
                    self.progress.missing.fetch_add(1, Ordering::Relaxed);
                    let (group, blob, shard) = (repair.blob.group, repair.blob.blob, repair.shard);
                    info!(%group, %blob, shard, "missing shard is made anew");
                }
                Ok(Mended::NotNeeded) => {}
                Err(error) => {
                    let (group, blob) = (repair.blob.group, repair.blob.blob);
                    warn!(%group, %blob, %error, "missing shard is looked at when it is missed again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

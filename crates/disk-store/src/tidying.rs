//! The thread that looks after a disk's volumes: closes those that rest,
//! seals them and those that are full, gives space back, compacts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use shardgate_wire::StoreError;

use crate::core::Core;
use crate::settling::{Settling, TURN_TIME};
use crate::space::Taker;
use crate::volume::{Choice, OpenLimits, Rests};

/// How often the thread looks for something to do.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it looks for volumes to compact: that goes over all of them.
const COMPACT_EVERY: Duration = Duration::from_secs(1);
/// How often it looks for open volumes that rest.
const CLOSE_EVERY: Duration = Duration::from_secs(1);
/// How often compaction looks whether callers still wait.
const GIVE_WAY: Duration = Duration::from_millis(5);
/// Callers hold compaction up no longer than this at a time: a disk that is
/// never idle must get its space back all the same.
const MOST_WAY: Duration = Duration::from_millis(500);

/// After upkeep was refused for want of space or of open files: nothing is
/// gained by trying at each look.
const UPKEEP_AGAIN: Duration = Duration::from_secs(1);

impl Core {
    pub(crate) fn tidy(self: &Arc<Self>) {
        let mut compacts_at = Instant::now();
        let (mut closes_at, mut rests) = (compacts_at, Rests::default());
        let mut upkeep_at = compacts_at;
        let mut unsettled = self.unsettled();
        while !self.lanes.is_closing() {
            let now = Instant::now();
            if now >= closes_at && now >= upkeep_at && self.condition.check_writable().is_ok() {
                self.volumes
                    .close_resting(&mut rests, self.open_limits(), now);
                closes_at = now + CLOSE_EVERY;
            }
            let mut alone = self.tidying.lock();
            // A failure fences the disk, which is said there; one of space
            // is met again by a later look.
            while now >= upkeep_at && !self.lanes.is_closing() {
                match self.volumes.upkeep() {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => upkeep_at = Instant::now() + UPKEEP_AGAIN,
                }
            }
            // Behind what upkeep does in no time, before what takes long.
            if let Some(settling) = unsettled.take() {
                unsettled = MutexGuard::unlocked_fair(&mut alone, || self.settle_next(settling));
            }
            if let Ok(Some(bytes)) = self.volumes.copy_directory()
                && self.pace(bytes)
            {
                continue;
            }
            if Instant::now() >= compacts_at
                && self.condition.check_writable().is_ok()
                && let Some(choice) = self.volumes.worst()
            {
                let done = self.compact(&choice);
                tracing::debug!(disk = %self.identity.disk, ?choice, ?done, "compacted");
                if done == Ok(true) {
                    continue;
                }
                // Else not again at once: it was given up, or refused.
            }
            if Instant::now() >= compacts_at {
                while self.clean_notes() == Ok(true) && self.pace(0) {}
                compacts_at = Instant::now() + COMPACT_EVERY;
            }
            drop(alone);
            self.rest(LOOK_EVERY);
        }
    }

    fn open_limits(&self) -> OpenLimits {
        OpenLimits {
            rest: self.options.volume_rest,
            most: self.options.max_open_volumes,
        }
    }

    /// Where to begin settling files of shards; `None` if the last run closed
    /// the disk in order, which makes marks durable.
    fn unsettled(&self) -> Option<Settling> {
        let clean = self.volumes.state.read().clean;
        (!clean && self.condition.check_writable().is_ok()).then(Settling::default)
    }

    /// Settles some files, or a part of one, and gives where to go on.
    fn settle_next(&self, mut settling: Settling) -> Option<Settling> {
        let since = Instant::now();
        match self.settle_turn(&mut settling, TURN_TIME) {
            Ok(true) => {
                self.settled.store(true, Ordering::Relaxed);
                return None;
            }
            // Busy: too many open files, not now.
            Ok(false) | Err(StoreError::Busy) => {}
            Err(error) => {
                tracing::warn!(disk = %self.identity.disk, %error, "files of shards are settled when they are read");
                return None;
            }
        }
        // Half of the time at most, and behind whoever waits.
        self.rest(since.elapsed());
        self.pace(0);
        Some(settling)
    }

    /// Compacts what was chosen, in space that is kept for it.
    fn compact(&self, choice: &Choice) -> Result<bool, StoreError> {
        let bytes = choice.bytes;
        let mut promised = self.space.take(&self.condition, Taker::Compaction, bytes)?;
        self.volumes.compact(choice, &mut |bytes| {
            promised.used(bytes as u64);
            self.pace(bytes)
        })
    }

    /// Sleeps as long as the set speed and waiting callers ask for.
    fn pace(&self, bytes: usize) -> bool {
        let speed = self.options.compact_bytes_per_second.max(1);
        let due = Duration::from_secs_f64(bytes as f64 / speed as f64);
        self.rest(due);
        let since = Instant::now();
        while self.lanes.queued() > 0 && since.elapsed() < MOST_WAY {
            std::thread::sleep(GIVE_WAY);
        }
        !self.lanes.is_closing()
    }

    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.lanes.is_closing() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
    }
}

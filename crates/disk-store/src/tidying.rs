//! The thread that looks after a disk's volumes: closes those that rest,
//! seals them and those that are full, gives space back, compacts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use shardgate_wire::StoreError;

use crate::core::Core;
use crate::pace::GivenWay;
use crate::settling::{Settling, TURN_TIME};
use crate::space::Taker;
use crate::volume::{Choice, OpenLimits, Rests};

/// How often the thread looks for something to do.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often it looks for volumes to compact: that goes over all of them.
const COMPACT_EVERY: Duration = Duration::from_secs(1);
/// How often it looks for open volumes that rest.
const CLOSE_EVERY: Duration = Duration::from_secs(1);
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
        self.give_way();
        !self.lanes.is_closing()
    }

    /// Lets callers go first, but no stream: that is in the background as
    /// well. Gives for how long.
    fn give_way(&self) -> Duration {
        let (mut way, mut given) = (GivenWay::default(), Duration::ZERO);
        while let Some(time) = way.rest(self.lanes.callers()) {
            self.rest(time);
            given += time;
        }
        given
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

#[cfg(test)]
mod tests {
    use shardgate_wire::Medium;
    use shardgate_wire::conformance::sample;

    use super::*;
    use crate::lanes::Lane;
    use crate::opening::{self, Expected, NewDisk};
    use crate::options::DiskOptions;

    #[test]
    fn callers_go_first_and_streams_do_not() {
        let dir = tempfile::tempdir().expect("make a folder");
        let new = NewDisk {
            cluster: sample::CLUSTER,
            disk: sample::identity().disk,
            medium: Some(Medium::Flash),
            create_folder: false,
        };
        let expected = Expected {
            cluster: sample::CLUSTER,
            disk: None,
        };
        let options = DiskOptions::default();
        opening::format(dir.path(), &new, &options).expect("formatted");
        // Without threads: what is submitted waits.
        let core = opening::open(dir.path(), &expected, options).expect("it opens");
        for (lane, given_ms) in [(Lane::Background, 0), (Lane::Read, 500)] {
            let submitted = core.lanes.submit(lane, 0, Box::new(|_, _| ()));
            submitted.expect("taken");
            assert_eq!(core.give_way(), Duration::from_millis(given_ms));
        }
    }
}

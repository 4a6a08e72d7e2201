//! The disk reads everything that it keeps, again and again, and says what is
//! damaged before anybody needs it.
//!
//! Owns the passes, and the record of them in the disk's folder. By itself,
//! with no gateway and no network: it reads what is on the disk, in the order
//! in which it lies, and needs nobody to decide what is whole. Invariant: at
//! most one window is read at a time, behind callers, at a set speed. Repairs
//! nothing: that is for who knows the other shards of a blob.

mod keeping;
mod passes;
mod record;
mod schedule;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shardgate_wire::{ScrubStanding, ShardKey, StoreError};

use crate::aligned::AlignedBuffer;
use crate::core::Core;
use crate::damaged::damage_of;
use crate::options::DiskOptions;
use crate::pace::{GivenWay, Pace};
use crate::streaming::Held;
use crate::window::{Unread, Window, WindowCursor};
use keeping::Saved;
use passes::Passes;
use schedule::{Holds, Schedule};

/// How often the thread looks whether a pass is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How fast it notices that the disk is closed.
const NOTICE: Duration = Duration::from_millis(100);
/// After what may pass by itself: too many open files, or a directory that
/// upkeep makes anew.
const AGAIN: Duration = Duration::from_secs(1);
/// Times that a place is tried that cannot be read, before it is passed over.
const TRIES: u32 = 3;

/// The scrub of a disk.
#[derive(Debug)]
pub(crate) struct Scrub {
    /// None if it is off.
    schedule: Option<Schedule>,
    passes: Mutex<Passes>,
    saved: Mutex<Saved>,
    /// Bytes that were read since the disk was opened.
    read: AtomicU64,
}

impl Scrub {
    pub(crate) fn new(options: &DiskOptions) -> Self {
        let period = options.scrub_period.filter(|period| !period.is_zero());
        Self {
            schedule: period.map(|period| Schedule {
                period,
                least: options.scrub_min_bytes_per_second,
                most: options.scrub_max_bytes_per_second,
            }),
            passes: Mutex::default(),
            saved: Mutex::default(),
            read: AtomicU64::new(0),
        }
    }

    /// How far it is; never waits for the disk.
    pub(crate) fn standing(&self) -> ScrubStanding {
        self.passes.lock().standing()
    }

    #[cfg(test)]
    fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// What the thread has between its turns.
struct Work {
    pace: Pace,
    held: Held,
    buffer: AlignedBuffer,
    tries: u32,
    /// Where the turn reads.
    at: WindowCursor,
    /// Called before a window is read.
    #[cfg(test)]
    trap: Option<fn(WindowCursor)>,
}

impl Work {
    fn new() -> Self {
        Self {
            pace: Pace::new(1),
            held: Held::default(),
            buffer: AlignedBuffer::default(),
            tries: 0,
            at: WindowCursor::default(),
            #[cfg(test)]
            trap: None,
        }
    }
}

impl Core {
    /// The life of the scrub's thread.
    pub(crate) fn scrub(self: &Arc<Self>) {
        // When a disk is opened, others have more need of it.
        self.rest_of_scrub(self.options.scrub_after_open);
        let mut work = Work::new();
        let forgotten = catch_unwind(AssertUnwindSafe(|| self.forget_gone(&mut work.buffer)));
        if forgotten.is_err() {
            self.condition.count_error();
        }
        while !self.lanes.is_closing() {
            let wait = self.scrub_turn(&mut work, &mut |time| self.rest_of_scrub(time));
            self.rest_of_scrub(wait);
        }
        self.save_scrub();
    }

    fn rest_of_scrub(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.lanes.is_closing() {
            self.save_scrub_if_due(Instant::now());
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NOTICE));
        }
    }

    /// Shards of the kept list that were deleted after it was written.
    fn forget_gone(&self, buffer: &mut AlignedBuffer) {
        for shard in self.damaged.all() {
            if self.lanes.is_closing() {
                return;
            }
            self.forget_if_gone(shard.key, buffer);
        }
    }

    fn forget_if_gone(&self, key: ShardKey, buffer: &mut AlignedBuffer) {
        if self.stat_shard(key, buffer) == Err(StoreError::NotFound) {
            self.damaged.forget(&[key]);
        }
    }

    /// Reads one window if one is due, after callers had their way; gives how
    /// long to rest then. A panic ends the turn, never the thread: it is met
    /// as what cannot be read is.
    fn scrub_turn(&self, work: &mut Work, rest: &mut dyn FnMut(Duration)) -> Duration {
        let turn = catch_unwind(AssertUnwindSafe(|| self.take_turn(work, rest)));
        turn.unwrap_or_else(|_| {
            self.condition.count_error();
            let unread = self.panicked_at(work.at, &work.held);
            tracing::error!(disk = %self.identity.disk, at = ?unread.at, "scrub panicked");
            // What it was in the middle of is read again.
            work.held = Held::default();
            work.buffer = AlignedBuffer::default();
            self.met(&unread, work)
        })
    }

    fn take_turn(&self, work: &mut Work, rest: &mut dyn FnMut(Duration)) -> Duration {
        let Some(schedule) = self.scrub.schedule else {
            return LOOK_EVERY;
        };
        if self.condition.check_present().is_err() {
            return LOOK_EVERY;
        }
        let now_ms = self.options.clock.now_ms();
        if !self.begin_pass(&schedule, now_ms) {
            return LOOK_EVERY;
        }
        let mut way = GivenWay::default();
        while let Some(time) = way.rest(self.lanes.callers()) {
            rest(time);
        }
        if self.lanes.is_closing() {
            return Duration::ZERO;
        }
        match self.scrub_window(work, &schedule, now_ms) {
            Ok(()) => {
                work.tries = 0;
                work.pace.wait(Instant::now())
            }
            Err(unread) => self.met(&unread, work),
        }
    }

    /// Begins a pass if one is due; false if none runs.
    fn begin_pass(&self, schedule: &Schedule, now_ms: u64) -> bool {
        if !self.scrub.passes.lock().is_due(schedule, now_ms) {
            return self.scrub.passes.lock().runs();
        }
        let holds = self.holds();
        let all = self.scrub.passes.lock().begin(holds, now_ms);
        tracing::info!(disk = %self.identity.disk, bytes = all, "scrub begins");
        true
    }

    /// What the disk holds now. Its files are guessed: all that is used of the
    /// file system and is in no volume.
    fn holds(&self) -> Holds {
        let volumes = self.volumes.live_bytes();
        let none = self.groups_from(None).is_ok_and(|groups| groups.is_empty());
        let files = match rustix::fs::fstatvfs(&self.folder) {
            Ok(stat) if !none => {
                let blocks = stat.f_blocks.saturating_sub(stat.f_bfree);
                let used = blocks.saturating_mul(stat.f_frsize);
                used.saturating_sub(volumes)
            }
            _ => 0,
        };
        Holds { volumes, files }
    }

    /// Reads the next window of the pass, or ends it.
    fn scrub_window(
        &self,
        work: &mut Work,
        schedule: &Schedule,
        now_ms: u64,
    ) -> Result<(), Unread> {
        let Some((cursor, progress)) = self.scrub.passes.lock().place() else {
            return Ok(());
        };
        work.at = cursor.unwrap_or(work.at);
        let from = match cursor {
            Some(cursor) if !cursor.is_start() => Some(cursor),
            Some(cursor) => {
                let group = self.group_from(cursor.group, work.tries + 1 < TRIES);
                group.map_err(Unread::from(cursor))?
            }
            None => None,
        };
        let Some(from) = from else {
            self.scrub.passes.lock().end(now_ms);
            tracing::info!(disk = %self.identity.disk, bytes = progress.read, "scrub ends");
            return Ok(());
        };
        work.at = from;
        #[cfg(test)]
        if let Some(trap) = work.trap {
            trap(from);
        }
        work.pace.set(schedule.speed(progress, now_ms));
        let begun = Instant::now();
        let bytes = work.pace.window_bytes();
        let window = self.window(from, bytes, &mut work.held, &mut work.buffer)?;
        work.pace.took(begun, window.read_bytes);
        self.note_damage(&window, &mut work.buffer);
        // A window is of volumes or of files, and goes on in the same.
        let in_files = window.next.is_none_or(|next| next.volume().is_none());
        let read = window.read_bytes;
        self.scrub.read.fetch_add(read, Ordering::Relaxed);
        self.scrub.passes.lock().has_read(read, in_files);
        if self.scrub.passes.lock().outgrows() {
            let holds = self.holds();
            self.scrub.passes.lock().guessed(holds);
        }
        let mut passes = self.scrub.passes.lock();
        passes.go_on(window.next.or_else(|| from.next_group()));
        Ok(())
    }

    fn note_damage(&self, window: &Window, buffer: &mut AlignedBuffer) {
        for record in &window.records {
            let wrong = record.shard.as_ref().err().and_then(damage_of);
            let Some(what) = wrong else { continue };
            self.found_damaged(record.key, &what);
            // One that was deleted just now is known to nobody.
            self.forget_if_gone(record.key, buffer);
        }
    }

    /// The window could not be read: how long to rest before the next try,
    /// there or behind it.
    fn met(&self, unread: &Unread, work: &mut Work) -> Duration {
        match unread.error {
            StoreError::Corrupt { .. } | StoreError::Io { .. } => work.tries += 1,
            // Not the place's fault: it is tried until it is read.
            _ => return AGAIN,
        }
        if work.tries < TRIES {
            return AGAIN;
        }
        work.tries = 0;
        let Unread { at, error, .. } = unread;
        tracing::warn!(disk = %self.identity.disk, ?at, %error, "scrub passes over what cannot be read");
        self.condition.count_error();
        self.scrub.passes.lock().go_on(unread.go_on());
        Duration::ZERO
    }
}

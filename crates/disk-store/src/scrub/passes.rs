//! How far the passes are. Pure: told what was read and when.

use shardgate_wire::ScrubStanding;
use shardgate_wire::ids::GroupId;

use super::record::{Pass, Record};
use super::schedule::{Holds, Progress, Schedule, guess_step, nears, not_ahead};
use crate::window::WindowCursor;

/// The passes of a disk, as they are kept, and what changed since they were.
#[derive(Debug, Default)]
pub(crate) struct Passes {
    record: Record,
    /// The pass has read all, and ends next.
    at_end: bool,
    /// How far the pass was when it was last guessed anew what there is.
    guessed_at: Option<u64>,
    changed: Changed,
}

/// What changed since the record was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// The place of the pass.
    pub(crate) place: bool,
    /// A pass began or ended.
    pub(crate) pass: bool,
}

impl Passes {
    pub(crate) fn of(record: Record) -> Self {
        Self {
            record,
            ..Self::default()
        }
    }

    pub(crate) fn standing(&self) -> ScrubStanding {
        let pass = self.record.pass.unwrap_or_default();
        ScrubStanding {
            read_bytes: pass.read,
            // More may have come since it began.
            pass_bytes: pass.all.max(pass.read),
            passes: self.record.passes,
            ended_ms: self.record.ended_ms,
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.record.pass.is_some()
    }

    /// Whether none runs and the next is due.
    pub(crate) fn is_due(&mut self, schedule: &Schedule, now_ms: u64) -> bool {
        if let Some(begun) = &mut self.record.begun_ms {
            let settled = not_ahead(*begun, now_ms);
            self.changed.pass |= settled != *begun;
            *begun = settled;
        }
        !self.runs() && schedule.wait(self.record.begun_ms, now_ms).is_zero()
    }

    /// How much the pass has to read, about.
    pub(crate) fn begin(&mut self, holds: Holds, now_ms: u64) -> u64 {
        let all = holds.bytes(self.record.files);
        self.record.begun_ms = Some(now_ms);
        self.record.pass = Some(Pass {
            // A pass that runs has bytes to read: 0 says that none does.
            all: all.max(1),
            cursor: WindowCursor::start(GroupId(0)),
            ..Pass::default()
        });
        self.at_end = false;
        self.guessed_at = None;
        self.changed.pass = true;
        all
    }

    /// Whether it is to be guessed anew how much there is: the pass has read
    /// about what it was taken for.
    pub(crate) fn outgrows(&self) -> bool {
        let next = self.guessed_at.map(|at| at.saturating_add(guess_step(at)));
        let is_due = |read| next.is_none_or(|next| read >= next);
        let pass = self.record.pass;
        pass.is_some_and(|pass| nears(pass.read, pass.all) && is_due(pass.read))
    }

    /// There is so much; never less than was thought.
    pub(crate) fn guessed(&mut self, holds: Holds) {
        if let Some(pass) = &mut self.record.pass {
            pass.all = pass.all.max(holds.bytes(pass.read_files));
            self.guessed_at = Some(pass.read);
        }
    }

    /// Where the pass goes on, `None` at its end, and how far it is.
    pub(crate) fn place(&self) -> Option<(Option<WindowCursor>, Progress)> {
        let pass = self.record.pass?;
        let progress = Progress {
            begun_ms: self.record.begun_ms.unwrap_or(0),
            read: pass.read,
            all: pass.all,
        };
        Some((Some(pass.cursor).filter(|_| !self.at_end), progress))
    }

    pub(crate) fn has_read(&mut self, bytes: u64, in_files: bool) {
        if let Some(pass) = &mut self.record.pass {
            pass.read += bytes;
            pass.read_files += if in_files { bytes } else { 0 };
        }
    }

    /// Goes on there; `None` behind everything.
    pub(crate) fn go_on(&mut self, cursor: Option<WindowCursor>) {
        match (&mut self.record.pass, cursor) {
            (Some(pass), Some(cursor)) => pass.cursor = cursor,
            _ => self.at_end = true,
        }
        self.changed.place = true;
    }

    pub(crate) fn end(&mut self, now_ms: u64) {
        if let Some(pass) = self.record.pass.take() {
            self.record.files = pass.read_files;
            self.record.passes = self.record.passes.saturating_add(1);
            self.record.ended_ms = now_ms;
        }
        self.at_end = false;
        self.changed.pass = true;
    }

    pub(crate) fn changed(&self) -> Changed {
        self.changed
    }

    /// The record as it is to be written now.
    pub(crate) fn record(&self) -> Record {
        self.record.clone()
    }

    /// The record was written; nothing has changed meanwhile.
    pub(crate) fn was_saved(&mut self) {
        self.changed = Changed::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PERIOD_MS: u64 = 1_000_000;

    fn schedule() -> Schedule {
        Schedule {
            period: Duration::from_millis(PERIOD_MS),
            least: 1,
            most: 1000,
        }
    }

    fn holds(volumes: u64, files: u64) -> Holds {
        Holds { volumes, files }
    }

    #[test]
    fn a_disk_that_filled_up_since_it_was_counted_is_read_in_time() {
        const TB: u64 = 1_000_000_000_000;
        const DAY_MS: u64 = 24 * 3600 * 1000;
        let schedule = Schedule {
            period: Duration::from_secs(30 * 24 * 3600),
            least: 2 << 20,
            most: 32 << 20,
        };
        let mut passes = Passes::default();
        // The first found nothing.
        passes.begin(holds(0, 0), 0);
        passes.end(1);
        assert_eq!(passes.begin(holds(TB, 15 * TB), 30 * DAY_MS), 16 * TB);
        let speed = |passes: &Passes, day: u64| {
            let (_, progress) = passes.place().unwrap();
            schedule.speed(progress, day * DAY_MS)
        };
        assert_eq!(speed(&passes, 30), 16 * TB / (15 * 24 * 3600));
        // One that began before the disk filled up.
        passes.end(31 * DAY_MS);
        passes.begin(holds(TB, 0), 60 * DAY_MS);
        passes.has_read(TB / 2, false);
        assert!(!passes.outgrows());
        passes.has_read(TB / 2, false);
        assert!(passes.outgrows());
        assert_eq!(speed(&passes, 80), 2 << 20);
        passes.guessed(holds(TB, 15 * TB));
        assert_eq!(passes.standing().pass_bytes, 16 * TB);
        assert_eq!(speed(&passes, 80), 15 * TB / (10 * 24 * 3600));
        assert!(!passes.outgrows());
        // Where nothing came, it is not guessed at each window.
        passes.has_read(15 * TB, true);
        let mut guesses = 0;
        for _ in 0..10_000 {
            passes.has_read(4 << 20, true);
            if passes.outgrows() {
                passes.guessed(holds(TB, 0));
                guesses += 1;
            }
        }
        assert_eq!((guesses, passes.standing().pass_bytes > 16 * TB), (1, true));
    }

    #[test]
    fn passes_begin_a_period_apart_and_are_counted() {
        let mut passes = Passes::default();
        let now = 5_000_000_000;
        assert!(passes.is_due(&schedule(), now) && !passes.runs());
        assert_eq!(passes.begin(holds(1000, 0), now), 1000);
        assert!(passes.runs() && !passes.is_due(&schedule(), now + 9 * PERIOD_MS));
        passes.has_read(300, false);
        passes.has_read(900, true);
        let standing = passes.standing();
        assert_eq!((standing.read_bytes, standing.pass_bytes), (1200, 1200));
        passes.go_on(Some(WindowCursor::start(GroupId(9))));
        assert!(passes.changed().place && passes.changed().pass);
        let mut again = Passes::of(passes.record());
        passes.was_saved();
        assert_eq!(passes.changed(), Changed::default());
        let (cursor, progress) = again.place().unwrap();
        assert_eq!(cursor, Some(WindowCursor::start(GroupId(9))));
        assert_eq!((progress.read, progress.begun_ms), (1200, now));
        again.go_on(None);
        assert_eq!(again.place().unwrap().0, None);
        again.end(now + 7);
        let standing = again.standing();
        assert_eq!((standing.passes, standing.ended_ms), (1, now + 7));
        assert_eq!((standing.read_bytes, standing.pass_bytes), (0, 0));
        assert_eq!(again.record().files, 900);
        // Not at once, and not before its time.
        assert!(!again.is_due(&schedule(), now + PERIOD_MS - 1));
        assert!(again.is_due(&schedule(), now + PERIOD_MS));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_up_no_longer_than_a_period() {
        let mut passes = Passes::default();
        passes.begin(holds(1, 0), 900 * PERIOD_MS);
        passes.end(900 * PERIOD_MS);
        let now = 5 * PERIOD_MS;
        assert!(!passes.is_due(&schedule(), now));
        assert!(!passes.is_due(&schedule(), now + PERIOD_MS - 1));
        assert!(passes.is_due(&schedule(), now + PERIOD_MS));
    }
}

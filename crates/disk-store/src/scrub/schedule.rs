//! When a pass begins and how fast it goes. Pure.
//!
//! Invariant: whatever the clock does, a pass begins no later than one period
//! after it was last looked at.

use std::time::Duration;

/// What is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// From the begin of a pass to that of the next.
    pub(crate) period: Duration,
    /// Bytes per second.
    pub(crate) least: u64,
    /// The same; the stronger of the two.
    pub(crate) most: u64,
}

/// How far a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// When it began, milliseconds since 1970.
    pub(crate) begun_ms: u64,
    /// Bytes that it has read.
    pub(crate) read: u64,
    /// Bytes that it has to read in all.
    pub(crate) all: u64,
}

/// What a disk is taken to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Bytes of volumes.
    pub(crate) volumes: u64,
    /// Bytes in files, guessed.
    pub(crate) files: u64,
}

impl Holds {
    /// What there is to read, about; `counted` by an earlier pass in files,
    /// which may be long ago. The larger, since to read too fast costs less
    /// than to be late.
    pub(crate) fn bytes(self, counted: u64) -> u64 {
        self.volumes.saturating_add(self.files.max(counted))
    }
}

/// Whether a pass that has read so much of `all` is so near its end that it
/// is to be guessed anew how much there is.
pub(crate) fn nears(read: u64, all: u64) -> bool {
    read >= all - all / 16
}

/// How much a pass reads between two guesses.
pub(crate) fn guess_step(all: u64) -> u64 {
    (all / 64).max(1 << 20)
}

impl Schedule {
    fn period_ms(&self) -> u64 {
        u64::try_from(self.period.as_millis()).unwrap_or(u64::MAX)
    }

    /// Bytes per second: all of them in half a period, so that the other half
    /// is left for stops, and for callers who go first; faster if it is late
    /// all the same.
    pub(crate) fn speed(&self, progress: Progress, now_ms: u64) -> u64 {
        let per_second = |bytes: u64, ms: u64| {
            let speed = u128::from(bytes) * 1000 / u128::from(ms.max(1000));
            u64::try_from(speed).unwrap_or(u64::MAX)
        };
        let period = self.period_ms();
        let usual = per_second(progress.all, period / 2);
        let passed = now_ms.saturating_sub(progress.begun_ms);
        let left = progress.all.saturating_sub(progress.read);
        let late = per_second(left, period.saturating_sub(passed));
        usual.max(late).max(self.least).min(self.most).max(1)
    }

    /// How long until the next pass begins; none began yet if there is no
    /// time.
    pub(crate) fn wait(&self, begun_ms: Option<u64>, now_ms: u64) -> Duration {
        let Some(begun) = begun_ms else {
            return Duration::ZERO;
        };
        let due = begun.saturating_add(self.period_ms());
        Duration::from_millis(due.saturating_sub(now_ms)).min(self.period)
    }
}

/// When the last pass began, by a clock that was perhaps set back since: what
/// lies ahead counts as now, so that the next is due a period from here.
pub(crate) fn not_ahead(begun_ms: u64, now_ms: u64) -> u64 {
    begun_ms.min(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const MIB: u64 = 1 << 20;
    const TB: u64 = 1_000_000_000_000;

    fn usual() -> Schedule {
        Schedule {
            period: Duration::from_secs(30 * DAY),
            least: 2 * MIB,
            most: 32 * MIB,
        }
    }

    #[test]
    fn all_is_read_in_half_a_period_within_bounds() {
        let days = |days: u64| days * DAY * 1000;
        for (all, read, passed_ms, wanted) in [
            (0, 0, 0, 2 * MIB),
            (TB, 0, 0, 2 * MIB),
            (10 * TB, 0, 0, 10 * TB / (15 * DAY)),
            // It is as fast to its end.
            (10 * TB, 9 * TB, days(14), 10 * TB / (15 * DAY)),
            (100 * TB, 0, 0, 32 * MIB),
            // Late, it hurries.
            (10 * TB, 5 * TB, days(25), 5 * TB / (5 * DAY)),
            (10 * TB, 5 * TB, days(29), 32 * MIB),
            (10 * TB, 5 * TB, days(90), 32 * MIB),
            // Less was there than it had to read.
            (TB, 2 * TB, days(29), 2 * MIB),
        ] {
            let begun_ms = 1_700_000_000_000;
            let progress = Progress {
                begun_ms,
                read,
                all,
            };
            let speed = usual().speed(progress, begun_ms + passed_ms);
            assert_eq!(speed, wanted, "{all} {read} {passed_ms}");
        }
    }

    #[test]
    fn the_larger_of_what_was_counted_and_what_is_guessed_is_to_be_read() {
        for (volumes, files, counted, wanted) in [
            (0, 0, 0, 0),
            // The pass before found an empty disk.
            (TB, 15 * TB, 0, 16 * TB),
            // Other things lie on the file system, or are gone from it.
            (TB, 2 * TB, 3 * TB, 4 * TB),
            (TB, 4 * TB, 3 * TB, 5 * TB),
            (u64::MAX, 1, 1, u64::MAX),
        ] {
            assert_eq!(Holds { volumes, files }.bytes(counted), wanted);
        }
    }

    #[test]
    fn the_most_is_stronger_than_the_least_and_nothing_divides_by_zero() {
        let progress = Progress {
            begun_ms: 5,
            read: 0,
            all: u64::MAX,
        };
        let mut schedule = usual();
        (schedule.least, schedule.most) = (100, 10);
        assert_eq!(schedule.speed(progress, 0), 10);
        schedule.most = 0;
        assert_eq!(schedule.speed(progress, 0), 1);
        schedule.period = Duration::ZERO;
        schedule.most = u64::MAX;
        assert_eq!(schedule.speed(progress, u64::MAX), u64::MAX);
        schedule.period = Duration::MAX;
        schedule.speed(progress, u64::MAX);
    }

    #[test]
    fn a_pass_begins_a_period_after_the_last() {
        let period = 30 * DAY * 1000;
        let ms = Duration::from_millis;
        for (begun, now, wanted) in [
            (None, 5, 0),
            (Some(1000), 1000, period),
            (Some(1000), 2000, period - 1000),
            (Some(1000), 1000 + period, 0),
            (Some(1000), 9000 + period, 0),
            // The clock was set back: a period from now at most.
            (Some(50 * period), 1000, period),
            (Some(u64::MAX), 1000, period),
        ] {
            assert_eq!(usual().wait(begun, now), ms(wanted), "{begun:?} {now}");
        }
    }

    #[test]
    fn a_clock_that_jumps_holds_nothing_up() {
        let period = 30 * DAY * 1000;
        // Ten years back: looked at again and again, it is due in a period.
        let mut begun = 20 * 12 * period;
        let set_back = begun - 10 * 12 * period;
        let mut looks = 0;
        let mut now = set_back;
        loop {
            begun = not_ahead(begun, now);
            if usual().wait(Some(begun), now).is_zero() {
                break;
            }
            now += DAY * 1000;
            looks += 1;
        }
        assert_eq!(looks, 30);
        assert_eq!(not_ahead(7, 9), 7);
    }
}

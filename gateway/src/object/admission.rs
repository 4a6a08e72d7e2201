//! How much memory a request needs, and how much more it may use.
//!
//! Pure arithmetic over the budget's figures. Two kinds of need: the least
//! that a request can finish with, which it is admitted by, and what makes
//! it fast, which it gets only while the budget has plenty. Read-ahead is a
//! time: what the client drains while the disks are asked, so that a slow
//! client is left with one unit for ever.

use std::time::Duration;

use shardgate_erasure::{Geometry, Layout, full_block};

/// The unit of the memory budget.
pub const UNIT: u64 = 64 * 1024;

/// The most that one reader holds, however fast its client is.
pub const MAX_WINDOW: u64 = 8 * 1024 * 1024;

/// The units that a reader begins with while memory is plenty.
const FIRST_UNITS: u64 = 16;

/// What is read ahead is what the client drains in this time: many times what
/// disks need, and more than a pause of theirs.
const AHEAD: Duration = Duration::from_millis(200);
/// The same while memory is not plenty.
const AHEAD_LEAST: Duration = Duration::from_millis(30);

/// A client's pace is taken over this time. What the buffers of a connection
/// swallow at its beginning is not much in it.
const PACE: Duration = Duration::from_secs(1);

/// Units that cover `bytes`.
pub const fn units(bytes: u64) -> u64 {
    bytes.div_ceil(UNIT)
}

/// The longest block of a blob of this length (`None`: not known).
fn longest_block(layout: Layout, len: Option<u64>) -> u64 {
    let Some(len) = len else {
        return full_block(layout);
    };
    let geometry = Geometry::new(layout, len).ok();
    let first = geometry.and_then(|geometry| geometry.stripe(0));
    first.map_or(0, |stripe| stripe.block_len)
}

/// The least that a streamed write needs: the block in hand and m parity
/// blocks, and before them the stripe that is gathered where the length is
/// not known. Copies have no parity of their own: all shards share one block.
pub fn stream_need(layout: Layout, len: Option<u64>) -> u64 {
    let in_hand = match len {
        Some(_) => 1,
        None => 1 + u64::from(layout.data()),
    };
    let parity = match layout.is_copies() {
        true => 0,
        false => u64::from(layout.parity()),
    };
    (in_hand + parity) * longest_block(layout, len)
}

/// What a write holds that keeps its whole body (one stripe) until it is
/// committed, so that it can be sent again to another group.
pub fn whole_need(layout: Layout, len: u64) -> u64 {
    let blocks = match layout.is_copies() {
        true => 1,
        false => u64::from(layout.shards()),
    };
    blocks * longest_block(layout, Some(len))
}

/// The most that a streamed write may hold when memory is plenty: two
/// stripes on their way.
pub fn stream_most(layout: Layout) -> u64 {
    let blocks = match layout.is_copies() {
        true => 4,
        false => 2 * u64::from(layout.shards()),
    };
    blocks * full_block(layout)
}

/// How full the budget is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Units that nobody holds.
    pub free: u64,
    /// All units.
    pub total: u64,
    /// Readers that hold more than one unit.
    pub wide: u64,
}

impl Room {
    /// Whether at least `parts` quarters of the budget are free.
    fn quarters_free(self, parts: u64) -> bool {
        self.free * 4 >= self.total * parts
    }

    /// Whether a body may be kept whole although streaming it needs less.
    pub fn keeps_bodies(self) -> bool {
        self.quarters_free(3)
    }

    /// Whether a write may take more than it needs.
    pub fn lets_writes_grow(self) -> bool {
        self.quarters_free(1)
    }

    /// The most one reader may hold: its share of a quarter of the budget
    /// among those that hold more than a unit, and a sixteenth of what is
    /// free, so that readers never leave nothing to a new request.
    fn window_limit(self) -> u64 {
        let share = self.total / 4 / (self.wide + 1);
        let limit = share.min(self.free / 16);
        (limit * UNIT).clamp(UNIT, MAX_WINDOW)
    }

    /// The window that a reader of `wanted` bytes begins with: a unit, or more
    /// where that takes no more than a sixteenth of the budget from all who
    /// have proved nothing yet, and of what is free. So a fast client is not
    /// made to ask for every unit by itself where slow ones hold the most.
    /// What was read ahead for a slow client stays held until it is taken,
    /// however small its window becomes meanwhile.
    pub fn first_window(self, wanted: u64) -> u64 {
        let first = FIRST_UNITS * UNIT;
        let untaken = self.wide * FIRST_UNITS;
        let most = match untaken < self.total / 16 && self.window_limit() >= first {
            true => first,
            false => UNIT,
        };
        wanted.min(most).next_multiple_of(UNIT).max(UNIT)
    }
}

/// How fast a client drains, of late.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// When this stretch began, since the reader did.
    since: Duration,
    /// Bytes of this stretch.
    taken: u64,
    /// Bytes per second of the stretch before.
    rate: u64,
}

impl Pace {
    /// Notes that the client took so many bytes, `now` since the reader began.
    pub fn took(&mut self, bytes: u64, now: Duration) {
        self.taken += bytes;
        let stretch = now.saturating_sub(self.since);
        if stretch >= PACE {
            self.rate = (self.taken as f64 / stretch.as_secs_f64()) as u64;
            (self.since, self.taken) = (now, 0);
        }
    }

    /// Bytes per second: those of the last whole stretch, or more if this one
    /// has more already.
    pub fn rate(&self) -> u64 {
        self.rate.max(self.taken / PACE.as_secs())
    }
}

/// What a reader knows of its client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drain {
    /// How fast the client drains.
    pub pace: Pace,
    /// The client wanted bytes before they were there.
    pub starved: bool,
    /// The client left ready bytes lying for longer than it takes to fetch
    /// them again.
    pub lagged: bool,
}

/// The next window of a reader that has `window` now.
pub fn next_window(window: u64, drain: Drain, room: Room) -> u64 {
    if drain.lagged {
        return (window / 2).next_multiple_of(UNIT).max(UNIT);
    }
    if !drain.starved {
        return window;
    }
    let ahead = match room.quarters_free(2) {
        true => AHEAD,
        false => AHEAD_LEAST,
    };
    let drained = drain.pace.rate() as f64 * ahead.as_secs_f64();
    let grown = (window * 2).min((drained as u64).next_multiple_of(UNIT));
    grown.min(room.window_limit()).max(window)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;

    fn layout(text: &str) -> Layout {
        Layout::full(text.parse().unwrap())
    }

    #[test]
    fn a_streamed_write_needs_its_parity_and_one_block() {
        for (scheme, len, need) in [
            ("4+2", Some(64 << 20), 3 * 256 * KIB),
            ("8+4", Some(64 << 20), 5 * 128 * KIB),
            ("8+4", None, 13 * 128 * KIB),
            ("1+2", Some(64 << 20), 256 * KIB),
            ("1+0", None, 2 * 256 * KIB),
            ("4+2", Some(400 * KIB), 3 * 100 * KIB),
            ("4+2", Some(0), 0),
        ] {
            assert_eq!(stream_need(layout(scheme), len), need, "{scheme} {len:?}");
        }
    }

    #[test]
    fn whole_bodies_hold_every_block_once() {
        assert_eq!(whole_need(layout("4+2"), 1024 * KIB), 6 * 256 * KIB);
        assert_eq!(whole_need(layout("1+2"), 100 * KIB), 100 * KIB);
    }

    /// The load of the issue: 200 PUTs and 2,000 GETs at once, 8+4.
    #[test]
    fn slow_clients_of_the_issue_fit_the_default_budget() {
        let puts = 200 * units(stream_need(layout("8+4"), Some(1 << 30)));
        let gets = 2000;
        assert!(
            puts + gets <= units(320 * KIB * KIB) * 15 / 16,
            "{}",
            puts + gets
        );
    }

    #[test]
    fn many_that_begin_at_once_leave_the_budget_to_others() {
        let total = 4800;
        let mut room = Room {
            free: total,
            total,
            wide: 0,
        };
        for _ in 0..2000 {
            let window = units(room.first_window(u64::MAX));
            room.free -= window;
            room.wide += u64::from(window > 1);
        }
        let puts = 200 * units(stream_need(layout("8+4"), Some(1 << 30)));
        assert!(room.free >= puts, "{} of {puts} units", room.free);
    }

    /// A client of `rate` bytes per second behind buffers that swallow
    /// `buffers` bytes at once: its largest window in `seconds`, bytes.
    fn largest_window(rate: u64, buffers: u64, seconds: u64) -> u64 {
        let room = Room {
            free: 4096,
            total: 4096,
            wide: 1,
        };
        let (mut window, mut drain) = (UNIT, Drain::default());
        let (mut taken, mut largest) = (0_u64, UNIT);
        loop {
            // When the connection has room for this unit.
            let now = taken.saturating_sub(buffers) * 1000 / rate;
            if now >= seconds * 1000 {
                return largest;
            }
            drain.pace.took(UNIT, Duration::from_millis(now));
            taken += UNIT;
            // The worst: it never leaves anything lying.
            drain.starved = true;
            window = next_window(window, drain, room);
            largest = largest.max(window);
        }
    }

    #[test]
    fn read_ahead_follows_what_the_client_drains() {
        for (rate, buffers, least, most) in [
            (50_000, 64 * KIB, 1, 1),
            (50_000, 200 * KIB, 1, 1),
            (500_000, 200 * KIB, 2, 4),
            (10_000_000, 1024 * KIB, 30, 50),
            (100_000_000, 1024 * KIB, 128, 128),
        ] {
            let largest = units(largest_window(rate, buffers, 120));
            assert!(
                (least..=most).contains(&largest),
                "{rate} B/s: {largest} units"
            );
        }
    }

    #[test]
    fn a_pace_is_of_late() {
        let mut pace = Pace::default();
        pace.took(400, Duration::from_millis(10));
        assert_eq!(pace.rate(), 400, "not forty thousand");
        pace.took(600, Duration::from_millis(2000));
        assert_eq!(pace.rate(), 500);
        pace.took(10_000, Duration::from_millis(2100));
        assert_eq!(pace.rate(), 10_000, "a faster stretch counts at once");
        pace.took(0, Duration::from_secs(12));
        assert_eq!(pace.rate(), 1000);
        pace.took(100, Duration::from_secs(22));
        assert_eq!(pace.rate(), 10);
    }

    #[test]
    fn a_fast_client_begins_wide_beside_slow_ones() {
        let slow = 2000 + 200 * units(stream_need(layout("8+4"), Some(1 << 30)));
        let room = |free, wide| Room {
            free,
            total: 4800,
            wide,
        };
        assert_eq!(room(4800 - slow, 3).first_window(u64::MAX), 1024 * KIB);
        assert_eq!(room(4800 - slow, 3).first_window(100 * KIB), 128 * KIB);
        assert_eq!(room(4800 - slow, 19).first_window(u64::MAX), UNIT);
        assert_eq!(room(255, 3).first_window(u64::MAX), UNIT, "a sixteenth");
    }

    #[test]
    fn a_lagging_client_comes_down_to_one_unit() {
        let room = Room {
            free: 4096,
            total: 4096,
            wide: 1,
        };
        let drain = Drain {
            lagged: true,
            ..Drain::default()
        };
        let mut window = MAX_WINDOW;
        for _ in 0..8 {
            window = next_window(window, drain, room);
        }
        assert_eq!(window, UNIT);
    }

    #[test]
    fn a_fast_client_gets_the_largest_window_when_memory_is_plenty() {
        let room = Room {
            free: 4096,
            total: 4096,
            wide: 1,
        };
        let mut window = room.first_window(u64::MAX);
        assert_eq!(window, 1024 * KIB);
        let mut drain = Drain {
            starved: true,
            ..Drain::default()
        };
        // 200 MB/s.
        for millis in (0..500).step_by(5) {
            drain.pace.took(1_000_000, Duration::from_millis(millis));
            window = next_window(window, drain, room);
        }
        assert_eq!(window, MAX_WINDOW);
    }

    proptest! {
        #[test]
        fn windows_stay_between_a_unit_and_their_share(
            window in 1..200_u64, rate in 0..1_u64 << 32, starved: bool, lagged: bool,
            free in 0..6000_u64, wide in 0..100_u64,
        ) {
            let room = Room { free, total: 6144, wide };
            let window = window * UNIT;
            let mut pace = Pace::default();
            pace.took(rate, PACE);
            let next = next_window(window, Drain { pace, starved, lagged }, room);
            prop_assert!(next >= UNIT && next.is_multiple_of(UNIT));
            if next > window {
                prop_assert!(starved && !lagged);
                prop_assert!(next <= MAX_WINDOW && next - window <= (free / 16) * UNIT);
                prop_assert!(next <= (rate / 5 + 1).next_multiple_of(UNIT));
            }
        }
    }
}

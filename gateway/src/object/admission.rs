//! How much memory a request needs, and how much more it may use.
//!
//! Pure arithmetic over the budget's figures. Two kinds of need: the least
//! that a request can finish with, which it is admitted by, and what makes
//! it fast, which it gets only while the budget has plenty. Read-ahead grows
//! with what the client has taken and not with time, so that a slow client
//! is left with one unit.

use shardgate_erasure::{Geometry, Layout, full_block};

/// The unit of the memory budget.
pub const UNIT: u64 = 64 * 1024;

/// The most that one reader holds, however fast its client is.
pub const MAX_WINDOW: u64 = 8 * 1024 * 1024;

/// The units that a reader begins with while memory is plenty.
const FIRST_UNITS: u64 = 16;

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
    /// where that takes no more than an eighth of the budget from all who have
    /// proved nothing yet. What was read ahead for a slow client stays held
    /// until it is taken, however small its window becomes meanwhile.
    pub fn first_window(self, wanted: u64) -> u64 {
        let untaken = self.wide * FIRST_UNITS;
        let most = match self.quarters_free(2) && untaken < self.total / 8 {
            true => (FIRST_UNITS * UNIT).min(self.window_limit()),
            false => UNIT,
        };
        wanted.min(most).next_multiple_of(UNIT).max(UNIT)
    }
}

/// What a reader knows of its client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drain {
    /// Bytes that the client has taken in all.
    pub taken: u64,
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
    // A client that has taken little may be one whose socket buffers are
    // filling up: it gets no more read-ahead than it has proved to take.
    let proved = match room.quarters_free(2) {
        true => drain.taken,
        false => drain.taken / 8,
    };
    let grown = (window * 2).min(proved.next_multiple_of(UNIT));
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

    #[test]
    fn a_lagging_client_comes_down_to_one_unit() {
        let room = Room {
            free: 4096,
            total: 4096,
            wide: 1,
        };
        let drain = Drain {
            taken: 1 << 30,
            starved: false,
            lagged: true,
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
        let (mut window, mut taken) = (room.first_window(u64::MAX), 0);
        assert_eq!(window, 1024 * KIB);
        for _ in 0..10 {
            taken += window;
            let drain = Drain {
                taken,
                starved: true,
                lagged: false,
            };
            window = next_window(window, drain, room);
        }
        assert_eq!(window, MAX_WINDOW);
    }

    proptest! {
        #[test]
        fn windows_stay_between_a_unit_and_their_share(
            window in 1..200_u64, taken in 0..1_u64 << 34, starved: bool, lagged: bool,
            free in 0..6000_u64, wide in 0..100_u64,
        ) {
            let room = Room { free, total: 6144, wide };
            let window = window * UNIT;
            let next = next_window(window, Drain { taken, starved, lagged }, room);
            prop_assert!(next >= UNIT && next.is_multiple_of(UNIT));
            if next > window {
                prop_assert!(starved && !lagged);
                prop_assert!(next <= MAX_WINDOW && next - window <= (free / 16) * UNIT);
                prop_assert!(next <= taken.next_multiple_of(UNIT));
            }
        }
    }
}

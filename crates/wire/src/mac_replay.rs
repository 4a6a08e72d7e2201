//! Which stamps an agent has taken: nothing is taken twice.
//!
//! Owns a window of counters per session. Invariant: a stamp is admitted at
//! most once while its time is within the allowed skew of the agent's clock,
//! and never outside of it; memory is bounded by [`MAX_SESSIONS`] windows,
//! whatever is sent, since only authentic stamps get here. A restarted agent
//! has forgotten its windows: it has another boot number then, which the
//! stamp names.

use std::collections::HashMap;
use std::time::Duration;

use thiserror::Error;

use crate::mac::Stamp;

/// How far counters may arrive out of order, in requests.
pub const WINDOW: u64 = 32 * 1024;
/// Most sessions at once; each takes [`WINDOW`] bits.
pub const MAX_SESSIONS: usize = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// Why a stamp is not admitted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// Its time is too far from the agent's.
    #[error("clocks differ by {skew_ms} ms")]
    Skew {
        /// By how much.
        skew_ms: u64,
    },
    /// It was admitted before, or is older than the window: sent again with a
    /// new counter, it may be admitted.
    #[error("stamp was used before")]
    Used,
    /// Too many callers within the time that a stamp lives.
    #[error("too many sessions")]
    Full,
}

/// The sessions that an agent knows.
#[derive(Debug)]
pub struct ReplayGuard {
    skew_ms: u64,
    sessions: HashMap<u64, Window>,
}

#[derive(Debug)]
struct Window {
    /// Highest counter admitted.
    highest: u64,
    /// Latest time of a stamp admitted.
    newest_ms: u64,
    /// Bit `c % WINDOW` stands for counter `c` in `highest - WINDOW + 1 ..= highest`.
    seen: Box<[u64; WORDS]>,
}

impl Window {
    fn new() -> Self {
        Self {
            highest: 0,
            newest_ms: 0,
            seen: Box::new([0; WORDS]),
        }
    }

    fn admit(&mut self, counter: u64) -> bool {
        if counter > self.highest {
            let new = counter - self.highest;
            if new >= WINDOW {
                self.seen.fill(0);
            } else {
                (self.highest + 1..=counter).for_each(|c| self.set(c, false));
            }
            self.highest = counter;
        } else if self.highest - counter >= WINDOW || self.get(counter) {
            return false;
        }
        self.set(counter, true);
        true
    }

    fn get(&self, counter: u64) -> bool {
        let bit = counter % WINDOW;
        self.seen[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }

    fn set(&mut self, counter: u64, to: bool) {
        let bit = counter % WINDOW;
        let word = &mut self.seen[(bit / 64) as usize];
        *word = *word & !(1 << (bit % 64)) | u64::from(to) << (bit % 64);
    }
}

impl ReplayGuard {
    /// Admits stamps whose time is within `skew` of the agent's clock.
    pub fn new(skew: Duration) -> Self {
        Self {
            skew_ms: u64::try_from(skew.as_millis()).unwrap_or(u64::MAX),
            sessions: HashMap::new(),
        }
    }

    /// Takes an authentic stamp, once.
    pub fn admit(&mut self, stamp: &Stamp, now_ms: u64) -> Result<(), Refused> {
        let skew_ms = stamp.time_ms.abs_diff(now_ms);
        if skew_ms > self.skew_ms {
            return Err(Refused::Skew { skew_ms });
        }
        if !self.sessions.contains_key(&stamp.session) && self.sessions.len() >= MAX_SESSIONS {
            // A session whose newest stamp is too old by now can go: each of
            // its stamps is refused for its time from here on.
            let skew_ms = self.skew_ms;
            self.sessions
                .retain(|_, window| window.newest_ms.saturating_add(skew_ms) >= now_ms);
            if self.sessions.len() >= MAX_SESSIONS {
                return Err(Refused::Full);
            }
        }
        let window = self
            .sessions
            .entry(stamp.session)
            .or_insert_with(Window::new);
        if stamp.counter == 0 || !window.admit(stamp.counter) {
            return Err(Refused::Used);
        }
        window.newest_ms = window.newest_ms.max(stamp.time_ms);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_790_000_000_000;
    const SKEW: Duration = Duration::from_secs(300);

    fn stamp(session: u64, counter: u64, time_ms: u64) -> Stamp {
        Stamp {
            boot: 1,
            session,
            counter,
            time_ms,
        }
    }

    #[test]
    fn time_decides_first() {
        let mut guard = ReplayGuard::new(SKEW);
        for (time_ms, taken) in [
            (NOW, true),
            (NOW - 300_000, true),
            (NOW + 300_000, true),
            (NOW - 300_001, false),
            (NOW + 300_001, false),
            (0, false),
            (u64::MAX, false),
        ] {
            let counter = guard
                .sessions
                .get(&1)
                .map_or(1, |window| window.highest + 1);
            let admitted = guard.admit(&stamp(1, counter, time_ms), NOW);
            assert_eq!(admitted.is_ok(), taken, "{time_ms}");
        }
    }

    #[test]
    fn a_full_table_drops_only_sessions_that_time_refuses() {
        let mut guard = ReplayGuard::new(SKEW);
        for session in 0..MAX_SESSIONS as u64 {
            guard.admit(&stamp(session, 1, NOW), NOW).unwrap();
        }
        let newcomer = |time| stamp(9_999_999, 1, time);
        assert_eq!(guard.admit(&newcomer(NOW), NOW), Err(Refused::Full));
        let later = NOW + 300_000;
        assert_eq!(guard.admit(&newcomer(later), later), Err(Refused::Full));
        assert_eq!(guard.admit(&stamp(0, 1, NOW), later), Err(Refused::Used));
        let later = later + 1;
        assert_eq!(guard.admit(&newcomer(later), later), Ok(()));
        assert!(matches!(
            guard.admit(&stamp(0, 1, NOW), later),
            Err(Refused::Skew { .. })
        ));
    }

    proptest! {
        /// Against a plain set: never twice, and never refused within the
        /// window unless it was there before.
        #[test]
        fn each_counter_once(counters in prop::collection::vec(
            prop_oneof![1u64..200, 1u64..100_000, WINDOW - 2..WINDOW + 3, Just(u64::MAX)], 1..300
        )) {
            let mut guard = ReplayGuard::new(SKEW);
            let mut taken = HashSet::new();
            let mut highest = 0;
            for counter in counters {
                let admitted = guard.admit(&stamp(5, counter, NOW), NOW).is_ok();
                let in_window = counter > highest || highest - counter < WINDOW;
                prop_assert_eq!(admitted, in_window && !taken.contains(&counter));
                if admitted {
                    taken.insert(counter);
                    highest = highest.max(counter);
                }
            }
        }
    }
}

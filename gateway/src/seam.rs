//! The seam through which time enters.
//!
//! Owns [`Clock`]. Invariant: no other module of the gateway asks the system
//! for the time of day, so that tests own it. Waiting goes through
//! `tokio::time`, which tests pause. Random ids have their own source,
//! `shardgate_wire::ids::IdSource`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The time of day and a clock that never goes back.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970. May jump either way: it is shown to users
    /// and orders nothing.
    fn now_ms(&self) -> u64;

    /// A point in time for measuring how long something takes.
    fn instant(&self) -> Instant {
        Instant::now()
    }
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam")]
    fn now_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }
}

/// A time of day that stands still until it is set.
#[derive(Clone, Debug, Default)]
pub struct SetClock {
    now_ms: Arc<AtomicU64>,
}

impl SetClock {
    /// A clock that stands at `now_ms`.
    pub fn at(now_ms: u64) -> Self {
        let clock = Self::default();
        clock.set(now_ms);
        clock
    }

    /// Sets it, for all its clones.
    pub fn set(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_clock_stands_where_it_was_set() {
        let clock = SetClock::at(5);
        let other = clock.clone();
        other.set(3);
        assert_eq!(clock.now_ms(), 3);
    }

    #[test]
    fn the_machine_is_past_2020() {
        assert!(SystemClock.now_ms() > 1_577_836_800_000);
    }
}

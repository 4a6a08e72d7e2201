//! The speed limit of background work.
//!
//! Owns [`Pace`]. Invariants: over any second or more no more bytes pass than
//! the rate allows and one turn; a turn that finds its disks busy waits on,
//! but not for ever, so that a pool that is always busy is repaired still.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::object::rebuild::Turns;

/// Between two looks at busy disks.
const LOOK: Duration = Duration::from_millis(10);
/// The most that one turn waits for them.
const YIELD_MOST: Duration = Duration::from_millis(500);

/// See the module. Clones share one limit.
#[derive(Clone)]
pub(super) struct Pace {
    bytes_per_second: u64,
    /// When what was let through so far is paid for.
    free_at: Arc<Mutex<Option<Instant>>>,
}

impl Pace {
    /// So many bytes per second, at least one.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: Arc::default(),
        }
    }

    /// When a turn of so many bytes that asks `now` may begin.
    fn reserve(&self, bytes: u64, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock();
        let begin = free_at.map_or(now, |free| free.max(now));
        let cost = bytes as f64 / self.bytes_per_second as f64;
        *free_at = Some(begin + Duration::from_secs_f64(cost));
        begin
    }
}

#[async_trait]
impl Turns for Pace {
    async fn next(&self, bytes: u64, busy: &(dyn Fn() -> bool + Send + Sync)) {
        tokio::time::sleep_until(self.reserve(bytes, Instant::now())).await;
        let until = Instant::now() + YIELD_MOST;
        while busy() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_more_passes_than_the_rate() {
        let pace = Pace::new(1000);
        let begun = Instant::now();
        for _ in 0..10 {
            pace.next(500, &|| false).await;
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(4500), "{took:?}");
        assert!(took < Duration::from_millis(4600), "{took:?}");
        // Time that nobody used is not saved up.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            pace.next(500, &|| false).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(1000));
    }

    #[tokio::test(start_paused = true)]
    async fn clients_come_first_but_not_for_ever() {
        let pace = Pace::new(u64::MAX);
        let looks = AtomicU32::new(0);
        let begun = Instant::now();
        let busy = || looks.fetch_add(1, Ordering::Relaxed) < 5;
        pace.next(1, &busy).await;
        assert!(begun.elapsed() >= LOOK * 5);
        let begun = Instant::now();
        pace.next(1, &|| true).await;
        let took = begun.elapsed();
        assert!((YIELD_MOST..YIELD_MOST * 2).contains(&took), "{took:?}");
    }
}

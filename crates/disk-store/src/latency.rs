//! How long recent calls took.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

const KEPT: usize = 512;

/// The last 512 calls, written without a lock.
#[derive(Debug)]
pub(crate) struct Latency {
    micros: Vec<AtomicU32>,
    next: AtomicUsize,
}

impl Latency {
    pub(crate) fn new() -> Self {
        Self {
            micros: (0..KEPT).map(|_| AtomicU32::new(u32::MAX)).collect(),
            next: AtomicUsize::new(0),
        }
    }

    pub(crate) fn record(&self, took: Duration) {
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX - 1);
        let at = self.next.fetch_add(1, Ordering::Relaxed) % KEPT;
        self.micros[at].store(micros.min(u32::MAX - 1), Ordering::Relaxed);
    }

    /// Median and 99th percentile, microseconds; zeroes before the first call.
    pub(crate) fn quantiles(&self) -> (u32, u32) {
        let load = |micros: &AtomicU32| micros.load(Ordering::Relaxed);
        let mut seen: Vec<u32> = self.micros.iter().map(load).collect();
        seen.retain(|micros| *micros != u32::MAX);
        seen.sort_unstable();
        let at = |percent: usize| {
            let rank = (seen.len() * percent).div_ceil(100).saturating_sub(1);
            seen.get(rank).copied().unwrap_or(0)
        };
        (at(50), at(99))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_recent_calls() {
        let latency = Latency::new();
        assert_eq!(latency.quantiles(), (0, 0));
        for _ in 0..2000 {
            latency.record(Duration::from_secs(100_000));
        }
        for micros in 1..=512 {
            latency.record(Duration::from_micros(micros));
        }
        assert_eq!(latency.quantiles(), (256, 507));
    }
}

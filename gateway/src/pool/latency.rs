//! How long calls take, by medium and size class, over all disks.
//!
//! Hedges are timed by what disks of a kind usually need, never by the slow
//! disk itself (DESIGN.md section 5). Invariant: bounded memory, no lock, and
//! old calls fade: a histogram is halved whenever it is full.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use shardgate_wire::Medium;

/// Reads that cost about the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeClass {
    /// Up to 64 KiB.
    Small,
    /// Up to 256 KiB.
    Block,
    /// Longer ones.
    Large,
}

impl SizeClass {
    /// The class of a call of so many bytes.
    pub fn of(bytes: usize) -> Self {
        match bytes {
            0..=65_536 => Self::Small,
            65_537..=262_144 => Self::Block,
            _ => Self::Large,
        }
    }
}

/// Four steps for each doubling, from 1 us to more than a minute.
const STEPS_PER_OCTAVE: f64 = 4.0;
const BUCKETS: usize = 112;
/// A histogram of so many calls is halved.
const FULL: u32 = 4096;
/// Fewer calls say nothing.
const ENOUGH: u32 = 64;

#[derive(Debug)]
struct Histogram {
    buckets: [AtomicU32; BUCKETS],
    total: AtomicU32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            total: AtomicU32::new(0),
        }
    }
}

impl Histogram {
    fn note(&self, took: Duration) {
        let micros = (took.as_micros() as f64).max(1.0);
        let bucket = ((micros.log2() * STEPS_PER_OCTAVE) as usize).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        if self.total.fetch_add(1, Ordering::Relaxed) + 1 == FULL {
            self.halve();
        }
    }

    /// Calls that are noted at the same time may be lost or counted twice:
    /// these are estimates.
    fn halve(&self) {
        let mut total = 0;
        for bucket in &self.buckets {
            let half = bucket.load(Ordering::Relaxed) / 2;
            bucket.store(half, Ordering::Relaxed);
            total += half;
        }
        self.total.store(total, Ordering::Relaxed);
    }

    /// The upper bound of the bucket below which `share` of the calls lie.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let counts: Vec<u32> = self
            .buckets
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .collect();
        let total: u32 = counts.iter().sum();
        if total < ENOUGH {
            return None;
        }
        let wanted = (f64::from(total) * share).ceil();
        let mut seen = 0.0;
        let bucket = counts.iter().position(|count| {
            seen += f64::from(*count);
            seen >= wanted
        })?;
        let micros = ((bucket + 1) as f64 / STEPS_PER_OCTAVE).exp2();
        Some(Duration::from_micros(micros as u64))
    }
}

/// The histograms of reads.
#[derive(Debug, Default)]
pub struct Latencies {
    reads: [[Histogram; 3]; 2],
}

impl Latencies {
    /// Takes note of a read.
    pub fn note_read(&self, medium: Medium, bytes: usize, took: Duration) {
        self.of(medium, SizeClass::of(bytes)).note(took);
    }

    /// The time within which `share` (0 to 1) of such reads are done; `None`
    /// before enough were seen.
    pub fn quantile(&self, medium: Medium, class: SizeClass, share: f64) -> Option<Duration> {
        self.of(medium, class).quantile(share)
    }

    fn of(&self, medium: Medium, class: SizeClass) -> &Histogram {
        let medium = match medium {
            Medium::Flash => 0,
            Medium::Rotating => 1,
        };
        &self.reads[medium][class as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(latencies: &Latencies, share: f64) -> Option<u128> {
        let found = latencies.quantile(Medium::Flash, SizeClass::Small, share);
        found.map(|found| found.as_micros())
    }

    #[test]
    fn quantiles_lie_within_a_step_of_the_truth() {
        let latencies = Latencies::default();
        for call in 1..=1000_u64 {
            latencies.note_read(Medium::Flash, 4096, Duration::from_micros(call * 10));
        }
        for (share, truth) in [(0.5, 5_000.0), (0.95, 9_500.0), (0.99, 9_900.0)] {
            let found = p(&latencies, share).unwrap() as f64;
            assert!(found >= truth && found <= truth * 1.2, "{share}: {found}");
        }
    }

    #[test]
    fn few_calls_and_other_kinds_say_nothing() {
        let latencies = Latencies::default();
        for _ in 0..63 {
            latencies.note_read(Medium::Flash, 1, Duration::from_millis(1));
        }
        assert_eq!(p(&latencies, 0.5), None);
        latencies.note_read(Medium::Flash, 1, Duration::from_millis(1));
        assert!(p(&latencies, 0.5).is_some());
        let other = latencies.quantile(Medium::Rotating, SizeClass::Small, 0.5);
        assert_eq!(other, None);
    }

    #[test]
    fn old_calls_fade() {
        let latencies = Latencies::default();
        for _ in 0..5_000 {
            latencies.note_read(Medium::Flash, 1, Duration::from_secs(1));
        }
        for _ in 0..20_000 {
            latencies.note_read(Medium::Flash, 1, Duration::from_micros(100));
        }
        assert!(p(&latencies, 0.9).unwrap() < 200);
    }

    #[test]
    fn extremes_are_taken() {
        let latencies = Latencies::default();
        for _ in 0..100 {
            latencies.note_read(Medium::Flash, 1, Duration::ZERO);
            latencies.note_read(Medium::Flash, 1, Duration::from_secs(100_000));
        }
        assert!(p(&latencies, 0.99).is_some());
    }
}

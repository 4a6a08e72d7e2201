//! When a member is late: judged from what all journal disks need now, never
//! from the slow disk itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shardgate_wire::DiskId;

/// No member is late sooner.
const LEAST: Duration = Duration::from_millis(50);
/// How many answers of a disk are remembered.
const KEPT: usize = 64;
/// How many times the usual latency is late.
const TIMES: u32 = 4;
/// Bytes that the slowest sound disk writes in a second.
const BYTES_PER_SECOND: u64 = 32 << 20;

/// The live latency of the journal disks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies {
    of: BTreeMap<DiskId, VecDeque<Duration>>,
}

impl Latencies {
    pub(crate) fn record(&mut self, disk: DiskId, took: Duration) {
        let kept = self.of.entry(disk).or_default();
        kept.push_back(took);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }

    /// The latency that nine of ten answers of a disk stay under.
    fn usual(&self, disk: &DiskId) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.of.get(disk)?.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() * 9 / 10).copied()
    }

    /// For putting disks into an order: unknown ones come after known ones.
    pub(crate) fn rank(&self, disk: &DiskId) -> Duration {
        self.usual(disk).unwrap_or(Duration::MAX)
    }

    /// After this long an append of `len` bytes is late.
    pub(crate) fn late_after(&self, len: usize) -> Duration {
        let mut usual: Vec<Duration> = self.of.keys().filter_map(|d| self.usual(d)).collect();
        usual.sort_unstable();
        let middle = usual.get(usual.len().saturating_sub(1) / 2).copied();
        let transfer = Duration::from_millis(len as u64 * 1000 / BYTES_PER_SECOND);
        LEAST.max(middle.unwrap_or_default() * TIMES) + transfer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_disk_does_not_make_itself_punctual() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.late_after(0), LEAST);
        for _ in 0..100 {
            latencies.record(DiskId(1), Duration::from_millis(30));
            latencies.record(DiskId(2), Duration::from_millis(20));
            latencies.record(DiskId(3), Duration::from_secs(9));
        }
        assert_eq!(latencies.late_after(0), Duration::from_millis(120));
        let megabyte = latencies.late_after(32 << 20);
        assert_eq!(megabyte, Duration::from_millis(1120));
        assert!(latencies.rank(&DiskId(2)) < latencies.rank(&DiskId(1)));
        assert_eq!(latencies.rank(&DiskId(4)), Duration::MAX);
    }
}

//! When a late read is raced, and how many may be.
//!
//! Owns the budget of hedges: about 5 % of shard reads. Invariant: in the
//! long run no more than one hedged read in twenty, whatever is slow; so a
//! pool whose disks are all slow is not given more work by it. When a read
//! is late is decided from the quantile of all disks of its medium and size
//! class (`pool`), never from the slow disk itself.

use parking_lot::Mutex;

/// One read in so many may be hedged.
const READS_PER_HEDGE: u32 = 20;
/// Hedges that may be saved up.
const MOST_SAVED: u32 = 64;

/// What may be hedged.
#[derive(Debug)]
pub struct HedgeBudget {
    /// In parts of a hedge: each read adds one, a hedged read takes twenty.
    parts: Mutex<u32>,
}

impl Default for HedgeBudget {
    fn default() -> Self {
        Self {
            parts: Mutex::new(MOST_SAVED * READS_PER_HEDGE),
        }
    }
}

impl HedgeBudget {
    /// Notes a read of a shard.
    pub fn read(&self) {
        let mut parts = self.parts.lock();
        *parts = (*parts + 1).min(MOST_SAVED * READS_PER_HEDGE);
    }

    /// Whether `reads` more may be sent to race a late one.
    pub fn take(&self, reads: usize) -> bool {
        let needed = (reads as u32).saturating_mul(READS_PER_HEDGE);
        let mut parts = self.parts.lock();
        match parts.checked_sub(needed) {
            Some(left) => {
                *parts = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_in_twenty() {
        let budget = HedgeBudget::default();
        let mut hedged = 0;
        for _ in 0..100_000 {
            budget.read();
            hedged += u32::from(budget.take(1));
        }
        assert!((5000..=5000 + MOST_SAVED).contains(&hedged), "{hedged}");
    }

    #[test]
    fn a_hedge_of_several_reads_takes_as_many() {
        let budget = HedgeBudget::default();
        assert!(budget.take(60));
        assert!(!budget.take(5));
        assert!(budget.take(4));
        assert!(!budget.take(1));
    }
}

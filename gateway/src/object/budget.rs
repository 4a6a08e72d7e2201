//! The memory that requests may take together.
//!
//! Owns [`MemoryBudget`]: a number of units of 64 KiB. Invariant: buffers of
//! bodies are held only under a [`Permit`], and permits never add up to more
//! than the budget. A request takes the least that it can finish with in one
//! go when it is admitted (so two half-admitted requests cannot wait for each
//! other), waits a bounded time for it, and is refused with [`SlowDown`]
//! after that. What it takes beyond is optional and never waited for.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::admission::units;

/// The budget had no room in time.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("out of buffers")]
pub struct SlowDown;

/// All memory that bodies may take. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    semaphore: Arc<Semaphore>,
    total_units: u32,
    wait: Duration,
}

impl MemoryBudget {
    /// A budget of `total_bytes`; requests wait for at most `wait`.
    pub fn new(total_bytes: u64, wait: Duration) -> Self {
        let total_units = u32::try_from(units(total_bytes)).unwrap_or(u32::MAX >> 4);
        Self {
            semaphore: Arc::new(Semaphore::new(total_units as usize)),
            total_units,
            wait,
        }
    }

    /// Waits for room for `bytes`, all at once.
    ///
    /// # Errors
    /// No room in time, or more than the whole budget.
    pub async fn admit(&self, bytes: u64) -> Result<Permit, SlowDown> {
        let units = u32::try_from(units(bytes)).map_err(|_| SlowDown)?;
        if units > self.total_units {
            return Err(SlowDown);
        }
        let acquired = Arc::clone(&self.semaphore).acquire_many_owned(units);
        match tokio::time::timeout(self.wait, acquired).await {
            Ok(Ok(held)) => Ok(Permit {
                held,
                semaphore: Arc::clone(&self.semaphore),
            }),
            _closed_or_too_late => Err(SlowDown),
        }
    }

    /// Room for `bytes` if there is some now.
    #[cfg(test)]
    pub fn try_admit(&self, bytes: u64) -> Option<Permit> {
        let units = u32::try_from(units(bytes)).ok()?;
        let acquired = Arc::clone(&self.semaphore).try_acquire_many_owned(units);
        acquired.ok().map(|held| Permit {
            held,
            semaphore: Arc::clone(&self.semaphore),
        })
    }

    /// Units that nobody holds.
    pub fn free_units(&self) -> u64 {
        self.semaphore.available_permits() as u64
    }

    /// Units of the whole budget.
    pub fn total_units(&self) -> u64 {
        u64::from(self.total_units)
    }
}

/// Some of the budget, given back when dropped.
#[derive(Debug)]
pub struct Permit {
    held: OwnedSemaphorePermit,
    semaphore: Arc<Semaphore>,
}

impl Permit {
    /// What it covers.
    pub fn bytes(&self) -> u64 {
        self.held.num_permits() as u64 * super::admission::UNIT
    }

    /// Takes room for `bytes` in all, if there is some now.
    pub fn try_grow_to(&mut self, bytes: u64) -> bool {
        let wanted = units(bytes) as usize;
        let more = wanted.saturating_sub(self.held.num_permits());
        if more == 0 {
            return true;
        }
        let Ok(more) = u32::try_from(more) else {
            return false;
        };
        match Arc::clone(&self.semaphore).try_acquire_many_owned(more) {
            Ok(extra) => {
                self.held.merge(extra);
                true
            }
            Err(_) => false,
        }
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let kept = units(bytes) as usize;
        let surplus = self.held.num_permits().saturating_sub(kept);
        drop(self.held.split(surplus));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[tokio::test(start_paused = true)]
    async fn what_is_held_never_exceeds_the_budget() {
        let budget = MemoryBudget::new(1024 * KIB, Duration::from_secs(1));
        let mut first = budget.admit(600 * KIB).await.unwrap();
        assert_eq!(first.bytes(), 640 * KIB);
        assert!(budget.try_admit(400 * KIB).is_none());
        assert_eq!(budget.admit(400 * KIB).await.unwrap_err(), SlowDown);
        assert!(first.try_grow_to(1024 * KIB));
        assert!(!first.try_grow_to(1025 * KIB));
        assert_eq!(budget.free_units(), 0);
        first.shrink_to(65 * KIB);
        assert_eq!(first.bytes(), 128 * KIB);
        drop(first);
        assert_eq!(budget.free_units(), budget.total_units());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_room_and_then_has_it() {
        let budget = MemoryBudget::new(128 * KIB, Duration::from_secs(5));
        let first = budget.admit(128 * KIB).await.unwrap();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(first);
        });
        assert!(budget.admit(64 * KIB).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_the_whole_budget_is_refused_at_once() {
        let budget = MemoryBudget::new(128 * KIB, Duration::from_secs(3600));
        let begun = tokio::time::Instant::now();
        assert!(budget.admit(129 * KIB).await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}

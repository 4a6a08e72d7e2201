//! Whether anything may be reclaimed.
//!
//! While the catalog may know less than the disks nothing goes for good: no
//! shard, and no note of a deleted blob (PROTOCOL.md 7). Who decides that is
//! not decided here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Shared by who holds and who asks.
#[derive(Clone, Debug, Default)]
pub struct Reclaiming {
    held: Arc<AtomicBool>,
}

impl Reclaiming {
    /// Held from the start, or not.
    pub fn new(held: bool) -> Self {
        Self {
            held: Arc::new(AtomicBool::new(held)),
        }
    }

    /// Whether nothing may go.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Nothing may go from now on.
    #[cfg(test)]
    pub fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
    }

    /// The operator has seen what would go, and ends the hold.
    pub fn resume(&self) {
        self.held.store(false, Ordering::SeqCst);
    }
}

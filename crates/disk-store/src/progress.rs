//! How far the opening of a disk is: for logs, and for those who wait.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shardgate_wire::ids::DiskId;
use tracing::info;

/// How often the log says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Volumes that were opened, and volumes in all. One that has no directory is
/// opened by reading all of it, so this is what a long start waits for.
#[derive(Debug, Default)]
pub struct OpenProgress {
    all: AtomicUsize,
    opened: AtomicUsize,
    said: Mutex<Option<Instant>>,
}

impl OpenProgress {
    /// Whether volumes are being opened.
    pub fn has_begun(&self) -> bool {
        self.all.load(Ordering::Relaxed) > 0
    }

    /// So many there are; none is open yet.
    pub(crate) fn begin(&self, all: usize) {
        self.opened.store(0, Ordering::Relaxed);
        self.all.store(all, Ordering::Relaxed);
        *self.said.lock() = Some(Instant::now());
    }

    /// One more is open.
    pub(crate) fn step(&self, disk: DiskId) {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let mut said = self.said.lock();
        if said.is_some_and(|said| said.elapsed() >= SAY_EVERY) {
            *said = Some(Instant::now());
            info!(%disk, progress = %self, "opening volumes");
        }
    }
}

impl fmt::Display for OpenProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let opened = self.opened.load(Ordering::Relaxed);
        let all = self.all.load(Ordering::Relaxed);
        write!(f, "{opened} of {all} volumes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_far_it_is() {
        let progress = OpenProgress::default();
        assert!(!progress.has_begun());
        progress.begin(3);
        progress.step(DiskId(1));
        assert!(progress.has_begun());
        assert_eq!(progress.to_string(), "1 of 3 volumes");
        progress.begin(2);
        assert_eq!(progress.to_string(), "0 of 2 volumes");
    }
}

//! The life of the thread that looks after a disk's volumes: seals those that
//! are full, gives space back, compacts.

use std::sync::Arc;
use std::time::Duration;

use crate::core::Core;

/// How often the thread looks for something to do.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Core {
    pub(crate) fn tidy(self: &Arc<Self>) {
        while !self.lanes.is_closing() {
            // A failure fences the disk, which is said there; one of space
            // is met again by a later look.
            while self.volumes.upkeep() == Ok(true) {}
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

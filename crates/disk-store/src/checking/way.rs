//! How a part of a check goes through a disk that others use: it gives way
//! before each piece that it reads, for a bounded time, and ends when it has
//! read enough.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::PART_BYTES;
use crate::core::Core;
use crate::volume::GiveWay;

/// How often it looks whether callers still wait.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A piece is held up no longer than this, and a part no longer than that in
/// all: a disk that is never idle is checked as well.
const MOST_OF_A_PIECE: Duration = Duration::from_millis(20);
const MOST_OF_A_PART: Duration = Duration::from_secs(2);
/// A part begins nothing new after that long.
const PART_TIME: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Way<'a> {
    core: &'a Core,
    /// When the first piece was read: a disk that is slow to answer gives one
    /// at least.
    began: Cell<Option<Instant>>,
    waited: Cell<Duration>,
    bytes: Cell<u64>,
}

impl<'a> Way<'a> {
    pub(crate) fn new(core: &'a Core) -> Self {
        Self {
            core,
            began: Cell::new(None),
            waited: Cell::new(Duration::ZERO),
            bytes: Cell::new(0),
        }
    }

    #[cfg(test)]
    pub(crate) fn read_bytes(&self) -> u64 {
        self.bytes.get()
    }
}

impl GiveWay for Way<'_> {
    fn before(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        let since = Instant::now();
        if self.began.get().is_none() {
            self.began.set(Some(since));
        }
        let left = MOST_OF_A_PART.saturating_sub(self.waited.get());
        let most = left.min(MOST_OF_A_PIECE);
        while since.elapsed() < most && self.core.lanes.callers() > 0 {
            std::thread::sleep(LOOK_EVERY);
        }
        self.waited.set(self.waited.get() + since.elapsed());
    }

    fn is_spent(&self) -> bool {
        self.bytes.get() >= PART_BYTES
            || self
                .began
                .get()
                .is_some_and(|began| began.elapsed() >= PART_TIME)
            || self.core.lanes.is_closing()
    }
}

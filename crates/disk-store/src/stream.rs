//! A group's shards of one disk, window after window, at a set speed.
//!
//! Invariant: a caller that stalls holds its window, and nothing of the disk:
//! no file is open between two windows, and no thread waits. Each window is a
//! call in the background lane, asked for after callers had their way. Does
//! not try again: after an error the place is as it was.

use std::sync::{Arc, Weak};
use std::time::Duration;

use shardgate_wire::StoreError;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::core::Core;
use crate::lanes::Lane;
use crate::pace::{GivenWay, Pace};
use crate::streaming::Held;
use crate::window::{Window, WindowCursor};

/// See [`LocalDisk::stream`](crate::LocalDisk::stream). Needs a runtime with
/// a clock.
#[derive(Debug)]
pub struct ShardStream {
    core: Weak<Core>,
    /// `None` at the end.
    cursor: Option<WindowCursor>,
    /// Where to go on behind what could not be read just now.
    behind: Option<Option<WindowCursor>>,
    pace: Pace,
    held: Held,
}

fn gone(why: &str) -> StoreError {
    StoreError::Unreachable { why: why.into() }
}

impl ShardStream {
    pub(crate) fn new(core: &Arc<Core>, from: WindowCursor, bytes_per_second: u64) -> Self {
        Self {
            core: Arc::downgrade(core),
            cursor: Some(from),
            behind: None,
            pace: Pace::new(bytes_per_second),
            held: Held::default(),
        }
    }

    /// Where the next window begins: what came before was given. `None` at
    /// the end of the group.
    pub fn cursor(&self) -> Option<WindowCursor> {
        self.cursor
    }

    /// Goes on behind what the last call could not read: with the next
    /// volume, or the next folder of shards. Behind the place if nothing
    /// failed there.
    pub fn pass_over(&mut self) {
        let behind = self.behind.take();
        self.cursor = behind.unwrap_or_else(|| self.cursor.and_then(WindowCursor::behind));
    }

    /// The next pieces; `None` at the end of the group. A call that is
    /// dropped takes nothing.
    ///
    /// # Errors
    /// The disk is lost, busy or closed, or a directory or folder cannot be
    /// read: the next call tries again there, unless [`Self::pass_over`] is
    /// called before.
    pub async fn next(&mut self) -> Result<Option<Window>, StoreError> {
        self.behind = None;
        while let Some(from) = self.cursor {
            let wait = self.pace.wait(Instant::now().into_std());
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            self.give_way().await?;
            let begun = Instant::now().into_std();
            let window = self.read(from).await?;
            self.pace.took(begun, window.read_bytes);
            self.cursor = window.next;
            if !window.records.is_empty() || window.unknown {
                return Ok(Some(window));
            }
        }
        Ok(None)
    }

    fn core(&self) -> Result<Arc<Core>, StoreError> {
        self.core.upgrade().ok_or_else(|| gone("the disk is gone"))
    }

    async fn give_way(&self) -> Result<(), StoreError> {
        let mut way = GivenWay::default();
        loop {
            let rest: Option<Duration> = way.rest(self.core()?.lanes.callers());
            match rest {
                Some(rest) => tokio::time::sleep(rest).await,
                None => return Ok(()),
            }
        }
    }

    async fn read(&mut self, from: WindowCursor) -> Result<Window, StoreError> {
        let bytes = self.pace.window_bytes();
        let mut held = std::mem::take(&mut self.held);
        let (answer, answered) = oneshot::channel();
        let run = move |core: &Arc<Core>, buffer: &mut _| {
            // Not read for a caller that left.
            if !answer.is_closed() {
                let window = core.window(from, bytes, &mut held, buffer);
                let _ = answer.send((window, held));
            }
        };
        self.core()?
            .lanes
            .submit(Lane::Background, 0, Box::new(run))?;
        let ended = |_| gone("the call ended without an answer");
        let (window, held) = answered.await.map_err(ended)?;
        self.held = held;
        window.map_err(|unread| {
            self.behind = Some(unread.behind());
            unread.error
        })
    }
}

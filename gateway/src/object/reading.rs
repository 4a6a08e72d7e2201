//! The stream of an object's bytes, as fast as its client takes them.
//!
//! Owns the window of a reader: what is being fetched, is ready, or was
//! handed out and not yet sent, never more than the window. It begins small,
//! grows up to what the client drains in a moment while it wants bytes before
//! they are there, and shrinks when it leaves them lying (`admission`). Invariant: bytes that were
//! handed out count until they are dropped, so that a slow client holds one
//! unit however much its connection would buffer. Nothing is begun unless the
//! stream is polled; what is read ahead has its own task, so that a client
//! that stalls keeps no connection and no disk waiting.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, Stream};
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use shardgate_catalog::model::BlobRef;
use shardgate_erasure::BLOCK;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::admission::{Drain, UNIT, next_window};
use super::budget::Permit;
use super::core::Core;
use super::error::ObjectError;
use super::fetch::BlobReader;
use super::open_reads::OpenRead;

/// A client that leaves ready bytes lying for so long is slower than disks.
const LAG: Duration = Duration::from_millis(50);

/// A run of bytes of an object: one blob, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it begins in the object.
    pub start: u64,
    /// Its bytes.
    pub blob: BlobRef,
}

/// What was handed out and is not dropped yet, and the memory it takes.
struct Flow {
    out: AtomicU64,
    dropped: Notify,
    permit: Mutex<Permit>,
}

/// Bytes on their way to the client.
struct Frame {
    bytes: Bytes,
    cost: u64,
    flow: Arc<Flow>,
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.flow.out.fetch_sub(self.cost, Ordering::AcqRel);
        self.flow.dropped.notify_one();
    }
}

type Fetched = (u64, Result<Vec<Bytes>, ObjectError>);

/// See the module.
pub(super) struct Reading {
    core: Arc<Core>,
    segments: std::vec::IntoIter<Segment>,
    current: Option<(Segment, Arc<BlobReader>)>,
    range: Range<u64>,
    fetches: FuturesOrdered<BoxFuture<'static, Fetched>>,
    ready: std::collections::VecDeque<(Bytes, u64)>,
    /// Bytes of fetches and of what is ready.
    fetched: u64,
    flow: Arc<Flow>,
    window: u64,
    drain: Drain,
    begun: Instant,
    handed_at: Option<Instant>,
    _open: Arc<OpenRead>,
}

impl Reading {
    /// A stream of `range`, whose bytes lie in `segments` (those that the
    /// range touches, in order).
    pub fn new(
        core: &Arc<Core>,
        segments: Vec<Segment>,
        range: Range<u64>,
        mut permit: Permit,
        open: Arc<OpenRead>,
    ) -> Self {
        let wanted = core.room().first_window(range.end - range.start);
        let window = match permit.try_grow_to(wanted) {
            true => wanted,
            false => permit.bytes().max(UNIT),
        };
        if window > UNIT {
            core.wide_readers.fetch_add(1, Ordering::Relaxed);
        }
        Self {
            core: Arc::clone(core),
            segments: segments.into_iter(),
            current: None,
            range,
            fetches: FuturesOrdered::new(),
            ready: std::collections::VecDeque::new(),
            fetched: 0,
            flow: Arc::new(Flow {
                out: AtomicU64::new(0),
                dropped: Notify::new(),
                permit: Mutex::new(permit),
            }),
            window,
            drain: Drain::default(),
            begun: Instant::now(),
            handed_at: None,
            _open: open,
        }
    }

    /// As a stream; ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, ObjectError>> + Send {
        futures::stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    /// The next bytes.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ObjectError> {
        self.core.check_in_force()?;
        let left_lying = self.handed_at.map(|at| at.elapsed()).unwrap_or_default();
        self.drain.lagged = left_lying >= LAG;
        loop {
            if let Some((bytes, cost)) = self.ready.pop_front() {
                return Ok(Some(self.hand_out(bytes, cost)));
            }
            self.fill().await?;
            if self.fetches.is_empty() {
                if self.range.is_empty() {
                    return Ok(None);
                }
                // The window is full of what the client has not taken yet.
                let waited = Instant::now();
                self.flow.dropped.notified().await;
                self.drain.lagged |= waited.elapsed() >= LAG;
                continue;
            }
            let fetched = match self.fetches.next().now_or_never() {
                Some(fetched) => fetched,
                None => {
                    self.drain.starved = true;
                    self.fetches.next().await
                }
            };
            let (cost, frames) = fetched.expect("a fetch is under way");
            let frames = frames?;
            // What a frame of several costs is shared out by the last one.
            let last = frames.len() - 1;
            let mut left = cost;
            for (index, bytes) in frames.into_iter().enumerate() {
                let own = if index == last {
                    left
                } else {
                    (bytes.len() as u64).min(left)
                };
                left -= own;
                self.ready.push_back((bytes, own));
            }
        }
    }

    fn hand_out(&mut self, bytes: Bytes, cost: u64) -> Bytes {
        let len = bytes.len() as u64;
        self.fetched -= cost;
        self.flow.out.fetch_add(cost, Ordering::AcqRel);
        self.core.metrics.bytes_out.add(len);
        let now = Instant::now();
        self.drain.pace.took(len, now - self.begun);
        self.adapt();
        self.handed_at = Some(now);
        let flow = Arc::clone(&self.flow);
        Bytes::from_owner(Frame { bytes, cost, flow })
    }

    /// Sets the window by what the client did since the last frame.
    fn adapt(&mut self) {
        let was_wide = self.window > UNIT;
        let wanted = next_window(self.window, self.drain, self.core.room());
        let mut permit = self.flow.permit.lock();
        if wanted > self.window {
            if permit.try_grow_to(wanted) {
                self.window = wanted;
            }
        } else {
            self.window = wanted;
            let held = self.fetched + self.flow.out.load(Ordering::Acquire);
            permit.shrink_to(wanted.max(held));
        }
        drop(permit);
        let wide = &self.core.wide_readers;
        match (was_wide, self.window > UNIT) {
            (false, true) => drop(wide.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(wide.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
        (self.drain.starved, self.drain.lagged) = (false, false);
    }

    /// Starts fetches as far as the window allows.
    async fn fill(&mut self) -> Result<(), ObjectError> {
        while !self.range.is_empty() {
            let Some((segment, reader)) = self.locate().await? else {
                return Err(ObjectError::Damaged {
                    why: format!("nothing holds byte {} of the object", self.range.start),
                });
            };
            let held = self.fetched + self.flow.out.load(Ordering::Acquire);
            let room = self.window.saturating_sub(held);
            let step_most = match reader.decodes_stripes_of() {
                Some(stripe) if stripe * 2 <= self.window => stripe,
                _ => BLOCK.min(self.window / 4).max(UNIT),
            };
            let from = self.range.start - segment.start;
            let to = (self.range.end - segment.start).min(segment.blob.len);
            let Some(step) = reader.next_step(from..to, step_most / UNIT * UNIT) else {
                return Err(ObjectError::Damaged {
                    why: format!("blob {} ends before its length", segment.blob.blob),
                });
            };
            let len = step.len();
            let cost = len.next_multiple_of(UNIT);
            if cost > room && held > 0 {
                return Ok(());
            }
            self.range.start += len;
            self.fetched += cost;
            let fetch = reader.run(step).map(move |frames| (cost, frames));
            self.fetches.push_back(match self.fetches.is_empty() {
                true => Box::pin(fetch),
                false => self.ahead(cost, fetch),
            });
        }
        Ok(())
    }

    /// A fetch that goes on while the client takes what came before it: else
    /// it would hold its connection for as long as the client stalls, and its
    /// disk would seem late.
    fn ahead(
        &self,
        cost: u64,
        fetch: impl Future<Output = Fetched> + Send + 'static,
    ) -> BoxFuture<'static, Fetched> {
        // It holds the memory that it reads into until it has ended.
        let flow = Arc::clone(&self.flow);
        let fetch = async move {
            let fetched = fetch.await;
            drop(flow);
            fetched
        };
        let task = AbortOnDropHandle::new(self.core.tracker.spawn(fetch));
        Box::pin(async move {
            task.await.unwrap_or_else(|ended| {
                let why = format!("a fetch ended: {ended}");
                (cost, Err(ObjectError::Unavailable { why }))
            })
        })
    }

    /// The segment that holds the next byte, and its reader.
    async fn locate(&mut self) -> Result<Option<(Segment, Arc<BlobReader>)>, ObjectError> {
        loop {
            if let Some((segment, reader)) = &self.current
                && self.range.start < segment.start + segment.blob.len
            {
                return Ok(Some((*segment, Arc::clone(reader))));
            }
            let Some(segment) = self.segments.next() else {
                return Ok(None);
            };
            if segment.start > self.range.start {
                return Ok(None);
            }
            let group = self.core.disks.group(segment.blob.group).await?;
            let reader = BlobReader::new(&self.core, group, segment.blob)?;
            self.current = Some((segment, Arc::new(reader)));
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.window > UNIT {
            self.core.wide_readers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

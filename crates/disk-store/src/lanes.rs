//! The disk's own queue and threads.
//!
//! Four lanes: reads, other foreground calls, small shards (gathered into
//! batches), and background calls, which give way but are not starved. Reads
//! have threads of their own, so that as many are in the kernel at once as a
//! flash drive does side by side, and none waits behind an fsync. Invariant:
//! what waits is bounded in number and bytes; beyond it the answer is `Busy`.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use shardgate_wire::store::SmallShard;
use shardgate_wire::{CallContext, StoreError};
use tokio::sync::oneshot;
use tracing::error;

use crate::aligned::AlignedBuffer;
use crate::core::Core;
use crate::medium::MediumFigures;

/// Most foreground calls between two background ones that wait.
const BEFORE_BACKGROUND: u32 = 16;

/// Which lane a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Read,
    Foreground,
    Background,
}

pub(crate) type Run = Box<dyn FnOnce(&Arc<Core>, &mut AlignedBuffer) + Send>;

struct Call {
    run: Run,
    bytes: usize,
    since: Instant,
}

/// One small shard that waits to be written.
pub(crate) struct PutCall {
    pub(crate) ctx: CallContext,
    pub(crate) shard: SmallShard,
    pub(crate) answer: oneshot::Sender<Result<(), StoreError>>,
    pub(crate) since: Instant,
}

#[derive(Default)]
struct Queue {
    reads: VecDeque<Call>,
    foreground: VecDeque<Call>,
    background: VecDeque<Call>,
    puts: VecDeque<PutCall>,
    bytes: usize,
    running: usize,
    batches: usize,
    background_running: usize,
    since_background: u32,
    puts_next: bool,
    closing: bool,
}

/// What a thread does next.
enum Next {
    Call(Call, Lane),
    Puts(Vec<PutCall>),
}

pub(crate) struct Lanes {
    queue: Mutex<Queue>,
    work: Condvar,
    read: Condvar,
    figures: MediumFigures,
    most_calls: usize,
    most_bytes: usize,
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes")
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

fn closed() -> StoreError {
    StoreError::Unreachable {
        why: "the disk was closed".into(),
    }
}

impl Queue {
    fn admit(&self, waiting: usize, bytes: usize, lanes: &Lanes) -> Result<(), StoreError> {
        if self.closing {
            return Err(closed());
        }
        if waiting >= lanes.most_calls || self.bytes + bytes > lanes.most_bytes {
            return Err(StoreError::Busy);
        }
        Ok(())
    }

    fn next(&mut self, figures: &MediumFigures) -> Option<Next> {
        let may_put = !self.puts.is_empty() && self.batches < figures.put_batches;
        let foreground = may_put || !self.foreground.is_empty();
        let may_background = !self.background.is_empty()
            && self.background_running < figures.threads.div_ceil(2)
            && (!foreground || self.since_background >= BEFORE_BACKGROUND);
        if may_background {
            self.since_background = 0;
            self.background_running += 1;
            let call = self.background.pop_front()?;
            return Some(Next::Call(call, Lane::Background));
        }
        self.since_background += u32::from(foreground);
        if may_put && (self.puts_next || self.foreground.is_empty()) {
            self.puts_next = false;
            self.batches += 1;
            // What waits is shared among the batches that may run, so that
            // the first does not take all while the others sleep.
            let share = self.puts.len().div_ceil(figures.put_batches);
            let take = share.clamp(1, figures.batch_shards);
            return Some(Next::Puts(self.puts.drain(..take).collect()));
        }
        self.puts_next = true;
        let call = self.foreground.pop_front()?;
        Some(Next::Call(call, Lane::Foreground))
    }
}

impl Lanes {
    pub(crate) fn new(figures: MediumFigures, most_calls: usize, most_bytes: usize) -> Self {
        Self {
            queue: Mutex::new(Queue::default()),
            work: Condvar::new(),
            read: Condvar::new(),
            figures,
            most_calls,
            most_bytes,
        }
    }

    pub(crate) fn submit(&self, lane: Lane, bytes: usize, run: Run) -> Result<(), StoreError> {
        let mut queue = self.queue.lock();
        let line = match lane {
            Lane::Read => queue.reads.len(),
            Lane::Foreground => queue.foreground.len(),
            Lane::Background => queue.background.len(),
        };
        queue.admit(line, bytes, self)?;
        queue.bytes += bytes;
        let since = Instant::now();
        let call = Call { run, bytes, since };
        let wakes = match lane {
            Lane::Read => {
                queue.reads.push_back(call);
                &self.read
            }
            Lane::Foreground => {
                queue.foreground.push_back(call);
                &self.work
            }
            Lane::Background => {
                queue.background.push_back(call);
                &self.work
            }
        };
        drop(queue);
        wakes.notify_one();
        Ok(())
    }

    pub(crate) fn submit_put(&self, put: PutCall) -> Result<(), StoreError> {
        let mut queue = self.queue.lock();
        let bytes = put.shard.bytes.len();
        queue.admit(queue.puts.len(), bytes, self)?;
        queue.bytes += bytes;
        queue.puts.push_back(put);
        self.work.notify_one();
        Ok(())
    }

    /// Calls that wait or run.
    pub(crate) fn queued(&self) -> usize {
        let queue = self.queue.lock();
        let waiting = queue.reads.len() + queue.foreground.len() + queue.background.len();
        waiting + queue.puts.len() + queue.running
    }

    /// The same of callers who wait for their answer, and not in the
    /// background.
    pub(crate) fn callers(&self) -> usize {
        let queue = self.queue.lock();
        let waiting = queue.reads.len() + queue.foreground.len() + queue.puts.len();
        waiting + queue.running - queue.background_running
    }

    /// Takes no calls any more; threads end when what waits is done.
    pub(crate) fn close(&self) {
        self.queue.lock().closing = true;
        self.work.notify_all();
        self.read.notify_all();
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.queue.lock().closing
    }

    /// The life of a thread that reads.
    pub(crate) fn read(&self, core: &Arc<Core>) {
        let mut buffer = AlignedBuffer::default();
        let mut queue = self.queue.lock();
        loop {
            let Some(call) = queue.reads.pop_front() else {
                if queue.closing {
                    return;
                }
                self.read.wait(&mut queue);
                continue;
            };
            queue.running += 1;
            drop(queue);
            let bytes = call.bytes;
            run(core, &mut buffer, Next::Call(call, Lane::Read));
            // There are many of these threads: none keeps a large buffer.
            buffer.shrink();
            queue = self.queue.lock();
            queue.running -= 1;
            queue.bytes -= bytes;
        }
    }

    /// The life of a thread that does all else.
    pub(crate) fn work(&self, core: &Arc<Core>) {
        let mut buffer = AlignedBuffer::default();
        let mut queue = self.queue.lock();
        loop {
            let Some(next) = queue.next(&self.figures) else {
                if queue.closing && queue.puts.is_empty() && queue.background.is_empty() {
                    return;
                }
                self.work.wait(&mut queue);
                continue;
            };
            let (bytes, calls) = match &next {
                Next::Call(call, _) => (call.bytes, 1),
                Next::Puts(puts) => (
                    puts.iter().map(|put| put.shard.bytes.len()).sum(),
                    puts.len(),
                ),
            };
            queue.running += calls;
            drop(queue);
            let kind = run(core, &mut buffer, next);
            queue = self.queue.lock();
            queue.running -= calls;
            queue.bytes -= bytes;
            match kind {
                Ran::Foreground => {}
                Ran::Background => queue.background_running -= 1,
                Ran::Puts => queue.batches -= 1,
            }
            if kind != Ran::Foreground {
                // Another thread may have slept because of the bound on these.
                self.work.notify_one();
            }
            if queue.closing {
                self.work.notify_all();
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ran {
    Foreground,
    Background,
    Puts,
}

/// Runs what is next. A panic ends the call (its answer is dropped), never
/// the thread.
fn run(core: &Arc<Core>, buffer: &mut AlignedBuffer, next: Next) -> Ran {
    let ran = match &next {
        Next::Call(_, Lane::Read | Lane::Foreground) => Ran::Foreground,
        Next::Call(_, Lane::Background) => Ran::Background,
        Next::Puts(_) => Ran::Puts,
    };
    let done = catch_unwind(AssertUnwindSafe(|| match next {
        Next::Call(call, lane) => {
            (call.run)(core, buffer);
            if lane != Lane::Background {
                core.latency.record(call.since.elapsed());
            }
        }
        Next::Puts(puts) => core.put_batch(puts, buffer),
    }));
    if done.is_err() {
        error!(disk = %core.identity.disk, "a call panicked");
    }
    ran
}

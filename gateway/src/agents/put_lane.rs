//! Small shards that wait for one disk.
//!
//! Owns the queue and the choice of what goes into one message. Invariant:
//! one message is under way at a time; what comes meanwhile gathers for the
//! next, so that batches grow with load and nothing waits for a timer. Does
//! no I/O: [`super::remote_disk`] sends.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_wire::message::{
    MAX_PUT_DATA_BYTES, MAX_PUT_HEAD_BYTES, MAX_PUT_SHARDS, PutEntry, PutHead,
};
use shardgate_wire::store::SmallShard;
use shardgate_wire::{CallContext, StoreError};
use tokio::sync::oneshot;

/// Longest encoding of a shard's head without its texts and checksums, bytes.
const FIXED_HEAD_BYTES: usize = 256;

/// Who waits for what became of a shard.
pub type Waiter = oneshot::Sender<Result<(), StoreError>>;

struct Waiting {
    ctx: CallContext,
    shard: SmallShard,
    waiter: Waiter,
}

impl Waiting {
    fn head_bytes(&self) -> usize {
        let object = &self.shard.header.object;
        let texts = object.bucket.len() + object.key.len() + object.metadata.len();
        FIXED_HEAD_BYTES + texts + 5 * self.shard.crcs.len()
    }

    /// Whether both may go in one message: same caller, same catalog, same
    /// space that they may take.
    fn goes_with(&self, ctx: &CallContext) -> bool {
        self.ctx.cluster == ctx.cluster
            && self.ctx.epoch == ctx.epoch
            && self.ctx.lineage == ctx.lineage
            && self.ctx.purpose == ctx.purpose
    }
}

#[derive(Default)]
struct State {
    queue: VecDeque<Waiting>,
    bytes: usize,
    sending: bool,
}

/// The queue of one disk.
pub struct PutLane {
    state: Mutex<State>,
    max_bytes: usize,
    max_shards: usize,
}

/// One message, and who waits for its answers.
pub struct Batch {
    /// Its head.
    pub head: PutHead,
    /// Its data.
    pub data: Vec<Bytes>,
    /// One per shard, in the message's order.
    pub waiters: Vec<Waiter>,
}

impl PutLane {
    /// An empty lane that lets so much wait.
    pub fn new(max_bytes: usize, max_shards: usize) -> Self {
        Self {
            state: Mutex::default(),
            max_bytes,
            max_shards,
        }
    }

    /// Queues a shard. `true` if nobody sends: the caller has to see to it
    /// that [`Self::next`] is called until it says `None`.
    pub fn push(
        &self,
        ctx: CallContext,
        shard: SmallShard,
        waiter: Waiter,
    ) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let bytes = state.bytes + shard.bytes.len();
        if state.queue.len() >= self.max_shards || bytes > self.max_bytes {
            return Err(StoreError::Busy);
        }
        state.bytes = bytes;
        state.queue.push_back(Waiting { ctx, shard, waiter });
        Ok(!std::mem::replace(&mut state.sending, true))
    }

    /// The next message; `None` when nothing waits, and then nobody sends.
    pub fn next(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        let batch = state.take_batch();
        state.sending = batch.is_some();
        batch
    }

    /// Gives up what waits: the sender has gone. The waiters hear of it by
    /// the loss of their channels.
    pub fn abandon(&self) {
        *self.state.lock() = State::default();
    }
}

impl State {
    fn take_batch(&mut self) -> Option<Batch> {
        let mut batch: Option<Batch> = None;
        let (mut data, mut head) = (0, 0);
        while let Some(next) = self.queue.front() {
            if next.waiter.is_closed() {
                // Its caller has gone, and it was never sent.
                self.pop();
                continue;
            }
            let len = next.shard.bytes.len();
            if let Some(batch) = &batch {
                let full = batch.waiters.len() >= MAX_PUT_SHARDS
                    || data + len > MAX_PUT_DATA_BYTES
                    || head + next.head_bytes() > MAX_PUT_HEAD_BYTES - FIXED_HEAD_BYTES;
                if full || !next.goes_with(&batch.head.ctx) {
                    break;
                }
            }
            data += len;
            head += next.head_bytes();
            let Some(next) = self.pop() else { break };
            add(&mut batch, next);
        }
        batch
    }

    fn pop(&mut self) -> Option<Waiting> {
        let waiting = self.queue.pop_front()?;
        self.bytes -= waiting.shard.bytes.len();
        Some(waiting)
    }
}

fn add(batch: &mut Option<Batch>, next: Waiting) {
    let batch = batch.get_or_insert_with(|| Batch {
        head: PutHead {
            ctx: next.ctx,
            shards: Vec::new(),
        },
        data: Vec::new(),
        waiters: Vec::new(),
    });
    // Both numbers are durable, and disks remember the highest.
    let committed = &mut batch.head.ctx.committed;
    *committed = (*committed).max(next.ctx.committed);
    batch.head.shards.push(PutEntry {
        len: next.shard.bytes.len() as u32,
        header: next.shard.header,
        blob_len: next.shard.blob_len,
        crcs: next.shard.crcs,
    });
    batch.data.push(next.shard.bytes);
    batch.waiters.push(next.waiter);
}

#[cfg(test)]
mod tests;

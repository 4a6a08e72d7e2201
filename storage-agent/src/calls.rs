//! From an authentic message to the disk and back.
//!
//! Owns the decoding of each call's head, the checks that a message does not
//! contradict itself, and the encoding of the answer. Does not know HTTP, and
//! not who called.

use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shardgate_wire::StoreError;
use shardgate_wire::check::{CheckHead, DamagedHead};
use shardgate_wire::frame::{Frame, FrameError, decode_head, encode_head};
use shardgate_wire::message::{
    AbortHead, Answer, AppendHead, AssignHead, Call, CallError, DeleteHead, FinishHead, HealthHead,
    ListHead, MAX_PUT_SHARDS, OpenHead, PutHead, PutOutcome, RaiseEpochHead, ReadAnswer, ReadHead,
    Refusal, StatHead,
};
use shardgate_wire::message_notes::{ForgetNotesHead, NotesHead, PutNotesHead, SlotsHead};
use shardgate_wire::store::SmallShard;

use crate::journal_calls;
use crate::lanes::Lane;

/// An encoded answer.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Encoded head, with its prefix.
    pub head: Bytes,
    /// Data.
    pub data: Bytes,
}

impl Reply {
    /// An answer without data.
    pub fn of<T: Serialize>(answer: &Answer<T>) -> Self {
        Self {
            status: answer.as_ref().map_or_else(CallError::status, |_| 200),
            head: encode_head(answer),
            data: Bytes::new(),
        }
    }

    /// A refusal.
    pub fn refused(refusal: Refusal) -> Self {
        Self::of(&Answer::<()>::Err(CallError::Refused(refusal)))
    }
}

pub(crate) fn malformed(what: impl ToString) -> CallError {
    CallError::Refused(Refusal::Malformed {
        what: what.to_string(),
    })
}

pub(crate) fn head<T: DeserializeOwned>(frame: &Frame) -> Result<T, CallError> {
    decode_head(&frame.head).map_err(|error: FrameError| malformed(error))
}

/// Carries a message to its disk.
pub async fn carry(lane: &Lane, call: Call, frame: Frame) -> Reply {
    let bytes_in = frame.data.len() as u64;
    let begun = Instant::now();
    let reply = match dispatch(lane, call, frame).await {
        Ok(reply) => reply,
        Err(error) => Reply::of(&Answer::<()>::Err(error)),
    };
    let done = reply.status == 200 && reply.head.get(5) == Some(&0);
    let bytes_out = reply.data.len() as u64;
    lane.metrics
        .observe(call, begun.elapsed(), done, bytes_in, bytes_out);
    reply
}

async fn dispatch(lane: &Lane, call: Call, frame: Frame) -> Result<Reply, CallError> {
    let store = &lane.store;
    Ok(match call {
        Call::RaiseEpoch => {
            let RaiseEpochHead { ctx } = head(&frame)?;
            answer(store.raise_epoch(&ctx).await)
        }
        Call::Assign => {
            let AssignHead { ctx, slots } = head(&frame)?;
            answer(store.assign(&ctx, &slots).await)
        }
        Call::Open => {
            let OpenHead {
                ctx,
                header,
                shard_len,
            } = head(&frame)?;
            answer(store.open(&ctx, header, shard_len).await)
        }
        Call::Append => {
            let AppendHead {
                ctx,
                handle,
                offset,
                crcs,
            } = head(&frame)?;
            answer(store.append(&ctx, handle, offset, frame.data, &crcs).await)
        }
        Call::Finish => {
            let FinishHead { ctx, handle, end } = head(&frame)?;
            answer(store.finish(&ctx, handle, end).await)
        }
        Call::Abort => {
            let AbortHead { ctx, handle } = head(&frame)?;
            answer(store.abort(&ctx, handle).await)
        }
        Call::Put => put(lane, &frame).await?,
        Call::Read => read(lane, head(&frame)?).await?,
        Call::Stat => {
            let StatHead { key } = head(&frame)?;
            answer(store.stat(key).await)
        }
        Call::Delete => {
            let DeleteHead { ctx, keys } = head(&frame)?;
            answer(store.delete(&ctx, &keys).await)
        }
        Call::List => {
            let ListHead { after, limit } = head(&frame)?;
            answer(store.list(after, usize::from(limit)).await)
        }
        Call::Health => {
            let HealthHead {} = head(&frame)?;
            answer(store.health().await)
        }
        Call::PutNotes => {
            let PutNotesHead { ctx, notes } = head(&frame)?;
            answer(store.put_notes(&ctx, &notes).await)
        }
        Call::ForgetNotes => {
            let ForgetNotesHead { ctx, blobs } = head(&frame)?;
            answer(store.forget_notes(&ctx, &blobs).await)
        }
        Call::Notes => {
            let NotesHead { after } = head(&frame)?;
            answer(store.notes(after).await)
        }
        Call::Slots => {
            let SlotsHead { after } = head(&frame)?;
            answer(store.slots(after).await)
        }
        Call::Damaged => {
            let DamagedHead {} = head(&frame)?;
            answer(store.damaged().await)
        }
        Call::Check => {
            let CheckHead { ctx, from, repair } = head(&frame)?;
            answer(store.check(&ctx, from, repair).await)
        }
        _ => return journal_calls::dispatch(lane, call, frame).await,
    })
}

pub(crate) fn answer<T: Serialize>(outcome: Result<T, StoreError>) -> Reply {
    Reply::of(&outcome.map_err(CallError::Store))
}

async fn read(lane: &Lane, ask: ReadHead) -> Result<Reply, CallError> {
    let read = lane.store.read(ask.key, ask.offset, ask.len).await?;
    let mut reply = Reply::of(&Answer::Ok(ReadAnswer { crcs: read.crcs }));
    reply.data = read.bytes;
    Ok(reply)
}

/// The shards of one message are put at once, so that the disk gives them one
/// fsync; each has its own answer.
async fn put(lane: &Lane, frame: &Frame) -> Result<Reply, CallError> {
    let message: PutHead = head(frame)?;
    let ctx = message.ctx;
    let shards = small_shards(message, &frame.data)?;
    let puts = shards.into_iter().map(|shard| lane.store.put(&ctx, shard));
    let outcomes: Vec<PutOutcome> = join_all(puts).await;
    Ok(Reply::of(&Answer::Ok(outcomes)))
}

/// Cuts a put message's data into its shards.
fn small_shards(message: PutHead, data: &Bytes) -> Result<Vec<SmallShard>, CallError> {
    if message.shards.len() > MAX_PUT_SHARDS {
        return Err(malformed("too many shards in one message"));
    }
    let mut at = 0;
    let mut shards = Vec::with_capacity(message.shards.len());
    for entry in message.shards {
        let end = at + entry.len as usize;
        if end > data.len() {
            return Err(malformed("shards are longer than the data"));
        }
        shards.push(SmallShard {
            header: entry.header,
            blob_len: entry.blob_len,
            bytes: data.slice(at..end),
            crcs: entry.crcs,
        });
        at = end;
    }
    if at != data.len() {
        return Err(malformed("shards are shorter than the data"));
    }
    Ok(shards)
}

#[cfg(test)]
mod tests;

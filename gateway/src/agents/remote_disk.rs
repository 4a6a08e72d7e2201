//! A disk behind an agent, as a [`ShardStore`].
//!
//! Owns the disk's share of its agent's connections and its lane of small
//! shards. Invariant: an answer that does not fit its call is an error, never
//! passed on. Whether the bytes of a read match their checksums is checked by
//! who uses them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shardgate_wire::bounds::{MAX_BUCKET_BYTES, MAX_KEY_BYTES};
use shardgate_wire::check::{
    CheckCursor, CheckHead, CheckPage, DamagedHead, DamagedShard, MAX_DAMAGED, check_cursor,
};
use shardgate_wire::checksum::CHECK_BLOCK;
use shardgate_wire::frame::encode_head;
use shardgate_wire::message::{
    AbortHead, AppendHead, AssignHead, Call, DeleteHead, FinishHead, HealthHead, ListHead,
    OpenHead, PutOutcome, RaiseEpochHead, ReadAnswer, ReadHead, StatHead, Target,
};
use shardgate_wire::message_notes::{ForgetNotesHead, NotesHead, PutNotesHead, SlotsHead};
use shardgate_wire::note::{BlobNote, MAX_NOTES, NoteCursor, NotePage};
use shardgate_wire::shard::MAX_METADATA_BYTES;
use shardgate_wire::store::{
    ListedShard, MAX_APPEND_BYTES, MAX_BATCH, MAX_PUT_BYTES, ShardBytes, ShardEnd, ShardHandle,
    ShardStat, SmallShard,
};
use shardgate_wire::{
    BlobId, CallContext, DiskHealth, DiskId, GroupId, ShardHeader, ShardKey, ShardStore,
    SlotAssignment, StoreError, bounds,
};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::client::{AgentClient, Ask};
use super::pool::{Leave, Places, Way};
use super::put_lane::{Batch, PutLane};

/// One disk of an agent.
#[derive(Clone)]
pub struct RemoteDisk {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    client: Arc<AgentClient>,
    pub(super) disk: DiskId,
    /// The disk's share of the connections for shards.
    shards: Places,
    /// One call of the other kind at a time: a disk that hangs must not keep
    /// its neighbours' health from us.
    control: Arc<Semaphore>,
    /// Calls of the journal: an append, and a question beside it.
    journal: Arc<Semaphore>,
    puts: PutLane,
}

impl RemoteDisk {
    pub(super) fn new(client: Arc<AgentClient>, disk: DiskId) -> Self {
        let settings = client.settings();
        let inner = Inner {
            shards: Places::new(settings.calls_per_disk),
            control: Arc::new(Semaphore::new(1)),
            journal: Arc::new(Semaphore::new(2)),
            puts: PutLane::new(settings.put_queue_bytes, settings.put_queue_shards),
            client,
            disk,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The agent that it is behind.
    pub fn client(&self) -> &Arc<AgentClient> {
        &self.inner.client
    }

    pub(super) async fn call<H: Serialize, T: DeserializeOwned>(
        &self,
        call: Call,
        head: &H,
    ) -> Result<T, StoreError> {
        Ok(self
            .inner
            .call(call, encode_head(head), Vec::new())
            .await?
            .0)
    }
}

impl Inner {
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        call: Call,
        head: Bytes,
        data: Vec<Bytes>,
    ) -> Result<(T, Bytes), StoreError> {
        self.call_for(call, head, data, 0).await
    }

    /// A call whose answer has so many bytes of data if all is well.
    async fn call_for<T: DeserializeOwned>(
        &self,
        call: Call,
        head: Bytes,
        data: Vec<Bytes>,
        answer_data: usize,
    ) -> Result<(T, Bytes), StoreError> {
        let limits = call.request_limits();
        let data_len: usize = data.iter().map(Bytes::len).sum();
        if head.len() > limits.head || data_len > limits.data {
            return Err(bad(format!("{} call is too long", call.name())));
        }
        let (way, within) = self.way(call);
        let wait_until = Instant::now() + within;
        let place = timeout_at(wait_until, self.place(way)).await;
        let _place = place.map_err(|_| StoreError::Busy)?;
        let ask = Ask {
            target: Target::Disk(self.disk, call),
            limits: call.answer_limits(),
            answer_data,
            way,
            wait_until,
            within,
            head,
            data,
        };
        self.client.call(&ask).await
    }

    /// By which connections a call goes, and how long it may take.
    fn way(&self, call: Call) -> (Way, Duration) {
        let settings = self.client.settings();
        match call {
            Call::Health => (Way::Control, settings.control_timeout),
            // Those wait for an fsync.
            Call::RaiseEpoch => (Way::Control, settings.sync_timeout),
            Call::Put
            | Call::Finish
            | Call::Delete
            | Call::Assign
            | Call::PutNotes
            | Call::ForgetNotes
            | Call::Check => (Way::Store, settings.sync_timeout),
            // Never behind shards; each waits for an fsync.
            _ if call.is_journal() => (Way::Journal, settings.sync_timeout),
            Call::Read | Call::Stat => (Way::Read, settings.call_timeout),
            _ => (Way::Store, settings.call_timeout),
        }
    }

    /// The disk's own bound on such calls.
    async fn place(&self, way: Way) -> Leave {
        match way {
            Way::Read => self.shards.take(false).await,
            Way::Store => self.shards.take(true).await,
            Way::Journal => Leave::of(&self.journal).await,
            Way::Control => Leave::of(&self.control).await,
        }
    }

    /// Sends what waits, message after message, until nothing does.
    async fn send_puts(self: Arc<Self>) {
        let guard = AbandonOnDrop(&self.puts);
        while let Some(batch) = self.puts.next() {
            let Batch {
                head,
                data,
                waiters,
            } = batch;
            let sent = self.call(Call::Put, encode_head(&head), data).await;
            let outcomes: Vec<PutOutcome> = match sent {
                Ok((outcomes, _)) => outcomes,
                Err(error) => vec![Err(error); waiters.len()],
            };
            let fits = outcomes.len() == waiters.len();
            let mut outcomes = outcomes.into_iter();
            for waiter in waiters {
                let outcome = match outcomes.next() {
                    Some(outcome) if fits => outcome,
                    _ => Err(self.unfit(Call::Put)),
                };
                // A caller that has gone does not want to know.
                let _ = waiter.send(outcome);
            }
        }
        std::mem::forget(guard);
    }

    pub(super) fn unfit(&self, call: Call) -> StoreError {
        StoreError::Unreachable {
            why: format!(
                "{}: the answer does not fit the {} call",
                self.client.address(),
                call.name()
            ),
        }
    }
}

/// Lets the waiters of a lane go if its sender is dropped midway.
struct AbandonOnDrop<'a>(&'a PutLane);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

fn bad(what: impl Into<String>) -> StoreError {
    StoreError::BadCall { what: what.into() }
}

#[async_trait]
impl ShardStore for RemoteDisk {
    fn disk(&self) -> DiskId {
        self.inner.disk
    }

    fn ends_calls_in_time(&self) -> bool {
        true
    }

    async fn raise_epoch(&self, ctx: &CallContext) -> Result<(), StoreError> {
        let head = RaiseEpochHead { ctx: *ctx };
        self.call(Call::RaiseEpoch, &head).await
    }

    async fn assign(&self, ctx: &CallContext, slots: &[SlotAssignment]) -> Result<(), StoreError> {
        let head = AssignHead {
            ctx: *ctx,
            slots: slots.to_vec(),
        };
        self.call(Call::Assign, &head).await
    }

    async fn open(
        &self,
        ctx: &CallContext,
        header: ShardHeader,
        shard_len: Option<u64>,
    ) -> Result<ShardHandle, StoreError> {
        let head = OpenHead {
            ctx: *ctx,
            header,
            shard_len,
        };
        self.call(Call::Open, &head).await
    }

    async fn append(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        offset: u64,
        bytes: Bytes,
        crcs: &[u32],
    ) -> Result<(), StoreError> {
        if bytes.len() > MAX_APPEND_BYTES {
            return Err(bad(format!("append of {} bytes", bytes.len())));
        }
        let head = encode_head(&AppendHead {
            ctx: *ctx,
            handle,
            offset,
            crcs: crcs.to_vec(),
        });
        let ((), _) = self.inner.call(Call::Append, head, vec![bytes]).await?;
        Ok(())
    }

    async fn finish(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        end: ShardEnd,
    ) -> Result<(), StoreError> {
        let head = FinishHead {
            ctx: *ctx,
            handle,
            end,
        };
        self.call(Call::Finish, &head).await
    }

    async fn abort(&self, ctx: &CallContext, handle: ShardHandle) -> Result<(), StoreError> {
        let head = AbortHead { ctx: *ctx, handle };
        self.call(Call::Abort, &head).await
    }

    async fn put(&self, ctx: &CallContext, shard: SmallShard) -> Result<(), StoreError> {
        // In a message with others, one beyond the bounds of a message would
        // have all of them refused.
        if shard.bytes.len() > MAX_PUT_BYTES
            || shard.crcs.len() > MAX_PUT_BYTES / CHECK_BLOCK
            || shard.header.object.metadata.len() > MAX_METADATA_BYTES
            || shard.header.object.key.len() > MAX_KEY_BYTES
            || shard.header.object.bucket.len() > MAX_BUCKET_BYTES
        {
            return Err(bad("small shard beyond its bounds"));
        }
        let (waiter, answer) = oneshot::channel();
        if self.inner.puts.push(*ctx, shard, waiter)? {
            let sending = Arc::clone(&self.inner).send_puts();
            self.inner.client.tracker().spawn(sending);
        }
        // Behind the message that is under way, whose own end tells whether the
        // disk is to blame, and then with the next.
        let within = 4 * self.inner.client.settings().sync_timeout;
        match timeout(within, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Unreachable {
                why: "the gateway is stopping".to_owned(),
            }),
            Err(_) => Err(StoreError::Busy),
        }
    }

    async fn read(&self, key: ShardKey, offset: u64, len: u32) -> Result<ShardBytes, StoreError> {
        let head = encode_head(&ReadHead { key, offset, len });
        let read = self
            .inner
            .call_for(Call::Read, head, Vec::new(), len as usize);
        let (ReadAnswer { crcs }, bytes) = read.await?;
        if bytes.len() != len as usize || crcs.len() != bytes.len().div_ceil(CHECK_BLOCK) {
            return Err(self.inner.unfit(Call::Read));
        }
        Ok(ShardBytes { bytes, crcs })
    }

    async fn stat(&self, key: ShardKey) -> Result<ShardStat, StoreError> {
        let stat: ShardStat = self.call(Call::Stat, &StatHead { key }).await?;
        if stat.header.key != key {
            return Err(self.inner.unfit(Call::Stat));
        }
        Ok(stat)
    }

    async fn delete(&self, ctx: &CallContext, keys: &[ShardKey]) -> Result<(), StoreError> {
        let head = DeleteHead {
            ctx: *ctx,
            keys: keys.to_vec(),
        };
        self.call(Call::Delete, &head).await
    }

    async fn list(
        &self,
        after: Option<ShardKey>,
        limit: usize,
    ) -> Result<Vec<ListedShard>, StoreError> {
        let head = ListHead {
            after,
            limit: u16::try_from(limit).unwrap_or(u16::MAX),
        };
        let listed: Vec<ListedShard> = self.call(Call::List, &head).await?;
        let ascending = listed.windows(2).all(|pair| pair[0].key < pair[1].key);
        let behind = listed.first().is_none_or(|first| after < Some(first.key));
        if listed.len() > limit || !ascending || !behind {
            return Err(self.inner.unfit(Call::List));
        }
        Ok(listed)
    }

    async fn put_notes(&self, ctx: &CallContext, notes: &[BlobNote]) -> Result<(), StoreError> {
        bounds::check_notes(notes)?;
        let head = PutNotesHead {
            ctx: *ctx,
            notes: notes.to_vec(),
        };
        self.call(Call::PutNotes, &head).await
    }

    async fn forget_notes(
        &self,
        ctx: &CallContext,
        blobs: &[(GroupId, BlobId)],
    ) -> Result<(), StoreError> {
        bounds::check_batch(blobs.len())?;
        let head = ForgetNotesHead {
            ctx: *ctx,
            blobs: blobs.to_vec(),
        };
        self.call(Call::ForgetNotes, &head).await
    }

    async fn notes(&self, after: Option<NoteCursor>) -> Result<NotePage, StoreError> {
        let page: NotePage = self.call(Call::Notes, &NotesHead { after }).await?;
        // A page that ends where it began would be asked for, for ever.
        if page.notes.len() > MAX_NOTES || page.next.is_some() && page.next == after {
            return Err(self.inner.unfit(Call::Notes));
        }
        Ok(page)
    }

    async fn slots(&self, after: Option<GroupId>) -> Result<Vec<SlotAssignment>, StoreError> {
        let slots: Vec<SlotAssignment> = self.call(Call::Slots, &SlotsHead { after }).await?;
        let ascending = slots.windows(2).all(|pair| pair[0].group < pair[1].group);
        let behind = slots.first().is_none_or(|first| after < Some(first.group));
        if slots.len() > MAX_BATCH || !ascending || !behind {
            return Err(self.inner.unfit(Call::Slots));
        }
        Ok(slots)
    }

    async fn damaged(&self) -> Result<Vec<DamagedShard>, StoreError> {
        let damaged: Vec<DamagedShard> = self.call(Call::Damaged, &DamagedHead {}).await?;
        let ascending = damaged.windows(2).all(|pair| pair[0].key < pair[1].key);
        if damaged.len() > MAX_DAMAGED || !ascending {
            return Err(self.inner.unfit(Call::Damaged));
        }
        Ok(damaged)
    }

    async fn check(
        &self,
        ctx: &CallContext,
        from: Option<CheckCursor>,
        repair: bool,
    ) -> Result<CheckPage, StoreError> {
        check_cursor(from.as_ref())?;
        let ctx = *ctx;
        let head = CheckHead {
            ctx,
            from: from.clone(),
            repair,
        };
        let page: CheckPage = self.call(Call::Check, &head).await?;
        // A page that ends where it began would be asked for, for ever.
        let stands = page.next.is_some() && page.next == from;
        if stands || check_cursor(page.next.as_ref()).is_err() {
            return Err(self.inner.unfit(Call::Check));
        }
        Ok(page)
    }

    async fn health(&self) -> Result<DiskHealth, StoreError> {
        let health: DiskHealth = self.call(Call::Health, &HealthHead {}).await?;
        if health.identity.disk != self.inner.disk {
            return Err(self.inner.unfit(Call::Health));
        }
        Ok(health)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardgate_wire::conformance::sample;
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::agents::AgentSettings;
    use crate::seam::SetClock;

    const END: ShardEnd = ShardEnd {
        shard_len: 1,
        blob_len: 1,
    };

    /// A disk of an agent that takes what comes and never answers.
    async fn silent(settings: &AgentSettings) -> RemoteDisk {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut taken = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                taken.push(stream);
            }
        });
        let clock = Arc::new(SetClock::at(1));
        let client = AgentClient::new(address, None, settings.clone(), clock, TaskTracker::new());
        client.disk(sample::identity().disk)
    }

    #[tokio::test(start_paused = true)]
    async fn an_fsync_has_more_time_than_a_call_and_neither_is_waited_for_ever() {
        let settings = AgentSettings {
            connect_timeout: Duration::from_secs(3600),
            ..AgentSettings::default()
        };
        let disk = silent(&settings).await;
        let ctx = sample::context(1);
        let begun = Instant::now();
        let finished = disk.finish(&ctx, ShardHandle(1), END).await;
        assert_eq!(finished, Err(StoreError::TimedOut(settings.sync_timeout)));
        assert_eq!(begun.elapsed().as_secs(), settings.sync_timeout.as_secs());
        let begun = Instant::now();
        let put = disk.put(&ctx, sample::small(&ctx, 7, 100)).await;
        assert_eq!(put, Err(StoreError::TimedOut(settings.sync_timeout)));
        assert_eq!(begun.elapsed().as_secs(), settings.sync_timeout.as_secs());
        let aborted = disk.abort(&ctx, ShardHandle(1)).await;
        assert_eq!(aborted, Err(StoreError::TimedOut(settings.call_timeout)));
    }

    // Else load of our own would put good disks out.
    #[tokio::test(start_paused = true)]
    async fn what_waits_for_its_turn_does_not_blame_the_disk() {
        let settings = AgentSettings {
            connect_timeout: Duration::from_secs(3600),
            calls_per_disk: 1,
            ..AgentSettings::default()
        };
        let disk = silent(&settings).await;
        let ctx = sample::context(1);
        let begun = Instant::now();
        let long = disk.finish(&ctx, ShardHandle(1), END);
        let behind = async {
            let behind = disk
                .append(&ctx, ShardHandle(2), 0, Bytes::new(), &[])
                .await;
            (behind, begun.elapsed().as_secs())
        };
        let (long, (behind, waited)) = tokio::join!(long, behind);
        assert_eq!(long, Err(StoreError::TimedOut(settings.sync_timeout)));
        assert_eq!(behind, Err(StoreError::Busy));
        assert_eq!(waited, settings.call_timeout.as_secs());
    }
}

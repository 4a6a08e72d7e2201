//! A [`ShardStore`] in memory, for tests of what stands above the trait.
//!
//! It keeps every rule of the trait, and passes the conformance suite. What a
//! test may do to it goes through a [`MemoryDisk`] handle: let calls fail or
//! wait, damage or drop shards, count calls. Nothing in it is durable.

mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::bounds;
use crate::check::{self, CheckCursor, CheckPage, DamagedShard};
use crate::disk::{DiskHealth, DiskIdentity, SlotAssignment};
use crate::ids::{BlobId, DiskId, GroupId};
use crate::note::{BlobNote, NoteCursor, NotePage};
use crate::shard::{ShardHeader, ShardKey};
use crate::space::Purpose;
use crate::store::{
    CallContext, ListedShard, ShardBytes, ShardEnd, ShardHandle, ShardStat, ShardStore, SmallShard,
    StoreError,
};
use state::State;

/// Which call of [`ShardStore`] a switch or a count is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // each is named as the call
pub enum Call {
    RaiseEpoch,
    Assign,
    Open,
    Append,
    Finish,
    Abort,
    Put,
    Read,
    Stat,
    Delete,
    List,
    Health,
    PutNotes,
    ForgetNotes,
    Notes,
    Slots,
    Damaged,
    Check,
}

/// What a test has set.
#[derive(Debug, Default)]
struct Switches {
    fail_all: Option<StoreError>,
    /// What the next calls of a kind fail with, and how many of them.
    fail_next: BTreeMap<Call, (usize, StoreError)>,
    delay: Duration,
    ends_calls: bool,
    /// Who it says it is, where that is not the truth.
    impostor: Option<DiskIdentity>,
    /// Why it takes no writes.
    fenced: Option<String>,
    /// Which byte of every answer to a read is damaged on its way.
    garble: Option<usize>,
    calls: BTreeMap<Call, u64>,
}

#[derive(Debug)]
struct Shared {
    identity: DiskIdentity,
    state: Mutex<State>,
    switches: Mutex<Switches>,
    waiting: AtomicUsize,
}

/// A call that waits for its delay.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The store. Cheap to clone; all clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// What a test does to a [`MemoryStore`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    shared: Arc<Shared>,
}

impl MemoryStore {
    /// An empty disk without slots, under no epoch.
    pub fn new(identity: DiskIdentity) -> Self {
        Self {
            shared: Arc::new(Shared {
                identity,
                state: Mutex::new(State::default()),
                switches: Mutex::new(Switches::default()),
                waiting: AtomicUsize::new(0),
            }),
        }
    }

    /// The test's handle on it.
    pub fn handle(&self) -> MemoryDisk {
        MemoryDisk {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Counts the call, waits as the test wants, fails if the test wants.
    async fn enter(&self, call: Call) -> Result<(), StoreError> {
        let delay = {
            let mut switches = self.shared.switches.lock();
            *switches.calls.entry(call).or_default() += 1;
            switches.delay
        };
        if !delay.is_zero() {
            self.shared.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&self.shared.waiting);
            tokio::time::sleep(delay).await;
        }
        let mut switches = self.shared.switches.lock();
        if let Some(error) = &switches.fail_all {
            return Err(error.clone());
        }
        match switches.fail_next.get_mut(&call) {
            Some((left, error)) if *left > 0 => {
                *left -= 1;
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    /// Enters a call that changes something, and runs it on the state.
    async fn change<T>(
        &self,
        call: Call,
        ctx: &CallContext,
        act: impl FnOnce(&DiskIdentity, &mut State) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        self.enter(call).await?;
        if let Some(why) = self.shared.switches.lock().fenced.clone() {
            return Err(StoreError::Fenced { why });
        }
        bounds::check_cluster(&self.shared.identity, ctx)?;
        let mut state = self.shared.state.lock();
        state.admit(ctx)?;
        act(&self.shared.identity, &mut state)
    }
}

impl MemoryDisk {
    /// Lets every call fail with `error`, until set to `None`.
    pub fn fail(&self, error: Option<StoreError>) {
        self.shared.switches.lock().fail_all = error;
    }

    /// Lets the next `count` calls of one kind fail with `error`.
    pub fn fail_next(&self, call: Call, count: usize, error: StoreError) {
        let mut switches = self.shared.switches.lock();
        switches.fail_next.insert(call, (count, error));
    }

    /// Lets every call wait before it is done (on tokio's clock).
    pub fn delay(&self, delay: Duration) {
        self.shared.switches.lock().delay = delay;
    }

    /// Calls that wait for their delay, those that nobody drives too.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// What [`ShardStore::ends_calls_in_time`] says from now on.
    pub fn end_calls_in_time(&self, ends: bool) {
        self.shared.switches.lock().ends_calls = ends;
    }

    /// Lets it say that it is another disk, as a wrong address or a swapped
    /// device would, until set to `None`.
    pub fn answer_as(&self, identity: Option<DiskIdentity>) {
        self.shared.switches.lock().impostor = identity;
    }

    /// Fences it: it says so, and takes no writes, until set to `None`.
    pub fn fence(&self, why: Option<&str>) {
        self.shared.switches.lock().fenced = why.map(str::to_owned);
    }

    /// Damages a byte of every answer to a read that is that long, behind
    /// the disk's own checks, until set to `None`.
    pub fn garble(&self, byte: Option<usize>) {
        self.shared.switches.lock().garble = byte;
    }

    /// Shards may take that many bytes in all; no limit by default.
    pub fn set_capacity(&self, bytes: u64) {
        self.shared.state.lock().capacity = bytes;
    }

    /// Keeps bytes of the capacity from a purpose, and from those that are
    /// refused before it; nothing by default.
    pub fn keep_from(&self, purpose: Purpose, bytes: u64) {
        self.shared.state.lock().kept[purpose as usize] = bytes;
    }

    /// Flips a bit of the stored byte at `offset` of a shard. False if there
    /// is no such shard or byte.
    pub fn flip(&self, key: ShardKey, offset: u64) -> bool {
        self.shared.state.lock().flip(key, offset)
    }

    /// Forgets a shard, as a disk should not. False if there is none.
    pub fn drop_shard(&self, key: ShardKey) -> bool {
        self.shared.state.lock().remove(key)
    }

    /// The finished shards that the disk holds, in order.
    pub fn finished(&self) -> Vec<ShardKey> {
        self.shared.state.lock().finished()
    }

    /// How many calls of one kind came, refused ones too.
    pub fn calls(&self, call: Call) -> u64 {
        let switches = self.shared.switches.lock();
        switches.calls.get(&call).copied().unwrap_or(0)
    }

    /// How many handles are open.
    pub fn open_handles(&self) -> usize {
        self.shared.state.lock().open_handles()
    }

    /// Forgets all handles, as a restart does; shards stay as they are.
    pub fn restart(&self) {
        self.shared.state.lock().end_handles();
    }
}

#[async_trait]
impl ShardStore for MemoryStore {
    fn disk(&self) -> DiskId {
        self.shared.identity.disk
    }

    fn ends_calls_in_time(&self) -> bool {
        self.shared.switches.lock().ends_calls
    }

    async fn raise_epoch(&self, ctx: &CallContext) -> Result<(), StoreError> {
        self.change(Call::RaiseEpoch, ctx, |_, _| Ok(())).await
    }

    async fn assign(&self, ctx: &CallContext, slots: &[SlotAssignment]) -> Result<(), StoreError> {
        self.change(Call::Assign, ctx, |_, state| {
            bounds::check_batch(slots.len())?;
            if let Some(next) = state.slots.with(slots)? {
                state.slots = next;
            }
            Ok(())
        })
        .await
    }

    async fn open(
        &self,
        ctx: &CallContext,
        header: ShardHeader,
        shard_len: Option<u64>,
    ) -> Result<ShardHandle, StoreError> {
        self.change(Call::Open, ctx, |disk, state| {
            bounds::check_header(disk, ctx, &header)?;
            bounds::check_open(shard_len)?;
            state.open(ctx.purpose, header, shard_len)
        })
        .await
    }

    async fn append(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        offset: u64,
        bytes: Bytes,
        crcs: &[u32],
    ) -> Result<(), StoreError> {
        self.change(Call::Append, ctx, |_, state| {
            state.append(ctx.purpose, handle, offset, &bytes, crcs)
        })
        .await
    }

    async fn finish(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        end: ShardEnd,
    ) -> Result<(), StoreError> {
        self.change(Call::Finish, ctx, |_, state| state.finish(handle, end))
            .await
    }

    async fn abort(&self, ctx: &CallContext, handle: ShardHandle) -> Result<(), StoreError> {
        self.change(Call::Abort, ctx, |_, state| {
            state.abort(handle);
            Ok(())
        })
        .await
    }

    async fn put(&self, ctx: &CallContext, shard: SmallShard) -> Result<(), StoreError> {
        self.change(Call::Put, ctx, |disk, state| {
            bounds::check_header(disk, ctx, &shard.header)?;
            bounds::check_put(&shard)?;
            state.put(ctx.purpose, shard)
        })
        .await
    }

    async fn read(&self, key: ShardKey, offset: u64, len: u32) -> Result<ShardBytes, StoreError> {
        self.enter(Call::Read).await?;
        bounds::check_read(offset, len)?;
        let mut read = self.shared.state.lock().read(key, offset, len)?;
        let garble = self.shared.switches.lock().garble;
        if let Some(byte) = garble.filter(|byte| *byte < read.bytes.len()) {
            let mut bytes = read.bytes.to_vec();
            bytes[byte] ^= 1;
            read.bytes = bytes.into();
        }
        Ok(read)
    }

    async fn stat(&self, key: ShardKey) -> Result<ShardStat, StoreError> {
        self.enter(Call::Stat).await?;
        self.shared.state.lock().stat(key)
    }

    async fn delete(&self, ctx: &CallContext, keys: &[ShardKey]) -> Result<(), StoreError> {
        self.change(Call::Delete, ctx, |_, state| {
            bounds::check_batch(keys.len())?;
            for key in keys {
                state.remove(*key);
            }
            Ok(())
        })
        .await
    }

    async fn list(
        &self,
        after: Option<ShardKey>,
        limit: usize,
    ) -> Result<Vec<ListedShard>, StoreError> {
        self.enter(Call::List).await?;
        bounds::check_list(limit)?;
        Ok(self.shared.state.lock().list(after, limit))
    }

    async fn put_notes(&self, ctx: &CallContext, notes: &[BlobNote]) -> Result<(), StoreError> {
        self.change(Call::PutNotes, ctx, |_, state| {
            bounds::check_notes(notes)?;
            state.put_notes(notes);
            Ok(())
        })
        .await
    }

    async fn forget_notes(
        &self,
        ctx: &CallContext,
        blobs: &[(GroupId, BlobId)],
    ) -> Result<(), StoreError> {
        self.change(Call::ForgetNotes, ctx, |_, state| {
            bounds::check_batch(blobs.len())?;
            state.forget_notes(blobs);
            Ok(())
        })
        .await
    }

    async fn notes(&self, after: Option<NoteCursor>) -> Result<NotePage, StoreError> {
        self.enter(Call::Notes).await?;
        Ok(self.shared.state.lock().notes(after))
    }

    async fn slots(&self, after: Option<GroupId>) -> Result<Vec<SlotAssignment>, StoreError> {
        self.enter(Call::Slots).await?;
        Ok(self.shared.state.lock().slots.page(after))
    }

    async fn damaged(&self) -> Result<Vec<DamagedShard>, StoreError> {
        self.enter(Call::Damaged).await?;
        Ok(self.shared.state.lock().damaged())
    }

    async fn check(
        &self,
        ctx: &CallContext,
        from: Option<CheckCursor>,
        repair: bool,
    ) -> Result<CheckPage, StoreError> {
        if repair {
            self.change(Call::Check, ctx, |_, _| Ok(())).await?;
        } else {
            self.enter(Call::Check).await?;
        }
        check::check_cursor(from.as_ref())?;
        Ok(self.shared.state.lock().check())
    }

    async fn health(&self) -> Result<DiskHealth, StoreError> {
        self.enter(Call::Health).await?;
        let (impostor, fenced) = {
            let switches = self.shared.switches.lock();
            (switches.impostor, switches.fenced.clone())
        };
        let identity = impostor.unwrap_or(self.shared.identity);
        let health = self.shared.state.lock().health(identity);
        Ok(DiskHealth { fenced, ..health })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{self, Subject, sample};

    struct InMemory(MemoryStore);

    #[async_trait]
    impl Subject for InMemory {
        fn store(&self) -> Arc<dyn ShardStore> {
            Arc::new(self.0.clone())
        }

        async fn damage(&self, key: ShardKey, offset: u64) {
            assert!(self.0.handle().flip(key, offset), "{key:?} has no {offset}");
        }

        async fn restart(&mut self) {
            self.0.handle().restart();
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn conforms() {
        conformance::run(|identity| async move { InMemory(MemoryStore::new(identity)) }).await;
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn switches_do_what_they_say() {
        let store = MemoryStore::new(sample::identity());
        let handle = store.handle();
        let ctx = sample::context(1);
        handle.fail_next(Call::Assign, 1, StoreError::Busy);
        assert_eq!(store.assign(&ctx, &[]).await, Err(StoreError::Busy));
        store.assign(&ctx, &[sample::slot()]).await.unwrap();

        let small = sample::small(&ctx, 7, 100_000);
        let key = small.header.key;
        handle.set_capacity(99_999);
        let refused = store.put(&ctx, small.clone()).await;
        assert_eq!(refused, Err(StoreError::NoSpace));
        handle.set_capacity(u64::MAX);
        store.put(&ctx, small).await.unwrap();
        assert_eq!(handle.finished(), [key]);

        // What clients may not take is there for those behind them.
        handle.set_capacity(1_000_000);
        handle.keep_from(Purpose::Background, 100_000);
        handle.keep_from(Purpose::Client, 700_000);
        let other = sample::small(&ctx, 8, 150_000);
        let refused = store.put(&ctx, other.clone()).await;
        assert_eq!(refused, Err(StoreError::NoSpace));
        let background = ctx.for_purpose(Purpose::Background);
        store.put(&background, other).await.unwrap();
        let room = store.health().await.unwrap().room;
        assert_eq!(room.client_bytes, 0);
        assert_eq!(
            (room.background_bytes, room.checkpoint_bytes),
            (650_000, 750_000)
        );

        handle.fail(Some(StoreError::Busy));
        assert_eq!(store.stat(key).await, Err(StoreError::Busy));
        handle.fail(None);
        handle.delay(Duration::from_secs(3600));
        let waited = tokio::time::timeout(Duration::from_secs(3000), store.stat(key)).await;
        assert!(waited.is_err(), "a delayed call waits");
        handle.delay(Duration::ZERO);
        assert!(handle.drop_shard(key));
        assert_eq!(store.stat(key).await, Err(StoreError::NotFound));
        assert_eq!(handle.calls(Call::Stat), 3);
        assert_eq!(handle.calls(Call::Put), 4);
    }
}

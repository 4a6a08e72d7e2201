//! Calls to disks: limited in time, measured, reported.
//!
//! Owns what every call has in common, so that the writer and the reader do
//! not: the limit for disks of this process (those of agents end their calls
//! themselves), the report to the pool, the load of each disk, the retry
//! after `Busy` and after a slot's generation was told. Invariant: once a
//! disk has said that another gateway is in force, this one is fenced for
//! good: no call is sent any more.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use shardgate_wire::store::{
    ListedShard, ShardBytes, ShardEnd, ShardHandle, ShardStat, SmallShard,
};
use shardgate_wire::{
    BlobId, BlobNote, CallContext, DiskId, GroupId, Purpose, ShardHeader, ShardKey, ShardStore,
    StoreError,
};
use tokio::time::Instant;
use tracing::error;

use super::ports::{CallKind, CallReport, Disks};
use super::settings::ObjectSettings;

/// Pause before a busy disk is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// Pauses grow up to this.
const BUSY_PAUSE_MOST: Duration = Duration::from_millis(200);
/// How long a busy disk is asked again to store something: longer than what
/// waits for a connection waits before it is told of. A read is better decoded
/// from other disks.
const BUSY_PATIENCE: Duration = Duration::from_secs(40);

/// The disks, as every part of the data path calls them.
pub struct DiskCalls {
    disks: Arc<dyn Disks>,
    settings: ObjectSettings,
    fenced: AtomicBool,
    loads: RwLock<HashMap<DiskId, Arc<AtomicU32>>>,
}

/// One disk that is called, and on behalf of which group.
#[derive(Clone)]
pub struct Target {
    /// Which disk.
    pub disk: DiskId,
    /// The disk.
    pub store: Arc<dyn ShardStore>,
    /// Whose slot it holds.
    pub group: GroupId,
    /// What is written there for: which of its space may be taken.
    pub purpose: Purpose,
}

/// Counts a call as long as it runs.
struct Running(Arc<AtomicU32>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl DiskCalls {
    /// Calls through `disks`.
    pub fn new(disks: Arc<dyn Disks>, settings: ObjectSettings) -> Self {
        Self {
            disks,
            settings,
            fenced: AtomicBool::new(false),
            loads: RwLock::default(),
        }
    }

    /// Whether another gateway has taken over.
    pub fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Relaxed)
    }

    /// Calls that are under way at a disk.
    pub fn load(&self, disk: DiskId) -> u32 {
        let loads = self.loads.read();
        loads
            .get(&disk)
            .map_or(0, |load| load.load(Ordering::Relaxed))
    }

    fn context(&self, to: &Target) -> CallContext {
        self.disks.context().for_purpose(to.purpose)
    }

    fn running(&self, disk: DiskId) -> Running {
        let known = self.loads.read().get(&disk).cloned();
        let load = known.unwrap_or_else(|| self.loads.write().entry(disk).or_default().clone());
        load.fetch_add(1, Ordering::Relaxed);
        Running(load)
    }

    /// Runs one call: limited, counted, reported. The limit is for stores that
    /// do not end their calls themselves: what waits here for its turn is not
    /// the fault of its disk.
    async fn call<T>(
        &self,
        to: &Target,
        (kind, bytes): (CallKind, usize),
        limit: Duration,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let disk = to.disk;
        if self.is_fenced() {
            return Err(StoreError::Unreachable {
                why: "this gateway is fenced".into(),
            });
        }
        let _running = self.running(disk);
        let begun = Instant::now();
        let result = match to.store.ends_calls_in_time() {
            true => call.await,
            false => {
                let answer = tokio::time::timeout(limit, call).await;
                answer.unwrap_or(Err(StoreError::TimedOut(limit)))
            }
        };
        match &result {
            Ok(_) => {
                let took = begun.elapsed();
                self.disks
                    .report(disk, CallReport::Done { kind, took, bytes });
            }
            Err(error) => {
                if let StoreError::StaleEpoch { held } = error
                    && !self.fenced.swap(true, Ordering::Relaxed)
                {
                    error!(%disk, epoch = held.number, "another gateway has taken over");
                }
                self.disks.report(disk, CallReport::Failed(error));
            }
        }
        result
    }

    /// Repeats a call while its disk is busy, at most for so long, and once
    /// after the slot's generation was told.
    async fn insist<T, F>(
        &self,
        group: GroupId,
        patience: Duration,
        mut call: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let until = Instant::now() + patience;
        let mut pause = BUSY_PAUSE;
        let mut told = false;
        loop {
            match call().await {
                Err(StoreError::Busy) if Instant::now() + pause < until => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(BUSY_PAUSE_MOST);
                }
                Err(StoreError::StaleGeneration { held }) if !told => {
                    told = true;
                    if self.disks.stale_generation(group).await.is_err() {
                        return Err(StoreError::StaleGeneration { held });
                    }
                }
                result => return result,
            }
        }
    }

    /// [`ShardStore::open`].
    pub async fn open(
        &self,
        to: &Target,
        header: ShardHeader,
        shard_len: Option<u64>,
    ) -> Result<ShardHandle, StoreError> {
        let limit = self.settings.append_limit;
        self.insist(to.group, BUSY_PATIENCE, || async {
            let ctx = self.context(to);
            let opened = to.store.open(&ctx, header.clone(), shard_len);
            self.call(to, (CallKind::Write, 0), limit, opened).await
        })
        .await
    }

    /// [`ShardStore::append`].
    pub async fn append(
        &self,
        to: &Target,
        handle: ShardHandle,
        offset: u64,
        bytes: Bytes,
        crcs: &[u32],
    ) -> Result<(), StoreError> {
        let limit = self.settings.append_limit;
        self.insist(to.group, BUSY_PATIENCE, || async {
            let ctx = self.context(to);
            let appended = to.store.append(&ctx, handle, offset, bytes.clone(), crcs);
            self.call(to, (CallKind::Write, bytes.len()), limit, appended)
                .await
        })
        .await
    }

    /// [`ShardStore::finish`].
    pub async fn finish(
        &self,
        to: &Target,
        handle: ShardHandle,
        end: ShardEnd,
    ) -> Result<(), StoreError> {
        let limit = self.settings.sync_limit;
        self.insist(to.group, BUSY_PATIENCE, || async {
            let ctx = self.context(to);
            let finished = to.store.finish(&ctx, handle, end);
            self.call(to, (CallKind::Sync, 0), limit, finished).await
        })
        .await
    }

    /// [`ShardStore::put`].
    pub async fn put(&self, to: &Target, shard: SmallShard) -> Result<(), StoreError> {
        let limit = self.settings.sync_limit;
        self.insist(to.group, BUSY_PATIENCE, || async {
            let ctx = self.context(to);
            let put = to.store.put(&ctx, shard.clone());
            self.call(to, (CallKind::Sync, shard.bytes.len()), limit, put)
                .await
        })
        .await
    }

    /// [`ShardStore::abort`], once.
    pub async fn abort(&self, to: &Target, handle: ShardHandle) -> Result<(), StoreError> {
        let ctx = self.context(to);
        let aborted = to.store.abort(&ctx, handle);
        let limit = self.settings.append_limit;
        self.call(to, (CallKind::Write, 0), limit, aborted).await
    }

    /// [`ShardStore::read`]; a busy disk is asked again.
    pub async fn read(
        &self,
        to: &Target,
        key: ShardKey,
        offset: u64,
        len: u32,
    ) -> Result<ShardBytes, StoreError> {
        let limit = self.settings.read_limit;
        self.insist(to.group, limit, || {
            let read = to.store.read(key, offset, len);
            self.call(to, (CallKind::Read, len as usize), limit, read)
        })
        .await
    }

    /// [`ShardStore::stat`].
    pub async fn stat(&self, to: &Target, key: ShardKey) -> Result<ShardStat, StoreError> {
        let limit = self.settings.read_limit;
        self.insist(to.group, limit, || {
            // Not counted among the times of reads: it is not one of data.
            self.call(to, (CallKind::Write, 0), limit, to.store.stat(key))
        })
        .await
    }

    /// [`ShardStore::list`] behind a key.
    pub async fn list(
        &self,
        to: &Target,
        after: ShardKey,
        most: usize,
    ) -> Result<Vec<ListedShard>, StoreError> {
        let limit = self.settings.sync_limit;
        self.insist(to.group, limit, || {
            let listed = to.store.list(Some(after), most);
            self.call(to, (CallKind::Write, 0), limit, listed)
        })
        .await
    }

    /// [`ShardStore::put_notes`].
    pub async fn put_notes(&self, to: &Target, notes: &[BlobNote]) -> Result<(), StoreError> {
        let limit = self.settings.sync_limit;
        self.insist(to.group, BUSY_PATIENCE, || async {
            let ctx = self.context(to);
            let put = to.store.put_notes(&ctx, notes);
            self.call(to, (CallKind::Sync, 0), limit, put).await
        })
        .await
    }

    /// [`ShardStore::forget_notes`].
    pub async fn forget_notes(
        &self,
        to: &Target,
        blobs: &[(GroupId, BlobId)],
    ) -> Result<(), StoreError> {
        let ctx = self.context(to);
        let forgotten = to.store.forget_notes(&ctx, blobs);
        let limit = self.settings.sync_limit;
        self.call(to, (CallKind::Sync, 0), limit, forgotten).await
    }

    /// [`ShardStore::delete`].
    pub async fn delete(&self, to: &Target, keys: &[ShardKey]) -> Result<(), StoreError> {
        let ctx = self.context(to);
        let deleted = to.store.delete(&ctx, keys);
        let limit = self.settings.sync_limit;
        self.call(to, (CallKind::Sync, 0), limit, deleted).await
    }
}

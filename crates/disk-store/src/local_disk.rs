//! A disk of this process: the calls of [`ShardStore`], handed to the disk's
//! own threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_wire::check::check_cursor;
use shardgate_wire::ids::{BlobId, DiskId, GroupId};
use shardgate_wire::note::{BlobNote, NoteCursor, NotePage};
use shardgate_wire::store::{
    ListedShard, ShardBytes, ShardEnd, ShardHandle, ShardStat, SmallShard,
};
use shardgate_wire::{
    CallContext, CheckCursor, CheckPage, DamagedShard, DiskHealth, DiskIdentity, Purpose,
    ShardHeader, ShardKey, ShardStore, SlotAssignment, StoreError, bounds,
};
use tokio::sync::oneshot;

use crate::aligned::AlignedBuffer;
use crate::core::Core;
use crate::error::OpenError;
use crate::lanes::{Lane, PutCall};
use crate::opening::{self, Expected, NewDisk};
use crate::options::DiskOptions;
use crate::stream::ShardStream;
use crate::streaming::Held;
use crate::volume::ClosingTime;
use crate::window::{Window, WindowCursor};

/// A disk whose folder this process holds.
///
/// Dropped, it takes no calls any more and its threads end by themselves;
/// [`LocalDisk::close`] waits for them and for the folder's lock.
#[derive(Debug)]
pub struct LocalDisk {
    pub(crate) core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Whether closing has begun; held by whoever does it.
    closed: tokio::sync::Mutex<bool>,
}

impl LocalDisk {
    /// Makes a disk of an empty folder. Never done implicitly.
    ///
    /// # Errors
    /// [`OpenError`]; a folder that is not empty is left untouched.
    pub fn format(path: &Path, new: &NewDisk) -> Result<DiskIdentity, OpenError> {
        Self::format_for(path, new, &DiskOptions::default())
    }

    /// The same for a disk that will be opened with such options: who sets
    /// what is kept answers for its size.
    ///
    /// # Errors
    /// [`OpenError`]; a folder that is not empty is left untouched.
    pub fn format_for(
        path: &Path,
        new: &NewDisk,
        options: &DiskOptions,
    ) -> Result<DiskIdentity, OpenError> {
        opening::format(path, new, options)
    }

    /// Who the disk in a folder is, without opening it.
    ///
    /// # Errors
    /// [`OpenError`] where there is no whole disk.
    pub fn identify(path: &Path) -> Result<DiskIdentity, OpenError> {
        opening::identify(path)
    }

    /// Opens the disk in a folder and starts its threads. Blocks for as long
    /// as the disk takes to write two small records.
    ///
    /// A disk whose file system takes no writes opens, fenced.
    ///
    /// # Errors
    /// [`OpenError`]; then nothing was changed.
    pub fn open(path: &Path, expected: &Expected, options: DiskOptions) -> Result<Self, OpenError> {
        let core = opening::open(path, expected, options)?;
        core.read_scrub();
        let disk = Self {
            threads: Mutex::new(Vec::new()),
            closed: tokio::sync::Mutex::new(false),
            core,
        };
        disk.start().map_err(|_| OpenError::Io {
            path: path.to_owned(),
            what: "start threads",
            source: rustix::io::Errno::AGAIN,
        })?;
        Ok(disk)
    }

    fn start(&self) -> std::io::Result<()> {
        let short = format!("{:.8}", self.core.identity.disk.to_string());
        let mut threads = self.threads.lock();
        for _ in 0..self.core.figures.readers {
            let core = Arc::clone(&self.core);
            let builder = std::thread::Builder::new().name(format!("read-{short}"));
            threads.push(builder.spawn(move || core.lanes.read(&core))?);
        }
        for _ in 0..self.core.figures.threads {
            let core = Arc::clone(&self.core);
            let builder = std::thread::Builder::new().name(format!("disk-{short}"));
            threads.push(builder.spawn(move || core.lanes.work(&core))?);
        }
        let core = Arc::clone(&self.core);
        let builder = std::thread::Builder::new().name(format!("journal-{short}"));
        threads.push(builder.spawn(move || core.keep_journal())?);
        let core = Arc::clone(&self.core);
        let builder = std::thread::Builder::new().name(format!("watch-{short}"));
        threads.push(builder.spawn(move || core.watch())?);
        let core = Arc::clone(&self.core);
        let builder = std::thread::Builder::new().name(format!("tidy-{short}"));
        threads.push(builder.spawn(move || core.tidy())?);
        let core = Arc::clone(&self.core);
        let builder = std::thread::Builder::new().name(format!("scrub-{short}"));
        threads.push(builder.spawn(move || core.scrub())?);
        Ok(())
    }

    /// Who the disk is.
    pub fn identity(&self) -> DiskIdentity {
        self.core.identity
    }

    /// A caller in the disk's own name, of the epoch in force: for who checks
    /// a disk that no gateway uses.
    pub fn own_context(&self) -> CallContext {
        let (lineage, committed) = self.core.rules.told();
        CallContext {
            cluster: self.core.identity.cluster,
            epoch: self.core.rules.epoch(),
            lineage,
            committed,
            purpose: Purpose::Background,
        }
    }

    /// Ends: what waits is done, handles end, the last told commit number is
    /// saved, the folder is unlocked. Sealing volumes is bounded by
    /// [`DiskOptions::seal_within`]; a disk that hangs lets this hang: the
    /// caller gives it a time. A second call waits for the first and does
    /// nothing.
    pub async fn close(&self) {
        let since = Instant::now();
        let mut closed = self.closed.lock().await;
        // The log says how the disk was closed, and another may have its folder.
        if std::mem::replace(&mut *closed, true) {
            return;
        }
        self.core.lanes.close();
        self.core.journal.close();
        let threads = std::mem::take(&mut *self.threads.lock());
        let (done, done_all) = oneshot::channel();
        let core = Arc::clone(&self.core);
        std::thread::spawn(move || {
            for thread in threads {
                // A panic of a thread was reported where it happened.
                let _ = thread.join();
            }
            core.handles.end_all();
            core.make_marks_durable();
            // A failure fences the disk, which is said there; the next start
            // reads what was open.
            let settled = core.settled.load(Ordering::Relaxed);
            let time = ClosingTime::new(since, core.options.seal_within);
            let go_on = |step| time.is_left(step, Instant::now());
            let _ = core.volumes.close_in_time(settled, &go_on);
            let _ = core.rules.save_told(&core.condition);
            core.folder.unlock();
            drop(core);
            let _ = done.send(());
        });
        let _ = done_all.await;
    }

    /// Pieces of a group's shards in the order in which they lie on the disk,
    /// about `bytes` of them, verified; what is damaged is said to be. Reads
    /// what a stream keeps anew each time: see [`Self::stream`].
    ///
    /// # Errors
    /// The disk is lost or busy, or a directory or folder cannot be read.
    pub async fn window(&self, from: WindowCursor, bytes: u64) -> Result<Window, StoreError> {
        self.read_call(Lane::Background, move |core, buffer| {
            let window = core.window(from, bytes, &mut Held::default(), buffer);
            window.map_err(|unread| unread.error)
        })
        .await
    }

    /// Everything of a group from a place on ([`WindowCursor::start`]), in the
    /// order in which it lies, at most so fast.
    pub fn stream(&self, from: WindowCursor, bytes_per_second: u64) -> ShardStream {
        ShardStream::new(&self.core, from, bytes_per_second)
    }

    /// Runs a call on one of the disk's threads.
    async fn call<T: Send + 'static>(
        &self,
        lane: Lane,
        bytes: usize,
        run: impl FnOnce(&Arc<Core>, &mut AlignedBuffer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.core.lanes.submit(
            lane,
            bytes,
            Box::new(move |core, buffer| {
                // A caller that went away hears nothing.
                let _ = answer.send(run(core, buffer));
            }),
        )?;
        answered.await.map_err(|_| unanswered())?
    }

    /// The same for calls that only read: not run for a caller that left.
    async fn read_call<T: Send + 'static>(
        &self,
        lane: Lane,
        run: impl FnOnce(&Arc<Core>, &mut AlignedBuffer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.core.lanes.submit(
            lane,
            0,
            Box::new(move |core, buffer| {
                if !answer.is_closed() {
                    let _ = answer.send(run(core, buffer));
                }
            }),
        )?;
        answered.await.map_err(|_| unanswered())?
    }
}

impl Drop for LocalDisk {
    fn drop(&mut self) {
        self.core.lanes.close();
        self.core.journal.close();
    }
}

/// Copies that nobody waits for go behind those that somebody does.
fn lane_of(ctx: &CallContext) -> Lane {
    match ctx.purpose {
        Purpose::Background => Lane::Background,
        Purpose::Client | Purpose::Checkpoint => Lane::Foreground,
    }
}

/// A call that panicked.
fn unanswered() -> StoreError {
    StoreError::Io {
        what: "call".into(),
        why: "it ended without an answer".into(),
    }
}

#[async_trait]
impl ShardStore for LocalDisk {
    fn disk(&self) -> DiskId {
        self.core.identity.disk
    }

    async fn raise_epoch(&self, ctx: &CallContext) -> Result<(), StoreError> {
        let ctx = *ctx;
        let raise = move |core: &Arc<Core>, _: &mut AlignedBuffer| core.enter(&ctx).map(drop);
        self.call(Lane::Foreground, 0, raise).await
    }

    async fn assign(&self, ctx: &CallContext, slots: &[SlotAssignment]) -> Result<(), StoreError> {
        bounds::check_cluster(&self.core.identity, ctx)?;
        bounds::check_batch(slots.len())?;
        let (ctx, slots) = (*ctx, slots.to_vec());
        self.call(Lane::Foreground, 0, move |core, _| {
            // Assigning waits for all calls that are in, this one included.
            drop(core.enter(&ctx)?);
            core.rules.assign(&core.condition, &ctx, &slots)
        })
        .await
    }

    async fn open(
        &self,
        ctx: &CallContext,
        header: ShardHeader,
        shard_len: Option<u64>,
    ) -> Result<ShardHandle, StoreError> {
        let ctx = *ctx;
        self.call(lane_of(&ctx), 0, move |core, buffer| {
            core.open_shard(&ctx, header, shard_len, buffer)
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
        let (ctx, crcs) = (*ctx, crcs.to_vec());
        self.call(lane_of(&ctx), bytes.len(), move |core, buffer| {
            core.append_shard(&ctx, handle, offset, &bytes, &crcs, buffer)
        })
        .await
    }

    async fn finish(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        end: ShardEnd,
    ) -> Result<(), StoreError> {
        let ctx = *ctx;
        let finish =
            move |core: &Arc<Core>, _: &mut AlignedBuffer| core.finish_shard(&ctx, handle, end);
        self.call(lane_of(&ctx), 0, finish).await
    }

    async fn abort(&self, ctx: &CallContext, handle: ShardHandle) -> Result<(), StoreError> {
        let ctx = *ctx;
        let abort = move |core: &Arc<Core>, _: &mut AlignedBuffer| core.abort_shard(&ctx, handle);
        self.call(Lane::Background, 0, abort).await
    }

    async fn put(&self, ctx: &CallContext, shard: SmallShard) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.core.lanes.submit_put(PutCall {
            ctx: *ctx,
            shard,
            answer,
            since: Instant::now(),
        })?;
        answered.await.map_err(|_| unanswered())?
    }

    async fn read(&self, key: ShardKey, offset: u64, len: u32) -> Result<ShardBytes, StoreError> {
        self.read_call(Lane::Read, move |core, buffer| {
            core.read_shard(key, offset, len, buffer)
        })
        .await
    }

    async fn stat(&self, key: ShardKey) -> Result<ShardStat, StoreError> {
        self.read_call(Lane::Read, move |core, buffer| core.stat_shard(key, buffer))
            .await
    }

    async fn delete(&self, ctx: &CallContext, keys: &[ShardKey]) -> Result<(), StoreError> {
        bounds::check_cluster(&self.core.identity, ctx)?;
        bounds::check_batch(keys.len())?;
        let (ctx, keys) = (*ctx, keys.to_vec());
        self.call(Lane::Background, 0, move |core, _| {
            core.delete_shards(&ctx, &keys)
        })
        .await
    }

    async fn list(
        &self,
        after: Option<ShardKey>,
        limit: usize,
    ) -> Result<Vec<ListedShard>, StoreError> {
        self.read_call(Lane::Background, move |core, buffer| {
            core.list_shards(after, limit, buffer)
        })
        .await
    }

    async fn put_notes(&self, ctx: &CallContext, notes: &[BlobNote]) -> Result<(), StoreError> {
        bounds::check_cluster(&self.core.identity, ctx)?;
        bounds::check_notes(notes)?;
        let (ctx, notes) = (*ctx, notes.to_vec());
        self.call(Lane::Background, 0, move |core, _| {
            core.put_notes(&ctx, &notes)
        })
        .await
    }

    async fn forget_notes(
        &self,
        ctx: &CallContext,
        blobs: &[(GroupId, BlobId)],
    ) -> Result<(), StoreError> {
        bounds::check_cluster(&self.core.identity, ctx)?;
        bounds::check_batch(blobs.len())?;
        let (ctx, blobs) = (*ctx, blobs.to_vec());
        self.call(Lane::Background, 0, move |core, _| {
            core.forget_notes(&ctx, &blobs)
        })
        .await
    }

    async fn notes(&self, after: Option<NoteCursor>) -> Result<NotePage, StoreError> {
        self.read_call(Lane::Background, move |core, _| core.list_notes(after))
            .await
    }

    async fn slots(&self, after: Option<GroupId>) -> Result<Vec<SlotAssignment>, StoreError> {
        self.core.condition.check_present()?;
        Ok(self.core.rules.read().slots.page(after))
    }

    async fn damaged(&self) -> Result<Vec<DamagedShard>, StoreError> {
        self.read_call(Lane::Background, |core, _| core.tell_damaged())
            .await
    }

    async fn check(
        &self,
        ctx: &CallContext,
        from: Option<CheckCursor>,
        repair: bool,
    ) -> Result<CheckPage, StoreError> {
        check_cursor(from.as_ref())?;
        let ctx = *ctx;
        self.read_call(Lane::Background, move |core, _| {
            core.check_part(from.as_ref(), repair.then_some(&ctx))
        })
        .await
    }

    /// Never waits for the disk: a disk that hangs can still be asked.
    async fn health(&self) -> Result<DiskHealth, StoreError> {
        let core = &self.core;
        core.condition.check_present()?;
        let (p50_us, p99_us) = core.latency.quantiles();
        let space = core.space.last();
        Ok(DiskHealth {
            identity: core.identity,
            epoch: core.rules.epoch(),
            told: core.rules.told(),
            capacity_bytes: space.capacity,
            free_bytes: space.room.client_bytes,
            room: space.room,
            device: core.device,
            queued: u32::try_from(core.lanes.queued()).unwrap_or(u32::MAX),
            p50_us,
            p99_us,
            errors: core.condition.errors(),
            damaged: u32::try_from(core.damaged.len()).unwrap_or(u32::MAX),
            scrub: core.scrub.standing(),
            fenced: core.condition.fenced(),
        })
    }
}

//! Sends the blocks of one blob to their disks, up to the quorum.
//!
//! Owns [`BlobWriter`]: a lane per shard, the calls that are under way, the
//! tally. Invariants: what is outstanding is within the caller's permit; a
//! disk that is slow or dead holds the write up only as long as lateness
//! allows; a writer that is dropped before [`BlobWriter::published`] has its
//! handles aborted and its blob condemned. No task is spawned as long as the
//! write goes on: whoever holds the writer drives it.

mod lanes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use shardgate_catalog::WrittenBlob;
use shardgate_catalog::model::{BlobRef, GroupRow};
use shardgate_erasure::Layout;
use shardgate_wire::store::{ShardEnd, ShardHandle};
use shardgate_wire::{BlobLayout, ObjectRef, Purpose, ShardHeader, StoreError};
use tokio::time::Instant;

use super::abandon::Abandoned;
use super::budget::Permit;
use super::calls::Target;
use super::core::Core;
use super::error::ObjectError;
use super::in_flight::InFlightBlob;
use super::lane::{Lane, Queued};
use super::ports::{CallReport, GroupView};
use super::quorum::{ShardState, Tally, Verdict, late_after};
use super::stripe::CodedBlock;
use crate::placement::quorum::QuorumRule;

/// How long a shard may take to begin, whatever the others took: those that
/// were not begun yet are idle too, and tell nothing of how long that takes.
const BEGINNING: Duration = Duration::from_secs(1);

/// How a call of a lane ended.
pub(super) enum Ended {
    Opened(Result<ShardHandle, StoreError>),
    Appended(Result<(), StoreError>),
    /// Finished or put: durable.
    Stored(Result<(), StoreError>),
}

/// A call under way; gives its lane, how it ended, and in what time.
pub(super) type Call = BoxFuture<'static, (usize, Ended, Duration)>;

/// A block that is queued or under way, for `left` shards.
struct Outstanding {
    left: usize,
    bytes: u64,
}

/// See the module.
pub(super) struct BlobWriter {
    core: Arc<Core>,
    group: Arc<GroupView>,
    blob: BlobRef,
    header: ShardHeader,
    /// The blob is one stripe: its shards go by put.
    whole: bool,
    lanes: Vec<Lane>,
    calls: FuturesUnordered<Call>,
    blocks: HashMap<u64, Outstanding>,
    next_block: u64,
    outstanding: u64,
    tally: Tally,
    end: Option<(ShardEnd, Instant)>,
    /// Since when a quorum of lanes has nothing left to do.
    idle_since: Option<Instant>,
    no_space: bool,
    /// A disk was called for it.
    touched: bool,
    in_flight: Option<InFlightBlob>,
    /// The memory of what late calls still have.
    memory: Vec<Permit>,
    published: bool,
    manner: Manner,
}

/// On whose behalf a blob is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// A client waits: no disk that is late is waited for, and what is not
    /// published is condemned.
    Client,
    /// Nobody waits, and every shard is needed; the catalog knows the blob
    /// already, and whoever registered it sees to its end.
    Registered,
}

impl Manner {
    /// Whose space its shards may take.
    fn purpose(self) -> Purpose {
        match self {
            Self::Client => Purpose::Client,
            Self::Registered => Purpose::Checkpoint,
        }
    }
}

impl BlobWriter {
    /// Begins a blob of `len` bytes (`None`: not known) in a group. Slots
    /// whose disk is not living are not tried.
    ///
    /// # Errors
    /// The disks that live are no quorum.
    pub fn begin(
        core: &Arc<Core>,
        group: Arc<GroupView>,
        layout: Layout,
        len: Option<u64>,
        object: ObjectRef,
    ) -> Result<Self, ObjectError> {
        let blob = BlobRef {
            group: group.row.id,
            blob: core.new_blob(),
            layout: BlobLayout {
                data: layout.data(),
                parity: layout.parity(),
            },
            len: len.unwrap_or(0),
        };
        Self::begin_as(core, group, blob, (layout, len), object, Manner::Client)
    }

    /// As [`Self::begin`], for a blob that has its id already.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn begin_as(
        core: &Arc<Core>,
        group: Arc<GroupView>,
        blob: BlobRef,
        (layout, len): (Layout, Option<u64>),
        object: ObjectRef,
        manner: Manner,
    ) -> Result<Self, ObjectError> {
        let slots: Vec<u8> = (0..layout.shards())
            .map(|shard| group.slot(&blob, shard))
            .collect();
        let servers = slots.iter().map(|slot| group.servers[usize::from(*slot)]);
        let rule = QuorumRule::new(layout, servers.collect());
        let ctx = core.disks.context();
        let header = ShardHeader {
            cluster: ctx.cluster,
            lineage: ctx.lineage,
            epoch: ctx.epoch,
            key: group.key(&blob, 0),
            slot: 0,
            generation: group.row.generation,
            layout: blob.layout,
            blob_len: len,
            object,
        };
        let stripe = super::stripe::stripe_bytes(layout);
        let in_flight = core.in_flight.begin(blob.group, blob.blob);
        let mut writer = Self {
            core: Arc::clone(core),
            blob,
            header,
            whole: len.is_some_and(|len| len <= stripe),
            lanes: Vec::new(),
            calls: FuturesUnordered::new(),
            blocks: HashMap::new(),
            next_block: 0,
            outstanding: 0,
            tally: Tally::new(rule, slots.len()),
            end: None,
            idle_since: None,
            no_space: false,
            touched: false,
            in_flight: Some(in_flight),
            memory: Vec::new(),
            published: false,
            manner,
            group,
        };
        for (shard, slot) in slots.into_iter().enumerate() {
            let disk = writer.group.row.slots[usize::from(slot)];
            let living = core.disks.is_living(disk);
            let target = core.target(&writer.group, slot).filter(|_| living);
            let target = target.map(|target| Target {
                purpose: manner.purpose(),
                ..target
            });
            if target.is_none() {
                writer.tally.failed(shard);
            }
            writer.lanes.push(Lane::new(slot, target));
        }
        writer.check_reachable()?;
        for shard in 0..writer.lanes.len() {
            writer.proceed(shard);
        }
        Ok(writer)
    }

    /// Hands a block to its shards' lanes.
    pub fn send(&mut self, coded: CodedBlock) {
        let block = self.next_block;
        self.next_block += 1;
        let bytes = coded.bytes.len() as u64;
        let mut left = 0;
        for shard in coded.shards.map(usize::from) {
            let queued = Queued {
                block,
                offset: coded.offset,
                bytes: coded.bytes.clone(),
                crcs: Arc::clone(&coded.crcs),
            };
            left += usize::from(self.lanes[shard].push(queued));
            self.proceed(shard);
        }
        if left > 0 {
            // Whoever was done has work again, and so the others have not
            // kept it waiting yet.
            self.idle_since = None;
            self.outstanding += bytes;
            self.blocks.insert(block, Outstanding { left, bytes });
        }
    }

    /// Waits for the next call to end; for ever where none is under way.
    pub async fn event(&mut self) {
        match self.calls.next().await {
            Some((lane, ended, took)) => self.ended(lane, ended, took),
            None => std::future::pending().await,
        }
    }

    /// Whether anything is queued or under way.
    pub fn is_settled(&self) -> bool {
        self.outstanding == 0
    }

    /// Waits until `need` bytes fit into the permit beside what the coder
    /// holds and what is outstanding. The permit grows up to `most` while
    /// memory is plenty.
    ///
    /// # Errors
    /// The quorum is out of reach.
    pub async fn room_for(
        &mut self,
        (held, need): (u64, u64),
        permit: &mut Permit,
        most: u64,
    ) -> Result<(), ObjectError> {
        loop {
            self.check_reachable()?;
            let wanted = self.outstanding + held + need;
            if wanted <= permit.bytes() || self.outstanding == 0 {
                return Ok(());
            }
            // What a disk that was given up still has comes on top, and its
            // call may take long to end.
            let may_grow = wanted <= most && self.core.room().lets_writes_grow();
            if (may_grow || self.waits_for_late()) && permit.try_grow_to(wanted) {
                return Ok(());
            }
            self.progress_or_give_up().await;
        }
    }

    /// Waits for a call to end; gives up the lanes that keep a quorum of
    /// others waiting for too long.
    async fn progress_or_give_up(&mut self) {
        let idle: Vec<bool> = self.lanes.iter().map(Lane::is_idle).collect();
        if self.manner == Manner::Registered || !self.tally.would_do(&idle) {
            self.idle_since = None;
            return self.event().await;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        let idle = self.lanes.iter().filter(|lane| lane.is_idle());
        let took = idle.map(|lane| lane.last_took).max().unwrap_or_default();
        let late = match self.lanes.iter().any(Lane::is_beginning) {
            true => late_after(took.max(BEGINNING)),
            false => late_after(took),
        };
        let late = since + late;
        if tokio::time::timeout_at(late, self.event()).await.is_err() {
            for shard in 0..self.lanes.len() {
                if self.lanes[shard].is_busy() && !self.lanes[shard].is_over() {
                    self.late(shard);
                }
            }
            self.idle_since = None;
        }
    }

    /// Ends all shards and waits: for all, or for the quorum and no longer
    /// than lateness allows.
    ///
    /// # Errors
    /// The quorum was not reached.
    pub async fn finish(&mut self, end: ShardEnd) -> Result<(), ObjectError> {
        let begun = self.end_shards(end);
        loop {
            match self.tally.verdict(begun.elapsed()) {
                Verdict::Commit => break,
                Verdict::Lost => return Err(self.lost()),
                Verdict::Wait => {
                    assert!(!self.calls.is_empty(), "a pending shard has a call");
                    self.event().await;
                }
                Verdict::WaitUntil(at) => {
                    // Past it, the verdict is to commit.
                    let _past = tokio::time::timeout_at(begun + at, self.event()).await;
                }
            }
        }
        for shard in 0..self.lanes.len() {
            if self.tally.state(shard) == ShardState::Pending {
                // Not ended: it may well become durable, and is looked for
                // when lists are compared.
                self.core.metrics.shards_late.one();
                if let Some(target) = &self.lanes[shard].target {
                    self.core.disks.report(target.disk, CallReport::Late);
                }
            }
        }
        Ok(())
    }

    /// Ends all shards and waits for all of them, however long their disks
    /// take within the limits of their calls.
    ///
    /// # Errors
    /// One of them is not durable.
    pub async fn finish_all(&mut self, end: ShardEnd) -> Result<(), ObjectError> {
        self.end_shards(end);
        while !self.calls.is_empty() {
            self.event().await;
        }
        match self.tally.missing().next() {
            None => Ok(()),
            Some(_) => Err(self.lost()),
        }
    }

    fn end_shards(&mut self, end: ShardEnd) -> Instant {
        let begun = Instant::now();
        self.end = Some((end, begun));
        self.blob.len = end.blob_len;
        for shard in 0..self.lanes.len() {
            self.proceed(shard);
        }
        begun
    }

    /// Keeps the memory of a write that was answered by its quorum for as long
    /// as late calls have some of it. `whole`: shards are slices of the body,
    /// and one keeps all of it.
    pub fn keep(&mut self, mut permit: Permit, whole: bool) {
        if self.calls.is_empty() {
            return;
        }
        if !whole {
            permit.shrink_to(self.outstanding);
        }
        self.memory.push(permit);
    }

    /// What a commit says of the blob.
    pub fn written(&self) -> WrittenBlob {
        let lanes = &self.lanes;
        let lowest = self.in_flight.as_ref().map(InFlightBlob::lowest);
        WrittenBlob {
            blob: self.blob,
            generation: self.header.generation,
            owed_slots: self
                .tally
                .missing()
                .map(|shard| lanes[shard].slot)
                .collect(),
            lowest_in_flight: lowest.unwrap_or(self.blob.blob),
        }
    }

    /// The group has another record by now: shards count only on the disks
    /// that it names. Whether they are a quorum still.
    pub fn moved_to(&mut self, current: &GroupRow) -> bool {
        for (shard, lane) in self.lanes.iter().enumerate() {
            let disk = self.group.row.slots[usize::from(lane.slot)];
            if current.slots.get(usize::from(lane.slot)) != Some(&disk) {
                self.tally.failed(shard);
            }
        }
        self.header.generation = current.generation;
        matches!(self.tally.verdict(Duration::MAX), Verdict::Commit)
    }

    /// The blob is published, or may be: nothing of it is removed. Calls to
    /// late disks go on by themselves, within their limits.
    pub fn published(&mut self) {
        self.published = true;
        let owed = self.tally.missing().count() as u64;
        self.core.metrics.blobs_written.one();
        self.core.metrics.shards_owed.add(owed);
        let mut calls = std::mem::take(&mut self.calls);
        let memory = std::mem::take(&mut self.memory);
        if !calls.is_empty() {
            let rest = async move {
                while calls.next().await.is_some() {}
                drop(memory);
            };
            self.core.tracker.spawn(rest);
        }
    }

    /// Whether a lane that was given up has a call under way.
    fn waits_for_late(&self) -> bool {
        self.lanes
            .iter()
            .any(|lane| lane.is_over() && lane.is_busy())
    }

    fn check_reachable(&self) -> Result<(), ObjectError> {
        match self.tally.reachable() {
            true => Ok(()),
            false => Err(self.lost()),
        }
    }

    /// Whether a shard will not be durable.
    pub fn has_failed(&self) -> bool {
        let mut shards = 0..self.lanes.len();
        shards.any(|shard| self.tally.state(shard) == ShardState::Failed)
    }

    /// Why the write is given up.
    pub fn lost(&self) -> ObjectError {
        self.core.metrics.quorums_lost.one();
        let (acked, needed) = self.tally.counts();
        match (self.core.calls.is_fenced(), self.no_space) {
            (true, _) => ObjectError::Fenced,
            (_, true) => ObjectError::NoSpace,
            _ => ObjectError::QuorumLost { acked, needed },
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.published || !self.touched {
            return;
        }
        let open = self.lanes.iter().filter_map(|lane| {
            let handle = lane.handle()?;
            Some((lane.target.clone()?, handle))
        });
        let abandoned = Abandoned {
            blob: self.blob,
            open: open.collect(),
            targets: self.lanes.iter().map(|lane| lane.target.clone()).collect(),
            calls: std::mem::take(&mut self.calls),
            memory: std::mem::take(&mut self.memory),
            in_flight: self.in_flight.take(),
            condemn: self.manner == Manner::Client,
        };
        abandoned.clear_away(&self.core);
    }
}

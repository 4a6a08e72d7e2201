//! Fetches the bytes of one blob from its shards.
//!
//! Owns [`BlobReader`]: reading a step of the plan directly, racing a late
//! shard, and decoding what is missing or corrupt from any k' of the rest.
//! Invariant: what it gives was checked against the checksum of its block, or
//! was decoded from blocks that were; too few of them are an error, never
//! other bytes.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use shardgate_catalog::model::BlobRef;
use shardgate_erasure::{Codec, Geometry, Layout};
use shardgate_wire::StoreError;
use shardgate_wire::checksum::first_bad_block;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::core::Core;
use super::error::ObjectError;
use super::plan::{Standing, Standings, Step, decode_order, next_step};
use super::ports::{CallReport, GroupView, layout_of};
use super::repairs::Repair;

/// Reads one blob. Shared by the fetches of one request.
pub(super) struct BlobReader {
    core: Arc<Core>,
    group: Arc<GroupView>,
    blob: BlobRef,
    geometry: Geometry,
    codec: Codec,
    standings: Mutex<Standings>,
}

impl BlobReader {
    /// A reader of a blob in its group.
    ///
    /// # Errors
    /// The blob's record is damaged.
    pub fn new(
        core: &Arc<Core>,
        group: Arc<GroupView>,
        blob: BlobRef,
    ) -> Result<Self, ObjectError> {
        let layout = layout_of(&blob)?;
        let damaged = |why: String| ObjectError::Damaged { why };
        if group.row.slots.len() < usize::from(layout.shards()) {
            return Err(damaged(format!(
                "blob {} of {layout} in group {} of {} slots",
                blob.blob,
                group.row.id,
                group.row.slots.len()
            )));
        }
        let geometry =
            Geometry::new(layout, blob.len).map_err(|error| damaged(error.to_string()))?;
        let mut standings = Standings::default();
        for shard in 0..layout.shards() {
            if !core.disks.is_living(group.disk(&blob, shard)) {
                standings.worsen(shard, Standing::Avoid);
            }
        }
        Ok(Self {
            codec: core.codec(layout),
            core: Arc::clone(core),
            group,
            blob,
            geometry,
            standings: Mutex::new(standings),
        })
    }

    /// Bytes of the blob in a full stripe, and whether a data shard is known
    /// to be bad, so that whole stripes are worth decoding.
    pub fn decodes_stripes_of(&self) -> Option<u64> {
        let standings = *self.standings.lock();
        let layout = self.geometry.layout();
        let bad = (0..layout.data()).any(|shard| standings.of(shard) != Standing::Good);
        (bad && !layout.is_copies()).then(|| super::stripe::stripe_bytes(layout))
    }

    /// The next step of reading `range`, of at most `most` bytes.
    pub fn next_step(&self, range: Range<u64>, most: u64) -> Option<Step> {
        let standings = *self.standings.lock();
        next_step(&self.geometry, range, &standings, most)
    }

    /// Does one step; gives its bytes in order.
    ///
    /// # Errors
    /// Too few shards have them.
    pub async fn run(self: Arc<Self>, step: Step) -> Result<Vec<Bytes>, ObjectError> {
        match step {
            Step::Direct { shard, within } => {
                let column = self.geometry.check_range(within.clone());
                let block = match self.geometry.layout().is_copies() {
                    true => self.gather(&column, None).await?.swap_remove(0).1,
                    false => self.direct(shard, &column).await?,
                };
                Ok(vec![cut(&block, &column, &within)])
            }
            Step::Decode { column, pieces } => {
                let wanted: Vec<u8> = pieces.iter().map(|(shard, _)| *shard).collect();
                let blocks = self.decode(&column, &wanted, None).await?;
                let blocks = blocks.iter().zip(&pieces);
                Ok(blocks
                    .map(|(block, (_, within))| cut(block, &column, within))
                    .collect())
            }
        }
    }

    /// A column of one data shard: read, raced when late, decoded when that
    /// fails.
    async fn direct(&self, shard: u8, column: &Range<u64>) -> Result<Bytes, ObjectError> {
        let read = self.read_shard(shard, column);
        tokio::pin!(read);
        let bytes = (column.end - column.start) as usize;
        let delay = self.core.disks.hedge_delay(self.group.row.medium, bytes);
        match tokio::time::timeout(delay, &mut read).await {
            Ok(Some(block)) => return Ok(block),
            Ok(None) => return self.decode_one(shard, column).await,
            Err(_late) => {}
        }
        let sources = usize::from(self.geometry.layout().data());
        if self.geometry.layout().parity() == 0 || !self.core.hedges.take(sources) {
            return match read.await {
                Some(block) => Ok(block),
                None => self.decode_one(shard, column).await,
            };
        }
        self.core.metrics.hedges.add(sources as u64);
        let race = self.decode_one(shard, column);
        tokio::pin!(race);
        tokio::select! {
            biased;
            answer = &mut read => match answer {
                Some(block) => Ok(block),
                None => race.await,
            },
            decoded = &mut race => match decoded {
                Ok(block) => {
                    self.late(shard);
                    Ok(block)
                }
                Err(error) => read.await.ok_or(error),
            },
        }
    }

    /// How it is cut.
    pub fn layout(&self) -> Layout {
        self.geometry.layout()
    }

    /// Bytes of each of its shards.
    pub fn shard_len(&self) -> u64 {
        self.geometry.shard_len()
    }

    /// A column of one shard, data or parity, from the others.
    ///
    /// # Errors
    /// Too few of them have it.
    pub async fn decode_one(&self, shard: u8, column: &Range<u64>) -> Result<Bytes, ObjectError> {
        let mut blocks = self.decode(column, &[shard], Some(shard)).await?;
        Ok(blocks.swap_remove(0))
    }

    /// Columns of the shards `wanted`, from any k' shards but `without`.
    async fn decode(
        &self,
        column: &Range<u64>,
        wanted: &[u8],
        without: Option<u8>,
    ) -> Result<Vec<Bytes>, ObjectError> {
        let len = (column.end - column.start) as usize;
        let sources = u64::from(self.geometry.layout().data());
        let held = self.core.decode_budget.admit(sources * len as u64).await;
        let _held = held.map_err(|_slow_down| {
            self.core.metrics.slow_downs.one();
            ObjectError::SlowDown
        })?;
        let present = self.gather(column, without).await?;
        let read = |shard: u8| present.iter().find(|(source, _)| *source == shard);
        let lost: Vec<u8> = wanted
            .iter()
            .copied()
            .filter(|shard| read(*shard).is_none())
            .collect();
        let mut decoded = Vec::with_capacity(lost.len());
        if !lost.is_empty() {
            self.core.metrics.decodes.one();
            for shard in lost {
                let mut block = self.core.blocks.take(len);
                block.resize(len);
                decoded.push((shard, block));
            }
            let coded = self.codec.reconstruct(&present, &mut decoded);
            coded.map_err(|error| self.unreadable(&error.to_string()))?;
        }
        let mut decoded = decoded.into_iter().map(|(_, block)| block.freeze());
        wanted
            .iter()
            .map(|shard| match read(*shard) {
                Some((_, block)) => Ok(block.clone()),
                None => decoded
                    .next()
                    .ok_or_else(|| self.unreadable("a block was not decoded")),
            })
            .collect()
    }

    /// The same column of any k' shards but `without`: the best ones first,
    /// others for those that fail, one more for those that are late.
    async fn gather(
        &self,
        column: &Range<u64>,
        without: Option<u8>,
    ) -> Result<Vec<(u8, Bytes)>, ObjectError> {
        let needed = usize::from(self.geometry.layout().data());
        let mut order = self.order(without).into_iter();
        let mut reads = FuturesUnordered::new();
        let read = |shard: u8| async move { (shard, self.read_shard(shard, column).await) };
        let mut waited: Vec<u8> = order.by_ref().take(needed).collect();
        reads.extend(waited.iter().map(|shard| read(*shard)));
        let bytes = (column.end - column.start) as usize;
        let delay = self.core.disks.hedge_delay(self.group.row.medium, bytes);
        let mut late_at = Instant::now() + delay;
        let mut found = Vec::with_capacity(needed);
        let mut raced = false;
        while found.len() < needed {
            let more = found.len() + reads.len() < needed;
            if more {
                let Some(shard) = order.next() else { break };
                waited.push(shard);
                reads.push(read(shard));
                continue;
            }
            tokio::select! {
                biased;
                Some((shard, block)) = reads.next() => {
                    waited.retain(|waiting| *waiting != shard);
                    found.extend(block.map(|block| (shard, block)));
                }
                () = sleep_until(late_at), if order.len() > 0 => {
                    late_at = Instant::now() + delay.max(super::quorum::LATE_AFTER_LEAST);
                    if self.core.hedges.take(1)
                        && let Some(shard) = order.next()
                    {
                        self.core.metrics.hedges.one();
                        raced = true;
                        waited.push(shard);
                        reads.push(read(shard));
                    }
                }
            }
        }
        drop(reads);
        if found.len() < needed {
            return Err(self.unreadable(&format!("{} of {needed} shards", found.len())));
        }
        if raced {
            waited.into_iter().for_each(|shard| self.late(shard));
        }
        Ok(found)
    }

    /// In which order shards are asked. Copies: the least loaded disk first.
    fn order(&self, without: Option<u8>) -> Vec<u8> {
        let standings = *self.standings.lock();
        let mut order = decode_order(&self.geometry, &standings);
        order.retain(|shard| Some(*shard) != without);
        if self.geometry.layout().is_copies() {
            let load = |shard: u8| self.core.calls.load(self.group.disk(&self.blob, shard));
            // Stable: shard 0 lies on another slot for every blob.
            order.sort_by_key(|shard| (standings.of(*shard), load(*shard)));
        }
        order
    }

    /// A column of one shard, checked. `None`: it does not have it, which is
    /// noted.
    async fn read_shard(&self, shard: u8, column: &Range<u64>) -> Option<Bytes> {
        let slot = self.group.slot(&self.blob, shard);
        let Some(target) = self.core.target(&self.group, slot) else {
            self.note(shard, Standing::Gone);
            return None;
        };
        self.core.metrics.shard_reads.one();
        self.core.hedges.read();
        let key = self.group.key(&self.blob, shard);
        let len = (column.end - column.start) as u32;
        let read = self.core.calls.read(&target, key, column.start, len).await;
        let error = match read {
            Ok(read) if read.bytes.len() != len as usize => StoreError::Corrupt {
                what: format!("{} bytes of {len}", read.bytes.len()),
            },
            Ok(read) => match first_bad_block(&read.bytes, &read.crcs) {
                None => return Some(read.bytes),
                Some(block) => StoreError::Corrupt {
                    what: format!("block {block} at {}", column.start),
                },
            },
            Err(error) => error,
        };
        self.failed(shard, &error);
        None
    }

    fn failed(&self, shard: u8, error: &StoreError) {
        let disk = self.group.disk(&self.blob, shard);
        let (blob, group) = (self.blob.blob, self.blob.group);
        warn!(%disk, %group, %blob, shard, %error, "shard read failed");
        let metrics = &self.core.metrics;
        match error {
            StoreError::NotFound => {
                metrics.shards_missing.one();
                self.note(shard, Standing::Gone);
                let blob = self.blob;
                self.core.repairs.add(Repair { blob, shard });
            }
            // Its disk keeps it in mind by itself.
            StoreError::Corrupt { .. } => {
                metrics.shards_corrupt.one();
                self.note(shard, Standing::Damaged);
            }
            _ => {
                metrics.shard_reads_failed.one();
                self.note(shard, Standing::Gone);
            }
        }
    }

    fn late(&self, shard: u8) {
        let disk = self.group.disk(&self.blob, shard);
        self.core.disks.report(disk, CallReport::Late);
        self.note(shard, Standing::Avoid);
    }

    fn note(&self, shard: u8, standing: Standing) {
        self.standings.lock().worsen(shard, standing);
    }

    fn unreadable(&self, what: &str) -> ObjectError {
        self.core.metrics.unreadable.one();
        let why = format!(
            "blob {} in group {}: {what}",
            self.blob.blob, self.blob.group
        );
        warn!(%why, "unreadable");
        ObjectError::Unreadable { why }
    }
}

/// The bytes `within` of a block that begins where `column` does.
fn cut(block: &Bytes, column: &Range<u64>, within: &Range<u64>) -> Bytes {
    let start = (within.start - column.start) as usize;
    let end = (within.end - column.start) as usize;
    block.slice(start..end)
}

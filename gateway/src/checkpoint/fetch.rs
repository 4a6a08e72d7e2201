//! Reads a file of a checkpoint from the disks themselves: no catalog, no
//! group record, nothing but the blob's id and layout (PROTOCOL.md 4).
//!
//! Invariant: no byte is handed on that was not checked against its block's
//! checksum here; what one shard does not give is computed from any k' others.
//! Where shards are said to lie is asked first; then every disk. A disk that
//! did not answer in time is left alone from then on, unless the others do not
//! do.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use shardgate_catalog::checkpoint::{ContentHash, StoredFile};
use shardgate_erasure::{Codec, Geometry, Layout, Stripe};
use shardgate_wire::checksum::first_bad_block;
use shardgate_wire::store::ShardStat;
use shardgate_wire::{DiskId, ShardKey, ShardStore, StoreError};
use thiserror::Error;
use tokio::time::timeout;

/// Why a file is not read.
#[derive(Debug, Error)]
pub enum FetchError {
    /// Too few disks have whole shards of it.
    #[error(
        "blob {blob}: {found} of the {needed} shards that are needed can be read, of {disks} disks \
         asked"
    )]
    TooFew {
        /// Its blob.
        blob: shardgate_wire::BlobId,
        /// So many.
        found: usize,
        /// Of so many that are needed.
        needed: usize,
        /// Disks that were asked.
        disks: usize,
    },
    /// What was read is not the file.
    #[error("blob {blob}: {what}")]
    Other {
        /// Its blob.
        blob: shardgate_wire::BlobId,
        /// What does not match.
        what: String,
    },
    /// The bytes could not be put where they belong.
    #[error(transparent)]
    Sink(#[from] std::io::Error),
}

/// The disks that are asked. Cheap to clone.
#[derive(Clone)]
pub struct PoolFiles {
    disks: Arc<[Arc<dyn ShardStore>]>,
    within: Duration,
    /// Those that did not answer in time once.
    late: Arc<Mutex<HashSet<DiskId>>>,
}

/// Where the bytes of a file go, in order.
pub type Sink<'s> = &'s mut (dyn FnMut(&[u8]) -> std::io::Result<()> + Send);

impl PoolFiles {
    /// These disks, each of which may take so long for one call.
    pub fn new(disks: Vec<Arc<dyn ShardStore>>, within: Duration) -> Self {
        Self {
            disks: disks.into(),
            within,
            late: Arc::default(),
        }
    }

    /// Reads a file to its end and checks that it is the one of this hash.
    ///
    /// # Errors
    /// [`FetchError`]; the sink may have got bytes by then.
    pub async fn read(
        &self,
        file: &StoredFile,
        hash: ContentHash,
        sink: Sink<'_>,
    ) -> Result<(), FetchError> {
        let blob = file.blob.blob;
        let other = |what: String| FetchError::Other { blob, what };
        let layout = Layout::new(file.blob.layout.data, file.blob.layout.parity);
        let layout = layout.map_err(|error| other(error.to_string()))?;
        let geometry = Geometry::new(layout, file.blob.len);
        let geometry = geometry.map_err(|error| other(error.to_string()))?;
        let mut reading = Reading {
            holders: self.holders(file, layout).await,
            codec: Codec::new(layout),
            geometry,
            file,
            disks: self,
        };
        let mut hashed = Sha256::new();
        for index in 0..geometry.stripes() {
            let stripe = geometry.stripe(index).expect("it is below their number");
            for block in reading.stripe(&stripe).await? {
                hashed.update(&block);
                sink(&block)?;
            }
        }
        match ContentHash(hashed.finalize().into()) == hash {
            true => Ok(()),
            false => Err(other("its content is not what its name says".to_owned())),
        }
    }

    /// As [`Self::read`], into memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_whole(
        &self,
        file: &StoredFile,
        hash: ContentHash,
    ) -> Result<Vec<u8>, FetchError> {
        let mut bytes = Vec::new();
        let mut sink = |more: &[u8]| {
            bytes.extend_from_slice(more);
            Ok(())
        };
        self.read(file, hash, &mut sink).await?;
        Ok(bytes)
    }

    /// How many shards of a file are whole by what their heads and ends say,
    /// wherever they lie, and how many there should be.
    pub async fn count(&self, file: &StoredFile) -> (usize, usize) {
        let layout = file.blob.layout;
        let Ok(layout) = Layout::new(layout.data, layout.parity) else {
            return (0, 0);
        };
        let found = self.holders(file, layout).await;
        let there = found.iter().filter(|holder| holder.is_some()).count();
        (there, found.len())
    }

    /// The disk of each shard.
    async fn holders(&self, file: &StoredFile, layout: Layout) -> Vec<Option<Holder>> {
        let late = self.late.lock().clone();
        let punctual = |disk: &&Arc<dyn ShardStore>| !late.contains(&disk.disk());
        let punctual: Vec<_> = self.disks.iter().filter(punctual).collect();
        let found = self.holders_among(&punctual, file, layout).await;
        let there = found.iter().flatten().count();
        match there < layout.data().into() && punctual.len() < self.disks.len() {
            // It takes as long as it takes then.
            true => {
                let all: Vec<_> = self.disks.iter().collect();
                self.holders_among(&all, file, layout).await
            }
            false => found,
        }
    }

    async fn holders_among(
        &self,
        disks: &[&Arc<dyn ShardStore>],
        file: &StoredFile,
        layout: Layout,
    ) -> Vec<Option<Holder>> {
        let shards = (0..layout.shards()).map(|shard| async move {
            let said = file.disks.get(usize::from(shard));
            let said = said.and_then(|said| disks.iter().find(|of| of.disk() == *said));
            if let Some(disk) = said
                && self.has(disk, file, shard).await
            {
                return Some(Holder::of(disk));
            }
            let asked = disks.iter().map(|disk| async move {
                let has = self.has(disk, file, shard).await;
                has.then(|| Holder::of(disk))
            });
            join_all(asked).await.into_iter().flatten().next()
        });
        join_all(shards).await
    }

    fn is_late(&self, disk: DiskId) -> bool {
        self.late.lock().contains(&disk)
    }

    fn note_late(&self, disk: DiskId) {
        if self.late.lock().insert(disk) {
            tracing::warn!(%disk, within = ?self.within, "no answer: the others are asked from now on");
        }
    }

    /// Whether a disk has a shard, as far as its head and its end say.
    async fn has(&self, disk: &Arc<dyn ShardStore>, file: &StoredFile, shard: u8) -> bool {
        let stat = timeout(self.within, disk.stat(key(file, shard))).await;
        match stat {
            Ok(Ok(stat)) => is_whole(&stat, file, shard),
            Ok(Err(StoreError::NotFound)) => false,
            Ok(Err(error)) => {
                let (disk, blob) = (disk.disk(), file.blob.blob);
                tracing::warn!(%disk, %blob, shard, %error, "no shard there");
                false
            }
            Err(_) => {
                self.note_late(disk.disk());
                false
            }
        }
    }
}

fn key(file: &StoredFile, shard: u8) -> ShardKey {
    ShardKey {
        group: file.blob.group,
        blob: file.blob.blob,
        index: shard,
    }
}

/// Whether a shard's head and end are those of a file's.
pub fn is_whole(stat: &ShardStat, file: &StoredFile, shard: u8) -> bool {
    stat.header.key == key(file, shard)
        && stat.header.layout == file.blob.layout
        && stat.end.is_some_and(|end| end.blob_len == file.blob.len)
}

struct Holder {
    disk: Arc<dyn ShardStore>,
    /// A block of it could not be read: others first.
    failed: bool,
}

impl Holder {
    fn of(disk: &Arc<dyn ShardStore>) -> Self {
        Self {
            disk: Arc::clone(disk),
            failed: false,
        }
    }
}

struct Reading<'a> {
    holders: Vec<Option<Holder>>,
    codec: Codec,
    geometry: Geometry,
    file: &'a StoredFile,
    disks: &'a PoolFiles,
}

impl Reading<'_> {
    /// The bytes of a stripe, in order.
    async fn stripe(&mut self, stripe: &Stripe) -> Result<Vec<Bytes>, FetchError> {
        let layout = self.geometry.layout();
        let present = self.gather(stripe).await?;
        let read = |shard: u8| present.iter().find(|(of, _)| *of == shard);
        let lost = (0..layout.data()).filter(|shard| read(*shard).is_none());
        let block = vec![0; stripe.block_len as usize];
        let mut decoded: Vec<(u8, Vec<u8>)> = lost.map(|shard| (shard, block.clone())).collect();
        if !decoded.is_empty() {
            let coded = self.codec.reconstruct(&present, &mut decoded);
            coded.map_err(|error| FetchError::Other {
                blob: self.file.blob.blob,
                what: error.to_string(),
            })?;
        }
        let mut decoded = decoded.into_iter().map(|(_, block)| Bytes::from(block));
        let mut blocks = Vec::with_capacity(layout.data().into());
        for shard in 0..layout.data() {
            let block = match read(shard) {
                Some((_, block)) => block.clone(),
                None => decoded.next().expect("each that was not read was decoded"),
            };
            let Range { start, end } = stripe.block_range(shard);
            blocks.push(block.slice(..(end - start) as usize));
        }
        Ok(blocks)
    }

    /// The blocks of a stripe of any k' shards: data first, those that failed
    /// before last.
    async fn gather(&mut self, stripe: &Stripe) -> Result<Vec<(u8, Bytes)>, FetchError> {
        let needed = usize::from(self.geometry.layout().data());
        let mut order: Vec<u8> = (0..self.geometry.layout().shards())
            .filter(|shard| self.holders[usize::from(*shard)].is_some())
            .collect();
        order.sort_by_key(|shard| {
            let holder = &self.holders[usize::from(*shard)];
            let bad = |of: &Holder| of.failed || self.disks.is_late(of.disk.disk());
            (holder.as_ref().is_some_and(bad), *shard)
        });
        let mut order = order.into_iter();
        let mut found = Vec::with_capacity(needed);
        loop {
            let next: Vec<u8> = order.by_ref().take(needed - found.len()).collect();
            if next.is_empty() {
                break;
            }
            let reads = next.iter().map(|shard| self.block(*shard, stripe));
            for (shard, block) in next.iter().zip(join_all(reads).await) {
                match block {
                    Some(block) => found.push((*shard, block)),
                    None => self.failed(*shard),
                }
            }
        }
        if found.len() < needed {
            return Err(FetchError::TooFew {
                blob: self.file.blob.blob,
                found: found.len(),
                needed,
                disks: self.disks.disks.len(),
            });
        }
        Ok(found)
    }

    fn failed(&mut self, shard: u8) {
        if let Some(holder) = &mut self.holders[usize::from(shard)] {
            holder.failed = true;
        }
    }

    /// A block of one shard, checked.
    async fn block(&self, shard: u8, stripe: &Stripe) -> Option<Bytes> {
        let holder = self.holders[usize::from(shard)].as_ref()?;
        let len = stripe.block_len as u32;
        let read = holder
            .disk
            .read(key(self.file, shard), stripe.shard_offset, len);
        let why = match timeout(self.disks.within, read).await {
            Ok(Ok(read)) if read.bytes.len() != len as usize => "too short".to_owned(),
            Ok(Ok(read)) => match first_bad_block(&read.bytes, &read.crcs) {
                None => return Some(read.bytes),
                Some(block) => format!("block {block} does not match its checksum"),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                self.disks.note_late(holder.disk.disk());
                "no answer in time".to_owned()
            }
        };
        let (disk, blob): (DiskId, _) = (holder.disk.disk(), self.file.blob.blob);
        tracing::warn!(%disk, %blob, shard, at = stripe.shard_offset, why, "shard is read elsewhere");
        None
    }
}

//! Takes one checkpoint: from the local database to files in the pool that
//! were read back (PROTOCOL.md 4).
//!
//! Invariants: a blob is registered by a commit before its first byte is
//! sent, and marked stored when all its shards are durable and it was read
//! back whole; what is used again was asked for, shard by shard. A checkpoint
//! that fails leaves blobs that the next attempt uses, or condemns before it
//! sends anything.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shardgate_catalog::checkpoint::{
    CheckpointFile, CheckpointRoot, ContentHash, FileContent, MAX_MANIFEST_BYTES, Manifest,
    ManifestFile, StoredFile,
};
use shardgate_catalog::engine::EngineError;
use shardgate_catalog::engine::log::ChainPosition;
use shardgate_catalog::model::BlobRef;
use shardgate_catalog::{Catalog, CatalogError};
use shardgate_wire::BlobId;
use thiserror::Error;

use super::due::Health;
use super::fetch::{FetchError, PoolFiles};
use super::local::{LocalDatabase, LocalFile, blocking};
use super::source::{of_bytes, of_file};
use super::verify::{is_inline, reusable, stale};
use crate::object::error::ObjectError;
use crate::object::keep::Kept;
use crate::object::rebuild::Turns;
use crate::object::{BodyStream, ObjectService};
use crate::pool::{Pool, Standing};
use crate::seam::Clock;

/// How often a file is sent before the checkpoint is given up.
const SENDINGS: usize = 3;
/// How long one disk may take to tell or give a shard.
const ANSWER: Duration = Duration::from_secs(20);

/// Why no checkpoint was taken.
#[derive(Debug, Error)]
pub enum TakeError {
    /// The local database.
    #[error("local files: {0}")]
    Engine(#[from] EngineError),
    /// The local folder.
    #[error("local files: {0}")]
    Local(#[from] io::Error),
    /// The catalog.
    #[error("catalog: {0}")]
    Catalog(#[from] CatalogError),
    /// A file could not be stored whole.
    #[error("store a file: {0}")]
    Store(#[from] ObjectError),
    /// What was stored could not be read back.
    #[error("read back: {0}")]
    Fetch(#[from] FetchError),
    /// No restore would read so long a manifest.
    #[error("a manifest of {len} bytes, and {MAX_MANIFEST_BYTES} are the most")]
    ManifestTooLong {
        /// So many.
        len: u64,
    },
    /// A background thread ended.
    #[error("a task ended without an answer")]
    Ended,
}

/// A checkpoint that was taken and read back; nothing names it yet.
#[derive(Debug)]
pub struct Taken {
    /// Its root.
    pub root: CheckpointRoot,
    /// What it consists of.
    pub manifest: Manifest,
    /// Commits that were made for it.
    pub commits: u64,
    /// Bytes that were sent for it: of files that the pool did not have.
    pub sent_bytes: u64,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Files that are settled.
    pub files: usize,
    /// Of so many.
    pub of_files: usize,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// What takes checkpoints.
pub struct Taker {
    /// The local database.
    pub local: LocalDatabase,
    /// The catalog over it.
    pub catalog: Catalog,
    /// The data path.
    pub objects: ObjectService,
    /// The pool.
    pub pool: Pool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The speed limit.
    pub turns: Box<dyn Turns>,
    /// See [`Progress`].
    pub progress: Arc<Mutex<Option<Progress>>>,
}

/// What one run has done so far.
#[derive(Default)]
struct Run {
    known: Vec<CheckpointFile>,
    commits: u64,
    sent_bytes: u64,
}

impl Taker {
    /// As its fields say; see there.
    pub fn new(
        local: LocalDatabase,
        catalog: Catalog,
        objects: ObjectService,
        pool: Pool,
        clock: Arc<dyn Clock>,
        turns: Box<dyn Turns>,
    ) -> Self {
        Self {
            local,
            catalog,
            objects,
            pool,
            clock,
            turns,
            progress: Arc::default(),
        }
    }

    /// All disks that there is a way to now.
    pub fn pool_files(&self) -> PoolFiles {
        let members = self.pool.members();
        let stores = members.iter().filter_map(|member| member.store());
        PoolFiles::new(stores.collect(), ANSWER)
    }

    /// How the disks of a blob's group are.
    pub fn health(&self, blob: &BlobRef) -> Health {
        let Some(group) = self.pool.known_group(blob.group) else {
            return Health::Lost;
        };
        let shards = 0..blob.layout.data.saturating_add(blob.layout.parity);
        let disks = shards.map(|shard| group.disk(blob, shard));
        let healths = disks.map(|disk| self.disk_health(disk));
        healths.max().unwrap_or(Health::Lost)
    }

    fn disk_health(&self, disk: shardgate_wire::DiskId) -> Health {
        match self.pool.member(disk) {
            None => Health::Lost,
            Some(of) if of.is_lost_for_good() => Health::Lost,
            Some(of) if of.is_living() => Health::Whole,
            Some(of) if matches!(of.standing(), Standing::Lost { .. }) => Health::Lost,
            Some(_) => Health::Away,
        }
    }

    /// Takes one; `needed`: the blobs of the checkpoints that are kept, where
    /// they are known.
    ///
    /// # Errors
    /// [`TakeError`]; no checkpoint counts then, and the next attempt goes on
    /// with what was sent.
    pub async fn take(&self, needed: Option<&HashSet<BlobId>>) -> Result<Taken, TakeError> {
        let taken = self.take_inner(needed).await;
        *self.progress.lock() = None;
        self.clean().await;
        taken
    }

    /// Removes what an attempt that is over has left beside the database.
    pub async fn clean(&self) {
        if let Err(error) = self.local.clean().await {
            tracing::warn!(%error, "the links of a checkpoint are not removed");
        }
    }

    async fn take_inner(&self, needed: Option<&HashSet<BlobId>>) -> Result<Taken, TakeError> {
        let (position, files) = self.local.link().await?;
        let mut run = Run {
            known: self.catalog.checkpoint_files().await?,
            ..Run::default()
        };
        self.give_up_stale(&mut run, needed, &files).await;
        self.verify_new(&run, &files).await?;
        let of_files = files.len() + 1;
        let show = |files: usize, run: &Run| {
            *self.progress.lock() = Some(Progress {
                files,
                of_files,
                sent_bytes: run.sent_bytes,
            });
        };
        let mut listed = Vec::with_capacity(files.len());
        for (done, file) in files.into_iter().enumerate() {
            show(done, &run);
            let path = self.local.linked(&file.name);
            let content = match is_inline(&file.name, file.len) {
                true => FileContent::Inline(blocking(move || fs::read(path)).await?),
                false => {
                    let source = || of_file(path.clone());
                    let stored = self.settle(&mut run, file.hash, file.len, &source).await?;
                    FileContent::Stored(stored)
                }
            };
            listed.push(ManifestFile {
                name: file.name,
                len: file.len,
                hash: file.hash,
                content,
            });
        }
        show(of_files - 1, &run);
        self.finish(run, position, listed).await
    }

    /// Checks the tables that the pool does not have: what the local disk has
    /// damaged must not take the place of what was sent when it was whole.
    async fn verify_new(&self, run: &Run, files: &[LocalFile]) -> Result<(), TakeError> {
        let is_known = |file: &LocalFile| {
            let mut known = run.known.iter();
            known.any(|of| of.stored && of.hash == file.hash && of.blob.len == file.len)
        };
        let new = files.iter().filter(|file| !is_known(file));
        self.local.verify(new).await
    }

    /// Condemns what attempts before this one left and nobody will use, so
    /// that attempts that fail again and again do not fill the pool.
    async fn give_up_stale(
        &self,
        run: &mut Run,
        needed: Option<&HashSet<BlobId>>,
        files: &[LocalFile],
    ) {
        let wanted: HashSet<ContentHash> = files.iter().map(|file| file.hash).collect();
        let gone = stale(&run.known, needed, &wanted);
        if gone.is_empty() {
            return;
        }
        match self.catalog.condemn_checkpoint_files(&gone).await {
            Ok(()) => tracing::info!(
                files = gone.len(),
                "files of failed checkpoints are given up"
            ),
            // The one that is taken now does not depend on it.
            Err(error) => tracing::warn!(%error, "files of failed checkpoints stay for now"),
        }
        // At most so many commits condemn and purge them.
        run.commits += 3 * gone.len() as u64;
        run.known.retain(|file| !gone.contains(file));
    }

    /// Stores the manifest and reads it back.
    async fn finish(
        &self,
        mut run: Run,
        position: ChainPosition,
        files: Vec<ManifestFile>,
    ) -> Result<Taken, TakeError> {
        let ctx = self.pool.context();
        let manifest = Manifest {
            cluster: ctx.cluster,
            lineage: ctx.lineage,
            position,
            files,
        };
        let bytes = manifest.encode();
        let (hash, len) = (ContentHash::of(&bytes), bytes.len() as u64);
        check_manifest_len(len)?;
        let source = || of_bytes(bytes.clone());
        let stored = self.settle(&mut run, hash, len, &source).await?;
        let read = self.pool_files().read_whole(&stored, hash).await?;
        let again = Manifest::decode(&read);
        if again.as_ref() != Ok(&manifest) {
            return Err(TakeError::Fetch(FetchError::Other {
                blob: stored.blob.blob,
                what: "the manifest is not what was sent".to_owned(),
            }));
        }
        let root = CheckpointRoot {
            cluster: ctx.cluster,
            lineage: ctx.lineage,
            position,
            taken: self.clock.now_ms(),
            manifest: stored,
            manifest_hash: hash,
        };
        Ok(Taken {
            root,
            manifest,
            commits: run.commits,
            sent_bytes: run.sent_bytes,
        })
    }

    /// Sees to it that a file lies in the pool, all of it on disks that live.
    async fn settle(
        &self,
        run: &mut Run,
        hash: ContentHash,
        len: u64,
        source: &(dyn Fn() -> BodyStream + Sync),
    ) -> Result<StoredFile, TakeError> {
        if let Some(stored) = self.again(run, hash, len).await? {
            return Ok(stored);
        }
        let mut sendings = 1;
        loop {
            match self.send(run, hash, len, source).await {
                Err(error) if sendings < SENDINGS && is_worth_another(&error) => {
                    tracing::warn!(file = %hash, %error, "a checkpoint file is sent again");
                    sendings += 1;
                }
                sent => return sent,
            }
        }
    }

    /// A blob that holds the file already, every shard of which is there.
    async fn again(
        &self,
        run: &Run,
        hash: ContentHash,
        len: u64,
    ) -> Result<Option<StoredFile>, TakeError> {
        let health = |blob: &BlobRef| self.health(blob);
        for file in reusable(hash, len, &run.known, health) {
            let group = self.pool.group(file.blob.group).await;
            let group = group.map_err(ObjectError::from)?;
            let shards = 0..file.blob.layout.data + file.blob.layout.parity;
            let stored = StoredFile {
                blob: file.blob,
                disks: shards.map(|shard| group.disk(&file.blob, shard)).collect(),
            };
            let (there, of) = self.pool_files().count(&stored).await;
            if there == of {
                return Ok(Some(stored));
            }
            tracing::warn!(file = %hash, there, of, "a checkpoint file lacks shards");
        }
        Ok(None)
    }

    /// Registers, sends, reads back and marks.
    async fn send(
        &self,
        run: &mut Run,
        hash: ContentHash,
        len: u64,
        source: &(dyn Fn() -> BodyStream + Sync),
    ) -> Result<StoredFile, TakeError> {
        let place = self.objects.place_kept(len).await?;
        let blob = place.blob;
        self.catalog.register_checkpoint_file(hash, &blob).await?;
        run.commits += 1;
        let name = format!("checkpoint/{hash}");
        let kept = self
            .objects
            .keep(&place, &name, source(), &*self.turns)
            .await;
        let marked = match kept {
            Ok(kept) => self.check_and_mark(hash, kept).await,
            Err(error) => Err(error.into()),
        };
        run.commits += 1;
        let file = CheckpointFile {
            hash,
            blob,
            stored: marked.is_ok(),
        };
        match &marked {
            Ok(_) => {
                run.known.push(file);
                run.sent_bytes += len;
            }
            // Nobody will ever use it. If this is not committed either, the
            // next attempt gives it up before it begins.
            Err(_) => drop(self.catalog.condemn_checkpoint_files(&[file]).await),
        }
        marked
    }

    /// Reads back what was sent, and only then marks it: a mark is what later
    /// checkpoints use a blob again by.
    async fn check_and_mark(&self, hash: ContentHash, kept: Kept) -> Result<StoredFile, TakeError> {
        let stored = StoredFile {
            blob: kept.blob,
            disks: kept.disks,
        };
        let files = self.pool_files();
        files.read(&stored, hash, &mut |_| Ok(())).await?;
        let marked = self
            .catalog
            .checkpoint_file_stored(hash, &kept.blob, kept.generation);
        marked.await?;
        Ok(stored)
    }
}

/// Whether another group may do better.
fn is_worth_another(error: &TakeError) -> bool {
    match error {
        TakeError::Fetch(_) => true,
        TakeError::Store(error) => !matches!(error, ObjectError::Fenced | ObjectError::Body(_)),
        TakeError::Catalog(error) => matches!(error, CatalogError::GroupMoved { .. }),
        TakeError::Engine(_)
        | TakeError::Local(_)
        | TakeError::ManifestTooLong { .. }
        | TakeError::Ended => false,
    }
}

/// A manifest that a restore would refuse must not count.
fn check_manifest_len(len: u64) -> Result<(), TakeError> {
    match len > MAX_MANIFEST_BYTES {
        true => Err(TakeError::ManifestTooLong { len }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;

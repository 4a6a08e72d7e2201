//! Takes one checkpoint: from the local database to files in the pool that
//! were read back (PROTOCOL.md 4).
//!
//! Invariants: a blob is registered by a commit before its first byte is
//! sent, and marked stored when all its shards are durable; what is used again
//! was asked for, shard by shard; what was sent was read back whole. A
//! checkpoint that fails leaves blobs that the next one uses or condemns.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shardgate_catalog::checkpoint::{
    CheckpointFile, CheckpointRoot, ContentHash, FileContent, Manifest, ManifestFile, StoredFile,
    folder,
};
use shardgate_catalog::engine::log::ChainPosition;
use shardgate_catalog::engine::{EngineError, RocksEngine};
use shardgate_catalog::model::BlobRef;
use shardgate_catalog::{Catalog, CatalogError};
use thiserror::Error;

use super::due::Health;
use super::fetch::{FetchError, PoolFiles};
use super::source::{of_bytes, of_file};
use super::verify::{is_inline, reusable};
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
/// The folder beside the database that a checkpoint's files are linked into.
const FOLDER: &str = "checkpoint";

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

/// Hashes of tables, which never change under their name, length and inode.
type Hashes = HashMap<(String, u64, u64), ContentHash>;

/// What takes checkpoints.
pub struct Taker {
    /// The local database.
    pub engine: Arc<RocksEngine>,
    /// The catalog over it.
    pub catalog: Catalog,
    /// The data path.
    pub objects: ObjectService,
    /// The pool.
    pub pool: Pool,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The gateway's own folder.
    pub own: PathBuf,
    /// The speed limit.
    pub turns: Box<dyn Turns>,
    /// See [`Progress`].
    pub progress: Arc<Mutex<Option<Progress>>>,
    hashes: Mutex<Hashes>,
}

/// A file of the local database.
struct LocalFile {
    name: String,
    len: u64,
    hash: ContentHash,
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
        engine: Arc<RocksEngine>,
        catalog: Catalog,
        objects: ObjectService,
        pool: Pool,
        clock: Arc<dyn Clock>,
        own: PathBuf,
        turns: Box<dyn Turns>,
    ) -> Self {
        Self {
            engine,
            catalog,
            objects,
            pool,
            clock,
            own,
            turns,
            progress: Arc::default(),
            hashes: Mutex::default(),
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

    /// Takes one.
    ///
    /// # Errors
    /// [`TakeError`]; no checkpoint counts then, and the next attempt goes on
    /// with what was sent.
    pub async fn take(&self) -> Result<Taken, TakeError> {
        let taken = self.take_inner().await;
        *self.progress.lock() = None;
        let folder = self.own.join(FOLDER);
        blocking(move || remove(&folder)).await?;
        taken
    }

    async fn take_inner(&self) -> Result<Taken, TakeError> {
        let (position, files) = self.link().await?;
        let mut run = Run {
            known: self.catalog.checkpoint_files().await?,
            ..Run::default()
        };
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
            let path = self.own.join(FOLDER).join(&file.name);
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

    /// Links the database's files and hashes them.
    async fn link(&self) -> Result<(ChainPosition, Vec<LocalFile>), TakeError> {
        let (engine, at) = (Arc::clone(&self.engine), self.own.join(FOLDER));
        let known = self.hashes.lock().clone();
        let linked = tokio::task::spawn_blocking(move || {
            remove(&at)?;
            let position = engine.checkpoint(&at)?;
            Ok::<_, TakeError>((position, hash_all(&at, &known)?))
        });
        let (position, (files, hashes)) = linked.await.map_err(|_| TakeError::Ended)??;
        *self.hashes.lock() = hashes;
        Ok((position, files))
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

    /// Registers, sends, marks and reads back.
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
            Ok(kept) => self.mark(hash, kept).await,
            Err(error) => Err(error.into()),
        };
        run.commits += 1;
        let file = CheckpointFile {
            hash,
            blob,
            stored: marked.is_ok(),
        };
        let checked = match marked {
            Ok(stored) => {
                let read = self.pool_files().read(&stored, hash, &mut |_| Ok(())).await;
                read.map(|()| stored).map_err(TakeError::from)
            }
            Err(error) => Err(error),
        };
        match &checked {
            Ok(_) => {
                run.known.push(file);
                run.sent_bytes += len;
            }
            // Nobody will ever use it. If this is not committed either, the
            // next checkpoint finds that nothing needs it.
            Err(_) => drop(self.catalog.condemn_checkpoint_files(&[file]).await),
        }
        checked
    }

    async fn mark(&self, hash: ContentHash, kept: Kept) -> Result<StoredFile, TakeError> {
        let stored = self
            .catalog
            .checkpoint_file_stored(hash, &kept.blob, kept.generation);
        stored.await?;
        Ok(StoredFile {
            blob: kept.blob,
            disks: kept.disks,
        })
    }
}

/// Whether another group may do better.
fn is_worth_another(error: &TakeError) -> bool {
    match error {
        TakeError::Fetch(_) => true,
        TakeError::Store(error) => !matches!(error, ObjectError::Fenced | ObjectError::Body(_)),
        TakeError::Catalog(error) => matches!(error, CatalogError::GroupMoved { .. }),
        TakeError::Engine(_) | TakeError::Local(_) | TakeError::Ended => false,
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Hashes the files of a folder; tables whose hash is known are not read.
fn hash_all(at: &Path, known: &Hashes) -> io::Result<(Vec<LocalFile>, Hashes)> {
    let mut hashes = Hashes::new();
    let mut files = Vec::new();
    for file in folder::files(at)? {
        let path = at.join(&file.name);
        let key = (file.name.clone(), file.len, fs::metadata(&path)?.ino());
        let hash = match known.get(&key) {
            Some(hash) => *hash,
            None => folder::hash(&path)?.0,
        };
        if folder::is_table(&file.name) {
            hashes.insert(key, hash);
        }
        files.push(LocalFile {
            name: file.name,
            len: file.len,
            hash,
        });
    }
    Ok((files, hashes))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, TakeError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| TakeError::Ended)??)
}

#[cfg(test)]
mod tests;

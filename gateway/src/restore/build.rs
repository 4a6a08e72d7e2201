//! A database from a checkpoint's files in the pool.
//!
//! Invariants: every file is the one that its manifest names, to the hash; the
//! folder is durable before it is opened; the database is at the commit that
//! the manifest says.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use shardgate_catalog::CatalogOptions;
use shardgate_catalog::checkpoint::{
    CheckpointFormatError, CheckpointRoot, ContentHash, FileContent, Manifest, ManifestFile,
};
use shardgate_catalog::engine::{EngineError, RocksStopped};
use shardgate_wire::ShardStore;
use thiserror::Error;

use super::Operator;
use crate::checkpoint::fetch::{FetchError, PoolFiles};

/// How long one disk may take for one call.
const ANSWER: Duration = Duration::from_secs(20);
/// Files that are fetched at once.
const AT_ONCE: usize = 4;
/// Between two words about how far it is.
const SAY: Duration = Duration::from_secs(1);

/// Why it was not built.
#[derive(Debug, Error)]
pub(crate) enum BuildError {
    /// A file cannot be read from the pool.
    #[error(transparent)]
    Fetch(FetchError),
    /// The manifest is none, or another checkpoint's.
    #[error(transparent)]
    Manifest(#[from] CheckpointFormatError),
    /// The manifest is of another place than the root.
    #[error("its manifest is of commit {0}")]
    Other(u64),
    /// The files do not make a database at that commit.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The local file system.
    #[error("write the files: {0}")]
    Local(#[from] io::Error),
}

/// Where it comes from and goes to.
pub(crate) struct Build {
    pub(crate) stores: Vec<Arc<dyn ShardStore>>,
    /// A folder that is not there yet.
    pub(crate) at: PathBuf,
    pub(crate) options: CatalogOptions,
}

impl Build {
    pub(crate) async fn run(
        self,
        root: &CheckpointRoot,
        operator: &dyn Operator,
    ) -> Result<RocksStopped, BuildError> {
        let pool = PoolFiles::new(self.stores, ANSWER);
        let bytes = pool.read_whole(&root.manifest, root.manifest_hash).await?;
        let manifest = Manifest::decode(&bytes)?;
        if (manifest.position, manifest.cluster) != (root.position, root.cluster) {
            return Err(BuildError::Other(manifest.position.number.0));
        }
        fs::create_dir(&self.at)?;
        check_space(&self.at, manifest.len_bytes())?;
        let progress = Progress::new(&manifest, operator);
        let files = manifest.files.iter().map(|file| {
            let (pool, at, progress) = (&pool, &self.at, &progress);
            async move {
                write(pool, file, &at.join(&file.name)).await?;
                progress.one_more(file.len);
                Ok::<_, BuildError>(())
            }
        });
        let files = stream::iter(files).buffer_unordered(AT_ONCE);
        files.try_collect::<Vec<()>>().await?;
        // Names are durable too, before anything depends on them.
        File::open(&self.at)?.sync_all()?;
        let (at, options, position) = (self.at, self.options, manifest.position);
        let open = move || RocksStopped::open_restored(&at, &options, position);
        Ok(super::blocking(open).await?)
    }
}

async fn write(pool: &PoolFiles, file: &ManifestFile, path: &Path) -> Result<(), BuildError> {
    let mut out = File::options().write(true).create_new(true).open(path)?;
    match &file.content {
        FileContent::Inline(bytes) => {
            if ContentHash::of(bytes) != file.hash {
                let what = format!("{} in the manifest is not what its hash says", file.name);
                return Err(EngineError::Damaged(what).into());
            }
            out.write_all(bytes)?;
        }
        FileContent::Stored(stored) => {
            let mut sink = |bytes: &[u8]| out.write_all(bytes);
            pool.read(stored, file.hash, &mut sink).await?;
        }
    }
    let synced = tokio::task::spawn_blocking(move || out.sync_all()).await;
    synced.map_err(io::Error::other)??;
    Ok(())
}

/// Refuses at once what would not fit, and leaves room for the replay.
fn check_space(at: &Path, bytes: u64) -> io::Result<()> {
    let stat = rustix::fs::statvfs(at)?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let needed = bytes + bytes / 8;
    match free < needed {
        true => Err(io::Error::other(format!(
            "{needed} bytes are needed there, {free} are free"
        ))),
        false => Ok(()),
    }
}

/// How far it is, for people.
struct Progress<'a> {
    operator: &'a dyn Operator,
    of: (usize, u64),
    state: parking_lot::Mutex<(usize, u64, Instant)>,
}

impl<'a> Progress<'a> {
    fn new(manifest: &Manifest, operator: &'a dyn Operator) -> Self {
        let of = (manifest.files.len(), manifest.len_bytes());
        operator.say(&format!(
            "fetching {} files, {} bytes, of the checkpoint at commit {}",
            of.0, of.1, manifest.position.number.0
        ));
        Self {
            operator,
            of,
            state: parking_lot::Mutex::new((0, 0, Instant::now())),
        }
    }

    fn one_more(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.0 += 1;
        state.1 += bytes;
        if state.2.elapsed() >= SAY || state.0 == self.of.0 {
            state.2 = Instant::now();
            let line = format!(
                "{} of {} files, {} of {} bytes",
                state.0, self.of.0, state.1, self.of.1
            );
            self.operator.say(&line);
        }
    }
}

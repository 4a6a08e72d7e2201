//! The engine on RocksDB: one column family, one committer thread.
//!
//! Invariant: every change goes through the committer, in one write batch
//! with the number and chain hash of the last commit that it holds; it is
//! visible no sooner than it is durable. Reads that the block cache cannot
//! answer run on blocking threads, a bounded number at a time.

mod committer;
mod options;
#[cfg(feature = "bench")]
mod plain;
mod read;
mod snapshot;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rocksdb::DB;
use shardgate_wire::CommitNumber;
use tokio::sync::Semaphore;

use super::log::{ChainPosition, CommitLog, EngineLog};
use super::{Commit, CommitError, Engine, EngineError, Entry, Scan, Snapshot};
use crate::keys;
use committer::Committer;
use read::Reads;

pub use options::RocksOptions;
#[cfg(feature = "bench")]
pub use plain::PlainRocks;

/// Views of one moment that are open at once; more wait.
const SNAPSHOTS: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct RocksEngine {
    db: Arc<DB>,
    reads: Reads,
    committer: Committer,
    committed: Arc<AtomicU64>,
    snapshots: Arc<Semaphore>,
}

impl RocksEngine {
    /// Opens the database in a folder, or makes it. Blocks.
    ///
    /// # Errors
    /// Another process has it open, or it is damaged.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, EngineError> {
        Self::open_with_log(path, options, EngineLog)
    }

    /// As [`Self::open`], with every commit in `log` before it is applied.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_log(
        path: &Path,
        options: &RocksOptions,
        log: impl CommitLog,
    ) -> Result<Self, EngineError> {
        let db = DB::open(&options.database(), path).map_err(engine_error)?;
        db.set_options(options::BY_NAME).map_err(engine_error)?;
        let applied = applied(&db)?;
        let db = Arc::new(db);
        let committed = Arc::new(AtomicU64::new(applied.number.0));
        Ok(Self {
            reads: Reads::new(db.clone()),
            committer: Committer::start(db.clone(), applied, committed.clone(), log)?,
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS)),
            db,
            committed,
        })
    }
}

/// How far the database has come.
fn applied(db: &DB) -> Result<ChainPosition, EngineError> {
    let damaged = |why: String| EngineError::Damaged(why);
    match db.get_pinned(keys::APPLIED).map_err(engine_error)? {
        Some(bytes) => {
            ChainPosition::from_bytes(&bytes).map_err(|error| damaged(error.to_string()))
        }
        None => {
            let mut rows = db.raw_iterator();
            rows.seek_to_first();
            rows.status().map_err(engine_error)?;
            if rows.valid() {
                return Err(damaged("rows without an applied commit".to_owned()));
            }
            Ok(ChainPosition::default())
        }
    }
}

#[async_trait]
impl Engine for RocksEngine {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.reads.get(key).await
    }

    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.reads.get_many(keys).await
    }

    async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError> {
        self.reads.scan(scan).await
    }

    async fn commit(&self, commit: Commit) -> Result<CommitNumber, CommitError> {
        self.committer.commit(commit).await
    }

    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        let permit = self.snapshots.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        Ok(Box::new(snapshot::take(self.db.clone(), permit).await?))
    }

    fn committed(&self) -> CommitNumber {
        CommitNumber(self.committed.load(Ordering::Acquire))
    }
}

fn engine_error(error: rocksdb::Error) -> EngineError {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => EngineError::Damaged(error.to_string()),
        _ => EngineError::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests;

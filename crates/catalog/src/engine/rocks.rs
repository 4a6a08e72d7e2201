//! The engine on RocksDB: one column family, one committer thread.
//!
//! Invariant: every change goes through the committer, in one write batch
//! with the number and chain hash of the last commit that it holds; it is
//! visible no sooner than it is durable. Reads that the block cache cannot
//! answer run on blocking threads, a bounded number at a time.

mod checkpoint;
mod committer;
mod empty;
mod options;
#[cfg(feature = "bench")]
mod plain;
mod read;
mod snapshot;
mod sweep;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use rocksdb::{DB, WriteBatch, WriteOptions};
use shardgate_wire::{CommitNumber, DiskId};
use tokio::sync::Semaphore;

use super::log::{ChainPosition, CommitLog, EngineLog, Record, decode_payload};
use super::{Commit, CommitError, Engine, EngineError, Entry, KeyRange, Scan, Snapshot};
use crate::keys;
use crate::model::{ClusterRow, DiskRow, DiskState};
use crate::row::{Damaged, decode};
use committer::Committer;
use empty::Empty;
use read::Reads;
use sweep::Sweeper;

pub use checkpoint::verify_tables;
pub use options::RocksOptions;
#[cfg(feature = "bench")]
pub use plain::PlainRocks;

/// Views of one moment that are open at once; more wait.
const SNAPSHOTS: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct RocksEngine {
    reads: Reads,
    committer: Committer,
    committed: Arc<AtomicU64>,
    snapshots: Arc<Semaphore>,
    _sweeper: Sweeper,
    db: Arc<DB>,
}

impl RocksEngine {
    /// Opens the database in a folder, or makes it. Blocks.
    ///
    /// # Errors
    /// Another process has it open, or it is damaged.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, EngineError> {
        Self::open_with_log(path, options, EngineLog)
    }

    /// Over a database that keeps no log but its own; to be read.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn of(stopped: RocksStopped) -> Result<Self, EngineError> {
        stopped.start(EngineLog)
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
        RocksStopped::open(path, options)?.start(log)
    }
}

/// A database that takes no commits yet: a start looks how far it is, and
/// applies what a log has beyond that. Nothing of it is to be shown before.
#[derive(Debug)]
pub struct RocksStopped {
    db: Arc<DB>,
    applied: ChainPosition,
}

impl RocksStopped {
    /// Opens the database in a folder, or makes it. Blocks.
    ///
    /// # Errors
    /// Another process has it open, or it is damaged.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, EngineError> {
        let db = DB::open(&options.database(), path).map_err(engine_error)?;
        db.set_options(options::BY_NAME).map_err(engine_error)?;
        let applied = applied(&db)?;
        let db = Arc::new(db);
        Ok(Self { db, applied })
    }

    /// The last commit that is applied, and the chain hash there.
    pub fn applied(&self) -> ChainPosition {
        self.applied
    }

    /// The cluster that it is of, as of the last commit applied; `None` before
    /// there is one. Blocks.
    ///
    /// # Errors
    /// The database is damaged.
    pub fn cluster(&self) -> Result<Option<ClusterRow>, EngineError> {
        let row = self.db.get_pinned(keys::CLUSTER).map_err(engine_error)?;
        let decoded = row.map(|row| decode(&Bytes::copy_from_slice(&row)));
        let damaged = |error: Damaged| EngineError::Damaged(error.to_string());
        decoded.transpose().map_err(damaged)
    }

    /// Whether it is a catalog that is being made anew and is not whole.
    /// Blocks.
    ///
    /// # Errors
    /// The database is damaged.
    pub fn is_being_rebuilt(&self) -> Result<bool, EngineError> {
        let row = self.db.get_pinned(keys::REBUILDING).map_err(engine_error)?;
        Ok(row.is_some())
    }

    /// The disks that are not declared lost, as of the last commit applied.
    /// Blocks.
    ///
    /// # Errors
    /// The database is damaged.
    pub fn member_disks(&self) -> Result<Vec<DiskId>, EngineError> {
        let damaged = |error: Damaged| EngineError::Damaged(error.to_string());
        let scan = Scan::first(KeyRange::prefix(vec![keys::space::DISK]), usize::MAX);
        let open = |options| self.db.raw_iterator_opt(options);
        let rows = read::scan_rows(&scan, options::reads(), open).map_err(engine_error)?;
        let mut disks = Vec::new();
        for (_, row) in rows.into_iter().filter_map(Entry::into_row) {
            let row: DiskRow = decode(&row).map_err(damaged)?;
            if row.state == DiskState::Member {
                disks.push(row.id);
            }
        }
        Ok(disks)
    }

    /// Applies the next records of the log, which have to be durable there.
    /// Not durable here before [`Self::flush`]. Blocks.
    ///
    /// # Errors
    /// They are not the next of the chain, or no commits; the database failed.
    pub fn apply(&mut self, records: &[Record]) -> Result<(), EngineError> {
        let damaged = |why: String| EngineError::Damaged(why);
        let mut batch = WriteBatch::default();
        let mut last = self.applied;
        for record in records {
            if !last.is_before(record) {
                let (at, next) = (last.number, record.position.number);
                return Err(damaged(format!("commit {next} does not follow {at}")));
            }
            let changes = decode_payload(record.payload.clone());
            for (key, value) in changes.map_err(|error| damaged(error.to_string()))? {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
            }
            last = record.position;
        }
        batch.put(keys::APPLIED, last.to_bytes());
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        self.db.write_opt(batch, &options).map_err(engine_error)?;
        self.applied = last;
        Ok(())
    }

    /// Makes what is applied durable in table files. Blocks.
    ///
    /// # Errors
    /// The database failed.
    pub fn flush(&self) -> Result<(), EngineError> {
        self.db.flush().map_err(engine_error)
    }

    /// Takes commits from now on, each in `log` before it is applied.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self, log: impl CommitLog) -> Result<RocksEngine, EngineError> {
        let Self { db, applied } = self;
        let committed = Arc::new(AtomicU64::new(applied.number.0));
        let empty = Arc::<Empty>::default();
        let sweeper = Sweeper::start(db.clone(), empty.clone())?;
        let hand = sweeper.hand();
        Ok(RocksEngine {
            reads: Reads::new(db.clone(), empty.clone(), hand.clone()),
            committer: Committer::start(db.clone(), applied, committed.clone(), log, empty, hand)?,
            snapshots: Arc::new(Semaphore::new(SNAPSHOTS)),
            _sweeper: sweeper,
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

    async fn flush(&self) -> Result<(), EngineError> {
        let db = self.db.clone();
        let flushed = tokio::task::spawn_blocking(move || db.flush().map_err(engine_error));
        let ended = |error: tokio::task::JoinError| EngineError::Unavailable(error.to_string());
        flushed.await.map_err(ended)?
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

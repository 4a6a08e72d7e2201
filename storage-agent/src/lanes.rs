//! The open disks of an agent, each a lane of its own.
//!
//! Owns the map from [`DiskId`] to [`Lane`]. Invariant: what one disk's calls
//! wait for is that disk alone; a lane takes a bounded number of calls and
//! answers `Busy` beyond it. How a folder comes to be an open disk is
//! [`crate::folders`]' part.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::message::Refusal;
use shardgate_wire::{DiskId, ShardStore};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{LaneMetrics, Metrics};

/// Calls of one disk's journal: one gateway writes, and one append at a time.
const JOURNAL_CALLS: usize = 8;

/// One open disk and its calls.
pub struct Lane {
    /// The disk.
    pub store: Arc<dyn ShardStore>,
    /// What is counted of it.
    pub metrics: LaneMetrics,
    /// Its journal, where it keeps one.
    pub journal: Option<Arc<dyn JournalDisk>>,
    calls: Arc<Semaphore>,
    journal_calls: Arc<Semaphore>,
}

impl Lane {
    /// A place for one more call.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&self.calls).try_acquire_owned();
        place.map_err(|_| Refusal::Busy)
    }

    /// A place for one more call of the journal: shards never take it.
    pub fn enter_journal(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let place = Arc::clone(&self.journal_calls).try_acquire_owned();
        place.map_err(|_| Refusal::Busy)
    }
}

/// The open disks.
pub struct Lanes {
    open: RwLock<BTreeMap<DiskId, Arc<Lane>>>,
    calls_per_disk: usize,
    metrics: Arc<Metrics>,
}

impl Lanes {
    /// No disk yet.
    pub fn new(calls_per_disk: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            open: RwLock::default(),
            calls_per_disk,
            metrics,
        }
    }

    /// Adds an open disk; `false` if one of its id is there, which stays.
    pub fn open(&self, store: Arc<dyn ShardStore>) -> bool {
        self.add(store, None)
    }

    /// As [`Self::open`], for a disk that keeps journal segments too.
    pub fn open_with_journal<D: ShardStore + JournalDisk>(&self, disk: Arc<D>) -> bool {
        self.add(Arc::clone(&disk) as Arc<dyn ShardStore>, Some(disk))
    }

    fn add(&self, store: Arc<dyn ShardStore>, journal: Option<Arc<dyn JournalDisk>>) -> bool {
        let disk = store.disk();
        let mut open = self.open.write();
        if open.contains_key(&disk) {
            return false;
        }
        let lane = Lane {
            store,
            metrics: self.metrics.lane(disk),
            journal,
            journal_calls: Arc::new(Semaphore::new(JOURNAL_CALLS)),
            calls: Arc::new(Semaphore::new(self.calls_per_disk)),
        };
        open.insert(disk, Arc::new(lane));
        true
    }

    /// Takes a disk out; calls that are in it end by themselves.
    pub fn close(&self, disk: DiskId) {
        self.open.write().remove(&disk);
        self.metrics.forget(disk);
    }

    /// The lane of a disk.
    pub fn get(&self, disk: DiskId) -> Option<Arc<Lane>> {
        self.open.read().get(&disk).cloned()
    }

    /// All of them, by disk.
    pub fn all(&self) -> Vec<Arc<Lane>> {
        self.open.read().values().cloned().collect()
    }
}

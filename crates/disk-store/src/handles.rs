//! The shards that are being written, by handle and by key.
//!
//! Invariant: a key has at most one handle, of an open shard or of one that
//! was finished and may be finished again by a repeat. Handles are
//! bounded in number, and so are their files: a slow client's handle costs a
//! few hundred bytes, and its file is closed when others need one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use shardgate_wire::store::ShardHandle;
use shardgate_wire::{ShardHeader, ShardKey, StoreError};

use crate::condition::{Condition, Doing};
use crate::writer::{Phase, Writing};

/// One handle.
#[derive(Debug)]
pub(crate) struct OpenShard {
    pub(crate) handle: ShardHandle,
    pub(crate) key: ShardKey,
    pub(crate) writing: Mutex<Writing>,
    /// Falls when the shard is finished and marked.
    pub(crate) open: AtomicBool,
    used: Mutex<Instant>,
}

impl OpenShard {
    pub(crate) fn idle(&self) -> Duration {
        self.used.lock().elapsed()
    }
}

#[derive(Debug, Default)]
struct Table {
    by_handle: HashMap<ShardHandle, Arc<OpenShard>>,
    by_key: HashMap<ShardKey, Arc<OpenShard>>,
}

#[derive(Debug)]
pub(crate) struct Handles {
    table: Mutex<Table>,
    next: AtomicU64,
    most: usize,
    most_files: usize,
}

impl Handles {
    /// `first` is random, so that a handle of an earlier run is unknown.
    pub(crate) fn new(first: u64, most: usize, most_files: usize) -> Self {
        Self {
            table: Mutex::new(Table::default()),
            next: AtomicU64::new(first),
            most,
            most_files,
        }
    }

    pub(crate) fn has_room(&self) -> Result<(), StoreError> {
        if self.table.lock().by_handle.len() < self.most {
            return Ok(());
        }
        // Finished shards only wait for a repeat: they go first.
        self.sweep(|_, phase| phase != Phase::Open);
        let full = self.table.lock().by_handle.len() >= self.most;
        if full { Err(StoreError::Busy) } else { Ok(()) }
    }

    pub(crate) fn add(&self, writing: Writing) -> ShardHandle {
        let handle = ShardHandle(self.next.fetch_add(1, Ordering::Relaxed));
        let key = writing.key();
        let shard = Arc::new(OpenShard {
            handle,
            key,
            writing: Mutex::new(writing),
            open: AtomicBool::new(true),
            used: Mutex::new(Instant::now()),
        });
        let mut table = self.table.lock();
        table.by_handle.insert(handle, Arc::clone(&shard));
        table.by_key.insert(key, shard);
        handle
    }

    pub(crate) fn get(&self, handle: ShardHandle) -> Result<Arc<OpenShard>, StoreError> {
        let table = self.table.lock();
        let shard = table.by_handle.get(&handle).ok_or(StoreError::NoHandle)?;
        *shard.used.lock() = Instant::now();
        Ok(Arc::clone(shard))
    }

    /// Whether the shard is being written under a handle.
    pub(crate) fn is_open(&self, key: ShardKey) -> bool {
        let table = self.table.lock();
        let shard = table.by_key.get(&key);
        shard.is_some_and(|shard| shard.open.load(Ordering::SeqCst))
    }

    /// The head of a shard that is being written into a volume.
    pub(crate) fn open_extent(&self, key: ShardKey) -> Option<ShardHeader> {
        let shard = self.table.lock().by_key.get(&key).cloned()?;
        let writing = shard.writing.lock();
        writing.is_extent().then(|| writing.header().clone())
    }

    /// The shards behind `after` that are being written into volumes, and
    /// what they take.
    pub(crate) fn open_extents(&self, after: Option<ShardKey>) -> Vec<(ShardKey, u64)> {
        let all: Vec<_> = {
            let table = self.table.lock();
            let behind = |shard: &&Arc<OpenShard>| Some(shard.key) > after;
            table.by_key.values().filter(behind).cloned().collect()
        };
        let open = |shard: Arc<OpenShard>| {
            let writing = shard.writing.lock();
            let taken = writing.announced().unwrap_or(0);
            writing.is_extent().then_some((shard.key, taken))
        };
        let mut open: Vec<_> = all.into_iter().filter_map(open).collect();
        open.sort_unstable();
        open
    }

    /// Ends the handle of a key if its shard is open. Waits for a call that
    /// is in it. The file is left as it is.
    pub(crate) fn end_open(&self, key: ShardKey) {
        self.end_if(key, |phase| phase == Phase::Open);
    }

    /// The same, of a finished shard too: it is about to go.
    pub(crate) fn end(&self, key: ShardKey) {
        self.end_if(key, |_| true);
    }

    fn end_if(&self, key: ShardKey, ends: impl Fn(Phase) -> bool) {
        let shard = self.table.lock().by_key.get(&key).cloned();
        if let Some(shard) = shard {
            let mut writing = shard.writing.lock();
            if ends(writing.phase) {
                self.end_shard(&shard, &mut writing);
            }
        }
    }

    /// Ends a handle whose lock is held; a finished shard's is forgotten.
    pub(crate) fn end_shard(&self, shard: &OpenShard, writing: &mut Writing) {
        if writing.phase == Phase::Open {
            writing.end();
        }
        let mut table = self.table.lock();
        table.by_handle.remove(&shard.handle);
        forget_key(&mut table, shard);
    }

    /// Ends all of them. Waits for a call that is in one.
    pub(crate) fn end_all(&self) {
        let all: Vec<_> = self.table.lock().by_handle.values().cloned().collect();
        for shard in all {
            self.end_shard(&shard, &mut shard.writing.lock());
        }
    }

    /// Ends what nobody used for so long.
    pub(crate) fn end_idle(&self, longer: Duration) {
        self.sweep(|shard, _| shard.idle() > longer);
    }

    /// Ends those that `ends` says; one that a call is in is not idle.
    fn sweep(&self, ends: impl Fn(&OpenShard, Phase) -> bool) {
        let all: Vec<_> = self.table.lock().by_handle.values().cloned().collect();
        for shard in all {
            if let Some(mut writing) = shard.writing.try_lock()
                && ends(&shard, writing.phase)
            {
                self.end_shard(&shard, &mut writing);
            }
        }
    }

    /// Closes the file that rested longest, if that many are open.
    pub(crate) fn make_room_for_file(&self, condition: &Condition) -> Result<(), StoreError> {
        let mut open: Vec<_> = {
            let table = self.table.lock();
            let open = |shard: &&Arc<OpenShard>| shard.open.load(Ordering::SeqCst);
            table.by_key.values().filter(open).cloned().collect()
        };
        if open.len() < self.most_files {
            return Ok(());
        }
        open.sort_by_cached_key(|shard| std::cmp::Reverse(shard.idle()));
        let has_file = |shard: &&Arc<OpenShard>| {
            // One that a call is in has its file open.
            let writing = shard.writing.try_lock();
            writing.is_none_or(|writing| writing.file.is_some())
        };
        if open.iter().filter(has_file).count() < self.most_files {
            return Ok(());
        }
        for shard in &open {
            let Some(mut writing) = shard.writing.try_lock() else {
                continue;
            };
            if let Some(file) = &writing.file {
                if writing.dirty {
                    // An error of its pages must meet a file that is open.
                    rustix::fs::fdatasync(file)
                        .map_err(|errno| condition.refused(Doing::Syncing, "sync shard", errno))?;
                }
                writing.file = None;
                writing.dirty = false;
                break;
            }
        }
        Ok(())
    }
}

fn forget_key(table: &mut Table, shard: &OpenShard) {
    let same = |held: &Arc<OpenShard>| held.handle == shard.handle;
    if table.by_key.get(&shard.key).is_some_and(same) {
        table.by_key.remove(&shard.key);
    }
}

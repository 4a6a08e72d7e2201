//! Finds stretches of deleted rows before somebody has to step over them.
//!
//! Two things tell where to look: many rows that were just deleted, and a
//! scan that stepped over many. Owns one thread; nothing waits for it, and
//! what it is not told or skips costs time alone: the next scan tells it
//! again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use rocksdb::DB;
use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};

use super::empty::{Empty, Stretch};
use super::{engine_error, options};
use crate::engine::EngineError;
use crate::keys;

/// Deleted rows in a row that are worth being kept in mind: some milliseconds
/// of a scan.
const STRETCH: u64 = 4096;
/// After so many deletions it is looked for stretches.
const WINDOW: u64 = 1 << 16;
/// Places of a window that are looked at.
const LOOKS: u64 = 4;
/// What waits for the thread; more is forgotten.
const QUEUE: usize = 64;

/// Counts the deleted rows that one scan steps over, on its thread.
pub(super) struct Steps {
    counts: PerfContext,
    seen: u64,
    longest: u64,
    place: Option<Bytes>,
}

impl Steps {
    pub(super) fn new() -> Self {
        set_perf_stats(PerfStatsLevel::EnableCount);
        let counts = PerfContext::default();
        Self {
            seen: counts.metric(PerfMetric::InternalDeleteSkippedCount),
            counts,
            longest: STRETCH - 1,
            place: None,
        }
    }

    /// Deleted rows since the last step.
    fn count(&mut self) -> u64 {
        let seen = self.counts.metric(PerfMetric::InternalDeleteSkippedCount);
        seen - std::mem::replace(&mut self.seen, seen)
    }

    /// Notes a step that began at `from`, which may live, or behind it.
    pub(super) fn stepped(&mut self, from: &[u8]) {
        let rows = self.count();
        if rows > self.longest {
            self.longest = rows;
            self.place = Some(keys::after(from));
        }
    }

    /// Where it stepped over most, if that is worth a look.
    pub(super) fn place(self) -> Option<Bytes> {
        self.place
    }
}

/// Where rows were deleted of late.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    count: u64,
    places: Vec<Bytes>,
}

impl Deletions {
    /// Notes a deleted row. Gives the places to look at, once in a while.
    pub(super) fn note(&mut self, key: &Bytes) -> Option<Vec<Bytes>> {
        if self.count.is_multiple_of(WINDOW / LOOKS) {
            self.places.push(key.clone());
        }
        self.count += 1;
        if self.count < WINDOW {
            return None;
        }
        Some(std::mem::take(self).places)
    }
}

enum Task {
    Look(Bytes),
    /// Look whether it is over.
    Wake,
}

/// Handle of the thread; dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Sweeper {
    hand: Hand,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// Gives the thread work.
#[derive(Clone, Debug)]
pub(super) struct Hand(SyncSender<Task>);

impl Hand {
    /// Has the surroundings of a key looked at, soon or never.
    pub(super) fn look(&self, around: Bytes) {
        // Full: there is work enough.
        drop(self.0.try_send(Task::Look(around)));
    }
}

impl Sweeper {
    pub(super) fn start(db: Arc<DB>, empty: Arc<Empty>) -> Result<Self, EngineError> {
        let (queue, inbox) = sync_channel(QUEUE);
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = std::thread::Builder::new().name("catalog-sweep".to_owned());
        let thread = thread
            .spawn(move || run(&db, &empty, &inbox, &ends))
            .map_err(|error| EngineError::Unavailable(error.to_string()))?;
        Ok(Self {
            hand: Hand(queue),
            over,
            thread: Some(thread),
        })
    }

    pub(super) fn hand(&self) -> Hand {
        self.hand.clone()
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        // A full queue wakes it as well.
        drop(self.hand.0.try_send(Task::Wake));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(db: &DB, empty: &Empty, inbox: &Receiver<Task>, over: &AtomicBool) {
    while let Ok(task) = inbox.recv() {
        if over.load(Ordering::Acquire) {
            return;
        }
        let Task::Look(around) = task else { continue };
        empty.begin_look(&around);
        let found = look(db, empty, &around);
        let found = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "a look for deleted rows failed");
            None
        });
        empty.end_look(found);
    }
}

/// The stretch around a key, if it is worth being kept.
fn look(db: &DB, empty: &Empty, around: &[u8]) -> Result<Option<Stretch>, EngineError> {
    let found = stretch(db, empty, around)?;
    Ok(found.filter(|found| found.rows >= STRETCH))
}

/// The stretch around a key, where none is known yet.
fn stretch(db: &DB, empty: &Empty, around: &[u8]) -> Result<Option<Stretch>, EngineError> {
    let before = empty.before();
    let mut rows = db.raw_iterator_opt(options::reads());
    let passes = before.opened();
    let known = passes.up_to(around);
    if known.is_some_and(|known| known.to.as_deref().is_none_or(|to| to > around)) {
        return Ok(None);
    }
    let mut steps = Steps::new();
    rows.seek(around);
    rows.status().map_err(engine_error)?;
    let to = rows.key().map(<[u8]>::to_vec);
    if to.as_deref() == Some(around) {
        return Ok(None);
    }
    let from = match known {
        Some(known) => known.from.clone(),
        None => {
            rows.seek_for_prev(around);
            rows.status().map_err(engine_error)?;
            let last = rows.key().map(|key| keys::after(key).to_vec());
            last.unwrap_or_default()
        }
    };
    Ok(Some(Stretch {
        from,
        to,
        rows: steps.count(),
    }))
}

#[cfg(test)]
mod tests;

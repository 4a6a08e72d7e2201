//! The job that takes checkpoints while the gateway runs.
//!
//! Owns which are kept, two tasks and the operator's wish. One task looks once
//! a second at the journal's length and lets writes wait near its bound; the
//! other takes checkpoints when they are due, one at a time. Invariants: the
//! order in which an older one goes (PROTOCOL.md 4): the root that names both
//! newer ones counts, then blobs that neither needs are condemned, then the
//! journal is taken out up to the older one. What an earlier run left undone
//! of this is done first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use shardgate_catalog::checkpoint::{Backward, Manifest, Roots};
use shardgate_catalog::model::BlobRef;
use shardgate_catalog::{Catalog, CatalogError};
use shardgate_journal::JournalError;
use shardgate_wire::{CommitNumber, DiskId};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::asks::Asks;
use super::due::{Basis, Due, Facts, Health, Limits, Wished, due, is_full, is_long, limits};
use super::inherit;
use super::local::LocalDatabase;
use super::ports::JournalSide;
use super::report::{CheckpointStatus, KeptStatus};
use super::take::{TakeError, Taker};
use super::verify::{KeptCheckpoint, health_of, needed, needless};
use crate::journal::JournalLength;
use crate::object::rebuild::Turns;
use crate::object::{CatalogRoom, ObjectService};
use crate::pool::Pool;
use crate::seam::Clock;

/// Between two looks.
const TICK: Duration = Duration::from_secs(1);
/// After an attempt that failed; doubled up to the next.
const AGAIN: Duration = Duration::from_secs(5);
const AGAIN_MOST: Duration = Duration::from_secs(60);

/// What the job is made of.
pub struct CheckpointParts {
    /// The local database.
    pub local: LocalDatabase,
    /// The catalog over it.
    pub catalog: Catalog,
    /// The data path.
    pub objects: ObjectService,
    /// The pool.
    pub pool: Pool,
    /// The journal.
    pub journal: Arc<dyn JournalSide>,
    /// Lets writes wait.
    pub room: CatalogRoom,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The roots that the start found.
    pub roots: Roots,
    /// What is set.
    pub wished: Wished,
    /// The speed limit.
    pub turns: Box<dyn Turns>,
}

/// The checkpoints of a gateway that runs. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Checkpoints {
    inner: Arc<Inner>,
}

struct Inner {
    taker: Taker,
    journal: Arc<dyn JournalSide>,
    room: CatalogRoom,
    wished: Wished,
    began: Instant,
    roots: RwLock<Roots>,
    /// As `roots`, with their manifests as far as they were read.
    kept: RwLock<Vec<KeptCheckpoint>>,
    /// Disks that have these roots.
    told: tokio::sync::Mutex<BTreeSet<DiskId>>,
    /// Whether what follows from these roots is done.
    settled: AtomicBool,
    seen: RwLock<Seen>,
    /// Commits since the newest that are the checkpoints' own.
    own_commits: AtomicU64,
    counts: Counts,
    problem: Mutex<Option<String>>,
    asks: Asks,
    wake: Notify,
}

/// What the last look saw.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    length: JournalLength,
    limits: Option<Limits>,
}

#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    failed: AtomicU64,
    sent: AtomicU64,
}

/// Why the job does not go on for now.
#[derive(Debug, Error)]
enum JobError {
    #[error(transparent)]
    Take(#[from] TakeError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("catalog: {0}")]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Backward(#[from] Backward),
}

impl Checkpoints {
    /// Starts the job.
    pub fn start(parts: CheckpointParts, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let job = Self::new(parts);
        let working = job.clone();
        tracker.spawn(async move {
            let work = async { tokio::join!(working.look_for_ever(), working.take_for_ever()) };
            tokio::select! {
                _ = work => {}
                () = stop.cancelled() => {}
            }
            working.inner.asks.end();
        });
        job
    }

    fn new(parts: CheckpointParts) -> Self {
        let roots = parts.roots;
        let unread = |root: &shardgate_catalog::checkpoint::CheckpointRoot| KeptCheckpoint {
            root: root.clone(),
            manifest: None,
            whole: false,
        };
        let inner = Inner {
            kept: RwLock::new(roots.all().iter().map(unread).collect()),
            taker: Taker::new(
                parts.local,
                parts.catalog,
                parts.objects,
                parts.pool,
                parts.clock,
                parts.turns,
            ),
            journal: parts.journal,
            room: parts.room,
            wished: parts.wished,
            began: Instant::now(),
            roots: RwLock::new(roots),
            told: tokio::sync::Mutex::default(),
            settled: AtomicBool::new(false),
            seen: RwLock::default(),
            own_commits: AtomicU64::new(0),
            counts: Counts::default(),
            problem: Mutex::default(),
            asks: Asks::new(),
            wake: Notify::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Takes one as soon as it can, and waits for it; its commit.
    ///
    /// # Errors
    /// Why it was not taken; the job tries again by itself when one is due.
    pub async fn take_now(&self) -> Result<CommitNumber, String> {
        let number = self.inner.asks.ask();
        self.inner.wake.notify_one();
        self.inner.asks.outcome(number).await
    }

    /// As the operator reads it.
    pub fn status(&self) -> CheckpointStatus {
        let inner = &self.inner;
        let now_ms = inner.taker.clock.now_ms();
        let kept = inner.kept.read();
        let of = |kept: &KeptCheckpoint| KeptStatus {
            commit: kept.root.position.number.0,
            age_seconds: now_ms.saturating_sub(kept.root.taken) / 1000,
            files: kept.manifest.as_ref().map(|of| of.files.len()),
            bytes: kept.manifest.as_ref().map(Manifest::len_bytes),
        };
        let seen = *inner.seen.read();
        let progress = *inner.taker.progress.lock();
        CheckpointStatus {
            kept: kept.iter().map(of).collect(),
            journal_since_bytes: seen.length.since,
            journal_every_bytes: seen.limits.map_or(0, |of| of.every_bytes),
            journal_bytes: seen.length.total,
            journal_bound_bytes: seen.limits.map_or(0, |of| of.bound_bytes),
            writes_wait: inner.room.is_journal_full(),
            progress: progress.map(|of| {
                format!(
                    "{} of {} files, {} bytes sent",
                    of.files, of.of_files, of.sent_bytes
                )
            }),
            problem: inner.problem.lock().clone(),
            taken: inner.counts.taken.load(Ordering::Relaxed),
            failed: inner.counts.failed.load(Ordering::Relaxed),
            sent_bytes: inner.counts.sent.load(Ordering::Relaxed),
        }
    }

    fn newest(&self) -> CommitNumber {
        let roots = self.inner.roots.read();
        let newest = roots.newest();
        newest.map_or(CommitNumber(0), |root| root.position.number)
    }

    /// Keeps what is known of the journal's length true, whatever the other
    /// task does.
    async fn look_for_ever(&self) {
        let mut tick = interval(TICK);
        loop {
            tick.tick().await;
            let inner = &self.inner;
            let disks = inner.journal.journal_disks().await;
            let basis = Basis {
                smallest_disk: disks.smallest,
                segment_bytes: disks.segment_bytes,
                most_files: disks.most_files,
            };
            let limits = limits(inner.wished, basis);
            let length = match inner.journal.length(self.newest()).await {
                Ok(length) => length,
                Err(_closed) => return,
            };
            *inner.seen.write() = Seen {
                length,
                limits: Some(limits),
            };
            inner.room.set_journal_long(is_long(length.total, &limits));
            self.say_full(is_full(length.total, &limits), length.total);
            inner.wake.notify_one();
        }
    }

    fn say_full(&self, full: bool, bytes: u64) {
        match (self.inner.room.set_journal_full(full), full) {
            (true, true) => tracing::error!(
                bytes,
                "the journal is near its bound: writes wait for a checkpoint, deletes go on"
            ),
            (true, false) => tracing::info!(bytes, "the journal has room again"),
            (false, _) => {}
        }
    }

    async fn take_for_ever(&self) {
        // Of an attempt that was killed with its gateway.
        self.inner.taker.clean().await;
        let mut again = AGAIN;
        loop {
            self.inner.wake.notified().await;
            let worked = self.work_once().await;
            *self.inner.problem.lock() = match &worked {
                Ok(()) => None,
                Err(error) => Some(error.to_string()),
            };
            match worked {
                Ok(()) => again = AGAIN,
                Err(JobError::Journal(JournalError::Closed | JournalError::Fenced(_))) => {
                    return self.inner.asks.end();
                }
                Err(error) => {
                    self.inner.counts.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "no checkpoint was taken, tried again later");
                    tokio::select! {
                        () = sleep(again) => {}
                        () = self.until_asked() => {}
                    }
                    again = (again * 2).min(AGAIN_MOST);
                }
            }
        }
    }

    /// Ends when somebody asks for one that was not tried yet.
    async fn until_asked(&self) {
        while !self.inner.asks.is_open() {
            sleep(TICK).await;
        }
    }

    /// Does what is due, and answers those who asked before it began.
    async fn work_once(&self) -> Result<(), JobError> {
        let asked = self.inner.asks.so_far();
        let worked = match self.settle().await {
            Ok(()) => match self.due() {
                Some(why) => self.take(why).await.map(Some),
                None => Ok(None),
            },
            Err(error) => Err(error),
        };
        let outcome = match &worked {
            Ok(None) => return Ok(()),
            Ok(Some(number)) => Ok(*number),
            Err(error) => Err(error.to_string()),
        };
        self.inner.asks.answer(asked, outcome);
        worked.map(drop)
    }

    fn due(&self) -> Option<Due> {
        let inner = &self.inner;
        let seen = *inner.seen.read();
        let limits = seen.limits?;
        let newest = self.newest();
        let age = match inner.roots.read().newest() {
            Some(root) => {
                let now_ms = inner.taker.clock.now_ms();
                Duration::from_millis(now_ms.saturating_sub(root.taken))
            }
            None => inner.began.elapsed(),
        };
        let own = inner.own_commits.load(Ordering::Relaxed);
        let facts = Facts {
            since_bytes: seen.length.since,
            total_bytes: seen.length.total,
            freed_next: seen.length.freed_next,
            age,
            changed: inner.taker.catalog.committed().0 > newest.0 + own,
            health: self.health(),
            asked: inner.asks.is_open(),
        };
        due(&facts, &limits)
    }

    /// How the disks of the kept ones are.
    fn health(&self) -> Health {
        let of = |blob: &BlobRef| self.inner.taker.health(blob);
        health_of(&self.inner.kept.read(), of)
    }

    async fn take(&self, why: Due) -> Result<CommitNumber, JobError> {
        let inner = &self.inner;
        tracing::info!(?why, "a checkpoint is taken");
        let began = Instant::now();
        let needed = needed(&inner.kept.read());
        let mut taken = inner.taker.take(needed.as_ref()).await?;
        let number = taken.root.position.number;
        let before = inner.roots.read().clone();
        // Of two at one commit the later one is newer, whatever the clock.
        let least = before.newest().map_or(0, |root| root.taken + 1);
        taken.root.taken = taken.root.taken.max(least);
        let roots = before.with(taken.root.clone())?;
        let newer = KeptCheckpoint {
            root: taken.root,
            manifest: Some(taken.manifest),
            whole: true,
        };
        // From here on disks may name it: it is kept, whatever happens next.
        inner.told.lock().await.clear();
        inner.settled.store(false, Ordering::Release);
        *inner.roots.write() = roots.clone();
        {
            let mut kept = inner.kept.write();
            kept.insert(0, newer);
            kept.truncate(roots.all().len());
        }
        inner.own_commits.store(taken.commits, Ordering::Relaxed);
        self.settle().await?;
        inner.counts.taken.fetch_add(1, Ordering::Relaxed);
        inner
            .counts
            .sent
            .fetch_add(taken.sent_bytes, Ordering::Relaxed);
        tracing::info!(
            commit = number.0,
            sent_bytes = taken.sent_bytes,
            took = ?began.elapsed(),
            "checkpoint taken"
        );
        Ok(number)
    }

    /// Makes the roots count, then does what follows from that: condemns what
    /// no kept checkpoint needs, and takes the journal out up to the older.
    async fn settle(&self) -> Result<(), JobError> {
        let inner = &self.inner;
        let roots = inner.roots.read().clone();
        if roots.newest().is_none() {
            return Ok(());
        }
        let mut told = inner.told.lock().await;
        while !inner.journal.tell_roots(&roots, &mut told).await? {
            tracing::warn!("the checkpoint's root does not count yet");
            sleep(TICK).await;
        }
        drop(told);
        if inner.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        self.look_at_inherited().await;
        let known = inner.taker.catalog.checkpoint_files().await?;
        let needed = needed(&inner.kept.read());
        let gone = needed.map_or_else(Vec::new, |needed| needless(&known, &needed));
        if !gone.is_empty() {
            inner.taker.catalog.condemn_checkpoint_files(&gone).await?;
            // At most so many commits purge them, too.
            let commits = 2 * gone.len() as u64;
            inner.own_commits.fetch_add(commits, Ordering::Relaxed);
            tracing::info!(
                files = gone.len(),
                "checkpoint files that are not needed are given up"
            );
        }
        let one_is_whole = inner.kept.read().iter().any(|of| of.whole);
        if let Some(from) = roots.journal_from().filter(|_| one_is_whole) {
            let segments = inner.journal.trim(from).await?;
            if segments > 0 {
                tracing::info!(
                    segments,
                    commit = from.0,
                    "journal taken out up to the older checkpoint"
                );
            }
        }
        inner.settled.store(true, Ordering::Release);
        Ok(())
    }

    /// Looks at those that an earlier run left.
    async fn look_at_inherited(&self) {
        let unread: Vec<_> = {
            let kept = self.inner.kept.read();
            let unread = kept.iter().filter(|of| of.manifest.is_none());
            unread.map(|of| of.root.clone()).collect()
        };
        for root in unread {
            let found = inherit::look(&self.inner.taker, root).await;
            let mut kept = self.inner.kept.write();
            if let Some(of) = kept.iter_mut().find(|of| of.root == found.root) {
                *of = found;
            }
        }
    }
}

#[cfg(test)]
mod tests;

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
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use shardgate_catalog::checkpoint::{Manifest, Roots};
use shardgate_catalog::engine::RocksEngine;
use shardgate_catalog::model::BlobRef;
use shardgate_catalog::{Catalog, CatalogError};
use shardgate_journal::JournalError;
use shardgate_wire::{CommitNumber, DiskId};
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::due::{Basis, Due, Facts, Health, Limits, Wished, due, is_full, limits};
use super::report::{CheckpointStatus, KeptStatus};
use super::take::{TakeError, Taker};
use super::verify::{KeptCheckpoint, health_of, needless};
use crate::journal::{JournalLength, Keeper};
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
    pub engine: Arc<RocksEngine>,
    /// The catalog over it.
    pub catalog: Catalog,
    /// The data path.
    pub objects: ObjectService,
    /// The pool.
    pub pool: Pool,
    /// The journal's keeper.
    pub keeper: Keeper,
    /// Lets writes wait.
    pub room: CatalogRoom,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The gateway's own folder.
    pub own: PathBuf,
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
    keeper: Keeper,
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
    /// How many were asked for; how many of those are done.
    asked: AtomicU64,
    wake: Notify,
    done: watch::Sender<Done>,
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

/// How the wishes up to a number ended.
#[derive(Clone, Debug, Default)]
struct Done {
    asked: u64,
    outcome: Option<Result<CommitNumber, String>>,
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
}

impl Checkpoints {
    /// Starts the job.
    pub fn start(parts: CheckpointParts, tracker: &TaskTracker, stop: CancellationToken) -> Self {
        let roots = parts.roots;
        let unread = |root: &shardgate_catalog::checkpoint::CheckpointRoot| KeptCheckpoint {
            root: root.clone(),
            manifest: None,
        };
        let inner = Inner {
            kept: RwLock::new(roots.all().iter().map(unread).collect()),
            taker: Taker::new(
                parts.engine,
                parts.catalog,
                parts.objects,
                parts.pool,
                parts.clock,
                parts.own,
                parts.turns,
            ),
            keeper: parts.keeper,
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
            asked: AtomicU64::new(0),
            wake: Notify::new(),
            done: watch::Sender::new(Done::default()),
        };
        let job = Self {
            inner: Arc::new(inner),
        };
        let working = job.clone();
        tracker.spawn(async move {
            let work = async { tokio::join!(working.look_for_ever(), working.take_for_ever()) };
            tokio::select! {
                _ = work => {}
                () = stop.cancelled() => {}
            }
        });
        job
    }

    /// Takes one as soon as it can, and waits for it; its commit.
    ///
    /// # Errors
    /// Why it was not taken; the job tries again by itself when one is due.
    pub async fn take_now(&self) -> Result<CommitNumber, String> {
        let mut done = self.inner.done.subscribe();
        let number = self.inner.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.inner.wake.notify_one();
        loop {
            if done.changed().await.is_err() {
                return Err("the gateway stops".to_owned());
            }
            let now = done.borrow_and_update().clone();
            if now.asked >= number
                && let Some(outcome) = now.outcome
            {
                return outcome;
            }
        }
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
            let disks = inner.keeper.journal_disks().await;
            let basis = Basis {
                smallest_disk: disks.smallest,
                segment_bytes: disks.segment_bytes,
                most_files: disks.most_files,
            };
            let limits = limits(inner.wished, basis);
            let length = match inner.keeper.length(self.newest()).await {
                Ok(length) => length,
                Err(_closed) => return,
            };
            *inner.seen.write() = Seen {
                length,
                limits: Some(limits),
            };
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
                Err(JobError::Journal(JournalError::Closed | JournalError::Fenced(_))) => return,
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
        while !self.is_asked() {
            sleep(TICK).await;
        }
    }

    fn is_asked(&self) -> bool {
        self.inner.asked.load(Ordering::Acquire) > self.inner.done.borrow().asked
    }

    /// Does what is due, and answers those who asked before it began.
    async fn work_once(&self) -> Result<(), JobError> {
        let asked = self.inner.asked.load(Ordering::Acquire);
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
        self.inner.done.send_replace(Done {
            asked,
            outcome: Some(outcome),
        });
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
            asked: self.is_asked(),
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
        let mut taken = inner.taker.take().await?;
        let number = taken.root.position.number;
        let before = inner.roots.read().clone();
        // Of two at one commit the later one is newer, whatever the clock.
        let least = before.newest().map_or(0, |root| root.taken + 1);
        taken.root.taken = taken.root.taken.max(least);
        let roots = before.with(taken.root.clone());
        let newer = KeptCheckpoint {
            root: taken.root,
            manifest: Some(taken.manifest),
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
        while !inner.keeper.tell_roots(&roots, &mut told).await? {
            tracing::warn!("the checkpoint's root does not count yet");
            sleep(TICK).await;
        }
        drop(told);
        if inner.settled.load(Ordering::Acquire) {
            return Ok(());
        }
        self.read_manifests().await;
        let known = inner.taker.catalog.checkpoint_files().await?;
        let gone = needless(&known, &inner.kept.read()).unwrap_or_default();
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
        if let Some(from) = roots.journal_from() {
            let segments = inner.keeper.trim(from).await?;
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

    /// Reads the manifests that an earlier run left.
    async fn read_manifests(&self) {
        let unread: Vec<_> = {
            let kept = self.inner.kept.read();
            let unread = kept.iter().filter(|of| of.manifest.is_none());
            unread.map(|of| of.root.clone()).collect()
        };
        for root in unread {
            let files = self.inner.taker.pool_files();
            let read = files.read_whole(&root.manifest, root.manifest_hash).await;
            let read = read.map_err(|error| error.to_string());
            let decoded =
                read.and_then(|bytes| Manifest::decode(&bytes).map_err(|error| error.to_string()));
            match decoded {
                Ok(manifest) => {
                    let mut kept = self.inner.kept.write();
                    let of = kept.iter_mut().find(|of| of.root == root);
                    if let Some(of) = of {
                        of.manifest = Some(manifest);
                    }
                }
                Err(error) => {
                    let commit = root.position.number.0;
                    tracing::error!(commit, error, "the manifest of a checkpoint cannot be read");
                }
            }
        }
    }
}

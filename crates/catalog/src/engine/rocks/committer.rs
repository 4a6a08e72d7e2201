//! The committer: one thread that takes whatever commits have gathered,
//! evaluates them in order, makes those that hold durable together, applies
//! them as one write batch, and then answers all of them. No timers.
//!
//! Invariant: nothing is answered, a conflict neither, before the batch that
//! it was evaluated with is durable; after a failed write nothing is ever
//! committed again by this process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use rocksdb::{DB, WriteBatch, WriteOptions};
use shardgate_wire::CommitNumber;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::empty::Empty;
use super::sweep::{Deletions, Hand};
use super::{engine_error, options};
use crate::engine::evaluate::{Base, Changes, Overlay};
use crate::engine::log::{ChainPosition, CommitLog, Record};
use crate::engine::{Commit, CommitError, EngineError, KeyRange, MAX_COMMIT_BYTES};
use crate::keys;

/// Commits that wait at most; more wait to be taken.
const QUEUE: usize = 4096;
/// Bytes of all commits that wait or are being written.
const QUEUE_BYTES: usize = MAX_COMMIT_BYTES + (16 << 20);
/// A batch takes no further commit beyond this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// A batch takes at most this many commits.
const BATCH_COMMITS: usize = 1024;

type Outcome = Result<CommitNumber, CommitError>;

struct Request {
    commit: Commit,
    size: usize,
    answer: oneshot::Sender<Outcome>,
    _bytes: OwnedSemaphorePermit,
}

/// Handle of the committer thread; dropping it ends the thread after what was
/// handed over.
#[derive(Debug)]
pub(super) struct Committer {
    queue: Option<mpsc::Sender<Request>>,
    bytes: Arc<Semaphore>,
    thread: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(
        db: Arc<DB>,
        applied: ChainPosition,
        committed: Arc<AtomicU64>,
        log: impl CommitLog,
        empty: Arc<Empty>,
        sweeper: Hand,
    ) -> Result<Self, EngineError> {
        let (queue, inbox) = mpsc::channel(QUEUE);
        let mut work = Work {
            db,
            applied,
            committed,
            log,
            empty,
            sweeper,
            deletions: Deletions::default(),
            broken: None,
        };
        let thread = std::thread::Builder::new().name("catalog-commit".to_owned());
        let thread = thread
            .spawn(move || work.run(inbox))
            .map_err(|error| EngineError::Unavailable(error.to_string()))?;
        Ok(Self {
            queue: Some(queue),
            bytes: Arc::new(Semaphore::new(QUEUE_BYTES)),
            thread: Some(thread),
        })
    }

    pub(super) async fn commit(&self, commit: Commit) -> Outcome {
        let size = commit.size_bytes();
        if size > MAX_COMMIT_BYTES {
            return Err(CommitError::TooLarge(size));
        }
        let permits = u32::try_from(size.max(1)).expect("bounded by MAX_COMMIT_BYTES");
        let bytes = self.bytes.clone().acquire_many_owned(permits).await;
        let (answer, answered) = oneshot::channel();
        let request = Request {
            commit,
            size,
            answer,
            _bytes: bytes.expect("the semaphore is never closed"),
        };
        let queue = self.queue.as_ref().expect("taken only when dropped");
        queue.send(request).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic was answered to all who waited for it.
            let _ = thread.join();
        }
    }
}

fn ended() -> CommitError {
    EngineError::Unavailable("the catalog's committer ended".to_owned()).into()
}

struct Work<L> {
    db: Arc<DB>,
    applied: ChainPosition,
    committed: Arc<AtomicU64>,
    log: L,
    empty: Arc<Empty>,
    sweeper: Hand,
    deletions: Deletions,
    broken: Option<EngineError>,
}

impl<L: CommitLog> Work<L> {
    fn run(&mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut waiting = VecDeque::new();
        while gather(&mut inbox, &mut waiting) {
            let (answers, outcomes) = match &self.broken {
                Some(error) => refuse(&mut waiting, error),
                None => self.batch(&mut waiting),
            };
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // Whoever left does not undo a commit.
                let _ = answer.send(outcome);
            }
        }
    }

    /// One round: evaluate, make durable, apply. Answers are for the caller.
    fn batch(&mut self, waiting: &mut VecDeque<Request>) -> (Vec<Answer>, Vec<Outcome>) {
        let base = Database(&self.db);
        let mut overlay = Overlay::new(&base);
        let mut records: Vec<Record> = Vec::new();
        let mut last = self.applied;
        let (mut answers, mut outcomes) = (Vec::new(), Vec::new());
        for request in waiting.drain(..) {
            let outcome = match overlay.first_failure(&request.commit) {
                Err(error) => Err(error.into()),
                Ok(Some(failed)) => Err(CommitError::Conflict(failed)),
                Ok(None) => {
                    let number = CommitNumber(last.number.0 + 1);
                    let changes = request.commit.resolve(number);
                    let record = last.next(&changes);
                    last = record.position;
                    records.push(record);
                    overlay.add(changes);
                    Ok(number)
                }
            };
            outcomes.push(outcome);
            answers.push(request.answer);
        }
        let changes = overlay.into_changes();
        if let Err(error) = self.make_durable(&records, changes, last) {
            tracing::error!(%error, "the catalog takes no more commits");
            // Whatever it was, the outcome is not known: never `Damaged`,
            // which says that a commit was refused.
            let error = EngineError::Unavailable(error.to_string());
            outcomes.fill(Err(error.clone().into()));
            self.broken = Some(error);
        }
        (answers, outcomes)
    }

    fn make_durable(
        &mut self,
        records: &[Record],
        changes: Changes,
        last: ChainPosition,
    ) -> Result<(), EngineError> {
        if records.is_empty() {
            return Ok(());
        }
        self.log.append(records)?;
        let mut batch = WriteBatch::default();
        let mut places = Vec::new();
        let mut writing = self.empty.writing();
        for (key, value) in changes {
            match value {
                Some(value) => {
                    writing.note_put(&key);
                    batch.put(key, value);
                }
                None => {
                    batch.delete(&key);
                    places.extend(self.deletions.note(&key).into_iter().flatten());
                }
            }
        }
        batch.put(keys::APPLIED, last.to_bytes());
        let by_engine = self.log.leaves_durability_to_engine();
        let mut options = WriteOptions::default();
        options.set_sync(by_engine);
        options.disable_wal(!by_engine);
        self.db.write_opt(batch, &options).map_err(engine_error)?;
        drop(writing);
        self.applied = last;
        self.committed.store(last.number.0, Ordering::Release);
        for place in places {
            self.sweeper.look(place);
        }
        Ok(())
    }
}

type Answer = oneshot::Sender<Outcome>;

fn refuse(waiting: &mut VecDeque<Request>, error: &EngineError) -> (Vec<Answer>, Vec<Outcome>) {
    waiting
        .drain(..)
        .map(|request| (request.answer, Err(error.clone().into())))
        .unzip()
}

/// Waits for a commit, then takes what else is there; false at the end.
fn gather(inbox: &mut mpsc::Receiver<Request>, waiting: &mut VecDeque<Request>) -> bool {
    let Some(first) = inbox.blocking_recv() else {
        return false;
    };
    let mut bytes = first.size;
    waiting.push_back(first);
    while waiting.len() < BATCH_COMMITS && bytes < BATCH_BYTES {
        let Ok(next) = inbox.try_recv() else { break };
        bytes += next.size;
        waiting.push_back(next);
    }
    true
}

/// What is applied.
struct Database<'d>(&'d DB);

impl Base for Database<'_> {
    fn holds(&self, key: &[u8], value: Option<&[u8]>) -> Result<bool, EngineError> {
        let found = self.0.get_pinned_opt(key, &options::reads());
        Ok(found.map_err(engine_error)?.as_deref() == value)
    }

    fn rows(&self, range: &KeyRange, limit: usize) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        let scan = crate::engine::Scan::first(range.clone(), limit);
        let open = |options| self.0.raw_iterator_opt(options);
        let entries = super::read::scan_rows(&scan, options::reads(), open);
        let entries = entries.map_err(engine_error)?.into_iter();
        Ok(entries.filter_map(crate::engine::Entry::into_row).collect())
    }
}

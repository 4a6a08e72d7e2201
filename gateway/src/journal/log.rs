//! The catalog's log over the journal's writer.
//!
//! Owns the hand-over: the catalog's committer is a thread, the writer waits
//! on the runtime. Invariant: one append at a time holds the writer, and
//! whoever else changes the journal does so between two appends. After
//! [`Journal::give_up`] nothing is appended any more.

use std::sync::Arc;

use parking_lot::Mutex as SyncMutex;
use shardgate_catalog::engine::EngineError;
use shardgate_catalog::engine::log::{CommitLog, Record};
use shardgate_journal::{JournalError, Position, Writer};
use shardgate_wire::{CallContext, Epoch, LineageId};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

/// The journal of a gateway that runs. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    writer: Mutex<Option<Writer>>,
    /// As of the last append, for those who must not wait for one.
    context: SyncMutex<CallContext>,
    given_up: CancellationToken,
    /// The epoch that took over.
    fenced: SyncMutex<Option<Epoch>>,
}

/// The writer, between two appends.
pub(super) struct Held<'a> {
    guard: MutexGuard<'a, Option<Writer>>,
}

impl Held<'_> {
    pub(super) fn writer(&mut self) -> Result<&mut Writer, JournalError> {
        self.guard.as_mut().ok_or(JournalError::Closed)
    }
}

impl Journal {
    /// Over a writer whose start is done.
    pub fn new(writer: Writer) -> Self {
        let inner = Inner {
            context: SyncMutex::new(writer.context()),
            writer: Mutex::new(Some(writer)),
            given_up: CancellationToken::new(),
            fenced: SyncMutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The log for the catalog.
    pub fn log(&self) -> JournalLog {
        JournalLog {
            journal: self.clone(),
            runtime: Handle::current(),
        }
    }

    /// Cluster, lineage, epoch, and what is durable.
    pub fn context(&self) -> CallContext {
        *self.inner.context.lock()
    }

    /// Waits until no append is under way.
    pub(super) async fn hold(&self) -> Held<'_> {
        Held {
            guard: self.inner.writer.lock().await,
        }
    }

    /// The catalog has taken another lineage; returns when a segment that
    /// names it is begun.
    ///
    /// # Errors
    /// Another gateway has taken over.
    pub(super) async fn set_lineage(&self, lineage: LineageId) -> Result<(), JournalError> {
        let mut held = self.hold().await;
        let writer = held.writer()?;
        writer.set_lineage(lineage);
        writer.begin_segment().await?;
        *self.inner.context.lock() = writer.context();
        Ok(())
    }

    /// Lets whoever waits for disks go, without an answer to what it waits
    /// for. Nothing is appended from then on.
    pub fn give_up(&self) {
        self.inner.given_up.cancel();
    }

    /// The epoch of the gateway that has taken over, once that is seen.
    pub fn taken_over(&self) -> Option<Epoch> {
        *self.inner.fenced.lock()
    }

    pub(super) fn note(&self, error: &JournalError) {
        if let JournalError::Fenced(held) = error {
            *self.inner.fenced.lock() = Some(*held);
        }
    }

    /// Ends the journal with a closing batch, so that the next start has
    /// nothing to write anew. True if it was written.
    pub async fn close(&self) -> bool {
        let writer = self.inner.writer.lock().await.take();
        match writer {
            Some(writer) => writer.close().await,
            None => false,
        }
    }

    async fn append(&self, records: Vec<shardgate_journal::Record>) -> Result<(), JournalError> {
        let mut held = self.hold().await;
        let writer = held.writer()?;
        let appended = tokio::select! {
            biased;
            () = self.inner.given_up.cancelled() => Err(JournalError::Closed),
            appended = writer.append(records) => appended,
        };
        if appended.is_err() {
            // What was sent may lie on disks: nothing may follow it.
            held.guard.take();
        } else {
            *self.inner.context.lock() = held.writer()?.context();
        }
        appended.map(drop)
    }
}

/// See the module.
pub struct JournalLog {
    journal: Journal,
    runtime: Handle,
}

impl CommitLog for JournalLog {
    fn append(&mut self, records: &[Record]) -> Result<(), EngineError> {
        let records = records.iter().map(|record| shardgate_journal::Record {
            position: Position {
                number: record.position.number,
                hash: record.position.hash,
            },
            payload: record.payload.clone(),
        });
        let appended = self
            .runtime
            .block_on(self.journal.append(records.collect()));
        appended.map_err(|error| {
            self.journal.note(&error);
            EngineError::Unavailable(format!("journal: {error}"))
        })
    }

    fn leaves_durability_to_engine(&self) -> bool {
        false
    }
}

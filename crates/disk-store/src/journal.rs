//! Journal segments of this disk: the calls of [`JournalDisk`], on a thread of
//! their own, so that no other call ever stands before them.
//!
//! Owns the folder `journal`: one file for each segment, under a number, and
//! one zeroed spare. A segment begins in the spare by one write
//! and one fdatasync, without a rename: what a file holds says what it is, and
//! only the journal's owner can read that. Invariants: a file is written only
//! at its exact end, by the epoch that began it, and not after the disk was
//! opened anew, since its end is then not known here; nothing is read through
//! the page cache.

mod folder;
mod spare;
mod store;

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_wire::journal::{
    DiskRoots, JournalDisk, JournalFile, JournalStanding, ListedJournalFile, MAX_JOURNAL_FILES,
};
use shardgate_wire::{CallContext, DiskId, StoreError};
use tokio::sync::oneshot;

use crate::core::Core;
use crate::local_disk::LocalDisk;
pub(crate) use folder::FOLDER;
use store::Store;

/// Calls that wait at most: one writer has one append in flight.
const QUEUE: usize = 16;
/// How long a check waits for the journal's thread, which may be in a sync.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

type Run = Box<dyn FnOnce(&Core, &mut Store) + Send>;

/// The queue of the journal's thread.
#[derive(Debug)]
pub(crate) struct JournalQueue {
    calls: Mutex<Option<SyncSender<Run>>>,
    inbox: Mutex<Option<Receiver<Run>>>,
}

impl JournalQueue {
    pub(crate) fn new() -> Self {
        let (calls, inbox) = sync_channel(QUEUE);
        Self {
            calls: Mutex::new(Some(calls)),
            inbox: Mutex::new(Some(inbox)),
        }
    }

    /// Takes no calls any more; the thread ends when what waits is done.
    pub(crate) fn close(&self) {
        drop(self.calls.lock().take());
    }

    fn submit(&self, run: Run) -> Result<(), StoreError> {
        let calls = self.calls.lock();
        let closed = || StoreError::Unreachable {
            why: "the disk was closed".into(),
        };
        match calls.as_ref().ok_or_else(closed)?.try_send(run) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(StoreError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(closed()),
        }
    }
}

/// What only the journal's thread knows of its files.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Where those end that were begun in this run, and may grow: everything
    /// before was synced.
    pub(crate) ends: BTreeMap<u64, u64>,
    /// A file that is no segment yet.
    pub(crate) spare: Option<u64>,
}

/// The name of the file of a number.
pub(crate) fn name_of(number: u64) -> String {
    folder::name(JournalFile(number))
}

/// The number that a name is of.
pub(crate) fn number_of(name: &[u8]) -> Option<u64> {
    folder::number(name).map(|file| file.0)
}

impl JournalQueue {
    /// Asks the journal's thread for what it knows.
    ///
    /// # Errors
    /// `Busy` if it does not answer soon: its disk is late.
    pub(crate) fn known(&self) -> Result<Known, StoreError> {
        let (answer, answered) = sync_channel(1);
        self.submit(Box::new(move |_, store| {
            // Who asked may have gone.
            let _ = answer.send(store.known());
        }))?;
        answered
            .recv_timeout(ANSWERS_WITHIN)
            .map_err(|_| StoreError::Busy)
    }
}

impl Core {
    /// The life of the journal's thread.
    pub(crate) fn keep_journal(&self) {
        let Some(inbox) = self.journal.inbox.lock().take() else {
            return;
        };
        let mut store = Store::default();
        store.look(self);
        while let Ok(run) = inbox.recv() {
            run(self, &mut store);
        }
        store.close(self);
    }
}

impl LocalDisk {
    async fn journal_call<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Core, &mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.core.journal.submit(Box::new(move |core, store| {
            // A caller that went away hears nothing; what it asked for is done.
            let _ = answer.send(run(core, store));
        }))?;
        let ended = |_| StoreError::Io {
            what: "journal call".into(),
            why: "it ended without an answer".into(),
        };
        answered.await.map_err(ended)?
    }
}

#[async_trait]
impl JournalDisk for LocalDisk {
    fn disk(&self) -> DiskId {
        self.core.identity.disk
    }

    /// Never waits for the disk: one that hangs can still be asked.
    async fn standing(&self) -> Result<JournalStanding, StoreError> {
        let core = &self.core;
        core.condition.check_present()?;
        let age = core.rules.last_call().map(|age| age.as_millis());
        Ok(JournalStanding {
            epoch: core.rules.epoch(),
            last_call_ms: age.map(|age| u64::try_from(age).unwrap_or(u64::MAX)),
            told: core.rules.told(),
            segment_bytes: core.options.journal_segment_bytes,
        })
    }

    async fn raise(&self, ctx: &CallContext) -> Result<(), StoreError> {
        let ctx = *ctx;
        let raise = move |core: &Core, _: &mut Store| core.enter_journal(&ctx).map(drop);
        self.journal_call(raise).await
    }

    async fn begin(&self, ctx: &CallContext, bytes: Bytes) -> Result<JournalFile, StoreError> {
        let ctx = *ctx;
        let begin = move |core: &Core, store: &mut Store| store.begin(core, &ctx, &bytes);
        self.journal_call(begin).await
    }

    async fn append(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let ctx = *ctx;
        self.journal_call(move |core, store| store.append(core, &ctx, file, offset, &bytes))
            .await
    }

    async fn files(&self, ctx: &CallContext) -> Result<Vec<ListedJournalFile>, StoreError> {
        let ctx = *ctx;
        let files = move |core: &Core, store: &mut Store| store.files(core, &ctx);
        self.journal_call(files).await
    }

    async fn read(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let ctx = *ctx;
        self.journal_call(move |core, store| store.read(core, &ctx, file, offset, len))
            .await
    }

    async fn remove(&self, ctx: &CallContext, files: &[JournalFile]) -> Result<(), StoreError> {
        if files.len() > MAX_JOURNAL_FILES {
            let what = format!("{} files at once", files.len());
            return Err(StoreError::BadCall { what });
        }
        let (ctx, files) = (*ctx, files.to_vec());
        let remove = move |core: &Core, store: &mut Store| store.remove(core, &ctx, &files);
        self.journal_call(remove).await
    }

    async fn roots(&self) -> Result<DiskRoots, StoreError> {
        self.journal_call(|core, _| {
            core.condition.check_present()?;
            Ok(core.rules.roots())
        })
        .await
    }

    async fn set_map(&self, ctx: &CallContext, number: u64, map: Bytes) -> Result<(), StoreError> {
        let ctx = *ctx;
        self.journal_call(move |core, _| {
            let _gate = core.enter_journal(&ctx)?;
            core.rules.set_map(&core.condition, number, &map)
        })
        .await
    }

    async fn set_checkpoint(&self, ctx: &CallContext, root: Bytes) -> Result<(), StoreError> {
        let ctx = *ctx;
        self.journal_call(move |core, _| {
            let _gate = core.enter_journal(&ctx)?;
            core.rules.set_checkpoint(&core.condition, &root)
        })
        .await
    }
}

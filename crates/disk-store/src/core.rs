//! What the threads of one disk share.
//!
//! The calls themselves are in `appending`, `putting`, `reading`, `removing`
//! and `listing`; each runs on one of the disk's threads from start to end.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, MutexGuard, RwLockReadGuard};
use shardgate_wire::{CallContext, DiskIdentity, Epoch, StoreError};

use crate::cache::Cache;
use crate::condition::Condition;
use crate::damaged::Damaged;
use crate::folder_lock::LockedFolder;
use crate::folders::Folders;
use crate::handles::Handles;
use crate::journal::JournalQueue;
use crate::key_locks::KeyLocks;
use crate::lanes::Lanes;
use crate::latency::Latency;
use crate::listing::Cursor;
use crate::medium::MediumFigures;
use crate::notes::NoteBook;
use crate::options::DiskOptions;
use crate::rules::{Gate, Rules};
use crate::scrub::Scrub;
use crate::space::Space;
use crate::volume::Engine;
use crate::writer::Direct;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) identity: DiskIdentity,
    pub(crate) path: PathBuf,
    /// The disk's folder, locked.
    pub(crate) folder: LockedFolder,
    /// The identity record as it was read.
    pub(crate) identity_record: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) options: DiskOptions,
    pub(crate) figures: MediumFigures,
    pub(crate) condition: Arc<Condition>,
    pub(crate) damaged: Damaged,
    pub(crate) scrub: Scrub,
    pub(crate) volumes: Arc<Engine>,
    pub(crate) notes: NoteBook,
    pub(crate) rules: Rules,
    pub(crate) folders: Folders,
    pub(crate) keys: KeyLocks,
    pub(crate) handles: Handles,
    pub(crate) cache: Cache,
    pub(crate) cursor: Mutex<Option<Cursor>>,
    pub(crate) space: Space,
    pub(crate) direct: Direct,
    pub(crate) latency: Latency,
    pub(crate) lanes: Lanes,
    /// Held by whoever changes what volumes there are.
    pub(crate) tidying: Mutex<()>,
    /// Whether no file of a shard waits to be settled: each has the mark that
    /// it is finished, or is unfinished.
    pub(crate) settled: AtomicBool,
    pub(crate) journal: JournalQueue,
}

impl Core {
    /// Lets a call that changes something in (see [`Rules::enter`]).
    pub(crate) fn enter(&self, ctx: &CallContext) -> Result<RwLockReadGuard<'_, Gate>, StoreError> {
        self.rules
            .enter(&self.condition, ctx, &|| self.handles.end_all())
    }

    /// The same for a call of the journal.
    pub(crate) fn enter_journal(
        &self,
        ctx: &CallContext,
    ) -> Result<MutexGuard<'_, Epoch>, StoreError> {
        let ended = || self.handles.end_all();
        self.rules.enter_journal(&self.condition, ctx, &ended)
    }

    /// The same for one that only reads, also of a fenced disk.
    pub(crate) fn enter_journal_to_read(
        &self,
        ctx: &CallContext,
    ) -> Result<MutexGuard<'_, Epoch>, StoreError> {
        let ended = || self.handles.end_all();
        self.rules
            .enter_journal_to_read(&self.condition, ctx, &ended)
    }
}

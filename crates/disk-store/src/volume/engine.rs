//! What the volumes of one disk share: files, state, log, settings.
//!
//! Invariant: only the holder of [`Engine::writer`] changes volumes, the log
//! and the state; the state shows nothing that is not durable. Has no
//! threads: every call is done when it returns.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use rustix::io::Errno;
use shardgate_wire::ids::{BlobId, CommitNumber, GroupId};
use shardgate_wire::{DiskIdentity, ShardKey, StoreError};

use super::commit::Handed;
use super::files::Files;
use super::format::Entry;
use super::index_copies::IndexCopies;
use super::key_ranges::KeyRanges;
use super::logbook::Logbook;
use super::mending::Mend;
use super::volume_state::{InGroup, Volume};
use crate::aligned::AlignedBuffer;
use crate::condition::{Condition, Doing};
use crate::io::DiskIo;
use crate::progress::OpenProgress;

/// What can be set for the volumes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeFigures {
    /// Length of a volume.
    pub volume_bytes: u64,
    /// Most records of a volume.
    pub volume_records: usize,
    /// An open volume is zeroed ahead in steps of this.
    pub zero_step: u64,
    /// Batches of at least this many bytes go into space that was not zeroed
    /// before, and past the page cache: what zeroing and copying cost is more
    /// than what a sync saves by it.
    pub large_batch: u64,
    /// Longest shard that lies in a volume.
    pub volume_max: u64,
    /// Deleted records of this many bytes give their space back at once.
    pub punch_from: u64,
    /// Bytes that the log grows before it is begun anew.
    pub log_bytes: u64,
    /// Volumes and directories that are kept open.
    pub open_files: usize,
    /// Whether files of one batch are synced side by side.
    pub sync_at_once: bool,
}

/// What a disk knows of a blob besides its shards (PROTOCOL.md 9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The commit that decided.
    pub commit: CommitNumber,
    /// Whether no shard of it may be written any more.
    pub deleted: bool,
    /// In the catalog's own encoding.
    pub payload: Vec<u8>,
}

/// The volumes of a placement group, by number.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) volumes: BTreeMap<u64, Volume>,
    /// The one that takes records.
    pub(crate) open: Option<u64>,
    ranges: KeyRanges,
}

impl Group {
    /// To be called after a volume came, went or got a directory.
    pub(crate) fn arrange(&mut self) {
        self.ranges = KeyRanges::of(&self.volumes);
    }

    /// Whether a volume of it may have had any key.
    pub(crate) fn unknown(&self) -> bool {
        self.ranges.unknown()
    }

    /// The volumes that may have a key, the newest first.
    pub(crate) fn spanning(&self, key: InGroup) -> Vec<&Volume> {
        let found = self.ranges.spanning(key).into_iter();
        let volumes: Vec<&Volume> = found
            .filter_map(|sequence| self.volumes.get(&sequence))
            .filter(|volume| volume.spans(key))
            .collect();
        debug_assert_eq!(
            volumes.len(),
            self.volumes.values().filter(|v| v.spans(key)).count(),
            "the ranges are not those of the volumes"
        );
        volumes
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) groups: BTreeMap<GroupId, Group>,
    pub(crate) notes: BTreeMap<(GroupId, BlobId), Note>,
    /// Counts changes after which a place that was found may not hold.
    pub(crate) moves: u64,
    /// The run before closed the disk in order.
    pub(crate) clean: bool,
    /// Part of the log was lost: deletes and notes may be missing.
    pub(crate) incomplete: bool,
    /// Nobody knows which groups have volumes: no shard is absent.
    pub(crate) unknown: bool,
}

/// What only the one who writes needs.
#[derive(Debug)]
pub(crate) struct Writer {
    /// For large batches.
    pub(crate) buffer: AlignedBuffer,
    /// None on a disk that takes no writes.
    pub(crate) log: Option<Logbook>,
    pub(crate) next_volume: u64,
    pub(crate) next_log: u64,
}

/// Where random numbers come from.
pub(crate) type Random = Box<dyn Fn() -> u64 + Send + Sync>;

/// The volumes of one disk.
pub(crate) struct Engine {
    pub(crate) io: Arc<dyn DiskIo>,
    pub(crate) identity: DiskIdentity,
    pub(crate) condition: Arc<Condition>,
    pub(crate) figures: VolumeFigures,
    pub(crate) random: Random,
    pub(crate) progress: Arc<OpenProgress>,
    pub(crate) state: RwLock<State>,
    pub(crate) writer: Mutex<Writer>,
    pub(crate) files: Files,
    /// Copies of directories, where there is a faster disk for them.
    pub(crate) index: Option<IndexCopies>,
    /// What waits for the next commit.
    pub(crate) handed: Mutex<Vec<Arc<Handed>>>,
    /// Bytes that may be zeroed ahead of what is written.
    pub(crate) ahead: AtomicU64,
    /// Large records that were deleted, whose space is to be given back.
    pub(crate) punches: Mutex<Vec<(GroupId, u64, Entry)>>,
    /// Directories with damaged pages.
    pub(crate) mends: Mutex<BTreeMap<(GroupId, u64), Mend>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("disk", &self.identity.disk)
            .finish_non_exhaustive()
    }
}

/// A shard that is damaged.
pub(crate) fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: what.into() }
}

impl Engine {
    /// The right to write: nobody else has it meanwhile.
    pub(crate) fn writing(&self) -> MutexGuard<'_, Writer> {
        // Threads of a test that take turns let the holder go on.
        #[cfg(test)]
        loop {
            if let Some(writer) = self.writer.try_lock() {
                return writer;
            }
            if !crate::io::sim::pause() {
                break;
            }
        }
        self.writer.lock()
    }

    /// What a refusal of the system means.
    pub(crate) fn refused(&self, doing: Doing, what: &str, error: &io::Error) -> StoreError {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        match errno {
            Some(errno) => self.condition.refused(doing, what, errno),
            None => match doing {
                Doing::Reading => StoreError::Io {
                    what: what.to_owned(),
                    why: error.to_string(),
                },
                Doing::Writing | Doing::Syncing => self.condition.fence(format!("{what}: {error}")),
            },
        }
    }

    /// Space that the file system has besides what is about to be written.
    pub(crate) fn may_take_ahead(&self, bytes: u64) {
        self.ahead.store(bytes, Ordering::Relaxed);
    }

    /// How far to zero at once.
    pub(crate) fn zero_step(&self) -> u64 {
        let ahead = self.ahead.load(Ordering::Relaxed) / 4096 * 4096;
        self.figures.zero_step.min(ahead).max(4096)
    }

    pub(crate) fn unread(&self, error: &io::Error) -> StoreError {
        self.refused(Doing::Reading, "read volume", error)
    }

    /// The note of a blob.
    pub fn note(&self, group: GroupId, blob: BlobId) -> Option<Note> {
        self.state.read().notes.get(&(group, blob)).cloned()
    }

    /// Whether shards of a group may be there that no list shows.
    pub(crate) fn may_hide(&self, group: GroupId) -> bool {
        let state = self.state.read();
        state.unknown || state.groups.get(&group).is_some_and(Group::unknown)
    }

    /// How many notes there are.
    pub(crate) fn notes_len(&self) -> usize {
        self.state.read().notes.len()
    }

    /// Whether a shard of the blob may be written.
    pub(crate) fn check_deleted(&self, key: ShardKey) -> Result<(), StoreError> {
        self.check_note(&self.state.read(), key)
    }

    /// Notes in order of group and blob, after `after`.
    pub fn notes(
        &self,
        after: Option<(GroupId, BlobId)>,
        limit: usize,
    ) -> Vec<((GroupId, BlobId), Note)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let state = self.state.read();
        let range = state.notes.range((from, Unbounded));
        range
            .take(limit)
            .map(|(key, note)| (*key, note.clone()))
            .collect()
    }

    /// Whether a shard of the blob may be written.
    pub(crate) fn check_note(&self, state: &State, key: ShardKey) -> Result<(), StoreError> {
        match state.notes.get(&(key.group, key.blob)) {
            Some(note) if note.deleted => Err(StoreError::BadCall {
                what: format!("blob {} was deleted by commit {}", key.blob, note.commit),
            }),
            _ => Ok(()),
        }
    }
}

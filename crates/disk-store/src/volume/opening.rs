//! Opening the volumes of a disk.
//!
//! Sealed volumes cost one read of their directory's head; only those that
//! have none are read, past the page cache, after they were synced. A volume
//! that an earlier run left open takes records again only if that run closed
//! the disk in order: else its end may show in the cache what the disk does
//! not have, and it is sealed as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::{DiskIdentity, StoreError};
use tracing::{error, info};

use super::engine::{Engine, Group, Note, Random, State, VolumeFigures, Writer};
use super::files::Files;
use super::format::LogEntry;
use super::index_copies::IndexCopies;
use super::loading::lost_volume;
use super::logbook::{self, Loaded};
use super::making::make_folder;
use super::place::{LOG, VOLUMES, What, group_folder, log_file, parse_volume_file, volume_file};
use super::source::is_bad_medium;
use super::volume_state::at_of;
use crate::aligned::AlignedBuffer;
use crate::condition::{Condition, Doing};
use crate::directories::DirectoryMemory;
use crate::io::DiskIo;
use crate::progress::OpenProgress;

/// Numbers that are passed over where the log does not say which were used.
const NUMBERS_LOST: u64 = 1 << 20;

/// The records of a volume that were deleted.
#[derive(Default)]
pub(super) struct Dead {
    /// In units of 64 bytes.
    pub(super) at: BTreeSet<u32>,
    /// What they take.
    pub(super) bytes: u64,
}

/// What the log says, sorted.
#[derive(Default)]
pub(super) struct Held {
    pub(super) dead: BTreeMap<u64, Dead>,
    /// Volumes that took others' place.
    adopted: Vec<(GroupId, u64, Vec<u64>)>,
    next_volume: u64,
    notes: BTreeMap<(GroupId, BlobId), Note>,
    incomplete: bool,
}

impl Held {
    /// A volume of this number was made once.
    fn saw(&mut self, volume: u64) {
        self.next_volume = self.next_volume.max(volume + 1);
    }
}

fn sort(entries: Vec<LogEntry>) -> Held {
    let mut held = Held::default();
    for entry in entries {
        match entry {
            LogEntry::Delete {
                volume,
                offset,
                bytes,
            } => {
                held.saw(volume);
                let dead = held.dead.entry(volume).or_default();
                if dead.at.insert(at_of(offset)) {
                    dead.bytes = dead.bytes.saturating_add(u64::from(bytes));
                }
            }
            LogEntry::Dead { volume, bytes, at } => {
                held.saw(volume);
                let dead = held.dead.entry(volume).or_default();
                dead.at.extend(at);
                dead.bytes = dead.bytes.saturating_add(bytes);
            }
            LogEntry::Adopt { group, volume, of } => {
                held.saw(volume);
                held.adopted.push((group, volume, of));
            }
            LogEntry::Next { volume } => held.next_volume = held.next_volume.max(volume),
            LogEntry::Note {
                group,
                blob,
                commit,
                deleted,
                payload,
            } => {
                let note = Note {
                    commit,
                    deleted,
                    payload,
                };
                held.notes.insert((group, blob), note);
            }
            LogEntry::Forget { group, blob } => {
                held.notes.remove(&(group, blob));
            }
            LogEntry::Incomplete => held.incomplete = true,
            LogEntry::Begun | LogEntry::Clean | LogEntry::Room { .. } => {}
        }
    }
    held
}

/// What is in a group's folder.
pub(super) type Found = BTreeMap<u64, BTreeSet<What>>;

/// What is in the folder of volumes.
#[derive(Default)]
struct Folders {
    groups: BTreeMap<GroupId, Found>,
    /// Groups whose folders cannot be read.
    unread: Vec<GroupId>,
    /// Nobody knows which groups there are.
    all_unread: bool,
}

/// What opening needs besides the disk's folder.
pub(crate) struct Opening {
    pub(crate) io: Arc<dyn DiskIo>,
    pub(crate) identity: DiskIdentity,
    pub(crate) condition: Arc<Condition>,
    pub(crate) figures: VolumeFigures,
    /// A folder of this disk on a faster one, for copies of directories.
    pub(crate) index: Option<Arc<dyn DiskIo>>,
    /// Of all disks of the process.
    pub(crate) directories: Arc<DirectoryMemory>,
    pub(crate) progress: Arc<OpenProgress>,
    pub(crate) random: Random,
}

impl Engine {
    /// Opens the volumes of a disk. One that takes no writes is read as it
    /// is, and nothing in its folder is changed. A disk that refuses what
    /// making ready needs, or does not give what was written, is fenced, and
    /// read as it is: what verifies is served, and the rest is corrupt.
    pub(crate) fn open(with: Opening) -> Result<Self, StoreError> {
        let engine = Self {
            io: with.io,
            identity: with.identity,
            condition: with.condition,
            figures: with.figures,
            random: with.random,
            progress: with.progress,
            state: RwLock::new(State::default()),
            writer: Mutex::new(Writer {
                buffer: AlignedBuffer::default(),
                log: None,
                next_volume: 1,
                next_log: 1,
            }),
            files: Files::new(with.figures.open_files, with.directories),
            index: with
                .index
                .map(|io| IndexCopies::new(io, with.figures.open_files)),
            handed: Mutex::new(Vec::new()),
            ahead: AtomicU64::new(u64::MAX),
            punches: Mutex::new(Vec::new()),
            mends: Mutex::default(),
        };
        let writable = engine.condition.check_writable().is_ok();
        match engine.start(writable) {
            Err(StoreError::Fenced { .. } | StoreError::NoSpace) if writable => {
                let why = "its volumes could not be made ready";
                let _ = engine.condition.fence(why.into());
                engine.writing().log = None;
                engine.start(false)?;
            }
            started => started?,
        }
        Ok(engine)
    }

    fn start(&self, writable: bool) -> Result<(), StoreError> {
        if writable {
            for folder in [VOLUMES, LOG] {
                make_folder(&*self.io, Path::new(folder))
                    .map_err(|error| self.refused(Doing::Writing, "make folder", &error))?;
            }
            self.sync_folder(Path::new(""))?;
        }
        let loaded = logbook::load(&*self.io, &self.identity, writable);
        let loaded = loaded.map_err(|(doing, error)| match doing {
            Doing::Reading => self.unread_at_start("log", &error),
            doing => self.refused(doing, "sync log", &error),
        })?;
        self.load(loaded, writable)
    }

    /// What was written cannot be read: nothing more is entrusted to the disk.
    pub(super) fn unread_at_start(&self, what: &str, error: &io::Error) -> StoreError {
        if is_bad_medium(error) {
            let why = format!("{what} could not be read: {error}");
            return self.condition.fence(why);
        }
        self.unread(error)
    }

    fn sync_folder(&self, folder: &Path) -> Result<(), StoreError> {
        let synced = self.io.sync_dir(folder);
        synced.map_err(|error| self.refused(Doing::Syncing, "sync folder", &error))
    }

    fn load(&self, loaded: Loaded, writable: bool) -> Result<(), StoreError> {
        for finding in &loaded.findings {
            error!(disk = %self.identity.disk, finding, "log is damaged");
        }
        let held = sort(loaded.entries);
        let mut folders = self.folders(writable)?;
        // Before the first group's folder there was a log.
        let none = !loaded.begun && !folders.groups.is_empty();
        let incomplete = loaded.lost || none || held.incomplete;
        if incomplete {
            self.condition.count_error();
            error!(disk = %self.identity.disk, "part of the log was lost: deletes and notes may be missing");
        }
        let lost = if incomplete { NUMBERS_LOST } else { 0 };
        let mut next_volume = held.next_volume.max(1);
        let mut state = State {
            notes: held.notes.clone(),
            clean: loaded.clean,
            incomplete,
            unknown: folders.all_unread,
            ..State::default()
        };
        if writable && !loaded.clean {
            // A process that was killed may have left names that are gone, and
            // not durably so: nothing below sees what it has to wait for.
            for group in folders.groups.keys() {
                self.sync_folder(&group_folder(*group))?;
            }
        }
        if writable {
            for (group, volume, of) in &held.adopted {
                let found = folders.groups.entry(*group).or_default();
                self.complete_adoption(*group, *volume, of, found)?;
            }
        }
        let all = folders.groups.values().map(Found::len).sum();
        self.progress.begin(all);
        for (group, found) in &mut folders.groups {
            next_volume = next_volume.max(found.keys().last().map_or(0, |last| last + 1));
            if writable {
                self.remove_partial(*group, found)?;
            }
            let of = self.load_group(*group, found, &held, loaded.clean, writable)?;
            state.groups.insert(*group, of);
        }
        for group in folders.unread {
            let mut of = Group::default();
            of.volumes
                .insert(0, lost_volume(&self.identity, group, 0, 0));
            of.arrange();
            state.groups.insert(group, of);
        }
        let volumes: usize = state.groups.values().map(|of| of.volumes.len()).sum();
        info!(disk = %self.identity.disk, volumes, clean = loaded.clean, "volumes opened");
        *self.state.write() = state;
        let mut writer = self.writing();
        writer.next_volume = next_volume + lost;
        writer.next_log = loaded.next.max(1);
        if writable {
            self.renew_log(&mut writer)?;
            for old in &loaded.segments {
                let removed = self.io.remove(&log_file(*old));
                removed.map_err(|error| self.refused(Doing::Writing, "remove log", &error))?;
            }
            self.sync_folder(Path::new(LOG))?;
        }
        Ok(())
    }

    /// What is in each group's folder.
    fn folders(&self, writable: bool) -> Result<Folders, StoreError> {
        let mut all = Folders::default();
        let folders = match self.io.read_dir(Path::new(VOLUMES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
            Err(error) if !writable && is_bad_medium(&error) => {
                error!(disk = %self.identity.disk, %error, "the folder of volumes cannot be read");
                all.all_unread = true;
                return Ok(all);
            }
            folders => folders.map_err(|error| self.unread_at_start(VOLUMES, &error))?,
        };
        for folder in folders {
            let group = folder.name.to_str().and_then(|name| name.parse().ok());
            let Some(group) = group.filter(|_| folder.is_dir) else {
                continue;
            };
            let mut found = Found::new();
            let files = match self.io.read_dir(&group_folder(group)) {
                Err(error) if !writable && is_bad_medium(&error) => {
                    error!(disk = %self.identity.disk, %group, %error, "a group's folder cannot be read");
                    all.unread.push(group);
                    continue;
                }
                files => files.map_err(|error| self.unread_at_start("group's folder", &error))?,
            };
            for file in files {
                if let Some((number, what)) = file.name.to_str().and_then(parse_volume_file) {
                    found.entry(number).or_default().insert(what);
                }
            }
            all.groups.insert(group, found);
        }
        Ok(all)
    }

    /// The log says that a volume took others' place: it gets its name, they
    /// go.
    fn complete_adoption(
        &self,
        group: GroupId,
        volume: u64,
        of: &[u64],
        found: &mut Found,
    ) -> Result<(), StoreError> {
        let refused = |error: io::Error| self.refused(Doing::Writing, "adopt volume", &error);
        if found
            .get(&volume)
            .is_some_and(|whats| whats.contains(&What::Output))
        {
            let from = volume_file(group, volume, What::Output);
            let to = volume_file(group, volume, What::Volume);
            self.io.rename(&from, &to).map_err(refused)?;
            let whats = found.entry(volume).or_default();
            whats.remove(&What::Output);
            whats.insert(What::Volume);
            self.sync_folder(&group_folder(group))?;
        }
        let mut removed = false;
        for old in of {
            for what in found.remove(old).unwrap_or_default() {
                let gone = self.io.remove(&volume_file(group, *old, what));
                gone.map_err(refused)?;
                removed = true;
            }
        }
        // Durable before the log forgets it, also where no volume is left: the
        // deletes of those that came back are in no log any more.
        match removed {
            true => self.sync_folder(&group_folder(group)),
            false => Ok(()),
        }
    }

    /// Removes what never counted. A directory goes, durably, before the
    /// output that it is of: one without either volume or output is that of a
    /// volume that was lost.
    fn remove_partial(&self, group: GroupId, found: &mut Found) -> Result<(), StoreError> {
        for pass in [What::Directory, What::Output, What::Part] {
            let mut removed = false;
            for (sequence, whats) in found.iter_mut() {
                let output = whats.contains(&What::Output) && !whats.contains(&What::Volume);
                if !whats.contains(&pass) || (pass == What::Directory && !output) {
                    continue;
                }
                let gone = self.io.remove(&volume_file(group, *sequence, pass));
                gone.map_err(|error| self.refused(Doing::Writing, "remove file", &error))?;
                whats.remove(&pass);
                removed = true;
            }
            if removed {
                self.sync_folder(&group_folder(group))?;
            }
        }
        found.retain(|_, whats| !whats.is_empty());
        Ok(())
    }
}

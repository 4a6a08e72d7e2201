//! Opening the volumes of a disk.
//!
//! Sealed volumes cost one read of their directory's head; only those that
//! have none are read, past the page cache, after they were synced. A volume
//! that an earlier run left open takes records again only if that run closed
//! the disk in order: else its end may show in the cache what the disk does
//! not have, and it is sealed as it is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Mutex, RwLock};
use shardgate_wire::ids::GroupId;
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{DiskIdentity, StoreError};
use tracing::{error, info, warn};

use super::engine::{Engine, Group, Note, Random, State, VolumeFigures, Writer};
use super::files::Files;
use super::format::{
    DirectoryHead, FIRST_RECORD, HEAD_BYTES, Heading, Kind, LogEntry, NewRecord,
    decode_directory_head, directory_head_len,
};
use super::logbook::{self, Loaded, read_heading};
use super::making::make_folder;
use super::place::{LOG, VOLUMES, What, group_folder, log_file, parse_volume_file, volume_file};
use super::scan::{Scanned, Source, name, scan};
use super::volume_state::{Index, Stage, Volume};
use crate::aligned::AlignedBuffer;
use crate::condition::{Condition, Doing};
use crate::directories::DirectoryMemory;
use crate::io::{DiskFile, DiskIo, OpenHow};
use crate::progress::OpenProgress;

/// Bytes of a directory that are read first.
const FIRST_READ: u64 = 16 * 1024;

/// What the log says, sorted.
#[derive(Default)]
struct Held {
    dead: BTreeMap<u64, (BTreeSet<u32>, u64)>,
    /// Volumes that took others' place.
    adopted: Vec<(GroupId, u64, Vec<u64>)>,
    next_volume: u64,
    notes: BTreeMap<(GroupId, shardgate_wire::ids::BlobId), Note>,
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
                held.next_volume = held.next_volume.max(volume + 1);
                let (dead, sum) = held.dead.entry(volume).or_default();
                if dead.insert(super::volume_state::at_of(offset)) {
                    *sum += u64::from(bytes);
                }
            }
            LogEntry::Dead { volume, bytes, at } => {
                let (dead, sum) = held.dead.entry(volume).or_default();
                dead.extend(at);
                *sum += bytes;
            }
            LogEntry::Adopt { group, volume, of } => {
                held.next_volume = held.next_volume.max(volume + 1);
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
            LogEntry::Begun | LogEntry::Clean => {}
        }
    }
    held
}

/// What is in a group's folder.
type Found = BTreeMap<u64, BTreeSet<What>>;

/// What opening needs besides the disk's folder.
pub(crate) struct Opening {
    pub(crate) io: Arc<dyn DiskIo>,
    pub(crate) identity: DiskIdentity,
    pub(crate) condition: Arc<Condition>,
    pub(crate) figures: VolumeFigures,
    /// Of all disks of the process.
    pub(crate) directories: Arc<DirectoryMemory>,
    pub(crate) progress: Arc<OpenProgress>,
    pub(crate) random: Random,
}

impl Engine {
    /// Opens the volumes of a disk. One that takes no writes is read as it
    /// is, and nothing in its folder is changed.
    pub(crate) fn open(with: Opening) -> Result<Self, StoreError> {
        let Opening {
            io,
            identity,
            condition,
            figures,
            directories,
            progress,
            random,
        } = with;
        let writable = condition.check_writable().is_ok();
        let engine = Self {
            io,
            identity,
            condition,
            figures,
            random,
            progress,
            state: RwLock::new(State::default()),
            writer: Mutex::new(Writer {
                buffer: AlignedBuffer::default(),
                log: None,
                next_volume: 1,
                next_log: 1,
            }),
            files: Files::new(figures.open_files, directories),
            handed: Mutex::new(Vec::new()),
            ahead: AtomicU64::new(u64::MAX),
            punches: Mutex::new(Vec::new()),
        };
        if writable {
            for folder in [VOLUMES, LOG] {
                make_folder(&*engine.io, Path::new(folder))
                    .map_err(|error| engine.refused(Doing::Writing, "make folder", &error))?;
            }
            engine.sync_folder(Path::new(""))?;
        }
        let loaded = logbook::load(&*engine.io, &engine.identity, writable)
            .map_err(|error| engine.unread(&error))?;
        engine.load(loaded, writable)?;
        Ok(engine)
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
        let mut next_volume = held.next_volume.max(1);
        let mut state = State {
            notes: held.notes.clone(),
            ..State::default()
        };
        let mut groups = self.groups()?;
        if writable {
            for (group, volume, of) in &held.adopted {
                let found = groups.entry(*group).or_default();
                self.complete_adoption(*group, *volume, of, found)?;
            }
        }
        self.progress.begin(groups.values().map(Found::len).sum());
        for (group, found) in &mut groups {
            next_volume = next_volume.max(found.keys().last().map_or(0, |last| last + 1));
            if writable {
                self.remove_partial(*group, found)?;
            }
            let of = self.load_group(*group, found, &held, loaded.clean, writable)?;
            state.groups.insert(*group, of);
        }
        let volumes: usize = state.groups.values().map(|of| of.volumes.len()).sum();
        info!(disk = %self.identity.disk, volumes, clean = loaded.clean, "volumes opened");
        *self.state.write() = state;
        let mut writer = self.writer.lock();
        writer.next_volume = next_volume;
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
    fn groups(&self) -> Result<BTreeMap<GroupId, Found>, StoreError> {
        let mut groups = BTreeMap::new();
        let folders = match self.io.read_dir(Path::new(VOLUMES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(groups),
            folders => folders.map_err(|error| self.unread(&error))?,
        };
        for folder in folders {
            let group = folder.name.to_str().and_then(|name| name.parse().ok());
            let Some(group) = group.filter(|_| folder.is_dir) else {
                continue;
            };
            let mut found = Found::new();
            let files = self.io.read_dir(&group_folder(group));
            for file in files.map_err(|error| self.unread(&error))? {
                if let Some((number, what)) = file.name.to_str().and_then(parse_volume_file) {
                    found.entry(number).or_default().insert(what);
                }
            }
            groups.insert(group, found);
        }
        Ok(groups)
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
        for old in of {
            for what in found.remove(old).unwrap_or_default() {
                let removed = self.io.remove(&volume_file(group, *old, what));
                removed.map_err(refused)?;
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        self.sync_folder(&group_folder(group))
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

    fn load_group(
        &self,
        group: GroupId,
        found: &Found,
        held: &Held,
        clean: bool,
        writable: bool,
    ) -> Result<Group, StoreError> {
        let mut of = Group::default();
        for (sequence, whats) in found {
            let is_there = whats.contains(&What::Volume);
            if !is_there && (!whats.contains(&What::Directory) || whats.contains(&What::Output)) {
                continue;
            }
            let sealed = if whats.contains(&What::Directory) {
                self.load_directory(group, *sequence)?
            } else {
                None
            };
            let none = (BTreeSet::new(), 0);
            let (dead, dead_bytes) = held.dead.get(sequence).unwrap_or(&none);
            let mut volume = match sealed {
                Some(head) => Volume::sealed(head),
                None if !is_there => lost_volume(&self.identity, group, *sequence, 0),
                None => self.load_records(group, *sequence, clean, writable, dead)?,
            };
            if !is_there {
                error!(disk = %self.identity.disk, volume = name(group, *sequence), "a sealed volume is gone");
                volume.damaged = true;
            }
            volume.dead = dead.iter().copied().collect();
            volume.dead_bytes = *dead_bytes;
            if volume.stage == Stage::Open
                && let Some(other) = of.open.replace(*sequence)
                && let Some(other) = of.volumes.get_mut(&other)
            {
                let other: &mut Volume = other;
                other.stage = Stage::Closed;
            }
            of.volumes.insert(*sequence, volume);
            self.progress.step(self.identity.disk);
        }
        Ok(of)
    }

    /// The head of a volume's directory; `None` if it must be made anew.
    fn load_directory(
        &self,
        group: GroupId,
        sequence: u64,
    ) -> Result<Option<DirectoryHead>, StoreError> {
        let read = || -> io::Result<Vec<u8>> {
            let path = volume_file(group, sequence, What::Directory);
            let file = self.io.open(&path, OpenHow::Read)?;
            let mut source = Source::new(&*file);
            let first = source.bytes(0, FIRST_READ)?.to_vec();
            match directory_head_len(&first) {
                Some(len) if len > first.len() => Ok(source.bytes(0, len as u64)?.to_vec()),
                _ => Ok(first),
            }
        };
        let bytes = match read() {
            Err(error) => match self.unread(&error) {
                // A bad sector: the records say the same.
                StoreError::Io { .. } => Vec::new(),
                error => return Err(error),
            },
            Ok(bytes) => bytes,
        };
        let why = match decode_directory_head(&bytes) {
            Ok(head) if head.heading.is_of(&self.identity, group, sequence) => {
                return Ok(Some(head));
            }
            Ok(_) => "it is of another volume".to_owned(),
            Err(error) => error.to_string(),
        };
        warn!(disk = %self.identity.disk, volume = name(group, sequence), why, "directory is damaged, it is made anew from the records");
        Ok(None)
    }

    /// A volume without a directory, from its records.
    fn load_records(
        &self,
        group: GroupId,
        sequence: u64,
        clean: bool,
        writable: bool,
        dead: &BTreeSet<u32>,
    ) -> Result<Volume, StoreError> {
        let path = volume_file(group, sequence, What::Volume);
        let how = if writable {
            OpenHow::ReadWrite
        } else {
            OpenHow::Read
        };
        let unread = |error: io::Error| self.unread(&error);
        let file = self.io.open(&path, how).map_err(unread)?;
        if writable {
            let synced = file.sync_all();
            synced.map_err(|error| self.refused(Doing::Syncing, "sync volume", &error))?;
        }
        let heading = read_heading(&mut Source::new(&*file)).map_err(unread)?;
        let heading = heading.filter(|heading| heading.is_of(&self.identity, group, sequence));
        let Some(heading) = heading else {
            // It had one before it had its name.
            error!(disk = %self.identity.disk, volume = name(group, sequence), "volume has no heading: its records cannot be read");
            let size = file.len().map_err(unread)?;
            return Ok(lost_volume(&self.identity, group, sequence, size));
        };
        let mut scanned = scan(&*file, &heading).map_err(unread)?;
        if clean && !scanned.sealed && !scanned.closed {
            // Closing wrote an end: with it, records may be gone.
            scanned.unknown.push((scanned.tail, heading.size));
        }
        let what = name(group, sequence);
        for (from, to) in &scanned.unknown {
            error!(disk = %self.identity.disk, volume = what, from, to, "volume is damaged");
        }
        for entry in scanned
            .damaged
            .iter()
            .filter(|entry| !dead.contains(&entry.at))
        {
            error!(disk = %self.identity.disk, volume = what, blob = %entry.blob, "record is damaged");
        }
        let reopens = clean && scanned.closed && scanned.torn.is_empty();
        if writable && !reopens {
            self.void_torn(&*file, &heading, &scanned)?;
        }
        Ok(volume_of(
            heading,
            file,
            &scanned,
            dead,
            reopens && writable,
        ))
    }

    /// Covers what a crash left between whole records, so that it is not
    /// taken for damage once the volume is sealed behind it.
    fn void_torn(
        &self,
        file: &dyn DiskFile,
        heading: &Heading,
        scanned: &Scanned,
    ) -> Result<(), StoreError> {
        const MARK: u64 = HEAD_BYTES as u64 + 4;
        for (from, to) in scanned.torn.iter().filter(|(_, to)| *to <= scanned.tail) {
            let data_at = from + MARK;
            let end = ShardEnd {
                shard_len: to.saturating_sub(data_at),
                blob_len: 0,
            };
            let mark = NewRecord::mark(heading.salt, *from, *from, Kind::Void, data_at, end);
            let zeroes = [0; MARK as usize];
            let bytes = match usize::try_from(to - from) {
                Ok(len) if len < zeroes.len() => &zeroes[..len],
                _ => &mark.meta[..],
            };
            file.write_at(&[IoSlice::new(bytes)], *from)
                .map_err(|error| self.refused(Doing::Writing, "void record", &error))?;
        }
        if !scanned.torn.is_empty() {
            let synced = file.sync_data();
            synced.map_err(|error| self.refused(Doing::Syncing, "void record", &error))?;
        }
        Ok(())
    }
}

fn volume_of(
    heading: Heading,
    file: Arc<dyn DiskFile>,
    scanned: &Scanned,
    dead: &BTreeSet<u32>,
    reopens: bool,
) -> Volume {
    let mut volume = Volume::new(heading, file, scanned.tail);
    volume.tail = scanned.tail;
    volume.extents_from = scanned.extents_from;
    volume.unknown = u32::try_from(scanned.unknown.len()).unwrap_or(u32::MAX);
    volume.stage = if reopens { Stage::Open } else { Stage::Closed };
    for entry in &scanned.entries {
        if dead.contains(&entry.at) {
            volume.recorded += entry.bytes();
        } else {
            volume.add(*entry);
        }
    }
    volume
}

/// A volume of which nothing is known.
fn lost_volume(disk: &DiskIdentity, group: GroupId, sequence: u64, size: u64) -> Volume {
    let heading = Heading {
        cluster: disk.cluster,
        disk: disk.disk,
        group,
        sequence,
        salt: 0,
        size,
    };
    Volume {
        heading,
        stage: Stage::Sealed,
        index: Index::Map(BTreeMap::new()),
        file: None,
        tail: FIRST_RECORD,
        zeroed_to: FIRST_RECORD,
        extents_from: size,
        promised: 0,
        out: 0,
        ended: false,
        dead: Vec::new(),
        dead_bytes: 0,
        recorded: 0,
        unknown: 1,
        damaged: true,
    }
}

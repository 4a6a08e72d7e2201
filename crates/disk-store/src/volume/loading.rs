//! Volumes as opening finds them: by their directories, or by their records.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::{DiskIdentity, StoreError};
use tracing::{error, warn};

use super::engine::{Engine, Group};
use super::format::{
    DirectoryHead, Entry, FIRST_RECORD, Heading, NewRecord, SECTOR, decode_directory_head,
    directory_head_len,
};
use super::logbook::{Refused, read_heading};
use super::opening::{Dead, Found, Held};
use super::place::{What, volume_file};
use super::scan::{Scanned, name, scan};
use super::source::{BadSectors, Source, is_bad_medium, later};
use super::volume_state::{InGroup, Index, Stage, Volume};
use crate::condition::Doing;
use crate::format::FormatError;
use crate::io::{DiskFile, OpenHow};

/// Bytes of a directory that are read first.
const FIRST_READ: u64 = 16 * 1024;

/// A volume's file, its heading and what it holds.
type Read = (Arc<dyn DiskFile>, Option<(Heading, Scanned)>);

impl Engine {
    /// The volumes of a group.
    pub(super) fn load_group(
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
            let none = Dead::default();
            let dead = held.dead.get(sequence).unwrap_or(&none);
            let mut volume = match sealed {
                Some(head) => Volume::sealed(head),
                None if !is_there => lost_volume(&self.identity, group, *sequence, 0),
                None => self.load_records(group, *sequence, clean, writable, &dead.at)?,
            };
            if !is_there {
                error!(disk = %self.identity.disk, volume = name(group, *sequence), "a sealed volume is gone");
                volume.damaged = true;
            }
            // Records that others took the place of were buried already.
            let superseded = std::mem::take(&mut volume.dead);
            let bytes = std::mem::take(&mut volume.dead_bytes);
            volume.dead = dead.at.iter().copied().chain(superseded).collect();
            volume.dead.sort_unstable();
            volume.dead_bytes = dead.bytes.saturating_add(bytes);
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
        of.arrange();
        Ok(of)
    }

    /// The head of a volume's directory; `None` if it must be made anew.
    fn load_directory(
        &self,
        group: GroupId,
        sequence: u64,
    ) -> Result<Option<DirectoryHead>, StoreError> {
        let read = || -> io::Result<(Vec<u8>, u64)> {
            let path = volume_file(group, sequence, What::Directory);
            let file = self.io.open(&path, OpenHow::Read)?;
            let mut source = Source::new(&*file, BadSectors::Refuse)?;
            let first = source.bytes(0, FIRST_READ)?.to_vec();
            let bytes = match directory_head_len(&first) {
                Some(len) if len > first.len() => source.bytes(0, len as u64)?.to_vec(),
                _ => first,
            };
            Ok((bytes, source.len))
        };
        let (bytes, len) = match read() {
            Err(error) => match self.unread(&error) {
                // A bad sector: the records say the same.
                StoreError::Io { .. } => (Vec::new(), 0),
                error => return Err(error),
            },
            Ok(bytes) => bytes,
        };
        let why = match decode_directory_head(&bytes) {
            Ok(head) if head.file_len() > len => "it was cut".to_owned(),
            Ok(head) if head.heading.is_of(&self.identity, group, sequence) => {
                return Ok(Some(head));
            }
            Ok(_) => "it is of another volume".to_owned(),
            // Whole, and not for this code to write over.
            Err(error @ FormatError::Version { .. }) => {
                let what = format!("directory of {}", name(group, sequence));
                return Err(self.unread(&later(&what, &error)));
            }
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
        let read = self.scan_file(group, sequence, writable);
        let (file, read) = match read {
            Err((Doing::Reading, error)) if !writable && is_bad_medium(&error) => {
                error!(disk = %self.identity.disk, volume = name(group, sequence), %error, "volume cannot be read");
                return Ok(lost_volume(&self.identity, group, sequence, 0));
            }
            Err((Doing::Reading, error)) => {
                return Err(self.unread_at_start(&name(group, sequence), &error));
            }
            Err((doing, error)) => return Err(self.refused(doing, "sync volume", &error)),
            Ok(read) => read,
        };
        let Some((heading, mut scanned)) = read else {
            // It had one before it had its name.
            error!(disk = %self.identity.disk, volume = name(group, sequence), "volume has no heading: its records cannot be read");
            return Ok(lost_volume(&self.identity, group, sequence, 0));
        };
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
        if scanned.unread_bytes > 0 {
            error!(disk = %self.identity.disk, volume = what, bytes = scanned.unread_bytes, "volume has bad sectors");
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

    /// Heading and records of a volume, `None` if it has no heading.
    fn scan_file(&self, group: GroupId, sequence: u64, writable: bool) -> Result<Read, Refused> {
        let path = volume_file(group, sequence, What::Volume);
        let how = match writable {
            true => OpenHow::ReadWrite,
            false => OpenHow::Read,
        };
        let reading = |error: io::Error| (Doing::Reading, error);
        let file = self.io.open(&path, how).map_err(reading)?;
        if writable {
            file.sync_all().map_err(|error| (Doing::Syncing, error))?;
        }
        let bad = BadSectors::for_disk(writable);
        let mut source = Source::new(&*file, bad).map_err(reading)?;
        let heading = read_heading(&mut source).map_err(reading)?;
        let heading = heading.filter(|heading| heading.is_of(&self.identity, group, sequence));
        let read = match heading {
            Some(heading) => Some((heading, scan(&*file, &heading, bad).map_err(reading)?)),
            None => None,
        };
        Ok((file, read))
    }

    /// Covers what a crash left before the end of records, so that it is not
    /// taken for damage once the volume's end says that all of it was synced.
    ///
    /// A mark lies in one sector, and none in a sector by which another
    /// stretch is known to be torn (a whole record is between them): whichever
    /// of them are there when the power goes again, the rest is still torn.
    fn void_torn(
        &self,
        file: &dyn DiskFile,
        heading: &Heading,
        scanned: &Scanned,
    ) -> Result<(), StoreError> {
        if scanned.torn.is_empty() {
            return Ok(());
        }
        for (from, to) in &scanned.torn {
            let mark = NewRecord::void(heading.salt, *from, *to, scanned.durable_to);
            file.write_at(&[IoSlice::new(&mark.meta)], *from)
                .map_err(|error| self.refused(Doing::Writing, "void record", &error))?;
        }
        let synced = file.sync_data();
        synced.map_err(|error| self.refused(Doing::Syncing, "void record", &error))
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
    volume.unread = scanned.unread_bytes > 0;
    volume.unknown = u32::try_from(scanned.unknown.len()).unwrap_or(u32::MAX);
    // The mark that closes the disk takes a sector each time, also of a volume
    // that takes no records: it must not come to where extents are.
    let marks_to = scanned.tail.next_multiple_of(SECTOR);
    let reopens = reopens && volume.has_room(marks_to, SECTOR, 0);
    volume.stage = if reopens { Stage::Open } else { Stage::Closed };
    let damaged: BTreeSet<u32> = scanned.damaged.iter().map(|entry| entry.at).collect();
    let live = scanned.entries.iter().filter(|entry| {
        volume.recorded += entry.bytes();
        !dead.contains(&entry.at)
    });
    // Of several records of a shard one counts, a whole one if there is one.
    // The others are deleted: found again, they would bring it back.
    let mut counts: BTreeMap<InGroup, Entry> = BTreeMap::new();
    let mut superseded = Vec::new();
    for entry in live {
        let better = counts
            .get(&entry.key())
            .is_none_or(|held| !damaged.contains(&entry.at) || damaged.contains(&held.at));
        if better {
            superseded.extend(counts.insert(entry.key(), *entry));
        } else {
            superseded.push(*entry);
        }
    }
    for entry in &superseded {
        volume.bury(entry.at, entry.bytes());
    }
    volume.index = Index::Map(counts);
    volume
}

/// A volume of which nothing is known.
pub(super) fn lost_volume(disk: &DiskIdentity, group: GroupId, sequence: u64, size: u64) -> Volume {
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
        unread: false,
    }
}

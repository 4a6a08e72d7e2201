//! Checking volumes against themselves: every record is read, and every
//! directory compared with the records it stands for.
//!
//! Says what is wrong and repairs directories, nothing else: what a record
//! holds can only come back from the other disks of its group. Others go on
//! meanwhile: what a volume should hold is looked up before it is read, what
//! was deleted since is taken off behind it, and if the volume went, or got
//! another directory, what was read of it says nothing.

mod judging;
mod log;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::Engine;
use super::format::{
    DIRECTORY_PAGE, DirectoryHead, Entry, FIRST_RECORD, Heading, decode_directory_head, decode_page,
};
use super::logbook::read_heading;
use super::place::{What, group_folder, parse_volume_file, volume_file};
use super::scan::{Scanned, name, scan_to};
use super::source::{BadSectors, GiveWay, Source, is_bad_medium};
use super::volume_state::Index;
use crate::checking::Report;
use crate::io::{DiskFile, OpenHow};
use judging::{Directory, judge_directory, judge_records};
pub(crate) use log::LogPlace;

/// A volume, by group and number.
pub(crate) type Place = (GroupId, u64);

/// What a volume should hold.
pub(crate) struct Held {
    heading: Heading,
    /// Where its records end: what is behind may be written just now.
    tail: u64,
    records: Records,
    /// Stretches that were damaged before, and whose keys nobody knows.
    unknown: u32,
}

/// Where the records of a volume are known from.
enum Records {
    /// Its directory; the records are to end with a seal.
    Directory(DirectoryHead),
    /// Memory: it is open, or not sealed yet, or gets another directory.
    Map(Vec<Entry>),
}

/// What was read of a volume.
struct Read {
    scanned: Scanned,
    headings: Vec<String>,
    directory: Option<Directory>,
}

/// A directory that does not say what the records do, and these.
pub(crate) struct Mending {
    head: DirectoryHead,
    scanned: Scanned,
}

impl Engine {
    /// Reads all volumes, and the log, as the disk does, part by part.
    #[cfg(test)]
    pub(crate) fn check(&self, repair: bool) -> Result<shardgate_wire::CheckPage, StoreError> {
        let mut report = Report::default();
        if self.report_lost_log(&mut report) && repair {
            self.accept_lost_log()?;
            report.repaired();
        }
        self.check_log(&mut report, None, &super::source::Unhurried)?;
        let mut after = None;
        while let Some(place) = self.check_next(&mut report, after, repair)? {
            after = Some(place);
        }
        Ok(report.into_page(None))
    }

    /// Reads the volume behind `after`, and gives its place; `None` if there
    /// is none.
    #[cfg(test)]
    pub(crate) fn check_next(
        &self,
        report: &mut Report,
        after: Option<Place>,
        repair: bool,
    ) -> Result<Option<Place>, StoreError> {
        let Some(place) = self.volume_behind(after) else {
            return Ok(None);
        };
        let mut of_volume = Report::default();
        self.check_group_folder(&mut of_volume, place.0)?;
        let way = &super::source::Unhurried;
        let mending = self.check_volume(&mut of_volume, place, way)?;
        if let Some(mending) = mending.filter(|_| repair) {
            self.repair_directory(&mending)?;
            of_volume.repaired();
        }
        report.add(of_volume);
        Ok(Some(place))
    }

    /// What others are compacted into has a higher number than all that there
    /// were, so that it comes behind them.
    pub(crate) fn volume_behind(&self, after: Option<Place>) -> Option<Place> {
        use std::ops::Bound::{Excluded, Unbounded};
        let (from, behind) = after.unwrap_or((GroupId(0), 0));
        let state = self.state.read();
        state.groups.range(from..).find_map(|(group, of)| {
            let first = match after {
                Some(_) if *group == from => Excluded(behind),
                _ => Unbounded,
            };
            let (sequence, _) = of.volumes.range((first, Unbounded)).next()?;
            Some((*group, *sequence))
        })
    }

    /// Reads a volume, and gives the directory that is to be written anew.
    pub(crate) fn check_volume(
        &self,
        report: &mut Report,
        place: Place,
        way: &dyn GiveWay,
    ) -> Result<Option<Mending>, StoreError> {
        let Some(held) = self.held(place) else {
            return Ok(None);
        };
        let named = name(place.0, place.1);
        if held.heading.size == 0 {
            // Opening found no more of it than its name.
            report.volume();
            let what = "volume has no heading: its records cannot be read";
            report.find(&named, None, what);
            return Ok(None);
        }
        let read = self.read_held(&held, way);
        let Some(dead) = self.dead_of(place, &held) else {
            return Ok(None); // compacted: its records are in a later one
        };
        report.volume();
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                let what = format!("volume: {}", self.unchecked(&error)?);
                report.find(&named, None, &*what);
                // Nothing is known of what a later version wrote.
                if error.kind() == io::ErrorKind::NotFound || is_bad_medium(&error) {
                    self.report_all_lost(report, &held, &dead, way);
                }
                return Ok(None);
            }
        };
        let live = |entry: &Entry| dead.at.binary_search(&entry.at).is_err();
        let mut differs = false;
        if let Some(directory) = read.directory.as_ref().filter(|_| dead.same_index) {
            let wrong = judge_directory(directory, &read.scanned, &live);
            differs = wrong.is_some();
            if let Some(what) = wrong {
                report.find(&format!("directory of {named}"), None, what);
            }
        }
        for what in read.headings {
            report.find(&named, None, what);
        }
        let said = match (&held.records, &read.directory) {
            (Records::Map(entries), _) => &entries[..],
            (_, Some(directory)) if dead.same_index => &directory.entries[..],
            _ => &[],
        };
        let lost = judge_records(report, &held, &read.scanned, said, &live);
        let Records::Directory(head) = held.records else {
            return Ok(None);
        };
        // What a directory tells of records that nobody finds is worth more
        // than one of those that are left.
        let scanned = read.scanned;
        Ok((differs && !lost).then_some(Mending { head, scanned }))
    }

    fn held(&self, (group, sequence): Place) -> Option<Held> {
        let state = self.state.read();
        let volume = state.groups.get(&group)?.volumes.get(&sequence)?;
        let records = match &volume.index {
            Index::Directory(head) => Records::Directory(head.clone()),
            Index::Map(map) => Records::Map(map.values().copied().collect()),
        };
        Some(Held {
            heading: volume.heading,
            tail: volume.tail,
            records,
            unknown: volume.unknown,
        })
    }

    /// What went since a volume was looked up; `None` if it went itself.
    fn dead_of(&self, (group, sequence): Place, held: &Held) -> Option<Dead> {
        let state = self.state.read();
        let volume = state.groups.get(&group)?.volumes.get(&sequence)?;
        let same_index = match (&volume.index, &held.records) {
            (Index::Directory(now), Records::Directory(then)) => now == then,
            _ => false,
        };
        Some(Dead {
            at: volume.dead.clone(),
            same_index,
        })
    }

    fn read_held(&self, held: &Held, way: &dyn GiveWay) -> io::Result<Read> {
        let (group, sequence) = (held.heading.group, held.heading.sequence);
        let path = volume_file(group, sequence, What::Volume);
        let file = self.io.open(&path, OpenHow::Read)?;
        let mut source = source_of(&file, way)?;
        let mut headings = Vec::new();
        let own = |heading: &Heading| *heading == held.heading;
        log::check_headings(&mut source, &own, &mut headings)?;
        let end = match held.records {
            Records::Directory(_) => held.heading.size,
            Records::Map(_) => held.tail,
        };
        let scanned = scan_to(source, &held.heading, end.max(FIRST_RECORD))?;
        let directory = match &held.records {
            Records::Directory(head) => Some(self.read_directory(head, way)),
            Records::Map(_) => None,
        };
        Ok(Read {
            scanned,
            headings,
            directory,
        })
    }

    /// A volume's own directory, from the device: not a copy on a faster disk,
    /// and not what is kept of it in memory.
    fn read_directory(&self, head: &DirectoryHead, way: &dyn GiveWay) -> Directory {
        let mut directory = Directory::default();
        let (group, sequence) = (head.heading.group, head.heading.sequence);
        let mut read = || -> io::Result<()> {
            let path = volume_file(group, sequence, What::Directory);
            let file = self.io.open(&path, OpenHow::Read)?;
            let mut source = source_of(&file, way)?;
            match decode_directory_head(source.bytes(0, head.pages_at)?) {
                Ok(found) if found == *head => {}
                Ok(_) => directory.is_wrong("its head is another"),
                Err(error) => directory.is_wrong(format!("its head: {error}")),
            }
            for page in 0..head.fence.len() {
                let at = head.pages_at + (page * DIRECTORY_PAGE) as u64;
                let bytes = source.bytes(at, DIRECTORY_PAGE as u64)?;
                match decode_page(head.heading.salt, at, bytes) {
                    Ok(entries) => directory.entries.extend(entries),
                    Err(error) => directory.is_wrong(error.to_string()),
                }
            }
            if source.unread_bytes() > 0 {
                let what = format!("{} bytes cannot be read", source.unread_bytes());
                directory.is_wrong(what);
            }
            Ok(())
        };
        match read() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                directory.is_wrong("the file is gone");
            }
            Err(error) => directory.is_wrong(format!("it cannot be read: {error}")),
        }
        directory
    }

    /// Every shard of a volume that cannot be read at all.
    fn report_all_lost(&self, report: &mut Report, held: &Held, dead: &Dead, way: &dyn GiveWay) {
        let entries = match &held.records {
            Records::Map(entries) => entries.clone(),
            Records::Directory(head) => self.read_directory(head, way).entries,
        };
        let named = name(held.heading.group, held.heading.sequence);
        for entry in entries {
            if dead.at.binary_search(&entry.at).is_err() {
                let key = key_of(held, &entry);
                report.find(&named, Some(key), "its volume cannot be read");
            }
        }
    }

    /// Names in a group's folder that are none of a volume's, and volumes that
    /// are another disk's.
    pub(crate) fn check_group_folder(
        &self,
        report: &mut Report,
        group: GroupId,
    ) -> Result<(), StoreError> {
        let folder = group_folder(group);
        let entries = match self.io.read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                let what = format!("the folder: {}", self.unchecked(&error)?);
                report.find(&folder.to_string_lossy(), None, what);
                return Ok(());
            }
        };
        for entry in entries {
            let named = entry.name.to_str().and_then(parse_volume_file);
            let is_strange = match named {
                None => true,
                // What cannot be read now is met where it is used.
                Some((sequence, What::Volume)) => !self.is_own((group, sequence)).unwrap_or(true),
                // Such as are being written, or wait for a start.
                Some(_) => false,
            };
            if is_strange {
                let place = folder.join(&entry.name);
                report.find(&place.to_string_lossy(), None, "no file of this disk");
            }
        }
        Ok(())
    }

    /// Whether a volume is this disk's, or went since it was listed. One that
    /// was made, and refused before it was used, is in no list either.
    fn is_own(&self, (group, sequence): Place) -> io::Result<bool> {
        if self.held((group, sequence)).is_some() {
            return Ok(true);
        }
        let path = volume_file(group, sequence, What::Volume);
        let file = match self.io.open(&path, OpenHow::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            file => file?,
        };
        let mut source = Source::new(&*file, BadSectors::PassOver)?;
        let heading = read_heading(&mut source)?;
        Ok(heading.is_some_and(|heading| heading.is_of(&self.identity, group, sequence)))
    }

    /// Writes a directory anew from the records. Nothing may be compacted
    /// meanwhile.
    pub(crate) fn repair_directory(&self, mending: &Mending) -> Result<(), StoreError> {
        let _no_batch = self.writing();
        let heading = &mending.head.heading;
        let is_same = {
            let state = self.state.read();
            let of = state.groups.get(&heading.group);
            let volume = of.and_then(|of| of.volumes.get(&heading.sequence));
            matches!(volume.map(|volume| &volume.index), Some(Index::Directory(head)) if *head == mending.head)
        };
        // Else it was made anew, or went, since it was read.
        if is_same {
            self.make_anew(&mending.head, &mending.scanned)?;
        }
        Ok(())
    }
}

/// What is no more, and whether the directory is that of before.
struct Dead {
    /// Places of deleted records, sorted.
    at: Vec<u32>,
    same_index: bool,
}

fn source_of<'a>(file: &'a Arc<dyn DiskFile>, way: &'a dyn GiveWay) -> io::Result<Source<'a>> {
    Ok(Source::new(&**file, BadSectors::PassOver)?.giving_way(way))
}

fn key_of(held: &Held, entry: &Entry) -> ShardKey {
    ShardKey {
        group: held.heading.group,
        blob: entry.blob,
        index: entry.index,
    }
}

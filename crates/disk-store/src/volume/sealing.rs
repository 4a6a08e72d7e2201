//! Upkeep: closed volumes get their directories, large deleted records give
//! their space back, the log is begun anew.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::{Duration, Instant};

use shardgate_wire::StoreError;
use shardgate_wire::ids::GroupId;
use shardgate_wire::store::ShardEnd;

use super::engine::{Engine, State, Writer};
use super::format::{
    DirectoryHead, Ends, Entry, HEAD_BYTES, Heading, Kind, LogEntry, NewRecord, SECTOR,
    decode_head, encode_directory,
};
use super::logbook::Logbook;
use super::place::{LOG, What, group_folder, log_file, volume_file};
use super::reading::read_at;
use super::volume_state::{Index, Stage};
use crate::condition::Doing;
use crate::io::OpenHow;

const PAGE: u64 = 4096;
/// Deleted records that wait for their space to be given back, 3 MiB of
/// memory: they are many only while there are no open files for it.
const MOST_PUNCHES: usize = if cfg!(test) { 100 } else { 65_536 };

/// What one call takes to give the space of many back: closing the disk waits
/// for it, and so does who deletes.
const PUNCH_TIME: Duration = Duration::from_millis(200);

/// What is needed to seal a volume.
struct ToSeal {
    heading: Heading,
    ends: Ends,
    zeroed_to: u64,
    entries: Vec<Entry>,
    file: std::sync::Arc<dyn crate::io::DiskFile>,
}

impl Engine {
    /// Does one thing that waits. False if there was none.
    ///
    /// # Errors
    /// The system refused; what waits is tried again by a later call.
    pub(crate) fn upkeep(&self) -> Result<bool, StoreError> {
        self.upkeep_within(PUNCH_TIME)
    }

    pub(super) fn upkeep_within(&self, time: Duration) -> Result<bool, StoreError> {
        if self.condition.check_writable().is_err() {
            return Ok(false);
        }
        let more = self.punch_within(time)?;
        if self.mend_next()? {
            return Ok(true);
        }
        let (mut refused, mut why) = (BTreeSet::new(), None);
        loop {
            match self.seal_next(&mut refused) {
                Ok(false) => return why.map_or(Ok(more), Err),
                // Of this volume alone: it holds up no other.
                Err(error @ StoreError::Io { .. }) => why = why.or(Some(error)),
                sealed => return sealed,
            }
        }
    }

    /// Seals one closed volume that is not among those that were refused; it
    /// goes there if it is. False if there is none.
    pub(super) fn seal_next(&self, refused: &mut BTreeSet<u64>) -> Result<bool, StoreError> {
        let Some(next) = self.next_to_seal(refused) else {
            return Ok(false);
        };
        let sequence = next.heading.sequence;
        let sealed = self.seal(next);
        if sealed.is_err() {
            refused.insert(sequence);
        }
        sealed.map(|()| true)
    }

    /// A large record was deleted. Where too many wait, this one's space comes
    /// back when its volume is compacted, as that of short ones does.
    pub(super) fn want_punched(&self, place: (GroupId, u64, Entry)) {
        let mut punches = self.punches.lock();
        if punches.len() < MOST_PUNCHES {
            punches.push(place);
        }
    }

    /// Gives the space of large deleted records back, those that were deleted
    /// last first. What had no open file or no time left for it waits for
    /// upkeep; what cannot be read, compaction gives back. True if any wait.
    pub(crate) fn punch_some(&self) -> Result<bool, StoreError> {
        self.punch_within(PUNCH_TIME)
    }

    /// The same for so long, and one at least.
    pub(super) fn punch_within(&self, time: Duration) -> Result<bool, StoreError> {
        let (since, mut all) = (Instant::now(), Ok(false));
        loop {
            let next = self.punches.lock().pop();
            let Some(place) = next else {
                return all;
            };
            let (group, volume, entry) = &place;
            match self.punch(*group, *volume, entry) {
                Ok(()) => {}
                Err(StoreError::Busy) => {
                    self.punches.lock().push(place);
                    return Err(StoreError::Busy);
                }
                // Of this record alone: it holds up no other.
                Err(error @ StoreError::Io { .. }) => all = all.and(Err(error)),
                Err(error) => return Err(error),
            }
            if since.elapsed() >= time {
                let more = !self.punches.lock().is_empty();
                return all.map(|_| more);
            }
        }
    }

    /// The same without a limit.
    #[cfg(test)]
    pub(crate) fn punch_all(&self) -> Result<(), StoreError> {
        self.punch_within(Duration::MAX).map(drop)
    }

    /// Closes the open volume of a group, whatever room it has.
    #[cfg(test)]
    pub(crate) fn roll(&self, group: GroupId) {
        let _writer = self.writing();
        let empty = {
            let state = self.state.read();
            let of = state.groups.get(&group);
            let open = of.and_then(|of| of.volumes.get(&of.open?));
            open.is_none_or(|volume| volume.recorded == 0 && volume.out == 0)
        };
        if !empty {
            self.close_volume(group);
        }
    }

    fn next_to_seal(&self, but: &BTreeSet<u64>) -> Option<ToSeal> {
        // A batch that closes a volume writes to it before its state shows
        // the records: sealed meanwhile, it would lose them.
        let _no_batch = self.writing();
        let state = self.state.read();
        let mut volumes = state.groups.values().flat_map(|of| of.volumes.values());
        let volume = volumes.find(|volume| {
            let waits = volume.stage == Stage::Closed && volume.out == 0;
            waits && volume.file.is_some() && !but.contains(&volume.heading.sequence)
        })?;
        let Index::Map(map) = &volume.index else {
            return None;
        };
        Some(ToSeal {
            heading: volume.heading,
            ends: Ends {
                tail: volume.tail,
                extents_from: volume.extents_from,
                unknown: volume.unknown,
                recorded: volume.recorded,
            },
            zeroed_to: volume.zeroed_to,
            entries: map.values().copied().collect(),
            file: volume.file.clone()?,
        })
    }

    /// Ends a closed volume and writes its directory. Only upkeep writes to
    /// one without extents that are out.
    fn seal(&self, of: ToSeal) -> Result<(), StoreError> {
        let heading = of.heading;
        let tail = self.end_volume(&heading, &*of.file, of.ends.tail)?;
        // If its directory is refused now, nothing is written behind its end.
        self.note_ended(&heading);
        let ends = Ends { tail, ..of.ends };
        let head = self.write_directory(heading, ends, &of.entries)?;
        self.show_sealed(head);
        // What was zeroed ahead, up to the extents.
        let from = ends.tail.next_multiple_of(PAGE);
        let to = of.ends.extents_from / PAGE * PAGE;
        if to > from && of.zeroed_to > from {
            self.punch_range(&*of.file, from, to - from)?;
        }
        Ok(())
    }

    fn note_ended(&self, heading: &Heading) {
        let mut state = self.state.write();
        let of = state.groups.get_mut(&heading.group);
        if let Some(volume) = of.and_then(|of| of.volumes.get_mut(&heading.sequence)) {
            volume.ended = true;
        }
    }

    /// Writes the record behind which nothing counts, durably, and gives
    /// where it ends.
    pub(super) fn end_volume(
        &self,
        heading: &Heading,
        file: &dyn crate::io::DiskFile,
        tail: u64,
    ) -> Result<u64, StoreError> {
        let at = tail.next_multiple_of(SECTOR);
        let end = ShardEnd {
            shard_len: 0,
            blob_len: 0,
        };
        // Records tell where extents begin; this one has none.
        let (salt, size) = (heading.salt, heading.size);
        let mark = NewRecord::mark(salt, at, tail, Kind::Seal, size, end);
        file.write_at(&[IoSlice::new(&mark.meta)], at)
            .map_err(|error| self.refused(Doing::Writing, "seal volume", &error))?;
        file.sync_data()
            .map_err(|error| self.refused(Doing::Syncing, "seal volume", &error))?;
        self.check_named(file)?;
        Ok(at + mark.head.span(at))
    }

    /// Writes a volume's directory, durably, under its name.
    pub(super) fn write_directory(
        &self,
        heading: Heading,
        ends: Ends,
        entries: &[Entry],
    ) -> Result<DirectoryHead, StoreError> {
        let directory = encode_directory(heading, ends, entries);
        let (group, sequence) = (heading.group, heading.sequence);
        if let Some(index) = &self.index {
            index.forget((group, sequence));
        }
        let part = volume_file(group, sequence, What::Part);
        let written = || -> Result<(), (Doing, io::Error)> {
            let writing = |error| (Doing::Writing, error);
            let syncing = |error| (Doing::Syncing, error);
            match self.io.remove(&part) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(writing(error));
                }
                _ => {}
            }
            let file = self.io.open(&part, OpenHow::CreateNew).map_err(writing)?;
            file.write_at(&[IoSlice::new(&directory.bytes)], 0)
                .map_err(writing)?;
            file.sync_all().map_err(syncing)?;
            let name = volume_file(group, sequence, What::Directory);
            self.io.rename(&part, &name).map_err(writing)?;
            self.io.sync_dir(&group_folder(group)).map_err(syncing)
        };
        written().map_err(|(doing, error)| self.refused(doing, "write directory", &error))?;
        self.files.forget(sequence);
        Ok(directory.head)
    }

    /// The volume is found by its directory from here on.
    pub(super) fn show_sealed(&self, head: DirectoryHead) {
        let place = (head.heading.group, head.heading.sequence);
        let mut state = self.state.write();
        state.moves += 1;
        let Some(of) = state.groups.get_mut(&head.heading.group) else {
            return;
        };
        if let Some(volume) = of.volumes.get_mut(&head.heading.sequence) {
            volume.stage = Stage::Sealed;
            volume.file = None;
            volume.tail = head.tail;
            volume.unknown = head.unknown;
            volume.index = Index::Directory(head);
        }
        of.arrange();
        drop(state);
        // What was read by the head of the one before.
        self.files.forget_pages(place.1);
        self.want_copy(place);
    }

    /// A directory is new: what a copy of the one before showed is forgotten.
    pub(super) fn want_copy(&self, place: (GroupId, u64)) {
        if let Some(index) = &self.index {
            index.distrust(place);
            self.files.forget_pages(place.1);
        }
    }

    /// Gives the space of a deleted record's bytes back; its head stays, so
    /// that records behind it are found.
    fn punch(&self, group: GroupId, sequence: u64, entry: &Entry) -> Result<(), StoreError> {
        let path = volume_file(group, sequence, What::Volume);
        let file = match self.io.open(&path, OpenHow::ReadWrite) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // To be written to: a file system that has turned read-only fences.
            file => file.map_err(|error| self.refused(Doing::Writing, "punch volume", &error))?,
        };
        let Some(heading) = self.heading_of(group, sequence) else {
            return Ok(());
        };
        let offset = entry.offset();
        let bytes = read_at(&*file, offset, HEAD_BYTES).map_err(|error| self.unread(&error))?;
        let Some(head) = decode_head(&heading, offset, &bytes) else {
            return Ok(());
        };
        let from = head.data_at.next_multiple_of(PAGE);
        let to = (head.data_at + head.end.shard_len) / PAGE * PAGE;
        if to > from {
            self.punch_range(&*file, from, to - from)?;
        }
        Ok(())
    }

    fn heading_of(&self, group: GroupId, sequence: u64) -> Option<Heading> {
        let state = self.state.read();
        let volume = state.groups.get(&group)?.volumes.get(&sequence)?;
        Some(volume.heading)
    }

    fn punch_range(
        &self,
        file: &dyn crate::io::DiskFile,
        from: u64,
        len: u64,
    ) -> Result<(), StoreError> {
        match file.punch(from, len) {
            Ok(()) => Ok(()),
            // Compaction gives it back.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(error) => Err(self.refused(Doing::Writing, "punch volume", &error)),
        }
    }

    /// Begins the log anew with what holds, and removes what it replaces.
    ///
    /// Nothing goes into the new segment before the old one is gone, durably:
    /// where there are two, both say all there is.
    pub(super) fn renew_log(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let entries = snapshot(&self.state.read(), writer.next_volume);
        let sequence = writer.next_log;
        // A number is never used twice, whatever comes of it.
        writer.next_log += 1;
        let salt = (self.random)();
        let log = Logbook::begin(&*self.io, &self.identity, sequence, salt, entries)
            .map_err(|(doing, error)| self.refused(doing, "begin log", &error))?;
        if let Some(old) = &writer.log {
            let removed = self.io.remove(&log_file(old.sequence));
            if let Err(error) = removed {
                // The new one would count after a start, and miss what goes
                // into the old one.
                let error = self.refused(Doing::Writing, "remove log", &error);
                let _ = self.condition.fence(format!("replace log: {error}"));
                return Err(error);
            }
            let synced = self.io.sync_dir(Path::new(LOG));
            synced.map_err(|error| self.refused(Doing::Syncing, "remove log", &error))?;
        }
        writer.log = Some(log);
        Ok(())
    }
}

/// Everything that holds, as entries of the log.
pub(super) fn snapshot(state: &State, next_volume: u64) -> Vec<LogEntry> {
    let mut entries = vec![LogEntry::Next {
        volume: next_volume,
    }];
    if state.incomplete {
        entries.push(LogEntry::Incomplete);
    }
    for volume in state.groups.values().flat_map(|of| of.volumes.values()) {
        if !volume.dead.is_empty() {
            let (sequence, bytes) = (volume.heading.sequence, volume.dead_bytes);
            entries.extend(LogEntry::dead(sequence, bytes, &volume.dead));
        }
    }
    for ((group, blob), note) in &state.notes {
        entries.push(LogEntry::Note {
            group: *group,
            blob: *blob,
            commit: note.commit,
            deleted: note.deleted,
            payload: note.payload.clone(),
        });
    }
    entries
}

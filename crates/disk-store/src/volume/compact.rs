//! Compaction: the live records of a volume with much waste go into a new
//! one, in order of blobs, and the volume goes.
//!
//! Crash-safe at every step. The new volume is written, with its directory,
//! under a name that is no volume's; both are made durable. Then one entry of
//! the log says that it takes the place of the old ones, together with the
//! deletes that came meanwhile: before that entry is durable nothing counts
//! but the old ones, from then on nothing but the new one. Only then are
//! names changed and files removed; a start completes what a crash left.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::{Engine, Writer};
use super::files::Order;
use super::format::{
    DirectoryHead, Ends, Entry, FIRST_RECORD, Heading, Kind, LogEntry, NewRecord, RECORD_ALIGN,
    SECTOR,
};
use super::locate::Located;
use super::place::{What, group_folder, volume_file};
use super::reading::{AT_ONCE_BYTES, Unread};
use super::volume_state::{InGroup, Index, Stage, Volume, at_of};
use crate::condition::Doing;
use crate::io::DiskFile;

/// Bytes that are copied before the pace is asked.
const STEP_BYTES: usize = 1 << 20;
/// Volumes that one output takes at most.
const MOST_SOURCES: usize = 16;

/// Asked after so many bytes were copied: false gives the compaction up.
pub(crate) type Pace<'a> = &'a mut dyn FnMut(usize) -> bool;

/// Volumes of one group that are to become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) group: GroupId,
    pub(crate) volumes: Vec<u64>,
}

/// What compaction knows of a sealed volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weight {
    sequence: u64,
    used: u64,
    waste: u64,
}

/// Which volumes of a group to compact: those that are at least half waste,
/// and small ones where several make one. The worst first.
fn choose(mut volumes: Vec<Weight>, volume_bytes: u64) -> Vec<u64> {
    const MANY: usize = 4;
    volumes.sort_by_key(|volume| std::cmp::Reverse((volume.waste, volume.sequence)));
    let live = |volume: &Weight| volume.used.saturating_sub(volume.waste);
    let wasteful = |volume: &&Weight| volume.used > 0 && 2 * volume.waste >= volume.used;
    let small = |volume: &&Weight| live(volume) < volume_bytes / 8;
    let worst: Vec<_> = volumes.iter().filter(wasteful).collect();
    let smalls: Vec<_> = volumes.iter().filter(small).collect();
    let chosen = if !worst.is_empty() {
        worst
    } else if smalls.len() >= MANY {
        smalls
    } else {
        return Vec::new();
    };
    // The output must take all of it.
    let mut room = volume_bytes / 2;
    let mut taken = Vec::new();
    for volume in chosen.into_iter().take(MOST_SOURCES) {
        if taken.is_empty() || live(volume) <= room {
            room = room.saturating_sub(live(volume));
            taken.push(volume.sequence);
        }
    }
    taken
}

/// Live records, in order of blobs, with the volume that each lies in.
type Live = BTreeMap<InGroup, (Heading, Entry)>;

/// A live record of a source.
#[derive(Clone, Copy)]
struct Copied {
    source: u64,
    from: Entry,
    to: Entry,
}

/// The volume that is written.
struct Output {
    heading: Heading,
    file: Arc<dyn DiskFile>,
    cursor: u64,
    copied: Vec<Copied>,
}

impl Engine {
    /// The volumes that are worth compacting most, if any are.
    pub(crate) fn worst(&self) -> Option<Choice> {
        let state = self.state.read();
        let mut best: Option<(u64, Choice)> = None;
        for (group, of) in &state.groups {
            let volumes = of.volumes.values().filter(|volume| {
                volume.stage == Stage::Sealed && !volume.damaged && volume.unknown == 0
            });
            let weights: Vec<_> = volumes
                .map(|volume| Weight {
                    sequence: volume.heading.sequence,
                    used: volume.used_bytes(),
                    waste: volume.waste().min(volume.used_bytes()),
                })
                .collect();
            let waste = weights.iter().map(|weight| weight.waste).max().unwrap_or(0);
            let volumes = choose(weights, self.figures.volume_bytes);
            if !volumes.is_empty() && best.as_ref().is_none_or(|(most, _)| waste > *most) {
                let group = *group;
                best = Some((waste, Choice { group, volumes }));
            }
        }
        best.map(|(_, choice)| choice)
    }

    /// Compacts volumes into one. False if the pace gave it up, or a record
    /// of them is damaged: those are left to be repaired.
    pub(crate) fn compact(&self, choice: &Choice, pace: Pace<'_>) -> Result<bool, StoreError> {
        self.condition.check_writable()?;
        let Some(live) = self.live_of(choice)? else {
            return Ok(false);
        };
        let output = if live.is_empty() {
            None
        } else {
            let size = output_size(&live);
            match self.copy(choice, live, size, pace) {
                Ok(Some(output)) => Some(output),
                Ok(None) => return Ok(false),
                Err(error) => return Err(error),
            }
        };
        self.adopt(choice, output)?;
        Ok(true)
    }

    /// The live records of volumes, in order of blobs; `None` if a directory
    /// cannot be read.
    fn live_of(&self, choice: &Choice) -> Result<Option<Live>, StoreError> {
        let mut live = BTreeMap::new();
        for sequence in &choice.volumes {
            let entries = match self.entries_of(choice.group, *sequence) {
                Err(StoreError::Corrupt { .. } | StoreError::Io { .. }) => {
                    self.leave_out(choice.group, *sequence);
                    return Ok(None);
                }
                entries => entries?,
            };
            for (heading, entry) in entries {
                live.insert(entry.key(), (heading, entry));
            }
        }
        Ok(Some(live))
    }

    /// A volume that cannot be read is not chosen again: it would hold up all
    /// the others for ever.
    fn leave_out(&self, group: GroupId, sequence: u64) {
        let mut state = self.state.write();
        let of = state.groups.get_mut(&group);
        if let Some(volume) = of.and_then(|of| of.volumes.get_mut(&sequence)) {
            volume.damaged = true;
        }
    }

    /// The live records of one volume, in order of blobs.
    pub(crate) fn entries_of(
        &self,
        group: GroupId,
        sequence: u64,
    ) -> Result<Vec<(Heading, Entry)>, StoreError> {
        let (head, dead) = {
            let state = self.state.read();
            let of = state.groups.get(&group);
            let Some(volume) = of.and_then(|of| of.volumes.get(&sequence)) else {
                return Ok(Vec::new());
            };
            match &volume.index {
                Index::Map(map) => {
                    let heading = volume.heading;
                    return Ok(map.values().map(|entry| (heading, *entry)).collect());
                }
                Index::Directory(head) => (head.clone(), volume.dead.clone()),
            }
        };
        let (heading, pages) = (head.heading, head.fence.len());
        let entries = self.directory_entries(group, &heading, head.pages_at, pages)?;
        let live = entries
            .into_iter()
            .filter(|entry| dead.binary_search(&entry.at).is_err());
        Ok(live.map(|entry| (heading, entry)).collect())
    }

    /// Writes records into a new volume that does not count yet.
    fn copy(
        &self,
        choice: &Choice,
        live: Live,
        size: u64,
        pace: Pace<'_>,
    ) -> Result<Option<Output>, StoreError> {
        let mut heading = self.new_heading(&mut self.writer.lock(), choice.group);
        heading.size = size;
        let made = self.make_file(&heading, FIRST_RECORD);
        let file = made.map_err(|(doing, error)| self.refused(doing, "compact volume", &error))?;
        let mut output = Output {
            heading,
            file,
            cursor: FIRST_RECORD,
            copied: Vec::with_capacity(live.len()),
        };
        let written = self.fill(choice, &mut output, &live, pace);
        if let Ok(true) = written {
            return Ok(Some(output));
        }
        let path = volume_file(choice.group, heading.sequence, What::Output);
        let _ = self.io.remove(&path);
        written.map(|_| None)
    }

    fn fill(
        &self,
        choice: &Choice,
        output: &mut Output,
        live: &Live,
        pace: Pace<'_>,
    ) -> Result<bool, StoreError> {
        let mut step = 0;
        for (heading, entry) in live.values() {
            let Some(len) = self.copy_record(choice.group, output, heading, entry)? else {
                self.leave_out(choice.group, heading.sequence);
                return Ok(false);
            };
            step += len;
            if step >= STEP_BYTES {
                if !pace(step) {
                    return Ok(false);
                }
                step = 0;
            }
        }
        let tail = output.cursor.next_multiple_of(SECTOR);
        let end = ShardEnd {
            shard_len: 0,
            blob_len: 0,
        };
        let (salt, size) = (output.heading.salt, output.heading.size);
        let mark = NewRecord::mark(salt, tail, output.cursor, Kind::Seal, size, end);
        let written = output.file.write_at(&[IoSlice::new(&mark.meta)], tail);
        written.map_err(|error| self.refused(Doing::Writing, "compact volume", &error))?;
        output.cursor = tail + mark.head.span(tail);
        let synced = output.file.sync_all();
        synced.map_err(|error| self.refused(Doing::Syncing, "compact volume", &error))?;
        self.check_named(&*output.file)?;
        // Its name too, before its directory has one: a directory without
        // its volume is that of one that was lost.
        self.sync_group(choice.group)?;
        Ok(true)
    }

    /// Copies one record, verified; `None` if it is damaged and still there.
    fn copy_record(
        &self,
        group: GroupId,
        output: &mut Output,
        heading: &Heading,
        entry: &Entry,
    ) -> Result<Option<usize>, StoreError> {
        let key = ShardKey {
            group,
            blob: entry.blob,
            index: entry.index,
        };
        let located = Located {
            heading: *heading,
            entry: *entry,
            // One that cannot be opened is met where it is read.
            file: self.volume_for(heading, Order::Rising).ok(),
            sure: true,
        };
        let read = self
            .open_record(key, &located, AT_ONCE_BYTES)
            .and_then(|opened| {
                let len = usize::try_from(opened.head.end.shard_len).unwrap_or(usize::MAX);
                let bytes = self.read_blocks(&opened, 0, len)?;
                Ok((opened.head.end, opened.meta, bytes.bytes))
            });
        let (end, meta, bytes) = match read {
            Ok(read) => read,
            Err(Unread::Store(StoreError::Corrupt { .. })) => {
                // Deleted meanwhile, and its space given back?
                let state = self.state.read();
                let of = state.groups.get(&group);
                let volume = of.and_then(|of| of.volumes.get(&heading.sequence));
                let gone = volume.is_none_or(|volume| volume.is_dead(entry.at));
                return Ok(gone.then_some(0));
            }
            Err(Unread::Store(error)) => return Err(error),
            Err(Unread::Io(error)) => {
                return match self.unread(&error) {
                    StoreError::Io { .. } => Ok(None), // a bad sector
                    error => Err(error),
                };
            }
        };
        let at = output.cursor;
        let salt = output.heading.salt;
        let record = NewRecord::shard(salt, at, FIRST_RECORD, &meta.header, end, &meta.crcs, None);
        let zeroes = [0; RECORD_ALIGN as usize];
        let parts = [
            IoSlice::new(&record.meta),
            IoSlice::new(&bytes),
            IoSlice::new(&zeroes[..record.padding()]),
        ];
        let written = output.file.write_at(&parts, at);
        written.map_err(|error| self.refused(Doing::Writing, "compact volume", &error))?;
        let span = record.head.span(at);
        let to = Entry {
            at: at_of(at),
            span: u32::try_from(span).expect("shards of volumes are bounded"),
            extent: 0,
            ..*entry
        };
        output.copied.push(Copied {
            source: heading.sequence,
            from: *entry,
            to,
        });
        output.cursor += span;
        Ok(Some(bytes.len()))
    }

    /// Removes an output that did not come to count, its directory first.
    /// Only while nothing that says otherwise can be in the log.
    fn give_up_output(&self, group: GroupId, sequence: u64) {
        self.files.forget(sequence);
        let gone = |what| match self.io.remove(&volume_file(group, sequence, what)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        // What remains is removed by the next start.
        if gone(What::Directory).is_ok() && self.sync_group(group).is_ok() {
            let _ = gone(What::Output);
            let _ = gone(What::Part);
        }
    }

    /// Lets the output take the place of what it was made of.
    fn adopt(&self, choice: &Choice, output: Option<Output>) -> Result<(), StoreError> {
        let group = choice.group;
        let mut adopted = None;
        if let Some(output) = &output {
            let entries: Vec<_> = output.copied.iter().map(|copied| copied.to).collect();
            let ends = Ends {
                tail: output.cursor,
                extents_from: output.heading.size,
                unknown: 0,
                recorded: entries.iter().map(Entry::bytes).sum(),
            };
            let written = self.write_directory(output.heading, ends, &entries);
            let head = written.inspect_err(|_| {
                if self.condition.check_writable().is_ok() {
                    self.give_up_output(group, output.heading.sequence);
                }
            })?;
            adopted = Some((head, &output.copied[..]));
        }
        let mut writer = self.writer.lock();
        let buried = adopted
            .as_ref()
            .map_or(Vec::new(), |(_, copied)| self.buried_since(group, copied));
        let sequence = adopted
            .as_ref()
            .map_or(0, |(head, _)| head.heading.sequence);
        if let Err(error) = self.log_adoption(&mut writer, choice, sequence, &buried) {
            // What a refused write left must be gone from the log first.
            self.mend_log(&mut writer);
            if adopted.is_some() && self.condition.check_writable().is_ok() {
                self.give_up_output(group, sequence);
            }
            return Err(error);
        }
        // From here on a start completes it, so nothing may go on as before:
        // deletes of the old volumes would be forgotten.
        let completed = self.complete(choice, adopted.map(|(head, _)| head), &buried);
        completed.map_err(|error| match error {
            StoreError::Lost { .. } | StoreError::Fenced { .. } => error,
            other => self.condition.fence(format!("adopt volume: {other}")),
        })
    }

    fn complete(
        &self,
        choice: &Choice,
        head: Option<DirectoryHead>,
        buried: &[Entry],
    ) -> Result<(), StoreError> {
        let group = choice.group;
        if let Some(head) = &head {
            let sequence = head.heading.sequence;
            let from = volume_file(group, sequence, What::Output);
            let to = volume_file(group, sequence, What::Volume);
            let renamed = self.io.rename(&from, &to);
            renamed.map_err(|error| self.refused(Doing::Writing, "adopt volume", &error))?;
            self.sync_group(group)?;
        }
        self.replace(choice, head, buried);
        for old in &choice.volumes {
            self.remove_volume(group, *old)?;
        }
        self.sync_group(group)
    }

    /// Records that were deleted after they were copied.
    fn buried_since(&self, group: GroupId, copied: &[Copied]) -> Vec<Entry> {
        let state = self.state.read();
        let Some(of) = state.groups.get(&group) else {
            return Vec::new();
        };
        let dead = |copied: &&Copied| {
            let volume = of.volumes.get(&copied.source);
            volume.is_none_or(|volume| volume.is_dead(copied.from.at))
        };
        copied.iter().filter(dead).map(|copied| copied.to).collect()
    }

    fn log_adoption(
        &self,
        writer: &mut Writer,
        choice: &Choice,
        volume: u64,
        buried: &[Entry],
    ) -> Result<(), StoreError> {
        let mut entries = vec![LogEntry::Adopt {
            group: choice.group,
            volume,
            of: choice.volumes.clone(),
        }];
        entries.extend(buried.iter().map(|entry| LogEntry::Delete {
            volume,
            offset: entry.offset(),
            bytes: u32::try_from(entry.bytes()).unwrap_or(u32::MAX),
        }));
        let file = self.log_append(writer, &entries)?;
        file.sync_data()
            .map_err(|error| self.refused(Doing::Syncing, "sync log", &error))?;
        self.check_named(&*file)?;
        if let Some(log) = &mut writer.log {
            log.synced();
        }
        Ok(())
    }

    fn replace(&self, choice: &Choice, head: Option<DirectoryHead>, buried: &[Entry]) {
        let mut state = self.state.write();
        state.moves += 1;
        let of = state.groups.entry(choice.group).or_default();
        for old in &choice.volumes {
            of.volumes.remove(old);
        }
        if let Some(head) = head {
            let sequence = head.heading.sequence;
            let mut volume = Volume::sealed(head);
            for entry in buried {
                volume.bury_entry(entry);
            }
            of.volumes.insert(sequence, volume);
        }
    }

    fn remove_volume(&self, group: GroupId, sequence: u64) -> Result<(), StoreError> {
        self.files.forget(sequence);
        for what in [What::Volume, What::Directory] {
            match self.io.remove(&volume_file(group, sequence, what)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.refused(Doing::Writing, "remove volume", &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn sync_group(&self, group: GroupId) -> Result<(), StoreError> {
        let synced = self.io.sync_dir(&group_folder(group));
        synced.map_err(|error| self.refused(Doing::Syncing, "sync folder", &error))
    }
}

/// Length of the volume that takes these records: in it, extents become part
/// of their records.
fn output_size(live: &Live) -> u64 {
    let bytes: u64 = live.values().map(|(_, entry)| entry.bytes()).sum();
    (FIRST_RECORD + bytes + 2 * SECTOR).next_multiple_of(4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_chosen_and_fit_into_one() {
        const SIZE: u64 = 1000;
        let volume = |sequence, used, waste| Weight {
            sequence,
            used,
            waste,
        };
        let chosen = |volumes: &[Weight]| choose(volumes.to_vec(), SIZE);
        assert_eq!(chosen(&[]), Vec::<u64>::new());
        // Mostly live, and full: nothing to gain.
        let full = [volume(1, 1000, 100), volume(2, 1000, 499)];
        assert_eq!(chosen(&full), Vec::<u64>::new());
        // Half waste is enough; more of them as long as they fit.
        let worst = [
            volume(1, 1000, 500),
            volume(2, 1000, 900),
            volume(3, 1000, 700),
            volume(4, 1000, 0),
        ];
        assert_eq!(chosen(&worst), [2, 3]);
        // Few small ones stay, many become one.
        let small = |count| -> Vec<_> { (1..=count).map(|at| volume(at, 100, 0)).collect() };
        assert_eq!(chosen(&small(3)), Vec::<u64>::new());
        assert_eq!(chosen(&small(4)), [4, 3, 2, 1]);
    }
}

//! Compaction: the live records of a volume with much waste go into a new
//! one, in order of blobs, and the volume goes.
//!
//! Crash-safe at every step. The new volume is written, with its directory,
//! under a name that is no volume's; both are made durable. Then one entry of
//! the log says that it takes the place of the old ones, together with the
//! deletes that came meanwhile: before that entry is durable nothing counts
//! but the old ones, from then on nothing but the new one. Only then are
//! names changed and files removed; a start completes what a crash left.

mod adopting;
mod choosing;

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::Engine;
use super::files::Order;
use super::format::{Body, Entry, FIRST_RECORD, Heading, Kind, NewRecord, RECORD_ALIGN, SECTOR};
use super::locate::Located;
use super::place::{What, volume_file};
use super::reading::Unread;
use super::volume_state::{InGroup, Index};
use crate::condition::Doing;
use crate::io::DiskFile;

pub(crate) use choosing::Choice;

/// Bytes that are copied before the pace is asked.
const STEP_BYTES: usize = if cfg!(test) { 4096 } else { 1 << 20 };

/// Asked after so many bytes were copied: false gives the compaction up.
pub(crate) type Pace<'a> = &'a mut dyn FnMut(usize) -> bool;

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
        let entries = self.directory_entries(&heading, head.pages_at, pages)?;
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
        let mut heading = self.new_heading(&mut self.writing(), choice.group);
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
            .open_record(key, &located, entry.span as usize)
            .and_then(|opened| {
                let len = usize::try_from(opened.head.end.shard_len).unwrap_or(usize::MAX);
                let bytes = self.read_blocks(&opened, 0, len)?;
                Ok((opened.head.end, opened.meta, bytes.bytes))
            });
        let (end, meta, bytes) = match read {
            Ok(read) => read,
            Err(Unread::Store(StoreError::Corrupt { .. })) => {
                // Deleted meanwhile, and its space given back?
                return Ok(self.is_gone(&located).then_some(0));
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
        let record = NewRecord::shard(
            salt,
            at,
            FIRST_RECORD,
            &meta.header,
            end,
            &meta.crcs,
            Body::Follows(&bytes),
        );
        let zeroes = [0; RECORD_ALIGN as usize];
        let parts = [
            IoSlice::new(&record.meta),
            IoSlice::new(&bytes),
            IoSlice::new(&zeroes[..record.padding()]),
        ];
        let written = output.file.write_at(&parts, at);
        written.map_err(|error| self.refused(Doing::Writing, "compact volume", &error))?;
        let span = record.head.span(at);
        let to = record.head.entry(at);
        output.copied.push(Copied {
            source: heading.sequence,
            from: *entry,
            to,
        });
        output.cursor += span;
        Ok(Some(bytes.len()))
    }
}

/// Length of the volume that takes these records: in it, extents become part
/// of their records.
fn output_size(live: &Live) -> u64 {
    let bytes: u64 = live.values().map(|(_, entry)| entry.bytes()).sum();
    (FIRST_RECORD + bytes + 2 * SECTOR).next_multiple_of(4096)
}

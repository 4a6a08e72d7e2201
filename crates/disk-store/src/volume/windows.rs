//! The records of a group's volumes in the order in which they lie on the
//! disk, for those who read all of them: scrub, repair, drain.
//!
//! Neighbours are read at once and past the page cache: what clients use
//! stays there, and what the device has is what is verified. Invariant: a
//! place is a volume and an offset. A volume that is gone is followed by the
//! next, and what it held is in a later one, so nothing that stays is passed
//! over, whatever is sealed or compacted meanwhile.

mod pieces;
mod run;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use shardgate_wire::ids::GroupId;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::{Engine, corrupt};
use super::files::Order;
use super::format::{Entry, Heading, RECORD_ALIGN};
use super::source::is_bad_medium;
use super::volume_state::Volume;
pub(crate) use crate::window::WindowCursor;
use crate::window::{Unread, Window, WindowPlace, WindowRecord, WindowShard};
use pieces::LongRecord;
use run::{RUN_BYTES, end_of, joins};

use crate::io::DiskFile;

/// Entries of a volume that a stream keeps from one window to the next: half
/// a MiB, so that a directory is read a few times in all.
const HELD_ENTRIES: usize = 16 * 1024;

/// What a stream keeps of the volume that it is in. All of it is read again
/// where there is none.
#[derive(Debug)]
pub(crate) struct HeldRecords {
    most: usize,
    of: Option<(GroupId, u64)>,
    /// There is no record between this place and the first entry.
    from: u64,
    /// The next entries, in order of place; some may be dead since.
    entries: VecDeque<Entry>,
    /// Whether the volume had no others behind them.
    complete: bool,
    /// The record of which a piece was given and others are to follow.
    long: Option<LongRecord>,
}

impl Default for HeldRecords {
    fn default() -> Self {
        Self::of_at_most(HELD_ENTRIES)
    }
}

impl HeldRecords {
    pub(crate) fn of_at_most(most: usize) -> Self {
        Self {
            most,
            of: None,
            from: 0,
            entries: VecDeque::new(),
            complete: false,
            long: None,
        }
    }

    fn serves(&self, front: &Front, from: u64) -> bool {
        self.of == Some((front.group, front.sequence))
            && self.from == from
            && (self.complete || !self.entries.is_empty())
    }

    fn take(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.from = entry.offset() + RECORD_ALIGN;
        Some(entry)
    }

    /// Puts back what was taken last.
    fn put_back(&mut self, entry: Entry) {
        self.from = entry.offset();
        self.entries.push_front(entry);
    }
}

/// The volume that a window is of.
struct Front {
    group: GroupId,
    sequence: u64,
    heading: Heading,
    /// Open while it is not sealed.
    file: Option<Arc<dyn DiskFile>>,
    unknown: bool,
}

impl Front {
    fn key(&self, entry: &Entry) -> ShardKey {
        ShardKey {
            group: self.group,
            blob: entry.blob,
            index: entry.index,
        }
    }
}

impl Engine {
    /// The records of the cursor's group from its place on, about `bytes` of
    /// them, of one volume; no next place behind the last volume.
    #[cfg(test)]
    pub(crate) fn window(&self, from: WindowCursor, bytes: u64) -> Result<Window, StoreError> {
        let window = self.window_with(from, bytes, &mut HeldRecords::default());
        window.map_err(|unread| unread.error)
    }

    /// The same for a stream, with what it kept.
    pub(crate) fn window_with(
        &self,
        from: WindowCursor,
        bytes: u64,
        held: &mut HeldRecords,
    ) -> Result<Window, Unread> {
        loop {
            let moves = self.state.read().moves;
            match self.window_now(from, bytes, held) {
                // A directory went with its volume while it was read: what it
                // named is in a later one.
                Err(_) if self.state.read().moves != moves => held.of = None,
                window => return window,
            }
        }
    }

    fn window_now(
        &self,
        from: WindowCursor,
        bytes: u64,
        held: &mut HeldRecords,
    ) -> Result<Window, Unread> {
        let WindowPlace::Record { volume, .. } = from.place else {
            return Ok(Window::default());
        };
        let Some(front) = self.front(from.group, volume) else {
            return Ok(Window::default());
        };
        let start = WindowCursor::of_volume(front.group, front.sequence);
        let place = match front.sequence == volume {
            true => from.place,
            false => start.place,
        };
        let window = self.window_of(&front, place, bytes, held);
        window.map_err(Unread::at(start))
    }

    /// The same of one volume.
    fn window_of(
        &self,
        front: &Front,
        place: WindowPlace,
        bytes: u64,
        held: &mut HeldRecords,
    ) -> Result<Window, StoreError> {
        let mut window = Window {
            unknown: front.unknown,
            ..Window::default()
        };
        let WindowPlace::Record {
            offset, mut within, ..
        } = place
        else {
            return Ok(window);
        };
        self.hold(held, front, offset)?;
        let here = |held: &HeldRecords, within| WindowPlace::Record {
            volume: front.sequence,
            offset: held.from,
            within,
        };
        let mut next = WindowCursor::of_volume(front.group, front.sequence + 1);
        while let Some(run) = self.next_run(held, front, bytes - window.read_bytes) {
            // Of the record at the place alone: if that went, those behind it
            // are read from their start.
            if run.first().map(Entry::offset) != Some(offset) {
                within = 0;
            }
            let read = match run[..] {
                [] if held.complete => break,
                [] => self.hold(held, front, held.from),
                [long] if u64::from(long.span) > RUN_BYTES => {
                    let of = (front, long);
                    let ended = self.read_long(of, &mut within, bytes, held, &mut window);
                    match ended {
                        Ok(true) => within = 0,
                        Ok(false) | Err(_) => held.put_back(long),
                    }
                    ended.map(drop)
                }
                _ => {
                    within = 0;
                    let mut left = &run[..];
                    let read = self.read_run(front, &mut left, &mut window);
                    left.iter().rev().for_each(|entry| held.put_back(*entry));
                    read
                }
            };
            match read {
                Ok(()) if window.read_bytes < bytes => continue,
                Err(error) if window.records.is_empty() => return Err(error),
                // What came is given; the next window meets the error.
                Ok(()) | Err(_) => {}
            }
            if !held.complete || !held.entries.is_empty() {
                next.place = here(held, within);
            }
            break;
        }
        window.next = Some(next);
        Ok(window)
    }

    /// Bytes of all records that were not deleted.
    pub(crate) fn live_bytes(&self) -> u64 {
        let state = self.state.read();
        let volumes = state.groups.values().flat_map(|of| of.volumes.values());
        let live = |volume: &Volume| volume.recorded.saturating_sub(volume.dead_bytes);
        volumes.map(live).sum()
    }

    /// The number of the first volume of a group from a number on.
    pub(crate) fn volume_from(&self, group: GroupId, from: u64) -> Option<u64> {
        self.front(group, from).map(|front| front.sequence)
    }

    /// The first volume of a group from a number on.
    fn front(&self, group: GroupId, from: u64) -> Option<Front> {
        let state = self.state.read();
        let of = state.groups.get(&group)?;
        let (sequence, volume) = of.volumes.range(from..).next()?;
        Some(Front {
            group,
            sequence: *sequence,
            heading: volume.heading,
            file: volume.file.clone(),
            unknown: volume.unknown > 0,
        })
    }

    /// Sees to it that entries from a place on are held.
    fn hold(&self, held: &mut HeldRecords, front: &Front, from: u64) -> Result<(), StoreError> {
        if held.serves(front, from) {
            return Ok(());
        }
        let entries = self.entries_of(front.group, front.sequence);
        let mut entries = entries
            .inspect_err(|error| {
                if matches!(error, StoreError::Corrupt { .. }) {
                    self.want_mended(front.group, front.sequence);
                }
            })?
            .into_iter()
            .map(|(_, entry)| entry)
            .filter(|entry| entry.offset() >= from)
            .collect::<Vec<_>>();
        entries.sort_unstable_by_key(|entry| entry.at);
        held.complete = entries.len() <= held.most;
        entries.truncate(held.most);
        entries.shrink_to_fit();
        held.of = Some((front.group, front.sequence));
        held.from = from;
        held.entries = entries.into();
        Ok(())
    }

    /// Takes the records that are read next at once; none if there are none
    /// held, `None` if the volume went.
    fn next_run(&self, held: &mut HeldRecords, front: &Front, most: u64) -> Option<Vec<Entry>> {
        let state = self.state.read();
        let volume = state.groups.get(&front.group)?;
        let volume = volume.volumes.get(&front.sequence)?;
        let mut run = Vec::new();
        while let Some(entry) = held.take() {
            if volume.is_dead(entry.at) {
                continue;
            }
            if !joins(&run, &entry, most) {
                held.put_back(entry);
                break;
            }
            run.push(entry);
        }
        Some(run)
    }

    /// Gives the records of a run; leaves those of it that it did not come to.
    fn read_run(
        &self,
        front: &Front,
        left: &mut &[Entry],
        window: &mut Window,
    ) -> Result<(), StoreError> {
        let run = *left;
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(());
        };
        let (from, to) = (first.offset(), end_of(last));
        window.read_bytes += to - from;
        match self.read_device(front, from, to - from)? {
            Ok(bytes) => {
                for entry in run {
                    let at = usize::try_from(entry.offset() - from).unwrap_or(usize::MAX);
                    let end = at.saturating_add(entry.span as usize).min(bytes.len());
                    let record = bytes.slice(at.min(end)..end);
                    let shard = whole_record(&front.heading, entry, front.key(entry), &record);
                    self.give(front, entry, shard, window);
                }
            }
            // One by one: what is beside the bad sectors is whole.
            Err(_) if run.len() > 1 => {
                while let Some((entry, behind)) = left.split_first() {
                    self.read_run(front, &mut std::slice::from_ref(entry), window)?;
                    *left = behind;
                }
            }
            Err(unread) => self.give(front, first, Err(unread), window),
        }
        *left = &[];
        Ok(())
    }

    /// Adds what a record is, or what is wrong with it, unless it went.
    fn give(
        &self,
        front: &Front,
        entry: &Entry,
        shard: Result<WindowShard, StoreError>,
        window: &mut Window,
    ) {
        if shard.is_err() && self.is_gone_at(&front.heading, entry.at) {
            return;
        }
        let key = front.key(entry);
        window.records.push(WindowRecord { key, shard });
    }

    /// Bytes of a volume as the device has them, fewer at its end; or what to
    /// say of records there that it does not give.
    fn read_device(
        &self,
        front: &Front,
        from: u64,
        len: u64,
    ) -> Result<Result<Bytes, StoreError>, StoreError> {
        let read = || -> io::Result<Bytes> {
            let file = match &front.file {
                Some(file) => Arc::clone(file),
                None => self.volume_for(&front.heading, Order::Rising)?,
            };
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
            let read = file.read_past_cache(&mut bytes, from)?;
            bytes.truncate(read);
            Ok(bytes.into())
        };
        match read() {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Err(corrupt("the shard's volume is gone")))
            }
            Err(error) if is_bad_medium(&error) => {
                Ok(Err(self.unread_record(&front.heading, &error)))
            }
            Err(error) => Err(self.unread(&error)),
        }
    }
}

/// The shard of a record of which all bytes were read.
fn whole_record(
    heading: &Heading,
    entry: &Entry,
    key: ShardKey,
    bytes: &Bytes,
) -> Result<WindowShard, StoreError> {
    let long = LongRecord::of(heading, entry, key, bytes)?;
    let data = long.data_of(bytes);
    long.piece(0, data, long.shard_len())
}

//! What a batch will write, and where; nothing is written here but the
//! volumes that it needs.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::store::{ShardEnd, SmallShard};
use shardgate_wire::{ShardKey, StoreError};

use super::{Ending, Op};
use crate::aligned::AlignedBuffer;
use crate::condition::Doing;
use crate::format::PAGE;
use crate::io::DiskFile;
use crate::volume::engine::{Engine, Note, Writer};
use crate::volume::format::{
    Body, Entry, Heading, LogEntry, MAX_NOTE_BYTES, NewRecord, RECORD_ALIGN, SECTOR, meta_len,
};
use crate::volume::logbook::Refused;
use crate::volume::making::Extent;

/// Bytes of a large batch that are written with one call.
const LARGE_PIECE: u64 = 1 << 20;

/// Records that are written with one call from where they are: more parts than
/// the system takes at once would be cut within a sector, which a loss of
/// power could leave half written.
const MOST_GATHERED: usize = 256;

/// A record that is about to be written.
pub(super) struct Planned<'a> {
    pub(super) op: usize,
    pub(super) record: NewRecord,
    pub(super) bytes: Bytes,
    pub(super) entry: Entry,
    pub(super) linked: Option<Linked<'a>>,
}

/// A record in an extent, of which the shard's bytes are there already.
pub(super) struct Linked<'a> {
    pub(super) extent: &'a Extent,
    at: u64,
    /// What lies before the bytes.
    meta: Vec<u8>,
}

/// What a batch writes into one volume.
pub(super) struct VolumeWrite<'a> {
    pub(super) heading: Heading,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) start: u64,
    pub(super) cursor: u64,
    /// What was synced before.
    pub(super) durable_to: u64,
    pub(super) zeroed_to: u64,
    pub(super) extents_from: u64,
    pub(super) planned: Vec<Planned<'a>>,
}

/// A record that is about to go.
pub(super) struct Burial {
    pub(super) group: GroupId,
    pub(super) volume: u64,
    pub(super) entry: Entry,
}

#[derive(Default)]
pub(super) struct Batch<'a> {
    pub(super) writes: BTreeMap<u64, VolumeWrite<'a>>,
    pub(super) log: Vec<LogEntry>,
    pub(super) log_ops: Vec<usize>,
    pub(super) burials: Vec<Burial>,
    pub(super) notes: Vec<(GroupId, BlobId, Option<Note>)>,
}
impl Engine {
    /// Plans one operation; false if there is nothing to do.
    pub(super) fn plan<'a>(
        &self,
        writer: &mut Writer,
        batch: &mut Batch<'a>,
        op: usize,
        what: &Op<'a>,
    ) -> Result<bool, StoreError> {
        match what {
            Op::Put(shard) => {
                let key = shard.header.key;
                self.check_note(&self.state.read(), key)?;
                if self.is_stored(shard)? {
                    return Ok(false);
                }
                self.plan_put(writer, batch, op, shard)?;
            }
            Op::Finish(ending) => {
                self.check_note(&self.state.read(), ending.header.key)?;
                if self.locate(ending.header.key)?.is_some() {
                    return Err(StoreError::Exists);
                }
                self.plan_finish(batch, op, ending)?;
            }
            Op::Delete(key) => return self.plan_delete(writer, batch, op, *key),
            Op::Note(group, blob, note) => {
                if note.payload.len() > MAX_NOTE_BYTES {
                    let what = format!("a note has at most {MAX_NOTE_BYTES} bytes");
                    return Err(StoreError::BadCall { what });
                }
                let held = self.note(*group, *blob);
                if held.is_some_and(|held| held.commit >= note.commit) {
                    return Ok(false); // a late repeat
                }
                batch.log_ops.push(op);
                batch.log.push(LogEntry::Note {
                    group: *group,
                    blob: *blob,
                    commit: note.commit,
                    deleted: note.deleted,
                    payload: note.payload.clone(),
                });
                batch.notes.push((*group, *blob, Some((*note).clone())));
            }
            Op::Forget(group, blob) => {
                if self.note(*group, *blob).is_none() {
                    return Ok(false);
                }
                batch.log_ops.push(op);
                batch.log.push(LogEntry::Forget {
                    group: *group,
                    blob: *blob,
                });
                batch.notes.push((*group, *blob, None));
            }
        }
        Ok(true)
    }

    /// All records of the shard go: one that stayed would be found again
    /// once the others are.
    fn plan_delete(
        &self,
        writer: &mut Writer,
        batch: &mut Batch<'_>,
        op: usize,
        key: ShardKey,
    ) -> Result<bool, StoreError> {
        let all = match self.locate_all(key) {
            Err(StoreError::Corrupt { .. } | StoreError::Io { .. }) => {
                self.mend_for(writer, key)?;
                self.locate_all(key)?
            }
            all => all?,
        };
        for located in &all {
            let (volume, entry) = (located.heading.sequence, located.entry);
            batch.log_ops.push(op);
            batch.log.push(LogEntry::Delete {
                volume,
                offset: entry.offset(),
                bytes: u32::try_from(entry.bytes()).unwrap_or(u32::MAX),
            });
            batch.burials.push(Burial {
                group: key.group,
                volume,
                entry,
            });
        }
        Ok(!all.is_empty())
    }

    fn plan_put(
        &self,
        writer: &mut Writer,
        batch: &mut Batch<'_>,
        op: usize,
        shard: &SmallShard,
    ) -> Result<(), StoreError> {
        let len = shard.bytes.len() as u64;
        let span = (meta_len(&shard.header, len) + len).next_multiple_of(RECORD_ALIGN);
        let group = shard.header.key.group;
        if !self.has_place(batch, group, span) {
            self.close_volume(group);
            self.make_volume(writer, group)?;
        }
        let write = self.open_write(batch, group, None)?;
        let end = ShardEnd {
            shard_len: len,
            blob_len: shard.blob_len,
        };
        let record = NewRecord::shard(
            write.heading.salt,
            write.cursor,
            write.durable_to,
            &shard.header,
            end,
            &shard.crcs,
            Body::Follows(&shard.bytes),
        );
        debug_assert_eq!(record.head.span(write.cursor), span);
        write.push(op, record, shard.bytes.clone(), None);
        Ok(())
    }

    fn plan_finish<'a>(
        &self,
        batch: &mut Batch<'a>,
        op: usize,
        ending: &'a Ending,
    ) -> Result<(), StoreError> {
        let extent = &ending.extent;
        let meta_len = meta_len(&ending.header, ending.end.shard_len);
        let at = extent.record_at(meta_len).ok_or(StoreError::BadCall {
            what: "the shard's end does not fit to what it was begun with".into(),
        })?;
        let write = self.open_write(batch, extent.group, Some(extent.sequence))?;
        let salt = write.heading.salt;
        let record = NewRecord::shard(
            salt,
            at,
            write.durable_to,
            &ending.header,
            ending.end,
            &ending.crcs,
            Body::Extent {
                at: extent.data_at,
                zeroes: ending.zeroes,
            },
        );
        let link = record.link(salt, write.cursor);
        let meta = record.meta;
        write.push(op, link, Bytes::new(), Some(Linked { extent, at, meta }));
        Ok(())
    }

    /// Whether a record fits behind what the batch has for the open volume.
    fn has_place(&self, batch: &Batch<'_>, group: GroupId, span: u64) -> bool {
        let state = self.state.read();
        let Some(of) = state.groups.get(&group) else {
            return false;
        };
        let Some(volume) = of.open.and_then(|open| of.volumes.get(&open)) else {
            return false;
        };
        let write = batch.writes.get(&volume.heading.sequence);
        let from = write.map_or(volume.tail.next_multiple_of(SECTOR), |write| write.cursor);
        let planned = write.map_or(0, |write| write.planned.len());
        volume.count() + planned < self.figures.volume_records && volume.has_room(from, span, 0)
    }

    /// What the batch writes into a volume, the group's open one if `None`.
    fn open_write<'b, 'a>(
        &self,
        batch: &'b mut Batch<'a>,
        group: GroupId,
        sequence: Option<u64>,
    ) -> Result<&'b mut VolumeWrite<'a>, StoreError> {
        let state = self.state.read();
        let gone = || StoreError::NoHandle;
        let of = state.groups.get(&group).ok_or_else(gone)?;
        let sequence = sequence.or(of.open).ok_or_else(gone)?;
        let volume = of.volumes.get(&sequence).ok_or_else(gone)?;
        let file = volume.file.as_ref().filter(|_| !volume.ended);
        let file = file.ok_or_else(gone)?;
        let start = volume.tail.next_multiple_of(SECTOR);
        let fresh = || VolumeWrite {
            heading: volume.heading,
            file: Arc::clone(file),
            start,
            cursor: start,
            durable_to: volume.tail,
            zeroed_to: volume.zeroed_to,
            extents_from: volume.extents_from,
            planned: Vec::new(),
        };
        Ok(batch.writes.entry(sequence).or_insert_with(fresh))
    }
}

impl<'a> VolumeWrite<'a> {
    fn push(&mut self, op: usize, record: NewRecord, bytes: Bytes, linked: Option<Linked<'a>>) {
        let span = record.head.span(self.cursor);
        let entry = record.head.entry(self.cursor);
        self.planned.push(Planned {
            op,
            record,
            bytes,
            entry,
            linked,
        });
        self.cursor += span;
    }

    /// Takes and zeroes space where that is due, durably before records are
    /// written there: a sector that is missing must show zeroes, so that a
    /// torn record is told from a damaged one.
    pub(super) fn zero_ahead(&mut self, zero_step: u64) -> Result<(), Refused> {
        // The sector behind them too: there a scan looks for what follows.
        let needed = self.cursor.next_multiple_of(SECTOR) + SECTOR;
        if needed > self.zeroed_to {
            let len = (needed - self.zeroed_to).next_multiple_of(zero_step);
            // Extents lie behind it; what they hold must stay.
            let most = self.extents_from.saturating_sub(self.zeroed_to);
            let zeroed = self.file.allocate_zeroed(self.zeroed_to, len.min(most));
            zeroed.map_err(|error| (Doing::Writing, error))?;
            let synced = self.file.sync_data();
            synced.map_err(|error| (Doing::Syncing, error))?;
            self.zeroed_to += len.min(most);
        }
        Ok(())
    }

    /// Bytes that are written.
    pub(super) fn bytes(&self) -> u64 {
        self.cursor - self.start
    }

    /// Takes space for what is written, and none ahead.
    pub(super) fn take_space(&mut self) -> io::Result<()> {
        let needed = self.cursor.next_multiple_of(SECTOR) + SECTOR;
        if needed > self.zeroed_to {
            let end = needed.next_multiple_of(PAGE as u64);
            let end = end.min(self.extents_from);
            self.file.allocate(self.zeroed_to, end - self.zeroed_to)?;
            self.zeroed_to = end;
        }
        Ok(())
    }

    /// Writes the heads of records in extents, each with one call. They are
    /// synced with their links, and count by them alone.
    pub(super) fn write_linked(&self) -> io::Result<()> {
        let linked = self
            .planned
            .iter()
            .filter_map(|planned| planned.linked.as_ref());
        for Linked { at, meta, .. } in linked {
            self.file.write_at(&[IoSlice::new(meta)], *at)?;
        }
        Ok(())
    }

    /// Writes all of it, each sector with one call.
    pub(super) fn write(&self, buffer: &mut AlignedBuffer) -> io::Result<()> {
        if self.planned.len() > MOST_GATHERED {
            return self.write_large(buffer);
        }
        let zeroes = [0; RECORD_ALIGN as usize];
        let parts: Vec<_> = self.parts(&zeroes).map(IoSlice::new).collect();
        self.file.write_at(&parts, self.start)
    }

    /// Writes all of it, whole pages from an aligned buffer, so that they go
    /// past the page cache. The first and the last page go through it: they
    /// are shared with the batches before and behind.
    pub(super) fn write_large(&self, buffer: &mut AlignedBuffer) -> io::Result<()> {
        let zeroes = [0; RECORD_ALIGN as usize];
        let mut parts = self.parts(&zeroes);
        let mut part: &[u8] = &[];
        let mut at = self.start;
        while at < self.cursor {
            let end = self.piece_end(at);
            let len = usize::try_from(end - at).expect("a piece is short");
            let piece = buffer.take(len);
            let mut filled = 0;
            while filled < len {
                if part.is_empty() {
                    part = parts.next().expect("the parts reach to the cursor");
                }
                let take = part.len().min(len - filled);
                piece[filled..filled + take].copy_from_slice(&part[..take]);
                part = &part[take..];
                filled += take;
            }
            self.file.write_at(&[IoSlice::new(piece)], at)?;
            at = end;
        }
        Ok(())
    }

    /// The end of the piece that is written at `at`.
    fn piece_end(&self, at: u64) -> u64 {
        let page = PAGE as u64;
        let last = self.cursor / page * page;
        if !at.is_multiple_of(page) {
            return at.next_multiple_of(page).min(self.cursor);
        }
        if at < last {
            return last.min(at + LARGE_PIECE);
        }
        self.cursor
    }

    /// The bytes of all records, one after the other.
    fn parts<'b>(&'b self, zeroes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        let of = |planned: &'b Planned<'a>| {
            let padding = planned.record.padding();
            [&planned.record.meta[..], &planned.bytes, &zeroes[..padding]]
        };
        let parts = self.planned.iter().flat_map(of);
        parts.filter(|part| !part.is_empty())
    }
}

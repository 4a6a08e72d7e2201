//! Group commit: what gathered is written at once, synced once, and each is
//! answered for itself.
//!
//! Each volume that is touched takes one vectored write and one fdatasync,
//! the log as well. A batch begins at a sector of its own, so that nothing
//! that was answered is written again. Invariant: the state shows a record
//! only after the syncs of its batch came back; after one that failed the
//! disk takes no writes at all.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::store::{ShardEnd, SmallShard};
use shardgate_wire::{ShardHeader, ShardKey, StoreError};

use super::engine::{Engine, Note, Writer};
use super::format::{Entry, Heading, LogEntry, NewRecord, RECORD_ALIGN, SECTOR, meta_len};
use super::making::Extent;
use super::volume_state::{Stage, at_of};
use crate::condition::Doing;
use crate::io::DiskFile;

/// What one caller wants done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op<'a> {
    /// Store a small shard.
    Put(&'a SmallShard),
    /// End a shard whose bytes are in an extent.
    Finish(&'a Ending),
    /// Delete a shard; done if there is none.
    Delete(ShardKey),
    /// Keep a note.
    Note(GroupId, BlobId, &'a Note),
    /// Drop a note.
    Forget(GroupId, BlobId),
}

/// The end of a shard that came in appends.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) extent: Extent,
    pub(crate) header: ShardHeader,
    pub(crate) end: ShardEnd,
    pub(crate) crcs: Vec<u32>,
}

impl Op<'_> {
    fn subject(&self) -> (GroupId, BlobId) {
        match self {
            Self::Put(shard) => (shard.header.key.group, shard.header.key.blob),
            Self::Finish(ending) => (ending.header.key.group, ending.header.key.blob),
            Self::Delete(key) => (key.group, key.blob),
            Self::Note(group, blob, _) | Self::Forget(group, blob) => (*group, *blob),
        }
    }
}

type Answer = Result<(), StoreError>;

/// A record that is about to be written.
struct Planned<'a> {
    op: usize,
    record: NewRecord,
    bytes: Bytes,
    entry: Entry,
    extent: Option<&'a Extent>,
}

/// What a batch writes into one volume.
struct VolumeWrite<'a> {
    heading: Heading,
    file: Arc<dyn DiskFile>,
    start: u64,
    cursor: u64,
    /// What was synced before.
    durable_to: u64,
    zeroed_to: u64,
    extents_from: u64,
    planned: Vec<Planned<'a>>,
}

/// A record that is about to go.
struct Burial {
    group: GroupId,
    volume: u64,
    entry: Entry,
}

#[derive(Default)]
struct Batch<'a> {
    writes: BTreeMap<u64, VolumeWrite<'a>>,
    log: Vec<LogEntry>,
    log_ops: Vec<usize>,
    burials: Vec<Burial>,
    notes: Vec<(GroupId, BlobId, Option<Note>)>,
}

/// A file that a batch wrote.
#[derive(Clone)]
struct Touched {
    file: Arc<dyn DiskFile>,
    what: &'static str,
}

impl Engine {
    /// Does all of `ops`, durably, and answers each.
    pub(crate) fn commit(&self, ops: &[Op<'_>]) -> Vec<Answer> {
        let mut writer = self.writer.lock();
        let mut answers: Vec<Option<Answer>> = vec![None; ops.len()];
        let mut waiting: Vec<usize> = (0..ops.len()).collect();
        while !waiting.is_empty() {
            // Two that concern one blob are done one after the other.
            let mut seen = HashSet::new();
            let (now, later): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|at| seen.insert(ops[*at].subject()));
            self.commit_round(&mut writer, ops, &now, &mut answers);
            waiting = later;
        }
        let answer = |answer: Option<Answer>| answer.expect("every round answers its operations");
        answers.into_iter().map(answer).collect()
    }

    fn commit_round(
        &self,
        writer: &mut Writer,
        ops: &[Op<'_>],
        round: &[usize],
        answers: &mut [Option<Answer>],
    ) {
        let mut batch = Batch::default();
        for at in round {
            let planned = self
                .condition
                .check_writable()
                .and_then(|()| self.plan(writer, &mut batch, *at, &ops[*at]));
            match planned {
                Ok(true) => {}
                Ok(false) => answers[*at] = Some(Ok(())),
                Err(error) => answers[*at] = Some(Err(error)),
            }
        }
        let mut touched = self.write_volumes(&mut batch, answers);
        touched.extend(self.write_log(writer, &mut batch, answers));
        let synced = self.sync(&touched);
        for at in round {
            let answer = &mut answers[*at];
            *answer = answer.take().or(Some(synced.clone()));
        }
        if synced.is_ok() {
            if let Some(log) = &mut writer.log {
                log.synced();
            }
            self.apply(batch);
        }
    }

    /// Plans one operation; false if there is nothing to do.
    fn plan<'a>(
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
            Op::Delete(key) => {
                let Some(located) = self.locate(*key)? else {
                    return Ok(false);
                };
                let (volume, entry) = (located.heading.sequence, located.entry);
                batch.log_ops.push(op);
                batch.log.push(LogEntry::Delete {
                    volume,
                    offset: entry.offset(),
                    bytes: u32::try_from(entry.bytes()).unwrap_or(u32::MAX),
                });
                let group = key.group;
                batch.burials.push(Burial {
                    group,
                    volume,
                    entry,
                });
            }
            Op::Note(group, blob, note) => {
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
            None,
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
        let write = self.open_write(batch, extent.group, Some(extent.sequence))?;
        let record = NewRecord::shard(
            write.heading.salt,
            write.cursor,
            write.durable_to,
            &ending.header,
            ending.end,
            &ending.crcs,
            Some(extent.at),
        );
        write.push(op, record, Bytes::new(), Some(extent));
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
        let file = volume.file.as_ref().ok_or_else(gone)?;
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

    /// Writes what each volume takes. Those of a volume that refuses are
    /// answered, and it takes no more.
    fn write_volumes(&self, batch: &mut Batch<'_>, answers: &mut [Option<Answer>]) -> Vec<Touched> {
        let mut touched = Vec::new();
        let mut refused = Vec::new();
        for (sequence, write) in &mut batch.writes {
            match write.write(self.zero_step()) {
                Ok(()) => touched.push(Touched {
                    file: Arc::clone(&write.file),
                    what: "sync volume",
                }),
                Err(error) => {
                    let error = self.refused(Doing::Writing, "write volume", &error);
                    for planned in &write.planned {
                        answers[planned.op] = Some(Err(error.clone()));
                    }
                    refused.push(*sequence);
                }
            }
        }
        for sequence in refused {
            if let Some(write) = batch.writes.remove(&sequence) {
                self.give_up(&write);
            }
        }
        touched
    }

    /// Nothing more goes into a volume whose end is not known: a later,
    /// shorter batch would leave records of this one behind it.
    fn give_up(&self, write: &VolumeWrite<'_>) {
        let mut state = self.state.write();
        let Some(of) = state.groups.get_mut(&write.heading.group) else {
            return;
        };
        let sequence = write.heading.sequence;
        if of.open == Some(sequence) {
            of.open = None;
        }
        if let Some(volume) = of.volumes.get_mut(&sequence) {
            volume.stage = Stage::Closed;
        }
    }

    fn write_log(
        &self,
        writer: &mut Writer,
        batch: &mut Batch<'_>,
        answers: &mut [Option<Answer>],
    ) -> Option<Touched> {
        if batch.log.is_empty() {
            return None;
        }
        let written = self.log_append(writer, &batch.log);
        match written {
            Ok(file) => Some(Touched {
                file,
                what: "sync log",
            }),
            Err(error) => {
                for op in batch.log_ops.drain(..) {
                    answers[op] = Some(Err(error.clone()));
                }
                batch.burials.clear();
                batch.notes.clear();
                None
            }
        }
    }

    /// Appends to the log, which is begun anew first if it must be.
    pub(super) fn log_append(
        &self,
        writer: &mut Writer,
        entries: &[LogEntry],
    ) -> Result<Arc<dyn DiskFile>, StoreError> {
        self.condition.check_writable()?;
        let full = |writer: &Writer| {
            let log = writer.log.as_ref();
            log.is_none_or(|log| log.broken || log.grown() > self.figures.log_bytes)
        };
        if full(writer)
            && let Err(error) = self.renew_log(writer)
            && writer.log.as_ref().is_none_or(|log| log.broken)
        {
            return Err(error);
        }
        let Some(log) = &mut writer.log else {
            return Err(StoreError::Fenced {
                why: "the disk has no log".into(),
            });
        };
        log.append(entries)
            .map_err(|error| self.refused(Doing::Writing, "write log", &error))?;
        Ok(Arc::clone(&log.file))
    }

    /// Makes all of them durable, or fences the disk.
    fn sync(&self, touched: &[Touched]) -> Answer {
        self.condition.check_writable()?;
        let one = |touched: &Touched| -> Answer {
            let failed = |error: io::Error| self.refused(Doing::Syncing, touched.what, &error);
            touched.file.sync_data().map_err(failed)?;
            self.check_named(&*touched.file)
        };
        match touched {
            [first, others @ ..] if self.figures.sync_at_once && !others.is_empty() => {
                std::thread::scope(|scope| {
                    let others: Vec<_> = others
                        .iter()
                        .map(|other| scope.spawn(move || one(other)))
                        .collect();
                    let mut answer = one(first);
                    for other in others {
                        let other = other.join().unwrap_or_else(|_| {
                            Err(self.condition.fence("a sync panicked".into()))
                        });
                        answer = answer.and(other);
                    }
                    answer
                })
            }
            all => all.iter().try_for_each(one),
        }
    }

    /// A file that was just synced still has its name: one in a folder that
    /// was wiped takes and syncs what nobody will find.
    pub(super) fn check_named(&self, file: &dyn DiskFile) -> Answer {
        match file.names() {
            Ok(0) => Err(self
                .condition
                .lose("a file that was being written has no name any more")),
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused(Doing::Reading, "stat volume", &error)),
        }
    }

    /// Shows what is durable now.
    fn apply(&self, batch: Batch<'_>) {
        let mut state = self.state.write();
        for (sequence, write) in batch.writes {
            let of = state.groups.get_mut(&write.heading.group);
            let Some(volume) = of.and_then(|of| of.volumes.get_mut(&sequence)) else {
                continue;
            };
            volume.tail = write.cursor;
            volume.zeroed_to = write.zeroed_to;
            for planned in write.planned {
                volume.add(planned.entry);
                if let Some(extent) = planned.extent {
                    extent.settle(volume);
                }
            }
        }
        for burial in &batch.burials {
            let of = state.groups.get_mut(&burial.group);
            if let Some(volume) = of.and_then(|of| of.volumes.get_mut(&burial.volume)) {
                volume.bury_entry(&burial.entry);
            }
        }
        for (group, blob, note) in batch.notes {
            match note {
                Some(note) => drop(state.notes.insert((group, blob), note)),
                None => drop(state.notes.remove(&(group, blob))),
            }
        }
        drop(state);
        for burial in batch.burials {
            if burial.entry.bytes() >= self.figures.punch_from {
                let place = (burial.group, burial.volume, burial.entry);
                self.punches.lock().push(place);
            }
        }
    }
}

impl<'a> VolumeWrite<'a> {
    fn push(&mut self, op: usize, record: NewRecord, bytes: Bytes, extent: Option<&'a Extent>) {
        let span = record.head.span(self.cursor);
        let extent_len = extent.map_or(0, |extent| extent.len.next_multiple_of(4096));
        let entry = Entry {
            blob: record.head.blob,
            index: record.head.index,
            at: at_of(self.cursor),
            span: u32::try_from(span).expect("shards of volumes are bounded"),
            extent: u32::try_from(extent_len).expect("shards of volumes are bounded"),
        };
        self.planned.push(Planned {
            op,
            record,
            bytes,
            entry,
            extent,
        });
        self.cursor += span;
    }

    /// Writes all of it with one call, zeroing ahead where that is due.
    fn write(&mut self, zero_step: u64) -> io::Result<()> {
        if self.cursor > self.zeroed_to {
            let len = (self.cursor - self.zeroed_to).next_multiple_of(zero_step);
            // Extents lie behind it; what they hold must stay.
            let most = self.extents_from.saturating_sub(self.zeroed_to);
            self.file.allocate_zeroed(self.zeroed_to, len.min(most))?;
            self.zeroed_to += len.min(most);
        }
        let zeroes = [0; RECORD_ALIGN as usize];
        let mut parts = Vec::with_capacity(3 * self.planned.len());
        for planned in &self.planned {
            parts.push(IoSlice::new(&planned.record.meta));
            if !planned.bytes.is_empty() {
                parts.push(IoSlice::new(&planned.bytes));
            }
            let padding = planned.record.padding();
            if padding > 0 {
                parts.push(IoSlice::new(&zeroes[..padding]));
            }
        }
        self.file.write_at(&parts, self.start)
    }
}

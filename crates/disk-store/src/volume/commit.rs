//! Group commit: what gathered is written at once, synced once, and each is
//! answered for itself.
//!
//! Each volume that is touched takes one vectored write and one fdatasync,
//! the log as well. A batch begins at a sector of its own, so that nothing
//! that was answered is written again. Invariant: the state shows a record
//! only after the syncs of its batch came back; after one that failed the
//! disk takes no writes at all.

mod planning;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::store::{ShardEnd, SmallShard};
use shardgate_wire::{ShardHeader, ShardKey, StoreError};

use super::engine::{Engine, Note, Writer};
use super::format::LogEntry;
use super::making::Extent;
use super::volume_state::Stage;
use crate::aligned::AlignedBuffer;
use crate::condition::Doing;
use crate::io::DiskFile;

use planning::{Batch, VolumeWrite};

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
    /// Sectors of the extent that are all zeroes.
    pub(crate) zeroes: u32,
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

pub(crate) type Answer = Result<(), StoreError>;

/// An operation that is handed to whoever commits next.
#[derive(Debug)]
pub(crate) enum OwnedOp {
    /// [`Op::Finish`].
    Finish(Box<Ending>),
    /// [`Op::Delete`].
    Delete(ShardKey),
}

impl OwnedOp {
    fn as_op(&self) -> Op<'_> {
        match self {
            Self::Finish(ending) => Op::Finish(ending),
            Self::Delete(key) => Op::Delete(*key),
        }
    }
}

/// An operation that waits for the next commit.
#[derive(Debug)]
pub(crate) struct Handed {
    op: OwnedOp,
    answer: Mutex<Option<Answer>>,
}

/// A file that a batch wrote.
#[derive(Clone)]
struct Touched {
    file: Arc<dyn DiskFile>,
    what: &'static str,
}

impl Engine {
    /// Does all of `ops`, durably, and answers each; what others handed in
    /// meanwhile goes along.
    pub(crate) fn commit(&self, ops: &[Op<'_>]) -> Vec<Answer> {
        let mut writer = self.writing();
        let handed = std::mem::take(&mut *self.handed.lock());
        let mut all = Vec::with_capacity(ops.len() + handed.len());
        all.extend_from_slice(ops);
        all.extend(handed.iter().map(|handed| handed.op.as_op()));
        // What a panic leaves may be written and not synced, and the next
        // batch would go over it.
        let guard = self.condition.fence_unless_done("a commit panicked");
        let mut answers = self.commit_all(&mut writer, &all);
        guard.done();
        let theirs = answers.split_off(ops.len());
        for (handed, answer) in handed.iter().zip(theirs) {
            *handed.answer.lock() = Some(answer);
        }
        answers
    }

    /// Does operations with whatever others hand in: who comes first does
    /// it for all that gathered behind the batch before.
    pub(crate) fn commit_with_others(&self, ops: Vec<OwnedOp>) -> Vec<Answer> {
        let mine: Vec<_> = ops
            .into_iter()
            .map(|op| {
                Arc::new(Handed {
                    op,
                    answer: Mutex::new(None),
                })
            })
            .collect();
        self.handed.lock().extend(mine.iter().cloned());
        // When the batch that is under way ends, ours was in it, or waits.
        self.commit(&[]);
        let take = |handed: Arc<Handed>| handed.answer.lock().take();
        mine.into_iter()
            .map(|handed| take(handed).expect("a commit answers all that was handed in"))
            .collect()
    }

    /// Keeps a note of a blob, or drops it.
    #[cfg(test)]
    pub(crate) fn keep_note(&self, group: GroupId, blob: BlobId, note: Option<Note>) -> Answer {
        let op = match &note {
            Some(note) => Op::Note(group, blob, note),
            None => Op::Forget(group, blob),
        };
        self.commit(&[op]).remove(0)
    }

    fn commit_all(&self, writer: &mut Writer, ops: &[Op<'_>]) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = vec![None; ops.len()];
        let mut waiting: Vec<usize> = (0..ops.len()).collect();
        while !waiting.is_empty() {
            // Two that concern one blob are done one after the other.
            let mut seen = HashSet::new();
            let (now, later): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|at| seen.insert(ops[*at].subject()));
            self.commit_round(writer, ops, &now, &mut answers);
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
        let mut touched = self.write_volumes(&mut writer.buffer, &mut batch, answers);
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

    /// Writes what each volume takes. Those of a volume that refuses are
    /// answered, and it takes no more.
    fn write_volumes(
        &self,
        buffer: &mut AlignedBuffer,
        batch: &mut Batch<'_>,
        answers: &mut [Option<Answer>],
    ) -> Vec<Touched> {
        let mut touched = Vec::new();
        let mut refused = Vec::new();
        for (sequence, write) in &mut batch.writes {
            let large = write.bytes() >= self.figures.large_batch;
            let made_ready = if large {
                let taken = write.take_space();
                taken.map_err(|error| (Doing::Writing, error))
            } else {
                write.zero_ahead(self.zero_step())
            };
            // What lies in extents counts by its link: refused, it is nowhere.
            let made_ready = made_ready.and_then(|()| {
                let written = write.write_linked();
                written.map_err(|error| (Doing::Writing, error))
            });
            let writing = |error| (true, Doing::Writing, error);
            let written = match made_ready {
                Ok(()) if large => write.write_large(buffer).map_err(writing),
                Ok(()) => write.write(buffer).map_err(writing),
                Err((doing, error)) => Err((false, doing, error)),
            };
            match written {
                Ok(()) => touched.push(Touched {
                    file: Arc::clone(&write.file),
                    what: "sync volume",
                }),
                Err((begun, doing, error)) => {
                    let error = self.refused(doing, "write volume", &error);
                    for planned in &write.planned {
                        answers[planned.op] = Some(Err(error.clone()));
                    }
                    refused.push((*sequence, begun));
                }
            }
        }
        for (sequence, begun) in refused {
            if let Some(write) = batch.writes.remove(&sequence)
                && begun
            {
                self.give_up(&write);
            }
        }
        touched
    }

    /// Nothing more goes into a volume whose end is not known. It is ended
    /// at once where it was good: what a refused write left behind it must
    /// never be found, for its caller was told that it is not there.
    fn give_up(&self, write: &VolumeWrite<'_>) {
        let (heading, tail) = (&write.heading, write.durable_to);
        if self.condition.check_writable().is_ok()
            && self.end_volume(heading, &*write.file, tail).is_err()
        {
            let _ = self
                .condition
                .fence("a refused write could not be undone".into());
        }
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
            volume.ended = true;
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
        self.mend_log(writer);
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

    /// Begins the log anew if a write of it was refused: what that left must
    /// never be found, as in a volume.
    pub(super) fn mend_log(&self, writer: &mut Writer) {
        let broken = writer.log.as_ref().is_some_and(|log| log.broken);
        if broken && self.condition.check_writable().is_ok() && self.renew_log(writer).is_err() {
            let _ = self
                .condition
                .fence("a refused write of the log could not be undone".into());
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
        {
            // The old one may have lost its name by then.
            self.condition.check_writable()?;
            if writer.log.as_ref().is_none_or(|log| log.broken) {
                return Err(error);
            }
        }
        let Some(log) = &mut writer.log else {
            return Err(StoreError::Fenced {
                why: "the disk has no log".into(),
            });
        };
        log.append(entries)
            .map_err(|(doing, error)| self.refused(doing, "write log", &error))?;
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
                    let spawn = |other| {
                        let builder = std::thread::Builder::new();
                        let spawned = builder.spawn_scoped(scope, move || one(other));
                        // The system gives no thread: after the first, then.
                        spawned.map_err(|_| other)
                    };
                    let others: Vec<_> = others.iter().map(spawn).collect();
                    let mut answer = one(first);
                    for other in others {
                        let other = match other {
                            Ok(thread) => thread.join().unwrap_or_else(|_| {
                                Err(self.condition.fence("a sync panicked".into()))
                            }),
                            Err(left) => one(left),
                        };
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
                if let Some(linked) = planned.linked {
                    linked.extent.settle(volume);
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
                self.want_punched((burial.group, burial.volume, burial.entry));
            }
        }
    }
}

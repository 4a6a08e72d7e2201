//! The journal's records in order, each batch from whichever holder has it
//! whole.

use std::sync::Arc;

use shardgate_wire::journal::{JournalDisk, JournalFile};
use shardgate_wire::{CallContext, DiskId, StoreError};

use super::{Planned, Recovered, disk_error};
use crate::chain::{Position, Record};
use crate::error::{JournalError, Refusal};
use crate::format::{Batch, Kind};
use crate::scan::Reader;

/// Records behind what the local catalog has applied, up to the tail.
#[derive(Debug)]
pub struct Replay {
    ctx: CallContext,
    disks: Vec<Arc<dyn JournalDisk>>,
    reached: Vec<DiskId>,
    plan: std::vec::IntoIter<Planned>,
    current: Option<Current>,
    /// What the catalog has; then the last record handed out.
    from: Position,
    /// Whether `from` was found on the chain.
    joined: bool,
    unproven: Vec<Record>,
    void: Vec<(DiskId, JournalFile)>,
    tail: Position,
}

struct Current {
    planned: Planned,
    readers: Vec<Reader>,
    offset: u64,
    at: Position,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.planned.segment, self.offset)
    }
}

impl Replay {
    pub(super) fn new(recovered: Recovered, unproven: Vec<Record>) -> Self {
        Self {
            ctx: recovered.ctx,
            disks: recovered.disks,
            reached: recovered.reached,
            joined: recovered.plan.is_empty(),
            plan: recovered.plan.into_iter(),
            current: None,
            from: recovered.from,
            unproven,
            void: recovered.void,
            tail: recovered.tail,
        }
    }

    /// Over one segment alone, behind `from`, which is to be found in it.
    pub(super) fn within(recovered: &Recovered, planned: Planned, from: Position) -> Self {
        Self {
            ctx: recovered.ctx,
            disks: recovered.disks.clone(),
            reached: recovered.reached.clone(),
            tail: planned.to,
            plan: vec![planned].into_iter(),
            current: None,
            from,
            joined: false,
            unproven: Vec::new(),
            void: Vec::new(),
        }
    }

    /// The last record that there is.
    pub fn tail(&self) -> Position {
        self.tail
    }

    /// How far it is: what the catalog had, then the last record handed out.
    pub fn at(&self) -> Position {
        self.from
    }

    /// Removes files that are no part of the journal, on the disks that take
    /// the call. How many there were.
    pub async fn remove_void(&mut self) -> usize {
        let void = std::mem::take(&mut self.void);
        for disk in &self.disks {
            let of = void.iter().filter(|(on, _)| *on == disk.disk());
            let files: Vec<JournalFile> = of.map(|(_, file)| *file).collect();
            if !files.is_empty()
                && let Err(error) = disk.remove(&self.ctx, &files).await
            {
                tracing::warn!(disk = %disk.disk(), %error, "void segments are not removed");
            }
        }
        void.len()
    }

    /// The next records, at most a batch; none at the end.
    ///
    /// # Errors
    /// The catalog is not on the chain; or a batch that is needed is whole on
    /// no disk.
    pub async fn next(&mut self) -> Result<Option<Vec<Record>>, JournalError> {
        loop {
            if self.current.is_none() {
                let Some(planned) = self.plan.next() else {
                    return self.finish();
                };
                self.current = Some(self.open(planned));
            }
            let current = self.current.as_mut().expect("it was just opened");
            if current.at.number >= current.planned.to.number {
                self.join_at(current_base(&self.current));
                self.current = None;
                continue;
            }
            let records = self.batch().await?;
            if !records.is_empty() {
                return Ok(Some(records));
            }
        }
    }

    fn open(&self, mut planned: Planned) -> Current {
        let find = |disk: DiskId| self.disks.iter().find(|of| of.disk() == disk);
        planned.holders.retain(|held| find(held.disk).is_some());
        let readers = planned
            .holders
            .iter()
            .filter_map(|held| Some(Reader::new(find(held.disk)?.clone(), self.ctx, held.file)))
            .collect();
        Current {
            readers,
            offset: 0,
            at: planned.base,
            planned,
        }
    }

    fn join_at(&mut self, place: Option<Position>) {
        self.joined |= place == Some(self.from);
    }

    /// The records of one batch that are to be handed out.
    async fn batch(&mut self) -> Result<Vec<Record>, JournalError> {
        self.join_at(current_base(&self.current));
        let current = self.current.as_mut().expect("the caller opened it");
        let planned = &current.planned;
        let mut whole: Option<(Batch, u64)> = None;
        let mut silent = None;
        for (reader, held) in current.readers.iter_mut().zip(&planned.holders) {
            let read = match reader.batch(current.offset).await {
                Ok(read) => read,
                Err(StoreError::StaleEpoch { held }) => return Err(JournalError::Fenced(held)),
                Err(error) => {
                    silent = Some(disk_error(held.disk, error.into()));
                    continue;
                }
            };
            if let Ok((batch, len)) = read
                && batch.segment == planned.segment
                && batch.kind != Kind::Closing
                && batch.before == current.at.number
            {
                let last = batch.records(current.at).last().map(|r| r.position);
                if last.unwrap_or(current.at) == batch.last {
                    whole = Some((batch, len));
                    break;
                }
            }
        }
        let Some((batch, len)) = whole else {
            // A disk that did not answer may have it: that is no loss yet.
            if let Some(error) = silent {
                return Err(error);
            }
            return Err(Refusal::MissingSegment {
                segment: planned.segment,
                from: current.at.number,
                to: planned.to.number,
                reached: self.reached.clone(),
            }
            .into());
        };
        let mut out = Vec::new();
        for record in batch.records(current.at) {
            let position = record.position;
            if position.number > planned.to.number {
                break;
            }
            current.at = position;
            if position.number == planned.to.number && position != planned.to {
                // The next segment goes on from another history.
                return Err(Refusal::NotOnChain(position.number).into());
            }
            if position.number > self.from.number {
                if !self.joined {
                    return Err(Refusal::NotOnChain(self.from.number).into());
                }
                self.from = position;
                out.push(record);
            } else {
                self.joined |= position == self.from;
            }
        }
        current.offset += len;
        Ok(out)
    }

    /// What was not proven and has been written anew.
    fn finish(&mut self) -> Result<Option<Vec<Record>>, JournalError> {
        let unproven = std::mem::take(&mut self.unproven);
        // The catalog may have applied what was acknowledged last.
        self.joined |= unproven.iter().any(|record| record.position == self.from);
        if !self.joined {
            return Err(Refusal::NotOnChain(self.from.number).into());
        }
        let from = self.from.number;
        let new = |record: &Record| record.position.number > from;
        let rest: Vec<Record> = unproven.into_iter().filter(new).collect();
        if let Some(last) = rest.last() {
            self.from = last.position;
            return Ok(Some(rest));
        }
        if self.from != self.tail {
            return Err(Refusal::NotOnChain(from).into());
        }
        Ok(None)
    }
}

/// The place before a segment's first record, while none of it was read.
fn current_base(current: &Option<Current>) -> Option<Position> {
    let current = current.as_ref()?;
    (current.offset == 0).then_some(current.planned.base)
}

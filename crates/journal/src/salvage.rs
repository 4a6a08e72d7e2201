//! What can still be read of a journal that is not whole: the source of last
//! resort of a catalog that is made anew (PROTOCOL.md 9).
//!
//! A start refuses a chain with a gap ([`crate::recover()`]); this reads what
//! is on either side of it and says where the gaps are. Invariants: nothing is
//! read before the epoch is durable on enough journal disks, as in a start;
//! of a segment only what leads, record by record, to the hashes it was
//! written with; nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{CallContext, CommitNumber, DiskId, LineageId};

use crate::chain::{Position, Record};
use crate::disks::check_quorum;
use crate::error::JournalError;
use crate::format::{SegmentHeader, SegmentId};
use crate::recover::{Request, ask_standings, disk_error, look_at_all, next_epoch, raise};
use crate::scan::{Chain, Held, Reader, chain};

/// The segments that were found.
#[derive(Debug)]
pub struct Salvage {
    ctx: CallContext,
    disks: Vec<Arc<dyn JournalDisk>>,
    held: Vec<Held>,
    told: Vec<(LineageId, CommitNumber)>,
    complete: bool,
}

/// Segments that name each other, the oldest first.
#[derive(Clone, Debug)]
pub struct Piece {
    segments: Vec<Part>,
    /// Whether it goes back to the first commit that there was.
    pub from_the_first: bool,
    /// What it goes on from, where that is not found.
    gap: Option<SegmentId>,
}

impl Piece {
    /// How many segments it has.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// The epoch in which one of them was begun.
    pub fn epoch(&self, index: usize) -> u64 {
        self.segments[index].segment.epoch.number
    }

    /// The commit before its first.
    pub fn base(&self) -> CommitNumber {
        self.segments[0].base.number
    }
}

#[derive(Clone, Debug)]
struct Part {
    segment: SegmentId,
    base: Position,
    /// Records behind this one are of another segment.
    to: Option<CommitNumber>,
}

/// What was read of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// The commits that were read: from, to, both included.
    pub spans: Vec<(CommitNumber, CommitNumber)>,
}

/// Raises the epoch as a start does, and looks what there is of a journal.
/// `request.from` and `request.begun` mean nothing here.
///
/// # Errors
/// Too few disks answer, or another gateway has started.
pub async fn salvage(
    disks: &[Arc<dyn JournalDisk>],
    request: Request,
) -> Result<Salvage, JournalError> {
    let standings = ask_standings(disks, request.answer_within).await;
    let mut ctx = request.ctx;
    ctx.epoch.number = next_epoch(&standings, request.judged)?;
    let raised = raise(disks, &ctx, &request).await?;
    let (held, reached) = look_at_all(&raised, ctx, request.answer_within).await?;
    check_quorum(&request.map, &reached, &request.lost)?;
    let complete = check_quorum(&request.map, &reached, &[]).is_ok();
    let is_reached = |disk: &Arc<dyn JournalDisk>| reached.contains(&disk.disk());
    Ok(Salvage {
        ctx,
        disks: raised.into_iter().filter(is_reached).collect(),
        held,
        told: standings.into_iter().map(|(_, of)| of.told).collect(),
        complete,
    })
}

impl Salvage {
    /// Cluster, lineage, and the epoch that was raised.
    pub fn context(&self) -> CallContext {
        self.ctx
    }

    /// Whether a majority of the journal disks was read: if not, what those
    /// that were named lost had alone is not known of.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// The checkpoint roots that any segment names, those of the newest first,
    /// each once. They may be of a history that is no more.
    pub fn checkpoints(&self) -> Vec<Bytes> {
        let mut held: Vec<&Held> = self.held.iter().collect();
        held.sort_by_key(|held| std::cmp::Reverse(held.segment));
        let headers = held.into_iter().filter_map(|held| held.header.as_ref());
        let mut roots: Vec<Bytes> = Vec::new();
        for root in headers.flat_map(|header| &header.checkpoints) {
            if !roots.contains(root) {
                roots.push(root.clone());
            }
        }
        roots
    }

    /// The highest commit that is known to have been acknowledged in a piece
    /// that goes back to the first: by disks that were told of its lineage,
    /// and by what the first batches of its segments and of later ones say.
    pub fn known(&self, piece: &Piece) -> CommitNumber {
        let told = self.told.iter().filter(|(of, _)| *of == self.ctx.lineage);
        let first = piece.segments[0].segment;
        let counts = |held: &&Held| held.segment.is_some_and(|of| of >= first);
        let noted = self.held.iter().filter(counts);
        let noted = noted.map(|held| held.acknowledged);
        let told = told.map(|(_, number)| *number);
        told.chain(noted).max().unwrap_or_default()
    }

    /// The pieces that there are, the newest first. Those behind one that goes
    /// back to the first commit were never part of its journal.
    pub fn pieces(&self) -> Vec<Piece> {
        let mut headers: BTreeMap<SegmentId, &SegmentHeader> = BTreeMap::new();
        for held in &self.held {
            if let (Some(segment), Some(header)) = (held.segment, &held.header) {
                headers.insert(segment, header);
            }
        }
        let mut pieces = Vec::new();
        while let Some((&newest, _)) = headers.last_key_value() {
            let piece = piece_of(newest, &headers);
            // What is between is of writers whose segments came to nothing.
            let below = piece.gap.unwrap_or(piece.segments[0].segment);
            headers.retain(|segment, _| *segment < below);
            pieces.push(piece);
        }
        pieces
    }

    /// The first record of a piece.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn first(&self, piece: &Piece) -> Result<Option<Record>, JournalError> {
        let mut first = None;
        let part = &piece.segments[0];
        self.read_part(part, None, &mut |record| {
            first.get_or_insert(record);
        })
        .await?;
        Ok(first)
    }

    /// Reads a piece: every record that is whole on some disk, in order, but
    /// for those behind `to`.
    ///
    /// # Errors
    /// Another gateway has started, or a later version wrote it.
    pub async fn read(
        &self,
        piece: &Piece,
        to: Option<CommitNumber>,
        each: &mut (dyn FnMut(Record) + Send),
    ) -> Result<Read, JournalError> {
        let mut read = Read::default();
        for index in 0..piece.segments() {
            self.read_segment((piece, index), to, each, &mut read)
                .await?;
        }
        Ok(read)
    }

    /// Reads one segment of a piece, as [`Self::read`] does all of them.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_segment(
        &self,
        (piece, index): (&Piece, usize),
        to: Option<CommitNumber>,
        each: &mut (dyn FnMut(Record) + Send),
        read: &mut Read,
    ) -> Result<(), JournalError> {
        let part = &piece.segments[index];
        let end = self.read_part(part, to, each).await?;
        if end > part.base.number {
            add_span(&mut read.spans, CommitNumber(part.base.number.0 + 1), end);
        }
        Ok(())
    }

    /// Reads a segment from the disk that has most of it; gives its last
    /// record that counts.
    async fn read_part(
        &self,
        part: &Part,
        to: Option<CommitNumber>,
        each: &mut (dyn FnMut(Record) + Send),
    ) -> Result<CommitNumber, JournalError> {
        let to = match (part.to, to) {
            (Some(part), Some(to)) => Some(part.min(to)),
            (part, to) => part.or(to),
        };
        let Some((held, longest)) = self.longest(part).await? else {
            return Ok(part.base.number);
        };
        let Some(disk) = self.disk(held.disk) else {
            return Ok(part.base.number);
        };
        let mut reader = Reader::new(Arc::clone(disk), self.ctx, held.file);
        let mut at = part.base.number;
        for batch in &longest.batches {
            let whole = reader.batch(batch.offset).await;
            let whole = whole.map_err(|error| disk_error(held.disk, error.into()))?;
            let Ok((whole, _)) = whole else { break };
            for record in whole.records(batch.before) {
                if to.is_some_and(|to| record.position.number > to) {
                    return Ok(at);
                }
                at = record.position.number;
                each(record);
            }
        }
        Ok(at)
    }

    async fn longest(&self, part: &Part) -> Result<Option<(&Held, Chain)>, JournalError> {
        let mut longest: Option<(&Held, Chain)> = None;
        let holders = self.held.iter();
        for held in holders.filter(|held| held.segment == Some(part.segment)) {
            let Some(disk) = self.disk(held.disk) else {
                continue;
            };
            let found = chain(disk, self.ctx, held, part.segment, part.base).await;
            let found = found.map_err(|error| disk_error(held.disk, error))?;
            let longer = |(_, best): &(&Held, Chain)| found.batches.len() > best.batches.len();
            if longest.as_ref().is_none_or(longer) {
                longest = Some((held, found));
            }
        }
        Ok(longest)
    }

    fn disk(&self, disk: DiskId) -> Option<&Arc<dyn JournalDisk>> {
        self.disks.iter().find(|of| of.disk() == disk)
    }
}

fn piece_of(newest: SegmentId, headers: &BTreeMap<SegmentId, &SegmentHeader>) -> Piece {
    let mut segments = Vec::new();
    let (mut segment, mut to) = (newest, None);
    loop {
        let header = headers[&segment];
        segments.push(Part {
            segment,
            base: header.base,
            to,
        });
        // One that names itself or a later one is no predecessor.
        let before = header.predecessor.filter(|before| *before < segment);
        match before.filter(|before| headers.contains_key(before)) {
            Some(before) => {
                to = Some(header.base.number);
                segment = before;
            }
            None => {
                segments.reverse();
                let from_the_first =
                    header.predecessor.is_none() && header.base == Position::default();
                return Piece {
                    segments,
                    from_the_first,
                    gap: before,
                };
            }
        }
    }
}

/// Adds a span behind the others, joined to the last if it goes on from it.
fn add_span(spans: &mut Vec<(CommitNumber, CommitNumber)>, from: CommitNumber, to: CommitNumber) {
    match spans.last_mut() {
        Some(last) if last.1.0 + 1 == from.0 => last.1 = to,
        _ => spans.push((from, to)),
    }
}

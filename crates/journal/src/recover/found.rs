//! Which chain counts among the segments found.

use std::sync::Arc;

use bytes::Bytes;
use shardgate_wire::journal::{JournalDisk, JournalFile};
use shardgate_wire::{CallContext, CommitNumber, DiskId, LineageId};

use super::Request;
use crate::chain::{Position, Record};
use crate::copies::Closed;
use crate::error::{JournalError, Refusal};
use crate::format::{MAX_RECORDS_BYTES, SegmentHeader, SegmentId, record_bytes};
use crate::scan::{Chain, Held, Reader, ScanError, chain};

/// A segment of the journal, and up to where it counts.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Which.
    pub segment: SegmentId,
    /// The place before its first record.
    pub base: Position,
    /// The last of its records that counts.
    pub to: Position,
    pub(crate) holders: Vec<Held>,
}

pub(super) struct Search<'a> {
    pub(super) ctx: CallContext,
    pub(super) disks: &'a [Arc<dyn JournalDisk>],
    pub(super) held: &'a [Held],
    pub(super) reached: &'a [DiskId],
    /// What disks were told is durable, and under which lineage.
    pub(super) told: &'a [(LineageId, CommitNumber)],
    pub(super) request: &'a Request,
}

pub(super) struct Found {
    pub(super) tail: Position,
    pub(super) proven: Position,
    pub(super) unproven: Vec<Record>,
    pub(super) predecessor: Option<SegmentId>,
    pub(super) plan: Vec<Planned>,
    /// All segments of the journal that were found, the oldest first.
    pub(super) journal: Vec<Closed>,
    pub(super) void: Vec<(DiskId, JournalFile)>,
    /// Checkpoint roots as the headers of its segments have them, the newest
    /// first.
    pub(super) checkpoints: Vec<Vec<Bytes>>,
    pub(super) damaged: Vec<(DiskId, SegmentId)>,
    /// It was begun anew, and its pool map is on no disk yet.
    pub(super) ahead: bool,
}

/// The highest segment as its holders have it.
struct Highest<'a> {
    segment: SegmentId,
    header: &'a SegmentHeader,
    best: Chain,
    holder: &'a Held,
    damaged: Vec<DiskId>,
}

impl Search<'_> {
    pub(super) async fn find(&self) -> Result<Found, JournalError> {
        let Some(segment) = self.held.iter().filter_map(|held| held.segment).max() else {
            return self.nothing(self.told_of(self.ctx.lineage));
        };
        // A journal that was begun anew has numbers of its own: what is older
        // than its first segment says nothing of them.
        let oldest = self.oldest_of(segment);
        let counts = |held: &&Held| held.segment.is_some_and(|of| of >= oldest);
        let noted = self.held.iter().filter(counts);
        let noted = noted.map(|held| held.acknowledged).max();
        let highest = self.highest(segment).await?;
        // Such a journal has numbers of its own.
        let ahead = self.is_ahead(highest.header);
        let told = self.told_of(match ahead {
            true => highest.header.lineage,
            false => self.ctx.lineage,
        });
        let known = noted.unwrap_or(CommitNumber(0)).max(told);
        let known = known.max(highest.best.acknowledged);
        let tail = highest.best.last;
        if tail.number < known {
            return Err(self.incomplete(known, tail.number, Some(segment)));
        }
        if self.request.from.number > tail.number {
            return Err(Refusal::NotOnChain(self.request.from.number).into());
        }
        let (proven, unproven) = if highest.best.closed {
            (tail, Vec::new())
        } else {
            self.split(&highest, known).await?
        };
        let size: usize = unproven.iter().map(|r| record_bytes(&r.payload)).sum();
        if size > MAX_RECORDS_BYTES {
            // The writer never leaves so much behind.
            return Err(self.incomplete(tail.number, proven.number, Some(segment)));
        }
        // A segment of which no record was acknowledged may lie on one disk
        // only: the next must not depend on it.
        let predecessor = if proven.number > highest.header.base.number {
            Some(segment)
        } else {
            highest.header.predecessor
        };
        let plan = self.plan(&highest, proven)?;
        let (journal, gap) = self.journal(&highest, proven);
        let void = self.void(&journal, gap);
        let checkpoints = self.checkpoints(&journal);
        Ok(Found {
            journal,
            void,
            checkpoints,
            tail,
            proven,
            unproven,
            predecessor,
            plan,
            ahead,
            damaged: highest
                .damaged
                .iter()
                .map(|disk| (*disk, segment))
                .collect(),
        })
    }

    /// The oldest segment that is found of the journal of `segment`. What is
    /// older still says nothing that the chain to it does not say: it was
    /// trimmed, came to nothing, or is of a journal that ended before.
    fn oldest_of(&self, mut segment: SegmentId) -> SegmentId {
        loop {
            let holders = self.holders(segment);
            let header = holders.iter().find_map(|held| held.header.as_ref());
            let before = header.and_then(|header| header.predecessor);
            match before.filter(|before| *before < segment) {
                Some(before) if !self.holders(before).is_empty() => segment = before,
                _ => return segment,
            }
        }
    }

    /// The highest number that a disk was told is durable in a lineage.
    fn told_of(&self, lineage: LineageId) -> CommitNumber {
        let of = self.told.iter().filter(|(of, _)| *of == lineage);
        of.map(|(_, told)| *told).max().unwrap_or_default()
    }

    /// Whether a journal was begun anew whose map is on no disk yet.
    fn is_ahead(&self, highest: &SegmentHeader) -> bool {
        let first = highest.predecessor.is_none() && highest.base == Position::default();
        first && highest.lineage != self.ctx.lineage && highest.map_number > self.request.map.number
    }

    fn nothing(&self, known: CommitNumber) -> Result<Found, JournalError> {
        if known > self.request.from.number {
            return Err(self.incomplete(known, self.request.from.number, None));
        }
        if self.request.begun {
            return Err(Refusal::NoJournal.into());
        }
        let from = self.request.from;
        Ok(Found {
            tail: from,
            proven: from,
            unproven: Vec::new(),
            predecessor: None,
            plan: Vec::new(),
            journal: Vec::new(),
            void: self.void(&[], None),
            checkpoints: Vec::new(),
            damaged: Vec::new(),
            ahead: false,
        })
    }

    fn incomplete(
        &self,
        acknowledged: CommitNumber,
        found: CommitNumber,
        segment: Option<SegmentId>,
    ) -> JournalError {
        JournalError::Refused(Refusal::Incomplete {
            acknowledged,
            found,
            segment,
            reached: self.reached.to_vec(),
        })
    }

    fn holders(&self, segment: SegmentId) -> Vec<&Held> {
        let of = |held: &&Held| held.segment == Some(segment);
        self.held.iter().filter(of).collect()
    }

    fn missing(&self, segment: SegmentId, from: CommitNumber, to: CommitNumber) -> JournalError {
        JournalError::Refused(Refusal::MissingSegment {
            segment,
            from,
            to,
            reached: self.reached.to_vec(),
        })
    }

    fn disk(&self, disk: DiskId) -> &Arc<dyn JournalDisk> {
        let found = self.disks.iter().find(|of| of.disk() == disk);
        found.expect("what is held is held by a disk that was reached")
    }

    /// The longest whole chain among the holders of the highest segment.
    async fn highest(&self, segment: SegmentId) -> Result<Highest<'_>, JournalError> {
        let holders = self.holders(segment);
        let header = holders.iter().find_map(|held| held.header.as_ref());
        let Some(header) = header else {
            let known = holders.iter().map(|held| held.acknowledged).max();
            let known = known.unwrap_or_default();
            return Err(self.missing(segment, known, known));
        };
        let mut best: Option<(Chain, &Held)> = None;
        let mut acknowledged = CommitNumber(0);
        let mut damaged = Vec::new();
        for held in holders {
            let scanned = chain(self.disk(held.disk), self.ctx, held, segment, header.base).await;
            let scanned = scanned.map_err(|error| disk_error(held.disk, error))?;
            acknowledged = acknowledged.max(scanned.acknowledged);
            if scanned.damaged {
                damaged.push(held.disk);
            }
            let longer = best.as_ref().is_none_or(|(best, _)| {
                (scanned.batches.len(), scanned.closed) > (best.batches.len(), best.closed)
            });
            if longer {
                best = Some((scanned, held));
            }
        }
        let (mut best, holder) = best.expect("a header was found with a holder");
        best.acknowledged = acknowledged;
        Ok(Highest {
            segment,
            header,
            best,
            holder,
            damaged,
        })
    }

    /// The place up to which acknowledgement is proven, and the records behind.
    async fn split(
        &self,
        highest: &Highest<'_>,
        known: CommitNumber,
    ) -> Result<(Position, Vec<Record>), JournalError> {
        let mut proven = highest.header.base;
        let mut unproven = Vec::new();
        let disk = self.disk(highest.holder.disk);
        let mut reader = Reader::new(Arc::clone(disk), self.ctx, highest.holder.file);
        for batch in &highest.best.batches {
            if batch.last.number <= known {
                proven = batch.last;
                continue;
            }
            let read = reader.batch(batch.offset).await;
            let read = read.map_err(|error| disk_error(highest.holder.disk, error.into()))?;
            let Ok((whole, _)) = read else {
                return Err(self.missing(highest.segment, batch.before.number, batch.last.number));
            };
            for record in whole.records(batch.before) {
                if record.position.number <= known {
                    proven = record.position;
                } else {
                    unproven.push(record);
                }
            }
        }
        Ok((proven, unproven))
    }

    /// The segments back to what the local catalog has, the oldest first.
    fn plan(&self, highest: &Highest<'_>, to: Position) -> Result<Vec<Planned>, JournalError> {
        let from = self.request.from.number;
        let (mut segment, mut header, mut to) = (highest.segment, highest.header, to);
        let mut plan = Vec::new();
        loop {
            let holders = self.holders(segment);
            plan.push(Planned {
                segment,
                base: header.base,
                to,
                holders: holders.into_iter().cloned().collect(),
            });
            if header.base.number <= from {
                break;
            }
            let Some(predecessor) = header.predecessor else {
                return Err(Refusal::NotOnChain(from).into());
            };
            to = header.base;
            segment = predecessor;
            let holders = self.holders(segment);
            header = match holders.iter().find_map(|held| held.header.as_ref()) {
                Some(header) => header,
                None => return Err(self.missing(segment, from, to.number)),
            };
        }
        plan.reverse();
        Ok(plan)
    }

    /// Every segment of the journal as far back as headers are found, the
    /// oldest first; and the one that is named and not found.
    fn journal(&self, highest: &Highest<'_>, to: Position) -> (Vec<Closed>, Option<SegmentId>) {
        let (mut segment, mut header, mut to) = (highest.segment, highest.header, to);
        let mut journal = Vec::new();
        let gap = loop {
            let holders = self.holders(segment);
            let files = holders.iter().map(|held| (held.disk, held.file.file));
            // Whether another's copy was finished, nothing here says.
            let (files, doubtful) = files.partition(|(disk, _)| header.members.contains(disk));
            let lengths = holders.iter().map(|held| held.file.len);
            journal.push(Closed {
                segment,
                base: header.base,
                last: to,
                file_bytes: lengths.max().unwrap_or(0),
                holders: files,
                doubtful,
            });
            let Some(predecessor) = header.predecessor else {
                break None;
            };
            to = header.base;
            segment = predecessor;
            let holders = self.holders(segment);
            header = match holders.iter().find_map(|held| held.header.as_ref()) {
                Some(header) => header,
                None => break Some(segment),
            };
        };
        journal.reverse();
        (journal, gap)
    }

    /// The roots that segments of the journal name, each list of them once.
    fn checkpoints(&self, journal: &[Closed]) -> Vec<Vec<Bytes>> {
        let mut named: Vec<Vec<Bytes>> = Vec::new();
        for part in journal.iter().rev() {
            let holders = self.holders(part.segment);
            let header = holders.iter().find_map(|held| held.header.as_ref());
            let roots = header.map(|header| &header.checkpoints);
            if let Some(roots) = roots.filter(|roots| !roots.is_empty())
                && !named.contains(roots)
            {
                named.push(roots.clone());
            }
        }
        named
    }

    /// Files that are no part of the journal. What is older than a segment
    /// that is named and was not found may be part of it.
    fn void(&self, journal: &[Closed], gap: Option<SegmentId>) -> Vec<(DiskId, JournalFile)> {
        let is_void = |held: &&Held| match held.segment {
            Some(segment) => {
                let part = journal.iter().any(|of| of.segment == segment);
                !part && gap.is_none_or(|gap| segment > gap)
            }
            None => true,
        };
        let void = self.held.iter().filter(is_void);
        void.map(|held| (held.disk, held.file.file)).collect()
    }
}

pub(crate) fn disk_error(disk: DiskId, error: ScanError) -> JournalError {
    match error {
        ScanError::Disk(error) => JournalError::Disk { disk, error },
        ScanError::Version(found) => Refusal::Version { disk, found }.into(),
    }
}

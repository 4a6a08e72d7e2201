//! The segments behind the open one: which are part of the journal, who holds
//! them, how long they are, and which no checkpoint needs any more.
//!
//! Nothing is read or removed here: the caller does that, and says so.

use shardgate_wire::journal::JournalFile;
use shardgate_wire::{CommitNumber, DiskId};

use super::Writer;
use crate::copies::Closed;
use crate::format::SegmentId;

impl Writer {
    /// The segments that a later, acknowledged one names, with who holds
    /// them, the oldest first: what may be copied ([`crate::copies`]).
    pub fn closed(&self) -> &[Closed] {
        let named = match self.closed.last() {
            // A start that has written nothing yet names none.
            Some(last) if self.predecessor == Some(last.segment) => self.closed.len() - 1,
            _ => self.closed.len(),
        };
        &self.closed[..named]
    }

    /// A copy of a segment was made, or found to be whole.
    pub fn copied(&mut self, segment: SegmentId, disk: DiskId, file: JournalFile) {
        for closed in &mut self.closed {
            if closed.segment == segment {
                closed.doubtful.remove(&disk);
                closed.holders.insert(disk, file);
            }
        }
    }

    /// A copy of a segment was never finished. The caller removes its file.
    pub fn not_copied(&mut self, segment: SegmentId, disk: DiskId) {
        for closed in &mut self.closed {
            if closed.segment == segment {
                closed.doubtful.remove(&disk);
            }
        }
    }

    /// Whether a segment that a disk holds is of this writer and no part of
    /// the journal: one that was begun and given up. No append may be under
    /// way.
    pub fn is_void(&self, segment: SegmentId) -> bool {
        let part = self.closed.iter().any(|of| of.segment == segment);
        let open = self.open.as_ref().is_some_and(|open| open.id == segment);
        let begun = segment.epoch == self.ctx.epoch && segment.sequence <= self.sequence;
        begun && !part && !open
    }

    /// How long the journal is: bytes of the files of one disk that would hold
    /// every segment.
    pub fn length_bytes(&self) -> u64 {
        let closed: u64 = self.closed.iter().map(|of| of.file_bytes).sum();
        closed + self.open.as_ref().map_or(0, |open| open.most)
    }

    /// Bytes of the segments with records behind a commit; of the open one,
    /// what was written of it.
    pub fn length_behind(&self, commit: CommitNumber) -> u64 {
        let behind = |of: &&Closed| of.last.number > commit;
        let closed = self.closed.iter().filter(behind);
        let closed: u64 = closed.map(|of| of.file_bytes).sum();
        let open = self.open.as_ref();
        let open = open.filter(|_| self.acknowledged.number > commit);
        closed + open.map_or(0, |open| open.end)
    }

    /// Bytes of the segments that [`Self::trim`] would take out.
    pub fn length_up_to(&self, commit: CommitNumber) -> u64 {
        let trimmed = self.closed[..self.needless(commit)].iter();
        trimmed.map(|of| of.file_bytes).sum()
    }

    /// How many of the oldest segments have no record behind a commit.
    fn needless(&self, commit: CommitNumber) -> usize {
        let named = self.closed().len();
        let needed = |of: &Closed| of.last.number > commit;
        let first = self.closed[..named].iter().position(needed);
        first.unwrap_or(named)
    }

    /// Whether a segment that a disk holds is older than all that are needed
    /// since [`Self::trim`]: its disk was away when it was taken out.
    pub fn is_trimmed(&self, segment: SegmentId) -> bool {
        let oldest = self.closed.first();
        oldest.is_some_and(|of| segment < of.segment && of.base.number <= self.trimmed)
    }

    /// Takes out the segments that no checkpoint needs: those whose records
    /// are all in the older checkpoint, at commit `checkpoint`. The caller
    /// removes their files.
    pub fn trim(&mut self, checkpoint: CommitNumber) -> Vec<Closed> {
        self.trimmed = self.trimmed.max(checkpoint);
        let mut trimmed: Vec<Closed> = self.closed.drain(..self.needless(checkpoint)).collect();
        for closed in &mut trimmed {
            closed.holders.append(&mut closed.doubtful);
        }
        trimmed
    }
}

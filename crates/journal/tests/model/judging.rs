//! Judges what a start says: that it is short, or why it was refused.

use shardgate_journal::{JournalError, Refusal};
use shardgate_wire::DiskId;

use crate::catalog::Catalog;
use crate::gateway::Gateway;
use crate::starting::Source;
use crate::truth;

impl Gateway {
    /// Journal disks were named lost: what they alone had is gone, and that is
    /// said. Nothing else may be.
    pub fn cut_short(&self, catalog: &Catalog, source: &Source, reached: &[DiskId]) {
        let end = catalog.position.number.0;
        let last = self.world.model.lock().last();
        if end >= last {
            return;
        }
        let missing = self
            .world
            .missing(source.catalog.position.number.0, reached);
        let mut model = self.world.model.lock();
        match missing {
            Some(_) if !self.world.reckless => {
                model.fail(format!("ends at {end} of {last}, any m disks may be lost"));
            }
            Some(_) => {
                model.counts.one("said to be short");
                model.forget_behind(end);
            }
            None => model.fail(format!("ends at {end} of {last}, which is there")),
        }
    }

    /// Judges why a start was refused. `None`: trying again is right.
    pub fn refused(
        &self,
        error: JournalError,
        source: &Source,
        reached: Option<Vec<DiskId>>,
    ) -> Option<Refusal> {
        self.world.model.lock().counts.one("refused");
        let refusal = match error {
            JournalError::Refused(refusal) => refusal,
            JournalError::Disk { .. } | JournalError::Fenced(_) => return None,
            other => {
                self.world.model.lock().fail(format!("start: {other}"));
                return None;
            }
        };
        let from = source.catalog.position;
        // A place that is not found is missed itself, too.
        let since = match &refusal {
            Refusal::NotOnChain(number) => number.0.saturating_sub(1),
            _ => from.number.0,
        };
        let reached = match &refusal {
            Refusal::NoMajority { .. } => return None,
            Refusal::Incomplete { reached, .. } | Refusal::MissingSegment { reached, .. } => {
                reached.clone()
            }
            Refusal::NotOnChain(_) | Refusal::NoJournal | Refusal::Version { .. } => {
                reached.unwrap_or_else(|| self.world.living())
            }
        };
        // What it names was needed by no checkpoint any more and removed: the
        // records of before may still be on a disk that was away, and count
        // for nothing. The catalog is older than that, and is restored.
        let trimmed = match &refusal {
            Refusal::MissingSegment { segment, .. } => {
                let last = self.world.model.lock().trimmed.get(segment).copied();
                last.is_some_and(|last| from.number.0 < last)
            }
            _ => false,
        };
        if trimmed {
            self.world.model.lock().counts.one("older than the journal");
        }
        // Of the journal disks that the operator did not name lost none has any
        // of it: nothing says that the catalog has all there was.
        let lost = !self.world.lost.all().is_empty();
        let has_none = |disk: &DiskId| truth::commits(self.world.disk(*disk)).is_empty();
        let none_left = refusal == Refusal::NoJournal && lost && reached.iter().all(has_none);
        let on_chain =
            from.number.0 == 0 || self.world.model.lock().position(from.number.0) == from;
        if !trimmed && !none_left && on_chain && self.world.missing(since, &reached).is_none() {
            let why = format!("refused though all is there: {refusal}");
            self.world.model.lock().fail(why);
        }
        // A disk that was not reached may come back and have it.
        let remaining = self.world.remaining();
        let all = remaining.iter().all(|disk| reached.contains(disk));
        all.then_some(refusal)
    }
}

//! Everything that outlives a gateway, and what the model knows: which commits
//! were acknowledged or shown.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_journal::disks::{Candidate, Lost};
use shardgate_journal::memory::MemoryDisk;
use shardgate_journal::{Position, Record, SegmentId};
use shardgate_wire::{CommitNumber, DiskId};

use crate::catalog::{Catalog, Folder, Stored};
use crate::truth;

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub fn one(&mut self, what: &'static str) {
        self.many(what, 1);
    }

    pub fn many(&mut self, what: &'static str, more: u64) {
        *self.0.entry(what).or_default() += more;
    }

    pub fn get(&self, what: &'static str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Self) {
        for (what, more) in &other.0 {
            self.many(what, *more);
        }
    }
}

/// Commits that may never be gone or other again.
#[derive(Debug, Default)]
pub struct Model {
    pub kept: BTreeMap<u64, Record>,
    /// The segments in which each was acknowledged, or made safe by a start.
    pub segments: BTreeMap<u64, BTreeSet<SegmentId>>,
    pub counts: Counts,
    pub failure: Option<String>,
    /// Hashes of all that gateways handed over, acknowledged or not: a start
    /// shows nothing else.
    pub submitted: BTreeSet<[u8; 32]>,
    /// Checkpoints in the pool, by their id.
    pub checkpoints: BTreeMap<u64, Stored>,
    pub checkpoint_ids: u64,
    /// Segments that were removed because no checkpoint needs them, with their
    /// last commit.
    pub trimmed: BTreeMap<SegmentId, u64>,
    /// Whether something was acknowledged on fewer disks than any m may take.
    pub weak: bool,
    /// Lost disks without which everything was seen to be fully stored.
    pub mended: BTreeSet<DiskId>,
}

impl Model {
    /// A failure in a task must not be lost with the task.
    pub fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.failure = Some(why);
        }
    }

    pub fn last(&self) -> u64 {
        self.kept.last_key_value().map_or(0, |(number, _)| *number)
    }

    fn keep(&mut self, record: &Record, who: &str) {
        let number = record.position.number.0;
        match self.kept.get(&number) {
            Some(before) if before != record => {
                self.fail(format!("{who}: commit {number} is another than before"));
            }
            Some(_) => {}
            None => {
                self.kept.insert(number, record.clone());
            }
        }
    }

    /// These are durable in a segment, on all its members.
    pub fn safe_in(&mut self, segment: Option<SegmentId>, commits: RangeInclusive<u64>) {
        let Some(segment) = segment else {
            return self.fail("acknowledged without a segment".to_owned());
        };
        for number in commits {
            self.segments.entry(number).or_default().insert(segment);
        }
    }

    pub fn acknowledged(&mut self, records: &[Record]) {
        for record in records {
            self.keep(record, "acknowledged");
            self.counts.one("acknowledged");
        }
    }

    /// A start shows this catalog, which got these from where it began.
    pub fn shown(&mut self, from: Position, records: &[Record], catalog: &Catalog) {
        if self.position(from.number.0) != from {
            self.fail(format!("shown: begins at {from:?}, which is on no chain"));
        }
        let mut at = from;
        for record in records {
            if record.position != at.next(&record.payload) {
                self.fail(format!("shown: {:?} does not follow", record.position));
            }
            at = record.position;
            if !self.submitted.contains(&at.hash) {
                self.fail(format!("shown: {at:?} was never committed"));
            }
            self.keep(record, "shown");
        }
        let last = self.last();
        if last > at.number.0 {
            let end = at.number;
            self.fail(format!(
                "shown: ends at {end}, commit {last} was acknowledged or shown"
            ));
        }
        if *catalog != self.catalog() {
            self.fail("shown: a catalog that is not the model's".to_owned());
        }
    }

    /// What all commits make.
    pub fn catalog(&self) -> Catalog {
        let mut catalog = Catalog::default();
        for record in self.kept.values() {
            catalog.apply(record);
        }
        catalog
    }

    /// The place of a commit; a place of no commit where there is none.
    pub fn position(&self, at: u64) -> Position {
        let none = Position {
            number: CommitNumber(at),
            hash: [0; 32],
        };
        self.kept.get(&at).map_or(none, |record| record.position)
    }

    /// What those disks alone had is gone, and the operator was told so.
    pub fn forget_behind(&mut self, at: u64) {
        self.kept.retain(|number, _| *number <= at);
        self.segments.retain(|number, _| *number <= at);
    }
}

/// Everything that outlives a gateway.
#[derive(Clone)]
pub struct World {
    pub disks: Vec<MemoryDisk>,
    pub parity: usize,
    pub servers: u128,
    /// Disks go whatever is left; then refusing is right.
    pub reckless: bool,
    /// All disks are a gateway's own, under its locks.
    pub embedded: bool,
    pub model: Arc<Mutex<Model>>,
    /// Disks that never come back.
    pub gone: Arc<Mutex<BTreeSet<DiskId>>>,
    /// Those that the operator has named lost.
    pub lost: Lost,
    pub folders: Arc<Mutex<Vec<Folder>>>,
}

impl World {
    pub fn place(&self, disk: DiskId) -> Candidate {
        Candidate {
            disk,
            server: disk.0 % self.servers,
            device: disk.0,
        }
    }

    pub fn disk(&self, id: DiskId) -> &MemoryDisk {
        self.disks.iter().find(|disk| disk.id() == id).unwrap()
    }

    pub fn ids(&self) -> Vec<DiskId> {
        self.disks.iter().map(MemoryDisk::id).collect()
    }

    /// Disks that are up and were not lost.
    pub fn living(&self) -> Vec<DiskId> {
        let (gone, lost) = (self.gone.lock(), self.lost.all());
        let living = |disk: &DiskId| {
            self.disk(*disk).is_up() && !gone.contains(disk) && !lost.contains(disk)
        };
        self.ids().into_iter().filter(living).collect()
    }

    /// Disks that are not gone, up or not.
    pub fn remaining(&self) -> Vec<DiskId> {
        let gone = self.gone.lock();
        let ids = self.ids().into_iter();
        ids.filter(|disk| !gone.contains(disk)).collect()
    }

    /// Whether a majority of these has it, or all that were not named lost.
    pub fn is_on_enough(&self, quorum: &[DiskId], has: impl Fn(&DiskId) -> bool) -> bool {
        let having = quorum.iter().filter(|disk| has(disk)).count();
        let lost = self.lost.all();
        let rest = quorum.iter().all(|disk| has(disk) || lost.contains(disk));
        having > quorum.len() / 2 || (having > 0 && rest)
    }

    /// The first commit behind `from` that none of these disks has whole where
    /// it was made safe.
    pub fn missing(&self, from: u64, disks: &[DiskId]) -> Option<u64> {
        let held = disks.iter().map(|disk| truth::commits(self.disk(*disk)));
        let held: Vec<_> = held.collect();
        let model = self.model.lock();
        let has = |number: u64| {
            let segments = model.segments.get(&number);
            segments.is_some_and(|of| {
                of.iter()
                    .any(|segment| held.iter().any(|disk| disk.contains(&(*segment, number))))
            })
        };
        let mut behind = model.kept.keys().copied().filter(|of| *of > from);
        behind.find(|number| !has(*number))
    }

    /// The first commit behind `from` that fewer than `count` of these disks
    /// have in the segment of the chain that it counts in.
    pub fn on_fewer(
        &self,
        from: u64,
        chain: &[(SegmentId, RangeInclusive<u64>)],
        disks: &[DiskId],
        count: usize,
    ) -> Option<u64> {
        let held = disks.iter().map(|disk| truth::commits(self.disk(*disk)));
        let held: Vec<_> = held.collect();
        let model = self.model.lock();
        let holders = |number: u64| {
            let counts = chain.iter().find(|(_, commits)| commits.contains(&number));
            let of = counts.map(|(segment, _)| (*segment, number));
            let has = |disk: &&BTreeSet<_>| of.is_some_and(|of| disk.contains(&of));
            held.iter().filter(has).count()
        };
        let mut behind = model.kept.keys().copied().filter(|of| *of > from);
        behind.find(|number| holders(*number) < count)
    }
}

//! What the model knows: which commits were acknowledged or shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_journal::disks::{Candidate, JournalMap};
use shardgate_journal::memory::MemoryDisk;
use shardgate_journal::{Position, Record};
use shardgate_wire::{DiskId, Epoch};

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub acknowledged: u64,
    pub starts: u64,
    pub refused: u64,
    pub rewritten: u64,
    pub fenced: u64,
    pub closed: u64,
    pub changes: u64,
    pub copies: u64,
    pub void: u64,
    pub trimmed: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.starts += other.starts;
        self.refused += other.refused;
        self.rewritten += other.rewritten;
        self.fenced += other.fenced;
        self.closed += other.closed;
        self.changes += other.changes;
        self.copies += other.copies;
        self.void += other.void;
        self.trimmed += other.trimmed;
    }
}

/// Commits that may never be gone or other again.
#[derive(Debug, Default)]
pub struct Model {
    pub kept: BTreeMap<u64, Record>,
    pub counts: Counts,
    pub maps: BTreeMap<DiskId, (Epoch, JournalMap)>,
    pub failure: Option<String>,
    /// Hashes of all that gateways handed over, acknowledged or not: a start
    /// shows nothing else.
    pub submitted: BTreeSet<[u8; 32]>,
    /// What every local catalog and the older checkpoint have.
    pub checkpoint: u64,
}

impl Model {
    /// A failure in a task must not be lost with the task.
    pub fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.failure = Some(why);
        }
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

    pub fn acknowledged(&mut self, records: &[Record]) {
        for record in records {
            self.keep(record, "acknowledged");
            self.counts.acknowledged += 1;
        }
    }

    /// A start shows these behind `from`, and no more.
    pub fn shown(&mut self, from: Position, records: &[Record]) {
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
        let last = self.kept.last_key_value().map_or(0, |(number, _)| *number);
        if last > at.number.0 {
            let end = at.number;
            self.fail(format!(
                "shown: ends at {end}, commit {last} was acknowledged or shown"
            ));
        }
    }

    /// What the local catalog of a gateway may have: any of what was shown.
    pub fn position(&self, at: u64) -> Position {
        self.kept
            .get(&at)
            .map_or(Position::default(), |r| r.position)
    }
}

/// Everything that outlives a gateway.
#[derive(Clone)]
pub struct World {
    pub disks: Vec<MemoryDisk>,
    pub parity: usize,
    pub model: Arc<Mutex<Model>>,
    pub gone: Arc<Mutex<BTreeSet<DiskId>>>,
    pub servers: u128,
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
}

pub fn payload(instance: u128, counter: u64, len: usize) -> Bytes {
    let mut bytes = format!("{instance:x}/{counter}/").into_bytes();
    bytes.resize(bytes.len() + len, b'.');
    bytes.into()
}

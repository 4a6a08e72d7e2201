//! What commits make: a catalog of a few keys, what a machine keeps of it, and
//! checkpoints of it in the pool.
//!
//! Reduced to what the journal's rules speak of: a number and a hash beside the
//! rows, a flush that is behind, two roots, files that any so many disks give.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes};
use shardgate_journal::{Position, Record};
use shardgate_wire::{CommitNumber, DiskId, InstanceId};

/// Keys of the catalog.
const KEYS: u64 = 8;

/// A commit's payload: which key it sets, and who says so.
pub fn payload(instance: u128, counter: u64, len: usize) -> Bytes {
    let mut bytes = format!("{}/{instance:x}/{counter}/", counter % KEYS).into_bytes();
    bytes.resize(bytes.len() + len, b'.');
    bytes.into()
}

/// Rows and how far they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    pub position: Position,
    pub rows: BTreeMap<u8, Bytes>,
}

impl Catalog {
    /// Applies a commit; false if it is not the next.
    pub fn apply(&mut self, record: &Record) -> bool {
        let follows = self.position.next(&record.payload) == record.position;
        self.position = record.position;
        if let Some(key) = record.payload.first() {
            self.rows.insert(*key, record.payload.clone());
        }
        follows
    }
}

/// The own folder of a gateway's machine.
#[derive(Debug, Default)]
pub struct Folder {
    /// The instance whose process holds the lock.
    pub lock: Option<InstanceId>,
    /// The instances that ran with it.
    pub instances: Vec<InstanceId>,
    /// What RocksDB has on its disk; none where it has to be restored.
    pub flushed: Option<Catalog>,
}

/// A checkpoint's root, as disks and segment headers name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    pub position: Position,
    /// Counts the checkpoints of a run.
    pub id: u64,
}

/// The newest root, and the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(pub Vec<Root>);

impl Roots {
    pub fn with(&self, newest: Root) -> Self {
        Self(
            [Some(newest), self.0.first().copied()]
                .into_iter()
                .flatten()
                .collect(),
        )
    }

    pub fn newest(&self) -> Option<Root> {
        self.0.first().copied()
    }

    /// Up to here no journal is needed: with one checkpoint it all is.
    pub fn journal_from(&self) -> Option<CommitNumber> {
        self.0.get(1).map(|root| root.position.number)
    }

    pub fn encode(&self) -> Bytes {
        self.encode_each().concat().into()
    }

    pub fn encode_each(&self) -> Vec<Bytes> {
        let each = self.0.iter().map(|root| {
            let mut out = Vec::new();
            out.put_u64(root.position.number.0);
            out.put_slice(&root.position.hash);
            out.put_u64(root.id);
            Bytes::from(out)
        });
        each.collect()
    }

    pub fn decode(mut bytes: &[u8]) -> Self {
        let mut roots = Vec::new();
        while bytes.has_remaining() {
            let number = CommitNumber(bytes.get_u64());
            let mut hash = [0; 32];
            bytes.copy_to_slice(&mut hash);
            let position = Position { number, hash };
            roots.push(Root {
                position,
                id: bytes.get_u64(),
            });
        }
        Self(roots)
    }
}

/// A checkpoint's files in the pool.
#[derive(Clone, Debug)]
pub struct Stored {
    pub catalog: Catalog,
    pub disks: Vec<DiskId>,
    /// So many of the disks give it back.
    pub need: usize,
}

impl Stored {
    pub fn reads(&self, reached: &[DiskId]) -> bool {
        let held = self.disks.iter().filter(|disk| reached.contains(disk));
        held.count() >= self.need
    }
}

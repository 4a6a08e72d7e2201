//! One ordered key-value engine under the catalog, and its contract.
//!
//! Invariant: [`Engine::commit`] is atomic and the only linearisation point.
//! Its expectations are evaluated in commit order against what is applied
//! **and** pending; a commit that fails them changes nothing and never fails
//! its neighbours; no answer, a conflict included, leaves before everything
//! it was based on is durable. What an engine keeps means nothing to it.

mod evaluate;
pub mod log;
mod memory;
#[cfg(feature = "rocksdb")]
mod rocks;

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use shardgate_wire::CommitNumber;
use thiserror::Error;

pub use memory::MemoryEngine;
#[cfg(feature = "bench")]
pub use rocks::PlainRocks;
#[cfg(feature = "rocksdb")]
pub use rocks::{RocksEngine, RocksOptions, RocksStopped, verify_tables};

/// Largest sum of keys and values in one commit, bytes.
pub const MAX_COMMIT_BYTES: usize = 16 << 20;

/// Keeps rows in byte order of their keys. See the module for the contract.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The value of a key, as of a moment after the call began.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The values of several keys, all as of one moment, in the order asked.
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError>;

    /// Rows in order, all as of one moment; fewer than `limit` only where the
    /// range ends.
    async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError>;

    /// Applies all of `commit` or nothing; returns when it is durable and
    /// visible. Once it was handed over, dropping the future changes nothing.
    async fn commit(&self, commit: Commit) -> Result<CommitNumber, CommitError>;

    /// A view of one moment, for reads that need more than one call.
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError>;

    /// The highest commit that is durable and visible.
    fn committed(&self) -> CommitNumber;

    /// Makes what is applied durable in the engine's own files, so that a
    /// start has little to replay from a log.
    async fn flush(&self) -> Result<(), EngineError>;
}

/// What an [`Engine`] held at one moment. Short-lived: it keeps old rows alive.
#[async_trait]
pub trait Snapshot: Send + Sync {
    /// The last commit that it shows.
    fn committed(&self) -> CommitNumber;
    /// As [`Engine::get`].
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;
    /// As [`Engine::scan`].
    async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError>;
}

/// Keys from `start` on, below `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The least key that may be in it.
    pub start: Bytes,
    /// The least key above it; `None`: no bound.
    pub end: Option<Bytes>,
}

impl KeyRange {
    /// All keys that begin with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = crate::keys::successor(&start);
        Self { start, end }
    }

    /// Whether it can hold no key.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

/// A request for rows.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Which.
    pub range: KeyRange,
    /// From the highest down. Not together with `fold`.
    pub reverse: bool,
    /// At most this many entries.
    pub limit: usize,
    /// Rows to take together.
    pub fold: Option<Fold>,
}

impl Scan {
    /// The first `limit` rows of a range.
    pub fn first(range: KeyRange, limit: usize) -> Self {
        Self {
            range,
            reverse: false,
            limit,
            fold: None,
        }
    }

    /// The last row of a range.
    pub fn last(range: KeyRange) -> Self {
        Self {
            range,
            reverse: true,
            limit: 1,
            fold: None,
        }
    }
}

/// Takes together the rows whose keys agree up to and including the first
/// `delimiter` behind the first `from` bytes: one entry stands for all of
/// them, and the scan goes on behind the last without visiting them.
#[derive(Clone, Debug)]
pub struct Fold {
    /// Length of what all keys share, bytes.
    pub from: usize,
    /// Not empty.
    pub delimiter: Bytes,
    /// The delimiter is looked for before the first of these only.
    pub until: Option<[u8; 2]>,
}

impl Fold {
    /// Length of the shared head that `key` is folded to.
    pub(crate) fn head_len(&self, key: &[u8]) -> Option<usize> {
        let rest = key.get(self.from..)?;
        let rest = match self.until {
            Some(stop) => {
                let end = find(rest, &stop).unwrap_or(rest.len());
                &rest[..end]
            }
            None => rest,
        };
        find(rest, &self.delimiter).map(|at| self.from + at + self.delimiter.len())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if let [byte] = needle {
        return haystack.iter().position(|at| at == byte);
    }
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// What a scan returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A row.
    Row(Bytes, Bytes),
    /// The shared head of the rows that a [`Fold`] took together.
    Folded(Bytes),
}

impl Entry {
    /// Key and value, if it is a row.
    pub fn into_row(self) -> Option<(Bytes, Bytes)> {
        match self {
            Self::Row(key, value) => Some((key, value)),
            Self::Folded(_) => None,
        }
    }
}

/// Something that must hold for a commit to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key has exactly this value, or is absent.
    Value(Bytes, Option<Bytes>),
    /// The range holds exactly these rows, in order.
    Rows(KeyRange, Vec<(Bytes, Bytes)>),
}

/// A change of one key. Later changes of a commit win over earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets it.
    Put(Bytes, Bytes),
    /// Removes it, if it is there.
    Delete(Bytes),
    /// Sets the key made of `head`, the commit's own number (8 bytes,
    /// big-endian) and `tail`.
    PutNumbered {
        /// What stands before the number.
        head: Bytes,
        /// What stands behind it.
        tail: Bytes,
        /// The value.
        value: Bytes,
    },
}

impl Op {
    fn len(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
            Self::PutNumbered { head, tail, value } => head.len() + 8 + tail.len() + value.len(),
        }
    }

    /// The key that it changes in commit `number`, and its new value.
    fn resolve(self, number: CommitNumber) -> Change {
        match self {
            Self::Put(key, value) => (key, Some(value)),
            Self::Delete(key) => (key, None),
            Self::PutNumbered { head, tail, value } => {
                let key = [&head[..], &number.to_be_bytes(), &tail].concat();
                (Bytes::from(key), Some(value))
            }
        }
    }
}

/// Changes that are made together, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// What must hold.
    pub expect: Vec<Expect>,
    /// What changes.
    pub ops: Vec<Op>,
}

/// A key and its new value; `None` removes it.
pub type Change = (Bytes, Option<Bytes>);

impl Commit {
    /// Its changes as commit `number`.
    fn resolve(self, number: CommitNumber) -> Vec<Change> {
        self.ops.into_iter().map(|op| op.resolve(number)).collect()
    }

    /// Bytes of its keys and values.
    pub fn size_bytes(&self) -> usize {
        let expected: usize = self
            .expect
            .iter()
            .map(|expect| match expect {
                Expect::Value(key, value) => key.len() + value.as_ref().map_or(0, Bytes::len),
                Expect::Rows(_, rows) => rows.iter().map(|(k, v)| k.len() + v.len()).sum(),
            })
            .sum();
        expected + self.ops.iter().map(Op::len).sum::<usize>()
    }
}

/// Why an engine did not answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EngineError {
    /// It cannot now.
    #[error("catalog engine unavailable: {0}")]
    Unavailable(String),
    /// What it keeps is not what was put there.
    #[error("catalog engine damaged: {0}")]
    Damaged(String),
}

/// Why a commit was not applied.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CommitError {
    /// This expectation, counted from 0, did not hold.
    #[error("expectation {0} of the commit does not hold")]
    Conflict(usize),
    /// More than [`MAX_COMMIT_BYTES`].
    #[error("a commit of {0} bytes is too large")]
    TooLarge(usize),
    /// The engine failed. Whether the commit was applied is not known.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl fmt::Debug for dyn Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine at {}", self.committed())
    }
}

#[cfg(test)]
mod conformance;

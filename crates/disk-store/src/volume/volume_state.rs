//! What is kept in memory of one volume.
//!
//! Invariant: what the index of a volume has is durable. A sealed volume
//! costs its fence (16 bytes for each 127 records) and four bytes for each
//! record that was deleted since.

use std::collections::BTreeMap;
use std::sync::Arc;

use shardgate_wire::ids::BlobId;

use super::format::{DirectoryHead, Entry, Heading, RECORD_ALIGN};
use crate::io::DiskFile;

/// What the end of a volume takes at most: the way to the next sector, and
/// the seal.
const FOR_SEAL: u64 = 1024;

/// Blob and index of a shard in its group.
pub(crate) type InGroup = (BlobId, u8);

/// Where the records of a volume are found.
#[derive(Debug)]
pub(crate) enum Index {
    /// All of them: the volume is open, or not sealed yet.
    Map(BTreeMap<InGroup, Entry>),
    /// In the volume's directory, by this.
    Directory(DirectoryHead),
}

/// How far a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Takes records.
    Open,
    /// Takes the records of extents that are out, and no others.
    Closed,
    Sealed,
}

#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) heading: Heading,
    pub(crate) stage: Stage,
    pub(crate) index: Index,
    /// Open while it is not sealed.
    pub(crate) file: Option<Arc<dyn DiskFile>>,
    /// Where records end: everything before it is durable.
    pub(crate) tail: u64,
    /// To where the file was zeroed.
    pub(crate) zeroed_to: u64,
    /// Where extents begin.
    pub(crate) extents_from: u64,
    /// Bytes that the records of extents that are out will take.
    pub(crate) promised: u64,
    /// Extents that are out.
    pub(crate) out: usize,
    /// Ended early, after a refused write: takes nothing at all.
    pub(crate) ended: bool,
    /// Records that were deleted, in units of 64 bytes, sorted.
    pub(crate) dead: Vec<u32>,
    pub(crate) dead_bytes: u64,
    /// What all its records take, dead ones too.
    pub(crate) recorded: u64,
    /// Damaged stretches whose keys nobody knows.
    pub(crate) unknown: u32,
    /// A record did not verify: the volume is not compacted.
    pub(crate) damaged: bool,
    /// The device did not give all of it when it was opened.
    pub(crate) unread: bool,
}

impl Volume {
    pub(crate) fn new(heading: Heading, file: Arc<dyn DiskFile>, zeroed_to: u64) -> Self {
        Self {
            heading,
            stage: Stage::Open,
            index: Index::Map(BTreeMap::new()),
            file: Some(file),
            tail: super::format::FIRST_RECORD,
            zeroed_to,
            extents_from: heading.size,
            promised: 0,
            out: 0,
            ended: false,
            dead: Vec::new(),
            dead_bytes: 0,
            recorded: 0,
            unknown: 0,
            damaged: false,
            unread: false,
        }
    }

    pub(crate) fn sealed(head: DirectoryHead) -> Self {
        Self {
            heading: head.heading,
            stage: Stage::Sealed,
            file: None,
            tail: head.tail,
            recorded: head.recorded,
            zeroed_to: head.tail,
            extents_from: head.extents_from,
            promised: 0,
            out: 0,
            ended: false,
            dead: Vec::new(),
            dead_bytes: 0,
            unknown: head.unknown,
            damaged: false,
            unread: false,
            index: Index::Directory(head),
        }
    }

    /// A record that is durable.
    pub(crate) fn add(&mut self, entry: Entry) {
        self.recorded += entry.bytes();
        if let Index::Map(map) = &mut self.index {
            map.insert(entry.key(), entry);
        }
    }

    pub(crate) fn is_dead(&self, at: u32) -> bool {
        self.dead.binary_search(&at).is_ok()
    }

    /// Takes note of a record that is no more.
    pub(crate) fn bury(&mut self, at: u32, bytes: u64) {
        if let Err(place) = self.dead.binary_search(&at) {
            self.dead.insert(place, at);
            self.dead_bytes += bytes;
        }
    }

    /// The same, of a record whose key is known.
    pub(crate) fn bury_entry(&mut self, entry: &Entry) {
        self.bury(entry.at, entry.bytes());
        if let Index::Map(map) = &mut self.index
            && map
                .get(&entry.key())
                .is_some_and(|held| held.at == entry.at)
        {
            map.remove(&entry.key());
        }
    }

    /// Bytes of records and extents, dead ones too.
    pub(crate) fn used_bytes(&self) -> u64 {
        let records = self.tail - super::format::FIRST_RECORD;
        records + (self.heading.size - self.extents_from)
    }

    /// Bytes that compaction would give back: not those that every volume
    /// takes besides its records, else one of a single short record would be
    /// compacted for ever.
    pub(crate) fn waste(&self) -> u64 {
        if self.recorded <= self.dead_bytes {
            return self.used_bytes();
        }
        let unrecorded = self.used_bytes().saturating_sub(self.recorded);
        unrecorded.saturating_sub(FOR_SEAL) + self.dead_bytes
    }

    /// Records that may be live.
    pub(crate) fn count(&self) -> usize {
        match &self.index {
            Index::Map(map) => map.len(),
            Index::Directory(head) => head.count as usize,
        }
    }

    /// Whether the key may be in the volume, by its first and last key.
    pub(crate) fn spans(&self, key: InGroup) -> bool {
        match &self.index {
            Index::Map(map) => map.contains_key(&key),
            Index::Directory(head) => {
                head.fence.first().is_some_and(|first| *first <= key.0) && key <= head.last
            }
        }
    }

    /// Whether a record of `span` bytes, and an extent, fit.
    pub(crate) fn has_room(&self, from: u64, span: u64, extent: u64) -> bool {
        let end = from + span + self.promised + FOR_SEAL;
        end + extent <= self.extents_from
    }
}

/// The pages of a directory that may have a key, by its fence.
pub(crate) fn pages_of(head: &DirectoryHead, key: InGroup) -> std::ops::Range<usize> {
    // A blob may begin on one page and go on on the next.
    let from = head.fence.partition_point(|first| *first < key.0);
    let to = head.fence.partition_point(|first| *first <= key.0);
    from.saturating_sub(1)..to
}

pub(crate) fn at_of(offset: u64) -> u32 {
    u32::try_from(offset / RECORD_ALIGN).expect("volumes are below 256 GiB")
}

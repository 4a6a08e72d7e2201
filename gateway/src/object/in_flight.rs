//! Which blobs are being written, by group.
//!
//! Owns [`InFlight`]. The commit that opens an owed row says the lowest id in
//! flight in the group (PROTOCOL.md 5): a blob with a lower one that lacks
//! the slot too may be committed after it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_wire::{BlobId, GroupId};

/// All blobs of this gateway that are being written. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    groups: Arc<Mutex<HashMap<GroupId, BTreeSet<BlobId>>>>,
}

/// One of them; no longer when dropped.
#[derive(Debug)]
pub struct InFlightBlob {
    all: InFlight,
    group: GroupId,
    blob: BlobId,
}

impl InFlight {
    /// Registers a blob, before the first of its shards is sent.
    pub fn begin(&self, group: GroupId, blob: BlobId) -> InFlightBlob {
        let mut groups = self.groups.lock();
        groups.entry(group).or_default().insert(blob);
        InFlightBlob {
            all: self.clone(),
            group,
            blob,
        }
    }
}

impl InFlightBlob {
    /// The lowest id in flight in its group: its own, or one before.
    pub fn lowest(&self) -> BlobId {
        let groups = self.all.groups.lock();
        let lowest = groups.get(&self.group).and_then(BTreeSet::first);
        lowest.copied().unwrap_or(self.blob)
    }
}

impl Drop for InFlightBlob {
    fn drop(&mut self) {
        let mut groups = self.all.groups.lock();
        if let Some(blobs) = groups.get_mut(&self.group) {
            blobs.remove(&self.blob);
            if blobs.is_empty() {
                groups.remove(&self.group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_of_a_group() {
        let all = InFlight::default();
        let low = all.begin(GroupId(1), BlobId(3));
        let high = all.begin(GroupId(1), BlobId(9));
        let other = all.begin(GroupId(2), BlobId(1));
        assert_eq!((high.lowest(), other.lowest()), (BlobId(3), BlobId(1)));
        drop(low);
        assert_eq!(high.lowest(), BlobId(9));
        drop((high, other));
        assert!(all.groups.lock().is_empty());
    }
}

//! What disks are told of a blob besides its shards (PROTOCOL.md 9).
//!
//! A shard's header says what it belongs to, but it is written before anybody
//! knows whether that was ever published. A **note** says what the catalog
//! decided, and in which order. Invariant: of two notes of one blob the one
//! that says it was deleted holds, for ever; of two others the one of the
//! higher [`NoteOrder`].

use serde::{Deserialize, Serialize};

use crate::ids::{BlobId, CommitNumber, GroupId};

/// Most notes of one call and of one page.
pub const MAX_NOTES: usize = 256;
/// Longest payload of a note, bytes.
pub const MAX_NOTE_BYTES: usize = 2048;
/// Most notes of deleted blobs that one disk keeps: they stay in its memory.
pub const MAX_DELETE_NOTES: usize = 1_000_000;

/// Stands for no blob: such a note is about its group, or with
/// [`NO_GROUP`] about the disk as a whole. No shard goes with it, and
/// [`ShardStore`](crate::ShardStore)s keep the last one of each.
pub const NO_BLOB: BlobId = BlobId(0);
/// Stands for no group: there is never one of this number.
pub const NO_GROUP: GroupId = GroupId(u64::MAX);

/// Where a decision stands among all others of the cluster.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NoteOrder {
    /// The epoch in which the catalog took its lineage; 0 for the first one.
    /// Commit numbers of different lineages say nothing about each other.
    pub history: u64,
    /// The commit that decided.
    pub commit: CommitNumber,
}

/// What was decided about a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoteState {
    /// It belongs to a version or a part: the catalog's own encoding, opaque
    /// here, at most [`MAX_NOTE_BYTES`].
    Published(Vec<u8>),
    /// No shard of it may be written any more.
    Deleted,
}

/// A note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobNote {
    /// The blob's group.
    pub group: GroupId,
    /// The blob.
    pub blob: BlobId,
    /// When it was decided.
    pub order: NoteOrder,
    /// What.
    pub state: NoteState,
}

impl BlobNote {
    /// Whether this one holds, where both are known.
    pub fn overrules(&self, other: &Self) -> bool {
        match (&self.state, &other.state) {
            (NoteState::Deleted, NoteState::Published(_)) => true,
            (NoteState::Published(_), NoteState::Deleted) => false,
            _ => self.order > other.order,
        }
    }
}

/// A place in a disk's notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoteCursor {
    /// Behind the note of this deleted blob.
    Deleted(GroupId, BlobId),
    /// From this place of this file on.
    Stored {
        /// The file's number.
        file: u64,
        /// Bytes from its start.
        offset: u64,
    },
}

/// Notes of a disk, in no particular order, repeats among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotePage {
    /// At most [`MAX_NOTES`].
    pub notes: Vec<BlobNote>,
    /// Where to go on; `None` at the end.
    pub next: Option<NoteCursor>,
    /// Stretches that are damaged: what they said must come from the other
    /// disks of the blobs.
    pub damaged: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_holds_for_ever_and_later_lineages_overrule_earlier_ones() {
        let note = |history, commit, deleted: bool| BlobNote {
            group: GroupId(1),
            blob: BlobId(2),
            order: NoteOrder {
                history,
                commit: CommitNumber(commit),
            },
            state: match deleted {
                true => NoteState::Deleted,
                false => NoteState::Published(Vec::new()),
            },
        };
        let (old, late) = (note(0, 9, false), note(3, 2, false));
        assert!(late.overrules(&old) && !old.overrules(&late));
        assert!(note(3, 3, false).overrules(&late));
        assert!(!late.overrules(&late.clone()), "a repeat changes nothing");
        let gone = note(0, 1, true);
        assert!(gone.overrules(&late) && !late.overrules(&gone));
    }
}

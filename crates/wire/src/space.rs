//! Whose write it is, and what a disk has left for whom (PROTOCOL.md 10).
//!
//! A disk that fills up refuses the writes that can best be done without
//! first: those of clients, then copies in the background, then checkpoints.
//! Journal segments, notes and deletes, and one compaction have space that
//! nothing else takes: a full pool must still be able to delete.

use serde::{Deserialize, Serialize};

/// What a shard is written for, and with that which space it may take.
///
/// Said by the caller in every call's context; a call that takes no space
/// pays no heed to it. The journal needs none: its calls are its own, and no
/// shard can be written in its name.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Purpose {
    /// For a client that waits. Refused first.
    #[default]
    Client,
    /// A copy that nobody waits for: what a slot lacks, what moves. Goes
    /// behind the calls of clients.
    Background,
    /// A file of a checkpoint: without new ones the journal is never trimmed.
    /// Refused last.
    Checkpoint,
}

impl Purpose {
    /// All of them, the first to be refused first.
    pub const ALL: [Self; 3] = [Self::Client, Self::Background, Self::Checkpoint];

    /// The word for logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Background => "background",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// What each may still take of a disk, bytes. What one may take, those behind
/// it may take as well, and more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRoom {
    /// Shards of clients.
    pub client_bytes: u64,
    /// Copies in the background.
    pub background_bytes: u64,
    /// Files of checkpoints.
    pub checkpoint_bytes: u64,
    /// New journal segments.
    pub journal_bytes: u64,
    /// Kept for the journal alone, the segments that are there included: what
    /// its length on this disk may rely on, whatever else fills up.
    pub journal_kept_bytes: u64,
}

/// With less than this left for it a purpose is refused: about what one call
/// takes at most.
pub const FULL_BELOW_BYTES: u64 = 1 << 20;

impl DiskRoom {
    /// What shards of a purpose may still take, bytes.
    pub fn of(&self, purpose: Purpose) -> u64 {
        match purpose {
            Purpose::Client => self.client_bytes,
            Purpose::Background => self.background_bytes,
            Purpose::Checkpoint => self.checkpoint_bytes,
        }
    }

    /// The last purpose that is refused for want of space; `None` while there
    /// is space for all.
    pub fn refuses(&self) -> Option<Purpose> {
        let full = |purpose: &Purpose| self.of(*purpose) < FULL_BELOW_BYTES;
        Purpose::ALL.into_iter().rev().find(full)
    }

    /// What a full disk refuses and what goes on, in words; `None` while
    /// there is space for all.
    pub fn words(&self) -> Option<&'static str> {
        Some(match self.refuses()? {
            Purpose::Client => {
                "full: client writes are refused; background copies, checkpoints, the journal and \
                 deletes go on"
            }
            Purpose::Background => {
                "full: client writes and background copies are refused; checkpoints, the journal \
                 and deletes go on"
            }
            Purpose::Checkpoint if self.journal_bytes >= FULL_BELOW_BYTES => {
                "full: client writes, background copies and checkpoints are refused; the journal \
                 and deletes go on"
            }
            Purpose::Checkpoint => "full: everything but deletes is refused",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(client: u64, background: u64, checkpoint: u64, journal: u64) -> DiskRoom {
        DiskRoom {
            client_bytes: client,
            background_bytes: background,
            checkpoint_bytes: checkpoint,
            journal_bytes: journal,
            journal_kept_bytes: 0,
        }
    }

    #[test]
    fn what_is_refused_is_told_in_words() {
        const SOME: u64 = FULL_BELOW_BYTES;
        for (room, refuses, begins) in [
            (room(SOME, SOME, SOME, SOME), None, None),
            (
                room(SOME - 1, SOME, SOME, SOME),
                Some(Purpose::Client),
                Some("full: client writes are refused; background copies,"),
            ),
            (
                room(0, SOME - 1, SOME, SOME),
                Some(Purpose::Background),
                Some("full: client writes and background copies are refused; checkpoints,"),
            ),
            (
                room(0, 0, 0, SOME),
                Some(Purpose::Checkpoint),
                Some("full: client writes, background copies and checkpoints are refused; the"),
            ),
            (
                room(0, 0, 0, 0),
                Some(Purpose::Checkpoint),
                Some("full: everything but deletes"),
            ),
        ] {
            assert_eq!(room.refuses(), refuses, "{room:?}");
            let words = room.words();
            assert_eq!(words.is_some(), begins.is_some());
            let fits = words
                .zip(begins)
                .is_none_or(|(w, begins)| w.starts_with(begins));
            assert!(fits, "{words:?} for {room:?}");
        }
    }
}

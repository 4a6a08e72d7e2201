//! The calls about notes and slots: their heads. See [`crate::message`].

use serde::{Deserialize, Serialize};

use crate::ids::{BlobId, GroupId};
use crate::note::{BlobNote, MAX_NOTE_BYTES, MAX_NOTES, NoteCursor};
use crate::store::CallContext;

/// Bytes of a note beside its payload, at most.
const NOTE_FIELDS_BYTES: usize = 64;

/// Longest head that carries notes, bytes.
pub const MAX_NOTES_HEAD_BYTES: usize = MAX_NOTES * (MAX_NOTE_BYTES + NOTE_FIELDS_BYTES) + 1024;

/// Head of [`Call::PutNotes`](crate::message::Call::PutNotes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutNotesHead {
    /// Who calls.
    pub ctx: CallContext,
    /// At most [`MAX_NOTES`].
    pub notes: Vec<BlobNote>,
}

/// Head of [`Call::ForgetNotes`](crate::message::Call::ForgetNotes).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgetNotesHead {
    /// Who calls.
    pub ctx: CallContext,
    /// At most [`MAX_BATCH`](crate::store::MAX_BATCH).
    pub blobs: Vec<(GroupId, BlobId)>,
}

/// Head of [`Call::Notes`](crate::message::Call::Notes); the answer is a
/// [`NotePage`](crate::note::NotePage).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotesHead {
    /// Where to go on.
    pub after: Option<NoteCursor>,
}

/// Head of [`Call::Slots`](crate::message::Call::Slots); the answer is
/// [`SlotAssignment`](crate::disk::SlotAssignment)s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsHead {
    /// The last group seen.
    pub after: Option<GroupId>,
}

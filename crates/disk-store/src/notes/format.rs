//! A batch of notes, to and from bytes: a frame that says which disk, file
//! and place it is of, filled up to a sector.

use shardgate_wire::ids::{BlobId, CommitNumber, DiskId, GroupId};
use shardgate_wire::note::{BlobNote, MAX_NOTE_BYTES, MAX_NOTES, NoteOrder, NoteState};

use crate::format::bytes::{Reader, Writer};
use crate::format::{FormatError, damaged, frame, framed_len, unframe};

const MAGIC: &[u8; 8] = b"SG.notes";
/// Batches begin at multiples of this.
pub(super) const SECTOR: u64 = 512;
/// Bytes of a note beside its payload.
const ENTRY_BYTES: usize = 8 + 16 + 8 + 8 + 4;
/// Longest batch, bytes.
pub(super) const MAX_BATCH_BYTES: usize = 1024 + MAX_NOTES * (ENTRY_BYTES + MAX_NOTE_BYTES);

/// Where a batch lies: bytes of another disk or place are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) disk: DiskId,
    pub(super) file: u64,
    pub(super) offset: u64,
}

/// A note that the disk keeps in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) group: GroupId,
    pub(super) blob: BlobId,
    pub(super) order: NoteOrder,
    pub(super) payload: Vec<u8>,
}

impl From<Stored> for BlobNote {
    fn from(stored: Stored) -> Self {
        Self {
            group: stored.group,
            blob: stored.blob,
            order: stored.order,
            state: NoteState::Published(stored.payload),
        }
    }
}

pub(super) fn encode(place: Place, notes: &[Stored]) -> Vec<u8> {
    let mut w = Writer::default();
    w.u128(place.disk.0);
    w.u64(place.file);
    w.u64(place.offset);
    w.u32(u32::try_from(notes.len()).expect("callers bound it"));
    for note in notes {
        w.u64(note.group.0);
        w.u128(note.blob.0);
        w.u64(note.order.history);
        w.u64(note.order.commit.0);
        w.long(&note.payload);
    }
    let mut bytes = frame(MAGIC, &w.out);
    bytes.resize(bytes.len().next_multiple_of(SECTOR as usize), 0);
    bytes
}

/// Bytes of the frame that `head`, 16 bytes or more, says to begin.
pub(super) fn claimed_len(head: &[u8]) -> Option<usize> {
    framed_len(MAGIC, head)
}

/// Whether `bytes` begin with a whole frame, of a version that is known here.
pub(super) fn check_version(bytes: &[u8]) -> Result<(), FormatError> {
    unframe(MAGIC, bytes).map(drop)
}

/// The batch at the start of `bytes` and its length in the file; `None` if
/// none that is whole begins there.
pub(super) fn decode(
    place: Place,
    bytes: &[u8],
) -> Result<Option<(Vec<Stored>, u64)>, FormatError> {
    let Some(len) = framed_len(MAGIC, bytes) else {
        return Ok(None);
    };
    if len > MAX_BATCH_BYTES {
        return Ok(None);
    }
    let payload = match unframe(MAGIC, bytes) {
        Ok((payload, _)) => payload,
        Err(FormatError::Damaged { .. }) => return Ok(None),
        Err(version) => return Err(version),
    };
    let mut r = Reader::new(payload);
    let found = Place {
        disk: DiskId(r.u128()?),
        file: r.u64()?,
        offset: r.u64()?,
    };
    if found != place {
        return Ok(None);
    }
    let count = r.u32()? as usize;
    if count > MAX_NOTES {
        return Err(damaged("too many notes in a batch"));
    }
    let mut notes = Vec::with_capacity(count);
    for _ in 0..count {
        notes.push(Stored {
            group: GroupId(r.u64()?),
            blob: BlobId(r.u128()?),
            order: NoteOrder {
                history: r.u64()?,
                commit: CommitNumber(r.u64()?),
            },
            payload: r.long()?.to_vec(),
        });
    }
    r.end()?;
    Ok(Some((notes, (len as u64).next_multiple_of(SECTOR))))
}

//! One batch of the log: what was deleted, which volumes took the place of
//! which, and notes.

use shardgate_wire::ids::{BlobId, CommitNumber, GroupId};

use super::{MAX_SEQUENCE, MAX_VOLUME_BYTES, RECORD_ALIGN, SECTOR, keyed_sum};
use crate::format::bytes::{Reader, Writer};
use crate::format::{FormatError, damaged};

/// What a batch begins with.
pub(crate) const BATCH_MAGIC: &[u8; 8] = b"SG.dbat\0";
/// Version of the batches that this code writes. In those of version 1 the
/// head has no checksum of its own.
const VERSION: u16 = 2;
const HEAD_BYTES: usize = 28;
/// Longest batch.
pub(crate) const MAX_BATCH_BYTES: usize = 4 << 20;
/// Longest payload of a note.
pub(crate) const MAX_NOTE_BYTES: usize = 1 << 20;
/// Deleted records in one entry.
const MOST_DEAD: usize = 64 * 1024;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LogEntry {
    /// The record at `offset` of a volume is no more.
    Delete {
        volume: u64,
        offset: u64,
        /// What it takes in the volume.
        bytes: u32,
    },
    /// All records of a volume that are no more, in units of 64 bytes, and
    /// what they take.
    Dead {
        volume: u64,
        bytes: u64,
        at: Vec<u32>,
    },
    /// A volume that compaction wrote counts, and those it was made of do not.
    Adopt {
        group: GroupId,
        volume: u64,
        of: Vec<u64>,
    },
    /// No volume of this number or a higher one was made.
    Next { volume: u64 },
    /// What the catalog decided about a blob (PROTOCOL.md 9).
    Note {
        group: GroupId,
        blob: BlobId,
        commit: CommitNumber,
        /// No shard of the blob may be written any more.
        deleted: bool,
        payload: Vec<u8>,
    },
    /// The note of a blob went.
    Forget { group: GroupId, blob: BlobId },
    /// Everything before this in the segment is what held when it began.
    Begun,
    /// The disk was closed in order.
    Clean,
    /// Part of what a log said was lost: deletes and notes may be missing.
    Incomplete,
    /// The file is this long, durably, or longer.
    Room { to: u64 },
}

impl LogEntry {
    /// All records of a volume that are no more, in entries of bounded length.
    pub(crate) fn dead(volume: u64, bytes: u64, at: &[u32]) -> impl Iterator<Item = Self> + '_ {
        at.chunks(MOST_DEAD)
            .enumerate()
            .map(move |(chunk, at)| Self::Dead {
                volume,
                bytes: if chunk == 0 { bytes } else { 0 },
                at: at.to_vec(),
            })
    }

    /// Bytes that it takes at most.
    fn most_bytes(&self) -> usize {
        match self {
            Self::Dead { at, .. } => 32 + 4 * at.len(),
            Self::Note { payload, .. } => 64 + payload.len(),
            Self::Adopt { of, .. } => 64 + 8 * of.len(),
            _ => 64,
        }
    }
}

/// Cuts entries into batches that are not too long.
pub(crate) fn batches(entries: &[LogEntry]) -> Vec<&[LogEntry]> {
    let (mut cut, mut from, mut sum) = (Vec::new(), 0, 0);
    for (at, entry) in entries.iter().enumerate() {
        sum += entry.most_bytes();
        if sum > MAX_BATCH_BYTES / 2 && at > from {
            cut.push(&entries[from..at]);
            (from, sum) = (at, entry.most_bytes());
        }
    }
    cut.push(&entries[from..]);
    cut
}

/// A batch that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogBatch {
    pub(crate) durable_to: u64,
    pub(crate) entries: Vec<LogEntry>,
    /// From its start to where the next one begins.
    pub(crate) span: u64,
}

pub(crate) fn encode_batch(
    salt: u64,
    offset: u64,
    durable_to: u64,
    entries: &[LogEntry],
) -> Vec<u8> {
    let mut w = Writer::default();
    w.raw(BATCH_MAGIC);
    w.u16(VERSION);
    w.u16(0);
    w.u32(0);
    w.u64(durable_to);
    w.u32(u32::try_from(entries.len()).expect("batches are bounded"));
    for entry in entries {
        encode_entry(&mut w, entry);
    }
    let payload = u32::try_from(w.out.len() - HEAD_BYTES).expect("batches are bounded");
    w.out[12..16].copy_from_slice(&payload.to_be_bytes());
    let sum = head_sum(salt, offset, &w.out);
    w.out[10..12].copy_from_slice(&sum.to_be_bytes());
    let sum = keyed_sum(salt, offset, &w.out);
    w.u32(sum);
    let len = w.out.len().next_multiple_of(SECTOR as usize);
    w.out.resize(len, 0);
    w.out
}

/// The checksum of a head alone: by it a torn batch says how long it was.
fn head_sum(salt: u64, offset: u64, head: &[u8]) -> u16 {
    let mut covered = [0; HEAD_BYTES];
    covered.copy_from_slice(&head[..HEAD_BYTES]);
    covered[10..12].fill(0);
    (keyed_sum(salt, offset, &covered) >> 16) as u16
}

/// What stands where a batch should begin and no whole one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claims {
    /// The head of a batch that takes so many bytes.
    Bytes(u64),
    /// The head of a batch of version 1, which may be damaged.
    Something,
    /// No head.
    Nothing,
}

/// What the first sector of a batch that is not whole says.
pub(crate) fn batch_claims(salt: u64, offset: u64, bytes: &[u8]) -> Claims {
    let head = bytes
        .get(..HEAD_BYTES)
        .filter(|head| head[..8] == BATCH_MAGIC[..]);
    let Some(head) = head else {
        return Claims::Nothing;
    };
    if head[8..12] == [0, 1, 0, 0] {
        return Claims::Something;
    }
    if head[10..12] != head_sum(salt, offset, head).to_be_bytes() {
        return Claims::Nothing;
    }
    let payload: [u8; 4] = head[12..16].try_into().expect("four bytes");
    let len = HEAD_BYTES as u64 + u64::from(u32::from_be_bytes(payload)) + 4;
    Claims::Bytes(len.next_multiple_of(SECTOR))
}

fn encode_entry(w: &mut Writer, entry: &LogEntry) {
    match entry {
        LogEntry::Delete {
            volume,
            offset,
            bytes,
        } => {
            w.u8(1);
            w.u64(*volume);
            w.u64(*offset);
            w.u32(*bytes);
        }
        LogEntry::Dead { volume, bytes, at } => {
            w.u8(8);
            w.u64(*volume);
            w.u64(*bytes);
            w.u32(u32::try_from(at.len()).expect("volumes are bounded"));
            at.iter().for_each(|at| w.u32(*at));
        }
        LogEntry::Adopt { group, volume, of } => {
            w.u8(2);
            w.u64(group.0);
            w.u64(*volume);
            w.u16(u16::try_from(of.len()).expect("compaction takes few volumes"));
            of.iter().for_each(|old| w.u64(*old));
        }
        LogEntry::Next { volume } => {
            w.u8(3);
            w.u64(*volume);
        }
        LogEntry::Note {
            group,
            blob,
            commit,
            deleted,
            payload,
        } => {
            w.u8(4);
            w.u64(group.0);
            w.u128(blob.0);
            w.u64(commit.0);
            w.u8(u8::from(*deleted));
            w.long(payload);
        }
        LogEntry::Forget { group, blob } => {
            w.u8(5);
            w.u64(group.0);
            w.u128(blob.0);
        }
        LogEntry::Begun => w.u8(6),
        LogEntry::Clean => w.u8(7),
        LogEntry::Incomplete => w.u8(9),
        LogEntry::Room { to } => {
            w.u8(10);
            w.u64(*to);
        }
    }
}

/// The batch at `offset`, if a whole one begins `bytes`. `None` if none
/// does; an error for one that this code does not know.
pub(crate) fn decode_batch(
    salt: u64,
    offset: u64,
    bytes: &[u8],
) -> Result<Option<LogBatch>, FormatError> {
    let Some(head) = bytes
        .get(..HEAD_BYTES)
        .filter(|head| head[..8] == BATCH_MAGIC[..])
    else {
        return Ok(None);
    };
    let mut r = Reader::new(&head[8..]);
    let version = r.u16()?;
    r.u16()?;
    let payload = r.u32()? as usize;
    let (durable_to, count) = (r.u64()?, r.u32()?);
    let end = HEAD_BYTES + payload;
    if end + 4 > MAX_BATCH_BYTES + SECTOR as usize {
        return Ok(None);
    }
    let Some(sum) = bytes.get(end..end + 4) else {
        return Ok(None);
    };
    if keyed_sum(salt, offset, &bytes[..end]).to_be_bytes() != sum[..] {
        return Ok(None);
    }
    if !(1..=VERSION).contains(&version) {
        return Err(FormatError::Version { found: version });
    }
    let mut r = Reader::new(&bytes[HEAD_BYTES..end]);
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(decode_entry(&mut r)?);
    }
    r.end()?;
    Ok(Some(LogBatch {
        durable_to,
        entries,
        span: (end as u64 + 4).next_multiple_of(SECTOR),
    }))
}

fn decode_entry(r: &mut Reader<'_>) -> Result<LogEntry, FormatError> {
    Ok(match r.u8()? {
        1 => LogEntry::Delete {
            volume: number(r)?,
            offset: place(r)?,
            bytes: r.u32()?,
        },
        2 => {
            let (group, volume, count) = (GroupId(r.u64()?), number(r)?, r.u16()?);
            let mut of = Vec::new();
            for _ in 0..count {
                of.push(number(r)?);
            }
            LogEntry::Adopt { group, volume, of }
        }
        3 => LogEntry::Next { volume: number(r)? },
        4 => LogEntry::Note {
            group: GroupId(r.u64()?),
            blob: BlobId(r.u128()?),
            commit: CommitNumber(r.u64()?),
            deleted: r.u8()? != 0,
            payload: r.long()?.to_vec(),
        },
        5 => LogEntry::Forget {
            group: GroupId(r.u64()?),
            blob: BlobId(r.u128()?),
        },
        6 => LogEntry::Begun,
        7 => LogEntry::Clean,
        9 => LogEntry::Incomplete,
        10 => LogEntry::Room { to: r.u64()? },
        8 => {
            let (volume, bytes, count) = (number(r)?, r.u64()?, r.u32()?);
            let mut at = Vec::new();
            for _ in 0..count {
                at.push(r.u32()?);
            }
            LogEntry::Dead { volume, bytes, at }
        }
        _ => return Err(damaged("unknown entry of the log")),
    })
}

/// The number of a volume.
fn number(r: &mut Reader<'_>) -> Result<u64, FormatError> {
    let number = r.u64()?;
    if number > MAX_SEQUENCE {
        return Err(damaged("log names a volume that cannot be"));
    }
    Ok(number)
}

/// Where a record begins.
fn place(r: &mut Reader<'_>) -> Result<u64, FormatError> {
    let place = r.u64()?;
    if place >= MAX_VOLUME_BYTES || !place.is_multiple_of(RECORD_ALIGN) {
        return Err(damaged("log names a place that cannot be"));
    }
    Ok(place)
}

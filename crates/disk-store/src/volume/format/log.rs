//! One batch of the log: what was deleted, which volumes took the place of
//! which, and notes.

use shardgate_wire::ids::{BlobId, CommitNumber, GroupId};

use super::{SECTOR, keyed_sum};
use crate::format::bytes::{Reader, Writer};
use crate::format::{FormatError, VERSION, damaged};

const MAGIC: &[u8; 8] = b"SG.dbat\0";
const HEAD_BYTES: usize = 28;
/// Longest batch.
pub(crate) const MAX_BATCH_BYTES: usize = 4 << 20;

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
    w.raw(MAGIC);
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
    let sum = keyed_sum(salt, offset, &w.out);
    w.u32(sum);
    let len = w.out.len().next_multiple_of(SECTOR as usize);
    w.out.resize(len, 0);
    w.out
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
        .filter(|head| head[..8] == MAGIC[..])
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
    if version != VERSION {
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
            volume: r.u64()?,
            offset: r.u64()?,
            bytes: r.u32()?,
        },
        2 => {
            let (group, volume, count) = (GroupId(r.u64()?), r.u64()?, r.u16()?);
            let mut of = Vec::new();
            for _ in 0..count {
                of.push(r.u64()?);
            }
            LogEntry::Adopt { group, volume, of }
        }
        3 => LogEntry::Next { volume: r.u64()? },
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
        8 => {
            let (volume, bytes, count) = (r.u64()?, r.u64()?, r.u32()?);
            let mut at = Vec::new();
            for _ in 0..count {
                at.push(r.u32()?);
            }
            LogEntry::Dead { volume, bytes, at }
        }
        _ => return Err(damaged("unknown entry of the log")),
    })
}

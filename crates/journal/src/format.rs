//! A segment, to the byte, as `docs/journal.md` has it.
//!
//! A segment is batches one after the other, each whole pages under one
//! checksum: what one write and one fsync carry. The first carries the
//! segment's header too; a closing one carries no record. Invariant: what
//! [`Batch::decode`] takes is what [`Batch::encode`] made for that segment and
//! that offset.

use std::cmp::Ordering;
use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use shardgate_wire::checksum::crc32c;
use shardgate_wire::journal::{JOURNAL_PAGE, MAX_CHECKPOINT_ROOT_BYTES, MAX_JOURNAL_APPEND_BYTES};
use shardgate_wire::{ClusterId, CommitNumber, DiskId, Epoch, InstanceId, LineageId};
use thiserror::Error;

use crate::chain::{Position, Record};

const MAGIC: &[u8; 8] = b"SG.jbat\0";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 116;
const CRC_BYTES: usize = 4;
/// Bytes that frame one record.
const RECORD_BYTES: usize = 4;

/// Most members of a segment: a majority of nine, and of nine others while
/// the journal disks change.
pub const MAX_MEMBERS: usize = 18;
/// Most checkpoint roots in a header.
pub const MAX_CHECKPOINTS: usize = 2;
/// Longest checkpoint root, bytes.
pub const MAX_CHECKPOINT_BYTES: usize = MAX_CHECKPOINT_ROOT_BYTES;
/// Most bytes of payloads and their frames in one batch: a header and these
/// fit into one append.
pub const MAX_RECORDS_BYTES: usize =
    MAX_JOURNAL_APPEND_BYTES - MAX_CHECKPOINTS * (MAX_CHECKPOINT_BYTES + 4) - 2 * JOURNAL_PAGE;

/// Which segment: the epoch that wrote it, and its number in it.
///
/// Ordered as PROTOCOL.md 2 has it: the highest epoch, then the highest
/// sequence. One instance alone writes in an epoch number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId {
    /// The epoch of the gateway that wrote it.
    pub epoch: Epoch,
    /// Counts the segments of an epoch from 1.
    pub sequence: u64,
}

impl Ord for SegmentId {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |id: &Self| (id.epoch.number, id.sequence, id.epoch.instance);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for SegmentId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epoch = &self.epoch;
        write!(
            f,
            "{}/{} of instance {}",
            epoch.number, self.sequence, epoch.instance
        )
    }
}

/// What a segment says of itself in its first batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The cluster.
    pub cluster: ClusterId,
    /// The lineage of the catalog.
    pub lineage: LineageId,
    /// The disks that keep it; never changed.
    pub members: Vec<DiskId>,
    /// The pool map that named the journal disks.
    pub map_number: u64,
    /// The last segment in which a batch was acknowledged; `None` for the
    /// first of a journal.
    pub predecessor: Option<SegmentId>,
    /// The place behind which the segment's records go on: the predecessor's
    /// last that was acknowledged, or proven by recovery.
    pub base: Position,
    /// Roots of the checkpoints that are kept, opaque here.
    pub checkpoints: Vec<Bytes>,
}

/// What a batch is in its segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first: before it is whole the segment does not exist.
    First(SegmentHeader),
    /// One more.
    Next,
    /// The last of a clean stop: everything before it was acknowledged.
    Closing,
}

/// What one write and one fsync carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The segment that it is of.
    pub segment: SegmentId,
    /// Where in the segment it begins.
    pub offset: u64,
    /// What it is.
    pub kind: Kind,
    /// The place before its first record.
    pub before: CommitNumber,
    /// The last number known to be acknowledged when it was written.
    pub acknowledged: CommitNumber,
    /// The place of its last record; without records, of the one before.
    pub last: Position,
    /// The payloads of its records, in order.
    pub payloads: Vec<Bytes>,
}

/// Why bytes are not the batch expected.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// They are zeroes, or no batch begins there.
    #[error("no batch")]
    None,
    /// One was here, or should be.
    #[error("damaged batch: {0}")]
    Damaged(&'static str),
    /// A later version wrote it: refused and left alone.
    #[error("batch of format version {found}")]
    Version {
        /// Which.
        found: u16,
    },
}

/// Bytes that `payload` takes in a batch.
pub fn record_bytes(payload: &[u8]) -> usize {
    RECORD_BYTES + payload.len()
}

/// Pages that `len` bytes take, in bytes.
pub(crate) fn whole_pages(len: usize) -> usize {
    len.next_multiple_of(JOURNAL_PAGE)
}

/// Bytes of the batch that begins with `head`, in whole pages; nothing of it
/// is proven yet.
///
/// # Errors
/// No batch begins there, or none of this version.
pub fn claimed_len(head: &[u8]) -> Result<usize, FormatError> {
    if head.len() < HEAD_BYTES || head[..8] != MAGIC[..] {
        return Err(FormatError::None);
    }
    let found = u16::from_be_bytes([head[8], head[9]]);
    if found != VERSION {
        return Err(FormatError::Version { found });
    }
    let payload = u32::from_be_bytes([head[12], head[13], head[14], head[15]]) as usize;
    let len = whole_pages(HEAD_BYTES + payload + CRC_BYTES);
    if len > MAX_JOURNAL_APPEND_BYTES {
        return Err(FormatError::Damaged("longer than any batch"));
    }
    Ok(len)
}

impl Batch {
    /// The records that it carries, each with its place, behind `before`.
    pub fn records(&self, before: Position) -> Vec<Record> {
        let mut at = before;
        let mut records = Vec::with_capacity(self.payloads.len());
        for payload in &self.payloads {
            let record = Record::after(&at, payload.clone());
            at = record.position;
            records.push(record);
        }
        records
    }

    /// The segment's header, if this is its first batch.
    pub fn header(&self) -> Option<&SegmentHeader> {
        match &self.kind {
            Kind::First(header) => Some(header),
            Kind::Next | Kind::Closing => None,
        }
    }

    /// As bytes, whole pages.
    pub fn encode(&self) -> Bytes {
        let header = self.header().map_or_else(Vec::new, encode_header);
        let records: usize = self.payloads.iter().map(|p| record_bytes(p)).sum();
        let payload_len = header.len() + records;
        let whole = whole_pages(HEAD_BYTES + payload_len + CRC_BYTES);
        assert!(whole <= MAX_JOURNAL_APPEND_BYTES, "the writer bounds it");
        let mut out = BytesMut::with_capacity(whole);
        out.put_slice(MAGIC);
        out.put_u16(VERSION);
        out.put_u8(match self.kind {
            Kind::First(_) => 1,
            Kind::Next => 2,
            Kind::Closing => 3,
        });
        out.put_u8(0);
        out.put_u32(len32(payload_len));
        put_segment(&mut out, &self.segment);
        out.put_u64(self.offset);
        out.put_u64(self.before.0);
        out.put_u32(len32(self.payloads.len()));
        out.put_u32(len32(header.len()));
        out.put_u64(self.acknowledged.0);
        out.put_slice(&self.last.hash);
        out.put_u32(0);
        debug_assert_eq!(out.len(), HEAD_BYTES);
        out.put_slice(&header);
        for payload in &self.payloads {
            out.put_u32(len32(payload.len()));
            out.put_slice(payload);
        }
        let crc = crc32c(&out);
        out.put_u32(crc);
        out.resize(whole, 0);
        out.freeze()
    }

    /// The batch at the start of `bytes`.
    ///
    /// # Errors
    /// They do not begin with a whole batch of this version.
    pub fn decode(bytes: &Bytes) -> Result<Self, FormatError> {
        let whole = claimed_len(bytes)?;
        let payload_len = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        let covered = HEAD_BYTES + payload_len as usize;
        if bytes.len() < whole {
            return Err(FormatError::Damaged("cut short"));
        }
        let crc = bytes.slice(covered..covered + CRC_BYTES);
        if crc[..] != crc32c(&bytes[..covered]).to_be_bytes() {
            return Err(FormatError::Damaged("checksum"));
        }
        Self::parse(bytes.slice(..covered)).ok_or(FormatError::Damaged("fields"))
    }

    fn parse(mut bytes: Bytes) -> Option<Self> {
        bytes.advance(10);
        let kind = bytes.try_get_u8().ok()?;
        bytes.advance(5);
        let segment = get_segment(&mut bytes)?;
        let offset = bytes.try_get_u64().ok()?;
        let before = CommitNumber(bytes.try_get_u64().ok()?);
        let count = bytes.try_get_u32().ok()?;
        let header_len = bytes.try_get_u32().ok()? as usize;
        let acknowledged = CommitNumber(bytes.try_get_u64().ok()?);
        let last = Position {
            number: CommitNumber(before.0.checked_add(u64::from(count))?),
            hash: get_array(&mut bytes)?,
        };
        bytes.advance(4);
        if header_len > bytes.len() {
            return None;
        }
        let header = bytes.split_to(header_len);
        let kind = match (kind, header_len) {
            (1, _) => Kind::First(decode_header(header)?),
            (2, 0) => Kind::Next,
            (3, 0) if count == 0 => Kind::Closing,
            _ => return None,
        };
        let mut payloads = Vec::new();
        for _ in 0..count {
            payloads.push(get_long(&mut bytes)?);
        }
        bytes.is_empty().then_some(Self {
            segment,
            offset,
            kind,
            before,
            acknowledged,
            last,
            payloads,
        })
    }
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("batches are bounded below 4 GiB")
}

fn encode_header(header: &SegmentHeader) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_u128(header.cluster.0);
    out.put_u128(header.lineage.0);
    out.put_u64(header.map_number);
    out.put_u64(header.base.number.0);
    out.put_slice(&header.base.hash);
    out.put_u8(u8::from(header.predecessor.is_some()));
    if let Some(predecessor) = &header.predecessor {
        put_segment(&mut out, predecessor);
    }
    out.put_u8(u8::try_from(header.members.len()).expect("at most MAX_MEMBERS"));
    for member in &header.members {
        out.put_u128(member.0);
    }
    out.put_u8(u8::try_from(header.checkpoints.len()).expect("at most MAX_CHECKPOINTS"));
    for checkpoint in &header.checkpoints {
        out.put_u32(len32(checkpoint.len()));
        out.put_slice(checkpoint);
    }
    out
}

fn decode_header(mut bytes: Bytes) -> Option<SegmentHeader> {
    let cluster = ClusterId(bytes.try_get_u128().ok()?);
    let lineage = LineageId(bytes.try_get_u128().ok()?);
    let map_number = bytes.try_get_u64().ok()?;
    let base = Position {
        number: CommitNumber(bytes.try_get_u64().ok()?),
        hash: get_array(&mut bytes)?,
    };
    let predecessor = match bytes.try_get_u8().ok()? {
        0 => None,
        1 => Some(get_segment(&mut bytes)?),
        _ => return None,
    };
    let mut members = Vec::new();
    for _ in 0..bytes.try_get_u8().ok()? {
        members.push(DiskId(bytes.try_get_u128().ok()?));
    }
    let mut checkpoints = Vec::new();
    for _ in 0..bytes.try_get_u8().ok()? {
        checkpoints.push(get_long(&mut bytes)?);
    }
    let bounded = members.len() <= MAX_MEMBERS && checkpoints.len() <= MAX_CHECKPOINTS;
    (bytes.is_empty() && bounded && !members.is_empty()).then_some(SegmentHeader {
        cluster,
        lineage,
        members,
        map_number,
        predecessor,
        base,
        checkpoints,
    })
}

fn put_segment(out: &mut impl BufMut, segment: &SegmentId) {
    out.put_u64(segment.epoch.number);
    out.put_u128(segment.epoch.instance.0);
    out.put_u64(segment.sequence);
}

fn get_segment(bytes: &mut Bytes) -> Option<SegmentId> {
    Some(SegmentId {
        epoch: Epoch {
            number: bytes.try_get_u64().ok()?,
            instance: InstanceId(bytes.try_get_u128().ok()?),
        },
        sequence: bytes.try_get_u64().ok()?,
    })
}

fn get_array(bytes: &mut Bytes) -> Option<[u8; 32]> {
    let mut array = [0; 32];
    bytes.try_copy_to_slice(&mut array).ok()?;
    Some(array)
}

fn get_long(bytes: &mut Bytes) -> Option<Bytes> {
    let len = bytes.try_get_u32().ok()? as usize;
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

#[cfg(test)]
mod tests;

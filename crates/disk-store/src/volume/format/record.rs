//! One record of a volume.

use shardgate_wire::checksum::{CHECK_BLOCK, crc32c};
use shardgate_wire::ids::BlobId;
use shardgate_wire::store::{MAX_SHARD_BYTES, ShardEnd};
use shardgate_wire::{ShardHeader, ShardKey};

use super::heading::Heading;
use super::link::record_in_extent;
use super::{SECTOR, keyed_sum};
use crate::format::bytes::Writer;
use crate::format::{
    FormatError, HEADER_PREFIX_BYTES, PAGE, VERSION, damaged, decode_header, encode_header,
    header_bytes, header_record_len,
};

const MAGIC: &[u8; 8] = b"SG.vrec\0";
/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGN: u64 = 64;
/// Bytes of a record's head, its checksum included.
pub(crate) const HEAD_BYTES: usize = 72;
/// Bytes of a void record before what it covers: it fits between two places
/// where records may begin, and so into one sector, wherever it is.
const VOID_BYTES: usize = RECORD_ALIGN as usize;
/// Most sectors that a head can say are zero.
const MOST_ZEROES: u32 = 0xff_ffff;
pub(super) const SUM_BYTES: usize = 4;
/// Longest head, header and checksums of a record.
pub(super) const MAX_META_BYTES: u32 = 1 << 20;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A shard whose bytes follow.
    Inline,
    /// Says that a shard's record, with its bytes, lies in an extent.
    Link,
    /// Nothing follows: the volume is sealed.
    Seal,
    /// The volume was closed in order; records may follow.
    End,
    /// Takes the place of bytes that a crash left and nobody was answered.
    Void,
    /// The same as disks of before have it: longer than a place for a record,
    /// so that it may have been torn itself.
    LongVoid,
    /// A shard in an extent at the volume's end. It counts by its link alone.
    Extent,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Inline => 1,
            Self::Link => 2,
            Self::Seal => 3,
            Self::End => 4,
            Self::LongVoid => 5,
            Self::Void => 6,
            Self::Extent => 7,
        }
    }

    fn of(number: u8) -> Option<Self> {
        let all = [
            Self::Inline,
            Self::Link,
            Self::Seal,
            Self::End,
            Self::LongVoid,
            Self::Void,
            Self::Extent,
        ];
        all.into_iter().find(|kind| kind.number() == number)
    }

    pub(crate) fn is_shard(self) -> bool {
        matches!(self, Self::Inline | Self::Extent)
    }

    /// Whether it is in the sequence of records; others lie in extents, and
    /// are not looked for.
    pub(crate) fn is_in_sequence(self) -> bool {
        self != Self::Extent
    }

    /// Where the checksum of its head lies.
    fn sum_at(self) -> usize {
        match self {
            Self::Void => VOID_BYTES - SUM_BYTES,
            _ => HEAD_BYTES - SUM_BYTES,
        }
    }
}

/// The first bytes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    /// Bytes of head, header, block checksums and their checksum.
    pub(crate) meta_len: u32,
    /// In a link, length and checksum of what it is of are in the place of
    /// the blob's length.
    pub(crate) end: ShardEnd,
    /// Where in the volume the shard's bytes begin.
    pub(crate) data_at: u64,
    /// Everything before this was synced when the record was written.
    pub(crate) durable_to: u64,
    pub(crate) blob: BlobId,
    pub(crate) index: u8,
    /// Sectors in which the shard has bytes, all of them zero. One that shows
    /// more of them lacks some; none is said by disks of before.
    pub(crate) zeroes: u32,
}

impl Head {
    /// Bytes from the record's start to where the next may begin.
    pub(crate) fn span(&self, offset: u64) -> u64 {
        let len = match self.kind {
            Kind::Inline | Kind::Extent | Kind::Void | Kind::LongVoid => {
                self.data_at + self.end.shard_len - offset
            }
            Kind::Link | Kind::Seal | Kind::End => u64::from(self.meta_len),
        };
        len.next_multiple_of(RECORD_ALIGN)
    }

    /// Whether everything that it says lies in its volume: what follows may
    /// be added up, and taken into memory.
    fn is_sane(&self, offset: u64, size: u64) -> bool {
        let meta_end = offset + u64::from(self.meta_len);
        let own = match self.kind {
            Kind::Inline | Kind::Void | Kind::LongVoid => {
                (meta_end..=meta_end + 4096).contains(&self.data_at)
            }
            Kind::Extent => {
                let at = record_in_extent(self.data_at, self.meta_len);
                at == Some(offset) && self.data_at.is_multiple_of(PAGE as u64)
            }
            Kind::Link => self.linked().is_some_and(|linked| linked.at >= meta_end),
            Kind::Seal | Kind::End => true,
        };
        let bytes = match self.kind {
            Kind::Seal | Kind::End => 0,
            _ => self.end.shard_len,
        };
        let blocks = bytes.div_ceil(CHECK_BLOCK as u64);
        let meta = self.meta_len as usize;
        let least = match self.kind {
            Kind::Void => VOID_BYTES,
            Kind::Link => HEAD_BYTES,
            _ => HEAD_BYTES + SUM_BYTES,
        };
        own && offset.is_multiple_of(RECORD_ALIGN)
            && (least..=MAX_META_BYTES as usize).contains(&meta)
            && (!self.kind.is_shard() || 4 * blocks < meta as u64)
            && self.end.shard_len <= MAX_SHARD_BYTES.max(size)
            && self.durable_to <= offset
            && self.data_at <= size
            && meta_end <= size
            && bytes <= size - self.data_at
    }

    pub(super) fn encode(&self, salt: u64, offset: u64) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(MAGIC);
        w.u16(VERSION);
        w.u8(self.kind.number());
        w.u8(0);
        w.u32(self.meta_len);
        w.u64(self.end.shard_len);
        w.u64(self.end.blob_len);
        w.u64(self.data_at);
        w.u64(self.durable_to);
        w.u128(self.blob.0);
        w.u8(self.index);
        w.raw(&self.zeroes.min(MOST_ZEROES).to_be_bytes()[1..]);
        w.out.truncate(self.kind.sum_at());
        let sum = keyed_sum(salt, offset, &w.out);
        w.u32(sum);
        w.out
    }
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The head of the record at `offset`, if a whole one is there.
pub(crate) fn decode_head(heading: &Heading, offset: u64, bytes: &[u8]) -> Option<Head> {
    let bytes = bytes.get(..HEAD_BYTES)?;
    if offset > heading.size {
        return None;
    }
    if bytes[..8] != MAGIC[..] {
        return None;
    }
    let kind = Kind::of(bytes[10])?;
    let sum_at = kind.sum_at();
    if keyed_sum(heading.salt, offset, &bytes[..sum_at]) != u32_at(bytes, sum_at)
        || bytes[8..10] != VERSION.to_be_bytes()
    {
        return None;
    }
    let is_void = kind == Kind::Void;
    let head = Head {
        kind,
        meta_len: u32_at(bytes, 12),
        end: ShardEnd {
            shard_len: u64_at(bytes, 16),
            blob_len: u64_at(bytes, 24),
        },
        data_at: u64_at(bytes, 32),
        durable_to: u64_at(bytes, 40),
        blob: match is_void {
            true => BlobId(0),
            false => BlobId(u128::from_be_bytes(
                bytes[48..64].try_into().expect("sixteen bytes"),
            )),
        },
        index: if is_void { 0 } else { bytes[64] },
        zeroes: if is_void {
            0
        } else {
            u32_at(bytes, 64) & MOST_ZEROES
        },
    };
    head.is_sane(offset, heading.size).then_some(head)
}

/// Refuses the head of a record that a later version wrote: it is whole, and
/// must not be taken for damage or for nothing.
pub(crate) fn refuse_later(
    heading: &Heading,
    offset: u64,
    bytes: &[u8],
) -> Result<(), FormatError> {
    let Some(bytes) = bytes.get(..HEAD_BYTES).filter(|b| b[..8] == MAGIC[..]) else {
        return Ok(());
    };
    let found = u16::from_be_bytes([bytes[8], bytes[9]]);
    let whole = [Kind::Void, Kind::Inline].into_iter().any(|kind| {
        let sum_at = kind.sum_at();
        keyed_sum(heading.salt, offset, &bytes[..sum_at]) == u32_at(bytes, sum_at)
    });
    match whole && found != VERSION {
        true => Err(FormatError::Version { found }),
        false => Ok(()),
    }
}

/// The rest of a shard's record before its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) header: ShardHeader,
    /// One per block of 64 KiB.
    pub(crate) crcs: Vec<u32>,
}

/// Header and checksums of the record at `offset`, of which `bytes` are the
/// first `meta_len`.
pub(crate) fn decode_meta(
    salt: u64,
    offset: u64,
    head: &Head,
    bytes: &[u8],
) -> Result<Meta, FormatError> {
    let meta = bytes.get(..head.meta_len as usize);
    let meta = meta.ok_or(damaged("record is cut short"))?;
    let (covered, sum) = meta.split_at(meta.len() - SUM_BYTES);
    if keyed_sum(salt, offset, covered) != u32_at(sum, 0) {
        return Err(damaged("record does not match its checksum"));
    }
    let rest = &covered[HEAD_BYTES..];
    let len = rest.get(..HEADER_PREFIX_BYTES).and_then(header_record_len);
    let (frame, table) = len
        .and_then(|len| rest.split_at_checked(len))
        .ok_or(damaged("record without a header"))?;
    let (header, _) = decode_header(frame)?;
    if header.key.blob != head.blob || header.key.index != head.index {
        return Err(damaged("header of another shard"));
    }
    let blocks = head.end.shard_len.div_ceil(CHECK_BLOCK as u64);
    if table.len() as u64 != 4 * blocks {
        return Err(damaged("record has another number of blocks"));
    }
    let crc = |crc: &[u8]| u32::from_be_bytes(crc.try_into().expect("chunks of four"));
    let crcs = table.chunks_exact(4).map(crc).collect();
    Ok(Meta { header, crcs })
}

/// The key in the header of a record whose head is damaged, if that much of
/// it is whole.
pub(crate) fn header_at(bytes: &[u8]) -> Option<ShardKey> {
    Some(header_and_len(bytes)?.0)
}

fn header_and_len(bytes: &[u8]) -> Option<(ShardKey, usize)> {
    let frame = bytes.get(HEAD_BYTES..)?;
    let len = header_record_len(frame.get(..HEADER_PREFIX_BYTES)?)?;
    let (header, _) = decode_header(frame.get(..len)?).ok()?;
    Some((header.key, len))
}

/// Whether one record with a damaged head, its bytes behind it, is all that
/// there was in these bytes: no other was lost with it.
pub(crate) fn explains(bytes: &[u8]) -> bool {
    let Some((_, header_len)) = header_and_len(bytes) else {
        return false;
    };
    let most_blocks = bytes.len().div_ceil(CHECK_BLOCK);
    (0..=most_blocks).any(|blocks| {
        let table = bytes.get(HEAD_BYTES + header_len..);
        let split = table.and_then(|table| table.split_at_checked(4 * blocks));
        let rest = split.and_then(|(table, rest)| Some((table, rest.get(SUM_BYTES..)?)));
        rest.is_some_and(|(table, data)| is_padded(data, table))
    })
}

/// Whether `data` is the blocks of which `table` has the checksums, and what
/// follows a record up to the next sector.
fn is_padded(data: &[u8], table: &[u8]) -> bool {
    const PADDING: usize = RECORD_ALIGN as usize + SECTOR as usize;
    let used = data.iter().rposition(|byte| *byte != 0);
    let used = used.map_or(0, |last| last + 1);
    let least = data.len().saturating_sub(PADDING).max(used);
    let Some(full) = (table.len() / 4).checked_sub(1) else {
        return least == 0;
    };
    let sums = |block: &[u8], at: usize| crc32c(block) == u32_at(table, 4 * at);
    let mut blocks = data.chunks_exact(CHECK_BLOCK).take(full).enumerate();
    let from = full * CHECK_BLOCK;
    let to = data.len().min(from + CHECK_BLOCK);
    data.len() > from
        && blocks.all(|(at, block)| sums(block, at))
        && (least.max(from + 1)..=to).any(|len| sums(&data[from..len], full))
}

/// Bytes of head, header, checksums of a shard, before its bytes.
pub(crate) fn meta_len(header: &ShardHeader, shard_len: u64) -> u64 {
    let blocks = shard_len.div_ceil(CHECK_BLOCK as u64);
    (HEAD_BYTES + header_bytes(header) + SUM_BYTES) as u64 + 4 * blocks
}

/// Sectors in which `bytes`, which lie at `at`, have a part, all of it zero.
pub(crate) fn zero_sectors(bytes: &[u8], at: u64) -> u32 {
    let first = (at.next_multiple_of(SECTOR) - at).min(bytes.len() as u64);
    let (first, rest) = bytes.split_at(usize::try_from(first).unwrap_or(usize::MAX));
    let first = (!first.is_empty()).then_some(first);
    let parts = first.into_iter().chain(rest.chunks(SECTOR as usize));
    let zeroes = parts.filter(|part| part.iter().all(|byte| *byte == 0));
    u32::try_from(zeroes.count()).unwrap_or(u32::MAX)
}

/// Where the bytes of a shard are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body<'a> {
    /// Behind its record.
    Follows(&'a [u8]),
    /// In an extent, as the record itself.
    Extent {
        /// Where in the volume.
        at: u64,
        /// As [`Head::zeroes`].
        zeroes: u32,
    },
}

/// A record that is about to be written.
#[derive(Clone, Debug)]
pub(crate) struct NewRecord {
    pub(crate) head: Head,
    /// Head, header, checksums; the shard's bytes follow.
    pub(crate) meta: Vec<u8>,
}

impl NewRecord {
    /// A shard at `offset`.
    pub(crate) fn shard(
        salt: u64,
        offset: u64,
        durable_to: u64,
        header: &ShardHeader,
        end: ShardEnd,
        crcs: &[u32],
        body: Body<'_>,
    ) -> Self {
        let frame = encode_header(header);
        let len = HEAD_BYTES + frame.len() + 4 * crcs.len() + SUM_BYTES;
        let meta_len = u32::try_from(len).expect("headers and shards are bounded");
        let behind = offset + len as u64;
        let (kind, data_at, zeroes) = match body {
            Body::Follows(bytes) => (Kind::Inline, behind, zero_sectors(bytes, behind)),
            Body::Extent { at, zeroes } => (Kind::Extent, at, zeroes),
        };
        let head = Head {
            kind,
            meta_len,
            end,
            data_at,
            durable_to,
            blob: header.key.blob,
            index: header.key.index,
            zeroes,
        };
        let mut meta = head.encode(salt, offset);
        meta.reserve_exact(len - meta.len());
        meta.extend_from_slice(&frame);
        for crc in crcs {
            meta.extend_from_slice(&crc.to_be_bytes());
        }
        let sum = keyed_sum(salt, offset, &meta);
        meta.extend_from_slice(&sum.to_be_bytes());
        Self { head, meta }
    }

    /// A record that is no shard. `data_at` and `end` are the kind's own.
    pub(crate) fn mark(
        salt: u64,
        offset: u64,
        durable_to: u64,
        kind: Kind,
        data_at: u64,
        end: ShardEnd,
    ) -> Self {
        let head = Head {
            kind,
            meta_len: (HEAD_BYTES + SUM_BYTES) as u32,
            end,
            data_at,
            durable_to,
            blob: BlobId(0),
            index: 0,
            zeroes: 0,
        };
        let mut meta = head.encode(salt, offset);
        let sum = keyed_sum(salt, offset, &meta);
        meta.extend_from_slice(&sum.to_be_bytes());
        Self { head, meta }
    }

    /// What covers `offset` up to `to`: a head alone, within one sector, so
    /// that it is there or not whatever happens while it is written.
    pub(crate) fn void(salt: u64, offset: u64, to: u64, durable_to: u64) -> Self {
        let data_at = offset + VOID_BYTES as u64;
        let head = Head {
            kind: Kind::Void,
            meta_len: VOID_BYTES as u32,
            end: ShardEnd {
                shard_len: to.saturating_sub(data_at),
                blob_len: 0,
            },
            data_at,
            durable_to,
            blob: BlobId(0),
            index: 0,
            zeroes: 0,
        };
        let meta = head.encode(salt, offset);
        Self { head, meta }
    }

    /// Zeroes that follow the record's bytes.
    pub(crate) fn padding(&self) -> usize {
        let inline = match self.head.kind {
            Kind::Inline => self.head.end.shard_len,
            _ => 0,
        };
        let used = self.meta.len() as u64 + inline;
        let padding = used.next_multiple_of(RECORD_ALIGN) - used;
        usize::try_from(padding).expect("less than 64")
    }
}

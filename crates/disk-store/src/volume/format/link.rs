//! Records in extents, and the links by which they count.
//!
//! A shard that comes in appends has its bytes in an extent before its record
//! can be written. That record lies before them, in sectors of its own, and
//! its link in the sequence of records: so a start finds it, and a read finds
//! record and bytes in one place.

use shardgate_wire::checksum::CHECK_BLOCK;
use shardgate_wire::store::ShardEnd;

use super::SECTOR;
use super::directory::Entry;
use super::heading::Heading;
use super::record::{
    HEAD_BYTES, Head, Kind, MAX_META_BYTES, NewRecord, RECORD_ALIGN, SUM_BYTES, decode_head,
    decode_meta, u32_at, u64_at,
};
use crate::format::PAGE;

/// Bytes that a link takes among the records.
pub(crate) const LINK_SPAN: u64 = (HEAD_BYTES as u64).next_multiple_of(RECORD_ALIGN);

/// The record that a link is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Linked {
    /// Where it begins.
    pub(crate) at: u64,
    /// Bytes of its head, header, block checksums and their checksum.
    pub(crate) meta_len: u32,
    /// That checksum.
    pub(crate) sum: u32,
}

/// Where the record begins of a shard whose bytes begin at `data_at` of an
/// extent: at the last sector before them that leaves room for the rest of
/// it. So it is written with no sector of the bytes, and read with them.
pub(crate) fn record_in_extent(data_at: u64, meta_len: u32) -> Option<u64> {
    Some(data_at.checked_sub(u64::from(meta_len))? / SECTOR * SECTOR)
}

impl Head {
    /// What a link is of; `None` if it is no link, or not a sane one.
    pub(crate) fn linked(&self) -> Option<Linked> {
        if self.kind != Kind::Link || !self.data_at.is_multiple_of(PAGE as u64) {
            return None;
        }
        let meta_len = (self.end.blob_len >> 32) as u32;
        let blocks = self.end.shard_len.div_ceil(CHECK_BLOCK as u64);
        let is_sane = meta_len <= MAX_META_BYTES && 4 * blocks < u64::from(meta_len);
        let at = record_in_extent(self.data_at, meta_len).filter(|_| is_sane)?;
        Some(Linked {
            at,
            meta_len,
            sum: self.end.blob_len as u32,
        })
    }

    /// The entry of a shard by its record at `offset`, or by its link there.
    pub(crate) fn entry(&self, offset: u64) -> Entry {
        let u32_of = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let of = |at: u64, span: u64, besides: u64| Entry {
            blob: self.blob,
            index: self.index,
            at: u32_of(at / RECORD_ALIGN),
            span: u32_of(span),
            besides: u32_of(besides),
        };
        let Some(Linked { at, .. }) = self.linked() else {
            return of(offset, self.span(offset), 0);
        };
        let page = PAGE as u64;
        let end = self.data_at + self.end.shard_len;
        let span = (end - at).next_multiple_of(RECORD_ALIGN);
        let extent = end.next_multiple_of(page) - at / page * page;
        of(at, span, self.span(offset) + extent - span)
    }
}

impl NewRecord {
    /// The link at `offset` of this record, which lies in an extent.
    pub(crate) fn link(&self, salt: u64, offset: u64) -> Self {
        let sum_at = self.meta.len() - SUM_BYTES;
        let own = u64::from(self.head.meta_len) << 32 | u64::from(u32_at(&self.meta, sum_at));
        let head = Head {
            kind: Kind::Link,
            meta_len: HEAD_BYTES as u32,
            end: ShardEnd {
                blob_len: own,
                ..self.head.end
            },
            ..self.head
        };
        let meta = head.encode(salt, offset);
        Self { head, meta }
    }
}

/// The key, the length and the checksum of the record that a link is of.
type Marks = ((u128, u8), u64, u32);

/// Where a damaged link says that its record is, which may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remains {
    pub(crate) at: u64,
    pub(crate) meta_len: u32,
    data_at: u64,
    marks: Marks,
}

/// What the first bytes of a stretch at `offset` are if they were a link whose
/// own checksum does not match any more.
pub(crate) fn remains_of_link(heading: &Heading, offset: u64, bytes: &[u8]) -> Option<Remains> {
    let bytes = bytes.get(..HEAD_BYTES)?;
    let (meta_len, data_at) = (u32_at(bytes, 24), u64_at(bytes, 32));
    let is_sane = meta_len <= MAX_META_BYTES
        && data_at <= heading.size
        && data_at.is_multiple_of(PAGE as u64);
    let at = record_in_extent(data_at, meta_len).filter(|_| is_sane)?;
    let blob = u128::from_be_bytes(bytes[48..64].try_into().expect("sixteen bytes"));
    let marks = ((blob, bytes[64]), u64_at(bytes, 16), u32_at(bytes, 28));
    (at >= offset + LINK_SPAN).then_some(Remains {
        at,
        meta_len,
        data_at,
        marks,
    })
}

impl Remains {
    /// The link as it was, by the record that it names, of which `bytes` are
    /// the first `meta_len`. Where that is whole, in its place, and of its
    /// key, its length and its checksum the link says two, none but a link of
    /// it was there: what is damaged is one of the three, or nothing of them.
    pub(crate) fn link(&self, heading: &Heading, bytes: &[u8]) -> Option<Head> {
        let head = decode_head(heading, self.at, bytes)?;
        let is_there =
            (head.kind, head.meta_len, head.data_at) == (Kind::Extent, self.meta_len, self.data_at);
        let meta = bytes.get(..self.meta_len as usize).filter(|_| is_there)?;
        decode_meta(heading.salt, self.at, &head, meta).ok()?;
        let sum = u32_at(meta, meta.len() - SUM_BYTES);
        let (key, len, own) = self.marks;
        let same = [
            key == (head.blob.0, head.index),
            len == head.end.shard_len,
            own == sum,
        ];
        let end = ShardEnd {
            blob_len: u64::from(self.meta_len) << 32 | u64::from(sum),
            ..head.end
        };
        let link = Head {
            kind: Kind::Link,
            meta_len: HEAD_BYTES as u32,
            end,
            ..head
        };
        (same.into_iter().filter(|same| *same).count() >= 2).then_some(link)
    }
}

/// Whether a link is of the record with this head, of which `bytes` are the
/// first `meta_len`.
pub(crate) fn is_linked(link: &Head, offset: u64, head: &Head, bytes: &[u8]) -> bool {
    let Some(linked) = link.linked() else {
        return false;
    };
    let sum = bytes.get(..head.meta_len as usize);
    let sum = sum.and_then(|meta| meta.last_chunk::<SUM_BYTES>());
    head.kind == Kind::Extent
        && (linked.at, linked.meta_len) == (offset, head.meta_len)
        && sum.is_some_and(|sum| u32::from_be_bytes(*sum) == linked.sum)
        && (link.blob, link.index) == (head.blob, head.index)
        && (link.data_at, link.end.shard_len) == (head.data_at, head.end.shard_len)
}

//! The directory of a sealed volume: its records by blob and index.
//!
//! A head with the first key of each page, then pages of fixed size, so that
//! one key costs one read of one page.

use shardgate_wire::ids::BlobId;

use super::keyed_sum;
use crate::format::bytes::{Reader, Writer};
use crate::format::{FormatError, PAGE, damaged, frame, framed_len, unframe};
use crate::volume::format::heading::{FIRST_RECORD, Heading, decode_heading, encode_heading};

const MAGIC: &[u8; 8] = b"SG.vdir\0";
/// Bytes of a page.
pub(crate) const DIRECTORY_PAGE: usize = PAGE;
const ENTRY_BYTES: usize = 32;
/// Entries of a full page; the last entry's place holds count and checksum.
pub(crate) const PAGE_ENTRIES: usize = DIRECTORY_PAGE / ENTRY_BYTES - 1;

/// One record of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) blob: BlobId,
    pub(crate) index: u8,
    /// Where the record begins, in units of 64 bytes.
    pub(crate) at: u32,
    /// From the record's start to its end.
    pub(crate) span: u32,
    /// What it takes besides: the rest of its extent, and its link.
    pub(crate) besides: u32,
}

impl Entry {
    pub(crate) fn key(&self) -> (BlobId, u8) {
        (self.blob, self.index)
    }

    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.at) * super::RECORD_ALIGN
    }

    /// Bytes that the record takes in its volume.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.span) + u64::from(self.besides)
    }
}

/// What is kept of a directory in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DirectoryHead {
    /// The volume's own heading.
    pub(crate) heading: Heading,
    /// Where records end.
    pub(crate) tail: u64,
    /// Where extents begin.
    pub(crate) extents_from: u64,
    /// Stretches of records that are damaged, and whose keys nobody knows.
    pub(crate) unknown: u32,
    /// What the records took that were whole once, deleted ones too.
    pub(crate) recorded: u64,
    pub(crate) count: u32,
    pub(crate) last: (BlobId, u8),
    /// The first blob of each page.
    pub(crate) fence: Vec<BlobId>,
    /// Where the pages begin in the file.
    pub(crate) pages_at: u64,
}

impl DirectoryHead {
    /// Bytes of the whole file.
    pub(crate) fn file_len(&self) -> u64 {
        self.pages_at + (self.fence.len() * DIRECTORY_PAGE) as u64
    }
}

/// A directory's bytes, and its head.
pub(crate) struct Directory {
    pub(crate) head: DirectoryHead,
    pub(crate) bytes: Vec<u8>,
}

/// Where a volume ends, and what its directory does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) tail: u64,
    pub(crate) extents_from: u64,
    pub(crate) unknown: u32,
    pub(crate) recorded: u64,
}

/// Makes a directory of sorted entries.
pub(crate) fn encode_directory(heading: Heading, ends: Ends, entries: &[Entry]) -> Directory {
    let Ends {
        tail,
        extents_from,
        unknown,
        recorded,
    } = ends;
    debug_assert!(entries.is_sorted());
    let fence: Vec<BlobId> = entries
        .chunks(PAGE_ENTRIES)
        .map(|page| page[0].blob)
        .collect();
    let last = entries.last().map(Entry::key).unwrap_or_default();
    let count = u32::try_from(entries.len()).expect("volumes are bounded");
    let mut w = Writer::default();
    w.long(&encode_heading(&heading));
    w.u64(tail);
    w.u64(extents_from);
    w.u32(unknown);
    w.u64(recorded);
    w.u32(count);
    w.u128(last.0.0);
    w.u8(last.1);
    w.u32(u32::try_from(fence.len()).expect("volumes are bounded"));
    for blob in &fence {
        w.u128(blob.0);
    }
    let mut bytes = frame(MAGIC, &w.out);
    let pages_at = bytes.len().next_multiple_of(DIRECTORY_PAGE);
    bytes.resize(pages_at, 0);
    for page in entries.chunks(PAGE_ENTRIES) {
        let at = bytes.len() as u64;
        bytes.extend(encode_page(heading.salt, at, page));
    }
    let head = DirectoryHead {
        heading,
        tail,
        extents_from,
        unknown,
        recorded,
        count,
        last,
        fence,
        pages_at: pages_at as u64,
    };
    Directory { head, bytes }
}

fn encode_page(salt: u64, at: u64, entries: &[Entry]) -> Vec<u8> {
    let mut w = Writer::default();
    for entry in entries {
        w.u128(entry.blob.0);
        w.u8(entry.index);
        w.raw(&[0; 3]);
        w.u32(entry.at);
        w.u32(entry.span);
        w.u32(entry.besides);
    }
    w.out.resize(DIRECTORY_PAGE - 8, 0);
    w.u32(entries.len() as u32);
    let sum = keyed_sum(salt, at, &w.out);
    w.u32(sum);
    w.out
}

/// The entries of the page at `at` of a directory.
pub(crate) fn decode_page(salt: u64, at: u64, page: &[u8]) -> Result<Vec<Entry>, FormatError> {
    if page.len() != DIRECTORY_PAGE {
        return Err(damaged("directory is cut short"));
    }
    let (covered, sum) = page.split_at(DIRECTORY_PAGE - 4);
    if keyed_sum(salt, at, covered).to_be_bytes() != sum[..] {
        return Err(damaged("page of a directory does not match its checksum"));
    }
    let mut count = Reader::new(&covered[DIRECTORY_PAGE - 8..]);
    let count = count.u32()? as usize;
    if count > PAGE_ENTRIES {
        return Err(damaged("page of a directory has too many entries"));
    }
    let mut r = Reader::new(&covered[..count * ENTRY_BYTES]);
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (blob, index) = (BlobId(r.u128()?), r.u8()?);
        r.raw(3)?;
        entries.push(Entry {
            blob,
            index,
            at: r.u32()?,
            span: r.u32()?,
            besides: r.u32()?,
        });
    }
    Ok(entries)
}

/// Bytes of the head of the directory that begins with `prefix`.
pub(crate) fn directory_head_len(prefix: &[u8]) -> Option<usize> {
    const MOST: usize = 64 << 20;
    framed_len(MAGIC, prefix).filter(|len| *len <= MOST)
}

pub(crate) fn decode_directory_head(bytes: &[u8]) -> Result<DirectoryHead, FormatError> {
    let (payload, _) = unframe(MAGIC, bytes)?;
    let head_len = directory_head_len(bytes).ok_or(damaged("no directory"))?;
    let mut r = Reader::new(payload);
    let heading = decode_heading(r.long()?)?;
    let (tail, extents_from) = (r.u64()?, r.u64()?);
    let (unknown, recorded, count) = (r.u32()?, r.u64()?, r.u32()?);
    let last = (BlobId(r.u128()?), r.u8()?);
    let pages = r.u32()? as usize;
    if pages != (count as usize).div_ceil(PAGE_ENTRIES) {
        return Err(damaged("directory has another number of pages"));
    }
    // As many as there are bytes for them.
    let fence = r.raw(pages.saturating_mul(16))?.chunks_exact(16);
    let fence = fence
        .map(|blob| BlobId(u128::from_be_bytes(blob.try_into().expect("chunks of 16"))))
        .collect();
    r.end()?;
    let ends = FIRST_RECORD <= tail && tail <= heading.size && extents_from <= heading.size;
    if !ends {
        return Err(damaged("directory of a volume that ends outside of itself"));
    }
    Ok(DirectoryHead {
        heading,
        tail,
        extents_from,
        unknown,
        recorded,
        count,
        last,
        fence,
        pages_at: head_len.next_multiple_of(DIRECTORY_PAGE) as u64,
    })
}

//! The bytes of everything that a disk holds, to and from values.
//!
//! Pure. Invariant: `docs/formats.md` says the same to the byte, a change of
//! any of it is a new version, and every version leaves a fixture that the
//! tests read. Every integer is big-endian. Nothing is trusted before its
//! checksum matched; lengths are checked before they are used.

pub(crate) mod bytes;
mod disk;
mod footer;
mod header;

pub(crate) use disk::{
    Root, Slots, decode_identity, decode_root, decode_slots, encode_identity, encode_root,
    encode_slots,
};
pub(crate) use footer::{Footer, footer_bytes};
pub(crate) use header::{
    HEADER_PREFIX_BYTES, decode_header, encode_header, header_bytes, header_record_len,
};

use thiserror::Error;

use shardgate_wire::checksum::crc32c;

/// Version of every format that this code writes.
pub(crate) const VERSION: u16 = 1;
/// Files of shards, and the data in those that come in appends, begin and
/// end at multiples of this, so that they can be written past the page cache.
pub(crate) const PAGE: usize = 4096;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEAD_BYTES: usize = 16;
/// Bytes of a frame after its payload.
const FRAME_TAIL_BYTES: usize = 4;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum FormatError {
    /// Damaged, cut short, or something else altogether.
    #[error("{what}")]
    Damaged {
        /// What does not match.
        what: &'static str,
    },
    /// Whole, and written by a later version.
    #[error("format version {found} is not known here: a later version of this software wrote it")]
    Version {
        /// The version found.
        found: u16,
    },
}

pub(crate) const fn damaged(what: &'static str) -> FormatError {
    FormatError::Damaged { what }
}

/// Wraps a payload: magic, version, length, payload, checksum of all that.
pub(crate) fn frame(magic: &[u8; 8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len() + FRAME_TAIL_BYTES);
    out.extend_from_slice(magic);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    let len = u32::try_from(payload.len()).expect("payloads are bounded far below 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(payload);
    let crc = crc32c(&out);
    out.extend_from_slice(&crc.to_be_bytes());
    out
}

/// Length of the frame that begins with `head`, if it begins one.
pub(crate) fn framed_len(magic: &[u8; 8], head: &[u8]) -> Option<usize> {
    let head = head.get(..FRAME_HEAD_BYTES)?;
    if head[..8] != magic[..] {
        return None;
    }
    let len: [u8; 4] = head[12..16].try_into().ok()?;
    let len = usize::try_from(u32::from_be_bytes(len)).ok()?;
    len.checked_add(FRAME_HEAD_BYTES + FRAME_TAIL_BYTES)
}

/// The payload of the frame at the start of `bytes`, and its checksum. What
/// follows the frame is ignored.
pub(crate) fn unframe<'a>(
    magic: &[u8; 8],
    bytes: &'a [u8],
) -> Result<(&'a [u8], u32), FormatError> {
    let len = framed_len(magic, bytes).ok_or(damaged("not a record of this kind"))?;
    let record = bytes.get(..len).ok_or(damaged("record is cut short"))?;
    let (covered, crc) = record.split_at(len - FRAME_TAIL_BYTES);
    let crc = u32::from_be_bytes(crc.try_into().expect("split at four bytes"));
    if crc32c(covered) != crc {
        return Err(damaged("record does not match its checksum"));
    }
    let found = u16::from_be_bytes([record[8], record[9]]);
    if found != VERSION {
        return Err(FormatError::Version { found });
    }
    Ok((&covered[FRAME_HEAD_BYTES..], crc))
}

#[cfg(test)]
mod tests;

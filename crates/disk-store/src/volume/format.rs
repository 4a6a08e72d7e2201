//! The bytes of volumes, their directories and the log.
//!
//! Pure. `docs/formats.md` says the same to the byte. Invariant: a checksum
//! of a record is mixed with a secret number of its file and with its place,
//! so that bytes of another file, of another place, or of a client's making
//! are never taken for one.

mod directory;
mod heading;
mod link;
mod log;
mod record;

pub(crate) use directory::{
    DIRECTORY_PAGE, DirectoryHead, Ends, Entry, PAGE_ENTRIES, decode_directory_head, decode_page,
    directory_head_len, encode_directory,
};
pub(crate) use heading::{
    FIRST_RECORD, HEADING_COPY, Heading, MAX_SEQUENCE, MAX_VOLUME_BYTES, decode_heading,
    encode_heading,
};
pub(crate) use link::{LINK_SPAN, Linked, is_linked, record_in_extent, remains_of_link};
pub(crate) use log::{
    BATCH_MAGIC, Claims, LogEntry, MAX_BATCH_BYTES, MAX_NOTE_BYTES, batch_claims, batches,
    decode_batch, encode_batch,
};
pub(crate) use record::{
    Body, HEAD_BYTES, Head, Kind, Meta, NewRecord, RECORD_ALIGN, decode_head, decode_meta,
    explains, header_at, meta_len, refuse_later, zero_sectors,
};

use shardgate_wire::checksum::crc32c;

/// Records of one batch begin at a multiple of this, so that no write
/// touches a sector that holds what was answered before.
pub(crate) const SECTOR: u64 = 512;

/// The checksum of `bytes` at `offset` of a file with the number `salt`.
pub(crate) fn keyed_sum(salt: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&salt.to_be_bytes());
    place[8..].copy_from_slice(&offset.to_be_bytes());
    crc32c(bytes) ^ crc32c(&place)
}

#[cfg(test)]
mod tests;

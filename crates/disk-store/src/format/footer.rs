//! The end of a shard's file: lengths, checksums of blocks, and the trailer
//! that makes the shard a finished one.

use shardgate_wire::ShardKey;
use shardgate_wire::checksum::{CHECK_BLOCK, crc32c};
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::store::{MAX_SHARD_BYTES, ShardEnd};

use super::bytes::{Reader, Writer};
use super::{FormatError, VERSION, damaged};

const MAGIC: &[u8; 8] = b"SG.sfoot";

/// Length of the trailer, the last bytes of the file.
const TRAILER_BYTES: usize = 96;
const RESERVED_BYTES: usize = 24;

/// What the last bytes of a finished shard's file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    /// The shard that the file is of.
    pub(crate) key: ShardKey,
    /// Lengths of shard and blob.
    pub(crate) end: ShardEnd,
    /// Where the shard's bytes begin in the file.
    pub(crate) data_offset: u32,
    /// Checksum of the file's header record.
    pub(crate) header_crc: u32,
    /// One checksum per 64 KiB block.
    pub(crate) crcs: Vec<u32>,
}

/// Bytes of the footer of a shard of `shard_len` bytes.
pub(crate) fn footer_bytes(shard_len: u64) -> usize {
    let blocks = shard_len.div_ceil(CHECK_BLOCK as u64);
    TRAILER_BYTES + 4 * usize::try_from(blocks).expect("shards are bounded")
}

impl Footer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        for crc in &self.crcs {
            w.u32(*crc);
        }
        w.raw(MAGIC);
        w.u16(VERSION);
        w.u16(0);
        w.u32(self.data_offset);
        w.u64(self.end.shard_len);
        w.u64(self.end.blob_len);
        w.u64(self.key.group.0);
        w.u128(self.key.blob.0);
        w.u8(self.key.index);
        w.raw(&[0; 3]);
        w.u32(self.header_crc);
        w.u32(u32::try_from(self.crcs.len()).expect("shards are bounded"));
        w.raw(&[0; RESERVED_BYTES]);
        let crc = crc32c(&w.out);
        w.u32(crc);
        w.out
    }

    /// Bytes of the footer that the file ending in `tail` must have, told by
    /// its trailer; nothing of it is proven yet.
    pub(crate) fn claimed_len(tail: &[u8]) -> Result<usize, FormatError> {
        let at = tail.len().checked_sub(TRAILER_BYTES);
        let trailer = &tail[at.ok_or(damaged("no room for a trailer"))?..];
        if trailer[..8] != MAGIC[..] {
            return Err(damaged("no trailer"));
        }
        let mut len = [0u8; 8];
        len.copy_from_slice(&trailer[16..24]);
        let shard_len = u64::from_be_bytes(len);
        if shard_len > MAX_SHARD_BYTES {
            return Err(damaged("trailer does not match its checksum"));
        }
        Ok(footer_bytes(shard_len))
    }

    /// The footer that ends `tail`, the last bytes of a file of `file_len`.
    /// `tail` has at least [`Self::claimed_len`] bytes.
    pub(crate) fn decode(tail: &[u8], file_len: u64) -> Result<Self, FormatError> {
        let len = Self::claimed_len(tail)?;
        let at = tail.len().checked_sub(len);
        let footer = &tail[at.ok_or(damaged("no room for a footer"))?..];
        let (covered, crc) = footer.split_at(len - 4);
        if crc32c(covered).to_be_bytes() != crc[..] {
            return Err(damaged("footer does not match its checksum"));
        }
        let (table, trailer) = covered.split_at(len - TRAILER_BYTES);
        let parsed = Self::parse(table, trailer)?;
        // The shard's bytes lie before the footer.
        let data_end = u64::from(parsed.data_offset) + parsed.end.shard_len;
        if data_end > file_len.saturating_sub(len as u64) {
            return Err(damaged("file is shorter than its shard"));
        }
        Ok(parsed)
    }

    fn parse(table: &[u8], trailer: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(&trailer[MAGIC.len()..]);
        let found = r.u16()?;
        if found != VERSION {
            return Err(FormatError::Version { found });
        }
        r.u16()?;
        let data_offset = r.u32()?;
        let end = ShardEnd {
            shard_len: r.u64()?,
            blob_len: r.u64()?,
        };
        let key = ShardKey {
            group: GroupId(r.u64()?),
            blob: BlobId(r.u128()?),
            index: r.u8()?,
        };
        r.raw(3)?;
        let header_crc = r.u32()?;
        let blocks = r.u32()? as usize;
        r.raw(RESERVED_BYTES)?;
        r.end()?;
        if blocks * 4 != table.len() {
            return Err(damaged("footer has another number of blocks"));
        }
        let crc = |crc: &[u8]| u32::from_be_bytes(crc.try_into().expect("chunks of four"));
        let crcs = table.chunks_exact(4).map(crc).collect();
        Ok(Self {
            key,
            end,
            data_offset,
            header_crc,
            crcs,
        })
    }
}

//! The bounds of a store's calls, checked in one place and by every store.
//!
//! Pure. A call that breaks one is [`StoreError::BadCall`] and has changed
//! nothing; a call for another cluster is [`StoreError::WrongDisk`].

use bytes::Bytes;

use crate::checksum::{CHECK_BLOCK, first_bad_block};
use crate::disk::DiskIdentity;
use crate::note::{BlobNote, MAX_NOTE_BYTES, MAX_NOTES, NoteState};
use crate::shard::{MAX_METADATA_BYTES, ShardHeader, ShardKey};
use crate::store::{
    CallContext, MAX_APPEND_BYTES, MAX_BATCH, MAX_PUT_BYTES, MAX_READ_BYTES, MAX_SHARD_BYTES,
    ShardEnd, SmallShard, StoreError,
};

/// Longest object key, bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Longest bucket name, bytes.
pub const MAX_BUCKET_BYTES: usize = 255;

fn bad(what: impl Into<String>) -> StoreError {
    StoreError::BadCall { what: what.into() }
}

/// Whether the caller belongs to the disk's cluster.
pub fn check_cluster(disk: &DiskIdentity, ctx: &CallContext) -> Result<(), StoreError> {
    if disk.cluster == ctx.cluster {
        return Ok(());
    }
    Err(StoreError::WrongDisk {
        what: format!(
            "disk of cluster {}, call of cluster {}",
            disk.cluster, ctx.cluster
        ),
    })
}

/// Whether a shard with this head may be written by this caller: it must be
/// of the disk's cluster, name the caller as its writer (orphans are told by
/// it, PROTOCOL.md 7), and keep its bounds.
pub fn check_header(
    disk: &DiskIdentity,
    ctx: &CallContext,
    header: &ShardHeader,
) -> Result<(), StoreError> {
    if header.cluster != disk.cluster {
        return Err(StoreError::WrongDisk {
            what: format!("shard of cluster {}", header.cluster),
        });
    }
    if header.epoch != ctx.epoch {
        return Err(bad("shard header names another writer than the caller"));
    }
    let shards = u16::from(header.layout.data) + u16::from(header.layout.parity);
    if header.layout.data == 0 || u16::from(header.key.index) >= shards {
        return Err(bad(format!(
            "shard {} of a layout {}+{}",
            header.key.index, header.layout.data, header.layout.parity
        )));
    }
    let object = &header.object;
    if object.bucket.len() > MAX_BUCKET_BYTES
        || object.key.len() > MAX_KEY_BYTES
        || object.metadata.len() > MAX_METADATA_BYTES
    {
        return Err(bad("shard header's object is too long"));
    }
    Ok(())
}

/// Whether `bytes` are as long as a call may carry, and match their checksums.
fn check_bytes(bytes: &[u8], crcs: &[u32], most: usize) -> Result<(), StoreError> {
    if bytes.len() > most {
        return Err(bad(format!("{} bytes, at most {most}", bytes.len())));
    }
    match first_bad_block(bytes, crcs) {
        Some(block) => Err(bad(format!("block {block} does not match its checksum"))),
        None => Ok(()),
    }
}

/// Whether the shard's announced length can be stored.
pub fn check_open(shard_len: Option<u64>) -> Result<(), StoreError> {
    if shard_len.is_some_and(|len| len > MAX_SHARD_BYTES) {
        return Err(bad(format!("shards have at most {MAX_SHARD_BYTES} bytes")));
    }
    Ok(())
}

/// Whether an append keeps its bounds, whatever the shard's state. `announced`
/// is the length that was given when it was opened.
pub fn check_append(
    announced: Option<u64>,
    offset: u64,
    bytes: &Bytes,
    crcs: &[u32],
) -> Result<(), StoreError> {
    if bytes.is_empty() {
        return Err(bad("empty append"));
    }
    if !offset.is_multiple_of(CHECK_BLOCK as u64) {
        return Err(bad("append at an offset within a block"));
    }
    let most = announced.unwrap_or(MAX_SHARD_BYTES);
    if offset
        .checked_add(bytes.len() as u64)
        .is_none_or(|end| end > most)
    {
        return Err(bad(format!("append beyond {most}")));
    }
    check_bytes(bytes, crcs, MAX_APPEND_BYTES)
}

/// Whether `end` can be the end of a shard of which `written` bytes came.
pub fn check_end(header: &ShardHeader, written: u64, end: ShardEnd) -> Result<(), StoreError> {
    if end.shard_len != written {
        return Err(bad(format!(
            "end at {}, {written} bytes were appended",
            end.shard_len
        )));
    }
    if header.blob_len.is_some_and(|len| len != end.blob_len) {
        return Err(bad("the blob's length is not the header's"));
    }
    Ok(())
}

/// Whether a small shard keeps its bounds and matches its checksums.
pub fn check_put(shard: &SmallShard) -> Result<(), StoreError> {
    check_bytes(&shard.bytes, &shard.crcs, MAX_PUT_BYTES)?;
    let end = ShardEnd {
        shard_len: shard.bytes.len() as u64,
        blob_len: shard.blob_len,
    };
    check_end(&shard.header, end.shard_len, end)
}

/// Whether a range may be read, whatever the shard's length.
pub fn check_read(offset: u64, len: u32) -> Result<(), StoreError> {
    if len == 0 || len as usize > MAX_READ_BYTES {
        return Err(bad(format!("read of {len} bytes")));
    }
    if !offset.is_multiple_of(CHECK_BLOCK as u64) {
        return Err(bad("read from an offset within a block"));
    }
    Ok(())
}

/// Whether a checked range lies in a shard of `shard_len` bytes and ends with
/// one of its blocks.
pub fn check_range(shard_len: u64, offset: u64, len: u32) -> Result<(), StoreError> {
    let end = offset.saturating_add(u64::from(len));
    if end > shard_len {
        return Err(bad(format!("read to {end}, shard has {shard_len} bytes")));
    }
    if end < shard_len && !end.is_multiple_of(CHECK_BLOCK as u64) {
        return Err(bad("read ends within a block"));
    }
    Ok(())
}

/// Whether a page of a list may be asked for.
pub fn check_list(limit: usize) -> Result<(), StoreError> {
    check_batch(limit)?;
    if limit == 0 {
        // An empty page means the end of the list.
        return Err(bad("page of no entries"));
    }
    Ok(())
}

/// Whether that many shards may be deleted, or slots assigned, in one call.
pub fn check_batch(entries: usize) -> Result<(), StoreError> {
    if entries > MAX_BATCH {
        return Err(bad(format!("{entries} entries, at most {MAX_BATCH}")));
    }
    Ok(())
}

/// Whether these notes may be kept by one call.
pub fn check_notes(notes: &[BlobNote]) -> Result<(), StoreError> {
    if notes.len() > MAX_NOTES {
        return Err(bad(format!("{} notes, at most {MAX_NOTES}", notes.len())));
    }
    let too_long = |note: &&BlobNote| match &note.state {
        NoteState::Published(payload) => payload.len() > MAX_NOTE_BYTES,
        NoteState::Deleted => false,
    };
    match notes.iter().find(too_long) {
        Some(note) => Err(bad(format!("the note of blob {} is too long", note.blob))),
        None => Ok(()),
    }
}

/// What a repeat of [`crate::ShardStore::put`] is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Which shard it is.
    pub key: ShardKey,
    /// Its lengths.
    pub end: ShardEnd,
    /// Its checksums.
    pub crcs: &'a [u32],
}

/// Whether what is stored under the key, finished and whole, is `shard`.
pub fn check_repeat(stored: Stored<'_>, shard: &SmallShard) -> Result<(), StoreError> {
    let same = stored.key == shard.header.key
        && stored.end.shard_len == shard.bytes.len() as u64
        && stored.end.blob_len == shard.blob_len
        && stored.crcs == shard.crcs;
    if same {
        Ok(())
    } else {
        Err(StoreError::Exists)
    }
}

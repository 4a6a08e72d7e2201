//! Reading a shard of a volume: verified, or refused.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use shardgate_wire::checksum::{CHECK_BLOCK, first_bad_block};
use shardgate_wire::store::{ShardBytes, ShardStat, SmallShard};
use shardgate_wire::{ShardKey, StoreError, bounds};

use super::engine::{Engine, corrupt};
use super::format::{HEAD_BYTES, Head, Heading, Meta, decode_head, decode_meta};
use super::locate::{Located, Look};
use super::source::is_bad_medium;
use crate::format::FormatError;
use crate::io::DiskFile;

/// Bytes that head, header and checksums mostly take.
const FIRST_BYTES: usize = 4 * 1024;
/// A range that begins no further behind its record's start is read with it:
/// to read so much more takes less than another access.
const NEAR_BYTES: u64 = 64 * 1024;
/// What lies before a shard's bytes in its record at most, but for the
/// checksums of a long one.
const MOST_META_BYTES: usize = 24 * 1024;

/// A record's head, header and checksums, verified, and what was read of it.
pub(crate) struct Opened {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) head: Head,
    pub(crate) meta: Meta,
    /// The record from its start on.
    bytes: Bytes,
    offset: u64,
}

impl Engine {
    /// Reads a range of a shard; `None` if it is in no volume.
    pub(crate) fn read(
        &self,
        key: ShardKey,
        offset: u64,
        len: u32,
    ) -> Result<Option<ShardBytes>, StoreError> {
        self.with_record(key, &|engine, located| {
            let first = first_bytes(offset, len, located.entry.span);
            let opened = engine.open_record(key, located, first)?;
            bounds::check_range(opened.head.end.shard_len, offset, len).map_err(Unread::Store)?;
            engine.read_blocks(&opened, offset, len as usize)
        })
    }

    /// Head and end of a shard; `None` if it is in no volume.
    pub(crate) fn stat(&self, key: ShardKey) -> Result<Option<ShardStat>, StoreError> {
        self.with_record(key, &|engine, located| {
            let opened = engine.open_record(key, located, FIRST_BYTES)?;
            Ok(ShardStat {
                header: opened.meta.header,
                end: Some(opened.head.end),
            })
        })
    }

    /// Reads all of a shard as the device has it, and gives nothing of it;
    /// `None` if it is in no volume.
    pub(crate) fn verify_on_device(&self, key: ShardKey) -> Result<Option<()>, StoreError> {
        self.with_record(key, &|engine, located| {
            let (heading, entry) = (&located.heading, &located.entry);
            let file = engine.file_of(located)?;
            let mut bytes = vec![0; entry.span as usize];
            let read = file.read_past_cache(&mut bytes, entry.offset())?;
            bytes.truncate(read);
            let verified = || {
                let head = head_of(heading, entry.offset(), key, &bytes)?;
                let meta = meta_of(heading, entry.offset(), key, &head, &bytes)?;
                let at = usize::try_from(head.data_at - entry.offset()).unwrap_or(usize::MAX);
                let len = usize::try_from(head.end.shard_len).unwrap_or(usize::MAX);
                let data = bytes.get(at..).and_then(|data| data.get(..len));
                let data = data.ok_or_else(|| corrupt("volume is shorter than its shard"))?;
                match first_bad_block(data, &meta.crcs) {
                    Some(block) => Err(corrupt(format!("block {block}"))),
                    None => Ok(()),
                }
            };
            verified().map_err(Unread::Store)
        })
    }

    /// Whether the shard is stored, whole; an error if another is.
    pub(crate) fn is_stored(&self, shard: &SmallShard) -> Result<bool, StoreError> {
        let key = shard.header.key;
        if self.locate(key)?.is_none() {
            return Ok(false);
        }
        let same = self.with_record(key, &|engine, located| {
            let first = FIRST_BYTES + shard.bytes.len();
            let opened = engine.open_record(key, located, first)?;
            let stored = bounds::Stored {
                key,
                end: opened.head.end,
                crcs: &opened.meta.crcs,
            };
            bounds::check_repeat(stored, shard).map_err(Unread::Store)?;
            engine.read_blocks(&opened, 0, shard.bytes.len()).map(drop)
        })?;
        Ok(same.is_some())
    }

    /// Runs `read` on the shard's record, again if its volume goes meanwhile.
    fn with_record<T>(
        &self,
        key: ShardKey,
        read: &dyn Fn(&Self, &Located) -> Result<T, Unread>,
    ) -> Result<Option<T>, StoreError> {
        let mut look = Look::Quick;
        loop {
            let moves = self.state.read().moves;
            let Some(located) = self.locate_or_tell(key, look)? else {
                return Ok(None);
            };
            let failed = match read(self, &located) {
                Ok(done) => return Ok(Some(done)),
                Err(failed) => failed,
            };
            if self.state.read().moves != moves {
                continue;
            }
            if located.sure && self.is_gone(&located) {
                // Deleted meanwhile, and its space perhaps given back.
                continue;
            }
            if !located.sure {
                // A guess proves nothing: neither damage nor absence.
                look = Look::Sure;
                continue;
            }
            return Err(match failed {
                Unread::Store(error) => error,
                Unread::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                    corrupt("the shard's volume is gone")
                }
                Unread::Io(error) => self.unread_record(&located.heading, &error),
            });
        }
    }

    /// Whether a record that was found is no more: what is read at its place
    /// then says nothing.
    pub(super) fn is_gone(&self, located: &Located) -> bool {
        self.is_gone_at(&located.heading, located.entry.at)
    }

    /// The same by place.
    pub(super) fn is_gone_at(&self, heading: &Heading, at: u32) -> bool {
        let state = self.state.read();
        let of = state.groups.get(&heading.group);
        let volume = of.and_then(|of| of.volumes.get(&heading.sequence));
        volume.is_none_or(|volume| volume.is_dead(at))
    }

    /// A disk may give it the next time; not what it did not give when it was
    /// opened either.
    pub(super) fn unread_record(&self, heading: &Heading, error: &io::Error) -> StoreError {
        let why = self.unread(error);
        let state = self.state.read();
        let of = state.groups.get(&heading.group);
        let volume = of.and_then(|of| of.volumes.get(&heading.sequence));
        if is_bad_medium(error) && volume.is_some_and(|volume| volume.unread) {
            return corrupt(format!("record: {error}"));
        }
        why
    }

    /// Head, header and checksums of a record, of which the first `first`
    /// bytes are read at once.
    pub(crate) fn open_record(
        &self,
        key: ShardKey,
        located: &Located,
        first: usize,
    ) -> Result<Opened, Unread> {
        let file = self.file_of(located)?;
        let (heading, entry) = (&located.heading, &located.entry);
        let offset = entry.offset();
        let span = entry.span as usize;
        let mut bytes = read_at(&*file, offset, first.min(span))?;
        let head = head_of(heading, offset, key, &bytes).map_err(Unread::Store)?;
        if bytes.len() < head.meta_len as usize {
            bytes = read_at(&*file, offset, head.meta_len as usize)?;
        }
        debug_assert!(head.meta_len as usize >= HEAD_BYTES);
        let meta = meta_of(heading, offset, key, &head, &bytes).map_err(Unread::Store)?;
        Ok(Opened {
            file,
            head,
            meta,
            bytes: bytes.into(),
            offset,
        })
    }

    /// Blocks of an opened record, verified. The range was checked.
    pub(crate) fn read_blocks(
        &self,
        opened: &Opened,
        offset: u64,
        len: usize,
    ) -> Result<ShardBytes, Unread> {
        let at = opened.head.data_at + offset;
        let have = usize::try_from(at.saturating_sub(opened.offset)).unwrap_or(usize::MAX);
        let had = opened.bytes.get(have..).unwrap_or_default();
        let bytes = if had.len() >= len && offset == 0 {
            opened.bytes.slice(have..have + len)
        } else if had.len() >= len {
            // Not to be kept with all that was read before it.
            Bytes::copy_from_slice(&had[..len])
        } else {
            // The rest follows what was read with the head.
            let mut bytes = vec![0; len];
            let (first, rest) = bytes.split_at_mut(had.len());
            first.copy_from_slice(had);
            let read = opened.file.read_at(rest, at + had.len() as u64)?;
            bytes.truncate(had.len() + read);
            bytes.into()
        };
        if bytes.len() < len {
            return Err(Unread::Store(corrupt("volume is shorter than its shard")));
        }
        let first = usize::try_from(offset / CHECK_BLOCK as u64).unwrap_or(usize::MAX);
        let crcs = &opened.meta.crcs[first..first + len.div_ceil(CHECK_BLOCK)];
        if let Some(block) = first_bad_block(&bytes, crcs) {
            return Err(Unread::Store(corrupt(format!("block {}", first + block))));
        }
        let crcs = crcs.to_vec();
        Ok(ShardBytes { bytes, crcs })
    }
}

/// The head of the key's record, of its first bytes.
pub(super) fn head_of(
    heading: &Heading,
    offset: u64,
    key: ShardKey,
    bytes: &[u8],
) -> Result<Head, StoreError> {
    let head = decode_head(heading, offset, bytes).ok_or_else(|| corrupt("record: no head"))?;
    if !head.kind.is_shard() || (head.blob, head.index) != (key.blob, key.index) {
        return Err(corrupt("record: another shard"));
    }
    Ok(head)
}

/// Header and checksums of the key's record, of at least as many of its bytes
/// as its head says.
pub(super) fn meta_of(
    heading: &Heading,
    offset: u64,
    key: ShardKey,
    head: &Head,
    bytes: &[u8],
) -> Result<Meta, StoreError> {
    let meta = decode_meta(heading.salt, offset, head, bytes);
    let meta = meta.map_err(|error| match error {
        FormatError::Version { .. } => StoreError::LaterVersion {
            what: format!("record: {error}"),
        },
        error => corrupt(format!("record: {error}")),
    })?;
    if meta.header.key != key {
        return Err(corrupt("record: another shard"));
    }
    Ok(meta)
}

/// Bytes that are read at once, from a record's start, for a range of a shard
/// whose record takes `span`.
fn first_bytes(offset: u64, len: u32, span: u32) -> usize {
    let (len, span) = (len as usize, span as usize);
    if offset > NEAR_BYTES {
        return FIRST_BYTES;
    }
    let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
    // What is left is read along: it may be the end of the range.
    let all = span <= skipped + len + MOST_META_BYTES;
    if all {
        span
    } else {
        FIRST_BYTES + skipped + len
    }
}

/// Why a record was not read.
pub(crate) enum Unread {
    Io(io::Error),
    Store(StoreError),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Up to `len` bytes at `offset`.
pub(crate) fn read_at(file: &dyn DiskFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, offset)?;
    bytes.truncate(read);
    Ok(bytes)
}

//! A long record, piece by piece: memory is bounded whatever the shards are.

use bytes::Bytes;
use shardgate_wire::checksum::{CHECK_BLOCK, first_bad_block};
use shardgate_wire::{ShardKey, StoreError};

use super::super::engine::{Engine, corrupt};
use super::super::format::{Entry, Head, Heading, Meta};
use super::super::reading::{head_of, meta_of};
use super::run::RUN_BYTES;
use super::{Front, HeldRecords};
use crate::window::{Window, WindowShard};

/// Bytes that are tried where the device did not give the first of a record.
const LEAST_BYTES: u64 = 64 * 1024;

/// Head, header and checksums of a record, verified.
#[derive(Debug)]
pub(super) struct LongRecord {
    sequence: u64,
    offset: u64,
    head: Head,
    meta: Meta,
}

impl LongRecord {
    /// From the bytes at the record's start.
    pub(super) fn of(
        heading: &Heading,
        entry: &Entry,
        key: ShardKey,
        bytes: &[u8],
    ) -> Result<Self, StoreError> {
        let offset = entry.offset();
        let head = head_of(heading, offset, key, bytes)?;
        let meta = meta_of(heading, offset, key, &head, bytes)?;
        Ok(Self {
            sequence: heading.sequence,
            offset,
            head,
            meta,
        })
    }

    pub(super) fn shard_len(&self) -> u64 {
        self.head.end.shard_len
    }

    /// The part of the record's bytes that are the shard's.
    pub(super) fn data_of(&self, bytes: &Bytes) -> Bytes {
        let at = usize::try_from(self.head.data_at - self.offset).unwrap_or(usize::MAX);
        bytes.slice(at.min(bytes.len())..)
    }

    /// `len` bytes of the shard from `within` on, if `data` has them and they
    /// verify.
    pub(super) fn piece(
        &self,
        within: u64,
        data: Bytes,
        len: u64,
    ) -> Result<WindowShard, StoreError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if data.len() < len {
            return Err(corrupt("volume is shorter than its shard"));
        }
        let first = usize::try_from(within / CHECK_BLOCK as u64).unwrap_or(usize::MAX);
        let crcs = &self.meta.crcs[first..first + len.div_ceil(CHECK_BLOCK)];
        let bytes = data.slice(..len);
        if let Some(block) = first_bad_block(&bytes, crcs) {
            return Err(corrupt(format!("block {}", first + block)));
        }
        Ok(WindowShard {
            header: self.meta.header.clone(),
            end: self.head.end,
            offset: within,
            bytes,
            crcs: crcs.to_vec(),
        })
    }
}

/// Bytes of the next piece of a shard of which `left` are to come and `had`
/// are at hand: whole blocks of these, so that no byte is read again.
fn next_piece(left: u64, had: u64) -> u64 {
    let blocks = had / CHECK_BLOCK as u64 * CHECK_BLOCK as u64;
    match blocks {
        _ if had >= left => left,
        0 => left.min(RUN_BYTES),
        blocks => blocks,
    }
}

impl Engine {
    /// Gives pieces of a record from `within` on until the window has
    /// `most` bytes, and moves it there; whether it is at the record's end.
    pub(super) fn read_long(
        &self,
        (front, entry): (&Front, Entry),
        within: &mut u64,
        most: u64,
        held: &mut HeldRecords,
        window: &mut Window,
    ) -> Result<bool, StoreError> {
        let kept = held.long.take().filter(|long| {
            (long.sequence, long.offset) == (front.sequence, entry.offset()) && *within > 0
        });
        let (long, mut had) = match kept {
            Some(long) => (long, Bytes::new()),
            None => match self.open_long(front, &entry, window)? {
                Ok(opened) => opened,
                Err(error) => {
                    self.give(front, &entry, Err(error), window);
                    return Ok(true);
                }
            },
        };
        let end = long.shard_len();
        *within -= *within % CHECK_BLOCK as u64;
        if *within > 0 {
            had = Bytes::new();
        }
        while *within < end {
            let len = next_piece(end - *within, had.len() as u64);
            let lacks = len.saturating_sub(had.len() as u64);
            let piece = match lacks {
                0 => Ok(had.split_to(usize::try_from(len).unwrap_or(usize::MAX))),
                _ => {
                    let first = std::mem::take(&mut had);
                    let at = long.head.data_at + *within + first.len() as u64;
                    window.read_bytes += lacks;
                    let rest = self.read_device(front, at, lacks)?;
                    rest.map(|rest| match first.is_empty() {
                        true => rest,
                        false => [first, rest].concat().into(),
                    })
                }
            };
            let piece = piece.and_then(|bytes| long.piece(*within, bytes, len));
            self.give(front, &entry, piece, window);
            *within += len;
            if window.read_bytes >= most && *within < end {
                held.long = Some(long);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The start of a record, and what was read of its shard's bytes.
    fn open_long(
        &self,
        front: &Front,
        entry: &Entry,
        window: &mut Window,
    ) -> Result<Result<(LongRecord, Bytes), StoreError>, StoreError> {
        let mut bytes = Err(corrupt("record: not read"));
        // Its end may be what the device does not give: less is tried then.
        for len in [RUN_BYTES, LEAST_BYTES] {
            window.read_bytes += len;
            bytes = self.read_device(front, entry.offset(), len)?;
            if bytes.is_ok() {
                break;
            }
        }
        Ok(bytes.and_then(|bytes| {
            let long = LongRecord::of(&front.heading, entry, front.key(entry), &bytes)?;
            let had = long.data_of(&bytes);
            Ok((long, had))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_of_whole_blocks() {
        const B: u64 = CHECK_BLOCK as u64;
        for (left, had, wanted) in [
            (100, 100, 100),
            (100, 0, 100),
            (20 * B, 15 * B + 9, 15 * B),
            (20 * B, B - 1, 16 * B),
            (20 * B + 1, 0, 16 * B),
            (3 * B + 1, 3 * B, 3 * B),
        ] {
            assert_eq!(next_piece(left, had), wanted, "{left} {had}");
        }
    }
}

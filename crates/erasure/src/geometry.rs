//! Where each byte of a blob lies in its shards.
//!
//! Owns the arithmetic of stripes and blocks (`docs/formats.md` fixes its
//! figures). A stripe is k' data blocks and m parity blocks of one length:
//! [`full_block`] each, but in the last stripe the rest divided by k', rounded up
//! to [`ALIGN`]. Data blocks hold the object's bytes in order; what is left
//! of the last stripe is zeroes. Shard i is the sequence of the i-th blocks
//! of all stripes, so that all shards of a blob are equally long, and byte x
//! of a parity shard depends on byte x of the data shards only.
//!
//! Invariant: every byte of the object lies at exactly one place, found by
//! arithmetic alone. No I/O, no buffers, no decision about what to read from
//! whom.
//!
//! A body of unknown length must hold a stripe until it is full or the body
//! has ended: only then is the block length of that stripe known.

use std::ops::Range;

use thiserror::Error;

use crate::layout::Layout;

/// The most bytes of a block; see [`full_block`].
pub const BLOCK: u64 = 256 << 10;
/// The most data blocks of [`BLOCK`] bytes in a stripe.
const LONG_BLOCKS: u8 = 4;
/// The bytes of a shard that share one checksum.
pub const CHECK_BLOCK: u64 = 64 << 10;
/// What the block length of the last stripe is rounded up to.
pub const ALIGN: u64 = 64;
/// The longest blob. Far above any object, and low enough that no sum here
/// overflows.
pub const MAX_LEN: u64 = 1 << 60;

const _: () = assert!((BLOCK / 2).is_multiple_of(CHECK_BLOCK));
const _: () = assert!(CHECK_BLOCK.is_multiple_of(ALIGN));

/// A blob is longer than [`MAX_LEN`]: the record that says so is damaged.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("a blob of {0} bytes, the most is {MAX_LEN}")]
pub struct TooLong(pub u64);

/// The bytes of a block of every stripe but the last: [`BLOCK`], and half of
/// it where k' is above 4. An upload holds m + 1 blocks for as long as it
/// lasts, and wide layouts have more parity: at 8+4 and 50 KB/s, 200 uploads
/// held 250 MiB with the longer block.
#[must_use]
pub fn full_block(layout: Layout) -> u64 {
    match layout.data() {
        0..=LONG_BLOCKS => BLOCK,
        _ => BLOCK / 2,
    }
}

/// The bytes of each shard of a blob. Saturates above [`MAX_LEN`].
#[must_use]
pub fn shard_len(layout: Layout, len: u64) -> u64 {
    let stripe = stripe_len(layout);
    (len / stripe * full_block(layout)).saturating_add(block_len(layout, len % stripe))
}

fn stripe_len(layout: Layout) -> u64 {
    u64::from(layout.data()) * full_block(layout)
}

fn block_len(layout: Layout, stripe_bytes: u64) -> u64 {
    stripe_bytes
        .div_ceil(u64::from(layout.data()))
        .next_multiple_of(ALIGN)
}

/// One blob: its layout and its length in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Geometry {
    layout: Layout,
    len: u64,
}

/// One stripe of a blob. Every one of its k' + m blocks has `block_len`
/// bytes and lies at `shard_offset` of its shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stripe {
    /// Counted from 0.
    pub index: u64,
    /// Where its first byte lies in the object.
    pub object_offset: u64,
    /// The bytes of the object in it, without padding.
    pub data_len: u64,
    /// The bytes of each of its blocks.
    pub block_len: u64,
    /// Where its blocks begin in each shard.
    pub shard_offset: u64,
}

impl Stripe {
    /// The bytes of the object in data block `data_index`: shorter than
    /// `block_len`, or empty, where the block ends in padding.
    #[must_use]
    pub fn block_range(&self, data_index: u8) -> Range<u64> {
        let start = (u64::from(data_index) * self.block_len).min(self.data_len);
        let end = (start + self.block_len).min(self.data_len);
        self.object_offset + start..self.object_offset + end
    }
}

/// Where one byte of the object lies.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Location {
    /// Its stripe, counted from 0.
    pub stripe: u64,
    /// Its data shard.
    pub data_index: u8,
    /// Its place in the block.
    pub block_offset: u64,
    /// Its place in the shard.
    pub shard_offset: u64,
}

/// A run of bytes that lies within one block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Piece {
    /// Its stripe, counted from 0.
    pub stripe: u64,
    /// The data shard that holds it.
    pub data_index: u8,
    /// Where it begins in the shard.
    pub shard_offset: u64,
    /// Its bytes: at least 1, at most [`BLOCK`].
    pub len: u64,
    /// Where it begins in the object.
    pub object_offset: u64,
}

impl Piece {
    /// The bytes of the shard that the piece is.
    #[must_use]
    pub fn shard_range(&self) -> Range<u64> {
        self.shard_offset..self.shard_offset + self.len
    }
}

impl Geometry {
    /// The geometry of a blob of `len` bytes.
    ///
    /// # Errors
    /// `len` is above [`MAX_LEN`].
    pub fn new(layout: Layout, len: u64) -> Result<Self, TooLong> {
        if len > MAX_LEN {
            return Err(TooLong(len));
        }
        Ok(Self { layout, len })
    }

    /// The layout it was made with.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The bytes of the object.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the object has no bytes, and so no stripe.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of stripes.
    #[must_use]
    pub fn stripes(&self) -> u64 {
        self.len.div_ceil(stripe_len(self.layout))
    }

    /// The bytes of each shard, padding included.
    #[must_use]
    pub fn shard_len(&self) -> u64 {
        shard_len(self.layout, self.len)
    }

    /// Stripe `index`, `None` past the last one.
    #[must_use]
    pub fn stripe(&self, index: u64) -> Option<Stripe> {
        if index >= self.stripes() {
            return None;
        }
        let full = stripe_len(self.layout);
        let object_offset = index * full;
        let data_len = (self.len - object_offset).min(full);
        Some(Stripe {
            index,
            object_offset,
            data_len,
            block_len: block_len(self.layout, data_len),
            shard_offset: index * full_block(self.layout),
        })
    }

    /// Where byte `object_offset` lies, `None` past the end.
    #[must_use]
    pub fn locate(&self, object_offset: u64) -> Option<Location> {
        if object_offset >= self.len {
            return None;
        }
        let stripe = self.stripe(object_offset / stripe_len(self.layout))?;
        let within = object_offset - stripe.object_offset;
        let block_offset = within % stripe.block_len;
        Some(Location {
            stripe: stripe.index,
            data_index: (within / stripe.block_len) as u8,
            block_offset,
            shard_offset: stripe.shard_offset + block_offset,
        })
    }

    /// The inverse of [`Geometry::locate`]: which byte of the object lies at
    /// `shard_offset` of data shard `data_index`. `None` for padding, parity
    /// and what is past the end.
    #[must_use]
    pub fn object_offset(&self, data_index: u8, shard_offset: u64) -> Option<u64> {
        if data_index >= self.layout.data() {
            return None;
        }
        let stripe = self.stripe(shard_offset / full_block(self.layout))?;
        let block_offset = shard_offset - stripe.shard_offset;
        if block_offset >= stripe.block_len {
            return None;
        }
        let range = stripe.block_range(data_index);
        let offset = range.start + block_offset;
        (offset < range.end).then_some(offset)
    }

    /// The pieces of a range of the object, in its order and without gaps.
    /// The range is cut off at the end of the object.
    #[must_use]
    pub fn pieces(&self, range: Range<u64>) -> Pieces {
        Pieces {
            geometry: *self,
            next: range.start,
            end: range.end.min(self.len),
        }
    }

    /// The bytes of a shard that must be read for `range` of it to be
    /// verified: whole check blocks, the last one cut off at the shard's
    /// end. Empty for an empty range and for one past the end.
    #[must_use]
    pub fn check_range(&self, range: Range<u64>) -> Range<u64> {
        let shard_len = self.shard_len();
        let end = range.end.min(shard_len);
        if range.start >= end {
            return 0..0;
        }
        let start = range.start - range.start % CHECK_BLOCK;
        start..end.next_multiple_of(CHECK_BLOCK).min(shard_len)
    }
}

/// See [`Geometry::pieces`].
#[derive(Clone, Debug)]
pub struct Pieces {
    geometry: Geometry,
    next: u64,
    end: u64,
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.next >= self.end {
            return None;
        }
        let at = self.geometry.locate(self.next)?;
        let block_end = self
            .geometry
            .stripe(at.stripe)?
            .block_range(at.data_index)
            .end;
        let object_offset = self.next;
        self.next = block_end.min(self.end);
        Some(Piece {
            stripe: at.stripe,
            data_index: at.data_index,
            shard_offset: at.shard_offset,
            len: self.next - object_offset,
            object_offset,
        })
    }
}

impl std::iter::FusedIterator for Pieces {}

#[cfg(test)]
mod tests;

//! Erasure coding for Shardgate: from the bytes of a blob to its shards and
//! back. Pure arithmetic, without I/O, clocks, randomness, or any other
//! crate of the workspace.
//!
//! | module | what it answers |
//! |---|---|
//! | [`scheme`] | how many data and parity shards are allowed, and how that is written (`4+2`) |
//! | [`layout`] | into how many shards this blob is cut, and which slot holds which shard |
//! | [`geometry`] | which byte of the blob lies where in which shard |
//! | [`codec`] | what the bytes of the parity shards are, and those of lost ones |
//!
//! The code is Reed-Solomon over GF(2^8), systematic: data shards hold the
//! blob's own bytes, and a healthy read decodes nothing. Any k of the k + m
//! shards give all the others. Parity is byte for byte that of the crate
//! `reed-solomon-erasure` 6.0.0, which tests compare with; these bytes are
//! on disks and never change.
//!
//! The arithmetic runs on the widest instructions that the processor has
//! ([`Kernel`]), found at run time, so that one build serves all. The loop
//! in `kernels` is the only unsafe code of the workspace. How fast it is:
//! `cargo run --release --example bench_kernels`.
//!
//! # Writing
//! A writer holds the m parity blocks and one data block:
//! ```
//! use shardgate_erasure::{Codec, Geometry, Layout, Scheme};
//!
//! let body = vec![7_u8; 3_000_000];
//! let len = body.len() as u64;
//! let scheme: Scheme = "4+2".parse()?;
//! let layout = Layout::choose(scheme, Some(len), 128 << 10);
//! let (codec, geometry) = (Codec::new(layout), Geometry::new(layout, len)?);
//! for index in 0..geometry.stripes() {
//!     let stripe = geometry.stripe(index).expect("below the number of stripes");
//!     let mut parity = vec![vec![0; stripe.block_len as usize]; layout.parity().into()];
//!     let mut sum = codec.accumulate();
//!     for data_index in 0..layout.data() {
//!         let range = stripe.block_range(data_index);
//!         let block = &body[range.start as usize..range.end as usize];
//!         sum.add_block(data_index, block, &mut parity)?;
//!         // The block, padded with zeroes to `block_len`, goes to its slot.
//!     }
//!     // The parity blocks go to theirs.
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Reading
//! [`Geometry::pieces`] says which bytes of which data shards a range is,
//! [`Geometry::check_range`] what must be read around them to verify them.
//! Where a shard is lost, the same range of k' others goes through a
//! [`Decoder`].

pub mod codec;
mod field;
pub mod geometry;
mod kernels;
pub mod layout;
pub mod scheme;

pub use codec::{Accumulator, Codec, CodecError, Decoder};
pub use geometry::{
    ALIGN, BLOCK, CHECK_BLOCK, Geometry, Location, MAX_LEN, Piece, Pieces, Stripe, TooLong,
    full_block,
};
pub use kernels::Kernel;
pub use layout::{Layout, shard_in, slot_of};
pub use scheme::{MAX_DATA, MAX_PARITY, MAX_SHARDS, Scheme, SchemeError};

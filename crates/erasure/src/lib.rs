//! Erasure coding: schemes, the geometry of blobs, Reed-Solomon kernels.

pub mod codec;
mod field;
pub mod geometry;
mod kernels;
pub mod layout;
pub mod scheme;

pub use codec::{Accumulator, Codec, CodecError, Decoder};
pub use geometry::{
    ALIGN, BLOCK, CHECK_BLOCK, Geometry, Location, MAX_LEN, Piece, Pieces, Stripe, TooLong,
};
pub use kernels::Kernel;
pub use layout::{Layout, shard_in, slot_of};
pub use scheme::{MAX_DATA, MAX_PARITY, MAX_SHARDS, Scheme, SchemeError};

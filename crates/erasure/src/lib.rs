//! Erasure coding: schemes, the geometry of blobs, Reed-Solomon kernels.

pub mod geometry;
pub mod layout;
pub mod scheme;

pub use geometry::{
    ALIGN, BLOCK, CHECK_BLOCK, Geometry, Location, MAX_LEN, Piece, Pieces, Stripe, TooLong,
};
pub use layout::{Layout, shard_in, slot_of};
pub use scheme::{MAX_DATA, MAX_PARITY, MAX_SHARDS, Scheme, SchemeError};

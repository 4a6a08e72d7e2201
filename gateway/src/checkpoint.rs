//! Checkpoints of the catalog in the pool (PROTOCOL.md 4).
//!
//! Owns when one is taken ([`mod@due`]), the order in which that happens
//! ([`mod@take`]), reading its files back without a group record
//! ([`mod@fetch`]), and the job that does it all ([`mod@job`]). Invariants: a
//! checkpoint counts when every shard of every file of it is durable and it
//! was read back from the pool; the oldest goes, and with it the journal up to
//! the one that is then the older, only when the root that names both newer
//! ones is durable on a majority of the journal disks. What a checkpoint is to
//! the byte is `shardgate_catalog::checkpoint`; how blobs get to disks is
//! `object`.

mod asks;
pub mod due;
pub mod fetch;
#[cfg(test)]
mod fixture;
mod inherit;
pub mod job;
mod local;
mod ports;
pub mod report;
mod source;
pub mod take;
mod verify;

pub use job::{CheckpointParts, Checkpoints};
pub use local::LocalDatabase;
pub use ports::JournalSide;
pub use report::CheckpointStatus;

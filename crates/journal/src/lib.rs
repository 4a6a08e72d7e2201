//! The journal: the catalog's log of commits, mirrored on the pool's disks.
//!
//! Owns the protocol of PROTOCOL.md 1 and 2: what a segment is to the byte
//! ([`mod@format`]), which disks keep it ([`disks`]) and how
//! that is found without a catalog ([`map`]), how commits are
//! acknowledged ([`Writer`]), what a start makes of what it finds
//! ([`mod@recover`]), who may start ([`start`]) and who may still answer
//! ([`contact`]), and which segments lack copies ([`copies`]).
//!
//! Invariants: a record is acknowledged when every member of its segment has
//! it durably; what was acknowledged, or shown by a start, is never gone
//! again; what cannot be complete is refused.
//!
//! Does no I/O: disks are [`JournalDisk`](shardgate_wire::journal::JournalDisk)s.
//! Waiting goes through `tokio::time`, which tests pause. A record's payload
//! means nothing here.

pub mod chain;
pub mod contact;
pub mod copies;
pub mod disks;
mod error;
pub mod format;
mod lateness;
pub mod map;
#[cfg(feature = "testing")]
pub mod memory;
pub mod recover;
pub mod salvage;
mod scan;
pub mod start;
mod writer;

pub use chain::{Position, Record};
pub use error::{JournalError, Refusal};
pub use format::SegmentId;
pub use recover::{Recovered, recover};
pub use writer::{Member, Writer, WriterOptions};

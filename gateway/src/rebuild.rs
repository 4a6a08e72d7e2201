//! What `shardgate catalog rebuild` reads: the disks of the whole pool, a
//! catalog of before if there is one, and what there is of the journal.
//!
//! Owns the reading. Invariants: every disk is read to its end, or counts as
//! one that was not read; nothing is changed here. What is made of it is
//! decided by the catalog (`shardgate_catalog::rebuild`), and the order of a
//! rebuild is `app::rebuild`'s.

mod base;
mod headers;
mod journal;
mod scan;

pub use base::{Base, Bases};
pub use headers::ShardHeaders;
pub use journal::{JournalFound, look_at_journal, read_journal};
pub use scan::{Scanned, scan};

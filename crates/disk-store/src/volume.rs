//! Small and middling shards, packed into volumes.
//!
//! Owns `volumes/` and `log/` of a disk's folder: append-only files of one
//! placement group each, the directories of those that are sealed, and the
//! log of deletes. Synchronous, without threads, over a
//! [`DiskIo`](crate::io::DiskIo); the disk's own threads call it.
//!
//! Invariants: what was answered is durable; a record is served only whole;
//! what was synced and does not verify is damaged, never absent; what was
//! deleted stays so, whatever is lost at whichever moment.

mod closing;
mod commit;
mod compact;
mod engine;
mod files;
mod format;
mod fsck;
mod hints;
mod index_copies;
mod key_ranges;
mod listing;
mod loading;
mod locate;
mod logbook;
mod making;
mod mending;
mod opening;
mod place;
mod reading;
#[cfg(test)]
mod refusal_tests;
mod scan;
mod sealing;
mod source;
mod volume_state;
mod windows;

#[cfg(test)]
mod between_tests;
#[cfg(test)]
mod closing_tests;
#[cfg(test)]
mod copies_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod extent_tests;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod hint_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod motion_tests;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod torn_tests;
#[cfg(test)]
mod unread_tests;
#[cfg(test)]
mod upkeep_tests;
#[cfg(test)]
mod window_tests;

pub(crate) use closing::{ClosingTime, OpenLimits, Rests};
pub(crate) use commit::{Op, OwnedOp};
pub(crate) use compact::Choice;
pub use engine::VolumeFigures;
pub(crate) use engine::{Engine, Note};
pub(crate) use format::{DIRECTORY_PAGE, Entry};
pub(crate) use fsck::{LogPlace, Mending, Place as VolumePlace};
pub(crate) use hints::{Hints, hints_bytes};
pub(crate) use making::OwnExtent;
pub(crate) use opening::Opening;
pub(crate) use place::{LOG, VOLUMES, parse_log_file};
pub(crate) use source::{BadSectors, GiveWay, Source, is_bad_medium, later};
pub(crate) use windows::HeldRecords;
#[cfg(test)]
pub(crate) use windows::WindowCursor;

//! The pool as it runs: disks, their standing, groups, classes.
//!
//! Owns what is true of disks and groups at the moment: which disks answer,
//! what they can take, which groups are open for writing and how fast calls
//! are. Invariants: a group is written to only after its record is durable
//! and its disks were told their slots; a disk is handed out only under the
//! gateway's epoch and with its own identity. Which disks and groups to take
//! is decided by `placement`; shards are written and read by `object`.

mod changes;
mod checking;
mod classes;
mod disks;
mod groups;
mod keeping;
mod latency;
pub mod lineage;
mod media;
mod members;
mod open_set;
pub mod place;
mod probe;
pub mod report;
mod standing;
pub mod start;
mod state;
#[cfg(test)]
pub(crate) mod test_pool;
pub mod ways;

pub use changes::ChangeError;
pub use checking::CheckError;
pub use classes::{ClassSetting, DEFAULT_CLASS, REDUCED_CLASS, SchemeSetting, UnknownClass};
pub use groups::PlaceError;
pub use latency::{Latencies, SizeClass};
pub use media::{MEDIA, MediumProfile, medium_profile};
pub use members::Member;
pub use place::LocalFolder;
pub use report::{DiskCount, DiskReading, GroupCounts, PoolStatus};
pub use standing::Standing;
pub use start::StartError;
pub use state::{Pool, PoolParts, PoolSettings};

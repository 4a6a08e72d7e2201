//! The gateway's side of the journal: its start, the catalog's log over it,
//! and the care of its disks while the gateway runs.
//!
//! Owns the first half of a start ([`mod@start`]): finding the cluster's disks
//! and the pool map before there is a catalog, raising the epoch, and bringing
//! the local catalog up to the last acknowledged commit, or refusing. Then
//! [`JournalLog`] makes commits durable, and the [`Keeper`] asks disks, decides
//! whether anything may be answered, replaces journal disks and copies
//! segments. The protocol itself is `crates/journal`.

mod checkpoints;
mod contact;
mod find;
mod free;
mod keeper;
pub mod lineage;
mod log;
pub mod looked;
mod maps;
pub mod own;
mod refused;
mod replay;
mod report;
pub mod roots;
pub mod seize;
pub mod start;

pub use checkpoints::{JournalDisks, JournalLength};
pub use contact::Gate;
pub use free::{TakenOver, release};
pub use keeper::{Keeper, KeeperParts};
pub use log::{Journal, JournalLog};
pub use replay::replay_into;
pub use report::JournalStatus;

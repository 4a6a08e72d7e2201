//! The shards of one disk.
//!
//! Owns a folder on one file system: its identity, its root and slots
//! records, and volumes of packed shards, and a file for each large one, as
//! `docs/formats.md` says to the byte.
//! [`LocalDisk`] is a [`ShardStore`](shardgate_wire::ShardStore) over it, with
//! threads and a bounded queue of its own.
//!
//! Invariants: what was answered is durable; what is served was verified;
//! damage is never reported as absence; nothing is written into a folder that
//! is not the disk expected; after a failed fsync nothing is written at all.
//!
//! Does not know other disks, objects, or who may call: a shard is bytes
//! under ids.

mod aligned;
mod appending;
mod cache;
mod checking;
mod clock;
mod condition;
mod core;
mod damaged;
mod directories;
mod error;
mod files;
mod folder_lock;
mod folders;
mod format;
mod handles;
mod index_folder;
pub mod io;
mod journal;
mod key_locks;
mod lanes;
mod latency;
mod layout;
mod listing;
mod local_disk;
mod medium;
mod names;
mod notes;
mod noting;
mod open_files;
mod opening;
mod options;
mod pace;
mod presence;
mod progress;
mod putting;
mod reading;
mod removing;
mod rules;
mod scrub;
mod settling;
mod shard_file;
mod space;
mod stream;
mod streaming;
mod tidying;
mod twin;
mod volume;
mod window;
mod writer;

pub use clock::Clock;
pub use directories::DirectoryMemory;
pub use error::OpenError;
pub use local_disk::LocalDisk;
pub use medium::{MediumFigures, medium_of};
pub use open_files::raise_open_files;
pub use opening::{Expected, NewDisk};
pub use options::DiskOptions;
pub use progress::OpenProgress;
pub use space::{KeptSpace, SharedDevices};
pub use stream::ShardStream;
pub use volume::VolumeFigures;
pub use window::{Window, WindowCursor, WindowPlace, WindowRecord, WindowShard};

//! What can be set for a disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shardgate_wire::Medium;

use crate::clock::Clock;
use crate::directories::DirectoryMemory;
use crate::progress::OpenProgress;
use crate::space::{KeptSpace, SharedDevices};
use crate::volume::VolumeFigures;

/// Settings of one disk; the defaults suit a server of a few disks.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Overrides the medium of the identity record for the figures that
    /// depend on it.
    pub medium: Option<Medium>,
    /// What is kept of the file system for whom, instead of the table by its
    /// size.
    pub kept: Option<KeptSpace>,
    /// What the disks of a file system have promised: one for all disks of a
    /// process, as clones of these options share it.
    pub devices: Arc<SharedDevices>,
    /// Handles at once, finished ones that wait for a repeat included.
    pub max_handles: usize,
    /// Files that handles hold open at once.
    pub max_handle_files: usize,
    /// A handle that rests longer ends; its shard stays unfinished.
    pub handle_idle: Duration,
    /// Calls of one lane that wait at once.
    pub max_queued_calls: usize,
    /// Bytes of calls that wait at once.
    pub max_queued_bytes: usize,
    /// Files of finished shards that are kept open for reads.
    pub max_cached_files: usize,
    /// Bytes of footers that are kept for reads.
    pub max_cached_bytes: usize,
    /// Told how far opening is.
    pub progress: Arc<OpenProgress>,
    /// Memory for directories of volumes: one for all disks of a process, as
    /// clones of these options share it.
    pub directories: Arc<DirectoryMemory>,
    /// A folder on a faster disk for copies of the directories of volumes, in
    /// a folder of this disk's own there. One that cannot be used, or is
    /// another disk's, is let be.
    pub index_dir: Option<PathBuf>,
    /// Overrides the medium's figures of volumes.
    pub volumes: Option<VolumeFigures>,
    /// A volume that took nothing for so long takes no more and is sealed.
    pub volume_rest: Duration,
    /// Volumes that may stay open: of more, those that rest longest, and for
    /// ten seconds at least, are sealed sooner.
    pub max_open_volumes: usize,
    /// Time that closing the disk takes, counted from its call, before it leaves
    /// the rest of the open volumes to be read at the next start; their ends
    /// may take a third of it more, and have a second in any case, counted
    /// from the first of them.
    pub seal_within: Duration,
    /// Bytes that compaction copies in a second at most, while nobody waits.
    pub compact_bytes_per_second: u64,
    /// How often the folder is checked to be still there.
    pub check_every: Duration,
    /// How often the highest commit number told is saved, if it rose.
    pub save_told_every: Duration,
    /// Bytes of a journal segment's file; one more lies ready as a spare, from
    /// the first segment on. More than the largest append takes.
    pub journal_segment_bytes: u64,
    /// From the begin of one pass of the scrub to that of the next; `None` or
    /// nothing for none.
    pub scrub_period: Option<Duration>,
    /// Bytes that the scrub reads in a second at least, while nobody waits.
    pub scrub_min_bytes_per_second: u64,
    /// And at most, which is the stronger.
    pub scrub_max_bytes_per_second: u64,
    /// The scrub reads nothing for so long after the disk was opened.
    pub scrub_after_open: Duration,
    /// Tells when passes of the scrub begin and end.
    pub clock: Clock,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            medium: None,
            kept: None,
            devices: Arc::default(),
            max_handles: 8192,
            max_handle_files: 128,
            handle_idle: Duration::from_secs(600),
            max_queued_calls: 1024,
            max_queued_bytes: 64 * 1024 * 1024,
            max_cached_files: 64,
            max_cached_bytes: 4 * 1024 * 1024,
            progress: Arc::default(),
            directories: Arc::default(),
            index_dir: None,
            volumes: None,
            volume_rest: Duration::from_secs(300),
            max_open_volumes: 16,
            seal_within: Duration::from_secs(3),
            compact_bytes_per_second: 32 * 1024 * 1024,
            check_every: Duration::from_secs(1),
            save_told_every: Duration::from_secs(10),
            journal_segment_bytes: 64 * 1024 * 1024,
            scrub_period: Some(Duration::from_secs(30 * 24 * 3600)),
            scrub_min_bytes_per_second: 2 * 1024 * 1024,
            scrub_max_bytes_per_second: 32 * 1024 * 1024,
            scrub_after_open: Duration::from_secs(60),
            clock: Clock::system(),
        }
    }
}

//! Whether the file system has room for more shards.
//!
//! Some of it is kept from shards, so that deletes, root records and what
//! else must always be written can be (PROTOCOL.md 10).

use std::os::fd::OwnedFd;

use parking_lot::Mutex;
use shardgate_wire::StoreError;

use crate::condition::{Condition, Doing};

/// What is kept unless the options say otherwise: 1 %, at least that much.
const LEAST_RESERVE_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) capacity: u64,
    /// What shards may still take.
    pub(crate) free: u64,
}

#[derive(Debug)]
pub(crate) struct Space {
    folder: OwnedFd,
    reserve: Option<u64>,
    last: Mutex<Bytes>,
}

impl Space {
    pub(crate) fn new(folder: OwnedFd, reserve: Option<u64>) -> Self {
        Self {
            folder,
            reserve,
            last: Mutex::new(Bytes::default()),
        }
    }

    /// Asks the file system.
    pub(crate) fn measure(&self, condition: &Condition) -> Result<Bytes, StoreError> {
        let stat = rustix::fs::fstatvfs(&self.folder)
            .map_err(|errno| condition.refused(Doing::Reading, "ask for free space", errno))?;
        let capacity = stat.f_blocks.saturating_mul(stat.f_frsize);
        let available = stat.f_bavail.saturating_mul(stat.f_frsize);
        let least = LEAST_RESERVE_BYTES.max(capacity / 100);
        // A file system without files left has no room, whatever its bytes.
        let files_left = stat.f_files == 0 || stat.f_favail > 0;
        let free = available.saturating_sub(self.reserve.unwrap_or(least));
        let bytes = Bytes {
            capacity,
            free: if files_left { free } else { 0 },
        };
        *self.last.lock() = bytes;
        Ok(bytes)
    }

    /// What was measured last; never waits for the disk.
    pub(crate) fn last(&self) -> Bytes {
        *self.last.lock()
    }

    /// Whether `bytes` more fit; gives what shards may take in all.
    pub(crate) fn reserve(&self, condition: &Condition, bytes: u64) -> Result<u64, StoreError> {
        let free = self.measure(condition)?.free;
        if free < bytes {
            return Err(StoreError::NoSpace);
        }
        Ok(free)
    }
}

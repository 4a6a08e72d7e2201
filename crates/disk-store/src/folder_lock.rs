//! The lock on a disk's folder, which keeps other processes from it.
//!
//! Invariant: it ends with this value. A lock of `flock` belongs to the open
//! file, and a child that is between fork and exec has that file as well:
//! closed here alone, the folder stays locked until the child has come to its
//! exec, and whoever opens the disk at that moment is told that it is in use.
//! So the lock is taken back before the folder is closed.

use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

/// A folder that nobody else has.
#[derive(Debug)]
pub(crate) struct LockedFolder(OwnedFd);

impl LockedFolder {
    /// Locks a folder; `WOULDBLOCK` if another open one of it is locked.
    pub(crate) fn lock(folder: OwnedFd) -> Result<Self, Errno> {
        rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(folder))
    }

    /// Lets others have it, while it stays open here.
    pub(crate) fn unlock(&self) {
        // There is nothing that it could fail for.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

impl Drop for LockedFolder {
    fn drop(&mut self) {
        self.unlock();
    }
}

impl Deref for LockedFolder {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        &self.0
    }
}

impl AsFd for LockedFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;

    #[test]
    fn a_copy_that_a_child_has_keeps_no_lock() {
        let dir = tempfile::tempdir().expect("make a folder");
        let open = || files::open_folder(dir.path()).expect("open it");
        let locked = LockedFolder::lock(open()).expect("nobody has it");
        let refused = LockedFolder::lock(open()).map(drop);
        assert_eq!(refused, Err(Errno::WOULDBLOCK));
        // What a child has from a fork until its exec.
        let child = locked.try_clone().expect("copied");
        drop(locked);
        let again = LockedFolder::lock(open());
        assert!(again.is_ok(), "{again:?}");
        drop(child);
        let refused = LockedFolder::lock(open()).map(drop);
        assert_eq!(refused, Err(Errno::WOULDBLOCK), "the second still has it");
    }
}

//! The gateway's own folder: one process at a time.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The folder, locked until it is dropped or the process ends.
pub(super) struct Own {
    lock: File,
}

impl Own {
    /// Makes the folder if it is absent (its owner's alone), and locks it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !path.exists() {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        }
        let path = fs::canonicalize(path)?.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => {
                io::Error::other("another gateway runs with this folder")
            }
            error => error.into(),
        })?;
        Ok(Self { lock })
    }

    /// Lets another process have it.
    pub(super) fn close(self) {
        drop(self.lock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_gateways_never_share_a_folder() {
        let dir = tempfile::tempdir().expect("make a folder");
        let path = dir.path().join("own");
        let first = Own::open(&path).expect("free");
        assert!(Own::open(&path).is_err());
        first.close();
        assert!(Own::open(&path).is_ok());
    }
}

//! Whether the disk is still the one that was opened.
//!
//! A wiped or unmounted folder takes and syncs writes to files that no longer
//! exist, so it is looked at once a second, through its path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;
use shardgate_wire::StoreError;

use crate::core::Core;
use crate::files;
use crate::layout::{IDENTITY, SHARDS};

/// How fast a watching thread notices that the disk is closed.
const NOTICE: Duration = Duration::from_millis(100);

fn same(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

impl Core {
    /// Looks at the folder, and is lost if it is not what was opened.
    pub(crate) fn check_presence(&self) -> Result<(), StoreError> {
        self.condition.check_present()?;
        match self.differs() {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(self.condition.lose(why)),
            Err(errno @ (Errno::NOENT | Errno::NOTDIR | Errno::STALE)) => {
                Err(self.condition.lose(format!("folder: {errno}")))
            }
            // Too many open files, or an error that calls will meet as well.
            Err(_) => Ok(()),
        }
    }

    fn differs(&self) -> Result<Option<&'static str>, Errno> {
        let opened = rustix::fs::fstat(&self.folder)?;
        if !same(&rustix::fs::stat(&self.path)?, &opened) {
            return Ok(Some("another folder is at its path"));
        }
        let shards = rustix::fs::statat(&self.folder, SHARDS, AtFlags::SYMLINK_NOFOLLOW);
        let opened = rustix::fs::fstat(&self.folders.shards)?;
        match shards {
            Ok(shards) if same(&shards, &opened) => {}
            Ok(_) | Err(Errno::NOENT) => return Ok(Some("its shards folder is gone")),
            Err(errno) => return Err(errno),
        }
        let identity = match files::open_file_at(&self.folder, IDENTITY) {
            Ok(identity) => files::read_whole(&identity, 4096)?,
            Err(Errno::NOENT) => return Ok(Some("its identity is gone")),
            Err(errno) => return Err(errno),
        };
        if identity != self.identity_record {
            return Ok(Some("its identity is another"));
        }
        Ok(None)
    }

    /// The life of the watching thread.
    pub(crate) fn watch(self: &Arc<Self>) {
        let mut saved = Instant::now();
        while !self.lanes.is_closing() {
            let _ = self.check_presence();
            let _ = self.space.measure(&self.condition);
            self.handles.end_idle(self.options.handle_idle);
            if saved.elapsed() >= self.options.save_told_every {
                // A failure fences the disk, which is said there.
                let _ = self.rules.save_told(&self.condition);
                saved = Instant::now();
            }
            let next = Instant::now() + self.options.check_every;
            while Instant::now() < next && !self.lanes.is_closing() {
                std::thread::sleep(NOTICE.min(self.options.check_every));
            }
        }
    }
}

//! The folders of shards: made durable before use, synced once for many.
//!
//! Invariant: a [`Folder`] that [`Folders::get`] gives has its own entry, and
//! its group's, durable on the disk. A ticket names the changes of a folder
//! up to a moment; one fsync serves every ticket that was taken before it.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use shardgate_wire::StoreError;
use shardgate_wire::ids::GroupId;

use crate::condition::{Condition, Doing};
use crate::files;
use crate::names::FolderName;

/// Folders that are kept open.
const MOST_OPEN: usize = 64;
/// Folders whose absence is remembered.
const MOST_ABSENT: usize = 1024;
/// An empty folder that was used since then is kept: the next shard comes.
const KEEP_EMPTY: Duration = Duration::from_secs(20 * 60);

/// How far a folder's changes are durable.
#[derive(Debug, Default)]
struct Synced {
    upto: u64,
    /// A sync failed. The system says so once: the next would come back as if
    /// all were well, with changes that nobody has made durable.
    failed: bool,
}

/// One folder of shards, open.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) fd: OwnedFd,
    changes: AtomicU64,
    synced: Mutex<Synced>,
    used: Mutex<Instant>,
}

impl Folder {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            // What came before this process may not be durable.
            changes: AtomicU64::new(1),
            synced: Mutex::default(),
            used: Mutex::new(Instant::now()),
        }
    }

    /// The ticket of a change that was made before this call.
    pub(crate) fn changed(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The ticket of every change up to now.
    pub(crate) fn ticket(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Makes the changes up to `ticket` durable, unless they are. A failure
    /// fences the disk before anybody who waited goes on, and is never tried
    /// again.
    pub(crate) fn sync(&self, condition: &Condition, ticket: u64) -> Result<(), StoreError> {
        self.sync_by(condition, ticket, || rustix::fs::fsync(&self.fd))
    }

    fn sync_by(
        &self,
        condition: &Condition,
        ticket: u64,
        fsync: impl FnOnce() -> Result<(), Errno>,
    ) -> Result<(), StoreError> {
        let mut synced = self.synced.lock();
        if synced.upto < ticket {
            if synced.failed {
                return Err(condition.fence("sync folder: it failed before".into()));
            }
            let upto = self.ticket();
            if let Err(errno) = fsync() {
                synced.failed = true;
                return Err(condition.refused(Doing::Syncing, "sync folder", errno));
            }
            synced.upto = upto;
        }
        // The same folder may be open twice, and the other one have failed.
        condition.check_writable()
    }
}

#[derive(Debug, Default)]
struct Known {
    open: HashMap<FolderName, Arc<Folder>>,
    /// Groups whose folder is durable.
    groups: HashSet<GroupId>,
    /// Folders that are not there, of late.
    absent: HashSet<FolderName>,
}

/// All folders of one disk.
#[derive(Debug)]
pub(crate) struct Folders {
    pub(crate) shards: OwnedFd,
    known: Mutex<Known>,
}

impl Folders {
    pub(crate) fn new(shards: OwnedFd) -> Self {
        Self {
            shards,
            known: Mutex::new(Known::default()),
        }
    }

    /// The folder, made if there is none.
    pub(crate) fn get(
        &self,
        condition: &Condition,
        name: FolderName,
    ) -> Result<Arc<Folder>, StoreError> {
        // Held while folders are made and synced: a few times an hour.
        let mut known = self.known.lock();
        known.absent.remove(&name);
        if let Some(folder) = known.open.get(&name) {
            *folder.used.lock() = Instant::now();
            return Ok(Arc::clone(folder));
        }
        let group = self.make(condition, &self.shards, &name.group_name(), || {
            known.groups.contains(&name.group)
        })?;
        known.groups.insert(name.group);
        let fd = match self.make(condition, &group, &name.prefix_name(), || false) {
            // The group's folder was removed behind our back.
            Err(StoreError::NotFound) => {
                known.groups.remove(&name.group);
                return Err(condition.refused(Doing::Writing, "make folder", Errno::NOENT));
            }
            made => made?,
        };
        let folder = Arc::new(Folder::new(fd));
        make_room(&mut known);
        known.open.insert(name, Arc::clone(&folder));
        Ok(folder)
    }

    /// Whether a folder may be there: false only if nobody made it. Small
    /// shards have no files, so most of their folders never exist, and a look
    /// for each file is saved.
    pub(crate) fn may_be(&self, name: FolderName) -> bool {
        let mut known = self.known.lock();
        if known.absent.contains(&name) {
            return false;
        }
        if known.open.contains_key(&name)
            || files::exists_at(&self.shards, &name.path()) != Ok(false)
        {
            return true;
        }
        if known.absent.len() >= MOST_ABSENT {
            known.absent.clear();
        }
        known.absent.insert(name);
        false
    }

    /// Makes and opens one folder, its entry durable. `NotFound` if its
    /// parent is gone.
    fn make(
        &self,
        condition: &Condition,
        parent: &OwnedFd,
        name: &str,
        durable: impl FnOnce() -> bool,
    ) -> Result<OwnedFd, StoreError> {
        let refused = |errno| match errno {
            Errno::NOENT => StoreError::NotFound,
            errno => condition.refused(Doing::Writing, "make folder", errno),
        };
        let made = match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(refused(errno)),
        };
        if made || !durable() {
            rustix::fs::fsync(parent)
                .map_err(|errno| condition.refused(Doing::Syncing, "sync folder", errno))?;
        }
        files::open_folder_at(parent, name).map_err(refused)
    }

    /// The folder if it is there.
    pub(crate) fn find(
        &self,
        condition: &Condition,
        name: FolderName,
    ) -> Result<Option<Arc<Folder>>, StoreError> {
        if let Some(folder) = self.known.lock().open.get(&name) {
            return Ok(Some(Arc::clone(folder)));
        }
        match files::open_folder_at(&self.shards, &name.path()) {
            Ok(fd) => Ok(Some(Arc::new(Folder::new(fd)))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(condition.refused(Doing::Reading, "open folder", errno)),
        }
    }

    /// Forgets an open folder that turned out to be gone.
    pub(crate) fn forget(&self, name: FolderName) {
        let mut known = self.known.lock();
        known.open.remove(&name);
        known.groups.remove(&name.group);
    }

    /// Removes the folder if it is empty and not of use any more.
    pub(crate) fn remove_if_empty(&self, name: FolderName) {
        let mut known = self.known.lock();
        if let Some(folder) = known.open.get(&name) {
            if folder.used.lock().elapsed() < KEEP_EMPTY || Arc::strong_count(folder) > 1 {
                return;
            }
            known.open.remove(&name);
        }
        // Refused while it holds anything; then nothing has changed.
        let _ = rustix::fs::unlinkat(&self.shards, name.path(), AtFlags::REMOVEDIR);
    }
}

fn make_room(known: &mut Known) {
    while known.open.len() >= MOST_OPEN {
        let oldest = known
            .open
            .iter()
            .min_by_key(|(_, folder)| *folder.used.lock());
        let Some(name) = oldest.map(|(name, _)| *name) else {
            return;
        };
        known.open.remove(&name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use shardgate_wire::ids::DiskId;

    use super::*;

    #[test]
    fn whoever_waited_for_a_sync_that_failed_fails_too() {
        let dir = tempfile::tempdir().expect("make a folder");
        let folder = Folder::new(files::open_folder(dir.path()).expect("open it"));
        let condition = Condition::good(DiskId(1));
        let first = folder.changed();
        let (syncing, begun) = channel();
        let (going, fail) = channel();
        let (folder, condition) = (&folder, &condition);
        std::thread::scope(|scope| {
            let failing = scope.spawn(move || {
                folder.sync_by(condition, first, || {
                    syncing.send(()).expect("somebody waits");
                    fail.recv().expect("told to fail");
                    Err(Errno::IO)
                })
            });
            begun.recv().expect("the first syncs");
            let second = folder.changed();
            // The system has said it once: the next sync comes back well.
            let waiting = scope.spawn(move || folder.sync_by(condition, second, || Ok(())));
            going.send(()).expect("the first waits");
            let fenced =
                |answer: &Result<(), StoreError>| matches!(answer, Err(StoreError::Fenced { .. }));
            for answer in [failing.join(), waiting.join()] {
                let answer = answer.expect("no panic");
                assert!(fenced(&answer), "{answer:?}");
            }
            let third = folder.sync_by(condition, folder.changed(), || Ok(()));
            assert!(fenced(&third), "{third:?}");
        });
    }
}

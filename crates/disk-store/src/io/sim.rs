//! A disk in memory that loses, tears, reorders and fails; for tests.
//!
//! Deterministic by its seeds. What was synced is kept; of everything else a
//! loss of power ([`SimDisk::power_loss`]) keeps what the seed says: of each
//! sector of 512 bytes, of each file's length and of each name, any version
//! since the last sync, independent of all others. Space that was taken and
//! never synced may show what removed files left there. Only a rename is one
//! change, as in every file system with a journal: one of its two names is
//! there.
//!
//! Faults are set from outside and say what they hit ([`Faults`]). Handles
//! and folders of before a loss or a restart fail from then on, as those of a
//! process that is gone.

mod content;
mod names;
mod random;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::{DirEntry, DiskFile, DiskIo, OpenHow, SpaceOf};
use names::Id;
use state::{Change, State};

/// What goes wrong from now on. Numbers count from 1, the next; none is never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The sync, of a file or folder, that fails with `EIO`. As on Linux, a
    /// file's dirty pages are dropped: reads still show them, the device does
    /// not have them, and later syncs succeed.
    pub fail_sync: Option<u64>,
    /// The write that fails with `EIO`, part of it done.
    pub fail_write: Option<u64>,
    /// The change of any kind at which the power goes: it may be done or not,
    /// and everything after it fails, until [`SimDisk::power_loss`].
    pub power_off: Option<u64>,
    /// Bytes that files may take; more is `ENOSPC`.
    pub capacity: Option<u64>,
    /// Changes are refused with `EROFS`.
    pub read_only: bool,
    /// Files whose reads fail with `EIO`.
    pub unreadable: Vec<PathBuf>,
}

/// What the disk itself leaves out, unseen: for showing that a test notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sabotage {
    /// Syncs of files do nothing.
    pub file_sync: bool,
    /// Syncs of folders do nothing.
    pub folder_sync: bool,
    /// Space is taken without zeroes: it shows what removed files left there.
    pub zeroing: bool,
}

/// Calls that the disk has served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Counters {
    pub opens: u64,
    pub creates: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
    pub file_syncs: u64,
    pub folder_syncs: u64,
    pub removes: u64,
    pub renames: u64,
    pub allocations: u64,
    pub punches: u64,
    pub cuts: u64,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk; `seed` decides what faults do.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(seed))),
        }
    }

    /// The disk as a process sees it that starts now.
    pub fn io(&self) -> Arc<dyn DiskIo> {
        let boot = self.state.lock().boot;
        Arc::new(SimIo {
            state: Arc::clone(&self.state),
            boot,
        })
    }

    /// The power goes and comes back.
    pub fn power_loss(&self, seed: u64) {
        self.state.lock().power_loss(seed);
    }

    /// The process goes; the page cache stays.
    pub fn restart(&self) {
        self.state.lock().restart();
    }

    /// Whether the power went at the change that [`Faults::power_off`] named.
    pub fn is_off(&self) -> bool {
        self.state.lock().off
    }

    /// The page cache gives up what is clean, as it may at any time.
    pub fn drop_cache(&self) {
        self.state.lock().drop_cache();
    }

    /// Sets what goes wrong; counting begins anew.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Sets what the disk leaves out.
    pub fn set_sabotage(&self, sabotage: Sabotage) {
        self.state.lock().sabotage = sabotage;
    }

    /// Whether space that was taken and never synced may show what removed
    /// files left there, which is so at first; otherwise zeroes, as file
    /// systems that order data before metadata show.
    pub fn set_old_bytes(&self, show: bool) {
        self.state.lock().old_bytes = show;
    }

    /// Calls so far.
    pub fn counters(&self) -> Counters {
        self.state.lock().counters
    }

    /// All files with their lengths, by path.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        self.state.lock().files()
    }

    /// Turns one bit of a file around, cached and on the device.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let mut state = self.state.lock();
        let content = state.file_named(path).expect("a file to damage");
        content.damage(offset, |byte| *byte ^= 1 << (bit % 8));
    }

    /// Cuts or extends a file, durably, behind everyone's back.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn cut(&self, path: &Path, len: u64) {
        let mut state = self.state.lock();
        let content = state.file_named(path).expect("a file to cut");
        content.set_len(len);
        content.sync();
    }

    /// The bytes of a file as reads see them.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let mut state = self.state.lock();
        let content = state.file_named(path).ok()?;
        let mut bytes = vec![0; usize::try_from(content.len()).expect("short")];
        content.read(&mut bytes, 0);
        Some(bytes)
    }
}

#[derive(Debug)]
struct SimIo {
    state: Arc<Mutex<State>>,
    boot: u64,
}

impl DiskIo for SimIo {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let create = how == OpenHow::CreateNew;
        let opened = if create {
            state.change(self.boot, Change::Other, |state| state.create(path))
        } else {
            state.check(self.boot).and_then(|()| state.open(path, how))
        };
        Ok(Arc::new(SimFile {
            state: Arc::clone(&self.state),
            boot: self.boot,
            id: opened?,
            writes: how != OpenHow::Read,
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let made = state.change(self.boot, Change::Other, |state| state.create_dir(path));
        Ok(made?)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        state.check(self.boot)?;
        Ok(state.read_dir(path)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let removed = state.change(self.boot, Change::Other, |state| state.remove(path));
        Ok(removed?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let renamed = state.change(self.boot, Change::Other, |state| state.rename(from, to));
        Ok(renamed?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let synced = state.change(self.boot, Change::Sync, |state| state.sync_folder(path));
        Ok(synced?)
    }

    fn space(&self) -> io::Result<SpaceOf> {
        let state = self.state.lock();
        state.check(self.boot)?;
        Ok(state.space())
    }
}

#[derive(Debug)]
struct SimFile {
    state: Arc<Mutex<State>>,
    boot: u64,
    id: Id,
    writes: bool,
}

impl SimFile {
    fn change<T>(
        &self,
        kind: Change,
        run: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> io::Result<T> {
        if !self.writes {
            return Err(Errno::BADF.into());
        }
        Ok(self.state.lock().change(self.boot, kind, run)?)
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.check(self.boot)?;
        Ok(state.read(self.id, buf, offset, false)?)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        let write = |state: &mut State| state.write(self.id, offset, &bytes);
        self.change(Change::Write, write)
    }

    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        state.check(self.boot)?;
        Ok(state.read(self.id, buf, offset, true)?)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.allocate_zeroed(offset, len)
    }

    fn allocate_zeroed(&self, offset: u64, len: u64) -> io::Result<()> {
        let allocate = |state: &mut State| state.allocate(self.id, offset, len);
        self.change(Change::Other, allocate)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(Change::Other, |state| state.punch(self.id, offset, len))
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.check(self.boot)?;
        Ok(state.content(self.id).len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Other, |state| state.set_len(self.id, len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let synced = state.change(self.boot, Change::Sync, |state| state.sync_file(self.id));
        drop(state);
        // What others write before this returns is not covered by it.
        std::thread::yield_now();
        Ok(synced?)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn names(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.check(self.boot)?;
        Ok(state.names_of(self.id))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.state.lock().closed(self.boot, self.id);
    }
}

//! A model of a disk with a moving head, over any [`DiskIo`].
//!
//! Counts what the head would do: a seek for each access that does not begin
//! where the last one ended, a flush for each sync that has something to make
//! durable. Writes wait until their sync and then go by whole pages, in the
//! order of their place; a page that is written again counts as a seek, for
//! the platter must come round. Reads find nothing in memory but what was
//! read just before, or would be read ahead. A file lies in one run; names,
//! lengths and new space go to a journal in a place of its own, and to look
//! a file up by its name is a seek.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::io::IoSlice;
use std::ops::Sub;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::{DirEntry, DiskFile, DiskIo, OpenHow, SpaceOf};

/// One access that does not go on where the last one ended.
const SEEK: Duration = Duration::from_millis(10);
/// Waiting until all that was written is on the platter.
const FLUSH: Duration = Duration::from_millis(12);
/// What is written at once.
const PAGE: u64 = 4096;
/// What a kernel reads ahead of a reader who goes forward.
const AHEAD: u64 = 128 * 1024;
/// Room between the files, and for the journal before the first.
const APART: u64 = 1 << 44;

/// What the head has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Motion {
    /// Accesses that did not begin where the last one ended.
    pub seeks: u64,
    /// Of these, files that were looked up by name.
    pub lookups: u64,
    /// Times that a sync waited for the platter.
    pub flushes: u64,
    /// Calls that read bytes of files.
    pub reads: u64,
    /// Bytes that they read.
    pub read_bytes: u64,
    /// Bytes written to files.
    pub written_bytes: u64,
}

impl Motion {
    /// Time for seeks and flushes; what passes beneath the head comes on top.
    pub fn time(&self) -> Duration {
        let times = |each: Duration, count: u64| {
            each.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX))
        };
        times(SEEK, self.seeks) + times(FLUSH, self.flushes)
    }
}

impl Sub for Motion {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            seeks: self.seeks - before.seeks,
            lookups: self.lookups - before.lookups,
            flushes: self.flushes - before.flushes,
            reads: self.reads - before.reads,
            read_bytes: self.read_bytes - before.read_bytes,
            written_bytes: self.written_bytes - before.written_bytes,
        }
    }
}

/// What waits for a file's sync.
#[derive(Debug, Default)]
struct Waiting {
    /// Beginnings and ends of what was written.
    written: Vec<(u64, u64)>,
    /// Length or space changed.
    metadata: bool,
    /// End of the space that was taken.
    taken: u64,
}

#[derive(Debug, Default)]
struct Head {
    at: u64,
    motion: Motion,
    journal_end: u64,
    next: u64,
    places: BTreeMap<PathBuf, u64>,
    waiting: BTreeMap<u64, Waiting>,
    /// Folders whose names changed.
    names: BTreeSet<PathBuf>,
}

impl Head {
    /// Goes to `from`, which goes on behind the last access if it is `near`.
    fn go(&mut self, from: u64, len: u64, near: bool) {
        if !near {
            self.motion.seeks += 1;
        }
        self.at = (from + len).next_multiple_of(PAGE);
    }

    /// A page that was just read is in memory, and so is what comes soon.
    fn read(&mut self, from: u64, len: u64) {
        let near = (self.at.saturating_sub(PAGE)..=self.at + AHEAD).contains(&from);
        self.go(from, len, near);
    }

    /// Pages are written whole: one that was written a moment ago has passed.
    fn write(&mut self, from: u64, len: u64) {
        self.go(from, len, from / PAGE * PAGE == self.at);
    }

    fn write_journal(&mut self) {
        self.write(self.journal_end, PAGE);
        self.journal_end += PAGE;
    }

    /// Where a file lies; its place stays when it is opened again.
    fn place(&mut self, path: &Path, new: bool) -> u64 {
        if new {
            self.places.remove(path);
        }
        let next = &mut self.next;
        let place = self.places.entry(path.to_owned()).or_insert_with(|| {
            *next += APART;
            *next
        });
        *place
    }

    fn changed_name(&mut self, path: &Path) {
        let folder = path.parent().unwrap_or(Path::new(""));
        self.names.insert(folder.to_owned());
    }

    fn wrote(&mut self, file: u64, offset: u64, len: u64, takes: bool) {
        let waiting = self.waiting.entry(file).or_default();
        let end = offset + len;
        waiting.written.push((offset, end));
        waiting.metadata |= takes || end > waiting.taken;
        waiting.taken = waiting.taken.max(end);
        self.motion.written_bytes += len;
    }

    fn sync(&mut self, file: u64, all: bool) {
        let waiting = self.waiting.entry(file).or_default();
        let mut written = std::mem::take(&mut waiting.written);
        let metadata = std::mem::take(&mut waiting.metadata);
        if written.is_empty() && !metadata && !all {
            return;
        }
        written.sort_unstable();
        let mut run: Option<(u64, u64)> = None;
        for (from, to) in written {
            // What shares a page, or touches, is one run.
            run = match run {
                Some((start, end)) if from <= end.next_multiple_of(PAGE) => {
                    Some((start, end.max(to)))
                }
                Some((start, end)) => {
                    self.write(file + start, end - start);
                    Some((from, to))
                }
                None => Some((from, to)),
            };
        }
        if let Some((start, end)) = run {
            self.write(file + start, end - start);
        }
        if metadata {
            self.write_journal();
        }
        self.motion.flushes += 1;
    }
}

/// A rotating disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct RotatingDisk {
    inner: Arc<dyn DiskIo>,
    head: Arc<Mutex<Head>>,
}

impl RotatingDisk {
    /// Counts what is done to `inner`.
    pub fn new(inner: Arc<dyn DiskIo>) -> Self {
        Self {
            inner,
            head: Arc::default(),
        }
    }

    /// The disk for a store.
    pub fn io(&self) -> Arc<dyn DiskIo> {
        Arc::new(self.clone())
    }

    /// What the head has done so far.
    pub fn motion(&self) -> Motion {
        self.head.lock().motion
    }
}

impl DiskIo for RotatingDisk {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.inner.open(path, how)?;
        let mut head = self.head.lock();
        let new = how == OpenHow::CreateNew;
        let place = head.place(path, new);
        if new {
            head.changed_name(path);
        } else {
            // The inode, near the file and not beside its bytes.
            head.read(place + APART / 2, PAGE);
            head.motion.lookups += 1;
        }
        head.waiting.entry(place).or_default().taken = file.len()?;
        Ok(Arc::new(RotatingFile {
            inner: file,
            head: Arc::clone(&self.head),
            place,
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)?;
        self.head.lock().changed_name(path);
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut head = self.head.lock();
        let place = head.place(&path.join("."), false);
        head.read(place, PAGE);
        self.inner.read_dir(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)?;
        self.head.lock().changed_name(path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)?;
        let mut head = self.head.lock();
        head.changed_name(from);
        head.changed_name(to);
        if let Some(place) = head.places.remove(from) {
            head.places.insert(to.to_owned(), place);
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)?;
        let mut head = self.head.lock();
        if head.names.remove(path) {
            head.write_journal();
            head.motion.flushes += 1;
        }
        Ok(())
    }

    fn space(&self) -> io::Result<SpaceOf> {
        self.inner.space()
    }
}

#[derive(Debug)]
struct RotatingFile {
    inner: Arc<dyn DiskFile>,
    head: Arc<Mutex<Head>>,
    place: u64,
}

impl RotatingFile {
    fn has_read(&self, offset: u64, len: usize) {
        if len > 0 {
            let mut head = self.head.lock();
            head.read(self.place + offset, len as u64);
            head.motion.reads += 1;
            head.motion.read_bytes += len as u64;
        }
    }

    fn changes_metadata(&self) {
        let mut head = self.head.lock();
        head.waiting.entry(self.place).or_default().metadata = true;
    }
}

impl DiskFile for RotatingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = self.inner.read_at(buf, offset)?;
        self.has_read(offset, len);
        Ok(len)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.inner.write_at(bufs, offset)?;
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut head = self.head.lock();
        head.wrote(self.place, offset, len as u64, false);
        Ok(())
    }

    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let len = self.inner.read_past_cache(buf, offset)?;
        self.has_read(offset, len);
        Ok(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.allocate(offset, len)?;
        self.changes_metadata();
        Ok(())
    }

    fn allocate_zeroed(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.allocate_zeroed(offset, len)?;
        self.head.lock().wrote(self.place, offset, len, true);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.punch(offset, len)?;
        self.changes_metadata();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)?;
        self.changes_metadata();
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()?;
        self.head.lock().sync(self.place, false);
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()?;
        self.head.lock().sync(self.place, true);
        Ok(())
    }

    fn names(&self) -> io::Result<u64> {
        self.inner.names()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimDisk;
    use super::*;

    fn count(disk: &RotatingDisk, run: impl FnOnce()) -> (u64, u64) {
        let before = disk.motion();
        run();
        let moved = disk.motion() - before;
        (moved.seeks, moved.flushes)
    }

    #[test]
    fn conforms() {
        let disk = RotatingDisk::new(SimDisk::new(1).io());
        super::super::conforms::run(&*disk.io());
    }

    #[test]
    fn counts_seeks_and_flushes() {
        let disk = RotatingDisk::new(SimDisk::new(1).io());
        let io = disk.io();
        let path = Path::new("file");
        let write = |file: &dyn DiskFile, offset, len: usize| {
            let bytes = vec![1; len];
            file.write_at(&[IoSlice::new(&bytes)], offset).unwrap();
        };
        let file = io.open(path, OpenHow::CreateNew).unwrap();
        // Zeroes, and the journal: two places, one wait. Then the name.
        let made = count(&disk, || {
            file.allocate_zeroed(0, 1 << 20).unwrap();
            file.sync_data().unwrap();
        });
        assert_eq!(made, (2, 1));
        // The journal goes on where it ended.
        let named = count(&disk, || io.sync_dir(Path::new("")).unwrap());
        assert_eq!(named, (0, 1));
        let again = count(&disk, || io.sync_dir(Path::new("")).unwrap());
        assert_eq!(again, (0, 0));
        // One run, written in two parts and out of order.
        let run = count(&disk, || {
            write(&*file, 4096, 4096);
            write(&*file, 0, 4096);
            file.sync_data().unwrap();
        });
        assert_eq!(run, (1, 1));
        // It goes on where it ended: no seek.
        let on = count(&disk, || {
            write(&*file, 8192, 100);
            file.sync_data().unwrap();
            file.sync_data().unwrap();
        });
        assert_eq!(on, (0, 1));
        let two = count(&disk, || {
            write(&*file, 0, 100);
            write(&*file, 500_000, 100);
            file.sync_data().unwrap();
        });
        assert_eq!(two, (2, 1));
        let read = count(&disk, || {
            file.read_at(&mut [0; 100], 4096).unwrap();
            file.read_at(&mut [0; 100], 4196).unwrap();
        });
        assert_eq!(read, (1, 0));
        let moved = disk.motion();
        assert_eq!((moved.reads, moved.read_bytes), (2, 200));
        let millis = moved.seeks * 10 + moved.flushes * 12;
        assert_eq!(moved.time(), Duration::from_millis(millis));
    }
}

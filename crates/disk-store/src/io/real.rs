//! The file system of the machine.
//!
//! Everything is opened below the descriptor of the disk's folder, so that a
//! folder that is moved or mounted over is never mistaken for this one. A
//! file that is written or read past the page cache has a second descriptor
//! for that: the flag belongs to the descriptor, and other threads use the
//! first one at the same time.

use std::ffi::OsStr;
use std::io;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Advice, AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{DirEntry, DiskFile, DiskIo, OpenHow, SpaceOf};
use crate::aligned::AlignedBuffer;
use crate::format::PAGE;

/// Zeroes that are written at once.
const ZEROES: usize = 1024 * 1024;
/// Parts that one system call takes (`IOV_MAX` of Linux).
const MOST_PARTS: usize = 1024;
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Whether the file system lets bytes past the page cache, and from which
/// length on that pays.
#[derive(Debug)]
struct PastCache {
    from: usize,
    refused: AtomicBool,
}

impl PastCache {
    fn allowed(&self) -> bool {
        !self.refused.load(Ordering::Relaxed)
    }
}

/// A folder of the machine's file system.
#[derive(Debug)]
pub struct RealIo {
    folder: OwnedFd,
    past_cache: Arc<PastCache>,
}

impl RealIo {
    /// The folder that `folder` is open on. Aligned writes of at least
    /// `direct_from` bytes go past the page cache.
    pub fn new(folder: OwnedFd, direct_from: usize) -> Self {
        Self {
            folder,
            past_cache: Arc::new(PastCache {
                from: direct_from,
                refused: AtomicBool::new(false),
            }),
        }
    }

    /// Opens the folder at `path`.
    pub fn open_folder(path: &Path, direct_from: usize) -> io::Result<Self> {
        Ok(Self::new(crate::files::open_folder(path)?, direct_from))
    }

    fn folder_at(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.folder, or_here(path), flags, Mode::empty())
    }
}

/// Makes the names in a folder durable. Without another open file all of the
/// file system is synced: a name that may not be durable would fence the disk.
fn sync_opened(
    folder: Result<OwnedFd, Errno>,
    whole: impl FnOnce() -> Result<(), Errno>,
) -> Result<(), Errno> {
    match folder {
        Ok(folder) => rustix::fs::fsync(folder),
        Err(Errno::MFILE | Errno::NFILE) => whole(),
        Err(errno) => Err(errno),
    }
}

/// The system has no empty path.
fn or_here(path: &Path) -> &Path {
    if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    }
}

impl DiskIo for RealIo {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        let always = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let flags = match how {
            OpenHow::Read => OFlags::RDONLY | OFlags::NOATIME,
            OpenHow::ReadWrite => OFlags::RDWR | OFlags::NOATIME,
            OpenHow::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        } | always;
        let opened = match rustix::fs::openat(&self.folder, path, flags, FILE_MODE) {
            // Only the owner of a file may ask for that.
            Err(Errno::PERM) if how != OpenHow::CreateNew => {
                rustix::fs::openat(&self.folder, path, flags - OFlags::NOATIME, FILE_MODE)
            }
            opened => opened,
        };
        Ok(Arc::new(RealFile {
            file: opened?,
            writes: how != OpenHow::Read,
            direct: OnceLock::new(),
            past_cache: Arc::clone(&self.past_cache),
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(&self.folder, path, Mode::RWXU)?)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let folder = self.folder_at(path)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                // Removed since.
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            entries.push(DirEntry {
                name: name.to_owned(),
                is_dir: FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                len: u64::try_from(stat.st_size).unwrap_or(0),
            });
        }
        Ok(entries)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.folder, path, AtFlags::empty()) {
            Err(Errno::ISDIR) => {
                rustix::fs::unlinkat(&self.folder, path, AtFlags::REMOVEDIR)?;
            }
            removed => removed?,
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.folder, from, &self.folder, to)?)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let whole = || rustix::fs::syncfs(&self.folder);
        Ok(sync_opened(self.folder_at(path), whole)?)
    }

    fn space(&self) -> io::Result<SpaceOf> {
        let stat = rustix::fs::fstatvfs(&self.folder)?;
        let counts_files = stat.f_files > 0;
        Ok(SpaceOf {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            files: if counts_files {
                stat.f_favail
            } else {
                u64::MAX
            },
        })
    }
}

#[derive(Debug)]
struct RealFile {
    file: OwnedFd,
    writes: bool,
    /// The same file past the page cache; `None` where that is refused.
    direct: OnceLock<Option<OwnedFd>>,
    past_cache: Arc<PastCache>,
}

impl RealFile {
    fn direct(&self) -> Option<&OwnedFd> {
        if !self.past_cache.allowed() {
            return None;
        }
        let open = || {
            let access = if self.writes {
                OFlags::RDWR
            } else {
                OFlags::RDONLY
            };
            // By descriptor: the name may be gone, or another file's.
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let flags = access | OFlags::DIRECT | OFlags::CLOEXEC;
            match rustix::fs::open(path, flags, Mode::empty()) {
                Err(errno) if refuses_direct(errno) => {
                    self.past_cache.refused.store(true, Ordering::Relaxed);
                    None
                }
                opened => opened.ok(),
            }
        };
        self.direct.get_or_init(open).as_ref()
    }

    /// Bytes that went past the page cache; the rest is for the cache.
    fn write_direct(&self, bufs: &[IoSlice<'_>], offset: u64) -> Result<usize, Errno> {
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let aligned = |buf: &IoSlice<'_>| {
            buf.as_ptr().addr().is_multiple_of(PAGE) && buf.len().is_multiple_of(PAGE)
        };
        let suits = len >= self.past_cache.from.max(PAGE)
            && offset.is_multiple_of(PAGE as u64)
            && bufs.len() <= MOST_PARTS
            && bufs.iter().all(aligned);
        let Some(file) = suits.then(|| self.direct()).flatten() else {
            return Ok(0);
        };
        loop {
            match rustix::io::pwritev(file, bufs, offset) {
                Err(Errno::INTR) => {}
                Err(errno) if refuses_direct(errno) => {
                    self.past_cache.refused.store(true, Ordering::Relaxed);
                    return Ok(0);
                }
                written => return written,
            }
        }
    }

    fn write_cached(&self, bufs: &mut [IoSlice<'_>], offset: u64) -> Result<(), Errno> {
        let mut rest = bufs;
        let mut at = offset;
        // Leading empty parts would look like a write of nothing.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let parts = &rest[..rest.len().min(MOST_PARTS)];
            match rustix::io::pwritev(&self.file, parts, at) {
                // The kernel never does this for a regular file; not to spin.
                Ok(0) => return Err(Errno::IO),
                Ok(written) => {
                    at += written as u64;
                    IoSlice::advance_slices(&mut rest, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn refuses_direct(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::OPNOTSUPP)
}

/// Reads until `buf` is full or the file ends: at nothing, or at a count that
/// is no multiple of `unit`.
fn read_full(file: &OwnedFd, buf: &mut [u8], offset: u64, unit: usize) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        match rustix::io::pread(file, &mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(read) => {
                done += read;
                if !read.is_multiple_of(unit) {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

impl DiskFile for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(read_full(&self.file, buf, offset, 1)?)
    }

    fn read_scattered(&self) {
        // Advice: where it is not taken, more is read than is needed.
        let _ = rustix::fs::fadvise(&self.file, 0, None, Advice::Random);
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let done = self.write_direct(bufs, offset)?;
        let mut parts = bufs.to_vec();
        let mut rest = &mut parts[..];
        IoSlice::advance_slices(&mut rest, done);
        self.write_cached(rest, offset + done as u64)?;
        Ok(())
    }

    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let Some(file) = self.direct() else {
            // Clean pages are dropped, and those of a failed sync are clean.
            crate::files::drop_from_cache(&self.file, offset, buf.len());
            let read = self.read_at(buf, offset);
            crate::files::drop_from_cache(&self.file, offset, buf.len());
            return read;
        };
        let skip = usize::try_from(offset % PAGE as u64).expect("less than a page");
        let mut aligned = AlignedBuffer::default();
        let pages = aligned.take((skip + buf.len()).next_multiple_of(PAGE));
        let len = read_full(file, pages, offset - skip as u64, PAGE)?;
        let len = len.saturating_sub(skip).min(buf.len());
        buf[..len].copy_from_slice(&pages[skip..skip + len]);
        Ok(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        // The file system keeps what was never written apart from what was,
        // and shows zeroes; where it cannot take space, none is taken.
        Ok(crate::files::preallocate(&self.file, offset, len)?)
    }

    fn allocate_zeroed(&self, offset: u64, len: u64) -> io::Result<()> {
        crate::files::preallocate(&self.file, offset, len)?;
        let mut aligned = AlignedBuffer::default();
        let zeroes = aligned.fill(&[], ZEROES.min(usize::try_from(len).unwrap_or(ZEROES)));
        let end = offset + len;
        let mut at = offset;
        while at < end {
            // Up to a multiple of the step first, so that the rest is aligned.
            let next = (at + 1).next_multiple_of(ZEROES as u64).min(end);
            let step = usize::try_from(next - at).expect("at most ZEROES");
            let step = step.min(zeroes.len());
            self.write_at(&[IoSlice::new(&zeroes[..step])], at)?;
            at += step as u64;
        }
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        Ok(crate::files::punch(&self.file, offset, len)?)
    }

    fn len(&self) -> io::Result<u64> {
        let len = rustix::fs::fstat(&self.file)?.st_size;
        Ok(u64::try_from(len).unwrap_or(0))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Ok(rustix::fs::ftruncate(&self.file, len)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.file)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.file)?)
    }

    #[allow(clippy::useless_conversion)] // 32 bits on some machines
    fn names(&self) -> io::Result<u64> {
        Ok(u64::from(rustix::fs::fstat(&self.file)?.st_nlink))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        let folder = tempfile::tempdir().unwrap();
        let io = RealIo::open_folder(folder.path(), 256 * 1024).unwrap();
        super::super::conforms::run(&io);
    }

    #[test]
    fn without_open_files_the_whole_file_system_answers_for_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let opened = || Ok(crate::files::open_folder(dir.path()).unwrap());
        let synced = |folder, whole| {
            let mut asked = false;
            let answer = sync_opened(folder, || {
                asked = true;
                whole
            });
            (answer, asked)
        };
        for errno in [Errno::MFILE, Errno::NFILE] {
            assert_eq!(synced(Err(errno), Ok(())), (Ok(()), true));
            assert_eq!(synced(Err(errno), Err(Errno::IO)), (Err(Errno::IO), true));
        }
        assert_eq!(synced(opened(), Err(Errno::IO)), (Ok(()), false));
        let gone = (Err(Errno::NOENT), false);
        assert_eq!(synced(Err(Errno::NOENT), Ok(())), gone);
    }

    #[test]
    fn links_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("link")).unwrap();
        let io = RealIo::open_folder(folder.path(), 256 * 1024).unwrap();
        assert!(io.open(Path::new("link"), OpenHow::Read).is_err());
        assert!(io.read_dir(Path::new("link")).is_err());
    }
}

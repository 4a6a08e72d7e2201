//! The seam between the store and the file system.
//!
//! Owns the words: one folder ([`DiskIo`]) and the files in it ([`DiskFile`]).
//! [`RealIo`] is the file system of the machine. With the feature `testing`,
//! `sim` is one in memory that loses what was not synced, and `rotating`
//! counts what a disk with a moving head would have to do.
//!
//! What is durable: bytes of a file after [`DiskFile::sync_data`] or
//! [`DiskFile::sync_all`] on any handle of it; its length too; its name only
//! after [`DiskIo::sync_dir`] of the folder that holds the name. Errors carry
//! the system's number (`raw_os_error`), in simulations as well.

#[cfg(any(test, feature = "testing"))]
pub mod conforms;
mod real;
#[cfg(any(test, feature = "testing"))]
pub mod rotating;
#[cfg(any(test, feature = "testing"))]
pub mod sim;

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

pub use real::RealIo;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenHow {
    /// To read what is there.
    Read,
    /// To read and write what is there.
    ReadWrite,
    /// A new file, to read and write; refused if the name is taken.
    CreateNew,
}

/// An entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name in the folder.
    pub name: OsString,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// Length of a file in bytes; of a folder, nothing in particular.
    pub len: u64,
}

/// Space of the file system: bytes, and files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceOf {
    /// All of it.
    pub total: u64,
    /// What this process may still take.
    pub free: u64,
    /// Files that may still be made, where the file system counts them; else
    /// `u64::MAX`.
    pub files: u64,
}

/// One file system folder as the store sees it. Paths are relative to the
/// disk's folder; the empty path is that folder itself.
pub trait DiskIo: Send + Sync + Debug + 'static {
    /// Opens a file; a link is refused.
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a folder; refused if the name is taken.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// What a folder holds, in no particular order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Removes a file, or an empty folder.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file or folder another name, in place of a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Space of the file system.
    fn space(&self) -> io::Result<SpaceOf>;
}

/// An open file. Calls of several threads at once are fine; each write is
/// whole only where the caller keeps others from the same bytes.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads into all of `buf`, fewer bytes only at the file's end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// What is read through this handle from now on lies here and there:
    /// nothing is to be read ahead.
    fn read_scattered(&self) {}
    /// Writes all parts, one after the other, from `offset` on; large ones
    /// that lie aligned in memory and file go past the page cache where the
    /// file system allows it. Not durable before a sync, either way.
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Like [`Self::read_at`], but what the device has: after a failed sync
    /// the page cache shows what the disk does not have.
    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Takes space that holds nothing yet, also behind the file's end, which
    /// stays where it is: it reads as zeroes, and a write within it is not refused for want of space. The first sync behind such
    /// a write makes metadata durable as well, which takes longer.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Takes space and writes zeroes into it, so that no old bytes show and a
    /// later write within it changes no metadata. Durable after a sync.
    fn allocate_zeroed(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Gives the space of a range back; it reads as zeroes, the length stays.
    /// `EOPNOTSUPP` where the file system cannot.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether there is no byte in it.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or extends it with zeroes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes bytes and length durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Makes bytes, length and all other metadata durable (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
    /// Names that the file has; none means that it was removed.
    fn names(&self) -> io::Result<u64>;
}

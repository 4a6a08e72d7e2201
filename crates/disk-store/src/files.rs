//! System calls on files, with short counts and interruptions dealt with.
//!
//! Owns nothing; every function is told the file.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{Advice, AtFlags, Dir, FallocateFlags, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

use crate::format::PAGE;

/// Opens a folder for the calls that are relative to it.
pub(crate) fn open_folder(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Opens a folder in a folder.
pub(crate) fn open_folder_at(folder: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

/// Opens a file for reading; a link is refused, and nothing waits for a
/// writer where the name is a pipe's.
pub(crate) fn open_file_at(folder: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NOATIME | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match rustix::fs::openat(folder, path, flags, Mode::empty()) {
        // Only the owner of a file may ask for that.
        Err(Errno::PERM) => {
            rustix::fs::openat(folder, path, flags - OFlags::NOATIME, Mode::empty())
        }
        opened => opened,
    }
}

/// Whether anything has the name.
pub(crate) fn exists_at(folder: &OwnedFd, path: &str) -> Result<bool, Errno> {
    match rustix::fs::statat(folder, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Shows every name in a folder, `.` and `..` too.
pub(crate) fn each_name(folder: &OwnedFd, see: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
    let mut entries = Dir::read_from(folder)?;
    while let Some(entry) = entries.read() {
        see(entry?.file_name().to_bytes());
    }
    Ok(())
}

/// Whether an error says that the medium is bad, and not the call.
pub(crate) fn is_bad_medium(errno: Errno) -> bool {
    let bad = [
        Errno::IO,
        Errno::REMOTEIO,
        Errno::NODATA,
        Errno::ILSEQ,
        Errno::UCLEAN,
    ];
    bad.contains(&errno)
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_all(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(file, &bytes[done..], offset + done as u64) {
            // The kernel never does this for a regular file; not to spin.
            Ok(0) => return Err(Errno::IO),
            Ok(written) => done += written,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Reads `len` bytes at `offset`, fewer only at the file's end.
pub(crate) fn read_at(file: &OwnedFd, offset: u64, len: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::with_capacity(len);
    while bytes.len() < len {
        let at = offset + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // The allocator may have given more than was asked for.
    bytes.truncate(len);
    Ok(bytes)
}

/// The whole of a file of at most `most` bytes; what is longer is cut.
pub(crate) fn read_whole(file: &OwnedFd, most: u64) -> Result<Vec<u8>, Errno> {
    let len = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    read_at(file, 0, usize::try_from(len.min(most)).unwrap_or(0))
}

/// Takes space for a file: its bytes up to `len` will not be refused. A file
/// system that cannot is left alone.
pub(crate) fn preallocate(file: &OwnedFd, from: u64, len: u64) -> Result<(), Errno> {
    if len == 0 {
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, len) {
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) | Ok(()) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Lets the kernel forget the pages of some bytes that are clean.
pub(crate) fn drop_from_cache(file: &OwnedFd, offset: u64, len: usize) {
    // Of a page that is not all in the range nothing is forgotten.
    let from = offset / PAGE as u64 * PAGE as u64;
    let end = (offset + len as u64).next_multiple_of(PAGE as u64);
    if let Some(len) = NonZeroU64::new(end - from) {
        let _ = rustix::fs::fadvise(file, from, Some(len), Advice::DontNeed);
    }
}

/// Gives the space of some bytes back; they read as zeroes, and the file keeps
/// its length.
pub(crate) fn punch(file: &OwnedFd, from: u64, len: u64) -> Result<(), Errno> {
    if len == 0 {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, flags, from, len) {
            Err(Errno::INTR) => {}
            Err(Errno::NOSYS) => return Err(Errno::OPNOTSUPP),
            punched => return punched,
        }
    }
}

/// Whether the file system takes no writes.
pub(crate) fn is_read_only(folder: &OwnedFd) -> Result<bool, Errno> {
    let flags = rustix::fs::fstatvfs(folder)?.f_flag;
    Ok(flags.contains(StatVfsMountFlags::RDONLY))
}

/// Lets the writes through `file` go past the page cache, or no longer.
pub(crate) fn set_direct(file: &OwnedFd, direct: bool) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(file)?;
    let wanted = if direct {
        flags | OFlags::DIRECT
    } else {
        flags - OFlags::DIRECT
    };
    if wanted == flags {
        return Ok(());
    }
    rustix::fs::fcntl_setfl(file, wanted)
}

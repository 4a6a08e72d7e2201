//! The folder of journal files: names, listing, reading past the page cache.

use std::os::fd::OwnedFd;

use rustix::fs::{Advice, AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use shardgate_wire::journal::JournalFile;

use crate::aligned::AlignedBuffer;
use crate::files;
use crate::format::PAGE;

/// The folder of segments.
pub(crate) const FOLDER: &str = "journal";

/// The name of a file: 16 hex digits.
pub(super) fn name(file: JournalFile) -> String {
    format!("{:016x}", file.0)
}

pub(super) fn number(name: &[u8]) -> Option<JournalFile> {
    let text = std::str::from_utf8(name).ok()?;
    let lower_hex = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
    if text.len() != 16 || !name.iter().all(lower_hex) {
        return None;
    }
    u64::from_str_radix(text, 16).ok().map(JournalFile)
}

/// Opens the folder, and makes it if there is none, durably.
pub(super) fn open(disk: &OwnedFd) -> Result<OwnedFd, Errno> {
    match files::open_folder_at(disk, FOLDER) {
        Err(Errno::NOENT) => {
            match rustix::fs::mkdirat(disk, FOLDER, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            rustix::fs::fsync(disk)?;
            files::open_folder_at(disk, FOLDER)
        }
        opened => opened,
    }
}

/// Opens the folder if there is one.
pub(super) fn find(disk: &OwnedFd) -> Result<Option<OwnedFd>, Errno> {
    match files::open_folder_at(disk, FOLDER) {
        Err(Errno::NOENT) => Ok(None),
        opened => opened.map(Some),
    }
}

/// The files, by number; other names are ignored.
pub(super) fn list(folder: &OwnedFd) -> Result<Vec<JournalFile>, Errno> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        found.extend(number(entry?.file_name().to_bytes()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Bytes that the files take of the file system, all but one.
pub(super) fn bytes_taken(folder: &OwnedFd, but: Option<JournalFile>) -> Result<u64, Errno> {
    let mut bytes = 0;
    for file in list(folder)? {
        if but == Some(file) {
            continue;
        }
        match rustix::fs::statat(folder, name(file), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(bytes)
}

/// Makes an empty file of a number that was never used.
pub(super) fn create(folder: &OwnedFd, file: JournalFile) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name(file), flags, Mode::RUSR | Mode::WUSR)
}

/// Gives the space of a file from `end` to `len` back, where nothing was ever
/// written but zeroes: they read as before. Where the file system cannot, the
/// space stays taken.
pub(super) fn give_back(file: &OwnedFd, end: u64, len: u64) {
    if let Err(errno) = files::punch(file, end, len.saturating_sub(end)) {
        tracing::debug!(%errno, "the rest of a segment keeps its space");
    }
}

/// `len` bytes at `offset`, both multiples of a page but at the file's end,
/// from the device itself where the file system can; where it cannot, the
/// pages are dropped first.
pub(super) fn read_past_cache(
    file: &OwnedFd,
    offset: u64,
    len: usize,
    buffer: &mut AlignedBuffer,
) -> Result<Vec<u8>, Errno> {
    let pages = buffer.take(len.next_multiple_of(PAGE));
    if files::set_direct(file, true).is_ok() {
        let mut done = 0;
        let outcome = loop {
            match rustix::io::pread(file, &mut pages[done..], offset + done as u64) {
                Ok(0) => break Ok(true),
                Ok(read) => done += read,
                Err(Errno::INTR) => {}
                // Behind a short count the place is no multiple of a page.
                Err(Errno::INVAL) => break Ok(false),
                Err(errno) => break Err(errno),
            }
            if done >= len {
                break Ok(true);
            }
        };
        files::set_direct(file, false)?;
        if outcome? {
            return Ok(pages[..done.min(len)].to_vec());
        }
    }
    let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
    files::read_at(file, offset, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_reads_as_zeroes_and_takes_no_space() {
        let dir = tempfile::tempdir().expect("make a folder");
        let disk = files::open_folder(dir.path()).expect("open it");
        let file = create(&disk, JournalFile(1)).expect("make a file");
        let (page, len) = (PAGE as u64, 64 * PAGE as u64);
        files::write_all(&file, &vec![0; len as usize], 0).expect("written");
        files::write_all(&file, &[7; PAGE], 0).expect("written");
        rustix::fs::fsync(&file).expect("synced");
        give_back(&file, page, len);
        rustix::fs::fsync(&file).expect("synced");
        let stat = rustix::fs::fstat(&file).expect("known");
        assert_eq!(stat.st_size as u64, len);
        assert!((stat.st_blocks as u64) * 512 < len / 2, "{stat:?}");
        let taken = bytes_taken(&disk, None).expect("known");
        assert_eq!(taken, (stat.st_blocks as u64) * 512);
        assert_eq!(bytes_taken(&disk, Some(JournalFile(1))), Ok(0));
        let read = files::read_at(&file, 0, len as usize).expect("read");
        assert!(read[..PAGE].iter().all(|byte| *byte == 7));
        assert!(read[PAGE..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn only_numbers_are_names() {
        let file = JournalFile(0x1f);
        assert_eq!(number(name(file).as_bytes()), Some(file));
        for other in ["1f", "000000000000001F", "+00000000000001f", "spare", ""] {
            assert_eq!(number(other.as_bytes()), None, "{other}");
        }
    }
}

//! A file read from the device, in windows past the page cache: after a
//! failed fsync the cache shows what the disk does not have.
//!
//! Invariant: takes no more memory than the file is long. A reader that may
//! go on without some bytes is told which ones the device did not give; they
//! read as zeroes and must never be taken for such.

use std::io;

use rustix::io::Errno;

use crate::files;
use crate::format::FormatError;
use crate::io::DiskFile;

const PAGE: u64 = 4096;
const WINDOW_BYTES: u64 = 1 << 20;

/// What to do with bytes that the device does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadSectors {
    /// An error.
    Refuse,
    /// Read on without them.
    PassOver,
}

impl BadSectors {
    /// A disk that takes writes is fenced by them, and read again as it is.
    pub(crate) fn for_disk(writable: bool) -> Self {
        if writable {
            Self::Refuse
        } else {
            Self::PassOver
        }
    }
}

/// Whether an error says that the medium is bad, and not the call.
pub(crate) fn is_bad_medium(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(files::is_bad_medium)
}

/// Something whole that a later version wrote.
pub(crate) fn later(what: &str, error: &FormatError) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}

/// Told of what is about to be read, for those who read much beside others.
pub(crate) trait GiveWay {
    /// Before each piece.
    fn before(&self, bytes: u64);
    /// Whether enough was read, for one who can go on later.
    fn is_spent(&self) -> bool;
}

/// Gives way to nobody.
#[cfg(test)]
pub(crate) struct Unhurried;

#[cfg(test)]
impl GiveWay for Unhurried {
    fn before(&self, _: u64) {}

    fn is_spent(&self) -> bool {
        false
    }
}

/// A file, read in windows.
pub(crate) struct Source<'a> {
    pub(crate) file: &'a dyn DiskFile,
    /// Length of the file.
    pub(crate) len: u64,
    bad: BadSectors,
    way: Option<&'a dyn GiveWay>,
    /// Ranges that the device did not give, by place.
    unread: Vec<(u64, u64)>,
    from: u64,
    window: Vec<u8>,
}

fn index(of: u64) -> usize {
    usize::try_from(of).unwrap_or(usize::MAX)
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, bad: BadSectors) -> io::Result<Self> {
        Ok(Self {
            len: file.len()?,
            file,
            bad,
            way: None,
            unread: Vec::new(),
            from: 0,
            window: Vec::new(),
        })
    }

    /// The same, with way given before each read.
    pub(crate) fn giving_way(mut self, way: &'a dyn GiveWay) -> Self {
        self.way = Some(way);
        self
    }

    /// Another window on the same file.
    pub(crate) fn again(&self) -> Self {
        Self {
            file: self.file,
            len: self.len,
            bad: self.bad,
            way: self.way,
            unread: Vec::new(),
            from: 0,
            window: Vec::new(),
        }
    }

    /// Up to `len` bytes at `at`, fewer at the file's end.
    pub(crate) fn bytes(&mut self, at: u64, len: u64) -> io::Result<&[u8]> {
        let len = len.min(self.len.saturating_sub(at));
        let end = self.from + self.window.len() as u64;
        if len > 0 && (at < self.from || at + len > end) {
            self.from = at / PAGE * PAGE;
            let left = self.len - self.from;
            let wanted = (at + len - self.from).max(WINDOW_BYTES.min(left));
            let wanted = index(wanted.next_multiple_of(PAGE));
            self.window.clear();
            self.window.reserve_exact(wanted);
            self.window.resize(wanted, 0);
            let read = self.fill()?;
            self.window.truncate(read);
        }
        let skip = index(at.saturating_sub(self.from)).min(self.window.len());
        let end = skip.saturating_add(index(len)).min(self.window.len());
        Ok(&self.window[skip..end])
    }

    fn fill(&mut self) -> io::Result<usize> {
        if let Some(way) = self.way {
            way.before(self.window.len() as u64);
        }
        match self.file.read_past_cache(&mut self.window, self.from) {
            Err(error) if self.bad == BadSectors::PassOver && is_bad_medium(&error) => {}
            read => return read,
        }
        // Page by page: what is around the bad ones is worth having.
        let mut done = 0;
        for page in self.window.chunks_mut(index(PAGE)) {
            let at = self.from + done as u64;
            if at >= self.len {
                break;
            }
            let len = page.len().min(index(self.len - at));
            match self.file.read_past_cache(page, at) {
                Ok(read) => done += read,
                Err(error) if is_bad_medium(&error) => {
                    page.fill(0);
                    self.unread.push((at, at + len as u64));
                    done += len;
                }
                Err(error) => return Err(error),
            }
            if done % index(PAGE) != 0 {
                break; // the end, or a file that was cut meanwhile
            }
        }
        Ok(done)
    }

    /// Bytes of memory that the window takes.
    #[cfg(test)]
    pub(crate) fn held_bytes(&self) -> u64 {
        self.window.capacity() as u64
    }

    /// Whether the device did not give some of a range that was asked for.
    pub(crate) fn is_unread(&self, from: u64, to: u64) -> bool {
        let mut unread = self.unread.iter();
        unread.any(|(start, end)| *start < to && *end > from)
    }

    /// Bytes that the device did not give so far.
    pub(crate) fn unread_bytes(&self) -> u64 {
        let mut unread = self.unread.clone();
        unread.sort_unstable();
        unread.dedup();
        unread.iter().map(|(from, to)| to - from).sum()
    }
}

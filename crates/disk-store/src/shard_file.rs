//! What the file of a shard is: absent, unfinished, finished, or damaged.
//!
//! A shard is finished when its footer matches, and marked so afterwards: its
//! file loses its write permission once footer and data are durable. The mark
//! lies in the inode, so that a file whose footer is damaged or cut off is
//! still known as a finished one (corrupt, not absent), and so that a footer
//! that a crash left in the page cache is not believed. A file with a whole
//! footer and no mark (a crash came between fsync and mark, or before the
//! fsync) is settled: made durable, read back past the page cache, marked; if
//! it does not read back it was never finished.

use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Advice, FileType, Mode, OFlags};
use rustix::io::Errno;
use shardgate_wire::checksum::{CHECK_BLOCK, first_bad_block};
use shardgate_wire::store::MAX_APPEND_BYTES;
use shardgate_wire::{ShardHeader, ShardKey, StoreError};

use crate::aligned::AlignedBuffer;
use crate::cache::Whole;
use crate::condition::Doing;
use crate::core::Core;
use crate::files;
use crate::format::{
    Footer, FormatError, HEADER_PREFIX_BYTES, PAGE, decode_header, header_record_len,
};
use crate::names::{self, FolderName};

/// Files up to this length are read whole when their footer is asked for.
const SMALL_FILE_BYTES: u64 = 320 * 1024;
/// Bytes from the end of a longer file that are read first.
const TAIL_BYTES: u64 = 16 * 1024;

/// What was found under a shard's name.
#[derive(Debug)]
pub(crate) enum Found {
    Absent,
    /// Begun and never ended; open for reading.
    Unfinished(OwnedFd),
    /// Whole as far as header of file and footer tell; `head` are the file's
    /// bytes from its start where all of them were read anyway.
    Finished {
        whole: Arc<Whole>,
        head: Option<Vec<u8>>,
    },
    /// Finished once, and not what was written.
    Damaged(String),
}

/// The permissions of a file that is written, and of a finished one.
pub(crate) const WRITING_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const FINISHED_MODE: Mode = Mode::RUSR;

/// Marks a durable shard as finished. Lazily durable itself: the footer says
/// the same, and a start after an unclean stop settles what has lost its mark.
pub(crate) fn mark(file: &OwnedFd) {
    // A file system without permissions loses nothing but the distinction of
    // damaged footers.
    let _ = rustix::fs::fchmod(file, FINISHED_MODE);
}

pub(crate) fn is_marked(mode: u32) -> bool {
    !Mode::from_raw_mode(mode).contains(Mode::WUSR)
}

fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: what.into() }
}

/// A whole file that this code does not know: neither absent nor damaged.
fn later_version(what: &str, error: &FormatError) -> StoreError {
    let what = format!("{what}: {error}");
    StoreError::LaterVersion { what }
}

/// What is found of a file that has no mark.
pub(crate) enum Settle {
    /// It is not to be marked.
    Sure(Found),
    /// It is, if it reads back.
    Read(ReadBack),
}

/// A file with a whole footer that is read back.
#[derive(Debug)]
pub(crate) struct ReadBack {
    file: OwnedFd,
    footer: Footer,
    /// Whether the disk took writes when it was made durable.
    writable: bool,
    /// What is read next, in units of [`MAX_APPEND_BYTES`].
    next: usize,
    last_bytes: u64,
}

impl ReadBack {
    /// Bytes that were read last.
    pub(crate) fn last_bytes(&self) -> u64 {
        self.last_bytes
    }
}

/// As [`Found`], before what is not marked was settled.
enum Seen {
    Sure(Found),
    Unsettled,
}

impl Core {
    /// Before the log says that the disk was closed in order: the next start
    /// then looks for no files that lost their marks.
    pub(crate) fn make_marks_durable(&self) {
        if self.condition.check_writable().is_ok()
            && let Err(errno) = rustix::fs::syncfs(&self.folder)
        {
            let _ = self.condition.refused(Doing::Syncing, "sync marks", errno);
        }
    }

    pub(crate) fn unreadable(&self, errno: Errno) -> StoreError {
        self.condition.refused(Doing::Reading, "read shard", errno)
    }

    /// Looks at a shard's file.
    pub(crate) fn examine(
        &self,
        key: ShardKey,
        buffer: &mut AlignedBuffer,
    ) -> Result<Found, StoreError> {
        if let Seen::Sure(found) = self.look(key)? {
            return Ok(found);
        }
        let _guard = self.keys.lock(key);
        self.examine_locked(key, buffer)
    }

    /// The same, by what the device has: what clients use stays in the page
    /// cache, and nothing else comes into it.
    pub(crate) fn examine_on_device(
        &self,
        key: ShardKey,
        buffer: &mut AlignedBuffer,
    ) -> Result<Found, StoreError> {
        match self.look_with(key, Some(&mut *buffer))? {
            Seen::Sure(found) => Ok(found),
            Seen::Unsettled => self.examine(key, buffer),
        }
    }

    /// The same for a caller that holds the key's lock.
    pub(crate) fn examine_locked(
        &self,
        key: ShardKey,
        buffer: &mut AlignedBuffer,
    ) -> Result<Found, StoreError> {
        match self.look(key)? {
            Seen::Sure(found) => Ok(found),
            Seen::Unsettled => self.settle(key, buffer),
        }
    }

    fn look(&self, key: ShardKey) -> Result<Seen, StoreError> {
        self.look_with(key, None)
    }

    /// Looks by the device's bytes if there is a buffer for them.
    fn look_with(
        &self,
        key: ShardKey,
        mut device: Option<&mut AlignedBuffer>,
    ) -> Result<Seen, StoreError> {
        let sure = |found| Ok(Seen::Sure(found));
        let file = match files::open_file_at(&self.folders.shards, &names::file_path(&key)) {
            Ok(file) => file,
            Err(Errno::NOENT) => return sure(Found::Absent),
            Err(Errno::LOOP | Errno::NXIO) => return sure(Found::Damaged("not a file".into())),
            Err(errno) => return Err(self.unreadable(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.unreadable(errno))?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return sure(Found::Damaged("not a file".into()));
        }
        let file_len = u64::try_from(stat.st_size).unwrap_or(0);
        let marked = is_marked(stat.st_mode);
        let small = file_len <= SMALL_FILE_BYTES && device.is_none();
        let read_len = if small { file_len } else { TAIL_BYTES };
        let mut read = |len: u64| {
            let len = len.min(file_len);
            let (at, len) = (file_len - len, usize::try_from(len).unwrap_or(0));
            match &mut device {
                Some(buffer) => read_past_cache(&file, at, len, buffer),
                None => files::read_at(&file, at, len),
            }
            .map_err(|errno| self.unreadable(errno))
        };
        let mut tail = read(read_len)?;
        let footer = match Footer::claimed_len(&tail) {
            Ok(len) if len > tail.len() => {
                tail = read(len as u64)?;
                Footer::decode(&tail, file_len)
            }
            Ok(_) => Footer::decode(&tail, file_len),
            Err(error) => Err(error),
        };
        match footer {
            Ok(footer) if footer.key != key => sure(Found::Damaged("file of another shard".into())),
            Ok(_) if !marked => Ok(Seen::Unsettled),
            Ok(footer) => sure(Found::Finished {
                whole: Arc::new(Whole { file, footer }),
                head: small.then_some(tail),
            }),
            Err(error @ FormatError::Version { .. }) => Err(later_version("footer", &error)),
            Err(error) if marked => sure(Found::Damaged(error.to_string())),
            Err(_) => sure(Found::Unfinished(file)),
        }
    }

    /// Decides about a file with a whole footer and no mark. The key's lock
    /// is held, so no batch is writing it.
    fn settle(&self, key: ShardKey, buffer: &mut AlignedBuffer) -> Result<Found, StoreError> {
        let mut read = match self.begin_unmarked(key)? {
            Settle::Sure(found) => return Ok(found),
            Settle::Read(read) => read,
        };
        loop {
            if let Some(whole) = self.read_back(&mut read, buffer)? {
                return Ok(self.end_settling(read, whole));
            }
        }
    }

    /// Looks at a file, and makes it durable if it has a whole footer and no
    /// mark. The key's lock is held.
    pub(crate) fn begin_settling(&self, key: ShardKey) -> Result<Settle, StoreError> {
        match self.look(key)? {
            Seen::Sure(found) => Ok(Settle::Sure(found)),
            Seen::Unsettled => self.begin_unmarked(key),
        }
    }

    fn begin_unmarked(&self, key: ShardKey) -> Result<Settle, StoreError> {
        let path = names::file_path(&key);
        let open = || files::open_file_at(&self.folders.shards, &path);
        let file = open().map_err(|errno| self.unreadable(errno))?;
        if self.handles.is_open(key) {
            return Ok(Settle::Sure(Found::Unfinished(file))); // its finish is under way
        }
        let writable = self.condition.check_writable().is_ok();
        if writable {
            let failed = |errno| {
                self.condition
                    .refused(Doing::Syncing, "settle shard", errno)
            };
            rustix::fs::fsync(&file).map_err(failed)?;
            let folder = self.folders.get(&self.condition, FolderName::of(&key))?;
            // Says also whether another sync failed meanwhile.
            folder.sync(&self.condition, folder.ticket())?;
        }
        let stat = rustix::fs::fstat(&file).map_err(|errno| self.unreadable(errno))?;
        let file_len = u64::try_from(stat.st_size).unwrap_or(0);
        drop_from_page_cache(&file);
        let tail_len = usize::try_from(file_len.min(4 * 1024 * 1024)).unwrap_or(0);
        let tail = files::read_at(&file, file_len - tail_len as u64, tail_len)
            .map_err(|errno| self.unreadable(errno))?;
        match Footer::decode(&tail, file_len) {
            Ok(footer) => Ok(Settle::Read(ReadBack {
                file,
                footer,
                writable,
                next: 0,
                last_bytes: 0,
            })),
            Err(error @ FormatError::Version { .. }) => Err(later_version("footer", &error)),
            Err(_) => Ok(Settle::Sure(Found::Unfinished(file))),
        }
    }

    /// Reads the next blocks of a shard, as the disk holds them. Whether it is
    /// whole, once that is known.
    pub(crate) fn read_back(
        &self,
        read: &mut ReadBack,
        buffer: &mut AlignedBuffer,
    ) -> Result<Option<bool>, StoreError> {
        let blocks = MAX_APPEND_BYTES / CHECK_BLOCK;
        let Some(crcs) = read.footer.crcs.chunks(blocks).nth(read.next) else {
            return Ok(Some(true));
        };
        let offset = (read.next * MAX_APPEND_BYTES) as u64;
        let left = read.footer.end.shard_len - offset;
        let len = usize::try_from(left.min(MAX_APPEND_BYTES as u64)).unwrap_or(0);
        let start = u64::from(read.footer.data_offset);
        let bytes = read_past_cache(&read.file, start + offset, len, buffer);
        let bytes = bytes.map_err(|errno| self.unreadable(errno))?;
        read.next += 1;
        read.last_bytes = len as u64;
        if first_bad_block(&bytes, crcs).is_some() {
            return Ok(Some(false));
        }
        let is_last = read.next * blocks >= read.footer.crcs.len();
        Ok(is_last.then_some(true))
    }

    /// Marks a file that was read back as finished, if it is whole. The key's
    /// lock is held.
    pub(crate) fn end_settling(&self, read: ReadBack, whole: bool) -> Found {
        let ReadBack { file, footer, .. } = read;
        if !whole {
            return Found::Unfinished(file);
        }
        if read.writable {
            mark(&file);
        }
        let whole = Arc::new(Whole { file, footer });
        Found::Finished { whole, head: None }
    }

    /// The shard's head from its file, verified.
    pub(crate) fn read_header(
        &self,
        key: ShardKey,
        file: &OwnedFd,
        footer: Option<&Footer>,
    ) -> Result<ShardHeader, StoreError> {
        let read = |len| files::read_at(file, 0, len).map_err(|errno| self.unreadable(errno));
        let mut bytes = read(PAGE)?;
        let prefix = &bytes[..bytes.len().min(HEADER_PREFIX_BYTES)];
        let len = header_record_len(prefix).ok_or_else(|| corrupt("no header"))?;
        if len > bytes.len() {
            bytes = read(len)?;
        }
        header_of(key, footer, &bytes)
    }
}

/// The shard's head of the first bytes of its file, verified.
pub(crate) fn header_of(
    key: ShardKey,
    footer: Option<&Footer>,
    bytes: &[u8],
) -> Result<ShardHeader, StoreError> {
    let (header, crc) = match decode_header(bytes) {
        Ok(decoded) => decoded,
        Err(error @ FormatError::Version { .. }) => {
            return Err(later_version("header", &error));
        }
        Err(error) => return Err(corrupt(format!("header: {error}"))),
    };
    if header.key != key || footer.is_some_and(|footer| footer.header_crc != crc) {
        return Err(corrupt("header of another shard"));
    }
    Ok(header)
}

/// Lets the kernel forget a file's pages that are clean.
fn drop_from_page_cache(file: &OwnedFd) {
    let all: Option<NonZeroU64> = None;
    let _ = rustix::fs::fadvise(file, 0, all, Advice::DontNeed);
}

/// Reads `len` bytes at `offset`, fewer at the file's end, from the device
/// itself where the file system can; their pages are dropped where it cannot.
/// Nobody else may use the descriptor meanwhile.
pub(crate) fn read_past_cache(
    file: &OwnedFd,
    offset: u64,
    len: usize,
    buffer: &mut AlignedBuffer,
) -> Result<Vec<u8>, Errno> {
    let from = offset / PAGE as u64 * PAGE as u64;
    let skip = usize::try_from(offset - from).unwrap_or(0);
    let pages = buffer.take((skip + len).next_multiple_of(PAGE));
    let direct = rustix::fs::fcntl_getfl(file)
        .and_then(|flags| rustix::fs::fcntl_setfl(file, flags | OFlags::DIRECT));
    let mut done = 0;
    while direct.is_ok() && done < skip + len {
        match rustix::io::pread(file, &mut pages[done..], from + done as u64) {
            Ok(0) | Err(Errno::INVAL) => break,
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => {
                files::set_direct(file, false)?;
                return Err(errno);
            }
        }
    }
    if direct.is_ok() {
        files::set_direct(file, false)?;
    }
    if done < skip + len {
        files::drop_from_cache(file, offset, len);
        let read = files::read_at(file, offset, len);
        files::drop_from_cache(file, offset, len);
        return read;
    }
    Ok(pages[skip..skip + len].to_vec())
}

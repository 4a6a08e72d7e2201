//! What the journal's thread does for each call.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use shardgate_wire::checksum::crc32c;
use shardgate_wire::journal::{
    JOURNAL_PAGE, JournalFile, ListedJournalFile, MAX_JOURNAL_APPEND_BYTES, MAX_JOURNAL_FILES,
    MAX_JOURNAL_READ_BYTES,
};
use shardgate_wire::{CallContext, Epoch, StoreError};

use super::spare::Spare;
use super::{Known, folder};
use crate::aligned::AlignedBuffer;
use crate::condition::Doing;
use crate::core::Core;
use crate::files;
use crate::space::Taker;

/// Files that are open for appends: the segment that is written, and copies.
const OPEN_FILES: usize = 4;

/// A write, to know its repeat by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    offset: u64,
    len: usize,
    crc: u32,
}

impl Written {
    fn of(offset: u64, bytes: &Bytes) -> Self {
        Self {
            offset,
            len: bytes.len(),
            crc: crc32c(bytes),
        }
    }
}

/// A file that was begun since the disk was opened.
#[derive(Debug)]
struct Open {
    file: OwnedFd,
    epoch: Epoch,
    /// Invariant: everything before it is durable.
    end: u64,
    last: Written,
}

/// The journal as its thread knows it.
#[derive(Debug, Default)]
pub(super) struct Store {
    folder: Option<OwnedFd>,
    open: BTreeMap<JournalFile, Open>,
    /// The files in it, in the order in which they were begun.
    order: VecDeque<JournalFile>,
    /// The file that is read, which is rarely another than the last.
    reading: Option<(JournalFile, OwnedFd)>,
    next: u64,
    count: usize,
    spare: Spare,
    /// Whether what an unclean stop left in caches was made durable.
    settled: bool,
    buffer: AlignedBuffer,
}

fn bad(what: impl Into<String>) -> StoreError {
    StoreError::BadCall { what: what.into() }
}

fn check_pages(bytes: &Bytes) -> Result<(), StoreError> {
    let whole = !bytes.is_empty() && bytes.len().is_multiple_of(JOURNAL_PAGE);
    if !whole || bytes.len() > MAX_JOURNAL_APPEND_BYTES {
        return Err(bad(format!("{} bytes are no append", bytes.len())));
    }
    Ok(())
}

impl Store {
    /// The folder, made if there is none.
    fn enter_folder(&mut self, core: &Core) -> Result<(), StoreError> {
        if self.folder.is_some() {
            return Ok(());
        }
        let refused = |errno| {
            core.condition
                .refused(Doing::Writing, "open journal", errno)
        };
        let folder = folder::open(&core.folder).map_err(refused)?;
        self.count_files(&folder).map_err(refused)?;
        self.folder = Some(folder);
        Ok(())
    }

    fn count_files(&mut self, folder: &OwnedFd) -> Result<(), Errno> {
        let files = folder::list(folder)?;
        self.count = files.len();
        self.next = files.last().map_or(1, |last| last.0 + 1);
        Ok(())
    }

    fn number(&mut self) -> JournalFile {
        let number = JournalFile(self.next);
        self.next += 1;
        number
    }

    pub(super) fn begin(
        &mut self,
        core: &Core,
        ctx: &CallContext,
        bytes: &Bytes,
    ) -> Result<JournalFile, StoreError> {
        check_pages(bytes)?;
        let _epoch = core.enter_journal(ctx)?;
        let segment_bytes = core.options.journal_segment_bytes;
        if bytes.len() as u64 > segment_bytes {
            return Err(StoreError::NoSpace);
        }
        let written = Written::of(0, bytes);
        if let Some(number) = self.order.back()
            && let Some(last) = self.open.get(number)
            && last.last == written
            && last.epoch == ctx.epoch
        {
            return Ok(*number);
        }
        self.enter_folder(core)?;
        if self.count >= MAX_JOURNAL_FILES {
            return Err(StoreError::NoSpace);
        }
        let (number, file) = self.write_first(core, bytes)?;
        self.count += 1;
        self.open.insert(
            number,
            Open {
                file,
                epoch: ctx.epoch,
                end: bytes.len() as u64,
                last: written,
            },
        );
        self.order.push_back(number);
        if self.order.len() > OPEN_FILES
            && let Some(oldest) = self.order.pop_front()
            && let Some(ended) = self.open.remove(&oldest)
        {
            folder::give_back(&ended.file, ended.end, segment_bytes);
        }
        self.make_spare(core);
        self.say_held(core);
        Ok(number)
    }

    /// Begins to make the next spare, if there is none and it has room.
    fn make_spare(&mut self, core: &Core) {
        let segment_bytes = core.options.journal_segment_bytes;
        let room = core
            .space
            .take(&core.condition, Taker::Journal, segment_bytes);
        let number = self.number();
        if let (Some(folder), Ok(_)) = (&self.folder, room) {
            let condition = &core.condition;
            self.spare.make(folder, number, segment_bytes, condition);
        }
    }

    /// Tells the disk what the journal's files take, the spare included.
    fn say_held(&self, core: &Core) {
        let spare = self.spare.number();
        let held = match &self.folder {
            Some(folder) => folder::bytes_taken(folder, spare),
            None => Ok(0),
        };
        let made = spare.map_or(0, |_| core.options.journal_segment_bytes);
        // Where they cannot be asked, as much is kept as if they were not
        // there.
        core.space.hold_journal(held.unwrap_or(0) + made);
    }

    /// For who checks the files.
    pub(super) fn known(&self) -> Known {
        let ends = self.open.iter().map(|(file, open)| (file.0, open.end));
        Known {
            ends: ends.collect(),
            spare: self.spare.number().map(|file| file.0),
        }
    }

    /// Before the first call: files of earlier runs take of what is kept.
    pub(super) fn look(&self, core: &Core) {
        let found = folder::find(&core.folder).ok().flatten();
        let held = found.and_then(|folder| folder::bytes_taken(&folder, None).ok());
        core.space.hold_journal(held.unwrap_or(0));
    }

    /// One write and one sync, in the spare if there is one.
    fn write_first(
        &mut self,
        core: &Core,
        bytes: &Bytes,
    ) -> Result<(JournalFile, OwnedFd), StoreError> {
        if let Some(spare) = self.spare.take() {
            write(core, &spare.file, bytes, 0)?;
            return Ok((spare.number, spare.file));
        }
        let segment_bytes = core.options.journal_segment_bytes;
        let _promised = core
            .space
            .take(&core.condition, Taker::Journal, segment_bytes)?;
        let number = self.number();
        let folder = self.folder.as_ref().expect("the caller opened it");
        let refused = |errno| {
            core.condition
                .refused(Doing::Writing, "begin segment", errno)
        };
        let file = folder::create(folder, number).map_err(refused)?;
        let made = files::preallocate(&file, 0, segment_bytes)
            .and_then(|()| rustix::fs::ftruncate(&file, segment_bytes));
        if let Err(errno) = made {
            let _ = rustix::fs::unlinkat(folder, folder::name(number), AtFlags::empty());
            return Err(refused(errno));
        }
        write(core, &file, bytes, 0)?;
        // The file is new: its length and its name too must be durable.
        rustix::fs::fsync(&file)
            .and_then(|()| rustix::fs::fsync(folder))
            .map_err(|errno| {
                core.condition
                    .refused(Doing::Syncing, "sync segment", errno)
            })?;
        Ok((number, file))
    }

    pub(super) fn append(
        &mut self,
        core: &Core,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        bytes: &Bytes,
    ) -> Result<(), StoreError> {
        check_pages(bytes)?;
        let _epoch = core.enter_journal(ctx)?;
        let open = self.open.get_mut(&file);
        let Some(open) = open.filter(|open| open.epoch == ctx.epoch) else {
            return Err(StoreError::NoHandle);
        };
        let written = Written::of(offset, bytes);
        if open.last == written {
            return Ok(());
        }
        if offset != open.end {
            return Err(StoreError::WrongOffset {
                expected: open.end,
                given: offset,
            });
        }
        let end = offset + bytes.len() as u64;
        if end > core.options.journal_segment_bytes {
            return Err(StoreError::NoSpace);
        }
        if let Err(error) = write(core, &open.file, bytes, offset) {
            // Nobody knows what of it is there: the segment goes no further.
            self.open.remove(&file);
            return Err(error);
        }
        open.end = end;
        open.last = written;
        Ok(())
    }

    pub(super) fn files(
        &mut self,
        core: &Core,
        ctx: &CallContext,
    ) -> Result<Vec<ListedJournalFile>, StoreError> {
        let _epoch = core.enter_journal_to_read(ctx)?;
        let refused = |errno| {
            core.condition
                .refused(Doing::Reading, "list journal", errno)
        };
        if self.folder.is_none() {
            let Some(folder) = folder::find(&core.folder).map_err(refused)? else {
                return Ok(Vec::new());
            };
            self.count_files(&folder).map_err(refused)?;
            self.folder = Some(folder);
        }
        let folder = self.folder.as_ref().expect("it was just opened");
        // A fenced disk is read as it is, past its cache.
        let settles = !self.settled && core.condition.check_writable().is_ok();
        let mut listed = Vec::new();
        for file in folder::list(folder).map_err(refused)? {
            if self.spare.number() == Some(file) {
                continue;
            }
            let opened = files::open_file_at(folder, &folder::name(file)).map_err(refused)?;
            if settles {
                rustix::fs::fsync(&opened).map_err(|errno| {
                    core.condition
                        .refused(Doing::Syncing, "sync journal", errno)
                })?;
            }
            let stat = rustix::fs::fstat(&opened).map_err(refused)?;
            listed.push(ListedJournalFile {
                file,
                len: u64::try_from(stat.st_size).unwrap_or(0),
            });
        }
        if settles {
            rustix::fs::fsync(folder).map_err(|errno| {
                core.condition
                    .refused(Doing::Syncing, "sync journal", errno)
            })?;
            self.settled = true;
        }
        Ok(listed)
    }

    pub(super) fn read(
        &mut self,
        core: &Core,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let _epoch = core.enter_journal_to_read(ctx)?;
        if !offset.is_multiple_of(JOURNAL_PAGE as u64) || len == 0 || len > MAX_JOURNAL_READ_BYTES {
            return Err(bad(format!("read of {len} bytes at {offset}")));
        }
        let refused = |errno| match errno {
            Errno::NOENT => StoreError::NotFound,
            errno => core
                .condition
                .refused(Doing::Reading, "read journal", errno),
        };
        if self.reading.as_ref().is_none_or(|(of, _)| *of != file) {
            let folder = self.folder.as_ref().ok_or(StoreError::NotFound)?;
            let opened = files::open_file_at(folder, &folder::name(file)).map_err(refused)?;
            self.reading = Some((file, opened));
        }
        let (_, opened) = self.reading.as_ref().expect("it was just opened");
        let read = folder::read_past_cache(opened, offset, len, &mut self.buffer);
        Ok(read.map_err(refused)?.into())
    }

    pub(super) fn remove(
        &mut self,
        core: &Core,
        ctx: &CallContext,
        files: &[JournalFile],
    ) -> Result<(), StoreError> {
        let _epoch = core.enter_journal(ctx)?;
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        self.reading = None;
        let refused = |errno| {
            core.condition
                .refused(Doing::Writing, "remove segment", errno)
        };
        for file in files
            .iter()
            .filter(|file| self.spare.number() != Some(**file))
        {
            self.open.remove(file);
            match rustix::fs::unlinkat(folder, folder::name(*file), AtFlags::empty()) {
                Ok(()) => self.count = self.count.saturating_sub(1),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(refused(errno)),
            }
        }
        rustix::fs::fsync(folder).map_err(|errno| {
            core.condition
                .refused(Doing::Syncing, "sync journal", errno)
        })?;
        self.say_held(core);
        // One that had no room may have it now.
        if self.spare.number().is_none() && !self.open.is_empty() {
            self.make_spare(core);
        }
        Ok(())
    }

    pub(super) fn close(&mut self, core: &Core) {
        let writable = core.condition.check_writable().is_ok();
        for ended in self.open.values().filter(|_| writable) {
            folder::give_back(&ended.file, ended.end, core.options.journal_segment_bytes);
        }
        self.spare.close(self.folder.as_ref().filter(|_| writable));
    }
}

/// Writes and makes durable; the file must still have its name.
fn write(core: &Core, file: &OwnedFd, bytes: &Bytes, offset: u64) -> Result<(), StoreError> {
    files::write_all(file, bytes, offset).map_err(|errno| {
        core.condition
            .refused(Doing::Writing, "write journal", errno)
    })?;
    let syncing = |errno| {
        core.condition
            .refused(Doing::Syncing, "sync journal", errno)
    };
    rustix::fs::fdatasync(file).map_err(syncing)?;
    if rustix::fs::fstat(file).map_err(syncing)?.st_nlink == 0 {
        let why = "the journal's file has no name any more";
        return Err(core.condition.lose(why));
    }
    Ok(())
}

//! A shard that comes in appends: its file, and how far it has come.
//!
//! Invariant: `len` bytes were accepted; all of them are in the file but the
//! last `tail`, which wait for the footer, so that every write before it is
//! of whole pages. Nothing is durable before [`Writing::finish`] is done.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use rustix::io::Errno;
use shardgate_wire::checksum::CHECK_BLOCK;
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{ShardHeader, ShardKey, StoreError, bounds};

use crate::aligned::AlignedBuffer;
use crate::condition::{Condition, Doing};
use crate::files;
use crate::folders::Folder;
use crate::format::{Footer, PAGE, encode_header, footer_bytes};
use crate::volume::OwnExtent;

/// Space that is taken at once for a shard of unknown length: as much as came
/// already, within these bounds, so that many slow short uploads take little
/// and a long one lies in long runs.
const LEAST_STEP_BYTES: u64 = 256 * 1024;
const MOST_STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Whether writes may go past the page cache: the medium's figure, until the
/// file system refuses.
#[derive(Debug)]
pub(crate) struct Direct {
    from: usize,
    refused: AtomicBool,
}

impl Direct {
    pub(crate) fn new(from: usize) -> Self {
        Self {
            from,
            refused: AtomicBool::new(false),
        }
    }

    pub(crate) fn suits(&self, len: usize) -> bool {
        len >= self.from && !self.refused.load(Ordering::Relaxed)
    }

    /// Writes whole pages at a whole page, past the page cache. False if the
    /// file system does not; then nothing was written.
    pub(crate) fn write(&self, file: &OwnedFd, pages: &[u8], offset: u64) -> Result<bool, Errno> {
        let refused = |errno| matches!(errno, Errno::INVAL | Errno::OPNOTSUPP);
        match files::set_direct(file, true) {
            Err(errno) if refused(errno) => {
                self.refused.store(true, Ordering::Relaxed);
                return Ok(false);
            }
            set => set?,
        }
        let written = files::write_all(file, pages, offset);
        files::set_direct(file, false)?;
        match written {
            Err(errno) if refused(errno) => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }
}

/// Length of the finished file of a shard.
pub(crate) fn file_len(data_offset: u64, shard_len: u64) -> u64 {
    let used = data_offset + shard_len + footer_bytes(shard_len) as u64;
    used.next_multiple_of(PAGE as u64)
}

/// How far a shard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    Finished(ShardEnd),
    /// Begun anew, given up, deleted, idle too long, or of an epoch before.
    Ended,
}

/// What is written, under the handle's lock.
#[derive(Debug)]
pub(crate) struct Writing {
    pub(crate) phase: Phase,
    /// Closed while the handle rests and files are short.
    pub(crate) file: Option<OwnedFd>,
    /// Written through the page cache and not synced.
    pub(crate) dirty: bool,
    /// Without the object's names.
    header: ShardHeader,
    header_crc: u32,
    data_offset: u64,
    announced: Option<u64>,
    len: u64,
    tail: Vec<u8>,
    crcs: Vec<u32>,
    last_append: Option<u64>,
    allocated: u64,
    folder: Weak<Folder>,
    ticket: u64,
    /// Where the bytes go if not into a file.
    extent: Option<OwnExtent>,
}

impl Writing {
    /// Begins a shard whose bytes go into a volume. Its names are kept: they
    /// are written at its end.
    pub(crate) fn begin_extent(extent: OwnExtent, header: ShardHeader, len: u64) -> Self {
        Self {
            phase: Phase::Open,
            file: None,
            dirty: false,
            header,
            header_crc: 0,
            data_offset: 0,
            announced: Some(len),
            len: 0,
            tail: Vec::new(),
            crcs: Vec::new(),
            last_append: None,
            allocated: 0,
            folder: Weak::new(),
            ticket: 0,
            extent: Some(extent),
        }
    }

    /// Whether the shard has no file, and what was written of it goes with
    /// its handle.
    pub(crate) fn is_extent(&self) -> bool {
        self.extent.is_some()
    }

    /// Nothing more comes.
    pub(crate) fn end(&mut self) {
        self.phase = Phase::Ended;
        self.file = None;
        self.extent = None;
    }

    /// Ends a shard in a volume, durably. Whether it succeeds or not, the
    /// extent is spent.
    pub(crate) fn finish_extent(&mut self, end: ShardEnd) -> Result<(), StoreError> {
        let Some(extent) = self.extent.take() else {
            return Err(StoreError::NoHandle);
        };
        let crcs = std::mem::take(&mut self.crcs);
        let finished = extent.finish(self.header.clone(), end, crcs);
        self.phase = match finished {
            Ok(()) => Phase::Finished(end),
            Err(_) => Phase::Ended,
        };
        finished
    }

    /// Takes space and writes the header into a new, empty file.
    pub(crate) fn begin(
        condition: &Condition,
        file: OwnedFd,
        mut header: ShardHeader,
        announced: Option<u64>,
        folder: &Arc<Folder>,
    ) -> Result<Self, StoreError> {
        let record = encode_header(&header);
        let crc = record[record.len() - 4..].try_into();
        let header_crc = u32::from_be_bytes(crc.expect("a record ends with four bytes"));
        let data_offset = record.len().next_multiple_of(PAGE) as u64;
        let allocated = announced.map_or(0, |len| file_len(data_offset, len));
        let refused = |errno| condition.refused(Doing::Writing, "begin shard", errno);
        files::preallocate(&file, 0, allocated).map_err(refused)?;
        let mut page = record;
        page.resize(usize::try_from(data_offset).expect("a header is short"), 0);
        files::write_all(&file, &page, 0).map_err(refused)?;
        // Names and metadata are in the file; thousands of handles may rest.
        header.object.bucket = String::new();
        header.object.key = String::new();
        header.object.metadata = Vec::new();
        Ok(Self {
            phase: Phase::Open,
            file: Some(file),
            dirty: true,
            header,
            header_crc,
            data_offset,
            announced,
            len: 0,
            tail: Vec::new(),
            crcs: Vec::new(),
            last_append: None,
            allocated,
            folder: Arc::downgrade(folder),
            ticket: folder.changed(),
            extent: None,
        })
    }

    pub(crate) fn header(&self) -> &ShardHeader {
        &self.header
    }

    pub(crate) fn key(&self) -> ShardKey {
        self.header.key
    }

    /// The folder in which the file was made, and the change that made it.
    pub(crate) fn folder(&self) -> Option<(Arc<Folder>, u64)> {
        Some((self.folder.upgrade()?, self.ticket))
    }

    pub(crate) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Judges an append within its bounds. True if it repeats the last.
    pub(crate) fn check_append(
        &self,
        offset: u64,
        bytes: &bytes::Bytes,
        crcs: &[u32],
    ) -> Result<bool, StoreError> {
        match self.phase {
            Phase::Open => {}
            Phase::Ended => return Err(StoreError::NoHandle),
            Phase::Finished(_) => {
                let what = "append to a finished shard".to_owned();
                return Err(StoreError::BadCall { what });
            }
        }
        let blocks = usize::try_from(offset / CHECK_BLOCK as u64).unwrap_or(usize::MAX);
        let repeat = self.last_append == Some(offset)
            && offset + bytes.len() as u64 == self.len
            && self.crcs.get(blocks..) == Some(crcs);
        if !repeat && offset != self.len {
            return Err(StoreError::WrongOffset {
                expected: self.len,
                given: offset,
            });
        }
        Ok(repeat)
    }

    /// Whether more space must be taken before an append of `len` bytes, and
    /// how much is there to check.
    pub(crate) fn space_needed(&self, len: usize) -> u64 {
        let end = self.data_offset + self.len + len as u64;
        if self.announced.is_some() || end <= self.allocated {
            return 0;
        }
        let came = self.len.next_power_of_two();
        let step = came.clamp(LEAST_STEP_BYTES, MOST_STEP_BYTES);
        (end - self.allocated).next_multiple_of(step)
    }

    /// Writes an append that was judged and is no repeat.
    pub(crate) fn append(
        &mut self,
        condition: &Condition,
        direct: &Direct,
        buffer: &mut AlignedBuffer,
        offset: u64,
        bytes: &[u8],
        crcs: &[u32],
    ) -> Result<(), StoreError> {
        if let Some(extent) = &mut self.extent {
            extent.append(buffer, offset, bytes)?;
            self.crcs.extend_from_slice(crcs);
            self.len += bytes.len() as u64;
            self.last_append = Some(offset);
            return Ok(());
        }
        let refused = |errno| condition.refused(Doing::Writing, "append", errno);
        let file = self.file.as_ref().expect("the caller opens the file");
        let step = self.space_needed(bytes.len());
        files::preallocate(file, self.allocated, step).map_err(refused)?;
        self.allocated += step;
        let (pages, tail) = bytes.split_at(bytes.len() / PAGE * PAGE);
        let at = self.data_offset + offset;
        let past_cache = direct.suits(pages.len()) && {
            let aligned = buffer.fill(&[pages], pages.len());
            direct.write(file, aligned, at).map_err(refused)?
        };
        if !past_cache && !pages.is_empty() {
            files::write_all(file, pages, at).map_err(refused)?;
            self.dirty = true;
        }
        self.tail = tail.to_vec();
        self.crcs.extend_from_slice(crcs);
        self.len += bytes.len() as u64;
        self.last_append = Some(offset);
        Ok(())
    }

    /// Whether an end is what all appends make.
    pub(crate) fn check_end(&self, end: ShardEnd) -> Result<(), StoreError> {
        bounds::check_end(&self.header, self.len, end)
    }

    /// Whether the shard has that end already.
    pub(crate) fn has_ended(&self, end: ShardEnd) -> Result<bool, StoreError> {
        match self.phase {
            Phase::Open => Ok(false),
            Phase::Finished(done) if done == end => Ok(true),
            Phase::Finished(_) => Err(StoreError::BadCall {
                what: "shard was finished with another end".into(),
            }),
            Phase::Ended => Err(StoreError::NoHandle),
        }
    }

    /// Writes the footer and makes the file durable; the folder is the
    /// caller's. Gives the file, which the handle needs no more.
    pub(crate) fn finish(
        &mut self,
        condition: &Condition,
        end: ShardEnd,
    ) -> Result<OwnedFd, StoreError> {
        let footer = Footer {
            key: self.key(),
            end,
            data_offset: u32::try_from(self.data_offset).expect("a header is short"),
            header_crc: self.header_crc,
            crcs: self.crcs.clone(),
        };
        let footer = footer.encode();
        let from = self.data_offset + self.len - self.tail.len() as u64;
        let len = file_len(self.data_offset, self.len);
        let mut pages = self.tail.clone();
        let pages_len = usize::try_from(len - from).expect("a footer is short");
        pages.resize(pages_len - footer.len(), 0);
        pages.extend_from_slice(&footer);
        let file = self.file.as_ref().expect("the caller opens the file");
        let refused = |errno| condition.refused(Doing::Writing, "write footer", errno);
        files::write_all(file, &pages, from).map_err(refused)?;
        if self.allocated > len {
            // Gives back what was taken beyond the end.
            rustix::fs::ftruncate(file, len).map_err(refused)?;
        }
        rustix::fs::fdatasync(file)
            .map_err(|errno| condition.refused(Doing::Syncing, "sync shard", errno))?;
        self.dirty = false;
        self.phase = Phase::Finished(end);
        self.crcs = Vec::new();
        self.tail = Vec::new();
        Ok(self.file.take().expect("it was just synced"))
    }
}

//! Notes of blobs that were published: files that only grow, read by a
//! rebuild and by nothing else.
//!
//! Owns `notes/NUMBER.notes` and their cleaning. No note is kept in memory: a
//! disk has one for each blob. Invariants: what was answered is durable;
//! nothing is appended to a file that another run wrote; a file goes only
//! after the notes of it that still matter are durable in a later one. Notes
//! of deleted blobs are few, are asked for at every write, and lie in the log
//! of the volumes.

mod checking;
mod cleaning;
mod format;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;
use shardgate_wire::StoreError;
use shardgate_wire::ids::DiskId;
use shardgate_wire::note::{BlobNote, MAX_NOTES, NoteCursor, NotePage, NoteState};

use crate::condition::{Condition, Doing};
use crate::format::FormatError;
use crate::io::{DiskFile, DiskIo, OpenHow};
use crate::volume::{is_bad_medium, later};
use format::{MAX_BATCH_BYTES, Place, SECTOR, Stored};

/// The folder of notes.
pub(crate) const NOTES: &str = "notes";
const ENDING: &str = ".notes";
/// An empty file whose number is how many bytes the last cleaning left.
const CLEANED: &str = ".cleaned";
/// A file takes no more notes when it is that long.
const FILE_BYTES: u64 = 16 << 20;

/// The notes of one disk.
#[derive(Debug)]
pub(crate) struct NoteBook {
    io: Arc<dyn DiskIo>,
    disk: DiskId,
    condition: Arc<Condition>,
    file_bytes: u64,
    /// Files from this number on are of this run.
    own_from: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Length of each file, as far as it was answered.
    files: BTreeMap<u64, u64>,
    /// The one that this run writes.
    current: Option<(u64, Arc<dyn DiskFile>)>,
    next: u64,
    /// Bytes of all files when they were last cleaned; none if they never were.
    cleaned: u64,
    /// Files below this are still to be cleaned in this round.
    round: Option<u64>,
    /// Nobody knows which files there are.
    unlisted: bool,
}

impl State {
    fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    fn len_of(&self, number: u64) -> u64 {
        self.files.get(&number).copied().unwrap_or(0)
    }
}

fn file_path(number: u64) -> PathBuf {
    Path::new(NOTES).join(format!("{number:016x}{ENDING}"))
}

fn parse_file(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = digits.len() == 16 && digits.bytes().all(hex);
    u64::from_str_radix(digits, 16).ok().filter(|_| fits)
}

/// Whether a name in the folder is that of one of its files.
pub(crate) fn is_name(name: &str) -> bool {
    [ENDING, CLEANED]
        .iter()
        .any(|ending| parse_file(name, ending).is_some())
}

impl NoteBook {
    /// The notes in a disk's folder. Reads names, and what the newest file
    /// begins with. Where the device does not give the names the disk is
    /// fenced: a file's number might be used twice.
    ///
    /// # Errors
    /// The system refused, or a later version wrote the newest file.
    pub(crate) fn open(
        io: Arc<dyn DiskIo>,
        disk: DiskId,
        condition: Arc<Condition>,
    ) -> io::Result<Self> {
        let mut state = State {
            next: 1,
            ..State::default()
        };
        let found = match io.read_dir(Path::new(NOTES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) if is_bad_medium(&error) => {
                condition.count_error();
                let _ = condition.fence(format!("the folder of notes could not be read: {error}"));
                state.unlisted = true;
                Vec::new()
            }
            found => found?,
        };
        let marks = found.iter().filter_map(|entry| entry.name.to_str());
        // Of two, which a crash may leave, the one that cleans earlier.
        let cleaned = marks.filter_map(|name| parse_file(name, CLEANED)).min();
        state.cleaned = cleaned.unwrap_or(0);
        for entry in found {
            if let Some(number) = entry
                .name
                .to_str()
                .and_then(|name| parse_file(name, ENDING))
            {
                state.next = state.next.max(number + 1);
                state.files.insert(number, entry.len);
            }
        }
        let book = Self {
            io,
            disk,
            condition,
            file_bytes: FILE_BYTES,
            own_from: state.next,
            state: Mutex::new(state),
        };
        book.refuse_later()?;
        Ok(book)
    }

    /// Refuses notes of a version that this code does not know, before it
    /// writes beside them. Who writes always begins a new file, so the newest
    /// one that begins with a whole batch is of whoever wrote last.
    fn refuse_later(&self) -> io::Result<()> {
        let numbers: Vec<u64> = self.state.lock().files.keys().rev().copied().collect();
        for number in numbers {
            let first = match self.first_batch(number) {
                // It says nothing of a version; reading it counts as damage.
                Err(error) if is_bad_medium(&error) => continue,
                first => first?,
            };
            match format::check_version(&first) {
                Ok(()) => return Ok(()),
                Err(error @ FormatError::Version { .. }) => {
                    let name = file_path(number);
                    return Err(later(&name.display().to_string(), &error));
                }
                // Cut off by a crash, or damaged.
                Err(FormatError::Damaged { .. }) => {}
            }
        }
        Ok(())
    }

    /// The bytes of the batch that a file begins with; few if it has none.
    fn first_batch(&self, number: u64) -> io::Result<Vec<u8>> {
        let file = self.io.open(&file_path(number), OpenHow::Read)?;
        let mut bytes = vec![0; SECTOR as usize];
        let read = file.read_at(&mut bytes, 0)?;
        bytes.truncate(read);
        let len = format::claimed_len(&bytes).filter(|len| *len > read);
        if let Some(len) = len.filter(|len| *len as u64 <= 2 * FILE_BYTES) {
            bytes.resize(len, 0);
            let read = file.read_at(&mut bytes, 0)?;
            bytes.truncate(read);
        }
        Ok(bytes)
    }

    fn refused(&self, doing: Doing, what: &str, error: &io::Error) -> StoreError {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(errno) => self.condition.refused(doing, what, errno),
            None => StoreError::Io {
                what: what.to_owned(),
                why: error.to_string(),
            },
        }
    }

    /// Keeps notes of published blobs, durably; those of deleted ones are
    /// passed over.
    pub(crate) fn append(&self, notes: &[BlobNote]) -> Result<(), StoreError> {
        let stored = notes.iter().filter_map(|note| match &note.state {
            NoteState::Published(payload) => Some(Stored {
                group: note.group,
                blob: note.blob,
                order: note.order,
                payload: payload.clone(),
            }),
            NoteState::Deleted => None,
        });
        self.append_stored(&stored.collect::<Vec<_>>())
    }

    fn append_stored(&self, notes: &[Stored]) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        for batch in notes.chunks(MAX_NOTES) {
            self.condition.check_writable()?;
            let appended = self.append_batch(&mut state, batch);
            if let Err((doing, error)) = appended {
                // What lies behind its end is not known: nothing follows it.
                state.current = None;
                return Err(self.refused(doing, "write notes", &error));
            }
            if let Some((_, file)) = &state.current {
                self.check_named(&**file)?;
            }
        }
        Ok(())
    }

    /// A file that was just synced still has its name: one in a folder that
    /// was wiped takes and syncs what nobody will find.
    fn check_named(&self, file: &dyn DiskFile) -> Result<(), StoreError> {
        match file.names() {
            Ok(0) => Err(self.condition.lose("a file of notes has no name any more")),
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused(Doing::Reading, "stat notes", &error)),
        }
    }

    fn append_batch(&self, state: &mut State, batch: &[Stored]) -> Result<(), (Doing, io::Error)> {
        let writing = |error| (Doing::Writing, error);
        let syncing = |error| (Doing::Syncing, error);
        let (number, file) = match state.current.take() {
            Some((number, file)) if state.len_of(number) < self.file_bytes => (number, file),
            _ => self.begin_file(state)?,
        };
        let offset = state.len_of(number);
        let place = Place {
            disk: self.disk,
            file: number,
            offset,
        };
        let bytes = format::encode(place, batch);
        let written = file.write_at(&[IoSlice::new(&bytes)], offset);
        written.map_err(writing)?;
        file.sync_data().map_err(syncing)?;
        state.files.insert(number, offset + bytes.len() as u64);
        state.current = Some((number, file));
        Ok(())
    }

    fn begin_file(
        &self,
        state: &mut State,
    ) -> Result<(u64, Arc<dyn DiskFile>), (Doing, io::Error)> {
        let syncing = |error| (Doing::Syncing, error);
        match self.io.create_dir(Path::new(NOTES)) {
            Ok(()) => self.io.sync_dir(Path::new("")).map_err(syncing)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err((Doing::Writing, error)),
        }
        let number = state.next;
        state.next += 1;
        let file = self
            .io
            .open(&file_path(number), OpenHow::CreateNew)
            .map_err(|error| (Doing::Writing, error))?;
        self.io.sync_dir(Path::new(NOTES)).map_err(syncing)?;
        state.files.insert(number, 0);
        Ok((number, file))
    }

    /// A page of what the files hold, from `from` on.
    pub(crate) fn page(&self, from: Option<NoteCursor>) -> Result<NotePage, StoreError> {
        let (file, offset) = match from {
            Some(NoteCursor::Stored { file, offset }) => (file, offset),
            _ => (0, 0),
        };
        let found = {
            let state = self.state.lock();
            let mut rest = state.files.range(file..);
            let first = rest.next().map(|(number, len)| (*number, *len));
            first.map(|(number, len)| (number, len, rest.next().map(|(next, _)| *next)))
        };
        let Some((number, len, next)) = found else {
            return Ok(NotePage {
                damaged: u32::from(self.state.lock().unlisted),
                ..NotePage::default()
            });
        };
        // One that is gone was cleaned: what it had that matters comes later.
        let offset = if number == file { offset } else { 0 };
        let read = self.read_page(number, offset, len);
        let (notes, rest, damaged) =
            read.map_err(|error| self.refused(Doing::Reading, "read notes", &error))?;
        let next = match rest {
            Some(offset) => Some(NoteCursor::Stored {
                file: number,
                offset,
            }),
            None => next.map(|file| NoteCursor::Stored { file, offset: 0 }),
        };
        Ok(NotePage {
            notes: notes.into_iter().map(BlobNote::from).collect(),
            next,
            damaged,
        })
    }

    /// Notes of a file from `offset` on: at most [`MAX_NOTES`], and where to
    /// go on if the file has more.
    fn read_page(
        &self,
        number: u64,
        offset: u64,
        len: u64,
    ) -> io::Result<(Vec<Stored>, Option<u64>, u32)> {
        let file = match self.io.open(&file_path(number), OpenHow::Read) {
            // Cleaned since it was looked up.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((vec![], None, 0)),
            file => file?,
        };
        let most = MAX_BATCH_BYTES as u64;
        let mut window = vec![0; 2 * MAX_BATCH_BYTES];
        let read = file.read_at(&mut window, offset)?;
        let end = (offset + read as u64).min(len);
        window.truncate(end.saturating_sub(offset) as usize);
        let (mut at, mut notes, mut damaged, mut gap) = (offset, Vec::new(), 0, false);
        while at < end {
            let place = Place {
                disk: self.disk,
                file: number,
                offset: at,
            };
            let rest = &window[(at - offset) as usize..];
            match format::decode(place, rest).map_err(io::Error::other)? {
                Some((batch, span)) if notes.len() + batch.len() <= MAX_NOTES => {
                    damaged += u32::from(std::mem::take(&mut gap));
                    notes.extend(batch);
                    at += span;
                }
                Some(_) => return Ok((notes, Some(at), damaged)),
                // It may be cut off by the window: the next one begins there.
                None if end < len && at > offset && end - at < most => {
                    return Ok((notes, Some(at), damaged + u32::from(gap)));
                }
                None => {
                    gap = true;
                    at += SECTOR;
                }
            }
        }
        // At the file's end it is what a crash left, and nobody was answered.
        damaged += u32::from(gap && end < len);
        Ok((notes, (end < len).then_some(at), damaged))
    }
}

//! Cleaning: notes of blobs that the disk has no shard of any more go; those
//! of no blob stay.
//!
//! One file at a time, the oldest first, in rounds over all files that there
//! were when a round began. A round begins when the files have become twice
//! as long as the last one left them, so that a note is written at most twice
//! for each byte that goes. That length is kept in the name of an empty file,
//! so that a disk that is often opened anew is cleaned as any other.

use std::io;
use std::path::Path;

use shardgate_wire::StoreError;
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::note::NO_BLOB;

use super::{CLEANED, NOTES, NoteBook, Stored, file_path, parse_file};
use crate::condition::Doing;
use crate::io::OpenHow;

/// Whether the disk holds shards of these blobs, which are in order.
pub(crate) type Held<'a> = &'a mut dyn FnMut(&[(GroupId, BlobId)]) -> Result<Vec<bool>, StoreError>;

impl NoteBook {
    /// Cleans one file, if that is due; whether there may be more to do.
    pub(crate) fn clean(&self, held: Held<'_>) -> Result<bool, StoreError> {
        let Some((number, len)) = self.next_to_clean()? else {
            return Ok(false);
        };
        let mut kept = Vec::new();
        let mut offset = Some(0);
        while let Some(at) = offset {
            let read = self.read_page(number, at, len);
            let (notes, next, damaged) =
                read.map_err(|error| self.refused(Doing::Reading, "read notes", &error))?;
            if damaged > 0 {
                tracing::warn!(disk = %self.disk, number, damaged, "notes are damaged");
            }
            kept.extend(notes);
            offset = next;
        }
        kept.sort_by_key(|note: &Stored| (note.group, note.blob, note.order));
        let mut blobs: Vec<_> = kept.iter().map(|note| (note.group, note.blob)).collect();
        blobs.dedup();
        let held = held(&blobs)?;
        let is_held = |note: &Stored| {
            if note.blob == NO_BLOB {
                // It is about its group, or about the disk.
                return true;
            }
            let at = blobs.binary_search(&(note.group, note.blob));
            at.is_ok_and(|at| held[at])
        };
        // Of several of one blob the last holds.
        let mut survivors: Vec<Stored> = Vec::with_capacity(kept.len());
        for note in kept.into_iter().filter(is_held) {
            match survivors.last_mut() {
                Some(last) if (last.group, last.blob) == (note.group, note.blob) => *last = note,
                _ => survivors.push(note),
            }
        }
        self.append_stored(&survivors)?;
        self.remove_file(number)?;
        Ok(true)
    }

    /// The file that is to be cleaned now.
    fn next_to_clean(&self) -> Result<Option<(u64, u64)>, StoreError> {
        let mut state = self.state.lock();
        let bytes = state.bytes();
        if state.round.is_none() && bytes > 2 * state.cleaned + 2 * self.file_bytes {
            state.round = Some(state.next);
            // Not the one that is written: its end is not the last one.
            state.current = None;
        }
        let Some(end) = state.round else {
            return Ok(None);
        };
        let first = state.files.range(..end).next();
        let first = first.map(|(number, len)| (*number, *len));
        if first.is_none() {
            state.round = None;
            state.cleaned = bytes;
            drop(state);
            self.keep_cleaned(bytes)?;
        }
        Ok(first)
    }

    /// Keeps, durably, what this cleaning left.
    fn keep_cleaned(&self, bytes: u64) -> Result<(), StoreError> {
        let writing = |error| self.refused(Doing::Writing, "end cleaning of notes", &error);
        let name = format!("{bytes:016x}{CLEANED}");
        match self
            .io
            .open(&Path::new(NOTES).join(&name), OpenHow::CreateNew)
        {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(writing(error)),
        }
        let sync = || {
            let synced = self.io.sync_dir(Path::new(NOTES));
            synced.map_err(|error| self.refused(Doing::Syncing, "sync notes", &error))
        };
        sync()?;
        for entry in self.io.read_dir(Path::new(NOTES)).map_err(writing)? {
            let other = entry.name.to_str().filter(|other| *other != name);
            if other.is_some_and(|other| parse_file(other, CLEANED).is_some()) {
                let removed = self.io.remove(&Path::new(NOTES).join(&entry.name));
                removed.map_err(writing)?;
            }
        }
        sync()
    }

    fn remove_file(&self, number: u64) -> Result<(), StoreError> {
        self.state.lock().files.remove(&number);
        let removed = self.io.remove(&file_path(number));
        removed.map_err(|error| self.refused(Doing::Writing, "remove notes", &error))?;
        let synced = self.io.sync_dir(Path::new(NOTES));
        synced.map_err(|error| self.refused(Doing::Syncing, "sync notes", &error))
    }
}

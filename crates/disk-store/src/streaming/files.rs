//! The shards of a group that lie in files, in order of their keys, in
//! pieces.
//!
//! That order is the disk's own as far as a file system tells it: blob ids
//! begin with the time of their making, so that keys follow each other as the
//! files were made, and file systems give inodes and space to the files of a
//! folder as they come. Inodes would say no more, and a place by them would
//! mean another file once they are given anew. A file lies in few runs, since
//! its space is taken before it is written.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::io::Errno;
use shardgate_wire::checksum::{CHECK_BLOCK, first_bad_block};
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::{ShardHeader, ShardKey, StoreError};

use crate::aligned::AlignedBuffer;
use crate::core::Core;
use crate::files;
use crate::format::Footer;
use crate::listing::FileId;
use crate::names;
use crate::shard_file::{Found, header_of, read_past_cache};
use crate::window::{Unread, Window, WindowCursor, WindowPlace, WindowRecord, WindowShard};

/// Bytes of a shard that are read at once.
const PIECE_BYTES: u64 = 1 << 20;
/// What it takes to look at a file, in bytes.
const LOOK_BYTES: u64 = 16 * 1024;
/// Names that are kept from one window to the next.
const HELD_NAMES: usize = 256;

/// What a stream keeps of the files.
#[derive(Debug, Default)]
pub(super) struct HeldFiles {
    group: GroupId,
    /// There is no file between this name and the first that is held.
    from: Option<FileId>,
    names: VecDeque<FileId>,
    /// The file of which a piece was given and others are to follow.
    long: Option<LongFile>,
}

impl HeldFiles {
    /// The file that is read, or is next, from a place on.
    pub(super) fn first(&self, from: WindowCursor) -> Option<WindowPlace> {
        let (blob, index) = *self.names.front()?;
        let place = |within| WindowPlace::File {
            blob,
            index,
            within,
        };
        let is_held = self.group == from.group && place(u64::MAX) >= from.place;
        is_held.then(|| place(0))
    }
}

/// Header and footer of a file, verified.
#[derive(Debug)]
struct LongFile {
    footer: Footer,
    header: ShardHeader,
    /// Number and length of the file that they are of.
    inode: (u64, u64),
}

/// A file that is read.
struct OpenFile {
    file: OwnedFd,
    long: LongFile,
    /// They were read just now, and not with an earlier window.
    fresh: bool,
    /// The file's bytes up to the end of the first piece, if they were read.
    head: Option<Bytes>,
}

fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: what.into() }
}

fn behind((blob, index): FileId) -> Option<FileId> {
    match index.checked_add(1) {
        Some(index) => Some((blob, index)),
        None => Some((BlobId(blob.0.checked_add(1)?), 0)),
    }
}

/// Number of a file, and its length.
#[allow(clippy::useless_conversion)] // 32 bits on some machines
fn inode_of(file: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = rustix::fs::fstat(file)?;
    let len = u64::try_from(stat.st_size).unwrap_or(0);
    Ok((u64::from(stat.st_ino), len))
}

fn is_unlinked(file: &OwnedFd) -> bool {
    rustix::fs::fstat(file).is_ok_and(|stat| stat.st_nlink == 0)
}

impl Core {
    pub(super) fn window_of_files(
        &self,
        from: WindowCursor,
        bytes: u64,
        held: &mut HeldFiles,
        buffer: &mut AlignedBuffer,
    ) -> Result<Window, Unread> {
        let mut window = Window::default();
        let WindowPlace::File {
            blob,
            index,
            mut within,
        } = from.place
        else {
            return Ok(window);
        };
        let group = from.group;
        let cursor = |(blob, index): FileId, within| WindowCursor {
            group,
            place: WindowPlace::File {
                blob,
                index,
                within,
            },
        };
        let mut at = (blob, index);
        loop {
            let next = match self.next_file(group, at, held) {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(window),
                Err(unread) if window.records.is_empty() => return Err(unread),
                // What came is given; the next window meets the error.
                Err(_) => break,
            };
            if next != at {
                (at, within) = (next, 0); // the one that a piece was given of is gone
            }
            let (blob, index) = at;
            let key = ShardKey { group, blob, index };
            match self.read_file((key, &mut within), bytes, held, buffer, &mut window) {
                Ok(true) => match behind(at) {
                    Some(behind) => (at, within) = (behind, 0),
                    None => return Ok(window),
                },
                Ok(false) => {}
                Err(error) if window.records.is_empty() => {
                    return Err(Unread::at(cursor(at, within))(error));
                }
                Err(_) => break,
            }
            if window.read_bytes >= bytes {
                break;
            }
        }
        window.next = Some(cursor(at, within));
        Ok(window)
    }

    /// The first file of the group from a name on.
    fn next_file(
        &self,
        group: GroupId,
        from: FileId,
        held: &mut HeldFiles,
    ) -> Result<Option<FileId>, Unread> {
        let serves = held.group == group && held.from.is_some_and(|first| first <= from);
        if !serves {
            held.names.clear();
        }
        while held.names.front().is_some_and(|name| *name < from) {
            held.names.pop_front();
        }
        if held.names.is_empty() {
            held.names = self.files_from(group, from, HELD_NAMES)?.into();
            held.group = group;
        }
        held.from = Some(from);
        Ok(held.names.front().copied())
    }

    /// Gives pieces of a shard from `within` on until the window has `most`
    /// bytes, and moves it there; whether it is at its end.
    fn read_file(
        &self,
        (key, within): (ShardKey, &mut u64),
        most: u64,
        held: &mut HeldFiles,
        buffer: &mut AlignedBuffer,
        window: &mut Window,
    ) -> Result<bool, StoreError> {
        let kept = held.long.take();
        let kept = kept.filter(|long| long.footer.key == key && *within > 0);
        let opened = self.open_file((key, *within), kept, buffer, window);
        let Some(mut open) = given(key, opened, None, window)?.flatten() else {
            return Ok(true);
        };
        let end = open.long.footer.end.shard_len;
        *within -= *within % CHECK_BLOCK as u64;
        if *within > end {
            return Ok(true); // no place that was given
        }
        loop {
            let len = (end - *within).min(PIECE_BYTES);
            let mut piece = self.read_piece(&mut open, *within, len, buffer, window);
            if piece.is_err() && !open.fresh && !is_unlinked(&open.file) {
                // What was kept may be another file's of the same name.
                let again = self.open_file((key, *within), None, buffer, window);
                open = match given(key, again, None, window)?.flatten() {
                    Some(open) if open.long.footer.end.shard_len == end => open,
                    _ => return Ok(true),
                };
                piece = self.read_piece(&mut open, *within, len, buffer, window);
            }
            if let Some(shard) = given(key, piece, Some(&open.file), window)? {
                let shard = Ok(shard);
                window.records.push(WindowRecord { key, shard });
            }
            *within += len;
            if *within >= end {
                return Ok(true);
            }
            if window.read_bytes >= most {
                held.long = Some(open.long);
                return Ok(false);
            }
        }
    }

    /// Opens a finished shard's file, with what was kept of it if that is
    /// still its; `None` if there is none.
    fn open_file(
        &self,
        (key, within): (ShardKey, u64),
        kept: Option<LongFile>,
        buffer: &mut AlignedBuffer,
        window: &mut Window,
    ) -> Result<Option<OpenFile>, StoreError> {
        if let Some(long) = kept {
            let file = match files::open_file_at(&self.folders.shards, &names::file_path(&key)) {
                Err(Errno::NOENT) => return Ok(None),
                opened => opened.map_err(|errno| self.unreadable(errno))?,
            };
            if inode_of(&file).is_ok_and(|inode| inode == long.inode) {
                return Ok(Some(OpenFile {
                    file,
                    long,
                    fresh: false,
                    head: None,
                }));
            }
        }
        window.read_bytes += LOOK_BYTES;
        let whole = match self.examine_on_device(key, buffer)? {
            Found::Absent | Found::Unfinished(_) => return Ok(None),
            Found::Damaged(what) => return Err(corrupt(what)),
            Found::Finished { whole, .. } => whole,
        };
        let Some(whole) = Arc::into_inner(whole) else {
            return Err(StoreError::Busy); // nobody else has it
        };
        let inode = inode_of(&whole.file).map_err(|errno| self.unreadable(errno))?;
        let data_at = u64::from(whole.footer.data_offset);
        // The first piece is read with the header, if the device gives it.
        let piece = whole.footer.end.shard_len.min(PIECE_BYTES);
        let with_piece = data_at + if within == 0 { piece } else { 0 };
        window.read_bytes += with_piece;
        let mut read = |len| self.device_bytes(&whole.file, 0, len, buffer);
        let (head, has_piece) = match read(with_piece) {
            Err(StoreError::Io { .. }) if with_piece > data_at => (read(data_at)?, false),
            head => (head?, within == 0),
        };
        let header = header_of(key, Some(&whole.footer), &head)?;
        Ok(Some(OpenFile {
            file: whole.file,
            long: LongFile {
                footer: whole.footer,
                header,
                inode,
            },
            fresh: true,
            head: has_piece.then_some(head),
        }))
    }

    fn device_bytes(
        &self,
        file: &OwnedFd,
        at: u64,
        len: u64,
        buffer: &mut AlignedBuffer,
    ) -> Result<Bytes, StoreError> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let read = read_past_cache(file, at, len, buffer);
        Ok(read.map_err(|errno| self.unreadable(errno))?.into())
    }

    /// A piece, verified.
    fn read_piece(
        &self,
        open: &mut OpenFile,
        within: u64,
        len: u64,
        buffer: &mut AlignedBuffer,
        window: &mut Window,
    ) -> Result<WindowShard, StoreError> {
        let LongFile { footer, header, .. } = &open.long;
        let data_at = u64::from(footer.data_offset);
        let bytes = match open.head.take() {
            Some(head) => head.slice(head.len().min(footer.data_offset as usize)..),
            None => {
                window.read_bytes += len;
                self.device_bytes(&open.file, data_at + within, len, buffer)?
            }
        };
        if (bytes.len() as u64) < len {
            return Err(corrupt("file is shorter than its shard"));
        }
        let first = usize::try_from(within / CHECK_BLOCK as u64).unwrap_or(usize::MAX);
        let blocks = bytes.len().div_ceil(CHECK_BLOCK);
        let crcs = &footer.crcs[first..first + blocks];
        if let Some(block) = first_bad_block(&bytes, crcs) {
            return Err(corrupt(format!("block {}", first + block)));
        }
        Ok(WindowShard {
            header: header.clone(),
            end: footer.end,
            offset: within,
            bytes,
            crcs: crcs.to_vec(),
        })
    }
}

/// What was read, or `None` after the window was told what is wrong with it;
/// of a file that was deleted meanwhile, nothing. Errors that are not the
/// shard's are the window's.
fn given<T>(
    key: ShardKey,
    read: Result<T, StoreError>,
    file: Option<&OwnedFd>,
    window: &mut Window,
) -> Result<Option<T>, StoreError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(
            error @ (StoreError::Corrupt { .. }
            | StoreError::Io { .. }
            | StoreError::LaterVersion { .. }),
        ) => {
            if !file.is_some_and(is_unlinked) {
                let shard = Err(error);
                window.records.push(WindowRecord { key, shard });
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

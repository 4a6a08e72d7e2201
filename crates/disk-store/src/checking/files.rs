//! Files of shards: header, footer and every block, from the device.
//!
//! A file without the mark that it is finished counts if it is whole; if it
//! is not, it was never answered, and whoever looks at it next decides so
//! (`shard_file`): nothing is settled here.

use std::io;
use std::path::Path;

use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use shardgate_wire::checksum::{CHECK_BLOCK, first_bad_block};
use shardgate_wire::{ShardKey, StoreError};

use super::Report;
use super::cursor::{FilePlace, Place};
use super::way::Way;
use crate::core::Core;
use crate::damaged::Again;
use crate::format::{
    Footer, FormatError, HEADER_PREFIX_BYTES, PAGE, decode_header, header_record_len,
};
use crate::io::OpenHow;
use crate::layout::SHARDS;
use crate::names::{self, FolderName};
use crate::shard_file::is_marked;
use crate::volume::{BadSectors, GiveWay, Source};

/// Blocks that are read at once: with the page before them less than a window
/// of a source, so that the first are read with the header.
const BLOCKS: usize = 15;
/// Bytes from the end of a file that are read first.
const TAIL_BYTES: u64 = 16 * 1024;

/// What stands under a shard's name.
struct Named {
    inode: u64,
    marked: bool,
    is_file: bool,
}

/// What a file, or what was read of it, turned out to be.
enum Seen {
    /// All of it, so many bytes.
    Whole(u64),
    /// Up to this offset of the shard.
    WholeTo(u64),
    Damaged(String),
    /// Of a later version: nothing is known of it.
    Later(String),
    Gone,
}

impl From<FormatError> for Seen {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Version { .. } => Self::Later(error.to_string()),
            FormatError::Damaged { .. } => Self::Damaged(error.to_string()),
        }
    }
}

impl Core {
    /// Files behind `from` until enough was read.
    pub(super) fn check_files(
        &self,
        from: Option<FilePlace>,
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<Option<Place>, StoreError> {
        let mut after = None;
        match from {
            None => {}
            Some(FilePlace::Behind(key)) => after = Some(key),
            Some(FilePlace::Within(key, offset)) => {
                if let Some(place) = self.check_file(key, offset, way, report)? {
                    return Ok(Some(Place::Files(Some(place))));
                }
                after = Some(key);
            }
        }
        let from = after.map(|key| FolderName::of(&key));
        for group in self.groups_from(from)? {
            if from.is_none_or(|from| from.group != group) {
                let own = |name: &str| names::parse_prefix(name.as_bytes()).is_some();
                self.check_names(&format!("{SHARDS}/{group}"), &own, report);
            }
            for folder in self.folders_from(group, from)? {
                if from != Some(folder) {
                    let own = |name: &str| names::parse_file(folder, name.as_bytes()).is_some();
                    self.check_names(&format!("{SHARDS}/{}", folder.path()), &own, report);
                }
                let inside = after.filter(|_| from == Some(folder));
                if let Some(place) = self.check_files_in(folder, inside, way, report)? {
                    return Ok(Some(Place::Files(Some(place))));
                }
            }
        }
        Ok(Some(Place::Notes(0)))
    }

    /// The files of a folder behind `after`; where to go on if enough was
    /// read. One at least is checked: what is strange in the folder was told,
    /// and is not to be told again.
    fn check_files_in(
        &self,
        folder: FolderName,
        mut after: Option<ShardKey>,
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<Option<FilePlace>, StoreError> {
        loop {
            let (keys, is_all) = self.keys_in(folder, after)?;
            for key in keys {
                if let Some(place) = self.check_file(key, 0, way, report)? {
                    return Ok(Some(place));
                }
                if way.is_spent() || report.is_full() {
                    return Ok(Some(FilePlace::Behind(key)));
                }
                after = Some(key);
            }
            if is_all {
                return Ok(None);
            }
        }
    }

    /// Reads a file from `offset` of its shard on; where to go on if it is
    /// longer than a part.
    fn check_file(
        &self,
        key: ShardKey,
        offset: u64,
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<Option<FilePlace>, StoreError> {
        let path = Path::new(SHARDS).join(names::file_path(&key));
        let place = path.to_string_lossy();
        let Some(named) = self.named(key)? else {
            return Ok(None);
        };
        let seen = match named.is_file {
            true => self.verify_file(key, offset, &path, way),
            false => Ok(Seen::Damaged("not a file".into())),
        };
        let seen = match seen {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Seen::Gone,
            Err(error) => Seen::Damaged(self.unchecked(&error)?),
            Ok(seen) => seen,
        };
        // Deleted meanwhile, and perhaps begun anew?
        let still = self.named(key)?;
        let is_same = still.is_some_and(|still| still.inode == named.inode && still.marked);
        match seen {
            Seen::Whole(bytes) => report.whole(key, bytes),
            Seen::WholeTo(offset) => {
                return Ok(Some(FilePlace::Within(key, offset)));
            }
            Seen::Damaged(what) if named.marked && is_same => {
                report.find(&place, Some(key), what);
            }
            Seen::Later(what) if is_same => report.find(&place, None, what),
            Seen::Damaged(_) | Seen::Later(_) | Seen::Gone => {}
        }
        Ok(None)
    }

    /// Reads the file of one shard again, from `offset` of it on and about as
    /// much as a part of a check does.
    pub(crate) fn check_file_again(&self, key: ShardKey, offset: u64) -> Result<Again, StoreError> {
        let (way, mut report) = (Way::new(self), Report::default());
        let next = self.check_file(key, offset, &way, &mut report)?;
        let damaged = report.damaged().iter().any(|(of, _)| *of == key);
        Ok(match next {
            _ if damaged => Again::Damaged,
            Some(FilePlace::Within(_, offset)) => Again::WholeTo(offset),
            // Gone, or of a later version, too.
            _ => Again::NotDamaged,
        })
    }

    fn named(&self, key: ShardKey) -> Result<Option<Named>, StoreError> {
        let path = names::file_path(&key);
        match rustix::fs::statat(&self.folders.shards, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
                Ok(Some(Named {
                    inode: stat.st_ino,
                    // What is no file has no mark and is damage all the same.
                    marked: !is_file || is_marked(stat.st_mode),
                    is_file,
                }))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => {
                Err(self
                    .condition
                    .refused(crate::condition::Doing::Reading, "stat shard", errno))
            }
        }
    }

    fn verify_file(
        &self,
        key: ShardKey,
        offset: u64,
        path: &Path,
        way: &Way<'_>,
    ) -> io::Result<Seen> {
        let file = self.volumes.io.open(path, OpenHow::Read)?;
        let mut source = Source::new(&*file, BadSectors::PassOver)?.giving_way(way);
        let footer = match read_footer(&mut source)? {
            Ok(footer) if footer.key != key => {
                return Ok(Seen::Damaged("file of another shard".into()));
            }
            Ok(footer) => footer,
            Err(error) => return Ok(error.into()),
        };
        if offset == 0
            && let Some(wrong) = wrong_header(&mut source, key, &footer)?
        {
            return Ok(wrong);
        }
        let first = usize::try_from(offset / CHECK_BLOCK as u64).unwrap_or(usize::MAX);
        let blocks = footer.crcs.get(first..).unwrap_or_default();
        for (piece, crcs) in blocks.chunks(BLOCKS).enumerate() {
            let block = first + piece * BLOCKS;
            let offset = (block * CHECK_BLOCK) as u64;
            if piece > 0 && way.is_spent() {
                return Ok(Seen::WholeTo(offset));
            }
            let at = u64::from(footer.data_offset) + offset;
            let len = (footer.end.shard_len - offset).min((BLOCKS * CHECK_BLOCK) as u64);
            let bad = first_bad_block(source.bytes(at, len)?, crcs);
            if let Some(bad) = bad {
                let from = at + (bad * CHECK_BLOCK) as u64;
                let unread = source.is_unread(from, from + CHECK_BLOCK as u64);
                let what = if unread { " cannot be read" } else { "" };
                return Ok(Seen::Damaged(format!("block {}{what}", block + bad)));
            }
        }
        Ok(Seen::Whole(source.len))
    }
}

fn read_footer(source: &mut Source<'_>) -> io::Result<Result<Footer, FormatError>> {
    let len = source.len;
    let tail = source.bytes(len.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
    Ok(match Footer::claimed_len(tail) {
        Ok(claimed) if claimed > tail.len() => {
            let from = len.saturating_sub(claimed as u64);
            Footer::decode(source.bytes(from, claimed as u64)?, len)
        }
        Ok(_) => Footer::decode(tail, len),
        Err(error) => Err(error),
    })
}

/// What is wrong with the header of a file that has this footer.
fn wrong_header(
    source: &mut Source<'_>,
    key: ShardKey,
    footer: &Footer,
) -> io::Result<Option<Seen>> {
    let prefix = source.bytes(0, PAGE as u64)?;
    let prefix = &prefix[..prefix.len().min(HEADER_PREFIX_BYTES)];
    let Some(len) = header_record_len(prefix) else {
        return Ok(Some(Seen::Damaged("no header".into())));
    };
    Ok(match decode_header(source.bytes(0, len as u64)?) {
        Ok((header, crc)) if header.key == key && crc == footer.header_crc => None,
        Ok(_) => Some(Seen::Damaged("header of another shard".into())),
        Err(FormatError::Damaged { what }) => Some(Seen::Damaged(format!("header: {what}"))),
        Err(later) => Some(later.into()),
    })
}

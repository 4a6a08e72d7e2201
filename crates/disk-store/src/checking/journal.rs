//! Journal segments: what the disk itself can know of them.
//!
//! Whole batches are told by their checksum and place (`docs/journal.md`).
//! What begun in this run is known to its end, and all of it was synced; of
//! any other file what a crash left at its end is not told from damage, so
//! that bytes that are no batch are damage only before a whole one. What the
//! records mean, and whether other disks have them, is for the journal's owner.

use std::io;
use std::path::Path;

use shardgate_wire::StoreError;
use shardgate_wire::checksum::crc32c;
use shardgate_wire::journal::{JOURNAL_PAGE, MAX_JOURNAL_APPEND_BYTES};

use super::Report;
use super::cursor::JournalPlace;
use super::way::Way;
use crate::core::Core;
use crate::io::OpenHow;
use crate::journal;
use crate::volume::{BadSectors, GiveWay, Source};

const MAGIC: &[u8; 8] = b"SG.jbat\0";
/// Bytes of a batch before its payload, and of its checksum.
const HEAD_BYTES: u64 = 116;
const SUM_BYTES: u64 = 4;
/// Longest batch: it is one append.
const MOST_BYTES: u64 = MAX_JOURNAL_APPEND_BYTES as u64;
const PAGE: u64 = JOURNAL_PAGE as u64;
/// A part ends at multiples of this: what is read at once is used.
const STRIDE: u64 = 1 << 20;

impl Core {
    /// Segments from `from` on until enough was read; where to go on.
    pub(super) fn check_journal(
        &self,
        from: Option<JournalPlace>,
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<Option<JournalPlace>, StoreError> {
        // Listed first: what is begun behind that is known by its end.
        let files = match self.journal_files() {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                report.find(journal::FOLDER, None, self.unchecked(&error)?);
                return Ok(None);
            }
        };
        let known = self.journal.known()?;
        let first = from.map_or(0, |from| from.file);
        for file in files.into_iter().filter(|file| *file >= first) {
            if known.spare == Some(file) {
                continue; // zeroes, or being made
            }
            let at = from.filter(|from| from.file == file);
            let at = at.unwrap_or(JournalPlace {
                file,
                offset: 0,
                gap: None,
            });
            let end = known.ends.get(&file).copied();
            let next = self.check_segment(at, end, way, report)?;
            if next.is_some() {
                return Ok(next);
            }
            if way.is_spent() || report.is_full() {
                return Ok(file.checked_add(1).map(|file| JournalPlace {
                    file,
                    offset: 0,
                    gap: None,
                }));
            }
        }
        Ok(None)
    }

    fn journal_files(&self) -> io::Result<Vec<u64>> {
        let folder = crate::files::open_folder_at(&self.folder, journal::FOLDER)?;
        let mut files = Vec::new();
        crate::files::each_name(&folder, &mut |name| files.extend(journal::number_of(name)))?;
        files.sort_unstable();
        Ok(files)
    }

    /// Reads a segment up to `end`, all of it where that is not known.
    fn check_segment(
        &self,
        at: JournalPlace,
        end: Option<u64>,
        way: &Way<'_>,
        report: &mut Report,
    ) -> Result<Option<JournalPlace>, StoreError> {
        let path = Path::new(journal::FOLDER).join(journal::name_of(at.file));
        let mut gaps = Vec::new();
        let mut unread = 0;
        let mut read = || -> io::Result<Option<JournalPlace>> {
            let file = self.volumes.io.open(&path, OpenHow::Read)?;
            let mut source = Source::new(&*file, BadSectors::PassOver)?.giving_way(way);
            let next = find_gaps(&mut source, at, end, way, &mut gaps)?;
            unread = source.unread_bytes();
            Ok(next)
        };
        let read = read();
        // Removed meanwhile: no later one gets its number.
        if !matches!(
            crate::files::exists_at(&self.folder, &path.to_string_lossy()),
            Ok(true)
        ) {
            return Ok(None);
        }
        let place = path.to_string_lossy();
        for (from, to) in gaps {
            let what = format!("bytes {from} to {to} are no batch");
            report.find(&place, None, what);
        }
        if unread > 0 {
            report.find(&place, None, format!("{unread} bytes cannot be read"));
        }
        match read {
            Ok(next) => Ok(next),
            Err(error) => {
                report.find(&place, None, self.unchecked(&error)?);
                Ok(None)
            }
        }
    }
}

/// Stretches that are no batches before one that is, or before `end`; where to
/// go on if it is longer than a part.
fn find_gaps(
    source: &mut Source<'_>,
    from: JournalPlace,
    end: Option<u64>,
    way: &dyn GiveWay,
    gaps: &mut Vec<(u64, u64)>,
) -> io::Result<Option<JournalPlace>> {
    let (mut at, mut gap) = (from.offset, from.gap);
    let to = end.unwrap_or(source.len);
    while at < to {
        let before = at;
        match batch_len(source, at)? {
            Some(len) => {
                gaps.extend(gap.take().map(|from| (from, at)));
                at += len;
            }
            None => {
                gap.get_or_insert(at);
                at += PAGE;
            }
        }
        if at < to && at / STRIDE > before / STRIDE && way.is_spent() {
            let file = from.file;
            let offset = at;
            return Ok(Some(JournalPlace { file, offset, gap }));
        }
    }
    if end.is_some() {
        gaps.extend(gap.map(|from| (from, to)));
    }
    Ok(None)
}

/// Bytes to the next batch, if a whole one is at `at`.
fn batch_len(source: &mut Source<'_>, at: u64) -> io::Result<Option<u64>> {
    let number = |bytes: &[u8], at: usize, len: usize| {
        let bytes = &bytes[at..at + len];
        bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let head = source.bytes(at, HEAD_BYTES)?;
    if head.len() as u64 != HEAD_BYTES || head[..8] != MAGIC[..] {
        return Ok(None);
    }
    let len = HEAD_BYTES + number(head, 12, 4) + SUM_BYTES;
    // One of a later version may say elsewhere where it is.
    let is_here = number(head, 8, 2) != 1 || number(head, 48, 8) == at;
    if !is_here || len > MOST_BYTES {
        return Ok(None);
    }
    let bytes = source.bytes(at, len)?;
    if bytes.len() as u64 != len {
        return Ok(None);
    }
    let (covered, sum) = bytes.split_at(bytes.len() - SUM_BYTES as usize);
    let is_whole = crc32c(covered).to_be_bytes() == sum[..];
    Ok(is_whole.then(|| len.next_multiple_of(PAGE)))
}

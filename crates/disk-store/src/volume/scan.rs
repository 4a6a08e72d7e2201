//! The records of a volume, found from its bytes alone.
//!
//! Reads past the page cache, because after a failed fsync the cache shows
//! what the disk does not have. Invariant: bytes that a later record proves
//! to have been synced are never taken for a torn end: they are damage.

use std::io;

use shardgate_wire::checksum::first_bad_block;
use shardgate_wire::ids::GroupId;

use super::format::{
    Entry, FIRST_RECORD, HEAD_BYTES, Head, Heading, Kind, RECORD_ALIGN, SECTOR, decode_head,
    decode_meta, header_at,
};
use super::volume_state::at_of;
use crate::io::DiskFile;

const PAGE: u64 = 4096;
const WINDOW_BYTES: u64 = 1 << 20;
/// Longest record before a shard's bytes.
const MOST_META: u64 = 1 << 20;

/// A file, read in windows past the page cache.
pub(crate) struct Source<'a> {
    file: &'a dyn DiskFile,
    from: u64,
    window: Vec<u8>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile) -> Self {
        Self {
            file,
            from: 0,
            window: Vec::new(),
        }
    }

    /// Up to `len` bytes at `at`, fewer at the file's end.
    pub(crate) fn bytes(&mut self, at: u64, len: u64) -> io::Result<&[u8]> {
        let end = self.from + self.window.len() as u64;
        if at < self.from || at + len > end {
            self.from = at / PAGE * PAGE;
            let wanted = (at + len - self.from)
                .max(WINDOW_BYTES)
                .next_multiple_of(PAGE);
            self.window.resize(index(wanted), 0);
            let read = self.file.read_past_cache(&mut self.window, self.from)?;
            self.window.truncate(read);
        }
        let skip = index(at - self.from).min(self.window.len());
        let end = (skip + index(len)).min(self.window.len());
        Ok(&self.window[skip..end])
    }
}

fn index(of: u64) -> usize {
    usize::try_from(of).unwrap_or(usize::MAX)
}

/// What a volume holds.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Shards whose records are whole, or damaged with their key known, by
    /// place.
    pub(crate) entries: Vec<Entry>,
    /// Of those, the ones that are damaged.
    pub(crate) damaged: Vec<Entry>,
    /// Damaged stretches whose keys nobody knows.
    pub(crate) unknown: Vec<(u64, u64)>,
    /// Stretches that a crash left, followed by whole records of the same
    /// batch: nobody was answered.
    pub(crate) torn: Vec<(u64, u64)>,
    /// Where records end.
    pub(crate) tail: u64,
    pub(crate) extents_from: u64,
    /// A later record says that the volume was synced up to here.
    pub(crate) durable_to: u64,
    pub(crate) sealed: bool,
    /// The last record says that the disk was closed in order.
    pub(crate) closed: bool,
}

/// What stands at one place.
enum Seen {
    Whole(Head),
    /// The head is whole, the rest is not.
    Bad(Head),
    Nothing,
}

/// A stretch that is no whole record.
struct Stretch {
    from: u64,
    to: u64,
    known: Option<Entry>,
}

/// Finds all records of a volume.
pub(crate) fn scan(file: &dyn DiskFile, heading: &Heading) -> io::Result<Scanned> {
    let mut source = Source::new(file);
    let mut found = Scanned {
        tail: FIRST_RECORD,
        extents_from: heading.size,
        ..Scanned::default()
    };
    let mut stretches = Vec::new();
    let mut at = FIRST_RECORD;
    while !found.sealed && at < heading.size {
        match look(&mut source, heading, at)? {
            Seen::Whole(head) => {
                found.take(at, &head);
                // A seal may be written again where it is.
                found.tail = if found.sealed { at } else { at + head.span(at) };
                at += head.span(at);
            }
            Seen::Bad(head) => {
                let entry = head.kind.is_shard().then(|| entry(at, &head));
                let to = at + head.span(at);
                found.durable_to = found.durable_to.max(head.durable_to);
                found.closed = false;
                stretches.push(Stretch {
                    from: at,
                    to,
                    known: entry,
                });
                found.tail = to;
                at = to;
            }
            Seen::Nothing => match search(&mut source, heading, at)? {
                Some(next) => {
                    stretches.extend(stretch(&mut source, heading, at, next)?);
                    at = next;
                }
                None => break,
            },
        }
    }
    found.judge(stretches);
    Ok(found)
}

fn entry(at: u64, head: &Head) -> Entry {
    let extent = if head.kind == Kind::Extent {
        head.end.shard_len.next_multiple_of(PAGE)
    } else {
        0
    };
    Entry {
        blob: head.blob,
        index: head.index,
        at: at_of(at),
        span: u32::try_from(head.span(at)).unwrap_or(u32::MAX),
        extent: u32::try_from(extent).unwrap_or(u32::MAX),
    }
}

impl Scanned {
    fn take(&mut self, at: u64, head: &Head) {
        self.durable_to = self.durable_to.max(head.durable_to);
        self.closed = head.kind == Kind::End;
        match head.kind {
            Kind::Inline => self.entries.push(entry(at, head)),
            Kind::Extent => {
                self.entries.push(entry(at, head));
                self.extents_from = self.extents_from.min(head.data_at);
            }
            Kind::Seal => self.sealed = true,
            Kind::End | Kind::Void => {}
        }
        if matches!(head.kind, Kind::Seal | Kind::End) {
            self.extents_from = self.extents_from.min(head.data_at);
        }
    }

    /// What was synced is damaged; what was not is torn.
    fn judge(&mut self, stretches: Vec<Stretch>) {
        for Stretch { from, to, known } in stretches {
            match known {
                _ if from >= self.durable_to => self.torn.push((from, to)),
                Some(entry) => {
                    self.entries.push(entry);
                    self.damaged.push(entry);
                }
                None => self.unknown.push((from, to)),
            }
        }
        self.entries.sort_by_key(|entry| entry.at);
    }
}

fn look(source: &mut Source<'_>, heading: &Heading, at: u64) -> io::Result<Seen> {
    let bytes = source.bytes(at, HEAD_BYTES as u64)?;
    let Some(head) = decode_head(heading.salt, at, bytes) else {
        return Ok(Seen::Nothing);
    };
    if at + head.span(at) > heading.size {
        return Ok(Seen::Nothing);
    }
    if !head.kind.is_shard() {
        return Ok(Seen::Whole(head));
    }
    let bytes = source.bytes(at, u64::from(head.meta_len))?;
    let Ok(meta) = decode_meta(heading.salt, at, &head, bytes) else {
        return Ok(Seen::Bad(head));
    };
    if meta.header.key.group != heading.group {
        return Ok(Seen::Bad(head));
    }
    let len = head.end.shard_len;
    let whole = if head.kind == Kind::Extent {
        let mut extent = Source::new(source.file);
        let data = extent.bytes(head.data_at, len)?;
        first_bad_block(data, &meta.crcs).is_none()
    } else {
        let data = source.bytes(head.data_at, len)?;
        first_bad_block(data, &meta.crcs).is_none()
    };
    Ok(if whole {
        Seen::Whole(head)
    } else {
        Seen::Bad(head)
    })
}

/// The next whole head behind `at`.
fn search(source: &mut Source<'_>, heading: &Heading, at: u64) -> io::Result<Option<u64>> {
    let mut from = at;
    while from < heading.size {
        let window = source.bytes(from, WINDOW_BYTES)?;
        if window.len() < HEAD_BYTES {
            return Ok(None);
        }
        let mut skip = 0;
        while skip + HEAD_BYTES <= window.len() {
            let place = from + skip as u64;
            if place > at && decode_head(heading.salt, place, &window[skip..]).is_some() {
                return Ok(Some(place));
            }
            skip += RECORD_ALIGN as usize;
        }
        from += skip as u64;
    }
    Ok(None)
}

/// What lies between two records; nothing if it is only the way to the next
/// sector.
fn stretch(
    source: &mut Source<'_>,
    heading: &Heading,
    from: u64,
    to: u64,
) -> io::Result<Option<Stretch>> {
    if to == from.next_multiple_of(SECTOR) {
        let between = source.bytes(from, to - from)?;
        if between.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
    }
    let bytes = source.bytes(from, MOST_META.min(to - from))?;
    let key = header_at(bytes).filter(|key| key.group == heading.group);
    let known = key.map(|key| Entry {
        blob: key.blob,
        index: key.index,
        at: at_of(from),
        span: u32::try_from(to - from).unwrap_or(u32::MAX),
        extent: 0,
    });
    Ok(Some(Stretch { from, to, known }))
}

/// Whether a volume's group is that of its folder; for messages.
pub(crate) fn name(group: GroupId, sequence: u64) -> String {
    format!("volume {group}/{sequence:016x}")
}

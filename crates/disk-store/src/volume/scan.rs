//! The records of a volume, found from its bytes alone.
//!
//! Reads past the page cache, because after a failed fsync the cache shows
//! what the disk does not have.
//!
//! Invariant: what a write that never ended left is torn, anything else that
//! is not whole is damage. Such a write leaves sectors out, whole ones, where
//! zeroes were before; so of a record whose head is whole, some sector is zero
//! that the record does not say to be, and of one whose head is not, a sector
//! of that head. What a later record proves to have been synced, or the device
//! does not give, is damage whatever it shows. (`docs/formats.md` has the rule
//! with all that it rests on.)

use std::io;

use shardgate_wire::checksum::first_bad_block;
use shardgate_wire::ids::GroupId;

use super::format::{
    Entry, FIRST_RECORD, HEAD_BYTES, Head, Heading, Kind, LINK_SPAN, Linked, RECORD_ALIGN, SECTOR,
    decode_head, decode_meta, explains, header_at, is_linked, refuse_later, remains_of_link,
    zero_sectors,
};
use super::source::{BadSectors, Source, later};
use super::volume_state::at_of;
use crate::format::FormatError;
use crate::io::DiskFile;

const PAGE: u64 = 4096;
const WINDOW_BYTES: u64 = 1 << 20;
/// Longest record with its bytes.
const MOST_RECORD: u64 = 2 << 20;

/// What a volume holds.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Shards whose records are whole, or damaged with their key known, in the
    /// order in which they were written.
    pub(crate) entries: Vec<Entry>,
    /// Of those, the ones that are damaged.
    pub(crate) damaged: Vec<Entry>,
    /// Damaged stretches whose keys nobody knows.
    pub(crate) unknown: Vec<(u64, u64)>,
    /// Stretches that a crash left before the end of records: nobody was
    /// answered.
    pub(crate) torn: Vec<(u64, u64)>,
    /// The same with their places in the sequence, those of their links.
    placed: Vec<(u64, Entry)>,
    /// Where records end.
    pub(crate) tail: u64,
    pub(crate) extents_from: u64,
    /// A later record says that the volume was synced up to here.
    pub(crate) durable_to: u64,
    pub(crate) sealed: bool,
    /// The last record says that the disk was closed in order.
    pub(crate) closed: bool,
    /// Bytes that the device did not give.
    pub(crate) unread_bytes: u64,
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
    /// Where the record before it ends.
    behind: u64,
    from: u64,
    to: u64,
    known: Option<Entry>,
    /// Something in it may be of shards whose keys nobody knows.
    unknown: bool,
    /// A write that never ended can have left it.
    may_be_torn: bool,
}

struct Scan<'a> {
    heading: &'a Heading,
    /// Nothing is looked for from here on.
    end: u64,
    source: Source<'a>,
    /// Records and extents are read in turns.
    extents: Source<'a>,
}

/// Finds all records of a volume.
pub(crate) fn scan(file: &dyn DiskFile, heading: &Heading, bad: BadSectors) -> io::Result<Scanned> {
    scan_to(Source::new(file, bad)?, heading, heading.size)
}

/// Finds the records before `end`, of a volume that may grow behind it.
pub(crate) fn scan_to(source: Source<'_>, heading: &Heading, end: u64) -> io::Result<Scanned> {
    let mut scan = Scan {
        heading,
        end,
        extents: source.again(),
        source,
    };
    let mut found = Scanned {
        tail: FIRST_RECORD,
        extents_from: heading.size,
        ..Scanned::default()
    };
    let mut stretches = Vec::new();
    let mut at = FIRST_RECORD;
    while !found.sealed && at < end {
        match scan.look(at)? {
            Seen::Whole(head) => {
                found.take(at, &head);
                // A seal may be written again where it is.
                found.tail = if found.sealed { at } else { at + head.span(at) };
                at += head.span(at);
            }
            Seen::Bad(head) => {
                let to = at + head.span(at);
                found.take_extent(&head);
                found.durable_to = found.durable_to.max(head.durable_to);
                found.closed = false;
                stretches.push(scan.bad_record(at, &head)?);
                found.tail = to;
                at = to;
            }
            Seen::Nothing => match scan.search(at)? {
                Some(next) => {
                    let stretch = scan.stretch(at, next)?;
                    stretches.extend(stretch.inspect(|stretch| found.keep_extent(stretch)));
                    at = next;
                }
                None => {
                    if let Some(last) = scan.last(at)? {
                        found.tail = last.to;
                        found.closed = false;
                        found.keep_extent(&last);
                        stretches.push(last);
                    }
                    break;
                }
            },
        }
    }
    found.judge(stretches);
    // A volume has its length from the start.
    if !found.sealed && scan.source.len < heading.size {
        found.unknown.push((scan.source.len, heading.size));
    }
    found.unread_bytes = scan.source.unread_bytes() + scan.extents.unread_bytes();
    Ok(found)
}

impl Scanned {
    fn take(&mut self, at: u64, head: &Head) {
        self.durable_to = self.durable_to.max(head.durable_to);
        self.closed = head.kind == Kind::End;
        match head.kind {
            Kind::Inline | Kind::Link => self.placed.push((at, head.entry(at))),
            Kind::Seal => self.sealed = true,
            Kind::End | Kind::Void | Kind::LongVoid | Kind::Extent => {}
        }
        self.take_extent(head);
        if matches!(head.kind, Kind::Seal | Kind::End) {
            self.extents_from = self.extents_from.min(head.data_at);
        }
    }

    fn take_extent(&mut self, link: &Head) {
        if let Some(Linked { at, .. }) = link.linked() {
            self.extents_from = self.extents_from.min(at / PAGE * PAGE);
        }
    }

    /// The same by a link that is damaged.
    fn keep_extent(&mut self, stretch: &Stretch) {
        let known = stretch.known.filter(|entry| entry.offset() >= stretch.to);
        if let Some(entry) = known {
            let at = entry.offset() / PAGE * PAGE;
            self.extents_from = self.extents_from.min(at);
        }
    }

    /// What was synced is damaged, whatever it shows.
    fn judge(&mut self, stretches: Vec<Stretch>) {
        for stretch in stretches {
            let Stretch {
                behind, from, to, ..
            } = stretch;
            if from >= self.durable_to && stretch.may_be_torn {
                match self.torn.last_mut() {
                    Some((_, end)) if behind == *end => *end = to,
                    _ => self.torn.push((from, to)),
                }
                continue;
            }
            if let Some(entry) = stretch.known {
                self.placed.push((from, entry));
                self.damaged.push(entry);
            }
            if stretch.unknown {
                self.unknown.push((from, to));
            }
        }
        self.placed.sort_by_key(|(place, _)| *place);
        let placed = std::mem::take(&mut self.placed);
        self.entries = placed.into_iter().map(|(_, entry)| entry).collect();
    }
}

impl Scan<'_> {
    fn look(&mut self, at: u64) -> io::Result<Seen> {
        let bytes = self.source.bytes(at, HEAD_BYTES as u64)?;
        refuse_later(self.heading, at, bytes).map_err(|error| later("record", &error))?;
        let Some(head) = head_in_sequence(self.heading, at, bytes) else {
            return Ok(Seen::Nothing);
        };
        let whole = match head.kind {
            Kind::Inline => is_whole(&mut self.source, self.heading, at, &head)?,
            Kind::Link => self.is_link_whole(&head)?,
            _ => true,
        };
        Ok(if whole {
            Seen::Whole(head)
        } else {
            Seen::Bad(head)
        })
    }

    /// Whether a link is of a whole record.
    fn is_link_whole(&mut self, link: &Head) -> io::Result<bool> {
        let Some(Linked { at, .. }) = link.linked() else {
            return Ok(false);
        };
        // All of it, so that it is read at once.
        let end = link.data_at + link.end.shard_len;
        let bytes = self.extents.bytes(at, end - at)?;
        let Some(head) = decode_head(self.heading, at, bytes) else {
            return Ok(false);
        };
        let is_its = is_linked(link, at, &head, bytes);
        Ok(is_its && is_whole(&mut self.extents, self.heading, at, &head)?)
    }

    /// A record whose head is whole, and the rest is not.
    fn bad_record(&mut self, at: u64, head: &Head) -> io::Result<Stretch> {
        Ok(Stretch {
            behind: at,
            from: at,
            to: at + head.span(at),
            known: Some(head.entry(at)),
            unknown: false,
            may_be_torn: self.lacks_sectors(at, head)?,
        })
    }

    /// Whether sectors of a record are missing: one before its bytes, or more
    /// of its bytes are zero than it says. A link is whole with its head, so
    /// they are those of what it is of.
    fn lacks_sectors(&mut self, at: u64, head: &Head) -> io::Result<bool> {
        let (source, at, meta_len) = match head.linked() {
            Some(linked) => (&mut self.extents, linked.at, linked.meta_len),
            None => (&mut self.source, at, head.meta_len),
        };
        let (meta_end, len) = (at + u64::from(meta_len), head.end.shard_len);
        let zeroes = zero_sectors(source.bytes(head.data_at, len)?, head.data_at);
        let lacks = zeroes > head.zeroes || has_zero_sector(source, at, meta_end)?;
        let is_unread =
            source.is_unread(at, meta_end) || source.is_unread(head.data_at, head.data_at + len);
        Ok(lacks && !is_unread)
    }

    /// The next whole head behind `at`. What looks like one of a later version
    /// is passed over here: it may be bytes of a shard, which must not keep the
    /// disk from opening.
    fn search(&mut self, at: u64) -> io::Result<Option<u64>> {
        let mut from = at;
        while from < self.end {
            let window = self.source.bytes(from, WINDOW_BYTES)?;
            if window.len() < HEAD_BYTES {
                return Ok(None);
            }
            let mut skip = 0;
            while skip + HEAD_BYTES <= window.len() {
                let place = from + skip as u64;
                if place >= self.end {
                    return Ok(None);
                }
                if place > at && head_in_sequence(self.heading, place, &window[skip..]).is_some() {
                    return Ok(Some(place));
                }
                skip += RECORD_ALIGN as usize;
            }
            from += skip as u64;
        }
        Ok(None)
    }

    /// Where the next record begins if there is one: where the one before
    /// ends, or at the next sector if it was the last of its batch.
    fn next_record(&mut self, at: u64) -> io::Result<u64> {
        let sector = at.next_multiple_of(SECTOR);
        Ok(if self.is_zero(at, sector)? {
            sector
        } else {
            at
        })
    }

    /// Whether the record that begins at `from` or behind has no whole head
    /// because a sector of it is missing.
    fn lacks_head(&mut self, from: u64) -> io::Result<bool> {
        let to = self.next_record(from)? + HEAD_BYTES as u64;
        has_zero_sector(&mut self.source, from, to)
    }

    /// What lies between two records; nothing if it is only the way to the
    /// next sector.
    fn stretch(&mut self, from: u64, to: u64) -> io::Result<Option<Stretch>> {
        if to == from.next_multiple_of(SECTOR) && self.is_zero(from, to)? {
            return Ok(None);
        }
        Ok(Some(self.headless(from, to)?))
    }

    /// What lies behind the last record that has a whole head; nothing if
    /// nothing was written there, or no more is left of it than what the
    /// volume's end is written over.
    fn last(&mut self, at: u64) -> io::Result<Option<Stretch>> {
        let from = self.next_record(at)?;
        if from >= self.end.min(self.source.len) {
            return Ok(None);
        }
        let mut to = (from + 1).next_multiple_of(SECTOR);
        if self.lacks_head(at)? {
            // The end comes to the start of a sector: what is left of a head
            // before it is not covered by it.
            let is_before_end = !from.is_multiple_of(SECTOR);
            return is_before_end.then(|| self.headless(at, to)).transpose();
        }
        while to < self.end && !self.is_zero(to, to + SECTOR)? {
            to += SECTOR;
        }
        self.headless(at, to).map(Some)
    }

    fn is_zero(&mut self, from: u64, to: u64) -> io::Result<bool> {
        let bytes = self.source.bytes(from, to - from)?;
        let zero = bytes.iter().all(|byte| *byte == 0);
        Ok(zero && !self.source.is_unread(from, to))
    }

    /// The entry of the one link that a stretch was, if enough is left of it.
    ///
    /// Of a link that was lost with its sector nothing tells which it was, nor
    /// that it was one: short shards may have been there as well, whose keys
    /// are nowhere else. Nor do the extents tell, though every link is of one:
    /// those of shards that were given up look like one whose link is gone. So
    /// any key may have been in such a stretch, and none is absent.
    fn damaged_link(&mut self, from: u64, to: u64) -> io::Result<Option<Entry>> {
        let head_end = from + HEAD_BYTES as u64;
        let span = head_end..=(from + LINK_SPAN).next_multiple_of(SECTOR);
        if !span.contains(&to) || !self.is_zero(head_end, to)? {
            return Ok(None);
        }
        let bytes = self.source.bytes(from, HEAD_BYTES as u64)?;
        let Some(remains) = remains_of_link(self.heading, from, bytes) else {
            return Ok(None);
        };
        let record = self
            .extents
            .bytes(remains.at, u64::from(remains.meta_len))?;
        let link = remains.link(self.heading, record);
        Ok(link.map(|link| link.entry(from)))
    }

    /// A stretch without a whole head.
    fn headless(&mut self, behind: u64, to: u64) -> io::Result<Stretch> {
        let may_be_torn = self.lacks_head(behind)?;
        // A sector with what was answered is not written again.
        let from = self.next_record(behind)?;
        if let Some(entry) = self.damaged_link(from, to)? {
            return Ok(Stretch {
                behind,
                from,
                to,
                known: Some(entry),
                unknown: false,
                may_be_torn,
            });
        }
        let bytes = self.source.bytes(from, MOST_RECORD.min(to - from))?;
        let key = header_at(bytes).filter(|key| key.group == self.heading.group);
        // More than one record may be gone.
        let unknown = key.is_none() || bytes.len() as u64 != to - from || !explains(bytes);
        let known = key.map(|key| Entry {
            blob: key.blob,
            index: key.index,
            at: at_of(from),
            span: u32::try_from(to - from).unwrap_or(u32::MAX),
            besides: 0,
        });
        Ok(Stretch {
            behind,
            from,
            to,
            known,
            unknown,
            may_be_torn,
        })
    }
}

/// The head of a record of the sequence. What lies in an extent counts by its
/// link alone.
fn head_in_sequence(heading: &Heading, at: u64, bytes: &[u8]) -> Option<Head> {
    decode_head(heading, at, bytes).filter(|head| head.kind.is_in_sequence())
}

/// Whether a record with this head is whole, its bytes too.
fn is_whole(source: &mut Source<'_>, heading: &Heading, at: u64, head: &Head) -> io::Result<bool> {
    let bytes = source.bytes(at, u64::from(head.meta_len))?;
    let meta = match decode_meta(heading.salt, at, head, bytes) {
        Ok(meta) => meta,
        Err(error @ FormatError::Version { .. }) => return Err(later("record", &error)),
        Err(_) => return Ok(false),
    };
    let data = source.bytes(head.data_at, head.end.shard_len)?;
    Ok(meta.header.key.group == heading.group
        && data.len() as u64 == head.end.shard_len
        && first_bad_block(data, &meta.crcs).is_none())
}

/// Whether a sector that a range touches is all zeroes.
fn has_zero_sector(source: &mut Source<'_>, from: u64, to: u64) -> io::Result<bool> {
    let mut at = from / SECTOR * SECTOR;
    while at < to {
        let sector = source.bytes(at, SECTOR)?;
        let whole = sector.len() as u64 == SECTOR;
        let is_zero = whole && sector.iter().all(|byte| *byte == 0);
        if is_zero && !source.is_unread(at, at + SECTOR) {
            return Ok(true);
        }
        at += SECTOR;
    }
    Ok(false)
}

/// Whether a volume's group is that of its folder; for messages.
pub(crate) fn name(group: GroupId, sequence: u64) -> String {
    format!("volume {group}/{sequence:016x}")
}

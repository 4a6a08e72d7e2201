//! The disk's log of deletes, adopted volumes and notes.
//!
//! A segment begins with everything that holds; until that is whole and ended
//! by [`LogEntry::Begun`], the segment before counts. Invariant: no bytes are
//! appended to a segment that an earlier run wrote.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use shardgate_wire::DiskIdentity;
use shardgate_wire::ids::GroupId;

use super::format::{
    BATCH_MAGIC, Claims, FIRST_RECORD, HEADING_COPY, Heading, LogEntry, MAX_BATCH_BYTES, SECTOR,
    batch_claims, batches, decode_batch, decode_heading, encode_batch, encode_heading,
};
use super::place::{LOG, log_file, parse_log_file};
use super::source::{BadSectors, Source, is_bad_medium, later};
use crate::condition::Doing;
use crate::format::FormatError;
use crate::io::{DiskFile, DiskIo, OpenHow};

/// A segment is zeroed in steps of this.
const ZERO_STEP: u64 = if cfg!(test) { 64 << 10 } else { 1 << 20 };

/// What the system refused, and what was being done.
pub(crate) type Refused = (Doing, io::Error);

/// The segment that is written.
#[derive(Debug)]
pub(crate) struct Logbook {
    pub(crate) sequence: u64,
    salt: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    tail: u64,
    durable_to: u64,
    zeroed_to: u64,
    /// Where it ended when it began.
    begun_at: u64,
    /// A write was refused: what lies behind its end is unknown.
    pub(crate) broken: bool,
}

/// What a segment that is written has on the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) sequence: u64,
    pub(crate) salt: u64,
    /// Everything before it was synced.
    pub(crate) durable_to: u64,
    /// Length of the file at least.
    pub(crate) len: u64,
}

impl Logbook {
    /// Makes a segment that holds `entries`, durably.
    pub(crate) fn begin(
        io: &dyn DiskIo,
        disk: &DiskIdentity,
        sequence: u64,
        salt: u64,
        entries: Vec<LogEntry>,
    ) -> Result<Self, Refused> {
        let written = Self::write_first(io, disk, sequence, salt, entries);
        let mut log = written.inspect_err(|(doing, _)| {
            // It never began. What was refused would be in the way of the
            // next one, and take space that a full disk does not have.
            if *doing == Doing::Writing {
                let _ = io.remove(&log_file(sequence));
            }
        })?;
        let synced = log.file.sync_all();
        let synced = synced.and_then(|()| io.sync_dir(Path::new(LOG)));
        synced.map_err(|error| (Doing::Syncing, error))?;
        log.synced();
        log.begun_at = log.tail;
        Ok(log)
    }

    fn write_first(
        io: &dyn DiskIo,
        disk: &DiskIdentity,
        sequence: u64,
        salt: u64,
        mut entries: Vec<LogEntry>,
    ) -> Result<Self, Refused> {
        let writing = |error| (Doing::Writing, error);
        let syncing = |error| (Doing::Syncing, error);
        let file = io
            .open(&log_file(sequence), OpenHow::CreateNew)
            .map_err(writing)?;
        let heading = encode_heading(&Heading {
            cluster: disk.cluster,
            disk: disk.disk,
            group: GroupId(0),
            sequence,
            salt,
            size: 0,
        });
        let headed = || -> io::Result<()> {
            file.allocate_zeroed(0, ZERO_STEP)?;
            file.write_at(&[IoSlice::new(&heading)], 0)?;
            file.write_at(&[IoSlice::new(&heading)], HEADING_COPY)
        };
        headed().map_err(writing)?;
        let mut log = Self {
            sequence,
            salt,
            file,
            tail: FIRST_RECORD,
            durable_to: FIRST_RECORD,
            zeroed_to: ZERO_STEP,
            begun_at: 0,
            broken: false,
        };
        entries.insert(0, LogEntry::Room { to: ZERO_STEP });
        log.append(&entries)?;
        // That the segment counts is said only once all of it is there, the
        // zeroes behind it too: they tell a torn batch from a damaged one.
        log.file.sync_all().map_err(syncing)?;
        log.synced();
        log.append(&[LogEntry::Begun])?;
        Ok(log)
    }

    /// Writes batches; durable after a sync of the file.
    pub(crate) fn append(&mut self, entries: &[LogEntry]) -> Result<(), Refused> {
        for batch in batches(entries) {
            self.append_batch(batch)?;
        }
        Ok(())
    }

    fn append_batch(&mut self, entries: &[LogEntry]) -> Result<(), Refused> {
        let mut bytes = encode_batch(self.salt, self.tail, self.durable_to, entries);
        // The next batch's head is in what the last one said there is: a file
        // that was cut then ends before what its last batch says.
        let needed = self.tail + bytes.len() as u64 + 2 * SECTOR;
        if needed > self.zeroed_to {
            self.grow(needed - self.zeroed_to)?;
            let to = self.zeroed_to;
            let with_room: Vec<_> = [LogEntry::Room { to }]
                .into_iter()
                .chain(entries.iter().cloned())
                .collect();
            bytes = encode_batch(self.salt, self.tail, self.durable_to, &with_room);
        }
        let written = self.file.write_at(&[IoSlice::new(&bytes)], self.tail);
        if let Err(error) = written {
            self.broken = true;
            return Err((Doing::Writing, error));
        }
        self.tail += bytes.len() as u64;
        Ok(())
    }

    /// Makes the file longer, durably, before a batch says so.
    fn grow(&mut self, bytes: u64) -> Result<(), Refused> {
        let len = bytes.next_multiple_of(ZERO_STEP);
        let grown = self.file.allocate_zeroed(self.zeroed_to, len);
        grown.map_err(|error| (Doing::Writing, error))?;
        let synced = self.file.sync_data();
        synced.map_err(|error| (Doing::Syncing, error))?;
        self.zeroed_to += len;
        Ok(())
    }

    /// How far it is.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            sequence: self.sequence,
            salt: self.salt,
            durable_to: self.durable_to,
            len: self.zeroed_to,
        }
    }

    /// Everything written is durable now.
    pub(crate) fn synced(&mut self) {
        self.durable_to = self.tail;
    }

    /// Bytes written since it began.
    pub(crate) fn grown(&self) -> u64 {
        self.tail - self.begun_at
    }
}

/// What the log says.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) entries: Vec<LogEntry>,
    /// The disk was closed in order.
    pub(crate) clean: bool,
    /// Number of the next segment.
    pub(crate) next: u64,
    /// All segments there are.
    pub(crate) segments: Vec<u64>,
    /// One of them began.
    pub(crate) begun: bool,
    /// Deletes and notes may be missing.
    pub(crate) lost: bool,
    /// What is wrong with it.
    pub(crate) findings: Vec<String>,
}

/// Reads the newest segment that began; synced first where `writable`. One
/// that takes no writes is read without the sectors that are bad.
pub(crate) fn load(
    io: &dyn DiskIo,
    disk: &DiskIdentity,
    writable: bool,
) -> Result<Loaded, Refused> {
    let reading = |error| (Doing::Reading, error);
    let mut loaded = Loaded::default();
    let found = match io.read_dir(Path::new(LOG)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(loaded),
        Err(error) if !writable && is_bad_medium(&error) => {
            loaded.findings.push(format!("log: {error}"));
            loaded.lost = true;
            return Ok(loaded);
        }
        found => found.map_err(reading)?,
    };
    let name = |name: &std::ffi::OsStr| name.to_str().and_then(parse_log_file);
    loaded.segments = found.iter().filter_map(|e| name(&e.name)).collect();
    loaded.segments.sort_unstable();
    loaded.next = loaded.segments.last().map_or(1, |last| last + 1);
    let mut newest: Option<Segment> = None;
    for sequence in loaded.segments.iter().rev() {
        let how = match writable {
            true => OpenHow::ReadWrite,
            false => OpenHow::Read,
        };
        let file = match io.open(&log_file(*sequence), how) {
            Err(error) if !writable && is_bad_medium(&error) => {
                loaded
                    .findings
                    .push(format!("log segment {sequence:016x}: {error}"));
                loaded.lost = true;
                continue;
            }
            file => file.map_err(reading)?,
        };
        if writable {
            file.sync_all().map_err(|error| (Doing::Syncing, error))?;
        }
        let bad = BadSectors::for_disk(writable);
        let segment = read_segment(&*file, disk, *sequence, bad).map_err(reading)?;
        if segment.begun {
            loaded.begun = true;
            // Later ones never began: nothing in them was answered.
            loaded.findings = segment.findings;
            loaded.lost = !loaded.findings.is_empty();
            let last = segment.entries.last();
            loaded.clean = last == Some(&LogEntry::Clean) && !loaded.lost;
            loaded.entries = segment.entries;
            return Ok(loaded);
        }
        loaded.findings.extend(segment.findings.iter().cloned());
        loaded.lost |= segment.used;
        newest.get_or_insert(segment);
    }
    // None says that it began. What they say holds, if it is not all.
    loaded.entries = newest.map(|newest| newest.entries).unwrap_or_default();
    Ok(loaded)
}

#[derive(Default)]
struct Segment {
    entries: Vec<LogEntry>,
    begun: bool,
    /// It has more than one batch: what came before the last was synced.
    used: bool,
    findings: Vec<String>,
}

impl Segment {
    fn damaged(&mut self, sequence: u64, what: impl std::fmt::Display) {
        self.findings.push(format!(
            "log segment {sequence:016x} {what}: deletes may be missing"
        ));
    }
}

fn read_segment(
    file: &dyn DiskFile,
    disk: &DiskIdentity,
    sequence: u64,
    bad: BadSectors,
) -> io::Result<Segment> {
    let mut segment = Segment::default();
    let mut source = Source::new(file, bad)?;
    let Some(heading) = read_heading(&mut source)? else {
        segment.damaged(sequence, "has no heading");
        segment.used = has_batches(&mut source)?;
        return Ok(segment);
    };
    if !heading.is_of(disk, GroupId(0), sequence) {
        segment.damaged(sequence, "is of another disk or number");
        return Ok(segment);
    }
    let (mut at, mut durable_to, mut gaps) = (FIRST_RECORD, 0, Vec::new());
    let mut end = at;
    while at < source.len {
        let most = MAX_BATCH_BYTES as u64 + SECTOR;
        let head = source.bytes(at, SECTOR)?;
        let starts = head.starts_with(BATCH_MAGIC);
        // No more than it takes: what is read ahead of one batch would be read
        // again ahead of the next.
        let takes = match batch_claims(heading.salt, at, head) {
            Claims::Bytes(len) => len.min(most),
            Claims::Something | Claims::Nothing => most,
        };
        let decoded = if starts {
            decode_batch(heading.salt, at, source.bytes(at, takes)?)
        } else {
            Ok(None)
        };
        match decoded {
            Ok(Some(batch)) => {
                if at > end {
                    gaps.push((end, at));
                }
                durable_to = durable_to.max(batch.durable_to);
                at += batch.span;
                end = at;
                segment.entries.extend(batch.entries);
            }
            Ok(None) => at += SECTOR,
            Err(error) => return Err(later("log", &error)),
        }
    }
    for (from, to) in gaps.into_iter().filter(|(from, _)| *from < durable_to) {
        segment.damaged(sequence, format_args!("is damaged from {from} to {to}"));
    }
    if !is_end(&mut source, heading.salt, end)? {
        segment.damaged(sequence, format_args!("is damaged from {end} on"));
    }
    let room = segment.entries.iter().filter_map(|entry| match entry {
        LogEntry::Room { to } => Some(*to),
        _ => None,
    });
    if let Some(room) = room.max().filter(|room| *room > source.len) {
        let cut = format_args!("was cut from {room} bytes to {}", source.len);
        segment.findings.push(format!(
            "log segment {sequence:016x} {cut}: deletes may be missing"
        ));
    }
    // A batch that says that one before it was synced proves it as well.
    segment.begun = segment.entries.contains(&LogEntry::Begun) || durable_to > FIRST_RECORD;
    Ok(segment)
}

/// Whether a segment whose salt is not known has more than one batch.
fn has_batches(source: &mut Source<'_>) -> io::Result<bool> {
    let (mut at, mut heads) = (FIRST_RECORD, 0);
    while at < source.len && heads < 2 {
        let sector = source.bytes(at, SECTOR)?;
        heads += u32::from(sector.starts_with(BATCH_MAGIC));
        at += SECTOR;
    }
    Ok(heads > 1)
}

/// Whether the log can end at `at`: nothing follows, or a batch of which a
/// sector is missing, which nobody was answered.
fn is_end(source: &mut Source<'_>, salt: u64, at: u64) -> io::Result<bool> {
    fn missing(source: &mut Source<'_>, at: u64) -> io::Result<bool> {
        let sector = source.bytes(at, SECTOR)?;
        let zero = sector.iter().all(|byte| *byte == 0);
        Ok(zero && !source.is_unread(at, at + SECTOR))
    }
    if missing(source, at)? {
        return Ok(true);
    }
    match batch_claims(salt, at, source.bytes(at, SECTOR)?) {
        Claims::Bytes(len) => {
            let mut next = at + SECTOR;
            while next < (at + len).min(source.len) {
                if missing(source, next)? {
                    return Ok(true);
                }
                next += SECTOR;
            }
            Ok(false)
        }
        Claims::Something => Ok(true),
        Claims::Nothing => Ok(false),
    }
}

/// Either copy of a file's heading. One of a later version is an error: what
/// follows it is not damaged, and must not be taken for it.
pub(crate) fn read_heading(source: &mut Source<'_>) -> io::Result<Option<Heading>> {
    for at in [0, HEADING_COPY] {
        let bytes = source.bytes(at, HEADING_COPY)?;
        match decode_heading(bytes) {
            Ok(heading) => return Ok(Some(heading)),
            Err(error @ FormatError::Version { .. }) => return Err(later("heading", &error)),
            Err(_) => {}
        }
    }
    Ok(None)
}

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
    FIRST_RECORD, HEADING_COPY, Heading, LogEntry, MAX_BATCH_BYTES, SECTOR, decode_batch,
    decode_heading, encode_batch, encode_heading,
};
use super::place::{LOG, log_file, parse_log_file};
use super::scan::Source;
use crate::condition::Doing;
use crate::io::{DiskFile, DiskIo, OpenHow};

/// A segment is zeroed in steps of this.
const ZERO_STEP: u64 = 1 << 20;

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

impl Logbook {
    /// Makes a segment that holds `entries`, durably.
    pub(crate) fn begin(
        io: &dyn DiskIo,
        disk: &DiskIdentity,
        sequence: u64,
        salt: u64,
        entries: Vec<LogEntry>,
    ) -> Result<Self, (Doing, io::Error)> {
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
    ) -> Result<Self, (Doing, io::Error)> {
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
        entries.push(LogEntry::Begun);
        let batches = batches(&entries);
        let Some((last, before)) = batches.split_last() else {
            return Ok(log);
        };
        for batch in before {
            log.append(batch).map_err(writing)?;
        }
        if !before.is_empty() {
            // The last one says that the segment counts: not before all of it
            // is there.
            log.file.sync_all().map_err(syncing)?;
            log.synced();
        }
        log.append(last).map_err(writing)?;
        Ok(log)
    }

    /// Writes a batch; durable after a sync of the file.
    pub(crate) fn append(&mut self, entries: &[LogEntry]) -> io::Result<()> {
        let bytes = encode_batch(self.salt, self.tail, self.durable_to, entries);
        let end = self.tail + bytes.len() as u64;
        if end > self.zeroed_to {
            let len = (end - self.zeroed_to).next_multiple_of(ZERO_STEP);
            self.file.allocate_zeroed(self.zeroed_to, len)?;
            self.zeroed_to += len;
        }
        let written = self.file.write_at(&[IoSlice::new(&bytes)], self.tail);
        if let Err(error) = written {
            self.broken = true;
            return Err(error);
        }
        self.tail = end;
        Ok(())
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

/// Cuts entries into batches that are not too long.
fn batches(entries: &[LogEntry]) -> Vec<&[LogEntry]> {
    let weight = |entry: &LogEntry| match entry {
        LogEntry::Dead { at, .. } => 32 + 4 * at.len(),
        LogEntry::Note { payload, .. } => 64 + payload.len(),
        LogEntry::Adopt { of, .. } => 64 + 8 * of.len(),
        _ => 64,
    };
    let (mut cut, mut from, mut sum) = (Vec::new(), 0, 0);
    for (at, entry) in entries.iter().enumerate() {
        sum += weight(entry);
        if sum > MAX_BATCH_BYTES / 2 && at > from {
            cut.push(&entries[from..at]);
            (from, sum) = (at, weight(entry));
        }
    }
    cut.push(&entries[from..]);
    cut
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
    /// What is wrong with it.
    pub(crate) findings: Vec<String>,
}

/// Reads the newest segment that began; synced first where `writable`.
pub(crate) fn load(io: &dyn DiskIo, disk: &DiskIdentity, writable: bool) -> io::Result<Loaded> {
    let mut loaded = Loaded::default();
    let found = match io.read_dir(Path::new(LOG)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(loaded),
        found => found?,
    };
    let name = |name: &std::ffi::OsStr| name.to_str().and_then(parse_log_file);
    loaded.segments = found.iter().filter_map(|e| name(&e.name)).collect();
    loaded.segments.sort_unstable();
    loaded.next = loaded.segments.last().map_or(1, |last| last + 1);
    for sequence in loaded.segments.iter().rev() {
        let how = if writable {
            OpenHow::ReadWrite
        } else {
            OpenHow::Read
        };
        let file = io.open(&log_file(*sequence), how)?;
        if writable {
            file.sync_all()?;
        }
        let segment = read_segment(&*file, disk, *sequence)?;
        if segment.begun {
            loaded.clean = segment.entries.last() == Some(&LogEntry::Clean);
            loaded.entries = segment.entries;
            loaded.findings.extend(segment.findings);
            return Ok(loaded);
        }
        // One that never began has nothing that was answered, unless it is
        // damaged: then those before it are all there is.
        loaded.findings.extend(segment.findings);
    }
    Ok(loaded)
}

#[derive(Default)]
struct Segment {
    entries: Vec<LogEntry>,
    begun: bool,
    findings: Vec<String>,
}

fn read_segment(file: &dyn DiskFile, disk: &DiskIdentity, sequence: u64) -> io::Result<Segment> {
    let mut segment = Segment::default();
    let mut source = Source::new(file);
    let Some(heading) = read_heading(&mut source)? else {
        return Ok(segment);
    };
    if !heading.is_of(disk, GroupId(0), sequence) {
        segment.findings.push(format!(
            "log segment {sequence:016x} is of another disk or number"
        ));
        return Ok(segment);
    }
    let len = file.len()?;
    let (mut at, mut durable_to, mut gaps) = (FIRST_RECORD, 0, Vec::new());
    let mut end = at;
    while at < len {
        let most = MAX_BATCH_BYTES as u64 + SECTOR;
        let head = source.bytes(at, SECTOR)?;
        let starts = head.starts_with(b"SG.dbat\0");
        let decoded = if starts {
            decode_batch(heading.salt, at, source.bytes(at, most)?)
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
            Err(error) => return Err(io::Error::other(format!("log: {error}"))),
        }
    }
    for (from, to) in gaps.into_iter().filter(|(from, _)| *from < durable_to) {
        segment.findings.push(format!(
            "log segment {sequence:016x} is damaged from {from} to {to}: deletes may be missing"
        ));
    }
    // A batch that says that one before it was synced proves it as well.
    segment.begun = segment.entries.contains(&LogEntry::Begun) || durable_to > FIRST_RECORD;
    Ok(segment)
}

/// Either copy of a file's heading.
pub(crate) fn read_heading(source: &mut Source<'_>) -> io::Result<Option<Heading>> {
    for at in [0, HEADING_COPY] {
        let bytes = source.bytes(at, HEADING_COPY)?;
        if let Ok(heading) = decode_heading(bytes) {
            return Ok(Some(heading));
        }
    }
    Ok(None)
}

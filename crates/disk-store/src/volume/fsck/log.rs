//! Checking the log: what the segment that is written has, as far as it was
//! synced.
//!
//! Other segments say nothing: they are void, or about to go.

use std::io;

use shardgate_wire::StoreError;

use super::Engine;
use crate::checking::Report;
use crate::io::OpenHow;
use crate::volume::format::{
    BATCH_MAGIC, Claims, FIRST_RECORD, HEADING_COPY, Heading, MAX_BATCH_BYTES, SECTOR,
    batch_claims, decode_batch, decode_heading,
};
use crate::volume::logbook::Standing;
use crate::volume::place::log_file;
use crate::volume::source::{BadSectors, GiveWay, Source};

/// A part ends at multiples of this: what is read at once is used.
const STRIDE: u64 = 1 << 20;

/// A place in a segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogPlace {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

/// How far the log was read.
enum Read {
    /// Up to here; there is more.
    To(u64),
    All,
}

impl Engine {
    /// Says what was lost of the log before it was opened; true if something
    /// was.
    pub(crate) fn report_lost_log(&self, report: &mut Report) -> bool {
        let lost = self.state.read().incomplete;
        if lost {
            let what = "part of it was lost: deletes and notes may be missing";
            report.find("log", None, what);
        }
        lost
    }

    /// What was lost stays lost: what is left is taken for all there is from
    /// here on.
    pub(crate) fn accept_lost_log(&self) -> Result<(), StoreError> {
        let mut writer = self.writing();
        self.condition.check_writable()?;
        self.state.write().incomplete = false;
        let renewed = self.renew_log(&mut writer);
        self.state.write().incomplete = renewed.is_err();
        renewed
    }

    /// Reads the log from `from` on until enough was read; where to go on.
    pub(crate) fn check_log(
        &self,
        report: &mut Report,
        from: Option<LogPlace>,
        way: &dyn GiveWay,
    ) -> Result<Option<LogPlace>, StoreError> {
        let Some(held) = self.log_standing() else {
            return Ok(None); // on a disk that takes no writes
        };
        if from.is_some_and(|from| from.segment != held.sequence) {
            return Ok(None); // begun anew since the last part
        }
        let from = from.map_or(FIRST_RECORD, |from| from.offset.max(FIRST_RECORD));
        let mut found = Vec::new();
        let read = self.read_log(&held, from, way, &mut found);
        let is_same = self.log_standing().map(|now| now.sequence) == Some(held.sequence);
        if !is_same {
            return Ok(None);
        }
        let place = log_file(held.sequence);
        let place = place.to_string_lossy();
        for what in found {
            report.find(&place, None, what);
        }
        match read {
            Ok(Read::All) => Ok(None),
            Ok(Read::To(offset)) => Ok(Some(LogPlace {
                segment: held.sequence,
                offset,
            })),
            // A renewal that was fenced half-way: the next segment holds all.
            Err(error) if is_gone(&error) && self.condition.fenced().is_some() => Ok(None),
            Err(error) => {
                report.find(&place, None, self.unchecked(&error)?);
                Ok(None)
            }
        }
    }

    fn log_standing(&self) -> Option<Standing> {
        let writer = self.writing();
        writer.log.as_ref().map(|log| log.standing())
    }

    fn read_log(
        &self,
        held: &Standing,
        from: u64,
        way: &dyn GiveWay,
        found: &mut Vec<String>,
    ) -> io::Result<Read> {
        let file = self.io.open(&log_file(held.sequence), OpenHow::Read)?;
        let mut source = Source::new(&*file, BadSectors::PassOver)?.giving_way(way);
        if from == FIRST_RECORD {
            if source.len < held.len {
                let what = format!("it was cut from {} bytes to {}", held.len, source.len);
                found.push(what);
            }
            let own = |heading: &Heading| {
                (heading.disk, heading.sequence, heading.salt)
                    == (self.identity.disk, held.sequence, held.salt)
            };
            check_headings(&mut source, &own, found)?;
        }
        let (mut at, mut gap) = (from, None);
        while at < held.durable_to {
            let before = at;
            match batch_span(&mut source, held.salt, at)? {
                Some(span) => {
                    say_gap(gap.take(), at, found);
                    at += span;
                }
                None => {
                    gap.get_or_insert(at);
                    at += SECTOR;
                }
            }
            // Not within a gap: it would be told twice.
            let may_end = gap.is_none() && at < held.durable_to;
            if may_end && at / STRIDE > before / STRIDE && way.is_spent() {
                return Ok(Read::To(at));
            }
        }
        say_gap(gap, held.durable_to, found);
        if source.unread_bytes() > 0 {
            found.push(format!("{} bytes cannot be read", source.unread_bytes()));
        }
        Ok(Read::All)
    }

    /// What an error of the system says of what is checked; an error if it
    /// says nothing of it.
    pub(super) fn unchecked(&self, error: &io::Error) -> Result<String, StoreError> {
        if is_gone(error) {
            return Ok("the file is gone".into());
        }
        match self.unread(error) {
            StoreError::Io { .. } => Ok(format!("it cannot be read: {error}")),
            error => Err(error),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn say_gap(gap: Option<u64>, to: u64, found: &mut Vec<String>) {
    if let Some(from) = gap {
        found.push(format!("bytes {from} to {to} are no batch"));
    }
}

/// Says which copies of a file's heading are not its own.
pub(super) fn check_headings(
    source: &mut Source<'_>,
    own: &dyn Fn(&Heading) -> bool,
    found: &mut Vec<String>,
) -> io::Result<()> {
    for at in [0, HEADING_COPY] {
        match decode_heading(source.bytes(at, HEADING_COPY)?) {
            Ok(heading) if own(&heading) => {}
            Ok(_) => found.push(format!("its heading at {at} is that of another file")),
            Err(error) => found.push(format!("its heading at {at}: {error}")),
        }
    }
    Ok(())
}

/// Bytes to the next batch, if a whole one is at `at`.
fn batch_span(source: &mut Source<'_>, salt: u64, at: u64) -> io::Result<Option<u64>> {
    let head = source.bytes(at, SECTOR)?;
    if !head.starts_with(BATCH_MAGIC) {
        return Ok(None);
    }
    let len = match batch_claims(salt, at, head) {
        Claims::Bytes(len) => len.min(MAX_BATCH_BYTES as u64 + SECTOR),
        Claims::Something => MAX_BATCH_BYTES as u64 + SECTOR,
        Claims::Nothing => return Ok(None),
    };
    let batch = decode_batch(salt, at, source.bytes(at, len)?);
    Ok(batch.ok().flatten().map(|batch| batch.span))
}

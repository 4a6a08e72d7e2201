//! Checking the files of notes: every batch is read from the device.
//!
//! What begun in this run is known to its end, and all of it was synced. At
//! the end of any other file stands what a crash left, or nothing: bytes that
//! are no batch are damage there only before a whole one.

use std::io;

use shardgate_wire::StoreError;

use super::format::{self, MAX_BATCH_BYTES, Place, SECTOR};
use super::{NOTES, NoteBook, file_path};
use crate::checking::Report;
use crate::condition::Doing;
use crate::io::OpenHow;
use crate::volume::{BadSectors, GiveWay, Source};

/// What is wrong with a file.
#[derive(Debug, Default)]
struct Wrong {
    gaps: Vec<(u64, u64)>,
    later: Vec<String>,
    unread_bytes: u64,
    len: u64,
}

impl NoteBook {
    /// Reads files, from that of the number `from` on, until enough was read;
    /// the number of the next. A file is read to its end: it is short.
    pub(crate) fn check(
        &self,
        report: &mut Report,
        from: u64,
        way: &dyn GiveWay,
    ) -> Result<Option<u64>, StoreError> {
        if from == 0 && self.state.lock().unlisted {
            report.find(NOTES, None, "the folder could not be listed");
        }
        let mut next = from;
        loop {
            let found = {
                let state = self.state.lock();
                let mut rest = state.files.range(next..);
                rest.next().map(|(number, len)| (*number, *len))
            };
            let Some((number, len)) = found else {
                return Ok(None);
            };
            self.check_file(report, number, len, way)?;
            next = number + 1;
            if way.is_spent() || report.is_full() {
                return Ok(Some(next));
            }
        }
    }

    fn check_file(
        &self,
        report: &mut Report,
        number: u64,
        len: u64,
        way: &dyn GiveWay,
    ) -> Result<(), StoreError> {
        let read = self.find_wrong(number, len, way);
        if !self.state.lock().files.contains_key(&number) {
            return Ok(()); // cleaned meanwhile
        }
        let path = file_path(number);
        let place = path.to_string_lossy();
        match read {
            Ok(wrong) => {
                if wrong.len < len {
                    let what = format!("the file was cut from {len} bytes to {}", wrong.len);
                    report.find(&place, None, what);
                }
                for (from, to) in wrong.gaps {
                    report.find(&place, None, format!("bytes {from} to {to} are no notes"));
                }
                if wrong.unread_bytes > 0 {
                    let what = format!("{} bytes cannot be read", wrong.unread_bytes);
                    report.find(&place, None, what);
                }
                for what in wrong.later {
                    report.find(&place, None, what);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                report.find(&place, None, "the file is gone");
            }
            Err(error) => match self.refused(Doing::Reading, "read notes", &error) {
                StoreError::Io { .. } => {
                    report.find(&place, None, format!("it cannot be read: {error}"));
                }
                error => return Err(error),
            },
        }
        Ok(())
    }

    fn find_wrong(&self, number: u64, len: u64, way: &dyn GiveWay) -> io::Result<Wrong> {
        let file = self.io.open(&file_path(number), OpenHow::Read)?;
        let mut source = Source::new(&*file, BadSectors::PassOver)?.giving_way(way);
        let mut wrong = Wrong {
            len: source.len,
            ..Wrong::default()
        };
        let (mut at, mut gap) = (0, None);
        let to = len.min(source.len);
        while at < to {
            let place = Place {
                disk: self.disk,
                file: number,
                offset: at,
            };
            let claimed = format::claimed_len(source.bytes(at, SECTOR)?);
            let claimed = claimed.filter(|len| *len <= MAX_BATCH_BYTES).unwrap_or(0) as u64;
            match format::decode(place, source.bytes(at, claimed)?) {
                Ok(Some((_, span))) => {
                    wrong.gaps.extend(gap.take().map(|from| (from, at)));
                    at += span;
                }
                Err(error @ crate::format::FormatError::Version { .. }) => {
                    wrong.later.push(format!("notes at {at}: {error}"));
                    at += claimed.next_multiple_of(SECTOR);
                }
                Ok(None) | Err(_) => {
                    gap.get_or_insert(at);
                    at += SECTOR;
                }
            }
        }
        if number >= self.own_from {
            wrong.gaps.extend(gap.map(|from| (from, to)));
        }
        wrong.unread_bytes = source.unread_bytes();
        Ok(wrong)
    }
}

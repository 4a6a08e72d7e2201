//! The records of the disk itself: its identity, and each copy of those that
//! it has twice.
//!
//! A copy is read while nobody writes it, past the page cache, and must be
//! what was written last. On a fenced disk an older one may be what a refused
//! write, or a crash, left: the other one counts.

use std::io;
use std::path::Path;

use shardgate_wire::StoreError;

use super::Report;
use crate::core::Core;
use crate::format::{FormatError, Root, Slots, decode_identity, decode_root, decode_slots};
use crate::io::OpenHow;
use crate::layout::{IDENTITY, ROOTS, SLOTS};
use crate::volume::{BadSectors, Source};

/// Most bytes of a record's file that are read.
const MOST_BYTES: u64 = 8 << 20;

impl Core {
    pub(super) fn check_records(&self, report: &mut Report) -> Result<(), StoreError> {
        let identity = |bytes: &[u8]| match decode_identity(bytes) {
            Ok(identity) if identity == self.identity => None,
            Ok(_) => Some("it is of another disk".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        self.check_record(IDENTITY, &identity, report)?;
        self.rules.with_root(|root| {
            let wrong = |bytes: &[u8]| self.wrong_root(root, decode_root(bytes));
            ROOTS
                .iter()
                .try_for_each(|name| self.check_record(name, &wrong, report))
        })?;
        self.rules.with_slots(|slots| {
            let wrong = |bytes: &[u8]| self.wrong_slots(slots, decode_slots(bytes));
            SLOTS
                .iter()
                .try_for_each(|name| self.check_record(name, &wrong, report))
        })
    }

    fn wrong_root(&self, held: &Root, found: Result<Root, FormatError>) -> Option<String> {
        match found {
            Err(error) => Some(error.to_string()),
            Ok(found) if found.identity != self.identity => Some("it is of another disk".into()),
            Ok(found) => self.wrong_copy(held.sequence, found.sequence, &found == held),
        }
    }

    fn wrong_slots(&self, held: &Slots, found: Result<Slots, FormatError>) -> Option<String> {
        match found {
            Err(error) => Some(error.to_string()),
            Ok(found) if found.disk != self.identity.disk => Some("it is of another disk".into()),
            Ok(found) => self.wrong_copy(held.sequence, found.sequence, &found == held),
        }
    }

    /// A higher number is that of a write that was refused half-way.
    fn wrong_copy(&self, held: u64, found: u64, same: bool) -> Option<String> {
        let fenced = self.condition.fenced().is_some();
        let wrong = !fenced && (found < held || found == held && !same);
        wrong.then(|| format!("it is number {found} and not what was written last, {held}"))
    }

    /// `wrong` says what does not match in a file's bytes.
    fn check_record(
        &self,
        name: &str,
        wrong: &dyn Fn(&[u8]) -> Option<String>,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let read = || -> io::Result<Vec<u8>> {
            let file = self.volumes.io.open(Path::new(name), OpenHow::Read)?;
            let mut source = Source::new(&*file, BadSectors::Refuse)?;
            Ok(source.bytes(0, MOST_BYTES)?.to_vec())
        };
        match read() {
            Ok(bytes) => {
                if let Some(what) = wrong(&bytes) {
                    report.find(name, None, what);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                report.find(name, None, "the file is gone");
            }
            Err(error) => report.find(name, None, self.unchecked(&error)?),
        }
        Ok(())
    }

    /// What an error of the system says of what is checked; an error if it
    /// says nothing of it.
    pub(super) fn unchecked(&self, error: &io::Error) -> Result<String, StoreError> {
        match self.volumes.unread(error) {
            StoreError::Io { .. } => Ok(format!("it cannot be read: {error}")),
            error => Err(error),
        }
    }
}

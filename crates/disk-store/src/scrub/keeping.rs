//! The record of the scrub in the disk's folder.
//!
//! Written whole under another name, then given its own; not synced: to lose
//! it costs no more than a pass. Invariant: what is there keeps no disk
//! closed, and a record of a later version is not written over.

use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::passes::{Changed, Passes};
use super::record::{MOST_BYTES, decode, encode};
use crate::condition::Doing;
use crate::core::Core;
use crate::files;
use crate::format::FormatError;
use crate::layout::{SCRUB, SCRUB_PART};

/// How often the place of a pass is written.
const PLACE_EVERY: Duration = Duration::from_secs(60);
/// How often anything is, whatever happens.
const AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Changes of the list of damaged shards that it has.
    damaged: u64,
    at: Option<Instant>,
    /// A later version's record is there.
    never: bool,
}

/// Whether it is time to write what changed.
fn is_due(changed: Changed, damaged: bool, since: Option<Duration>) -> bool {
    let every = match (changed.pass || damaged, changed.place) {
        (true, _) => AT_MOST_EVERY,
        (false, true) => PLACE_EVERY,
        (false, false) => return false,
    };
    since.is_none_or(|since| since >= every)
}

impl Core {
    /// Takes up what was kept. To be called once, before anything is found.
    pub(crate) fn read_scrub(&self) {
        let begin_anew = |why: &str| {
            tracing::warn!(disk = %self.identity.disk, why, "scrub begins anew, without its record");
        };
        let read = files::open_file_at(&self.folder, SCRUB)
            .and_then(|file| files::read_whole(&file, MOST_BYTES));
        let bytes = match read {
            Err(Errno::NOENT) => return,
            Err(errno) => return begin_anew(&errno.to_string()),
            Ok(bytes) => bytes,
        };
        let mut saved = self.scrub.saved.lock();
        match decode(self.identity.disk, &bytes) {
            Ok((record, known)) => {
                *self.scrub.passes.lock() = Passes::of(record);
                for shard in known {
                    self.damaged.found(shard.key, &shard.what);
                }
                saved.damaged = self.damaged.changes();
                saved.at = Some(Instant::now());
            }
            Err(error) => {
                saved.never = matches!(error, FormatError::Version { .. });
                begin_anew(&error.to_string());
            }
        }
    }

    pub(super) fn save_scrub_if_due(&self, now: Instant) {
        let due = {
            let saved = self.scrub.saved.lock();
            let damaged = saved.damaged != self.damaged.changes();
            let since = saved.at.map(|at| now.saturating_duration_since(at));
            is_due(self.scrub.passes.lock().changed(), damaged, since)
        };
        if due {
            self.save_scrub();
        }
    }

    /// Writes what changed, if anything did and the disk takes it.
    pub(super) fn save_scrub(&self) {
        let mut saved = self.scrub.saved.lock();
        let changes = self.damaged.changes();
        let same = self.scrub.passes.lock().changed() == Changed::default();
        if saved.never || same && saved.damaged == changes {
            return;
        }
        saved.at = Some(Instant::now());
        if self.condition.check_writable().is_err() || self.check_presence().is_err() {
            return;
        }
        let record = self.scrub.passes.lock().record();
        let bytes = encode(self.identity.disk, &record, &self.damaged.all());
        match self.write_scrub(&bytes) {
            Ok(()) => {
                saved.damaged = changes;
                self.scrub.passes.lock().was_saved();
            }
            // A disk that is bad is fenced; what was not written is with the
            // next.
            Err(errno) => {
                let error = self.condition.refused(Doing::Writing, "save scrub", errno);
                tracing::warn!(disk = %self.identity.disk, %error, "scrub record not saved");
            }
        }
    }

    fn write_scrub(&self, bytes: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = flags | OFlags::NOFOLLOW;
        let part = rustix::fs::openat(&self.folder, SCRUB_PART, flags, mode)?;
        files::write_all(&part, bytes, 0)?;
        rustix::fs::renameat(&self.folder, SCRUB_PART, &self.folder, SCRUB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_written_at_a_bounded_rate() {
        let secs = |secs| Some(Duration::from_secs(secs));
        for (place, pass, damaged, since, due) in [
            (false, false, false, None, false),
            (false, false, false, secs(999), false),
            (true, false, false, None, true),
            (true, false, false, secs(59), false),
            (true, false, false, secs(60), true),
            (true, true, false, secs(4), false),
            (true, true, false, secs(5), true),
            (false, false, true, secs(4), false),
            (false, false, true, secs(5), true),
        ] {
            let changed = Changed { place, pass };
            assert_eq!(
                is_due(changed, damaged, since),
                due,
                "{changed:?} {since:?}"
            );
        }
    }
}

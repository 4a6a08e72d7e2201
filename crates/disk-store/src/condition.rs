//! Whether the disk takes calls: good, fenced for writes, or lost.
//!
//! Invariant: it only gets worse. A fence ends by opening the disk again, and
//! so does a loss.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rustix::io::Errno;
use shardgate_wire::StoreError;
use tracing::error;

use shardgate_wire::ids::DiskId;

/// What was being done when the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Anything that only reads: no harm is done to what is stored.
    Reading,
    /// Writing, creating, removing.
    Writing,
    /// Making durable: after a failure nobody knows what is.
    Syncing,
}

#[derive(Debug)]
pub(crate) struct Condition {
    disk: DiskId,
    lost: RwLock<Option<String>>,
    fenced: RwLock<Option<String>>,
    errors: AtomicU64,
}

impl Condition {
    pub(crate) fn good(disk: DiskId) -> Self {
        Self {
            disk,
            lost: RwLock::new(None),
            fenced: RwLock::new(None),
            errors: AtomicU64::new(0),
        }
    }

    pub(crate) fn check_present(&self) -> Result<(), StoreError> {
        match &*self.lost.read() {
            Some(why) => Err(StoreError::Lost { why: why.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn check_writable(&self) -> Result<(), StoreError> {
        self.check_present()?;
        match &*self.fenced.read() {
            Some(why) => Err(StoreError::Fenced { why: why.clone() }),
            None => Ok(()),
        }
    }

    pub(crate) fn fenced(&self) -> Option<String> {
        self.fenced.read().clone()
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// Something that was stored is damaged.
    pub(crate) fn count_error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn lose(&self, why: impl Into<String>) -> StoreError {
        let mut lost = self.lost.write();
        if lost.is_none() {
            let why = why.into();
            error!(disk = %self.disk, why, "disk lost");
            *lost = Some(why);
        }
        let why = lost.clone().unwrap_or_default();
        StoreError::Lost { why }
    }

    pub(crate) fn fence(&self, why: String) -> StoreError {
        let mut fenced = self.fenced.write();
        if fenced.is_none() {
            error!(disk = %self.disk, why, "disk fenced: it takes no writes until it is opened again");
            *fenced = Some(why);
        }
        let why = fenced.clone().unwrap_or_default();
        StoreError::Fenced { why }
    }

    /// Fences the disk if what follows ends, by a panic, before it is done.
    pub(crate) fn fence_unless_done(&self, why: &'static str) -> Unfinished<'_> {
        Unfinished {
            condition: self,
            why,
            done: false,
        }
    }

    /// What a refusal of the system means for the call, and for the disk.
    pub(crate) fn refused(&self, doing: Doing, what: &str, errno: Errno) -> StoreError {
        let full = matches!(errno, Errno::NOSPC | Errno::DQUOT);
        if full && doing == Doing::Writing {
            return StoreError::NoSpace;
        }
        // Too many open files in this process, or too little memory to read:
        // the disk is not at fault.
        let many = matches!(errno, Errno::MFILE | Errno::NFILE);
        let little = errno == Errno::NOMEM && doing == Doing::Reading;
        if many && doing != Doing::Syncing || little {
            return StoreError::Busy;
        }
        self.errors.fetch_add(1, Ordering::Relaxed);
        let fences = match doing {
            Doing::Reading => false,
            Doing::Writing => !spares_the_disk(errno),
            Doing::Syncing => true,
        };
        if fences {
            return self.fence(format!("{what}: {errno}"));
        }
        StoreError::Io {
            what: what.to_owned(),
            why: errno.to_string(),
        }
    }
}

/// See [`Condition::fence_unless_done`].
#[must_use]
pub(crate) struct Unfinished<'a> {
    condition: &'a Condition,
    why: &'static str,
    done: bool,
}

impl Unfinished<'_> {
    pub(crate) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.condition.fence(self.why.into());
        }
    }
}

/// Whether a write was refused for something else than the disk, before any
/// of it was done. What is not known to be harmless is not: drivers and file
/// systems have more names for a bad medium than anybody lists.
fn spares_the_disk(errno: Errno) -> bool {
    let means = [Errno::NOMEM, Errno::INTR, Errno::AGAIN, Errno::FBIG];
    // What a name stands for, and who may touch it.
    let names = [
        Errno::NOENT,
        Errno::EXIST,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::NOTEMPTY,
        Errno::LOOP,
        Errno::NAMETOOLONG,
        Errno::ACCESS,
        Errno::PERM,
        Errno::BUSY,
    ];
    means.contains(&errno) || names.contains(&errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_refusal_means() {
        use Doing::{Reading, Syncing, Writing};
        for (doing, errno, fences) in [
            (Reading, Errno::IO, false),
            (Writing, Errno::IO, true),
            (Writing, Errno::ROFS, true),
            (Writing, Errno::NOSPC, false),
            (Writing, Errno::DQUOT, false),
            (Writing, Errno::MFILE, false),
            (Writing, Errno::NFILE, false),
            (Writing, Errno::NOMEM, false),
            (Writing, Errno::INTR, false),
            (Writing, Errno::AGAIN, false),
            (Writing, Errno::ACCESS, false),
            (Writing, Errno::NAMETOOLONG, false),
            (Writing, Errno::NODEV, true),
            (Writing, Errno::NXIO, true),
            (Writing, Errno::NODATA, true),
            (Writing, Errno::REMOTEIO, true),
            (Writing, Errno::ILSEQ, true),
            (Writing, Errno::UCLEAN, true),
            (Writing, Errno::TIMEDOUT, true),
            (Writing, Errno::NOLINK, true),
            (Writing, Errno::SHUTDOWN, true),
            (Writing, Errno::STALE, true),
            (Writing, Errno::BADMSG, true),
            (Writing, Errno::INVAL, true),
            (Reading, Errno::UCLEAN, false),
            (Reading, Errno::MFILE, false),
            (Syncing, Errno::NOSPC, true),
            (Syncing, Errno::IO, true),
            (Syncing, Errno::NFILE, true),
            (Syncing, Errno::INTR, true),
        ] {
            let condition = Condition::good(DiskId(1));
            let _ = condition.refused(doing, "test", errno);
            assert_eq!(condition.fenced().is_some(), fences, "{doing:?} {errno:?}");
            assert_eq!(condition.check_writable().is_err(), fences);
            assert_eq!(condition.check_present(), Ok(()));
        }
    }
}

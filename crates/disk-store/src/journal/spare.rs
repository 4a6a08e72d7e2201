//! The spare: a file of zeroes, ready for the next segment.
//!
//! Its blocks are written, not only taken, so that an append changes nothing
//! but data and its fdatasync is one write. It is made by a thread of its own,
//! in steps, while appends go on.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::AtFlags;
use rustix::io::Errno;
use shardgate_wire::StoreError;
use shardgate_wire::journal::JournalFile;

use super::folder;
use crate::condition::{Condition, Doing};
use crate::files;

/// Bytes between two syncs while a spare is made: what an append waits for.
const STEP: usize = 1 << 20;

/// A zeroed file that nobody uses.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) number: JournalFile,
    pub(super) file: OwnedFd,
}

/// Why there is none.
#[derive(Debug)]
enum Unmade {
    /// The disk was closed meanwhile.
    Stopped,
    Refused(StoreError),
}

#[derive(Debug, Default)]
enum State {
    #[default]
    None,
    Making {
        number: JournalFile,
        thread: JoinHandle<Result<OwnedFd, Unmade>>,
        stop: Arc<AtomicBool>,
    },
    Ready(Ready),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Spare(State);

impl Spare {
    /// The number that it has or will have: no segment.
    pub(super) fn number(&self) -> Option<JournalFile> {
        match &self.0 {
            State::None => None,
            State::Making { number, .. } => Some(*number),
            State::Ready(ready) => Some(ready.number),
        }
    }

    /// Takes the spare if it is ready; does not wait for it.
    pub(super) fn take(&mut self) -> Option<Ready> {
        if let State::Making { thread, .. } = &self.0
            && thread.is_finished()
        {
            self.wait();
        }
        match std::mem::take(&mut self.0) {
            State::Ready(ready) => Some(ready),
            other => {
                self.0 = other;
                None
            }
        }
    }

    /// Begins to make one, if there is none. What the system refuses says of
    /// the disk what any other refused write does.
    pub(super) fn make(
        &mut self,
        folder: &OwnedFd,
        number: JournalFile,
        bytes: u64,
        condition: &Arc<Condition>,
    ) {
        if !matches!(self.0, State::None) {
            return;
        }
        let Ok(folder) = folder.try_clone() else {
            return;
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let builder = std::thread::Builder::new().name("journal-spare".to_owned());
        // Without a spare the next segment begins in a file made for it.
        let condition = Arc::clone(condition);
        let make = move || make(&folder, number, bytes, &stopped, &condition);
        if let Ok(thread) = builder.spawn(make) {
            self.0 = State::Making {
                number,
                thread,
                stop,
            };
        }
    }

    fn wait(&mut self) {
        if let State::Making { number, thread, .. } = std::mem::take(&mut self.0) {
            match thread.join() {
                Ok(Ok(file)) => self.0 = State::Ready(Ready { number, file }),
                Ok(Err(Unmade::Stopped)) => {}
                Ok(Err(Unmade::Refused(error))) => {
                    tracing::warn!(%error, "no spare journal file");
                }
                Err(_) => tracing::error!("making a spare journal file panicked"),
            }
        }
    }

    /// Ends with the disk: an unused spare is removed.
    pub(super) fn close(&mut self, folder: Option<&OwnedFd>) {
        if let State::Making { stop, .. } = &self.0 {
            stop.store(true, Ordering::Relaxed);
        }
        self.wait();
        if let (Some(folder), Some(ready)) = (folder, self.take()) {
            let name = folder::name(ready.number);
            // What is left is a file of zeroes, which the next start removes.
            let _ = rustix::fs::unlinkat(folder, name, AtFlags::empty());
        }
    }
}

fn make(
    folder: &OwnedFd,
    number: JournalFile,
    bytes: u64,
    stop: &AtomicBool,
    condition: &Condition,
) -> Result<OwnedFd, Unmade> {
    let refused = |doing, errno| Unmade::Refused(condition.refused(doing, "make spare", errno));
    let file = folder::create(folder, number).map_err(|errno| refused(Doing::Writing, errno))?;
    let made = fill(&file, bytes, stop, &refused).and_then(|()| {
        let synced = rustix::fs::fsync(folder);
        synced.map_err(|errno| refused(Doing::Syncing, errno))
    });
    if let Err(unmade) = made {
        let _ = rustix::fs::unlinkat(folder, folder::name(number), AtFlags::empty());
        return Err(unmade);
    }
    Ok(file)
}

fn fill(
    file: &OwnedFd,
    bytes: u64,
    stop: &AtomicBool,
    refused: &dyn Fn(Doing, Errno) -> Unmade,
) -> Result<(), Unmade> {
    let writing = |errno| refused(Doing::Writing, errno);
    let syncing = |errno| refused(Doing::Syncing, errno);
    files::preallocate(file, 0, bytes).map_err(writing)?;
    let zeroes = vec![0; STEP];
    let mut at = 0;
    while at < bytes {
        if stop.load(Ordering::Relaxed) {
            return Err(Unmade::Stopped);
        }
        let step = usize::try_from(bytes - at).unwrap_or(STEP).min(STEP);
        files::write_all(file, &zeroes[..step], at).map_err(writing)?;
        rustix::fs::fdatasync(file).map_err(syncing)?;
        at += step as u64;
    }
    rustix::fs::fsync(file).map_err(syncing)
}

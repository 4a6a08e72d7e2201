//! Whether the file system has room for a write, by whose it is.
//!
//! Owns what was promised to writes that have not taken it yet, and what each
//! disk of a file system keeps. Invariant: what is promised at once fits
//! beside what is kept. Writes that take what nobody else may (deletes, the
//! log, directories, root records) do not ask.

mod kept;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;
use shardgate_wire::{DiskRoom, Purpose, StoreError};

use crate::condition::{Condition, Doing};
use crate::io::DiskIo;
pub use kept::KeptSpace;
pub(crate) use kept::Taker;
use kept::{Claims, Free};

/// Disks of one file system share its space: one for all disks of a process.
#[derive(Debug, Default)]
pub struct SharedDevices {
    by_number: Mutex<HashMap<u64, Arc<Device>>>,
    disks: AtomicU64,
}

impl SharedDevices {
    fn device(&self, number: u64) -> Arc<Device> {
        Arc::clone(self.by_number.lock().entry(number).or_default())
    }
}

#[derive(Debug, Default)]
struct Device {
    // Held while the file system is asked, so that no two are promised the
    // same bytes. One that hangs holds up its own disks alone.
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    disks: BTreeMap<u64, Claims>,
    promised: u64,
}

impl Books {
    fn claims(&self, disk: u64) -> Claims {
        self.disks.get(&disk).copied().unwrap_or_default()
    }

    fn others(&self, disk: u64) -> impl Iterator<Item = &Claims> {
        let others = self.disks.iter().filter(move |(other, _)| **other != disk);
        others.map(|(_, claims)| claims)
    }
}

/// What was found out last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) capacity: u64,
    pub(crate) room: DiskRoom,
}

/// The space of one disk.
#[derive(Debug)]
pub(crate) struct Space {
    io: Arc<dyn DiskIo>,
    device: Arc<Device>,
    /// This disk's number there.
    disk: u64,
    plan: Plan,
    last: Mutex<Seen>,
}

/// By what is decided how much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Instead of the table.
    pub(crate) set: Option<KeptSpace>,
    pub(crate) segment_bytes: u64,
    pub(crate) volume_bytes: u64,
}

/// Space for a write that is about to take it. Given back when it is dropped:
/// by then the file system knows of what was taken.
#[derive(Debug)]
pub(crate) struct Promised {
    device: Arc<Device>,
    disk: u64,
    bytes: u64,
    compaction: u64,
    /// What clients could take besides.
    pub(crate) ahead: u64,
}

impl Promised {
    /// So much of it was written by now.
    pub(crate) fn used(&mut self, bytes: u64) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.device.books.lock().promised -= bytes;
    }
}

impl Drop for Promised {
    fn drop(&mut self) {
        let mut books = self.device.books.lock();
        books.promised -= self.bytes;
        if let Some(claims) = books.disks.get_mut(&self.disk) {
            claims.compacting = claims.compacting.saturating_sub(self.compaction);
        }
    }
}

impl Space {
    /// The space of a disk on the device of that number.
    pub(crate) fn new(
        io: Arc<dyn DiskIo>,
        (devices, number): (&SharedDevices, u64),
        plan: Plan,
    ) -> Self {
        let device = devices.device(number);
        let disk = devices.disks.fetch_add(1, Ordering::Relaxed);
        device.books.lock().disks.insert(disk, Claims::default());
        Self {
            io,
            device,
            disk,
            plan,
            last: Mutex::new(Seen::default()),
        }
    }

    /// Asks the file system, and holds the books as they then are.
    fn ask(&self, condition: &Condition) -> Result<(MutexGuard<'_, Books>, Free), StoreError> {
        let mut books = self.device.books.lock();
        let space = self.io.space().map_err(|error| {
            let errno = error.raw_os_error().map(Errno::from_raw_os_error);
            let errno = errno.unwrap_or(Errno::IO);
            condition.refused(Doing::Reading, "ask for free space", errno)
        })?;
        let share = space.total / books.disks.len().max(1) as u64;
        let plan = &self.plan;
        let kept = plan
            .set
            .unwrap_or_else(|| KeptSpace::of(share, plan.segment_bytes, plan.volume_bytes));
        let claims = books.disks.entry(self.disk).or_default();
        claims.kept = kept;
        let free = Free {
            bytes: space.free.saturating_sub(books.promised),
            files: space.files,
        };
        let own = books.claims(self.disk);
        let others: Vec<Claims> = books.others(self.disk).copied().collect();
        let room = kept::rooms(free, &own, &others);
        *self.last.lock() = Seen {
            capacity: space.total,
            room,
        };
        Ok((books, free))
    }

    /// What each may take now.
    pub(crate) fn measure(&self, condition: &Condition) -> Result<Seen, StoreError> {
        drop(self.ask(condition)?);
        Ok(self.last())
    }

    /// What was measured last; never waits for the disk.
    pub(crate) fn last(&self) -> Seen {
        *self.last.lock()
    }

    /// Promises `bytes` to a write.
    pub(crate) fn take(
        &self,
        condition: &Condition,
        taker: Taker,
        bytes: u64,
    ) -> Result<Promised, StoreError> {
        let (mut books, free) = self.ask(condition)?;
        let own = books.claims(self.disk);
        let room = kept::room(free, taker, &own, books.others(self.disk));
        if room < bytes {
            return Err(StoreError::NoSpace);
        }
        let compaction = match taker {
            Taker::Compaction => bytes,
            _ => 0,
        };
        let claims = books.disks.entry(self.disk).or_default();
        claims.compacting += compaction;
        Ok(self.promise(books, bytes, compaction))
    }

    fn promise(&self, mut books: MutexGuard<'_, Books>, bytes: u64, compaction: u64) -> Promised {
        books.promised += bytes;
        let room = self.last().room;
        Promised {
            device: Arc::clone(&self.device),
            disk: self.disk,
            bytes,
            compaction,
            ahead: room.client_bytes.saturating_sub(bytes),
        }
    }

    /// Promises space to those of several shards that may have it, and says
    /// which they are.
    pub(crate) fn take_each(
        &self,
        condition: &Condition,
        wanted: &[(Purpose, u64)],
    ) -> Result<(Vec<bool>, Promised), StoreError> {
        let (books, _) = self.ask(condition)?;
        let (fits, bytes) = kept::which_fit(&self.last().room, wanted);
        Ok((fits, self.promise(books, bytes, 0)))
    }

    /// Takes note of what the journal's files take.
    pub(crate) fn hold_journal(&self, bytes: u64) {
        let mut books = self.device.books.lock();
        let claims = books.disks.entry(self.disk).or_default();
        claims.journal_held = bytes;
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.device.books.lock().disks.remove(&self.disk);
    }
}

#[cfg(test)]
mod tests;

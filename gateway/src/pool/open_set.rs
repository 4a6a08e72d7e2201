//! The groups that take writes now, and those that could.
//!
//! The catalog says which groups are not sealed. Of those, a few are *open*
//! here, as `placement::open` limits it, and the others *rest* until they are
//! needed. Invariant: a group is in one of the two lists at most; a group is
//! open only after its disks were told their slots in this run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rand::Rng;
use shardgate_erasure::Scheme;
use shardgate_wire::{DiskId, GroupId, Medium, Purpose};

use crate::object::ports::GroupView;
use crate::placement::open::OpenGroup;
use crate::placement::{PoolView, better_of_two, group_holds};

/// What a write asks of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub scheme: Scheme,
    /// Any if `None`.
    pub medium: Option<Medium>,
    /// A group made because too few disks live for the class.
    pub narrow: bool,
    /// Bytes that each slot must take.
    pub slot_bytes: u64,
    /// Whose space it may take.
    pub purpose: Purpose,
}

/// How much of a group must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fitness {
    /// Every slot takes writes.
    Whole,
    /// The quorum and the server rule hold without those that do not.
    Holds,
}

/// A group that is not sealed.
#[derive(Debug)]
pub(crate) struct Entry {
    pub group: Arc<GroupView>,
    /// Bytes of a slot at which it is sealed.
    pub seal_at: u64,
    used_ms: AtomicU64,
    /// Since it was opened.
    writes: AtomicU64,
    slot_bytes: AtomicU64,
    noted_bytes: AtomicU64,
}

/// What a write into a group makes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Its record should say how much it was given.
    Note(u64),
    /// It is full.
    Seal(u64),
}

/// A rarely used scheme keeps one group open.
const BUSY_WRITES: u64 = 256;

/// The figure in the record lags by at most this share of the cap.
const NOTES_TO_FULL: u64 = 16;

impl Entry {
    pub(crate) fn new(group: Arc<GroupView>, seal_at: u64) -> Self {
        let given = group.row.slot_bytes;
        Self {
            group,
            seal_at,
            used_ms: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            slot_bytes: AtomicU64::new(given),
            noted_bytes: AtomicU64::new(given),
        }
    }

    pub(crate) fn is_of(&self, wanted: &Wanted) -> bool {
        let row = &self.group.row;
        self.group.scheme == wanted.scheme
            && row.narrow == wanted.narrow
            && wanted.medium.is_none_or(|medium| medium == row.medium)
    }

    /// Takes note of bytes that a slot will be given.
    pub(crate) fn used(&self, slot_bytes: u64, now_ms: u64) -> Due {
        self.used_ms.store(now_ms, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
        let given = self.slot_bytes.fetch_add(slot_bytes, Ordering::Relaxed) + slot_bytes;
        if given >= self.seal_at {
            return Due::Seal(given);
        }
        let noted = self.noted_bytes.load(Ordering::Relaxed);
        let due = given.saturating_sub(noted) >= self.seal_at / NOTES_TO_FULL;
        let taken = due
            && self
                .noted_bytes
                .compare_exchange(noted, given, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if taken {
            Due::Note(given)
        } else {
            Due::Nothing
        }
    }

    /// Whether it took many writes since it was opened, so that one more
    /// group of its kind is worth having.
    pub(crate) fn is_busy(&self) -> bool {
        self.writes.load(Ordering::Relaxed) >= BUSY_WRITES
    }

    fn facts(&self, now_ms: u64) -> OpenGroup {
        OpenGroup {
            id: self.group.row.id,
            scheme: self.group.scheme,
            slots: self.group.row.slots.clone(),
            idle_ms: now_ms.saturating_sub(self.used_ms.load(Ordering::Relaxed)),
        }
    }

    /// Whether a write of `slot_bytes` a slot can go to it.
    pub(crate) fn takes(&self, view: &PoolView, slot_bytes: u64, fitness: Fitness) -> bool {
        let mut living = Vec::with_capacity(self.group.row.slots.len());
        for slot in &self.group.row.slots {
            let disk = view.disk(*slot);
            let lives = disk.is_some_and(|disk| disk.living);
            if lives && disk.is_some_and(|disk| !has_space(disk.free_bytes, slot_bytes)) {
                return false;
            }
            living.push(lives);
        }
        match fitness {
            Fitness::Whole => living.iter().all(|lives| *lives),
            Fitness::Holds => group_holds(self.group.scheme, &self.group.servers, &living),
        }
    }
}

/// Space that a disk keeps beside what a write is expected to need there.
const MARGIN_BYTES: u64 = 1 << 20;

/// Whether a disk with so much free takes `slot_bytes` more.
pub(crate) fn has_space(free_bytes: u64, slot_bytes: u64) -> bool {
    free_bytes >= slot_bytes.saturating_add(MARGIN_BYTES)
}

#[derive(Debug, Default)]
pub(crate) struct OpenSet {
    lists: RwLock<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    open: Vec<Arc<Entry>>,
    resting: Vec<Arc<Entry>>,
}

impl OpenSet {
    /// The better of two random open groups that take the write.
    pub(crate) fn choose(
        &self,
        view: &PoolView,
        wanted: &Wanted,
        fitness: Fitness,
        rng: &mut impl Rng,
    ) -> Option<Arc<Entry>> {
        let lists = self.lists.read();
        let fit: Vec<&Arc<Entry>> = lists
            .open
            .iter()
            .filter(|entry| entry.is_of(wanted) && entry.takes(view, wanted.slot_bytes, fitness))
            .collect();
        if fit.is_empty() {
            return None;
        }
        let slots: Vec<&[DiskId]> = fit.iter().map(|entry| &entry.group.row.slots[..]).collect();
        Some(Arc::clone(fit[better_of_two(&slots, view, rng)]))
    }

    /// A resting group that takes the write, the fullest first: those are
    /// sealed soonest.
    pub(crate) fn resting(
        &self,
        view: &PoolView,
        wanted: &Wanted,
        fitness: Fitness,
    ) -> Option<Arc<Entry>> {
        let lists = self.lists.read();
        lists
            .resting
            .iter()
            .filter(|entry| entry.is_of(wanted) && entry.takes(view, wanted.slot_bytes, fitness))
            .max_by_key(|entry| entry.slot_bytes.load(Ordering::Relaxed))
            .cloned()
    }

    /// The entry of a group, open or resting.
    pub(crate) fn find(&self, id: GroupId) -> Option<Arc<Entry>> {
        let lists = self.lists.read();
        let mut all = lists.open.iter().chain(&lists.resting);
        all.find(|entry| entry.group.row.id == id).cloned()
    }

    pub(crate) fn is_open(&self, id: GroupId) -> bool {
        self.lists
            .read()
            .open
            .iter()
            .any(|entry| entry.group.row.id == id)
    }

    pub(crate) fn add_resting(&self, entry: Arc<Entry>) {
        self.lists.write().resting.push(entry);
    }

    /// Opens a group that rests, or is new.
    pub(crate) fn open(&self, entry: Arc<Entry>, now_ms: u64) {
        let id = entry.group.row.id;
        entry.used_ms.store(now_ms, Ordering::Relaxed);
        entry.writes.store(0, Ordering::Relaxed);
        let mut lists = self.lists.write();
        lists.resting.retain(|of| of.group.row.id != id);
        lists.open.retain(|of| of.group.row.id != id);
        lists.open.push(entry);
    }

    pub(crate) fn rest(&self, id: GroupId) {
        let mut lists = self.lists.write();
        if let Some(index) = lists.open.iter().position(|entry| entry.group.row.id == id) {
            let entry = lists.open.swap_remove(index);
            lists.resting.push(entry);
        }
    }

    /// Forgets a group: it is sealed, or its record changed.
    pub(crate) fn remove(&self, id: GroupId) {
        let mut lists = self.lists.write();
        lists.open.retain(|entry| entry.group.row.id != id);
        lists.resting.retain(|entry| entry.group.row.id != id);
    }

    /// The open groups as placement sees them.
    pub(crate) fn facts(&self, now_ms: u64) -> Vec<OpenGroup> {
        let lists = self.lists.read();
        lists.open.iter().map(|entry| entry.facts(now_ms)).collect()
    }

    /// Number of open groups that a write could have gone to, were all well.
    pub(crate) fn count(&self, wanted: &Wanted) -> usize {
        self.lists
            .read()
            .open
            .iter()
            .filter(|entry| entry.is_of(wanted))
            .count()
    }
}

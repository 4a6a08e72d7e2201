//! What is kept in memory of the directories of sealed volumes, for all
//! disks of a process under one cap.
//!
//! Most of it are hints, a volume's at a time; the rest are single pages.
//! Invariant: what is kept takes at most as many bytes as the cap says. A
//! volume's hints are loaded at once while there is room; after that only
//! when reads of its single pages have cost as much as loading them, so that
//! a working set beyond the cap is never paid for twice over.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::volume::{DIRECTORY_PAGE, Entry, Hints, hints_bytes};

/// Of the cap, the part for single pages: one in so many.
const PAGES_SHARE: usize = 8;
/// Volumes whose missed pages are counted.
const MOST_COUNTED: usize = 16 * 1024;
/// What the cap is unless it is set: hints of eleven million records.
const DEFAULT_BYTES: usize = 64 * 1024 * 1024;

/// A volume of this process: which opened disk, which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct VolumeOf {
    pub(crate) disk: u64,
    pub(crate) sequence: u64,
}

/// A volume, and a place in its directory.
type Place = (VolumeOf, u64);

/// Something that is kept.
#[derive(Debug)]
struct Kept<V> {
    used: u64,
    bytes: usize,
    value: V,
}

/// The last things that were used, up to a number of bytes.
#[derive(Debug)]
struct Lately<V> {
    by_key: BTreeMap<Place, Kept<V>>,
    by_use: BTreeMap<u64, Place>,
    uses: u64,
    bytes: usize,
    most: usize,
}

impl<V: Clone> Lately<V> {
    fn new(most: usize) -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            bytes: 0,
            most,
        }
    }

    fn get(&mut self, key: Place) -> Option<V> {
        let half = self.by_use.len() as u64 / 2;
        let kept = self.by_key.get_mut(&key)?;
        // What is among the later half stays where it is: it is far from
        // making way, and most of what is asked for is there.
        if self.uses - kept.used >= half.max(1) {
            self.by_use.remove(&kept.used);
            self.uses += 1;
            kept.used = self.uses;
            self.by_use.insert(self.uses, key);
        }
        Some(kept.value.clone())
    }

    fn insert(&mut self, key: Place, bytes: usize, value: V) {
        self.remove(key);
        self.uses += 1;
        self.bytes += bytes;
        self.by_use.insert(self.uses, key);
        let used = self.uses;
        let kept = Kept { used, bytes, value };
        self.by_key.insert(key, kept);
        while self.bytes > self.most {
            let Some((_, oldest)) = self.by_use.first_key_value() else {
                return;
            };
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: Place) {
        if let Some(kept) = self.by_key.remove(&key) {
            self.by_use.remove(&kept.used);
            self.bytes -= kept.bytes;
        }
    }

    /// Forgets everything of volumes from `from` up to `to`, both in.
    fn forget(&mut self, from: VolumeOf, to: VolumeOf) {
        let range = self.by_key.range((from, 0)..=(to, u64::MAX));
        let keys: Vec<_> = range.map(|(key, _)| *key).collect();
        for key in keys {
            self.remove(key);
        }
    }
}

#[derive(Debug)]
struct Held {
    /// None of a volume that can have none.
    hints: Lately<Option<Arc<Hints>>>,
    pages: Lately<Arc<Vec<Entry>>>,
    /// Pages that were read of volumes without hints.
    missed: HashMap<VolumeOf, usize>,
    /// Volumes whose hints are being loaded.
    loading: HashSet<VolumeOf>,
    /// Counts what was forgotten: what was read before may be old.
    forgot: u64,
}

/// A moment in the life of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u64);

/// The memory of all disks of a process for directories.
#[derive(Debug)]
pub struct DirectoryMemory {
    held: Mutex<Held>,
    next_disk: AtomicU64,
}

impl Default for DirectoryMemory {
    fn default() -> Self {
        Self::new(DEFAULT_BYTES)
    }
}

impl DirectoryMemory {
    /// At most `most_bytes`, for all disks that are opened with it.
    pub fn new(most_bytes: usize) -> Self {
        let pages = most_bytes / PAGES_SHARE;
        Self {
            held: Mutex::new(Held {
                hints: Lately::new(most_bytes - pages),
                pages: Lately::new(pages),
                missed: HashMap::new(),
                loading: HashSet::new(),
                forgot: 0,
            }),
            next_disk: AtomicU64::new(1),
        }
    }

    /// Bytes that are kept now.
    pub fn bytes(&self) -> usize {
        let held = self.held.lock();
        held.hints.bytes + held.pages.bytes
    }

    /// A number for a disk that is opened, of no other one.
    pub(crate) fn new_disk(&self) -> u64 {
        self.next_disk.fetch_add(1, Ordering::Relaxed)
    }

    /// The hints of a volume; `Some(None)` if it can have none.
    pub(crate) fn hints(&self, of: VolumeOf) -> Option<Option<Arc<Hints>>> {
        self.held.lock().hints.get((of, 0))
    }

    pub(crate) fn page(&self, of: VolumeOf, at: u64) -> Option<Arc<Vec<Entry>>> {
        self.held.lock().pages.get((of, at))
    }

    /// To be taken before a directory is read that is to be kept.
    pub(crate) fn moment(&self) -> Moment {
        Moment(self.held.lock().forgot)
    }

    /// Keeps a page that was read after `since`.
    pub(crate) fn keep_page(&self, of: VolumeOf, at: u64, page: &Arc<Vec<Entry>>, since: Moment) {
        let mut held = self.held.lock();
        if since == Moment(held.forgot) {
            held.pages
                .insert((of, at), DIRECTORY_PAGE, Arc::clone(page));
        }
    }

    /// Whether the caller is to load the hints of a volume now, a page of
    /// whose directory is wanted. Then it ends with [`Self::loaded`].
    pub(crate) fn shall_load(&self, of: VolumeOf, pages: usize, bytes: usize) -> bool {
        let mut held = self.held.lock();
        let held = &mut *held;
        if bytes > held.hints.most || held.loading.contains(&of) {
            return false;
        }
        if held.missed.len() >= MOST_COUNTED {
            held.missed.clear();
        }
        let missed = held.missed.entry(of).or_default();
        *missed += 1;
        let pays = held.hints.bytes + bytes <= held.hints.most || *missed > pages;
        if pays {
            held.missed.remove(&of);
            held.loading.insert(of);
        }
        pays
    }

    /// Hints were loaded after `since`, or could not be.
    pub(crate) fn loaded(&self, of: VolumeOf, hints: Option<&Arc<Hints>>, since: Moment) {
        let mut held = self.held.lock();
        held.loading.remove(&of);
        if since == Moment(held.forgot) {
            let bytes = hints.map_or(hints_bytes(0), |hints| hints.bytes());
            held.hints.insert((of, 0), bytes, hints.cloned());
        }
    }

    /// Forgets a volume that went, or changed.
    pub(crate) fn forget(&self, of: VolumeOf) {
        let mut held = self.held.lock();
        held.forgot += 1;
        held.hints.forget(of, of);
        held.pages.forget(of, of);
        held.missed.remove(&of);
    }

    /// Forgets a disk that was closed.
    pub(crate) fn forget_disk(&self, disk: u64) {
        let (first, last) = (0, u64::MAX);
        let of = |sequence| VolumeOf { disk, sequence };
        let mut held = self.held.lock();
        held.forgot += 1;
        held.hints.forget(of(first), of(last));
        held.pages.forget(of(first), of(last));
        held.missed.retain(|of, _| of.disk != disk);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OF: VolumeOf = VolumeOf {
        disk: 1,
        sequence: 1,
    };

    fn hints(count: usize) -> Arc<Hints> {
        let entry = Entry {
            blob: shardgate_wire::ids::BlobId(1),
            index: 0,
            at: 0,
            span: 64,
            besides: 0,
        };
        Arc::new(Hints::of(&vec![entry; count]).unwrap())
    }

    fn load(memory: &DirectoryMemory, of: VolumeOf, count: usize) -> bool {
        let loads = memory.shall_load(of, count.div_ceil(127), hints_bytes(count));
        if loads {
            memory.loaded(of, Some(&hints(count)), memory.moment());
        }
        loads
    }

    #[test]
    fn without_room_only_what_was_missed_often_is_loaded() {
        let memory = DirectoryMemory::new(hints_bytes(1270) * 8 / 7 + 8);
        assert!(load(&memory, OF, 1270), "there is room");
        assert!(!load(&memory, OF2, 1400), "never fits");
        let missed = (0..).take_while(|_| !load(&memory, OF2, 1270)).count();
        assert_eq!(missed, 10, "as many pages as its directory has");
        assert!(memory.hints(OF).is_none(), "it made way");
        assert!(memory.hints(OF2).is_some_and(|hints| hints.is_some()));
    }

    const OF2: VolumeOf = VolumeOf {
        disk: 1,
        sequence: 2,
    };

    #[test]
    fn what_was_read_before_it_was_forgotten_is_not_kept() {
        let memory = DirectoryMemory::default();
        let since = memory.moment();
        assert!(memory.shall_load(OF, 1, hints_bytes(1)));
        assert!(!memory.shall_load(OF, 1, hints_bytes(1)), "one loads it");
        memory.forget(OF2);
        memory.loaded(OF, Some(&hints(1)), since);
        memory.keep_page(OF, 4096, &Arc::new(Vec::new()), since);
        assert!(memory.hints(OF).is_none() && memory.page(OF, 4096).is_none());
        assert!(load(&memory, OF, 1));
        memory.forget_disk(1);
        assert!(memory.hints(OF).is_none());
        assert_eq!(memory.bytes(), 0);
    }

    #[test]
    fn a_volume_without_hints_is_not_loaded_again_and_again() {
        let memory = DirectoryMemory::default();
        assert!(memory.shall_load(OF, 1, hints_bytes(1)));
        memory.loaded(OF, None, memory.moment());
        assert!(matches!(memory.hints(OF), Some(None)));
    }

    proptest! {
        #[test]
        fn never_more_than_the_cap(
            cap in 0usize..40_000,
            calls in proptest::collection::vec((0u64..3, 0u64..6, 0usize..2000, 0u8..4), 0..200),
        ) {
            let memory = DirectoryMemory::new(cap);
            for (disk, sequence, count, what) in calls {
                let of = VolumeOf { disk, sequence };
                match what {
                    0 => drop(load(&memory, of, count)),
                    1 => {
                        let page = Arc::new(Vec::new());
                        memory.keep_page(of, count as u64, &page, memory.moment());
                    }
                    2 => memory.forget(of),
                    _ => drop(memory.hints(of)),
                }
                prop_assert!(memory.bytes() <= cap);
            }
        }
    }
}

//! The bytes of one file: what reads see, and what the device has.
//!
//! Invariant: a sector whose versions are not empty is in `dirty`, and its
//! last version is what reads see. A clean sector shows what the device has,
//! unless a failed sync dropped what it should have written.

use std::sync::Arc;

use super::random::{Mood, Random};

/// What a device writes whole or not at all.
pub(super) const SECTOR: usize = 512;

/// The bytes of a sector; none are zeroes.
pub(super) type Sector = Option<Arc<[u8; SECTOR]>>;

/// Bytes of files that were removed, by sector.
pub(super) type Old = Vec<Sector>;

#[derive(Clone, Debug, Default)]
struct Slot {
    /// What reads see.
    shown: Sector,
    /// What the device has; nothing if it was never written.
    device: Option<Sector>,
    /// Written since the last sync, oldest first.
    versions: Vec<Sector>,
    taken: bool,
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    slots: Vec<Slot>,
    dirty: Vec<usize>,
    len: u64,
    durable_len: u64,
    lens: Vec<u64>,
    taken: u64,
}

fn bytes_of(sector: &Sector) -> &[u8; SECTOR] {
    sector.as_deref().unwrap_or(&[0; SECTOR])
}

/// The parts of a range, by sector: sector, first byte in it, length.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let offset = usize::try_from(offset).expect("a simulated file is short");
    let end = offset + len;
    let mut at = offset;
    std::iter::from_fn(move || {
        let (sector, first) = (at / SECTOR, at % SECTOR);
        let len = (SECTOR - first).min(end - at);
        at += len;
        (len > 0).then_some((sector, first, len))
    })
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Sectors that the file takes.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.lens.is_empty()
    }

    fn slot(&mut self, sector: usize) -> &mut Slot {
        if self.slots.len() <= sector {
            self.slots.resize_with(sector + 1, Slot::default);
        }
        &mut self.slots[sector]
    }

    fn change(&mut self, sector: usize, taken: bool, new: Sector) {
        let slot = self.slot(sector);
        let (was_taken, was_clean) = (slot.taken, slot.versions.is_empty());
        slot.taken = taken;
        slot.shown = new.clone();
        slot.versions.push(new);
        self.taken = self.taken + u64::from(taken) - u64::from(was_taken);
        if was_clean {
            self.dirty.push(sector);
        }
    }

    /// Sectors that a write of this range would take.
    pub(super) fn would_take(&self, offset: u64, len: usize) -> u64 {
        let free = |sector: usize| !self.slots.get(sector).is_some_and(|slot| slot.taken);
        parts(offset, len).filter(|part| free(part.0)).count() as u64
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut from = 0;
        for (sector, first, len) in parts(offset, bytes.len()) {
            let mut new = *bytes_of(&self.slot(sector).shown);
            new[first..first + len].copy_from_slice(&bytes[from..from + len]);
            from += len;
            self.change(sector, true, Some(Arc::new(new)));
        }
        self.grow(offset + bytes.len() as u64);
    }

    fn grow(&mut self, end: u64) {
        if end > self.len {
            self.len = end;
            self.lens.push(end);
        }
    }

    /// Zeroes a range, which is taken from now on or given back.
    fn zero(&mut self, offset: u64, len: usize, takes: bool) {
        for (sector, first, len) in parts(offset, len) {
            let slot = self.slot(sector);
            let whole = len == SECTOR;
            let mut new = slot.shown.clone();
            if whole {
                new = None;
            } else if let Some(bytes) = &mut new {
                Arc::make_mut(bytes)[first..first + len].fill(0);
            }
            let taken = takes || (slot.taken && !whole);
            self.change(sector, taken, new);
        }
    }

    pub(super) fn allocate_zeroed(&mut self, offset: u64, len: usize) {
        self.zero(offset, len, true);
        self.grow(offset + len as u64);
    }

    /// Takes space without writing: file systems know that it is unwritten,
    /// and show zeroes there until bytes are on the device.
    pub(super) fn allocate_unwritten(&mut self, offset: u64, len: usize) {
        for (sector, _, _) in parts(offset, len) {
            let slot = self.slot(sector);
            let was_taken = std::mem::replace(&mut slot.taken, true);
            slot.device.get_or_insert(None);
            self.taken += u64::from(!was_taken);
        }
    }

    /// Takes space without writing: it shows what removed files left there.
    pub(super) fn allocate_only(&mut self, offset: u64, len: usize, old: &Old) {
        for (sector, _, len) in parts(offset, len) {
            if len < SECTOR {
                continue;
            }
            let left = old.get(sector).cloned().flatten();
            self.change(sector, true, left.clone());
            self.slot(sector).device = Some(left);
        }
        self.grow(offset + len as u64);
    }

    /// Beyond the end nothing is to be given back.
    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = (offset + len).min(self.slots.len() as u64 * SECTOR as u64);
        let len = end.saturating_sub(offset);
        self.zero(offset, usize::try_from(len).expect("short"), false);
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.punch(len, u64::MAX / 2);
        }
        if len != self.len {
            self.len = len;
            self.lens.push(len);
        }
    }

    fn read_with<'a>(
        &'a self,
        buf: &mut [u8],
        offset: u64,
        see: impl Fn(&'a Slot) -> &'a [u8; SECTOR],
    ) -> usize {
        let left = self.len.saturating_sub(offset);
        let len = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut done = 0;
        for (sector, first, len) in parts(offset, len) {
            let bytes = self.slots.get(sector).map_or(&[0; SECTOR], &see);
            buf[done..done + len].copy_from_slice(&bytes[first..first + len]);
            done += len;
        }
        done
    }

    /// What the page cache shows.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        self.read_with(buf, offset, |slot| bytes_of(&slot.shown))
    }

    /// What the device has. Dirty pages are written back before such a read;
    /// those that a failed sync dropped are not dirty any more.
    pub(super) fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> usize {
        self.read_with(buf, offset, |slot| {
            let written = slot.versions.last().or(slot.device.as_ref());
            written.map_or(&[0; SECTOR], bytes_of)
        })
    }

    pub(super) fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            let slot = &mut self.slots[sector];
            let last = slot.versions.pop();
            slot.versions.clear();
            slot.device = last;
        }
        self.durable_len = self.len;
        self.lens.clear();
    }

    /// A sync that fails: some sectors reached the device, the others are
    /// dropped; reads go on to show them all, and nothing is dirty.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        let mood = Mood::choose(random);
        self.dirty.sort_unstable();
        for sector in std::mem::take(&mut self.dirty) {
            let slot = &mut self.slots[sector];
            let versions = std::mem::take(&mut slot.versions);
            if let Some(at) = mood.pick(random, versions.len()) {
                slot.device = Some(versions[at].clone());
            }
        }
    }

    /// The power goes: of each dirty sector any version is there, in space
    /// that was never synced also what removed files left.
    pub(super) fn lose(&mut self, mood: Mood, random: &mut Random, old: &Old) {
        let survivor = mood.pick(random, self.lens.len());
        self.len = survivor.map_or(self.durable_len, |at| self.lens[at]);
        self.durable_len = self.len;
        self.lens.clear();
        self.dirty.sort_unstable();
        for sector in std::mem::take(&mut self.dirty) {
            let slot = &mut self.slots[sector];
            let mut versions = std::mem::take(&mut slot.versions);
            if let Some(at) = mood.pick(random, versions.len()) {
                slot.device = Some(versions.swap_remove(at));
            } else if slot.device.is_none() {
                slot.device = Some(old.get(sector).cloned().flatten());
            }
        }
        self.drop_cache();
        self.forget_beyond_end();
    }

    /// The clean pages leave the page cache.
    pub(super) fn drop_cache(&mut self) {
        for slot in &mut self.slots {
            if slot.versions.is_empty() {
                slot.shown = slot.device.clone().flatten();
            }
        }
    }

    /// After a loss: what lies beyond the end is free.
    fn forget_beyond_end(&mut self) {
        let len = usize::try_from(self.len).expect("a simulated file is short");
        self.slots.truncate(len.div_ceil(SECTOR));
        if let (tail @ 1.., Some(slot)) = (len % SECTOR, self.slots.get_mut(len / SECTOR)) {
            if let Some(bytes) = &mut slot.shown {
                Arc::make_mut(bytes)[tail..].fill(0);
            }
            slot.device = Some(slot.shown.clone());
        }
        self.taken = self.slots.iter().filter(|slot| slot.taken).count() as u64;
    }

    /// What the file leaves on the device when it is removed.
    pub(super) fn old(&self) -> Old {
        let left = |slot: &Slot| slot.versions.last().cloned().or(slot.device.clone());
        self.slots.iter().map(|slot| left(slot).flatten()).collect()
    }

    /// Changes bytes behind everyone's back, cached and on the device.
    pub(super) fn damage(&mut self, offset: u64, change: impl FnOnce(&mut u8)) {
        let at = usize::try_from(offset).expect("a simulated file is short");
        assert!(offset < self.len, "nothing to damage at {offset}");
        let slot = self.slot(at / SECTOR);
        let mut new = *bytes_of(&slot.shown);
        change(&mut new[at % SECTOR]);
        let new = Some(Arc::new(new));
        slot.shown.clone_from(&new);
        slot.versions.clear();
        slot.device = Some(new);
        self.dirty.retain(|sector| *sector != at / SECTOR);
    }
}

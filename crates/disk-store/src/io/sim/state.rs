//! All of a simulated disk, under its lock.

mod loss;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::content::{Content, Old, SECTOR};
use super::names::{Folder, Id, Place, ROOT, Rename};
use super::random::Random;
use super::{Counters, DirEntry, Faults, OpenHow, Sabotage, SpaceOf};

/// Removed files whose bytes may show again.
const OLD_FILES: usize = 8;
/// What a disk without a set capacity says it has.
const MUCH: u64 = 1 << 40;

/// Kinds of changes, by the faults that hit them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Write,
    Sync,
    Other,
}

#[derive(Clone, Debug, Default)]
struct File {
    content: Content,
    names: u64,
    opened: u64,
}

#[derive(Debug)]
pub(super) struct State {
    /// The processes so far; only the last one's calls are served.
    pub(super) boot: u64,
    pub(super) off: bool,
    pub(super) faults: Faults,
    pub(super) sabotage: Sabotage,
    pub(super) old_bytes: bool,
    pub(super) yields: bool,
    pub(super) counters: Counters,
    files: BTreeMap<Id, File>,
    folders: BTreeMap<Id, Folder>,
    renames: Vec<Rename>,
    old: VecDeque<Old>,
    next: Id,
    seed: u64,
    random: Random,
}

/// Counts down to a fault; true when it is due.
fn due(countdown: &mut Option<u64>) -> bool {
    match countdown {
        Some(left @ 2..) => {
            *left -= 1;
            false
        }
        Some(_) => {
            *countdown = None;
            true
        }
        None => false,
    }
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            boot: 0,
            off: false,
            faults: Faults::default(),
            sabotage: Sabotage::default(),
            old_bytes: true,
            yields: false,
            counters: Counters::default(),
            files: BTreeMap::new(),
            folders: BTreeMap::from([(ROOT, Folder::default())]),
            renames: Vec::new(),
            old: VecDeque::new(),
            next: ROOT + 1,
            seed,
            random: Random::new(seed),
        }
    }

    /// Whether a process still has this disk.
    pub(super) fn check(&self, boot: u64) -> Result<(), Errno> {
        if self.off || boot != self.boot {
            return Err(Errno::IO);
        }
        Ok(())
    }

    /// Does a change, unless a fault is due.
    pub(super) fn change<T>(
        &mut self,
        boot: u64,
        kind: Change,
        run: impl FnOnce(&mut Self) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.check(boot)?;
        if self.faults.read_only && kind != Change::Sync {
            return Err(Errno::ROFS);
        }
        if due(&mut self.faults.power_off) {
            self.off = true;
            // Done, or not; nobody is told.
            if self.random.chance(50) {
                let _ = run(self);
            }
            return Err(Errno::IO);
        }
        run(self)
    }

    fn walk(&self, path: &Path) -> Result<Id, Errno> {
        let mut at = ROOT;
        for part in path.components() {
            match part {
                Component::CurDir => {}
                Component::Normal(name) => {
                    let folder = self.folders.get(&at).ok_or(Errno::NOTDIR)?;
                    at = folder.get(name).ok_or(Errno::NOENT)?;
                }
                _ => return Err(Errno::INVAL),
            }
        }
        Ok(at)
    }

    fn folder(&mut self, path: &Path) -> Result<(Id, &mut Folder), Errno> {
        let id = self.walk(path)?;
        let folder = self.folders.get_mut(&id).ok_or(Errno::NOTDIR)?;
        Ok((id, folder))
    }

    /// Where a name is or would be.
    fn place(&mut self, path: &Path) -> Result<Place, Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?.to_owned();
        let (folder, _) = self.folder(path.parent().ok_or(Errno::INVAL)?)?;
        Ok(Place { folder, name })
    }

    fn lookup(&self, place: &Place) -> Option<Id> {
        self.folders[&place.folder].get(&place.name)
    }

    fn set(&mut self, place: &Place, to: Option<Id>) {
        let folder = self.folders.get_mut(&place.folder);
        let folder = folder.expect("a place is in a folder");
        let before = folder.get(&place.name);
        folder.set(&place.name, to);
        if let Some(file) = before.and_then(|id| self.files.get_mut(&id)) {
            file.names -= 1;
        }
        if let Some(file) = to.and_then(|id| self.files.get_mut(&id)) {
            file.names += 1;
        }
        if let Some(id) = before {
            self.leave_old(id);
        }
    }

    /// What a removed file leaves on the device.
    fn leave_old(&mut self, id: Id) {
        let Some(file) = self.files.get(&id).filter(|file| file.names == 0) else {
            return;
        };
        let old = file.content.old();
        self.old.push_back(old);
        if self.old.len() > OLD_FILES {
            self.old.pop_front();
        }
    }

    fn some_old(&mut self) -> Old {
        if self.old.is_empty() {
            return Old::new();
        }
        let at = self.random.below(self.old.len());
        self.old[at].clone()
    }

    fn new_id(&mut self) -> Id {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn create(&mut self, path: &Path) -> Result<Id, Errno> {
        let place = self.place(path)?;
        if self.lookup(&place).is_some() {
            return Err(Errno::EXIST);
        }
        let id = self.new_id();
        let opened = 1;
        self.files.insert(
            id,
            File {
                opened,
                ..File::default()
            },
        );
        self.set(&place, Some(id));
        self.counters.creates += 1;
        Ok(id)
    }

    pub(super) fn open(&mut self, path: &Path, how: OpenHow) -> Result<Id, Errno> {
        let id = self.walk(path)?;
        if self.faults.read_only && how == OpenHow::ReadWrite {
            return Err(Errno::ROFS);
        }
        if how == OpenHow::Read && self.unreadable(id) {
            return Err(Errno::IO);
        }
        let file = self.files.get_mut(&id).ok_or(Errno::ISDIR)?;
        file.opened += 1;
        self.counters.opens += 1;
        Ok(id)
    }

    fn unreadable(&self, id: Id) -> bool {
        let mut paths = self.faults.unreadable.iter();
        paths.any(|path| self.walk(path) == Ok(id))
    }

    fn bad(&self, id: Id, offset: u64, len: usize) -> bool {
        let end = offset + len as u64;
        let mut bad = self.faults.bad.iter();
        bad.any(|(path, from, to)| *from < end && *to > offset && self.walk(path) == Ok(id))
    }

    pub(super) fn closed(&mut self, boot: u64, id: Id) {
        if boot != self.boot {
            return;
        }
        if let Some(file) = self.files.get_mut(&id) {
            file.opened = file.opened.saturating_sub(1);
        }
        self.forget_if_gone(id);
    }

    /// Forgets a file that nothing and no loss can bring back.
    fn forget_if_gone(&mut self, id: Id) {
        let closed = |file: &File| file.names == 0 && file.opened == 0;
        let back = |folder: &Folder| folder.may_name(id);
        let gone = self.files.get(&id).is_some_and(closed)
            && !self.renames.iter().any(|rename| rename.id == id)
            && !self.folders.values().any(back);
        if gone {
            self.files.remove(&id);
        }
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> Result<(), Errno> {
        let place = self.place(path)?;
        if self.lookup(&place).is_some() {
            return Err(Errno::EXIST);
        }
        let id = self.new_id();
        self.folders.insert(id, Folder::default());
        self.set(&place, Some(id));
        Ok(())
    }

    pub(super) fn read_dir(&self, path: &Path) -> Result<Vec<DirEntry>, Errno> {
        let id = self.walk(path)?;
        if self.unreadable(id) {
            return Err(Errno::IO);
        }
        let folder = self.folders.get(&id).ok_or(Errno::NOTDIR)?;
        let entry = |(name, id): (&OsString, Id)| DirEntry {
            name: name.clone(),
            is_dir: self.folders.contains_key(&id),
            len: self.files.get(&id).map_or(0, |file| file.content.len()),
        };
        Ok(folder.entries().map(entry).collect())
    }

    pub(super) fn remove(&mut self, path: &Path) -> Result<(), Errno> {
        let place = self.place(path)?;
        let id = self.lookup(&place).ok_or(Errno::NOENT)?;
        if self
            .folders
            .get(&id)
            .is_some_and(|folder| !folder.is_empty())
        {
            return Err(Errno::NOTEMPTY);
        }
        self.set(&place, None);
        self.counters.removes += 1;
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<(), Errno> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        let id = self.lookup(&from).ok_or(Errno::NOENT)?;
        if from == to {
            return Ok(());
        }
        if self
            .lookup(&to)
            .is_some_and(|id| self.folders.contains_key(&id))
        {
            return Err(Errno::ISDIR);
        }
        self.set(&to, Some(id));
        self.set(&from, None);
        self.renames.push(Rename {
            from,
            to,
            id,
            from_synced: false,
        });
        self.counters.renames += 1;
        Ok(())
    }

    pub(super) fn sync_folder(&mut self, path: &Path) -> Result<(), Errno> {
        let (id, _) = self.folder(path)?;
        self.counters.folder_syncs += 1;
        if due(&mut self.faults.fail_sync) {
            return Err(Errno::IO);
        }
        if self.sabotage.folder_sync {
            return Ok(());
        }
        self.folders.get_mut(&id).expect("just found").sync();
        self.renames.retain(|rename| rename.to.folder != id);
        for rename in &mut self.renames {
            rename.from_synced |= rename.from.folder == id;
        }
        let unnamed = |(id, file): (&Id, &File)| (file.names == 0).then_some(*id);
        let unnamed: Vec<Id> = self.files.iter().filter_map(unnamed).collect();
        for id in unnamed {
            self.forget_if_gone(id);
        }
        Ok(())
    }

    pub(super) fn content(&self, id: Id) -> &Content {
        &self.files[&id].content
    }

    fn content_mut(&mut self, id: Id) -> &mut Content {
        let file = self.files.get_mut(&id);
        &mut file.expect("an open file stays").content
    }

    pub(super) fn names_of(&self, id: Id) -> u64 {
        self.files[&id].names
    }

    pub(super) fn file_named(&mut self, path: &Path) -> Result<&mut Content, Errno> {
        let id = self.walk(path)?;
        let file = self.files.get_mut(&id).ok_or(Errno::ISDIR)?;
        Ok(&mut file.content)
    }

    fn taken(&self) -> u64 {
        let alive = |file: &&File| file.names > 0 || file.opened > 0;
        let files = self.files.values().filter(alive);
        files.map(|file| file.content.taken() * SECTOR as u64).sum()
    }

    pub(super) fn space(&self) -> SpaceOf {
        let total = self.faults.capacity.unwrap_or(MUCH);
        let free = total.saturating_sub(self.taken());
        let files = u64::MAX;
        SpaceOf { total, free, files }
    }

    fn check_space(&self, id: Id, offset: u64, len: usize) -> Result<(), Errno> {
        if self.faults.capacity.is_none() {
            return Ok(());
        }
        let more = self.content(id).would_take(offset, len) * SECTOR as u64;
        if more > self.space().free {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        id: Id,
        buf: &mut [u8],
        offset: u64,
        past_cache: bool,
    ) -> Result<usize, Errno> {
        if self.unreadable(id) || self.bad(id, offset, buf.len()) {
            return Err(Errno::IO);
        }
        let content = self.content(id);
        let len = if past_cache {
            content.read_past_cache(buf, offset)
        } else {
            content.read(buf, offset)
        };
        self.counters.reads += 1;
        self.counters.read_bytes += len as u64;
        Ok(len)
    }

    pub(super) fn write(&mut self, id: Id, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        if due(&mut self.faults.fail_write) {
            // Up to a sector's border of the file.
            let first = SECTOR - usize::try_from(offset % SECTOR as u64).expect("short");
            let some = first + self.random.below(bytes.len() / SECTOR + 1) * SECTOR;
            let some = if some > bytes.len() { 0 } else { some };
            self.content_mut(id).write(offset, &bytes[..some]);
            return Err(Errno::IO);
        }
        self.check_space(id, offset, bytes.len())?;
        self.content_mut(id).write(offset, bytes);
        self.counters.writes += 1;
        self.counters.written_bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn allocate(&mut self, id: Id, offset: u64, len: u64) -> Result<(), Errno> {
        let len = usize::try_from(len).expect("a simulated file is short");
        self.check_space(id, offset, len)?;
        if self.sabotage.zeroing {
            let old = self.some_old();
            self.content_mut(id).allocate_only(offset, len, &old);
        } else {
            self.content_mut(id).allocate_zeroed(offset, len);
        }
        self.counters.allocations += 1;
        Ok(())
    }

    pub(super) fn allocate_unwritten(
        &mut self,
        id: Id,
        offset: u64,
        len: u64,
    ) -> Result<(), Errno> {
        let len = usize::try_from(len).expect("a simulated file is short");
        self.check_space(id, offset, len)?;
        self.content_mut(id).allocate_unwritten(offset, len);
        self.counters.allocations += 1;
        Ok(())
    }

    pub(super) fn punch(&mut self, id: Id, offset: u64, len: u64) -> Result<(), Errno> {
        self.content_mut(id).punch(offset, len);
        self.counters.punches += 1;
        Ok(())
    }

    pub(super) fn set_len(&mut self, id: Id, len: u64) -> Result<(), Errno> {
        self.content_mut(id).set_len(len);
        self.counters.cuts += 1;
        Ok(())
    }

    pub(super) fn sync_file(&mut self, id: Id) -> Result<(), Errno> {
        self.counters.file_syncs += 1;
        if due(&mut self.faults.fail_sync) {
            let mut random = self.random.clone();
            self.content_mut(id).fail_sync(&mut random);
            self.random = random;
            return Err(Errno::IO);
        }
        if !self.sabotage.file_sync {
            self.content_mut(id).sync();
        }
        Ok(())
    }

    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut to_see = vec![(PathBuf::new(), ROOT)];
        while let Some((path, id)) = to_see.pop() {
            if let Some(file) = self.files.get(&id) {
                found.push((path, file.content.len()));
            } else {
                let entries = self.folders[&id].entries();
                to_see.extend(entries.map(|(name, id)| (path.join(name), id)));
            }
        }
        found.sort();
        found
    }
}

//! Copies of the directories of sealed volumes, on a faster disk.
//!
//! Owns a folder of that disk: `GROUP/SEQ.dir`, byte for byte what the
//! volume's own directory is. Nothing hangs on them: a copy is read only after
//! its head was found to be that of the volume's directory, each of its pages
//! is verified as it is read, and what does not verify is forgotten and copied
//! anew. Errors of that disk never count against the one that the volumes are
//! on: after the first the copies are let be until the next start.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_wire::StoreError;
use shardgate_wire::ids::GroupId;
use tracing::warn;

use super::engine::{Engine, State};
use super::files::Lately;
use super::format::{
    DIRECTORY_PAGE, DirectoryHead, decode_directory_head, decode_page, directory_head_len,
};
use super::making::make_folder;
use super::place::{What, parse_volume_file};
use super::reading::read_at;
use super::volume_state::{Index, Stage};
use crate::io::{DiskFile, DiskIo, OpenHow};

/// Bytes of a head that are read at once; longer ones take a second read.
const FIRST_READ: usize = 16 * 1024;
/// Bytes of a directory that are copied with one read.
const RUN_BYTES: u64 = 1 << 20;

type Place = (GroupId, u64);

#[derive(Debug, Default)]
struct Known {
    /// Volumes whose copies say what their directories say.
    good: HashSet<u64>,
    /// Volumes whose copies are to be looked at, or made.
    wanted: BTreeSet<Place>,
    /// Volumes whose copies are to be removed: those who forget one may hold
    /// up all writers of the disk that the volumes are on.
    stale: BTreeSet<Place>,
    /// Counts what was forgotten: a copy that was begun before may be old.
    forgot: u64,
    /// What lies there and is of no volume was removed.
    cleaned: bool,
    broken: bool,
}

/// The copies of one disk's directories.
#[derive(Debug)]
pub(crate) struct IndexCopies {
    io: Arc<dyn DiskIo>,
    open: Mutex<Lately<u64, Arc<dyn DiskFile>>>,
    known: Mutex<Known>,
}

fn folder(group: GroupId) -> PathBuf {
    PathBuf::from(group.to_string())
}

fn copy_file((group, sequence): Place) -> PathBuf {
    folder(group).join(format!("{sequence:016x}.dir"))
}

impl IndexCopies {
    pub(crate) fn new(io: Arc<dyn DiskIo>, most_files: usize) -> Self {
        Self {
            io,
            open: Mutex::new(Lately::new(most_files)),
            known: Mutex::default(),
        }
    }

    /// A volume's directory is new, or its copy damaged: it is to be copied
    /// again.
    pub(crate) fn distrust(&self, place: Place) {
        self.forget(place);
        self.known.lock().wanted.insert(place);
    }

    /// The volume goes, or its directory is about to change.
    pub(crate) fn forget(&self, place: Place) {
        let mut known = self.known.lock();
        known.forgot += 1;
        known.good.remove(&place.1);
        known.wanted.remove(&place);
        if !known.broken {
            known.stale.insert(place);
        }
        drop(known);
        self.open.lock().remove(place.1);
    }

    /// Bytes of a volume's copy; `None` if it has none that is good.
    pub(crate) fn read(&self, place: Place, at: u64, len: usize) -> Option<Vec<u8>> {
        let since = {
            let known = self.known.lock();
            if !known.good.contains(&place.1) {
                return None;
            }
            known.forgot
        };
        let file = self.open.lock().get(place.1);
        let read = || -> io::Result<Vec<u8>> {
            let file = match file {
                Some(file) => file,
                None => {
                    let file = self.io.open(&copy_file(place), OpenHow::Read)?;
                    file.read_scattered();
                    let mut open = self.open.lock();
                    // Else it may be one that was replaced meanwhile.
                    if self.known.lock().forgot == since {
                        open.insert(place.1, Arc::clone(&file));
                    }
                    file
                }
            };
            read_at(&*file, at, len)
        };
        match read() {
            Ok(bytes) if bytes.len() == len => Some(bytes),
            _ => {
                self.distrust(place);
                None
            }
        }
    }

    /// The next copy to look at or make, after those that are stale were
    /// removed, and how many had been forgotten then.
    fn next(&self) -> Option<(Place, u64)> {
        let (stale, next) = {
            let mut known = self.known.lock();
            if known.broken {
                return None;
            }
            let stale = std::mem::take(&mut known.stale);
            (stale, known.wanted.pop_first().map(|n| (n, known.forgot)))
        };
        for place in stale {
            // What stays is not used before its head was looked at.
            let _ = self.io.remove(&copy_file(place));
        }
        next
    }

    /// Whether a volume's copy begins as its directory does, and is as long.
    fn has_copy_of(&self, head: &DirectoryHead) -> bool {
        let place = (head.heading.group, head.heading.sequence);
        let read = || -> io::Result<bool> {
            let file = self.io.open(&copy_file(place), OpenHow::Read)?;
            let mut bytes = read_at(&*file, 0, FIRST_READ)?;
            if let Some(len) = directory_head_len(&bytes)
                && len > bytes.len()
            {
                bytes = read_at(&*file, 0, len)?;
            }
            let same = decode_directory_head(&bytes).is_ok_and(|copy| copy == *head);
            Ok(same && file.len()? == head.file_len())
        };
        read().unwrap_or(false)
    }

    fn write(&self, place: Place, bytes: &[u8]) -> io::Result<()> {
        make_folder(&*self.io, &folder(place.0))?;
        let name = copy_file(place);
        let part = name.with_extension("part");
        match self.io.remove(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.io.open(&part, OpenHow::CreateNew)?;
        file.write_at(&[IoSlice::new(bytes)], 0)?;
        // One that a crash tore is found out by its pages; this keeps it rare.
        file.sync_data()?;
        self.io.rename(&part, &name)
    }

    /// Uses a copy from now on that was looked at, or begun, when so many had
    /// been forgotten. One of them may have been this.
    fn trust(&self, place: Place, since: u64) {
        let mut known = self.known.lock();
        if known.forgot == since {
            known.good.insert(place.1);
        } else {
            known.wanted.insert(place);
        }
    }

    /// The first error ends the use of the folder until the next start.
    fn give_up(&self, error: &io::Error) {
        let mut known = self.known.lock();
        if !std::mem::replace(&mut known.broken, true) {
            warn!(%error, "copies of directories are not made any more: index_dir fails");
        }
    }

    /// Removes what lies there of volumes that are not.
    fn clean(&self, sealed: &BTreeSet<Place>) -> io::Result<()> {
        let groups = match self.io.read_dir(Path::new("")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            groups => groups?,
        };
        for entry in groups.into_iter().filter(|entry| entry.is_dir) {
            let group = entry.name.to_str().and_then(|name| name.parse().ok());
            let Some(group) = group else { continue };
            let (mut left, mut others) = (0, 0);
            for file in self.io.read_dir(&folder(group))? {
                let of = file.name.to_str().and_then(parse_volume_file);
                match of {
                    Some((sequence, What::Directory)) if sealed.contains(&(group, sequence)) => {
                        left += 1;
                    }
                    Some((_, What::Directory | What::Part)) => {
                        self.io.remove(&folder(group).join(&file.name))?;
                    }
                    _ => others += 1,
                }
            }
            if left + others == 0 {
                self.io.remove(&folder(group))?;
            }
        }
        Ok(())
    }
}

fn sealed_volumes(state: &State) -> BTreeSet<Place> {
    let mut sealed = BTreeSet::new();
    for (group, of) in &state.groups {
        let volumes = of.volumes.iter();
        let volumes = volumes.filter(|(_, volume)| volume.stage == Stage::Sealed);
        sealed.extend(volumes.map(|(sequence, _)| (*group, *sequence)));
    }
    sealed
}

impl Engine {
    /// The head of a sealed volume's directory.
    fn sealed_head(&self, (group, sequence): Place) -> Option<DirectoryHead> {
        let state = self.state.read();
        let volume = state.groups.get(&group)?.volumes.get(&sequence)?;
        match &volume.index {
            Index::Directory(head) if volume.stage == Stage::Sealed => Some(head.clone()),
            _ => None,
        }
    }

    /// Looks at copies of directories until one is to be made, and makes it:
    /// its bytes. `None` if nothing is to be done.
    pub(crate) fn copy_directory(&self) -> Result<Option<usize>, StoreError> {
        let Some(index) = &self.index else {
            return Ok(None);
        };
        if !index.known.lock().cleaned {
            let sealed = sealed_volumes(&self.state.read());
            if let Err(error) = index.clean(&sealed) {
                index.give_up(&error);
            }
            let mut known = index.known.lock();
            known.cleaned = true;
            known.wanted.extend(sealed);
        }
        while let Some((place, since)) = index.next() {
            let Some(head) = self.sealed_head(place) else {
                continue;
            };
            if index.has_copy_of(&head) {
                index.trust(place, since);
                continue;
            }
            let Some(bytes) = self.whole_directory(place, &head)? else {
                continue;
            };
            if let Err(error) = index.write(place, &bytes) {
                index.give_up(&error);
                return Ok(None);
            }
            index.trust(place, since);
            return Ok(Some(bytes.len()));
        }
        Ok(None)
    }

    /// All of a volume's own directory, verified; `None` if it is damaged.
    fn whole_directory(
        &self,
        (group, sequence): Place,
        head: &DirectoryHead,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < head.file_len() {
            let at = bytes.len() as u64;
            let len = RUN_BYTES.min(head.file_len() - at) as usize;
            let run = match self.own_directory_bytes(group, &head.heading, at, len) {
                Ok(run) => run,
                // It is met by those who want the page as well.
                Err(StoreError::Io { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let cut = run.len() < len;
            bytes.extend(run);
            if cut {
                self.want_mended(group, sequence);
                return Ok(None);
            }
        }
        let pages = bytes.get(head.pages_at as usize..).unwrap_or_default();
        let whole = pages.chunks(DIRECTORY_PAGE).enumerate().all(|(n, page)| {
            let at = head.pages_at + (n * DIRECTORY_PAGE) as u64;
            decode_page(head.heading.salt, at, page).is_ok()
        });
        let same = decode_directory_head(&bytes).is_ok_and(|own| own == *head);
        if whole && same {
            return Ok(Some(bytes));
        }
        self.want_mended(group, sequence);
        Ok(None)
    }
}

#[cfg(test)]
mod tests;

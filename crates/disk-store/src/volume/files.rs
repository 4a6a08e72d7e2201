//! Files of sealed volumes that were used lately, and this disk's part of
//! what is kept of directories.
//!
//! Bounded, whatever the disk holds.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_wire::ids::GroupId;

use super::place::{What, volume_file};
use crate::directories::{DirectoryMemory, VolumeOf};
use crate::io::{DiskFile, DiskIo, OpenHow};

/// The last `most` things that were used.
#[derive(Debug)]
pub(crate) struct Lately<K, V> {
    by_key: HashMap<K, (u64, V)>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
    most: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Lately<K, V> {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            by_key: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            most,
        }
    }

    pub(crate) fn get(&mut self, key: K) -> Option<V> {
        let half = self.by_use.len() as u64 / 2;
        let (used, value) = self.by_key.get_mut(&key)?;
        // What is among the later half stays where it is: it is far from
        // making way, and most of what is asked for is there.
        if self.uses - *used >= half.max(1) {
            self.by_use.remove(used);
            self.uses += 1;
            *used = self.uses;
            self.by_use.insert(self.uses, key);
        }
        Some(value.clone())
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.remove(key);
        self.uses += 1;
        self.by_use.insert(self.uses, key);
        self.by_key.insert(key, (self.uses, value));
        while self.by_key.len() > self.most {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                return;
            };
            self.by_key.remove(&oldest);
        }
    }

    pub(crate) fn remove(&mut self, key: K) {
        if let Some((used, _)) = self.by_key.remove(&key) {
            self.by_use.remove(&used);
        }
    }
}

/// How a file is going to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Order {
    /// Here and there: nothing is to be read ahead.
    Scattered,
    /// From its start on.
    Rising,
}

/// A file of a volume, by number and kind, and what it is read for.
type Wanted = (u64, What, Order);

#[derive(Debug)]
struct Opened {
    files: Lately<Wanted, Arc<dyn DiskFile>>,
    /// Counts what was forgotten: a file that was opened before may be another
    /// than the one that has its name since.
    forgot: u64,
}

#[derive(Debug)]
pub(crate) struct Files {
    open: Mutex<Opened>,
    pub(crate) directories: Arc<DirectoryMemory>,
    /// This disk's number there.
    disk: u64,
}

impl Files {
    pub(crate) fn new(most_files: usize, directories: Arc<DirectoryMemory>) -> Self {
        Self {
            open: Mutex::new(Opened {
                files: Lately::new(most_files),
                forgot: 0,
            }),
            disk: directories.new_disk(),
            directories,
        }
    }

    /// A volume of this disk among those of all.
    pub(crate) fn volume_of(&self, sequence: u64) -> VolumeOf {
        VolumeOf {
            disk: self.disk,
            sequence,
        }
    }

    /// A file of a volume, open for reading.
    pub(crate) fn open(
        &self,
        io: &dyn DiskIo,
        group: GroupId,
        (sequence, what, order): Wanted,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let since = {
            let mut open = self.open.lock();
            if let Some(file) = open.files.get((sequence, what, order)) {
                return Ok(file);
            }
            open.forgot
        };
        let file = io.open(&volume_file(group, sequence, what), OpenHow::Read)?;
        if order == Order::Scattered {
            file.read_scattered();
        }
        let mut open = self.open.lock();
        if open.forgot == since {
            open.files
                .insert((sequence, what, order), Arc::clone(&file));
        }
        Ok(file)
    }

    /// Forgets what is kept of a volume's directory.
    pub(crate) fn forget_pages(&self, sequence: u64) {
        self.directories.forget(self.volume_of(sequence));
    }

    /// Forgets the files of a volume that went, or changed.
    pub(crate) fn forget(&self, sequence: u64) {
        let mut open = self.open.lock();
        open.forgot += 1;
        for what in [What::Volume, What::Directory] {
            for order in [Order::Scattered, Order::Rising] {
                open.files.remove((sequence, what, order));
            }
        }
        drop(open);
        self.forget_pages(sequence);
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.directories.forget_disk(self.disk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_lately_used_goes_first() {
        let mut lately = Lately::new(2);
        lately.insert(1, 'a');
        lately.insert(2, 'b');
        assert_eq!(lately.get(1), Some('a'));
        lately.insert(3, 'c');
        assert_eq!(
            [1, 2, 3].map(|key| lately.get(key)),
            [Some('a'), None, Some('c')]
        );
        lately.remove(1);
        assert_eq!(lately.get(1), None);
        assert_eq!(lately.by_use.len(), lately.by_key.len());
    }

    #[test]
    fn what_was_used_since_half_of_the_others_came_is_kept() {
        let mut lately = Lately::new(10);
        (0..10).for_each(|key| lately.insert(key, ()));
        for key in 10..100 {
            // Asked for again and again, between all others.
            assert_eq!(lately.get(0), Some(()), "before {key}");
            lately.insert(key, ());
        }
        assert_eq!(lately.by_use.len(), 10);
        assert_eq!(lately.get(91), Some(()));
        assert_eq!(lately.get(90), None);
    }
}

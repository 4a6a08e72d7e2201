//! Files of sealed volumes and pages of directories that were used lately.
//!
//! Bounded in number, whatever the disk holds.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_wire::ids::GroupId;

use super::format::Entry;
use super::place::{What, volume_file};
use crate::io::{DiskFile, DiskIo, OpenHow};

/// The last `most` things that were used.
#[derive(Debug)]
struct Lately<K, V> {
    by_key: HashMap<K, (u64, V)>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
    most: usize,
}

impl<K: Hash + Eq + Copy, V: Clone> Lately<K, V> {
    fn new(most: usize) -> Self {
        Self {
            by_key: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            most,
        }
    }

    fn get(&mut self, key: K) -> Option<V> {
        let (used, value) = self.by_key.get_mut(&key)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, key);
        Some(value.clone())
    }

    fn insert(&mut self, key: K, value: V) {
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

    fn remove(&mut self, key: K) {
        if let Some((used, _)) = self.by_key.remove(&key) {
            self.by_use.remove(&used);
        }
    }
}

type Page = (u64, u64);

#[derive(Debug)]
pub(crate) struct Files {
    open: Mutex<Lately<(u64, What), Arc<dyn DiskFile>>>,
    pages: Mutex<Lately<Page, Arc<Vec<Entry>>>>,
}

impl Files {
    pub(crate) fn new(most_files: usize, most_pages: usize) -> Self {
        Self {
            open: Mutex::new(Lately::new(most_files)),
            pages: Mutex::new(Lately::new(most_pages)),
        }
    }

    /// A file of a volume, open for reading.
    pub(crate) fn open(
        &self,
        io: &dyn DiskIo,
        group: GroupId,
        sequence: u64,
        what: What,
    ) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().get((sequence, what)) {
            return Ok(file);
        }
        let file = io.open(&volume_file(group, sequence, what), OpenHow::Read)?;
        self.open.lock().insert((sequence, what), Arc::clone(&file));
        Ok(file)
    }

    pub(crate) fn page(&self, sequence: u64, at: u64) -> Option<Arc<Vec<Entry>>> {
        self.pages.lock().get((sequence, at))
    }

    pub(crate) fn keep_page(&self, sequence: u64, at: u64, page: Arc<Vec<Entry>>) {
        self.pages.lock().insert((sequence, at), page);
    }

    /// Forgets the pages of a volume's directory.
    pub(crate) fn forget_pages(&self, sequence: u64) {
        let mut pages = self.pages.lock();
        let of: Vec<_> = pages.by_key.keys().copied().collect();
        for page in of.into_iter().filter(|(of, _)| *of == sequence) {
            pages.remove(page);
        }
    }

    /// Forgets the files of a volume that went, or changed.
    pub(crate) fn forget(&self, sequence: u64) {
        let mut open = self.open.lock();
        open.remove((sequence, What::Volume));
        open.remove((sequence, What::Directory));
        drop(open);
        self.forget_pages(sequence);
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
}

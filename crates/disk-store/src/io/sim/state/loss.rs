//! What is left of a simulated disk after its process or its power went.

use std::collections::BTreeMap;

use super::{File, OLD_FILES, State};
use crate::io::sim::content::Old;
use crate::io::sim::names::{self, Id, ROOT};
use crate::io::sim::random::{Mood, Random};

impl State {
    pub(in crate::io::sim) fn restart(&mut self) {
        self.boot += 1;
        let opened: Vec<Id> = self.files.keys().copied().collect();
        for id in opened {
            self.files.entry(id).and_modify(|file| file.opened = 0);
            self.forget_if_gone(id);
        }
    }

    pub(in crate::io::sim) fn drop_cache(&mut self) {
        for file in self.files.values_mut() {
            file.content.drop_cache();
        }
    }

    pub(in crate::io::sim) fn power_loss(&mut self, seed: u64) {
        let mut random = Random::new(seed ^ self.seed.rotate_left(32));
        self.boot += 1;
        self.off = false;
        self.faults.power_off = None;
        let mood = Mood::choose(&mut random);
        let files = &self.files;
        let lives = |id: Id| files.get(&id).is_none_or(|file| file.names > 0);
        names::lose(&mut self.folders, &self.renames, lives, mood, &mut random);
        self.renames.clear();
        for file in self.files.values_mut() {
            // A clean file may still show what a failed sync dropped.
            if file.content.is_clean() {
                file.content.drop_cache();
                continue;
            }
            let old = match self.old.len() {
                len @ 1.. if self.old_bytes => self.old[random.below(len)].clone(),
                _ => Old::new(),
            };
            file.content.lose(mood, &mut random, &old);
        }
        self.keep_named();
        self.random = random;
    }

    /// Only what can be reached by a name is left.
    fn keep_named(&mut self) {
        let mut folders = BTreeMap::new();
        let mut names: BTreeMap<Id, u64> = BTreeMap::new();
        let mut to_see = vec![ROOT];
        while let Some(id) = to_see.pop() {
            let Some(folder) = self.folders.remove(&id) else {
                continue;
            };
            for (_, id) in folder.entries() {
                *names.entry(id).or_default() += 1;
                to_see.push(id);
            }
            folders.insert(id, folder);
        }
        self.folders = folders;
        for (id, file) in &mut self.files {
            file.opened = 0;
            file.names = names.get(id).copied().unwrap_or(0);
        }
        let gone = self.files.extract_if(.., |_, file| file.names == 0);
        let gone: Vec<File> = gone.map(|(_, file)| file).collect();
        self.old.extend(gone.iter().map(|file| file.content.old()));
        while self.old.len() > OLD_FILES {
            self.old.pop_front();
        }
    }
}

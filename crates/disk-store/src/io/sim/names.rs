//! Folders and names: what lookups see, and what is durable.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::random::{Mood, Random};

/// A file or folder, whatever its names.
pub(super) type Id = u64;

/// The disk's own folder.
pub(super) const ROOT: Id = 0;

/// A folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Folder {
    now: BTreeMap<OsString, Id>,
    durable: BTreeMap<OsString, Id>,
    /// What a name stood for since the last sync of the folder, oldest first.
    versions: BTreeMap<OsString, Vec<Option<Id>>>,
}

impl Folder {
    pub(super) fn get(&self, name: &OsStr) -> Option<Id> {
        self.now.get(name).copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&OsString, Id)> {
        self.now.iter().map(|(name, id)| (name, *id))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.now.is_empty()
    }

    pub(super) fn set(&mut self, name: &OsStr, to: Option<Id>) {
        match to {
            Some(id) => self.now.insert(name.to_owned(), id),
            None => self.now.remove(name),
        };
        self.versions.entry(name.to_owned()).or_default().push(to);
    }

    pub(super) fn sync(&mut self) {
        self.versions.clear();
        self.durable.clone_from(&self.now);
    }

    /// Of each name that was not synced any version is there.
    fn lose(&mut self, mood: Mood, random: &mut Random) {
        for (name, versions) in std::mem::take(&mut self.versions) {
            if let Some(at) = mood.pick(random, versions.len()) {
                self.put_durable(&name, versions[at]);
            }
        }
    }

    fn put_durable(&mut self, name: &OsStr, to: Option<Id>) {
        match to {
            Some(id) => self.durable.insert(name.to_owned(), id),
            None => self.durable.remove(name),
        };
    }

    fn durably_names(&self, id: Id) -> bool {
        self.durable.values().any(|other| *other == id)
    }

    fn settle(&mut self) {
        self.now.clone_from(&self.durable);
    }

    /// Whether a loss could bring `id` back under a name here.
    pub(super) fn may_name(&self, id: Id) -> bool {
        self.now.values().any(|other| *other == id)
            || self.durably_names(id)
            || self.versions.values().flatten().any(|v| *v == Some(id))
    }
}

/// A name in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) folder: Id,
    pub(super) name: OsString,
}

/// A rename that is not durable for certain. File systems with a journal
/// make both names change at once, so a loss leaves one of the two.
#[derive(Clone, Debug)]
pub(super) struct Rename {
    pub(super) from: Place,
    pub(super) to: Place,
    pub(super) id: Id,
    pub(super) from_synced: bool,
}

fn taken(folders: &BTreeMap<Id, Folder>, place: &Place) -> bool {
    let folder = folders.get(&place.folder);
    folder.is_some_and(|folder| folder.durable.contains_key(&place.name))
}

/// All folders lose names; `lives` tells which files had a name before.
pub(super) fn lose(
    folders: &mut BTreeMap<Id, Folder>,
    renames: &[Rename],
    lives: impl Fn(Id) -> bool,
    mood: Mood,
    random: &mut Random,
) {
    for folder in folders.values_mut() {
        folder.lose(mood, random);
    }
    for Rename {
        from,
        to,
        id,
        from_synced,
    } in renames
    {
        let stands = |place: &Place| {
            let folder = folders.get(&place.folder);
            folder.and_then(|folder| folder.durable.get(&place.name)) == Some(id)
        };
        let (at, to_be) = match (stands(from), stands(to)) {
            (true, true) => (from, None),
            (false, false) if lives(*id) && !folders.values().any(|f| f.durably_names(*id)) => {
                let back = !from_synced && !taken(folders, from);
                (if back { from } else { to }, Some(*id))
            }
            _ => continue,
        };
        if let Some(folder) = folders.get_mut(&at.folder) {
            folder.put_durable(&at.name, to_be);
        }
    }
    for folder in folders.values_mut() {
        folder.settle();
    }
}

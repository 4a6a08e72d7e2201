//! Directories that are damaged, made anew from the records while the disk is
//! open: a damaged page keeps nothing from being deleted, and is read over
//! only until upkeep comes to it.
//!
//! Invariant: what the new directory does not name is nowhere in the volume,
//! or the volume says that it does not know. Changes no record.

use std::collections::BTreeMap;

use shardgate_wire::ids::GroupId;
use shardgate_wire::{ShardKey, StoreError};
use tracing::warn;

use super::engine::{Engine, Writer};
use super::format::{DIRECTORY_PAGE, DirectoryHead, Ends, Entry};
use super::place::{What, volume_file};
use super::scan::{Scanned, name, scan};
use super::source::BadSectors;
use super::volume_state::{InGroup, Index, Stage, pages_of};
use crate::io::OpenHow;

/// A directory that is to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mend {
    Wanted,
    /// It did not come off, and is not tried again by itself.
    Failed,
}

impl Engine {
    /// A page of a volume's directory is damaged.
    pub(super) fn want_mended(&self, group: GroupId, sequence: u64) {
        let mut mends = self.mends.lock();
        mends.entry((group, sequence)).or_insert(Mend::Wanted);
    }

    /// Makes one directory anew that somebody found damaged; false if there
    /// is none.
    pub(super) fn mend_next(&self) -> Result<bool, StoreError> {
        let next = {
            let mends = self.mends.lock();
            let mut wanted = mends.iter().filter(|(_, mend)| **mend == Mend::Wanted);
            wanted.next().map(|(volume, _)| *volume)
        };
        let Some((group, sequence)) = next else {
            return Ok(false);
        };
        let mut writer = self.writing();
        self.mend(&mut writer, group, sequence)?;
        Ok(true)
    }

    /// Makes the directories anew that keep a key from being found.
    pub(super) fn mend_for(&self, writer: &mut Writer, key: ShardKey) -> Result<(), StoreError> {
        let in_group: InGroup = (key.blob, key.index);
        for (sequence, head) in self.directories_with(key.group, in_group) {
            let mut pages = pages_of(&head, in_group);
            let damaged = pages.any(|page| {
                let at = head.pages_at + (page * DIRECTORY_PAGE) as u64;
                self.directory_page(key.group, &head.heading, at).is_err()
            });
            if damaged {
                self.mend(writer, key.group, sequence)?;
            }
        }
        Ok(())
    }

    fn directories_with(&self, group: GroupId, key: InGroup) -> Vec<(u64, DirectoryHead)> {
        let state = self.state.read();
        let of = state.groups.get(&group);
        let spanning = of.map_or(Vec::new(), |of| of.spanning(key));
        spanning
            .into_iter()
            .filter_map(|volume| match &volume.index {
                Index::Directory(head) => Some((volume.heading.sequence, head.clone())),
                Index::Map(_) => None,
            })
            .collect()
    }

    /// Makes a directory anew. The writer's lock keeps the volume from being
    /// compacted away meanwhile: a directory without it would be that of a
    /// volume that was lost.
    fn mend(&self, _writer: &mut Writer, group: GroupId, sequence: u64) -> Result<(), StoreError> {
        let mended = self.mend_unheeded(group, sequence);
        let mut mends = self.mends.lock();
        match mended {
            Ok(()) => drop(mends.remove(&(group, sequence))),
            Err(_) => drop(mends.insert((group, sequence), Mend::Failed)),
        }
        mended
    }

    fn mend_unheeded(&self, group: GroupId, sequence: u64) -> Result<(), StoreError> {
        let head = {
            let state = self.state.read();
            let of = state.groups.get(&group);
            let volume = of.and_then(|of| of.volumes.get(&sequence));
            match volume.map(|volume| (volume.stage, &volume.index)) {
                Some((Stage::Sealed, Index::Directory(head))) => head.clone(),
                _ => return Ok(()),
            }
        };
        let path = volume_file(group, sequence, What::Volume);
        let unread = |error| self.unread(&error);
        let file = self.io.open(&path, OpenHow::Read).map_err(unread)?;
        let scanned = scan(&*file, &head.heading, BadSectors::PassOver).map_err(unread)?;
        self.make_anew(&head, &scanned)?;
        warn!(disk = %self.identity.disk, volume = name(group, sequence), "a damaged directory was made anew");
        Ok(())
    }

    /// Shows a volume's records by another index: by a map while its directory
    /// gets another content. Who has the head of the one must never read pages
    /// of the other: they verify as well, and do not have the key.
    fn show_index(&self, head: &DirectoryHead, index: Index, unknown: u32) {
        let mut state = self.state.write();
        state.moves += 1;
        let Some(of) = state.groups.get_mut(&head.heading.group) else {
            return;
        };
        if let Some(volume) = of.volumes.get_mut(&head.heading.sequence) {
            volume.index = index;
            volume.unknown = unknown;
        }
        of.arrange();
    }

    /// Writes a directory of what was found in the volume, and of what the
    /// one before still says.
    pub(super) fn make_anew(
        &self,
        head: &DirectoryHead,
        scanned: &Scanned,
    ) -> Result<(), StoreError> {
        self.condition.check_writable()?;
        let (group, sequence) = (head.heading.group, head.heading.sequence);
        let dead = {
            let state = self.state.read();
            let of = state.groups.get(&group);
            let volume = of.and_then(|of| of.volumes.get(&sequence));
            volume.map_or(Vec::new(), |volume| volume.dead.clone())
        };
        // A deleted record is damaged once its space was given back, and is
        // not to take the place of one of the same shard that counts.
        let live = |entry: &&Entry| dead.binary_search(&entry.at).is_err();
        let mut entries: BTreeMap<InGroup, Entry> = BTreeMap::new();
        self.files.forget(sequence);
        for page in 0..head.fence.len() {
            let at = head.pages_at + (page * DIRECTORY_PAGE) as u64;
            // Entries of records that nobody finds any more stay: they tell
            // which shards are damaged.
            let page = self.directory_page(group, &head.heading, at);
            let of_page = page.iter().flat_map(|page| page.iter());
            for entry in of_page.filter(live) {
                entries.insert(entry.key(), *entry);
            }
        }
        for entry in scanned.entries.iter().filter(live) {
            entries.insert(entry.key(), *entry);
        }
        let unsure = u32::from(!scanned.sealed || scanned.unread_bytes > 0);
        let unknown = u32::try_from(scanned.unknown.len()).unwrap_or(u32::MAX);
        let ends = Ends {
            tail: head.tail,
            extents_from: head.extents_from,
            unknown: unknown.saturating_add(unsure),
            recorded: head.recorded,
        };
        self.show_index(head, Index::Map(entries.clone()), ends.unknown);
        let entries: Vec<_> = entries.into_values().collect();
        let made = self.write_directory(head.heading, ends, &entries);
        let made = made.inspect_err(|_| {
            // The name was not changed, else the disk is fenced: then the
            // volume stays in memory.
            if self.condition.check_writable().is_ok() {
                self.show_index(head, Index::Directory(head.clone()), head.unknown);
            }
        })?;
        self.show_sealed(made);
        let mut state = self.state.write();
        let of = state.groups.get_mut(&group);
        if let Some(volume) = of.and_then(|of| of.volumes.get_mut(&sequence)) {
            volume.damaged = scanned.damaged.iter().any(|entry| live(&entry));
        }
        Ok(())
    }
}

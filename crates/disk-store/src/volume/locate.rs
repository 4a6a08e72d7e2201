//! Where a shard's record is.
//!
//! At most one page of a directory is read for each volume whose keys span
//! the shard's; blob ids rise with time, so that is mostly one.

use std::io;
use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::{Engine, State, corrupt};
use super::format::{DIRECTORY_PAGE, Entry, Heading, decode_page};
use super::place::What;
use super::source::is_bad_medium;
use super::volume_state::{InGroup, Index, pages_of};
use crate::io::DiskFile;

/// A live record.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) heading: Heading,
    pub(crate) entry: Entry,
    /// The volume's file while it is not sealed.
    pub(crate) file: Option<Arc<dyn DiskFile>>,
}

/// A page of a directory that may have the key.
struct Page {
    heading: Heading,
    at: u64,
}

/// How far a shard is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// One is enough; those that take no read first.
    Any,
    All,
}

/// What the state alone tells.
struct Hints {
    found: Vec<Located>,
    pages: Vec<Page>,
    moves: u64,
    /// Damaged stretches of the group whose keys nobody knows.
    unknown: bool,
}

fn hints(state: &State, key: ShardKey, copies: Copies) -> Hints {
    let in_group: InGroup = (key.blob, key.index);
    let mut hints = Hints {
        found: Vec::new(),
        pages: Vec::new(),
        moves: state.moves,
        unknown: state.unknown,
    };
    let Some(group) = state.groups.get(&key.group) else {
        return hints;
    };
    for volume in group.volumes.values().rev() {
        hints.unknown |= volume.unknown > 0;
        let enough = copies == Copies::Any && !hints.found.is_empty();
        if enough || !volume.spans(in_group) {
            continue;
        }
        match &volume.index {
            Index::Map(map) => {
                hints.found.extend(map.get(&in_group).map(|entry| Located {
                    heading: volume.heading,
                    entry: *entry,
                    file: volume.file.clone(),
                }));
            }
            Index::Directory(head) => {
                hints
                    .pages
                    .extend(pages_of(head, in_group).map(|page| Page {
                        heading: volume.heading,
                        at: head.pages_at + (page * DIRECTORY_PAGE) as u64,
                    }));
            }
        }
    }
    hints
}

impl Engine {
    /// The shard's record, if it has a live one. `Corrupt` if a directory
    /// that may have it is damaged.
    pub(crate) fn locate(&self, key: ShardKey) -> Result<Option<Located>, StoreError> {
        Ok(self.copies(key, Copies::Any)?.into_iter().next())
    }

    /// All live records of a shard. There is more than one only where what
    /// the disk knew was lost: of a log, of a volume. Each must go with it.
    pub(crate) fn locate_all(&self, key: ShardKey) -> Result<Vec<Located>, StoreError> {
        self.copies(key, Copies::All)
    }

    fn copies(&self, key: ShardKey, copies: Copies) -> Result<Vec<Located>, StoreError> {
        loop {
            let hints = hints(&self.state.read(), key, copies);
            let enough = copies == Copies::Any && !hints.found.is_empty();
            if enough || hints.pages.is_empty() {
                return Ok(hints.found);
            }
            let found = self.search_pages(key, &hints.pages);
            let state = self.state.read();
            if state.moves != hints.moves {
                continue; // a volume was sealed or compacted meanwhile
            }
            let live = |located: &Located| {
                let group = state.groups.get(&key.group);
                let volume = group.and_then(|group| group.volumes.get(&located.heading.sequence));
                volume.is_some_and(|volume| !volume.is_dead(located.entry.at))
            };
            let live = found?.into_iter().filter(live);
            return Ok(hints.found.into_iter().chain(live).collect());
        }
    }

    /// Whether a shard may not be begun: it is stored, damaged or not, or was
    /// deleted for good.
    pub(crate) fn holds(&self, key: ShardKey) -> Result<bool, StoreError> {
        self.check_note(&self.state.read(), key)?;
        match self.locate(key) {
            Ok(found) => Ok(found.is_some()),
            Err(StoreError::Corrupt { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The same for a caller that is told absence: a group with a damaged
    /// stretch whose keys nobody knows has no absent shards.
    pub(crate) fn locate_or_tell(&self, key: ShardKey) -> Result<Option<Located>, StoreError> {
        let found = self.locate(key)?;
        if found.is_none() && hints(&self.state.read(), key, Copies::Any).unknown {
            return Err(corrupt(
                "a volume of the group is damaged, and the shard may have been there",
            ));
        }
        Ok(found)
    }

    fn search_pages(&self, key: ShardKey, pages: &[Page]) -> Result<Vec<Located>, StoreError> {
        let mut found = Vec::new();
        for page in pages {
            let entries = self.directory_page(key.group, &page.heading, page.at)?;
            let in_group = (key.blob, key.index);
            let from = entries.partition_point(|entry| entry.key() < in_group);
            let same = entries[from..].iter();
            found.extend(
                same.take_while(|entry| entry.key() == in_group)
                    .map(|entry| Located {
                        heading: page.heading,
                        entry: *entry,
                        file: None,
                    }),
            );
        }
        Ok(found)
    }

    /// The entries of a page of a directory.
    pub(crate) fn directory_page(
        &self,
        group: GroupId,
        heading: &Heading,
        at: u64,
    ) -> Result<Arc<Vec<Entry>>, StoreError> {
        let sequence = heading.sequence;
        if let Some(page) = self.files.page(sequence, at) {
            return Ok(page);
        }
        let read = || -> io::Result<Vec<u8>> {
            let file = self
                .files
                .open(&*self.io, group, sequence, What::Directory)?;
            let mut bytes = vec![0; DIRECTORY_PAGE];
            let read = file.read_at(&mut bytes, at)?;
            bytes.truncate(read);
            Ok(bytes)
        };
        let bytes = match read() {
            // It went with its volume, or somebody took it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|error| {
                if is_bad_medium(&error) {
                    self.want_mended(group, sequence);
                }
                self.unread(&error)
            })?,
        };
        let entries = decode_page(heading.salt, at, &bytes).map_err(|error| {
            self.want_mended(group, sequence);
            corrupt(format!("volume {sequence:016x}: {error}"))
        })?;
        let page = Arc::new(entries);
        self.files.keep_page(sequence, at, Arc::clone(&page));
        Ok(page)
    }

    /// The file of the volume of a located record.
    pub(crate) fn file_of(&self, located: &Located) -> io::Result<Arc<dyn DiskFile>> {
        match &located.file {
            Some(file) => Ok(Arc::clone(file)),
            None => {
                let heading = &located.heading;
                self.files
                    .open(&*self.io, heading.group, heading.sequence, What::Volume)
            }
        }
    }
}

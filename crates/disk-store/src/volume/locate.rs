//! Where a shard's record is.
//!
//! A volume whose keys span the shard's is asked by its hints, if they are in
//! memory; else one page of its directory is read. Blob ids rise with time,
//! so that this is mostly one volume. What hints tell of is a guess that the
//! record has to prove; that they do not tell of a key is certain.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::{Engine, State, corrupt};
use super::files::Order;
use super::format::{DIRECTORY_PAGE, Entry, Heading, decode_page};
use super::hints::{Hint, Hints, hints_bytes};
use super::place::What;
use super::reading::read_at;
use super::source::is_bad_medium;
use super::volume_state::{InGroup, Index, pages_of};
use crate::directories::Moment;
use crate::io::DiskFile;

/// Bytes of a directory that are read at once where all of it is wanted.
const RUN_BYTES: usize = 1 << 20;

/// A live record.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub(crate) heading: Heading,
    pub(crate) entry: Entry,
    /// The volume's file while it is not sealed.
    pub(crate) file: Option<Arc<dyn DiskFile>>,
    /// Whether a directory, or the state, names it. Else the place may be
    /// another record's, and the entry says no more than how far to read.
    pub(crate) sure: bool,
}

/// Pages of a volume's directory that may have the key.
struct Sought {
    heading: Heading,
    pages: Range<usize>,
    /// Where the pages begin in the file, and how many there are.
    pages_at: u64,
    all_pages: usize,
    count: u32,
    /// From before its head was looked at: what is read by a head that was
    /// replaced since is not kept.
    since: Moment,
}

/// How far a shard is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copies {
    /// One is enough; those that take no read first.
    Any,
    All,
}

/// What the state alone tells.
struct Known {
    found: Vec<Located>,
    sought: Vec<Sought>,
    moves: u64,
}

fn known(state: &State, key: ShardKey, copies: Copies, since: Moment) -> Known {
    let in_group: InGroup = (key.blob, key.index);
    let mut known = Known {
        found: Vec::new(),
        sought: Vec::new(),
        moves: state.moves,
    };
    let Some(group) = state.groups.get(&key.group) else {
        return known;
    };
    for volume in group.spanning(in_group) {
        if copies == Copies::Any && !known.found.is_empty() {
            break;
        }
        match &volume.index {
            Index::Map(map) => {
                known.found.extend(map.get(&in_group).map(|entry| Located {
                    heading: volume.heading,
                    entry: *entry,
                    file: volume.file.clone(),
                    sure: true,
                }));
            }
            Index::Directory(head) => known.sought.push(Sought {
                heading: volume.heading,
                pages: pages_of(head, in_group),
                pages_at: head.pages_at,
                all_pages: head.fence.len(),
                count: head.count,
                since,
            }),
        }
    }
    known
}

/// How a record is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// In directories.
    Sure,
    /// By hints where there are any: a record that is found may be another's.
    Quick,
}

impl Engine {
    /// The shard's record, if it has a live one. `Corrupt` if a directory
    /// that may have it is damaged.
    pub(crate) fn locate(&self, key: ShardKey) -> Result<Option<Located>, StoreError> {
        let found = self.copies(key, Copies::Any, Look::Sure)?;
        Ok(found.into_iter().next())
    }

    /// All live records of a shard. There is more than one only where what
    /// the disk knew was lost: of a log, of a volume. Each must go with it.
    pub(crate) fn locate_all(&self, key: ShardKey) -> Result<Vec<Located>, StoreError> {
        self.copies(key, Copies::All, Look::Sure)
    }

    fn copies(
        &self,
        key: ShardKey,
        copies: Copies,
        look: Look,
    ) -> Result<Vec<Located>, StoreError> {
        loop {
            let since = self.files.directories.moment();
            let known = known(&self.state.read(), key, copies, since);
            let enough = copies == Copies::Any && !known.found.is_empty();
            if enough || known.sought.is_empty() {
                return Ok(known.found);
            }
            let found = match look {
                Look::Sure => self.search_pages(key, &known.sought, copies),
                Look::Quick => self.search_hints(key, &known.sought),
            };
            let state = self.state.read();
            if state.moves != known.moves {
                continue; // a volume was sealed or compacted meanwhile
            }
            let live = |located: &Located| {
                let group = state.groups.get(&key.group);
                let volume = group.and_then(|group| group.volumes.get(&located.heading.sequence));
                volume.is_some_and(|volume| !volume.is_dead(located.entry.at))
            };
            let live = found?.into_iter().filter(live);
            return Ok(known.found.into_iter().chain(live).collect());
        }
    }

    /// Whether a shard may not be begun: it is stored, damaged or not, or was
    /// deleted for good. A directory that cannot be read is made anew first:
    /// who is told that a shard is there takes it for stored.
    pub(crate) fn holds(&self, key: ShardKey) -> Result<bool, StoreError> {
        self.check_note(&self.state.read(), key)?;
        let found = match self.locate(key) {
            Err(StoreError::Corrupt { .. } | StoreError::Io { .. }) => {
                self.mend_for(&mut self.writing(), key)?;
                self.locate(key)
            }
            found => found,
        };
        Ok(found?.is_some())
    }

    /// The same for a caller that is told absence: a group with a damaged
    /// stretch whose keys nobody knows has no absent shards.
    pub(crate) fn locate_or_tell(
        &self,
        key: ShardKey,
        look: Look,
    ) -> Result<Option<Located>, StoreError> {
        let found = self.copies(key, Copies::Any, look)?.into_iter().next();
        if found.is_none() && self.may_hide(key.group) {
            return Err(corrupt(
                "a volume of the group is damaged, and the shard may have been there",
            ));
        }
        Ok(found)
    }

    /// What the pages of these volumes have, dead records too; if one copy is
    /// enough, no volume behind that of a live one is read.
    fn search_pages(
        &self,
        key: ShardKey,
        sought: &[Sought],
        copies: Copies,
    ) -> Result<Vec<Located>, StoreError> {
        let mut found: Vec<Located> = Vec::new();
        for sought in sought {
            for page in sought.pages.clone() {
                let at = sought.pages_at + (page * DIRECTORY_PAGE) as u64;
                let entries = self.directory_page(key.group, &sought.heading, at)?;
                let in_group = (key.blob, key.index);
                let from = entries.partition_point(|entry| entry.key() < in_group);
                let same = entries[from..].iter();
                found.extend(
                    same.take_while(|entry| entry.key() == in_group)
                        .map(|entry| Located {
                            heading: sought.heading,
                            entry: *entry,
                            file: None,
                            sure: true,
                        }),
                );
            }
            if copies == Copies::Any && found.iter().any(|located| !self.is_gone(located)) {
                break;
            }
        }
        Ok(found)
    }

    fn search_hints(&self, key: ShardKey, sought: &[Sought]) -> Result<Vec<Located>, StoreError> {
        let mut found = Vec::new();
        for of in sought {
            let hints = self.hints_of(of);
            let hint = hints.map_or(Hint::Unclear, |hints| {
                hints.find(of.pages.clone(), (key.blob, key.index))
            });
            match hint {
                Hint::Absent => {}
                Hint::Perhaps { at, span } => found.push(Located {
                    heading: of.heading,
                    entry: Entry {
                        blob: key.blob,
                        index: key.index,
                        at,
                        span,
                        besides: 0,
                    },
                    file: None,
                    sure: false,
                }),
                Hint::Unclear => {
                    found.extend(self.search_pages(key, std::slice::from_ref(of), Copies::Any)?);
                }
            }
        }
        // Of several that may have it, one that is sure must not be passed
        // over for a guess.
        if found.len() > 1 {
            return self.search_pages(key, sought, Copies::Any);
        }
        Ok(found)
    }

    /// The hints of a volume, loaded if it is time for that.
    fn hints_of(&self, of: &Sought) -> Option<Arc<Hints>> {
        let directories = &self.files.directories;
        let volume = self.files.volume_of(of.heading.sequence);
        if let Some(hints) = directories.hints(volume) {
            return hints;
        }
        let bytes = hints_bytes(of.count as usize);
        if !directories.shall_load(volume, of.all_pages, bytes) {
            return None;
        }
        // What is damaged is met by those who want the page that is.
        let entries = self.directory_entries(&of.heading, of.pages_at, of.all_pages);
        let hints = entries.ok().and_then(|entries| Hints::of(&entries));
        let hints = hints.map(Arc::new);
        directories.loaded(volume, hints.as_ref(), of.since);
        hints
    }

    /// The entries of a page of a directory.
    pub(crate) fn directory_page(
        &self,
        group: GroupId,
        heading: &Heading,
        at: u64,
    ) -> Result<Arc<Vec<Entry>>, StoreError> {
        let volume = self.files.volume_of(heading.sequence);
        let directories = &self.files.directories;
        if let Some(page) = directories.page(volume, at) {
            return Ok(page);
        }
        let since = directories.moment();
        let entries = self.directory_run(heading, at, DIRECTORY_PAGE);
        let page = Arc::new(entries.inspect_err(|error| {
            if matches!(error, StoreError::Corrupt { .. }) {
                self.want_mended(group, heading.sequence);
            }
        })?);
        directories.keep_page(volume, at, &page, since);
        Ok(page)
    }

    /// The entries of a whole directory, read in long runs and not kept.
    pub(crate) fn directory_entries(
        &self,
        heading: &Heading,
        pages_at: u64,
        pages: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let (mut entries, mut at) = (Vec::new(), pages_at);
        let end = pages_at + (pages * DIRECTORY_PAGE) as u64;
        while at < end {
            let len = usize::try_from(end - at)
                .unwrap_or(RUN_BYTES)
                .min(RUN_BYTES);
            entries.extend(self.directory_run(heading, at, len)?);
            at += len as u64;
        }
        Ok(entries)
    }

    /// The entries of some pages of a directory, from its copy if that has
    /// them.
    fn directory_run(
        &self,
        heading: &Heading,
        at: u64,
        len: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let place = (heading.group, heading.sequence);
        let copies = self.index.as_ref();
        if let Some((index, bytes)) = copies.and_then(|i| Some((i, i.read(place, at, len)?))) {
            match entries_of_pages(heading, at, &bytes) {
                Ok(entries) => return Ok(entries),
                Err(_) => index.distrust(place),
            }
        }
        let mut bytes = self.own_directory_bytes(heading.group, heading, at, len)?;
        // A page that is cut short, or not there, is damaged.
        bytes.resize(len, 0);
        entries_of_pages(heading, at, &bytes)
    }

    /// Bytes of a volume's own directory, fewer where it is short; none if it
    /// is gone.
    pub(crate) fn own_directory_bytes(
        &self,
        group: GroupId,
        heading: &Heading,
        at: u64,
        len: usize,
    ) -> Result<Vec<u8>, StoreError> {
        let sequence = heading.sequence;
        let read = || -> io::Result<Vec<u8>> {
            let file = (sequence, What::Directory, Order::Scattered);
            let file = self.files.open(&*self.io, group, file)?;
            read_at(&*file, at, len)
        };
        match read() {
            // It went with its volume, or somebody took it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            read => read.map_err(|error| {
                if is_bad_medium(&error) {
                    self.want_mended(group, sequence);
                }
                self.unread(&error)
            }),
        }
    }

    /// The file of the volume of a located record.
    pub(crate) fn file_of(&self, located: &Located) -> io::Result<Arc<dyn DiskFile>> {
        match &located.file {
            Some(file) => Ok(Arc::clone(file)),
            None => self.volume_for(&located.heading, Order::Scattered),
        }
    }

    /// The file of a volume, open for reading.
    pub(crate) fn volume_for(
        &self,
        heading: &Heading,
        order: Order,
    ) -> io::Result<Arc<dyn DiskFile>> {
        let file = (heading.sequence, What::Volume, order);
        self.files.open(&*self.io, heading.group, file)
    }
}

fn entries_of_pages(heading: &Heading, at: u64, pages: &[u8]) -> Result<Vec<Entry>, StoreError> {
    let (mut entries, mut at) = (Vec::new(), at);
    for page in pages.chunks(DIRECTORY_PAGE) {
        let of_page = decode_page(heading.salt, at, page)
            .map_err(|error| corrupt(format!("volume {:016x}: {error}", heading.sequence)))?;
        match entries.is_empty() {
            true => entries = of_page,
            false => entries.extend(of_page),
        }
        at += DIRECTORY_PAGE as u64;
    }
    Ok(entries)
}

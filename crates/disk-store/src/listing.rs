//! `list`: the names of the folders, in order, with bounded memory.
//!
//! Names sort as keys do. A folder is scanned for the smallest names after
//! where the page begins; what a page leaves over of a scan is kept for the
//! page that goes on where it ended, so that a large folder is not scanned for
//! each page. Invariant: a list that begins sees every name made before.

use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::fs::AtFlags;
use rustix::io::Errno;
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::store::ListedShard;
use shardgate_wire::{ShardKey, StoreError, bounds};

use crate::aligned::AlignedBuffer;
use crate::condition::Doing;
use crate::core::Core;
use crate::files;
use crate::names::{self, FolderName};
use crate::shard_file::{self, Found};
use crate::window::{Unread, WindowCursor};

/// Most names that one scan of a folder keeps.
const KEPT_NAMES: usize = 16 * 1024;
/// A scan is used for later pages that long.
const KEPT_FOR: Duration = Duration::from_secs(30);

pub(crate) type FileId = (BlobId, u8);

/// The greatest name before one.
fn before((blob, index): FileId) -> Option<FileId> {
    match index.checked_sub(1) {
        Some(index) => Some((blob, index)),
        None => Some((BlobId(blob.0.checked_sub(1)?), u8::MAX)),
    }
}

/// What is wanted of a file; nothing, and it is not listed.
type Look<'a, T> = dyn FnMut(ShardKey) -> Result<Option<T>, StoreError> + 'a;

/// A scan of a folder.
#[derive(Debug)]
pub(crate) struct Cursor {
    folder: FolderName,
    names: Vec<FileId>,
    /// Whether the folder has no more names behind these.
    complete: bool,
    since: Instant,
    /// The last name that went into a page.
    listed: Option<FileId>,
}

impl Cursor {
    /// Whether a page that begins behind `after` goes on with this scan.
    fn serves(&self, folder: FolderName, after: Option<FileId>) -> bool {
        self.folder == folder
            && after.is_some()
            && self.listed == after
            && self.since.elapsed() < KEPT_FOR
    }

    fn behind(&self, after: Option<FileId>) -> &[FileId] {
        let at = self.names.partition_point(|name| Some(*name) <= after);
        &self.names[at..]
    }
}

/// The first of two sorted pages; of a shard in both, the first's.
fn merged(a: Vec<ListedShard>, b: Vec<ListedShard>, limit: usize) -> Vec<ListedShard> {
    if b.is_empty() {
        return a;
    }
    let mut page: Vec<_> = a.into_iter().chain(b).collect();
    page.sort_by_key(|entry| entry.key); // stable, and of two runs
    page.dedup_by_key(|entry| entry.key);
    page.truncate(limit);
    page
}

impl Core {
    pub(crate) fn list_shards(
        &self,
        after: Option<ShardKey>,
        limit: usize,
        buffer: &mut AlignedBuffer,
    ) -> Result<Vec<ListedShard>, StoreError> {
        self.condition.check_present()?;
        bounds::check_list(limit)?;
        let packed = self.volumes.list(after, limit)?;
        let files = self.list_files(after, limit, buffer)?;
        let open = self.handles.open_extents(after);
        let open = open.into_iter().map(|(key, disk_bytes)| ListedShard {
            key,
            disk_bytes,
            finished: false,
        });
        let open = open.take(limit).collect();
        Ok(merged(merged(packed, files, limit), open, limit))
    }

    pub(crate) fn list_files(
        &self,
        after: Option<ShardKey>,
        limit: usize,
        buffer: &mut AlignedBuffer,
    ) -> Result<Vec<ListedShard>, StoreError> {
        self.list_each(after, limit, &mut |key| self.entry(key, buffer))
    }

    /// Names of files alone.
    pub(crate) fn list_names(
        &self,
        after: Option<ShardKey>,
        limit: usize,
    ) -> Result<Vec<ShardKey>, StoreError> {
        self.list_each(after, limit, &mut |key| Ok(Some(key)))
    }

    /// What `look` has of the files behind `after`, until it is `limit`.
    fn list_each<T>(
        &self,
        after: Option<ShardKey>,
        limit: usize,
        look: &mut Look<'_, T>,
    ) -> Result<Vec<T>, StoreError> {
        let mut page = Vec::new();
        let from = after.map(|key| FolderName::of(&key));
        for group in self.groups_from(from)? {
            for folder in self.folders_from(group, from)? {
                let inside = after.filter(|_| from == Some(folder));
                self.list_folder(folder, inside, limit, &mut page, look)?;
                if page.len() == limit {
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    fn unlisted(&self, errno: Errno) -> StoreError {
        self.condition.refused(Doing::Reading, "list folder", errno)
    }

    /// Groups that have folders of shards, in order.
    pub(crate) fn groups_from(&self, from: Option<FolderName>) -> Result<Vec<GroupId>, StoreError> {
        let mut groups = Vec::new();
        self.scan(&self.folders.shards, &mut |name| {
            groups.extend(names::parse_group(name))
        })?;
        groups.retain(|group| from.is_none_or(|from| *group >= from.group));
        groups.sort_unstable();
        Ok(groups)
    }

    pub(crate) fn folders_from(
        &self,
        group: GroupId,
        from: Option<FolderName>,
    ) -> Result<Vec<FolderName>, StoreError> {
        let fd = match files::open_folder_at(&self.folders.shards, &group.to_string()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(self.unlisted(errno)),
        };
        let mut folders = Vec::new();
        self.scan(&fd, &mut |name| {
            let prefix = names::parse_prefix(name);
            folders.extend(prefix.map(|prefix| FolderName { group, prefix }));
        })?;
        folders.retain(|folder| from.is_none_or(|from| *folder >= from));
        folders.sort_unstable();
        Ok(folders)
    }

    fn scan(&self, folder: &OwnedFd, see: &mut dyn FnMut(&[u8])) -> Result<(), StoreError> {
        files::each_name(folder, see).map_err(|errno| self.unlisted(errno))
    }

    /// Adds the shards of a folder behind `after` until the page is full.
    fn list_folder<T>(
        &self,
        folder: FolderName,
        after: Option<ShardKey>,
        limit: usize,
        page: &mut Vec<T>,
        look: &mut Look<'_, T>,
    ) -> Result<(), StoreError> {
        let mut after = after.map(|key| (key.blob, key.index));
        let kept = self.cursor.lock().take();
        let mut cursor = match kept.filter(|kept| kept.serves(folder, after)) {
            Some(kept) => kept,
            None => self.scan_files(folder, after, KEPT_NAMES)?,
        };
        loop {
            for (blob, index) in cursor.behind(after) {
                let group = folder.group;
                let (blob, index) = (*blob, *index);
                after = Some((blob, index));
                let entry = look(ShardKey { group, blob, index })?;
                page.extend(entry);
                if page.len() == limit {
                    cursor.listed = after;
                    *self.cursor.lock() = Some(cursor);
                    return Ok(());
                }
            }
            if cursor.complete {
                return Ok(());
            }
            cursor = self.scan_files(folder, after, KEPT_NAMES)?;
        }
    }

    /// The first files of a folder behind `after`, none of them looked at, and
    /// whether they are all.
    pub(crate) fn keys_in(
        &self,
        folder: FolderName,
        after: Option<ShardKey>,
    ) -> Result<(Vec<ShardKey>, bool), StoreError> {
        let scanned =
            self.scan_files(folder, after.map(|key| (key.blob, key.index)), KEPT_NAMES)?;
        let group = folder.group;
        let keys = scanned.names.into_iter();
        let keys = keys.map(|(blob, index)| ShardKey { group, blob, index });
        Ok((keys.collect(), scanned.complete))
    }

    /// The first `most` names of a group's folders from `from` on, of one
    /// folder; none if the group has no others.
    pub(crate) fn files_from(
        &self,
        group: GroupId,
        from: FileId,
        most: usize,
    ) -> Result<Vec<FileId>, Unread> {
        let (blob, index) = from;
        let first = FolderName::of(&ShardKey { group, blob, index });
        let folders = self.folders_from(group, Some(first));
        let place = WindowCursor::of_folder(first);
        for folder in folders.map_err(Unread::from(place))? {
            let after = before(from).filter(|_| folder == first);
            let scanned = self.scan_files(folder, after, most);
            let place = WindowCursor::of_folder(folder);
            let names = scanned.map_err(Unread::at(place))?.names;
            if !names.is_empty() {
                return Ok(names);
            }
        }
        Ok(Vec::new())
    }

    /// The first `most` names of a folder behind `after`.
    fn scan_files(
        &self,
        folder: FolderName,
        after: Option<FileId>,
        most: usize,
    ) -> Result<Cursor, StoreError> {
        let mut smallest = BinaryHeap::new();
        let mut complete = true;
        let since = Instant::now();
        let fd = match files::open_folder_at(&self.folders.shards, &folder.path()) {
            Ok(fd) => Some(fd),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(self.unlisted(errno)),
        };
        let mut see = |name: &[u8]| {
            let Some(key) = names::parse_file(folder, name) else {
                return;
            };
            let id = (key.blob, key.index);
            if Some(id) <= after {
                return;
            }
            smallest.push(id);
            if smallest.len() > most {
                smallest.pop();
                complete = false;
            }
        };
        if let Some(fd) = fd {
            self.scan(&fd, &mut see)?;
        }
        Ok(Cursor {
            folder,
            names: smallest.into_sorted_vec(),
            complete,
            since,
            listed: None,
        })
    }

    /// A listed shard; `None` if it went meanwhile. One that cannot be looked
    /// at is there, and listed as damaged ones are.
    fn entry(
        &self,
        key: ShardKey,
        buffer: &mut AlignedBuffer,
    ) -> Result<Option<ListedShard>, StoreError> {
        let path = names::file_path(&key);
        let stat = rustix::fs::statat(&self.folders.shards, path, AtFlags::SYMLINK_NOFOLLOW);
        let (mode, blocks) = match stat {
            Ok(stat) => (stat.st_mode, u64::try_from(stat.st_blocks).unwrap_or(0)),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => {
                let _ = self.unlisted(errno);
                (0, 0)
            }
        };
        let finished = shard_file::is_marked(mode)
            || match self.examine(key, buffer) {
                Ok(Found::Absent) => return Ok(None),
                Ok(Found::Unfinished(_)) => false,
                Ok(Found::Finished { .. } | Found::Damaged(_)) => true,
                Err(StoreError::Io { .. } | StoreError::LaterVersion { .. }) => true,
                Err(error) => return Err(error),
            };
        let disk_bytes = blocks * 512;
        Ok(Some(ListedShard {
            key,
            disk_bytes,
            finished,
        }))
    }
}

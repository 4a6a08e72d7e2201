//! The shards of a disk's volumes in order of group, blob and index.
//!
//! A directory's pages are read when the list comes to them; in memory is one
//! page for each volume whose keys span the place.

use std::collections::BTreeSet;
use std::sync::Arc;

use shardgate_wire::ids::GroupId;
use shardgate_wire::store::ListedShard;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::Engine;
use super::format::{DIRECTORY_PAGE, DirectoryHead, Entry};
use super::volume_state::{InGroup, Index};

/// Entries of one volume, in order, from a key on.
enum Walk {
    /// Of a volume in memory: the next entries, and whether there are more.
    Held(Vec<Entry>),
    Pages {
        head: DirectoryHead,
        page: usize,
        dead: Vec<u32>,
        held: Option<Arc<Vec<Entry>>>,
        at: usize,
    },
}

impl Walk {
    /// The next entry behind `after`, without taking it.
    fn peek(
        &mut self,
        engine: &Engine,
        group: GroupId,
        after: Option<InGroup>,
    ) -> Result<Option<Entry>, StoreError> {
        match self {
            Self::Held(entries) => Ok(entries.last().copied()),
            Self::Pages {
                head,
                page,
                dead,
                held,
                at,
            } => loop {
                let entries = match held {
                    Some(entries) => entries,
                    None => {
                        if *page >= head.fence.len() {
                            return Ok(None);
                        }
                        let place = head.pages_at + (*page * DIRECTORY_PAGE) as u64;
                        let entries = engine.directory_page(group, &head.heading, place)?;
                        *at = entries.partition_point(|entry| Some(entry.key()) <= after);
                        held.insert(entries)
                    }
                };
                while let Some(entry) = entries.get(*at) {
                    if dead.binary_search(&entry.at).is_err() {
                        return Ok(Some(*entry));
                    }
                    *at += 1;
                }
                *held = None;
                *page += 1;
            },
        }
    }

    fn take(&mut self) {
        match self {
            Self::Held(entries) => drop(entries.pop()),
            Self::Pages { at, .. } => *at += 1,
        }
    }
}

impl Engine {
    /// Up to `limit` shards behind `after`, of groups up to `to`.
    pub(crate) fn list(
        &self,
        after: Option<ShardKey>,
        limit: usize,
    ) -> Result<Vec<ListedShard>, StoreError> {
        let mut page = Vec::new();
        for group in self.groups_from(after.map(|key| key.group)) {
            let inside = after.filter(|after| after.group == group);
            let inside = inside.map(|after| (after.blob, after.index));
            self.list_group(group, inside, limit, &mut page)?;
            if page.len() >= limit {
                break;
            }
        }
        Ok(page)
    }

    /// Groups that have volumes.
    pub(crate) fn groups_from(&self, from: Option<GroupId>) -> Vec<GroupId> {
        let state = self.state.read();
        let from = from.unwrap_or(GroupId(0));
        state
            .groups
            .range(from..)
            .map(|(group, _)| *group)
            .collect()
    }

    fn list_group(
        &self,
        group: GroupId,
        after: Option<InGroup>,
        limit: usize,
        page: &mut Vec<ListedShard>,
    ) -> Result<(), StoreError> {
        'again: loop {
            let (moves, mut walks) = self.walks(group, after, limit - page.len());
            // Next keys, with the walk that has it.
            let mut next = BTreeSet::new();
            let mut found = Vec::new();
            for (at, (walk, first)) in walks.iter_mut().enumerate() {
                // A volume is read only once the list comes to its keys.
                match first {
                    Some(first) => drop(next.insert((*first, at))),
                    None => {
                        let entry = walk.peek(self, group, after);
                        if let Some(entry) = self.settled(moves, entry)? {
                            next.extend(entry.map(|entry| (entry.key(), at)));
                        } else {
                            continue 'again;
                        }
                    }
                }
            }
            while page.len() + found.len() < limit {
                let Some((key, at)) = next.pop_first() else {
                    break;
                };
                let walk = &mut walks[at].0;
                let Some(entry) = self.settled(moves, walk.peek(self, group, after))? else {
                    continue 'again;
                };
                let Some(entry) = entry else { continue };
                if entry.key() != key {
                    next.insert((entry.key(), at)); // it was a bound
                    continue;
                }
                walk.take();
                // A copy of the same shard does not fill the page: one that
                // is short says that nothing follows.
                if found.last().is_none_or(|last: &Entry| last.key() != key) {
                    found.push(entry);
                }
                let Some(following) = self.settled(moves, walk.peek(self, group, after))? else {
                    continue 'again;
                };
                next.extend(following.map(|entry| (entry.key(), at)));
            }
            page.extend(found.iter().map(|entry| listed(group, entry)));
            return Ok(());
        }
    }

    /// What was read, or `None` if volumes moved meanwhile and it failed.
    fn settled<T>(&self, moves: u64, read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(_) if self.state.read().moves != moves => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A walk over each volume of the group that has keys behind `after`, and
    /// a bound of its first key where the volume need not be read for it.
    fn walks(
        &self,
        group: GroupId,
        after: Option<InGroup>,
        limit: usize,
    ) -> (u64, Vec<(Walk, Option<InGroup>)>) {
        use std::ops::Bound::{Excluded, Unbounded};
        let state = self.state.read();
        let mut walks = Vec::new();
        let volumes = state.groups.get(&group).map(|of| of.volumes.values());
        for volume in volumes.into_iter().flatten() {
            match &volume.index {
                Index::Map(map) => {
                    let range = map.range((after.map_or(Unbounded, Excluded), Unbounded));
                    let mut entries: Vec<_> = range.take(limit).map(|(_, entry)| *entry).collect();
                    entries.reverse();
                    walks.push((Walk::Held(entries), None));
                }
                Index::Directory(head) if Some(head.last) > after && head.count > 0 => {
                    let first = (head.fence[0], 0);
                    let from = after.map_or(0, |after| {
                        let page = head.fence.partition_point(|first| *first < after.0);
                        page.saturating_sub(1)
                    });
                    let walk = Walk::Pages {
                        head: head.clone(),
                        page: from,
                        dead: volume.dead.clone(),
                        held: None,
                        at: 0,
                    };
                    walks.push((walk, (Some(first) > after).then_some(first)));
                }
                Index::Directory(_) => {}
            }
        }
        (state.moves, walks)
    }
}

fn listed(group: GroupId, entry: &Entry) -> ListedShard {
    ListedShard {
        key: ShardKey {
            group,
            blob: entry.blob,
            index: entry.index,
        },
        disk_bytes: entry.bytes(),
        finished: true,
    }
}

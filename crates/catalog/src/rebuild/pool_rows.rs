//! Rows about the pool: groups, disks, classes, runs, numbers given out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shardgate_wire::{DiskId, GroupId};

use super::decide::{BlobFact, Noted};
use super::facts::{Facts, JournalFact, PAGE};
use super::scratch::tagged;
use super::{FIRST, Work};
use crate::error::Result;
use crate::keys::{self, space};
use crate::model::{Content, GroupRow, GroupState, NotePayload};
use crate::row::{Counter, decode};

/// Numbers of groups that are passed over: disks that are away may hold slots
/// of groups that nothing else tells of.
const PASSED_OVER: u64 = 1000;
/// Blobs that are looked at for the parity of a group.
const LOOKED_AT: usize = 64;

impl Facts {
    /// Makes the groups whole: from the journal, from notes, and where neither
    /// has one, from the slots that disks hold.
    pub(super) async fn settle_groups(&mut self) -> Result<()> {
        for (_, order, value) in self.journal_space(space::GROUP).await? {
            self.add_group(order, decode(&value)?);
        }
        let unknown = self.slots.keys().filter(|id| !self.groups.contains_key(id));
        for group in unknown.copied().collect::<Vec<_>>() {
            if let Some(row) = self.group_of_slots(group).await? {
                self.add_group(FIRST, row);
            }
        }
        Ok(())
    }

    /// The record of a group that is known by its slots alone: all of them
    /// must be there.
    async fn group_of_slots(&self, id: GroupId) -> Result<Option<GroupRow>> {
        let held = &self.slots[&id];
        let newest = held.iter().map(|(_, slot)| slot.generation).max();
        let Some(generation) = newest else {
            return Ok(None);
        };
        let mut disks: BTreeMap<u8, DiskId> = BTreeMap::new();
        for (disk, slot) in held
            .iter()
            .filter(|(_, slot)| slot.generation == generation)
        {
            disks.insert(slot.slot, *disk);
        }
        let whole = disks.keys().copied().eq(0..disks.len() as u8);
        let medium = disks.values().next().and_then(|disk| self.disks.get(disk));
        let (Some(medium), true) = (medium.map(|row| row.medium), whole) else {
            return Ok(None);
        };
        let Some(parity) = self.parity_of(id).await? else {
            return Ok(None);
        };
        let Some(data) = (disks.len() as u8)
            .checked_sub(parity)
            .filter(|data| *data > 0)
        else {
            return Ok(None);
        };
        Ok(Some(GroupRow {
            id,
            generation,
            data,
            parity,
            medium,
            slots: disks.into_values().collect(),
            // It takes no more: how full it is is not known.
            state: GroupState::Sealed,
            narrow: false,
            slot_bytes: 0,
        }))
    }

    /// The parity of a group as its blobs have it.
    async fn parity_of(&self, group: GroupId) -> Result<Option<u8>> {
        let prefix = tagged(b'n', &group.to_be_bytes());
        let page: Vec<(Bytes, BlobFact)> = self.page(&prefix, None).await?;
        let layout = page.into_iter().take(LOOKED_AT).find_map(|(_, fact)| {
            let Some((_, Noted::Is(NotePayload::Version { row, part, .. }))) = fact.note else {
                return None;
            };
            let of_part = part.and_then(|part| part.blob);
            match row.content {
                Content::Blob(blob) => Some(blob.layout),
                _ => of_part.map(|blob| blob.layout),
            }
        });
        Ok(layout.map(|layout| layout.parity))
    }
}

impl Work<'_> {
    /// Everything that is not of buckets.
    pub(super) async fn pool_rows(&mut self) -> Result<()> {
        let facts = self.facts;
        let in_journal = facts.journal_space(space::GROUP).await?.into_iter();
        let in_journal: BTreeSet<Bytes> = in_journal.map(|(key, _, _)| key).collect();
        for (_, row) in facts.groups.values() {
            let key = keys::group(row.id);
            self.writer.put(key.clone(), row).await?;
            if !in_journal.contains(&key) {
                self.writer.note_group(row.id);
            }
            self.done.groups += 1;
        }
        for row in facts.disks.values() {
            self.writer.put(keys::disk(row.id), row).await?;
        }
        for space in [space::CLASS, space::INSTANCE, space::COMPLETED] {
            self.copy(space).await?;
        }
        let highest = facts.groups.keys().chain(facts.slots.keys()).max();
        let highest = highest.map_or(0, |group| group.0);
        let last = self.counter(keys::LAST_GROUP).await?.max(highest) + PASSED_OVER;
        self.writer
            .put(keys::LAST_GROUP.into(), &Counter(last))
            .await
    }

    /// A number that the journal says was given out.
    pub(super) async fn counter(&self, key: &[u8]) -> Result<u64> {
        let held = self.facts.journal(key).await?.and_then(|fact| fact.value);
        let counter: Option<Counter> = held.map(|value| decode(&value)).transpose()?;
        Ok(counter.map_or(0, |counter| counter.0))
    }

    /// Puts the rows of a space that the journal has as they are, a page at a
    /// time.
    async fn copy(&mut self, space: u8) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let page: Vec<(Bytes, JournalFact)> =
                self.facts.page(&[b'j', space], after.as_ref()).await?;
            let whole = page.len() < PAGE;
            for (key, fact) in page {
                if let Some(value) = fact.value {
                    self.writer.put_raw(key.slice(1..), value.into()).await?;
                }
                after = Some(key);
            }
            if whole {
                return Ok(());
            }
        }
    }
}

//! Which slots a disk holds, and in which generation (PROTOCOL.md 6).
//!
//! Pure: a store keeps the table durable. Invariant: one slot a group, and a
//! group's generation never falls.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::disk::SlotAssignment;
use crate::ids::GroupId;
use crate::shard::ShardHeader;
use crate::store::{MAX_BATCH, MAX_SLOTS, StoreError};

/// The slots of one disk, by group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotTable {
    by_group: BTreeMap<GroupId, SlotAssignment>,
}

impl SlotTable {
    /// The table with `slots` taken in, `None` if that changes nothing.
    pub fn with(&self, slots: &[SlotAssignment]) -> Result<Option<Self>, StoreError> {
        let mut next = self.clone();
        for slot in slots {
            let held = next.by_group.get(&slot.group).copied();
            let newer = held.is_none_or(|held| slot.generation > held.generation);
            if !newer && held != Some(*slot) {
                return Err(StoreError::StaleGeneration { held });
            }
            next.by_group.insert(slot.group, *slot);
        }
        if next.by_group.len() > MAX_SLOTS {
            return Err(StoreError::NoSpace);
        }
        Ok((next != *self).then_some(next))
    }

    /// Whether a shard with this head may be written here.
    pub fn check(&self, header: &ShardHeader) -> Result<(), StoreError> {
        let wanted = SlotAssignment {
            group: header.key.group,
            slot: header.slot,
            generation: header.generation,
        };
        let held = self.by_group.get(&header.key.group).copied();
        if held == Some(wanted) {
            return Ok(());
        }
        Err(StoreError::StaleGeneration { held })
    }

    /// Every slot, by group.
    pub fn iter(&self) -> impl Iterator<Item = &SlotAssignment> {
        self.by_group.values()
    }

    /// The slots of the groups behind `after`, at most [`MAX_BATCH`].
    pub fn page(&self, after: Option<GroupId>) -> Vec<SlotAssignment> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.by_group.range((from, Bound::Unbounded));
        rest.take(MAX_BATCH).map(|(_, slot)| *slot).collect()
    }

    /// How many slots there are.
    pub fn len(&self) -> usize {
        self.by_group.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_group.is_empty()
    }
}

impl FromIterator<SlotAssignment> for SlotTable {
    fn from_iter<I: IntoIterator<Item = SlotAssignment>>(slots: I) -> Self {
        let by_group = slots.into_iter().map(|slot| (slot.group, slot)).collect();
        Self { by_group }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Generation;

    fn slot(group: u64, slot: u8, generation: u32) -> SlotAssignment {
        SlotAssignment {
            group: GroupId(group),
            slot,
            generation: Generation(generation),
        }
    }

    #[test]
    fn only_a_higher_generation_replaces() {
        let table: SlotTable = [slot(1, 0, 5)].into_iter().collect();
        let stale = Err(StoreError::StaleGeneration {
            held: Some(slot(1, 0, 5)),
        });
        assert_eq!(table.with(&[slot(1, 0, 5)]), Ok(None));
        assert_eq!(table.with(&[slot(1, 1, 5)]), stale);
        assert_eq!(table.with(&[slot(2, 0, 1), slot(1, 0, 4)]), stale);
        let next = table.with(&[slot(1, 2, 6), slot(2, 0, 1)]);
        let wanted: SlotTable = [slot(1, 2, 6), slot(2, 0, 1)].into_iter().collect();
        assert_eq!(next, Ok(Some(wanted)));
    }

    #[test]
    fn slots_are_bounded() {
        let all: Vec<_> = (0..=MAX_SLOTS as u64).map(|g| slot(g, 0, 1)).collect();
        let table = SlotTable::default().with(&all[..MAX_SLOTS]);
        let table = table.expect("fits").expect("changes");
        assert_eq!(table.with(&all), Err(StoreError::NoSpace));
    }
}

//! The rows of the new catalog, in commits of bounded size.
//!
//! Owns what a blob's row brings with it: the slots that lack its shards, and
//! a note where a disk has none.

use std::collections::BTreeMap;

use shardgate_wire::{BlobId, GroupId, VersionUid};

use super::decide::{BlobFact, lacking};
use crate::catalog::Catalog;
use crate::draft::Draft;
use crate::error::Result;
use crate::keys;
use crate::model::{BlobRef, BlobRow, BlobState, CondemnReason, CondemnedRow, GroupRow, OwedRow};
use crate::row::Row;

/// Changes of one commit.
const OPS: usize = 4000;
/// Bytes of one commit, beside the last row.
const BYTES: usize = 2 << 20;

/// See the module.
pub(super) struct RowWriter {
    catalog: Catalog,
    draft: Draft,
    bytes: usize,
    owed: BTreeMap<(GroupId, u8), BlobId>,
}

impl RowWriter {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            draft: Draft::new(),
            bytes: 0,
            owed: BTreeMap::new(),
        }
    }

    pub(super) async fn put<R: Row>(&mut self, key: bytes::Bytes, row: &R) -> Result<()> {
        self.put_raw(key, crate::row::encode(row)).await
    }

    pub(super) async fn put_raw(&mut self, key: bytes::Bytes, value: bytes::Bytes) -> Result<()> {
        self.bytes += key.len() + value.len();
        self.draft.put_raw(key, value);
        self.step().await
    }

    /// The row of a blob and its owner.
    pub(super) async fn put_blob(
        &mut self,
        blob: &BlobRef,
        owner: BlobRow,
        group: Option<&GroupRow>,
        fact: &BlobFact,
    ) -> Result<()> {
        if let Some(group) = group {
            for index in lacking(blob.layout, fact.shards) {
                let slot = slot_of(blob.blob, index, group.slots.len());
                let lowest = self.owed.entry((blob.group, slot)).or_insert(blob.blob);
                *lowest = blob.blob.min(*lowest);
            }
        }
        // Disks that were late or away are told now: marks speak for them.
        let shards = blob.layout.data.saturating_add(blob.layout.parity);
        if fact.noted.count_ones() < u32::from(shards) {
            self.draft.note(blob);
        }
        self.put(keys::blob(blob.group, blob.blob), &BlobState::Owned(owner))
            .await
    }

    pub(super) fn note_group(&mut self, group: GroupId) {
        self.draft.note_group(group);
    }

    /// A blob whose shards may go.
    pub(super) async fn condemn(&mut self, row: &CondemnedRow) -> Result<()> {
        self.draft.condemn(row);
        self.step().await
    }

    /// Slots that lack shards.
    pub(super) async fn put_owed(&mut self) -> Result<u64> {
        let owed = std::mem::take(&mut self.owed);
        let slots = owed.len() as u64;
        for ((group, slot), lowest) in owed {
            let row = OwedRow {
                lowest,
                comparing: None,
            };
            self.put(keys::owed(group, slot), &row).await?;
        }
        Ok(slots)
    }

    async fn step(&mut self) -> Result<()> {
        if self.draft.ops() < OPS && self.bytes < BYTES {
            return Ok(());
        }
        self.bytes = 0;
        self.catalog.commit(std::mem::take(&mut self.draft)).await?;
        Ok(())
    }

    /// Commits what is left.
    pub(super) async fn end(mut self) -> Result<Catalog> {
        if !self.draft.is_empty() {
            self.catalog.commit(std::mem::take(&mut self.draft)).await?;
        }
        Ok(self.catalog)
    }
}

/// The slot of a shard (docs/formats.md).
pub(super) fn slot_of(blob: BlobId, index: u8, slots: usize) -> u8 {
    let slots = slots.max(1) as u64;
    let slot = (blob.placement_hash() % slots + u64::from(index)) % slots;
    u8::try_from(slot).expect("a group has at most 24 slots")
}

/// A blob that nothing owns.
pub(super) fn condemned(blob: &BlobRef, reason: CondemnReason) -> CondemnedRow {
    CondemnedRow {
        group: blob.group,
        blob: blob.blob,
        layout: blob.layout,
        reason,
    }
}

/// The row of a blob that is a part, or with 0 the whole of a version.
pub(super) fn owner(
    incarnation: shardgate_wire::BucketIncarnation,
    key: &str,
    uid: VersionUid,
    part: u16,
    blob: &BlobRef,
) -> BlobRow {
    BlobRow {
        incarnation,
        key: key.to_owned(),
        uid,
        part,
        layout: blob.layout,
        len: blob.len,
    }
}

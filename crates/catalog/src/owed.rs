//! Owed slots: which (group, slot) lack shards of acknowledged blobs, and how
//! such a row is closed again (PROTOCOL.md 5).
//!
//! Invariant: a row is removed only if no commit that lacks its slot came
//! after the comparison of full lists was begun. They are opened in `publish`,
//! and here for a blob that lost a shard after it was published.

use shardgate_wire::{Generation, GroupId};

use crate::buckets::fresh_number;
use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::engine::KeyRange;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{BlobRef, BlobState, GroupRow, OwedRow};

/// What becomes of a row that covers the blob already, and of a comparison
/// that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reopen {
    /// The comparison is void: it may have passed the blob while its shard was
    /// there.
    Always,
    /// It is left as it is: it says what is so, and were it written anew for
    /// each read that misses a shard, it would never be closed.
    Unless,
}

impl Catalog {
    /// All owed slots. There are at most as many as slots in the pool.
    pub async fn owed(&self) -> Result<Vec<(GroupId, u8, OwedRow)>> {
        let range = KeyRange::prefix(vec![space::OWED]);
        let rows = self.rows(range, usize::MAX, keys::decode_owed).await?;
        Ok(rows
            .into_iter()
            .map(|((group, slot), row)| (group, slot, row))
            .collect())
    }

    /// Opens a slot for a stored blob that has lost its shard there, or is
    /// about to. Returns false, and opens nothing, if the blob is not there
    /// any more, or the row is left as it is ([`Reopen::Unless`]).
    ///
    /// # Errors
    /// [`CatalogError::GroupMoved`]: the slot may be another disk's by now.
    pub async fn owe(
        &self,
        blob: &BlobRef,
        slot: u8,
        generation: Generation,
        reopen: Reopen,
    ) -> Result<bool> {
        let group_key = keys::group(blob.group);
        let blob_key = keys::blob(blob.group, blob.blob);
        let key = keys::owed(blob.group, slot);
        for _ in 0..ATTEMPTS {
            let Some((group_raw, row)) = self.stored::<GroupRow>(&group_key).await? else {
                return Err(CatalogError::NoSuchGroup);
            };
            if row.generation != generation {
                let current = Box::new(row);
                return Err(CatalogError::GroupMoved { current });
            }
            let Some((blob_raw, state)) = self.stored::<BlobState>(&blob_key).await? else {
                return Ok(false);
            };
            if state.extent() != Some((blob.layout, blob.len)) {
                return Ok(false);
            }
            let (raw, held) = self.stored::<OwedRow>(&key).await?.unzip();
            let covers = |held: &OwedRow| held.lowest <= blob.blob;
            if reopen == Reopen::Unless && held.as_ref().is_some_and(covers) {
                return Ok(false);
            }
            let next = OwedRow {
                lowest: held
                    .as_ref()
                    .map_or(blob.blob, |held| held.lowest.min(blob.blob)),
                comparing: None,
            };
            let mut draft = Draft::new();
            draft.expect(group_key.clone(), Some(group_raw));
            draft.expect(blob_key.clone(), Some(blob_raw));
            draft.expect(key.clone(), raw);
            if held.as_ref() != Some(&next) {
                draft.put(key.clone(), &next);
            }
            match self.commit(draft).await {
                Ok(_) => return Ok(true),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// Marks an owed slot as being compared; lists must be taken after this.
    /// Returns what [`Self::close_owed`] takes, or `None` if nothing is owed.
    pub async fn compare_owed(&self, group: GroupId, slot: u8) -> Result<Option<OwedRow>> {
        let key = keys::owed(group, slot);
        for _ in 0..ATTEMPTS {
            let Some((raw, held)) = self.stored::<OwedRow>(&key).await? else {
                return Ok(None);
            };
            let row = OwedRow {
                comparing: Some(fresh_number()),
                ..held
            };
            let mut draft = Draft::new();
            draft.expect(key.clone(), Some(raw));
            draft.put(key.clone(), &row);
            match self.commit(draft).await {
                Ok(_) => return Ok(Some(row)),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// Closes an owed slot after full lists were compared and nothing is
    /// missing on the disk that it is on in `generation` of the group.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`]: a blob was acknowledged without the slot
    /// since [`Self::compare_owed`], or the group has moved; compare again.
    pub async fn close_owed(
        &self,
        group: GroupId,
        slot: u8,
        compared: &OwedRow,
        generation: Generation,
    ) -> Result<()> {
        let group_key = keys::group(group);
        let Some((group_raw, row)) = self.stored::<GroupRow>(&group_key).await? else {
            return Err(CatalogError::NoSuchGroup);
        };
        if row.generation != generation {
            return Err(CatalogError::Conflict);
        }
        let key = keys::owed(group, slot);
        let held = self.stored::<OwedRow>(&key).await?;
        let (raw, held) = held.unzip();
        if held.as_ref() != Some(compared) || compared.comparing.is_none() {
            return Err(CatalogError::Conflict);
        }
        let mut draft = Draft::new();
        draft.expect(group_key, Some(group_raw));
        draft.expect(key.clone(), raw);
        draft.delete(key);
        self.commit(draft).await?;
        Ok(())
    }
}

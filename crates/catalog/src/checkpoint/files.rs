//! The blobs that hold checkpoint files, as the catalog knows them.
//!
//! Invariants: a blob is registered by a commit before its first byte is sent,
//! so that it is never taken for an orphan; it is marked stored by a commit
//! that expects its group's generation, when all its shards are durable; it
//! goes only by a commit that condemns it (PROTOCOL.md 4 and 7). Which files
//! are needed is not decided here.

use shardgate_wire::Generation;

use super::ContentHash;
use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::engine::KeyRange;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{
    BlobRef, BlobState, CheckpointBlob, CheckpointFileRow, CondemnReason, GroupRow,
};
use crate::row::decode;

/// Files that one commit condemns.
const STEP: usize = 1000;

/// A blob that holds a checkpoint file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CheckpointFile {
    /// Hash of the file's content.
    pub hash: ContentHash,
    /// The blob.
    pub blob: BlobRef,
    /// Whether all its shards are durable.
    pub stored: bool,
}

impl Catalog {
    /// All of them, in order of hash.
    pub async fn checkpoint_files(&self) -> Result<Vec<CheckpointFile>> {
        let range = KeyRange::prefix(vec![space::CHECKPOINT_FILE]);
        let decode_key = keys::decode_checkpoint_file;
        let rows = self.rows::<CheckpointFileRow, _>(range, usize::MAX, decode_key);
        let rows = rows.await?.into_iter();
        Ok(rows
            .map(|(hash, row)| CheckpointFile {
                hash: ContentHash(hash),
                blob: row.blob,
                stored: row.stored,
            })
            .collect())
    }

    /// Makes a blob known that is going to hold a file; nothing of it may be
    /// sent before.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`]: the blob is known already.
    /// [`CatalogError::NoSuchGroup`].
    pub async fn register_checkpoint_file(&self, hash: ContentHash, blob: &BlobRef) -> Result<()> {
        if self.group(blob.group).await?.is_none() {
            return Err(CatalogError::NoSuchGroup);
        }
        let mut draft = Draft::new();
        let (file_key, blob_key) = keys_of(hash, blob);
        draft.expect(file_key, None);
        draft.expect(blob_key, None);
        put(&mut draft, hash, blob, false);
        self.commit(draft).await?;
        Ok(())
    }

    /// Marks a registered blob as stored: all its shards are durable on the
    /// slots of its group in `generation`.
    ///
    /// # Errors
    /// [`CatalogError::GroupMoved`]; [`CatalogError::Conflict`]: it is not
    /// registered any more.
    pub async fn checkpoint_file_stored(
        &self,
        hash: ContentHash,
        blob: &BlobRef,
        generation: Generation,
    ) -> Result<()> {
        let (file_key, blob_key) = keys_of(hash, blob);
        let group_key = keys::group(blob.group);
        for _ in 0..ATTEMPTS {
            let wanted = [group_key.clone(), file_key.clone(), blob_key.clone()];
            let found = self.engine().get_many(&wanted).await?;
            let [Some(group_raw), Some(file_raw), Some(blob_raw)] = &found[..] else {
                return Err(CatalogError::Conflict);
            };
            let group: GroupRow = decode(group_raw)?;
            if group.generation != generation {
                let current = Box::new(group);
                return Err(CatalogError::GroupMoved { current });
            }
            let mut draft = Draft::new();
            for (key, raw) in wanted.iter().zip([group_raw, file_raw, blob_raw]) {
                draft.expect(key.clone(), Some(raw.clone()));
            }
            put(&mut draft, hash, blob, true);
            match self.commit(draft).await {
                Ok(_) => return Ok(()),
                // The group's record says more by now.
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// Condemns the blobs of files that no checkpoint needs, which are no
    /// longer known from then on.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`]: one of them is not as it is given here;
    /// none of its commit's files was condemned.
    pub async fn condemn_checkpoint_files(&self, files: &[CheckpointFile]) -> Result<()> {
        for files in files.chunks(STEP) {
            let mut draft = Draft::new();
            for file in files {
                let (file_key, blob_key) = keys_of(file.hash, &file.blob);
                let (file_row, blob_row) = rows_of(file.hash, &file.blob, file.stored);
                draft.expect(file_key.clone(), Some(crate::row::encode(&file_row)));
                draft.expect(blob_key, Some(crate::row::encode(&blob_row)));
                draft.delete(file_key);
                draft.condemn_owned(&file.blob, CondemnReason::CheckpointDropped);
            }
            self.commit(draft).await?;
        }
        Ok(())
    }
}

fn keys_of(hash: ContentHash, blob: &BlobRef) -> (bytes::Bytes, bytes::Bytes) {
    (
        keys::checkpoint_file(&hash.0, blob.blob),
        keys::blob(blob.group, blob.blob),
    )
}

fn rows_of(hash: ContentHash, blob: &BlobRef, stored: bool) -> (CheckpointFileRow, BlobState) {
    let file = CheckpointFileRow {
        blob: *blob,
        stored,
    };
    let state = BlobState::Checkpoint(CheckpointBlob {
        file: hash.0,
        layout: blob.layout,
        len: blob.len,
        stored,
    });
    (file, state)
}

fn put(draft: &mut Draft, hash: ContentHash, blob: &BlobRef, stored: bool) {
    let (file_key, blob_key) = keys_of(hash, blob);
    let (file, state) = rows_of(hash, blob, stored);
    draft.put(file_key, &file);
    draft.put(blob_key, &state);
}

#[cfg(test)]
mod tests;

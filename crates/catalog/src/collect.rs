//! The queue of condemned blobs, in the order of the commits that condemned
//! them, and its low-water mark.
//!
//! Invariant: nothing is in the queue at or below the mark; scans begin above
//! it, and so never crawl over what was purged. When a blob may be purged is
//! its reader's decision (PROTOCOL.md 7).

use std::collections::HashSet;

use bytes::Bytes;
use shardgate_wire::CommitNumber;

use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::engine::KeyRange;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{BlobState, CondemnReason, CondemnedRow};
use crate::row::{LowWater, decode};

/// Rows that one commit condemns or purges.
const STEP: usize = 1000;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CondemnedCursor {
    /// The commit that condemned the blob.
    pub commit: CommitNumber,
    /// Which of its blobs.
    pub index: u32,
}

/// A blob that waits to be purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condemned {
    /// Its place in the queue.
    pub cursor: CondemnedCursor,
    /// The blob, and why.
    pub row: CondemnedRow,
}

/// Some of the queue, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CondemnedPage {
    /// Blobs that wait.
    pub rows: Vec<Condemned>,
    /// Rows that are not readable, and how. They stay where they are: which
    /// blobs they name is not known.
    pub damaged: Vec<(CondemnedCursor, String)>,
}

impl CondemnedPage {
    /// The last place that it shows; `None`: the queue has ended.
    pub fn last(&self) -> Option<CondemnedCursor> {
        let row = self.rows.last().map(|row| row.cursor);
        row.max(self.damaged.last().map(|(cursor, _)| *cursor))
    }
}

impl Catalog {
    /// Condemns blobs that were never published.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`]: one of them is known to the catalog, as
    /// owned or as condemned; none of its commit's blobs was condemned.
    pub async fn condemn(&self, rows: &[CondemnedRow]) -> Result<()> {
        for rows in rows.chunks(STEP) {
            let mut draft = Draft::new();
            for row in rows {
                // From now on it can never be published.
                let blob = keys::blob(row.group, row.blob);
                draft.expect(blob.clone(), None);
                draft.put(blob, &BlobState::NeverPublished);
                draft.condemn(&CondemnedRow {
                    reason: CondemnReason::NeverPublished,
                    ..*row
                });
            }
            self.commit(draft).await?;
        }
        Ok(())
    }

    /// Condemned blobs in order, those behind `after`.
    ///
    /// # Errors
    /// [`CatalogError::Damaged`]: one of them is not readable.
    pub async fn condemned(
        &self,
        after: Option<CondemnedCursor>,
        limit: usize,
    ) -> Result<Vec<Condemned>> {
        let page = self.condemned_page(after, limit).await?;
        match page.damaged.into_iter().next() {
            None => Ok(page.rows),
            Some((_, why)) => Err(CatalogError::Damaged { why }),
        }
    }

    /// As [`Self::condemned`], with what is not readable beside the rest.
    pub async fn condemned_page(
        &self,
        after: Option<CondemnedCursor>,
        limit: usize,
    ) -> Result<CondemnedPage> {
        let low: Option<LowWater> = self.row(keys::CONDEMNED_LOW).await?;
        let after = after.max(low.map(cursor_of));
        let mut page = CondemnedPage::default();
        for (cursor, raw) in self.queue_after(after, limit).await? {
            match decode(&raw) {
                Ok(row) => page.rows.push(Condemned { cursor, row }),
                Err(error) => page.damaged.push((cursor, error.to_string())),
            }
        }
        Ok(page)
    }

    /// Rows of the queue as they are stored.
    async fn queue_after(
        &self,
        after: Option<CondemnedCursor>,
        limit: usize,
    ) -> Result<Vec<(CondemnedCursor, Bytes)>> {
        let mut range = KeyRange::prefix(vec![space::CONDEMNED]);
        if let Some(after) = after {
            range.start = keys::after(&keys::condemned(after.commit, after.index));
        }
        let rows = self.raw_rows(range, limit).await?.into_iter();
        rows.map(|(key, raw)| {
            let (commit, index) = keys::decode_queued(&key)?;
            Ok((CondemnedCursor { commit, index }, raw))
        })
        .collect()
    }

    /// Takes blobs whose shards are gone from the queue, and raises the
    /// low-water mark as far as the queue is empty.
    pub async fn purged(&self, blobs: &[Condemned]) -> Result<()> {
        let _turn = self.inner.purge_turn.lock().await;
        for blobs in blobs.chunks(STEP) {
            self.purged_step(blobs).await?;
        }
        Ok(())
    }

    async fn purged_step(&self, blobs: &[Condemned]) -> Result<()> {
        let gone: HashSet<_> = blobs.iter().map(|blob| blob.cursor).collect();
        for _ in 0..ATTEMPTS {
            let low = self.stored::<LowWater>(keys::CONDEMNED_LOW).await?;
            let (low_raw, low) = low.unzip();
            let low = low.map(cursor_of);
            // Commits go up: nothing is ever added below what is there.
            let head = self.queue_after(low, gone.len() + 1).await?;
            let mut left = head.into_iter().map(|(cursor, _)| cursor);
            let first_left = left.find(|cursor| !gone.contains(cursor));
            let below = |cursor: &CondemnedCursor| first_left.is_none_or(|left| *cursor < left);
            let raised = gone.iter().copied().filter(below).max().max(low);
            let mut draft = Draft::new();
            for blob in blobs {
                let cursor = blob.cursor;
                draft.delete(keys::condemned(cursor.commit, cursor.index));
                if blob.row.reason == CondemnReason::NeverPublished {
                    draft.delete(keys::blob(blob.row.group, blob.row.blob));
                }
            }
            draft.expect(keys::CONDEMNED_LOW.into(), low_raw);
            if let Some(raised) = raised {
                let mark = LowWater {
                    commit: raised.commit.0,
                    index: raised.index,
                };
                draft.put(keys::CONDEMNED_LOW.into(), &mark);
            }
            match self.commit(draft).await {
                Ok(_) => return Ok(()),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }
}

fn cursor_of(low: LowWater) -> CondemnedCursor {
    CondemnedCursor {
        commit: CommitNumber(low.commit),
        index: low.index,
    }
}

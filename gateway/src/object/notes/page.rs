//! Notes of published blobs, made once for all disks.
//!
//! Owns a few pages of the queue with what each blob is now and where it
//! lies. Disks that keep step are told from the same page, and so the catalog
//! is asked once for each blob and not once for each disk of it.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_catalog::model::{BlobRef, NotePayload};
use shardgate_catalog::{CatalogError, NotePlace, WaitingNote};
use shardgate_wire::{BlobId, CommitNumber, DiskId, GroupId};

use crate::object::core::Core;
use crate::object::error::ObjectError;
use crate::object::ports::layout_of;

/// Blobs of one page.
const AT_ONCE: usize = 512;
/// Pages that are kept: disks that are further apart make their own.
const KEPT: usize = 4;

/// A blob that is to be told of.
pub(super) struct Made {
    /// As of which commit it is so.
    pub(super) commit: CommitNumber,
    pub(super) group: GroupId,
    pub(super) blob: BlobId,
    pub(super) payload: Vec<u8>,
    /// The disks of its slots.
    pub(super) disks: Vec<DiskId>,
}

/// A page of the queue.
pub(super) struct Page {
    pub(super) made: Vec<Made>,
    /// Where to go on; `None` for an empty page.
    pub(super) last: Option<NotePlace>,
    /// Every note of a commit up to here is in this page or before it.
    pub(super) through: CommitNumber,
    pub(super) more: bool,
}

/// The pages that were made last, by the place they begin behind.
#[derive(Default)]
pub(super) struct Pages(Mutex<VecDeque<(Option<NotePlace>, Arc<Page>)>>);

impl Pages {
    /// The page behind `after`.
    pub(super) async fn behind(
        &self,
        core: &Core,
        after: Option<NotePlace>,
    ) -> Result<Arc<Page>, ObjectError> {
        if let Some(page) = self.kept(after) {
            return Ok(page);
        }
        let page = Arc::new(make(core, after).await?);
        if page.last.is_some() {
            let mut kept = self.0.lock();
            kept.push_back((after, Arc::clone(&page)));
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
        Ok(page)
    }

    fn kept(&self, after: Option<NotePlace>) -> Option<Arc<Page>> {
        let kept = self.0.lock();
        let found = kept.iter().find(|(begin, _)| *begin == after);
        found.map(|(_, page)| Arc::clone(page))
    }
}

async fn make(core: &Core, after: Option<NotePlace>) -> Result<Page, ObjectError> {
    let waiting = core.catalog.waiting_notes(after, AT_ONCE).await?;
    for (place, why) in &waiting.damaged {
        core.metrics.notes_damaged.one();
        tracing::error!(commit = place.commit.0, why, "a queued note is damaged");
    }
    let mut made = Vec::with_capacity(waiting.rows.len());
    for row in &waiting.rows {
        match make_one(core, row).await {
            Ok(None) => {}
            Ok(Some(one)) => made.push(one),
            Err(ObjectError::Damaged { why }) => {
                core.metrics.notes_damaged.one();
                tracing::error!(blob = %row.blob, why, "no note is made of a blob");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Page {
        last: waiting.last(),
        through: waiting.through,
        more: waiting.more,
        made,
    })
}

/// What is said of a blob, and to whom; `None` if it belongs to nothing any
/// more: that it was deleted is said apart.
async fn make_one(core: &Core, row: &WaitingNote) -> Result<Option<Made>, ObjectError> {
    let (group, blob, queued) = (row.group, row.blob, row.place.commit);
    let (note, commit) = match core.catalog.note_as_of(group, blob, queued).await {
        Ok(Some(note)) => note,
        Ok(None) => return Ok(None),
        Err(CatalogError::Damaged { why }) => return Err(ObjectError::Damaged { why }),
        Err(error) => return Err(error.into()),
    };
    let disks = match told_of(&note) {
        Some(About::Blob(blob)) => disks_of(core, &blob).await?,
        Some(About::Group(slots)) => slots,
        None => return Ok(None),
    };
    Ok(Some(Made {
        commit,
        group,
        blob,
        payload: note.encode(),
        disks,
    }))
}

/// What a note is about.
enum About {
    Blob(BlobRef),
    /// The disks of its slots.
    Group(Vec<DiskId>),
}

fn told_of(note: &NotePayload) -> Option<About> {
    match note {
        NotePayload::Group(row) => Some(About::Group(row.slots.clone())),
        note => note.blob().map(About::Blob),
    }
}

/// The disks of a blob's slots.
pub(super) async fn disks_of(core: &Core, blob: &BlobRef) -> Result<Vec<DiskId>, ObjectError> {
    let group = core.disks.group(blob.group).await?;
    let shards = 0..layout_of(blob)?.shards();
    Ok(shards.map(|shard| group.disk(blob, shard)).collect())
}

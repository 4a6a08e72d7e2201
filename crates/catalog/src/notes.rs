//! The queue of notes: of which blobs their slots are still to be told, and
//! what they are told (PROTOCOL.md 9).
//!
//! A commit that publishes a blob queues it in the same commit. What a note
//! says is looked up when it is sent, so that a row of the queue is small and
//! a blob that is gone by then costs nothing. Deletions need no queue of their
//! own: that of condemned blobs has them ([`crate::collect`]).
//!
//! Invariants: a row leaves the queue only when every disk that counts is
//! told to be past it; a scan begins above the low-water mark.

use std::collections::BTreeMap;

use shardgate_wire::note::NO_BLOB;
use shardgate_wire::{BlobId, CommitNumber, DiskId, GroupId};

use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::engine::KeyRange;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{
    BlobRow, BlobState, Content, DetailRow, NotePayload, NoteRow, PartRow, UploadPartRow,
    UploadRow, VersionRow,
};
use crate::row::{LowWater, decode};

/// Rows that one commit takes from the queue.
const STEP: usize = 5000;

/// A place in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotePlace {
    /// The commit that queued the blob.
    pub commit: CommitNumber,
    /// Which of its blobs.
    pub index: u32,
}

/// A blob in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingNote {
    /// Its place.
    pub place: NotePlace,
    /// Its group.
    pub group: GroupId,
    /// The blob.
    pub blob: BlobId,
}

/// Some of the queue, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitingNotes {
    /// Blobs.
    pub rows: Vec<WaitingNote>,
    /// Rows that are not readable, and how: which blobs they name is not
    /// known.
    pub damaged: Vec<(NotePlace, String)>,
    /// Every row of a commit up to this one is in this page or before it.
    pub through: CommitNumber,
    /// Whether the queue goes on.
    pub more: bool,
}

impl WaitingNotes {
    /// The last place that it shows; `None`: the queue has ended.
    pub fn last(&self) -> Option<NotePlace> {
        let row = self.rows.last().map(|row| row.place);
        row.max(self.damaged.last().map(|(place, _)| *place))
    }
}

impl Catalog {
    /// The queue behind `after`, at most `limit` rows.
    pub async fn waiting_notes(
        &self,
        after: Option<NotePlace>,
        limit: usize,
    ) -> Result<WaitingNotes> {
        // Looked at first: what commits up to here queued is in the scan.
        let committed = self.committed();
        let low: Option<LowWater> = self.row(keys::NOTES_LOW).await?;
        let after = after.max(low.map(place_of));
        let rows = self.raw_rows(behind(after), limit).await?;
        let mut page = WaitingNotes {
            through: committed,
            more: rows.len() == limit,
            ..WaitingNotes::default()
        };
        for (key, raw) in rows {
            let (commit, index) = keys::decode_queued(&key)?;
            let place = NotePlace { commit, index };
            match decode::<NoteRow>(&raw) {
                Ok(NoteRow { group, blob }) => page.rows.push(WaitingNote { place, group, blob }),
                Err(error) => page.damaged.push((place, error.to_string())),
            }
        }
        if page.more
            && let Some(last) = page.last()
        {
            // The next page may begin with more of the same commit.
            page.through = CommitNumber(last.commit.0.saturating_sub(1));
        }
        Ok(page)
    }

    /// Up to where each disk was told, as it was last recorded.
    pub async fn noted(&self) -> Result<BTreeMap<DiskId, NotePlace>> {
        let range = KeyRange::prefix(vec![space::NOTED]);
        let rows = self.rows(range, usize::MAX, keys::decode_noted).await?;
        let rows = rows.into_iter();
        Ok(rows
            .map(|(disk, row): (_, LowWater)| (disk, place_of(row)))
            .collect())
    }

    /// Records up to where disks were told, forgets those of `gone`, and takes
    /// from the queue what every disk of `told` has; how many rows.
    ///
    /// # Errors
    /// The catalog's; then the next call does what is left.
    pub async fn record_noted(
        &self,
        told: &BTreeMap<DiskId, Option<NotePlace>>,
        gone: &[DiskId],
    ) -> Result<usize> {
        // One that was told nothing yet needs all there is.
        let all = told.values().copied().min().flatten();
        let mut draft = Draft::new();
        for (disk, place) in told {
            if let Some(place) = place {
                draft.put(keys::noted(*disk), &mark_of(*place));
            }
        }
        for disk in gone {
            draft.delete(keys::noted(*disk));
        }
        let mut taken = 0;
        let low: Option<LowWater> = self.row(keys::NOTES_LOW).await?;
        let mut low = low.map(place_of);
        loop {
            let rows = match all {
                Some(all) if low < Some(all) => self.rows_up_to(low, all).await?,
                _ => Vec::new(),
            };
            let whole = rows.len() < STEP;
            taken += rows.len();
            for place in &rows {
                draft.delete(keys::note(place.commit, place.index));
            }
            let reached = if whole { all } else { rows.last().copied() };
            if let Some(reached) = reached.filter(|reached| low < Some(*reached)) {
                draft.put(keys::NOTES_LOW.into(), &mark_of(reached));
                low = Some(reached);
            }
            if !draft.is_empty() {
                self.commit(std::mem::take(&mut draft)).await?;
            }
            if whole {
                return Ok(taken);
            }
        }
    }

    /// Places of the queue behind `after`, up to and with `to`.
    async fn rows_up_to(&self, after: Option<NotePlace>, to: NotePlace) -> Result<Vec<NotePlace>> {
        let mut range = behind(after);
        range.end = Some(keys::after(&keys::note(to.commit, to.index)));
        let rows = self.raw_rows(range, STEP).await?;
        let places = rows.into_iter().map(|(key, _)| {
            let (commit, index) = keys::decode_queued(&key)?;
            Ok(NotePlace { commit, index })
        });
        places.collect()
    }

    /// What the slots of a blob are told of it now, or of the group if it is
    /// [`NO_BLOB`]; `None` if it belongs to nothing any more.
    ///
    /// # Errors
    /// [`CatalogError::Damaged`]: it belongs to what is not there.
    pub async fn note_of(&self, group: GroupId, blob: BlobId) -> Result<Option<NotePayload>> {
        if blob == NO_BLOB {
            let row = self.group(group).await?;
            return Ok(row.map(NotePayload::Group));
        }
        for _ in 0..ATTEMPTS {
            let Some(BlobState::Owned(row)) = self.blob(group, blob).await? else {
                return Ok(None);
            };
            // Between two reads it may have been taken from its owner.
            let note = match row.part {
                0 => self.note_of_object(blob, &row).await?,
                _ => self.note_of_part(blob, &row).await?,
            };
            if note.is_some() {
                return Ok(note);
            }
        }
        Err(CatalogError::Damaged {
            why: format!("blob {blob} of group {group} belongs to nothing that is there"),
        })
    }

    /// As [`Self::note_of`], with a commit as of which it is so: `queued`,
    /// which queued the blob, or a later one. A part is queued when it is
    /// uploaded, and when its upload is completed it is of a version that
    /// other commits may lie before.
    ///
    /// # Errors
    /// As [`Self::note_of`].
    pub async fn note_as_of(
        &self,
        group: GroupId,
        blob: BlobId,
        queued: CommitNumber,
    ) -> Result<Option<(NotePayload, CommitNumber)>> {
        for _ in 0..ATTEMPTS {
            let Some(note) = self.note_of(group, blob).await? else {
                return Ok(None);
            };
            if !matches!(note, NotePayload::Version { part: Some(_), .. }) {
                return Ok(Some((note, queued)));
            }
            // What a blob belongs to never comes back: seen before and behind
            // this moment, it was so at it.
            let moment = self.snapshot().await?.committed();
            if self.note_of(group, blob).await?.as_ref() == Some(&note) {
                return Ok(Some((note, queued.max(moment))));
            }
        }
        Err(CatalogError::Unavailable {
            why: format!("blob {blob} of group {group} changes all the time"),
        })
    }

    async fn note_of_object(&self, blob: BlobId, owner: &BlobRow) -> Result<Option<NotePayload>> {
        let Some(row) = self.version_of(owner).await? else {
            return Ok(None);
        };
        if !matches!(&row.content, Content::Blob(held) if held.blob == blob) {
            return Ok(None);
        }
        let detail = self.detail_for_note(&row).await?;
        self.note_of_version(owner, row, detail).await
    }

    async fn note_of_part(&self, blob: BlobId, owner: &BlobRow) -> Result<Option<NotePayload>> {
        let Some(row) = self.version_of(owner).await? else {
            return self.note_of_upload(blob, owner).await;
        };
        let part = match self.part_by_number(row.uid, owner.part).await {
            Ok(part) if part.blob.is_some_and(|held| held.blob == blob) => part,
            Ok(_) | Err(CatalogError::InvalidPart { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let detail = match part.start {
            0 => self.detail_for_note(&row).await?,
            _ => Some(None),
        };
        let last = match part.start + part.len == row.size {
            true => self.empty_last(&row, &part).await?,
            false => None,
        };
        let mut note = self.note_of_version(owner, row, detail).await?;
        if let Some(NotePayload::Version {
            part: of,
            empty_last,
            ..
        }) = &mut note
        {
            (*of, *empty_last) = (Some(part), last);
        }
        Ok(note)
    }

    /// The version that a blob's row names, while it is the newest of its key.
    async fn version_of(&self, owner: &BlobRow) -> Result<Option<VersionRow>> {
        let key = keys::current(owner.incarnation, &owner.key);
        let row: Option<VersionRow> = self.row(&key).await?;
        Ok(row.filter(|row| row.uid == owner.uid))
    }

    /// What is said of a whole version; `None` if it was dropped meanwhile.
    async fn note_of_version(
        &self,
        owner: &BlobRow,
        row: VersionRow,
        detail: Option<Option<DetailRow>>,
    ) -> Result<Option<NotePayload>> {
        let Some(detail) = detail else {
            return Ok(None);
        };
        Ok(Some(NotePayload::Version {
            incarnation: owner.incarnation,
            key: owner.key.clone(),
            class: self.class_name(row.class).await?,
            row,
            detail,
            part: None,
            empty_last: None,
        }))
    }

    /// The part without bytes that lies behind `part`, if there is one.
    async fn empty_last(&self, row: &VersionRow, part: &PartRow) -> Result<Option<PartRow>> {
        let behind = keys::part(row.uid, row.size);
        let last: Option<PartRow> = self.row(&behind).await?;
        Ok(last.filter(|last| last.number != part.number && last.blob.is_none()))
    }

    /// The details of a version; `None` if it was dropped meanwhile.
    async fn detail_for_note(&self, row: &VersionRow) -> Result<Option<Option<DetailRow>>> {
        if !row.has_detail {
            return Ok(Some(None));
        }
        let detail: Option<DetailRow> = self.row(&keys::detail(row.uid)).await?;
        Ok(detail.map(Some))
    }

    async fn note_of_upload(&self, blob: BlobId, owner: &BlobRow) -> Result<Option<NotePayload>> {
        let wanted = keys::upload(owner.incarnation, &owner.key, owner.uid);
        let Some(upload) = self.row::<UploadRow>(&wanted).await? else {
            return Ok(None);
        };
        let part: Option<UploadPartRow> =
            self.row(&keys::upload_part(owner.uid, owner.part)).await?;
        let is_its = |part: &UploadPartRow| part.blob.is_some_and(|held| held.blob == blob);
        let Some(part) = part.filter(is_its) else {
            return Ok(None);
        };
        Ok(Some(NotePayload::UploadPart {
            incarnation: owner.incarnation,
            key: owner.key.clone(),
            class: self.class_name(upload.class).await?,
            upload,
            part,
        }))
    }
}

fn behind(after: Option<NotePlace>) -> KeyRange {
    let mut range = KeyRange::prefix(vec![space::NOTE]);
    if let Some(after) = after {
        range.start = keys::after(&keys::note(after.commit, after.index));
    }
    range
}

fn place_of(low: LowWater) -> NotePlace {
    NotePlace {
        commit: CommitNumber(low.commit),
        index: low.index,
    }
}

fn mark_of(place: NotePlace) -> LowWater {
    LowWater {
        commit: place.commit.0,
        index: place.index,
    }
}

#[cfg(test)]
mod tests;

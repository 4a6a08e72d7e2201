//! Sorts what was found by what it is about: keys, uploads, and blobs that
//! may go.

use bytes::Bytes;
use shardgate_wire::{BlobId, BlobLayout, BucketIncarnation, GroupId, NoteOrder, VersionUid};

use super::Work;
use super::decide::{
    BlobFact, Candidate, Doubt, Fate, JournalBlob, Looked, Noted, Said, absent_since, fate,
};
use super::facts::{JournalFact, PAGE, PartFact, PartIs, UploadFact};
use super::scratch::{noted_of, pack, part, published, said, upload};
use super::write::{condemned, slot_of};
use crate::engine::Op;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{
    BlobRef, BlobState, CondemnReason, NotePayload, UploadPartRow, UploadRow, VersionRow,
};
use crate::row::decode;

impl Work<'_> {
    /// What the journal says of keys and uploads.
    pub(super) async fn sort_journal(&mut self) -> Result<()> {
        self.each_journal(space::CURRENT, sort_current).await?;
        self.each_journal(space::UPLOAD, sort_upload).await?;
        let mut after: Option<Bytes> = None;
        loop {
            let page: Vec<(Bytes, JournalFact)> = self
                .facts
                .page(&[b'j', space::UPLOAD_PART], after.as_ref())
                .await?;
            let mut ops = Vec::new();
            for (key, fact) in &page {
                after = Some(key.clone());
                ops.extend(self.sort_upload_part(&key[1..], fact).await?);
            }
            self.facts.commit(ops).await?;
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn each_journal(
        &mut self,
        space: u8,
        sort: impl Fn(&[u8], &JournalFact) -> Result<Vec<Op>>,
    ) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let page: Vec<(Bytes, JournalFact)> =
                self.facts.page(&[b'j', space], after.as_ref()).await?;
            let mut ops = Vec::new();
            for (key, fact) in &page {
                after = Some(key.clone());
                ops.extend(sort(&key[1..], fact)?);
            }
            self.facts.commit(ops).await?;
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn sort_upload_part(&self, key: &[u8], fact: &JournalFact) -> Result<Option<Op>> {
        let Some(value) = &fact.value else {
            return Ok(None);
        };
        let row: UploadPartRow = decode(value)?;
        let Some(blob) = row.blob else {
            return Ok(None);
        };
        if self.facts.is_deleted(&blob).await? {
            return Ok(None);
        }
        let uid = key.get(1..17).and_then(|bytes| bytes.try_into().ok());
        let uid = uid.map(VersionUid::from_be_bytes).ok_or_else(bad_key)?;
        let owner = self
            .facts
            .journal(&keys::blob(blob.group, blob.blob))
            .await?;
        let Some(value) = owner.and_then(|owner| owner.value) else {
            return Ok(None);
        };
        let BlobState::Owned(owner) = decode(&value)? else {
            return Ok(None);
        };
        let held = PartFact {
            order: fact.order,
            blob,
            incarnation: owner.incarnation,
            key: owner.key,
            is: PartIs::OfUpload(row),
        };
        Ok(Some(Op::Put(part(uid, owner.part, blob.blob), pack(&held))))
    }

    /// What disks say of blobs.
    pub(super) async fn sort_blobs(&mut self) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let page: Vec<(Bytes, BlobFact)> = self.facts.page(b"n", after.as_ref()).await?;
            for (key, fact) in &page {
                let (group, blob) = noted_of(key)?;
                self.sort_blob(group, blob, fact).await?;
                after = Some(key.clone());
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn sort_blob(&mut self, group: GroupId, blob: BlobId, fact: &BlobFact) -> Result<()> {
        let journal = self.journal_blob(group, blob).await?;
        let noted = fact.note.as_ref().map(|(order, _)| *order);
        let journal = journal.or(absent_since(noted, self.facts.base));
        let layout = match &fact.note {
            Some((_, Noted::Is(note))) => note.blob().map(|blob| blob.layout),
            _ => None,
        };
        let looked = self.looked(group, blob, layout);
        match fate(fact, journal, looked) {
            Fate::Nothing | Fate::ByJournal => Ok(()),
            Fate::Undecided(Doubt::NoNote) if self.is_own_file(group, blob).await => {
                self.condemn_found(group, blob, layout).await
            }
            Fate::Undecided(doubt) => {
                self.doubt(group, blob, doubt).await;
                Ok(())
            }
            Fate::Gone => self.condemn_found(group, blob, layout).await,
            Fate::Belongs(_, _) if !self.facts.groups.contains_key(&group) => {
                self.doubt(group, blob, Doubt::NoGroup).await;
                Ok(())
            }
            Fate::Belongs(order, note) => self.sort_note(order, blob, *note).await,
        }
    }

    async fn journal_blob(&self, group: GroupId, blob: BlobId) -> Result<Option<JournalBlob>> {
        let held = self.facts.journal(&keys::blob(group, blob)).await?;
        let Some(held) = held else { return Ok(None) };
        let Some(value) = held.value else {
            return Ok(Some(JournalBlob::Gone));
        };
        Ok(Some(match decode(&value)? {
            BlobState::Owned(_) => JournalBlob::Owned,
            // Checkpoints are of the catalog that is no more.
            BlobState::NeverPublished | BlobState::Checkpoint(_) => JournalBlob::Gone,
        }))
    }

    /// How many of a blob's disks were read.
    fn looked(&self, group: GroupId, blob: BlobId, layout: Option<BlobLayout>) -> Looked {
        let group = self.facts.groups.get(&group).map(|(_, row)| row);
        let (Some(group), Some(layout)) = (group, layout) else {
            return Looked { read: 0, parity: 0 };
        };
        let shards = 0..layout.data.saturating_add(layout.parity);
        let slots = shards.map(|index| slot_of(blob, index, group.slots.len()));
        let disks = slots.filter_map(|slot| group.slots.get(usize::from(slot)));
        Looked {
            read: self.facts.read_of(disks),
            parity: usize::from(layout.parity),
        }
    }

    /// Whether it is a file of the gateway's own, which names no bucket: of a
    /// checkpoint of the catalog that is no more.
    async fn is_own_file(&self, group: GroupId, blob: BlobId) -> bool {
        let header = self.headers.header(group, blob).await;
        header.is_some_and(|header| header.object.bucket.is_empty())
    }

    /// A blob that was deleted and has shards still.
    async fn condemn_found(
        &mut self,
        group: GroupId,
        blob: BlobId,
        layout: Option<BlobLayout>,
    ) -> Result<()> {
        let layout = match layout {
            Some(layout) => Some(layout),
            None => self.headers.header(group, blob).await.map(|of| of.layout),
        };
        let Some(layout) = layout else {
            self.doubt(group, blob, Doubt::NoHeader).await;
            return Ok(());
        };
        let blob = BlobRef {
            group,
            blob,
            layout,
            len: 0,
        };
        self.done.condemned += 1;
        let row = condemned(&blob, CondemnReason::Deleted);
        self.writer.condemn(&row).await
    }

    async fn sort_note(&mut self, order: NoteOrder, blob: BlobId, note: NotePayload) -> Result<()> {
        let mut ops = Vec::new();
        match note {
            NotePayload::Version {
                incarnation,
                key,
                row,
                class,
                detail,
                part: of_part,
                empty_last,
            } => {
                let uid = row.uid;
                if let Some(row) = of_part
                    && let Some(blob) = row.blob
                {
                    let number = row.number;
                    let held = PartFact {
                        order,
                        blob,
                        incarnation,
                        key: key.clone(),
                        is: PartIs::OfVersion(row),
                    };
                    ops.push(Op::Put(part(uid, number, blob.blob), pack(&held)));
                }
                let at = said(incarnation, &key, order, uid);
                let mut candidate = Candidate {
                    row,
                    class,
                    detail: detail.map(|detail| (order, detail)),
                    empty_last,
                    in_journal: false,
                };
                if let Some(Said::Published(held)) = self.facts.get::<Said>(&at).await? {
                    candidate = held.merged(candidate);
                }
                ops.push(Op::Put(at, pack(&Said::Published(Box::new(candidate)))));
                ops.push(Op::Put(published(uid), Bytes::new()));
            }
            NotePayload::UploadPart {
                incarnation,
                key,
                upload: row,
                class,
                part: of_part,
            } => {
                let uid = row.uid;
                if let Some(held) = of_part.blob {
                    let number = of_part.number;
                    let held = PartFact {
                        order,
                        blob: held,
                        incarnation,
                        key: key.clone(),
                        is: PartIs::OfUpload(of_part),
                    };
                    ops.push(Op::Put(part(uid, number, blob), pack(&held)));
                }
                let known: Option<UploadFact> = self.facts.get(&upload(uid)).await?;
                if known.is_none_or(|known| known.order < order) {
                    let fact = UploadFact {
                        order,
                        incarnation,
                        key,
                        row,
                        class,
                        ended: false,
                    };
                    ops.push(Op::Put(upload(uid), pack(&fact)));
                }
            }
            NotePayload::Group(_) | NotePayload::Mark => {}
        }
        self.facts.commit(ops).await
    }
}

fn bad_key() -> CatalogError {
    CatalogError::Damaged {
        why: "a key of the journal is cut short".to_owned(),
    }
}

fn sort_current(key: &[u8], fact: &JournalFact) -> Result<Vec<Op>> {
    let name = keys::decode_current(key)?;
    let incarnation = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
    let incarnation = incarnation.map(BucketIncarnation::from_be_bytes);
    let incarnation = incarnation.ok_or_else(bad_key)?;
    let Some(value) = &fact.value else {
        let at = said(incarnation, &name, fact.order, VersionUid(0));
        return Ok(vec![Op::Put(at, pack(&Said::Deleted))]);
    };
    let row: VersionRow = decode(value)?;
    let uid = row.uid;
    let candidate = Candidate {
        row,
        class: String::new(),
        detail: None,
        empty_last: None,
        in_journal: true,
    };
    let at = said(incarnation, &name, fact.order, uid);
    Ok(vec![
        Op::Put(at, pack(&Said::Published(Box::new(candidate)))),
        Op::Put(published(uid), Bytes::new()),
    ])
}

fn sort_upload(key: &[u8], fact: &JournalFact) -> Result<Vec<Op>> {
    let (name, uid) = keys::decode_upload(key)?;
    let incarnation = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
    let incarnation = incarnation.map(BucketIncarnation::from_be_bytes);
    let row = match &fact.value {
        Some(value) => decode(value)?,
        // What it was matters no more.
        None => UploadRow {
            uid,
            initiated: 0,
            owner: String::new(),
            class: 0,
            detail: Default::default(),
            checksum: None,
            group: None,
        },
    };
    let held = UploadFact {
        order: fact.order,
        incarnation: incarnation.ok_or_else(bad_key)?,
        key: name,
        row,
        class: String::new(),
        ended: fact.value.is_none(),
    };
    Ok(vec![Op::Put(upload(uid), pack(&held))])
}

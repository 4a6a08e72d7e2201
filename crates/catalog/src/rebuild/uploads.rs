//! Uploads that are open still, with their parts.

use std::collections::BTreeSet;

use bytes::Bytes;
use shardgate_wire::VersionUid;

use super::Work;
use super::decide::Doubt;
use super::facts::{JournalFact, PAGE, PartFact, PartIs, UploadFact};
use super::scratch::{published, tagged};
use super::write::owner;
use crate::error::Result;
use crate::keys;
use crate::model::{CondemnReason, UploadPartRow};
use crate::row::decode;

impl Work<'_> {
    /// Writes the uploads that were neither completed nor aborted.
    pub(super) async fn write_uploads(&mut self) -> Result<()> {
        let mut after: Option<Bytes> = None;
        loop {
            let page: Vec<(Bytes, UploadFact)> = self.facts.page(b"u", after.as_ref()).await?;
            for (key, fact) in &page {
                after = Some(key.clone());
                let uid = fact.row.uid;
                // As a version it was written, or dropped, with its parts.
                if self.facts.get::<()>(&published(uid)).await?.is_none() {
                    self.write_upload(fact).await?;
                }
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    async fn write_upload(&mut self, fact: &UploadFact) -> Result<()> {
        let uid = fact.row.uid;
        let parts = self.part_facts(uid).await?;
        let any = parts.first().map(|part| part.blob);
        let lives = match fact.ended {
            true => Some(false),
            false => {
                self.bucket_lives(fact.incarnation, fact.order, any.as_ref())
                    .await?
            }
        };
        match lives {
            None => {
                for part in &parts {
                    self.doubt(part.blob.group, part.blob.blob, Doubt::NoHeader)
                        .await;
                }
                return Ok(());
            }
            Some(false) => {
                for part in &parts {
                    self.condemn(&part.blob, CondemnReason::UploadEnded).await?;
                }
                return Ok(());
            }
            Some(true) => {}
        }
        let mut row = fact.row.clone();
        if row.detail.is_empty() {
            let blobs: Vec<_> = parts.iter().map(|part| part.blob).take(1).collect();
            row.detail = self.detail_by_header(&blobs).await.unwrap_or_default();
        }
        self.use_class(row.class, &fact.class).await?;
        let key = keys::upload(fact.incarnation, &fact.key, uid);
        self.writer.put(key, &row).await?;
        self.write_upload_parts(fact, &parts).await?;
        self.done.uploads += 1;
        Ok(())
    }

    /// Of each number the part that came last; the others go.
    async fn write_upload_parts(&mut self, fact: &UploadFact, parts: &[PartFact]) -> Result<()> {
        let uid = fact.row.uid;
        let mut taken = BTreeSet::new();
        for part in parts {
            let PartIs::OfUpload(row) = &part.is else {
                continue;
            };
            if !taken.insert(row.number) {
                self.condemn(&part.blob, CondemnReason::Overwritten).await?;
                continue;
            }
            if !self.facts.is_known_since(part.order) && !self.facts.has_shards(&part.blob).await? {
                let blob = part.blob;
                self.doubt(blob.group, blob.blob, Doubt::NoShard).await;
                continue;
            }
            self.writer
                .put(keys::upload_part(uid, row.number), row)
                .await?;
            let owner = owner(fact.incarnation, &fact.key, uid, row.number, &part.blob);
            self.own(&part.blob, owner).await?;
        }
        for row in self.parts_without_bytes(uid).await? {
            if taken.insert(row.number) {
                self.writer
                    .put(keys::upload_part(uid, row.number), &row)
                    .await?;
            }
        }
        Ok(())
    }

    /// Parts that have no blob: the journal alone has them.
    async fn parts_without_bytes(&self, uid: VersionUid) -> Result<Vec<UploadPartRow>> {
        let prefix = tagged(b'j', &keys::upload_parts(uid));
        let rows: Vec<(Bytes, JournalFact)> = self.facts.all(&prefix).await?;
        let mut found = Vec::new();
        for value in rows.into_iter().filter_map(|(_, fact)| fact.value) {
            let row: UploadPartRow = decode(&value)?;
            if row.blob.is_none() {
                found.push(row);
            }
        }
        Ok(found)
    }
}

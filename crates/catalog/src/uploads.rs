//! Open multipart uploads and their parts.
//!
//! Invariant: a part's commit expects the upload's row, so that none is added
//! behind a completion or an abort; a part's blob belongs to (incarnation,
//! key, upload id, part number) from the start, and completing rewrites none.

use bytes::Bytes;
use shardgate_wire::{BucketIncarnation, CommitNumber, VersionUid};

use crate::buckets::BucketRef;
use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::engine::{Entry, KeyRange, Scan};
use crate::error::{CatalogError, Result};
use crate::keys;
use crate::model::{BlobRow, CondemnReason, UploadPartRow, UploadRow};
use crate::objects::MAX_PARTS;
use crate::publish::WrittenBlob;
use crate::row::decode;

/// An upload's row and all its parts, exactly as they are stored.
pub(crate) struct StoredUpload {
    pub(crate) raw: Bytes,
    pub(crate) row: UploadRow,
    pub(crate) raw_parts: Vec<(Bytes, Bytes)>,
    pub(crate) parts: Vec<UploadPartRow>,
}

impl StoredUpload {
    /// Ends the upload: its rows go, and the commit expects them to be all.
    pub(crate) fn end(&self, draft: &mut Draft, incarnation: BucketIncarnation, key: &str) {
        let upload = keys::upload(incarnation, key, self.row.uid);
        draft.expect(upload.clone(), Some(self.raw.clone()));
        draft.delete(upload);
        let range = KeyRange::prefix(keys::upload_parts(self.row.uid));
        draft.expect_rows(range, self.raw_parts.clone());
        for (part, _) in &self.raw_parts {
            draft.delete(part.clone());
        }
    }
}

impl Catalog {
    /// Begins an upload.
    pub async fn create_upload(
        &self,
        bucket: &BucketRef,
        key: &str,
        row: &UploadRow,
    ) -> Result<CommitNumber> {
        let upload = keys::upload(bucket.incarnation, key, row.uid);
        for attempt in 0..ATTEMPTS {
            let mut draft = Draft::new();
            self.expect_writable(&mut draft, bucket, attempt).await?;
            draft.expect(upload.clone(), None);
            draft.put(upload.clone(), row);
            match self.commit(draft).await {
                Err(CatalogError::Conflict) => {}
                outcome => return outcome,
            }
        }
        Err(CatalogError::Conflict)
    }

    /// An open upload.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchUpload`].
    pub async fn upload(
        &self,
        incarnation: BucketIncarnation,
        key: &str,
        uid: VersionUid,
    ) -> Result<UploadRow> {
        let row = self.row(&keys::upload(incarnation, key, uid)).await?;
        row.ok_or(CatalogError::NoSuchUpload)
    }

    /// Stores a part of an open upload, in place of one of the same number.
    /// `row.blob` is set from `written`.
    ///
    /// # Errors
    /// As [`Catalog::publish`], and [`CatalogError::NoSuchUpload`].
    pub async fn put_part(
        &self,
        bucket: &BucketRef,
        key: &str,
        uid: VersionUid,
        mut row: UploadPartRow,
        written: Option<&WrittenBlob>,
    ) -> Result<CommitNumber> {
        row.blob = written.map(|written| written.blob);
        let upload_key = keys::upload(bucket.incarnation, key, uid);
        let part_key = keys::upload_part(uid, row.number);
        let _turn = self.inner.key_turns.one(&(uid, row.number)).await;
        for _ in 0..ATTEMPTS {
            let wanted = [upload_key.clone(), part_key.clone()];
            let mut found = self.engine().get_many(&wanted).await?;
            let (part_raw, upload_raw) = (found.pop().flatten(), found.pop().flatten());
            let upload_raw = upload_raw.ok_or(CatalogError::NoSuchUpload)?;
            let mut draft = Draft::new();
            draft.expect(upload_key.clone(), Some(upload_raw));
            if let Some(raw) = &part_raw {
                let replaced: UploadPartRow = decode(raw)?;
                if let Some(blob) = &replaced.blob {
                    draft.condemn_owned(blob, CondemnReason::Overwritten);
                }
            }
            draft.expect(part_key.clone(), part_raw);
            draft.put(part_key.clone(), &row);
            if let Some(written) = written {
                let owner = BlobRow {
                    incarnation: bucket.incarnation,
                    key: key.to_owned(),
                    uid,
                    part: row.number,
                    layout: written.blob.layout,
                    len: written.blob.len,
                };
                self.take_blob(&mut draft, written, owner).await?;
            }
            match self.commit(draft).await {
                Err(CatalogError::Conflict) => {}
                outcome => return outcome,
            }
        }
        Err(CatalogError::Conflict)
    }

    /// Parts of an open upload in order, those behind number `after`.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchUpload`].
    pub async fn list_parts(
        &self,
        incarnation: BucketIncarnation,
        key: &str,
        uid: VersionUid,
        after: u16,
        limit: usize,
    ) -> Result<Vec<UploadPartRow>> {
        let mut range = KeyRange::prefix(keys::upload_parts(uid));
        range.start = keys::after(&keys::upload_part(uid, after));
        let rows = self.rows(range, limit, |_| Ok(())).await?;
        // Looked for last: parts that were seen belong to an upload that is
        // open still, or was while they were read.
        self.upload(incarnation, key, uid).await?;
        Ok(rows.into_iter().map(|((), row)| row).collect())
    }

    /// Ends an open upload; all its parts are condemned.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchUpload`].
    pub async fn abort_upload(&self, bucket: &BucketRef, key: &str, uid: VersionUid) -> Result<()> {
        self.writable_bucket(bucket).await?;
        self.end_upload(bucket.incarnation, key, uid).await
    }

    /// As [`Self::abort_upload`], whatever the state of the bucket.
    pub(crate) async fn end_upload(
        &self,
        incarnation: BucketIncarnation,
        key: &str,
        uid: VersionUid,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let stored = self.stored_upload(incarnation, key, uid).await?;
            let stored = stored.ok_or(CatalogError::NoSuchUpload)?;
            let mut draft = Draft::new();
            stored.end(&mut draft, incarnation, key);
            for blob in stored.parts.iter().filter_map(|part| part.blob.as_ref()) {
                draft.condemn_owned(blob, CondemnReason::UploadEnded);
            }
            match self.commit(draft).await {
                Ok(_) => return Ok(()),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    pub(crate) async fn stored_upload(
        &self,
        incarnation: BucketIncarnation,
        key: &str,
        uid: VersionUid,
    ) -> Result<Option<StoredUpload>> {
        // One moment: an upload that ends between two reads would look like one
        // whose parts were never sent, and be answered `InvalidPart`.
        let moment = self.snapshot().await?;
        let Some(raw) = moment.get(&keys::upload(incarnation, key, uid)).await? else {
            return Ok(None);
        };
        let row = decode(&raw)?;
        let range = KeyRange::prefix(keys::upload_parts(uid));
        let entries = moment.scan(Scan::first(range, MAX_PARTS + 1)).await?;
        let raw_parts: Vec<_> = entries.into_iter().filter_map(Entry::into_row).collect();
        let parts = raw_parts
            .iter()
            .map(|(_, value)| decode(value))
            .collect::<Result<_, _>>()?;
        Ok(Some(StoredUpload {
            raw,
            row,
            raw_parts,
            parts,
        }))
    }
}

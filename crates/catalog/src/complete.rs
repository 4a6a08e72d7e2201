//! CompleteMultipartUpload: one commit makes the parts an object, frees those
//! that were not named, and leaves what a repeat is answered with.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use shardgate_wire::{CommitNumber, VersionUid};

use crate::buckets::BucketRef;
use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::engine::KeyRange;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{
    CompletedRow, CondemnReason, Content, ETag, PartRow, StoredChecksum, UnixMillis, UploadPartRow,
    UploadRow, VersionRow,
};
use crate::objects::MAX_PARTS;
use crate::publish::WriteCondition;
use crate::row::decode;
use crate::uploads::StoredUpload;

/// Least size of a part that is not the last, bytes.
pub const MIN_PART_BYTES: u64 = 5 << 20;

/// A part that the client names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletePart {
    /// Its number.
    pub number: u16,
    /// MD5 of its bytes, as its ETag says.
    pub md5: [u8; 16],
}

/// A request to complete an upload.
#[derive(Clone, Debug)]
pub struct CompleteRequest {
    /// The bucket.
    pub bucket: BucketRef,
    /// The key.
    pub key: String,
    /// The upload.
    pub uid: VersionUid,
    /// Its parts, in the client's order; not empty.
    pub parts: Vec<CompletePart>,
    /// What must hold of the key.
    pub condition: WriteCondition,
    /// The time, for the object and the record of completion.
    pub now: UnixMillis,
}

/// What is computed from the parts of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompleteFinish {
    /// Its ETag.
    pub etag: ETag,
    /// Its checksum.
    pub checksum: Option<StoredChecksum>,
}

/// What a completion is answered with; a repeat gets the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The object's ETag.
    pub etag: ETag,
    /// Its checksum.
    pub checksum: Option<StoredChecksum>,
    /// What it replaced, and in which commit; `None` for a repeat.
    pub published: Option<(CommitNumber, Option<VersionRow>)>,
}

impl Catalog {
    /// Makes an upload an object. `finish` computes ETag and checksum from the
    /// upload and the parts that are used, in order, and may refuse them; it
    /// is called again if anything changed meanwhile.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchUpload`], [`CatalogError::InvalidPart`],
    /// [`CatalogError::InvalidPartOrder`], [`CatalogError::EntityTooSmall`],
    /// [`CatalogError::PreconditionFailed`], and what `finish` returns.
    pub async fn complete_upload<F, E>(
        &self,
        request: &CompleteRequest,
        finish: F,
    ) -> Result<Completed, E>
    where
        F: Fn(&UploadRow, &[UploadPartRow]) -> Result<CompleteFinish, E> + Send + Sync,
        E: From<CatalogError> + Send,
    {
        let CompleteRequest {
            bucket, key, uid, ..
        } = request;
        let turn = (bucket.incarnation, key);
        let _turn = self.inner.key_turns.one(&turn).await;
        for attempt in 0..ATTEMPTS {
            let mut draft = Draft::new();
            self.expect_writable(&mut draft, bucket, attempt).await?;
            let stored = self.stored_upload(bucket.incarnation, key, *uid).await?;
            let Some(stored) = stored else {
                return Ok(self.completed_before(request).await?);
            };
            let used = used_parts(&stored.parts, &request.parts)?;
            let finished = finish(&stored.row, &used)?;
            let row = version(&stored.row, &used, &finished, request.now);
            let replaced = self
                .replace_version(&mut draft, bucket, key, &row, &request.condition)
                .await?;
            end_with_object(&mut draft, request, &stored, &used, &finished);
            match self.commit(draft).await {
                Ok(commit) => {
                    return Ok(Completed {
                        etag: finished.etag,
                        checksum: finished.checksum,
                        published: Some((commit, replaced)),
                    });
                }
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CatalogError::Conflict.into())
    }

    async fn completed_before(&self, request: &CompleteRequest) -> Result<Completed> {
        let key = keys::completed(request.bucket.incarnation, request.uid);
        let row: Option<CompletedRow> = self.row(&key).await?;
        match row {
            Some(row) if row.request == request_hash(&request.key, &request.parts) => {
                Ok(Completed {
                    etag: row.etag,
                    checksum: row.checksum,
                    published: None,
                })
            }
            _ => Err(CatalogError::NoSuchUpload),
        }
    }

    /// Forgets completions older than `before`, looking at no more than
    /// `limit` records behind `cursor`; returns where to go on, or `None` at
    /// the end.
    pub async fn forget_completed(
        &self,
        before: UnixMillis,
        cursor: Option<&[u8]>,
        limit: usize,
    ) -> Result<Option<Vec<u8>>> {
        let mut range = KeyRange::prefix(vec![space::COMPLETED]);
        if let Some(cursor) = cursor {
            range.start = keys::after(cursor);
        }
        let rows = self.raw_rows(range, limit).await?;
        let next = rows.last().filter(|_| rows.len() == limit);
        let next = next.map(|(key, _)| key.to_vec());
        let mut draft = Draft::new();
        for (key, value) in rows {
            let row: CompletedRow = decode(&value)?;
            if row.completed < before {
                draft.delete(key);
            }
        }
        if !draft.is_empty() {
            self.commit(draft).await?;
        }
        Ok(next)
    }
}

/// The parts that the client names, checked.
fn used_parts(stored: &[UploadPartRow], named: &[CompletePart]) -> Result<Vec<UploadPartRow>> {
    if named.is_empty() || named.len() > MAX_PARTS {
        return Err(CatalogError::InvalidPart { number: 0 });
    }
    if !named.windows(2).all(|pair| pair[0].number < pair[1].number) {
        return Err(CatalogError::InvalidPartOrder);
    }
    let by_number: HashMap<_, _> = stored.iter().map(|part| (part.number, part)).collect();
    let mut used = Vec::with_capacity(named.len());
    for part in named {
        match by_number.get(&part.number) {
            Some(&held) if held.md5 == part.md5 => used.push(held.clone()),
            _ => {
                let number = part.number;
                return Err(CatalogError::InvalidPart { number });
            }
        }
    }
    let (_, but_last) = used.split_last().expect("one part was named");
    match but_last.iter().find(|part| part.len < MIN_PART_BYTES) {
        Some(part) => Err(CatalogError::EntityTooSmall {
            number: part.number,
        }),
        None => Ok(used),
    }
}

fn version(
    upload: &UploadRow,
    used: &[UploadPartRow],
    finished: &CompleteFinish,
    now: UnixMillis,
) -> VersionRow {
    VersionRow {
        uid: upload.uid,
        size: used.iter().map(|part| part.len).sum(),
        modified: now,
        etag: finished.etag,
        class: upload.class,
        content: Content::Parts(u16::try_from(used.len()).expect("at most 10,000 parts")),
        checksum: finished.checksum.clone(),
        null: true,
        has_detail: !upload.detail.is_empty(),
    }
}

/// All that a completion changes beside the version's row.
fn end_with_object(
    draft: &mut Draft,
    request: &CompleteRequest,
    stored: &StoredUpload,
    used: &[UploadPartRow],
    finished: &CompleteFinish,
) {
    let (uid, incarnation) = (request.uid, request.bucket.incarnation);
    stored.end(draft, incarnation, &request.key);
    let mut start = 0;
    let mut kept = used.iter().peekable();
    for part in &stored.parts {
        if kept.next_if(|kept| kept.number == part.number).is_none() {
            if let Some(blob) = &part.blob {
                draft.condemn_owned(blob, CondemnReason::UploadEnded);
            }
            continue;
        }
        let row = PartRow {
            number: part.number,
            start,
            blob: part.blob,
            len: part.len,
            md5: part.md5,
            checksum: part.checksum.clone(),
        };
        draft.put(keys::part(uid, start), &row);
        if let Some(blob) = &part.blob {
            draft.note(blob);
        }
        start += part.len;
    }
    if !stored.row.detail.is_empty() {
        draft.put(keys::detail(uid), &stored.row.detail);
    }
    let completed = CompletedRow {
        request: request_hash(&request.key, &request.parts),
        etag: finished.etag,
        checksum: finished.checksum.clone(),
        completed: request.now,
    };
    draft.put(keys::completed(incarnation, uid), &completed);
}

/// What makes a request a repeat of another: the key and the parts it names.
fn request_hash(key: &str, parts: &[CompletePart]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_be_bytes());
    hash.update(key);
    for part in parts {
        hash.update(part.number.to_be_bytes());
        hash.update(part.md5);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;

//! Multipart uploads: parts are blobs of their own, the catalog makes them an
//! object.
//!
//! Owns what is computed from parts: the object's ETag and checksum. The
//! parts of one upload lie in one group as long as that takes writes.

use std::ops::Range;

use md5::{Digest as _, Md5};
use shardgate_catalog::model::{ChecksumKind, ETag, StoredChecksum, UploadPartRow, UploadRow};
use shardgate_catalog::{BucketRef, CompleteFinish, CompletePart};
use shardgate_wire::VersionUid;

use super::commit::{detached, publish_part};
use super::digest::{Expectations, PartDigest, object_checksum};
use super::error::ObjectError;
use super::get::ObjectHandle;
use super::intake::Intake;
use super::put::{copied, object_ref};
use super::request::{
    BodyStream, ChecksumRequest, CompleteOutcome, CompleteRequest, ExpectedDigest, PartChoice,
    PartOutcome, PartRequest, UploadRequest,
};
use super::service::ObjectService;
use super::store::{Destination, StoredBody, store_body};

/// The highest number of a part, and how many an object has at most.
pub const MOST_PARTS: u16 = 10_000;
/// The longest object, bytes.
pub const MOST_OBJECT_BYTES: u64 = 5 << 40;

impl ObjectService {
    /// Begins an upload; gives its id.
    ///
    /// # Errors
    /// No such class or bucket, or the catalog refuses.
    pub async fn create_upload(&self, request: UploadRequest) -> Result<VersionUid, ObjectError> {
        let core = &self.core;
        core.check_in_force()?;
        core.check_room()?;
        let class = core.disks.class(request.class.as_deref()).await?;
        let uid = core.new_version();
        // Refuses metadata that no shard would take, before any part comes.
        object_ref(&request.bucket, &request.key, (uid, 1), &request.detail)?;
        let group = core.disks.group_for_write(&class, None, None).await;
        let row = UploadRow {
            uid,
            initiated: core.clock.now_ms(),
            owner: request.owner,
            class: class.number,
            detail: request.detail,
            checksum: request.checksum,
            group: group.ok().map(|group| group.row.id),
        };
        let catalog = core.catalog.clone();
        detached(core, async move {
            let created = catalog.create_upload(&request.bucket, &request.key, &row);
            created.await?;
            Ok(uid)
        })
        .await
    }

    /// An open upload.
    ///
    /// # Errors
    /// [`ObjectError::NoSuchUpload`].
    pub async fn upload(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: VersionUid,
    ) -> Result<UploadRow, ObjectError> {
        let catalog = &self.core.catalog;
        Ok(catalog.upload(bucket.incarnation, key, upload).await?)
    }

    /// Stores a part, in place of one of the same number.
    ///
    /// # Errors
    /// As [`Self::put_object`], and [`ObjectError::NoSuchUpload`].
    pub async fn put_part(
        &self,
        request: PartRequest,
        body: BodyStream,
    ) -> Result<PartOutcome, ObjectError> {
        let core = &self.core;
        core.check_in_force()?;
        core.check_room()?;
        let (number, uid) = (request.number, request.upload);
        if number == 0 || number > MOST_PARTS {
            return Err(ObjectError::InvalidPart { number });
        }
        let upload = self.upload(&request.bucket, &request.key, uid).await?;
        let class = core.disks.class_by_number(upload.class).await?;
        let of_upload = upload.checksum.map(|(algorithm, _)| ChecksumRequest {
            algorithm,
            expected: ExpectedDigest::Unknown,
        });
        // Such a part could never be completed: said before its bytes come.
        if let (Some(own), Some(wanted)) = (&request.checksum, &of_upload)
            && own.algorithm != wanted.algorithm
        {
            return Err(ObjectError::BadChecksum {
                what: "it is of another algorithm than the upload was begun with",
            });
        }
        let expectations = Expectations {
            len: request.len,
            content_md5: request.content_md5,
            checksum: request.checksum.or(of_upload),
        };
        let intake = Intake::new(body, expectations, core.settings.body_max)?;
        let to = Destination {
            class,
            prefer: upload.group,
            object: object_ref(&request.bucket, &request.key, (uid, number), &upload.detail)?,
            inline_max: 0,
        };
        let (digests, stored) = Box::pin(store_body(core, &to, intake)).await?;
        let writer = match stored {
            StoredBody::Inline(_empty) => None,
            StoredBody::Blob(writer) => Some(writer),
        };
        let row = UploadPartRow {
            number,
            blob: None,
            len: digests.len,
            md5: digests.md5,
            checksum: digests.checksum,
            modified: core.clock.now_ms(),
        };
        let outcome = PartOutcome {
            md5: row.md5,
            checksum: row.checksum.clone(),
            size: row.len,
            modified: row.modified,
        };
        publish_part(core, (request.bucket, request.key, uid), row, writer).await?;
        Ok(outcome)
    }

    /// Stores bytes of an open object as a part.
    ///
    /// # Errors
    /// As reading and [`Self::put_part`].
    pub async fn put_part_copy(
        &self,
        source: ObjectHandle,
        range: Option<Range<u64>>,
        mut request: PartRequest,
    ) -> Result<PartOutcome, ObjectError> {
        let range = range.unwrap_or(0..source.row().size);
        request.len = Some(range.end.saturating_sub(range.start));
        let body = copied(&source, range).await?;
        self.put_part(request, body).await
    }

    /// Makes an object of parts. A repeat of the same request is answered
    /// the same.
    ///
    /// # Errors
    /// Parts are not as named, a condition or a checksum does not hold.
    pub async fn complete_upload(
        &self,
        request: CompleteRequest,
    ) -> Result<CompleteOutcome, ObjectError> {
        let core = &self.core;
        core.check_in_force()?;
        self.core.check_room()?;
        if request.parts.is_empty() || request.parts.len() > usize::from(MOST_PARTS) {
            return Err(ObjectError::InvalidPartCount);
        }
        let work = shardgate_catalog::CompleteRequest {
            bucket: request.bucket.clone(),
            key: request.key.clone(),
            uid: request.upload,
            parts: request.parts.iter().map(named).collect(),
            condition: request.condition,
            now: core.clock.now_ms(),
        };
        let catalog = core.catalog.clone();
        detached(core, async move {
            let completed = catalog
                .complete_upload(&work, |upload, used| finish(&request, upload, used))
                .await?;
            Ok(CompleteOutcome {
                etag: completed.etag,
                checksum: completed.checksum,
            })
        })
        .await
    }

    /// Ends an upload without an object; its parts are condemned.
    ///
    /// # Errors
    /// [`ObjectError::NoSuchUpload`].
    pub async fn abort_upload(
        &self,
        bucket: &BucketRef,
        key: &str,
        upload: VersionUid,
    ) -> Result<(), ObjectError> {
        self.core.check_in_force()?;
        let (catalog, bucket) = (self.core.catalog.clone(), bucket.clone());
        let key = key.to_owned();
        detached(&self.core, async move {
            Ok(catalog.abort_upload(&bucket, &key, upload).await?)
        })
        .await
    }
}

fn named(part: &PartChoice) -> CompletePart {
    CompletePart {
        number: part.number,
        md5: part.md5,
    }
}

/// ETag and checksum of an object from the parts that it uses.
fn finish(
    request: &CompleteRequest,
    upload: &UploadRow,
    used: &[UploadPartRow],
) -> Result<CompleteFinish, ObjectError> {
    let size = used
        .iter()
        .try_fold(0_u64, |sum, part| sum.checked_add(part.len));
    let size = size.filter(|size| *size <= MOST_OBJECT_BYTES);
    let size = size.ok_or(ObjectError::EntityTooLarge {
        limit_bytes: MOST_OBJECT_BYTES,
    })?;
    if let Some(declared) = request.expected_size
        && declared != size
    {
        let received = size;
        return Err(ObjectError::IncompleteBody { declared, received });
    }
    for (part, choice) in used.iter().zip(&request.parts) {
        let Some((algorithm, digest)) = &choice.digest else {
            continue;
        };
        let same = part
            .checksum
            .as_ref()
            .is_some_and(|known| known.algorithm == *algorithm && known.digest == *digest);
        if !same {
            let number = part.number;
            return Err(ObjectError::InvalidPart { number });
        }
    }
    let mut md5 = Md5::new();
    used.iter().for_each(|part| md5.update(part.md5));
    let checksum = checksum(upload, used)?;
    if let Some((algorithm, kind, digest)) = &request.expected {
        let holds = checksum.as_ref().is_some_and(|known| {
            (known.algorithm, known.kind) == (*algorithm, *kind) && known.digest == *digest
        });
        if !holds {
            let algorithm = *algorithm;
            return Err(ObjectError::ChecksumMismatch { algorithm });
        }
    }
    Ok(CompleteFinish {
        etag: ETag {
            md5: md5.finalize().into(),
            parts: used.len() as u16,
        },
        checksum,
    })
}

/// The checksum that the upload asks for; without one, none.
fn checksum(
    upload: &UploadRow,
    used: &[UploadPartRow],
) -> Result<Option<StoredChecksum>, ObjectError> {
    let Some((algorithm, kind)) = upload.checksum else {
        return Ok(None);
    };
    let mut parts = Vec::with_capacity(used.len());
    for part in used {
        match &part.checksum {
            Some(known) if known.algorithm == algorithm => parts.push(PartDigest {
                digest: &known.digest,
                len: part.len,
            }),
            _ => {
                let number = part.number;
                return Err(ObjectError::InvalidPart { number });
            }
        }
    }
    match object_checksum(algorithm, kind, &parts) {
        Some(checksum) => Ok(Some(checksum)),
        None if kind == ChecksumKind::FullObject => Err(ObjectError::BadChecksum {
            what: "this algorithm has no full-object checksum of parts",
        }),
        None => Err(ObjectError::Damaged {
            why: "a part's checksum is of another length".into(),
        }),
    }
}

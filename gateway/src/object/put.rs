//! Storing and copying whole objects.

use bytes::Bytes;
use shardgate_catalog::model::{Content, DetailRow, ETag, VersionRow};
use shardgate_catalog::{BucketRef, Publish, PublishBody};
use shardgate_wire::shard::MAX_METADATA_BYTES;
use shardgate_wire::{ObjectRef, VersionUid};

use super::commit::publish;
use super::digest::Expectations;
use super::error::{BodyError, ObjectError};
use super::get::ObjectHandle;
use super::intake::Intake;
use super::request::{BodyStream, PutOutcome, PutRequest};
use super::service::ObjectService;
use super::store::{Destination, StoredBody, store_body};

/// What the shards of an object say of it.
///
/// # Errors
/// Its metadata is longer than a shard's header takes.
pub(super) fn object_ref(
    bucket: &BucketRef,
    key: &str,
    (version, part): (VersionUid, u16),
    detail: &DetailRow,
) -> Result<ObjectRef, ObjectError> {
    let too_large = || ObjectError::MetadataTooLarge {
        limit_bytes: MAX_METADATA_BYTES,
    };
    let metadata = match detail.is_empty() {
        true => Vec::new(),
        false => postcard::to_stdvec(detail).map_err(|_unserialisable| too_large())?,
    };
    if metadata.len() > MAX_METADATA_BYTES {
        return Err(too_large());
    }
    Ok(ObjectRef {
        bucket: bucket.name.clone(),
        incarnation: bucket.incarnation,
        key: key.to_owned(),
        version,
        part,
        metadata,
    })
}

impl ObjectService {
    /// Stores an object. Answers when a quorum of its shards and its commit
    /// are durable. Dropped before the commit is handed over, nothing becomes
    /// visible; after it, the commit goes on.
    ///
    /// # Errors
    /// The body fails or is not what was said of it, the condition does not
    /// hold, or the pool or the catalog cannot take it. Nothing is visible
    /// then, but for [`ObjectError::Unavailable`] from the catalog: its
    /// outcome is not known.
    pub async fn put_object(
        &self,
        request: PutRequest,
        body: BodyStream,
    ) -> Result<PutOutcome, ObjectError> {
        let core = &self.core;
        core.check_in_force()?;
        core.check_room()?;
        let class = core.disks.class(request.class.as_deref()).await?;
        let (number, uid) = (class.number, core.new_version());
        let object = object_ref(&request.bucket, &request.key, (uid, 0), &request.detail)?;
        let expectations = Expectations {
            len: request.len,
            content_md5: request.content_md5,
            checksum: request.checksum,
        };
        let intake = Intake::new(body, expectations, core.settings.body_max)?;
        let to = Destination {
            class,
            prefer: None,
            object,
            inline_max: core.settings.inline_max,
        };
        let (digests, stored) = Box::pin(store_body(core, &to, intake)).await?;
        let (body, writer) = match stored {
            StoredBody::Inline(bytes) => (PublishBody::Inline(bytes), None),
            StoredBody::Blob(writer) => (PublishBody::Blob(writer.written()), Some(writer)),
        };
        let etag = ETag {
            md5: digests.md5,
            parts: 0,
        };
        let row = VersionRow {
            uid,
            size: digests.len,
            modified: core.clock.now_ms(),
            etag,
            class: number,
            // The catalog sets it from the body.
            content: Content::Inline,
            checksum: digests.checksum,
            null: true,
            has_detail: false,
        };
        let work = Publish {
            bucket: request.bucket,
            key: request.key,
            row,
            detail: request.detail,
            body,
            condition: request.condition,
        };
        let row = publish(core, work, writer).await?.row;
        Ok(PutOutcome {
            etag,
            checksum: row.checksum,
            size: row.size,
            modified: row.modified,
            class: row.class,
        })
    }

    /// Stores the bytes of an open object under another key. They are read,
    /// checked and written again.
    ///
    /// # Errors
    /// As reading and [`Self::put_object`].
    pub async fn copy_object(
        &self,
        source: ObjectHandle,
        mut request: PutRequest,
    ) -> Result<PutOutcome, ObjectError> {
        let size = source.row().size;
        request.len = Some(size);
        let body = copied(&source, 0..size).await?;
        self.put_object(request, body).await
    }
}

/// Bytes of an object as the body of a write.
pub(super) async fn copied(
    source: &ObjectHandle,
    range: std::ops::Range<u64>,
) -> Result<BodyStream, ObjectError> {
    use futures::TryStreamExt;
    let bytes = source.read(range).await?;
    let body = bytes.map_err(|error| BodyError(Box::new(error)));
    Ok(Box::pin(body.map_ok(|frame: Bytes| frame)))
}

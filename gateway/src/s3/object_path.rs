//! The object path as the S3 layer's [`ObjectStore`]: a thin join of the two.

use std::ops::Range;
use std::sync::Arc;

use futures::TryStreamExt as _;
use shardgate_catalog::DeleteCondition;
use shardgate_catalog::model::{DetailRow, PartRow, VersionRow};
use shardgate_wire::VersionUid;

use super::store::{ObjectStore, OpenedObject, ReadStream};
use crate::object::{
    BodyError, BodyStream, BucketAt, CompleteOutcome, CompleteRequest, ObjectError, ObjectHandle,
    ObjectService, PartOutcome, PartRequest, PutOutcome, PutRequest, UploadRequest,
};

/// Names of classes by their numbers.
pub type ClassNames = Box<dyn Fn(u16) -> String + Send + Sync>;

/// The object path with the names of the pool's classes.
pub struct ServedObjects {
    service: ObjectService,
    class_names: ClassNames,
}

impl ServedObjects {
    /// Joins the object path and the pool's names of classes.
    pub fn new(service: ObjectService, class_names: ClassNames) -> Arc<Self> {
        Arc::new(Self {
            service,
            class_names,
        })
    }
}

#[async_trait::async_trait]
impl OpenedObject for ObjectHandle {
    fn row(&self) -> &VersionRow {
        ObjectHandle::row(self)
    }

    async fn detail(&self) -> Result<DetailRow, ObjectError> {
        Ok(ObjectHandle::detail(self))
    }

    async fn part(&self, number: u16) -> Result<PartRow, ObjectError> {
        ObjectHandle::part(self, number).await
    }

    async fn read(self: Box<Self>, bytes: Range<u64>) -> Result<ReadStream, ObjectError> {
        ObjectHandle::read(&self, bytes).await
    }
}

/// Bytes of an object as the body of a write. What fails while they are read
/// fails the write, under its own name.
async fn copied(
    source: Box<dyn OpenedObject>,
    bytes: Range<u64>,
) -> Result<BodyStream, ObjectError> {
    let stream = source.read(bytes).await?;
    let body = stream.map_err(|error| BodyError(Box::new(error)));
    Ok(Box::pin(body))
}

#[async_trait::async_trait]
impl ObjectStore for ServedObjects {
    async fn put_object(
        &self,
        request: PutRequest,
        body: BodyStream,
    ) -> Result<PutOutcome, ObjectError> {
        self.service.put_object(request, body).await
    }

    async fn open_object(
        &self,
        bucket: &BucketAt,
        key: &str,
    ) -> Result<Box<dyn OpenedObject>, ObjectError> {
        Ok(Box::new(self.service.open_object(bucket, key).await?))
    }

    async fn copy_object(
        &self,
        source: Box<dyn OpenedObject>,
        mut request: PutRequest,
    ) -> Result<PutOutcome, ObjectError> {
        let size = source.row().size;
        request.len = Some(size);
        let body = copied(source, 0..size).await?;
        self.service.put_object(request, body).await
    }

    async fn delete_object(
        &self,
        bucket: &BucketAt,
        key: &str,
        condition: DeleteCondition,
    ) -> Result<bool, ObjectError> {
        self.service.delete_object(bucket, key, condition).await
    }

    async fn delete_objects(
        &self,
        bucket: &BucketAt,
        keys: Vec<String>,
    ) -> Result<Vec<Result<(), ObjectError>>, ObjectError> {
        let deleted = self.service.delete_objects(bucket, keys).await?;
        Ok(deleted.into_iter().map(|one| one.map(|_| ())).collect())
    }

    async fn create_upload(&self, request: UploadRequest) -> Result<VersionUid, ObjectError> {
        self.service.create_upload(request).await
    }

    async fn put_part(
        &self,
        request: PartRequest,
        body: BodyStream,
    ) -> Result<PartOutcome, ObjectError> {
        self.service.put_part(request, body).await
    }

    async fn copy_part(
        &self,
        source: Box<dyn OpenedObject>,
        bytes: Range<u64>,
        mut request: PartRequest,
    ) -> Result<PartOutcome, ObjectError> {
        request.len = Some(bytes.end - bytes.start);
        let body = copied(source, bytes).await?;
        self.service.put_part(request, body).await
    }

    async fn complete_upload(
        &self,
        request: CompleteRequest,
    ) -> Result<CompleteOutcome, ObjectError> {
        self.service.complete_upload(request).await
    }

    async fn abort_upload(
        &self,
        bucket: &BucketAt,
        key: &str,
        upload: VersionUid,
    ) -> Result<(), ObjectError> {
        self.service.abort_upload(bucket, key, upload).await
    }

    fn check_room(&self) -> Result<(), ObjectError> {
        self.service.check_room()
    }

    fn class_name(&self, number: u16) -> String {
        (self.class_names)(number)
    }
}

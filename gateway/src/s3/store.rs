//! What the S3 layer asks of the object path.
//!
//! A trait, so that S3's meaning is tested over a store in memory, and so
//! that faults in the middle of a body can be played.

use std::ops::Range;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use shardgate_catalog::DeleteCondition;
use shardgate_catalog::model::{DetailRow, PartRow, VersionRow};
use shardgate_wire::VersionUid;

use crate::object::{
    BodyStream, BucketAt, CompleteOutcome, CompleteRequest, ObjectError, PartOutcome, PartRequest,
    PutOutcome, PutRequest, UploadRequest,
};

/// Bytes of an object on their way out. An error in it means that the rest
/// cannot be given: the connection is cut, never filled up.
pub type ReadStream = Pin<Box<dyn Stream<Item = Result<Bytes, ObjectError>> + Send>>;

/// An object that is open for reading; its bytes stay until it is dropped.
#[async_trait::async_trait]
pub trait OpenedObject: Send + Sync {
    /// Its version.
    fn row(&self) -> &VersionRow;
    /// What is kept beside its bytes.
    async fn detail(&self) -> Result<DetailRow, ObjectError>;
    /// A part of it; one that was put whole has part 1.
    async fn part(&self, number: u16) -> Result<PartRow, ObjectError>;
    /// Bytes of it.
    async fn read(self: Box<Self>, bytes: Range<u64>) -> Result<ReadStream, ObjectError>;
}

/// The object path.
#[async_trait::async_trait]
pub trait ObjectStore: Send + Sync + 'static {
    /// Stores an object.
    async fn put_object(
        &self,
        request: PutRequest,
        body: BodyStream,
    ) -> Result<PutOutcome, ObjectError>;
    /// Opens the newest version of a key.
    async fn open_object(
        &self,
        bucket: &BucketAt,
        key: &str,
    ) -> Result<Box<dyn OpenedObject>, ObjectError>;
    /// Stores the bytes of an open object under another key.
    async fn copy_object(
        &self,
        source: Box<dyn OpenedObject>,
        request: PutRequest,
    ) -> Result<PutOutcome, ObjectError>;
    /// Deletes the newest version of a key; whether there was one.
    async fn delete_object(
        &self,
        bucket: &BucketAt,
        key: &str,
        condition: DeleteCondition,
    ) -> Result<bool, ObjectError>;
    /// Deletes several keys; one failure fails no other.
    async fn delete_objects(
        &self,
        bucket: &BucketAt,
        keys: Vec<String>,
    ) -> Result<Vec<Result<(), ObjectError>>, ObjectError>;
    /// Begins a multipart upload.
    async fn create_upload(&self, request: UploadRequest) -> Result<VersionUid, ObjectError>;
    /// Stores a part.
    async fn put_part(
        &self,
        request: PartRequest,
        body: BodyStream,
    ) -> Result<PartOutcome, ObjectError>;
    /// Stores bytes of an open object as a part.
    async fn copy_part(
        &self,
        source: Box<dyn OpenedObject>,
        bytes: Range<u64>,
        request: PartRequest,
    ) -> Result<PartOutcome, ObjectError>;
    /// Makes an object of parts.
    async fn complete_upload(
        &self,
        request: CompleteRequest,
    ) -> Result<CompleteOutcome, ObjectError>;
    /// Ends an upload without an object.
    async fn abort_upload(
        &self,
        bucket: &BucketAt,
        key: &str,
        upload: VersionUid,
    ) -> Result<(), ObjectError>;
    /// Refuses a write of metadata alone when there is no room for it.
    fn check_room(&self) -> Result<(), ObjectError>;
    /// The name of a class by its number.
    fn class_name(&self, number: u16) -> String;
}

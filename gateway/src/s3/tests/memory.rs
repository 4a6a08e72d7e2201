//! An object path that keeps bytes in memory, over the real catalog.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use md5::{Digest, Md5};
use parking_lot::Mutex;
use shardgate_catalog::model::*;
use shardgate_catalog::{
    Catalog, CatalogError, CompleteFinish, CompletePart, DeleteCondition, Publish, PublishBody,
};
use shardgate_wire::VersionUid;
use shardgate_wire::ids::IdSource;

use crate::object::*;
use crate::s3::digest::Running;
use crate::s3::{Answers, Contact, ObjectStore, OpenedObject, ReadStream};

const CLASSES: [&str; 2] = ["STANDARD", "REDUCED_REDUNDANCY"];

#[derive(Clone)]
pub(crate) struct MemoryStore {
    pub(crate) catalog: Catalog,
    parts: Arc<Mutex<HashMap<(VersionUid, u16), Bytes>>>,
    whole: Arc<Mutex<HashMap<VersionUid, Bytes>>>,
    ids: Arc<IdSource>,
    /// Reads break off after so many bytes.
    pub(crate) breaks_after: Arc<Mutex<Option<u64>>>,
    /// There is no room for more.
    pub(crate) full: CatalogRoom,
    /// Whether anything may be answered.
    pub(crate) contact: SetContact,
    /// Whether reads wait, and whether one does.
    hold: Arc<(AtomicBool, AtomicBool)>,
}

impl MemoryStore {
    /// Lets reads wait, or go on.
    pub(crate) fn hold(&self, hold: bool) {
        self.hold.0.store(hold, Ordering::SeqCst);
    }

    /// Whether a read waits.
    pub(crate) fn is_held(&self) -> bool {
        self.hold.1.load(Ordering::SeqCst)
    }

    async fn pass(&self) {
        while self.hold.0.load(Ordering::SeqCst) {
            self.hold.1.store(true, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What may be answered, as a test says.
#[derive(Clone)]
pub(crate) struct SetContact(Arc<Mutex<Answers>>);

impl SetContact {
    pub(crate) fn set(&self, answers: Answers) {
        *self.0.lock() = answers;
    }
}

impl Default for SetContact {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Answers::All)))
    }
}

impl Contact for SetContact {
    fn answers(&self) -> Answers {
        *self.0.lock()
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            catalog: Catalog::in_memory(),
            parts: Arc::default(),
            whole: Arc::default(),
            ids: Arc::new(IdSource::new()),
            breaks_after: Arc::default(),
            full: CatalogRoom::default(),
            contact: SetContact::default(),
            hold: Arc::default(),
        }
    }
}

fn now() -> u64 {
    use crate::seam::Clock;
    crate::seam::SystemClock.now_ms()
}

fn error(error: CatalogError) -> ObjectError {
    match error {
        CatalogError::NoSuchBucket => ObjectError::NoSuchBucket,
        CatalogError::NoSuchKey => ObjectError::NoSuchKey,
        CatalogError::NoSuchUpload => ObjectError::NoSuchUpload,
        CatalogError::PreconditionFailed => ObjectError::PreconditionFailed,
        CatalogError::InvalidPart { number } => ObjectError::InvalidPart { number },
        CatalogError::InvalidPartOrder => ObjectError::InvalidPartOrder,
        CatalogError::EntityTooSmall { number } => ObjectError::EntityTooSmall { number },
        other => ObjectError::Damaged {
            why: other.to_string(),
        },
    }
}

fn class_number(name: Option<&str>) -> Result<u16, ObjectError> {
    let name = name.unwrap_or("STANDARD");
    let found = CLASSES.iter().position(|known| *known == name);
    Ok(found.ok_or(ObjectError::UnknownClass)? as u16)
}

/// Gathers a body and checks it as the object path does.
async fn gather(
    mut body: BodyStream,
    len: Option<u64>,
    checksum: Option<&ChecksumRequest>,
    content_md5: Option<[u8; 16]>,
) -> Result<(Bytes, [u8; 16], Option<StoredChecksum>), ObjectError> {
    let mut bytes = BytesMut::new();
    while let Some(item) = body.next().await {
        bytes.extend_from_slice(&item?);
    }
    let bytes = bytes.freeze();
    let received = bytes.len() as u64;
    if let Some(declared) = len.filter(|declared| *declared != received) {
        return Err(ObjectError::IncompleteBody { declared, received });
    }
    let md5: [u8; 16] = Md5::digest(&bytes).into();
    if content_md5.is_some_and(|expected| expected != md5) {
        return Err(ObjectError::BadDigest);
    }
    let stored = match checksum {
        None => None,
        Some(request) => {
            let mut running = Running::new(request.algorithm);
            running.update(&bytes);
            let digest = running.finish();
            let expected = match &request.expected {
                ExpectedDigest::Unknown => None,
                ExpectedDigest::Value(value) => Some(value.clone()),
                ExpectedDigest::Trailer(value) => Some(value()?.unwrap()),
            };
            if expected.is_some_and(|expected| expected != digest) {
                return Err(ObjectError::ChecksumMismatch {
                    algorithm: request.algorithm,
                });
            }
            Some(StoredChecksum {
                algorithm: request.algorithm,
                kind: ChecksumKind::FullObject,
                digest,
            })
        }
    };
    Ok((bytes, md5, stored))
}

struct Opened {
    catalog: Catalog,
    row: VersionRow,
    detail: Option<DetailRow>,
    bytes: Bytes,
    breaks_after: Option<u64>,
}

#[async_trait::async_trait]
impl OpenedObject for Opened {
    fn row(&self) -> &VersionRow {
        &self.row
    }

    async fn detail(&self) -> Result<DetailRow, ObjectError> {
        Ok(self.detail.clone().unwrap_or_default())
    }

    async fn part(&self, number: u16) -> Result<PartRow, ObjectError> {
        if self.row.etag.parts == 0 && number == 1 {
            return Ok(PartRow {
                number,
                start: 0,
                blob: None,
                len: self.row.size,
                md5: self.row.etag.md5,
                checksum: None,
            });
        }
        let part = self.catalog.part_by_number(self.row.uid, number).await;
        part.map_err(|_| ObjectError::NoSuchPart)
    }

    async fn read(self: Box<Self>, bytes: Range<u64>) -> Result<ReadStream, ObjectError> {
        let whole = self.bytes.slice(bytes.start as usize..bytes.end as usize);
        let mut frames: Vec<Result<Bytes, ObjectError>> = Vec::new();
        match self.breaks_after {
            Some(good) if good < whole.len() as u64 => {
                frames.push(Ok(whole.slice(..good as usize)));
                frames.push(Err(ObjectError::Unreadable { why: "test".into() }));
            }
            _ => frames.extend(whole.chunks(65_536).map(|part| Ok(whole.slice_ref(part)))),
        }
        Ok(Box::pin(futures::stream::iter(frames)))
    }
}

impl MemoryStore {
    fn uid(&self) -> VersionUid {
        VersionUid(self.ids.next(now()))
    }

    async fn publish(
        &self,
        request: PutRequest,
        bytes: Bytes,
        md5: [u8; 16],
        checksum: Option<StoredChecksum>,
    ) -> Result<PutOutcome, ObjectError> {
        let row = VersionRow {
            uid: self.uid(),
            size: bytes.len() as u64,
            modified: now(),
            etag: ETag { md5, parts: 0 },
            class: class_number(request.class.as_deref())?,
            content: Content::Inline,
            checksum,
            null: true,
            has_detail: false,
        };
        let publish = Publish {
            bucket: request.bucket.clone(),
            key: request.key,
            row,
            detail: request.detail,
            body: PublishBody::Inline(bytes),
            condition: request.condition,
        };
        let row = self.catalog.publish(publish).await.map_err(error)?.row;
        Ok(PutOutcome {
            etag: row.etag,
            checksum: row.checksum,
            size: row.size,
            modified: row.modified,
            class: row.class,
        })
    }

    async fn store_part(
        &self,
        request: PartRequest,
        bytes: Bytes,
        md5: [u8; 16],
        checksum: Option<StoredChecksum>,
    ) -> Result<PartOutcome, ObjectError> {
        let row = UploadPartRow {
            number: request.number,
            blob: None,
            len: bytes.len() as u64,
            md5,
            checksum: checksum.clone(),
            modified: now(),
        };
        let bucket = request.bucket.clone();
        self.catalog
            .put_part(&bucket, &request.key, request.upload, row.clone(), None)
            .await
            .map_err(error)?;
        let size = row.len;
        self.parts
            .lock()
            .insert((request.upload, request.number), bytes);
        Ok(PartOutcome {
            md5,
            checksum,
            size,
            modified: row.modified,
        })
    }
}

fn stream_of(bytes: Bytes) -> BodyStream {
    Box::pin(futures::stream::iter([Ok(bytes)]))
}

async fn read_all(source: Box<dyn OpenedObject>, range: Range<u64>) -> Result<Bytes, ObjectError> {
    let mut stream = source.read(range).await?;
    let mut bytes = BytesMut::new();
    while let Some(frame) = stream.next().await {
        bytes.extend_from_slice(&frame?);
    }
    Ok(bytes.freeze())
}

#[async_trait::async_trait]
impl ObjectStore for MemoryStore {
    async fn put_object(
        &self,
        request: PutRequest,
        body: BodyStream,
    ) -> Result<PutOutcome, ObjectError> {
        class_number(request.class.as_deref())?;
        let gathered = gather(
            body,
            request.len,
            request.checksum.as_ref(),
            request.content_md5,
        );
        let (bytes, md5, checksum) = gathered.await?;
        self.publish(request, bytes, md5, checksum).await
    }

    async fn open_object(
        &self,
        bucket: &BucketAt,
        key: &str,
    ) -> Result<Box<dyn OpenedObject>, ObjectError> {
        let read = self.catalog.read_object(bucket.incarnation, key).await;
        self.pass().await;
        let read = read.map_err(error)?;
        let bytes = match read.inline {
            Some(bytes) => bytes,
            None => self
                .whole
                .lock()
                .get(&read.row.uid)
                .cloned()
                .unwrap_or_default(),
        };
        Ok(Box::new(Opened {
            catalog: self.catalog.clone(),
            row: read.row,
            detail: read.detail,
            bytes,
            breaks_after: *self.breaks_after.lock(),
        }))
    }

    async fn copy_object(
        &self,
        source: Box<dyn OpenedObject>,
        request: PutRequest,
    ) -> Result<PutOutcome, ObjectError> {
        let size = source.row().size;
        let bytes = read_all(source, 0..size).await?;
        let (bytes, md5, checksum) =
            gather(stream_of(bytes), None, request.checksum.as_ref(), None).await?;
        self.publish(request, bytes, md5, checksum).await
    }

    async fn delete_object(
        &self,
        bucket: &BucketAt,
        key: &str,
        condition: DeleteCondition,
    ) -> Result<bool, ObjectError> {
        let deleted = self.catalog.delete_object(bucket, key, condition).await;
        Ok(deleted.map_err(error)?.is_some())
    }

    async fn delete_objects(
        &self,
        bucket: &BucketAt,
        keys: Vec<String>,
    ) -> Result<Vec<Result<(), ObjectError>>, ObjectError> {
        let deleted = self.catalog.delete_objects(bucket, &keys).await;
        let deleted = deleted.map_err(error)?.into_iter();
        Ok(deleted.map(|one| one.map(|_| ()).map_err(error)).collect())
    }

    async fn create_upload(&self, request: UploadRequest) -> Result<VersionUid, ObjectError> {
        let row = UploadRow {
            uid: self.uid(),
            initiated: now(),
            owner: request.owner,
            class: class_number(request.class.as_deref())?,
            detail: request.detail,
            checksum: request.checksum,
            group: None,
        };
        let bucket = request.bucket.clone();
        let made = self
            .catalog
            .create_upload(&bucket, &request.key, &row)
            .await;
        made.map_err(error)?;
        Ok(row.uid)
    }

    async fn put_part(
        &self,
        request: PartRequest,
        body: BodyStream,
    ) -> Result<PartOutcome, ObjectError> {
        let gathered = gather(
            body,
            request.len,
            request.checksum.as_ref(),
            request.content_md5,
        );
        let (bytes, md5, checksum) = gathered.await?;
        self.store_part(request, bytes, md5, checksum).await
    }

    async fn copy_part(
        &self,
        source: Box<dyn OpenedObject>,
        bytes: Range<u64>,
        request: PartRequest,
    ) -> Result<PartOutcome, ObjectError> {
        let bytes = read_all(source, bytes).await?;
        let md5 = Md5::digest(&bytes).into();
        self.store_part(request, bytes, md5, None).await
    }

    async fn complete_upload(
        &self,
        request: CompleteRequest,
    ) -> Result<CompleteOutcome, ObjectError> {
        let asked = shardgate_catalog::CompleteRequest {
            bucket: request.bucket.clone(),
            key: request.key.clone(),
            uid: request.upload,
            parts: request
                .parts
                .iter()
                .map(|part| CompletePart {
                    number: part.number,
                    md5: part.md5,
                })
                .collect(),
            condition: request.condition,
            now: now(),
        };
        let finish = |upload: &UploadRow, parts: &[UploadPartRow]| -> Result<_, CatalogError> {
            let mut md5 = Md5::new();
            parts.iter().for_each(|part| md5.update(part.md5));
            Ok(CompleteFinish {
                etag: ETag {
                    md5: md5.finalize().into(),
                    parts: parts.len() as u16,
                },
                // That of the last part: enough to have one.
                checksum: upload.checksum.and_then(|(_, kind)| {
                    let last = parts.last()?.checksum.clone()?;
                    Some(StoredChecksum { kind, ..last })
                }),
            })
        };
        let done = self.catalog.complete_upload(&asked, finish).await;
        let done = done.map_err(error)?;
        let mut whole = BytesMut::new();
        for part in &request.parts {
            if let Some(bytes) = self.parts.lock().get(&(request.upload, part.number)) {
                whole.extend_from_slice(bytes);
            }
        }
        self.whole.lock().insert(request.upload, whole.freeze());
        Ok(CompleteOutcome {
            etag: done.etag,
            checksum: done.checksum,
        })
    }

    async fn abort_upload(
        &self,
        bucket: &BucketAt,
        key: &str,
        upload: VersionUid,
    ) -> Result<(), ObjectError> {
        let ended = self.catalog.abort_upload(bucket, key, upload).await;
        ended.map_err(error)
    }

    fn check_room(&self) -> Result<(), ObjectError> {
        match self.full.is_short() {
            true => Err(ObjectError::NoSpace),
            false => Ok(()),
        }
    }

    fn class_name(&self, number: u16) -> String {
        CLASSES[usize::from(number)].to_owned()
    }
}

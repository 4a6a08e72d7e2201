//! Opening objects and reading ranges of them.
//!
//! Owns [`ObjectHandle`]: one version, with the open read that keeps its
//! shards from being purged. What a handle gives stays that of its version,
//! also when the object is overwritten or deleted meanwhile.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use shardgate_catalog::model::{Content, DetailRow, PartRow, VersionRow};
use shardgate_catalog::{BucketRef, CatalogError, ObjectRead};

use super::admission::UNIT;
use super::core::Core;
use super::error::ObjectError;
use super::open_reads::OpenRead;
use super::reading::{Reading, Segment};
use super::service::ObjectService;

/// Bytes of an object, in order. An error ends it: what came before is right,
/// what is missing must not be made up.
pub type ReadStream = Pin<Box<dyn Stream<Item = Result<Bytes, ObjectError>> + Send>>;

/// Part rows that are read from the catalog at once.
const PARTS_AT_ONCE: usize = 1000;
/// Inline bytes go out in one frame of at most this.
const _: () = assert!(super::settings::MOST_INLINE as u64 <= UNIT);

/// An object that is open. Cheap to clone.
#[derive(Clone)]
pub struct ObjectHandle {
    core: Arc<Core>,
    object: Arc<ObjectRead>,
    /// The blobs of a multipart object. Its part rows go with the version,
    /// so they are read when it is opened.
    parts: Arc<[Segment]>,
    open: Arc<OpenRead>,
}

/// How often an object is looked up again when it changes meanwhile.
const LOOKUPS: usize = 8;

impl ObjectService {
    /// Opens the newest version of a key.
    ///
    /// # Errors
    /// [`ObjectError::NoSuchKey`], or the catalog refuses.
    pub async fn open_object(
        &self,
        bucket: &BucketRef,
        key: &str,
    ) -> Result<ObjectHandle, ObjectError> {
        let core = &self.core;
        core.check_in_force()?;
        for _ in 0..LOOKUPS {
            // Registered before it is looked up: see `open_reads`.
            let open = core.open_reads.open(|| core.catalog.committed());
            let read = core.catalog.read_object(bucket.incarnation, key).await;
            let object = match read {
                Err(CatalogError::Conflict) => continue,
                read => read?,
            };
            let Some(parts) = segments(core, &object.row).await? else {
                // The version went while its parts were read.
                continue;
            };
            return Ok(ObjectHandle {
                core: Arc::clone(core),
                object: Arc::new(object),
                parts: parts.into(),
                open: Arc::new(open),
            });
        }
        Err(ObjectError::Unavailable {
            why: "the object keeps changing".into(),
        })
    }
}

/// The blobs of a version, in order. `None`: its parts are gone.
async fn segments(core: &Core, row: &VersionRow) -> Result<Option<Vec<Segment>>, ObjectError> {
    match &row.content {
        Content::Inline => Ok(Some(Vec::new())),
        Content::Blob(blob) => Ok(Some(vec![Segment {
            start: 0,
            blob: *blob,
        }])),
        Content::Parts(count) => {
            let mut found: Vec<Segment> = Vec::with_capacity(usize::from(*count));
            let mut from = 0;
            while from < row.size {
                let page = core.catalog.parts(row.uid, from, PARTS_AT_ONCE).await?;
                let Some(last) = page.last() else {
                    return Ok(None);
                };
                from = last.start + last.len;
                let of_page = page.iter().filter_map(|part| {
                    let start = part.start;
                    part.blob.map(|blob| Segment { start, blob })
                });
                found.extend(of_page);
            }
            Ok(Some(found))
        }
    }
}

impl ObjectHandle {
    /// Its version.
    pub fn row(&self) -> &VersionRow {
        &self.object.row
    }

    /// What is kept beside its bytes.
    pub fn detail(&self) -> DetailRow {
        self.object.detail.clone().unwrap_or_default()
    }

    /// A range of its bytes. Waits for memory and for the first bytes, so
    /// that an object that cannot be read is an error here and not a stream
    /// that breaks.
    ///
    /// # Errors
    /// [`ObjectError::InvalidRange`] beyond its end,
    /// [`ObjectError::SlowDown`], [`ObjectError::Unreadable`].
    pub async fn read(&self, range: Range<u64>) -> Result<ReadStream, ObjectError> {
        self.core.check_in_force()?;
        let size = self.row().size;
        if range.start > range.end || range.end > size {
            return Err(ObjectError::InvalidRange { size });
        }
        if range.is_empty() {
            return Ok(Box::pin(futures::stream::empty()));
        }
        if let Some(inline) = &self.object.inline {
            let bytes = inline.slice(range.start as usize..range.end as usize);
            self.core.metrics.bytes_out.add(bytes.len() as u64);
            return Ok(Box::pin(futures::stream::iter([Ok(bytes)])));
        }
        let touched = |segment: &Segment| {
            segment.start < range.end && segment.start + segment.blob.len > range.start
        };
        let segments: Vec<Segment> = self
            .parts
            .iter()
            .filter(|it| touched(it))
            .copied()
            .collect();
        let list = std::mem::size_of_val(&segments[..]) as u64;
        // A long list of parts is memory too.
        let permit = self.core.admit(UNIT.max(list)).await?;
        let open = Arc::clone(&self.open);
        let mut reading = Reading::new(&self.core, segments, range, permit, open);
        let first = reading.next().await?;
        let first = futures::stream::iter(first.map(Ok));
        Ok(Box::pin(first.chain(reading.into_stream())))
    }

    /// The part of a number, of a multipart object.
    ///
    /// # Errors
    /// [`ObjectError::NoSuchPart`]; [`ObjectError::Unavailable`] if the object
    /// was replaced meanwhile: asked again, the new one answers.
    pub async fn part(&self, number: u16) -> Result<PartRow, ObjectError> {
        let row = self.row();
        if !matches!(row.content, Content::Parts(_)) {
            return match number {
                1 => Ok(PartRow {
                    number,
                    start: 0,
                    blob: None,
                    len: row.size,
                    md5: row.etag.md5,
                    checksum: row.checksum.clone(),
                }),
                _ => Err(ObjectError::NoSuchPart),
            };
        }
        let catalog = &self.core.catalog;
        match catalog.part_by_number(row.uid, number).await {
            Err(CatalogError::InvalidPart { .. }) => {}
            part => return Ok(part?),
        }
        // Part rows go with their version: where there is none at all, the
        // object was replaced since it was opened.
        match catalog.parts(row.uid, 0, 1).await?.is_empty() {
            true => Err(ObjectError::Unavailable {
                why: "the object was replaced meanwhile".into(),
            }),
            false => Err(ObjectError::NoSuchPart),
        }
    }

    /// The parts of a multipart object from an offset on.
    ///
    /// # Errors
    /// The catalog refuses.
    pub async fn parts(&self, from: u64, limit: usize) -> Result<Vec<PartRow>, ObjectError> {
        Ok(self.core.catalog.parts(self.row().uid, from, limit).await?)
    }
}

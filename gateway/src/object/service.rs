//! The object path as the S3 layer calls it.
//!
//! Owns [`ObjectService`]: it is built once, from what `main` has built, and
//! cloned into every request. Its operations are in the files of their names
//! (`put`, `get`, `multipart`); this one has what is shared and what is thin.

use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::{BucketRef, Catalog, DeleteCondition};
use shardgate_wire::ids::IdSource;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::budget::MemoryBudget;
use super::buffers::BlockPool;
use super::calls::DiskCalls;
use super::catalog_room::CatalogRoom;
use super::commit::detached;
use super::core::Core;
use super::error::ObjectError;
use super::mend::GivingUp;
use super::metrics::ObjectMetrics;
use super::notes::NotesStanding;
use super::ports::Disks;
use super::reclaim::Reclaiming;
use super::repairs::RepairQueue;
use super::settings::{MOST_INLINE, ObjectSettings};
use crate::seam::Clock;

/// Bytes of the free blocks of one length that are kept for reuse.
const KEPT_BYTES: usize = 16 << 20;

/// What the object path is built from.
pub struct ObjectParts {
    /// The metadata.
    pub catalog: Catalog,
    /// The pool.
    pub disks: Arc<dyn Disks>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Whether the metadata have room for more.
    pub catalog_room: CatalogRoom,
    /// Whether anything may be reclaimed.
    pub reclaiming: Reclaiming,
    /// The figures.
    pub settings: ObjectSettings,
    /// Every task of the object path is one of its.
    pub tracker: TaskTracker,
    /// Ends the background tasks.
    pub stop: CancellationToken,
}

/// The object path. Cheap to clone.
#[derive(Clone)]
pub struct ObjectService {
    pub(super) core: Arc<Core>,
}

impl ObjectService {
    /// Builds it, and starts its background tasks.
    pub fn start(parts: ObjectParts) -> Self {
        let mut settings = parts.settings;
        settings.inline_max = settings.inline_max.min(MOST_INLINE);
        let wait = settings.memory_wait;
        // What decodings read is a small part beside what requests hold, and
        // at least four stripes of the widest scheme.
        let for_decoding = (settings.memory_bytes / 16).max(16 << 20);
        let for_requests = settings.memory_bytes.saturating_sub(for_decoding);
        let core = Arc::new(Core {
            calls: DiskCalls::new(Arc::clone(&parts.disks), settings.clone()),
            budget: MemoryBudget::new(for_requests.max(16 << 20), wait),
            decode_budget: MemoryBudget::new(for_decoding, wait),
            blocks: BlockPool::new(KEPT_BYTES),
            catalog: parts.catalog,
            catalog_room: parts.catalog_room,
            disks: parts.disks,
            clock: parts.clock,
            settings,
            tracker: parts.tracker,
            stop: parts.stop,
            ids: IdSource::new(),
            metrics: ObjectMetrics::default(),
            hedges: Default::default(),
            open_reads: Default::default(),
            wide_readers: Default::default(),
            in_flight: Default::default(),
            repairs: Default::default(),
            giving_up: Default::default(),
            notes: Default::default(),
            reclaiming: parts.reclaiming,
            codecs: Default::default(),
        });
        let notes = super::notes::run(Arc::clone(&core));
        core.tracker.spawn(notes);
        let purge = super::purge::run(Arc::clone(&core));
        core.tracker.spawn(purge);
        let forget = super::forget::run(Arc::clone(&core));
        core.tracker.spawn(forget);
        Self { core }
    }

    /// The metadata: for buckets and lists.
    pub fn catalog(&self) -> &Catalog {
        &self.core.catalog
    }

    /// Damaged shards that go now.
    pub fn giving_up(&self) -> &GivingUp {
        &self.core.giving_up
    }

    /// What was counted.
    pub fn metrics(&self) -> &ObjectMetrics {
        &self.core.metrics
    }

    /// Shards that reads found missing or corrupt.
    pub fn repairs(&self) -> &RepairQueue {
        &self.core.repairs
    }

    /// Up to where disks know what became of their blobs.
    pub fn notes(&self) -> NotesStanding {
        self.core.notes.standing(self.core.catalog.committed())
    }

    /// Bytes of the memory budget that are held, and all of it.
    pub fn memory(&self) -> (u64, u64) {
        let room = self.core.room();
        let unit = super::admission::UNIT;
        ((room.total - room.free) * unit, room.total * unit)
    }

    /// Reads that are open.
    pub fn open_reads(&self) -> u64 {
        self.core.open_reads.count()
    }

    /// Whether another gateway has taken over, so that this one answers
    /// nothing any more.
    pub fn is_fenced(&self) -> bool {
        self.core.calls.is_fenced()
    }

    /// Refuses what writes while the catalog is short of room.
    ///
    /// # Errors
    /// [`ObjectError::NoSpace`].
    pub fn check_room(&self) -> Result<(), ObjectError> {
        self.core.check_room()
    }

    /// The bucket of a name.
    ///
    /// # Errors
    /// [`ObjectError::NoSuchBucket`].
    pub async fn bucket(&self, name: &str) -> Result<BucketRef, ObjectError> {
        let row = self.core.catalog.bucket(name).await?;
        Ok(BucketRef {
            name: name.to_owned(),
            incarnation: row.incarnation,
        })
    }

    /// Deletes an object; whether there was one.
    ///
    /// # Errors
    /// The condition does not hold, or the catalog refuses.
    pub async fn delete_object(
        &self,
        bucket: &BucketRef,
        key: &str,
        condition: DeleteCondition,
    ) -> Result<bool, ObjectError> {
        self.core.check_in_force()?;
        let (catalog, bucket) = (self.core.catalog.clone(), bucket.clone());
        let key = key.to_owned();
        detached(&self.core, async move {
            let deleted = catalog.delete_object(&bucket, &key, condition).await?;
            Ok(deleted.is_some())
        })
        .await
    }

    /// Deletes several keys; one failure fails no other.
    ///
    /// # Errors
    /// None of them was looked at.
    pub async fn delete_objects(
        &self,
        bucket: &BucketRef,
        keys: Vec<String>,
    ) -> Result<Vec<Result<bool, ObjectError>>, ObjectError> {
        self.core.check_in_force()?;
        let (catalog, bucket) = (self.core.catalog.clone(), bucket.clone());
        detached(&self.core, async move {
            let deleted = catalog.delete_objects(&bucket, &keys).await?;
            let deleted = deleted.into_iter();
            Ok(deleted
                .map(|one| one.map(|row| row.is_some()).map_err(ObjectError::from))
                .collect())
        })
        .await
    }

    /// Waits until every task has ended, at most for `deadline`; whether
    /// they did. The token of [`ObjectParts::stop`] must be cancelled.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.core.tracker.close();
        let ended = tokio::time::timeout(deadline, self.core.tracker.wait());
        ended.await.is_ok()
    }
}

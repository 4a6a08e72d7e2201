//! A pool of disks in memory, and a service over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use shardgate_catalog::engine::{Engine, MemoryEngine};
use shardgate_catalog::model::{BlobRef, Content, DetailRow, GroupRow, GroupState};
use shardgate_catalog::{BucketRef, Catalog, WriteCondition};
use shardgate_erasure::Scheme;
use shardgate_wire::memory_store::{MemoryDisk, MemoryStore};
use shardgate_wire::{
    CallContext, ClusterId, DiskId, DiskIdentity, Epoch, Generation, GroupId, InstanceId,
    LineageId, Medium, Purpose, ShardKey, ShardStore,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::object::ports::{CallReport, ClassChoice, Disks, GroupView};
use crate::object::*;
use crate::placement::quorum::group_holds;
use crate::seam::SetClock;

const CLUSTER: ClusterId = ClusterId(7);

struct TestDisk {
    store: Arc<MemoryStore>,
    server: u16,
    living: bool,
    gone: bool,
    lost: bool,
}

/// Disks in memory behind the port of the object path.
pub struct TestPool {
    catalog: Catalog,
    scheme: Scheme,
    disks: Mutex<BTreeMap<DiskId, TestDisk>>,
    groups: Mutex<BTreeMap<GroupId, Arc<GroupView>>>,
    pub late: AtomicU64,
}

impl TestPool {
    fn new(catalog: Catalog, scheme: Scheme, servers: &[u16]) -> Self {
        let disk = |(index, server): (usize, &u16)| {
            let disk = DiskId(1 + index as u128);
            let identity = DiskIdentity {
                cluster: CLUSTER,
                disk,
                medium: Medium::Flash,
            };
            let store = Arc::new(MemoryStore::new(identity));
            let disk_of_test = TestDisk {
                store,
                server: *server,
                living: true,
                gone: false,
                lost: false,
            };
            (disk, disk_of_test)
        };
        Self {
            catalog,
            scheme,
            disks: Mutex::new(servers.iter().enumerate().map(disk).collect()),
            groups: Mutex::default(),
            late: AtomicU64::new(0),
        }
    }

    /// A switchboard of one disk, counted from 0.
    pub fn disk(&self, index: usize) -> MemoryDisk {
        self.disks.lock()[&DiskId(1 + index as u128)].store.handle()
    }

    /// A disk as it is called.
    pub fn store_of(&self, index: usize) -> Arc<MemoryStore> {
        self.disks.lock()[&DiskId(1 + index as u128)].store.clone()
    }

    pub fn disk_count(&self) -> usize {
        self.disks.lock().len()
    }

    /// Whether the pool gives a disk out at all.
    pub fn set_gone(&self, index: usize, gone: bool) {
        let mut disks = self.disks.lock();
        let disk = disks.get_mut(&DiskId(1 + index as u128)).unwrap();
        (disk.gone, disk.living) = (gone, !gone);
    }

    /// The operator declares a disk lost for good.
    pub fn declare_lost(&self, index: usize) {
        self.set_gone(index, true);
        let mut disks = self.disks.lock();
        disks.get_mut(&DiskId(1 + index as u128)).unwrap().lost = true;
    }

    /// All disks take writes again.
    pub fn revive(&self) {
        self.disks
            .lock()
            .values_mut()
            .for_each(|disk| disk.living = true);
    }

    /// Finished shards on all disks.
    pub fn shards(&self) -> usize {
        (0..self.disk_count())
            .map(|index| self.disk(index).finished().len())
            .sum()
    }

    pub fn open_handles(&self) -> usize {
        (0..self.disk_count())
            .map(|index| self.disk(index).open_handles())
            .sum()
    }

    async fn new_group(&self, scheme: Scheme, slots: Vec<DiskId>, narrow: bool) -> Arc<GroupView> {
        let row = GroupRow {
            id: self.catalog.next_group_id().await.unwrap(),
            generation: Generation(1),
            data: scheme.data(),
            parity: scheme.parity(),
            medium: Medium::Flash,
            slots,
            state: GroupState::Open,
            narrow,
            slot_bytes: 0,
        };
        self.catalog.put_group(&row, None).await.unwrap();
        let (servers, stores): (Vec<u16>, Vec<_>) = {
            let disks = self.disks.lock();
            let of = row.slots.iter().map(|disk| &disks[disk]);
            of.map(|disk| (disk.server, disk.store.clone())).unzip()
        };
        let view = Arc::new(GroupView {
            row,
            scheme,
            servers,
        });
        for (slot, store) in stores.iter().enumerate() {
            let assignment = view.assignment(slot as u8);
            // A disk that fails is told later, as `StaleGeneration` asks.
            let _told = store.assign(&self.context(), &[assignment]).await;
        }
        self.groups.lock().insert(view.row.id, view.clone());
        view
    }
}

#[async_trait]
impl Disks for TestPool {
    fn context(&self) -> CallContext {
        CallContext {
            cluster: CLUSTER,
            epoch: Epoch {
                number: 1,
                instance: InstanceId(1),
            },
            lineage: LineageId(1),
            committed: self.catalog.committed(),
            purpose: Purpose::Client,
        }
    }

    fn disks(&self) -> Vec<DiskId> {
        let disks = self.disks.lock();
        let here = disks.iter().filter(|(_, disk)| !disk.lost);
        here.map(|(id, _)| *id).collect()
    }

    fn store(&self, disk: DiskId) -> Option<Arc<dyn ShardStore>> {
        let disks = self.disks.lock();
        let disk = disks.get(&disk).filter(|disk| !disk.gone)?;
        Some(disk.store.clone())
    }

    fn is_living(&self, disk: DiskId) -> bool {
        self.disks.lock().get(&disk).is_some_and(|disk| disk.living)
    }

    fn is_lost_for_good(&self, disk: DiskId) -> bool {
        self.disks.lock().get(&disk).is_none_or(|disk| disk.lost)
    }

    fn report(&self, disk: DiskId, report: CallReport<'_>) {
        let fault = match report {
            CallReport::Done { .. } => false,
            CallReport::Failed(error) => error.is_disk_fault(),
            CallReport::Late => {
                self.late.fetch_add(1, Ordering::Relaxed);
                true
            }
        };
        if fault && let Some(disk) = self.disks.lock().get_mut(&disk) {
            disk.living = false;
        }
    }

    fn hedge_delay(&self, _: Medium, _: usize) -> Duration {
        Duration::from_millis(20)
    }

    fn shard_target(&self, _: Medium) -> u64 {
        128 * 1024
    }

    async fn class(&self, name: Option<&str>) -> Result<ClassChoice, ObjectError> {
        match name.unwrap_or("STANDARD") {
            "STANDARD" => self.class_by_number(0).await,
            "COPIES" => self.class_by_number(1).await,
            _ => Err(ObjectError::UnknownClass),
        }
    }

    async fn class_by_number(&self, number: u16) -> Result<ClassChoice, ObjectError> {
        Ok(ClassChoice {
            number,
            name: ["STANDARD", "COPIES"][usize::from(number)].into(),
            scheme: [self.scheme, "1+2".parse().unwrap()][usize::from(number)],
            medium: None,
        })
    }

    async fn group_for_write(
        &self,
        class: &ClassChoice,
        _: Option<u64>,
        prefer: Option<GroupId>,
    ) -> Result<Arc<GroupView>, ObjectError> {
        let groups: Vec<_> = self.groups.lock().values().cloned().collect();
        let holds = |group: &&Arc<GroupView>| {
            let living: Vec<_> = group
                .row
                .slots
                .iter()
                .map(|disk| self.is_living(*disk))
                .collect();
            group.scheme.parity() == class.scheme.parity()
                && group.scheme.is_copies() == class.scheme.is_copies()
                && group_holds(group.scheme, &group.servers, &living)
        };
        let preferred = groups
            .iter()
            .filter(holds)
            .find(|group| Some(group.row.id) == prefer);
        if let Some(group) = preferred.or_else(|| groups.iter().find(holds)) {
            return Ok(group.clone());
        }
        let disks: Vec<_> = self.disks.lock().keys().copied().collect();
        let living: Vec<_> = disks
            .into_iter()
            .filter(|disk| self.is_living(*disk))
            .collect();
        let parity = class.scheme.parity();
        let data = living
            .len()
            .saturating_sub(parity.into())
            .min(class.scheme.data().into());
        if data == 0 {
            return Err(ObjectError::Unavailable {
                why: "too few disks".into(),
            });
        }
        let scheme = Scheme::new(data as u8, parity).unwrap();
        let slots = living[..data + usize::from(parity)].to_vec();
        Ok(self.new_group(scheme, slots, scheme != class.scheme).await)
    }

    async fn group_for_keeping(&self, len: u64) -> Result<Arc<GroupView>, ObjectError> {
        let class = self.class(None).await?;
        let group = self.group_for_write(&class, Some(len), None).await?;
        match group.row.slots.iter().all(|disk| self.is_living(*disk)) {
            true => Ok(group),
            false => Err(ObjectError::Unavailable {
                why: "no group all of whose disks live".into(),
            }),
        }
    }

    async fn group(&self, id: GroupId) -> Result<Arc<GroupView>, ObjectError> {
        let group = self.groups.lock().get(&id).cloned();
        group.ok_or(ObjectError::Damaged {
            why: "no such group".into(),
        })
    }

    async fn stale_generation(&self, id: GroupId) -> Result<(), ObjectError> {
        let group = self.group(id).await?;
        for (slot, disk) in group.row.slots.iter().enumerate() {
            let store = self.disks.lock()[disk].store.clone();
            let told = [group.assignment(slot as u8)];
            let _again_later = store.assign(&self.context(), &told).await;
        }
        Ok(())
    }
}

/// A service over a pool, with one bucket.
pub struct Fixture {
    pub service: ObjectService,
    pub pool: Arc<TestPool>,
    pub bucket: BucketRef,
    pub stop: CancellationToken,
    pub clock: SetClock,
    pub catalog_room: CatalogRoom,
    pub reclaiming: Reclaiming,
    /// Under the catalog.
    pub engine: Arc<dyn Engine>,
}

pub async fn fixture(scheme: &str, servers: &[u16]) -> Fixture {
    fixture_with(scheme, servers, ObjectSettings::default()).await
}

pub async fn fixture_with(scheme: &str, servers: &[u16], settings: ObjectSettings) -> Fixture {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    let catalog = Catalog::new(engine.clone());
    let scheme = scheme.parse().unwrap();
    let pool = Arc::new(TestPool::new(catalog.clone(), scheme, servers));
    let row = catalog.create_bucket("b", "owner", 1).await.unwrap();
    let stop = CancellationToken::new();
    let catalog_room = CatalogRoom::default();
    let reclaiming = Reclaiming::default();
    let clock = SetClock::at(1_700_000_000_000);
    let service = ObjectService::start(ObjectParts {
        catalog,
        catalog_room: catalog_room.clone(),
        disks: pool.clone(),
        clock: Arc::new(clock.clone()),
        reclaiming: reclaiming.clone(),
        settings,
        tracker: TaskTracker::new(),
        stop: stop.clone(),
    });
    Fixture {
        service,
        pool,
        bucket: BucketRef {
            name: "b".into(),
            incarnation: row.incarnation,
        },
        stop,
        clock,
        catalog_room,
        reclaiming,
        engine,
    }
}

/// Bytes that are the same for a seed and have no short period.
pub fn bytes(len: usize, seed: u64) -> Bytes {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut made = Vec::with_capacity(len + 8);
    while made.len() < len {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        made.extend_from_slice(&x.to_le_bytes());
    }
    made.truncate(len);
    made.into()
}

/// A body in frames of this many bytes.
pub fn body(bytes: &Bytes, frame: usize) -> BodyStream {
    let frames: Vec<_> = bytes
        .chunks(frame)
        .map(|chunk| Ok(bytes.slice_ref(chunk)))
        .collect();
    Box::pin(futures::stream::iter(frames))
}

impl Fixture {
    pub fn request(&self, key: &str, len: Option<usize>) -> PutRequest {
        PutRequest {
            bucket: self.bucket.clone(),
            key: key.into(),
            class: None,
            detail: DetailRow::default(),
            len: len.map(|len| len as u64),
            checksum: None,
            content_md5: None,
            condition: WriteCondition::None,
        }
    }

    pub async fn put(&self, key: &str, bytes: &Bytes) -> Result<PutOutcome, ObjectError> {
        let request = self.request(key, Some(bytes.len()));
        self.service.put_object(request, body(bytes, 100_000)).await
    }

    pub async fn get(&self, key: &str) -> Result<Bytes, ObjectError> {
        let handle = self.service.open_object(&self.bucket, key).await?;
        let size = handle.row().size;
        read(&handle, 0..size).await
    }

    pub async fn blob(&self, key: &str) -> BlobRef {
        let handle = self.service.open_object(&self.bucket, key).await.unwrap();
        match &handle.row().content {
            Content::Blob(blob) => *blob,
            other => panic!("{other:?}"),
        }
    }

    /// Where a shard lies: the index of its disk, and its key there.
    pub async fn shard(&self, blob: &BlobRef, shard: u8) -> (usize, ShardKey) {
        let group = self.pool.group(blob.group).await.unwrap();
        let disk = group.disk(blob, shard);
        ((disk.0 - 1) as usize, group.key(blob, shard))
    }

    pub async fn drop_shard(&self, blob: &BlobRef, shard: u8) {
        let (disk, key) = self.shard(blob, shard).await;
        assert!(self.pool.disk(disk).drop_shard(key));
    }

    pub async fn flip(&self, blob: &BlobRef, shard: u8, offset: u64) {
        let (disk, key) = self.shard(blob, shard).await;
        assert!(self.pool.disk(disk).flip(key, offset));
    }

    /// Ends the service and starts another over the same catalog and disks.
    pub async fn restart(&mut self) {
        self.stop.cancel();
        assert!(self.service.drain(Duration::from_secs(60)).await);
        self.stop = CancellationToken::new();
        self.service = ObjectService::start(ObjectParts {
            catalog: Catalog::new(self.engine.clone()),
            catalog_room: self.catalog_room.clone(),
            disks: self.pool.clone(),
            clock: Arc::new(self.clock.clone()),
            reclaiming: self.reclaiming.clone(),
            settings: ObjectSettings::default(),
            tracker: TaskTracker::new(),
            stop: self.stop.clone(),
        });
    }

    /// Waits until the purge had its turn.
    pub async fn purge(&self) {
        tokio::time::sleep(Duration::from_secs(130)).await;
    }
}

/// A range of an object, whole.
pub async fn read(
    handle: &ObjectHandle,
    range: std::ops::Range<u64>,
) -> Result<Bytes, ObjectError> {
    let mut stream = handle.read(range).await?;
    // Frames are dropped as they come: kept ones would close the window.
    let mut all = Vec::new();
    while let Some(frame) = stream.next().await {
        all.extend_from_slice(&frame?);
    }
    Ok(all.into())
}

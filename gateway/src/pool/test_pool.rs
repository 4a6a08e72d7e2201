//! Pools in memory, for the tests of this module.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_catalog::Catalog;
use shardgate_catalog::model::LineageRow;
use shardgate_journal::disks::Lost;
use shardgate_journal::memory::{MemoryDisk as JournalMemory, MemoryLink};
use shardgate_wire::journal::{
    DiskRoots, JournalDisk, JournalFile, JournalStanding, ListedJournalFile,
};
use shardgate_wire::memory_store::{MemoryDisk, MemoryStore};
use shardgate_wire::{
    CallContext, ClusterId, DiskId, DiskIdentity, Epoch, InstanceId, LineageId, Medium, ShardStore,
    StoreError,
};

use super::place::{Found, FoundState, MakeFolders, Place, Survey};
use super::start::{Start, StartError, start_at};
use super::state::{Pool, PoolSettings};
use super::ways::{DiskWays, JournalWays};
use crate::object::ports::{ClassChoice, Disks};
use crate::seam::SetClock;

/// What a folder of the model holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Blank,
    Missing,
    Disk(MemoryStore),
}

/// A server whose folders are in memory.
#[derive(Debug)]
pub(crate) struct MemoryPlace {
    pub(crate) server: String,
    /// The journals of its disks.
    journals: Mutex<BTreeMap<DiskId, JournalMemory>>,
    /// Happens once, before the first epoch is raised.
    before_raise: Arc<tokio::sync::Mutex<Option<Act>>>,
    folders: Mutex<BTreeMap<String, Content>>,
    /// Whether it answers.
    silent: Mutex<bool>,
    /// A folder whose disk does not come to be open.
    hanging: Mutex<Option<String>>,
}

impl MemoryPlace {
    pub(crate) fn new(server: &str, folders: usize) -> Arc<Self> {
        let names = (1..=folders).map(|n| (format!("{server}/disk-{n}"), Content::Blank));
        Arc::new(Self {
            server: server.to_owned(),
            journals: Mutex::default(),
            before_raise: Arc::default(),
            folders: Mutex::new(names.collect()),
            silent: Mutex::new(false),
            hanging: Mutex::new(None),
        })
    }

    pub(crate) fn set(&self, folder: &str, content: Content) -> Content {
        let old = self.folders.lock().insert(folder.to_owned(), content);
        old.unwrap_or(Content::Missing)
    }

    pub(crate) fn remove(&self, folder: &str) {
        self.folders.lock().remove(folder);
    }

    pub(crate) fn before_raise(&self, act: impl Future<Output = ()> + Send + 'static) {
        let mut slot = self.before_raise.try_lock().expect("nobody starts now");
        *slot = Some(Act(Box::pin(act)));
    }

    pub(crate) fn silence(&self, silent: bool) {
        *self.silent.lock() = silent;
    }

    pub(crate) fn hang(&self, folder: Option<&str>) {
        *self.hanging.lock() = folder.map(str::to_owned);
    }

    pub(crate) fn store(&self, folder: &str) -> MemoryStore {
        match self.folders.lock().get(folder) {
            Some(Content::Disk(store)) => store.clone(),
            other => panic!("{folder} holds {other:?}"),
        }
    }

    pub(crate) fn disks(&self) -> Vec<(DiskId, MemoryDisk)> {
        let folders = self.folders.lock();
        let stores = folders.values().filter_map(|content| match content {
            Content::Disk(store) => Some((store.disk(), store.handle())),
            _ => None,
        });
        stores.collect()
    }
}

#[async_trait]
impl Place for MemoryPlace {
    fn label(&self) -> String {
        format!("server {}", self.server)
    }

    async fn survey(&self, _within: Duration) -> Result<Survey, String> {
        if *self.silent.lock() {
            return Err("no answer".into());
        }
        let folders = self.folders.lock().clone();
        let mut found = Vec::new();
        for (folder, content) in &folders {
            let state = match content {
                Content::Blank => FoundState::Blank,
                Content::Missing => FoundState::Missing,
                Content::Disk(store) => FoundState::Disk(identity_of(store).await),
            };
            found.push(Found {
                folder: folder.clone(),
                medium: None,
                state,
            });
        }
        Ok(Survey {
            agent: None,
            name: String::new(),
            server: self.server.clone(),
            site: "here".into(),
            folders: found,
            makes: MakeFolders::Never,
        })
    }

    async fn format(
        &self,
        ctx: &CallContext,
        folder: &str,
        disk: DiskId,
        medium: Option<Medium>,
    ) -> Result<DiskIdentity, String> {
        let identity = DiskIdentity {
            cluster: ctx.cluster,
            disk,
            medium: medium.unwrap_or(Medium::Flash),
        };
        let store = MemoryStore::new(identity);
        match self.set(folder, Content::Disk(store)) {
            Content::Blank => Ok(identity),
            other => panic!("formatted {folder}, which holds {other:?}"),
        }
    }

    async fn open(&self, folder: &str, identity: &DiskIdentity) -> Result<DiskWays, String> {
        while self.hanging.lock().as_deref() == Some(folder) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let store = self.store(folder);
        assert_eq!(store.disk(), identity.disk, "opened as another disk");
        let mut journals = self.journals.lock();
        let journal = journals.entry(identity.disk);
        let journal = journal.or_insert_with(|| JournalMemory::new(identity.disk, 1, 1 << 20));
        Ok(DiskWays {
            shards: Arc::new(store),
            journal: Arc::new(Interposed {
                link: journal.link(),
                before_raise: Arc::clone(&self.before_raise),
            }),
        })
    }

    async fn close(&self, _within: Duration) {}
}

/// Something that another gateway does.
struct Act(Pin<Box<dyn Future<Output = ()> + Send>>);

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Act")
    }
}

/// Passes everything on; before the first raise somebody else acts.
struct Interposed {
    link: MemoryLink,
    before_raise: Arc<tokio::sync::Mutex<Option<Act>>>,
}

#[async_trait]
impl JournalDisk for Interposed {
    fn disk(&self) -> DiskId {
        self.link.disk()
    }
    async fn standing(&self) -> Result<JournalStanding, StoreError> {
        self.link.standing().await
    }
    async fn raise(&self, ctx: &CallContext) -> Result<(), StoreError> {
        // All wait until it is done.
        let mut slot = self.before_raise.lock().await;
        if let Some(Act(act)) = slot.take() {
            act.await;
        }
        drop(slot);
        self.link.raise(ctx).await
    }
    async fn begin(&self, ctx: &CallContext, bytes: Bytes) -> Result<JournalFile, StoreError> {
        self.link.begin(ctx, bytes).await
    }
    async fn append(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        self.link.append(ctx, file, offset, bytes).await
    }
    async fn files(&self, ctx: &CallContext) -> Result<Vec<ListedJournalFile>, StoreError> {
        self.link.files(ctx).await
    }
    async fn read(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        self.link.read(ctx, file, offset, len).await
    }
    async fn remove(&self, ctx: &CallContext, files: &[JournalFile]) -> Result<(), StoreError> {
        self.link.remove(ctx, files).await
    }
    async fn roots(&self) -> Result<DiskRoots, StoreError> {
        self.link.roots().await
    }
    async fn set_map(&self, ctx: &CallContext, number: u64, map: Bytes) -> Result<(), StoreError> {
        self.link.set_map(ctx, number, map).await
    }
    async fn set_checkpoint(&self, ctx: &CallContext, root: Bytes) -> Result<(), StoreError> {
        self.link.set_checkpoint(ctx, root).await
    }
}

async fn identity_of(store: &MemoryStore) -> DiskIdentity {
    if let Ok(health) = store.health().await {
        return health.identity;
    }
    // A disk that fails its calls still has its identity in the folder.
    let handle = store.handle();
    handle.fail(None);
    let health = store.health().await;
    handle.fail(Some(out()));
    health.expect("a store in memory is well").identity
}

/// What a disk that is gone answers.
pub(crate) fn out() -> StoreError {
    StoreError::Unreachable {
        why: "pulled".into(),
    }
}

/// A pool over servers of so many disks each, with its catalog.
pub(crate) struct TestPool {
    pub(crate) catalog: Catalog,
    pub(crate) clock: SetClock,
    pub(crate) places: Vec<Arc<MemoryPlace>>,
    pub(crate) pool: Pool,
}

impl TestPool {
    pub(crate) async fn new(servers: &[usize]) -> Self {
        Self::over(Catalog::in_memory(), servers).await
    }

    /// With a catalog of the test's own.
    pub(crate) async fn over(catalog: Catalog, servers: &[usize]) -> Self {
        let places: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(n, disks)| MemoryPlace::new(&format!("s{n}"), *disks))
            .collect();
        let clock = SetClock::at(1_000_000);
        let pool = start_over(&catalog, &clock, &places)
            .await
            .expect("a new cluster starts");
        Self {
            catalog,
            clock,
            places,
            pool,
        }
    }

    /// Starts a gateway anew over the same catalog and disks.
    pub(crate) async fn restart(&self) -> Result<Pool, StartError> {
        start_over(&self.catalog, &self.clock, &self.places).await
    }

    pub(crate) fn disk(&self, id: DiskId) -> MemoryDisk {
        let all = self.places.iter().flat_map(|place| place.disks());
        let found = all.into_iter().find(|(disk, _)| *disk == id);
        found.expect("the disk is at a place").1
    }

    /// All disks, by server and folder.
    pub(crate) fn disks(&self) -> Vec<DiskId> {
        let all = self.places.iter().flat_map(|place| place.disks());
        all.map(|(disk, _)| disk).collect()
    }

    pub(crate) async fn pull(&self, disks: &[DiskId]) {
        for disk in disks {
            self.disk(*disk).fail(Some(out()));
        }
        self.pool.probe_all().await;
    }

    pub(crate) async fn put_back(&self, disks: &[DiskId]) {
        for disk in disks {
            self.disk(*disk).fail(None);
        }
        self.clock.set(self.pool.now_ms() + 120_000);
        self.pool.probe_all().await;
    }

    pub(crate) async fn class(&self, name: &str) -> ClassChoice {
        Disks::class(&self.pool, Some(name))
            .await
            .expect("the class is configured")
    }

    pub(crate) async fn standard(&self) -> ClassChoice {
        self.class(super::DEFAULT_CLASS).await
    }
}

async fn start_over(
    catalog: &Catalog,
    clock: &SetClock,
    places: &[Arc<MemoryPlace>],
) -> Result<Pool, StartError> {
    let row = catalog.cluster().await.expect("the catalog is in memory");
    let (cluster, lineage) = match &row {
        Some(row) => (row.cluster, row.lineage),
        None => (ClusterId::random(), LineageId::random()),
    };
    let history = catalog.lineage().await.expect("the catalog is in memory");
    start_at(Start {
        cluster,
        history: history.unwrap_or_else(|| LineageRow::first(lineage)),
        // As the journal's half of a start would have raised it.
        epoch: Epoch {
            number: row.map_or(0, |row| row.epoch.number) + 1,
            instance: InstanceId::random(),
        },
        opened: BTreeMap::new(),
        ways: JournalWays::default(),
        lost: Lost::default(),
        catalog: catalog.clone(),
        places: places
            .iter()
            .map(|place| Arc::clone(place) as Arc<dyn Place>)
            .collect(),
        settings: PoolSettings::default(),
        clock: Arc::new(clock.clone()),
        declare_lost: Vec::new(),
    })
    .await
}

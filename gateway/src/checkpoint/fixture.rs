//! A real database over disks in memory, for the tests of checkpoints.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use shardgate_catalog::Catalog;
use shardgate_catalog::checkpoint::{FileContent, Manifest};
use shardgate_catalog::engine::log::{ChainPosition, CommitLog, Record};
use shardgate_catalog::engine::{Engine, EngineError, RocksEngine, RocksOptions, RocksStopped};
use shardgate_wire::memory_store::Call;
use shardgate_wire::{BlobId, StoreError};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::local::LocalDatabase;
use super::take::{Taken, Taker};
use crate::background::paced;
use crate::object::{CatalogRoom, ObjectParts, ObjectService, ObjectSettings};
use crate::pool::test_pool::TestPool;

/// Commits are kept by nobody.
struct NoLog;

impl CommitLog for NoLog {
    fn append(&mut self, _: &[Record]) -> Result<(), EngineError> {
        Ok(())
    }

    fn leaves_durability_to_engine(&self) -> bool {
        false
    }
}

pub(super) struct Test {
    pub(super) pool: TestPool,
    pub(super) taker: Taker,
    pub(super) dir: TempDir,
}

fn options() -> RocksOptions {
    RocksOptions {
        block_cache_bytes: 8 << 20,
        memtable_bytes: 4 << 20,
        create: true,
    }
}

impl Test {
    pub(super) async fn new(servers: &[usize]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = RocksEngine::open_with_log(&dir.path().join("rocksdb"), &options(), NoLog);
        let engine = Arc::new(engine.unwrap());
        let catalog = Catalog::new(Arc::clone(&engine) as Arc<dyn Engine>);
        let pool = TestPool::over(catalog.clone(), servers).await;
        let objects = ObjectService::start(ObjectParts {
            catalog: catalog.clone(),
            catalog_room: CatalogRoom::default(),
            disks: Arc::new(pool.pool.clone()),
            clock: Arc::new(pool.clock.clone()),
            reclaiming: Default::default(),
            settings: ObjectSettings::default(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let taker = Taker::new(
            LocalDatabase::new(engine, dir.path().to_owned()),
            catalog,
            objects,
            pool.pool.clone(),
            Arc::new(pool.clock.clone()),
            paced(u64::MAX),
        );
        Self { pool, taker, dir }
    }

    /// Commits something.
    pub(super) async fn change(&self, name: &str) {
        for number in 0..20 {
            let bucket = format!("{name}-{number}");
            self.pool
                .catalog
                .create_bucket(&bucket, "owner", 1)
                .await
                .unwrap();
        }
    }

    /// What a restore makes of a checkpoint, by what disks have.
    pub(super) async fn built(&self, taken: &Taken, name: &str) -> ChainPosition {
        let files = self.taker.pool_files();
        let root = &taken.root;
        let bytes = files
            .read_whole(&root.manifest, root.manifest_hash)
            .await
            .unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), taken.manifest);
        let at = self.dir.path().join(name);
        fs::create_dir(&at).unwrap();
        for file in &taken.manifest.files {
            let bytes = match &file.content {
                FileContent::Inline(bytes) => bytes.clone(),
                FileContent::Stored(stored) => files.read_whole(stored, file.hash).await.unwrap(),
            };
            fs::write(at.join(&file.name), bytes).unwrap();
        }
        let opened = RocksStopped::open_restored(&at, &options(), root.position);
        opened.unwrap().applied()
    }

    pub(super) fn fail_all(&self, call: Call) {
        let error = StoreError::Io {
            what: "write".into(),
            why: "in a test".into(),
        };
        for disk in self.pool.disks() {
            self.pool
                .disk(disk)
                .fail_next(call, usize::MAX, error.clone());
        }
    }
}

/// The blobs of a checkpoint.
pub(super) fn blobs(taken: &Taken) -> HashSet<BlobId> {
    let files = taken.manifest.stored().map(|(_, stored)| stored);
    let all = files.chain([&taken.root.manifest]);
    all.map(|stored| stored.blob.blob).collect()
}

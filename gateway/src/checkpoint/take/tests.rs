//! Checkpoints of a real database into disks in memory.

use std::fs;
use std::time::Duration;

use shardgate_catalog::engine::log::{CommitLog, Record};
use shardgate_catalog::engine::{Engine, RocksOptions, RocksStopped};
use shardgate_catalog::model::CondemnReason;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{DiskId, ShardKey, StoreError};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::background::paced;
use crate::object::{CatalogRoom, ObjectParts, ObjectSettings};
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

struct Test {
    pool: TestPool,
    taker: Taker,
    dir: TempDir,
}

fn options() -> RocksOptions {
    RocksOptions {
        block_cache_bytes: 8 << 20,
        memtable_bytes: 4 << 20,
        create: true,
    }
}

impl Test {
    async fn new(servers: &[usize]) -> Self {
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
            engine,
            catalog,
            objects,
            pool.pool.clone(),
            Arc::new(pool.clock.clone()),
            dir.path().to_owned(),
            paced(u64::MAX),
        );
        Self { pool, taker, dir }
    }

    /// Commits something.
    async fn change(&self, name: &str) {
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
    async fn built(&self, taken: &Taken, name: &str) -> ChainPosition {
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

    fn fail_all(&self, call: Call) {
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

/// The disks of all blobs of a checkpoint.
fn disks(taken: &Taken) -> Vec<DiskId> {
    let files = taken.manifest.stored().map(|(_, stored)| stored);
    let all = files.chain([&taken.root.manifest]);
    all.flat_map(|stored| stored.disks.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_read_back_and_what_has_not_changed_is_not_sent_again() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take().await.unwrap();
    assert!(one.sent_bytes > 0 && one.manifest.stored().count() > 0);
    assert_eq!(test.built(&one, "one").await, one.root.position);
    assert!(
        !test.dir.path().join(FOLDER).exists(),
        "links are left behind"
    );
    test.change("second").await;
    let two = test.taker.take().await.unwrap();
    assert!(two.root.position.number > one.root.position.number);
    assert_eq!(test.built(&two, "two").await, two.root.position);
    // Tables of the first are in the second as they are.
    let mut again = 0;
    for (file, stored) in two.manifest.stored() {
        let before = one.manifest.stored().find(|(of, _)| of.hash == file.hash);
        if let Some((_, before)) = before {
            assert_eq!(stored, before, "{} was sent again", file.name);
            again += 1;
        }
    }
    assert!(again > 0, "no table stayed");
    let files = test.pool.catalog.checkpoint_files().await.unwrap();
    assert!(files.iter().all(|file| file.stored), "{files:?}");
    // Commits that it says it made are all that came but the test's own.
    let committed = test.pool.catalog.committed().0;
    assert_eq!(committed - two.root.position.number.0, two.commits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_registered_before_anything_of_it_is_sent() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    // Groups are assigned, but no shard ever comes to lie on a disk.
    for call in [Call::Put, Call::Open] {
        test.fail_all(call);
    }
    let refused = test.taker.take().await.unwrap_err();
    assert!(matches!(refused, TakeError::Store(_)), "{refused}");
    let catalog = &test.pool.catalog;
    assert!(catalog.checkpoint_files().await.unwrap().is_empty());
    let condemned = catalog.condemned(None, 100).await.unwrap();
    assert!(!condemned.is_empty(), "nothing was registered");
    for row in condemned {
        assert_eq!(row.row.reason, CondemnReason::CheckpointDropped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_slot_on_a_disk_that_is_away_is_sent_elsewhere() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take().await.unwrap();
    let away = disks(&one)[0];
    test.pool.pull(&[away]).await;
    let worst = one
        .manifest
        .stored()
        .map(|(_, of)| test.taker.health(&of.blob))
        .max();
    assert_eq!(
        worst.max(Some(test.taker.health(&one.root.manifest.blob))),
        Some(Health::Away)
    );
    let two = test.taker.take().await.unwrap();
    assert!(
        !disks(&two).contains(&away),
        "a narrow group would have done"
    );
    for (_, stored) in two.manifest.stored() {
        assert_eq!(test.taker.health(&stored.blob), Health::Whole);
    }
    assert_eq!(test.built(&two, "two").await, two.root.position);
    // Both kept: the older one's blobs are known still.
    let known = test.pool.catalog.checkpoint_files().await.unwrap();
    let is_known = |blob: &BlobRef| known.iter().any(|file| file.blob == *blob);
    assert!(
        one.manifest
            .stored()
            .all(|(_, stored)| is_known(&stored.blob))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_lacks_a_shard_is_not_used_again() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let one = test.taker.take().await.unwrap();
    let (file, stored) = one.manifest.stored().next().unwrap();
    let key = ShardKey {
        group: stored.blob.group,
        blob: stored.blob.blob,
        index: 0,
    };
    assert!(test.pool.disk(stored.disks[0]).drop_shard(key));
    let two = test.taker.take().await.unwrap();
    let again = two.manifest.stored().find(|(of, _)| of.hash == file.hash);
    let (_, again) = again.expect("the table has not changed");
    assert_ne!(again.blob.blob, stored.blob.blob);
    assert_eq!(test.built(&two, "two").await, two.root.position);
}

/// A disk is slow, and nothing is given up for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_disk_delays_it_and_no_more() {
    let test = Test::new(&[6]).await;
    test.change("first").await;
    let late = test.pool.disks()[2];
    test.pool.disk(late).delay(Duration::from_millis(400));
    let one = test.taker.take().await.unwrap();
    test.pool.disk(late).delay(Duration::ZERO);
    for (_, stored) in one.manifest.stored() {
        let (there, of) = test.taker.pool_files().count(stored).await;
        assert_eq!(there, of);
    }
}

#[test]
fn tables_are_hashed_once_and_others_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    write("000001.sst", b"table");
    write("CURRENT", b"first");
    write("LOG", b"no part of it");
    let (files, hashes) = hash_all(dir.path(), &Hashes::new()).unwrap();
    let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["000001.sst", "CURRENT"]);
    assert_eq!(files[0].hash, ContentHash::of(b"table"));
    assert_eq!(hashes.len(), 1);
    // Same length, same inode: a table is believed, anything else is not.
    write("000001.sst", b"TABLE");
    write("CURRENT", b"later");
    let (files, hashes) = hash_all(dir.path(), &hashes).unwrap();
    assert_eq!(files[0].hash, ContentHash::of(b"table"));
    assert_eq!(files[1].hash, ContentHash::of(b"later"));
    // Another file under the name of an old one.
    let path = dir.path().join("000001.sst");
    write("new", b"other");
    fs::rename(dir.path().join("new"), &path).unwrap();
    let (files, hashes) = hash_all(dir.path(), &hashes).unwrap();
    assert_eq!(files[0].hash, ContentHash::of(b"other"));
    fs::remove_file(&path).unwrap();
    let (_, hashes) = hash_all(dir.path(), &hashes).unwrap();
    assert!(hashes.is_empty(), "what is gone is forgotten");
}

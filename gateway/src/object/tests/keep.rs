//! Blobs of the gateway's own: stored only when every shard is, and read back
//! without a group record.

use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::checkpoint::{ContentHash, StoredFile};
use shardgate_catalog::model::CondemnReason;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{Purpose, ShardKey, ShardStore, StoreError};

use super::fixture::*;
use crate::checkpoint::fetch::{FetchError, PoolFiles};
use crate::object::keep::{Keeping, Kept};
use crate::object::rebuild::Turns;
use crate::object::*;

const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];

/// Every turn at once.
struct AtOnce;

#[async_trait::async_trait]
impl Turns for AtOnce {
    async fn next(&self, _: u64, _: &(dyn Fn() -> bool + Send + Sync)) {}
}

async fn keep(store: &Fixture, content: &bytes::Bytes) -> (Keeping, Result<Kept, ObjectError>) {
    let place = store
        .service
        .place_kept(content.len() as u64)
        .await
        .unwrap();
    let catalog = store.service.catalog();
    let hash = ContentHash::of(content);
    catalog
        .register_checkpoint_file(hash, &place.blob)
        .await
        .unwrap();
    let kept = store
        .service
        .keep(&place, "a/file", body(content, 100_000), &AtOnce);
    let kept = kept.await;
    (place, kept)
}

/// Small and large: what is put, and what is opened and appended to.
#[tokio::test(start_paused = true)]
async fn full_disks_still_take_what_is_kept() {
    let store = fixture("4+2", &SIX).await;
    for disk in 0..6 {
        store
            .pool
            .disk(disk)
            .keep_from(Purpose::Background, u64::MAX);
    }
    let refused = store.put("key", &bytes(200_000, 1)).await;
    assert!(matches!(refused, Err(ObjectError::NoSpace)));
    for len in [5_000, 3_500_001] {
        let content = bytes(len, 7);
        let (_, kept) = keep(&store, &content).await;
        let file = stored(&kept.unwrap());
        read(&files(&store, &[]), &file, &content).await.unwrap();
    }
}

fn stored(kept: &Kept) -> StoredFile {
    StoredFile {
        blob: kept.blob,
        disks: kept.disks.clone(),
    }
}

fn files(store: &Fixture, without: &[usize]) -> PoolFiles {
    let all = (0..store.pool.disk_count()).filter(|index| !without.contains(index));
    let stores = all.map(|index| store.pool.store_of(index) as Arc<dyn ShardStore>);
    PoolFiles::new(stores.collect(), Duration::from_secs(5))
}

async fn read(files: &PoolFiles, file: &StoredFile, content: &[u8]) -> Result<(), FetchError> {
    let hash = ContentHash::of(content);
    let read = files.read_whole(file, hash).await?;
    assert!(read == content, "other bytes than were kept");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_comes_back_from_the_disks_alone() {
    // One byte, copies, a shortened code, a stripe, several and a rest.
    for len in [1, 5_000, 400_000, 1 << 20, 3_500_001] {
        let store = fixture("4+2", &SIX).await;
        let content = bytes(len, len as u64);
        let (_, kept) = keep(&store, &content).await;
        let file = stored(&kept.unwrap());
        let layout = file.blob.layout;
        let shards = usize::from(layout.data + layout.parity);
        assert_eq!(file.disks.len(), shards);
        assert_eq!(files(&store, &[]).count(&file).await, (shards, shards));
        read(&files(&store, &[]), &file, &content).await.unwrap();
        // Wherever they lie: what the root says of the disks is a hint.
        let nowhere = StoredFile {
            disks: Vec::new(),
            ..file.clone()
        };
        read(&files(&store, &[]), &nowhere, &content).await.unwrap();
        // Any two disks may be gone, and no three of those that have it.
        for one in 0..6 {
            for other in 0..one {
                read(&files(&store, &[one, other]), &file, &content)
                    .await
                    .unwrap();
            }
        }
        let three: Vec<usize> = file.disks[..3]
            .iter()
            .map(|disk| disk.0 as usize - 1)
            .collect();
        let gone = read(&files(&store, &three), &file, &content).await;
        assert!(matches!(gone, Err(FetchError::TooFew { .. })), "{gone:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn damaged_blocks_are_read_elsewhere_and_never_handed_on() {
    let store = fixture("4+2", &SIX).await;
    let content = bytes(3 << 20, 7);
    let (_, kept) = keep(&store, &content).await;
    let file = stored(&kept.unwrap());
    // A block of each of five shards, in three stripes: two in the same one.
    for (shard, offset) in [(0, 10), (1, 20), (2, 300_000), (3, 310_000), (4, 600_000)] {
        store.flip(&file.blob, shard, offset).await;
    }
    read(&files(&store, &[]), &file, &content).await.unwrap();
    // A third in one stripe.
    store.flip(&file.blob, 5, 30).await;
    let bad = read(&files(&store, &[]), &file, &content).await;
    assert!(
        matches!(bad, Err(FetchError::TooFew { found: 3, .. })),
        "{bad:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_file_than_was_asked_for_is_refused() {
    let store = fixture("4+2", &SIX).await;
    let content = bytes(100_000, 1);
    let (_, kept) = keep(&store, &content).await;
    let file = stored(&kept.unwrap());
    let hash = ContentHash::of(b"another");
    let other = files(&store, &[]).read_whole(&file, hash).await;
    assert!(matches!(other, Err(FetchError::Other { .. })), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_late_is_waited_for() {
    for len in [5_000, 3 << 20] {
        let store = fixture("4+2", &SIX).await;
        store.put("warm", &bytes(400_000, 1)).await.unwrap();
        // A client's write goes on without it.
        store.pool.disk(2).delay(Duration::from_secs(1));
        let content = bytes(len, 2);
        let (_, kept) = keep(&store, &content).await;
        let file = stored(&kept.unwrap());
        let (there, of) = files(&store, &[]).count(&file).await;
        assert_eq!(there, of, "all shards of {len} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quorum_is_not_enough_and_nothing_else_decides_about_the_blob() {
    for (len, call) in [
        (400_000, Call::Put),
        (3 << 20, Call::Append),
        (3 << 20, Call::Finish),
    ] {
        let store = fixture("4+2", &SIX).await;
        store.put("warm", &bytes(400_000, 1)).await.unwrap();
        let failed = StoreError::Io {
            what: "write".into(),
            why: "in a test".into(),
        };
        let content = bytes(len, 3);
        store.pool.disk(4).fail_next(call, 1, failed);
        let (place, kept) = keep(&store, &content).await;
        let refused = kept.unwrap_err();
        assert!(
            matches!(refused, ObjectError::QuorumLost { .. }),
            "{call:?} {refused:?}"
        );
        tokio::time::sleep(Duration::from_secs(10)).await;
        // It is registered still, and not condemned behind its owner's back.
        let catalog = store.service.catalog();
        let known = catalog.checkpoint_files().await.unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!((known[0].blob, known[0].stored), (place.blob, false));
        assert!(catalog.condemned(None, 10).await.unwrap().is_empty());
        assert_eq!(store.pool.open_handles(), 0, "{call:?}");
        // What became durable goes once its owner condemns it.
        catalog.condemn_checkpoint_files(&known).await.unwrap();
        let condemned = catalog.condemned(None, 10).await.unwrap();
        assert_eq!(condemned[0].row.reason, CondemnReason::CheckpointDropped);
        store.pool.revive();
        store.purge().await;
        let of_blob = |key: &ShardKey| key.blob == place.blob.blob;
        let left = (0..6).flat_map(|index| store.pool.disk(index).finished());
        assert_eq!(left.filter(of_blob).count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn other_lengths_than_were_said_are_refused() {
    let store = fixture("4+2", &SIX).await;
    for given in [99_999, 100_001] {
        let place = store.service.place_kept(100_000).await.unwrap();
        let hash = ContentHash::of(b"");
        let catalog = store.service.catalog();
        catalog
            .register_checkpoint_file(hash, &place.blob)
            .await
            .unwrap();
        let content = bytes(given, 1);
        let kept = store
            .service
            .keep(&place, "a", body(&content, 10_000), &AtOnce)
            .await;
        assert!(
            matches!(kept, Err(ObjectError::IncompleteBody { .. })),
            "{kept:?}"
        );
    }
}

/// Behind the disks' own checks: nobody but the reader finds it.
#[tokio::test(start_paused = true)]
async fn blocks_that_are_damaged_on_their_way_are_read_elsewhere() {
    let store = fixture("4+2", &SIX).await;
    let content = bytes(3 << 20, 9);
    let (_, kept) = keep(&store, &content).await;
    let file = stored(&kept.unwrap());
    for disk in [0, 3] {
        store.pool.disk(disk).garble(Some(1000));
    }
    read(&files(&store, &[]), &file, &content).await.unwrap();
    store.pool.disk(4).garble(Some(1000));
    let bad = read(&files(&store, &[]), &file, &content).await;
    assert!(matches!(bad, Err(FetchError::TooFew { .. })), "{bad:?}");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_waited_for_once_and_not_for_each_file() {
    let store = fixture("4+2", &SIX).await;
    let mut kept_files = Vec::new();
    for seed in 0..5 {
        let content = bytes(3 << 20, seed);
        let (_, kept) = keep(&store, &content).await;
        kept_files.push((stored(&kept.unwrap()), content));
    }
    let hangs = |hours: u64| {
        for disk in [1, 4] {
            store
                .pool
                .disk(disk)
                .delay(Duration::from_secs(3600 * hours));
        }
    };
    hangs(1);
    let files_of = files(&store, &[]);
    let began = tokio::time::Instant::now();
    for (file, content) in &kept_files {
        read(&files_of, file, content).await.unwrap();
    }
    // Where it was said to lie, and then everywhere, of the first one.
    let took = began.elapsed();
    assert!(took <= Duration::from_secs(10), "{took:?}");
    // A third is gone: one of those that were late is needed, and asked.
    hangs(0);
    store.pool.disk(0).fail(Some(StoreError::Io {
        what: "read".into(),
        why: "in a test".into(),
    }));
    let (file, content) = &kept_files[0];
    read(&files_of, file, content).await.unwrap();
}

/// Asks once whether it should give way, and says what it was told.
struct Asked(std::sync::Mutex<Vec<bool>>);

#[async_trait::async_trait]
impl Turns for Asked {
    async fn next(&self, _: u64, busy: &(dyn Fn() -> bool + Send + Sync)) {
        self.0.lock().unwrap().push(busy());
    }
}

/// Reads alone must not keep the journal at its bound.
#[tokio::test(start_paused = true)]
async fn what_is_kept_gives_way_to_clients_until_the_journal_is_long() {
    let store = fixture("4+2", &SIX).await;
    let content = bytes(400_000, 5);
    // Clients' calls that do not end keep the disks busy.
    store.put("read", &bytes(400_000, 6)).await.unwrap();
    for disk in 0..6 {
        store.pool.disk(disk).delay(Duration::from_secs(1));
    }
    let turns = async |long: bool, full: bool| {
        store.catalog_room.set_journal_long(long);
        store.catalog_room.set_journal_full(full);
        let service = &store.service;
        let place = service.place_kept(content.len() as u64).await.unwrap();
        let hash = ContentHash::of(&content);
        let catalog = service.catalog();
        catalog
            .register_checkpoint_file(hash, &place.blob)
            .await
            .unwrap();
        let asked = Asked(std::sync::Mutex::default());
        let reads = futures::future::join_all((0..8).map(|_| store.get("read")));
        let kept = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            service
                .keep(&place, "a", body(&content, 400_000), &asked)
                .await
        };
        let (_, kept) = tokio::join!(reads, kept);
        kept.unwrap();
        asked.0.into_inner().unwrap()
    };
    assert_eq!(turns(false, false).await, [true]);
    assert_eq!(turns(true, false).await, [false]);
    // Past seven eighths not even the speed limit counts.
    assert!(turns(true, true).await.is_empty());
}

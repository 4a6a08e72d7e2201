//! Slots are filled from peers, only as the catalog asks, and closed only when whole.

use bytes::Bytes;
use shardgate_catalog::DeleteCondition;
use shardgate_catalog::model::BlobRef;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{Purpose, ShardKey, ShardStore, StoreError};
use tokio::sync::{Notify, Semaphore};

use super::super::pace::Pace;
use super::*;
use crate::object::tests::fixture::{Fixture, bytes, fixture};

const KIB: usize = 1024;
const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];
/// Inline, copies, one stripe, several.
const SIZES: [usize; 5] = [500, 10 * KIB, 200 * KIB, 900 * KIB, 3 << 20];
const AWAY: usize = 3;

fn job(store: &Fixture, rate: u64) -> Arc<Fill> {
    job_of(store, Box::new(Pace::new(rate)))
}

fn job_of(store: &Fixture, turns: Box<dyn Turns>) -> Arc<Fill> {
    Arc::new(Fill {
        catalog: store.service.catalog().clone(),
        disks: store.pool.clone(),
        objects: store.service.clone(),
        turns,
        progress: Arc::default(),
        stop: store.stop.clone(),
    })
}

/// Turns that nobody gets before it is opened.
#[derive(Clone)]
struct Gate {
    waiting: Arc<Notify>,
    open: Arc<Semaphore>,
}

#[async_trait::async_trait]
impl Turns for Gate {
    async fn next(&self, _: u64, _: &(dyn Fn() -> bool + Send + Sync)) {
        self.waiting.notify_one();
        // An error says that it is open.
        let _open = self.open.acquire().await;
    }
}

fn away(store: &Fixture, away: bool) {
    let dead = StoreError::Unreachable { why: "test".into() };
    store.pool.disk(AWAY).fail(away.then_some(dead));
    if !away {
        store.pool.revive();
    }
}

/// A pool whose fourth disk was away while one object of each size came.
async fn owing() -> (Fixture, Vec<(String, Bytes)>) {
    let store = fixture("4+2", &SIX).await;
    store.put("before", &bytes(2000, 1)).await.unwrap();
    let mut objects = Vec::new();
    for (number, size) in SIZES.iter().cycle().take(20).enumerate() {
        away(&store, true);
        let (key, content) = (format!("key-{number}"), bytes(*size, number as u64));
        store.put(&key, &content).await.unwrap();
        // It is asked again for every one of them.
        store.pool.revive();
        objects.push((key, content));
    }
    assert_eq!(owed(&store).await, 1);
    (store, objects)
}

async fn owed(store: &Fixture) -> usize {
    store.service.catalog().owed().await.unwrap().len()
}

/// The blobs of these objects with the key of their shard on the disk that
/// was away, of those that have one there.
async fn on_disk(store: &Fixture, objects: &[(String, Bytes)]) -> Vec<(BlobRef, ShardKey)> {
    let mut found = Vec::new();
    for (key, content) in objects {
        if content.len() <= KIB {
            continue;
        }
        let blob = store.blob(key).await;
        for shard in 0..blob.layout.data + blob.layout.parity {
            let (disk, key) = store.shard(&blob, shard).await;
            found.extend((disk == AWAY).then_some((blob, key)));
        }
    }
    found
}

/// Large ones too: they are opened and appended to.
#[tokio::test(start_paused = true)]
async fn a_slot_is_filled_with_space_that_clients_may_not_take() {
    let (store, objects) = owing().await;
    let lacking = on_disk(&store, &objects).await;
    away(&store, false);
    let disk = store.pool.disk(AWAY);
    disk.keep_from(Purpose::Client, u64::MAX);
    let room = store.pool.store_of(AWAY).health().await.unwrap().room;
    assert_eq!(room.client_bytes, 0);
    assert!(room.background_bytes > 1 << 40, "{room:?}");
    job(&store, u64::MAX).pass().await.unwrap();
    assert_eq!(owed(&store).await, 0);
    assert!(lacking.iter().all(|(_, key)| disk.finished().contains(key)));
}

#[tokio::test(start_paused = true)]
async fn what_a_disk_missed_is_made_anew_and_counts() {
    let (store, objects) = owing().await;
    let lacking = on_disk(&store, &objects).await;
    assert!(lacking.len() >= 8, "{}", lacking.len());
    let disk = store.pool.disk(AWAY);
    assert!(
        lacking
            .iter()
            .all(|(_, key)| !disk.finished().contains(key))
    );
    away(&store, false);
    let job = job(&store, u64::MAX);
    job.pass().await.unwrap();
    assert_eq!(owed(&store).await, 0);
    let counts = job.progress.counts();
    assert_eq!(counts[0], ("shards_made", lacking.len() as u64));
    assert_eq!((counts[2].1, counts[3].1), (0, 1));
    for (blob, key) in lacking {
        assert!(disk.finished().contains(&key));
        let peer = (key.index + 1) % (blob.layout.data + blob.layout.parity);
        let (other, peer) = store.shard(&blob, peer).await;
        let own = store.pool.store_of(AWAY).stat(key).await.unwrap();
        let peer = store.pool.store_of(other).stat(peer).await.unwrap();
        assert_eq!(own.header.object, peer.header.object);
        assert_eq!(own.end, peer.end);
        assert_eq!(own.header.blob_len, Some(blob.len));
    }
    // Any two of the others may go now.
    for gone in [[0, 1], [2, 5], [1, 4]] {
        gone.iter()
            .for_each(|disk| store.pool.set_gone(*disk, true));
        for (key, content) in &objects {
            assert!(store.get(key).await.unwrap() == content, "{key}");
        }
        gone.iter()
            .for_each(|disk| store.pool.set_gone(*disk, false));
    }
    assert_eq!(store.service.memory().0, 0);
    job.pass().await.unwrap();
    assert_eq!(job.progress.counts(), counts, "nothing is left to do");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_live_is_left_alone() {
    let (store, _) = owing().await;
    store.pool.set_gone(AWAY, true);
    let rows = store.service.catalog().owed().await.unwrap();
    job(&store, u64::MAX).pass().await.unwrap();
    // Not even marked: a mark is a commit, and this would be one each pass.
    assert_eq!(store.service.catalog().owed().await.unwrap(), rows);
    assert_eq!(rows.len(), 1);
    assert_eq!(store.pool.disk(AWAY).calls(Call::List), 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_keeps_the_slot_owed() {
    let (store, objects) = owing().await;
    away(&store, false);
    let lacking = on_disk(&store, &objects).await;
    let (blob, key) = *lacking.iter().find(|it| it.0.layout.data == 4).unwrap();
    let others = (0..6).filter(|shard| *shard != key.index);
    for shard in others.take(2) {
        store.drop_shard(&blob, shard).await;
    }
    let job = job(&store, u64::MAX);
    job.pass().await.unwrap();
    assert_eq!(owed(&store).await, 1);
    let counts = job.progress.counts();
    assert_eq!((counts[0].1, counts[2].1), (lacking.len() as u64 - 1, 1));
    assert!(!store.pool.disk(AWAY).finished().contains(&key));
}

#[tokio::test(start_paused = true)]
async fn no_corrupt_block_gets_into_a_new_shard() {
    let (store, objects) = owing().await;
    away(&store, false);
    let lacking = on_disk(&store, &objects).await;
    for (blob, key) in &lacking {
        let flipped = (key.index + 1) % (blob.layout.data + blob.layout.parity);
        store.flip(blob, flipped, 70).await;
    }
    job(&store, u64::MAX).pass().await.unwrap();
    assert_eq!(owed(&store).await, 0);
    for (key, content) in &objects {
        assert!(store.get(key).await.unwrap() == content, "{key}");
    }
    for (blob, key) in &lacking {
        let store = store.pool.store_of(AWAY);
        let end = store.stat(*key).await.unwrap().end.unwrap();
        let len = end.shard_len.min(64 * KIB as u64) as u32;
        let read = store.read(*key, 0, len).await.unwrap();
        let damage = shardgate_wire::checksum::first_bad_block(&read.bytes, &read.crcs);
        assert_eq!(damage, None, "{blob:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_without_the_slot_makes_the_comparison_void() {
    let (store, _) = owing().await;
    away(&store, false);
    // The job stands before its first write, so that the failure is the
    // client's.
    let gate = Gate {
        waiting: Arc::default(),
        open: Arc::new(Semaphore::new(0)),
    };
    let job = job_of(&store, Box::new(gate.clone()));
    let filling = tokio::spawn({
        let job = Arc::clone(&job);
        async move { job.pass().await }
    });
    gate.waiting.notified().await;
    assert!(job.progress.now().is_some_and(|now| now.contains("slot")));
    let error = StoreError::Unreachable { why: "test".into() };
    store.pool.disk(AWAY).fail_next(Call::Put, 1, error);
    // Long enough to lie on every disk of the group.
    let meanwhile = [("meanwhile".to_owned(), bytes(400 * KIB, 7))];
    store.put("meanwhile", &meanwhile[0].1).await.unwrap();
    let lacking = on_disk(&store, &meanwhile).await;
    let has = || {
        let finished = store.pool.disk(AWAY).finished();
        lacking.iter().all(|(_, key)| finished.contains(key))
    };
    assert!(!has(), "the client's write lacks the slot");
    store.pool.revive();
    gate.open.close();
    filling.await.unwrap().unwrap();
    assert_eq!(owed(&store).await, 1, "it lacks what came meanwhile");
    job.pass().await.unwrap();
    assert_eq!(owed(&store).await, 0);
    assert!(has());
}

/// A deletion's purge waits for the shard that is being made, and takes it.
#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_what_is_deleted_meanwhile() {
    let (store, objects) = owing().await;
    away(&store, false);
    // So slow that the purge had many turns before one long shard is made.
    let job = job(&store, 20_000);
    let filling = tokio::spawn({
        let job = Arc::clone(&job);
        async move { job.pass().await }
    });
    let disk = store.pool.disk(AWAY);
    while disk.open_handles() == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (key, _) in &objects {
        let deleted = store
            .service
            .delete_object(&store.bucket, key, DeleteCondition::None)
            .await;
        assert!(deleted.unwrap(), "{key}");
    }
    filling.await.unwrap().unwrap();
    // What it was made of stayed until it was made.
    assert_eq!(job.progress.counts()[2], ("shards_failed", 0));
    store.purge().await;
    let before = store.blob("before").await;
    let left = disk.finished();
    assert!(left.iter().all(|key| key.blob == before.blob), "{left:?}");
    assert_eq!(disk.open_handles(), 0);
}

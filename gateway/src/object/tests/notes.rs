//! Notes: every disk of a blob's slots is told, whatever disks and gateways
//! do meanwhile, and deleted blobs are known before their shards go.

use std::time::Duration;

use shardgate_catalog::NewLineage;
use shardgate_catalog::model::{ClusterRow, HoldReason, NotePayload};
use shardgate_wire::memory_store::Call;
use shardgate_wire::note::NO_BLOB;
use shardgate_wire::{
    BlobId, BlobNote, ClusterId, Epoch, LineageId, NoteState, ShardStore, StoreError,
};

use super::fixture::*;
use crate::object::*;

const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];

fn dead() -> StoreError {
    StoreError::Unreachable { why: "test".into() }
}

/// What a disk keeps of blobs.
async fn kept(store: &Fixture, disk: usize) -> Vec<BlobNote> {
    let all = store.pool.store_of(disk).notes(None).await.unwrap().notes;
    all.into_iter()
        .filter(|note| note.blob != NO_BLOB)
        .collect()
}

fn payload(note: &BlobNote) -> Option<NotePayload> {
    match &note.state {
        NoteState::Published(payload) => Some(NotePayload::decode(payload).unwrap()),
        NoteState::Deleted => None,
    }
}

/// The commit up to which a disk is said to know everything.
async fn mark(store: &Fixture, disk: usize) -> Option<u64> {
    let all = store.pool.store_of(disk).notes(None).await.unwrap().notes;
    let mark = all
        .iter()
        .find(|note| payload(note) == Some(NotePayload::Mark));
    mark.map(|note| note.order.commit.0)
}

async fn deleted(store: &Fixture, disk: usize) -> Vec<BlobId> {
    let all = kept(store, disk).await.into_iter();
    let gone = all.filter(|note| note.state == NoteState::Deleted);
    gone.map(|note| note.blob).collect()
}

async fn delete(store: &Fixture, key: &str) {
    let none = DeleteCondition::None;
    let gone = store.service.delete_object(&store.bucket, key, none).await;
    assert!(gone.unwrap());
}

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn the_disks_of_a_blobs_slots_are_told_what_it_is_and_no_others() {
    let store = fixture("4+2", &SIX).await;
    // One of all six, and one of three.
    store.put("wide", &bytes(4 << 20, 1)).await.unwrap();
    store.put("narrow", &bytes(2000, 2)).await.unwrap();
    store.put("inline", &bytes(20, 3)).await.unwrap();
    seconds(3).await;
    let narrow = store.blob("narrow").await;
    let mut of_narrow = Vec::new();
    for shard in 0..3 {
        of_narrow.push(store.shard(&narrow, shard).await.0);
    }
    for disk in 0..6 {
        let mut keys = Vec::new();
        for note in kept(&store, disk).await {
            let Some(NotePayload::Version { key, row, .. }) = payload(&note) else {
                panic!("{note:?}");
            };
            assert_eq!(
                row,
                store
                    .service
                    .catalog()
                    .object(store.bucket.incarnation, &key)
                    .await
                    .unwrap()
            );
            keys.push(key);
        }
        keys.sort();
        let expected: &[&str] = match of_narrow.contains(&disk) {
            true => &["narrow", "wide"],
            false => &["wide"],
        };
        assert_eq!(keys, expected, "disk {disk}");
    }
    let standing = store.service.notes();
    assert_eq!(standing.told.len(), 6);
    assert!(
        standing
            .told
            .values()
            .all(|told| *told == standing.committed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_away_delays_itself_alone_and_is_told_when_it_is_back() {
    let mut store = fixture("4+2", &SIX).await;
    store.put("one", &bytes(4 << 20, 1)).await.unwrap();
    store
        .pool
        .disk(2)
        .fail_next(Call::PutNotes, usize::MAX, dead());
    store.pool.revive();
    seconds(20).await;
    assert_eq!(kept(&store, 2).await, []);
    for disk in [0, 1, 3, 4, 5] {
        assert_eq!(kept(&store, disk).await.len(), 1, "disk {disk}");
    }
    // What is still to be told is in the catalog.
    let waiting = store
        .service
        .catalog()
        .waiting_notes(None, 10)
        .await
        .unwrap();
    assert!(waiting.rows.iter().any(|row| row.blob != NO_BLOB));
    store.restart().await;
    let calls = store.pool.disk(0).calls(Call::PutNotes);
    store.pool.disk(2).fail_next(Call::PutNotes, 0, dead());
    seconds(20).await;
    assert_eq!(kept(&store, 2).await.len(), 1);
    let again = store.pool.disk(0).calls(Call::PutNotes) - calls;
    assert!(again <= 3, "marks only, {again} calls");
    let waiting = store
        .service
        .catalog()
        .waiting_notes(None, 10)
        .await
        .unwrap();
    assert_eq!(waiting.rows, []);
}

#[tokio::test(start_paused = true)]
async fn what_was_overwritten_before_it_was_told_of_is_not_told_of() {
    let store = fixture("4+2", &SIX).await;
    for version in 0..5 {
        store.put("key", &bytes(4 << 20, version)).await.unwrap();
    }
    let blob = store.blob("key").await.blob;
    seconds(3).await;
    for disk in 0..6 {
        let notes = kept(&store, disk).await;
        let live: Vec<_> = notes
            .iter()
            .filter(|note| payload(note).is_some())
            .map(|note| note.blob)
            .collect();
        assert_eq!(live, [blob]);
        assert_eq!(notes.len(), 5, "and four that were deleted");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_knows_of_a_deletion_before_its_shards_go_and_until_all_are_gone() {
    let store = fixture("4+2", &SIX).await;
    store.put("key", &bytes(4 << 20, 1)).await.unwrap();
    let blob = store.blob("key").await.blob;
    seconds(3).await;
    store
        .pool
        .disk(2)
        .fail_next(Call::PutNotes, usize::MAX, dead());
    delete(&store, "key").await;
    store.purge().await;
    assert_eq!(store.pool.shards(), 1, "of the disk that was not told");
    for disk in [0, 1, 3, 4, 5] {
        assert_eq!(deleted(&store, disk).await, [blob], "disk {disk}");
    }
    store.pool.disk(2).fail_next(Call::PutNotes, 0, dead());
    store.pool.disk(4).fail_next(Call::ForgetNotes, 1, dead());
    seconds(65).await;
    assert_eq!(store.pool.shards(), 0);
    assert_eq!(deleted(&store, 2).await, [blob], "a late write may come");
    let queue = store.service.catalog().condemned(None, 10).await.unwrap();
    assert_eq!(queue.len(), 1);
    seconds(200).await;
    for disk in 0..6 {
        assert_eq!(deleted(&store, disk).await, [], "disk {disk}");
    }
    let queue = store.service.catalog().condemned(None, 10).await.unwrap();
    assert_eq!(queue, []);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_lost_for_good_is_waited_for_no_more() {
    let store = fixture("4+2", &SIX).await;
    store
        .pool
        .disk(2)
        .fail_next(Call::PutNotes, usize::MAX, dead());
    store.put("old", &bytes(4 << 20, 1)).await.unwrap();
    store.put("key", &bytes(4 << 20, 1)).await.unwrap();
    seconds(3).await;
    delete(&store, "old").await;
    store.purge().await;
    let catalog = store.service.catalog();
    assert_eq!(catalog.condemned(None, 10).await.unwrap().len(), 1);
    let waiting = catalog.waiting_notes(None, 10).await.unwrap().rows;
    assert_eq!(waiting.len(), 3, "two blobs and their group");
    store.pool.declare_lost(2);
    seconds(200).await;
    assert_eq!(catalog.condemned(None, 10).await.unwrap(), []);
    assert_eq!(catalog.waiting_notes(None, 10).await.unwrap().rows, []);
    assert_eq!(deleted(&store, 1).await, []);
    assert_eq!(store.service.notes().told.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn where_no_more_notes_fit_a_blob_goes_from_all_disks_or_stays() {
    let store = fixture("4+2", &SIX).await;
    store.put("one", &bytes(4 << 20, 1)).await.unwrap();
    store.put("two", &bytes(4 << 20, 2)).await.unwrap();
    seconds(3).await;
    let full = store.pool.disk(1);
    full.fail_next(Call::PutNotes, usize::MAX, StoreError::NoSpace);
    delete(&store, "one").await;
    seconds(3).await;
    assert_eq!(store.service.notes().full.len(), 1);
    store.purge().await;
    assert_eq!(store.pool.shards(), 6, "all of the first went");
    store.pool.set_gone(4, true);
    delete(&store, "two").await;
    store.purge().await;
    assert_eq!(
        store.pool.shards(),
        6,
        "one disk would keep a shard, and none a note there"
    );
    store.pool.set_gone(4, false);
    store.purge().await;
    assert_eq!(store.pool.shards(), 0);
    full.fail_next(Call::PutNotes, 0, dead());
    seconds(30).await;
    assert_eq!(store.service.notes().full, []);
}

#[tokio::test(start_paused = true)]
async fn marks_vouch_for_what_is_on_the_disk() {
    let store = fixture("4+2", &SIX).await;
    store.put("one", &bytes(4 << 20, 1)).await.unwrap();
    let first = store.service.catalog().committed().0;
    seconds(15).await;
    let before = mark(&store, 2).await.unwrap();
    assert!(before >= first);
    store
        .pool
        .disk(2)
        .fail_next(Call::PutNotes, usize::MAX, dead());
    store.put("two", &bytes(4 << 20, 1)).await.unwrap();
    let second = store.service.catalog().committed().0;
    seconds(15).await;
    assert!(mark(&store, 3).await.unwrap() >= second);
    let still = mark(&store, 2).await.unwrap();
    assert!(still < second, "{still} of {second}");
    // An idle pool is told once, and then left alone.
    seconds(60).await;
    let commits = store.service.catalog().committed();
    let calls = store.pool.disk(3).calls(Call::PutNotes);
    seconds(600).await;
    assert_eq!(store.service.catalog().committed(), commits);
    assert_eq!(store.pool.disk(3).calls(Call::PutNotes), calls);
}

#[tokio::test(start_paused = true)]
async fn a_stop_tells_what_was_committed_last() {
    let store = fixture("4+2", &SIX).await;
    seconds(10).await;
    store.put("key", &bytes(4 << 20, 1)).await.unwrap();
    store.stop.cancel();
    assert!(store.service.drain(Duration::from_secs(10)).await);
    for disk in 0..6 {
        assert_eq!(kept(&store, disk).await.len(), 1, "disk {disk}");
    }
    let catalog = store.service.catalog();
    assert_eq!(catalog.waiting_notes(None, 10).await.unwrap().rows, []);
}

/// A note of a deletion is for ever: what a rebuild decided is none of it
/// before the operator has seen the list; what clients delete meanwhile is.
#[tokio::test(start_paused = true)]
async fn what_a_rebuild_condemned_is_told_when_its_hold_ends() {
    let mut store = fixture("4+2", &SIX).await;
    store.put("given up", &bytes(4 << 20, 1)).await.unwrap();
    store.put("deleted", &bytes(4 << 20, 2)).await.unwrap();
    let (given_up, by_client) = (
        store.blob("given up").await.blob,
        store.blob("deleted").await.blob,
    );
    store.stop.cancel();
    assert!(store.service.drain(Duration::from_secs(10)).await);
    let catalog = store.service.catalog().clone();
    let cluster = ClusterRow {
        cluster: ClusterId(7),
        lineage: LineageId(1),
        epoch: Epoch::default(),
        created: 1,
    };
    catalog.init_cluster(&cluster).await.unwrap();
    let none = DeleteCondition::None;
    catalog
        .delete_object(&store.bucket, "given up", none)
        .await
        .unwrap();
    let through = catalog.committed();
    let new = NewLineage {
        lineage: LineageId(2),
        history: 3,
        last_before: through,
        others: Vec::new(),
        why: vec![HoldReason::Decided { through }],
        now: 1,
    };
    catalog.take_lineage(&new).await.unwrap();
    store.reclaiming.hold();
    let before = mark(&store, 2).await;
    store.restart().await;
    delete(&store, "deleted").await;
    seconds(30).await;
    for disk in 0..6 {
        assert_eq!(deleted(&store, disk).await, [by_client], "disk {disk}");
    }
    assert_eq!(mark(&store, 2).await, before, "it lacks a note");
    store.reclaiming.resume();
    seconds(5).await;
    for disk in 0..6 {
        let all = deleted(&store, disk).await;
        assert!(
            all.contains(&given_up) && all.contains(&by_client),
            "{all:?}"
        );
    }
    seconds(15).await;
    assert!(mark(&store, 2).await > before);
    store.purge().await;
    assert_eq!(store.pool.shards(), 0);
    seconds(200).await;
    let queue = store.service.catalog().condemned(None, 10).await.unwrap();
    assert_eq!(queue, []);
}

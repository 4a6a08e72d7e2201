//! The purge: only what was condemned, everything that was, when it may.

use std::time::Duration;

use bytes::Bytes;
use shardgate_catalog::engine::{Commit, Entry, KeyRange, Op, Scan};
use shardgate_catalog::model::{CondemnReason, CondemnedRow};
use shardgate_wire::{BlobId, BlobLayout, NoteState, ShardStore, StoreError};

use super::fixture::*;
use crate::object::*;

const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];

#[tokio::test(start_paused = true)]
async fn deleted_and_overwritten_objects_give_their_space_back() {
    let store = fixture("4+2", &SIX).await;
    for number in 0..20 {
        store
            .put(&number.to_string(), &bytes(150_000, number))
            .await
            .unwrap();
    }
    store.put("3", &bytes(150_000, 99)).await.unwrap();
    let keys: Vec<String> = (4..20).map(|number: u64| number.to_string()).collect();
    let deleted = store
        .service
        .delete_objects(&store.bucket, keys)
        .await
        .unwrap();
    assert!(deleted.into_iter().all(|one| one.unwrap()));
    store.purge().await;
    assert_eq!(store.pool.shards(), 4 * 4);
    for number in 0..3 {
        assert!(store.get(&number.to_string()).await.unwrap() == bytes(150_000, number));
    }
    assert!(store.get("3").await.unwrap() == bytes(150_000, 99));
    assert!(
        store
            .service
            .catalog()
            .condemned(None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_away_is_asked_again_when_it_is_back() {
    let store = fixture("4+2", &SIX).await;
    store.put("key", &bytes(2 << 20, 1)).await.unwrap();
    store.pool.set_gone(2, true);
    store
        .pool
        .disk(3)
        .fail(Some(StoreError::Unreachable { why: "test".into() }));
    let none = DeleteCondition::None;
    store
        .service
        .delete_object(&store.bucket, "key", none)
        .await
        .unwrap();
    store.purge().await;
    assert_eq!(store.pool.shards(), 2);
    assert_eq!(
        store
            .service
            .catalog()
            .condemned(None, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    store.pool.set_gone(2, false);
    store.pool.disk(3).fail(None);
    store.purge().await;
    assert_eq!(store.pool.shards(), 0);
    assert!(
        store
            .service
            .catalog()
            .condemned(None, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_read_holds_back_what_came_after_it_only() {
    let store = fixture("4+2", &SIX).await;
    store.put("old", &bytes(150_000, 1)).await.unwrap();
    store.put("new", &bytes(150_000, 2)).await.unwrap();
    let none = DeleteCondition::None;
    store
        .service
        .delete_object(&store.bucket, "old", none)
        .await
        .unwrap();
    let handle = store
        .service
        .open_object(&store.bucket, "new")
        .await
        .unwrap();
    store
        .service
        .delete_object(&store.bucket, "new", none)
        .await
        .unwrap();
    store.purge().await;
    assert_eq!(store.pool.shards(), 4, "of the one that is open");
    assert!(read(&handle, 0..150_000).await.unwrap() == bytes(150_000, 2));
    drop(handle);
    store.purge().await;
    assert_eq!(store.pool.shards(), 0);
}

/// Spoils the first record of the queue.
async fn damage_first(store: &Fixture) {
    // `condemned/` of docs/catalog.md.
    let queue = Scan::first(KeyRange::prefix(vec![0x21]), 1);
    let found = store.engine.scan(queue).await.unwrap();
    let (key, _) = found.into_iter().find_map(Entry::into_row).unwrap();
    let commit = Commit {
        expect: vec![],
        ops: vec![Op::Put(key, Bytes::from_static(b"\xFFspoilt"))],
    };
    store.engine.commit(commit).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn damaged_records_hold_nothing_back_and_delete_nothing() {
    let store = fixture("4+2", &SIX).await;
    let keys = ["one", "two", "three"];
    for (number, key) in (1..).zip(keys) {
        store.put(key, &bytes(150_000, number)).await.unwrap();
    }
    let each = store.pool.shards() / keys.len();
    let delete = async |key: &str| {
        let none = DeleteCondition::None;
        let deleted = store.service.delete_object(&store.bucket, key, none).await;
        deleted.unwrap();
    };
    delete("one").await;
    damage_first(&store).await;
    // Readable, and no layout that there is.
    let impossible = CondemnedRow {
        group: store.blob("two").await.group,
        blob: BlobId(1),
        layout: BlobLayout { data: 0, parity: 0 },
        reason: CondemnReason::NeverPublished,
    };
    let catalog = store.service.catalog();
    catalog.condemn(&[impossible]).await.unwrap();
    delete("two").await;
    store.purge().await;
    assert_eq!(store.pool.shards(), 2 * each, "of one, and of three");
    store.purge().await;
    delete("three").await;
    store.purge().await;
    assert_eq!(store.pool.shards(), each, "of one");
    let left = catalog.condemned_page(None, 10).await.unwrap();
    assert_eq!((left.rows.len(), left.damaged.len()), (1, 1));
    assert_eq!(left.rows[0].row, impossible);
    assert!(catalog.condemned(None, 10).await.is_err());
    let metrics = store.service.metrics();
    assert_eq!(metrics.condemned_damaged.get(), 2, "each once");
    assert_eq!(metrics.blobs_purged.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn while_it_is_held_nothing_goes_and_notes_are_sent() {
    let store = fixture("4+2", &SIX).await;
    store.put("gone", &bytes(2 << 20, 1)).await.unwrap();
    store.put("key", &bytes(2 << 20, 1)).await.unwrap();
    store.reclaiming.hold();
    let none = DeleteCondition::None;
    let deleted = store
        .service
        .delete_object(&store.bucket, "gone", none)
        .await;
    assert!(deleted.unwrap());
    store.put("key", &bytes(2 << 20, 2)).await.unwrap();
    store.purge().await;
    assert_eq!(store.pool.shards(), 3 * 6);
    let notes = store.pool.store_of(3).notes(None).await.unwrap().notes;
    let of_deleted = notes.iter().filter(|note| note.state == NoteState::Deleted);
    assert_eq!(of_deleted.count(), 2);
    store.reclaiming.resume();
    store.purge().await;
    assert_eq!(store.pool.shards(), 6);
}

#[tokio::test(start_paused = true)]
async fn everything_ends_when_it_is_told_to() {
    let store = fixture("4+2", &SIX).await;
    store.put("key", &bytes(2 << 20, 1)).await.unwrap();
    store.stop.cancel();
    assert!(store.service.drain(Duration::from_secs(5)).await);
}

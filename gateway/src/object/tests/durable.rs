//! What counts as durable: shards on the disks that the catalog names, and
//! nothing that was given up.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt;
use shardgate_catalog::model::GroupRow;
use shardgate_wire::{DiskId, Generation};

use super::fixture::*;
use crate::object::*;

const KIB: usize = 1024;
const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];

/// The group of a blob moves these slots to other disks, and nobody tells the
/// writers.
async fn move_slots(store: &Fixture, slots: &[usize]) {
    let blob = store.blob("before").await;
    let catalog = store.service.catalog();
    let held = catalog.group(blob.group).await.unwrap().unwrap();
    let mut row = GroupRow {
        generation: Generation(held.generation.0 + 1),
        ..held.clone()
    };
    for slot in slots {
        row.slots[*slot] = DiskId(100 + *slot as u128);
    }
    catalog.put_group(&row, Some(&held)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slot_that_moves_under_a_write_is_owed() {
    for len in [1024 * KIB, 3 << 20] {
        let store = fixture("4+2", &SIX).await;
        store.put("before", &bytes(1024 * KIB, 1)).await.unwrap();
        move_slots(&store, &[3]).await;
        store.put("key", &bytes(len, 2)).await.unwrap();
        let owed = store.service.catalog().owed().await.unwrap();
        assert_eq!(owed.iter().map(|row| row.1).collect::<Vec<_>>(), [3]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_group_moves_away_is_not_acknowledged() {
    for len in [1024 * KIB, 3 << 20] {
        let store = fixture("4+2", &SIX).await;
        store.put("before", &bytes(1024 * KIB, 1)).await.unwrap();
        move_slots(&store, &[0, 3]).await;
        // Of six durable shards, four lie where the group is now.
        let refused = store.put("key", &bytes(len, 2)).await;
        assert!(
            matches!(refused, Err(ObjectError::Unavailable { .. })),
            "{refused:?}"
        );
        let found = store.get("key").await;
        assert!(matches!(found, Err(ObjectError::NoSuchKey)));
        assert!(store.service.catalog().owed().await.unwrap().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_a_little_slower_is_not_given_up() {
    let settings = ObjectSettings {
        memory_bytes: 1,
        ..ObjectSettings::default()
    };
    let store = fixture_with("1+2", &SIX[..3], settings).await;
    store.put("before", &bytes(2000, 1)).await.unwrap();
    // Little memory is left, so that each block waits for the one before.
    let (_, total) = store.service.memory();
    let stuck: Vec<_> = (0..total / (256 * KIB as u64) * 7 / 8)
        .map(|number| {
            let service = store.service.clone();
            let request = store.request(&format!("stuck-{number}"), Some(5 << 20));
            let body: BodyStream = Box::pin(futures::stream::pending());
            tokio::spawn(async move { service.put_object(request, body).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    store.pool.disk(2).delay(Duration::from_millis(30));
    let content = bytes(20 * 256 * KIB, 2);
    let frames = body(&content, 256 * KIB).then(|frame| async move {
        tokio::time::sleep(Duration::from_millis(10)).await;
        frame
    });
    let request = store.request("key", Some(content.len()));
    let put = store.service.put_object(request, Box::pin(frames));
    put.await.unwrap();
    assert_eq!(store.pool.late.load(Ordering::Relaxed), 0);
    assert!(store.service.catalog().owed().await.unwrap().is_empty());
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}

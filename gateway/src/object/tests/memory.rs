//! Memory: what requests hold is counted, and bounded.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;

use super::fixture::*;
use crate::object::*;

const KIB: usize = 1024;
const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];
const TWELVE: [u16; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// A body that gives some bytes and then never ends.
fn endless(bytes: &Bytes) -> BodyStream {
    Box::pin(body(bytes, 50_000).chain(futures::stream::pending()))
}

#[tokio::test(start_paused = true)]
async fn what_a_late_disk_still_has_counts_as_memory() {
    for len in [10 * KIB, 900 * KIB] {
        let store = fixture("4+2", &SIX).await;
        store.put("before", &bytes(2000, 1)).await.unwrap();
        // A shard of the body keeps the body whole.
        (0..6).for_each(|disk| store.pool.disk(disk).delay(Duration::from_millis(1)));
        store.pool.disk(3).delay(Duration::from_secs(600));
        for number in 0..6 {
            store
                .put(&format!("{number}"), &bytes(len, 1))
                .await
                .unwrap();
            store.pool.revive();
        }
        let (held, late) = (store.service.memory().0, store.pool.late.load(Relaxed));
        assert!(late > 0 && held >= late * len as u64, "{len}: {held}");
        // Past every limit of a call.
        tokio::time::sleep(Duration::from_secs(700)).await;
        assert_eq!(store.service.memory().0, 0, "{len}");
    }
}

/// A disk that hangs in the middle of a long shard keeps the block that it
/// was sent, until its call ends.
#[tokio::test(start_paused = true)]
async fn a_block_at_a_disk_that_was_given_up_counts_as_memory() {
    let store = fixture("4+2", &SIX).await;
    store.put("before", &bytes(2000, 1)).await.unwrap();
    let content = bytes(24 << 20, 1);
    let frames = body(&content, 64 * KIB).enumerate().then({
        let disk = store.pool.disk(3);
        move |(at, frame)| {
            let disk = disk.clone();
            async move {
                if at == 30 {
                    disk.delay(Duration::from_secs(600));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                frame
            }
        }
    });
    let request = store.request("late", Some(content.len()));
    store
        .service
        .put_object(request, Box::pin(frames))
        .await
        .unwrap();
    assert_eq!(store.service.memory().0, 256 * KIB as u64);
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert_eq!(store.service.memory().0, 0);
    assert!(store.get("late").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_slow_writers_and_two_thousand_readers_fit() {
    let store = fixture("8+4", &TWELVE).await;
    store.put("read", &bytes(8 << 20, 1)).await.unwrap();
    let (_, total) = store.service.memory();
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..200 {
        let service = store.service.clone();
        let request = store.request(&format!("slow-{number}"), Some(6 << 20));
        let frames = futures::stream::unfold(0_usize, |at| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let frame = bytes(100 * KIB, at as u64);
            let left = (6 << 20) - at;
            let frame = frame.slice(..left.min(frame.len()));
            (left > 0).then(|| (Ok(frame.clone()), at + frame.len()))
        });
        writers.spawn(async move { service.put_object(request, Box::pin(frames)).await });
    }
    let handle = store
        .service
        .open_object(&store.bucket, "read")
        .await
        .unwrap();
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..2000 {
        let handle = handle.clone();
        readers.spawn(async move {
            let mut stream = handle.read(0..8 << 20).await?;
            for _ in 0..10 {
                let frame = stream.next().await.unwrap()?;
                let slow = frame.len() as u64 / 50;
                tokio::time::sleep(Duration::from_millis(slow)).await;
            }
            Ok::<_, ObjectError>(())
        });
    }
    while let Some(read) = readers.join_next().await {
        read.unwrap().unwrap();
        assert!(store.service.memory().0 <= total);
    }
    while let Some(put) = writers.join_next().await {
        put.unwrap().unwrap();
    }
    assert_eq!(store.service.metrics().slow_downs.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_memory_a_request_waits_and_is_then_told_to_slow_down() {
    let settings = ObjectSettings {
        memory_bytes: 1,
        ..ObjectSettings::default()
    };
    let store = fixture_with("4+2", &SIX, settings).await;
    let content = bytes(5 << 20, 1);
    let (_, total) = store.service.memory();
    let mut stuck = Vec::new();
    let mut held = 0;
    // Each holds the least that it needs.
    while held + 3 * 256 * KIB as u64 <= total {
        let service = store.service.clone();
        let request = store.request("stuck", Some(5 << 20));
        let body = endless(&content.slice(..10));
        stuck.push(tokio::spawn(async move {
            service.put_object(request, body).await
        }));
        held += 3 * 256 * KIB as u64;
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    let refused = store.put("key", &content).await.unwrap_err();
    assert!(matches!(refused, ObjectError::SlowDown), "{refused}");
    stuck.pop().unwrap().abort();
    store.put("key", &content).await.unwrap();
    stuck.iter().for_each(tokio::task::JoinHandle::abort);
}

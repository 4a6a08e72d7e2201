//! Reads: every length and range, with every loss that the scheme bears.

use std::time::Duration;

use futures::StreamExt;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{ShardStore, StoreError};

use super::fixture::*;
use crate::object::*;

const KIB: usize = 1024;
const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];
const TWELVE: [u16; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// Lengths around every border of inline, check block, shard target, stripe.
fn lengths(stripe: usize) -> Vec<usize> {
    let borders = [
        0,
        KIB,
        64 * KIB,
        128 * KIB,
        256 * KIB,
        512 * KIB,
        stripe,
        2 * stripe,
    ];
    let mut all = vec![3 * stripe + 123_457];
    for border in borders {
        all.extend([border.saturating_sub(1), border, border + 1]);
    }
    all
}

fn random(seed: &mut u64, below: usize) -> usize {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize % below.max(1)
}

/// Some ranges of `len` bytes, the whole among them.
fn ranges(len: usize, seed: &mut u64) -> Vec<std::ops::Range<u64>> {
    let mut all = Vec::new();
    all.push(0..len as u64);
    for _ in 0..6 {
        let (a, b) = (random(seed, len + 1) as u64, random(seed, len + 1) as u64);
        all.push(a.min(b)..a.max(b));
    }
    let last = (len as u64).saturating_sub(1);
    all.push(last..len as u64);
    all
}

#[tokio::test(start_paused = true)]
async fn every_length_and_range_reads_back() {
    let mut seed = 0x5eed;
    for (scheme, disks, stripe) in [
        ("4+2", &SIX[..], 1024 * KIB),
        ("8+4", &TWELVE[..], 2048 * KIB),
        ("1+2", &SIX[..3], 256 * KIB),
        ("1+0", &SIX[..1], 256 * KIB),
    ] {
        let store = fixture(scheme, disks).await;
        for len in lengths(stripe) {
            let expected = bytes(len, len as u64);
            let outcome = store.put("key", &expected).await.unwrap();
            assert_eq!(outcome.size, len as u64);
            let handle = store
                .service
                .open_object(&store.bucket, "key")
                .await
                .unwrap();
            for range in ranges(len, &mut seed) {
                let found = read(&handle, range.clone()).await.unwrap();
                let expected = &expected[range.start as usize..range.end as usize];
                assert!(found == expected, "{scheme}, {len} bytes, {range:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn lengths_that_nobody_told_read_back() {
    let store = fixture("4+2", &SIX).await;
    for len in lengths(1024 * KIB) {
        let expected = bytes(len, 3);
        let request = store.request("key", None);
        let put = store
            .service
            .put_object(request, body(&expected, 77_777))
            .await;
        assert_eq!(put.unwrap().size, len as u64);
        assert!(store.get("key").await.unwrap() == expected, "{len}");
    }
}

/// Ways to lose a shard.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Dropped,
    Flipped,
    Failing,
    Late,
    Away,
}

async fn lose(store: &Fixture, blob: &shardgate_catalog::model::BlobRef, shard: u8, loss: Loss) {
    let (disk, _) = store.shard(blob, shard).await;
    let switch = store.pool.disk(disk);
    match loss {
        Loss::Dropped => store.drop_shard(blob, shard).await,
        Loss::Flipped => store.flip(blob, shard, blob.len.min(70_000) / 2).await,
        Loss::Failing => switch.fail(Some(StoreError::Unreachable { why: "test".into() })),
        Loss::Late => switch.delay(Duration::from_secs(5)),
        Loss::Away => store.pool.set_gone(disk, true),
    }
}

async fn heal(store: &Fixture) {
    for disk in 0..store.pool.disk_count() {
        store.pool.disk(disk).fail(None);
        store.pool.disk(disk).delay(Duration::ZERO);
        store.pool.set_gone(disk, false);
    }
}

#[tokio::test(start_paused = true)]
async fn any_two_of_six_shards_may_be_lost_in_any_way() {
    let losses = [
        Loss::Dropped,
        Loss::Flipped,
        Loss::Failing,
        Loss::Late,
        Loss::Away,
    ];
    let store = fixture("4+2", &SIX).await;
    let mut seed = 7;
    for len in [100 * KIB, 200 * KIB + 1, 1024 * KIB, 2500 * KIB + 9] {
        let expected = bytes(len, len as u64);
        for first in 0..6_u8 {
            for second in 0..first {
                store.put("key", &expected).await.unwrap();
                let blob = store.blob("key").await;
                let shards = blob.layout.data + blob.layout.parity;
                if first >= shards {
                    continue;
                }
                let how = [losses[random(&mut seed, 5)], losses[random(&mut seed, 5)]];
                lose(&store, &blob, first, how[0]).await;
                lose(&store, &blob, second, how[1]).await;
                let found = store.get("key").await;
                let case = format!("{len}: {first} {second} {how:?}");
                assert!(found.expect(&case) == expected, "{case}");
                heal(&store).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn three_of_six_are_a_clear_error() {
    let store = fixture("4+2", &SIX).await;
    let expected = bytes(2500 * KIB, 1);
    store.put("key", &expected).await.unwrap();
    let blob = store.blob("key").await;
    for shard in [0, 2, 5] {
        store.drop_shard(&blob, shard).await;
    }
    let refused = store.get("key").await.unwrap_err();
    assert!(
        matches!(refused, ObjectError::Unreadable { .. }),
        "{refused}"
    );
    // What needs none of the lost shards is still given.
    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    let range = 256 * KIB..512 * KIB;
    let found = read(&handle, range.start as u64..range.end as u64)
        .await
        .unwrap();
    assert!(found == expected[range]);
    assert!(store.service.metrics().unreadable.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_go_on_ends_with_an_error() {
    let store = fixture("4+2", &SIX).await;
    let expected = bytes(8 << 20, 1);
    store.put("key", &expected).await.unwrap();
    let blob = store.blob("key").await;
    // The last stripe of three shards is bad.
    for shard in [0, 1, 2] {
        store.flip(&blob, shard, 7 * 256 * KIB as u64).await;
    }
    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    let mut stream = handle.read(0..8 << 20).await.unwrap();
    let (mut found, mut error) = (Vec::new(), None);
    while let Some(frame) = stream.next().await {
        match frame {
            Ok(frame) => found.extend_from_slice(&frame),
            Err(failure) => error = Some(failure),
        }
    }
    assert!(
        matches!(error, Some(ObjectError::Unreadable { .. })),
        "{error:?}"
    );
    assert!(found.len() >= 7 << 20 && found.len() < 8 << 20);
    assert!(found == expected[..found.len()]);
}

#[tokio::test(start_paused = true)]
async fn a_flipped_byte_is_repaired_and_never_served() {
    let store = fixture("4+2", &SIX).await;
    let expected = bytes(1024 * KIB, 1);
    store.put("key", &expected).await.unwrap();
    let blob = store.blob("key").await;
    for offset in [0, 70 * KIB as u64, 256 * KIB as u64 - 1] {
        store.flip(&blob, 1, offset).await;
        assert!(store.get("key").await.unwrap() == expected, "{offset}");
    }
    // Its disk keeps it in mind.
    assert!(store.service.repairs().is_empty());
    let (disk, key) = store.shard(&blob, 1).await;
    let damaged = store.pool.store_of(disk).damaged().await.unwrap();
    assert_eq!(damaged.iter().map(|it| it.key).collect::<Vec<_>>(), [key]);
    assert!(store.service.metrics().shards_corrupt.get() >= 3);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_damaged_behind_the_disks_checks_are_never_served() {
    for (scheme, disks) in [("4+2", &SIX[..]), ("1+2", &SIX[..3])] {
        for len in [100 * KIB, 1024 * KIB, 3 << 20] {
            for byte in [0, 20 * KIB, 64 * KIB] {
                let store = fixture(scheme, disks).await;
                let expected = bytes(len, 1);
                store.put("key", &expected).await.unwrap();
                store.pool.disk(0).garble(Some(byte));
                store.pool.disk(1).garble(Some(byte));
                assert!(store.get("key").await.unwrap() == expected, "{len} {byte}");
                (0..disks.len()).for_each(|disk| store.pool.disk(disk).garble(Some(0)));
                let refused = store.get("key").await;
                assert!(matches!(refused, Err(ObjectError::Unreadable { .. })));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_range_reads_only_what_it_needs() {
    let store = fixture("4+2", &SIX).await;
    store.put("key", &bytes(3 << 20, 1)).await.unwrap();
    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    let reads = || {
        (0..6)
            .map(|disk| store.pool.disk(disk).calls(Call::Read))
            .sum::<u64>()
    };
    let before = reads();
    read(&handle, 300_000..300_010).await.unwrap();
    assert_eq!(reads() - before, 1);
    assert_eq!(store.service.metrics().decodes.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_disk_is_raced_and_then_left_out() {
    let store = fixture("4+2", &SIX).await;
    let expected = bytes(8 << 20, 1);
    store.put("key", &expected).await.unwrap();
    let blob = store.blob("key").await;
    let (disk, _) = store.shard(&blob, 0).await;
    store.pool.disk(disk).delay(Duration::from_secs(3));
    let begun = tokio::time::Instant::now();
    assert!(store.get("key").await.unwrap() == expected);
    assert!(
        begun.elapsed() < Duration::from_millis(200),
        "{:?}",
        begun.elapsed()
    );
    let asked = store.pool.disk(disk).calls(Call::Read);
    // Only what was asked before the first race was won.
    assert!(asked <= 4, "asked {asked} times");
}

#[tokio::test(start_paused = true)]
async fn old_bytes_to_the_end_when_overwritten_or_deleted() {
    let store = fixture("4+2", &SIX).await;
    let (old, new) = (bytes(4 << 20, 1), bytes(3 << 20, 2));
    store.put("key", &old).await.unwrap();
    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    let mut stream = handle.read(0..4 << 20).await.unwrap();
    let mut found = stream.next().await.unwrap().unwrap().to_vec();
    drop(handle);
    store.put("key", &new).await.unwrap();
    store.purge().await;
    assert!(store.get("key").await.unwrap() == new);
    let none = DeleteCondition::None;
    assert!(
        store
            .service
            .delete_object(&store.bucket, "key", none)
            .await
            .unwrap()
    );
    store.purge().await;
    while let Some(frame) = stream.next().await {
        found.extend_from_slice(&frame.unwrap());
    }
    assert!(found == old);
    drop(stream);
    store.purge().await;
    assert_eq!(store.pool.shards(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_little() {
    let store = fixture("4+2", &SIX).await;
    store.put("key", &bytes(8 << 20, 1)).await.unwrap();
    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = handle.read(0..8 << 20).await.unwrap();
        let mut frames = Vec::new();
        // It takes what comes, slower than the disks give it.
        for _ in 0..12 {
            frames.push(stream.next().await.unwrap().unwrap());
            tokio::time::sleep(Duration::from_millis(200)).await;
            frames.clear();
        }
        slow.push((stream, frames));
    }
    let (held, _) = store.service.memory();
    assert_eq!(held, 50 * 64 * KIB as u64);
    drop(slow);
    assert_eq!(store.service.memory().0, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_read_ahead_does_not_wait_for_its_client() {
    let store = fixture("4+2", &SIX).await;
    let expected = bytes(8 << 20, 1);
    store.put("key", &expected).await.unwrap();
    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    (0..6).for_each(|disk| store.pool.disk(disk).delay(Duration::from_millis(10)));
    let waiting = || {
        (0..6)
            .map(|disk| store.pool.disk(disk).waiting())
            .sum::<usize>()
    };
    let mut stream = handle.read(0..8 << 20).await.unwrap();
    let mut read = stream.next().await.unwrap().unwrap().to_vec();
    // It stalls.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(waiting(), 0, "calls that nobody drives");
    while let Some(frame) = stream.next().await {
        read.extend_from_slice(&frame.unwrap());
    }
    assert!(read == expected);
    // What is under way ends with the stream.
    let mut stream = handle.read(0..8 << 20).await.unwrap();
    stream.next().await.unwrap().unwrap();
    (0..6).for_each(|disk| store.pool.disk(disk).delay(Duration::from_secs(3600)));
    while waiting() < 2 {
        let more = tokio::time::timeout(Duration::from_millis(1), stream.next());
        assert!(!matches!(more.await, Ok(None)), "it was all read ahead");
    }
    drop(stream);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!((waiting(), store.service.memory().0), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_kept_count_against_the_window() {
    let store = fixture("4+2", &SIX).await;
    let expected = bytes(32 << 20, 1);
    store.put("key", &expected).await.unwrap();
    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    let mut stream = handle.read(0..32 << 20).await.unwrap();
    let mut kept = Vec::new();
    // Keeps every frame: the stream stops giving at its window.
    while let Ok(frame) = tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
        kept.push(frame.unwrap().unwrap());
    }
    let held: usize = kept.iter().map(bytes::Bytes::len).sum();
    assert!(held <= 8 << 20, "{held}");
    let at = held;
    kept.clear();
    let rest = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    let frame = rest.unwrap().unwrap().unwrap();
    assert!(frame == expected[at..at + frame.len()]);
}

#[tokio::test(start_paused = true)]
async fn ranges_outside_and_keys_that_are_not_there() {
    let store = fixture("4+2", &SIX).await;
    store.put("key", &bytes(10, 1)).await.unwrap();
    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    for range in [5..11, 11..11] {
        let refused = handle.read(range).await.err();
        assert!(matches!(
            refused,
            Some(ObjectError::InvalidRange { size: 10 })
        ));
    }
    assert!(matches!(
        store.get("none").await,
        Err(ObjectError::NoSuchKey)
    ));
}

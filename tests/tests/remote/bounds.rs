//! One disk's trouble stays its own, and connections stay few.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use shardgate::agents::AgentSettings;
use shardgate_wire::conformance::sample;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{DiskId, ShardStore, StoreError};

use crate::agent::{TestAgent, client, memory, put};
use crate::proxy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_does_not_delay_its_neighbour() {
    let (slow_store, slow) = memory(1).await;
    let (fast_store, _) = memory(2).await;
    let agent = TestAgent::start(vec![slow_store, fast_store]).await;
    let client = agent.client();
    let (slow_disk, fast_disk) = (client.disk(DiskId(1)), client.disk(DiskId(2)));
    put(&slow_disk, 1).await.unwrap();
    slow.delay(Duration::from_secs(20));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut slow_calls = Vec::new();
    for blob in 0..300u128 {
        let (disk, answered) = (slow_disk.clone(), Arc::clone(&answered));
        slow_calls.push(tokio::spawn(async move {
            let _ = match blob % 3 {
                0 => put(&disk, 100 + blob).await,
                1 => disk.read(sample::key(1), 0, 1000).await.map(|_| ()),
                _ => disk.health().await.map(|_| ()),
            };
            answered.fetch_add(1, Ordering::SeqCst);
        }));
    }
    // The slow disk has all of its share now.
    while slow.calls(Call::Read) < 5 || slow.calls(Call::Health) < 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for blob in 0..50 {
        put(&fast_disk, blob).await.unwrap();
        let read = fast_disk.read(sample::key(blob), 0, 1000).await.unwrap();
        assert_eq!(read.bytes.len(), 1000);
        fast_disk.health().await.unwrap();
    }
    assert_eq!(answered.load(Ordering::SeqCst), 0, "the slow disk was fast");
    slow_calls.iter().for_each(|call| call.abort());
}

/// Uploads hang in their disk, and more of them wait for a connection: a
/// download has its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_does_not_wait_behind_what_is_stored() {
    let (store, handle) = memory(1).await;
    let agent = TestAgent::start(vec![store]).await;
    let disk = agent.client().disk(DiskId(1));
    put(&disk, 1).await.unwrap();
    handle.delay(Duration::from_secs(20));
    let answered = Arc::new(AtomicUsize::new(0));
    let ctx = sample::context(1);
    let uploads = (100..200).map(|blob| {
        let (disk, answered) = (disk.clone(), Arc::clone(&answered));
        tokio::spawn(async move {
            let _ = match blob % 2 {
                0 => disk
                    .open(&ctx, sample::header(&ctx, blob), None)
                    .await
                    .map(drop),
                _ => disk.delete(&ctx, &[sample::key(blob)]).await,
            };
            answered.fetch_add(1, Ordering::SeqCst);
        })
    });
    let uploads: Vec<_> = uploads.collect();
    let under_way = || handle.calls(Call::Open) + handle.calls(Call::Delete);
    // All that may store at once are in the disk.
    let most = AgentSettings::default().calls_per_disk as u64 * 3 / 4;
    while under_way() < most {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    handle.delay(Duration::ZERO);
    for _ in 0..50 {
        let read = disk.read(sample::key(1), 0, 1000).await.unwrap();
        assert_eq!(read.bytes.len(), 1000);
        disk.stat(sample::key(1)).await.unwrap();
    }
    assert_eq!(answered.load(Ordering::SeqCst), 0, "a read waited");
    assert_eq!(under_way(), most);
    uploads.iter().for_each(|upload| upload.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_calls_share_sixty_four_connections() {
    let mut stores = Vec::new();
    for disk in 1..=10 {
        let (store, handle) = memory(disk).await;
        handle.delay(Duration::from_millis(10));
        stores.push(store);
    }
    let agent = TestAgent::start(stores).await;
    let (address, seen) = proxy::start(agent.address, proxy::nothing(), proxy::nothing()).await;
    let client = client(address, AgentSettings::default());
    let disks: Vec<_> = (1..=10).map(|disk| client.disk(DiskId(disk))).collect();
    for disk in &disks {
        put(disk, 1).await.unwrap();
    }
    let calls = (0..500).map(|n| {
        let disk = disks[n % disks.len()].clone();
        tokio::spawn(async move {
            if n % 7 == 0 {
                disk.stat(sample::key(1)).await.map(|_| ())
            } else {
                disk.read(sample::key(1), 0, 1000).await.map(|_| ())
            }
        })
    });
    for outcome in join_all(calls).await {
        outcome.unwrap().unwrap();
    }
    assert!(seen.most() <= 64, "{} connections", seen.most());
    assert!(seen.most() >= 32, "{} connections only", seen.most());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_shards_gather_while_one_is_written() {
    let (store, handle) = memory(1).await;
    let agent = TestAgent::start(vec![store]).await;
    let (address, seen) = proxy::start(agent.address, proxy::nothing(), proxy::nothing()).await;
    let disk = client(address, AgentSettings::default()).disk(DiskId(1));
    put(&disk, 0).await.unwrap();
    handle.delay(Duration::from_millis(50));
    let puts = (1..=200).map(|blob| {
        let disk = disk.clone();
        tokio::spawn(async move { put(&disk, blob).await })
    });
    for outcome in join_all(puts).await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(handle.calls(Call::Put), 201);
    assert_eq!(handle.finished().len(), 201);
    let messages = count(&seen.requests(), b"/shards/put");
    assert!(messages <= 20, "{messages} messages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_shard_of_a_message_has_its_own_answer() {
    let (store, handle) = memory(1).await;
    let agent = TestAgent::start(vec![store]).await;
    let disk = agent.client().disk(DiskId(1));
    put(&disk, 7).await.unwrap();
    handle.delay(Duration::from_millis(50));
    let ctx = sample::context(1);
    let puts = (1..=30u128).map(|blob| {
        let disk = disk.clone();
        tokio::spawn(async move {
            let mut shard = sample::small(&ctx, blob, if blob == 7 { 2000 } else { 1000 });
            if blob == 11 {
                shard.crcs[0] ^= 1;
            }
            (blob, disk.put(&ctx, shard).await)
        })
    });
    for outcome in join_all(puts).await {
        let (blob, outcome) = outcome.unwrap();
        match blob {
            7 => assert_eq!(outcome, Err(StoreError::Exists)),
            11 => assert!(matches!(outcome, Err(StoreError::BadCall { .. }))),
            _ => assert_eq!(outcome, Ok(()), "blob {blob}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_is_timed_out_and_no_agent_is_unreachable() {
    let (store, handle) = memory(1).await;
    let agent = TestAgent::start(vec![store]).await;
    let within = Duration::from_millis(200);
    let settings = AgentSettings {
        call_timeout: within,
        sync_timeout: within,
        control_timeout: within,
        ..AgentSettings::default()
    };
    let disk = client(agent.address, settings).disk(DiskId(1));
    put(&disk, 1).await.unwrap();
    handle.delay(Duration::from_secs(60));
    let timed_out = StoreError::TimedOut(within);
    assert_eq!(put(&disk, 2).await, Err(timed_out.clone()));
    assert_eq!(disk.stat(sample::key(1)).await, Err(timed_out.clone()));
    assert_eq!(disk.health().await, Err(timed_out));
    handle.delay(Duration::ZERO);
    disk.stat(sample::key(1)).await.unwrap();
    agent.agent.lanes.close(DiskId(1));
    assert!(matches!(
        disk.stat(sample::key(1)).await,
        Err(StoreError::Lost { .. })
    ));
    agent.stop().await;
    assert!(matches!(
        disk.stat(sample::key(1)).await,
        Err(StoreError::Unreachable { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_lets_the_calls_under_way_end() {
    let (store, handle) = memory(1).await;
    let agent = TestAgent::start(vec![store]).await;
    let disk = agent.client().disk(DiskId(1));
    handle.delay(Duration::from_millis(300));
    let call = tokio::spawn(async move { put(&disk, 1).await });
    while handle.calls(Call::Put) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    agent.stop().await;
    assert_eq!(call.await.unwrap(), Ok(()));
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes
        .windows(what.len())
        .filter(|window| *window == what)
        .count()
}

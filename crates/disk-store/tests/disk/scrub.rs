//! A disk that reads itself: damage is known before anybody reads it.

use std::time::Duration;

use shardgate_disk_store::{DiskOptions, LocalDisk};
use shardgate_wire::ShardStore;
use shardgate_wire::conformance::sample;

use crate::folder::{Folder, expected, options};

fn open(folder: &Folder) -> LocalDisk {
    let options = DiskOptions {
        scrub_after_open: Duration::ZERO,
        ..options()
    };
    LocalDisk::open(folder.path(), &expected(), options).unwrap()
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    for _ in 0..1200 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within a minute");
}

#[tokio::test]
async fn a_flipped_bit_is_in_health_and_list_until_the_shard_is_deleted() {
    let folder = Folder::new();
    let ctx = sample::context(1);
    let disk = folder.open_assigned().await;
    for blob in 1..=5 {
        let put = disk.put(&ctx, sample::small(&ctx, blob, 3000));
        put.await.unwrap();
    }
    disk.close().await;
    let key = sample::key(3);
    folder.flip(key, 1000);
    let disk = open(&folder);
    until("the scrub finds it", async || {
        disk.health().await.unwrap().scrub.passes == 1
    })
    .await;
    let health = disk.health().await.unwrap();
    assert_eq!((health.damaged, health.errors), (1, 1));
    assert!(health.scrub.ended_ms > 1_600_000_000_000);
    assert_eq!((health.scrub.read_bytes, health.scrub.pass_bytes), (0, 0));
    disk.close().await;
    // A restart forgets neither the shard nor the pass.
    let disk = open(&folder);
    let health = disk.health().await.unwrap();
    assert_eq!((health.damaged, health.scrub.passes), (1, 1));
    let damaged = disk.damaged().await.unwrap();
    assert_eq!((damaged[0].key, &*damaged[0].what), (key, "block 0"));
    disk.delete(&ctx, &[key]).await.unwrap();
    assert_eq!(disk.health().await.unwrap().damaged, 0);
    disk.close().await;
    let disk = open(&folder);
    assert_eq!(disk.damaged().await, Ok(vec![]));
    disk.close().await;
    // Nothing is left of how it is written.
    assert!(folder.path().join("scrub").exists());
    assert!(!folder.path().join("scrub.part").exists());
}

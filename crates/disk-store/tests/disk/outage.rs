//! A real process is killed and the power goes: what it answered is there.

use std::sync::Arc;
use std::time::Duration;

use shardgate_disk_store::LocalDisk;
use shardgate_disk_store::io::sim::{Sabotage, SimDisk};
use shardgate_wire::{ShardStore, StoreError};

use crate::folder::{SeenVolumes, expected, new_disk, options, small_volumes};
use crate::kills::{Child, Said, verify};
use crate::lossy::Mounted;

/// Outages of one disk, one after the other.
const OUTAGES: u64 = 6;

fn formatted(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    // Shards in files of their own rely on that: where a file that was never
    // synced could show another shard's footer, it would be called damaged.
    disk.set_old_bytes(false);
    let mounted = Mounted::new(&disk);
    LocalDisk::format_for(mounted.path(), &new_disk(), &options()).unwrap();
    drop(mounted);
    // Formatting is to be durable as well.
    disk.power_loss(seed);
    disk
}

/// Runs a process on the disk until it has answered something and is killed.
async fn outage(disk: &SimDisk, run: u64, seed: u64, said: &mut Said) {
    let mounted = Mounted::new(disk);
    let mut child = Child::start(run, mounted.path());
    child.wait_for_answers().await;
    tokio::time::sleep(Duration::from_millis(237 * run)).await;
    said.hear(&child.kill());
    drop(mounted);
    disk.power_loss(seed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_shards_outlive_outages() {
    let seed = seed();
    let disk = formatted(seed);
    let (mut said, mut seen) = (Said::default(), SeenVolumes::default());
    for run in 0..OUTAGES {
        outage(&disk, run, seed ^ run, &mut said).await;
        let mounted = Mounted::new(&disk);
        seen.look_after_run(mounted.path());
        verify(mounted.path(), &said, run).await;
        seen.look(mounted.path());
    }
    seen.check(OUTAGES as usize);
    assert!(said.stored() > 50, "{} were stored", said.stored());
}

/// The file system does lose: where it only pretends to sync, shards that
/// were answered are gone or damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_an_outage_loses() {
    let seed = seed();
    let disk = formatted(seed);
    disk.set_sabotage(Sabotage {
        file_sync: true,
        ..Sabotage::default()
    });
    let mut lost = false;
    for run in 0..20 {
        let mut said = Said::default();
        outage(&disk, run, seed ^ run, &mut said).await;
        let mounted = Mounted::new(&disk);
        lost = match LocalDisk::open(mounted.path(), &expected(), small_volumes()) {
            Ok(opened) => {
                let opened = Arc::new(opened);
                let missing = misses(&opened, &said).await;
                opened.close().await;
                missing
            }
            // Its own records are gone.
            Err(_) => true,
        };
        if lost {
            break;
        }
    }
    assert!(lost, "nothing was lost with seed {seed}");
}

async fn misses(disk: &LocalDisk, said: &Said) -> bool {
    for blob in said.kept() {
        let stat = disk.stat(shardgate_wire::conformance::sample::key(blob.into()));
        if matches!(
            stat.await,
            Err(StoreError::NotFound | StoreError::Corrupt { .. })
        ) {
            return true;
        }
    }
    false
}

/// Said, so that a failure can be repeated with `SHARDGATE_TEST_SEED`.
fn seed() -> u64 {
    let told = std::env::var("SHARDGATE_TEST_SEED");
    let seed = told.map_or_else(|_| std::process::id().into(), |told| told.parse().unwrap());
    eprintln!("SHARDGATE_TEST_SEED={seed}");
    seed
}

//! What one disk costs: `measure FOLDER [flash|rotating]`, on an empty folder.
//!
//! Prints operations and bytes per second, and CPU of the whole process, load
//! included.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use shardgate_disk_store::{DiskOptions, Expected, LocalDisk, NewDisk};
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{MAX_APPEND_BYTES, MAX_READ_BYTES, ShardEnd};
use shardgate_wire::{Medium, ShardStore, StoreError};
use tokio::task::JoinSet;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn cpu_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Runs `count` operations, `at_once` of them at a time, and prints the cost.
async fn load<F, Fut>(
    what: &str,
    count: u64,
    at_once: u64,
    bytes: u64,
    run: F,
) -> Result<(), Failure>
where
    F: Fn(u64) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut lanes = JoinSet::new();
    for lane in 0..at_once {
        let run = run.clone();
        lanes.spawn(async move {
            for number in (lane..count).step_by(at_once as usize) {
                run(number).await?;
            }
            Ok::<_, StoreError>(())
        });
    }
    while let Some(done) = lanes.join_next().await {
        done??;
    }
    let (took, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let total = (count * bytes) as f64;
    println!(
        "{what:<34} {:>9.0} /s {:>7.2} GB/s {:>7.1} us CPU each {:>6.2} CPU-s/GB",
        count as f64 / took,
        total / took / 1e9,
        cpu / count as f64 * 1e6,
        cpu / (total / 1e9),
    );
    Ok(())
}

async fn put(disk: Arc<LocalDisk>, blob: u128, len: usize) -> Result<(), StoreError> {
    let ctx = sample::context(1);
    disk.put(&ctx, sample::small(&ctx, blob, len)).await
}

async fn append(
    disk: Arc<LocalDisk>,
    blob: u128,
    len: usize,
    known: bool,
) -> Result<(), StoreError> {
    let ctx = sample::context(1);
    let block = sample::bytes(blob, MAX_APPEND_BYTES);
    let crcs = block_crcs(&block);
    let announced = known.then_some(len as u64);
    let handle = disk
        .open(&ctx, sample::header(&ctx, blob), announced)
        .await?;
    for offset in (0..len).step_by(MAX_APPEND_BYTES) {
        disk.append(&ctx, handle, offset as u64, block.clone(), &crcs)
            .await?;
    }
    let (shard_len, blob_len) = (len as u64, len as u64);
    disk.finish(
        &ctx,
        handle,
        ShardEnd {
            shard_len,
            blob_len,
        },
    )
    .await
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("measure FOLDER [flash|rotating]")?;
    let medium = match args.next().as_deref() {
        Some("rotating") => Medium::Rotating,
        _ => Medium::Flash,
    };
    let (cluster, disk) = (sample::CLUSTER, sample::identity().disk);
    let new = NewDisk {
        cluster,
        disk,
        medium: Some(medium),
        create_folder: true,
    };
    LocalDisk::format(Path::new(&path), &new)?;
    let expected = Expected {
        cluster,
        disk: Some(disk),
    };
    let disk = LocalDisk::open(Path::new(&path), &expected, DiskOptions::default())?;
    let disk = Arc::new(disk);
    disk.assign(&sample::context(1), &[sample::slot()]).await?;

    let mut first = 0u128;
    for (len, counts) in [(4096, [1000, 8000, 16000]), (128 << 10, [500, 2000, 3000])] {
        for (at_once, count) in [1, 16, 64].into_iter().zip(counts) {
            let (disk, from) = (Arc::clone(&disk), first);
            let run = move |n: u64| put(Arc::clone(&disk), from + u128::from(n), len);
            load(
                &format!("put {} KiB, {at_once} at once", len >> 10),
                count,
                at_once,
                len as u64,
                run,
            )
            .await?;
            first += u128::from(count);
        }
    }
    let long = first;
    for (known, at_once) in [(true, 1), (true, 4), (false, 4)] {
        let (len, from) = (16 << 20, first);
        let disk = Arc::clone(&disk);
        let run = move |n: u64| append(Arc::clone(&disk), from + u128::from(n), len, known);
        let length = if known { "known" } else { "unknown" };
        load(
            &format!("append 16 MiB ({length}), {at_once} at once"),
            64,
            at_once,
            len as u64,
            run,
        )
        .await?;
        first += 64;
    }
    for at_once in [1, 16] {
        let disk = Arc::clone(&disk);
        let run = move |n: u64| {
            let disk = Arc::clone(&disk);
            async move {
                disk.read(sample::key(u128::from(n * 7 % 1000)), 0, 4096)
                    .await
                    .map(drop)
            }
        };
        load(
            &format!("read 4 KiB, {at_once} at once"),
            50_000,
            at_once,
            4096,
            run,
        )
        .await?;
    }
    for (len, at_once) in [(64 << 10, 4), (MAX_READ_BYTES, 4)] {
        let disk = Arc::clone(&disk);
        let run = move |n: u64| {
            let disk = Arc::clone(&disk);
            let key = sample::key(long + u128::from(n % 64));
            let offset = (n / 64) * len as u64 % (16 << 20);
            async move { disk.read(key, offset, len as u32).await.map(drop) }
        };
        load(
            &format!("read {} KiB, {at_once} at once", len >> 10),
            10_000,
            at_once,
            len as u64,
            run,
        )
        .await?;
    }
    disk.close().await;
    Ok(())
}

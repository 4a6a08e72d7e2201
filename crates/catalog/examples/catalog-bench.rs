//! What the catalog costs: durable publications by 1, 16 and 64 writers,
//! reads of one object, and pages of 1,000 entries. Prints figures, decides
//! nothing.
//!
//! `cargo run --release -p shardgate-catalog --example catalog-bench [FOLDER]`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shardgate_catalog::model::{
    BlobRef, Content, DetailRow, ETag, GroupRow, GroupState, UploadPartRow, UploadRow, VersionRow,
};
use shardgate_catalog::{
    BucketRef, Catalog, CatalogError, CatalogOptions, CompleteFinish, CompletePart,
    CompleteRequest, ListQuery, MIN_PART_BYTES, Publish, PublishBody, Result, WriteCondition,
    WrittenBlob,
};
use shardgate_wire::{BlobId, BlobLayout, DiskId, Generation, GroupId, Medium, VersionUid};

const RUN: Duration = Duration::from_secs(4);
const GROUP: GroupId = GroupId(1);

fn blob(n: u64) -> PublishBody {
    PublishBody::Blob(WrittenBlob {
        blob: BlobRef {
            group: GROUP,
            blob: BlobId(n.into()),
            layout: BlobLayout { data: 4, parity: 2 },
            len: 1 << 20,
        },
        generation: Generation(1),
        owed_slots: vec![],
        lowest_in_flight: BlobId(n.into()),
    })
}

fn object(bucket: &BucketRef, n: u64, body: PublishBody) -> Publish {
    Publish {
        bucket: bucket.clone(),
        key: format!("folder-{:03}/object-{n:010}", n % 1000),
        row: VersionRow {
            uid: VersionUid(n.into()),
            size: match &body {
                PublishBody::Inline(bytes) => bytes.len() as u64,
                PublishBody::Blob(written) => written.blob.len,
            },
            modified: n,
            etag: ETag {
                md5: [7; 16],
                parts: 0,
            },
            class: 0,
            content: Content::Inline,
            checksum: None,
            null: true,
            has_detail: true,
        },
        detail: DetailRow {
            content_type: Some("application/octet-stream".to_owned()),
            ..DetailRow::default()
        },
        body,
        condition: WriteCondition::None,
    }
}

/// User and system time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = |field: usize| {
        let word = after_name.split(' ').nth(field);
        word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Runs `work` with numbers from `first` on in so many tasks; prints what an
/// operation took.
async fn measure<F, W>(name: &str, tasks: u64, first: u64, work: W) -> Result<u64>
where
    F: Future<Output = Result<()>> + Send,
    W: Fn(u64) -> F + Clone + Send + 'static,
{
    let (start, cpu_before) = (Instant::now(), cpu());
    let mut running = Vec::new();
    for task in 0..tasks {
        let work = work.clone();
        running.push(tokio::spawn(async move {
            let mut latencies = Vec::new();
            while start.elapsed() < RUN {
                let n = first + task + tasks * latencies.len() as u64;
                let begun = Instant::now();
                work(n).await?;
                latencies.push(begun.elapsed());
            }
            Ok::<_, CatalogError>(latencies)
        }));
    }
    let mut latencies = Vec::new();
    for task in running {
        latencies.extend(task.await.expect("a task does not panic")?);
    }
    let (wall, cpu) = (start.elapsed(), cpu().saturating_sub(cpu_before));
    latencies.sort_unstable();
    let count = latencies.len();
    println!(
        "{name:<28} {tasks:>3} at once {:>9.0}/s  p50 {:>8.1?} p99 {:>8.1?} max {:>8.1?}  CPU {:>6.1} us",
        count as f64 / wall.as_secs_f64(),
        latencies[count / 2],
        latencies[count * 99 / 100],
        latencies[count - 1],
        cpu.as_secs_f64() * 1e6 / count as f64,
    );
    Ok(count as u64)
}

async fn run(folder: PathBuf) -> Result<()> {
    let catalog = Catalog::open_rocksdb(folder, CatalogOptions::default()).await?;
    let row = catalog.create_bucket("bench", "bench", 0).await?;
    let bucket = BucketRef {
        name: "bench".to_owned(),
        incarnation: row.incarnation,
    };
    let group = GroupRow {
        id: GROUP,
        generation: Generation(1),
        data: 4,
        parity: 2,
        medium: Medium::Flash,
        slots: (1..=6).map(DiskId).collect(),
        state: GroupState::Open,
        narrow: false,
        slot_bytes: 0,
    };
    catalog.put_group(&group, None).await?;
    let mut next = 1;
    for tasks in [1, 16, 64] {
        let (catalog, bucket) = (catalog.clone(), bucket.clone());
        let count = measure("publish a blob", tasks, next, move |n| {
            let (catalog, request) = (catalog.clone(), object(&bucket, n, blob(n)));
            async move { catalog.publish(request).await.map(drop) }
        });
        // Numbers of a task go in steps of `tasks`: leave room.
        next += count.await? * tasks + tasks;
    }
    let first_inline = next;
    let inline = {
        let (catalog, bucket) = (catalog.clone(), bucket.clone());
        measure("publish 1 KiB inline", 64, next, move |n| {
            let body = PublishBody::Inline(Bytes::from(vec![7; 1024]));
            let (catalog, request) = (catalog.clone(), object(&bucket, n, body));
            async move { catalog.publish(request).await.map(drop) }
        })
        .await?
    };
    let known = inline / 64 * 32;
    for tasks in [1, 16] {
        let (catalog, bucket) = (catalog.clone(), bucket.clone());
        measure("read 1 KiB inline", tasks, 0, move |n| {
            // Half of those that the slowest writer certainly made.
            let n = first_inline + n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % known.max(1);
            let key = format!("folder-{:03}/object-{n:010}", n % 1000);
            let (catalog, incarnation) = (catalog.clone(), bucket.incarnation);
            async move { catalog.read_object(incarnation, &key).await.map(drop) }
        })
        .await?;
    }
    next += inline * 64 + 64;
    list(&catalog, &bucket).await?;
    next = complete_beside_writers(&catalog, &bucket, next).await?;
    delete_and_list(&catalog, &bucket, next).await?;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    println!(
        "memory at its peak            {}",
        peak.unwrap_or("unknown")
    );
    Ok(())
}

async fn list(catalog: &Catalog, bucket: &BucketRef) -> Result<()> {
    for delimiter in [None, Some("/".to_owned())] {
        let name = match delimiter {
            None => "list 1,000 keys",
            Some(_) => "list 1,000 common prefixes",
        };
        let (catalog, incarnation) = (catalog.clone(), bucket.incarnation);
        measure(name, 1, 0, move |_| {
            let query = ListQuery {
                delimiter: delimiter.clone(),
                limit: 1000,
                ..ListQuery::default()
            };
            let catalog = catalog.clone();
            async move { catalog.list_objects(incarnation, &query).await.map(drop) }
        })
        .await?;
    }
    Ok(())
}

/// An upload with 10,000 parts.
async fn begin_upload(catalog: &Catalog, bucket: &BucketRef, uid: VersionUid) -> Result<()> {
    let upload = UploadRow {
        uid,
        initiated: 0,
        owner: String::new(),
        class: 0,
        detail: DetailRow::default(),
        checksum: None,
        group: None,
    };
    catalog.create_upload(bucket, "large", &upload).await?;
    let mut lanes = Vec::new();
    for lane in 0..50u16 {
        let (catalog, bucket) = (catalog.clone(), bucket.clone());
        lanes.push(tokio::spawn(async move {
            for number in (1..=10_000).filter(|number| number % 50 == lane) {
                let row = UploadPartRow {
                    number,
                    blob: None,
                    len: MIN_PART_BYTES,
                    md5: [7; 16],
                    checksum: None,
                    modified: 0,
                };
                let PublishBody::Blob(written) = blob((1 << 60) + u64::from(number)) else {
                    unreachable!("blob() makes a blob");
                };
                let stored = catalog.put_part(&bucket, "large", uid, row, Some(&written));
                stored.await?;
            }
            Ok::<_, CatalogError>(())
        }));
    }
    for lane in lanes {
        lane.await.expect("a task does not panic")?;
    }
    Ok(())
}

/// An upload of 10,000 parts is completed while others publish: what it takes,
/// and what it takes from them.
async fn complete_beside_writers(catalog: &Catalog, bucket: &BucketRef, first: u64) -> Result<u64> {
    let uid = VersionUid(u128::MAX);
    begin_upload(catalog, bucket, uid).await?;
    let parts = (1..=10_000).map(|number| CompletePart {
        number,
        md5: [7; 16],
    });
    let request = CompleteRequest {
        bucket: bucket.clone(),
        key: "large".to_owned(),
        uid,
        parts: parts.collect(),
        condition: WriteCondition::None,
        now: 0,
    };
    let complete = {
        let catalog = catalog.clone();
        tokio::spawn(async move {
            tokio::time::sleep(RUN / 2).await;
            let begun = Instant::now();
            let finish = |_: &_, _: &[_]| {
                Ok::<_, CatalogError>(CompleteFinish {
                    etag: ETag {
                        md5: [7; 16],
                        parts: 10_000,
                    },
                    checksum: None,
                })
            };
            catalog.complete_upload(&request, finish).await?;
            Ok::<_, CatalogError>(begun.elapsed())
        })
    };
    let (publisher, target) = (catalog.clone(), bucket.clone());
    let count = measure("publish beside a completion", 16, first, move |n| {
        let (catalog, request) = (publisher.clone(), object(&target, n, blob(n)));
        async move { catalog.publish(request).await.map(drop) }
    });
    let count = count.await?;
    let took = complete.await.expect("a task does not panic")?;
    println!("complete 10,000 parts         {took:.1?}");
    Ok(first + count * 16 + 16)
}

/// Lists behind 200,000 keys that were deleted just before.
async fn delete_and_list(catalog: &Catalog, bucket: &BucketRef, first: u64) -> Result<()> {
    let name = |n: u64| format!("deleted/{n:010}");
    let mut lanes = Vec::new();
    for lane in 0..64u64 {
        let (catalog, bucket) = (catalog.clone(), bucket.clone());
        lanes.push(tokio::spawn(async move {
            for n in (first..first + 200_000).filter(|n| n % 64 == lane) {
                let mut request = object(&bucket, n, PublishBody::Inline(Bytes::from("x")));
                request.key = name(n);
                catalog.publish(request).await?;
            }
            Ok::<_, CatalogError>(())
        }));
    }
    for lane in lanes {
        lane.await.expect("a task does not panic")?;
    }
    let keys: Vec<_> = (first..first + 200_000).map(name).collect();
    let begun = Instant::now();
    for keys in keys.chunks(1000) {
        catalog.delete_objects(bucket, keys).await?;
    }
    let took = begun.elapsed();
    println!("delete 1,000 keys             {:.1?}", took / 200);
    let query = ListQuery {
        prefix: "deleted/".to_owned(),
        limit: 1000,
        ..ListQuery::default()
    };
    for wait in [0, 2, 2] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let begun = Instant::now();
        let page = catalog.list_objects(bucket.incarnation, &query).await?;
        assert!(page.entries.is_empty(), "all of them were deleted");
        println!("list 200,000 deleted keys     {:.1?}", begun.elapsed());
        // Any write lets the engine put away what the scan stepped over.
        let body = PublishBody::Inline(Bytes::from("x"));
        catalog.publish(object(bucket, first, body)).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let temporary = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    run(folder.unwrap_or_else(|| temporary.path().join("catalog"))).await
}

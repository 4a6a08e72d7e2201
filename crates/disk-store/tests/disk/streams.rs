//! Streams of a whole disk: everything of a group comes, at a set speed,
//! whatever callers and upkeep do meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shardgate_disk_store::{
    DiskOptions, LocalDisk, ShardStream, VolumeFigures, Window, WindowCursor, WindowPlace,
};
use shardgate_wire::checksum::{CHECK_BLOCK, block_crcs};
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{MAX_APPEND_BYTES, ShardEnd};
use shardgate_wire::{CallContext, ShardKey, ShardStore, StoreError};
use tokio::time::Instant;

use crate::folder::{Folder, expected, options};

const FAST: u64 = u64::MAX;
/// Shards of this length, told before or not, lie in files.
const LARGE: usize = (2 << 20) + 4321;

/// Volumes that are sealed and compacted all the time.
fn busy() -> DiskOptions {
    DiskOptions {
        volumes: Some(VolumeFigures {
            volume_bytes: 256 << 10,
            volume_records: 8,
            zero_step: 16 << 10,
            large_batch: 64 << 10,
            volume_max: 100_000,
            punch_from: 16 << 10,
            log_bytes: 1 << 20,
            open_files: 4,
            sync_at_once: false,
        }),
        volume_rest: Duration::from_millis(200),
        compact_bytes_per_second: 1 << 30,
        ..options()
    }
}

fn open(folder: &Folder) -> LocalDisk {
    LocalDisk::open(folder.path(), &expected(), busy()).unwrap()
}

fn start() -> WindowCursor {
    WindowCursor::start(sample::GROUP)
}

fn ctx() -> CallContext {
    sample::context(1)
}

async fn append(disk: &LocalDisk, blob: u128, len: usize, known: bool) {
    let ctx = ctx();
    let announced = known.then_some(len as u64);
    let opened = disk.open(&ctx, sample::header(&ctx, blob), announced).await;
    let handle = opened.unwrap();
    let (bytes, mut at) = (sample::bytes(blob, len), 0);
    while at < len {
        let step = bytes.slice(at..(at + MAX_APPEND_BYTES).min(len));
        let crcs = block_crcs(&step);
        let (from, next) = (at as u64, at + step.len());
        disk.append(&ctx, handle, from, step, &crcs).await.unwrap();
        at = next;
    }
    let end = ShardEnd {
        shard_len: len as u64,
        blob_len: 4 * len as u64,
    };
    disk.finish(&ctx, handle, end).await.unwrap();
}

/// What a stream gave, by blob: beginnings of blocks.
#[derive(Default)]
struct Came {
    blocks: BTreeMap<u128, BTreeSet<u64>>,
    damaged: BTreeSet<ShardKey>,
}

impl Came {
    fn take(&mut self, window: &Window, stored: &BTreeMap<u128, usize>) {
        for record in &window.records {
            let blob = record.key.blob.0;
            let shard = match &record.shard {
                Ok(shard) => shard,
                Err(StoreError::Corrupt { .. }) => {
                    self.damaged.insert(record.key);
                    continue;
                }
                Err(error) => panic!("{blob}: {error}"),
            };
            let len = *stored.get(&blob).expect("it was deleted before");
            let at = usize::try_from(shard.offset).unwrap();
            let whole = sample::bytes(blob, len);
            assert!(
                shard.bytes == whole[at..at + shard.bytes.len()],
                "{blob} at {at}"
            );
            assert_eq!(shard.header, sample::header(&ctx(), blob));
            assert_eq!(shard.end.shard_len, len as u64);
            assert!(shard.bytes.len() <= 1 << 20);
            let end = shard.offset + (shard.bytes.len() as u64).max(1);
            let blocks = self.blocks.entry(blob).or_default();
            blocks.extend((shard.offset..end).step_by(CHECK_BLOCK));
        }
    }

    fn has(&self, blob: u128, len: usize) -> bool {
        let all = (0..(len as u64).max(1)).step_by(CHECK_BLOCK).collect();
        self.blocks.get(&blob) == Some(&all)
    }
}

async fn rest_of(stream: &mut ShardStream, stored: &BTreeMap<u128, usize>) -> Came {
    let mut came = Came::default();
    while let Some(window) = stream.next().await.unwrap() {
        came.take(&window, stored);
    }
    assert_eq!(stream.cursor(), None);
    assert_eq!(stream.next().await, Ok(None));
    came
}

/// One more of each kind now and then, by its number.
async fn add(disk: &LocalDisk, stored: &mut BTreeMap<u128, usize>, blob: u128) {
    let len = match blob % 13 {
        0 => LARGE,
        kind => [0, 90_000, 300, 5000, 70_000][kind as usize % 5],
    };
    match blob % 3 {
        _ if len == LARGE => append(disk, blob, len, blob.is_multiple_of(2)).await,
        0 if len > 0 => append(disk, blob, len, true).await,
        1 if len > 0 => append(disk, blob, len, false).await,
        _ => disk
            .put(&ctx(), sample::small(&ctx(), blob, len))
            .await
            .unwrap(),
    }
    stored.insert(blob, len);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_stays_comes_while_everything_changes() {
    let folder = Folder::new();
    let mut disk = open(&folder);
    disk.assign(&ctx(), &[sample::slot()]).await.unwrap();
    let mut stored = BTreeMap::new();
    for blob in 1..=60 {
        add(&disk, &mut stored, blob).await;
    }
    let steady = stored.clone();
    let mut came = Came::default();
    let (mut stream, mut next_blob, mut turn) = (disk.stream(start(), FAST), 61, 0_u128);
    let mut place = Some(start());
    while let Some(from) = place {
        turn += 1;
        let window = match turn % 3 {
            0 => stream.next().await.unwrap(),
            _ => Some(disk.window(from, 200_000).await.unwrap()),
        };
        let Some(window) = window else { break };
        came.take(&window, &stored);
        assert!(window.next.is_none_or(|next| next > from));
        place = window.next;
        if turn < 80 {
            add(&disk, &mut stored, next_blob).await;
            next_blob += 1;
            // Some of before, some of those that came meanwhile.
            let gone = [turn * 7 % 60 + 1, next_blob - 3];
            for blob in gone.into_iter().filter(|_| turn % 2 == 0) {
                disk.delete(&ctx(), &[sample::key(blob)]).await.unwrap();
                stored.remove(&blob);
            }
        }
        if turn % 9 == 0 {
            disk.close().await;
            disk = open(&folder);
        }
        if let Some(place) = place {
            let kept = WindowCursor::from_bytes(&place.to_bytes()).unwrap();
            stream = disk.stream(kept, FAST);
        }
    }
    for (blob, len) in &steady {
        let stays = stored.contains_key(blob);
        assert!(!stays || came.has(*blob, *len), "{blob} of {len} bytes");
    }
    // And all that is there now, in one go.
    let all = rest_of(&mut disk.stream(start(), FAST), &stored).await;
    assert!(stored.iter().all(|(blob, len)| all.has(*blob, *len)));
    assert_eq!(all.blocks.len(), stored.len());
    disk.close().await;
}

#[tokio::test]
async fn damage_of_files_is_said_with_its_key() {
    let folder = Folder::new();
    let disk = open(&folder);
    disk.assign(&ctx(), &[sample::slot()]).await.unwrap();
    let stored: BTreeMap<u128, usize> = (1..=8).map(|blob| (blob, LARGE)).collect();
    for blob in stored.keys() {
        append(&disk, *blob, LARGE, false).await;
    }
    // Its head, its first and its last block, its checksums, its trailer; one
    // that is cut; one that another's name was given to.
    let key = sample::key;
    folder.change(key(1), |bytes| bytes[20] ^= 1);
    folder.change(key(2), |bytes| bytes[4096] ^= 1);
    folder.change(key(3), |bytes| {
        let at = 4096 + LARGE - 1;
        bytes[at] ^= 1;
    });
    folder.change(key(4), |bytes| {
        let at = bytes.len() - 100;
        bytes[at] ^= 1;
    });
    folder.change(key(5), |bytes| {
        let at = bytes.len() - 50;
        bytes[at] ^= 1;
    });
    folder.change(key(6), |bytes| bytes.truncate(1 << 20));
    let other = std::fs::read(folder.shard_path(key(8))).unwrap();
    folder.change(key(7), |bytes| *bytes = other);
    let came = rest_of(&mut disk.stream(start(), FAST), &stored).await;
    assert_eq!(came.damaged, (1..=7).map(key).collect());
    assert!(came.has(8, LARGE));
    // What is whole of one comes all the same.
    assert!(came.blocks[&2].len() > 10 && came.blocks[&3].len() > 10);
    // A stream says what is so, and leaves the rest to who asked for it.
    assert_eq!(disk.damaged().await, Ok(vec![]));
    disk.close().await;
}

/// By a clock that passes when everybody waits.
#[tokio::test(start_paused = true)]
async fn a_stream_keeps_its_speed() {
    let folder = Folder::new();
    let disk = open(&folder);
    disk.assign(&ctx(), &[sample::slot()]).await.unwrap();
    let mut stored = BTreeMap::new();
    for blob in 1..=40 {
        add(&disk, &mut stored, blob).await;
    }
    for speed in [100_000, 1_000_000] {
        let begun = Instant::now();
        let allowed = || begun.elapsed().as_millis() as u64 * speed / 1000;
        let (mut stream, mut read, mut windows) = (disk.stream(start(), speed), 0, 0);
        let mut came = Came::default();
        while let Some(window) = stream.next().await.unwrap() {
            // It was asked for when what came before was paid for.
            assert!(
                read <= allowed() + speed / 1000,
                "{read} of {} bytes",
                allowed()
            );
            read += window.read_bytes;
            came.take(&window, &stored);
            windows += 1;
            if windows % 5 == 0 {
                // What was not read meanwhile is not read later.
                tokio::time::sleep(Duration::from_secs(5)).await;
                read = read.max(allowed());
            }
        }
        assert!(windows > 5, "{windows}");
        assert!(stored.iter().all(|(blob, len)| came.has(*blob, *len)));
    }
    disk.close().await;
}

#[tokio::test]
async fn a_stream_of_a_closed_disk_ends_with_an_error() {
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    disk.put(&ctx(), sample::small(&ctx(), 1, 10))
        .await
        .unwrap();
    let mut stream = disk.stream(start(), FAST);
    disk.close().await;
    for gone in [false, true] {
        let next = stream.next().await;
        let told = matches!(next, Err(StoreError::Unreachable { .. }));
        assert!(told, "{gone}: {next:?}");
        assert_eq!(stream.cursor(), Some(start()));
    }
    drop(disk);
    assert!(matches!(
        stream.next().await,
        Err(StoreError::Unreachable { .. })
    ));
    stream.pass_over();
    assert!(stream.cursor() > Some(start()));
}

#[tokio::test]
async fn any_place_among_files_is_one() {
    let folder = Folder::new();
    let disk = open(&folder);
    disk.assign(&ctx(), &[sample::slot()]).await.unwrap();
    append(&disk, 5, LARGE, false).await;
    for blob in [0, 4, 5, 6, u128::MAX] {
        for index in [0, 1, 255] {
            for within in [0, 1, 65_536, LARGE as u64, 1 << 40, u64::MAX] {
                let place = WindowPlace::File {
                    blob: shardgate_wire::BlobId(blob),
                    index,
                    within,
                };
                let window = disk.window(WindowCursor { place, ..start() }, 1).await;
                let records = window.unwrap().records;
                assert!(records.iter().all(|record| record.shard.is_ok()));
            }
        }
    }
    disk.close().await;
}

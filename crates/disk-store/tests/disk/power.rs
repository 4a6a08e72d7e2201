//! The power goes: what was answered is there, and nothing is damaged.
//!
//! The disk lies on an ext4 in a file. While it is open and has answered, a
//! copy of that file is what the device was given so far; what only the page
//! cache or an open transaction of the file system has is not in it. The copy
//! is mounted, its journal replayed, and the disk in it opened.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use shardgate_disk_store::{DiskOptions, LocalDisk};
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{BlobId, Generation, GroupId};
use shardgate_wire::store::{ListedShard, MAX_APPEND_BYTES, ShardEnd, ShardHandle};
use shardgate_wire::{CallContext, Medium, ShardKey, ShardStore, SlotAssignment, StoreError};
use tempfile::TempDir;

use crate::folder::{expected, new_disk, options};

const LONG_LEN: usize = MAX_APPEND_BYTES + 70_000;
const SMALL_LEN: usize = 2000;

/// A file system in a file, mounted; needs root and loop devices.
pub(crate) struct Image {
    dir: TempDir,
}

impl Image {
    fn file(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.dir.path().join("mounted")
    }

    pub(crate) fn disk(&self) -> PathBuf {
        self.mounted().join("disk")
    }

    pub(crate) fn fresh() -> Self {
        let image = Self {
            dir: TempDir::new().unwrap(),
        };
        let file = std::fs::File::create(image.file()).unwrap();
        file.set_len(96 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F"], &[&image.file()]);
        image.mount();
        image
    }

    /// What the device of `other` was given so far.
    pub(crate) fn after_power_loss(other: &Self) -> Self {
        let image = Self {
            dir: TempDir::new().unwrap(),
        };
        std::fs::copy(other.file(), image.file()).unwrap();
        image.mount();
        image
    }

    /// The file system commits by itself only after minutes.
    fn mount(&self) {
        std::fs::create_dir(self.mounted()).unwrap();
        let paths = [self.file(), self.mounted()];
        run("mount", &["-o", "loop,commit=300"], &[&paths[0], &paths[1]]);
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.mounted())
            .status();
    }
}

fn run(program: &str, args: &[&str], paths: &[&Path]) {
    let status = Command::new(program).args(args).args(paths).status();
    assert!(status.unwrap().success(), "{program} {args:?} {paths:?}");
}

/// Blobs in folders of their own, in two groups.
fn key(number: u128) -> ShardKey {
    ShardKey {
        group: GroupId(1 + (number % 2) as u64),
        blob: BlobId(((number % 3) << 100) | number),
        index: 0,
    }
}

fn slots() -> [SlotAssignment; 2] {
    [1, 2].map(|group| SlotAssignment {
        group: GroupId(group),
        ..sample::slot()
    })
}

fn header(ctx: &CallContext, number: u128) -> shardgate_wire::ShardHeader {
    let mut header = sample::header(ctx, number);
    header.key = key(number);
    header
}

async fn put(disk: Arc<LocalDisk>, ctx: CallContext, number: u128) -> Result<(), StoreError> {
    let mut small = sample::small(&ctx, number, SMALL_LEN);
    small.header = header(&ctx, number);
    disk.put(&ctx, small).await
}

/// Opens a shard and appends all of it, without ending it.
async fn begin(disk: &LocalDisk, ctx: &CallContext, number: u128) -> ShardHandle {
    let opened = disk.open(ctx, header(ctx, number), None).await;
    let handle = opened.unwrap();
    let bytes = sample::bytes(number, LONG_LEN);
    for start in (0..LONG_LEN).step_by(MAX_APPEND_BYTES) {
        let block = bytes.slice(start..LONG_LEN.min(start + MAX_APPEND_BYTES));
        let crcs = block_crcs(&block);
        let appended = disk.append(ctx, handle, start as u64, block, &crcs).await;
        appended.unwrap();
    }
    handle
}

async fn finish(disk: &LocalDisk, ctx: &CallContext, handle: ShardHandle) {
    let end = ShardEnd {
        shard_len: LONG_LEN as u64,
        blob_len: 4 * LONG_LEN as u64,
    };
    disk.finish(ctx, handle, end).await.unwrap();
}

async fn assert_whole(disk: &LocalDisk, number: u128, len: usize) {
    let read = disk.read(key(number), 0, len as u32).await;
    let read = read.unwrap_or_else(|error| panic!("shard {number} was answered: {error}"));
    assert_eq!(read.bytes, sample::bytes(number, len));
}

async fn survives(medium: Medium) {
    let before = Image::fresh();
    let mut new = new_disk();
    new.create_folder = true;
    new.medium = Some(medium);
    LocalDisk::format_for(&before.disk(), &new, &options()).unwrap();
    let options = options();
    let disk = LocalDisk::open(&before.disk(), &expected(), options.clone()).unwrap();
    let disk = Arc::new(disk);
    let ctx = sample::context(9);
    disk.assign(&ctx, &slots()).await.unwrap();

    // Small ones, many at once, and each alone in its folder for a start.
    put(Arc::clone(&disk), ctx, 1).await.unwrap();
    assert_after_loss(&before, &options, &[1], &[], &[]).await;
    let puts: Vec<_> = (2..40)
        .map(|number| tokio::spawn(put(Arc::clone(&disk), ctx, number)))
        .collect();
    for done in puts {
        done.await.unwrap().unwrap();
    }
    let small: Vec<u128> = (1..40).collect();
    assert_after_loss(&before, &options, &small, &[], &[]).await;

    // Long ones, some of which never end.
    let mut long = vec![];
    for number in 100..108 {
        let handle = begin(&disk, &ctx, number).await;
        if number % 2 == 0 {
            finish(&disk, &ctx, handle).await;
            long.push(number);
        }
    }
    assert_after_loss(&before, &options, &small, &long, &[]).await;

    // Deletes do not come back.
    let gone: Vec<u128> = small
        .iter()
        .chain(&long)
        .copied()
        .filter(|n| n % 3 == 0)
        .collect();
    let keys: Vec<_> = gone.iter().map(|number| key(*number)).collect();
    disk.delete(&ctx, &keys).await.unwrap();
    let stays = |of: &[u128]| of.iter().copied().filter(|n| n % 3 > 0).collect::<Vec<_>>();
    assert_after_loss(&before, &options, &stays(&small), &stays(&long), &gone).await;

    // Neither do epochs and generations.
    let moved = SlotAssignment {
        generation: Generation(6),
        ..slots()[0]
    };
    let newer = sample::context(10);
    disk.raise_epoch(&newer).await.unwrap();
    disk.assign(&newer, &[moved]).await.unwrap();
    let after = Image::after_power_loss(&before);
    let recovered = LocalDisk::open(&after.disk(), &expected(), options).unwrap();
    let held = newer.epoch;
    let stale = put(Arc::new(recovered), ctx, 500).await;
    assert_eq!(stale, Err(StoreError::StaleEpoch { held }));
    let recovered = {
        let after = Image::after_power_loss(&before);
        let disk = LocalDisk::open(&after.disk(), &expected(), DiskOptions::default()).unwrap();
        let held = Some(moved);
        let stale = disk.assign(&newer, &slots()[..1]).await;
        assert_eq!(stale, Err(StoreError::StaleGeneration { held }));
        disk.close().await;
        after
    };
    drop(recovered);
}

/// What a disk is after the power went: `small` and `long` are whole, `gone`
/// is absent, all else is unfinished or whole.
async fn assert_after_loss(
    before: &Image,
    options: &DiskOptions,
    small: &[u128],
    long: &[u128],
    gone: &[u128],
) {
    let after = Image::after_power_loss(before);
    let disk = LocalDisk::open(&after.disk(), &expected(), options.clone()).unwrap();
    for (numbers, len) in [(small, SMALL_LEN), (long, LONG_LEN)] {
        for number in numbers {
            assert_whole(&disk, *number, len).await;
        }
    }
    for number in gone {
        let stat = disk.stat(key(*number)).await;
        assert_eq!(
            stat,
            Err(StoreError::NotFound),
            "shard {number} was deleted"
        );
    }
    let listed = disk.list(None, 1000).await.unwrap();
    let finished = listed.iter().filter(|entry| entry.finished).count();
    assert_eq!(finished, small.len() + long.len());
    for ListedShard { key, finished, .. } in listed {
        let read = disk.read(key, 0, 2 * MAX_APPEND_BYTES as u32).await;
        // A range beyond its end is refused of a whole one.
        let whole = matches!(read, Err(StoreError::BadCall { .. }));
        let absent = read == Err(StoreError::NotFound);
        assert!(whole == finished && absent != finished, "{key:?}: {read:?}");
    }
    disk.close().await;
}

#[tokio::test]
async fn a_flash_disk_survives_the_loss_of_power() {
    survives(Medium::Flash).await;
}

#[tokio::test]
async fn a_rotating_disk_survives_the_loss_of_power() {
    survives(Medium::Rotating).await;
}

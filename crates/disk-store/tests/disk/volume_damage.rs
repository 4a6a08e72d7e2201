//! Volumes, directories and logs that are cut, flipped, exchanged or gone:
//! what was stored is served whole or called corrupt, never absent; what was
//! deleted does not come back as long as the log is there; other volumes go
//! on.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shardgate_disk_store::{DiskOptions, LocalDisk, NewDisk, VolumeFigures};
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::DiskId;
use shardgate_wire::{ShardStore, StoreError};
use tempfile::TempDir;

use crate::folder::{expected, new_disk, options};

/// Three volumes and a bit: some sealed, the last one open.
const STORED: u128 = 50;
const LENGTHS: [usize; 4] = [0, 100, 3000, 9000];

fn small_volumes() -> DiskOptions {
    DiskOptions {
        volumes: Some(VolumeFigures {
            volume_bytes: 256 * 1024,
            volume_records: 16,
            zero_step: 64 * 1024,
            large_batch: 16 << 10,
            volume_max: 64 * 1024,
            punch_from: 1 << 20,
            log_bytes: 1 << 20,
            open_files: 8,
            sync_at_once: false,
        }),
        ..options()
    }
}

fn len_of(blob: u128) -> usize {
    LENGTHS[blob as usize % LENGTHS.len()]
}

fn is_deleted(blob: u128) -> bool {
    blob.is_multiple_of(7)
}

/// A disk that was closed in order, to damage copies of.
async fn filled(new: &NewDisk) -> TempDir {
    let folder = TempDir::new().unwrap();
    LocalDisk::format(folder.path(), new).unwrap();
    let mut expected = expected();
    expected.disk = Some(new.disk);
    let disk = LocalDisk::open(folder.path(), &expected, small_volumes()).unwrap();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    for blob in 1..=STORED {
        let put = disk.put(&ctx, sample::small(&ctx, blob, len_of(blob)));
        put.await.unwrap();
    }
    let deleted: Vec<_> = (1..=STORED).filter(|b| is_deleted(*b)).collect();
    let keys: Vec<_> = deleted.into_iter().map(sample::key).collect();
    disk.delete(&ctx, &keys).await.unwrap();
    disk.close().await;
    folder
}

fn copy(from: &Path) -> TempDir {
    fn copy_into(from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.path().is_dir() {
                fs::create_dir(&to).unwrap();
                copy_into(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let to = TempDir::new().unwrap();
    copy_into(from, to.path());
    to
}

/// Files of the volumes and the log, relative to the disk's folder.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let group = Path::new("volumes").join(sample::GROUP.to_string());
    for parent in [group.as_path(), Path::new("log")] {
        for entry in fs::read_dir(folder.join(parent)).unwrap() {
            let path = parent.join(entry.unwrap().file_name());
            if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "there are files .{ending}");
    found
}

/// Blobs that are called corrupt, after all others were seen to be what they
/// should be; none if the disk was refused.
async fn corrupt_ones(folder: &Path, what: &str) -> Option<BTreeSet<u128>> {
    let disk = match LocalDisk::open(folder, &expected(), small_volumes()) {
        Ok(disk) => disk,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty(), "{what}");
            return None;
        }
    };
    let mut corrupt = BTreeSet::new();
    for blob in 1..=STORED {
        let len = len_of(blob);
        let read = disk.read(sample::key(blob), 0, len.max(1) as u32).await;
        match read {
            Err(StoreError::Corrupt { .. }) => {
                corrupt.insert(blob);
            }
            // A log that is cut no longer says what was deleted, and the disk
            // does not refuse it: whoever keeps the catalog condemns again.
            Ok(_) | Err(StoreError::BadCall { .. })
                if is_deleted(blob) && what.starts_with("log") && what.contains("cut") => {}
            read if is_deleted(blob) => {
                let absent = read == Err(StoreError::NotFound);
                assert!(absent, "{what}: {blob} was deleted");
            }
            // A range beyond the end of a whole shard.
            Err(StoreError::BadCall { .. }) if len == 0 => {}
            Ok(read) => assert_eq!(read.bytes, sample::bytes(blob, len), "{what}: {blob}"),
            Err(error) => panic!("{what}: {blob} was stored: {error}"),
        }
    }
    disk.close().await;
    Some(corrupt)
}

fn change(folder: &Path, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = folder.join(file);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_sound_copy_has_all() {
    let folder = filled(&new_disk()).await;
    let copy = copy(folder.path());
    assert_eq!(corrupt_ones(copy.path(), "a copy").await, Some([].into()));
    assert!(files(folder.path(), "vol").len() >= 3);
    assert!(files(folder.path(), "dir").len() >= 2);
}

#[tokio::test]
async fn flipped_bits_are_noticed() {
    let folder = filled(&new_disk()).await;
    let mut noticed = 0;
    for ending in ["vol", "dir", "log"] {
        for file in files(folder.path(), ending) {
            let len = fs::metadata(folder.path().join(&file)).unwrap().len() as usize;
            // Everywhere at the start, where the heads are, and here and
            // there in what follows.
            let places = (0..512).step_by(29).chain((512..len).step_by(len / 12 + 7));
            for place in places.filter(|place| *place < len) {
                let damaged = copy(folder.path());
                change(damaged.path(), &file, |bytes| {
                    bytes[place] ^= 1 << (place % 8)
                });
                let what = format!("{} flipped at {place}", file.display());
                let corrupt = corrupt_ones(damaged.path(), &what).await;
                noticed += usize::from(corrupt.is_none_or(|corrupt| !corrupt.is_empty()));
            }
        }
    }
    assert!(noticed > 20, "{noticed}");
}

#[tokio::test]
async fn cut_files_are_noticed() {
    let folder = filled(&new_disk()).await;
    for ending in ["vol", "dir", "log"] {
        for file in files(folder.path(), ending) {
            let len = fs::metadata(folder.path().join(&file)).unwrap().len() as usize;
            for cut in [0, 100, 4096, len / 2, len - 1] {
                let damaged = copy(folder.path());
                change(damaged.path(), &file, |bytes| bytes.truncate(cut));
                let what = format!("{} cut to {cut}", file.display());
                let corrupt = corrupt_ones(damaged.path(), &what).await;
                if ending == "vol" && cut <= 4096 {
                    let some = corrupt.is_none_or(|corrupt| !corrupt.is_empty());
                    assert!(some, "{what}");
                }
            }
        }
    }
}

#[tokio::test]
async fn lost_directories_are_built_anew() {
    let folder = filled(&new_disk()).await;
    for file in files(folder.path(), "dir") {
        let damages: [fn(&Path); 3] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::write(path, b"").unwrap(),
            |path| fs::write(path, vec![0xaa; 9000]).unwrap(),
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let damaged = copy(folder.path());
            damage(&damaged.path().join(&file));
            let what = format!("{} damaged as {number}", file.display());
            let corrupt = corrupt_ones(damaged.path(), &what).await;
            assert_eq!(corrupt, Some([].into()), "{what}");
        }
    }
}

#[tokio::test]
async fn foreign_volumes_are_not_served() {
    let folder = filled(&new_disk()).await;
    let other = NewDisk {
        disk: DiskId(0xf0e1),
        ..new_disk()
    };
    let foreign = filled(&other).await;
    let volumes = files(folder.path(), "vol");
    // In place of one of ours: what ours had is damaged.
    for file in &volumes {
        let damaged = copy(folder.path());
        let theirs = foreign.path().join(file);
        fs::copy(theirs, damaged.path().join(file)).unwrap();
        let what = format!("foreign {}", file.display());
        let corrupt = corrupt_ones(damaged.path(), &what).await;
        assert!(corrupt.is_none_or(|corrupt| !corrupt.is_empty()), "{what}");
    }
    // One of ours in place of another.
    let damaged = copy(folder.path());
    fs::copy(
        folder.path().join(&volumes[0]),
        damaged.path().join(&volumes[1]),
    )
    .unwrap();
    let corrupt = corrupt_ones(damaged.path(), "exchanged").await;
    assert!(corrupt.is_none_or(|corrupt| !corrupt.is_empty()));
    // Beside ours, with its directory or without: what ours had is there, or
    // the disk says that it does not understand.
    for endings in [&["vol"][..], &["vol", "dir"]] {
        let damaged = copy(folder.path());
        for ending in endings {
            let theirs = foreign.path().join(&files(foreign.path(), ending)[0]);
            let name = format!("00000000000fffff.{ending}");
            let group = volumes[0].parent().unwrap();
            fs::copy(theirs, damaged.path().join(group).join(name)).unwrap();
        }
        corrupt_ones(damaged.path(), &format!("{endings:?} beside ours")).await;
    }
}

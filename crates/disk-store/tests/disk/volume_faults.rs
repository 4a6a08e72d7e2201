//! Syncs of volumes and of the log that fail in a real process, and a file
//! system that is full: nothing that was answered is lost.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use shardgate_disk_store::{DiskOptions, LocalDisk, VolumeFigures};
use shardgate_wire::conformance::sample;
use shardgate_wire::{ShardStore, StoreError};

use crate::faults::Mount;
use crate::folder::{Folder, expected, options};

const CHILD_FOLDER: &str = "SHARDGATE_FAILING_VOLUMES";
const LEN: usize = 3000;
/// Shards that the child stores unless it is refused before.
const MOST: u128 = 400;

fn small_volumes() -> DiskOptions {
    DiskOptions {
        volumes: Some(VolumeFigures {
            volume_bytes: 256 * 1024,
            volume_records: 32,
            zero_step: 32 * 1024,
            large_batch: 16 << 10,
            volume_max: 64 * 1024,
            punch_from: 64 * 1024,
            log_bytes: 64 * 1024,
            open_files: 8,
            sync_at_once: true,
        }),
        ..options()
    }
}

/// Stores and deletes until the disk is fenced; says what was answered.
#[tokio::test]
#[ignore = "runs under strace, started by another test"]
async fn child_whose_syncs_fail() {
    let Ok(path) = std::env::var(CHILD_FOLDER) else {
        return;
    };
    let disk = LocalDisk::open(Path::new(&path), &expected(), small_volumes()).unwrap();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    };
    for blob in 1..=MOST {
        let put = disk.put(&ctx, sample::small(&ctx, blob, LEN)).await;
        if put.is_err() {
            return refused(&disk, put, blob).await;
        }
        say(format!("stored {blob}"));
        if blob.is_multiple_of(5) {
            say(format!("deleting {blob}"));
            let deleted = disk.delete(&ctx, &[sample::key(blob)]).await;
            if deleted.is_err() {
                return refused(&disk, deleted, blob).await;
            }
            say(format!("deleted {blob}"));
        }
    }
    say("never refused".to_owned());
}

/// The first refusal is a fence, and stays; reads go on.
async fn refused(disk: &LocalDisk, why: Result<(), StoreError>, blob: u128) {
    assert!(matches!(why, Err(StoreError::Fenced { .. })), "{why:?}");
    let ctx = sample::context(1);
    let again = disk.put(&ctx, sample::small(&ctx, 1000, LEN)).await;
    assert!(matches!(again, Err(StoreError::Fenced { .. })), "{again:?}");
    assert!(disk.health().await.unwrap().fenced.is_some());
    for before in (1..blob).filter(|blob| !blob.is_multiple_of(5)) {
        let read = disk.read(sample::key(before), 0, LEN as u32).await;
        assert_eq!(read.unwrap().bytes, sample::bytes(before, LEN));
    }
}

/// Blobs that a line of the output names.
fn named(output: &str, what: &str) -> Vec<u128> {
    let of = |line: &str| line.strip_prefix(what)?.trim().parse().ok();
    output.lines().filter_map(of).collect()
}

async fn fails(call: &str, when: u32, under: &str, must_fence: bool) {
    let folder = Folder::new();
    let group = sample::GROUP.to_string();
    let volumes = folder.path().join("volumes").join(&group);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null"]);
    strace.arg(format!("--trace={call}"));
    strace.arg(format!("--inject={call}:error=EIO:when={when}"));
    let paths = match under {
        "log" => (1..9)
            .map(|n| folder.path().join(format!("log/{n:016x}.log")))
            .collect(),
        "folder" => vec![volumes],
        _ => (1..99)
            .map(|n| volumes.join(format!("{n:016x}.vol")))
            .collect::<Vec<_>>(),
    };
    for path in paths {
        strace.arg("-P").arg(path);
    }
    strace.arg(std::env::current_exe().unwrap());
    strace.args(["--exact", "--ignored", "--nocapture"]);
    strace.arg("volume_faults::child_whose_syncs_fail");
    strace.env(CHILD_FOLDER, folder.path());
    let output = strace.output().expect("strace is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    let what = format!("{call} {when} of {under}");
    assert!(output.status.success(), "{what}: {said}");
    if must_fence {
        assert!(!said.contains("never refused"), "{what}");
    }
    let stored = named(&said, "stored ");
    let (deleting, deleted) = (named(&said, "deleting "), named(&said, "deleted "));
    let disk = LocalDisk::open(folder.path(), &expected(), small_volumes()).unwrap();
    for blob in stored {
        let read = disk.read(sample::key(blob), 0, LEN as u32).await;
        if deleted.contains(&blob) {
            assert_eq!(read, Err(StoreError::NotFound), "{what}: {blob}");
        } else if !deleting.contains(&blob) {
            let read = read.unwrap_or_else(|error| panic!("{what}: {blob}: {error}"));
            assert_eq!(read.bytes, sample::bytes(blob, LEN));
        }
    }
    disk.close().await;
}

#[tokio::test]
async fn a_failed_sync_of_a_volume_fences_and_loses_nothing() {
    for when in [1, 7, 40] {
        fails("fdatasync", when, "volume", true).await;
    }
}

#[tokio::test]
async fn a_failed_sync_of_the_log_fences_and_loses_nothing() {
    for when in [1, 5] {
        fails("fdatasync", when, "log", true).await;
    }
}

#[tokio::test]
async fn a_failed_sync_of_a_folder_fences_and_loses_nothing() {
    for when in [1, 2, 4] {
        fails("fsync", when, "folder", true).await;
    }
}

/// Full to the last block by others, and by shards: what is refused leaves
/// nothing behind, what was answered stays, deletes go on.
#[tokio::test]
async fn full_volumes_refuse_and_lose_nothing() {
    let mount = Mount::tmpfs("6m");
    let folder = Folder::within(mount.path());
    let disk = LocalDisk::open(folder.path(), &expected(), small_volumes()).unwrap();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    let mut stored = vec![];
    // Others take space while shards come.
    let mut others = vec![];
    for blob in 1..5000u128 {
        match disk.put(&ctx, sample::small(&ctx, blob, LEN)).await {
            Ok(()) => stored.push(blob),
            Err(StoreError::NoSpace) if stored.len() > 100 => break,
            Err(error) => panic!("{blob}: {error}"),
        }
        if blob == 100 {
            let left = rustix::fs::statvfs(folder.path()).unwrap();
            let left = usize::try_from(left.f_bavail * left.f_frsize).unwrap();
            others.resize(left / 2, 1u8);
            std::fs::write(mount.path().join("others"), &others).unwrap();
        }
    }
    let health = disk.health().await.unwrap();
    assert_eq!(health.fenced, None);
    // Deletes go on, and what is left is whole; now and after opening.
    let (gone, kept) = stored.split_at(stored.len() / 2);
    for some in gone.chunks(50) {
        let keys: Vec<_> = some.iter().map(|blob| sample::key(*blob)).collect();
        disk.delete(&ctx, &keys).await.unwrap();
    }
    for round in 0..2 {
        let disk = if round == 0 {
            &disk
        } else {
            disk.close().await;
            &LocalDisk::open(folder.path(), &expected(), small_volumes()).unwrap()
        };
        for blob in gone {
            let stat = disk.stat(sample::key(*blob)).await;
            assert_eq!(stat, Err(StoreError::NotFound), "{blob} was deleted");
        }
        for blob in kept {
            let read = disk.read(sample::key(*blob), 0, LEN as u32).await;
            assert_eq!(read.unwrap().bytes, sample::bytes(*blob, LEN));
        }
        if round == 1 {
            disk.close().await;
        }
    }
}

#[tokio::test]
async fn a_delete_is_answered_whatever_becomes_of_its_space() {
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    let ctx = sample::context(1);
    let large = sample::small(&ctx, 1, 200_000);
    disk.put(&ctx, large).await.unwrap();
    let (volume, _) = folder.in_volume(sample::key(1)).unwrap();
    // What is open stays so; what looks for it by its name finds a folder.
    std::fs::rename(&volume, volume.with_extension("aside")).unwrap();
    std::fs::create_dir(&volume).unwrap();
    assert_eq!(disk.delete(&ctx, &[sample::key(1)]).await, Ok(()));
    assert_eq!(disk.stat(sample::key(1)).await, Err(StoreError::NotFound));
}

/// A stop seals volumes only as long as it may; what it leaves is there.
#[tokio::test]
async fn a_stop_without_time_leaves_volumes_open() {
    for (seal_within, sealed) in [(Duration::ZERO, false), (Duration::from_secs(60), true)] {
        let folder = Folder::new();
        let timed = DiskOptions {
            seal_within,
            ..options()
        };
        let disk = LocalDisk::open(folder.path(), &expected(), timed).unwrap();
        let ctx = sample::context(1);
        disk.assign(&ctx, &[sample::slot()]).await.unwrap();
        assert_eq!(disk.put(&ctx, sample::small(&ctx, 1, 100)).await, Ok(()));
        disk.close().await;
        let volumes = folder
            .path()
            .join("volumes")
            .join(sample::GROUP.to_string());
        let found = std::fs::read_dir(volumes).unwrap();
        let is_directory = |path: &Path| path.extension().is_some_and(|ending| ending == "dir");
        let directories = found.filter(|entry| is_directory(&entry.as_ref().unwrap().path()));
        assert_eq!(directories.count(), usize::from(sealed), "{seal_within:?}");
        let disk = folder.open();
        let read = disk.read(sample::key(1), 0, 100).await.unwrap();
        assert_eq!(read.bytes, sample::bytes(1, 100));
        assert_eq!(disk.put(&ctx, sample::small(&ctx, 2, 100)).await, Ok(()));
    }
}

//! Full, read-only, wiped, unmounted, and failing file systems.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shardgate_disk_store::{DiskOptions, KeptSpace, LocalDisk};
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{MAX_APPEND_BYTES, ShardEnd};
use shardgate_wire::{ShardStore, StoreError};
use tempfile::TempDir;

use crate::folder::{Folder, expected, options};

/// A small file system in memory, mounted for a test.
pub(crate) struct Mount {
    at: TempDir,
}

impl Mount {
    /// Needs root; a test that cannot mount fails.
    pub(crate) fn tmpfs(size: &str) -> Self {
        let at = TempDir::new().unwrap();
        let options = format!("size={size}");
        run(
            "mount",
            &["-t", "tmpfs", "-o", &options, "tmpfs"],
            at.path(),
        );
        Self { at }
    }

    fn remount(&self, options: &str) {
        run("mount", &["-o", &format!("remount,{options}")], self.path());
    }

    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn run(program: &str, args: &[&str], path: &Path) {
    let status = Command::new(program).args(args).arg(path).status().unwrap();
    assert!(status.success(), "{program} {args:?} {}", path.display());
}

/// A disk that is looked at often.
fn watched(path: &Path) -> LocalDisk {
    let options = DiskOptions {
        check_every: Duration::from_millis(5),
        ..options()
    };
    LocalDisk::open(path, &expected(), options).unwrap()
}

async fn assign(disk: &LocalDisk) {
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
}

/// Waits until every call is answered with a loss.
async fn assert_lost(disk: &LocalDisk) {
    while disk.health().await.is_ok() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let ctx = sample::context(1);
    let lost = |error| matches!(error, Err(StoreError::Lost { .. }));
    assert!(lost(disk.put(&ctx, sample::small(&ctx, 9, 10)).await));
    assert!(lost(disk.read(sample::key(1), 0, 100).await.map(drop)));
    assert!(lost(disk.stat(sample::key(1)).await.map(drop)));
    assert!(lost(disk.list(None, 1).await.map(drop)));
    assert!(lost(disk.delete(&ctx, &[sample::key(1)]).await));
    assert!(lost(disk.raise_epoch(&sample::context(2)).await));
    let header = sample::header(&ctx, 9);
    assert!(lost(disk.open(&ctx, header, None).await.map(drop)));
}

#[tokio::test]
async fn a_full_disk_refuses_shards_and_still_deletes() {
    let mount = Mount::tmpfs("8m");
    let folder = Folder::within(mount.path());
    let kept = 1024 * 1024;
    let options = DiskOptions {
        kept: Some(KeptSpace {
            background: kept,
            ..KeptSpace::NONE
        }),
        ..options()
    };
    let disk = LocalDisk::open(folder.path(), &expected(), options).unwrap();
    assign(&disk).await;
    let ctx = sample::context(1);
    let mut stored = vec![];
    let refused = loop {
        let blob = stored.len() as u128 + 1;
        match disk.put(&ctx, sample::small(&ctx, blob, 200_000)).await {
            Ok(()) => stored.push(sample::key(blob)),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, StoreError::NoSpace);
    assert!(stored.len() > 20, "{} were stored", stored.len());
    let left = rustix::fs::statvfs(folder.path()).unwrap();
    assert!(
        left.f_bavail * left.f_frsize >= kept,
        "what is kept is left"
    );
    // Known and unknown lengths are refused as well.
    let header = sample::header(&ctx, 900);
    let open = disk.open(&ctx, header.clone(), Some(1 << 20)).await;
    assert_eq!(open, Err(StoreError::NoSpace));
    let handle = disk.open(&ctx, header, None).await;
    if let Ok(handle) = handle {
        let bytes = sample::bytes(1, MAX_APPEND_BYTES);
        let crcs = block_crcs(&bytes);
        let appended = disk.append(&ctx, handle, 0, bytes, &crcs).await;
        assert_eq!(appended, Err(StoreError::NoSpace));
        disk.abort(&ctx, handle).await.unwrap();
    }
    let health = disk.health().await.unwrap();
    assert_eq!((health.fenced, health.errors), (None, 0));
    // Everything but new shards goes on, and deletes give space back.
    disk.raise_epoch(&sample::context(1)).await.unwrap();
    assert!(disk.read(stored[0], 0, 65_536).await.is_ok());
    disk.delete(&ctx, &stored[..5]).await.unwrap();
    let put = disk.put(&ctx, sample::small(&ctx, 901, 200_000)).await;
    assert_eq!(put, Ok(()));
}

#[tokio::test]
async fn a_full_file_system_leaves_no_half_shard() {
    let mount = Mount::tmpfs("4m");
    let folder = Folder::within(mount.path());
    let disk = folder.open();
    assign(&disk).await;
    let ctx = sample::context(1);
    // Something else takes all of the space that is left.
    let left = rustix::fs::statvfs(folder.path()).unwrap();
    let left = left.f_bavail * left.f_frsize;
    let taken = vec![0; usize::try_from(left).unwrap() - 600 * 1024];
    std::fs::write(mount.path().join("other"), taken).unwrap();
    let mut stored = 0;
    while disk
        .put(&ctx, sample::small(&ctx, stored + 1, 100_000))
        .await
        == Ok(())
    {
        stored += 1;
    }
    let listed = disk.list(None, 100).await.unwrap();
    assert_eq!(listed.len() as u128, stored);
    assert!(listed.iter().all(|entry| entry.finished));
}

#[tokio::test]
async fn a_file_system_that_turns_read_only_fences() {
    let mount = Mount::tmpfs("16m");
    let folder = Folder::within(mount.path());
    let disk = folder.open_assigned().await;
    let ctx = sample::context(1);
    disk.put(&ctx, sample::small(&ctx, 1, 100)).await.unwrap();
    disk.close().await;
    drop(disk);
    mount.remount("ro");
    // Opened so, it reads and refuses writes.
    let disk = folder.open();
    assert!(disk.health().await.unwrap().fenced.is_some());
    assert!(disk.read(sample::key(1), 0, 100).await.is_ok());
    let put = disk.put(&ctx, sample::small(&ctx, 2, 100)).await;
    assert!(matches!(put, Err(StoreError::Fenced { .. })), "{put:?}");
    let raise = disk.raise_epoch(&sample::context(2)).await;
    assert!(matches!(raise, Err(StoreError::Fenced { .. })), "{raise:?}");
    let stale = disk.delete(&sample::context(0), &[]).await;
    assert!(
        matches!(stale, Err(StoreError::StaleEpoch { .. })),
        "{stale:?}"
    );
    // The fence stays until the disk is opened again.
    mount.remount("rw");
    let put = disk.put(&ctx, sample::small(&ctx, 2, 100)).await;
    assert!(matches!(put, Err(StoreError::Fenced { .. })), "{put:?}");
    disk.close().await;
    let disk = folder.open();
    let put = disk.put(&ctx, sample::small(&ctx, 2, 100)).await;
    assert_eq!(put, Ok(()));
}

#[tokio::test]
async fn a_wiped_folder_is_lost() {
    let folder = Folder::new();
    let disk = watched(folder.path());
    assign(&disk).await;
    let ctx = sample::context(1);
    disk.put(&ctx, sample::small(&ctx, 1, 100)).await.unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert_lost(&disk).await;
    disk.close().await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn other_losses_are_noticed() {
    let moved = |path: &Path| path.with_extension("moved");
    type Loss = fn(&Path, PathBuf);
    let losses: [Loss; 4] = [
        |path, moved| std::fs::rename(path, moved).unwrap(),
        |path, moved| {
            std::fs::rename(path, moved).unwrap();
            std::fs::create_dir(path).unwrap();
        },
        |path, _| std::fs::remove_dir_all(path.join("shards")).unwrap(),
        |path, _| {
            let bytes = std::fs::read(path.join("identity")).unwrap();
            std::fs::write(path.join("identity"), &bytes[1..]).unwrap();
        },
    ];
    for loss in losses {
        let folder = Folder::new();
        let disk = watched(folder.path());
        assign(&disk).await;
        loss(folder.path(), moved(folder.path()));
        assert_lost(&disk).await;
        let _ = std::fs::remove_dir_all(moved(folder.path()));
    }
}

#[tokio::test]
async fn an_unmounted_disk_is_lost_and_back_when_it_returns() {
    let mount = Mount::tmpfs("16m");
    let folder = Folder::within(mount.path());
    let disk = watched(folder.path());
    assign(&disk).await;
    let aside = TempDir::new().unwrap();
    let (from, to) = (mount.path().to_str().unwrap(), aside.path());
    run("mount", &["--bind", from], to);
    run("umount", &["-l"], mount.path());
    assert_lost(&disk).await;
    disk.close().await;
    let opened = folder.try_open();
    let missing = matches!(opened, Err(shardgate_disk_store::OpenError::Missing { .. }));
    assert!(missing, "{opened:?}");
    run("mount", &["--bind", to.to_str().unwrap()], mount.path());
    let disk = folder.open();
    let ctx = sample::context(1);
    let put = disk.put(&ctx, sample::small(&ctx, 1, 100)).await;
    assert_eq!(put, Ok(()));
    disk.close().await;
    run("umount", &["-l"], to);
}

/// A folder that goes while a shard is written: its finish must not be
/// answered, whether or not the watch was fast.
#[tokio::test]
async fn a_shard_that_lost_its_name_is_not_answered() {
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    let ctx = sample::context(1);
    let opened = disk.open(&ctx, sample::header(&ctx, 1), None).await;
    let handle = opened.unwrap();
    let bytes = sample::bytes(1, 100);
    let crcs = block_crcs(&bytes);
    disk.append(&ctx, handle, 0, bytes, &crcs).await.unwrap();
    std::fs::remove_dir_all(folder.path().join("shards")).unwrap();
    std::fs::remove_file(folder.path().join("identity")).unwrap();
    let end = ShardEnd {
        shard_len: 100,
        blob_len: 400,
    };
    let finished = disk.finish(&ctx, handle, end).await;
    assert!(
        matches!(finished, Err(StoreError::Lost { .. })),
        "{finished:?}"
    );
}

const CHILD_FOLDER: &str = "SHARDGATE_FAILING_DISK";

/// Runs under `strace`, which lets one fsync fail.
#[test]
fn a_failed_fsync_fences() {
    for (call, child) in [
        ("fdatasync", "put"),
        ("fdatasync", "finish"),
        ("fsync", "folder"),
    ] {
        let folder = Folder::new();
        let shard = folder.shard_path(sample::key(1));
        let group = sample::key(1).group.to_string();
        let volumes = folder.path().join("volumes").join(group);
        let volume = volumes.join("0000000000000001.vol");
        // Only calls on the shard's own file and folders, or on its volume
        // and the folder of that, fail.
        let paths = match child {
            "put" => [volume.as_path(), volumes.as_path()],
            "folder" => [volumes.as_path(), volumes.as_path()],
            _ => [shard.parent().unwrap(), shard.as_path()],
        };
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null"]);
        strace.arg(format!("--trace={call}"));
        strace.arg(format!("--inject={call}:error=EIO"));
        for path in paths {
            strace.arg("-P").arg(path);
        }
        strace.arg(std::env::current_exe().unwrap());
        strace.args(["--exact", "--ignored", "faults::child_with_failing_fsync"]);
        strace.env(CHILD_FOLDER, format!("{child}:{}", folder.path().display()));
        let status = strace.status().expect("strace is installed");
        assert!(status.success(), "{call} {child}");
    }
}

/// One bad sector: one of two records is whole, and both are written anew.
#[test]
fn a_record_that_cannot_be_read_is_made_anew_from_its_twin() {
    for name in ["root-a", "root-b", "slots-a", "slots-b"] {
        let folder = Folder::new();
        let status = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "--trace=pread64"])
            .arg("--inject=pread64:error=ENODATA")
            .arg("-P")
            .arg(folder.path().join(name))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "faults::child_with_a_bad_record"])
            .env(CHILD_FOLDER, folder.path())
            .status();
        assert!(status.expect("strace is installed").success(), "{name}");
    }
}

/// What [`a_record_that_cannot_be_read_is_made_anew_from_its_twin`] runs.
#[tokio::test]
#[ignore = "runs under strace, started by another test"]
async fn child_with_a_bad_record() {
    let Ok(path) = std::env::var(CHILD_FOLDER) else {
        return;
    };
    let disk = LocalDisk::open(Path::new(&path), &expected(), options()).unwrap();
    assert_eq!(disk.health().await.unwrap().fenced, None);
    assign(&disk).await;
}

/// What [`a_failed_fsync_fences`] runs: every fsync of shard 1 fails.
#[tokio::test]
#[ignore = "runs under strace, started by another test"]
async fn child_with_failing_fsync() {
    let Ok(told) = std::env::var(CHILD_FOLDER) else {
        return;
    };
    let (kind, path) = told.split_once(':').unwrap();
    let disk = LocalDisk::open(Path::new(path), &expected(), options()).unwrap();
    assign(&disk).await;
    let ctx = sample::context(1);
    let failed = if kind == "finish" {
        let opened = disk.open(&ctx, sample::header(&ctx, 1), None).await;
        let end = ShardEnd {
            shard_len: 0,
            blob_len: 0,
        };
        disk.finish(&ctx, opened.unwrap(), end).await
    } else {
        disk.put(&ctx, sample::small(&ctx, 1, 100)).await
    };
    assert!(
        matches!(failed, Err(StoreError::Fenced { .. })),
        "{failed:?}"
    );
    // Never retried into success.
    let again = disk.put(&ctx, sample::small(&ctx, 2, 100)).await;
    assert!(matches!(again, Err(StoreError::Fenced { .. })), "{again:?}");
    let health = disk.health().await.unwrap();
    assert!(health.fenced.is_some() && health.errors > 0);
}

//! Formatting, opening, closing, and what is kept from one run to the next.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use shardgate_disk_store::{DiskOptions, Expected, LocalDisk, NewDisk, OpenError};
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{ClusterId, CommitNumber, DiskId, LineageId};
use shardgate_wire::{ShardStore, StoreError};
use tempfile::TempDir;

use crate::folder::{Folder, expected, journal_of, new_disk, options};

/// Every file below `path`: its bytes, inode, and time of change.
fn snapshot(path: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u64, i64, i64)> {
    let mut files = BTreeMap::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let bytes = if meta.is_dir() {
                folders.push(path.clone());
                vec![]
            } else {
                std::fs::read(&path).unwrap()
            };
            files.insert(
                path,
                (bytes, meta.ino(), meta.mtime_nsec(), meta.ctime_nsec()),
            );
        }
    }
    files
}

fn try_open(path: &Path, expected: &Expected) -> Result<LocalDisk, OpenError> {
    LocalDisk::open(path, expected, options())
}

#[test]
fn what_is_no_disk_is_told_apart_and_left_alone() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("missing");
    let opened = try_open(&missing, &expected());
    assert!(
        matches!(opened, Err(OpenError::Missing { .. })),
        "{opened:?}"
    );
    assert!(!missing.exists());
    std::fs::write(dir.path().join("file"), b"").unwrap();
    let opened = try_open(&dir.path().join("file"), &expected());
    assert!(
        matches!(opened, Err(OpenError::Missing { .. })),
        "{opened:?}"
    );

    let blank = dir.path().join("blank");
    std::fs::create_dir_all(blank.join("lost+found")).unwrap();
    let opened = try_open(&blank, &expected());
    assert!(matches!(opened, Err(OpenError::Blank { .. })), "{opened:?}");
    assert_eq!(snapshot(&blank).len(), 1);

    let other = dir.path().join("other");
    std::fs::create_dir_all(&other).unwrap();
    std::fs::write(other.join("photo.jpg"), b"mine").unwrap();
    let before = snapshot(&other);
    let opened = try_open(&other, &expected());
    assert!(
        matches!(opened, Err(OpenError::NoIdentity { .. })),
        "{opened:?}"
    );
    let formatted = LocalDisk::format(&other, &new_disk());
    assert!(
        matches!(formatted, Err(OpenError::NoIdentity { .. })),
        "{formatted:?}"
    );
    assert_eq!(snapshot(&other), before);
}

#[tokio::test]
async fn foreign_disks_are_left_alone() {
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    let ctx = sample::context(1);
    disk.put(&ctx, sample::small(&ctx, 1, 100)).await.unwrap();
    disk.close().await;
    let before = snapshot(folder.path());
    let found = sample::identity();
    for foreign in [
        Expected {
            cluster: ClusterId(1),
            ..expected()
        },
        Expected {
            cluster: ClusterId(1),
            disk: None,
        },
        Expected {
            disk: Some(DiskId(1)),
            ..expected()
        },
    ] {
        let opened = try_open(folder.path(), &foreign);
        assert!(matches!(opened, Err(OpenError::Foreign { found: f, .. }) if f == found));
    }
    let formatted = LocalDisk::format(folder.path(), &new_disk());
    assert!(
        matches!(formatted, Err(OpenError::Foreign { .. })),
        "{formatted:?}"
    );
    assert_eq!(LocalDisk::identify(folder.path()).unwrap(), found);
    assert_eq!(snapshot(folder.path()), before);
    // In whatever slot: the cluster's disk is known by its id.
    let any = Expected {
        disk: None,
        ..expected()
    };
    let disk = try_open(folder.path(), &any).unwrap();
    assert_eq!(disk.disk(), found.disk);
}

#[tokio::test]
async fn a_disk_is_open_once() {
    let folder = Folder::new();
    let disk = folder.open();
    let again = folder.try_open();
    assert!(matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
    disk.close().await;
    assert!(
        disk.list(None, 1).await.is_err(),
        "a closed disk takes no calls"
    );
    let again = folder.open();
    assert_eq!(again.list(None, 1).await, Ok(vec![]));
}

#[test]
fn formatting_makes_a_folder_only_if_told_and_goes_on_after_a_crash() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("disk");
    let formatted = LocalDisk::format(&path, &new_disk());
    assert!(
        matches!(formatted, Err(OpenError::Missing { .. })),
        "{formatted:?}"
    );
    let create = NewDisk {
        create_folder: true,
        ..new_disk()
    };
    assert_eq!(
        LocalDisk::format(&path, &create).unwrap(),
        sample::identity()
    );
    // As if the power had gone before the identity was there.
    std::fs::rename(path.join("identity"), path.join("identity.part")).unwrap();
    std::fs::write(path.join("root-b"), b"torn").unwrap();
    let opened = try_open(&path, &expected());
    assert!(matches!(opened, Err(OpenError::Blank { .. })), "{opened:?}");
    LocalDisk::format(&path, &new_disk()).unwrap();
    assert!(try_open(&path, &expected()).is_ok());
}

#[tokio::test]
async fn an_identity_lost_over_shards_is_not_blank() {
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    let ctx = sample::context(1);
    disk.put(&ctx, sample::small(&ctx, 1, 100)).await.unwrap();
    disk.close().await;
    std::fs::remove_file(folder.path().join("identity")).unwrap();
    let opened = folder.try_open();
    assert!(
        matches!(opened, Err(OpenError::NoIdentity { .. })),
        "{opened:?}"
    );
    let formatted = LocalDisk::format(folder.path(), &new_disk());
    assert!(
        matches!(formatted, Err(OpenError::NoIdentity { .. })),
        "{formatted:?}"
    );
}

#[tokio::test]
async fn either_copy_of_the_records_may_be_damaged() {
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    let ctx = sample::context(7);
    disk.raise_epoch(&ctx).await.unwrap();
    journal_of(&disk)
        .set_map(&ctx, 3, Bytes::from_static(b"map"))
        .await
        .unwrap();
    journal_of(&disk)
        .set_checkpoint(&ctx, Bytes::from_static(b"checkpoint"))
        .await
        .unwrap();
    disk.close().await;
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |path| std::fs::write(path, b"").unwrap(),
        |path| std::fs::remove_file(path).unwrap(),
        |path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[60] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
        |path| {
            let bytes = std::fs::read(path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        },
    ];
    for damage in damages {
        for name in ["root-a", "root-b", "slots-a", "slots-b"] {
            damage(&folder.path().join(name));
            let disk = folder.open();
            let health = disk.health().await.unwrap();
            assert_eq!((health.epoch, health.fenced), (ctx.epoch, None), "{name}");
            let roots = journal_of(&disk).roots().await.unwrap();
            assert_eq!((roots.map_number, &roots.map[..]), (3, &b"map"[..]));
            assert_eq!(&roots.checkpoint[..], b"checkpoint");
            let put = disk.put(&ctx, sample::small(&ctx, 1, 10)).await;
            assert_eq!(put, Ok(()), "{name}");
            disk.close().await;
        }
    }
    for pair in [["root-a", "root-b"], ["slots-a", "slots-b"]] {
        let kept = pair.map(|name| std::fs::read(folder.path().join(name)).unwrap());
        for damage in damages {
            pair.iter()
                .for_each(|name| damage(&folder.path().join(name)));
            let opened = folder.try_open();
            assert!(
                matches!(opened, Err(OpenError::Damaged { .. })),
                "{opened:?}"
            );
            for (name, bytes) in pair.iter().zip(&kept) {
                std::fs::write(folder.path().join(name), bytes).unwrap();
            }
        }
    }
    drop(folder.open());
}

#[tokio::test]
async fn the_records_of_another_disk_are_refused() {
    let (ours, theirs) = (Folder::new(), TempDir::new().unwrap());
    let other = NewDisk {
        disk: DiskId(7),
        ..new_disk()
    };
    LocalDisk::format(theirs.path(), &other).unwrap();
    for name in ["root-a", "root-b"] {
        std::fs::copy(theirs.path().join(name), ours.path().join(name)).unwrap();
    }
    let opened = ours.try_open();
    assert!(
        matches!(opened, Err(OpenError::Damaged { .. })),
        "{opened:?}"
    );
}

#[tokio::test]
async fn a_later_version_is_refused_even_if_the_other_copy_is_known() {
    let folder = Folder::new();
    let path = folder.path().join("root-b");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[9] = 2;
    let body = bytes.len() - 4;
    let crc = shardgate_wire::checksum::crc32c(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_be_bytes());
    std::fs::write(&path, bytes).unwrap();
    let opened = folder.try_open();
    let says = opened.map(drop).map_err(|error| error.to_string());
    assert!(
        says.clone().is_err_and(|says| says.contains("version 2")),
        "{says:?}"
    );
}

#[tokio::test]
async fn what_was_told_is_kept() {
    let folder = Folder::new();
    let disk = folder.open();
    let mut ctx = sample::context(1);
    for (lineage, number) in [(1, 500), (2, 300), (2, 301), (2, 4)] {
        ctx.lineage = LineageId(lineage);
        ctx.committed = CommitNumber(number);
        disk.delete(&ctx, &[]).await.unwrap();
    }
    disk.close().await;
    let disk = folder.open();
    let told = disk.health().await.unwrap().told;
    assert_eq!(told, (LineageId(2), CommitNumber(301)));
    // An earlier lineage that comes back is known by what it had reached.
    ctx.lineage = LineageId(1);
    disk.delete(&ctx, &[]).await.unwrap();
    let told = disk.health().await.unwrap().told;
    assert_eq!(told, (LineageId(1), CommitNumber(500)));
}

#[tokio::test]
async fn what_was_told_is_saved_while_it_runs() {
    let folder = Folder::new();
    let options = DiskOptions {
        check_every: Duration::from_millis(10),
        save_told_every: Duration::from_millis(10),
        ..options()
    };
    let disk = LocalDisk::open(folder.path(), &expected(), options).unwrap();
    let mut ctx = sample::context(1);
    disk.delete(&ctx, &[]).await.unwrap();
    let root = || std::fs::read(folder.path().join("root-b")).unwrap();
    let before = root();
    ctx.committed = CommitNumber(0xfeed_beef);
    disk.delete(&ctx, &[]).await.unwrap();
    while root() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The last lineage's number ends the record, before the checksum.
    let root = root();
    let number = &root[root.len() - 12..root.len() - 4];
    assert_eq!(number, 0xfeed_beef_u64.to_be_bytes());
}

#[tokio::test]
async fn maps_of_lower_numbers_are_refused() {
    let folder = Folder::new();
    let disk = folder.open();
    let ctx = sample::context(1);
    let roots = journal_of(&disk).roots().await.unwrap();
    assert_eq!((roots.map_number, &roots.map[..]), (0, &b""[..]));
    journal_of(&disk)
        .set_map(&ctx, 2, Bytes::from_static(b"two"))
        .await
        .unwrap();
    let lower = journal_of(&disk)
        .set_map(&ctx, 1, Bytes::from_static(b"one"))
        .await;
    assert!(
        matches!(lower, Err(StoreError::BadCall { .. })),
        "{lower:?}"
    );
    let mut stale = ctx;
    stale.epoch.number = 0;
    let refused = journal_of(&disk).set_map(&stale, 9, Bytes::new()).await;
    assert!(
        matches!(refused, Err(StoreError::StaleEpoch { .. })),
        "{refused:?}"
    );
    let roots = journal_of(&disk).roots().await.unwrap();
    assert_eq!((roots.map_number, &roots.map[..]), (2, &b"two"[..]));
}

#[tokio::test]
async fn idle_handles_end_and_leave_their_shard_unfinished() {
    let folder = Folder::new();
    let options = DiskOptions {
        handle_idle: Duration::from_millis(50),
        check_every: Duration::from_millis(10),
        ..options()
    };
    let disk = LocalDisk::open(folder.path(), &expected(), options).unwrap();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    let opened = disk.open(&ctx, sample::header(&ctx, 1), None).await;
    let handle = opened.unwrap();
    let bytes = sample::bytes(1, 65_536);
    let crcs = shardgate_wire::checksum::block_crcs(&bytes);
    // Polling would keep it alive: wait, then look.
    let mut waited = Duration::from_millis(100);
    let last = loop {
        tokio::time::sleep(waited).await;
        waited *= 2;
        match disk.append(&ctx, handle, 0, bytes.clone(), &crcs).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(last, StoreError::NoHandle);
    assert_eq!(disk.stat(sample::key(1)).await.unwrap().end, None);
}

#[tokio::test]
async fn handles_are_bounded() {
    let folder = Folder::new();
    let options = DiskOptions {
        max_handles: 3,
        ..options()
    };
    let disk = LocalDisk::open(folder.path(), &expected(), options).unwrap();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    let open = |blob| disk.open(&ctx, sample::header(&ctx, blob), None);
    let first = open(1).await.unwrap();
    open(2).await.unwrap();
    open(3).await.unwrap();
    assert_eq!(open(4).await, Err(StoreError::Busy));
    disk.abort(&ctx, first).await.unwrap();
    let fourth = open(4).await.unwrap();
    // A finished shard's handle gives way to an open one's.
    let end = shardgate_wire::store::ShardEnd {
        shard_len: 0,
        blob_len: 0,
    };
    disk.finish(&ctx, fourth, end).await.unwrap();
    open(5).await.unwrap();
    assert_eq!(open(6).await, Err(StoreError::Busy));
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let folder = Folder::new();
    let options = DiskOptions {
        max_queued_bytes: 1000,
        ..options()
    };
    let disk = LocalDisk::open(folder.path(), &expected(), options).unwrap();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    let put = disk.put(&ctx, sample::small(&ctx, 1, 1001)).await;
    assert_eq!(put, Err(StoreError::Busy));
    // The bytes of calls that ended do not count, soon after their answer.
    for blob in 1..5 {
        let put = || disk.put(&ctx, sample::small(&ctx, blob, 1000));
        let mut answer = put().await;
        while answer == Err(StoreError::Busy) {
            tokio::task::yield_now().await;
            answer = put().await;
        }
        assert_eq!(answer, Ok(()));
    }
    let none = DiskOptions {
        max_queued_calls: 0,
        ..crate::folder::options()
    };
    disk.close().await;
    let disk = LocalDisk::open(folder.path(), &expected(), none).unwrap();
    assert_eq!(disk.stat(sample::key(1)).await, Err(StoreError::Busy));
    assert!(
        disk.health().await.is_ok(),
        "a full queue can be asked about"
    );
}

#[tokio::test]
async fn shards_that_lost_their_mark_are_settled_soon_after_an_unclean_stop() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    let ctx = sample::context(1);
    let opened = disk.open(&ctx, sample::header(&ctx, 1), None).await;
    let handle = opened.unwrap();
    let bytes = sample::bytes(1, 65_536);
    let crcs = shardgate_wire::checksum::block_crcs(&bytes);
    disk.append(&ctx, handle, 0, bytes, &crcs).await.unwrap();
    let end = shardgate_wire::store::ShardEnd {
        shard_len: 65_536,
        blob_len: 4 * 65_536,
    };
    disk.finish(&ctx, handle, end).await.unwrap();
    // It ends without being closed, and the power takes the mark away.
    drop(disk);
    let path = folder.shard_path(sample::key(1));
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o400);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let disk = loop {
        match folder.try_open() {
            Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened.unwrap(),
        }
    };
    // Nobody asks for it.
    let since = std::time::Instant::now();
    while mode() != 0o400 {
        assert!(since.elapsed() < Duration::from_secs(20), "it has no mark");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    disk.close().await;
}

//! Who opens a disk that another one has changes nothing in its folder.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

use bytes::Bytes;
use shardgate_disk_store::{DiskOptions, LocalDisk, OpenError};
use shardgate_wire::ShardStore;
use shardgate_wire::conformance::sample;
use shardgate_wire::journal::JOURNAL_PAGE;

use crate::folder::{Folder, expected, journal_of, new_disk, options};

fn journal_options() -> DiskOptions {
    DiskOptions {
        journal_segment_bytes: 256 * 1024,
        ..options()
    }
}

/// What a name leads to: when it was changed last, its file, and its bytes.
type Entry = (PathBuf, (i64, i64), u64, Vec<u8>);

fn snapshot(folder: &Path) -> Vec<Entry> {
    let (mut entries, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let found = std::fs::symlink_metadata(&path).unwrap();
            let mut bytes = Vec::new();
            if found.is_dir() {
                folders.push(path.clone());
            } else {
                bytes = std::fs::read(&path).unwrap();
            }
            let changed = (found.ctime(), found.ctime_nsec());
            entries.push((path, changed, found.ino(), bytes));
        }
    }
    entries.sort();
    entries
}

/// Once nothing is written any more: the journal's spare is there.
async fn settled(folder: &Path) -> Vec<Entry> {
    let mut before = snapshot(folder);
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = snapshot(folder);
        if now == before {
            return now;
        }
        before = now;
    }
}

#[tokio::test]
async fn a_second_opener_changes_nothing() {
    let folder = Folder::new();
    let disk = LocalDisk::open(folder.path(), &expected(), journal_options()).unwrap();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    disk.put(&ctx, sample::small(&ctx, 1, 1000)).await.unwrap();
    let page = |fill| Bytes::from(vec![fill; JOURNAL_PAGE]);
    let segment = journal_of(&disk).begin(&ctx, page(1)).await.unwrap();
    let before = settled(folder.path()).await;
    let journal = before.iter().filter(|(path, ..)| {
        let parent = path.parent().and_then(Path::file_name);
        parent.is_some_and(|name| name == "journal")
    });
    assert_eq!(journal.count(), 2, "a segment and the spare");
    for _ in 0..3 {
        let again = LocalDisk::open(folder.path(), &expected(), journal_options());
        assert!(matches!(again, Err(OpenError::InUse { .. })), "{again:?}");
        let formatted = LocalDisk::format(folder.path(), &new_disk());
        assert!(matches!(formatted, Err(OpenError::InUse { .. })));
    }
    assert!(snapshot(folder.path()) == before, "the folder was changed");
    // The first goes on where it was.
    let journal = journal_of(&disk);
    let end = JOURNAL_PAGE as u64;
    assert_eq!(journal.append(&ctx, segment, end, page(2)).await, Ok(()));
    let put = disk.put(&ctx, sample::small(&ctx, 2, 1000)).await;
    assert_eq!(put, Ok(()));
    disk.close().await;
}

/// Another one may have the folder by then.
#[tokio::test]
async fn a_second_close_changes_nothing() {
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    let ctx = sample::context(1);
    disk.put(&ctx, sample::small(&ctx, 1, 1000)).await.unwrap();
    let (volume, _) = folder.in_volume(sample::key(1)).unwrap();
    // The first does not seal it: something is where its directory goes.
    let part = volume.with_extension("part");
    std::fs::create_dir_all(part.join("inside")).unwrap();
    disk.close().await;
    std::fs::remove_dir_all(&part).unwrap();
    assert!(!volume.with_extension("dir").exists());
    let before = snapshot(folder.path());
    disk.close().await;
    assert!(snapshot(folder.path()) == before, "the folder was changed");
    let again = folder.open();
    let read = again.read(sample::key(1), 0, 1000).await;
    assert!(read.is_ok(), "{read:?}");
}

/// Of many that open a folder at once one has it, and finds all that the one
/// before wrote.
#[tokio::test]
async fn of_many_openers_one_has_the_disk() {
    const OPENERS: usize = 6;
    let folder = Folder::new();
    folder.open_assigned().await.close().await;
    let ctx = sample::context(1);
    for round in 0..10u128 {
        let start = Barrier::new(OPENERS);
        let open = || {
            start.wait();
            folder.try_open()
        };
        let opened: Vec<_> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(open)).collect();
            openers
                .into_iter()
                .map(|opener| opener.join().unwrap())
                .collect()
        });
        let (have, refused): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
        let in_use = |error: &Result<_, OpenError>| matches!(error, Err(OpenError::InUse { .. }));
        assert!(refused.iter().all(in_use), "{refused:?}");
        // The one before has ended.
        let [Ok(disk)] = &have[..] else {
            panic!("round {round}: {have:?}");
        };
        for before in 0..round {
            let read = disk.read(sample::key(before), 0, 100).await;
            assert!(read.is_ok(), "{before}: {read:?}");
        }
        let put = disk.put(&ctx, sample::small(&ctx, round, 100)).await;
        assert_eq!(put, Ok(()));
        disk.close().await;
        let again = folder.open();
        assert!(again.read(sample::key(round), 0, 100).await.is_ok());
        again.close().await;
    }
}

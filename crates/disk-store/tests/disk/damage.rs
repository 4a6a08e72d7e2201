//! What is damaged is corrupt: never absent, never served.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use shardgate_disk_store::{DiskOptions, LocalDisk};
use shardgate_wire::checksum::{CHECK_BLOCK, block_crcs};
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{ShardEnd, ShardStat};
use shardgate_wire::{ShardKey, ShardStore, StoreError};

use crate::folder::{Folder, expected, options};

/// A disk that looks at files anew with every call.
async fn forgetful(folder: &Folder) -> LocalDisk {
    let options = DiskOptions {
        max_cached_files: 0,
        ..options()
    };
    let disk = LocalDisk::open(folder.path(), &expected(), options).unwrap();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    disk
}

/// Stores a shard in appends.
async fn append_all(disk: &LocalDisk, blob: u128, len: usize) {
    let ctx = sample::context(1);
    let bytes = sample::bytes(blob, len);
    let opened = disk.open(&ctx, sample::header(&ctx, blob), None).await;
    let handle = opened.unwrap();
    let crcs = block_crcs(&bytes);
    let appended = disk.append(&ctx, handle, 0, bytes, &crcs).await;
    appended.unwrap();
    let end = ShardEnd {
        shard_len: len as u64,
        blob_len: 4 * len as u64,
    };
    disk.finish(&ctx, handle, end).await.unwrap();
}

fn is_corrupt<T>(answer: &Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Corrupt { .. }))
}

/// Reads and stats a damaged shard. Whether either saw the damage; what did
/// not must have given what was written.
async fn notices(disk: &LocalDisk, blob: u128, len: usize, stat: &ShardStat, what: &str) -> bool {
    let key = sample::key(blob);
    let read = disk.read(key, 0, len as u32).await;
    if !is_corrupt(&read) {
        let bytes = read.unwrap_or_else(|error| panic!("{what}: {error}")).bytes;
        assert_eq!(bytes, sample::bytes(blob, len), "{what}");
    }
    let now = disk.stat(key).await;
    if !is_corrupt(&now) {
        assert_eq!(now.as_ref(), Ok(stat), "{what}");
    }
    let listed = disk.list(None, 10).await.unwrap();
    assert_eq!((listed.len(), listed[0].finished), (1, true), "{what}");
    is_corrupt(&disk.read(key, 0, len as u32).await) || is_corrupt(&now)
}

/// Flips a bit of every byte of the file of `len` stored bytes, one at a
/// time; `step` leaves some out.
async fn every_flip_is_noticed(len: usize, step: usize) {
    let folder = Folder::new();
    let disk = forgetful(&folder).await;
    let key = sample::key(1);
    append_all(&disk, 1, len).await;
    let stat = disk.stat(key).await.unwrap();
    let data = folder.data_offset(key);
    let file = std::fs::read(folder.shard_path(key)).unwrap();
    let footer = file.len() - 96 - 4 * len.div_ceil(CHECK_BLOCK);
    let header = 16 + u32::from_be_bytes(file[12..16].try_into().unwrap()) as usize + 4;
    assert!(header <= data && data + len <= footer);
    let mut flips: Vec<usize> = (0..file.len()).step_by(step).collect();
    flips.extend([
        0,
        header - 1,
        data,
        data + len / 2,
        data + len - 1,
        footer,
        file.len() - 1,
    ]);
    for at in flips {
        folder.change(key, |bytes| bytes[at] ^= 0x10);
        let padding = (header..data).contains(&at) || (data + len..footer).contains(&at);
        let what = format!("byte {at} of {}", file.len());
        let noticed = notices(&disk, 1, len, &stat, &what).await;
        assert_eq!(noticed, !padding, "{what}");
        folder.change(key, |bytes| bytes[at] ^= 0x10);
    }
    assert!(disk.read(key, 0, len as u32).await.is_ok());
}

#[tokio::test]
async fn every_flip_of_a_small_shard_is_noticed() {
    every_flip_is_noticed(1000, 1).await;
}

#[tokio::test]
async fn every_flip_of_a_longer_shard_is_noticed() {
    every_flip_is_noticed(2 * CHECK_BLOCK + 4097, 613).await;
}

#[tokio::test]
async fn every_cut_is_noticed() {
    let folder = Folder::new();
    let disk = forgetful(&folder).await;
    let len = CHECK_BLOCK + 100;
    append_all(&disk, 1, len).await;
    let key = sample::key(1);
    let stat = disk.stat(key).await.unwrap();
    let file = std::fs::read(folder.shard_path(key)).unwrap();
    let mut cuts: Vec<usize> = (0..file.len()).step_by(512).collect();
    cuts.extend([1, 95, 96, 97, file.len() - 96, file.len() - 1]);
    for cut in cuts {
        folder.change(key, |bytes| bytes.truncate(cut));
        let what = format!("cut to {cut} of {}", file.len());
        assert!(notices(&disk, 1, len, &stat, &what).await, "{what}");
        folder.change(key, |bytes| *bytes = file.clone());
    }
    folder.change(key, |bytes| bytes.push(0));
    assert!(notices(&disk, 1, len, &stat, "a byte too many").await);
}

#[tokio::test]
async fn a_cached_footer_does_not_hide_damage() {
    let folder = Folder::new();
    let disk = folder.open_assigned().await;
    let key = sample::key(1);
    append_all(&disk, 1, 4 * CHECK_BLOCK).await;
    let first = disk.read(key, 0, CHECK_BLOCK as u32).await;
    assert!(first.is_ok());
    // Cut while it is open: what is left of it still reads.
    let cut = folder.data_offset(key) + 2 * CHECK_BLOCK;
    folder.change(key, |bytes| bytes.truncate(cut));
    assert!(disk.read(key, 0, CHECK_BLOCK as u32).await.is_ok());
    let read = disk.read(key, 0, (4 * CHECK_BLOCK) as u32).await;
    assert!(is_corrupt(&read), "{read:?}");
    // Removed behind its back: absent, though its file is still open.
    append_all(&disk, 2, 100).await;
    assert!(disk.read(sample::key(2), 0, 100).await.is_ok());
    std::fs::remove_file(folder.shard_path(sample::key(2))).unwrap();
    let read = disk.read(sample::key(2), 0, 100).await;
    assert_eq!(read, Err(StoreError::NotFound));
}

#[tokio::test]
async fn a_file_under_anothers_name_is_corrupt() {
    let folder = Folder::new();
    let disk = forgetful(&folder).await;
    append_all(&disk, 1, 500).await;
    let name = folder.shard_path(sample::key(2));
    std::fs::copy(folder.shard_path(sample::key(1)), &name).unwrap();
    assert!(is_corrupt(&disk.read(sample::key(2), 0, 500).await));
    assert!(is_corrupt(&disk.stat(sample::key(2)).await));
    // A link is no shard, wherever it leads.
    let link = folder.shard_path(sample::key(3));
    std::os::unix::fs::symlink(folder.shard_path(sample::key(1)), link).unwrap();
    assert!(is_corrupt(&disk.read(sample::key(3), 0, 500).await));
    // What is not a shard's name is not listed.
    let stray = name.with_file_name("notes.txt");
    std::fs::write(stray, b"").unwrap();
    assert_eq!(disk.list(None, 10).await.unwrap().len(), 3);
}

fn set_mode(path: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, mode).unwrap();
}

fn mode(folder: &Folder, key: ShardKey) -> u32 {
    let meta = std::fs::metadata(folder.shard_path(key)).unwrap();
    meta.permissions().mode() & 0o777
}

/// A crash can come between the fsync of a shard and its mark.
#[tokio::test]
async fn an_unmarked_shard_with_a_footer_is_settled() {
    let folder = Folder::new();
    let disk = forgetful(&folder).await;
    let len = 3 * CHECK_BLOCK + 5;
    for blob in [1, 2, 3] {
        append_all(&disk, blob, len).await;
        assert_eq!(mode(&folder, sample::key(blob)), 0o400);
    }
    disk.close().await;
    for blob in [1, 2, 3] {
        set_mode(&folder.shard_path(sample::key(blob)), 0o600);
    }
    let at = folder.data_offset(sample::key(2)) + CHECK_BLOCK;
    folder.change(sample::key(2), |bytes| bytes[at] ^= 1);
    folder.change(sample::key(3), |bytes| *bytes.last_mut().unwrap() ^= 1);

    let disk = forgetful(&folder).await;
    let read = disk.read(sample::key(1), 0, len as u32).await.unwrap();
    assert_eq!(read.bytes, sample::bytes(1, len));
    assert_eq!(mode(&folder, sample::key(1)), 0o400);
    // Torn data or a torn footer without a mark: it was never answered.
    for blob in [2, 3] {
        let read = disk.read(sample::key(blob), 0, len as u32).await;
        assert_eq!(read, Err(StoreError::NotFound), "blob {blob}");
        let stat = disk.stat(sample::key(blob)).await.unwrap();
        assert_eq!(stat.end, None);
    }
    let listed = disk.list(None, 10).await.unwrap();
    let finished: Vec<_> = listed.iter().map(|entry| entry.finished).collect();
    assert_eq!(finished, [true, false, false]);
    // They give way to a new try.
    let ctx = sample::context(1);
    disk.put(&ctx, sample::small(&ctx, 2, 100)).await.unwrap();
    append_all(&disk, 3, len).await;
}

#[tokio::test]
async fn an_unfinished_shard_without_a_header_is_corrupt_and_listed() {
    let folder = Folder::new();
    let disk = forgetful(&folder).await;
    let ctx = sample::context(1);
    let opened = disk.open(&ctx, sample::header(&ctx, 1), None).await;
    opened.unwrap();
    disk.close().await;
    let disk = forgetful(&folder).await;
    for cut in [4096, 100, 10, 0] {
        folder.change(sample::key(1), |bytes| bytes.truncate(cut));
        let stat = disk.stat(sample::key(1)).await;
        match cut {
            4096 => assert_eq!(stat.unwrap().end, None),
            _ => assert!(is_corrupt(&stat), "cut to {cut}: {stat:?}"),
        }
        let read = disk.read(sample::key(1), 0, 100).await;
        assert_eq!(read, Err(StoreError::NotFound));
        let listed = disk.list(None, 10).await.unwrap();
        assert_eq!((listed.len(), listed[0].finished), (1, false));
    }
    disk.delete(&ctx, &[sample::key(1)]).await.unwrap();
    assert_eq!(disk.list(None, 10).await, Ok(vec![]));
}

#[tokio::test]
async fn what_is_no_file_under_a_shards_name_is_corrupt() {
    let folder = Folder::new();
    let disk = forgetful(&folder).await;
    let ctx = sample::context(1);
    append_all(&disk, 1, 500).await;
    std::fs::create_dir(folder.shard_path(sample::key(2))).unwrap();
    let pipe = folder.shard_path(sample::key(3));
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let none = rustix::fs::makedev(0, 0);
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, pipe, kind, mode, none).unwrap();
    for blob in [2, 3] {
        let key = sample::key(blob);
        assert!(is_corrupt(&disk.read(key, 0, 500).await), "{blob}");
        assert!(is_corrupt(&disk.stat(key).await), "{blob}");
        let put = disk.put(&ctx, sample::small(&ctx, blob, 10)).await;
        assert!(is_corrupt(&put), "{put:?}");
    }
    let listed = disk.list(None, 10).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|entry| entry.finished));
}

/// What was taken for damage of a shard may have been beside it: it is read
/// again before others are told, who would give it up.
#[tokio::test]
async fn what_is_whole_again_is_told_to_nobody() {
    let folder = Folder::new();
    let disk = folder.open();
    let ctx = sample::context(1);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    for blob in 1..=3 {
        disk.put(&ctx, sample::small(&ctx, blob, 5000))
            .await
            .unwrap();
    }
    let known = async || {
        let damaged = disk.damaged().await.unwrap();
        damaged.iter().map(|it| it.key).collect::<Vec<_>>()
    };
    for blob in 1..=3 {
        folder.flip(sample::key(blob), 100);
        let read = disk.read(sample::key(blob), 0, 5000).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    }
    assert_eq!(disk.health().await.unwrap().damaged, 3);
    // Of one the bytes are what they were, another was deleted.
    folder.flip(sample::key(1), 100);
    disk.delete(&ctx, &[sample::key(2)]).await.unwrap();
    assert_eq!(known().await, [sample::key(3)]);
    assert_eq!(disk.health().await.unwrap().damaged, 1);
    disk.read(sample::key(1), 0, 5000)
        .await
        .expect("it is whole");
    disk.close().await;
}

//! Disks that earlier versions wrote, which every later one must read.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use shardgate_disk_store::{DiskOptions, LocalDisk, VolumeFigures};
use shardgate_wire::checksum::{block_crcs, crc32c};
use shardgate_wire::conformance::{check_whole, sample};
use shardgate_wire::ids::{BlobId, CommitNumber};
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{BlobNote, CallContext, NoteOrder, NoteState, ShardStore, StoreError};

use crate::folder::{contents, expected, journal_of, new_disk, options};

const SMALL_LEN: usize = 300;
const LONG_LEN: usize = 65_536 + 1000;

fn fixture(version: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    tests.join("fixtures").join(version)
}

fn context() -> CallContext {
    sample::context(4)
}

/// Writes what [`a_disk_of_version_1_reads`] reads. For a new version, once:
/// `cargo test -p shardgate-disk-store -- --ignored write_fixture`.
#[tokio::test]
#[ignore = "writes a fixture of a new format version"]
async fn write_fixture() {
    let path = fixture("v1");
    std::fs::create_dir(&path).expect("a fixture is never written over");
    LocalDisk::format(&path, &new_disk()).unwrap();
    let disk = LocalDisk::open(&path, &expected(), options()).unwrap();
    let ctx = context();
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    journal_of(&disk)
        .set_map(&ctx, 12, Bytes::from_static(b"map twelve"))
        .await
        .unwrap();
    journal_of(&disk)
        .set_checkpoint(&ctx, Bytes::from_static(b"root"))
        .await
        .unwrap();
    let small = sample::small(&ctx, 1, SMALL_LEN);
    disk.put(&ctx, small).await.unwrap();
    for (blob, finished) in [(2, true), (3, false)] {
        let opened = disk.open(&ctx, sample::header(&ctx, blob), None).await;
        let handle = opened.unwrap();
        let bytes = sample::bytes(blob, LONG_LEN);
        let crcs = block_crcs(&bytes);
        disk.append(&ctx, handle, 0, bytes, &crcs).await.unwrap();
        let end = ShardEnd {
            shard_len: LONG_LEN as u64,
            blob_len: 4 * LONG_LEN as u64,
        };
        if finished {
            disk.finish(&ctx, handle, end).await.unwrap();
        }
    }
    disk.close().await;
    // What was taken for more appends is no part of the format.
    let unfinished = shard_file(&path, 3);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(unfinished)
        .unwrap();
    file.set_len(4096 + 65_536).unwrap();
}

fn shard_file(disk: &Path, blob: u128) -> PathBuf {
    let key = sample::key(blob);
    let name = format!("{}-{:02x}", key.blob, key.index);
    let shards = disk.join("shards").join(key.group.to_string());
    shards.join("0000000").join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let from = entry.unwrap().path();
        let to = to.join(from.file_name().unwrap());
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::write(&to, std::fs::read(&from).unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn a_disk_of_version_1_reads() {
    let dir = tempfile::TempDir::new().unwrap();
    copy(&fixture("v1"), dir.path());
    // Version control keeps no marks; the other stays as after a crash.
    let marked = std::fs::Permissions::from_mode(0o400);
    std::fs::set_permissions(shard_file(dir.path(), 2), marked).unwrap();

    let disk = LocalDisk::open(dir.path(), &expected(), options()).unwrap();
    let ctx = context();
    let health = disk.health().await.unwrap();
    assert_eq!(health.identity, sample::identity());
    assert_eq!(health.epoch, ctx.epoch);
    assert_eq!(health.told, (ctx.lineage, ctx.committed));
    let roots = journal_of(&disk).roots().await.unwrap();
    assert_eq!((roots.map_number, &roots.map[..]), (12, &b"map twelve"[..]));
    assert_eq!(&roots.checkpoint[..], b"root");
    for (blob, len) in [(1, SMALL_LEN), (2, LONG_LEN)] {
        let key = sample::key(blob);
        let read = disk.read(key, 0, len as u32).await.unwrap();
        assert_eq!(read.bytes, sample::bytes(blob, len));
        let stat = disk.stat(key).await.unwrap();
        assert_eq!(stat.header, sample::header(&ctx, blob));
        let end = ShardEnd {
            shard_len: len as u64,
            blob_len: 4 * len as u64,
        };
        assert_eq!(stat.end, Some(end));
    }
    let unfinished = disk.stat(sample::key(3)).await.unwrap();
    assert_eq!(unfinished.header, sample::header(&ctx, 3));
    assert_eq!(unfinished.end, None);
    let read = disk.read(sample::key(3), 0, LONG_LEN as u32).await;
    assert_eq!(read, Err(StoreError::NotFound));
    let listed = disk.list(None, 10).await.unwrap();
    let finished: Vec<_> = listed.iter().map(|entry| entry.finished).collect();
    assert_eq!(finished, [true, true, false]);
    // It goes on being written.
    let put = disk.put(&ctx, sample::small(&ctx, 4, 10)).await;
    assert_eq!(put, Ok(()));
}

fn small_volumes() -> DiskOptions {
    DiskOptions {
        volumes: Some(VolumeFigures {
            volume_bytes: 32 * 1024,
            volume_records: 5,
            zero_step: 4096,
            large_batch: 16 << 10,
            volume_max: 10_000,
            punch_from: 64 * 1024,
            log_bytes: 1 << 20,
            open_files: 4,
            sync_at_once: true,
        }),
        // Nothing is compacted while the fixture is written.
        compact_bytes_per_second: 1,
        ..options()
    }
}

/// Writes what [`volumes_of_version_1_read`] reads, once:
/// `cargo test -p shardgate-disk-store -- --ignored write_volumes_fixture`. The
/// log that is kept with it has batches of version 1, which say no *room*.
#[tokio::test]
#[ignore = "writes a fixture of a new format version"]
async fn write_volumes_fixture() {
    let path = fixture("v1-volumes");
    std::fs::create_dir(&path).expect("a fixture is never written over");
    LocalDisk::format(&path, &new_disk()).unwrap();
    let disk = LocalDisk::open(&path, &expected(), small_volumes()).unwrap();
    let ctx = context();
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    for blob in 1..=7 {
        let small = sample::small(&ctx, blob, SMALL_LEN);
        disk.put(&ctx, small).await.unwrap();
    }
    let opened = disk.open(&ctx, sample::header(&ctx, 8), Some(5000)).await;
    let bytes = sample::bytes(8, 5000);
    let crcs = block_crcs(&bytes);
    let handle = opened.unwrap();
    disk.append(&ctx, handle, 0, bytes, &crcs).await.unwrap();
    let end = ShardEnd {
        shard_len: 5000,
        blob_len: 20_000,
    };
    disk.finish(&ctx, handle, end).await.unwrap();
    let keys = [sample::key(2), sample::key(7)];
    disk.delete(&ctx, &keys).await.unwrap();
    disk.put_notes(&ctx, &[note()]).await.unwrap();
    disk.close().await;
}

fn note() -> BlobNote {
    BlobNote {
        group: sample::GROUP,
        blob: BlobId(2),
        order: NoteOrder {
            history: 0,
            commit: CommitNumber(41),
        },
        state: NoteState::Deleted,
    }
}

#[tokio::test]
async fn volumes_of_version_1_read() {
    let dir = tempfile::TempDir::new().unwrap();
    copy(&fixture("v1-volumes"), dir.path());
    // Version control keeps no empty folders.
    std::fs::create_dir_all(dir.path().join("shards")).unwrap();
    let disk = LocalDisk::open(dir.path(), &expected(), small_volumes()).unwrap();
    let ctx = context();
    for blob in [1, 3, 4, 5, 6] {
        let key = sample::key(blob);
        let read = disk.read(key, 0, SMALL_LEN as u32).await.unwrap();
        assert_eq!(read.bytes, sample::bytes(blob, SMALL_LEN));
        let stat = disk.stat(key).await.unwrap();
        assert_eq!(stat.header, sample::header(&ctx, blob));
    }
    let read = disk.read(sample::key(8), 0, 5000).await.unwrap();
    assert_eq!(read.bytes, sample::bytes(8, 5000));
    for blob in [2, 7] {
        let read = disk.read(sample::key(blob), 0, SMALL_LEN as u32).await;
        assert_eq!(read, Err(StoreError::NotFound));
    }
    assert_eq!(disk.notes(None).await.unwrap().notes, [note()]);
    let refused = disk.put(&ctx, sample::small(&ctx, 2, SMALL_LEN)).await;
    assert!(
        matches!(refused, Err(StoreError::BadCall { .. })),
        "{refused:?}"
    );
    let listed = disk.list(None, 10).await.unwrap();
    let blobs: Vec<_> = listed.iter().map(|entry| entry.key.blob.0).collect();
    assert_eq!(blobs, [1, 3, 4, 5, 6, 8]);
    let put = disk.put(&ctx, sample::small(&ctx, 9, 10)).await;
    assert_eq!(put, Ok(()));
    let check = check_whole(&disk, &disk.own_context(), false).await;
    assert_eq!((check.findings.len(), check.shards), (0, 7), "{check:?}");
}

/// Raises the version of the frame at `at`, as a later version would write it.
pub(crate) fn raise_frame(bytes: &mut [u8], at: usize) {
    bytes[at + 9] = 9;
    let len = u32::from_be_bytes(bytes[at + 12..at + 16].try_into().unwrap());
    let end = at + 16 + len as usize;
    let crc = crc32c(&bytes[at..end]).to_be_bytes();
    bytes[end..end + 4].copy_from_slice(&crc);
}

/// The same for the record at `at` of a volume.
fn raise_record(bytes: &mut [u8], at: usize) {
    bytes[at + 9] = 9;
    // The salt of the volume's heading, and the place.
    let place = [&bytes[64..72], &(at as u64).to_be_bytes()].concat();
    let sum = crc32c(&bytes[at..at + 68]) ^ crc32c(&place);
    bytes[at + 68..at + 72].copy_from_slice(&sum.to_be_bytes());
}

/// All files of a disk that hold shards and deletes.
fn shards_and_deletes(disk: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    contents(vec![disk.join("volumes"), disk.join("log")])
}

#[test]
fn what_a_later_version_wrote_is_refused_and_left_as_it_is() {
    let volumes = "volumes/0000000000000091";
    let (sealed, open) = ("0000000000000001", "0000000000000002");
    type Raise = fn(&mut [u8]);
    let both: Raise = |bytes| [0, 4096].into_iter().for_each(|at| raise_frame(bytes, at));
    let cases: [(String, Raise); 4] = [
        (format!("log/{sealed}.log"), both),
        (format!("{volumes}/{open}.vol"), both),
        (format!("{volumes}/{sealed}.dir"), |bytes| {
            raise_frame(bytes, 0);
        }),
        (format!("{volumes}/{open}.vol"), |bytes| {
            raise_record(bytes, 8192);
        }),
    ];
    for (name, raise) in cases {
        let dir = tempfile::TempDir::new().unwrap();
        copy(&fixture("v1-volumes"), dir.path());
        std::fs::create_dir_all(dir.path().join("shards")).unwrap();
        let path = dir.path().join(&name);
        let mut bytes = std::fs::read(&path).unwrap();
        raise(&mut bytes);
        std::fs::write(&path, bytes).unwrap();
        let before = shards_and_deletes(dir.path());
        let opened = LocalDisk::open(dir.path(), &expected(), small_volumes());
        let says = opened.map(drop).map_err(|error| error.to_string());
        let refused = says.clone();
        assert!(
            refused.is_err_and(|says| says.contains("version 9") && says.contains("later version")),
            "{name}: {says:?}"
        );
        assert!(
            shards_and_deletes(dir.path()) == before,
            "{name} was changed"
        );
    }
}

//! What a later version wrote where this one does not look at a start, or
//! looks at little: it is said to be that, and stays as it is.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use shardgate_disk_store::LocalDisk;
use shardgate_wire::checksum::{block_crcs, crc32c};
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::CommitNumber;
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{BlobNote, NoteOrder, NoteState, ShardStore, StoreError};

use crate::fixture::raise_frame;
use crate::folder::{Folder, contents, expected, options};

const LEN: usize = 5000;
/// Of the end of a shard's file.
const TRAILER: usize = 96;

fn note(blob: u128) -> BlobNote {
    BlobNote {
        group: sample::GROUP,
        blob: sample::key(blob).blob,
        order: NoteOrder {
            history: 1,
            commit: CommitNumber(1),
        },
        state: NoteState::Published(vec![7; 100]),
    }
}

/// Notes of a later version keep the disk closed, whatever a crash left in
/// files behind them.
#[tokio::test]
async fn notes_of_a_later_version_keep_the_disk_closed() {
    let folder = Folder::new();
    for blob in 1..=2 {
        let disk = folder.open_assigned().await;
        let ctx = sample::context(1);
        assert_eq!(disk.put_notes(&ctx, &[note(blob)]).await, Ok(()));
        disk.close().await;
    }
    let file = |number: u64| folder.path().join(format!("notes/{number:016x}.notes"));
    let raise = |number| {
        let mut bytes = std::fs::read(file(number)).unwrap();
        raise_frame(&mut bytes, 0);
        std::fs::write(file(number), bytes).unwrap();
    };
    // Empty, and cut off in the middle of a batch.
    std::fs::write(file(3), [0; 512]).unwrap();
    std::fs::write(file(4), &std::fs::read(file(2)).unwrap()[..100]).unwrap();
    assert!(file(1).exists() && file(2).exists());
    folder.open().close().await;
    raise(2);
    let before = contents(vec![folder.path().to_owned()]);
    let opened = LocalDisk::open(folder.path(), &expected(), options());
    let says = opened.map(drop).map_err(|error| error.to_string());
    let refused = says.clone();
    assert!(
        refused.is_err_and(|says| says.contains("version 9") && says.contains("later version")),
        "{says:?}"
    );
    assert!(
        contents(vec![folder.path().to_owned()]) == before,
        "the disk was changed"
    );
}

/// Raises the version of a finished shard's file.
fn raise_footer(bytes: &mut [u8]) {
    let end = bytes.len();
    bytes[end - TRAILER + 9] = 9;
    let from = end - TRAILER - 4 * LEN.div_ceil(65_536);
    let crc = crc32c(&bytes[from..end - 4]).to_be_bytes();
    bytes[end - 4..].copy_from_slice(&crc);
}

fn says_later<T: std::fmt::Debug>(answer: Result<T, StoreError>, what: &str) {
    let says = matches!(&answer, Err(StoreError::LaterVersion { .. }));
    assert!(says, "{what}: {answer:?}");
}

#[tokio::test]
async fn a_shard_of_a_later_version_is_neither_absent_nor_touched() {
    for marked in [true, false] {
        let folder = Folder::new();
        let disk = folder.open_assigned().await;
        let (ctx, key) = (sample::context(1), sample::key(1));
        let handle = disk
            .open(&ctx, sample::header(&ctx, 1), None)
            .await
            .unwrap();
        let bytes = sample::bytes(1, LEN);
        let crcs = block_crcs(&bytes);
        disk.append(&ctx, handle, 0, bytes, &crcs).await.unwrap();
        let end = ShardEnd {
            shard_len: LEN as u64,
            blob_len: LEN as u64,
        };
        disk.finish(&ctx, handle, end).await.unwrap();
        // As if the process were killed: the next start settles.
        drop(disk);
        folder.change(key, |bytes| raise_footer(bytes));
        let path = folder.shard_path(key);
        if !marked {
            let writing = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, writing).unwrap();
        }
        let before = std::fs::read(&path).unwrap();
        let disk = loop {
            match folder.try_open() {
                Ok(disk) => break disk,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        says_later(disk.read(key, 0, LEN as u32).await, "read");
        says_later(disk.stat(key).await, "stat");
        let listed = disk.list(None, 10).await.unwrap();
        assert_eq!(listed.len(), 1, "{listed:?}");
        assert!(listed[0].finished);
        says_later(disk.put(&ctx, sample::small(&ctx, 1, 100)).await, "put");
        let opened = disk.open(&ctx, sample::header(&ctx, 1), None).await;
        says_later(opened, "open");
        tokio::time::sleep(Duration::from_millis(300)).await;
        disk.close().await;
        assert!(std::fs::read(&path).unwrap() == before, "marked: {marked}");
    }
}

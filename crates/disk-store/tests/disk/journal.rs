//! Journal segments on a real folder.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use shardgate_disk_store::{DiskOptions, LocalDisk};
use shardgate_wire::conformance::sample;
use shardgate_wire::journal::{JOURNAL_PAGE, JournalDisk};
use shardgate_wire::journal_conformance::{self, JournalSubject};
use shardgate_wire::{CallContext, ShardStore, StoreError};

use crate::folder::{Folder, expected, options};

const CHILD_FOLDER: &str = "SHARDGATE_JOURNAL_DISK";

const SEGMENT_BYTES: u64 = 256 * 1024;

struct OnDisk {
    disk: Arc<LocalDisk>,
    folder: Folder,
}

fn journal_options() -> DiskOptions {
    DiskOptions {
        journal_segment_bytes: SEGMENT_BYTES,
        ..options()
    }
}

impl OnDisk {
    fn new() -> Self {
        let folder = Folder::new();
        let disk = LocalDisk::open(folder.path(), &expected(), journal_options()).unwrap();
        Self {
            disk: Arc::new(disk),
            folder,
        }
    }

    /// Names and lengths below `journal`.
    fn files(&self) -> Vec<(String, u64)> {
        let entries = std::fs::read_dir(self.folder.path().join("journal")).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, entry.metadata().unwrap().len())
            })
            .collect();
        files.sort();
        files
    }
}

#[async_trait]
impl JournalSubject for OnDisk {
    fn disk(&self) -> Arc<dyn JournalDisk> {
        Arc::clone(&self.disk) as Arc<dyn JournalDisk>
    }

    async fn restart(&mut self) {
        self.disk.close().await;
        let opened = LocalDisk::open(self.folder.path(), &expected(), journal_options());
        self.disk = Arc::new(opened.unwrap());
    }
}

fn pages(count: usize, fill: u8) -> Bytes {
    Bytes::from(vec![fill; count * JOURNAL_PAGE])
}

fn context() -> CallContext {
    sample::context(4)
}

#[tokio::test]
async fn a_local_disk_conforms_as_a_journal_disk() {
    journal_conformance::run(|| async { OnDisk::new() }).await;
}

/// A segment takes its whole file from the start, and the spare lies ready.
#[tokio::test]
async fn segments_begin_in_a_zeroed_spare() {
    let subject = OnDisk::new();
    let ctx = context();
    assert!(
        !subject.folder.path().join("journal").exists(),
        "made when needed"
    );
    for fill in 1..=5 {
        subject.disk.begin(&ctx, pages(1, fill)).await.unwrap();
        // The spare is made beside the calls.
        let count = usize::from(fill) + 1;
        while subject.files().len() < count || subject.files().iter().any(|f| f.1 < SEGMENT_BYTES) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    let listed = JournalDisk::files(&*subject.disk, &ctx).await.unwrap();
    assert_eq!(listed.len(), 5, "the spare is no segment");
    assert!(listed.iter().all(|file| file.len == SEGMENT_BYTES));
    subject.disk.close().await;
    assert_eq!(
        subject.files().len(),
        5,
        "a spare does not outlive a clean stop"
    );
}

#[tokio::test]
async fn a_wiped_journal_is_noticed_by_the_next_append() {
    let subject = OnDisk::new();
    let ctx = context();
    let file = subject.disk.begin(&ctx, pages(1, 1)).await.unwrap();
    std::fs::remove_dir_all(subject.folder.path().join("journal")).unwrap();
    let append = JournalDisk::append(&*subject.disk, &ctx, file, JOURNAL_PAGE as u64, pages(1, 2));
    let lost = append.await;
    assert!(matches!(lost, Err(StoreError::Lost { .. })), "{lost:?}");
}

#[tokio::test]
async fn another_cluster_is_refused() {
    let subject = OnDisk::new();
    let mut ctx = context();
    ctx.cluster.0 += 1;
    let refused = subject.disk.begin(&ctx, pages(1, 1)).await;
    assert!(
        matches!(refused, Err(StoreError::WrongDisk { .. })),
        "{refused:?}"
    );
    assert!(!subject.folder.path().join("journal").exists());
}

/// The spare is a write as any other: what a sync of it says of the disk
/// holds. And what the journal has is given all the same.
#[test]
fn a_spare_that_cannot_be_synced_fences_and_the_journal_is_still_read() {
    for call in ["fdatasync", "fsync"] {
        let folder = Folder::new();
        let spare = folder.path().join("journal/0000000000000002");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null"]);
        strace.arg(format!("--trace={call}"));
        strace.arg(format!("--inject={call}:error=EIO"));
        strace.arg("-P").arg(spare);
        strace.arg(std::env::current_exe().unwrap());
        strace.args(["--exact", "--ignored", "journal::child_with_a_bad_spare"]);
        strace.env(CHILD_FOLDER, folder.path());
        let status = strace.status().expect("strace is installed");
        assert!(status.success(), "{call}");
    }
}

/// What the test before runs.
#[tokio::test]
#[ignore = "runs under strace, started by another test"]
async fn child_with_a_bad_spare() {
    let Ok(path) = std::env::var(CHILD_FOLDER) else {
        return;
    };
    let disk = LocalDisk::open(Path::new(&path), &expected(), journal_options()).unwrap();
    let ctx = sample::context(1);
    let journal: &dyn JournalDisk = &disk;
    let file = journal.begin(&ctx, pages(1, 7)).await.unwrap();
    let since = Instant::now();
    while disk.health().await.unwrap().fenced.is_none() {
        assert!(since.elapsed() < Duration::from_secs(20), "no fence");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = journal.append(&ctx, file, JOURNAL_PAGE as u64, pages(1, 8));
    let refused = refused.await;
    assert!(
        matches!(refused, Err(StoreError::Fenced { .. })),
        "{refused:?}"
    );
    // Also for who comes after, and whose epoch the disk cannot take.
    for ctx in [ctx, sample::context(2)] {
        let files = journal.files(&ctx).await.unwrap();
        assert!(files.iter().any(|listed| listed.file == file), "{files:?}");
        let read = journal.read(&ctx, file, 0, JOURNAL_PAGE).await;
        assert_eq!(read, Ok(pages(1, 7)));
    }
    let raised = journal.raise(&sample::context(2)).await;
    assert!(
        matches!(raised, Err(StoreError::Fenced { .. })),
        "{raised:?}"
    );
    let stale = journal.files(&sample::context(0)).await;
    let is_stale = matches!(stale, Err(StoreError::StaleEpoch { .. }));
    assert!(is_stale, "{stale:?}");
}

//! Killed at any moment, a disk has what it answered, and damages nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shardgate_disk_store::LocalDisk;
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::CommitNumber;
use shardgate_wire::store::{MAX_APPEND_BYTES, ShardEnd};
use shardgate_wire::{CallContext, ShardStore, StoreError};

use crate::folder::{Folder, SeenVolumes, expected, small_volumes};

const CHILD_FOLDER: &str = "SHARDGATE_KILLED_DISK";
const SMALL_LEN: usize = 3000;
const LONG_LEN: usize = MAX_APPEND_BYTES + 5000;
/// Blobs that one run may use.
const RUN: u64 = 1_000_000;

/// One of four is appended, the others are put.
fn is_long(blob: u64) -> bool {
    blob % 4 == 1
}

fn len(blob: u64) -> usize {
    if is_long(blob) { LONG_LEN } else { SMALL_LEN }
}

/// Most are deleted again, so that volumes become waste.
fn goes(blob: u64) -> bool {
    !matches!(blob % 8, 0 | 5)
}

/// Stores one blob after the other until the kill, or a failure.
async fn caller(
    disk: Arc<LocalDisk>,
    ctx: CallContext,
    next: Arc<AtomicU64>,
) -> Result<(), StoreError> {
    loop {
        let blob = next.fetch_add(1, Ordering::SeqCst);
        store(&disk, &ctx, blob).await?;
        say(&format!("stored {blob}"));
        if goes(blob) {
            say(&format!("deleting {blob}"));
            let key = sample::key(u128::from(blob));
            disk.delete(&ctx, &[key]).await?;
            say(&format!("deleted {blob}"));
        }
    }
}

async fn store(disk: &LocalDisk, ctx: &CallContext, blob: u64) -> Result<(), StoreError> {
    let blob_id = u128::from(blob);
    if !is_long(blob) {
        return disk.put(ctx, sample::small(ctx, blob_id, SMALL_LEN)).await;
    }
    let bytes = sample::bytes(blob_id, LONG_LEN);
    let opened = disk.open(ctx, sample::header(ctx, blob_id), None).await;
    let handle = opened?;
    for start in (0..LONG_LEN).step_by(MAX_APPEND_BYTES) {
        let block = bytes.slice(start..LONG_LEN.min(start + MAX_APPEND_BYTES));
        let crcs = block_crcs(&block);
        disk.append(ctx, handle, start as u64, block, &crcs).await?;
    }
    let end = ShardEnd {
        shard_len: LONG_LEN as u64,
        blob_len: 4 * LONG_LEN as u64,
    };
    disk.finish(ctx, handle, end).await
}

/// What [`acknowledged_shards_outlive_kills`] runs and kills: says on its
/// standard output what was answered.
#[tokio::test]
#[ignore = "is killed by the test that starts it"]
async fn child_that_is_killed() {
    let Ok(told) = std::env::var(CHILD_FOLDER) else {
        return;
    };
    let (run, path) = told.split_once(':').unwrap();
    let run: u64 = run.parse().unwrap();
    let disk = LocalDisk::open(Path::new(path), &expected(), small_volumes()).unwrap();
    let disk = Arc::new(disk);
    let mut ctx = sample::context(run + 1);
    ctx.committed = CommitNumber(run);
    disk.assign(&ctx, &[sample::slot()]).await.unwrap();
    let next = Arc::new(AtomicU64::new(run * RUN));
    let callers: Vec<_> = (0..8)
        .map(|_| tokio::spawn(caller(Arc::clone(&disk), ctx, Arc::clone(&next))))
        .collect();
    for caller in callers {
        caller.await.unwrap().unwrap();
    }
}

/// One write, so that a kill leaves whole lines; unlike `println`, not kept
/// by the test harness.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).unwrap();
    out.flush().unwrap();
}

/// What the runs said so far.
#[derive(Default)]
pub(crate) struct Said {
    stored: BTreeSet<u64>,
    deleting: BTreeSet<u64>,
    deleted: BTreeSet<u64>,
}

impl Said {
    pub(crate) fn hear(&mut self, output: &str) {
        for line in output.lines() {
            let Some((what, blob)) = line.split_once(' ') else {
                continue;
            };
            let set = match what {
                "stored" => &mut self.stored,
                "deleting" => &mut self.deleting,
                "deleted" => &mut self.deleted,
                _ => continue,
            };
            set.extend(blob.parse::<u64>());
        }
    }

    pub(crate) fn stored(&self) -> usize {
        self.stored.len()
    }

    /// Stored, and nobody began to delete it.
    pub(crate) fn kept(&self) -> impl Iterator<Item = u64> {
        self.stored.difference(&self.deleting).copied()
    }
}

/// A process that stores until it is killed.
pub(crate) struct Child {
    process: std::process::Child,
    output: tempfile::NamedTempFile,
}

impl Child {
    pub(crate) fn start(run: u64, folder: &Path) -> Self {
        let output = tempfile::NamedTempFile::new().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--ignored", "--nocapture"])
            .arg("kills::child_that_is_killed")
            .env(CHILD_FOLDER, format!("{run}:{}", folder.display()))
            .stdout(Stdio::from(output.reopen().unwrap()))
            .spawn()
            .unwrap();
        Self { process, output }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.output.path()).unwrap()
    }

    /// Waits until something was stored, and deleted, and volumes were full.
    pub(crate) async fn wait_for_answers(&mut self) {
        let enough = |text: &str| text.contains("deleted") && text.matches("stored").count() > 100;
        while !enough(&self.text()) {
            let over = self.process.try_wait().unwrap().is_some();
            assert!(!over, "{}", self.text());
            tokio::time::sleep(Duration::from_millis(7)).await;
        }
    }

    /// Kills it; what it said.
    pub(crate) fn kill(mut self) -> String {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.text()
    }
}

#[tokio::test]
async fn acknowledged_shards_outlive_kills() {
    let folder = Folder::new();
    let (mut said, mut seen) = (Said::default(), SeenVolumes::default());
    for run in 0..6u64 {
        let mut child = Child::start(run, folder.path());
        // Long enough that something was stored, then at no moment in
        // particular.
        child.wait_for_answers().await;
        tokio::time::sleep(Duration::from_millis(237 * run)).await;
        said.hear(&child.kill());
        seen.look_after_run(folder.path());
        verify(folder.path(), &said, run).await;
        seen.look(folder.path());
    }
    seen.check(6);
    assert!(said.stored.len() > 50, "{} were stored", said.stored.len());
}

/// Opens the disk after a kill and compares it with what was said.
pub(crate) async fn verify(folder: &Path, said: &Said, run: u64) {
    let disk = LocalDisk::open(folder, &expected(), small_volumes()).unwrap();
    let health = disk.health().await.unwrap();
    assert_eq!(health.epoch, sample::context(run + 1).epoch);
    for blob in &said.stored {
        let key = sample::key(u128::from(*blob));
        if said.deleted.contains(blob) {
            let stat = disk.stat(key).await;
            assert_eq!(stat, Err(StoreError::NotFound), "blob {blob} was deleted");
        } else if !said.deleting.contains(blob) {
            let len = len(*blob);
            let read = disk.read(key, 0, len as u32).await;
            let read = read.unwrap_or_else(|error| panic!("blob {blob} was stored: {error}"));
            assert_eq!(read.bytes, sample::bytes(u128::from(*blob), len));
        }
    }
    // What was not answered is whole or not there, and never corrupt.
    let mut after = None;
    loop {
        let page = disk.list(after, 1000).await.unwrap();
        for entry in &page {
            let blob = u64::try_from(entry.key.blob.0).unwrap();
            let read = disk.read(entry.key, 0, len(blob) as u32).await;
            if entry.finished {
                assert!(read.is_ok(), "blob {blob}: {read:?}");
            } else {
                assert_eq!(read, Err(StoreError::NotFound), "blob {blob}");
            }
        }
        if page.len() < 1000 {
            break;
        }
        after = page.last().map(|entry| entry.key);
    }
    disk.close().await;
}

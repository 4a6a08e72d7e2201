//! A disk with something of everything that a disk keeps, and what a test
//! does to its files.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use shardgate_wire::checksum::{CHECK_BLOCK, block_crcs, crc32c};
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{BlobId, CommitNumber};
use shardgate_wire::journal::{JournalDisk, JournalFile};
use shardgate_wire::note::{BlobNote, NoteOrder, NoteState};
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{CallContext, CheckPage, Medium, ShardKey, ShardStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{DiskOptions, Expected, KeptSpace, LocalDisk, NewDisk, VolumeFigures};

pub(super) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

fn options() -> DiskOptions {
    DiskOptions {
        kept: Some(KeptSpace::NONE),
        volumes: Some(VolumeFigures {
            volume_bytes: 512 * 1024,
            volume_records: 400,
            zero_step: 64 * 1024,
            large_batch: 16 << 10,
            volume_max: 64 * 1024,
            punch_from: 8192,
            log_bytes: 16 * 1024,
            open_files: 8,
            sync_at_once: false,
        }),
        journal_segment_bytes: 16 << 20,
        ..DiskOptions::default()
    }
}

fn expected() -> Expected {
    Expected {
        cluster: sample::CLUSTER,
        disk: Some(sample::identity().disk),
    }
}

pub(super) struct World {
    pub(super) dir: TempDir,
    pub(super) disk: LocalDisk,
    pub(super) segment: (JournalFile, u64),
}

/// Blobs that are small, streamed into volumes, and in files.
pub(super) const SMALL: std::ops::Range<u128> = 1..40;
pub(super) const STREAMED: std::ops::Range<u128> = 100..104;
pub(super) const IN_FILES: std::ops::Range<u128> = 200..203;
pub(super) const FILE_LEN: usize = 3 * CHECK_BLOCK + 5000;

/// A batch of the journal.
pub(super) fn batch(offset: u64, payload: &[u8]) -> bytes::Bytes {
    let mut batch = b"SG.jbat\0\0\x01\x02\0".to_vec();
    batch.extend((payload.len() as u32).to_be_bytes());
    batch.resize(48, 7);
    batch.extend(offset.to_be_bytes());
    batch.resize(116, 9);
    batch.extend(payload);
    batch.extend(crc32c(&batch).to_be_bytes());
    batch.resize(batch.len().next_multiple_of(4096), 0);
    batch.into()
}

pub(super) fn note(blob: u128) -> BlobNote {
    BlobNote {
        group: sample::GROUP,
        blob: BlobId(blob),
        order: NoteOrder {
            history: 1,
            commit: CommitNumber(3),
        },
        state: NoteState::Published(vec![5; 700]),
    }
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let new = NewDisk {
            cluster: sample::CLUSTER,
            disk: sample::identity().disk,
            medium: Some(Medium::Flash),
            create_folder: false,
        };
        LocalDisk::format(dir.path(), &new).unwrap();
        let disk = LocalDisk::open(dir.path(), &expected(), options()).unwrap();
        let ctx = sample::context(1);
        disk.assign(&ctx, &[sample::slot()]).await.unwrap();
        let begun = disk.begin(&ctx, batch(0, &[1; 100])).await.unwrap();
        let mut world = Self {
            dir,
            disk,
            segment: (begun, 4096),
        };
        world.append_batch(9000).await;
        world.append_batch(10).await;
        for blob in SMALL {
            world.put(blob, 300 * blob as usize).await;
        }
        for blob in STREAMED {
            world.append(blob, 30_000, Some(30_000)).await;
        }
        for blob in IN_FILES {
            world.append_file(blob, FILE_LEN).await;
        }
        let gone: Vec<_> = [3, 9, 101, 202].map(sample::key).to_vec();
        world.disk.delete(&ctx, &gone).await.unwrap();
        for first in [1, 20, 40] {
            let notes: Vec<_> = (first..first + 19).map(note).collect();
            world.disk.put_notes(&ctx, &notes).await.unwrap();
        }
        world
    }

    pub(super) fn ctx(&self) -> CallContext {
        sample::context(1)
    }

    pub(super) async fn reopen(self) -> Self {
        self.disk.close().await;
        let disk = LocalDisk::open(self.dir.path(), &expected(), options()).unwrap();
        Self { disk, ..self }
    }

    pub(super) async fn put(&self, blob: u128, len: usize) {
        let shard = sample::small(&self.ctx(), blob, len);
        self.disk.put(&self.ctx(), shard).await.unwrap();
    }

    pub(super) async fn append_file(&self, blob: u128, len: usize) {
        self.append(blob, len, None).await;
    }

    pub(super) async fn append(&self, blob: u128, len: usize, known: Option<u64>) {
        let ctx = self.ctx();
        let header = sample::header(&ctx, blob);
        let handle = self.disk.open(&ctx, header, known).await.unwrap();
        let bytes = sample::bytes(blob, len);
        for at in (0..len).step_by(4 * CHECK_BLOCK) {
            let piece = bytes.slice(at..len.min(at + 4 * CHECK_BLOCK));
            let crcs = block_crcs(&piece);
            let appended = ShardStore::append(&self.disk, &ctx, handle, at as u64, piece, &crcs);
            appended.await.unwrap();
        }
        let end = ShardEnd {
            shard_len: len as u64,
            blob_len: len as u64,
        };
        self.disk.finish(&ctx, handle, end).await.unwrap();
    }

    pub(super) async fn append_batch(&mut self, len: usize) {
        let (ctx, (file, offset)) = (self.ctx(), self.segment);
        let batch = batch(offset, &vec![3; len]);
        self.segment.1 += batch.len() as u64;
        let appended = JournalDisk::append(&self.disk, &ctx, file, offset, batch);
        appended.await.unwrap();
    }

    pub(super) async fn fill_journal(&self, bytes: usize) {
        let (ctx, (file, mut offset)) = (self.ctx(), self.segment);
        let end = offset + bytes as u64;
        while offset < end {
            let batch = batch(offset, &vec![3; 300_000]);
            let len = batch.len() as u64;
            let appended = JournalDisk::append(&self.disk, &ctx, file, offset, batch);
            appended.await.unwrap();
            offset += len;
        }
    }

    /// Seals what has records, and gives the volumes that are sealed.
    pub(super) async fn sealed(&mut self) -> Vec<PathBuf> {
        let volumes = &self.disk.core.volumes;
        volumes.roll(sample::GROUP);
        loop {
            let alone = self.disk.core.tidying.lock();
            while volumes.upkeep().unwrap() {}
            drop(alone);
            let all = self.files(&format!("volumes/{}", sample::GROUP), "vol");
            let sealed: Vec<_> = all
                .into_iter()
                .filter(|path| path.with_extension("dir").exists())
                .collect();
            if !sealed.is_empty() {
                return sealed;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    pub(super) fn files(&self, folder: &str, ending: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path().join(folder)).unwrap();
        let mut found: Vec<_> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                ending.is_empty() || path.extension().is_some_and(|found| found == ending)
            })
            .collect();
        found.sort();
        found
    }

    pub(super) fn file_of(&self, blob: u128) -> PathBuf {
        let shards = self.dir.path().join("shards");
        shards.join(crate::names::file_path(&sample::key(blob)))
    }

    /// Where the records of a shard are, of this kind: volume, place, and
    /// whether the volume is sealed.
    pub(super) fn record(&self, key: ShardKey, kind: u8) -> Vec<(PathBuf, u64)> {
        let mut found = vec![];
        for path in self.files(&format!("volumes/{}", key.group), "vol") {
            let bytes = std::fs::read(&path).unwrap();
            for at in (8192..bytes.len() - 64).step_by(64) {
                let head = &bytes[at..];
                let is_of = kind == 3 || head[48..64] == key.blob.to_be_bytes();
                if head.starts_with(b"SG.vrec\0") && head[10] == kind && is_of {
                    found.push((path.clone(), at as u64));
                }
            }
        }
        found
    }
}

/// Checks a disk to its end, as a gateway does.
pub(super) async fn check_all(disk: &LocalDisk, repair: Option<&CallContext>) -> CheckPage {
    let (own, mut all, mut parts) = (disk.own_context(), CheckPage::default(), 0);
    loop {
        let ctx = repair.unwrap_or(&own);
        let page = disk.check(ctx, all.next.take(), repair.is_some());
        let page = page.await.unwrap();
        all.volumes += page.volumes;
        all.shards += page.shards;
        all.bytes += page.bytes;
        all.findings.extend(page.findings);
        all.next = page.next;
        parts += 1;
        assert!(parts < 10_000, "it does not end: {:?}", all.next);
        if all.next.is_none() {
            return all;
        }
    }
}

/// Changes a byte of a file, whatever its permissions.
pub(super) fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).unwrap().permissions();
    let mut writable = mode.clone();
    writable.set_mode(0o600);
    std::fs::set_permissions(path, writable).unwrap();
    let mut options = std::fs::File::options();
    let file = options.read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    file.sync_all().unwrap();
    std::fs::set_permissions(path, mode).unwrap();
}

//! What is compared: a file per record, RocksDB, and the disk store.

use std::fs::{self, File, OpenOptions};
use std::io::{Error, Result, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use shardgate_catalog::engine::{Commit, Engine, Op, RocksEngine, RocksOptions};
use shardgate_disk_store::{DiskOptions, Expected, LocalDisk, NewDisk};
use shardgate_wire::checksum::{CHECK_BLOCK, block_crcs};
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{MAX_APPEND_BYTES, ShardEnd, SmallShard};
use shardgate_wire::{Medium, ShardStore};

/// Folders of files, so that none gets too long.
const FAN_OUT: u64 = 256;

pub(super) fn random_bytes(len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    rand::Rng::fill(&mut rand::rng(), &mut bytes[..]);
    bytes.into()
}

/// One file per record, as durable as the store: file and folder synced.
pub(super) struct Files {
    folder: PathBuf,
    folders: Vec<File>,
    bytes: Bytes,
}

impl Files {
    pub(super) fn new(folder: &Path, bytes: Bytes) -> Result<Self> {
        let mut folders = Vec::new();
        for number in 0..FAN_OUT {
            let path = folder.join(format!("{number:02x}"));
            fs::create_dir(&path)?;
            folders.push(File::open(&path)?);
        }
        File::open(folder)?.sync_all()?;
        Ok(Self {
            folder: folder.to_owned(),
            folders,
            bytes,
        })
    }

    pub(super) fn write(&self, number: u64) -> Result<()> {
        let at = number % FAN_OUT;
        let path = self.folder.join(format!("{at:02x}/{number:016x}"));
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&self.bytes)?;
        file.sync_data()?;
        self.folders[usize::try_from(at).expect("below the fan-out")].sync_all()
    }
}

/// RocksDB as the catalog uses it: one write batch and one sync for all that
/// wait.
#[derive(Clone)]
pub(super) struct Rocks {
    engine: Arc<RocksEngine>,
    bytes: Bytes,
}

impl Rocks {
    pub(super) fn new(folder: &Path, bytes: Bytes) -> Result<Self> {
        let engine = RocksEngine::open(folder, &RocksOptions::default());
        Ok(Self {
            engine: Arc::new(engine.map_err(Error::other)?),
            bytes,
        })
    }

    pub(super) async fn write(&self, number: u64) -> Result<()> {
        let key = Bytes::from(format!("bench/{number:016x}"));
        let commit = Commit {
            expect: Vec::new(),
            ops: vec![Op::Put(key, self.bytes.clone())],
        };
        let done = self.engine.commit(commit).await;
        done.map(drop)
            .map_err(|error| Error::other(format!("{error:?}")))
    }
}

/// The disk store, through the trait that its callers use.
#[derive(Clone)]
pub(super) struct Shards {
    disk: Arc<LocalDisk>,
    bytes: Bytes,
    crcs: Vec<u32>,
}

impl Shards {
    /// Makes a disk in an empty folder.
    pub(super) async fn create(folder: &Path, bytes: Bytes) -> Result<Self> {
        Self::create_with(folder, bytes, DiskOptions::default()).await
    }

    pub(super) async fn create_with(
        folder: &Path,
        bytes: Bytes,
        options: DiskOptions,
    ) -> Result<Self> {
        let new = NewDisk {
            cluster: sample::CLUSTER,
            disk: sample::identity().disk,
            medium: Some(Medium::Flash),
            create_folder: false,
        };
        LocalDisk::format(folder, &new).map_err(Error::other)?;
        let shards = Self::open_with(folder, bytes, options)?;
        let (ctx, slots) = (sample::context(1), [sample::slot()]);
        let assigned = shards.disk.assign(&ctx, &slots).await;
        assigned.map_err(Error::other)?;
        Ok(shards)
    }

    pub(super) fn open(folder: &Path, bytes: Bytes) -> Result<Self> {
        Self::open_with(folder, bytes, DiskOptions::default())
    }

    fn open_with(folder: &Path, bytes: Bytes, options: DiskOptions) -> Result<Self> {
        let expected = Expected {
            cluster: sample::CLUSTER,
            disk: Some(sample::identity().disk),
        };
        let disk = LocalDisk::open(folder, &expected, options);
        Ok(Self {
            disk: Arc::new(disk.map_err(Error::other)?),
            crcs: block_crcs(&bytes),
            bytes,
        })
    }

    pub(super) async fn write(&self, number: u64) -> Result<()> {
        let ctx = sample::context(1);
        let shard = SmallShard {
            header: sample::header(&ctx, number.into()),
            blob_len: self.bytes.len() as u64 * 4,
            bytes: self.bytes.clone(),
            crcs: self.crcs.clone(),
        };
        self.disk.put(&ctx, shard).await.map_err(Error::other)
    }

    pub(super) async fn read(&self, number: u64, len: u32) -> Result<()> {
        let read = self.disk.read(sample::key(number.into()), 0, len).await;
        let read = read.map_err(Error::other)?;
        assert_eq!(read.bytes.len(), len as usize, "a record is read whole");
        Ok(())
    }

    /// A shard that comes in appends, its length known.
    pub(super) async fn stream(&self, number: u64) -> Result<()> {
        let (ctx, len) = (sample::context(1), self.bytes.len());
        let header = sample::header(&ctx, number.into());
        let opened = self.disk.open(&ctx, header, Some(len as u64)).await;
        let handle = opened.map_err(Error::other)?;
        for from in (0..len).step_by(MAX_APPEND_BYTES) {
            let to = len.min(from + MAX_APPEND_BYTES);
            let crcs = &self.crcs[from / CHECK_BLOCK..to.div_ceil(CHECK_BLOCK)];
            let bytes = self.bytes.slice(from..to);
            let appended = self.disk.append(&ctx, handle, from as u64, bytes, crcs);
            appended.await.map_err(Error::other)?;
        }
        let end = ShardEnd {
            shard_len: len as u64,
            blob_len: len as u64 * 4,
        };
        let finished = self.disk.finish(&ctx, handle, end).await;
        finished.map_err(Error::other)
    }

    pub(super) async fn delete(&self, numbers: RangeInclusive<u64>) -> Result<()> {
        let ctx = sample::context(1);
        let keys: Vec<_> = numbers.map(|number| sample::key(number.into())).collect();
        for some in keys.chunks(64) {
            self.disk.delete(&ctx, some).await.map_err(Error::other)?;
        }
        Ok(())
    }

    pub(super) async fn close(&self) {
        self.disk.close().await;
    }
}

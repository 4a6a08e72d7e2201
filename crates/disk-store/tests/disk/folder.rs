//! A disk in a folder of its own, and what a test does to its files.

use std::path::{Path, PathBuf};

use shardgate_disk_store::{DiskOptions, Expected, LocalDisk, NewDisk, OpenError};
use shardgate_wire::conformance::sample;
use shardgate_wire::{Medium, ShardKey, ShardStore};
use tempfile::TempDir;

pub(crate) fn expected() -> Expected {
    Expected {
        cluster: sample::CLUSTER,
        disk: Some(sample::identity().disk),
    }
}

pub(crate) fn new_disk() -> NewDisk {
    NewDisk {
        cluster: sample::CLUSTER,
        disk: sample::identity().disk,
        medium: Some(Medium::Flash),
        create_folder: false,
    }
}

pub(crate) fn options() -> DiskOptions {
    DiskOptions {
        reserve_bytes: Some(0),
        ..DiskOptions::default()
    }
}

/// A formatted folder.
pub(crate) struct Folder {
    dir: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    pub(crate) fn within(parent: &Path) -> Self {
        let dir = tempfile::tempdir_in(parent).unwrap();
        LocalDisk::format(dir.path(), &new_disk()).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn try_open(&self) -> Result<LocalDisk, OpenError> {
        LocalDisk::open(self.path(), &expected(), options())
    }

    pub(crate) fn open(&self) -> LocalDisk {
        self.try_open().unwrap()
    }

    /// A disk with the slot of the samples.
    pub(crate) async fn open_assigned(&self) -> LocalDisk {
        let disk = self.open();
        let ctx = sample::context(1);
        disk.assign(&ctx, &[sample::slot()]).await.unwrap();
        disk
    }

    pub(crate) fn shard_path(&self, key: ShardKey) -> PathBuf {
        let blob = key.blob.to_string();
        let shards = self.path().join("shards").join(key.group.to_string());
        let name = format!("{blob}-{:02x}", key.index);
        shards.join(&blob[..7]).join(name)
    }

    /// Changes the bytes of a shard's file, whatever its permissions, and
    /// leaves those as they are.
    pub(crate) fn change(&self, key: ShardKey, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.shard_path(key);
        let mode = std::fs::metadata(&path).unwrap().permissions();
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        let mut writable = mode.clone();
        std::os::unix::fs::PermissionsExt::set_mode(&mut writable, 0o600);
        std::fs::set_permissions(&path, writable).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        std::fs::set_permissions(&path, mode).unwrap();
    }

    /// Where a finished shard's bytes begin in its file, by its trailer.
    pub(crate) fn data_offset(&self, key: ShardKey) -> usize {
        let bytes = std::fs::read(self.shard_path(key)).unwrap();
        let trailer = &bytes[bytes.len() - 96..];
        u32::from_be_bytes(trailer[12..16].try_into().unwrap()) as usize
    }
}

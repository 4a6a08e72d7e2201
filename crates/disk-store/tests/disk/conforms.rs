//! The suite of every store, on real files.

use std::sync::Arc;

use async_trait::async_trait;
use shardgate_disk_store::{DiskOptions, LocalDisk};
use shardgate_wire::conformance::{self, Subject};
use shardgate_wire::{Medium, ShardKey, ShardStore};

use crate::folder::{Folder, expected, options};

struct OnDisk {
    disk: Arc<LocalDisk>,
    folder: Folder,
    options: DiskOptions,
}

impl OnDisk {
    fn new(options: DiskOptions) -> Self {
        let folder = Folder::new();
        let disk = LocalDisk::open(folder.path(), &expected(), options.clone()).unwrap();
        Self {
            disk: Arc::new(disk),
            folder,
            options,
        }
    }
}

#[async_trait]
impl Subject for OnDisk {
    fn store(&self) -> Arc<dyn ShardStore> {
        Arc::clone(&self.disk) as Arc<dyn ShardStore>
    }

    async fn damage(&self, key: ShardKey, offset: u64) {
        self.folder.flip(key, offset);
    }

    async fn restart(&mut self) {
        self.disk.close().await;
        let opened = LocalDisk::open(self.folder.path(), &expected(), self.options.clone());
        self.disk = Arc::new(opened.unwrap());
    }
}

#[tokio::test]
async fn a_flash_disk_conforms() {
    Box::pin(conformance::run(|_| async { OnDisk::new(options()) })).await;
}

#[tokio::test]
async fn a_rotating_disk_conforms() {
    let rotating = DiskOptions {
        medium: Some(Medium::Rotating),
        ..options()
    };
    Box::pin(conformance::run(|_| {
        let rotating = rotating.clone();
        async { OnDisk::new(rotating) }
    }))
    .await;
}

/// With room for one file and one footer, everything is opened again all the
/// time.
#[tokio::test]
async fn a_disk_short_of_files_conforms() {
    let short = DiskOptions {
        max_handle_files: 1,
        max_cached_files: 1,
        max_cached_bytes: 1,
        ..options()
    };
    Box::pin(conformance::run(|_| {
        let short = short.clone();
        async { OnDisk::new(short) }
    }))
    .await;
}

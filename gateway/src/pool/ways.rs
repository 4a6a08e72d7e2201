//! The ways to a disk: for shards, and for the journal.
//!
//! Owns the registry by which the journal reaches disks. Invariant: whoever
//! holds a disk's way to the journal reaches it again when it was opened anew,
//! on the same disk and on no other.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use shardgate_wire::journal::{
    DiskRoots, JournalDisk, JournalFile, JournalStanding, ListedJournalFile,
};
use shardgate_wire::{CallContext, DiskId, ShardStore, StoreError};

/// An open disk.
#[derive(Clone)]
pub struct DiskWays {
    /// Its shards.
    pub shards: Arc<dyn ShardStore>,
    /// Its journal and its roots.
    pub journal: Arc<dyn JournalDisk>,
}

impl DiskWays {
    /// Of a disk that has both.
    pub fn of<D: ShardStore + JournalDisk>(disk: Arc<D>) -> Self {
        Self {
            shards: Arc::clone(&disk) as Arc<dyn ShardStore>,
            journal: disk,
        }
    }
}

/// The journal of every disk that was ever reached. Cheap to clone; all
/// clones are one.
#[derive(Clone, Default)]
pub struct JournalWays(Arc<RwLock<BTreeMap<DiskId, Arc<Way>>>>);

impl JournalWays {
    /// The disk was opened, maybe anew.
    pub fn opened(&self, journal: Arc<dyn JournalDisk>) {
        let way = self.way(journal.disk());
        *way.now.write() = Some(journal);
    }

    /// There is no way to the disk any more.
    pub fn closed(&self, disk: DiskId) {
        *self.way(disk).now.write() = None;
    }

    /// The disk's journal, whether there is a way to it now or not.
    pub fn get(&self, disk: DiskId) -> Arc<dyn JournalDisk> {
        self.way(disk)
    }

    /// All disks that there is a way to now.
    pub fn open(&self) -> Vec<Arc<dyn JournalDisk>> {
        let ways = self.0.read();
        let open = ways.values().filter(|way| way.now.read().is_some());
        open.map(|way| Arc::clone(way) as Arc<dyn JournalDisk>)
            .collect()
    }

    fn way(&self, disk: DiskId) -> Arc<Way> {
        let mut ways = self.0.write();
        let new = || {
            Arc::new(Way {
                disk,
                now: RwLock::default(),
            })
        };
        Arc::clone(ways.entry(disk).or_insert_with(new))
    }
}

struct Way {
    disk: DiskId,
    now: RwLock<Option<Arc<dyn JournalDisk>>>,
}

impl Way {
    fn journal(&self) -> Result<Arc<dyn JournalDisk>, StoreError> {
        let gone = || StoreError::Unreachable {
            why: "the disk is not there".into(),
        };
        self.now.read().clone().ok_or_else(gone)
    }
}

#[async_trait]
impl JournalDisk for Way {
    fn disk(&self) -> DiskId {
        self.disk
    }

    async fn standing(&self) -> Result<JournalStanding, StoreError> {
        self.journal()?.standing().await
    }

    async fn raise(&self, ctx: &CallContext) -> Result<(), StoreError> {
        self.journal()?.raise(ctx).await
    }

    async fn begin(&self, ctx: &CallContext, bytes: Bytes) -> Result<JournalFile, StoreError> {
        self.journal()?.begin(ctx, bytes).await
    }

    async fn append(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        self.journal()?.append(ctx, file, offset, bytes).await
    }

    async fn files(&self, ctx: &CallContext) -> Result<Vec<ListedJournalFile>, StoreError> {
        self.journal()?.files(ctx).await
    }

    async fn read(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        self.journal()?.read(ctx, file, offset, len).await
    }

    async fn remove(&self, ctx: &CallContext, files: &[JournalFile]) -> Result<(), StoreError> {
        self.journal()?.remove(ctx, files).await
    }

    async fn roots(&self) -> Result<DiskRoots, StoreError> {
        self.journal()?.roots().await
    }

    async fn set_map(&self, ctx: &CallContext, number: u64, map: Bytes) -> Result<(), StoreError> {
        self.journal()?.set_map(ctx, number, map).await
    }

    async fn set_checkpoint(&self, ctx: &CallContext, root: Bytes) -> Result<(), StoreError> {
        self.journal()?.set_checkpoint(ctx, root).await
    }
}

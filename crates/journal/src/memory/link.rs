//! A disk in memory as a gateway reaches it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use shardgate_wire::journal::{
    DiskRoots, JournalDisk, JournalFile, JournalStanding, ListedJournalFile,
    MAX_CHECKPOINT_ROOT_BYTES, MAX_POOL_MAP_BYTES,
};
use shardgate_wire::{CallContext, DiskId, StoreError};
use tokio::time::sleep;

use super::{File, MemoryDisk, MemoryLink, State, unreachable};

impl MemoryLink {
    /// Cuts or mends the way.
    pub fn set_cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    async fn way(&self) -> Result<MemoryDisk, StoreError> {
        if self.cut.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1)).await;
            return Err(unreachable());
        }
        Ok(self.disk.clone())
    }
}

#[async_trait]
impl JournalDisk for MemoryLink {
    fn disk(&self) -> DiskId {
        self.disk.id
    }

    async fn standing(&self) -> Result<JournalStanding, StoreError> {
        let run = |state: &mut State| {
            let age = state.last_call.map(|at| at.elapsed().as_millis());
            Ok(JournalStanding {
                epoch: state.epoch,
                last_call_ms: age.map(|age| u64::try_from(age).unwrap_or(u64::MAX)),
                told: state.told,
                segment_bytes: state.segment_bytes as u64,
            })
        };
        self.way().await?.run(None, run).await
    }

    async fn raise(&self, ctx: &CallContext) -> Result<(), StoreError> {
        self.way().await?.run(Some(*ctx), |_| Ok(())).await
    }

    async fn begin(&self, ctx: &CallContext, bytes: Bytes) -> Result<JournalFile, StoreError> {
        self.way().await?.write(*ctx, None, bytes).await
    }

    async fn append(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        let at = usize::try_from(offset).expect("segments are small");
        let write = self.way().await?.write(*ctx, Some((file, at)), bytes);
        write.await.map(drop)
    }

    async fn files(&self, ctx: &CallContext) -> Result<Vec<ListedJournalFile>, StoreError> {
        let run = |state: &mut State| {
            // After the process died what it wrote is in the cache only.
            state.files.values_mut().for_each(File::sync);
            let listed = state.files.iter().map(|(id, file)| ListedJournalFile {
                file: *id,
                len: file.durable.len() as u64,
            });
            Ok(listed.collect())
        };
        self.way().await?.run(Some(*ctx), run).await
    }

    async fn read(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let at = usize::try_from(offset).expect("segments are small");
        let run = move |state: &mut State| {
            let seen = state.read(file).ok_or(StoreError::NotFound)?;
            let end = seen.len().min(at + len);
            Ok(Bytes::copy_from_slice(&seen[at.min(end)..end]))
        };
        self.way().await?.run(Some(*ctx), run).await
    }

    async fn remove(&self, ctx: &CallContext, files: &[JournalFile]) -> Result<(), StoreError> {
        let files = files.to_vec();
        let run = move |state: &mut State| {
            state.files.retain(|id, _| !files.contains(id));
            Ok(())
        };
        self.way().await?.run(Some(*ctx), run).await
    }

    async fn roots(&self) -> Result<DiskRoots, StoreError> {
        let run = |state: &mut State| Ok(state.roots.clone());
        self.way().await?.run(None, run).await
    }

    async fn set_map(&self, ctx: &CallContext, number: u64, map: Bytes) -> Result<(), StoreError> {
        let run = move |state: &mut State| {
            if map.len() > MAX_POOL_MAP_BYTES || number < state.roots.map_number {
                let what = format!("map {number}");
                return Err(StoreError::BadCall { what });
            }
            state.roots.map_number = number;
            state.roots.map = map;
            Ok(())
        };
        self.way().await?.run(Some(*ctx), run).await
    }

    async fn set_checkpoint(&self, ctx: &CallContext, root: Bytes) -> Result<(), StoreError> {
        let run = move |state: &mut State| {
            if root.len() > MAX_CHECKPOINT_ROOT_BYTES {
                let what = "checkpoint root".into();
                return Err(StoreError::BadCall { what });
            }
            state.roots.checkpoint = root;
            Ok(())
        };
        self.way().await?.run(Some(*ctx), run).await
    }
}

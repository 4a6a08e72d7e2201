//! The journal of a disk behind an agent, as a [`JournalDisk`].
//!
//! Invariant: its calls go on connections that shards do not use, a bounded
//! number at a time; an answer that does not fit its call is an error.

use async_trait::async_trait;
use bytes::Bytes;
use shardgate_wire::frame::encode_head;
use shardgate_wire::journal::{
    DiskRoots, JournalDisk, JournalFile, JournalStanding, ListedJournalFile,
    MAX_JOURNAL_APPEND_BYTES, MAX_JOURNAL_FILES, MAX_JOURNAL_READ_BYTES,
};
use shardgate_wire::message::Call;
use shardgate_wire::message_journal::{
    JournalAppendHead, JournalBeginHead, JournalCheckpointHead, JournalCtxHead, JournalMapHead,
    JournalReadHead, JournalRemoveHead, JournalRootsAnswer, JournalRootsHead, JournalStandingHead,
};
use shardgate_wire::store::MAX_BATCH;
use shardgate_wire::{CallContext, DiskId, StoreError};

use super::remote_disk::RemoteDisk;

fn bad(what: String) -> StoreError {
    StoreError::BadCall { what }
}

#[async_trait]
impl JournalDisk for RemoteDisk {
    fn disk(&self) -> DiskId {
        self.inner.disk
    }

    async fn standing(&self) -> Result<JournalStanding, StoreError> {
        self.call(Call::JournalStanding, &JournalStandingHead {})
            .await
    }

    async fn raise(&self, ctx: &CallContext) -> Result<(), StoreError> {
        let head = JournalCtxHead { ctx: *ctx };
        self.call(Call::JournalRaise, &head).await
    }

    async fn begin(&self, ctx: &CallContext, bytes: Bytes) -> Result<JournalFile, StoreError> {
        if bytes.len() > MAX_JOURNAL_APPEND_BYTES {
            return Err(bad(format!("first append of {} bytes", bytes.len())));
        }
        let head = encode_head(&JournalBeginHead { ctx: *ctx });
        let begun = self.inner.call(Call::JournalBegin, head, vec![bytes]);
        Ok(begun.await?.0)
    }

    async fn append(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(), StoreError> {
        if bytes.len() > MAX_JOURNAL_APPEND_BYTES {
            return Err(bad(format!("append of {} bytes", bytes.len())));
        }
        let head = encode_head(&JournalAppendHead {
            ctx: *ctx,
            file,
            offset,
        });
        let ((), _) = self
            .inner
            .call(Call::JournalAppend, head, vec![bytes])
            .await?;
        Ok(())
    }

    async fn files(&self, ctx: &CallContext) -> Result<Vec<ListedJournalFile>, StoreError> {
        let head = JournalCtxHead { ctx: *ctx };
        let files: Vec<ListedJournalFile> = self.call(Call::JournalFiles, &head).await?;
        let ascending = files.windows(2).all(|pair| pair[0].file < pair[1].file);
        if files.len() > MAX_JOURNAL_FILES + 1 || !ascending {
            return Err(self.inner.unfit(Call::JournalFiles));
        }
        Ok(files)
    }

    async fn read(
        &self,
        ctx: &CallContext,
        file: JournalFile,
        offset: u64,
        len: usize,
    ) -> Result<Bytes, StoreError> {
        let most = MAX_JOURNAL_READ_BYTES;
        let asked = u32::try_from(len).ok().filter(|_| len <= most);
        let len_asked = asked.ok_or_else(|| bad(format!("read of {len} bytes")))?;
        let head = encode_head(&JournalReadHead {
            ctx: *ctx,
            file,
            offset,
            len: len_asked,
        });
        let ((), bytes) = self.inner.call(Call::JournalRead, head, Vec::new()).await?;
        if bytes.len() > len {
            return Err(self.inner.unfit(Call::JournalRead));
        }
        Ok(bytes)
    }

    async fn remove(&self, ctx: &CallContext, files: &[JournalFile]) -> Result<(), StoreError> {
        for files in files.chunks(MAX_BATCH) {
            let head = JournalRemoveHead {
                ctx: *ctx,
                files: files.to_vec(),
            };
            let () = self.call(Call::JournalRemove, &head).await?;
        }
        Ok(())
    }

    async fn roots(&self) -> Result<DiskRoots, StoreError> {
        let head = encode_head(&JournalRootsHead {});
        let asked = self.inner.call(Call::JournalRoots, head, Vec::new());
        let (answer, mut bytes): (JournalRootsAnswer, Bytes) = asked.await?;
        let map_len = answer.map_len as usize;
        if map_len > bytes.len() {
            return Err(self.inner.unfit(Call::JournalRoots));
        }
        Ok(DiskRoots {
            map_number: answer.map_number,
            map: bytes.split_to(map_len),
            checkpoint: bytes,
        })
    }

    async fn set_map(&self, ctx: &CallContext, number: u64, map: Bytes) -> Result<(), StoreError> {
        let head = encode_head(&JournalMapHead { ctx: *ctx, number });
        let set = self.inner.call(Call::JournalMap, head, vec![map]);
        let ((), _) = set.await?;
        Ok(())
    }

    async fn set_checkpoint(&self, ctx: &CallContext, root: Bytes) -> Result<(), StoreError> {
        let head = encode_head(&JournalCheckpointHead { ctx: *ctx });
        let set = self.inner.call(Call::JournalCheckpoint, head, vec![root]);
        let ((), _) = set.await?;
        Ok(())
    }
}

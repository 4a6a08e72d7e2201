//! The lanes of a blob's shards: what is sent next on one, and what follows
//! from how a call ended.

use std::sync::Arc;
use std::time::Duration;

use shardgate_erasure::Layout;
use shardgate_wire::StoreError;
use shardgate_wire::store::{ShardHandle, SmallShard};
use tokio::time::Instant;
use tracing::warn;

use super::{BlobWriter, Ended};
use crate::object::lane::Next;
use crate::object::ports::CallReport;

impl BlobWriter {
    pub(super) fn ended(&mut self, shard: usize, ended: Ended, took: Duration) {
        self.lanes[shard].answered(took);
        if self.lanes[shard].is_over() {
            // Given up meanwhile; an open handle is aborted.
            if let Ended::Opened(Ok(handle)) = ended {
                self.abort(shard, handle);
            }
            let sent = self.lanes[shard].stored();
            self.release(sent);
            return;
        }
        match ended {
            Ended::Opened(Ok(handle)) => self.lanes[shard].opened(handle),
            Ended::Appended(Ok(())) => {
                let stored = self.lanes[shard].stored();
                self.release(stored);
            }
            Ended::Stored(Ok(())) => {
                let since = self.end.map(|(_, begun)| begun.elapsed());
                self.tally.durable(shard, since.unwrap_or_default());
                let blocks = self.lanes[shard].end();
                self.release(blocks);
            }
            Ended::Opened(Err(error)) | Ended::Appended(Err(error)) | Ended::Stored(Err(error)) => {
                self.failed(shard, &error);
            }
        }
        self.proceed(shard);
    }

    fn failed(&mut self, shard: usize, error: &StoreError) {
        let disk = self.lanes[shard].target.as_ref().map(|target| target.disk);
        warn!(?disk, blob = %self.blob.blob, shard, %error, "shard write failed");
        self.no_space |= *error == StoreError::NoSpace;
        self.give_up(shard);
    }

    pub(super) fn late(&mut self, shard: usize) {
        self.core.metrics.shards_late.one();
        if let Some(target) = &self.lanes[shard].target {
            warn!(disk = %target.disk, blob = %self.blob.blob, shard, "shard write is late");
            self.core.disks.report(target.disk, CallReport::Late);
        }
        self.give_up(shard);
    }

    pub(super) fn give_up(&mut self, shard: usize) {
        self.tally.failed(shard);
        if let Some(handle) = self.lanes[shard].handle() {
            self.abort(shard, handle);
        }
        let blocks = self.lanes[shard].end();
        self.release(blocks);
    }

    /// Gives up an open shard of a lane that is over, in its own task.
    fn abort(&self, shard: usize, handle: ShardHandle) {
        let Some(target) = self.lanes[shard].target.clone() else {
            return;
        };
        let core = Arc::clone(&self.core);
        self.core.tracker.spawn(async move {
            // An idle handle ends by itself if this does not reach the disk.
            let _ended = core.calls.abort(&target, handle).await;
        });
    }

    pub(super) fn release(&mut self, blocks: impl IntoIterator<Item = u64>) {
        for block in blocks {
            let Some(outstanding) = self.blocks.get_mut(&block) else {
                continue;
            };
            outstanding.left -= 1;
            if outstanding.left == 0 {
                self.outstanding -= outstanding.bytes;
                self.blocks.remove(&block);
            }
        }
    }

    /// Sends the next call of a lane, if there is one to send.
    pub(super) fn proceed(&mut self, shard: usize) {
        let end = self.end.map(|(end, _)| end);
        let Some(next) = self.lanes[shard].next(self.whole, end) else {
            return;
        };
        let lane = &self.lanes[shard];
        let target = lane.target.clone().expect("a lane without a disk is over");
        let core = Arc::clone(&self.core);
        self.touched = true;
        let mut header = None;
        if matches!(next, Next::Open | Next::Put(_)) {
            let mut own = self.header.clone();
            (own.key.index, own.slot) = (shard as u8, lane.slot);
            header = Some(own);
        }
        let len = self.header.blob_len;
        let layout = Layout::new(self.blob.layout.data, self.blob.layout.parity);
        let shard_len = len
            .zip(layout.ok())
            .map(|(len, layout)| shardgate_erasure::geometry::shard_len(layout, len));
        self.calls.push(Box::pin(async move {
            let begun = Instant::now();
            let calls = &core.calls;
            let ended = match (next, header) {
                (Next::Append(handle, it), _) => {
                    let appended = calls.append(&target, handle, it.offset, it.bytes, &it.crcs);
                    Ended::Appended(appended.await)
                }
                (Next::Finish(handle, end), _) => {
                    Ended::Stored(calls.finish(&target, handle, end).await)
                }
                (Next::Put(it), Some(header)) => {
                    let small = SmallShard {
                        header,
                        blob_len: len.unwrap_or_default(),
                        bytes: it.bytes,
                        crcs: it.crcs.to_vec(),
                    };
                    Ended::Stored(calls.put(&target, small).await)
                }
                (Next::Open | Next::Put(_), header) => {
                    let header = header.expect("a head was made for it");
                    Ended::Opened(calls.open(&target, header, shard_len).await)
                }
            };
            (shard, ended, begun.elapsed())
        }));
    }
}

//! Clears away a blob that was never published.
//!
//! Owns what happens when a write fails or its client leaves before the
//! commit: calls under way end within their limits, open handles are aborted,
//! and the blob is condemned, so that the purge deletes what became durable.
//! Invariant: nothing is deleted here; an abort gives up an unfinished shard.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use shardgate_catalog::model::{BlobRef, CondemnReason, CondemnedRow};
use shardgate_wire::store::ShardHandle;
use tracing::warn;

use super::budget::Permit;
use super::calls::Target;
use super::core::Core;
use super::in_flight::InFlightBlob;
use super::writer::{Call, Ended};

/// What is left of a write.
pub(super) struct Abandoned {
    pub blob: BlobRef,
    pub open: Vec<(Target, ShardHandle)>,
    /// The disk of each lane.
    pub targets: Vec<Option<Target>>,
    pub calls: FuturesUnordered<Call>,
    /// The memory of what they have.
    pub memory: Vec<Permit>,
    pub in_flight: Option<InFlightBlob>,
    /// Whether the blob is to be condemned here: the catalog does not know it.
    pub condemn: bool,
}

impl Abandoned {
    /// Starts clearing away, in a task of its own.
    pub fn clear_away(self, core: &Arc<Core>) {
        if tokio::runtime::Handle::try_current().is_err() {
            // The process ends: the next instance finds the orphans.
            return;
        }
        core.metrics.blobs_abandoned.one();
        let core = Arc::clone(core);
        core.tracker
            .clone()
            .spawn(async move { self.run(&core).await });
    }

    async fn run(mut self, core: &Core) {
        while let Some((lane, ended, _)) = self.calls.next().await {
            if let (Ended::Opened(Ok(handle)), Some(target)) = (ended, &self.targets[lane]) {
                self.open.push((target.clone(), handle));
            }
        }
        self.memory.clear();
        for (target, handle) in &self.open {
            // An idle handle ends by itself if this does not reach the disk.
            let _ended = core.calls.abort(target, *handle).await;
        }
        if core.calls.is_fenced() || !self.condemn {
            return;
        }
        let row = CondemnedRow {
            group: self.blob.group,
            blob: self.blob.blob,
            layout: self.blob.layout,
            reason: CondemnReason::NeverPublished,
        };
        if let Err(error) = core.catalog.condemn(&[row]).await {
            // Left to the collection of orphans.
            warn!(blob = %self.blob.blob, %error, "abandoned blob was not condemned");
        }
        drop(self.in_flight);
    }
}

//! How much is owed, for whoever asks often.
//!
//! Owns the count and the task that renews it, apart from the job that fills
//! owed slots, which may be busy with one of them for hours.

use std::collections::BTreeSet;
use std::time::Duration;

use parking_lot::Mutex;
use shardgate_catalog::Catalog;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Between two counts.
const EVERY: Duration = Duration::from_secs(5);

/// Slots that lack shards of acknowledged blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwedCount {
    /// Such slots.
    pub slots: usize,
    /// Groups that have one.
    pub groups: usize,
}

/// The last count.
#[derive(Debug, Default)]
pub struct Owing(Mutex<Option<OwedCount>>);

impl Owing {
    /// As it was a few seconds ago; `None` while it is not known.
    pub fn last(&self) -> Option<OwedCount> {
        *self.0.lock()
    }

    /// Renews the count until it is told to stop.
    pub(super) async fn keep(&self, catalog: &Catalog, stop: &CancellationToken) {
        loop {
            self.count(catalog).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn count(&self, catalog: &Catalog) {
        let rows = catalog.owed().await;
        if let Err(error) = &rows {
            warn!(%error, "owed slots cannot be counted");
        }
        let count = rows.ok().map(|rows| {
            let groups: BTreeSet<_> = rows.iter().map(|(group, _, _)| group).collect();
            OwedCount {
                slots: rows.len(),
                groups: groups.len(),
            }
        });
        *self.0.lock() = count;
    }
}

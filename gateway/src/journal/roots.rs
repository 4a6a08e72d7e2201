//! Which checkpoints the disks name when a gateway or a restore starts.
//!
//! Every disk has the roots in its root record, and segments name them in
//! their headers (PROTOCOL.md 4). Invariants: "there is none" is believed only
//! of as many journal disks as a pool map needs; a root of a later version is
//! never passed over; a start goes on only with roots on the journal's chain,
//! whatever lineage they were taken under: a lineage may follow another on one
//! chain, and a rebuild begins a chain anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use shardgate_catalog::checkpoint::{CheckpointFormatError, CheckpointRoot, Roots};
use shardgate_journal::Position;
use shardgate_journal::disks::check_quorum;
use shardgate_journal::map::PoolMap;
use shardgate_journal::recover::Recovered;
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{ClusterId, DiskId};
use tokio::time::timeout;

use super::refused::JournalStartError;

/// What the root records of disks say.
#[derive(Debug, Default)]
pub struct NamedRoots {
    /// Disks whose record was read, and what it names, if anything.
    pub read: Vec<(DiskId, Roots)>,
    /// The others, and why not.
    pub unread: Vec<(DiskId, Unread)>,
}

/// Why a disk does not say which checkpoints there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// A later version wrote it.
    Later(u8),
    /// It is damaged, of another cluster, or the disk does not answer.
    Not(String),
}

/// Asks these disks.
pub async fn read_roots(
    disks: &[Arc<dyn JournalDisk>],
    cluster: ClusterId,
    within: Duration,
) -> NamedRoots {
    let asked = disks.iter().map(|disk| async move {
        let bytes = match timeout(within, disk.roots()).await {
            Ok(Ok(roots)) => Ok(roots.checkpoint),
            Ok(Err(error)) => Err(Unread::Not(error.to_string())),
            Err(_) => Err(Unread::Not("no answer in time".to_owned())),
        };
        (disk.disk(), bytes.and_then(|bytes| decode(&bytes, cluster)))
    });
    let mut named = NamedRoots::default();
    for (disk, roots) in join_all(asked).await {
        match roots {
            Ok(roots) => named.read.push((disk, roots)),
            Err(why) => {
                tracing::error!(%disk, ?why, "checkpoint roots cannot be read");
                named.unread.push((disk, why));
            }
        }
    }
    named
}

fn decode(bytes: &[u8], cluster: ClusterId) -> Result<Roots, Unread> {
    let roots = Roots::decode(bytes).map_err(|error| match error {
        CheckpointFormatError::Version { found, .. } => Unread::Later(found),
        error => Unread::Not(error.to_string()),
    })?;
    match roots.all().iter().find(|root| root.cluster != cluster) {
        None => Ok(roots),
        Some(other) => Err(Unread::Not(format!(
            "they are of cluster {}",
            other.cluster
        ))),
    }
}

impl NamedRoots {
    /// Refuses what a later version wrote: what it says is not known here, and
    /// so not whether it may be passed over.
    ///
    /// # Errors
    /// [`JournalStartError::LaterRoots`].
    pub fn check_version(&self) -> Result<(), JournalStartError> {
        for (disk, why) in &self.unread {
            if let Unread::Later(found) = *why {
                let disk = *disk;
                return Err(JournalStartError::LaterRoots { disk, found });
            }
        }
        Ok(())
    }

    /// Whether those that were read are enough to say that there is no
    /// checkpoint.
    fn check_enough(&self, map: &PoolMap, lost: &[DiskId]) -> Result<(), JournalStartError> {
        let read: Vec<DiskId> = self.read.iter().map(|(disk, _)| *disk).collect();
        check_quorum(&map.journal_map(), &read, lost)
            .map_err(|_| JournalStartError::RootsUnread(self.unread.clone()))
    }
}

/// The roots that a start goes on with: the newest that a disk or a segment
/// of the journal names, as far as they are on its chain.
pub(super) async fn inherited(
    named: NamedRoots,
    recovered: &Recovered,
    map: &PoolMap,
    lost: &[DiskId],
) -> Result<Roots, JournalStartError> {
    named.check_version()?;
    let of_segments = of_segments(recovered.checkpoints(), map.cluster);
    if of_segments.is_empty() {
        named.check_enough(map, lost)?;
    }
    let of_disks = named.read.into_iter().map(|(_, roots)| roots);
    let mut all: Vec<Roots> = of_disks.chain(of_segments).collect();
    all.sort_by_key(Roots::order);
    all.dedup();
    let mut newest = Roots::default();
    for roots in all.iter().rev() {
        let mut on_chain = Vec::new();
        for root in roots.all() {
            if is_on_chain(recovered, root).await? {
                on_chain.push(root.clone());
            }
        }
        let usable = roots.only(&on_chain);
        if usable.is_newer_than(&newest) {
            newest = usable;
        }
        if on_chain.len() == roots.all().len() {
            // Those that are left are older.
            break;
        }
    }
    Ok(newest)
}

async fn is_on_chain(
    recovered: &Recovered,
    root: &CheckpointRoot,
) -> Result<bool, JournalStartError> {
    let place = Position {
        number: root.position.number,
        hash: root.position.hash,
    };
    let is = recovered.is_on_chain(place).await?;
    if !is {
        let commit = place.number.0;
        tracing::warn!(
            commit,
            "a checkpoint that is not on the journal's chain is passed over"
        );
    }
    Ok(is)
}

/// The roots that segments name, as far as they can be read: what they do not
/// say, the root records do.
fn of_segments(named: &[Vec<Bytes>], cluster: ClusterId) -> Vec<Roots> {
    let read = named.iter().map(|each| Roots::decode_each(each));
    let read = read.filter_map(|roots| match roots {
        Ok(roots) => Some(roots),
        Err(error) => {
            tracing::error!(%error, "the checkpoint roots of a segment cannot be read");
            None
        }
    });
    read.filter(|roots| roots.all().iter().all(|root| root.cluster == cluster))
        .collect()
}

#[cfg(test)]
mod tests;

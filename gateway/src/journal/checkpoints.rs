//! The journal's side of checkpoints: telling disks of their roots, how long the
//! journal is behind them, and taking out what no checkpoint needs. Which roots
//! the disks name when a gateway starts is in [`super::roots`].
//!
//! Invariant: a root counts when it is durable on as many journal disks as a
//! pool map needs (PROTOCOL.md 1 and 4); nothing is taken out here on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::join_all;
use shardgate_catalog::checkpoint::Roots;
use shardgate_journal::JournalError;
use shardgate_wire::journal::{JournalFile, MAX_JOURNAL_FILES};
use shardgate_wire::{CommitNumber, DiskId, StoreError};
use tokio::time::timeout;

use super::keeper::Keeper;

/// How long a disk may take to write a root.
const WRITE: Duration = Duration::from_secs(10);
/// How long a disk may take to say what it is.
const ANSWER: Duration = Duration::from_secs(2);

/// How long the journal is, as checkpoints see it; bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalLength {
    /// Of all of it.
    pub total: u64,
    /// Of what is behind the newest checkpoint.
    pub since: u64,
    /// Of the segments that one more checkpoint would make needless.
    pub freed_next: u64,
}

/// What the journal's disks allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalDisks {
    /// Capacity of the smallest, bytes; 0: not known.
    pub smallest: u64,
    /// The longest file that a segment may be on all of them, bytes.
    pub segment_bytes: u64,
    /// Files that each keeps at most.
    pub most_files: u64,
}

impl Keeper {
    /// Writes the roots to the disks that were not told yet; true when they
    /// count, from when on new segments name them too.
    ///
    /// # Errors
    /// Another gateway has taken over, or the journal is closed.
    pub async fn tell_roots(
        &self,
        roots: &Roots,
        told: &mut BTreeSet<DiskId>,
    ) -> Result<bool, JournalError> {
        let ctx = self.inner.journal.context();
        let bytes = roots.encode();
        let open = self.inner.pool.inner.ways.open();
        let calls = open
            .iter()
            .filter(|disk| !told.contains(&disk.disk()))
            .map(|disk| {
                let bytes = bytes.clone();
                async move {
                    let set = timeout(WRITE, disk.set_checkpoint(&ctx, bytes)).await;
                    let set = set.unwrap_or(Err(StoreError::TimedOut(WRITE)));
                    (disk.disk(), set)
                }
            });
        let mut new = false;
        for (disk, set) in join_all(calls).await {
            match set {
                Ok(()) => new |= told.insert(disk),
                Err(StoreError::StaleEpoch { held }) => {
                    let error = JournalError::Fenced(held);
                    self.inner.journal.note(&error);
                    return Err(error);
                }
                Err(error) => tracing::warn!(%disk, %error, "no checkpoint root there"),
            }
        }
        let durable: Vec<DiskId> = told.iter().copied().collect();
        let lost = self.inner.pool.inner.lost.all();
        let counts = self
            .inner
            .map
            .read()
            .journal_map()
            .has_enough(&durable, &lost);
        if counts && new {
            let mut held = self.inner.journal.hold().await;
            held.writer()?.set_checkpoints(roots.encode_each());
        }
        Ok(counts)
    }

    /// How long the journal is; `newest`: the last commit of the newest
    /// checkpoint.
    ///
    /// # Errors
    /// The journal is closed.
    pub async fn length(&self, newest: CommitNumber) -> Result<JournalLength, JournalError> {
        let mut held = self.inner.journal.hold().await;
        let writer = held.writer()?;
        Ok(JournalLength {
            total: writer.length_bytes(),
            since: writer.length_behind(newest),
            freed_next: writer.length_up_to(newest),
        })
    }

    /// What the journal's disks allow now, those that answer.
    pub async fn journal_disks(&self) -> JournalDisks {
        let map = self.inner.map.read().journal_map();
        let asked = map.all().into_iter().map(|disk| async move {
            let way = self.inner.pool.inner.ways.get(disk);
            let standing = timeout(ANSWER, way.standing()).await.ok()?.ok()?;
            let health = self.inner.pool.member(disk)?.health()?;
            Some((health.capacity_bytes, standing.segment_bytes))
        });
        let found: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        JournalDisks {
            smallest: found.iter().map(|of| of.0).min().unwrap_or(0),
            segment_bytes: found.iter().map(|of| of.1).min().unwrap_or(0),
            most_files: MAX_JOURNAL_FILES as u64,
        }
    }

    /// Removes the segments whose records are all in a checkpoint at this
    /// commit; without a checkpoint nothing may go. How many there were.
    ///
    /// # Errors
    /// The journal is closed. Files that a disk does not remove now are found
    /// when it is swept.
    pub async fn trim(&self, checkpoint: CommitNumber) -> Result<usize, JournalError> {
        let trimmed = {
            let mut held = self.inner.journal.hold().await;
            held.writer()?.trim(checkpoint)
        };
        let ctx = self.inner.journal.context();
        let mut files: BTreeMap<DiskId, Vec<JournalFile>> = BTreeMap::new();
        for (disk, file) in trimmed.iter().flat_map(|of| &of.holders) {
            files.entry(*disk).or_default().push(*file);
        }
        // One disk that hangs keeps no other waiting, and waits once.
        let calls = files.iter().map(|(disk, files)| async move {
            let way = self.inner.pool.inner.ways.get(*disk);
            let removed = timeout(WRITE, way.remove(&ctx, files)).await;
            if let Err(error) = removed.unwrap_or(Err(StoreError::TimedOut(WRITE))) {
                let segments = files.len();
                tracing::warn!(%disk, segments, %error, "segments that are not needed stay");
            }
        });
        join_all(calls).await;
        Ok(trimmed.len())
    }
}

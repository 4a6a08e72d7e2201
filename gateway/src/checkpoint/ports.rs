//! What the job needs of the journal, as a port: a test sees in which order it
//! is asked.

use std::collections::BTreeSet;

use async_trait::async_trait;
use shardgate_catalog::checkpoint::Roots;
use shardgate_journal::JournalError;
use shardgate_wire::{CommitNumber, DiskId};

use crate::journal::{JournalDisks, JournalLength, Keeper};

/// See the methods of [`Keeper`], which are these.
#[async_trait]
pub trait JournalSide: Send + Sync {
    /// Writes the roots to the disks that were not told yet; true when they
    /// count.
    async fn tell_roots(
        &self,
        roots: &Roots,
        told: &mut BTreeSet<DiskId>,
    ) -> Result<bool, JournalError>;

    /// How long the journal is; `newest`: the last commit of the newest
    /// checkpoint.
    async fn length(&self, newest: CommitNumber) -> Result<JournalLength, JournalError>;

    /// What the journal's disks allow now.
    async fn journal_disks(&self) -> JournalDisks;

    /// Takes out what is all in a checkpoint at this commit; how many
    /// segments.
    async fn trim(&self, checkpoint: CommitNumber) -> Result<usize, JournalError>;
}

#[async_trait]
impl JournalSide for Keeper {
    async fn tell_roots(
        &self,
        roots: &Roots,
        told: &mut BTreeSet<DiskId>,
    ) -> Result<bool, JournalError> {
        self.tell_roots(roots, told).await
    }

    async fn length(&self, newest: CommitNumber) -> Result<JournalLength, JournalError> {
        self.length(newest).await
    }

    async fn journal_disks(&self) -> JournalDisks {
        self.journal_disks().await
    }

    async fn trim(&self, checkpoint: CommitNumber) -> Result<usize, JournalError> {
        self.trim(checkpoint).await
    }
}

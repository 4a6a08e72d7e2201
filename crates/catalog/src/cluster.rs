//! The cluster's own row, and the gateways that ran: epochs and instances.

use shardgate_wire::{Epoch, InstanceId};

use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{ClusterRow, InstanceRow};

impl Catalog {
    /// The cluster, or `None` before `init`.
    pub async fn cluster(&self) -> Result<Option<ClusterRow>> {
        self.row(keys::CLUSTER).await
    }

    /// Writes the cluster's row for the first time.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`]: there is one.
    pub async fn init_cluster(&self, row: &ClusterRow) -> Result<()> {
        self.replace(keys::CLUSTER.into(), row, None).await?;
        Ok(())
    }

    /// Raises the epoch for a run of a gateway and records the run.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`]: another gateway starts at the same time, or
    /// there is no cluster yet.
    pub async fn begin_epoch(&self, instance: InstanceId) -> Result<Epoch> {
        self.begin_epoch_above(instance, 0).await
    }

    /// As [`Self::begin_epoch`], above an epoch that disks have accepted.
    pub async fn begin_epoch_above(&self, instance: InstanceId, accepted: u64) -> Result<Epoch> {
        for _ in 0..ATTEMPTS {
            let held = self.stored::<ClusterRow>(keys::CLUSTER).await?;
            let (raw, mut row) = held.ok_or(CatalogError::Conflict)?;
            row.epoch = Epoch {
                number: row.epoch.number.max(accepted) + 1,
                instance,
            };
            let run = InstanceRow {
                instance,
                epoch: row.epoch.number,
                retired: false,
            };
            let mut draft = Draft::new();
            draft.expect(keys::CLUSTER.into(), Some(raw));
            draft.put(keys::CLUSTER.into(), &row);
            draft.put(keys::instance(row.epoch.number), &run);
            match self.commit(draft).await {
                Ok(_) => return Ok(row.epoch),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// All runs of gateways that are known, in order of epoch.
    pub async fn instances(&self) -> Result<Vec<InstanceRow>> {
        self.all(space::INSTANCE).await
    }

    /// Puts the record of a run, in place of exactly `expect`.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`].
    pub async fn put_instance(
        &self,
        row: &InstanceRow,
        expect: Option<&InstanceRow>,
    ) -> Result<()> {
        self.replace(keys::instance(row.epoch), row, expect).await?;
        Ok(())
    }
}

//! The cluster's own row, and the gateways that ran: epochs and instances.

use shardgate_wire::Epoch;

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

    /// Records the epoch that a run of a gateway has raised, and the run.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`]: a higher one is recorded, or there is no
    /// cluster yet.
    pub async fn record_epoch(&self, epoch: Epoch) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let held = self.stored::<ClusterRow>(keys::CLUSTER).await?;
            let (raw, mut row) = held.ok_or(CatalogError::Conflict)?;
            if row.epoch.number >= epoch.number {
                return Err(CatalogError::Conflict);
            }
            row.epoch = epoch;
            let run = InstanceRow {
                instance: epoch.instance,
                epoch: epoch.number,
                retired: false,
            };
            let mut draft = Draft::new();
            draft.expect(keys::CLUSTER.into(), Some(raw));
            draft.put(keys::CLUSTER.into(), &row);
            draft.put(keys::instance(epoch.number), &run);
            match self.commit(draft).await {
                Ok(_) => return Ok(()),
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

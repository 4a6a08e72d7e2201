//! From configured folders and agents to a running pool.
//!
//! Owns the order of a start: look, decide ([`mod@plan`]), begin an epoch in the
//! catalog, open what is known, have a majority of the disks accept the
//! epoch, and only then make new disks of blank folders. Invariants: no disk
//! is used under an epoch that a majority did not accept (PROTOCOL.md 1); a
//! catalog that is older than its disks starts nothing (PROTOCOL.md 7).

pub mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shardgate_catalog::model::{ClusterRow, DiskRow, DiskState};
use shardgate_catalog::{Catalog, CatalogError};
use shardgate_wire::{
    CallContext, ClusterId, DiskHealth, DiskId, Epoch, InstanceId, LineageId, ShardStore,
};
use thiserror::Error;

use super::place::{FoundState, Place, Survey, health_of};
use super::report::DECLARED_LOST;
use super::state::{Opened, Pool, PoolParts, PoolSettings};
use crate::seam::Clock;
use plan::{At, Plan, PlanError, plan};

/// What a start needs.
pub struct Start {
    /// The catalog.
    pub catalog: Catalog,
    /// Where disks are.
    pub places: Vec<Arc<dyn Place>>,
    /// What can be set.
    pub settings: PoolSettings,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Disks that the operator declares lost for good by this start.
    pub declare_lost: Vec<DiskId>,
}

/// Why the pool does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// What was found does not allow it.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Too few disks accepted the epoch.
    #[error(
        "{answered} of {of} disks answer and more than half must: {}; a disk that is gone for \
         good is named with --lost ID", missing.join("; ")
    )]
    NoMajority {
        /// So many.
        answered: usize,
        /// Of so many that are not declared lost.
        of: usize,
        /// The others, and why.
        missing: Vec<String>,
    },
    /// A disk was told of commits that this catalog does not have.
    #[error(
        "disk {disk} was told of commit {told} and the catalog ends at {committed}: this is an \
         older copy of the catalog, or another one; restore the newest"
    )]
    OlderCatalog {
        /// The disk.
        disk: DiskId,
        /// What it was told.
        told: u64,
        /// What the catalog has.
        committed: u64,
    },
    /// A disk is of another history of the catalog.
    #[error("disk {disk} belongs to another history of the catalog ({lineage})")]
    OtherLineage {
        /// The disk.
        disk: DiskId,
        /// The history it was told.
        lineage: LineageId,
    },
    /// Another gateway starts, or runs.
    #[error("another gateway took over while this one started (epoch {0})")]
    TakenOver(u64),
    /// A blank folder did not become a disk.
    #[error("format {folder}: {why}")]
    Format {
        /// Which.
        folder: String,
        /// Why.
        why: String,
    },
    /// To be declared lost, and not of the pool.
    #[error("no disk {0} in the catalog")]
    NoSuchDisk(DiskId),
    /// The catalog's.
    #[error("catalog")]
    Catalog(#[from] CatalogError),
}

/// Between two looks at places that do not answer yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A disk that was opened.
struct OpenDisk {
    row: DiskRow,
    store: Arc<dyn ShardStore>,
    health: DiskHealth,
}

/// Starts the pool.
///
/// # Errors
/// [`StartError`]. Then nothing was formatted, but for a start that was cut
/// short between two new disks of a cluster that has no data yet.
pub async fn start_at(start: Start) -> Result<Pool, StartError> {
    let catalog = &start.catalog;
    declare_lost(catalog, &start.declare_lost).await?;
    let rows = catalog.disks().await?;
    let cluster = catalog.cluster().await?;
    let surveys = look(&start, cluster.is_none(), &rows).await;
    let plan = plan(cluster.map(|row| row.cluster), &rows, &surveys)?;
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let cluster = match cluster {
        Some(row) => row,
        None => init(catalog, start.clock.now_ms()).await?,
    };

    let mut opening = Opening {
        start: &start,
        cluster: cluster.cluster,
        open: Vec::new(),
        missing: plan.missing.clone(),
        strays: Vec::new(),
    };
    opening.open_known(&plan).await;
    opening.open_strays(&plan).await;
    check_told(
        catalog,
        &cluster,
        opening.open.iter().chain(&opening.strays),
    )?;
    let epoch = opening.begin_epoch().await?;
    let ctx = CallContext {
        cluster: cluster.cluster,
        epoch,
        lineage: cluster.lineage,
        committed: catalog.committed(),
    };
    opening.raise(&ctx).await?;
    opening.join(&plan, &ctx).await?;
    opening.build(&rows, &cluster, epoch).await
}

/// Looks at every place; again for a while where places that do not answer
/// are needed to start.
async fn look(start: &Start, is_new: bool, rows: &[DiskRow]) -> Vec<Result<Survey, String>> {
    let give_up = tokio::time::Instant::now() + start.settings.start_patience;
    loop {
        let surveys = survey_all(&start.places, start.settings.survey_timeout).await;
        let silent: Vec<&String> = surveys
            .iter()
            .filter_map(|survey| survey.as_ref().err())
            .collect();
        let needed = is_new || !has_majority(rows, &surveys);
        if silent.is_empty() || !needed || tokio::time::Instant::now() >= give_up {
            return surveys;
        }
        tracing::info!(?silent, "waiting for places that do not answer yet");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Whether more than half of the pool's disks are seen.
fn has_majority(rows: &[DiskRow], surveys: &[Result<Survey, String>]) -> bool {
    let folders = surveys.iter().flatten().flat_map(|survey| &survey.folders);
    let seen: BTreeSet<DiskId> = folders
        .filter_map(|found| match &found.state {
            FoundState::Disk(identity) => Some(identity.disk),
            _ => None,
        })
        .collect();
    let members: Vec<_> = rows
        .iter()
        .filter(|row| row.state == DiskState::Member)
        .collect();
    members.iter().filter(|row| seen.contains(&row.id)).count() * 2 > members.len()
}

async fn survey_all(places: &[Arc<dyn Place>], within: Duration) -> Vec<Result<Survey, String>> {
    join_all(places.iter().map(|place| async {
        let found = place.survey(within).await;
        found.map_err(|why| format!("{}: {why}", place.label()))
    }))
    .await
}

async fn declare_lost(catalog: &Catalog, disks: &[DiskId]) -> Result<(), StartError> {
    for disk in disks {
        let row = catalog
            .disk(*disk)
            .await?
            .ok_or(StartError::NoSuchDisk(*disk))?;
        let lost = DiskRow {
            state: DiskState::Lost,
            ..row.clone()
        };
        if lost != row {
            catalog.put_disk(&lost, Some(&row)).await?;
            tracing::warn!(%disk, "disk is declared lost for good");
        }
    }
    Ok(())
}

async fn init(catalog: &Catalog, now_ms: u64) -> Result<ClusterRow, CatalogError> {
    let row = ClusterRow {
        cluster: ClusterId::random(),
        lineage: LineageId::random(),
        epoch: Epoch::default(),
        created: now_ms,
    };
    catalog.init_cluster(&row).await?;
    tracing::info!(cluster = %row.cluster, "new cluster");
    Ok(row)
}

/// Refuses a catalog that is older than a disk, or of another history.
fn check_told<'a>(
    catalog: &Catalog,
    cluster: &ClusterRow,
    disks: impl Iterator<Item = &'a OpenDisk>,
) -> Result<(), StartError> {
    let committed = catalog.committed().0;
    for disk in disks {
        let (lineage, told) = disk.health.told;
        if told.0 == 0 {
            continue;
        }
        if lineage != cluster.lineage {
            return Err(StartError::OtherLineage {
                disk: disk.row.id,
                lineage,
            });
        }
        if told.0 > committed {
            return Err(StartError::OlderCatalog {
                disk: disk.row.id,
                told: told.0,
                committed,
            });
        }
    }
    Ok(())
}

struct Opening<'a> {
    start: &'a Start,
    cluster: ClusterId,
    /// Known disks that are open.
    open: Vec<OpenDisk>,
    /// Known disks that are not, and why.
    missing: Vec<(DiskRow, String)>,
    /// Open disks of the cluster that the catalog does not know.
    strays: Vec<OpenDisk>,
}

impl Opening<'_> {
    async fn open_one(
        &self,
        at: &At,
        identity: &shardgate_wire::DiskIdentity,
        row: DiskRow,
    ) -> Result<OpenDisk, (DiskRow, String)> {
        let place = &self.start.places[at.place];
        let within = self.start.settings.open_timeout;
        let opened = match tokio::time::timeout(within, place.open(&at.folder, identity)).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("{} did not open in {within:?}", at.folder)),
        };
        let store = match opened {
            Ok(store) => store,
            Err(why) => return Err((row, why)),
        };
        match health_of(&*store, self.start.settings.probe_timeout).await {
            Ok(health) if health.identity == *identity => Ok(OpenDisk { row, store, health }),
            Ok(health) => Err((row, format!("disk {} answers", health.identity.disk))),
            Err(error) => Err((row, error.to_string())),
        }
    }

    async fn open_known(&mut self, plan: &Plan) {
        let opening = plan.open.iter().map(|(row, identity, at)| {
            // Where it is now, whatever the catalog remembers.
            let now = DiskRow {
                medium: row.medium,
                ..at.row(row.id, identity.medium)
            };
            self.open_one(at, identity, now)
        });
        for opened in join_all(opening).await {
            match opened {
                Ok(disk) => self.open.push(disk),
                Err(missing) => self.missing.push(missing),
            }
        }
    }

    /// Opens disks that a start made and did not live to commit. They hold
    /// nothing, or they are not such.
    async fn open_strays(&mut self, plan: &Plan) {
        for (identity, at) in &plan.stray {
            let row = at.row(identity.disk, identity.medium);
            let disk = match self.open_one(at, identity, row).await {
                Ok(disk) => disk,
                Err((_, why)) => {
                    tracing::warn!(folder = at.folder, why, "unknown disk is not used");
                    continue;
                }
            };
            match disk.store.list(None, 1).await {
                Ok(shards) if shards.is_empty() => self.strays.push(disk),
                _ => tracing::error!(
                    folder = at.folder,
                    disk = %identity.disk,
                    "the catalog does not know this disk, which holds data: left untouched"
                ),
            }
        }
    }

    async fn begin_epoch(&self) -> Result<Epoch, StartError> {
        let all = self.open.iter().chain(&self.strays);
        let accepted = all.map(|disk| disk.health.epoch.number).max().unwrap_or(0);
        let catalog = &self.start.catalog;
        let epoch = catalog
            .begin_epoch_above(InstanceId::random(), accepted)
            .await?;
        tracing::info!(epoch = epoch.number, instance = %epoch.instance, "epoch begun");
        Ok(epoch)
    }

    /// Has the known disks accept the epoch; a majority must.
    async fn raise(&mut self, ctx: &CallContext) -> Result<(), StartError> {
        let within = self.start.settings.assign_timeout;
        let raising = self.open.iter().map(|disk| async {
            match tokio::time::timeout(within, disk.store.raise_epoch(ctx)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(_) => Some(shardgate_wire::StoreError::TimedOut(within)),
            }
        });
        let outcomes = join_all(raising).await;
        let mut answered = 0;
        let mut why: Vec<String> = Vec::new();
        for (disk, outcome) in self.open.iter().zip(outcomes) {
            match outcome {
                None => answered += 1,
                Some(shardgate_wire::StoreError::StaleEpoch { held }) => {
                    return Err(StartError::TakenOver(held.number));
                }
                Some(error) => why.push(format!("disk {}: {error}", disk.row.id)),
            }
        }
        let of = self.open.len() + self.missing.len();
        for (row, reason) in &self.missing {
            tracing::error!(disk = %row.id, path = row.path, reason, "disk is not there");
            why.push(format!("disk {}: {reason}", row.id));
        }
        if of > 0 && answered * 2 <= of {
            return Err(StartError::NoMajority {
                answered,
                of,
                missing: why,
            });
        }
        Ok(())
    }

    /// Commits what changed, takes in strays, and makes disks of the blank
    /// folders that the plan names.
    async fn join(&mut self, plan: &Plan, ctx: &CallContext) -> Result<(), StartError> {
        let catalog = &self.start.catalog;
        for disk in &self.open {
            let known = plan.open.iter().find(|(row, _, _)| row.id == disk.row.id);
            let (held, _, _) = known.expect("only planned disks were opened as known");
            if *held != disk.row {
                tracing::info!(disk = %disk.row.id, from = held.path, to = disk.row.path, "disk has moved");
                catalog.put_disk(&disk.row, Some(held)).await?;
            }
        }
        for stray in std::mem::take(&mut self.strays) {
            catalog.put_disk(&stray.row, None).await?;
            self.open.push(stray);
        }
        for (at, medium) in &plan.format {
            let place = &self.start.places[at.place];
            let joined = join(&**place, at, *medium, ctx, catalog).await;
            let (row, store) = joined.map_err(|error| error.at(&at.folder))?;
            let health = health_of(&*store, self.start.settings.probe_timeout).await;
            let health = health.map_err(|error| StartError::Format {
                folder: at.folder.clone(),
                why: error.to_string(),
            })?;
            self.open.push(OpenDisk { row, store, health });
        }
        Ok(())
    }

    async fn build(
        self,
        rows: &[DiskRow],
        cluster: &ClusterRow,
        epoch: Epoch,
    ) -> Result<Pool, StartError> {
        let mut disks: Vec<Opened> = Vec::new();
        disks.extend(self.open.into_iter().map(|disk| (disk.row, Ok(disk.store))));
        disks.extend(self.missing.into_iter().map(|(row, why)| (row, Err(why))));
        let lost = rows.iter().filter(|row| row.state == DiskState::Lost);
        disks.extend(lost.map(|row| (row.clone(), Err(DECLARED_LOST.to_owned()))));
        let pool = Pool::new(PoolParts {
            catalog: self.start.catalog.clone(),
            settings: self.start.settings.clone(),
            clock: Arc::clone(&self.start.clock),
            cluster: self.cluster,
            lineage: cluster.lineage,
            epoch,
            disks,
            places: self.start.places.clone(),
        })
        .await?;
        pool.warn_of_schemes();
        Ok(pool)
    }
}

/// Why a folder did not join.
pub(crate) enum JoinError {
    Format(String),
    Catalog(CatalogError),
}

impl JoinError {
    fn at(self, folder: &str) -> StartError {
        match self {
            Self::Format(why) => StartError::Format {
                folder: folder.to_owned(),
                why,
            },
            Self::Catalog(error) => StartError::Catalog(error),
        }
    }
}

/// Makes a new disk of a blank folder: formatted, then committed, then under
/// the epoch. Cut short before the commit it is a stray, which the next start
/// takes in.
pub(crate) async fn join(
    place: &dyn Place,
    at: &At,
    medium: Option<shardgate_wire::Medium>,
    ctx: &CallContext,
    catalog: &Catalog,
) -> Result<(DiskRow, Arc<dyn ShardStore>), JoinError> {
    let disk = DiskId::random();
    let identity = place
        .format(ctx, &at.folder, disk, medium)
        .await
        .map_err(JoinError::Format)?;
    let row = at.row(identity.disk, identity.medium);
    catalog
        .put_disk(&row, None)
        .await
        .map_err(JoinError::Catalog)?;
    let store = place
        .open(&at.folder, &identity)
        .await
        .map_err(JoinError::Format)?;
    let raised = store.raise_epoch(ctx).await;
    raised.map_err(|error| JoinError::Format(error.to_string()))?;
    tracing::info!(disk = %row.id, folder = at.folder, server = at.server, "new disk");
    Ok((row, store))
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;

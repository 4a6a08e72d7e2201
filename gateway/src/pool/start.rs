//! From configured folders and agents to a running pool.
//!
//! Owns the second half of a start, once the journal's half has raised the
//! epoch and the catalog is whole: look, decide ([`mod@plan`]), open what is
//! known, have the disks accept the epoch, and only then make new disks of
//! blank folders. Invariants: no disk is used before it accepted the epoch
//! (PROTOCOL.md 1); a disk that knows more than the catalog is not used under
//! a lineage that it does not know of (PROTOCOL.md 7).

pub mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shardgate_catalog::model::{ClusterRow, DiskRow, DiskState, HoldReason, LineageRow};
use shardgate_catalog::{Catalog, CatalogError};
use shardgate_journal::disks::Lost;
use shardgate_wire::{CallContext, ClusterId, DiskHealth, DiskId, Epoch, Purpose};
use thiserror::Error;

use super::lineage::{conflict, in_words};
use super::place::{FoundState, Place, Survey, health_of};
use super::report::DECLARED_LOST;
use super::state::{Opened, Pool, PoolParts, PoolSettings};
use super::ways::{DiskWays, JournalWays};
use crate::seam::Clock;
use plan::{At, Known, Plan, plan};

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
    /// The cluster, whose new catalog is empty.
    pub cluster: ClusterId,
    /// The history that the catalog continues. Disks of another one that the
    /// journal's half of the start saw have led to a new lineage.
    pub history: LineageRow,
    /// The epoch that was raised on the journal disks.
    pub epoch: Epoch,
    /// Disks that are open already.
    pub opened: BTreeMap<DiskId, DiskWays>,
    /// The journal's ways to disks.
    pub ways: JournalWays,
    /// Disks that the operator named lost for good, as the journal knows them.
    pub lost: Lost,
}

/// Why the pool does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The catalog is of another cluster than the disks.
    #[error("the catalog is of cluster {0}, the disks are not")]
    OtherCluster(ClusterId),
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
    ways: DiskWays,
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
    let surveys = look(&start, &rows).await;
    let known = Known {
        cluster: start.cluster,
        rows: &rows,
        held: start.history.hold.is_some(),
    };
    let plan = plan(known, &surveys);
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let cluster = match catalog.cluster().await? {
        Some(row) => row,
        None => init(&start).await?,
    };
    if cluster.cluster != start.cluster {
        return Err(StartError::OtherCluster(cluster.cluster));
    }

    let mut opening = Opening {
        start: &start,
        cluster: cluster.cluster,
        open: Vec::new(),
        missing: plan.missing.clone(),
        strays: Vec::new(),
    };
    opening.open_known(&plan).await;
    opening.open_strays(&plan).await;
    opening.leave_those_that_know_more();
    let epoch = start.epoch;
    catalog.record_epoch(epoch).await?;
    let ctx = CallContext {
        cluster: cluster.cluster,
        epoch,
        lineage: cluster.lineage,
        committed: catalog.committed(),
        purpose: Purpose::Client,
    };
    opening.raise(&ctx).await?;
    opening.join(&plan, &ctx).await?;
    opening.build(&rows, epoch).await
}

/// Looks at every place; again for a while where places that do not answer
/// are needed to start.
async fn look(start: &Start, rows: &[DiskRow]) -> Vec<Result<Survey, String>> {
    let give_up = tokio::time::Instant::now() + start.settings.start_patience;
    loop {
        let surveys = survey_all(&start.places, start.settings.survey_timeout).await;
        let silent: Vec<&String> = surveys
            .iter()
            .filter_map(|survey| survey.as_ref().err())
            .collect();
        let enough = has_majority(rows, &surveys);
        if silent.is_empty() || enough || tokio::time::Instant::now() >= give_up {
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

pub(crate) async fn survey_all(
    places: &[Arc<dyn Place>],
    within: Duration,
) -> Vec<Result<Survey, String>> {
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

async fn init(start: &Start) -> Result<ClusterRow, CatalogError> {
    let row = ClusterRow {
        cluster: start.cluster,
        lineage: start.history.lineage,
        epoch: Epoch::default(),
        created: start.clock.now_ms(),
    };
    start.catalog.init_cluster(&row).await?;
    tracing::info!(cluster = %row.cluster, "new cluster");
    Ok(row)
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
        let ways = match self.start.opened.get(&identity.disk) {
            Some(ways) => ways.clone(),
            None => match self.open_at(at, identity).await {
                Ok(ways) => ways,
                Err(why) => return Err((row, why)),
            },
        };
        match health_of(&*ways.shards, self.start.settings.probe_timeout).await {
            Ok(health) if health.identity == *identity => Ok(OpenDisk { row, ways, health }),
            Ok(health) => Err((row, format!("disk {} answers", health.identity.disk))),
            Err(error) => Err((row, error.to_string())),
        }
    }

    async fn open_at(
        &self,
        at: &At,
        identity: &shardgate_wire::DiskIdentity,
    ) -> Result<DiskWays, String> {
        let place = &self.start.places[at.place];
        let within = self.start.settings.open_timeout;
        let opened = tokio::time::timeout(within, place.open(&at.folder, identity)).await;
        let late = |_| Err(format!("{} did not open in {within:?}", at.folder));
        let ways = opened.unwrap_or_else(late)?;
        self.start.ways.opened(Arc::clone(&ways.journal));
        Ok(ways)
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
            match disk.ways.shards.list(None, 1).await {
                Ok(shards) if shards.is_empty() => self.strays.push(disk),
                _ => tracing::error!(
                    folder = at.folder,
                    disk = %identity.disk,
                    "the catalog does not know this disk, which holds data: left untouched"
                ),
            }
        }
    }

    /// Leaves out disks that know of commits that the catalog does not have:
    /// they came too late for a new lineage to be taken, which the next start
    /// does.
    fn leave_those_that_know_more(&mut self) {
        let (history, committed) = (&self.start.history, self.start.catalog.committed());
        let reason = |disk: &OpenDisk| conflict(history, committed, disk.row.id, disk.health.told);
        let (known, strays) = (
            std::mem::take(&mut self.open),
            std::mem::take(&mut self.strays),
        );
        for disk in known {
            match reason(&disk) {
                None => self.open.push(disk),
                Some(reason) => self.missing.push((disk.row, not_used(&reason))),
            }
        }
        for disk in strays {
            match reason(&disk) {
                None => self.strays.push(disk),
                Some(reason) => {
                    tracing::error!(disk = %disk.row.id, why = not_used(&reason), "not taken in");
                }
            }
        }
    }

    /// Has the known disks accept the epoch. One that does not is asked again
    /// when it is probed; of the journal disks enough have accepted it.
    async fn raise(&mut self, ctx: &CallContext) -> Result<(), StartError> {
        let within = self.start.settings.assign_timeout;
        let raising = self.open.iter().map(|disk| async {
            match tokio::time::timeout(within, disk.ways.shards.raise_epoch(ctx)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error),
                Err(_) => Some(shardgate_wire::StoreError::TimedOut(within)),
            }
        });
        let outcomes = join_all(raising).await;
        for (disk, outcome) in self.open.iter().zip(outcomes) {
            match outcome {
                None => {}
                Some(shardgate_wire::StoreError::StaleEpoch { held }) => {
                    return Err(StartError::TakenOver(held.number));
                }
                Some(error) => {
                    tracing::warn!(disk = %disk.row.id, %error, "disk takes no epoch");
                }
            }
        }
        for (row, reason) in &self.missing {
            tracing::error!(disk = %row.id, path = row.path, reason, "disk is not there");
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
            let (row, ways) = joined.map_err(|error| error.at(&at.folder))?;
            self.start.ways.opened(Arc::clone(&ways.journal));
            let health = health_of(&*ways.shards, self.start.settings.probe_timeout).await;
            let health = health.map_err(|error| StartError::Format {
                folder: at.folder.clone(),
                why: error.to_string(),
            })?;
            self.open.push(OpenDisk { row, ways, health });
        }
        Ok(())
    }

    async fn build(self, rows: &[DiskRow], epoch: Epoch) -> Result<Pool, StartError> {
        let mut disks: Vec<Opened> = Vec::new();
        disks.extend(
            self.open
                .into_iter()
                .map(|disk| (disk.row, Ok(disk.ways.shards))),
        );
        disks.extend(self.missing.into_iter().map(|(row, why)| (row, Err(why))));
        let lost = rows.iter().filter(|row| row.state == DiskState::Lost);
        disks.extend(lost.map(|row| (row.clone(), Err(DECLARED_LOST.to_owned()))));
        let pool = Pool::new(PoolParts {
            catalog: self.start.catalog.clone(),
            settings: self.start.settings.clone(),
            clock: Arc::clone(&self.start.clock),
            cluster: self.cluster,
            history: self.start.history.clone(),
            epoch,
            disks,
            places: self.start.places.clone(),
            ways: self.start.ways.clone(),
            lost: self.start.lost.clone(),
        })
        .await?;
        pool.warn_of_schemes();
        Ok(pool)
    }
}

/// Why a disk that knows more than the catalog is not used.
pub(crate) fn not_used(reason: &HoldReason) -> String {
    format!("{}: {NOT_USED}", in_words(reason))
}

/// Ends the words about such a disk.
pub(crate) const NOT_USED: &str = "not used until the gateway starts anew";

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
) -> Result<(DiskRow, DiskWays), JoinError> {
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
    let ways = place
        .open(&at.folder, &identity)
        .await
        .map_err(JoinError::Format)?;
    let raised = ways.shards.raise_epoch(ctx).await;
    raised.map_err(|error| JoinError::Format(error.to_string()))?;
    tracing::info!(disk = %row.id, folder = at.folder, server = at.server, "new disk");
    Ok((row, ways))
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;

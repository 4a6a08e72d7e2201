//! Finding the cluster's disks before there is a catalog.
//!
//! Invariants: what is found is opened once and kept; a folder is formatted
//! only for a new cluster, whose folders are all there, and after the cluster
//! was noted in the gateway's own folder (PROTOCOL.md 6).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::join_all;
use shardgate_journal::disks::Candidate;
use shardgate_journal::map::{MapDisk, MapDiskState};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{
    CallContext, ClusterId, CommitNumber, DiskHealth, DiskId, DiskIdentity, Epoch, LineageId,
    Purpose,
};
use tokio::time::timeout;

use super::free::RELEASED;
use super::own::OwnRecord;
use super::start::{JournalStart, JournalStartError};
use crate::placement::view::DiskView;
use crate::pool::place::{Survey, health_of};
use crate::pool::start::plan::{At, disks_of, plan_new};
use crate::pool::start::survey_all;
use crate::pool::ways::{DiskWays, JournalWays};

/// A disk of the cluster that is open.
pub(super) struct FoundDisk {
    pub(super) at: At,
    pub(super) identity: DiskIdentity,
    pub(super) ways: DiskWays,
    /// What it said when it was opened.
    pub(super) health: DiskHealth,
}

/// What was found so far.
pub(super) struct Found {
    pub(super) cluster: ClusterId,
    pub(super) surveys: Vec<Result<Survey, String>>,
    pub(super) disks: BTreeMap<DiskId, FoundDisk>,
    pub(super) ways: JournalWays,
}

impl Found {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            surveys: Vec::new(),
            disks: BTreeMap::new(),
            ways: JournalWays::default(),
        }
    }

    /// Looks at every place, and opens the disks of the cluster that are not
    /// open yet.
    pub(super) async fn look(&mut self, start: &JournalStart) {
        self.surveys = survey_all(&start.places, start.settings.survey_timeout).await;
        let new: Vec<_> = disks_of(self.cluster, &self.surveys)
            .into_iter()
            .filter(|(identity, _)| !self.disks.contains_key(&identity.disk))
            .collect();
        let opening = new.into_iter().map(|(identity, at)| async move {
            let opened = open(start, &at, &identity).await;
            (identity, at, opened)
        });
        for (identity, at, opened) in join_all(opening).await {
            match opened {
                Ok((ways, health)) => {
                    self.ways.opened(Arc::clone(&ways.journal));
                    let disk = FoundDisk {
                        at,
                        identity,
                        ways,
                        health,
                    };
                    self.disks.insert(identity.disk, disk);
                }
                Err(why) => tracing::warn!(disk = %identity.disk, why, "disk is not opened"),
            }
        }
    }

    /// The journal of every disk that is open, without those named lost for
    /// good: none of these is ever taken back with what it holds.
    pub(super) fn journals(&self, lost: &[DiskId]) -> Vec<Arc<dyn JournalDisk>> {
        let disks = self.disks.keys().filter(|disk| !lost.contains(disk));
        disks.map(|disk| self.ways.get(*disk)).collect()
    }

    /// The places that do not answer.
    pub(super) fn silent(&self) -> Vec<String> {
        let silent = self.surveys.iter().filter_map(|of| of.as_ref().err());
        silent.cloned().collect()
    }

    /// What the disks that are open fail together with.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let place = |disk: &FoundDisk| {
            candidate(
                disk.identity.disk,
                &disk.at.server,
                Some(disk.health.device),
            )
        };
        self.disks.values().map(place).collect()
    }

    /// Them as the pool map has them.
    pub(super) fn map_disks(&self) -> Vec<MapDisk> {
        let row = |disk: &FoundDisk| MapDisk {
            id: disk.identity.disk,
            agent: disk.at.agent,
            path: disk.at.folder.clone(),
            server: disk.at.server.clone(),
            site: disk.at.site.clone(),
            medium: disk.identity.medium,
            state: MapDiskState::Member,
        };
        self.disks.values().map(row).collect()
    }

    /// Them as placement sees them.
    pub(super) fn views(&self) -> Vec<DiskView> {
        let view = |disk: &FoundDisk| DiskView {
            id: disk.identity.disk,
            server: disk.at.server.clone(),
            site: disk.at.site.clone(),
            device: Some(disk.health.device),
            medium: disk.identity.medium,
            capacity_bytes: disk.health.capacity_bytes,
            free_bytes: disk.health.free_bytes,
            room: Some(disk.health.room),
            load: 0,
            p50_us: 0,
            errors: 0,
            living: true,
        };
        self.disks.values().map(view).collect()
    }

    /// Makes the blank folders disks of a new cluster, and opens them.
    pub(super) async fn format(
        &mut self,
        start: &JournalStart,
        begun: Option<ClusterId>,
        own: &Path,
    ) -> Result<(), JournalStartError> {
        let blank = plan_new(begun, &self.surveys)?;
        for disk in self.disks.values() {
            let holds = disk.ways.shards.list(None, 1).await;
            if !holds.is_ok_and(|shards| shards.is_empty()) {
                return Err(JournalStartError::HoldsData {
                    folder: disk.at.folder.clone(),
                });
            }
        }
        if begun.is_none() {
            let record = OwnRecord {
                cluster: self.cluster,
                instances: Vec::new(),
            };
            record.write(own).map_err(JournalStartError::Own)?;
            tracing::info!(cluster = %self.cluster, "new cluster");
        }
        let ctx = CallContext {
            cluster: self.cluster,
            // Nobody's: the first gateway has nobody to wait for.
            epoch: Epoch {
                number: 1,
                instance: RELEASED,
            },
            lineage: LineageId::default(),
            committed: CommitNumber(0),
            purpose: Purpose::Client,
        };
        for (at, medium) in blank {
            let place = &start.places[at.place];
            let made = place.format(&ctx, &at.folder, DiskId::random(), medium);
            let identity = made.await.map_err(|why| JournalStartError::Format {
                folder: at.folder.clone(),
                why,
            })?;
            tracing::info!(disk = %identity.disk, folder = at.folder, "new disk");
        }
        self.look(start).await;
        Ok(())
    }
}

async fn open(
    start: &JournalStart,
    at: &At,
    identity: &DiskIdentity,
) -> Result<(DiskWays, DiskHealth), String> {
    let within = start.settings.open_timeout;
    let opened = timeout(within, start.places[at.place].open(&at.folder, identity)).await;
    let ways = opened.unwrap_or_else(|_| Err(format!("it did not open in {within:?}")))?;
    let health = health_of(&*ways.shards, start.settings.probe_timeout).await;
    let health = health.map_err(|error| error.to_string())?;
    if health.identity != *identity {
        return Err(format!("disk {} answers", health.identity.disk));
    }
    Ok((ways, health))
}

/// A disk as the journal's decisions see it. `device`: as the disk's server
/// numbers it.
pub(super) fn candidate(disk: DiskId, server: &str, device: Option<u64>) -> Candidate {
    let server = number(server.as_bytes());
    let device = match device {
        Some(device) => number(&[&server.to_be_bytes()[..], &device.to_be_bytes()].concat()),
        // Not known: a device of its own.
        None => number(&disk.0.to_be_bytes()),
    };
    Candidate {
        disk,
        server,
        device,
    }
}

/// A number that tells names apart.
fn number(bytes: &[u8]) -> u128 {
    use sha2::{Digest, Sha256};
    let hash = Sha256::digest(bytes);
    let (half, _) = hash.split_at(16);
    u128::from_be_bytes(half.try_into().expect("half of the hash is 16 bytes"))
}

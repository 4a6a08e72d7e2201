//! A start that has found its disks and has changed nothing yet: what a
//! restore looks at before it begins.
//!
//! Invariant: nothing is formatted, raised or written before
//! [`Looked::start`]; a pool without a map is refused, never begun.

use std::sync::Arc;

use shardgate_catalog::engine::RocksStopped;
use shardgate_journal::map::PoolMap;
use shardgate_wire::{ClusterId, CommitNumber, DiskId, ShardStore};
use tokio::time::{Instant, sleep};

use super::find::Found;
use super::own::OwnRecord;
use super::roots::{NamedRoots, read_roots};
use super::start::{
    ANSWER, JournalStart, JournalStartError, JournalStarted, LOOK_AGAIN, Newest, Starting,
};
use crate::pool::place::FoundState;
use crate::pool::start::survey_all;

/// See the module.
pub struct Looked {
    starting: Starting,
    newest: Newest,
}

/// Finds the disks of the one cluster that there is and follows its pool map;
/// waits for agents as a start does.
///
/// # Errors
/// [`JournalStartError`]: no disk, several clusters, no map, or too few
/// journal disks.
pub async fn look(start: JournalStart) -> Result<Looked, JournalStartError> {
    let own = OwnRecord::read(&start.own).map_err(JournalStartError::Own)?;
    let give_up = Instant::now() + start.settings.start_patience;
    let cluster = loop {
        let surveys = survey_all(&start.places, start.settings.survey_timeout).await;
        let clusters: std::collections::BTreeSet<ClusterId> = surveys
            .iter()
            .flatten()
            .flat_map(|survey| &survey.folders)
            .filter_map(|found| match &found.state {
                FoundState::Disk(identity) => Some(identity.cluster),
                _ => None,
            })
            .collect();
        let silent: Vec<String> = surveys
            .iter()
            .filter_map(|of| of.as_ref().err().cloned())
            .collect();
        let known = own.as_ref().map(|own| own.cluster);
        match known.map_or_else(
            || only(&clusters),
            |of| clusters.contains(&of).then_some(of),
        ) {
            Some(cluster) => break cluster,
            None if clusters.len() > 1 || silent.is_empty() || Instant::now() >= give_up => {
                let clusters = clusters.into_iter().collect();
                return Err(JournalStartError::NotOneCluster { clusters, silent });
            }
            None => sleep(LOOK_AGAIN).await,
        }
    };
    let mut starting = Starting::new(Found::new(cluster), Some(cluster), own, start);
    let newest = starting.find_map(give_up).await?;
    Ok(Looked { starting, newest })
}

fn only(clusters: &std::collections::BTreeSet<ClusterId>) -> Option<ClusterId> {
    match clusters.len() {
        1 => clusters.first().copied(),
        _ => None,
    }
}

impl Starting {
    /// The newest map, of which enough journal disks answer; never a new one.
    pub(super) async fn find_map(&mut self, give_up: Instant) -> Result<Newest, JournalStartError> {
        loop {
            self.found.look(&self.start).await;
            let found = match self.newest().await {
                Some(newest) => self.has_quorum(&newest.map).map(|()| newest),
                None => Err(JournalStartError::NoMap {
                    disks: self.found.disks.len(),
                    silent: self.found.silent(),
                }),
            };
            match found {
                Err(error) if Instant::now() >= give_up || self.found.silent().is_empty() => {
                    return Err(error);
                }
                Err(_) => sleep(LOOK_AGAIN).await,
                Ok(newest) => return Ok(newest),
            }
        }
    }
}

impl Looked {
    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.starting.found.cluster
    }

    /// The pool map that counts.
    pub fn map(&self) -> &PoolMap {
        &self.newest.map
    }

    /// The disks that are open.
    pub fn disks(&self) -> Vec<DiskId> {
        self.starting.found.disks.keys().copied().collect()
    }

    /// The places that do not answer.
    pub fn silent(&self) -> Vec<String> {
        self.starting.found.silent()
    }

    /// Disks named lost for good, now and before: none of these is read,
    /// whether it answers or not.
    pub fn lost(&self) -> Vec<DiskId> {
        self.starting.lost(&self.newest.map)
    }

    /// The shards of the disks that are open.
    pub fn stores(&self) -> Vec<Arc<dyn ShardStore>> {
        let disks = self.starting.found.disks.values();
        disks.map(|disk| Arc::clone(&disk.ways.shards)).collect()
    }

    /// The checkpoint roots that disks name, of whatever lineage: only the
    /// journal tells which of them it goes on from.
    pub async fn roots(&self) -> NamedRoots {
        let disks = self.starting.found.journals(&[]);
        read_roots(&disks, self.cluster(), ANSWER).await
    }

    /// The last commit that any disk was told is durable.
    pub async fn told(&self) -> CommitNumber {
        let journal = self.map().journal_map();
        let standings = self.starting.standings(journal.all()).await;
        let ours = standings
            .iter()
            .filter(|(_, of, _)| of.told.0 == self.map().lineage);
        let told = ours.map(|(_, of, _)| of.told.1).max();
        told.unwrap_or(CommitNumber(0))
    }

    /// Goes on as a start with this database, which must be of the cluster or
    /// empty.
    ///
    /// # Errors
    /// As [`super::start::start_journal`].
    pub async fn start(
        mut self,
        engine: RocksStopped,
    ) -> Result<JournalStarted, JournalStartError> {
        if let Some(row) = engine.cluster()?
            && row.cluster != self.cluster()
        {
            return Err(JournalStartError::OtherCluster {
                catalog: row.cluster,
                own: self.cluster(),
            });
        }
        self.starting.engine = Some(engine);
        self.starting.run_from(self.newest).await
    }
}

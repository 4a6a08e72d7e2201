//! Asking disks how they are, and looking for those that are not there.
//!
//! Invariant: a disk counts as living only after it answered in time, as the
//! disk that it should be, under this gateway's epoch. One that hangs delays
//! no other. A folder is never made or formatted here.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shardgate_wire::{DiskHealth, ShardStore, StoreError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::members::Member;
use super::place::FoundState;
use super::standing::Standing;
use super::state::Pool;

/// The prober is woken at most this often.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

impl Pool {
    /// Probes for as long as the pool runs.
    pub fn spawn_probes(&self, tracker: &TaskTracker, stop: CancellationToken) {
        let pool = self.clone();
        tracker.spawn(async move {
            let work = pool.probe_for_ever();
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn probe_for_ever(&self) {
        let mut next_look = Instant::now() + self.inner.settings.look_every;
        let mut next_round = Instant::now() + self.inner.settings.probe_every;
        loop {
            let nudged = tokio::select! {
                () = tokio::time::sleep_until(next_round) => false,
                () = self.inner.nudge.notified() => true,
            };
            if nudged {
                self.probe(Member::take_suspicion).await;
                tokio::time::sleep(LEAST_PAUSE).await;
                continue;
            }
            self.probe_all().await;
            if Instant::now() >= next_look {
                self.look_for_missing().await;
                next_look = Instant::now() + self.inner.settings.look_every;
            }
            next_round = Instant::now() + self.inner.settings.probe_every;
        }
    }

    /// Asks every disk that there is a way to.
    pub async fn probe_all(&self) {
        self.probe(|_| true).await;
    }

    async fn probe(&self, wanted: impl Fn(&Member) -> bool) {
        let members = self.members();
        let probes = members
            .iter()
            .filter(|member| !member.is_lost_for_good() && wanted(member))
            .map(|member| self.probe_one(member));
        join_all(probes).await;
        self.refresh();
    }

    async fn probe_one(&self, member: &Arc<Member>) {
        let Some(store) = member.store() else { return };
        let within = self.inner.settings.probe_timeout;
        let disk = member.id();
        match timeout(within, self.ask(&*store)).await {
            Err(_) => self.lapse(disk, Standing::Late),
            Ok(Err(error)) => self.note_probe_error(member, &error),
            Ok(Ok(health)) => {
                if let Some(why) = health.fenced.clone() {
                    self.lapse(disk, Standing::Failed { why });
                } else if member.answered(health, self.now_ms()) {
                    tracing::info!(%disk, "disk takes writes");
                }
            }
        }
    }

    fn note_probe_error(&self, member: &Member, error: &StoreError) {
        let disk = member.id();
        match error {
            StoreError::WrongDisk { what } => {
                let why = format!("another disk answers: {what}");
                self.lapse(disk, Standing::Lost { why });
            }
            // Its queue is full: that is load, and no fault.
            StoreError::Busy => {}
            error if error.is_disk_fault() => self.note_error(disk, error),
            StoreError::StaleEpoch { .. } => self.note_error(disk, error),
            error => {
                let why = format!("no health: {error}");
                self.lapse(disk, Standing::Failed { why });
            }
        }
    }

    /// Its health, after it has accepted our epoch.
    async fn ask(&self, store: &dyn ShardStore) -> Result<DiskHealth, StoreError> {
        let health = store.health().await?;
        let identity = health.identity;
        if identity.disk != store.disk() || identity.cluster != self.inner.cluster {
            return Err(StoreError::WrongDisk {
                what: format!("disk {} of cluster {}", identity.disk, identity.cluster),
            });
        }
        let ours = self.inner.epoch;
        if health.epoch == ours {
            return Ok(health);
        }
        if !health.epoch.admits(&ours) {
            return Err(StoreError::StaleEpoch { held: health.epoch });
        }
        store.raise_epoch(&self.context()).await?;
        Ok(DiskHealth {
            epoch: ours,
            ..health
        })
    }

    /// Looks for disks that are not there, at every place: they may have come
    /// back, or have been put elsewhere.
    pub(crate) async fn look_for_missing(&self) {
        let missing: Vec<Arc<Member>> = self
            .members()
            .into_iter()
            .filter(|member| !member.is_lost_for_good() && is_missing(member))
            .collect();
        if missing.is_empty() {
            return;
        }
        let _changing = self.inner.changing.lock().await;
        for place in &self.inner.places {
            let Ok(survey) = place.survey(self.inner.settings.survey_timeout).await else {
                continue;
            };
            for found in &survey.folders {
                let FoundState::Disk(identity) = &found.state else {
                    continue;
                };
                let wanted = missing.iter().find(|member| member.id() == identity.disk);
                let (Some(member), true) = (wanted, identity.cluster == self.inner.cluster) else {
                    continue;
                };
                match place.open(&found.folder, identity).await {
                    Ok(store) => {
                        tracing::info!(disk = %identity.disk, folder = found.folder, "disk is back");
                        member.found_again(store);
                        self.keep_place_of(member, &survey, &found.folder).await;
                        self.probe_one(member).await;
                        self.refresh();
                    }
                    Err(why) => {
                        tracing::warn!(disk = %identity.disk, why, "disk is there and cannot be opened");
                        member.not_opened(why);
                        self.refresh();
                    }
                }
            }
        }
    }
}

/// Whether there is no way to the disk, or none that works until it is opened
/// anew.
fn is_missing(member: &Member) -> bool {
    member.store().is_none() || matches!(member.standing(), Standing::Lost { .. })
}

//! Asking disks how they are, and looking for those that are not there.
//!
//! Invariant: a disk counts as living only after it answered in time, as the
//! disk that it should be, under this gateway's epoch. One that hangs, while
//! it is asked, looked for or opened, delays no other. A folder is never made
//! or formatted here.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shardgate_wire::{DiskHealth, DiskIdentity, ShardStore, StoreError};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lineage::conflict;
use super::members::Member;
use super::place::{FoundState, Place, Survey, health_of};
use super::standing::Standing;
use super::start::{NOT_USED, not_used};
use super::state::Pool;
use super::ways::DiskWays;

/// How long looking for disks waits for those that it found to be open.
const OPEN_WAIT: Duration = Duration::from_secs(5);
/// The prober is woken at most this often.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

impl Pool {
    /// Probes for as long as the pool runs.
    pub fn spawn_probes(&self, tracker: &TaskTracker, stop: CancellationToken) {
        let pool = self.clone();
        tracker.spawn(async move {
            // Apart: a place that does not answer keeps nobody's health from
            // us.
            let work = async { tokio::join!(pool.probe_for_ever(), pool.look_for_ever()) };
            tokio::select! {
                _ = work => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn look_for_ever(&self) {
        loop {
            tokio::time::sleep(self.inner.settings.look_every).await;
            self.look_for_missing().await;
        }
    }

    async fn probe_for_ever(&self) {
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

    /// Refuses a disk that comes back knowing more than the catalog: a new
    /// lineage is taken by a start alone.
    async fn check_knows_no_more(&self, ways: DiskWays) -> Result<DiskWays, String> {
        let health = health_of(&*ways.shards, self.inner.settings.probe_timeout).await;
        let health = health.map_err(|error| error.to_string())?;
        let (history, committed) = (&self.inner.history, self.inner.catalog.committed());
        match conflict(history, committed, ways.shards.disk(), health.told) {
            None => Ok(ways),
            Some(reason) => Err(not_used(&reason)),
        }
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
        let within = self.inner.settings.survey_timeout;
        let surveys = self.inner.places.iter().map(|place| async move {
            let survey = place.survey(within).await;
            survey.ok().map(|survey| (place, survey))
        });
        let surveys: Vec<_> = join_all(surveys).await.into_iter().flatten().collect();
        let mut found = Vec::new();
        for (place, survey) in &surveys {
            found.extend(survey.folders.iter().filter_map(|folder| {
                let FoundState::Disk(identity) = &folder.state else {
                    return None;
                };
                Some((*place, survey, &folder.folder, *identity))
            }));
        }
        let mut opening = Vec::new();
        for member in &missing {
            let mut here = found.iter().filter(|(_, _, _, identity)| {
                identity.disk == member.id() && identity.cluster == self.inner.cluster
            });
            let Some((place, survey, folder, identity)) = here.next() else {
                continue;
            };
            if let Some((_, _, other, _)) = here.next() {
                self.found_twice(member, folder, other);
                continue;
            }
            if !self.inner.opening.lock().insert(identity.disk) {
                continue;
            }
            let back = Back {
                pool: self.clone(),
                member: Arc::clone(member),
                place: Arc::clone(place),
                survey: (*survey).clone(),
                folder: (*folder).clone(),
                identity: *identity,
            };
            opening.push(tokio::spawn(back.open()));
        }
        // One that hangs is left to itself: when it is open, it is taken in.
        let _patience = timeout(OPEN_WAIT, join_all(opening)).await;
    }

    /// One of the two is a copy, and nobody can tell which: none is opened.
    fn found_twice(&self, member: &Member, one: &str, other: &str) {
        let why = format!("found at {one} and at {other}: one is a copy, and none is used");
        if member.standing() != (Standing::Lost { why: why.clone() }) {
            tracing::error!(disk = %member.id(), why, "disk is not taken back");
            member.not_opened(why);
            self.refresh();
        }
    }
}

/// A disk that was found again.
struct Back {
    pool: Pool,
    member: Arc<Member>,
    place: Arc<dyn Place>,
    survey: Survey,
    folder: String,
    identity: DiskIdentity,
}

impl Back {
    async fn open(self) {
        let pool = &self.pool;
        let disk = self.identity.disk;
        let opened = self.place.open(&self.folder, &self.identity).await;
        let opened = match opened {
            Ok(ways) => pool.check_knows_no_more(ways).await,
            Err(why) => Err(why),
        };
        let _changing = pool.inner.changing.lock().await;
        // The operator may have declared it lost meanwhile.
        if !self.member.is_lost_for_good() {
            match opened {
                Ok(ways) => {
                    tracing::info!(%disk, folder = self.folder, "disk is back");
                    self.member.found_again(ways.shards);
                    pool.inner.ways.opened(ways.journal);
                    pool.keep_place_of(&self.member, &self.survey, &self.folder)
                        .await;
                    pool.probe_one(&self.member).await;
                }
                Err(why) => {
                    tracing::warn!(%disk, why, "disk is there and cannot be opened");
                    self.member.not_opened(why);
                }
            }
            pool.refresh();
        }
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        self.pool.inner.opening.lock().remove(&self.identity.disk);
    }
}

/// Whether there is no way to the disk, or none that works until it is opened
/// anew, which may help.
fn is_missing(member: &Member) -> bool {
    match member.standing() {
        Standing::Lost { why } => !why.ends_with(NOT_USED),
        _ => member.store().is_none(),
    }
}

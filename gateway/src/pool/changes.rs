//! What the operator changes while the pool runs: a blank folder becomes a
//! new disk, a disk is declared lost.
//!
//! Invariant: only these two declare a disk lost, by a commit, and no disk
//! that was ever comes back with its data (PROTOCOL.md 6, 9).

use shardgate_catalog::CatalogError;
use shardgate_catalog::model::{DiskRow, DiskState};
use shardgate_wire::DiskId;
use thiserror::Error;

use super::members::Member;
use super::place::{Found, FoundState, Survey};
use super::report::DECLARED_LOST;
use super::start::plan::At;
use super::start::{JoinError, join};
use super::state::Pool;

/// Why a disk is not replaced or declared lost.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// No such folder is configured.
    #[error("{0} is not a configured folder; an agent's is named AGENT:PATH")]
    NoSuchFolder(String),
    /// Several agents have a folder of that path.
    #[error("several agents have a folder {0}: name it as AGENT:PATH")]
    Ambiguous(String),
    /// The folder is not blank.
    #[error("{folder} is not blank: {what}")]
    NotBlank {
        /// Which.
        folder: String,
        /// What is there.
        what: String,
    },
    /// The disk that was there is in use at another place.
    #[error("disk {disk}, which was at this folder, is in the pool at {path}")]
    InUse {
        /// Which.
        disk: DiskId,
        /// Where.
        path: String,
    },
    /// No such disk.
    #[error("no disk {0}")]
    NoSuchDisk(DiskId),
    /// The last one.
    #[error("disk {0} is the last one of the pool")]
    LastDisk(DiskId),
    /// A place did not do it.
    #[error("{0}")]
    Place(String),
    /// The catalog's.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl Pool {
    /// Makes the blank folder `place` (`PATH`, or `AGENT:PATH` with an
    /// agent's name or id) a new disk. A disk of the catalog that was there
    /// is declared lost.
    ///
    /// # Errors
    /// [`ChangeError`]; then nothing was formatted.
    pub async fn replace_disk(&self, place: &str) -> Result<DiskId, ChangeError> {
        let _changing = self.inner.changing.lock().await;
        let (index, at, found) = self.find_folder(place).await?;
        let what = match &found.state {
            FoundState::Blank => None,
            FoundState::Disk(identity) => Some(format!("it holds disk {}", identity.disk)),
            FoundState::Missing => Some("there is no such folder".to_owned()),
            FoundState::Failed { why } => Some(why.clone()),
        };
        if let Some(what) = what {
            let folder = at.folder;
            return Err(ChangeError::NotBlank { folder, what });
        }
        let was_here = |member: &Member| {
            let row = member.row();
            row.state == DiskState::Member && at.is_of(&row)
        };
        for member in self.members() {
            if !was_here(&member) {
                continue;
            }
            if member.is_living() {
                let row = member.row();
                return Err(ChangeError::InUse {
                    disk: row.id,
                    path: row.path,
                });
            }
            self.commit_lost(&member, "replaced").await?;
        }
        let ctx = self.context();
        let place = &self.inner.places[index];
        let joined = join(&**place, &at, found.medium, &ctx, &self.inner.catalog).await;
        let (row, ways) = joined.map_err(|error| match error {
            JoinError::Format(why) => ChangeError::Place(why),
            JoinError::Catalog(error) => ChangeError::Catalog(error),
        })?;
        let disk = row.id;
        self.inner.ways.opened(ways.journal);
        self.add_member(row, Ok(ways.shards));
        self.probe_all().await;
        Ok(disk)
    }

    /// Declares a disk lost for good: it is never taken back.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn declare_lost(&self, disk: DiskId) -> Result<(), ChangeError> {
        let _changing = self.inner.changing.lock().await;
        let member = self.member(disk).ok_or(ChangeError::NoSuchDisk(disk))?;
        if member.is_lost_for_good() {
            return Ok(());
        }
        let others = self.members();
        let others = others
            .iter()
            .filter(|of| of.id() != disk && !of.is_lost_for_good());
        if others.count() == 0 {
            return Err(ChangeError::LastDisk(disk));
        }
        self.commit_lost(&member, DECLARED_LOST).await?;
        self.warn_of_schemes();
        Ok(())
    }

    async fn commit_lost(&self, member: &Member, why: &str) -> Result<(), ChangeError> {
        let held = member.row();
        let lost = DiskRow {
            state: DiskState::Lost,
            ..held.clone()
        };
        // Before the commit: where the journal waits for this disk, the commit
        // would wait with it.
        self.inner.lost.add(held.id);
        self.inner.catalog.put_disk(&lost, Some(&held)).await?;
        self.inner.ways.closed(held.id);
        tracing::warn!(disk = %held.id, path = held.path, why, "disk is lost for good");
        member.declared_lost(lost, why, self.now_ms());
        self.refresh();
        Ok(())
    }

    /// The configured folder that the operator means.
    async fn find_folder(&self, wanted: &str) -> Result<(usize, At, Found), ChangeError> {
        let mut hits = Vec::new();
        for (index, place) in self.inner.places.iter().enumerate() {
            let within = self.inner.settings.survey_timeout;
            let survey = match place.survey(within).await {
                Ok(survey) => survey,
                Err(why) => {
                    tracing::warn!(place = place.label(), why, "place does not answer");
                    continue;
                }
            };
            let folders = survey
                .folders
                .iter()
                .filter(|found| is_meant(&survey, found, wanted));
            hits.extend(folders.map(|found| {
                let at = At {
                    place: index,
                    agent: survey.agent,
                    server: survey.server.clone(),
                    site: survey.site.clone(),
                    folder: found.folder.clone(),
                };
                (index, at, found.clone())
            }));
        }
        match hits.len() {
            0 => Err(ChangeError::NoSuchFolder(wanted.to_owned())),
            1 => Ok(hits.remove(0)),
            _ => Err(ChangeError::Ambiguous(wanted.to_owned())),
        }
    }

    /// A disk was found again, maybe at another folder: its record says so.
    pub(crate) async fn keep_place_of(&self, member: &Member, survey: &Survey, folder: &str) {
        let held = member.row();
        let row = DiskRow {
            agent: survey.agent,
            server: survey.server.clone(),
            site: survey.site.clone(),
            path: folder.to_owned(),
            ..held.clone()
        };
        if row == held {
            return;
        }
        match self.inner.catalog.put_disk(&row, Some(&held)).await {
            Ok(()) => member.set_row(row),
            Err(error) => tracing::warn!(disk = %held.id, %error, "its new place was not noted"),
        }
    }
}

fn is_meant(survey: &Survey, found: &Found, wanted: &str) -> bool {
    if found.folder == wanted {
        return true;
    }
    let Some((agent, path)) = wanted.split_once(':') else {
        return false;
    };
    let by_id = survey.agent.is_some_and(|id| id.to_string() == agent);
    found.folder == path && survey.agent.is_some() && (by_id || survey.name == agent)
}

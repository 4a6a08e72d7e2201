//! What a start does with the folders that it finds: pure.
//!
//! Invariants (PROTOCOL.md 6): a folder is formatted only if it is blank and
//! no disk of the catalog ever had it; a disk without its catalog, of another
//! cluster, declared lost, or found twice is left untouched.

use std::collections::BTreeMap;

use shardgate_catalog::model::{DiskRow, DiskState};
use shardgate_wire::{AgentId, ClusterId, DiskId, DiskIdentity, Medium};
use thiserror::Error;

use crate::pool::place::{FoundState, Survey};

/// A folder, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    /// Index of its place.
    pub place: usize,
    /// The agent, `None` for the gateway's own server.
    pub agent: Option<AgentId>,
    /// Server.
    pub server: String,
    /// Site.
    pub site: String,
    /// Path.
    pub folder: String,
}

impl At {
    /// The row of a disk that is here.
    pub fn row(&self, id: DiskId, medium: Medium) -> DiskRow {
        DiskRow {
            id,
            agent: self.agent,
            path: self.folder.clone(),
            server: self.server.clone(),
            site: self.site.clone(),
            medium,
            state: DiskState::Member,
        }
    }

    fn is_of(&self, row: &DiskRow) -> bool {
        row.agent == self.agent && row.path == self.folder
    }
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Known disks to open: the catalog's row, the identity found, where.
    pub open: Vec<(DiskRow, DiskIdentity, At)>,
    /// Known disks that are not there, and why.
    pub missing: Vec<(DiskRow, String)>,
    /// Blank folders that become new disks, and the medium given for them.
    pub format: Vec<(At, Option<Medium>)>,
    /// Disks of this cluster that the catalog does not know: taken in if they
    /// hold nothing (a start that was cut short had made them).
    pub stray: Vec<(DiskIdentity, At)>,
    /// What the operator must know.
    pub warnings: Vec<String>,
}

/// Why the pool cannot start.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// No disk is configured.
    #[error("no folder and no agent is configured")]
    NoDisks,
    /// There are disks, and no catalog.
    #[error(
        "the catalog is empty and {} already a disk of cluster {cluster}: the catalog must be \
         restored; it is never made anew over existing disks",
        are(folders)
    )]
    CatalogGone {
        /// The cluster of the first.
        cluster: ClusterId,
        /// Where they are.
        folders: Vec<String>,
    },
    /// A new cluster begins with all its folders.
    #[error("a new cluster begins with all that is configured, and {}", problems.join("; "))]
    NotAllThere {
        /// What is not there, and why.
        problems: Vec<String>,
    },
}

fn are(folders: &[String]) -> String {
    match folders {
        [one] => format!("{one} is"),
        several => format!("{} are each", several.join(", ")),
    }
}

/// Decides what to do with what was found at each place; `Err` is a place
/// that did not answer, with its label.
pub fn plan(cluster: ClusterId, rows: &[DiskRow], surveys: &[Result<Survey, String>]) -> Plan {
    let found = flatten(surveys);
    let mut plan = Plan::default();
    let mut by_disk: BTreeMap<DiskId, Vec<(DiskIdentity, &At)>> = BTreeMap::new();
    for (at, _, state) in &found {
        match state {
            FoundState::Disk(identity) if identity.cluster == cluster => {
                by_disk
                    .entry(identity.disk)
                    .or_default()
                    .push((*identity, at));
            }
            FoundState::Disk(identity) => plan.warnings.push(format!(
                "{} is a disk of another cluster ({}): left untouched",
                at.folder, identity.cluster
            )),
            _ => {}
        }
    }
    for row in rows {
        let here = by_disk.remove(&row.id).unwrap_or_default();
        plan.take_known(row, &here, surveys, &found);
    }
    for (disk, here) in by_disk {
        match &here[..] {
            [(identity, at)] => plan.stray.push((*identity, (*at).clone())),
            _ => plan.warnings.push(found_twice(disk, &here)),
        }
    }
    plan.take_blank(rows, &found);
    for error in surveys.iter().filter_map(|survey| survey.as_ref().err()) {
        plan.warnings.push(error.clone());
    }
    plan
}

type Folder<'a> = (At, Option<Medium>, &'a FoundState);

fn flatten(surveys: &[Result<Survey, String>]) -> Vec<Folder<'_>> {
    let mut found = Vec::new();
    for (place, survey) in surveys.iter().enumerate() {
        let Ok(survey) = survey else { continue };
        for folder in &survey.folders {
            let at = At {
                place,
                agent: survey.agent,
                server: survey.server.clone(),
                site: survey.site.clone(),
                folder: folder.folder.clone(),
            };
            found.push((at, folder.medium, &folder.state));
        }
    }
    found
}

/// The folders that become the disks of a new cluster. Those of `begun` were
/// made by a start of it that was cut short.
///
/// # Errors
/// [`PlanError`].
pub fn plan_new(
    begun: Option<ClusterId>,
    surveys: &[Result<Survey, String>],
) -> Result<Vec<(At, Option<Medium>)>, PlanError> {
    let found = flatten(surveys);
    let disks: Vec<(&At, &DiskIdentity)> = found
        .iter()
        .filter_map(|(at, _, state)| match state {
            FoundState::Disk(identity) if Some(identity.cluster) != begun => Some((at, identity)),
            _ => None,
        })
        .collect();
    if let Some((_, first)) = disks.first() {
        return Err(PlanError::CatalogGone {
            cluster: first.cluster,
            folders: disks.iter().map(|(at, _)| at.folder.clone()).collect(),
        });
    }
    let mut problems: Vec<String> = surveys
        .iter()
        .filter_map(|survey| survey.as_ref().err().cloned())
        .collect();
    for (at, _, state) in &found {
        match state {
            FoundState::Missing => problems.push(format!("there is no folder {}", at.folder)),
            FoundState::Failed { why } => problems.push(why.clone()),
            FoundState::Blank | FoundState::Disk(_) => {}
        }
    }
    if !problems.is_empty() {
        return Err(PlanError::NotAllThere { problems });
    }
    if found.is_empty() {
        return Err(PlanError::NoDisks);
    }
    let blank = found
        .into_iter()
        .filter(|(_, _, state)| **state == FoundState::Blank);
    Ok(blank.map(|(at, medium, _)| (at, medium)).collect())
}

/// The disks of a cluster that are found, and where. One that is found twice
/// is left out: nobody can tell which is the copy.
pub fn disks_of(cluster: ClusterId, surveys: &[Result<Survey, String>]) -> Vec<(DiskIdentity, At)> {
    let mut by_disk: BTreeMap<DiskId, Vec<(DiskIdentity, At)>> = BTreeMap::new();
    for (at, _, state) in flatten(surveys) {
        if let FoundState::Disk(identity) = state
            && identity.cluster == cluster
        {
            let here = by_disk.entry(identity.disk).or_default();
            here.push((*identity, at));
        }
    }
    let once = by_disk.into_values().filter(|here| here.len() == 1);
    once.flatten().collect()
}

fn found_twice(disk: DiskId, here: &[(DiskIdentity, &At)]) -> String {
    let folders: Vec<&str> = here.iter().map(|(_, at)| at.folder.as_str()).collect();
    format!(
        "disk {disk} is found at {}: one is a copy, and none is used",
        folders.join(" and at ")
    )
}

impl Plan {
    fn take_known(
        &mut self,
        row: &DiskRow,
        here: &[(DiskIdentity, &At)],
        surveys: &[Result<Survey, String>],
        found: &[Folder<'_>],
    ) {
        match (row.state, here) {
            (DiskState::Lost, []) => {}
            (DiskState::Lost, here) => {
                for (_, at) in here {
                    self.warnings.push(format!(
                        "{} is disk {}, which was declared lost: left untouched",
                        at.folder, row.id
                    ));
                }
            }
            (DiskState::Member, [(identity, at)]) => {
                self.open.push((row.clone(), *identity, (*at).clone()));
            }
            (DiskState::Member, []) => {
                self.missing
                    .push((row.clone(), why_missing(row, surveys, found)));
            }
            (DiskState::Member, several) => {
                let why = found_twice(row.id, several);
                self.warnings.push(why.clone());
                self.missing.push((row.clone(), why));
            }
        }
    }

    fn take_blank(&mut self, rows: &[DiskRow], found: &[Folder<'_>]) {
        for (at, medium, state) in found {
            if **state != FoundState::Blank {
                if let FoundState::Failed { why } = state {
                    self.warnings.push(why.clone());
                }
                continue;
            }
            match rows.iter().find(|row| at.is_of(row)) {
                None => self.format.push((at.clone(), *medium)),
                Some(row) => self.warnings.push(format!(
                    "{} is blank where disk {} was: left untouched; `shardgate disk replace {}` \
                     makes it a new disk",
                    at.folder, row.id, at.folder
                )),
            }
        }
    }
}

/// Why a known disk is not there.
fn why_missing(row: &DiskRow, surveys: &[Result<Survey, String>], found: &[Folder<'_>]) -> String {
    if let Some((_, _, state)) = found.iter().find(|(at, _, _)| at.is_of(row)) {
        return match state {
            FoundState::Blank => format!("{} is blank", row.path),
            FoundState::Missing => format!("there is no folder {}", row.path),
            FoundState::Disk(other) => format!("{} holds disk {}", row.path, other.disk),
            FoundState::Failed { why } => why.clone(),
        };
    }
    let silent = surveys.iter().find_map(|survey| survey.as_ref().err());
    match silent {
        Some(error) => format!("not found where all places answered; {error}"),
        None => format!("{} is not configured any more", row.path),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

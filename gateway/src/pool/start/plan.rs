//! What a start does with the folders that it finds: pure.
//!
//! Invariants (PROTOCOL.md 6): a folder is formatted only if it is blank (or
//! is to be made, where a pool is grown by a number of disks) and no disk of
//! the catalog ever had it, however its path or its agent were called then; a
//! disk without its catalog, of another cluster, declared lost, or found twice
//! is left untouched. Every configured folder that is no disk in use has a
//! warning, but for those whose disk says why it is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use shardgate_catalog::model::{DiskRow, DiskState};
use shardgate_wire::{AgentId, ClusterId, DiskId, DiskIdentity, Medium};
use thiserror::Error;

use crate::pool::place::{FoundState, MakeFolders, Survey};

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

    /// Whether that disk was here.
    pub(crate) fn is_of(&self, row: &DiskRow) -> bool {
        row.agent == self.agent && same_folder(&row.path, &self.folder)
    }

    /// Whether that disk may have been here: an agent that lost what it keeps
    /// of itself has another id.
    fn may_be_of(&self, row: &DiskRow) -> bool {
        row.server == self.server && same_folder(&row.path, &self.folder)
    }
}

/// Whether two paths are of one folder, as far as their words tell.
fn same_folder(one: &str, other: &str) -> bool {
    let plain = |path: &str| {
        let mut plain = PathBuf::new();
        for part in Path::new(path).components() {
            match part {
                Component::ParentDir => _ = plain.pop(),
                part => plain.push(part),
            }
        }
        plain
    };
    plain(one) == plain(other)
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Known disks to open: the catalog's row, the identity found, where.
    pub open: Vec<(DiskRow, DiskIdentity, At)>,
    /// Known disks that are not there, and why.
    pub missing: Vec<(DiskRow, String)>,
    /// Folders that become new disks, blank or to be made, and the medium
    /// given for them.
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

/// What is known of the pool when it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The cluster.
    pub cluster: ClusterId,
    /// Every disk of the catalog.
    pub rows: &'a [DiskRow],
    /// Whether disks may have been that the catalog does not know: while
    /// nothing may be reclaimed.
    pub held: bool,
}

/// Decides what to do with what was found at each place; `Err` is a place
/// that did not answer, with its label.
pub fn plan(known: Known<'_>, surveys: &[Result<Survey, String>]) -> Plan {
    let found = flatten(surveys);
    let mut plan = Plan::default();
    let mut by_disk: BTreeMap<DiskId, Vec<(DiskIdentity, &At)>> = BTreeMap::new();
    for Folder { at, state, .. } in &found {
        match state {
            FoundState::Disk(identity) if identity.cluster == known.cluster => {
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
    let here: BTreeSet<DiskId> = by_disk.keys().copied().collect();
    let away: Vec<&DiskRow> = known
        .rows
        .iter()
        .filter(|of| !here.contains(&of.id))
        .collect();
    for row in known.rows {
        let here = by_disk.remove(&row.id).unwrap_or_default();
        plan.take_known(row, &here, surveys, &found);
    }
    for (disk, here) in by_disk {
        match &here[..] {
            [(identity, at)] => plan.stray.push((*identity, (*at).clone())),
            _ => plan.warnings.push(found_twice(disk, &here)),
        }
    }
    for folder in &found {
        plan.take_empty(folder, known, &away, &found);
    }
    for error in surveys.iter().filter_map(|survey| survey.as_ref().err()) {
        plan.warnings.push(error.clone());
    }
    plan
}

/// A configured folder, wherever it is.
struct Folder<'a> {
    at: At,
    medium: Option<Medium>,
    state: &'a FoundState,
    makes: MakeFolders,
}

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
            found.push(Folder {
                at,
                medium: folder.medium,
                state: &folder.state,
                makes: survey.makes,
            });
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
        .filter_map(|folder| match folder.state {
            FoundState::Disk(identity) if Some(identity.cluster) != begun => {
                Some((&folder.at, identity))
            }
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
    for folder in &found {
        match folder.state {
            FoundState::Missing if folder.makes == MakeFolders::Never => {
                problems.push(format!("there is no folder {}", folder.at.folder));
            }
            FoundState::Failed { why } => problems.push(why.clone()),
            FoundState::Missing | FoundState::Blank | FoundState::Disk(_) => {}
        }
    }
    if !problems.is_empty() {
        return Err(PlanError::NotAllThere { problems });
    }
    if found.is_empty() {
        return Err(PlanError::NoDisks);
    }
    let empty = |state: &FoundState| matches!(state, FoundState::Blank | FoundState::Missing);
    let empty = found.into_iter().filter(|folder| empty(folder.state));
    Ok(empty.map(|folder| (folder.at, folder.medium)).collect())
}

/// The disks of a cluster that are found, and where. One that is found twice
/// is left out: nobody can tell which is the copy.
pub fn disks_of(cluster: ClusterId, surveys: &[Result<Survey, String>]) -> Vec<(DiskIdentity, At)> {
    let mut by_disk: BTreeMap<DiskId, Vec<(DiskIdentity, At)>> = BTreeMap::new();
    for folder in flatten(surveys) {
        if let FoundState::Disk(identity) = folder.state
            && identity.cluster == cluster
        {
            let here = by_disk.entry(identity.disk).or_default();
            here.push((*identity, folder.at));
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

    /// A folder without a disk: a new one, a lost one's, or a mistake.
    fn take_empty(
        &mut self,
        folder: &Folder<'_>,
        known: Known<'_>,
        away: &[&DiskRow],
        found: &[Folder<'_>],
    ) {
        let at = &folder.at;
        match folder.state {
            FoundState::Disk(_) => return,
            FoundState::Failed { why } => return self.warnings.push(why.clone()),
            FoundState::Blank | FoundState::Missing => {}
        }
        let blank = *folder.state == FoundState::Blank;
        match was_here(at, known.rows, away) {
            Some(row) if blank => self.warnings.push(format!(
                "{} is blank where disk {} was: left untouched; `shardgate disk replace {}` \
                 makes it a new disk{}",
                at.folder,
                row.id,
                at.folder,
                match at.is_of(row) {
                    true => "",
                    false => ", and leaves the old one in the pool, which was of another agent",
                }
            )),
            // It is said of the disk.
            Some(_) => {}
            None if blank && known.held => self.warnings.push(format!(
                "{} is blank, and while nothing is reclaimed a disk may have been there that the \
                 catalog does not know: left untouched; `shardgate disk replace {}` makes it a new \
                 disk",
                at.folder, at.folder
            )),
            None if blank => self.format.push((at.clone(), folder.medium)),
            None => match why_not_made(folder, known, away, found) {
                None => self.format.push((at.clone(), folder.medium)),
                Some(why) => self
                    .warnings
                    .push(format!("there is no folder {}{why}", at.folder)),
            },
        }
    }
}

/// The disk of the catalog that was at a folder.
fn was_here<'a>(at: &At, rows: &'a [DiskRow], away: &[&'a DiskRow]) -> Option<&'a DiskRow> {
    let exactly = rows.iter().find(|row| at.is_of(row));
    exactly.or_else(|| away.iter().find(|row| at.may_be_of(row)).copied())
}

/// Why a missing folder, where no disk was that is known of, is not made;
/// `None` if it is.
fn why_not_made(
    folder: &Folder<'_>,
    known: Known<'_>,
    away: &[&DiskRow],
    found: &[Folder<'_>],
) -> Option<String> {
    if folder.makes != MakeFolders::ForNewDisks {
        return Some(
            ", and no disk of this pool was ever there: misspelt, or not mounted? It is not used"
                .to_owned(),
        );
    }
    if known.held {
        return Some(": none is made while nothing is reclaimed".to_owned());
    }
    // A disk that is not there and whose folder is configured no more: it may
    // have been meant to be here.
    let homeless = |row: &&&DiskRow| {
        let mut folders = found.iter();
        row.state == DiskState::Member
            && row.agent == folder.at.agent
            && !folders.any(|folder| folder.at.is_of(row))
    };
    let row = away.iter().find(homeless)?;
    Some(format!(
        ": it is not made while disk {} is away, which was at {}",
        row.id, row.path
    ))
}

/// Why a known disk is not there.
fn why_missing(row: &DiskRow, surveys: &[Result<Survey, String>], found: &[Folder<'_>]) -> String {
    let exactly = found.iter().find(|folder| folder.at.is_of(row));
    let here = exactly.or_else(|| found.iter().find(|folder| folder.at.may_be_of(row)));
    if let Some(folder) = here {
        return match folder.state {
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

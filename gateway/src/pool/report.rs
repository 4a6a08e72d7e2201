//! The state of the pool, as the operator reads it.
//!
//! Plain data with the sentences already made; how it is printed or sent is
//! `admin`'s. Nothing in it is secret.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shardgate_catalog::model::{DiskRow, DiskState, GroupRow, GroupState};
use shardgate_erasure::Scheme;
use shardgate_wire::{DiskId, DiskRoom, Medium, ScrubStanding};

use super::classes::SchemeSetting;
use super::members::Member;
use super::place::Survey;
use super::standing::Standing;
use super::start::plan::{Known, plan};
use super::start::survey_all;
use super::state::{Pool, Snapshot};
use crate::placement::loss::counted;
use crate::placement::{DiskView, GroupFacts, draw, fits, loss, narrow_scheme, storable_bytes};

/// Until a disk has finished what it does.
const CLOSE_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

/// The state of a disk that the operator gave up.
pub(crate) const DECLARED_LOST: &str = "declared lost";

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The cluster's id.
    pub cluster: String,
    /// The gateway's epoch.
    pub epoch: u64,
    /// Agents, and the gateway's own server as one of no id.
    pub agents: Vec<AgentStatus>,
    /// Disks, those declared lost too.
    pub disks: Vec<DiskStatus>,
    /// Classes.
    pub classes: Vec<ClassStatus>,
    /// Groups by state.
    pub groups: GroupCounts,
    /// What may be lost now, the most important first.
    pub loss: Vec<String>,
    /// What is not fully stored.
    pub owed: OwedStatus,
    /// What the operator should do something about.
    pub warnings: Vec<String>,
}

/// An agent, or the gateway's own disks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Where it is.
    pub place: String,
    /// Its id; `None` for the gateway itself.
    pub id: Option<String>,
    /// Its server, if it answers.
    pub server: Option<String>,
    /// Why it does not answer.
    pub problem: Option<String>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its id.
    pub id: String,
    /// Its folder.
    pub path: String,
    /// Its server.
    pub server: String,
    /// Its medium.
    pub medium: Medium,
    /// Size of its file system, bytes; 0 if never seen.
    pub capacity_bytes: u64,
    /// What shards of clients may still take, bytes.
    pub free_bytes: u64,
    /// What each may still take; `None` if never seen.
    #[serde(default)]
    pub room: Option<DiskRoom>,
    /// `living`, `late`, `failed`, `lost`, or `declared lost`.
    pub state: String,
    /// Why, if it is not living.
    pub why: Option<String>,
    /// Groups that have a slot on it.
    pub groups: usize,
    /// Shards that it knows to be damaged.
    #[serde(default)]
    pub damaged: u32,
    /// How far it is in reading everything that it keeps.
    #[serde(default)]
    pub scrub: ScrubStanding,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassStatus {
    /// Its name.
    pub name: String,
    /// As configured: `auto` or `k+m`.
    pub configured: String,
    /// What new objects get in this pool with all its disks; `None` where no
    /// disk has its medium.
    pub scheme: Option<String>,
    /// The medium that it is bound to.
    pub medium: Option<Medium>,
    /// Bytes of objects that placement can still store with the disks that
    /// live now.
    pub free_bytes: u64,
}

/// How many groups there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounts {
    /// That take writes.
    pub open: usize,
    /// That are full.
    pub sealed: usize,
    /// Of both, those that are narrower than their class asks.
    pub narrow: usize,
    /// Of all, those with a slot on a disk that is not there.
    pub degraded: usize,
}

/// Slots that lack shards of acknowledged blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedStatus {
    /// Groups with such a slot.
    pub groups: usize,
    /// Such slots.
    pub slots: usize,
    /// What is done about it now, in words.
    #[serde(default)]
    pub filling: Option<String>,
}

/// What metrics show of a disk.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskReading {
    /// Its id.
    pub id: DiskId,
    /// Its server.
    pub server: String,
    /// Whether it takes new writes.
    pub living: bool,
    /// What shards of clients may still take, bytes.
    pub free_bytes: u64,
    /// What each may still take, if it was ever seen.
    pub room: Option<DiskRoom>,
    /// Size of its file system, bytes.
    pub capacity_bytes: u64,
    /// Calls that wait for it or are in it.
    pub queued: u32,
    /// Shards that it knows to be damaged.
    pub damaged: u32,
    /// How far it is in reading everything that it keeps.
    pub scrub: ScrubStanding,
}

/// How many disks there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskCount {
    /// That take writes.
    pub living: usize,
    /// Of the pool, without those that are declared lost.
    pub all: usize,
}

impl Pool {
    /// How many disks the pool has, and how many of them are there.
    pub fn disk_count(&self) -> DiskCount {
        let snapshot = self.snapshot();
        let disks = &snapshot.view.disks;
        DiskCount {
            living: disks.iter().filter(|disk| disk.living).count(),
            all: disks.len(),
        }
    }

    /// What metrics show of the disks that are not declared lost.
    pub fn disk_readings(&self) -> Vec<DiskReading> {
        let members = self.members().into_iter();
        let reading = |member: Arc<Member>| {
            let (disk, health) = (member.view(), member.health());
            DiskReading {
                id: disk.id,
                server: disk.server,
                living: disk.living,
                free_bytes: disk.free_bytes,
                room: disk.room,
                capacity_bytes: disk.capacity_bytes,
                queued: disk.load,
                damaged: health.as_ref().map_or(0, |health| health.damaged),
                scrub: health.map(|health| health.scrub).unwrap_or_default(),
            }
        };
        members
            .filter(|member| !member.is_lost_for_good())
            .map(reading)
            .collect()
    }

    /// What metrics show of groups: those of the pool's own memory, where all
    /// are.
    pub fn group_counts(&self) -> GroupCounts {
        let groups = self.inner.groups.read();
        count_groups(groups.values().map(|group| &group.row), &self.snapshot())
    }

    /// Bytes that placement can still store now, by the names of classes.
    pub fn class_room(&self) -> Vec<(String, u64)> {
        let classes = self.classes_status(&self.snapshot()).into_iter();
        classes
            .map(|class| (class.name, class.free_bytes))
            .collect()
    }

    /// Whether writes and reads can be served; else why not.
    ///
    /// # Errors
    /// A sentence.
    pub fn ready(&self) -> Result<(), String> {
        if self.is_taken_over() {
            return Err("another gateway has taken over".into());
        }
        let DiskCount { living, all } = self.disk_count();
        if living == 0 || (living == 1 && all > 1) {
            return Err(format!("{living} of {} take writes", counted(all, "disk")));
        }
        Ok(())
    }

    /// The state of the pool.
    pub async fn status(&self) -> PoolStatus {
        let snapshot = self.snapshot();
        let mut warnings = Vec::new();
        let groups = self.inner.catalog.groups().await.unwrap_or_else(|error| {
            warnings.push(format!("the catalog does not answer: {error}"));
            Vec::new()
        });
        let owed = match self.inner.catalog.owed().await {
            Ok(rows) => OwedStatus {
                groups: rows
                    .iter()
                    .map(|(group, _, _)| group)
                    .collect::<BTreeSet<_>>()
                    .len(),
                slots: rows.len(),
                filling: None,
            },
            Err(error) => {
                warnings.push(format!("the catalog does not answer: {error}"));
                OwedStatus::default()
            }
        };
        warnings.extend(self.warnings(&snapshot));
        if owed.slots > 0 {
            warnings.push(format!(
                "not fully stored: {} of {} lack shards",
                counted(owed.slots, "slot"),
                counted(owed.groups, "group")
            ));
        }
        let surveys = survey_all(&self.inner.places, self.inner.settings.probe_timeout).await;
        warnings.extend(self.folder_warnings(&surveys));
        PoolStatus {
            cluster: self.inner.cluster.to_string(),
            epoch: self.inner.epoch.number,
            agents: self.agents(&surveys),
            disks: self.disks_status(&groups),
            classes: self.classes_status(&snapshot),
            groups: count_groups(&groups, &snapshot),
            loss: self.loss_words(&groups, &snapshot),
            owed,
            warnings,
        }
    }

    fn agents(&self, surveys: &[Result<Survey, String>]) -> Vec<AgentStatus> {
        let status = self
            .inner
            .places
            .iter()
            .zip(surveys)
            .map(|(place, survey)| {
                let seen = survey.as_ref().ok();
                AgentStatus {
                    place: place.label(),
                    id: seen
                        .and_then(|survey| survey.agent)
                        .map(|id| id.to_string()),
                    server: seen.map(|survey| survey.server.clone()),
                    problem: survey.as_ref().err().cloned(),
                }
            });
        status.collect()
    }

    /// What is wrong with configured folders now, and what a start would do
    /// about those that are no disk in use.
    fn folder_warnings(&self, surveys: &[Result<Survey, String>]) -> Vec<String> {
        let rows: Vec<DiskRow> = self.members().iter().map(|member| member.row()).collect();
        let known = Known {
            cluster: self.inner.cluster,
            rows: &rows,
            held: self.inner.history.hold.is_some(),
        };
        let plan = plan(known, surveys);
        let mut warnings = plan.warnings;
        warnings.extend(plan.format.iter().map(|(at, _)| {
            let folder = &at.folder;
            format!("{folder} is no disk yet: the next start makes it one")
        }));
        warnings.extend(plan.stray.iter().map(|(identity, at)| {
            format!(
                "{} is disk {}, which the catalog does not know: left untouched; the next start \
                 takes it in if it holds nothing",
                at.folder, identity.disk
            )
        }));
        warnings
    }

    fn disks_status(&self, groups: &[GroupRow]) -> Vec<DiskStatus> {
        let on = |disk: DiskId| {
            groups
                .iter()
                .filter(|group| group.slots.contains(&disk))
                .count()
        };
        let members = self.members();
        let status = members.iter().map(|member| {
            let (row, view, standing) = (member.row(), member.view(), member.standing());
            let (declared, health) = (row.state == DiskState::Lost, member.health());
            let why = match &standing {
                Standing::Failed { why } | Standing::Lost { why } => Some(why.clone()),
                Standing::Late => Some("it did not answer in time".into()),
                Standing::Living => None,
            };
            let why = why.filter(|why| !declared || why != DECLARED_LOST);
            DiskStatus {
                id: row.id.to_string(),
                path: row.path,
                server: row.server,
                medium: row.medium,
                capacity_bytes: view.capacity_bytes,
                free_bytes: view.free_bytes,
                room: view.room,
                state: if declared {
                    DECLARED_LOST
                } else {
                    standing.word()
                }
                .into(),
                why,
                groups: on(row.id),
                damaged: health.as_ref().map_or(0, |health| health.damaged),
                scrub: health.map(|health| health.scrub).unwrap_or_default(),
            }
        });
        let mut status: Vec<DiskStatus> = status.collect();
        status.sort_by(|a, b| (&a.server, &a.path).cmp(&(&b.server, &b.path)));
        status
    }

    fn classes_status(&self, snapshot: &Snapshot) -> Vec<ClassStatus> {
        let status = self.inner.classes.all().map(|(number, class)| {
            let scheme = snapshot.schemes.get(number).copied();
            ClassStatus {
                name: class.name.clone(),
                configured: match class.scheme {
                    SchemeSetting::Auto => "auto".into(),
                    SchemeSetting::Fixed(scheme) => scheme.to_string(),
                },
                scheme: scheme.map(|scheme| scheme.to_string()),
                medium: class.medium,
                free_bytes: scheme.map_or(0, |scheme| free_bytes(snapshot, scheme, class.medium)),
            }
        });
        status.collect()
    }

    /// What may be lost, from the groups that there are, and from one that
    /// each class would get.
    fn loss_words(&self, groups: &[GroupRow], snapshot: &Snapshot) -> Vec<String> {
        let mut facts: Vec<GroupFacts> = groups
            .iter()
            .filter_map(|row| {
                let scheme = Scheme::new(row.data, row.parity).ok()?;
                let slots = row.slots.clone();
                Some(GroupFacts { scheme, slots })
            })
            .collect();
        if facts.is_empty() {
            facts.extend(self.expected_group(snapshot));
        }
        loss(&snapshot.view, &facts).in_words()
    }

    /// A group as the default class would get it.
    fn expected_group(&self, snapshot: &Snapshot) -> Option<GroupFacts> {
        let (number, class) = self.inner.classes.by_name(None).ok()?;
        let scheme = *snapshot.schemes.get(number)?;
        let view = &snapshot.view;
        self.media_for(class.medium, view)
            .into_iter()
            .find_map(|medium| {
                let of = view.of_medium(Some(medium));
                let disks: Vec<&DiskView> = of.disks.iter().collect();
                let slots = draw(&disks, scheme, of.servers() > 1, &mut rand::rng()).ok()?;
                Some(GroupFacts { scheme, slots })
            })
    }

    /// Warnings about classes and disks.
    fn warnings(&self, snapshot: &Snapshot) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.is_taken_over() {
            warnings.push("another gateway has taken over: this one answers nothing".into());
        }
        for (number, class) in self.inner.classes.all() {
            let name = &class.name;
            match (snapshot.schemes.get(number), class.scheme.fixed()) {
                (None, _) => warnings.push(format!("class {name} has no disks of its medium")),
                (Some(scheme), Some(wanted)) if *scheme != wanted => warnings.push(format!(
                    "class {name} is configured as {wanted}, which does not fit this pool: new \
                     objects get {scheme}"
                )),
                (Some(scheme), _) if scheme.parity() == 0 => warnings.push(format!(
                    "class {name} keeps ONE copy of everything: a lost disk loses it all"
                )),
                _ => {}
            }
        }
        for member in self.members() {
            let row = member.row();
            if row.state == DiskState::Member && !member.is_living() {
                warnings.push(format!(
                    "disk {} ({} on {}) is {}",
                    row.id,
                    row.path,
                    row.server,
                    member.standing().word()
                ));
            }
            let damaged = member.health().map_or(0, |health| health.damaged);
            if row.state == DiskState::Member && damaged > 0 {
                warnings.push(format!(
                    "disk {} ({} on {}) has {} that {} damaged: made anew from the others as far \
                     as they give it",
                    row.id,
                    row.path,
                    row.server,
                    counted(damaged as usize, "shard"),
                    if damaged == 1 { "is" } else { "are" },
                ));
            }
            if row.state == DiskState::Member
                && let Some(words) = member.view().room.and_then(|room| room.words())
            {
                warnings.push(format!(
                    "disk {} ({} on {}) is {words}",
                    row.id, row.path, row.server
                ));
            }
        }
        warnings
    }

    /// Says in the log what the operator should know of classes.
    pub(crate) fn warn_of_schemes(&self) {
        for warning in self.warnings(&self.snapshot()) {
            tracing::warn!("{warning}");
        }
    }

    /// Closes the gateway's own disks; one that hangs is left.
    pub async fn close(&self) {
        for place in &self.inner.places {
            place.close(CLOSE_WAIT).await;
        }
    }
}

fn free_bytes(snapshot: &Snapshot, scheme: Scheme, medium: Option<Medium>) -> u64 {
    let view = &snapshot.view;
    let media = view
        .media()
        .into_iter()
        .filter(|of| medium.is_none_or(|medium| medium == *of));
    let free = media.map(|medium| {
        let of = view.of_medium(Some(medium));
        let living: Vec<&DiskView> = of.disks.iter().filter(|disk| disk.living).collect();
        let count = of.living_by_server();
        // What a write would get now, where too few disks live for the whole.
        let scheme = if fits(&count, scheme) {
            Some(scheme)
        } else {
            narrow_scheme(&count, scheme)
        };
        scheme.map_or(0, |scheme| storable_bytes(&living, scheme, count.several))
    });
    free.fold(0, u64::saturating_add)
}

fn count_groups<'a>(
    groups: impl IntoIterator<Item = &'a GroupRow>,
    snapshot: &Snapshot,
) -> GroupCounts {
    let mut counts = GroupCounts::default();
    let lives = |disk: &DiskId| snapshot.view.disk(*disk).is_some_and(|disk| disk.living);
    for group in groups {
        match group.state {
            GroupState::Open => counts.open += 1,
            GroupState::Sealed => counts.sealed += 1,
        }
        counts.narrow += usize::from(group.narrow);
        counts.degraded += usize::from(!group.slots.iter().all(lives));
    }
    counts
}

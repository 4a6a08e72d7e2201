//! The pool's state in one place, and the snapshot that choices are made on.
//!
//! Invariant: the snapshot is rebuilt after every change of a disk's
//! standing, and at each probe; whoever chooses, chooses on one snapshot.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use shardgate_catalog::model::{DiskRow, DiskState, GroupRow, GroupState, LineageRow};
use shardgate_catalog::{Catalog, CatalogError};
use shardgate_erasure::Scheme;
use shardgate_journal::disks::Lost;
use shardgate_wire::{
    CallContext, ClusterId, DiskId, Epoch, GroupId, Medium, Purpose, ShardStore, StoreError,
};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use super::classes::{ClassSetting, Classes};
use super::latency::Latencies;
use super::members::Member;
use super::open_set::{Entry, OpenSet};
use super::place::Place;
use super::standing::{Standing, is_the_late_one};
use super::ways::JournalWays;
use crate::object::ports::GroupView;
use crate::placement::scheme::class_scheme;
use crate::placement::{PoolView, seal_at_bytes};
use crate::seam::Clock;

/// What can be set.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// The classes, the two default ones among them.
    pub classes: Vec<ClassSetting>,
    /// How often every disk is asked how it is.
    pub probe_every: Duration,
    /// A disk that has not answered by then is late.
    pub probe_timeout: Duration,
    /// Until a disk has made a slot or an epoch durable.
    pub assign_timeout: Duration,
    /// How often disks that are not there are looked for.
    pub look_every: Duration,
    /// Until a server's folders or an agent have said what they have.
    pub survey_timeout: Duration,
    /// A disk that is not open by then is started without, and looked for.
    pub open_timeout: Duration,
    /// How long a start waits for agents without which it cannot go on: they
    /// may be starting too.
    pub start_patience: Duration,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self {
            classes: ClassSetting::defaults(),
            probe_every: Duration::from_secs(1),
            probe_timeout: Duration::from_secs(2),
            assign_timeout: Duration::from_secs(5),
            look_every: Duration::from_secs(1),
            survey_timeout: Duration::from_secs(5),
            open_timeout: Duration::from_secs(30),
            start_patience: Duration::from_secs(15),
        }
    }
}

/// A disk's row, and the way to it or why there is none.
pub type Opened = (DiskRow, Result<Arc<dyn ShardStore>, String>);

/// What a pool is built from.
pub struct PoolParts {
    /// The catalog.
    pub catalog: Catalog,
    /// What can be set.
    pub settings: PoolSettings,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The cluster.
    pub cluster: ClusterId,
    /// The history that the catalog continues.
    pub history: LineageRow,
    /// This gateway's epoch, which a majority of the disks has accepted.
    pub epoch: Epoch,
    /// Every disk of the catalog.
    pub disks: Vec<Opened>,
    /// Where disks are.
    pub places: Vec<Arc<dyn Place>>,
    /// The journal's ways to disks.
    pub ways: JournalWays,
    /// Disks that the operator named lost for good, as the journal knows them.
    pub lost: Lost,
}

/// What choices are made on.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    /// The disks that are not declared lost.
    pub view: PoolView,
    /// What each configured class has in this pool.
    pub schemes: BTreeMap<u16, Scheme>,
}

pub(crate) struct Inner {
    pub catalog: Catalog,
    pub settings: PoolSettings,
    pub clock: Arc<dyn Clock>,
    pub cluster: ClusterId,
    pub history: LineageRow,
    pub epoch: Epoch,
    pub places: Vec<Arc<dyn Place>>,
    pub ways: JournalWays,
    pub lost: Lost,
    pub classes: Classes,
    pub members: RwLock<BTreeMap<DiskId, Arc<Member>>>,
    /// Names by number; only grows.
    pub servers: RwLock<Vec<String>>,
    pub snapshot: RwLock<Arc<Snapshot>>,
    pub groups: RwLock<HashMap<GroupId, Arc<GroupView>>>,
    pub open: OpenSet,
    pub latencies: Latencies,
    /// Held by whoever opens, makes or narrows groups.
    pub making: Mutex<()>,
    /// Held by whoever changes which disks there are.
    pub changing: Mutex<()>,
    /// Disks that were found again and are being opened.
    pub opening: parking_lot::Mutex<BTreeSet<DiskId>>,
    /// Wakes the prober.
    pub nudge: Notify,
    taken_over: CancellationToken,
}

/// The pool. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Pool {
    pub(crate) inner: Arc<Inner>,
}

impl Pool {
    /// Builds the pool and asks every disk once how it is.
    ///
    /// # Errors
    /// The catalog's.
    pub async fn new(parts: PoolParts) -> Result<Self, CatalogError> {
        let classes = Classes::register(&parts.catalog, &parts.settings.classes).await?;
        let groups = parts.catalog.groups().await?;
        let pool = Self {
            inner: Arc::new(Inner {
                catalog: parts.catalog,
                settings: parts.settings,
                clock: parts.clock,
                cluster: parts.cluster,
                history: parts.history,
                epoch: parts.epoch,
                places: parts.places,
                ways: parts.ways,
                lost: parts.lost,
                classes,
                members: RwLock::default(),
                servers: RwLock::default(),
                snapshot: RwLock::default(),
                groups: RwLock::default(),
                open: OpenSet::default(),
                latencies: Latencies::default(),
                making: Mutex::new(()),
                changing: Mutex::new(()),
                opening: Default::default(),
                nudge: Notify::new(),
                taken_over: CancellationToken::new(),
            }),
        };
        for (row, opened) in parts.disks {
            pool.add_member(row, opened);
        }
        pool.probe_all().await;
        for row in groups {
            pool.learn_group(row);
        }
        Ok(pool)
    }

    /// What every call carries.
    pub fn context(&self) -> CallContext {
        CallContext {
            cluster: self.inner.cluster,
            epoch: self.inner.epoch,
            lineage: self.inner.history.lineage,
            committed: self.inner.catalog.committed(),
            purpose: Purpose::Client,
        }
    }

    /// Whether another gateway has taken the disks: nothing may be answered
    /// any more.
    pub fn is_taken_over(&self) -> bool {
        self.inner.taken_over.is_cancelled()
    }

    /// Ends when another gateway has taken the disks.
    pub async fn taken_over(&self) {
        self.inner.taken_over.cancelled().await;
    }

    pub(crate) fn take_over_seen(&self, held: Epoch) {
        if !self.is_taken_over() {
            self.inner.taken_over.cancel();
            tracing::error!(
                epoch = held.number,
                instance = %held.instance,
                "another gateway has taken over: this one answers nothing more"
            );
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.inner.clock.now_ms()
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.inner.snapshot.read())
    }

    pub(crate) fn member(&self, disk: DiskId) -> Option<Arc<Member>> {
        self.inner.members.read().get(&disk).cloned()
    }

    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        self.inner.members.read().values().cloned().collect()
    }

    pub(crate) fn add_member(&self, row: DiskRow, opened: Result<Arc<dyn ShardStore>, String>) {
        let server = self.server_number(&row.server);
        let id = row.id;
        let member = Arc::new(Member::new(row, server, opened));
        self.inner.members.write().insert(id, member);
        self.refresh();
    }

    fn server_number(&self, name: &str) -> u16 {
        let mut servers = self.inner.servers.write();
        let known = servers.iter().position(|known| known == name);
        let number = known.unwrap_or_else(|| {
            servers.push(name.to_owned());
            servers.len() - 1
        });
        u16::try_from(number).unwrap_or(u16::MAX)
    }

    /// Rebuilds the snapshot.
    pub(crate) fn refresh(&self) {
        let members = self.members();
        let in_pool = members.iter().filter(|member| !member.is_lost_for_good());
        let view = PoolView {
            disks: in_pool.map(|member| member.view()).collect(),
        };
        let schemes = self.inner.classes.all().filter_map(|(number, class)| {
            let scheme = class_scheme(&view, class.scheme.fixed(), class.medium)?;
            Some((*number, scheme))
        });
        let schemes = schemes.collect();
        *self.inner.snapshot.write() = Arc::new(Snapshot { view, schemes });
    }

    /// Takes a group's record into the cache, and among the resting ones if
    /// it is not sealed.
    pub(crate) fn learn_group(&self, row: GroupRow) -> Option<Arc<GroupView>> {
        let scheme = match Scheme::new(row.data, row.parity) {
            Ok(scheme) if usize::from(scheme.slots()) == row.slots.len() => scheme,
            _ => {
                tracing::error!(group = %row.id, "the record of a group contradicts itself");
                return None;
            }
        };
        let server = |disk: &DiskId| self.member(*disk).map_or(u16::MAX, |member| member.server);
        let group = Arc::new(GroupView {
            servers: row.slots.iter().map(server).collect(),
            scheme,
            row,
        });
        let id = group.row.id;
        self.inner.groups.write().insert(id, Arc::clone(&group));
        self.inner.open.remove(id);
        if group.row.state == GroupState::Open {
            let seal_at = seal_at_bytes(self.smallest_disk(&group.row.slots));
            let entry = Entry::new(Arc::clone(&group), seal_at);
            self.inner.open.add_resting(Arc::new(entry));
        }
        Some(group)
    }

    fn smallest_disk(&self, slots: &[DiskId]) -> u64 {
        let snapshot = self.snapshot();
        let disks = slots.iter().filter_map(|disk| snapshot.view.disk(*disk));
        let known = disks
            .map(|disk| disk.capacity_bytes)
            .filter(|bytes| *bytes > 0);
        known.min().unwrap_or(0)
    }

    /// A call showed that a disk is out.
    pub(crate) fn lapse(&self, disk: DiskId, standing: Standing) {
        let Some(member) = self.member(disk) else {
            return;
        };
        if member.lapse(standing.clone(), self.now_ms()) {
            match &standing {
                Standing::Failed { why } | Standing::Lost { why } => {
                    tracing::warn!(%disk, standing = standing.word(), why, "disk is out");
                }
                _ => tracing::warn!(%disk, standing = standing.word(), "disk is out"),
            }
            self.refresh();
            self.inner.nudge.notify_one();
        }
    }

    /// A call to a disk is not waited for any longer. It is asked at once how
    /// it is; it is out if that says so, or if it is late far more often than
    /// its peers.
    pub(crate) fn note_late(&self, disk: DiskId) {
        let Some(member) = self.member(disk) else {
            return;
        };
        let now_ms = self.now_ms();
        let own = member.note_late(now_ms);
        let members = self.members();
        let is_peer = |of: &&Arc<Member>| {
            of.medium == member.medium && of.is_living() && !Arc::ptr_eq(of, &member)
        };
        let mut peers: Vec<u32> = members
            .iter()
            .filter(is_peer)
            .map(|peer| peer.lates(now_ms))
            .collect();
        if is_the_late_one(own, &mut peers) {
            self.lapse(disk, Standing::Late);
        } else {
            self.inner.nudge.notify_one();
        }
    }

    /// What an error of a disk says about it.
    pub(crate) fn note_error(&self, disk: DiskId, error: &StoreError) {
        match error {
            StoreError::StaleEpoch { held } if !held.admits(&self.inner.epoch) => {
                self.take_over_seen(*held);
            }
            StoreError::TimedOut(_) => self.lapse(disk, Standing::Late),
            StoreError::Lost { why } => self.lapse(disk, Standing::Lost { why: why.clone() }),
            error if error.is_disk_fault() => {
                let why = error.to_string();
                self.lapse(disk, Standing::Failed { why });
            }
            _ => {}
        }
    }

    /// Media on which a class may lie.
    pub(crate) fn media_for(&self, wanted: Option<Medium>, view: &PoolView) -> Vec<Medium> {
        let mut media = view.media();
        media.retain(|of| wanted.is_none_or(|wanted| wanted == *of));
        let free = |medium: &Medium| -> u64 {
            let of = view
                .disks
                .iter()
                .filter(|disk| disk.medium == *medium && disk.living);
            of.map(|disk| disk.free_bytes).fold(0, u64::saturating_add)
        };
        media.sort_by_key(|medium| std::cmp::Reverse(free(medium)));
        media
    }

    /// Whether a disk of the pool is declared lost, or not of it at all.
    pub(crate) fn is_gone_for_good(&self, disk: DiskId) -> bool {
        let member = self.member(disk);
        member.is_none_or(|member| member.row().state == DiskState::Lost)
    }
}

//! The care of the journal while the gateway runs.
//!
//! Owns three tasks. One asks journal disks that were not heard for a while, so
//! that an idle gateway stays in contact, and says when nothing may be
//! answered any more. One keeps the pool map true and replaces journal disks
//! that are out. One copies segments that too few living disks hold, and
//! removes what is void. Invariant: whatever it changes goes through the
//! writer between two appends, and a changed map counts before the old journal
//! disks are let go.

mod choice;
mod segments;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::{Mutex, RwLock};
use shardgate_catalog::model::DiskState;
use shardgate_journal::contact::{May, SharedContact};
use shardgate_journal::copies::not_fully_stored;
use shardgate_journal::disks::Lost;
use shardgate_journal::map::{MapDisk, MapDiskState, PoolMap, write_map};
use shardgate_journal::{JournalError, Member};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{DiskId, StoreError};
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::contact::Gate;
use super::find::candidate;
use super::log::Journal;
use super::report::{JournalStatus, SegmentSpan};
use super::start::place_of;

use crate::pool::{Member as PoolMember, Pool, Standing};
use choice::{Judged, Outlook, choose};

/// How often disks are asked and looked at.
const TICK: Duration = Duration::from_secs(1);
/// How long an asked disk may take: well under the contact rule's time.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a disk may take to write a map.
const WRITE: Duration = Duration::from_secs(10);
/// A journal disk that is merely not heard is replaced after so long.
const AWAY: Duration = Duration::from_secs(30);
/// How often segments are looked at for copies.
const COPIES: Duration = Duration::from_secs(5);
/// How often disks are swept of void segments.
const SWEEP: Duration = Duration::from_secs(300);
/// A change of the journal disks that was given up, during which commits had
/// waited, is tried again after so long.
const CHANGE_AGAIN: Duration = Duration::from_secs(30);

/// What a keeper is made of.
pub struct KeeperParts {
    /// The journal.
    pub journal: Journal,
    /// The pool.
    pub pool: Pool,
    /// The map in force.
    pub map: PoolMap,
    /// Who was heard when.
    pub contact: SharedContact,
    /// Disks named lost for good.
    pub lost: Lost,
}

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Keeper {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) journal: Journal,
    pub(super) pool: Pool,
    gate: Gate,
    pub(super) map: RwLock<PoolMap>,
    status: RwLock<JournalStatus>,
    /// Since when disks are not living.
    out: Mutex<BTreeMap<DiskId, Instant>>,
    /// Until then the journal disks are left as they are.
    unchanged_until: Mutex<Option<Instant>>,
}

impl Keeper {
    /// Of a journal that was just started.
    pub fn new(parts: KeeperParts) -> Self {
        let gate = Gate::new(parts.contact, parts.lost, parts.map.journal_map());
        let inner = Inner {
            journal: parts.journal,
            pool: parts.pool,
            gate,
            map: RwLock::new(parts.map),
            status: RwLock::default(),
            out: Mutex::default(),
            unchanged_until: Mutex::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// What may be answered.
    pub fn gate(&self) -> Gate {
        self.inner.gate.clone()
    }

    /// The journal as it was a moment ago.
    pub fn status(&self) -> JournalStatus {
        JournalStatus {
            map: self.inner.map.read().number,
            answers: word(self.inner.gate.may_answer()).to_owned(),
            commit: self.inner.journal.context().committed.0,
            ..self.inner.status.read().clone()
        }
    }

    /// Works for as long as the gateway runs.
    pub fn spawn(&self, tracker: &TaskTracker, stop: CancellationToken) {
        let keeper = self.clone();
        let work = async move {
            let (ask, keep, copy) = (
                keeper.ask_for_ever(),
                keeper.keep_for_ever(),
                keeper.copy_for_ever(),
            );
            tokio::join!(ask, keep, copy)
        };
        tracker.spawn(async move {
            tokio::select! {
                _ = work => {}
                () = stop.cancelled() => {}
            }
        });
    }

    /// Asks every journal disk now, and waits for their answers.
    pub async fn ask_now(&self) {
        let map = self.inner.map.read().journal_map();
        join_all(map.all().into_iter().map(|disk| self.ask(disk))).await;
    }

    async fn ask_for_ever(&self) {
        let mut tick = interval(TICK);
        let mut before = May::All;
        loop {
            tick.tick().await;
            // Each on its own: one that hangs must not keep others waiting.
            for disk in self.inner.gate.due() {
                let keeper = self.clone();
                tokio::spawn(async move { keeper.ask(disk).await });
            }
            if let Some(held) = self.inner.journal.taken_over() {
                self.inner.pool.take_over_seen(held);
            }
            let may = self.inner.gate.may_answer();
            if may != before {
                say(may);
                before = may;
            }
        }
    }

    async fn ask(&self, disk: DiskId) {
        let inner = &self.inner;
        let way = inner.pool.inner.ways.get(disk);
        let sent = Instant::now();
        match timeout(ANSWER, way.raise(&inner.journal.context())).await {
            Ok(Ok(())) => inner.gate.answered(disk, sent),
            Ok(Err(StoreError::StaleEpoch { held })) => inner.pool.take_over_seen(held),
            Ok(Err(error)) => tracing::debug!(%disk, %error, "journal disk does not answer"),
            Err(_) => tracing::debug!(%disk, "journal disk does not answer in time"),
        }
    }

    /// Keeps the map true; nothing that takes long stands before it.
    async fn keep_for_ever(&self) {
        let mut tick = interval(TICK);
        loop {
            tick.tick().await;
            let kept = async {
                self.keep_map().await?;
                self.note_status().await
            };
            if self.is_over(kept.await) {
                return;
            }
        }
    }

    /// Copies segments and removes void ones.
    async fn copy_for_ever(&self) {
        let mut tick = interval(COPIES);
        let mut swept = Instant::now();
        loop {
            tick.tick().await;
            if self.is_over(self.copy_segments().await) {
                return;
            }
            if swept.elapsed() >= SWEEP {
                swept = Instant::now();
                if self.is_over(self.sweep().await) {
                    return;
                }
            }
        }
    }

    fn is_over(&self, outcome: Result<(), JournalError>) -> bool {
        match outcome {
            Ok(()) => false,
            Err(JournalError::Closed) => true,
            Err(error) => {
                self.inner.journal.note(&error);
                tracing::warn!(%error, "care of the journal goes on later");
                false
            }
        }
    }

    /// Writes a new map if the pool is not as the map says, or a journal disk
    /// is out.
    async fn keep_map(&self) -> Result<(), JournalError> {
        let members = self.inner.pool.members();
        let judged: Vec<Judged> = members.iter().map(|of| self.judge(of)).collect();
        // Reported gone, and not only silent: it may be cut off from us alone.
        let gone = members
            .iter()
            .filter(|of| of.is_lost_for_good() || matches!(of.standing(), Standing::Lost { .. }));
        self.inner.gate.set_gone(gone.map(|of| of.id()).collect());
        let map = self.inner.map.read().clone();
        let disks: Vec<MapDisk> = members.iter().map(|of| map_disk(of)).collect();
        let until = *self.inner.unchanged_until.lock();
        let may_change = until.is_none_or(|until| until <= Instant::now());
        let chosen = choose(&judged, &map.journal, self.parity());
        match chosen.filter(|_| may_change) {
            Some(journal) => self.change_journal(map, journal, disks).await,
            None if disks != map.disks => {
                let next = PoolMap {
                    number: map.number + 1,
                    epoch: self.inner.journal.context().epoch,
                    disks,
                    ..map
                };
                self.write(next).await
            }
            None => Ok(()),
        }
    }

    async fn change_journal(
        &self,
        map: PoolMap,
        journal: Vec<DiskId>,
        disks: Vec<MapDisk>,
    ) -> Result<(), JournalError> {
        let inner = &self.inner;
        let before = map.journal_map();
        let next = PoolMap {
            number: map.number + 1,
            epoch: inner.journal.context().epoch,
            old: Some(map.journal.clone()),
            journal,
            disks,
            ..map
        };
        tracing::warn!(
            number = next.number,
            from = ?map.journal,
            to = ?next.journal,
            "journal disks change"
        );
        let changing = next.journal_map();
        let members = self.journal_members(&changing.all(), &next).await;
        inner.gate.set_map(changing.clone());
        let mut held = inner.journal.hold().await;
        let begun = held.writer()?.change_journal(members, changing).await;
        drop(held);
        if let Err(error) = begun {
            inner.gate.set_map(before);
            *inner.unchanged_until.lock() = Some(Instant::now() + CHANGE_AGAIN);
            return Err(error);
        }
        self.write(next.clone()).await?;
        inner.journal.hold().await.writer()?.change_done();
        self.write(next.settled(next.epoch)).await
    }

    /// Writes a map until it counts.
    async fn write(&self, map: PoolMap) -> Result<(), JournalError> {
        let inner = &self.inner;
        let journal = map.journal_map();
        loop {
            let disks = inner.pool.inner.ways.open();
            let written = write_map(&disks, &inner.journal.context(), &map, WRITE).await;
            let durable = written.map_err(JournalError::Fenced)?;
            if journal.has_enough(&durable, &inner.pool.inner.lost.all()) {
                break;
            }
            tracing::warn!(number = map.number, "the pool map does not count yet");
            tokio::time::sleep(TICK).await;
        }
        tracing::info!(number = map.number, "pool map written");
        inner.gate.set_map(journal);
        *inner.map.write() = map;
        Ok(())
    }

    async fn journal_members(&self, disks: &[DiskId], map: &PoolMap) -> Vec<Member> {
        let known: Vec<_> = self
            .inner
            .pool
            .members()
            .iter()
            .map(|of| self.judge(of).place)
            .collect();
        let asked = disks.iter().map(|disk| {
            let (way, place) = (
                self.inner.pool.inner.ways.get(*disk),
                place_of(*disk, &known, map),
            );
            async move {
                let standing = timeout(ANSWER, way.standing()).await;
                let size = standing.ok().and_then(Result::ok);
                let size = size.map(|standing| standing.segment_bytes);
                (way, place, size)
            }
        });
        let asked = join_all(asked).await;
        let least = asked.iter().filter_map(|(_, _, size)| *size).min();
        let member = |(disk, place, _): (Arc<dyn JournalDisk>, _, _)| Member {
            disk,
            place,
            segment_bytes: least.unwrap_or(0),
        };
        asked.into_iter().map(member).collect()
    }

    /// How a disk of the pool looks to the journal.
    fn judge(&self, member: &PoolMember) -> Judged {
        let (row, health) = (member.row(), member.health());
        let device = health.as_ref().map(|health| health.device);
        let mut out = self.inner.out.lock();
        let outlook = if row.state == DiskState::Lost {
            Outlook::Out
        } else if member.is_living() {
            out.remove(&row.id);
            Outlook::Well
        } else {
            let since = out.entry(row.id).or_insert_with(Instant::now).elapsed();
            let fenced = health.is_some_and(|health| health.fenced.is_some());
            let lost = matches!(member.standing(), Standing::Lost { .. });
            match fenced || lost || since >= AWAY {
                true => Outlook::Out,
                false => Outlook::Away,
            }
        };
        Judged {
            place: candidate(row.id, &row.server, device),
            outlook,
        }
    }

    fn parity(&self) -> usize {
        let snapshot = self.inner.pool.snapshot();
        let schemes = snapshot.schemes.values();
        let parities = schemes.map(|scheme| usize::from(scheme.parity()));
        parities.max().unwrap_or(0)
    }

    fn living(&self) -> Vec<DiskId> {
        let members = self.inner.pool.members();
        let living = members.iter().filter(|member| member.is_living());
        living.map(|member| member.id()).collect()
    }

    async fn note_status(&self) -> Result<(), JournalError> {
        let mut held = self.inner.journal.hold().await;
        let writer = held.writer()?;
        let living = self.living();
        let lacking = not_fully_stored(writer.closed(), &living, self.parity());
        let text = |disks: &[DiskId]| disks.iter().map(ToString::to_string).collect();
        *self.inner.status.write() = JournalStatus {
            disks: text(&writer.map().disks),
            members: text(&writer.members()),
            segments: writer.closed().len(),
            bytes: writer.length_bytes(),
            not_fully_stored: lacking
                .into_iter()
                .map(|(segment, from, to)| SegmentSpan {
                    segment: segment.to_string(),
                    from: from.0,
                    to: to.0,
                })
                .collect(),
            ..JournalStatus::default()
        };
        Ok(())
    }
}

fn map_disk(member: &PoolMember) -> MapDisk {
    let (row, health) = (member.row(), member.health());
    let state = match row.state {
        DiskState::Lost => MapDiskState::Lost,
        DiskState::Member if health.is_some_and(|of| of.fenced.is_some()) => MapDiskState::Fenced,
        DiskState::Member => MapDiskState::Member,
    };
    MapDisk {
        id: row.id,
        agent: row.agent,
        path: row.path,
        server: row.server,
        site: row.site,
        medium: row.medium,
        state,
    }
}

fn word(may: May) -> &'static str {
    match may {
        May::All => "all",
        May::Read => "reads",
        May::Nothing => "nothing",
    }
}

fn say(may: May) {
    match may {
        May::All => tracing::info!("in contact with the journal disks again"),
        May::Read => tracing::error!("one journal disk of two is gone: only reads are answered"),
        May::Nothing => tracing::error!(
            "too few journal disks have answered in the last 10 seconds: nothing is answered until \
             they do"
        ),
    }
}

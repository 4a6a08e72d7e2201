//! The first half of a start: from folders and agents to a journal that is
//! written and a catalog that is whole (PROTOCOL.md 1 to 3).
//!
//! Owns the order: find disks, follow the pool map, be free to start or watch,
//! raise the epoch, read the map again, recover, complete the map, settle,
//! replay. Invariants: nothing is read of the journal before the epoch is
//! durable on enough journal disks; nothing is answered before what is shown
//! cannot be gone again; a catalog that is not on the journal's chain is
//! refused, never continued.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::checkpoint::Roots;
use shardgate_catalog::engine::RocksStopped;
use shardgate_journal::contact::SharedContact;
use shardgate_journal::disks::{Candidate, Lost, MapStep, check_quorum, choose_journal};
use shardgate_journal::map::{MapDiskState, PoolMap, follow, read_maps};
use shardgate_journal::recover::{Recovered, Request};
use shardgate_journal::{Member, Position, Writer, WriterOptions, recover};
use shardgate_wire::{CallContext, ClusterId, CommitNumber, DiskId, Epoch, LineageId, Purpose};
use tokio::time::{Instant, sleep};

use super::find::{Found, candidate};
use super::free::{Freed, TakenOver};
use super::lineage::Told;
use super::maps::write_until_it_counts;
use super::own::OwnRecord;
pub use super::refused::JournalStartError;
use super::replay::replay_into;
use super::roots::{inherited, read_roots};
use crate::placement::PoolView;
use crate::placement::scheme::class_scheme;
use crate::pool::PoolSettings;
use crate::pool::place::Place;
use crate::pool::ways::{DiskWays, JournalWays};

/// Between two looks while too few disks answer.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long one disk may take for one call of a recovery.
pub(super) const ANSWER: Duration = Duration::from_secs(20);
/// How often a start begins anew because the map had changed meanwhile.
const ROUNDS: usize = 5;

/// What the journal's half of a start needs.
pub struct JournalStart {
    /// Where disks are.
    pub places: Vec<Arc<dyn Place>>,
    /// What can be set.
    pub settings: PoolSettings,
    /// The gateway's own folder, locked.
    pub own: PathBuf,
    /// Disks that the operator names lost for good.
    pub lost: Vec<DiskId>,
    /// Whether the operator wants to take over from a gateway that may live.
    pub take_over: bool,
}

/// What it leaves.
pub struct JournalStarted {
    /// The catalog, up to the last acknowledged commit.
    pub engine: RocksStopped,
    /// The journal.
    pub writer: Writer,
    /// The pool map in force.
    pub map: PoolMap,
    /// Disks that are open.
    pub opened: BTreeMap<DiskId, DiskWays>,
    /// The journal's ways to them.
    pub ways: JournalWays,
    /// Who was heard when.
    pub contact: SharedContact,
    /// Disks named lost for good.
    pub lost: Lost,
    /// What each disk was told last, before this start told it anything.
    pub told: Told,
    /// Whether a majority of the journal disks was read: if not, what those
    /// that were named lost had alone is not known.
    pub complete: bool,
    /// Nothing is answered before this was waited for.
    pub taken_over: Option<TakenOver>,
    /// The checkpoints that disks name.
    pub roots: Roots,
}

/// Starts the journal and brings the catalog up to it.
///
/// # Errors
/// [`JournalStartError`]; then nothing is shown, and nothing was formatted but
/// for a new cluster.
pub async fn start_journal(
    start: JournalStart,
    engine: RocksStopped,
) -> Result<JournalStarted, JournalStartError> {
    let own = OwnRecord::read(&start.own).map_err(JournalStartError::Own)?;
    let cluster = known_cluster(own.as_ref(), &engine)?;
    let found = Found::new(cluster.unwrap_or_else(ClusterId::random));
    let mut starting = Starting::new(found, cluster, own, start);
    starting.engine = Some(engine);
    let newest = starting.first_look().await?;
    starting.run_from(newest).await
}

fn known_cluster(
    own: Option<&OwnRecord>,
    engine: &RocksStopped,
) -> Result<Option<ClusterId>, JournalStartError> {
    let row = engine.cluster()?;
    match (own.map(|own| own.cluster), row.map(|row| row.cluster)) {
        (Some(own), Some(catalog)) if own != catalog => {
            Err(JournalStartError::OtherCluster { catalog, own })
        }
        (own, catalog) => Ok(catalog.or(own)),
    }
}

pub(super) struct Starting {
    pub(super) start: JournalStart,
    pub(super) found: Found,
    /// The cluster, where it is not a new one.
    pub(super) begun: Option<ClusterId>,
    pub(super) own: Option<OwnRecord>,
    /// There from when the start begins.
    pub(super) engine: Option<RocksStopped>,
    pub(super) taken_over: Option<TakenOver>,
}

/// The newest map, and whether it is known to count.
pub(super) struct Newest {
    pub(super) map: PoolMap,
    pub(super) counts: bool,
}

impl Starting {
    pub(super) fn new(
        found: Found,
        begun: Option<ClusterId>,
        own: Option<OwnRecord>,
        start: JournalStart,
    ) -> Self {
        Self {
            start,
            found,
            begun,
            own,
            engine: None,
            taken_over: None,
        }
    }

    fn engine(&self) -> &RocksStopped {
        self.engine
            .as_ref()
            .expect("a start begins with a database")
    }

    pub(super) async fn run_from(
        mut self,
        mut newest: Newest,
    ) -> Result<JournalStarted, JournalStartError> {
        for _ in 0..ROUNDS {
            let lost = self.lost(&newest.map);
            let freed = self.be_free(&newest.map, &lost).await?;
            let recovered = match self.recover(&newest.map, freed, &lost).await {
                Err(error) if error.is_fenced() => {
                    tracing::info!(%error, "another gateway has begun meanwhile");
                    newest = self.newest().await.ok_or(JournalStartError::Unsettled)?;
                    continue;
                }
                recovered => recovered?,
            };
            // Only now nobody else can write a map that counts.
            match self.newest().await {
                Some(again) if again.map != newest.map => {
                    newest = again;
                    continue;
                }
                Some(again) => newest = again,
                // The first one, which is on no disk yet.
                None if newest.map.number == 1 => {}
                None => return Err(JournalStartError::Unsettled),
            }
            if !newest.counts {
                let ctx = recovered.context();
                self.write_map(&ctx, &newest.map, &lost).await?;
            }
            return self.settle(newest.map, recovered, lost).await;
        }
        Err(JournalStartError::Unsettled)
    }

    /// Disks named lost for good, now and before.
    pub(super) fn lost(&self, map: &PoolMap) -> Vec<DiskId> {
        let mut lost = self.start.lost.clone();
        let before = map.disks.iter().filter(|of| of.state == MapDiskState::Lost);
        lost.extend(before.map(|disk| disk.id));
        lost
    }

    /// Looks until enough journal disks answer, for as long as agents may
    /// need to start.
    async fn first_look(&mut self) -> Result<Newest, JournalStartError> {
        let give_up = Instant::now() + self.start.settings.start_patience;
        loop {
            self.found.look(&self.start).await;
            let outcome = self.look_once().await;
            match outcome {
                Err(error) if Instant::now() >= give_up => return Err(error),
                Err(error) if self.found.silent().is_empty() => return Err(error),
                Err(error) => tracing::info!(%error, "waiting for places that do not answer yet"),
                Ok(newest) => return Ok(newest),
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn look_once(&mut self) -> Result<Newest, JournalStartError> {
        let Some(newest) = self.newest().await else {
            return self.first_map().await;
        };
        self.has_quorum(&newest.map)?;
        Ok(newest)
    }

    /// Whether enough journal disks answer.
    pub(super) fn has_quorum(&self, map: &PoolMap) -> Result<(), JournalStartError> {
        let lost = self.lost(map);
        let answered = self.found.journals(&lost);
        let answered: Vec<DiskId> = answered.iter().map(|disk| disk.disk()).collect();
        let enough = check_quorum(&map.journal_map(), &answered, &lost);
        enough.map_err(|refusal| JournalStartError::NoMajority {
            refusal: Box::new(refusal),
            silent: self.found.silent(),
        })
    }

    /// The newest map of the disks that are open.
    pub(super) async fn newest(&self) -> Option<Newest> {
        let within = self.start.settings.survey_timeout;
        let maps = read_maps(&self.found.journals(&self.start.lost), within).await;
        // Disks that were not found cannot be asked any better.
        let mut asked: Vec<DiskId> = self.found.disks.keys().copied().collect();
        loop {
            match follow(&maps, &asked)? {
                (_, MapStep::Ask(more)) => asked.extend(more),
                (map, MapStep::Complete(_)) => return Some(Newest { map, counts: false }),
                (map, MapStep::Settled(_)) => return Some(Newest { map, counts: true }),
            }
        }
    }

    /// The first map: of a new cluster, or of one from before there was a
    /// journal.
    async fn first_map(&mut self) -> Result<Newest, JournalStartError> {
        let lineage = match self.engine().cluster()? {
            Some(row) => {
                let members = self.engine().member_disks()?;
                let found = members
                    .iter()
                    .filter(|id| self.found.disks.contains_key(id));
                let (found, of) = (found.count(), members.len());
                if found * 2 <= of {
                    let silent = self.found.silent();
                    return Err(JournalStartError::TooFewDisks { found, of, silent });
                }
                row.lineage
            }
            None => {
                let own = self.start.own.clone();
                self.found.format(&self.start, self.begun, &own).await?;
                self.own = OwnRecord::read(&own).map_err(JournalStartError::Own)?;
                self.begun = Some(self.found.cluster);
                LineageId::random()
            }
        };
        let map = PoolMap {
            number: 1,
            epoch: Epoch::default(),
            cluster: self.found.cluster,
            lineage,
            journal: choose_journal(&self.found.candidates(), &[], self.parity()),
            old: None,
            disks: self.found.map_disks(),
        };
        tracing::info!(journal = map.journal.len(), "first pool map");
        Ok(Newest { map, counts: false })
    }

    /// The most parity shards of any class in this pool.
    pub(super) fn parity(&self) -> usize {
        let view = PoolView {
            disks: self.found.views(),
        };
        let classes = self.start.settings.classes.iter();
        let schemes = classes.filter_map(|of| class_scheme(&view, of.scheme.fixed(), of.medium));
        let parities = schemes.map(|scheme| usize::from(scheme.parity()));
        parities.max().unwrap_or(0)
    }

    async fn recover(
        &mut self,
        map: &PoolMap,
        freed: Freed,
        lost: &[DiskId],
    ) -> Result<Recovered, JournalStartError> {
        let applied = self.engine().applied();
        let request = Request {
            ctx: CallContext {
                cluster: self.found.cluster,
                epoch: Epoch {
                    number: 0,
                    instance: freed.instance,
                },
                lineage: map.lineage,
                committed: CommitNumber(0),
                purpose: Purpose::Client,
            },
            map: map.journal_map(),
            lost: lost.to_vec(),
            from: Position {
                number: applied.number,
                hash: applied.hash,
            },
            begun: map.number > 1,
            judged: Some(freed.held),
            answer_within: ANSWER,
        };
        let disks = self.found.journals(lost);
        let recovered = recover(&disks, request).await?;
        if let Some(taken_over) = &mut self.taken_over {
            taken_over.begin_wait();
        }
        if !recovered.is_complete() {
            tracing::error!("journal disks were named lost: what they alone had is not known of");
        }
        for (disk, segment) in recovered.damaged() {
            tracing::error!(%disk, %segment, "a segment of the journal is damaged there");
        }
        tracing::info!(
            epoch = recovered.context().epoch.number,
            applied = applied.number.0,
            tail = recovered.tail().number.0,
            unproven = recovered.unproven(),
            "journal found"
        );
        Ok(recovered)
    }

    /// Writes a map to all disks until it counts.
    async fn write_map(
        &self,
        ctx: &CallContext,
        map: &PoolMap,
        lost: &[DiskId],
    ) -> Result<(), JournalStartError> {
        let disks = self.found.journals(lost);
        let patience = self.start.settings.start_patience;
        write_until_it_counts(&disks, ctx, map, lost, patience).await
    }

    /// Makes what was found safe, and the catalog whole.
    async fn settle(
        mut self,
        map: PoolMap,
        recovered: Recovered,
        lost: Vec<DiskId>,
    ) -> Result<JournalStarted, JournalStartError> {
        if recovered.is_ahead_of_map() {
            return Err(JournalStartError::HalfRebuilt);
        }
        let contact = SharedContact::default();
        let disks = self.found.journals(&lost);
        let members = self.members(&map).await;
        // Since the epoch was raised nobody else can name a newer one.
        let named = read_roots(&disks, map.cluster, ANSWER).await;
        let roots = inherited(named, &recovered, &map, &lost).await?;
        let lost = Lost::new(lost);
        let options = WriterOptions {
            parity: self.parity(),
            lost: lost.clone(),
            contact: contact.clone(),
            checkpoints: roots.encode_each(),
        };
        let complete = recovered.is_complete();
        let (mut writer, mut replay) = recovered.settle(members, options).await?;
        let engine = self.engine.take().expect("a start begins with a database");
        let engine = replay_into(&mut replay, engine).await?;
        if engine.is_being_rebuilt()? {
            return Err(JournalStartError::HalfRebuilt);
        }
        let void = replay.remove_void().await;
        if void > 0 {
            tracing::info!(void, "files that are no part of the journal were removed");
        }
        let mut map = map;
        if map.number == 1 {
            writer.begin_segment().await?;
        }
        if map.number == 1 || map.old.is_some() {
            writer.change_done();
            let ctx = writer.context();
            map = map.settled(ctx.epoch);
            self.write_map(&ctx, &map, &lost.all()).await?;
        }
        let told = self.found.disks.iter();
        let told = told
            .map(|(disk, found)| (*disk, found.health.told))
            .collect();
        let opened = self.found.disks.into_iter();
        Ok(JournalStarted {
            engine,
            writer,
            map,
            opened: opened.map(|(disk, found)| (disk, found.ways)).collect(),
            ways: self.found.ways,
            contact,
            lost,
            told,
            complete,
            taken_over: self.taken_over,
            roots,
        })
    }

    /// The journal disks, those that do not answer too: they may come back.
    pub(super) async fn members(&self, map: &PoolMap) -> Vec<Member> {
        let journal = map.journal_map();
        let standings = self.standings(journal.all()).await;
        let sizes = standings.iter().map(|(_, of, _)| of.segment_bytes);
        let least = sizes.min().unwrap_or(0);
        let known = self.found.candidates();
        let member = |disk: DiskId| Member {
            disk: self.found.ways.get(disk),
            place: place_of(disk, &known, map),
            segment_bytes: least,
        };
        journal.all().into_iter().map(member).collect()
    }
}

/// What a disk fails together with, as far as it is known.
pub(super) fn place_of(disk: DiskId, known: &[Candidate], map: &PoolMap) -> Candidate {
    if let Some(known) = known.iter().find(|of| of.disk == disk) {
        return *known;
    }
    let row = map.disks.iter().find(|of| of.id == disk);
    candidate(disk, row.map_or("", |row| &row.server), None)
}

#[cfg(test)]
#[path = "start_tests.rs"]
mod tests;

//! How a gateway of the model starts, and how a catalog is restored: the order
//! of the gateway's own start, with the crate's decisions.

use futures::future::join_all;
use rand::Rng;
use shardgate_journal::disks::{MapStep, check_quorum, choose_journal};
use shardgate_journal::map::{MapDisk, MapDiskState, PoolMap, follow, read_maps};
use shardgate_journal::recover::Request;
use shardgate_journal::start::{Before, First, WATCH, Watch, Watched, first, highest};
use shardgate_journal::{JournalError, Position, Recovered, Refusal, WriterOptions, recover};
use shardgate_wire::journal::JournalStanding;
use shardgate_wire::{
    CallContext, ClusterId, CommitNumber, DiskId, Epoch, LineageId, Medium, Purpose,
};
use tokio::time::{Duration, Instant, sleep, timeout};

use crate::catalog::{Catalog, Roots};
use crate::gateway::{ANSWER, Gateway, RELEASED, Running};

/// What a start begins with.
pub struct Source {
    pub catalog: Catalog,
    /// The local one; else a restore.
    pub local: bool,
}

impl Gateway {
    /// Starts. None if it has to try again.
    pub async fn start(&mut self) -> Option<Running> {
        let (map, _) = self.newest_map().await?;
        let lost = self.world.lost.all();
        if map
            .journal_map()
            .all()
            .iter()
            .all(|disk| lost.contains(disk))
        {
            // No start is proven then, whatever the other disks have.
            let order = std::sync::atomic::Ordering::Relaxed;
            self.hopeless.store(true, order);
            return None;
        }
        let local = self.world.folders.lock()[self.machine].flushed.clone();
        if let Some(catalog) = local {
            let source = Source {
                catalog,
                local: true,
            };
            return match self.start_from(map, source).await {
                Ok(running) => Some(running),
                Err(refused) => self.throw_away(refused),
            };
        }
        self.restore().await
    }

    /// The local catalog does not go on from here: it has to be restored.
    fn throw_away(&self, refused: Option<Refusal>) -> Option<Running> {
        if refused.is_some() {
            self.world.folders.lock()[self.machine].flushed = None;
            self.world.model.lock().counts.one("thrown away");
        }
        None
    }

    /// From the newest checkpoint that reads, else an older one, else from the
    /// journal alone.
    async fn restore(&mut self) -> Option<Running> {
        let mut tried = 0;
        let reached = self.standings(&self.world.ids()).await;
        let reached: Vec<DiskId> = reached.iter().map(|(disk, _, _)| *disk).collect();
        let sources = self.sources(&reached).await;
        let of = sources.len();
        for catalog in sources {
            let (map, _) = self.newest_map().await?;
            // Without a majority what others alone had would be missing unnoticed.
            if check_quorum(&map.journal_map(), &reached, &[]).is_err() {
                self.world.model.lock().counts.one("not provable");
                break;
            }
            let source = Source {
                catalog,
                local: false,
            };
            match self.start_from(map, source).await {
                Ok(running) => {
                    self.world.model.lock().counts.one("restored");
                    if running.catalog.position.number.0 > 0 && tried > 0 {
                        self.world.model.lock().counts.one("restored from an older");
                    }
                    return Some(running);
                }
                Err(None) => return None,
                Err(Some(_)) => tried += 1,
            }
        }
        let remaining = self.world.remaining();
        let all_here = remaining.iter().all(|disk| self.world.disk(*disk).is_up());
        if all_here && remaining.iter().all(|disk| reached.contains(disk)) {
            if tried == of {
                let mut model = self.world.model.lock();
                model.counts.one("refused for good");
                if !self.world.reckless {
                    model.fail("not restored, though any m disks may be lost".to_owned());
                }
            }
            // Nothing comes back any more.
            let order = std::sync::atomic::Ordering::Relaxed;
            self.hopeless
                .store(remaining.len() < self.world.disks.len(), order);
        }
        None
    }

    /// What a restore can begin with, in the order in which it is tried.
    async fn sources(&self, reached: &[DiskId]) -> Vec<Catalog> {
        let mut roots = Vec::new();
        for disk in self.disks() {
            if let Ok(Ok(of)) = timeout(ANSWER, disk.roots()).await {
                roots.extend(Roots::decode(&of.checkpoint).0);
            }
        }
        roots.sort_by_key(|root| std::cmp::Reverse((root.position.number, root.id)));
        roots.dedup();
        let model = self.world.model.lock();
        let stored = roots
            .iter()
            .filter_map(|root| model.checkpoints.get(&root.id));
        let read = stored.filter(|of| of.reads(reached));
        let catalogs = read.map(|of| of.catalog.clone());
        catalogs.chain([Catalog::default()]).collect()
    }

    /// The newest map, and whether it is known to count.
    async fn newest_map(&self) -> Option<(PoolMap, bool)> {
        let maps = read_maps(&self.disks(), ANSWER).await;
        let mut asked = self.world.ids();
        let all_answer = maps.len() == self.world.remaining().len();
        if all_answer && maps.values().all(Option::is_none) {
            return Some((self.first_map(), false));
        }
        loop {
            match follow(&maps, &asked)? {
                (_, MapStep::Ask(more)) => asked.extend(more),
                (map, MapStep::Complete(_)) => return Some((map, false)),
                (map, MapStep::Settled(_)) => return Some((map, true)),
            }
        }
    }

    fn first_map(&self) -> PoolMap {
        let places: Vec<_> = self
            .world
            .ids()
            .iter()
            .map(|id| self.world.place(*id))
            .collect();
        PoolMap {
            number: 1,
            epoch: Epoch::default(),
            cluster: ClusterId(1),
            lineage: LineageId(1),
            journal: choose_journal(&places, &[], self.world.parity),
            old: None,
            disks: self.map_disks(),
        }
    }

    /// The disks as a map lists them.
    pub fn map_disks(&self) -> Vec<MapDisk> {
        let lost = self.world.lost.all();
        let of = |id: DiskId| MapDisk {
            id,
            agent: None,
            path: String::new(),
            server: self.world.place(id).server.to_string(),
            site: String::new(),
            medium: Medium::Rotating,
            state: match lost.contains(&id) {
                true => MapDiskState::Lost,
                false => MapDiskState::Member,
            },
        };
        self.world.ids().into_iter().map(of).collect()
    }

    async fn standings(&self, disks: &[DiskId]) -> Vec<(DiskId, JournalStanding, Instant)> {
        let lost = self.world.lost.all();
        let asked = disks
            .iter()
            .filter(|disk| !lost.contains(disk))
            .map(|disk| async move {
                let sent = Instant::now();
                let answer = timeout(Duration::from_secs(2), self.link(*disk).standing()).await;
                Some((*disk, answer.ok()?.ok()?, sent))
            });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Waits until it may raise the epoch; whether it takes over, and by which
    /// epoch that was judged. None if the other lives.
    async fn be_free(&mut self, map: &PoolMap) -> Option<(bool, Epoch)> {
        let seen = self.standings(&self.world.ids()).await;
        let own = {
            let folders = self.world.folders.lock();
            folders[self.machine].instances.clone()
        };
        let is_gone = |instance| instance == RELEASED || own.contains(&instance);
        let held = highest(seen.iter().map(|(_, of, _)| of.epoch), is_gone);
        let before = Before {
            closed: held.instance == RELEASED,
            our_folder: own.contains(&held.instance).then_some(held.instance),
            all_locked: self.world.embedded,
            take_over: self.take_over,
        };
        let take_over = match first(&before, held) {
            First::Free => false,
            First::TakeOver => true,
            First::Watch => {
                self.watch(map, held).await?;
                false
            }
        };
        // An earlier try may have been free.
        self.owns_up(!take_over);
        Some((take_over, held))
    }

    /// Whether its id is in its folder: whoever finds it there is free at once.
    /// So one that takes over waits first, or the next start would not wait
    /// for the gateway that it took over from.
    fn owns_up(&self, owns: bool) {
        let instances = &mut self.world.folders.lock()[self.machine].instances;
        instances.retain(|instance| *instance != self.instance);
        if owns {
            instances.push(self.instance);
        }
    }

    async fn watch(&self, map: &PoolMap, held: Epoch) -> Option<()> {
        let journal = map.journal_map();
        let began = Instant::now();
        let mut watch = Watch::new(journal.clone(), self.world.lost.all(), held, began);
        self.world.model.lock().counts.one("watched");
        loop {
            for (disk, standing, sent) in self.standings(&journal.all()).await {
                watch.saw(disk, &standing, sent, Instant::now());
            }
            match watch.watched(Instant::now()) {
                Watched::Gone => return Some(()),
                Watched::Alive(_) => {
                    self.world.model.lock().counts.one("other lives");
                    return None;
                }
                Watched::GoOn if began.elapsed() > 2 * WATCH => return None,
                Watched::GoOn => sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn find(
        &self,
        map: &PoolMap,
        from: Position,
        held: Epoch,
    ) -> Result<Recovered, JournalError> {
        let request = Request {
            ctx: CallContext {
                cluster: ClusterId(1),
                epoch: Epoch {
                    number: 0,
                    instance: self.instance,
                },
                lineage: map.lineage,
                committed: CommitNumber(0),
                purpose: Purpose::Client,
            },
            map: map.journal_map(),
            lost: self.world.lost.all(),
            from,
            begun: map.number > 1,
            judged: Some(held),
            answer_within: ANSWER,
        };
        recover(&self.disks(), request).await
    }

    /// One try. An error without a refusal is one to try again.
    async fn start_from(
        &mut self,
        map: PoolMap,
        source: Source,
    ) -> Result<Running, Option<Refusal>> {
        let from = source.catalog.position;
        let (take_over, held) = self.be_free(&map).await.ok_or(None)?;
        let recovered = match self.find(&map, from, held).await {
            Ok(recovered) => recovered,
            Err(error) => return Err(self.refused(error, &source, None)),
        };
        let answer_from = take_over.then(|| Instant::now() + WATCH);
        // Only now nobody else can write a map that counts.
        let (again, counts) = self.newest_map().await.ok_or(None)?;
        if again != map {
            return Err(None);
        }
        let ctx = recovered.context();
        if !counts {
            self.write_map(&ctx, &map).await.map_err(|_| None)?;
        }
        self.settle(map, source, recovered, answer_from).await
    }

    async fn settle(
        &mut self,
        mut map: PoolMap,
        source: Source,
        recovered: Recovered,
        answer_from: Option<Instant>,
    ) -> Result<Running, Option<Refusal>> {
        let (unproven, tail) = (recovered.unproven() as u64, recovered.tail().number.0);
        let (complete, reached) = (recovered.is_complete(), recovered.reached().to_vec());
        let journal = map.journal_map().all();
        let members = journal.into_iter().map(|id| self.member(id)).collect();
        let roots = self.newest_roots().await;
        let contact = shardgate_journal::contact::SharedContact::default();
        let options = WriterOptions {
            parity: self.world.parity,
            lost: self.world.lost.clone(),
            contact: contact.clone(),
            checkpoints: roots.encode_each(),
        };
        let settled = recovered.settle(members, options).await;
        let (mut writer, mut replay) = settled.map_err(|_| None)?;
        let (from, mut catalog) = (source.catalog.position, source.catalog.clone());
        let mut records = Vec::new();
        loop {
            match replay.next().await {
                Ok(Some(more)) => {
                    for record in more {
                        if !catalog.apply(&record) {
                            let why = format!("replayed: {:?} does not follow", record.position);
                            self.world.model.lock().fail(why);
                        }
                        records.push(record);
                    }
                }
                Ok(None) => break,
                Err(error) => return Err(self.refused(error, &source, Some(reached))),
            }
        }
        if unproven > 0 {
            let mut model = self.world.model.lock();
            model.safe_in(writer.segment(), tail - unproven + 1..=tail);
            model.weak |= writer.members().len() <= self.world.parity;
        }
        if self.rng.random_bool(0.7) {
            let void = replay.remove_void().await as u64;
            self.world.model.lock().counts.many("void", void);
        }
        self.settle_map(&mut writer, &mut map)
            .await
            .map_err(|_| None)?;
        if let Some(at) = answer_from {
            self.world.model.lock().counts.one("taken over");
            tokio::time::sleep_until(at).await;
            self.owns_up(true);
        }
        self.has_contact(&writer).await.ok_or(None)?;
        if !complete {
            self.cut_short(&catalog, &source, &reached);
        }
        {
            let mut model = self.world.model.lock();
            model.shown(from, &records, &catalog);
            model.counts.one("starts");
            model.counts.many("rewritten", unproven);
        }
        let mut running = Running::new(writer, map, catalog, roots);
        running.contact = contact;
        if !source.local {
            // A restored catalog is made durable before it gets its name.
            self.flush(&running);
        }
        Ok(running)
    }

    /// Nothing is answered without, and so nothing shown: another may have
    /// taken over meanwhile.
    async fn has_contact(&self, writer: &shardgate_journal::Writer) -> Option<()> {
        let (journal, ctx) = (writer.map().clone(), writer.context());
        let all = journal.all();
        let asked = all.iter().map(|disk| async move {
            let answer = timeout(Duration::from_secs(2), self.link(*disk).raise(&ctx)).await;
            matches!(answer, Ok(Ok(()))).then_some(*disk)
        });
        let answered: Vec<DiskId> = join_all(asked).await.into_iter().flatten().collect();
        let lost = self.world.lost.all();
        journal.has_enough(&answered, &lost).then_some(())
    }

    async fn settle_map(
        &self,
        writer: &mut shardgate_journal::Writer,
        map: &mut PoolMap,
    ) -> Result<(), JournalError> {
        if map.number == 1 {
            writer.begin_segment().await?;
        }
        if map.number == 1 || map.old.is_some() {
            writer.change_done();
            let ctx = writer.context();
            *map = map.settled(ctx.epoch);
            self.write_map(&ctx, map).await?;
        }
        Ok(())
    }

    pub async fn newest_roots(&self) -> Roots {
        let mut newest = Roots::default();
        for disk in self.disks() {
            if let Ok(Ok(of)) = timeout(ANSWER, disk.roots()).await {
                let roots = Roots::decode(&of.checkpoint);
                let id = |roots: &Roots| roots.newest().map_or(0, |root| root.id);
                if id(&roots) > id(&newest) {
                    newest = roots;
                }
            }
        }
        newest
    }
}

//! A gateway of the model: commits, answers, stops.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shardgate_journal::contact::{May, SharedContact};
use shardgate_journal::disks::JournalMap;
use shardgate_journal::map::{PoolMap, write_map};
use shardgate_journal::memory::MemoryLink;
use shardgate_journal::{JournalError, Member, Record, Writer};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{CallContext, DiskId, Epoch, InstanceId};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::catalog::{Catalog, Roots, payload};
use crate::world::World;

pub const ANSWER: Duration = Duration::from_secs(20);
pub const SEGMENT_BYTES: usize = 96 * 1024;
/// How long a disk may take to write a map or a root.
pub const WRITE: Duration = Duration::from_secs(10);

pub struct Gateway {
    pub world: World,
    pub instance: InstanceId,
    /// Which machine's folder is its own; it holds the lock.
    pub machine: usize,
    /// The operator wants it to take over.
    pub take_over: bool,
    pub links: Vec<MemoryLink>,
    pub rng: StdRng,
    /// Set when it is to stop cleanly.
    pub stop: Arc<AtomicBool>,
    /// Set when it has committed something.
    pub served: Arc<AtomicBool>,
    /// Set when the operator is told that nothing gives the catalog back.
    pub hopeless: Arc<AtomicBool>,
}

/// A gateway that has started.
pub struct Running {
    pub writer: Writer,
    pub map: PoolMap,
    pub catalog: Catalog,
    pub roots: Roots,
    pub contact: SharedContact,
    serving: Arc<Mutex<Serving>>,
    counter: u64,
}

/// What reads go by; they do not wait for a commit that is under way.
struct Serving {
    applied: u64,
    map: JournalMap,
}

/// Ends a task with whoever holds this.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Running {
    pub fn new(writer: Writer, map: PoolMap, catalog: Catalog, roots: Roots) -> Self {
        let serving = Serving {
            applied: catalog.position.number.0,
            map: map.journal_map(),
        };
        Self {
            serving: Arc::new(Mutex::new(serving)),
            writer,
            map,
            catalog,
            roots,
            contact: SharedContact::default(),
            counter: 0,
        }
    }

    /// Reads go by the journal disks that the writer goes by.
    pub fn serve_by_writers_map(&self) {
        self.serving.lock().map = self.writer.map().clone();
    }
}

impl Gateway {
    pub fn new(world: World, instance: u128, machine: usize, seed: u64) -> Self {
        Self {
            links: world.disks.iter().map(|disk| disk.link()).collect(),
            world,
            instance: InstanceId(instance),
            machine,
            take_over: false,
            rng: StdRng::seed_from_u64(seed),
            stop: Arc::default(),
            served: Arc::default(),
            hopeless: Arc::default(),
        }
    }

    /// The disks that were not named lost.
    pub fn disks(&self) -> Vec<Arc<dyn JournalDisk>> {
        let lost = self.world.lost.all();
        let links = self.links.iter();
        let links = links.filter(|link| !lost.contains(&link.disk()));
        links
            .map(|link| Arc::new(link.clone()) as Arc<dyn JournalDisk>)
            .collect()
    }

    pub fn link(&self, id: DiskId) -> Arc<dyn JournalDisk> {
        let link = self.links.iter().find(|link| link.disk() == id);
        Arc::new(link.unwrap().clone())
    }

    pub fn member(&self, id: DiskId) -> Member {
        Member {
            disk: self.link(id),
            place: self.world.place(id),
            segment_bytes: SEGMENT_BYTES as u64,
        }
    }

    /// Writes a map until it counts.
    pub async fn write_map(&self, ctx: &CallContext, map: &PoolMap) -> Result<(), JournalError> {
        loop {
            let written = write_map(&self.disks(), ctx, map, WRITE).await;
            let durable = written.map_err(JournalError::Fenced)?;
            let lost = self.world.lost.all();
            if map.journal_map().has_enough(&durable, &lost) {
                self.check_counts(map);
                return Ok(());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// What is said to count is on enough of the old and of the new.
    fn check_counts(&self, map: &PoolMap) {
        let has = |disk: &DiskId| self.world.disk(*disk).root_record().map_number >= map.number;
        let sets = std::iter::once(&map.journal).chain(&map.old);
        if !sets.into_iter().all(|of| self.world.is_on_enough(of, has)) {
            let why = format!("map {} counts on too few disks", map.number);
            self.world.model.lock().fail(why);
        }
    }

    /// Its life: ends when another has taken over, or on a clean stop.
    pub async fn run(mut self) {
        let running = loop {
            if self.hopeless.load(Ordering::Relaxed) {
                return;
            }
            if let Some(started) = self.start().await {
                break started;
            }
            sleep(Duration::from_millis(self.rng.random_range(50..500))).await;
        };
        if self.live(running).await.is_err() {
            self.world.model.lock().counts.one("fenced");
        }
    }

    async fn live(&mut self, mut run: Running) -> Result<(), JournalError> {
        let _asking = self.ask_for_ever(&run);
        let answering = self.answer_for_ever(&run);
        while !self.stop.load(Ordering::Relaxed) {
            self.care(&mut run).await?;
            self.commit(&mut run).await?;
            let pause = match self.rng.random_range(0..30) {
                0 => self.rng.random_range(0..4_000_000),
                _ => self.rng.random_range(0..3_000),
            };
            sleep(Duration::from_micros(pause)).await;
        }
        drop(answering);
        self.flush(&run);
        let ctx = run.writer.context();
        if run.writer.close().await {
            self.world.model.lock().counts.one("closed");
            self.release(ctx).await;
        }
        Ok(())
    }

    async fn commit(&mut self, run: &mut Running) -> Result<(), JournalError> {
        let mut at = run.writer.acknowledged();
        let mut records = Vec::new();
        for _ in 0..self.rng.random_range(1..5) {
            run.counter += 1;
            let len = match self.rng.random_range(0..8) {
                0 => 9_000,
                _ => self.rng.random_range(0..300),
            };
            let record = Record::after(&at, payload(self.instance.0, run.counter, len));
            at = record.position;
            records.push(record);
        }
        let hashes = records.iter().map(|record| record.position.hash);
        self.world.model.lock().submitted.extend(hashes);
        run.writer.append(records.clone()).await?;
        {
            let mut model = self.world.model.lock();
            let from = records[0].position.number.0;
            model.safe_in(run.writer.segment(), from..=at.number.0);
            model.acknowledged(&records);
            model.weak |= run.writer.members().len() <= self.world.parity;
        }
        self.check_servers(run);
        self.apply(run, &records);
        self.served.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub fn apply(&self, run: &mut Running, records: &[Record]) {
        for record in records {
            assert!(run.catalog.apply(record), "commits come in order");
        }
        run.serving.lock().applied = run.catalog.position.number.0;
    }

    /// Never all on one server where the journal disks that are left are on
    /// two.
    fn check_servers(&self, run: &Running) {
        let lost = self.world.lost.all();
        let journal = run.writer.map().disks.iter().copied();
        let left: Vec<DiskId> = journal.filter(|disk| !lost.contains(disk)).collect();
        let servers = |disks: &[DiskId]| -> BTreeSet<u128> {
            let places = disks.iter().map(|disk| self.world.place(*disk));
            places.map(|place| place.server).collect()
        };
        let members = run.writer.members();
        if servers(&left).len() > 1 && servers(&members).len() == 1 {
            let why = format!("members {members:?} are on one server");
            self.world.model.lock().fail(why);
        }
    }

    /// Reads, as long as this is held.
    fn answer_for_ever(&mut self, run: &Running) -> Ends {
        let (serving, contact) = (Arc::clone(&run.serving), run.contact.clone());
        let world = self.world.clone();
        let mut rng = StdRng::seed_from_u64(self.rng.random());
        let task = tokio::spawn(async move {
            loop {
                let pause = match rng.random_range(0..8) {
                    0 => rng.random_range(0..2_000),
                    _ => rng.random_range(0..100),
                };
                sleep(Duration::from_millis(pause)).await;
                answer(&world, &serving, &contact, &mut rng).await;
            }
        });
        Ends(task.abort_handle())
    }

    /// What RocksDB has in memory gets to its disk.
    pub fn flush(&self, run: &Running) {
        self.world.folders.lock()[self.machine].flushed = Some(run.catalog.clone());
    }

    /// Asks journal disks that were not heard for a while.
    fn ask_for_ever(&self, run: &Running) -> Ends {
        let (contact, ctx) = (run.contact.clone(), run.writer.context());
        let links = self.links.clone();
        let all: Vec<DiskId> = self.world.ids();
        let task = tokio::spawn(async move {
            let map = JournalMap {
                number: 0,
                disks: all,
                old: None,
            };
            loop {
                sleep(Duration::from_secs(1)).await;
                for disk in contact.now().due(&map, Instant::now()) {
                    let link = links.iter().find(|link| link.disk() == disk).unwrap();
                    let (link, contact) = (link.clone(), contact.clone());
                    tokio::spawn(async move {
                        let sent = Instant::now();
                        let asked = timeout(Duration::from_secs(2), link.raise(&ctx)).await;
                        if let Ok(Ok(())) = asked {
                            contact.answered(disk, sent);
                        }
                    });
                }
            }
        });
        Ends(task.abort_handle())
    }

    /// Says to the next start that this gateway is gone.
    async fn release(&self, mut ctx: CallContext) {
        ctx.epoch = Epoch {
            number: ctx.epoch.number + 1,
            instance: RELEASED,
        };
        for disk in self.disks() {
            let _told = timeout(Duration::from_secs(2), disk.raise(&ctx)).await;
        }
    }
}

/// A read: what it saw, and when, must hold until its answer has left.
async fn answer(
    world: &World,
    serving: &Mutex<Serving>,
    contact: &SharedContact,
    rng: &mut StdRng,
) {
    let seen = serving.lock().applied;
    let last = world.model.lock().last();
    if rng.random_range(0..20) == 0 {
        // The machine hangs.
        sleep(Duration::from_millis(rng.random_range(0..14_000))).await;
    }
    let (map, lost) = (serving.lock().map.clone(), world.lost.all());
    let may = contact.now().may_answer(&map, &[], &lost, Instant::now());
    let mut model = world.model.lock();
    if may == May::Nothing {
        model.counts.one("not answered");
    } else {
        model.counts.one("answered");
        if seen < last {
            model.fail(format!("answered as of {seen}, {last} was acknowledged"));
        }
    }
}

/// The instance of an epoch that nobody holds: a clean stop leaves it.
pub const RELEASED: InstanceId = InstanceId(0);

//! One run: a pool, machines, gateways, and what goes wrong, all from one seed.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shardgate_journal::disks::Lost;
use shardgate_journal::memory::{Breach, MemoryDisk, MemoryLink};
use shardgate_wire::{DiskId, InstanceId};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::catalog::Folder;
use crate::gateway::{Gateway, SEGMENT_BYTES};
use crate::world::{Counts, World};

/// Disks, largest parity, servers.
const POOLS: [(u128, usize, u128); 12] = [
    (6, 1, 1),
    (5, 1, 1),
    (1, 0, 1),
    (2, 1, 1),
    (3, 2, 1),
    (3, 1, 3),
    (4, 2, 1),
    (4, 1, 2),
    (5, 2, 2),
    (5, 2, 5),
    (6, 2, 3),
    (9, 3, 9),
];
/// Machines that a gateway may run on.
const MACHINES: usize = 2;

struct Alive {
    task: JoinHandle<()>,
    machine: usize,
    instance: InstanceId,
    links: Vec<MemoryLink>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicBool>,
    hopeless: Arc<AtomicBool>,
}

/// A panic of a gateway must not be lost with its task; its folder's lock goes
/// with the process.
async fn watched(gateway: Gateway) {
    let model = Arc::clone(&gateway.world.model);
    let (folders, machine) = (Arc::clone(&gateway.world.folders), gateway.machine);
    let instance = gateway.instance;
    if AssertUnwindSafe(gateway.run())
        .catch_unwind()
        .await
        .is_err()
    {
        model.lock().fail("a gateway panicked".to_owned());
    }
    let mut folders = folders.lock();
    if folders[machine].lock == Some(instance) {
        folders[machine].lock = None;
    }
}

struct Run {
    world: World,
    rng: StdRng,
    gateways: Vec<Alive>,
    instances: u128,
    /// How long the next fault waits besides.
    quiet: Duration,
}

/// Runs a seed; `breach`: what every disk does wrong.
pub async fn run(seed: u64, breach: Option<Breach>) -> Counts {
    let mut rng = StdRng::seed_from_u64(seed);
    let (disks, parity, servers) = POOLS[rng.random_range(0..POOLS.len())];
    let disks = (1..=disks).map(|id| MemoryDisk::new(DiskId(id), rng.random(), SEGMENT_BYTES));
    let world = World {
        disks: disks.collect(),
        parity,
        servers,
        reckless: rng.random_bool(0.15),
        embedded: rng.random_bool(0.3),
        model: Arc::default(),
        gone: Arc::default(),
        lost: Lost::default(),
        folders: Arc::default(),
    };
    if let Some(breach) = breach {
        world.disks.iter().for_each(|disk| disk.breach(breach));
    }
    let folders = (0..MACHINES).map(|_| Folder::default());
    world.folders.lock().extend(folders);
    world.folders.lock()[0].flushed = Some(crate::catalog::Catalog::default());
    let mut run = Run {
        world,
        rng,
        gateways: Vec::new(),
        instances: 0,
        quiet: Duration::ZERO,
    };
    run.start_gateway(0);
    for _ in 0..run.rng.random_range(5..40) {
        let pause = match run.rng.random_range(0..8) {
            0 => run.rng.random_range(0..20_000),
            1 => run.rng.random_range(0..3_000),
            _ => run.rng.random_range(0..60),
        };
        let quiet = std::mem::take(&mut run.quiet);
        sleep(Duration::from_millis(pause) + quiet).await;
        run.fault();
        run.check();
    }
    run.end().await
}

impl Run {
    fn check(&self) {
        if let Some(failure) = &self.world.model.lock().failure {
            panic!("{failure}");
        }
    }

    /// Starts one if the machine is free, and the disks where they are its own.
    fn start_gateway(&mut self, machine: usize) {
        self.instances += 1;
        let instance = InstanceId(self.instances);
        {
            let mut folders = self.world.folders.lock();
            let locked = |folder: &Folder| folder.lock.is_some();
            let disks_locked = self.world.embedded && folders.iter().any(locked);
            if locked(&folders[machine]) || disks_locked {
                return;
            }
            folders[machine].lock = Some(instance);
        }
        let seed = self.rng.random();
        let mut gateway = Gateway::new(self.world.clone(), instance.0, machine, seed);
        gateway.take_over = self.rng.random_bool(0.4);
        self.gateways.push(Alive {
            machine,
            instance,
            links: gateway.links.clone(),
            stop: Arc::clone(&gateway.stop),
            served: Arc::clone(&gateway.served),
            hopeless: Arc::clone(&gateway.hopeless),
            task: tokio::spawn(watched(gateway)),
        });
    }

    /// Ends the processes on these machines; whatever they had sent goes on.
    fn kill_gateways(&mut self, machines: &[usize]) {
        let mut folders = self.world.folders.lock();
        self.gateways.retain(|alive| {
            let dies = machines.contains(&alive.machine);
            if dies {
                alive.task.abort();
                if folders[alive.machine].lock == Some(alive.instance) {
                    folders[alive.machine].lock = None;
                }
            }
            !dies
        });
    }

    fn disk(&mut self) -> MemoryDisk {
        let index = self.rng.random_range(0..self.world.disks.len());
        self.world.disks[index].clone()
    }

    fn machine(&mut self) -> usize {
        self.rng.random_range(0..MACHINES)
    }

    fn fault(&mut self) {
        let machine = self.machine();
        match self.rng.random_range(0..24) {
            0..=2 => {
                self.kill_gateways(&[0, 1]);
                self.start_gateway(machine);
            }
            3 | 4 => self.start_gateway(machine),
            5 => {
                for alive in &self.gateways {
                    alive.stop.store(true, Ordering::Relaxed);
                }
            }
            6 | 7 => {
                let disk = self.disk();
                self.restart(disk, true);
            }
            8 => {
                let disk = self.disk();
                self.restart(disk, false);
            }
            9 => self.all_power(machine),
            10 | 11 => {
                let time = Duration::from_millis(self.rng.random_range(20..15_000));
                self.disk().stall(time);
            }
            12 | 13 => {
                let disk = self.disk();
                disk.fail_next_sync();
                let time = Duration::from_millis(self.rng.random_range(50..4_000));
                self.open_later(disk, time);
            }
            14 | 15 => self.cut(),
            16 | 17 => self.lose_for_good(),
            18 => self.name_lost(),
            19 => {
                // The machine is gone with all it had.
                self.kill_gateways(&[machine]);
                self.world.folders.lock()[machine] = Folder::default();
                self.start_gateway(machine);
            }
            20 => self.cut_off(),
            _ => {}
        }
    }

    /// All power at once, the gateways' too.
    fn all_power(&mut self, machine: usize) {
        self.kill_gateways(&[0, 1]);
        for disk in self.world.disks.clone() {
            self.restart(disk, true);
        }
        self.start_gateway(machine);
    }

    /// Ends a disk, and starts it after a while.
    fn restart(&mut self, disk: MemoryDisk, power: bool) {
        if power {
            disk.lose_power();
        } else {
            disk.kill();
        }
        let time = Duration::from_millis(self.rng.random_range(1..2_000));
        self.open_later(disk, time);
    }

    fn open_later(&self, disk: MemoryDisk, time: Duration) {
        let gone = Arc::clone(&self.world.gone);
        tokio::spawn(async move {
            sleep(time).await;
            if !gone.lock().contains(&disk.id()) {
                // What a process left in the cache is read after it was synced.
                disk.kill();
                disk.open();
            }
        });
    }

    fn cut(&mut self) {
        let Some(alive) = self.gateways.last() else {
            return;
        };
        let links = alive.links.clone();
        // Some, or the whole machine.
        let each = if self.rng.random_bool(0.3) { 1.0 } else { 0.4 };
        for link in &links {
            link.set_cut(self.rng.random_bool(each));
        }
        let time = match self.rng.random_range(0..4) {
            0 => self.rng.random_range(10_000..40_000),
            _ => self.rng.random_range(10..8_000),
        };
        tokio::spawn(async move {
            sleep(Duration::from_millis(time)).await;
            links.iter().for_each(|link| link.set_cut(false));
        });
    }

    /// The machine of a gateway is cut off, and one starts on the other; for a
    /// while nothing else happens. What the first still answers must be true.
    fn cut_off(&mut self) {
        let Some(alive) = self.gateways.last() else {
            return;
        };
        let (links, other) = (alive.links.clone(), MACHINES - 1 - alive.machine);
        links.iter().for_each(|link| link.set_cut(true));
        self.start_gateway(other);
        let cut = Duration::from_millis(self.rng.random_range(0..40_000));
        tokio::spawn(async move {
            sleep(cut).await;
            links.iter().for_each(|link| link.set_cut(false));
        });
        self.quiet = Duration::from_millis(self.rng.random_range(0..20_000));
    }

    /// A disk goes with all it had: any m of those that everything was last
    /// seen to be fully stored on, else none.
    fn lose_for_good(&mut self) {
        let disk = self.disk();
        let allowed = {
            let (model, gone) = (self.world.model.lock(), self.world.gone.lock());
            let fresh = gone.iter().filter(|id| !model.mended.contains(id)).count();
            let left = self.world.disks.len() - gone.len();
            left > 1 && (self.world.reckless || (!model.weak && fresh < self.world.parity))
        };
        if allowed && self.world.gone.lock().insert(disk.id()) {
            disk.lose_power();
            self.world.model.lock().counts.one("lost for good");
        }
    }

    /// The operator says of one that is gone that it is.
    fn name_lost(&mut self) {
        let lost = self.world.lost.all();
        let gone = self.world.gone.lock();
        if let Some(disk) = gone.iter().find(|disk| !lost.contains(disk)) {
            self.world.lost.add(*disk);
        }
    }

    /// Everything that is not gone comes back: a start must succeed, show all
    /// there is, and commit; or what is refused is really gone.
    async fn end(mut self) -> Counts {
        self.kill_gateways(&[0, 1]);
        let gone = self.world.gone.lock().clone();
        for disk in &self.world.disks {
            if !gone.contains(&disk.id()) {
                disk.kill();
                disk.open();
            }
        }
        for machine in [0, 1] {
            self.kill_gateways(&[0, 1]);
            self.start_gateway(machine);
            let last = self.gateways.last().unwrap();
            let (served, hopeless) = (Arc::clone(&last.served), Arc::clone(&last.hopeless));
            let mut waited = 0;
            let wait = async {
                while !served.load(Ordering::Relaxed)
                    && !hopeless.load(Ordering::Relaxed)
                    && self.world.model.lock().failure.is_none()
                {
                    sleep(Duration::from_millis(100)).await;
                    waited += 1;
                    if waited == 600 {
                        // The operator gives up on what does not come back.
                        gone.iter().for_each(|disk| self.world.lost.add(*disk));
                    }
                }
            };
            let in_time = timeout(Duration::from_secs(900), wait).await;
            self.check();
            assert!(in_time.is_ok(), "the last gateway does not commit");
            if hopeless.load(Ordering::Relaxed) {
                assert!(!gone.is_empty(), "refused, and no disk is gone");
                self.world.model.lock().counts.one("hopeless");
                break;
            }
        }
        self.world.model.lock().counts.clone()
    }
}

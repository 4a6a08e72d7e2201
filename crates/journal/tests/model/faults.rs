//! One run: a pool, gateways, and what goes wrong, all from one seed.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shardgate_journal::disks::{JournalMap, choose_journal, majority};
use shardgate_journal::memory::{MemoryDisk, MemoryLink};
use shardgate_wire::{DiskId, Epoch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::gateway::{Gateway, SEGMENT_BYTES};
use crate::world::{Counts, World};

/// Disks, largest parity, servers.
const POOLS: [(u128, usize, u128); 10] = [
    (6, 1, 1),
    (5, 1, 1),
    (1, 0, 1),
    (2, 1, 1),
    (3, 2, 1),
    (3, 1, 3),
    (4, 2, 1),
    (5, 2, 5),
    (6, 2, 3),
    (9, 3, 9),
];

struct Alive {
    task: JoinHandle<()>,
    links: Vec<MemoryLink>,
    stop: Arc<AtomicBool>,
    served: Arc<AtomicBool>,
}

/// A panic of a gateway must not be lost with its task.
async fn watched(gateway: Gateway) {
    let model = Arc::clone(&gateway.world.model);
    if AssertUnwindSafe(gateway.run())
        .catch_unwind()
        .await
        .is_err()
    {
        model.lock().fail("a gateway panicked".to_owned());
    }
}

struct Run {
    world: World,
    rng: StdRng,
    gateways: Vec<Alive>,
    instances: u128,
    /// Journal disks at the start.
    journal: usize,
    changed: bool,
}

pub async fn run(seed: u64) -> Counts {
    let mut rng = StdRng::seed_from_u64(seed);
    let (disks, parity, servers) = POOLS[rng.random_range(0..POOLS.len())];
    let disks = (1..=disks).map(|id| MemoryDisk::new(DiskId(id), rng.random(), SEGMENT_BYTES));
    let world = World {
        disks: disks.collect(),
        parity,
        model: Arc::default(),
        gone: Arc::default(),
        servers,
    };
    let places: Vec<_> = world
        .disks
        .iter()
        .map(|disk| world.place(disk.id()))
        .collect();
    let journal = choose_journal(&places, &[], parity);
    let map = JournalMap {
        number: 1,
        disks: journal.clone(),
        old: None,
    };
    let all = world
        .disks
        .iter()
        .map(|disk| (disk.id(), (Epoch::default(), map.clone())));
    world.model.lock().maps = all.collect::<BTreeMap<_, _>>();
    let mut run = Run {
        changed: world.disks.len() > journal.len(),
        journal: journal.len(),
        world,
        rng,
        gateways: Vec::new(),
        instances: 0,
    };
    run.start_gateway();
    for _ in 0..run.rng.random_range(5..40) {
        let pause = match run.rng.random_range(0..4) {
            0 => run.rng.random_range(0..3_000),
            _ => run.rng.random_range(0..60),
        };
        sleep(Duration::from_millis(pause)).await;
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

    fn start_gateway(&mut self) {
        self.instances += 1;
        let gateway = Gateway::new(self.world.clone(), self.instances, self.rng.random());
        let alive = Alive {
            links: gateway.links.clone(),
            stop: Arc::clone(&gateway.stop),
            served: Arc::clone(&gateway.served),
            task: tokio::spawn(watched(gateway)),
        };
        self.gateways.push(alive);
    }

    fn disk(&mut self) -> MemoryDisk {
        let index = self.rng.random_range(0..self.world.disks.len());
        self.world.disks[index].clone()
    }

    fn fault(&mut self) {
        match self.rng.random_range(0..16) {
            0..=2 => {
                // Whatever it had sent goes on.
                self.gateways.drain(..).for_each(|alive| alive.task.abort());
                self.start_gateway();
            }
            3 => self.start_gateway(),
            4 => {
                for alive in &self.gateways {
                    alive.stop.store(true, Ordering::Relaxed);
                }
                self.start_gateway();
            }
            5 | 6 => {
                let disk = self.disk();
                self.restart(disk, true);
            }
            7 => {
                let disk = self.disk();
                self.restart(disk, false);
            }
            8 => {
                // All power at once, the gateways' too.
                self.gateways.drain(..).for_each(|alive| alive.task.abort());
                for disk in self.world.disks.clone() {
                    self.restart(disk, true);
                }
                self.start_gateway();
            }
            9 | 10 => {
                let time = Duration::from_millis(self.rng.random_range(20..15_000));
                self.disk().stall(time);
            }
            11 => {
                let disk = self.disk();
                disk.fail_next_sync();
                let time = Duration::from_millis(self.rng.random_range(50..4_000));
                self.open_later(disk, time);
            }
            12 => self.cut(),
            13 => self.lose_for_good(),
            _ => {}
        }
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
        for link in &links {
            link.set_cut(self.rng.random_bool(0.4));
        }
        let time = Duration::from_millis(self.rng.random_range(10..8_000));
        tokio::spawn(async move {
            sleep(time).await;
            links.iter().for_each(|link| link.set_cut(false));
        });
    }

    fn lose_for_good(&mut self) {
        let disk = self.disk();
        let mut gone = self.world.gone.lock();
        // Without copies no more may go than every segment's members survive;
        // while journal disks change, old segments lie on old ones.
        let most = self.journal - majority(self.journal);
        if gone.len() < most && !self.changed {
            gone.insert(disk.id());
            disk.lose_power();
        }
    }

    /// Everything that is not gone comes back: a start must succeed, show all
    /// there is, and commit.
    async fn end(mut self) -> Counts {
        self.gateways.drain(..).for_each(|alive| alive.task.abort());
        let gone = self.world.gone.lock().clone();
        for disk in &self.world.disks {
            if !gone.contains(&disk.id()) {
                disk.kill();
                disk.open();
            }
        }
        for _ in 0..2 {
            self.start_gateway();
            let last = self.gateways.last().unwrap();
            let served = Arc::clone(&last.served);
            let wait = async {
                while !served.load(Ordering::Relaxed) && self.world.model.lock().failure.is_none() {
                    sleep(Duration::from_millis(100)).await;
                }
            };
            let in_time = timeout(Duration::from_secs(600), wait).await;
            self.check();
            assert!(in_time.is_ok(), "the last gateway does not commit");
            self.gateways.drain(..).for_each(|alive| alive.task.abort());
        }
        self.world.model.lock().counts.clone()
    }
}

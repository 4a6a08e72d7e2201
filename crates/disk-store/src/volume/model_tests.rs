//! The volumes against a model of what callers were told, over a disk that
//! loses power, tears, reorders, fails and fills up. Callers, upkeep,
//! compaction and readers run one after the other, and at once in turns.
//!
//! After every crash: what was answered is there, what was deleted is not,
//! and what was not answered is whole or absent. `SHARDGATE_TEST_SEED=N` repeats
//! one sequence, `SHARDGATE_TEST_SEQUENCES=N` says how many are run, from
//! `SHARDGATE_TEST_FIRST_SEED` on.

mod turns;
pub(super) mod world;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use world::World;

use crate::io::sim::Sabotage;

/// Sequences of a usual run.
const SEQUENCES: u64 = 1000;
/// Sequences that are run at once, for each processor.
const AT_ONCE: usize = 8;
/// Steps of a sequence.
const STEPS: usize = 60;

fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Says which sequence fails.
struct Sequence(u64);

impl Drop for Sequence {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("repeat with SHARDGATE_TEST_SEED={}", self.0);
        }
    }
}

fn run(seed: u64, sabotage: Sabotage) {
    let _named = Sequence(seed);
    let mut world = World::new(seed, sabotage);
    for _ in 0..STEPS {
        world.step();
    }
    world.crash();
    world.check_all();
}

#[test]
fn acknowledged_stays_and_deleted_is_gone() {
    if let Some(seed) = told("SHARDGATE_TEST_SEED") {
        return run(seed, Sabotage::default());
    }
    let random = || shardgate_wire::ids::random_u128() as u64 >> 16;
    let first = told("SHARDGATE_TEST_FIRST_SEED").unwrap_or_else(random);
    println!("SHARDGATE_TEST_SEED={first} and those that follow");
    let end = first + told("SHARDGATE_TEST_SEQUENCES").unwrap_or(SEQUENCES);
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let runs = || {
        let mut seed = next.fetch_add(1, Ordering::Relaxed);
        while seed < end && !failed.load(Ordering::Relaxed) {
            let _tells = Tells(&failed);
            run(seed, Sabotage::default());
            seed = next.fetch_add(1, Ordering::Relaxed);
        }
    };
    // A sequence whose threads take turns mostly waits for one of them to
    // wake: others run meanwhile.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..processors * AT_ONCE {
            scope.spawn(runs);
        }
    });
}

/// One that fails ends the others.
struct Tells<'a>(&'a AtomicBool);

impl Drop for Tells<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// The first sequence that notices what the disk leaves out, and how.
fn noticed(sabotage: Sabotage) -> Option<(u64, String)> {
    (1..200).find_map(|seed| {
        let panic = catch_unwind(|| run(seed, sabotage)).err()?;
        let text = panic.downcast_ref::<String>().cloned();
        Some((seed, text.unwrap_or_default()))
    })
}

/// The test above can fail.
#[test]
fn a_disk_that_does_not_sync_or_zero_is_noticed() {
    let files = Sabotage {
        file_sync: true,
        ..Sabotage::default()
    };
    let folders = Sabotage {
        folder_sync: true,
        ..Sabotage::default()
    };
    let zeroes = Sabotage {
        zeroing: true,
        ..Sabotage::default()
    };
    for sabotage in [files, folders, zeroes] {
        let noticed = noticed(sabotage);
        println!("{sabotage:?}: {noticed:?}");
        assert!(noticed.is_some(), "{sabotage:?} was not noticed");
    }
}

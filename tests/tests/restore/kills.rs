//! Killed in the middle: of a checkpoint, and of a restore.

use std::fs;
use std::time::Duration;

use rand::Rng;
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;

use crate::told::Told;
use crate::whole::{lose_gateway, restored};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_while_it_takes_checkpoints() {
    let seed = random::seed("a_gateway_that_is_killed_while_it_takes_checkpoints");
    let mut rng = random::rng(seed);
    let flags = ["--set", "catalog.checkpoint_bytes=64KiB"];
    let mut pool = TestPool::embedded_with(3, &flags);
    let mut told = Told::new(seed);
    for round in 0..6 {
        told.fill(&pool.client(), 12).await;
        // In it, before it or behind it: checkpoints follow each other here.
        let asked = pool.spawn_command(&["catalog", "checkpoint"]);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
        pool.kill();
        drop(asked);
        match round % 2 {
            0 => {
                lose_gateway(&mut pool);
                restored(&mut pool, &told).await;
            }
            _ => {
                pool.start();
                told.check(&pool.client()).await;
            }
        }
    }
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_is_run_again() {
    let seed = random::seed("a_restore_that_is_killed_is_run_again");
    let mut rng = random::rng(seed);
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(seed);
    told.fill(&pool.client(), 40).await;
    pool.checkpoint();
    told.fill(&pool.client(), 20).await;
    lose_gateway(&mut pool);
    for _ in 0..8 {
        let restore = pool.spawn_command(&["catalog", "restore", "--yes"]);
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
        restore.kill();
        // It may have come to its end: then there is nothing to do any more.
        if pool.dir.join("catalog/rocksdb").exists() {
            pool.start();
            told.check(&pool.client()).await;
            told.fill(&pool.client(), 3).await;
            lose_gateway(&mut pool);
        }
    }
    restored(&mut pool, &told).await;
    pool.stop();
}

/// Where a restore says that it is.
const PLACES: [&str; 3] = ["fetching", "replaying the journal", "making it durable"];

/// Aimed at each place, the last one being that of the rename: what has the
/// name of the database is whole, or is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_killed_leaves_a_whole_database_or_none() {
    let seed = random::seed("a_restore_that_is_killed_leaves_a_whole_database_or_none");
    let mut rng = random::rng(seed);
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(seed);
    told.fill(&pool.client(), 40).await;
    pool.checkpoint();
    told.fill(&pool.client(), 30).await;
    lose_gateway(&mut pool);
    let database = pool.dir.join("catalog/rocksdb");
    let mut cut = 0;
    for round in 0..12 {
        let place = PLACES[round % PLACES.len()];
        let log = pool.dir.join("command.log");
        let _none_yet = fs::remove_file(&log);
        let mut restore = pool.spawn_command(&["catalog", "restore", "--yes"]);
        while restore.is_running() && !restore.output().contains(place) {
            // Until it says that it is about to have one, there is none.
            assert!(
                !database.exists() || restore.output().contains("making it durable"),
                "{}",
                restore.output()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(rng.random_range(0..25_000)));
        restore.kill();
        let said = fs::read_to_string(&log).expect("it said something");
        cut += u32::from(!said.contains("restored:"));
        match database.exists() {
            true => {
                pool.start();
                told.check(&pool.client()).await;
                lose_gateway(&mut pool);
            }
            false => assert!(!said.contains("restored:"), "{said}"),
        }
    }
    assert!(cut > 0, "each came to its end");
    restored(&mut pool, &told).await;
    pool.stop();
}

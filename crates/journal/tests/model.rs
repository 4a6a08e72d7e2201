//! The journal against a model, with faults, under simulated time.
//!
//! Gateways commit; gateways die, start beside each other, stop cleanly;
//! disks lose power, die, stall, fail to sync, are cut off or lost for good;
//! the journal disks change. The model keeps what was acknowledged or shown:
//! whatever a start shows must be all of that, unchanged, and a start that has
//! its majority must succeed. `SHARDGATE_TEST_SEED=N` repeats one seed,
//! `SHARDGATE_TEST_SEEDS=N` sets how many are run.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "model/faults.rs"]
mod faults;
#[path = "model/gateway.rs"]
mod gateway;
#[path = "model/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seeds of one run, unless the environment says otherwise.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a seed is a number"))
}

fn run(seed: u64) -> world::Counts {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(faults::run(seed))
}

#[test]
fn the_recovered_log_is_the_model_of_what_was_acknowledged() {
    let seeds = match number("SHARDGATE_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SHARDGATE_TEST_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = world::Counts::default();
    for seed in seeds.clone() {
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(counts) => total.add(&counts),
            Err(_) => panic!("seed {seed} failed; repeat it with SHARDGATE_TEST_SEED={seed}"),
        }
    }
    println!("seeds {seeds:?}: {total:?}");
    if seeds.end - seeds.start >= 200 {
        // The run went where it should.
        assert!(total.acknowledged > 0 && total.starts > 0 && total.rewritten > 0);
        assert!(total.fenced > 0 && total.closed > 0 && total.changes > 0);
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in [3, 17] {
        assert_eq!(run(seed), run(seed));
    }
}

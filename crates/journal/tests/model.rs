//! The journal against a model, with faults, under simulated time.
//!
//! Gateways on two machines commit and answer reads; they die, start beside
//! each other, take over, stop cleanly, lose their folder and are restored from
//! checkpoints and the journal; disks lose power, die, stall, fail to sync, are
//! cut off or lost for good and named so; the journal disks change. The model
//! keeps what was acknowledged or shown: whatever a start shows must be all of
//! that, unchanged; what is refused must really be missing; what is said to be
//! fully stored must be; and no gateway answers what is no longer true.
//! `SHARDGATE_TEST_SEED=N` repeats one seed, `SHARDGATE_TEST_SEEDS=N` sets how
//! many are run, `SHARDGATE_TEST_FIRST=N` with which.

#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "model/care.rs"]
mod care;
#[path = "model/catalog.rs"]
mod catalog;
#[path = "model/faults.rs"]
mod faults;
#[path = "model/gateway.rs"]
mod gateway;
#[path = "model/judging.rs"]
mod judging;
#[path = "model/starting.rs"]
mod starting;
#[path = "model/truth.rs"]
mod truth;
#[path = "model/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use shardgate_journal::memory::Breach;

/// Seeds of one run, unless the environment says otherwise.
const SEEDS: u64 = 600;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a seed is a number"))
}

fn run(seed: u64, breach: Option<Breach>) -> world::Counts {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(faults::run(seed, breach))
}

#[test]
fn the_recovered_log_is_the_model_of_what_was_acknowledged() {
    let first = number("SHARDGATE_TEST_FIRST").unwrap_or(0);
    let seeds = match number("SHARDGATE_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("SHARDGATE_TEST_SEEDS").unwrap_or(SEEDS),
    };
    let mut total = world::Counts::default();
    for seed in seeds.clone() {
        match catch_unwind(AssertUnwindSafe(|| run(seed, None))) {
            Ok(counts) => total.add(&counts),
            Err(_) => panic!("seed {seed} failed; repeat it with SHARDGATE_TEST_SEED={seed}"),
        }
    }
    println!("seeds {seeds:?}: {total:?}");
    if seeds.end - seeds.start >= 200 {
        // The run went where it should.
        for what in WENT {
            assert!(total.get(what) > 0, "never: {what}");
        }
    }
}

/// What must have happened in a few hundred seeds.
const WENT: [&str; 20] = [
    "acknowledged",
    "answered",
    "changes",
    "checkpoints",
    "closed",
    "copies",
    "fenced",
    "fully stored",
    "lost for good",
    "not answered",
    "other lives",
    "refused",
    "restored",
    "rewritten",
    "starts",
    "taken over",
    "thrown away",
    "trimmed",
    "void",
    "watched",
];

/// Whether the model notices what a disk does wrong; with which seed.
fn noticed(breach: Breach) -> Option<u64> {
    (0..NOTICED_WITHIN).find(|seed| {
        let run = AssertUnwindSafe(|| run(*seed, Some(breach)));
        catch_unwind(run).is_err()
    })
}

/// Seeds within which a disk that breaks a rule is noticed.
const NOTICED_WITHIN: u64 = 4_000;

#[test]
fn a_disk_that_breaks_a_rule_is_noticed() {
    let breaches = [
        Breach::OlderEpochs,
        Breach::OtherInstances,
        Breach::ForgetsEpoch,
        Breach::AnswersUnsynced,
        Breach::ReadsCache,
    ];
    for breach in breaches {
        let seed = noticed(breach);
        println!("{breach:?}: seed {seed:?}");
        assert!(seed.is_some(), "not noticed: {breach:?}");
    }
}

#[test]
fn a_seed_repeats_itself() {
    for seed in [3, 17] {
        assert_eq!(run(seed, None), run(seed, None));
    }
}

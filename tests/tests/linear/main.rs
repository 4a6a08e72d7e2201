//! Many clients on few keys of one pool, which is killed and started again:
//! whatever they are told can have happened in one order.
//!
//! `SHARDGATE_TEST_OPERATIONS` is the number of operations that are answered
//! before the run ends.

mod client;
mod run;

use std::collections::BTreeMap;

use shardgate_tests::linear::history::{Asked, Life, Record, Told};
use shardgate_tests::linear::listing::{Listing, torn};
use shardgate_tests::linear::{Op, check};
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;

use client::{Lie, Told as Answers};
use run::{Plan, run};

/// Operations where nothing else is asked for: with seven kills.
const OPERATIONS: u64 = 20_000;
/// Answered operations between two kills.
const BETWEEN_KILLS: u64 = 2_500;

fn operations() -> u64 {
    match std::env::var("SHARDGATE_TEST_OPERATIONS") {
        Ok(text) => text.parse().expect("SHARDGATE_TEST_OPERATIONS is a number"),
        Err(_) => OPERATIONS,
    }
}

/// The operations on each key: those of its own, and the listings that it is
/// in the range of.
fn by_key(answers: &Answers, lives: &[Life]) -> BTreeMap<String, Vec<Op>> {
    let mut ops: BTreeMap<String, Vec<Op>> = BTreeMap::new();
    for (key, record) in &answers.records {
        let of_key = ops.entry((*key).to_owned()).or_default();
        of_key.extend(record.op(lives));
    }
    for Listing {
        begun,
        ended,
        shown,
    } in &answers.listings
    {
        for (key, &held) in shown {
            let record = Record {
                begun: *begun,
                ended: *ended,
                asked: Asked::Read,
                told: Told::Held(held),
            };
            let of_key = ops.entry(key.clone()).or_default();
            of_key.extend(record.op(lives));
        }
    }
    ops
}

fn count(answers: &Answers, which: impl Fn(&Record) -> bool) -> usize {
    let records = answers.records.iter();
    records.filter(|(_, record)| which(record)).count()
}

/// The run had in it what it is there for.
fn describe(answers: &Answers, lives: &[Life]) -> String {
    let done = |asked: fn(&Asked) -> bool| {
        count(answers, |record| {
            let told = !matches!(record.told, Told::Failed | Told::CutOff | Told::NotSent);
            told && asked(&record.asked)
        })
    };
    let refused = count(answers, |record| {
        matches!(record.told, Told::Refused | Told::Missing)
    });
    let unknown = count(answers, |record| {
        record.op(lives).is_some_and(|op| !op.certain)
    });
    let disturbed = count(answers, |record| record.told == Told::Disturbed);
    assert!(refused > 0, "no condition failed");
    assert!(
        lives.len() == 1 || unknown > 0,
        "no write was cut off by a kill"
    );
    format!(
        "{} reads, {} puts, {} deletions, {} listings; {refused} refused by a condition, {disturbed} disturbed, \
         {unknown} changes with an unknown end, {} kills",
        done(|asked| matches!(asked, Asked::Read)),
        done(|asked| matches!(asked, Asked::Put(..))),
        done(|asked| matches!(asked, Asked::Delete(_))),
        answers.listings.len(),
        lives.len() - 1,
    )
}

/// What is wrong with what clients were told, if anything is.
fn verdict(answers: &Answers, lives: &[Life]) -> Result<(), String> {
    let ops = by_key(answers, lives);
    for (key, ops) in &ops {
        let checked = check(ops);
        checked.map_err(|violation| format!("key {key}: {}", violation.explain(ops)))?;
    }
    match torn(&answers.listings, &ops).first() {
        Some(&first) => {
            let listing = &answers.listings[first];
            Err(format!("a listing shows no one moment: {listing:?}"))
        }
        None => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_are_told_can_have_happened_in_one_order() {
    let plan = Plan {
        bucket: "few",
        seed: random::seed("what_clients_are_told_can_have_happened_in_one_order"),
        operations: operations(),
        between_kills: BETWEEN_KILLS,
        lie: None,
    };
    let mut pool = TestPool::embedded(6);
    let (answers, lives) = run(&mut pool, &plan).await;
    println!("{}", describe(&answers, &lives));
    if let Err(why) = verdict(&answers, &lives) {
        panic!("seed {}, {why}", plan.seed);
    }
}

/// The same clients, with each of the lies that they are there to find.
#[tokio::test(flavor = "multi_thread")]
async fn lies_are_found() {
    let seed = random::seed("lies_are_found");
    let mut pool = TestPool::embedded(6);
    for (bucket, lie) in [
        ("stale-read", Lie::StaleRead),
        ("skipped-condition", Lie::SkippedCondition),
        ("lost-write", Lie::LostWrite),
        ("short-listing", Lie::ShortListing),
    ] {
        let plan = Plan {
            bucket,
            seed,
            operations: 1000,
            between_kills: u64::MAX,
            lie: Some(lie),
        };
        let (answers, lives) = run(&mut pool, &plan).await;
        let found = verdict(&answers, &lives).expect_err(bucket);
        println!("{lie:?}: {found}");
        pool.start();
    }
    pool.stop();
}

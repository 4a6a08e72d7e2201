//! Commits per second through the journal on three disks, beside RocksDB with
//! its own synced log, in turns in one run. Prints figures, decides nothing.
//!
//! `cargo run --release -p shardgate --example commit-rate [FOLDER]`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use shardgate::journal::Journal;
use shardgate::journal::start::{JournalStart, start_journal};
use shardgate::pool::place::{LocalFolders, Place};
use shardgate::pool::{ClassSetting, LocalFolder, PoolSettings};
use shardgate_catalog::CatalogOptions;
use shardgate_catalog::engine::{Commit, Engine, Op, RocksEngine, RocksStopped};
use shardgate_disk_store::DiskOptions;

const RUN: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// About what a version's rows take.
const VALUE_BYTES: usize = 300;

fn make(folder: PathBuf) -> PathBuf {
    std::fs::create_dir_all(&folder).expect("make a folder");
    folder
}

/// The engine over a journal on three new disks.
async fn journaled(folder: &Path) -> (Arc<dyn Engine>, Journal) {
    let own = make(folder.join("own"));
    let disks = (1..=3).map(|n| LocalFolder {
        path: make(folder.join(format!("disk-{n}"))),
        medium: None,
        index_dir: None,
    });
    let place = LocalFolders::new(
        disks.collect(),
        "server".into(),
        "site".into(),
        DiskOptions::default(),
    );
    let engine = RocksStopped::open(&own.join("rocksdb"), &CatalogOptions::default());
    let start = JournalStart {
        places: vec![Arc::new(place) as Arc<dyn Place>],
        settings: PoolSettings {
            classes: ClassSetting::with_defaults(Vec::new()),
            ..PoolSettings::default()
        },
        own,
        lost: Vec::new(),
        take_over: false,
    };
    let started = start_journal(start, engine.expect("open RocksDB")).await;
    let started = started.expect("start the journal");
    let journal = Journal::new(started.writer);
    let engine = started.engine.start(journal.log());
    (Arc::new(engine.expect("start the engine")), journal)
}

/// Commits by so many writers for a while; how many in a second.
async fn rate(engine: &Arc<dyn Engine>, writers: usize, number: &Arc<AtomicU64>) -> f64 {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|_| {
            let (engine, number) = (Arc::clone(engine), Arc::clone(number));
            tokio::spawn(async move {
                let mut done = 0u64;
                while begun.elapsed() < RUN {
                    let key = format!("row-{:016}", number.fetch_add(1, Ordering::Relaxed));
                    let commit = Commit {
                        expect: Vec::new(),
                        ops: vec![Op::Put(key.into(), Bytes::from(vec![7; VALUE_BYTES]))],
                    };
                    engine.commit(commit).await.expect("a commit");
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await.expect("a writer ends well");
    }
    done as f64 / begun.elapsed().as_secs_f64()
}

#[tokio::main]
async fn main() {
    let given = std::env::args().nth(1).map(PathBuf::from);
    let folder = given.unwrap_or_else(std::env::temp_dir).join("commit-rate");
    let _ = std::fs::remove_dir_all(&folder);
    let synced = RocksEngine::open(&make(folder.join("synced")), &CatalogOptions::default());
    let synced: Arc<dyn Engine> = Arc::new(synced.expect("open RocksDB"));
    let (engine, journal) = journaled(&folder).await;
    let number = Arc::new(AtomicU64::new(0));
    println!("commits/s of {VALUE_BYTES} bytes: median of {ROUNDS} rounds in turns");
    for writers in [1, 16, 64, 256] {
        let mut rates: Vec<(f64, f64)> = Vec::new();
        for _ in 0..ROUNDS {
            let alone = rate(&synced, writers, &number).await;
            rates.push((alone, rate(&engine, writers, &number).await));
        }
        let median = |of: fn(&(f64, f64)) -> f64| {
            let mut all: Vec<f64> = rates.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (alone, mirrored) = (median(|rate| rate.0), median(|rate| rate.1));
        println!(
            "{writers:>4} writers: RocksDB synced {alone:>8.0}, journal on 3 disks {mirrored:>8.0}, ratio {:.2}",
            mirrored / alone
        );
    }
    journal.close().await;
    drop(engine);
    let _ = std::fs::remove_dir_all(&folder);
}

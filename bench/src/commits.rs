//! Durable commits per second: the catalog's engine over a journal on three
//! disks, and over RocksDB's own log, beside RocksDB by itself with `sync`, on
//! the same device and in turns.
//!
//! A commit is what one PUT of a blob is: two rows, four expectations.
//! RocksDB by itself gets the two rows and expects nothing.

mod journal;

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngCore;
use serde::Serialize;
use shardgate_catalog::engine::{
    Commit, Engine, Expect, Op, PlainRocks, RocksEngine, RocksOptions,
};

use crate::report;

const WRITERS: [u64; 4] = [1, 16, 64, 256];
/// Bytes of a version's row and of a blob's row without their keys.
const ROW_LENS: [usize; 2] = [110, 70];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder on the disk to measure; everything is made in a folder of its
    /// own there and removed at the end. The journal's three disks are folders
    /// there too: one device does the syncs of all.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Seconds of each load.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds of each load, in turns; the best of each counts, because what
    /// else the machine does only slows.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// One store under one load.
#[derive(Clone, Debug, Serialize)]
struct Load {
    store: &'static str,
    writers: u64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU of the whole process by commit, microseconds.
    cpu_us: f64,
    /// Of RocksDB by itself under the same load.
    share: f64,
}

#[derive(Serialize)]
struct Figures {
    load_average_before: String,
    load_average_after: String,
    loads: Vec<Load>,
}

/// What commits.
#[derive(Clone)]
enum Store {
    Plain(Arc<PlainRocks>),
    Engine(Arc<dyn Engine>),
}

/// Stores by name; the first is what the others are compared with.
struct Column {
    name: &'static str,
    store: Store,
}

/// The bucket's and the group's row, which every commit expects.
fn expected_rows() -> [(Bytes, Bytes); 2] {
    ["bucket", "group"].map(|name| (Bytes::from(name), Bytes::from(vec![7; 60])))
}

async fn columns(folder: &Path) -> Result<Vec<Column>> {
    let options = RocksOptions::default();
    let plain = PlainRocks::open(&folder.join("plain"), &options).map_err(Error::other)?;
    let engine = RocksEngine::open(&folder.join("engine"), &options).map_err(Error::other)?;
    let journal = journal::engine(&folder.join("journal"), &options).await?;
    Ok(vec![
        Column {
            name: "RocksDB sync",
            store: Store::Plain(Arc::new(plain)),
        },
        Column {
            name: "engine",
            store: Store::Engine(Arc::new(engine)),
        },
        Column {
            name: "journal",
            store: Store::Engine(Arc::new(journal)),
        },
    ])
}

/// The rows of commit `number`.
fn rows(number: u64) -> [(Bytes, Bytes); 2] {
    let value = |len| {
        let mut bytes = vec![0; len];
        rand::rng().fill_bytes(&mut bytes);
        Bytes::from(bytes)
    };
    let [version, blob] = ROW_LENS.map(value);
    let key = |space: &str| Bytes::from(format!("{space}-object-{number:020}"));
    [(key("current"), version), (key("blobs"), blob)]
}

fn commit(number: u64) -> Commit {
    let rows = rows(number);
    let held = expected_rows().map(|(key, value)| Expect::Value(key, Some(value)));
    let absent = rows.clone().map(|(key, _)| Expect::Value(key, None));
    Commit {
        expect: held.into_iter().chain(absent).collect(),
        ops: rows.map(|(key, value)| Op::Put(key, value)).into(),
    }
}

/// Commits with numbers from `first` on in steps of `step` until `until`; the
/// time of each.
async fn write(store: Store, first: u64, step: usize, until: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let numbers = (first..).step_by(step);
    match store {
        Store::Engine(engine) => {
            for number in numbers.take_while(|_| Instant::now() < until) {
                let begun = Instant::now();
                engine.commit(commit(number)).await.map_err(Error::other)?;
                times.push(begun.elapsed());
            }
            Ok(times)
        }
        Store::Plain(plain) => {
            let work = move || {
                for number in numbers.take_while(|_| Instant::now() < until) {
                    let begun = Instant::now();
                    plain.write(&rows(number)).map_err(Error::other)?;
                    times.push(begun.elapsed());
                }
                Ok(times)
            };
            tokio::task::spawn_blocking(work).await?
        }
    }
}

/// One store under one load, once.
async fn load(column: &Column, writers: u64, seconds: u64, first: &mut u64) -> Result<Load> {
    let (begun, before) = (Instant::now(), report::cpu());
    let until = begun + Duration::from_secs(seconds);
    let step = usize::try_from(writers).expect("a few writers");
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let store = column.store.clone();
            tokio::spawn(write(store, *first + writer, step, until))
        })
        .collect();
    let (mut times, mut longest) = (Vec::new(), 0);
    for task in tasks {
        let of_one = task.await??;
        longest = longest.max(of_one.len());
        times.extend(of_one);
    }
    let (took, cpu) = (begun.elapsed(), report::cpu() - before);
    *first += (longest as u64 + 1) * writers;
    times.sort_unstable();
    Ok(Load {
        store: column.name,
        writers,
        per_second: times.len() as f64 / took.as_secs_f64(),
        p50_ms: report::ms(report::quantile(&times, 0.5)),
        p99_ms: report::ms(report::quantile(&times, 0.99)),
        cpu_us: cpu.as_secs_f64() * 1e6 / times.len().max(1) as f64,
        share: 1.0,
    })
}

/// All stores under one load, in turns; the best of each.
async fn compare(
    columns: &[Column],
    writers: u64,
    args: &Args,
    first: &mut u64,
) -> Result<Vec<Load>> {
    let mut best: Vec<Load> = Vec::new();
    for _ in 0..args.rounds {
        for (at, column) in columns.iter().enumerate() {
            let load = load(column, writers, args.seconds, first).await?;
            match best.get_mut(at) {
                Some(held) if held.per_second >= load.per_second => {}
                Some(held) => *held = load,
                None => best.push(load),
            }
        }
    }
    let whole = best.first().map_or(1.0, |plain| plain.per_second);
    for load in &mut best {
        load.share = load.per_second / whole;
    }
    Ok(best)
}

/// Measures everything.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("commits-bench-")
        .tempdir_in(&args.folder)?;
    let columns = columns(folder.path()).await?;
    for column in &columns {
        if let Store::Engine(engine) = &column.store {
            let held = expected_rows().map(|(key, value)| Op::Put(key, value));
            let commit = Commit {
                expect: vec![],
                ops: held.into(),
            };
            engine.commit(commit).await.map_err(Error::other)?;
        }
    }
    let load_average_before = report::load_average();
    let (mut loads, mut first) = (Vec::new(), 0);
    for writers in WRITERS {
        let compared = compare(&columns, writers, &args, &mut first).await?;
        compared
            .iter()
            .for_each(|load| eprintln!("{}", load.line()));
        loads.extend(compared);
    }
    let figures = Figures {
        load_average_before,
        load_average_after: report::load_average(),
        loads,
    };
    let text = table(&figures).map_err(Error::other)?;
    report::write(output, "commits", &figures, &text)
}

impl Load {
    fn line(&self) -> String {
        format!(
            "{:>4} writers  {:<14} {:8.0}/s  p50 {:7.2} ms  p99 {:7.2} ms  CPU {:6.1} us  {:.2}",
            self.writers,
            self.store,
            self.per_second,
            self.p50_ms,
            self.p99_ms,
            self.cpu_us,
            self.share,
        )
    }
}

fn table(figures: &Figures) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    let (before, after) = (&figures.load_average_before, &figures.load_average_after);
    writeln!(text, "load average before {before}, after {after}")?;
    writeln!(
        text,
        "durable commits, the best of the rounds; the last column is the share of RocksDB by itself\n"
    )?;
    for load in &figures.loads {
        writeln!(text, "{}", load.line())?;
    }
    Ok(text)
}

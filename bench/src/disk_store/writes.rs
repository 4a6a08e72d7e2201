//! Durable small writes: the three stores, syncs per PUT, and fio.

use std::fs;
use std::io::{Error, Result};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use serde::Serialize;

use super::load::{self, Rate, median};
use super::stores::{Files, Rocks, Shards, random_bytes};
use super::{child, fio};

pub(super) const LENGTHS: [usize; 3] = [1024, 4096, 65_536];
pub(super) const WRITERS: [usize; 3] = [1, 16, 64];

/// One length by so many writers, each store's middle round.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) len: usize,
    pub(super) writers: usize,
    pub(super) file_per_record: Rate,
    pub(super) rocksdb: Rate,
    pub(super) store: Rate,
    /// Batches of the size that the store's syncs carry.
    pub(super) fio: Option<FioAppends>,
    /// The store's rate by that of a file per record, in each round.
    pub(super) times: Vec<f64>,
    /// By the fastest way of fio, in each round.
    pub(super) of_fio: Vec<f64>,
}

/// One after the other, so that what else the machine does meets all alike.
struct Round {
    file_per_record: Rate,
    rocksdb: Rate,
    store: Rate,
    fio: Option<FioAppends>,
}

impl Row {
    pub(super) fn line(&self) -> String {
        let mut line = format!(
            "{:>3} KiB, {:>2} writers: file per record {:<28} RocksDB {:<28} store {}",
            self.len / 1024,
            self.writers,
            self.file_per_record.cell(),
            self.rocksdb.cell(),
            self.store.cell()
        );
        let times = median(self.times.clone());
        line += &format!("\n    the store: {times:.1} times a file per record");
        if let Some(fio) = &self.fio {
            let share = median(self.of_fio.clone()) * 100.0;
            line += &format!(", {share:.0} % of fio's best\n    {}", fio.line());
        }
        line
    }
}

/// Each store in a folder of its own, and fio at 64 writers, in turns.
pub(super) async fn measure(
    parent: &Path,
    syncs: &Syncs,
    seconds: u64,
    rounds: usize,
) -> Result<Row> {
    let (len, writers) = (syncs.len, syncs.writers);
    let mut done = Vec::new();
    for _ in 0..rounds {
        let bytes = random_bytes(len);
        let file_per_record = file_per_record(parent, bytes.clone(), writers, seconds)?;
        let rocksdb = rocksdb(parent, bytes.clone(), writers, seconds).await?;
        let store = store(parent, bytes, writers, seconds).await?;
        let fio = match writers {
            64 => Some(fio_appends(parent, len, syncs.batch_bytes(), seconds)?),
            _ => None,
        };
        done.push(Round {
            file_per_record,
            rocksdb,
            store,
            fio,
        });
    }
    row(syncs, done).ok_or_else(|| Error::other("at least one round is needed"))
}

fn row(syncs: &Syncs, rounds: Vec<Round>) -> Option<Row> {
    let middle = |of: &dyn Fn(&Round) -> Rate| Rate::median(rounds.iter().map(of).collect());
    let times = |round: &Round| round.store.per_s / round.file_per_record.per_s;
    let of_fio = |round: &Round| Some(round.store.per_s / round.fio.as_ref()?.best());
    let fio: Vec<_> = rounds
        .iter()
        .filter_map(|round| round.fio.as_ref())
        .collect();
    Some(Row {
        len: syncs.len,
        writers: syncs.writers,
        file_per_record: middle(&|round| round.file_per_record.clone())?,
        rocksdb: middle(&|round| round.rocksdb.clone())?,
        store: middle(&|round| round.store.clone())?,
        fio: FioAppends::median(&fio),
        times: rounds.iter().map(times).collect(),
        of_fio: rounds.iter().filter_map(of_fio).collect(),
    })
}

fn file_per_record(parent: &Path, bytes: Bytes, writers: usize, seconds: u64) -> Result<Rate> {
    let folder = tempfile::tempdir_in(parent)?;
    let files = Files::new(folder.path(), bytes)?;
    load::threads(writers, seconds, |number| files.write(number))
}

async fn rocksdb(parent: &Path, bytes: Bytes, writers: usize, seconds: u64) -> Result<Rate> {
    let folder = tempfile::tempdir_in(parent)?;
    let rocks = Rocks::new(folder.path(), bytes)?;
    let write = move |number| {
        let rocks = rocks.clone();
        async move { rocks.write(number).await }
    };
    load::tasks(writers, seconds, &Arc::new(AtomicU64::new(1)), write).await
}

async fn store(parent: &Path, bytes: Bytes, writers: usize, seconds: u64) -> Result<Rate> {
    let folder = tempfile::tempdir_in(parent)?;
    let shards = Shards::create(folder.path(), bytes).await?;
    let next = Arc::new(AtomicU64::new(1));
    let rate = load::tasks(writers, seconds, &next, writing(&shards)).await?;
    shards.close().await;
    Ok(rate)
}

pub(super) fn writing(
    shards: &Shards,
) -> impl Fn(u64) -> futures::future::BoxFuture<'static, Result<()>> + Clone + Send + 'static {
    let shards = shards.clone();
    move |number| {
        let shards = shards.clone();
        Box::pin(async move { shards.write(number).await })
    }
}

/// What `strace` counted of a child that puts.
#[derive(Serialize)]
pub(super) struct Syncs {
    len: usize,
    writers: usize,
    puts: u64,
    syncs: u64,
}

impl Syncs {
    fn per_put(&self) -> f64 {
        self.syncs as f64 / self.puts as f64
    }

    /// Bytes of records that one sync carries, in whole pages.
    fn batch_bytes(&self) -> u64 {
        let bytes = self.len as f64 / self.per_put();
        (bytes as u64).next_multiple_of(4096)
    }

    pub(super) fn line(&self) -> String {
        let (len, writers) = (self.len / 1024, self.writers);
        let (each, puts) = (self.per_put(), self.puts);
        format!("{len:>3} KiB, {writers:>2} writers: {each:.3} syncs per PUT over {puts} PUTs")
    }
}

/// Counts the calls that make something durable, of all threads. `strace`
/// stops the process at these only.
pub(super) fn count_syncs(parent: &Path, len: usize, writers: usize) -> Result<Syncs> {
    let folder = tempfile::tempdir_in(parent)?;
    let trace = folder.path().join("trace");
    let disk = folder.path().join("disk");
    fs::create_dir(&disk)?;
    let puts = 500 * writers as u64;
    let mut strace = Command::new("strace");
    strace.args(["-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync"]);
    strace.arg("-o").arg(&trace).arg(std::env::current_exe()?);
    child::puts(&mut strace, &disk, len, writers, puts);
    let status = strace.status().map_err(|error| {
        let why = format!("strace does not start (scripts/setup.sh bench installs it): {error}");
        Error::new(error.kind(), why)
    })?;
    if !status.success() {
        return Err(Error::other(format!(
            "the traced child ended with {status}"
        )));
    }
    // A call that another thread interrupts takes two lines.
    let begins = |line: &&str| line.contains("sync(") && !line.contains("resumed>");
    let text = fs::read_to_string(&trace)?;
    let after = text.lines().skip_while(|line| !line.contains("sync("));
    Ok(Syncs {
        len,
        writers,
        puts,
        syncs: after.filter(begins).count() as u64,
    })
}

/// What fio reaches with one writer and batches of the store's size, in
/// records per second.
#[derive(Serialize)]
pub(super) struct FioAppends {
    batch_bytes: u64,
    growing: f64,
    written_before: f64,
    written_before_direct: f64,
}

impl FioAppends {
    fn median(rounds: &[&Self]) -> Option<Self> {
        let middle = |of: &dyn Fn(&Self) -> f64| median(rounds.iter().map(|r| of(r)).collect());
        Some(Self {
            batch_bytes: rounds.first()?.batch_bytes,
            growing: middle(&|round| round.growing),
            written_before: middle(&|round| round.written_before),
            written_before_direct: middle(&|round| round.written_before_direct),
        })
    }

    /// The fastest way to do it.
    fn best(&self) -> f64 {
        let cached = self.growing.max(self.written_before);
        cached.max(self.written_before_direct)
    }

    pub(super) fn line(&self) -> String {
        format!(
            "fio, append and fdatasync of {} bytes: file grows {:.0}, written before {:.0}, \
             and past the page cache {:.0} records per s",
            self.batch_bytes, self.growing, self.written_before, self.written_before_direct
        )
    }
}

fn fio_appends(parent: &Path, len: usize, batch_bytes: u64, seconds: u64) -> Result<FioAppends> {
    let records = batch_bytes as f64 / len as f64;
    let run = |overwrite: bool, direct: bool| -> Result<f64> {
        let folder = tempfile::tempdir_in(parent)?;
        let appends = fio::Appends {
            batch_bytes,
            seconds,
            overwrite,
            direct,
        };
        Ok(fio::appends(folder.path(), &appends)? * records)
    };
    Ok(FioAppends {
        batch_bytes,
        growing: run(false, false)?,
        written_before: run(true, false)?,
        written_before_direct: run(true, true)?,
    })
}

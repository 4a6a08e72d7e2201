//! Durable small writes: the three stores, syncs per PUT, and fio.

use std::fs;
use std::io::{Error, Result};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::Serialize;

use super::load::{self, Rate};
use super::stores::{Files, Rocks, Shards, random_bytes};
use super::{child, fio};

pub(super) const LENGTHS: [usize; 3] = [1024, 4096, 65_536];
pub(super) const WRITERS: [usize; 3] = [1, 16, 64];

/// One length by so many writers.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) len: usize,
    pub(super) writers: usize,
    pub(super) file_per_record: Rate,
    pub(super) rocksdb: Rate,
    pub(super) store: Rate,
}

impl Row {
    pub(super) fn line(&self) -> String {
        format!(
            "{:>3} KiB, {:>2} writers: file per record {:<28} RocksDB {:<28} store {}",
            self.len / 1024,
            self.writers,
            self.file_per_record.cell(),
            self.rocksdb.cell(),
            self.store.cell()
        )
    }
}

/// Each store in a folder of its own, one after the other.
pub(super) async fn measure(
    parent: &Path,
    len: usize,
    writers: usize,
    seconds: u64,
) -> Result<Row> {
    let bytes = random_bytes(len);
    let next = || Arc::new(AtomicU64::new(1));

    let folder = tempfile::tempdir_in(parent)?;
    let files = Files::new(folder.path(), bytes.clone())?;
    let file_per_record = load::threads(writers, seconds, |number| files.write(number))?;
    drop(files);
    drop(folder);

    let folder = tempfile::tempdir_in(parent)?;
    let rocks = Rocks::new(folder.path(), bytes.clone())?;
    let write = {
        let rocks = rocks.clone();
        move |number| {
            let rocks = rocks.clone();
            async move { rocks.write(number).await }
        }
    };
    let rocksdb = load::tasks(writers, seconds, &next(), write).await?;
    drop(rocks);
    drop(folder);

    let folder = tempfile::tempdir_in(parent)?;
    let shards = Shards::create(folder.path(), bytes).await?;
    let store = load::tasks(writers, seconds, &next(), writing(&shards)).await?;
    shards.close().await;
    Ok(Row {
        len,
        writers,
        file_per_record,
        rocksdb,
        store,
    })
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
    pub(super) fn batch_bytes(&self) -> u64 {
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
        let why = format!("strace (Debian package strace) does not start: {error}");
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
    pub(super) len: usize,
    batch_bytes: u64,
    growing: f64,
    written_before: f64,
    written_before_direct: f64,
}

impl FioAppends {
    pub(super) fn best(&self) -> f64 {
        let cached = self.growing.max(self.written_before);
        cached.max(self.written_before_direct)
    }

    pub(super) fn line(&self) -> String {
        format!(
            "{:>3} KiB records, batches of {} bytes: file grows {:.0}, written before {:.0}, \
             and past the page cache {:.0} records per s",
            self.len / 1024,
            self.batch_bytes,
            self.growing,
            self.written_before,
            self.written_before_direct
        )
    }
}

pub(super) fn fio_appends(
    parent: &Path,
    len: usize,
    batch_bytes: u64,
    seconds: u64,
) -> Result<FioAppends> {
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
        len,
        batch_bytes,
        growing: run(false, false)?,
        written_before: run(true, false)?,
        written_before_direct: run(true, true)?,
    })
}

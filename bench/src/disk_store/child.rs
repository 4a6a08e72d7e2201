//! What a child process does to a disk, and says in one line of JSON.

use std::io::{Error, Result, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use rustix::fs::Advice;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::load::{self, Rate};
use super::stores::{Shards, random_bytes};
use super::{fio, writes};

/// How many read at once.
pub(super) const READERS: [usize; 3] = [1, 16, 64];

/// Part of `disk-store`.
#[derive(Args)]
pub(crate) struct Child {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Makes a disk in FOLDER and puts records.
    Put {
        folder: PathBuf,
        len: usize,
        writers: usize,
        records: u64,
    },
    /// Opens the disk with nothing cached, and reads at random.
    Read {
        folder: PathBuf,
        len: u32,
        records: u64,
        seconds: u64,
    },
    /// Opens the disk, puts records from `first` on, says so, and waits.
    Hold {
        folder: PathBuf,
        len: usize,
        first: u64,
        records: u64,
    },
}

/// Putting many records.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Put {
    pub(super) seconds: f64,
    pub(super) resident_mib: f64,
}

/// Opening and reading.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Read {
    pub(super) open_seconds: f64,
    pub(super) before_mib: f64,
    pub(super) opened_mib: f64,
    pub(super) before_anonymous_mib: f64,
    pub(super) opened_anonymous_mib: f64,
    pub(super) after_mib: f64,
    pub(super) reads: Vec<(usize, Rate)>,
}

/// Memory of this process, MiB.
fn resident() -> f64 {
    memory("VmRSS:")
}

/// The same without the pages of programs and libraries, which other
/// processes share.
fn anonymous() -> f64 {
    memory("RssAnon:")
}

fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}

/// Puts `count` records, numbered from `first` on.
async fn put(shards: &Shards, writers: usize, first: u64, count: u64) -> Result<()> {
    let next = Arc::new(AtomicU64::new(first));
    let mut running = JoinSet::new();
    for _ in 0..writers {
        let (write, next) = (writes::writing(shards), Arc::clone(&next));
        running.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= first + count {
                    return Result::Ok(());
                }
                write(number).await?;
            }
        });
    }
    running.join_all().await.into_iter().collect()
}

/// Lets the page cache forget the files of a folder.
pub(super) fn forget(folder: &Path) -> Result<()> {
    for path in fio::files(folder, 1)? {
        let file = std::fs::File::open(path)?;
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

async fn read(folder: &Path, len: u32, records: u64, seconds: u64) -> Result<Read> {
    forget(folder)?;
    let (before_mib, before_anonymous_mib) = (resident(), anonymous());
    let begun = Instant::now();
    let shards = Shards::open(folder, random_bytes(1))?;
    let open_seconds = begun.elapsed().as_secs_f64();
    let (opened_mib, opened_anonymous_mib) = (resident(), anonymous());
    let mut reads = Vec::new();
    for readers in READERS {
        forget(folder)?;
        let op = {
            let shards = shards.clone();
            move |_| {
                let shards = shards.clone();
                let number = rand::random_range(0..records);
                async move { shards.read(number, len).await }
            }
        };
        let next = Arc::new(AtomicU64::new(0));
        reads.push((readers, load::tasks(readers, seconds, &next, op).await?));
    }
    let after_mib = resident();
    shards.close().await;
    Ok(Read {
        open_seconds,
        before_mib,
        opened_mib,
        before_anonymous_mib,
        opened_anonymous_mib,
        after_mib,
        reads,
    })
}

fn say(answer: &impl Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(answer)?)?;
    out.flush()
}

/// Does it.
pub(crate) async fn run(child: Child) -> Result<()> {
    match child.what {
        What::Put {
            folder,
            len,
            writers,
            records,
        } => {
            let shards = Shards::create(&folder, random_bytes(len)).await?;
            let begun = Instant::now();
            put(&shards, writers, 0, records).await?;
            let answer = Put {
                seconds: begun.elapsed().as_secs_f64(),
                resident_mib: resident(),
            };
            shards.close().await;
            say(&answer)
        }
        What::Read {
            folder,
            len,
            records,
            seconds,
        } => say(&read(&folder, len, records, seconds).await?),
        What::Hold {
            folder,
            len,
            first,
            records,
        } => {
            let shards = Shards::open(&folder, random_bytes(len))?;
            put(&shards, 64, first, records).await?;
            say(&"held")?;
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Ok(())
        }
    }
}

/// The arguments of a child that puts.
pub(super) fn puts(command: &mut Command, disk: &Path, len: usize, writers: usize, records: u64) {
    command.args(["disk-store-child", "put"]).arg(disk);
    command.args([len.to_string(), writers.to_string(), records.to_string()]);
    command.stdout(Stdio::null());
}

/// Runs a child to its end; what it said.
pub(super) fn ask<T: DeserializeOwned>(args: &[&str]) -> Result<T> {
    let output = Command::new(std::env::current_exe()?)
        .arg("disk-store-child")
        .args(args)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(Error::other(format!(
            "{args:?} ended with {}",
            output.status
        )));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs a child until it said something, and kills it.
pub(super) fn kill(args: &[&str]) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("disk-store-child")
        .args(args)
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().expect("it is piped");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line)?;
    child.kill()?;
    child.wait()?;
    if line.is_empty() {
        return Err(Error::other(format!("{args:?} ended by itself")));
    }
    Ok(())
}

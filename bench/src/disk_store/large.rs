//! A disk with many records: filling, opening, reading, memory.

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use serde::Serialize;
use shardgate_disk_store::MediumFigures;
use shardgate_wire::Medium;

use super::child::{self, Put, READERS, Read};
use super::fio::RandomReads;
use super::load::{Rate, median};
use super::{Args, fio};

/// Writers that fill it.
const FILLERS: &str = "256";
/// Records that are put before the kill.
const BEFORE_KILL: u64 = 10_000;
/// Files that hold records, and not only say where they are.
const VOLUMES_FROM: u64 = 8 << 20;

/// What a disk with many records costs.
#[derive(Serialize)]
pub(super) struct Figures {
    records: u64,
    record_len: usize,
    fill: Put,
    /// A round each.
    clean: Vec<Read>,
    killed: Read,
    reads: Vec<Reads>,
}

/// Random reads with nothing cached, so many at once.
#[derive(Serialize)]
struct Reads {
    readers: usize,
    /// In the middle of the rounds.
    store: Rate,
    /// Pages of the records' length, one for each reader in the kernel.
    fio_per_s: f64,
    /// The store's part of that, in each round.
    shares: Vec<f64>,
    /// The pages that a record touches, and at most as many in the kernel at
    /// once as the store has threads for reads.
    fio_alike_per_s: f64,
    alike_shares: Vec<f64>,
}

/// What fio reads beside a load of the store.
#[derive(Clone, Copy)]
struct Beside {
    per_s: f64,
    alike_per_s: f64,
}

/// Bytes of the whole pages that a record of so many bytes touches, mostly:
/// head and header come before it, and it begins anywhere in a page.
fn touched(record_len: usize) -> usize {
    const HEADS: usize = 400;
    (record_len + HEADS).next_multiple_of(PAGE)
}

const PAGE: usize = 4096;

fn beside(files: &[PathBuf], args: &Args, readers: usize) -> Result<Beside> {
    let threads = MediumFigures::of(Medium::Flash).readers;
    let page = RandomReads {
        len: args.record_len,
        align: args.record_len,
        readers,
        seconds: args.seconds,
    };
    let alike = RandomReads {
        len: touched(args.record_len),
        align: PAGE,
        readers: readers.min(threads),
        ..page
    };
    Ok(Beside {
        per_s: fio::random_reads(files, page)?,
        alike_per_s: fio::random_reads(files, alike)?,
    })
}

pub(super) fn measure(parent: &Path, args: &Args) -> Result<Figures> {
    let folder = tempfile::tempdir_in(parent)?;
    let path = folder.path().display().to_string();
    let (len, records) = (args.record_len.to_string(), args.records.to_string());
    let seconds = args.seconds.to_string();
    let fill: Put = child::ask(&["put", &path, &len, FILLERS, &records])?;
    eprintln!("filled: {fill:?}");
    let read = ["read", &path, &len, &records, &seconds];
    let files = fio::files(folder.path(), VOLUMES_FROM)?;
    let (mut clean, mut fio) = (Vec::<Read>::new(), Vec::new());
    for _ in 0..args.rounds {
        let seen: Read = child::ask(&read)?;
        eprintln!("opened after a clean stop: {seen:?}");
        let mut round = Vec::new();
        for readers in READERS {
            let beside = beside(&files, args, readers)?;
            eprintln!(
                "fio, {readers} readers: {:.0} per s, as the store reads {:.0}",
                beside.per_s, beside.alike_per_s
            );
            round.push(beside);
        }
        clean.push(seen);
        fio.push(round);
    }
    let reads = READERS.iter().enumerate().map(|(at, readers)| {
        let store: Vec<_> = clean.iter().map(|read| read.reads[at].1.clone()).collect();
        let fio: Vec<_> = fio.iter().map(|round| round[at]).collect();
        let shares = |of: &dyn Fn(&Beside) -> f64| -> Vec<f64> {
            let pairs = store.iter().zip(&fio);
            pairs.map(|(store, fio)| store.per_s / of(fio)).collect()
        };
        Some(Reads {
            readers: *readers,
            shares: shares(&|fio| fio.per_s),
            alike_shares: shares(&|fio| fio.alike_per_s),
            store: Rate::median(store)?,
            fio_per_s: median(fio.iter().map(|fio| fio.per_s).collect()),
            fio_alike_per_s: median(fio.iter().map(|fio| fio.alike_per_s).collect()),
        })
    });
    let reads = reads.collect::<Option<Vec<_>>>();
    let reads = reads.ok_or_else(|| Error::other("at least one round is needed"))?;
    let more = BEFORE_KILL.to_string();
    child::kill(&["hold", &path, &len, &records, &more])?;
    let killed: Read = child::ask(&read)?;
    eprintln!("opened after a kill: {killed:?}");
    Ok(Figures {
        records: args.records,
        record_len: args.record_len,
        fill,
        clean,
        killed,
        reads,
    })
}

impl Figures {
    pub(super) fn lines(&self) -> std::result::Result<String, std::fmt::Error> {
        let mut text = String::new();
        let (records, len) = (self.records, self.record_len);
        let rate = records as f64 / self.fill.seconds;
        writeln!(
            text,
            "{records} records of {len} bytes, put by {FILLERS} writers: {rate:.0} per s, \
             resident at the end {:.1} MiB",
            self.fill.resident_mib
        )?;
        let clean = self.clean.iter().map(|read| ("a clean stop", read));
        for (how, read) in clean.chain([("a kill", &self.killed)]) {
            writeln!(
                text,
                "open after {how}: {:.2} s; resident before {:.1} MiB, opened {:.1}, \
                 after the reads {:.1}; anonymous before {:.1}, opened {:.1}",
                read.open_seconds,
                read.before_mib,
                read.opened_mib,
                read.after_mib,
                read.before_anonymous_mib,
                read.opened_anonymous_mib
            )?;
        }
        for reads in &self.reads {
            let share = median(reads.shares.clone()) * 100.0;
            let alike = median(reads.alike_shares.clone()) * 100.0;
            writeln!(
                text,
                "random reads with a cold cache, {} readers: store {}, fio {:.0} per s: \
                 {share:.0} % in the middle of the rounds; of the pages that a record touches, \
                 with as many at once as the store has threads, {:.0}: {alike:.0} %",
                reads.readers,
                reads.store.cell(),
                reads.fio_per_s,
                reads.fio_alike_per_s,
            )?;
        }
        Ok(text)
    }
}

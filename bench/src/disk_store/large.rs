//! A disk with many records: filling, opening, reading, memory.

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::Path;

use serde::Serialize;

use super::child::{self, Put, READERS, Read};
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
    fio_per_s: f64,
    /// The store's part of fio's rate, in each round.
    shares: Vec<f64>,
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
            let per_s = fio::random_reads(&files, args.record_len, readers, args.seconds)?;
            eprintln!("fio, {readers} readers: {per_s:.0} per s");
            round.push(per_s);
        }
        clean.push(seen);
        fio.push(round);
    }
    let reads = READERS.iter().enumerate().map(|(at, readers)| {
        let store: Vec<_> = clean.iter().map(|read| read.reads[at].1.clone()).collect();
        let fio: Vec<_> = fio.iter().map(|round| round[at]).collect();
        let pairs = store.iter().zip(&fio);
        let shares = pairs.map(|(store, fio)| store.per_s / fio).collect();
        Some(Reads {
            readers: *readers,
            store: Rate::median(store)?,
            fio_per_s: median(fio),
            shares,
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
                 after the reads {:.1}",
                read.open_seconds, read.before_mib, read.opened_mib, read.after_mib
            )?;
        }
        for reads in &self.reads {
            let share = median(reads.shares.clone()) * 100.0;
            writeln!(
                text,
                "random reads with a cold cache, {} readers: store {}, fio {:.0} per s: \
                 {share:.0} % in the middle of the rounds",
                reads.readers,
                reads.store.cell(),
                reads.fio_per_s,
            )?;
        }
        Ok(text)
    }
}

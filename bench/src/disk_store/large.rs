//! A disk with many records: filling, opening, reading, memory.

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::Path;

use serde::Serialize;

use super::child::{self, Put, Read};
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
    clean: Read,
    killed: Read,
    /// Readers and reads per second.
    fio: Vec<(usize, f64)>,
}

pub(super) fn measure(parent: &Path, args: &Args) -> Result<Figures> {
    let folder = tempfile::tempdir_in(parent)?;
    let path = folder.path().display().to_string();
    let (len, records) = (args.record_len.to_string(), args.records.to_string());
    let seconds = args.seconds.to_string();
    let fill: Put = child::ask(&["put", &path, &len, FILLERS, &records])?;
    eprintln!("filled: {fill:?}");
    let read = ["read", &path, &len, &records, &seconds];
    let mut clean: Option<Read> = None;
    let mut fio: Vec<(usize, f64)> = Vec::new();
    let files = fio::files(folder.path(), VOLUMES_FROM)?;
    for _ in 0..args.rounds {
        let seen: Read = child::ask(&read)?;
        eprintln!("opened after a clean stop: {seen:?}");
        let mut reads = Vec::new();
        for (at, (readers, _)) in seen.reads.iter().enumerate() {
            let per_s = fio::random_reads(&files, args.record_len, *readers, args.seconds)?;
            eprintln!("fio, {readers} readers: {per_s:.0} per s");
            let before = fio.get(at).map_or(0.0, |(_, before)| *before);
            reads.push((*readers, per_s.max(before)));
        }
        fio = reads;
        clean = Some(seen.or_better(clean));
    }
    let clean = clean.ok_or_else(|| Error::other("at least one round is needed"))?;
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
        fio,
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
        for (how, read) in [("a clean stop", &self.clean), ("a kill", &self.killed)] {
            writeln!(
                text,
                "open after {how}: {:.2} s; resident before {:.1} MiB, opened {:.1}, \
                 after the reads {:.1}",
                read.open_seconds, read.before_mib, read.opened_mib, read.after_mib
            )?;
        }
        for ((readers, fio), (_, store)) in self.fio.iter().zip(&self.clean.reads) {
            writeln!(
                text,
                "random reads with a cold cache, {readers} readers: store {}, fio {fio:.0} per s: \
                 {:.0} %",
                store.cell(),
                store.per_s / fio * 100.0
            )?;
        }
        Ok(text)
    }
}

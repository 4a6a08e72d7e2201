//! The disk store by itself: durable small writes, cold random reads, memory,
//! opening; beside a file per record, RocksDB and fio on the same disk.
//!
//! All in one run, so that the figures are comparable. What concerns a
//! process (memory, syncs, a kill) is measured on a child process, which is
//! this program again. `--volume-max` compares extents with files instead.

mod child;
mod fio;
mod large;
mod load;
mod stores;
mod volume_max;
mod writes;

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

use serde::Serialize;
use shardgate_disk_store::medium_of;
use shardgate_wire::Medium;

pub(crate) use child::{Child, run as run_child};

use crate::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder on the disk to measure; everything is made in a folder of its
    /// own there and removed at the end.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Seconds of each load.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rounds of each load, in turns with what it is compared with; the middle
    /// of each counts, and the middle of the rounds' ratios.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Records that are read at random, kept in memory's index, and opened;
    /// 0 leaves this part out.
    #[arg(long, default_value_t = 10_000_000)]
    records: u64,
    /// Length of each of these, bytes.
    #[arg(long, default_value_t = 4096)]
    record_len: usize,
    /// Compares shards in volumes with shards in files of their own instead,
    /// by length: for `volume_max` of this medium.
    #[arg(long)]
    volume_max: bool,
    /// Figures of which medium that uses: flash or rotating; by default what
    /// the kernel says of the folder.
    #[arg(long, value_parser = parse_medium)]
    medium: Option<Medium>,
}

fn parse_medium(text: &str) -> std::result::Result<Medium, String> {
    match text {
        "flash" => Ok(Medium::Flash),
        "rotating" => Ok(Medium::Rotating),
        other => Err(format!("{other:?}: allowed are flash and rotating")),
    }
}

#[derive(Serialize)]
struct Figures {
    load_average_before: String,
    load_average_after: String,
    writes: Vec<writes::Row>,
    syncs: Vec<writes::Syncs>,
    large: Option<large::Figures>,
}

/// Measures everything.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    if args.volume_max {
        return compare_ways(args, output).await;
    }
    fio::check()?;
    let folder = tempfile::Builder::new()
        .prefix("disk-store-bench-")
        .tempdir_in(&args.folder)?;
    let load_average_before = report::load_average();
    let (mut written, mut syncs) = (Vec::new(), Vec::new());
    for len in writes::LENGTHS {
        for writers in writes::WRITERS {
            let counted = writes::count_syncs(folder.path(), len, writers)?;
            eprintln!("{}", counted.line());
            let row = writes::measure(folder.path(), &counted, args.seconds, args.rounds).await?;
            eprintln!("{}", row.line());
            written.push(row);
            syncs.push(counted);
        }
    }
    let large = if args.records > 0 {
        Some(large::measure(folder.path(), &args)?)
    } else {
        None
    };
    let figures = Figures {
        load_average_before,
        load_average_after: report::load_average(),
        writes: written,
        syncs,
        large,
    };
    let text = table(&figures).map_err(Error::other)?;
    report::write(output, "disk-store", &figures, &text)
}

#[derive(Serialize)]
struct Ways {
    load_average_before: String,
    load_average_after: String,
    medium: Medium,
    rows: Vec<volume_max::Row>,
}

async fn compare_ways(args: Args, output: &Path) -> Result<()> {
    let medium = args.medium.or_else(|| medium_of(&args.folder));
    let medium = medium.unwrap_or(Medium::Flash);
    let folder = tempfile::Builder::new()
        .prefix("volume-max-bench-")
        .tempdir_in(&args.folder)?;
    let load_average_before = report::load_average();
    let rows = volume_max::measure(folder.path(), medium, args.seconds, args.rounds).await?;
    let text = volume_max::table(&rows).map_err(Error::other)?;
    let ways = Ways {
        load_average_before,
        load_average_after: report::load_average(),
        medium,
        rows,
    };
    let (before, after) = (&ways.load_average_before, &ways.load_average_after);
    let text = format!("load average before {before}, after {after}, {medium:?}\n\n{text}");
    report::write(output, "volume-max", &ways, &text)
}

fn table(figures: &Figures) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    let (before, after) = (&figures.load_average_before, &figures.load_average_after);
    writeln!(text, "load average before {before}, after {after}\n")?;
    writeln!(
        text,
        "durable writes per second (p50, p99 in ms), the middle of the rounds"
    )?;
    for row in &figures.writes {
        writeln!(text, "{}", row.line())?;
    }
    writeln!(text, "\nsyncs per PUT of the store")?;
    for row in &figures.syncs {
        writeln!(text, "{}", row.line())?;
    }
    if let Some(large) = &figures.large {
        writeln!(text, "\n{}", large.lines()?)?;
    }
    Ok(text)
}

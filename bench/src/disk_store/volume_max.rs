//! From which length on a shard is better a file of its own: both ways for
//! each length, in turns on the same disk.
//!
//! `disk-store --volume-max` runs this part alone. Shards come in appends, as
//! the gateway sends what is longer than one block, and their length is known
//! when they are opened, so that it is the length alone that decides.

use std::fmt::Write as _;
use std::fs;
use std::io::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Serialize;
use shardgate_disk_store::{DiskOptions, MediumFigures, VolumeFigures};
use shardgate_wire::Medium;

use super::child;
use super::load::{self, Rate, median};
use super::stores::{Shards, random_bytes};
use crate::report;

const KIB: usize = 1024;
/// Lengths that are compared.
const LENGTHS: [usize; 8] = [
    256 * KIB,
    512 * KIB,
    1024 * KIB,
    2048 * KIB,
    4096 * KIB,
    8192 * KIB,
    16_384 * KIB,
    32_768 * KIB,
];
/// Writers, and readers, at once.
const AT_ONCE: usize = 16;
/// What a read fetches of a long shard at most: the range of a client.
const MOST_READ: usize = 1024 * KIB;

/// Where a shard's bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
enum Way {
    /// Into an extent of a volume.
    Extent,
    /// Into a file of its own.
    OwnFile,
}

impl Way {
    const ALL: [Self; 2] = [Self::Extent, Self::OwnFile];

    fn word(self) -> &'static str {
        match self {
            Self::Extent => "extent",
            Self::OwnFile => "own file",
        }
    }

    /// Volumes that take all lengths, or none that comes in appends.
    fn figures(self, medium: Medium) -> VolumeFigures {
        let usual = MediumFigures::of(medium).volumes;
        match self {
            // As long as a volume for the longest is worth it.
            Self::Extent => VolumeFigures {
                volume_max: *LENGTHS.last().expect("there are lengths") as u64,
                volume_bytes: usual.volume_bytes.max(256 << 20),
                ..usual
            },
            Self::OwnFile => VolumeFigures {
                volume_max: 0,
                ..usual
            },
        }
    }
}

/// One way for one length, in the middle of its rounds.
#[derive(Clone, Serialize)]
pub(super) struct Row {
    len: usize,
    way: Way,
    /// Shards that were durable, per second, and how long each took.
    writes: Rate,
    /// Bytes that this process had written to the device for each of a shard;
    /// the file system's own journal is not among them.
    written_per_byte: f64,
    /// The same as the device counts it, whoever wrote.
    device_per_byte: Option<f64>,
    cpu_s_per_gb: f64,
    /// First MiB, or all of a shorter one, with nothing cached.
    reads: Rate,
    read_cpu_us: f64,
    /// Deleted and their space given back, per second.
    deletes_per_s: f64,
}

/// Bytes that this process has caused to be written.
fn written() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    let bytes = line.and_then(|bytes| bytes.trim().parse().ok());
    bytes.ok_or_else(|| Error::other("/proc/self/io does not say write_bytes"))
}

/// Bytes that the device of a folder was given to write; `None` of one that
/// does not count.
fn device_written(folder: &Path) -> Option<u64> {
    let device = rustix::fs::stat(folder).ok()?.st_dev;
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

async fn round(parent: &Path, len: usize, way: Way, medium: Medium, seconds: u64) -> Result<Row> {
    let folder = tempfile::tempdir_in(parent)?;
    let options = DiskOptions {
        medium: Some(medium),
        volumes: Some(way.figures(medium)),
        ..DiskOptions::default()
    };
    let shards = Shards::create_with(folder.path(), random_bytes(len), options).await?;
    let next = Arc::new(AtomicU64::new(1));
    let (before, device, cpu) = (written()?, device_written(folder.path()), report::cpu());
    let stream = {
        let shards = shards.clone();
        move |number| {
            let shards = shards.clone();
            async move { shards.stream(number).await }
        }
    };
    let writes = load::tasks(AT_ONCE, seconds, &next, stream).await?;
    let cpu = report::cpu() - cpu;
    let count = next.load(Ordering::Relaxed) - 1;
    // What waits in the page cache is part of what it costs.
    rustix::fs::syncfs(fs::File::open(folder.path())?)?;
    let stored = (count * len as u64) as f64;
    let written = written()? - before;
    let device = device_written(folder.path()).zip(device);
    let device_per_byte = device.map(|(after, before)| (after - before) as f64 / stored);
    child::forget(folder.path())?;
    let (reads, read_cpu_us) = read(&shards, len, count, seconds).await?;
    let begun = Instant::now();
    shards.delete(1..=count).await?;
    let deletes_per_s = count as f64 / begun.elapsed().as_secs_f64();
    shards.close().await;
    Ok(Row {
        len,
        way,
        writes,
        written_per_byte: written as f64 / stored,
        device_per_byte,
        cpu_s_per_gb: cpu.as_secs_f64() / (stored / 1e9),
        reads,
        read_cpu_us,
        deletes_per_s,
    })
}

/// Reads at random until `seconds` are over or all was read once: the second
/// time it is in the page cache.
async fn read(shards: &Shards, len: usize, count: u64, seconds: u64) -> Result<(Rate, f64)> {
    let next = Arc::new(AtomicU64::new(0));
    let cpu = report::cpu();
    let len = u32::try_from(len.min(MOST_READ)).expect("a read is short");
    let op = {
        let shards = shards.clone();
        move |number: u64| {
            let shards = shards.clone();
            async move {
                if number >= count {
                    return Err(Error::from(std::io::ErrorKind::UnexpectedEof));
                }
                // An order that no two neighbours keep.
                let scattered = (number.wrapping_mul(2_654_435_761) % count) + 1;
                shards.read(scattered, len).await
            }
        }
    };
    let rate = load::tasks_until_eof(AT_ONCE, seconds, &next, op).await?;
    let done = next.load(Ordering::Relaxed).min(count);
    let cpu = (report::cpu() - cpu).as_secs_f64() * 1e6 / done.max(1) as f64;
    Ok((rate, cpu))
}

/// Both ways for each length, in turns.
pub(super) async fn measure(
    parent: &Path,
    medium: Medium,
    seconds: u64,
    rounds: usize,
) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for len in LENGTHS {
        let mut of_way: [Vec<Row>; 2] = Default::default();
        for _ in 0..rounds {
            for (way, rounds) in Way::ALL.into_iter().zip(&mut of_way) {
                let row = round(parent, len, way, medium, seconds).await?;
                eprintln!("{}", row.line());
                rounds.push(row);
            }
        }
        for rounds in of_way {
            rows.push(middle(rounds).ok_or_else(|| Error::other("at least one round is needed"))?);
        }
    }
    Ok(rows)
}

fn middle(rounds: Vec<Row>) -> Option<Row> {
    let of = |value: &dyn Fn(&Row) -> f64| median(rounds.iter().map(value).collect());
    let device: Option<Vec<f64>> = rounds.iter().map(|row| row.device_per_byte).collect();
    let first = rounds.first()?;
    Some(Row {
        len: first.len,
        way: first.way,
        writes: Rate::median(rounds.iter().map(|row| row.writes.clone()).collect())?,
        written_per_byte: of(&|row| row.written_per_byte),
        device_per_byte: device.map(median),
        cpu_s_per_gb: of(&|row| row.cpu_s_per_gb),
        reads: Rate::median(rounds.iter().map(|row| row.reads.clone()).collect())?,
        read_cpu_us: of(&|row| row.read_cpu_us),
        deletes_per_s: of(&|row| row.deletes_per_s),
    })
}

impl Row {
    fn line(&self) -> String {
        let mib = self.writes.per_s * self.len as f64 / 1e6;
        let device = self
            .device_per_byte
            .map_or("?".to_owned(), |per_byte| format!("{per_byte:.3}"));
        format!(
            "{:>6} KiB {:<8} {} {mib:>6.0} MB/s, {:.3} written per byte ({device} by the device), \
             {:.3} CPU-s/GB; cold reads {} {:.0} us CPU; deletes {:>6.0} per s",
            self.len / KIB,
            self.way.word(),
            self.writes.cell(),
            self.written_per_byte,
            self.cpu_s_per_gb,
            self.reads.cell(),
            self.read_cpu_us,
            self.deletes_per_s,
        )
    }
}

/// All rows, and how the two ways compare.
pub(super) fn table(rows: &[Row]) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "shards in an extent of a volume and in a file of their own, {AT_ONCE} at once: durable \
         per second (p50, p99 in ms), the middle of the rounds"
    )?;
    for row in rows {
        writeln!(text, "{}", row.line())?;
    }
    writeln!(text, "\nextent by own file:")?;
    for pair in rows.chunks_exact(2) {
        let [extent, file] = pair else { continue };
        writeln!(
            text,
            "{:>6} KiB: writes {:.2}, CPU {:.2}, cold reads {:.2}, deletes {:.2}",
            extent.len / KIB,
            extent.writes.per_s / file.writes.per_s,
            extent.cpu_s_per_gb / file.cpu_s_per_gb,
            extent.reads.per_s / file.reads.per_s,
            extent.deletes_per_s / file.deletes_per_s,
        )?;
    }
    Ok(text)
}

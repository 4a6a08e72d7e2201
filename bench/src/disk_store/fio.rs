//! The tool `fio` (Debian package of that name), for what the disk itself can.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Length of the file that is appended to; then it begins anew.
const APPEND_FILE: &str = "512m";

/// Files that it reads from: their names are numbers.
const MOST_FILES: usize = 900;

/// Whether it is there.
pub(super) fn check() -> Result<()> {
    let found = Command::new("fio").arg("--version").output();
    found.map(drop).map_err(|error| {
        let why = format!("fio does not start (scripts/setup.sh bench installs it): {error}");
        Error::new(error.kind(), why)
    })
}

fn run(args: &[String]) -> Result<Value> {
    run_in(Path::new("."), args)
}

fn run_in(folder: &Path, args: &[String]) -> Result<Value> {
    let output = Command::new("fio")
        .current_dir(folder)
        .arg("--output-format=json")
        .args(args)
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::other(format!("fio {args:?}: {why}")));
    }
    // Notes may stand before the figures.
    let start = output.stdout.iter().position(|byte| *byte == b'{');
    let text = &output.stdout[start.unwrap_or(0)..];
    let figures: Value = serde_json::from_slice(text)?;
    Ok(figures["jobs"][0].clone())
}

fn iops(job: &Value, what: &str) -> Result<f64> {
    let iops = job[what]["iops"].as_f64().filter(|iops| *iops > 0.0);
    iops.ok_or_else(|| Error::other("fio did nothing"))
}

/// How it appends.
pub(super) struct Appends {
    pub(super) batch_bytes: u64,
    pub(super) seconds: u64,
    /// Into a file that was written before.
    pub(super) overwrite: bool,
    pub(super) direct: bool,
}

/// Batches per second, each written and synced.
pub(super) fn appends(folder: &Path, appends: &Appends) -> Result<f64> {
    let Appends {
        batch_bytes,
        seconds,
        overwrite,
        direct,
    } = appends;
    let direct = u8::from(*direct);
    let mut args = vec![
        "--name=append".to_owned(),
        "--rw=write".to_owned(),
        "--ioengine=psync".to_owned(),
        "--fdatasync=1".to_owned(),
        format!("--bs={batch_bytes}"),
        format!("--direct={direct}"),
        format!("--size={APPEND_FILE}"),
        format!("--directory={}", folder.display()),
        format!("--runtime={seconds}"),
    ];
    if *overwrite {
        // Laid out with bytes before, and written round and round.
        args.extend(["--overwrite=1".to_owned(), "--time_based".to_owned()]);
    } else {
        args.extend(["--fallocate=none".to_owned(), "--file_append=1".to_owned()]);
    }
    iops(&run(&args)?, "write")
}

/// Files of at least `least` bytes in a folder and those in it.
pub(super) fn files(folder: &Path, least: u64) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut to_see = vec![folder.to_owned()];
    while let Some(folder) = to_see.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                to_see.push(entry.path());
            } else if metadata.len() >= least {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// How it reads.
#[derive(Clone, Copy)]
pub(super) struct RandomReads {
    pub(super) len: usize,
    /// Reads begin at multiples of this.
    pub(super) align: usize,
    /// Processes with one read in the kernel each.
    pub(super) readers: usize,
    pub(super) seconds: u64,
}

/// Random reads per second from files whose pages are dropped first: from all
/// of them, else what was read once is soon in memory. As the store does it:
/// through the page cache, told that nothing is to be read ahead.
pub(super) fn random_reads(files: &[PathBuf], reads: RandomReads) -> Result<f64> {
    let RandomReads {
        len,
        align,
        readers,
        seconds,
    } = reads;
    // fio takes 4,096 characters of names.
    let links = tempfile::tempdir()?;
    let mut names = Vec::new();
    let step = files.len().div_ceil(MOST_FILES).max(1);
    for (number, path) in files.iter().step_by(step).enumerate() {
        let name = number.to_string();
        std::os::unix::fs::symlink(fs::canonicalize(path)?, links.path().join(&name))?;
        names.push(name);
    }
    let job = tempfile::NamedTempFile::new()?;
    let text = format!(
        "[reads]\nfilename={}\nrw=randread\nioengine=psync\nbs={len}\nblockalign={align}\n\
         direct=0\nfadvise_hint=random\ninvalidate=1\nrandrepeat=0\nnorandommap\nnumjobs={readers}\ngroup_reporting\n\
         time_based\nruntime={seconds}\n",
        names.join(":")
    );
    fs::write(job.path(), text)?;
    let args = ["--readonly".to_owned(), job.path().display().to_string()];
    iops(&run_in(links.path(), &args)?, "read")
}

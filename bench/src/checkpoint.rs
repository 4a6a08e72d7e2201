//! What a checkpoint of the catalog sends into the pool: all of it at first,
//! and after some of the objects were overwritten, in no order of their keys.
//!
//! From the catalog alone: files are hashed as a gateway hashes them, and a
//! file counts as sent if no checkpoint before had one of that hash.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use shardgate_catalog::Catalog;
use shardgate_catalog::checkpoint::{ContentHash, folder};
use shardgate_catalog::engine::log::{CommitLog, Record};
use shardgate_catalog::engine::{Engine, EngineError, RocksEngine, RocksOptions};

use crate::listing::fill::{Filler, Names};
use crate::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder on the disk to measure; everything is made in a folder of its
    /// own there and removed at the end.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Objects.
    #[arg(long, default_value_t = 10_000_000)]
    objects: u64,
    /// How many times some of them are overwritten.
    #[arg(long, default_value_t = 5)]
    rounds: u64,
    /// So many of each thousand, each time.
    #[arg(long, default_value_t = 10)]
    per_mille: u64,
}

#[derive(Serialize)]
struct Row {
    what: String,
    files: usize,
    bytes: u64,
    sent_files: usize,
    sent_bytes: u64,
    /// Of what all files have.
    sent_percent: f64,
    /// Flush, links and hashes.
    seconds: f64,
}

/// Commits are kept by nobody: what the journal costs is measured elsewhere.
struct NoLog;

impl CommitLog for NoLog {
    fn append(&mut self, _: &[Record]) -> std::result::Result<(), EngineError> {
        Ok(())
    }

    fn leaves_durability_to_engine(&self) -> bool {
        false
    }
}

fn take(
    engine: &RocksEngine,
    at: &Path,
    pool: &mut HashSet<ContentHash>,
    what: String,
) -> Result<Row> {
    let began = Instant::now();
    engine.checkpoint(at).map_err(Error::other)?;
    let mut row = Row {
        what,
        files: 0,
        bytes: 0,
        sent_files: 0,
        sent_bytes: 0,
        sent_percent: 0.0,
        seconds: 0.0,
    };
    for file in folder::files(at)? {
        let (hash, len) = folder::hash(&at.join(&file.name))?;
        row.files += 1;
        row.bytes += len;
        if pool.insert(hash) {
            row.sent_files += 1;
            row.sent_bytes += len;
        }
    }
    row.seconds = began.elapsed().as_secs_f64();
    row.sent_percent = row.sent_bytes as f64 * 100.0 / row.bytes as f64;
    std::fs::remove_dir_all(at)?;
    Ok(row)
}

pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let dir = tempfile::tempdir_in(&args.folder)?;
    let (database, at) = (dir.path().join("rocksdb"), dir.path().join("checkpoint"));
    let engine = RocksEngine::open_with_log(&database, &RocksOptions::default(), NoLog);
    let engine = Arc::new(engine.map_err(Error::other)?);
    let catalog = Catalog::new(Arc::clone(&engine) as Arc<dyn Engine>);
    let filler = Filler::new(Arc::clone(&engine) as Arc<dyn Engine>, &catalog).await?;
    let bucket = catalog.create_bucket("bench-objects", "bench", 0).await;
    let bucket = bucket.map_err(Error::other)?;
    let names = Names::flat(args.objects);
    filler.fill(bucket.incarnation, &names);
    filler.finish().await?;
    let mut pool = HashSet::new();
    let mut rows = vec![take(
        &engine,
        &at,
        &mut pool,
        format!("{} objects", args.objects),
    )?];
    let changed = (args.objects * args.per_mille / 1000).max(1);
    for round in 0..args.rounds {
        let first = round * changed % args.objects;
        filler.fill_some(bucket.incarnation, &names, first, changed);
        filler.finish().await?;
        let what = format!("{changed} of them overwritten");
        rows.push(take(&engine, &at, &mut pool, what)?);
    }
    rows.push(take(&engine, &at, &mut pool, "nothing more".to_owned())?);
    report::write(output, "checkpoint", &rows, &table(&rows))
}

fn table(rows: &[Row]) -> String {
    let mut table = format!(
        "{:<32} {:>6} {:>14} {:>6} {:>14} {:>8} {:>8}\n",
        "checkpoint of", "files", "bytes", "sent", "bytes", "%", "s"
    );
    for row in rows {
        writeln!(
            table,
            "{:<32} {:>6} {:>14} {:>6} {:>14} {:>8.2} {:>8.2}",
            row.what,
            row.files,
            row.bytes,
            row.sent_files,
            row.sent_bytes,
            row.sent_percent,
            row.seconds
        )
        .expect("writing to a string does not fail");
    }
    table
}

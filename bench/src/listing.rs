//! Listings of buckets of every size, from the catalog alone: what a returned
//! key costs where a bucket has few and where it has many, with a delimiter
//! over many prefixes, and behind keys that were deleted. Besides, how long a
//! catalog of that size takes to open.
//!
//! Rows are made by commits of many, in an order that has nothing to do with
//! that of the keys, as clients make them.

pub(crate) mod fill;

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use serde::Serialize;
use shardgate_catalog::engine::{Engine, RocksEngine, RocksOptions};
use shardgate_catalog::{Catalog, ListFrom, ListQuery};
use shardgate_wire::BucketIncarnation;

use crate::report;
use fill::{Filler, Names};

/// Entries of a page, as S3 has them at most.
const PAGE: usize = 1000;
/// Keys of the bucket that the others are compared with.
const FEW: u64 = 10_000;
/// Buckets are measured in turns, so that whatever else the machine does
/// falls on all of them.
const ROUNDS: u64 = 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Folder on the disk to measure; everything is made in a folder of its
    /// own there and removed at the end.
    #[arg(long, default_value = ".")]
    folder: PathBuf,
    /// Keys of the large bucket.
    #[arg(long, default_value_t = 10_000_000)]
    keys: u64,
    /// Common prefixes of the bucket that is listed with a delimiter; two keys
    /// below each.
    #[arg(long, default_value_t = 1_000_000)]
    prefixes: u64,
    /// Keys at the front of a bucket that are deleted.
    #[arg(long, default_value_t = 3_000_000)]
    deleted: u64,
    /// Pages of each bucket.
    #[arg(long, default_value_t = 1000)]
    pages: u64,
}

/// What listing one bucket took.
#[derive(Clone, Debug, Serialize)]
struct Pages {
    bucket: String,
    entries: u64,
    p50_ms: f64,
    p99_ms: f64,
    /// CPU of the whole process by entry, microseconds.
    cpu_us_per_entry: f64,
}

/// One listing behind deleted keys.
#[derive(Clone, Debug, Serialize)]
struct Behind {
    seconds_after: f64,
    ms: f64,
}

#[derive(Serialize)]
struct Figures {
    keys: u64,
    filled_in_seconds: f64,
    catalog_bytes: u64,
    open_ms: f64,
    pages: Vec<Pages>,
    deleted: u64,
    behind_deleted: Vec<Behind>,
}

/// A bucket to list.
struct Bucket {
    label: String,
    incarnation: BucketIncarnation,
    names: Names,
    delimiter: Option<String>,
}

impl Bucket {
    /// Any page that is full.
    fn query(&self) -> ListQuery {
        let last = self.names.count.saturating_sub(PAGE as u64 + 1);
        let from = match rand::rng().random_range(0..=last) {
            0 => None,
            at => Some(ListFrom::marker(
                "",
                self.delimiter.as_deref(),
                &self.names.key(at),
            )),
        };
        ListQuery {
            delimiter: self.delimiter.clone(),
            from,
            limit: PAGE,
            ..ListQuery::default()
        }
    }
}

fn open(folder: &Path) -> Result<Arc<dyn Engine>> {
    let engine = RocksEngine::open(folder, &RocksOptions::default());
    Ok(Arc::new(engine.map_err(Error::other)?))
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

/// Lists pages of each bucket in turns.
async fn list_pages(catalog: &Catalog, buckets: &[Bucket], pages: u64) -> Result<Vec<Pages>> {
    let mut times = vec![Vec::new(); buckets.len()];
    let mut spent = vec![Duration::ZERO; buckets.len()];
    for _ in 0..ROUNDS {
        for (at, bucket) in buckets.iter().enumerate() {
            let before = report::cpu();
            for _ in 0..pages.div_ceil(ROUNDS) {
                let query = bucket.query();
                let begun = Instant::now();
                let page = catalog.list_objects(bucket.incarnation, &query).await;
                let page = page.map_err(Error::other)?;
                times[at].push(begun.elapsed());
                assert_eq!(page.entries.len(), PAGE, "a full page of {}", bucket.label);
            }
            spent[at] += report::cpu() - before;
        }
    }
    let figures = buckets.iter().zip(times).zip(spent);
    Ok(figures
        .map(|((bucket, mut times), spent)| {
            times.sort_unstable();
            let entries = (times.len() * PAGE) as u64;
            Pages {
                bucket: bucket.label.clone(),
                entries,
                p50_ms: report::ms(report::quantile(&times, 0.5)),
                p99_ms: report::ms(report::quantile(&times, 0.99)),
                cpu_us_per_entry: spent.as_secs_f64() * 1e6 / entries as f64,
            }
        })
        .collect())
}

/// Lists the front of a bucket from which keys were just deleted, again and
/// again while other writes go on.
async fn list_behind(
    catalog: &Catalog,
    filler: &Filler,
    bucket: &Bucket,
    deleted: u64,
) -> Result<Vec<Behind>> {
    filler.delete_first(bucket.incarnation, &bucket.names, deleted);
    filler.finish().await?;
    let (begun, mut behind) = (Instant::now(), Vec::new());
    for seconds in [0, 1, 2, 5, 10, 20, 40] {
        let at = begun + Duration::from_secs(seconds);
        tokio::time::sleep_until(at.into()).await;
        for _ in 0..2 {
            let asked = Instant::now();
            let query = ListQuery {
                limit: PAGE,
                ..ListQuery::default()
            };
            let page = catalog.list_objects(bucket.incarnation, &query).await;
            let page = page.map_err(Error::other)?;
            assert_eq!(page.entries.len(), PAGE, "a full page behind what is gone");
            behind.push(Behind {
                seconds_after: (asked - begun).as_secs_f64(),
                ms: report::ms(asked.elapsed()),
            });
        }
        filler.put(bucket.incarnation, "other writes go on");
        filler.finish().await?;
    }
    Ok(behind)
}

/// The buckets, with nothing in them.
async fn buckets(catalog: &Catalog, args: &Args) -> Result<Vec<Bucket>> {
    let mut buckets = Vec::new();
    for (label, names, delimiter) in [
        (format!("{FEW} keys"), Names::flat(FEW), None),
        (format!("{} keys", args.keys), Names::flat(args.keys), None),
        (
            format!("{} prefixes", args.prefixes),
            Names::folders(args.prefixes),
            Some("/".to_owned()),
        ),
        (
            format!("{} keys deleted at its front", args.deleted),
            Names::flat(args.deleted + 10 * PAGE as u64),
            None,
        ),
    ] {
        let name = format!("bucket-{}", buckets.len());
        let row = catalog.create_bucket(&name, "bench", 0).await;
        buckets.push(Bucket {
            label,
            incarnation: row.map_err(Error::other)?.incarnation,
            names,
            delimiter,
        });
    }
    Ok(buckets)
}

/// Measures everything.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let temporary = tempfile::Builder::new()
        .prefix("listing-bench-")
        .tempdir_in(&args.folder)?;
    let folder = temporary.path().join("catalog");
    let begun = Instant::now();
    let engine = open(&folder)?;
    let catalog = Catalog::new(Arc::clone(&engine));
    let buckets = buckets(&catalog, &args).await?;
    let filler = Filler::new(engine, &catalog).await?;
    for bucket in &buckets {
        filler.fill(bucket.incarnation, &bucket.names);
        filler.finish().await?;
        eprintln!("{} made after {:.0?}", bucket.label, begun.elapsed());
    }
    let filled_in_seconds = begun.elapsed().as_secs_f64();
    drop((filler, catalog));
    let begun = Instant::now();
    let engine = open(&folder)?;
    let catalog = Catalog::new(Arc::clone(&engine));
    let first = buckets[1].query();
    let page = catalog.list_objects(buckets[1].incarnation, &first).await;
    assert_eq!(page.map_err(Error::other)?.entries.len(), PAGE);
    let open_ms = report::ms(begun.elapsed());
    eprintln!("opened and listed in {open_ms:.0} ms");
    let filler = Filler::new(engine, &catalog).await?;
    let mut pages = list_pages(&catalog, &buckets[..3], args.pages).await?;
    let behind = list_behind(&catalog, &filler, &buckets[3], args.deleted).await?;
    pages.extend(list_pages(&catalog, &buckets[1..2], args.pages).await?);
    let figures = Figures {
        keys: args.keys,
        filled_in_seconds,
        catalog_bytes: folder_bytes(&folder)?,
        open_ms,
        pages,
        deleted: args.deleted,
        behind_deleted: behind,
    };
    let text = table(&figures).map_err(Error::other)?;
    report::write(output, "listing", &figures, &text)
}

fn table(figures: &Figures) -> std::result::Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "made in {:.0} s, {:.2} GB; opened after a clean stop, with a first page, in {:.0} ms\n",
        figures.filled_in_seconds,
        figures.catalog_bytes as f64 / 1e9,
        figures.open_ms,
    )?;
    writeln!(text, "pages of {PAGE} entries from anywhere")?;
    for pages in &figures.pages {
        writeln!(
            text,
            "{:<28} p50 {:7.2} ms  p99 {:7.2} ms  CPU {:5.2} us per entry",
            pages.bucket, pages.p50_ms, pages.p99_ms, pages.cpu_us_per_entry,
        )?;
    }
    writeln!(
        text,
        "\nthe first page of a bucket whose first {} keys were deleted",
        figures.deleted
    )?;
    for behind in &figures.behind_deleted {
        writeln!(
            text,
            "{:6.1} s after  {:9.2} ms",
            behind.seconds_after, behind.ms
        )?;
    }
    Ok(text)
}

//! `shardgate-bench`: what the store costs, measured from outside.
//!
//! Starts a pool of its own, loads it over HTTP with a generator that costs
//! next to nothing, and writes a JSON file and a readable table. Figures of
//! one run are comparable with each other; those of two runs are not.

mod checkpoint;
mod commits;
mod data_path;
mod disk_store;
mod listing;
mod memory;
mod report;
mod slow;
mod stalled;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures the store from outside: operations, bytes, latency, CPU, memory")]
struct Args {
    /// Folder for the JSON file and the table.
    #[arg(long, default_value = "bench-results", global = true)]
    output: PathBuf,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// PUT and GET by size, concurrency and kind of signature.
    DataPath(data_path::Args),
    /// The gateway's memory while many clients move large objects.
    Memory(memory::Args),
    /// The disk store beside a file per record, RocksDB and fio.
    DiskStore(disk_store::Args),
    /// Part of `disk-store`, which starts it.
    #[command(hide = true)]
    DiskStoreChild(disk_store::Child),
    /// Durable commits of the catalog beside RocksDB by itself.
    Commits(commits::Args),
    /// What a checkpoint of the catalog sends after 1 % of it changed.
    Checkpoint(checkpoint::Args),
    /// Listings of buckets of ten thousand keys and of ten million.
    Listing(listing::Args),
    /// Many slow clients, and a fast one beside them.
    Slow(slow::Args),
    /// PUTs while one agent after another does not answer.
    Stalled(stalled::Args),
    /// Part of `slow`, which starts it.
    #[command(hide = true)]
    SlowLoad(slow::Load),
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.output)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match args.what {
        What::DataPath(what) => runtime.block_on(data_path::run(what, &args.output)),
        What::Memory(what) => runtime.block_on(memory::run(what, &args.output)),
        What::DiskStore(what) => runtime.block_on(disk_store::run(what, &args.output)),
        What::DiskStoreChild(what) => runtime.block_on(disk_store::run_child(what)),
        What::Commits(what) => runtime.block_on(commits::run(what, &args.output)),
        What::Checkpoint(what) => runtime.block_on(checkpoint::run(what, &args.output)),
        What::Listing(what) => runtime.block_on(listing::run(what, &args.output)),
        What::Slow(what) => runtime.block_on(slow::run(what, &args.output)),
        What::Stalled(what) => runtime.block_on(stalled::run(what, &args.output)),
        What::SlowLoad(what) => runtime.block_on(slow::run_load(what)),
    }
}

//! The gateway's memory while many clients put and get large objects.

use std::io::Result;
use std::path::Path;

use serde::Serialize;
use shardgate_tests::large::{Load, Outcome, measure};

use crate::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Clients at once; each puts its object, then gets it, and again.
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// Size of an object, MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Times that each client puts and gets.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

#[derive(Serialize)]
struct Row {
    clients: usize,
    object_mib: u64,
    outcome: Outcome,
}

/// Runs the clients and states the peak.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let load = Load {
        clients: args.clients,
        mib: args.mib,
        rounds: args.rounds,
    };
    let outcome = measure(load).await?;
    let table = format!(
        "{} clients, objects of {} MiB: {:.1} GB moved in {:.0} s, peak resident {:.0} MiB\n",
        args.clients, args.mib, outcome.gb_moved, outcome.seconds, outcome.peak_mib
    );
    let row = Row {
        clients: args.clients,
        object_mib: args.mib,
        outcome,
    };
    report::write(output, "memory", &row, &table)
}

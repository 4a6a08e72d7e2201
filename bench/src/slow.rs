//! Many slow clients, and a fast one beside them.

use std::io::Result;
use std::path::Path;

use serde::Serialize;
use shardgate_tests::slow::{Load, Outcome, measure};

use crate::report;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Slow downloads at once.
    #[arg(long, default_value_t = 2000)]
    gets: usize,
    /// Slow uploads at once.
    #[arg(long, default_value_t = 200)]
    puts: usize,
    /// Bytes per second of each.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Seconds that they go on while the fast client is measured.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

#[derive(Serialize)]
struct Row {
    gets: usize,
    puts: usize,
    outcome: Outcome,
}

/// Measures, and writes what it saw.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let load = Load {
        gets: args.gets,
        puts: args.puts,
        rate: args.rate,
        seconds: args.seconds,
    };
    let outcome = measure(&load).await?;
    let table = format!(
        "{} GETs and {} PUTs at {} B/s on 8+4: peak resident {:.0} MiB, at most {} connections to an agent;\n\
         fast client: p99 alone {:.2} ms, beside them {:.2} ms (p50 {:.2} and {:.2} ms)\n",
        args.gets,
        args.puts,
        args.rate,
        outcome.peak_mib,
        outcome.connections_to_an_agent,
        outcome.alone_p99_ms,
        outcome.beside_p99_ms,
        outcome.alone_p50_ms,
        outcome.beside_p50_ms,
    );
    let row = Row {
        gets: args.gets,
        puts: args.puts,
        outcome,
    };
    report::write(output, "slow-clients", &row, &table)
}

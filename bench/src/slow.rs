//! Many slow clients, and a fast one beside them.
//!
//! The slow ones are a process of their own at the lowest priority, the fast
//! one a thread of its own without a runtime, so that what is measured of it
//! is the store's. What every process took of the processors, and how long
//! its threads waited for one, is measured too: on a machine that does
//! everything itself it tells the store's share from the machine's.

mod fast;
mod load;
mod usage;

use std::fmt::Write as _;
use std::io::Result;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use shardgate_tests::pool::TestPool;
use shardgate_tests::slow::{self, Ended};
use tokio::time::sleep;

use crate::report;
use fast::{FastClient, Times};
use load::LoadProcess;
pub(crate) use load::{Load, run as run_load};
use usage::{Share, Usage};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The slow clients.
    #[command(flatten)]
    load: load::Figures,
    /// What the fast client reads in turns, bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [4096, 1_048_576])]
    sizes: Vec<usize>,
    /// Seconds that the fast client is measured, alone and beside them.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// The fast client's times of one size.
#[derive(Serialize)]
struct Fast {
    size_bytes: usize,
    alone: Times,
    beside: Times,
}

#[derive(Serialize)]
struct Row {
    gets: usize,
    puts: usize,
    rate: u64,
    seconds: u64,
    peak_mib: f64,
    resident_at_the_end_mib: f64,
    connections_to_an_agent: usize,
    ended: Ended,
    fast: Vec<Fast>,
    alone: Vec<Share>,
    beside: Vec<Share>,
}

/// Measures the fast client for some seconds, and what everybody takes
/// meanwhile; gives the most connections that an agent had, too.
async fn phase(
    pool: &TestPool,
    args: &Args,
    load: Option<&LoadProcess>,
) -> Result<(Vec<Times>, Vec<Share>, usize)> {
    let fast = FastClient::start(&pool.client(), &args.sizes, args.seconds)?;
    let mut named = vec![("gateway", Vec::new()), ("agents", Vec::new())];
    named[0].1.extend(pool.gateway.iter().map(|it| it.id()));
    named[1]
        .1
        .extend(pool.agents.iter().flatten().map(|it| it.id()));
    named.extend(load.map(|load| ("slow clients", vec![load.id()])));
    let before: Vec<Usage> = named.iter().map(|(_, pids)| Usage::of(pids)).collect();
    let mut connections = 0;
    while !fast.is_finished() {
        connections = connections.max(slow::most_connections(pool));
        sleep(Duration::from_millis(500)).await;
    }
    let shares = named.iter().zip(before).map(|((name, pids), before)| {
        let took = Usage::of(pids) - before;
        Share::new(name, took, args.seconds)
    });
    let mut shares: Vec<Share> = shares.collect();
    let (times, own) = fast.end()?;
    shares.push(Share::new("fast client", own, args.seconds));
    Ok((times, shares, connections))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Measures, and writes what it saw.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let mut pool = slow::pool();
    slow::fill(&pool.client(), &args.sizes).await?;
    let (alone, alone_shares, _) = phase(&pool, &args, None).await?;
    let load = LoadProcess::start(pool.addr, &args.load)?;
    let (beside, beside_shares, connections) = phase(&pool, &args, Some(&load)).await?;
    let ended = load.end()?;
    let memory = pool.gateway.as_ref().expect("the gateway runs").memory();
    pool.stop();
    let times = args.sizes.iter().zip(alone.into_iter().zip(beside));
    let row = Row {
        gets: args.load.gets,
        puts: args.load.puts,
        rate: args.load.rate,
        seconds: args.seconds,
        peak_mib: mib(memory.peak),
        resident_at_the_end_mib: mib(memory.resident),
        connections_to_an_agent: connections,
        ended,
        fast: times
            .map(|(size, (alone, beside))| Fast {
                size_bytes: *size,
                alone,
                beside,
            })
            .collect(),
        alone: alone_shares,
        beside: beside_shares,
    };
    report::write(output, "slow-clients", &row, &table(&row))
}

fn table(row: &Row) -> String {
    let mut text = format!(
        "{} GETs and {} PUTs at {} B/s on 8+4 for {} s, {} of them served to the end: \
         peak resident {:.0} MiB, {:.0} at the end, at most {} connections to an agent\n",
        row.gets,
        row.puts,
        row.rate,
        row.seconds,
        row.ended.served,
        row.peak_mib,
        row.resident_at_the_end_mib,
        row.connections_to_an_agent,
    );
    for (why, clients) in &row.ended.cut_off {
        let _ = writeln!(text, "{clients} clients: {why}");
    }
    text.push_str("fast GET of     alone p50    p99 ms  beside p50    p99 ms   times\n");
    for fast in &row.fast {
        let _ = writeln!(
            text,
            "{:>11} {:>13.3} {:>9.3} {:>11.3} {:>9.3} {:>7.2}",
            fast.size_bytes,
            fast.alone.p50_ms,
            fast.alone.p99_ms,
            fast.beside.p50_ms,
            fast.beside.p99_ms,
            fast.beside.p99_ms / fast.alone.p99_ms,
        );
    }
    for (when, shares) in [("alone", &row.alone), ("beside", &row.beside)] {
        for share in shares {
            let _ = writeln!(
                text,
                "{when:<7} {:<13} {:>6.3} processors, waits {:>6.3} s per s, {:>6.0} turns per s, {:>5.0} us wait per turn",
                share.name,
                share.processors,
                share.waiting,
                share.turns_per_second,
                share.wait_per_turn_us,
            );
        }
    }
    text
}

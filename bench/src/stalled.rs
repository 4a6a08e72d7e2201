//! What clients notice when a server stops answering: PUTs go on while one
//! agent after another is stopped for a while. Each of them keeps shards, and
//! most keep the journal.

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::process::Signal;
use serde::Serialize;
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::report;

const BUCKET: &str = "stalled";
/// Keys that the PUTs go round.
const RING: u64 = 4000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Agents, with a disk each.
    #[arg(long, default_value_t = 6)]
    agents: usize,
    /// Clients that put at once.
    #[arg(long, default_value_t = 16)]
    clients: u64,
    /// Bytes of an object.
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Seconds that an agent is stopped.
    #[arg(long, default_value_t = 10)]
    stopped: u64,
    /// Seconds before the first stop, and after each.
    #[arg(long, default_value_t = 10)]
    well: u64,
}

/// PUTs that ended within one stretch of time.
#[derive(Serialize)]
struct Stretch {
    what: String,
    puts: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    longest_ms: f64,
}

/// Times of the PUTs since they were last taken.
#[derive(Clone, Default)]
struct Times(Arc<Mutex<Vec<Duration>>>);

impl Times {
    /// Waits, then takes what was measured meanwhile.
    async fn stretch(&self, what: String, seconds: u64) -> Stretch {
        self.0.lock().clear();
        sleep(Duration::from_secs(seconds)).await;
        let mut times = std::mem::take(&mut *self.0.lock());
        times.sort_unstable();
        Stretch {
            what,
            puts: times.len(),
            per_second: times.len() as f64 / seconds as f64,
            p50_ms: report::ms(report::quantile(&times, 0.5)),
            p99_ms: report::ms(report::quantile(&times, 0.99)),
            longest_ms: report::ms(report::quantile(&times, 1.0)),
        }
    }
}

/// Clients that put until `stop`; an answer other than 200 ends the run.
fn start(
    pool: &TestPool,
    args: &Args,
    times: &Times,
    stop: &CancellationToken,
) -> Vec<JoinHandle<Result<()>>> {
    let body = Bytes::from(random::bytes(1, args.size));
    let writer = |number: u64| {
        let (client, body, step) = (pool.client(), body.clone(), args.clients);
        let (times, stop) = (times.clone(), stop.clone());
        tokio::spawn(async move {
            let mut at = number;
            while !stop.is_cancelled() {
                let key = format!("{}", at % RING);
                let begun = Instant::now();
                let put = client.put(BUCKET, &key, body.clone());
                let answer = put.send().await.map_err(|cut| Error::other(cut.why))?;
                answer.expect_status(200);
                times.0.lock().push(begun.elapsed());
                at += step;
            }
            Ok(())
        })
    };
    (0..args.clients).map(writer).collect()
}

/// Measures, and writes what it saw.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let mut pool = TestPool::with_agents(args.agents, 1, None);
    pool.client().make_bucket(BUCKET).await;
    let (times, stop) = (Times::default(), CancellationToken::new());
    let writers = start(&pool, &args, &times, &stop);
    sleep(Duration::from_secs(args.well)).await;
    let mut stretches = vec![times.stretch("all well".to_owned(), args.well).await];
    for agent in 0..args.agents {
        let process = pool.agents[agent].as_ref().expect("the agent runs");
        process.signal(Signal::STOP);
        let what = format!("agent {agent} stopped");
        stretches.push(times.stretch(what, args.stopped).await);
        process.signal(Signal::CONT);
        stretches.push(
            times
                .stretch(format!("agent {agent} back"), args.well)
                .await,
        );
    }
    stop.cancel();
    for writer in writers {
        writer.await??;
    }
    pool.stop();
    report::write(output, "stalled", &stretches, &table(&stretches))
}

fn table(stretches: &[Stretch]) -> String {
    let mut text = String::from("what                    PUT/s    p50 ms    p99 ms  longest ms\n");
    for of in stretches {
        let _ = writeln!(
            text,
            "{:<20} {:>8.0} {:>9.2} {:>9.2} {:>11.2}",
            of.what, of.per_second, of.p50_ms, of.p99_ms, of.longest_ms,
        );
    }
    text
}

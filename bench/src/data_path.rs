//! PUT and GET by size, concurrency and kind of signature.
//!
//! Every cell runs for a set time over its own connections. PUTs go round a
//! ring of keys, so that the disks do not fill; CPU is that of the gateway
//! and of all agents together, the generator's own is not in it.

use std::fmt::Write as _;
use std::io::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use futures::future::try_join_all;
use http::Method;
use serde::Serialize;
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;
use shardgate_tests::raw::Connection;
use shardgate_tests::sigv4::{self, Keys, Unsigned};
use time::OffsetDateTime;

use crate::report;

const BUCKET: &str = "bench";

/// How requests are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Auth {
    /// In the query, once for each key.
    Presigned,
    /// In the header, anew for each request, payload not hashed.
    Header,
    /// In the header, with the payload's SHA-256.
    Payload,
}

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Object sizes, bytes.
    #[arg(long, value_delimiter = ',', default_values_t = [4096, 65_536, 1_048_576, 67_108_864])]
    sizes: Vec<usize>,
    /// Requests at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    concurrency: Vec<usize>,
    /// Kinds of signature.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Auth::Presigned, Auth::Header])]
    auth: Vec<Auth>,
    /// Seconds that a cell runs.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Agent processes with one disk each, instead of the embedded pool.
    #[arg(long)]
    agents: Option<usize>,
    /// Disks of the embedded pool.
    #[arg(long, default_value_t = 6)]
    disks: usize,
}

#[derive(Serialize)]
struct Row {
    operation: String,
    auth: Auth,
    size_bytes: usize,
    concurrency: usize,
    operations: usize,
    per_second: f64,
    gb_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_seconds_per_gb: f64,
    cpu_us_per_operation: f64,
}

struct Load {
    addr: std::net::SocketAddr,
    keys: Keys,
    method: Method,
    auth: Auth,
    body: Vec<u8>,
    payload_hash: String,
    ring: usize,
    until: Instant,
}

impl Load {
    fn path(&self, size: usize, slot: usize) -> String {
        format!("/{BUCKET}/{size}/{}", slot % self.ring)
    }

    /// A request's head, ready to send.
    fn head(&self, path: &str) -> Vec<u8> {
        let host = self.addr.to_string();
        let method = self.method.as_str();
        let len = if self.method == Method::PUT {
            self.body.len()
        } else {
            0
        };
        let request = Unsigned {
            method,
            host: &host,
            path,
            query: &[],
            headers: &[],
        };
        let now = OffsetDateTime::now_utc();
        let (target, headers) = match self.auth {
            Auth::Presigned => (sigv4::presign(&self.keys, &request, 3600, now), Vec::new()),
            Auth::Header | Auth::Payload => {
                let hash = match (self.auth, len) {
                    (Auth::Payload, 1..) => self.payload_hash.as_str(),
                    _ => sigv4::UNSIGNED,
                };
                (
                    path.to_owned(),
                    sigv4::sign_headers(&self.keys, &request, hash, now),
                )
            }
        };
        let mut head =
            format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len}\r\n");
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// One client: requests one after another until the time is up.
    async fn client(
        self: Arc<Self>,
        first: usize,
        step: usize,
        size: usize,
    ) -> Result<Vec<Duration>> {
        let mut connection = Connection::open(self.addr, None).await?;
        let mut times = Vec::new();
        let mut slot = first;
        let mut prepared: Vec<Option<Vec<u8>>> = vec![None; self.ring];
        while Instant::now() < self.until {
            let path = self.path(size, slot);
            let fresh;
            let head = if self.auth == Auth::Presigned {
                prepared[slot % self.ring].get_or_insert_with(|| self.head(&path))
            } else {
                fresh = self.head(&path);
                &fresh
            };
            let body: &[u8] = if self.method == Method::PUT {
                &self.body
            } else {
                &[]
            };
            let begun = Instant::now();
            connection.send(head, body).await?;
            let answer = connection.head().await?;
            if answer.status != 200 {
                return Err(Error::other(format!(
                    "{} {path}: status {}",
                    self.method, answer.status
                )));
            }
            connection.drain(answer).await?;
            times.push(begun.elapsed());
            slot += step;
        }
        Ok(times)
    }
}

fn cpu_seconds(pool: &TestPool) -> f64 {
    let agents = pool.agents.iter().flatten();
    agents
        .chain(pool.gateway.iter())
        .map(|process| process.cpu_seconds())
        .sum()
}

/// Keys that PUTs go round and GETs read.
fn ring(size: usize) -> usize {
    (256 * 1024 * 1024 / size.max(1)).clamp(8, 2000)
}

struct Cell {
    method: Method,
    auth: Auth,
    size: usize,
    concurrency: usize,
    seconds: u64,
}

async fn measure(pool: &TestPool, cell: &Cell) -> Result<Row> {
    let body = random::bytes(cell.size as u64, cell.size);
    let load = Arc::new(Load {
        addr: pool.addr,
        keys: pool.client().keys,
        method: cell.method.clone(),
        auth: cell.auth,
        payload_hash: sigv4::sha256_hex(&body),
        body,
        ring: ring(cell.size),
        until: Instant::now() + Duration::from_secs(cell.seconds),
    });
    let (cpu, begun) = (cpu_seconds(pool), Instant::now());
    let clients = (0..cell.concurrency)
        .map(|first| tokio::spawn(Arc::clone(&load).client(first, cell.concurrency, cell.size)));
    let mut times = Vec::new();
    for client in try_join_all(clients).await? {
        times.extend(client?);
    }
    let (cpu, elapsed) = (cpu_seconds(pool) - cpu, begun.elapsed().as_secs_f64());
    times.sort();
    let gb = (times.len() * cell.size) as f64 / 1e9;
    Ok(Row {
        operation: cell.method.to_string(),
        auth: cell.auth,
        size_bytes: cell.size,
        concurrency: cell.concurrency,
        operations: times.len(),
        per_second: times.len() as f64 / elapsed,
        gb_per_second: gb / elapsed,
        p50_ms: report::ms(report::quantile(&times, 0.5)),
        p99_ms: report::ms(report::quantile(&times, 0.99)),
        cpu_seconds_per_gb: cpu / gb,
        cpu_us_per_operation: cpu * 1e6 / times.len() as f64,
    })
}

/// Writes every key of the ring once, so that each GET finds one.
async fn fill(pool: &TestPool, size: usize) -> Result<()> {
    let client = pool.client();
    let body = bytes::Bytes::from(random::bytes(size as u64, size));
    for slot in 0..ring(size) {
        let ask = client.put(BUCKET, &format!("{size}/{slot}"), body.clone());
        let answer = ask.send().await.map_err(|cut| Error::other(cut.why))?;
        answer.expect_status(200);
    }
    Ok(())
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "op   auth       size      conc      ops/s     GB/s    p50 ms    p99 ms  CPU-s/GB  CPU-us/op\n",
    );
    for row in rows {
        let _ = writeln!(
            text,
            "{:<4} {:<9} {:>9} {:>4} {:>10.0} {:>8.3} {:>9.2} {:>9.2} {:>9.2} {:>10.0}",
            row.operation,
            format!("{:?}", row.auth).to_lowercase(),
            row.size_bytes,
            row.concurrency,
            row.per_second,
            row.gb_per_second,
            row.p50_ms,
            row.p99_ms,
            row.cpu_seconds_per_gb,
            row.cpu_us_per_operation,
        );
    }
    text
}

/// Measures every cell.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let mut pool = match args.agents {
        Some(agents) => TestPool::with_agents(agents, 1, None),
        None => TestPool::embedded(args.disks),
    };
    pool.client().make_bucket(BUCKET).await;
    let mut rows = Vec::new();
    for &size in &args.sizes {
        fill(&pool, size).await?;
        for method in [Method::PUT, Method::GET] {
            for &auth in &args.auth {
                for &concurrency in &args.concurrency {
                    let seconds = args.seconds;
                    let cell = Cell {
                        method: method.clone(),
                        auth,
                        size,
                        concurrency,
                        seconds,
                    };
                    let row = measure(&pool, &cell).await?;
                    eprint!("{}", table(std::slice::from_ref(&row)));
                    rows.push(row);
                }
            }
        }
    }
    pool.stop();
    let name = if args.agents.is_some() {
        "data-path-agents"
    } else {
        "data-path-embedded"
    };
    report::write(output, name, &rows, &table(&rows))
}

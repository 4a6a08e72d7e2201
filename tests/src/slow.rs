//! Many slow clients on an 8+4 pool of three agents, and a fast client whose
//! latency is taken alone and beside them.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::Client;
use crate::process::TestPool;
use crate::random;
use crate::raw::Connection;

const BUCKET: &str = "slow";
/// Larger than any slow client takes while it is measured.
const LARGE: usize = 32 * 1024 * 1024;
/// What the fast client reads.
const SMALL: usize = 64 * 1024;
/// A slow client's receive buffer: what the kernel takes for it in advance.
const RECEIVE_BUFFER: u32 = 32 * 1024;

/// How many, how slow, how long.
pub struct Load {
    /// Downloads at once.
    pub gets: usize,
    /// Uploads at once.
    pub puts: usize,
    /// Bytes per second of each.
    pub rate: u64,
    /// Seconds that the fast client is measured, alone and beside them.
    pub seconds: u64,
}

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The gateway's highest resident memory, MiB.
    pub peak_mib: f64,
    /// Most connections to one agent at any sample.
    pub connections_to_an_agent: usize,
    /// Fast client alone.
    pub alone_p50_ms: f64,
    /// Fast client alone.
    pub alone_p99_ms: f64,
    /// Fast client beside the slow ones.
    pub beside_p50_ms: f64,
    /// Fast client beside the slow ones.
    pub beside_p99_ms: f64,
    /// Slow clients that were still served at the end.
    pub served: usize,
    /// The others: how many ended why.
    pub cut_off: BTreeMap<String, usize>,
}

async fn slow_get(client: Client, rate: u64) -> Result<()> {
    let path = client.presign(&Method::GET, &format!("/{BUCKET}/large"), 3600);
    let mut connection = Connection::open(client.addr, Some(RECEIVE_BUFFER)).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", client.addr);
    connection.send(head.as_bytes(), &[]).await?;
    let answer = connection.head().await?;
    if answer.status != 200 {
        return Err(Error::other(format!("slow GET: status {}", answer.status)));
    }
    connection.drain_slowly(answer, rate).await
}

async fn slow_put(client: Client, number: usize, rate: u64, body: Arc<Vec<u8>>) -> Result<()> {
    let path = client.presign(&Method::PUT, &format!("/{BUCKET}/put-{number}"), 3600);
    let mut connection = Connection::open(client.addr, None).await?;
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n",
        client.addr,
        body.len()
    );
    connection.send_slowly(head.as_bytes(), &body, rate).await?;
    match connection.head().await?.status {
        200 => Ok(()),
        status => Err(Error::other(format!("slow PUT: status {status}"))),
    }
}

/// Times of small reads, one after another, sorted.
async fn fast_client(client: &Client, seconds: u64) -> Result<Vec<Duration>> {
    let path = client.presign(&Method::GET, &format!("/{BUCKET}/small"), 3600);
    let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", client.addr);
    let mut connection = Connection::open(client.addr, None).await?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut times = Vec::new();
    while Instant::now() < until {
        let begun = Instant::now();
        connection.send(head.as_bytes(), &[]).await?;
        let answer = connection.head().await?;
        if answer.status != 200 {
            return Err(Error::other(format!("fast GET: status {}", answer.status)));
        }
        connection.drain(answer).await?;
        times.push(begun.elapsed());
        sleep(Duration::from_millis(1)).await;
    }
    times.sort();
    Ok(times)
}

/// Connections that the listener at `addr` has, from the kernel's table.
fn established(addr: SocketAddr) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("read the kernel's table");
    let port = format!(":{:04X}", addr.port());
    let is_established = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        local.ends_with(&port) && fields.nth(1) == Some("01")
    };
    table.lines().filter(is_established).count()
}

fn most_connections(pool: &TestPool) -> usize {
    pool.agent_addrs()
        .iter()
        .map(|&addr| established(addr))
        .max()
        .unwrap_or(0)
}

fn quantile_ms(times: &[Duration], q: f64) -> f64 {
    let at = ((times.len() - 1) as f64 * q).round() as usize;
    times[at].as_secs_f64() * 1000.0
}

fn start_slow_clients(client: &Client, load: &Load) -> Vec<JoinHandle<Result<()>>> {
    let body = Arc::new(random::bytes(9, LARGE));
    let gets = (0..load.gets).map(|_| tokio::spawn(slow_get(client.clone(), load.rate)));
    let mut clients: Vec<_> = gets.collect();
    clients.extend((0..load.puts).map(|number| {
        tokio::spawn(slow_put(
            client.clone(),
            number,
            load.rate,
            Arc::clone(&body),
        ))
    }));
    clients
}

/// Starts a pool, measures the fast client alone and beside the slow ones.
pub async fn measure(load: &Load) -> Result<Outcome> {
    let mut pool = TestPool::with_agents(3, 4, Some("8+4"));
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    for (key, len) in [("large", LARGE), ("small", SMALL)] {
        let ask = client.put(BUCKET, key, random::bytes(1, len));
        ask.send()
            .await
            .map_err(|cut| Error::other(cut.why))?
            .expect_status(200);
    }
    let alone = fast_client(&client, load.seconds).await?;
    let slow = start_slow_clients(&client, load);
    // All of them are connected and past their first bytes.
    sleep(Duration::from_secs(10)).await;
    let mut connections = most_connections(&pool);
    let beside = {
        let mut fast = Box::pin(fast_client(&client, load.seconds));
        loop {
            tokio::select! {
                times = &mut fast => break times?,
                () = sleep(Duration::from_millis(250)) => {
                    connections = connections.max(most_connections(&pool));
                }
            }
        }
    };
    let (mut served, mut cut_off) = (0, BTreeMap::new());
    for client in slow {
        if !client.is_finished() {
            served += 1;
            client.abort();
            continue;
        }
        let why = match client.await.map_err(Error::other)? {
            Ok(()) => "it ended early".to_owned(),
            Err(error) => error.to_string(),
        };
        *cut_off.entry(why).or_default() += 1;
    }
    let gateway = pool.gateway.as_ref().expect("the gateway runs");
    let peak_mib = gateway.memory().peak as f64 / f64::from(1 << 20);
    pool.stop();
    Ok(Outcome {
        peak_mib,
        connections_to_an_agent: connections,
        alone_p50_ms: quantile_ms(&alone, 0.5),
        alone_p99_ms: quantile_ms(&alone, 0.99),
        beside_p50_ms: quantile_ms(&beside, 0.5),
        beside_p99_ms: quantile_ms(&beside, 0.99),
        served,
        cut_off,
    })
}

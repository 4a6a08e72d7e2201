//! Many slow clients on an 8+4 pool of three agents.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::Client;
use crate::pool::TestPool;
use crate::random;
use crate::raw::Connection;

/// The bucket of all objects.
pub const BUCKET: &str = "slow";
/// What slow clients read, longer than any takes while it is measured: at
/// 50 KB/s, eleven minutes.
const LARGE: usize = 32 * 1024 * 1024;
/// A slow client's receive buffer: what the kernel takes for it in advance.
const RECEIVE_BUFFER: u32 = 32 * 1024;

/// How many, how slow.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Downloads at once.
    pub gets: usize,
    /// Uploads at once.
    pub puts: usize,
    /// Bytes per second of each.
    pub rate: u64,
    /// The time in which they begin, one after another.
    pub ramp: Duration,
}

/// What became of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ended {
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
    let sent = connection.send_slowly(head.as_bytes(), &body, rate).await;
    // A server that refuses a body answers before it has all of it.
    match (connection.head().await.map(|answer| answer.status), sent) {
        (Ok(200), Ok(())) => Ok(()),
        (Ok(status), _) => Err(Error::other(format!("slow PUT: status {status}"))),
        (Err(_), Err(cut)) | (Err(cut), Ok(())) => Err(cut),
    }
}

/// The pool that they are served by.
pub fn pool() -> TestPool {
    TestPool::with_agents(3, 4, Some("8+4"))
}

/// Stores what they read, and objects of `sizes` under their sizes.
pub async fn fill(client: &Client, sizes: &[usize]) -> Result<()> {
    client.make_bucket(BUCKET).await;
    let named = sizes.iter().map(|size| (size.to_string(), *size));
    for (key, len) in named.chain([("large".to_owned(), LARGE)]) {
        let ask = client.put(BUCKET, &key, random::bytes(1, len));
        let answer = ask.send().await.map_err(|cut| Error::other(cut.why))?;
        answer.expect_status(200);
    }
    Ok(())
}

/// The other ends of the connections that the listener at `addr` has, from
/// the kernel's table.
fn established(addr: SocketAddr) -> BTreeSet<String> {
    let table = fs::read_to_string("/proc/net/tcp").expect("read the kernel's table");
    let port = format!(":{:04X}", addr.port());
    let peer = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, peer, state) = (fields.next()?, fields.next()?, fields.next()?);
        (local.ends_with(&port) && state == "01").then(|| peer.to_owned())
    };
    table.lines().filter_map(peer).collect()
}

/// The most connections that one agent of the pool has at one instant.
///
/// The kernel writes its table piece by piece, and on a busy machine it takes
/// long: a connection that ends meanwhile and the one that follows it can
/// both be in it. Those that are in two tables, one read after the other, all
/// were there between the two.
pub fn most_connections(pool: &TestPool) -> usize {
    let at_once = |addr: &SocketAddr| established(*addr).intersection(&established(*addr)).count();
    pool.agent_addrs().iter().map(at_once).max().unwrap_or(0)
}

/// Slow clients that are served.
pub struct SlowClients(Vec<JoinHandle<Result<()>>>);

impl SlowClients {
    /// Starts them, and waits until all have begun. Uploads come between the
    /// downloads.
    pub async fn start(client: &Client, load: &Load) -> Self {
        let body = Arc::new(random::bytes(9, LARGE));
        let all = load.gets + load.puts;
        let mut clients = Vec::with_capacity(all);
        let begun = tokio::time::Instant::now();
        for number in 0..all {
            tokio::time::sleep_until(begun + load.ramp * number as u32 / all as u32).await;
            let is_put = (number + 1) * load.puts / all > number * load.puts / all;
            clients.push(match is_put {
                true => {
                    let body = Arc::clone(&body);
                    tokio::spawn(slow_put(client.clone(), number, load.rate, body))
                }
                false => tokio::spawn(slow_get(client.clone(), load.rate)),
            });
        }
        Self(clients)
    }

    /// Ends them.
    pub async fn end(self) -> Result<Ended> {
        let mut ended = Ended::default();
        for client in self.0 {
            if !client.is_finished() {
                ended.served += 1;
                client.abort();
                continue;
            }
            let why = match client.await.map_err(Error::other)? {
                Ok(()) => "it ended early".to_owned(),
                Err(error) => error.to_string(),
            };
            *ended.cut_off.entry(why).or_default() += 1;
        }
        Ok(ended)
    }
}

/// What was seen of the pool while they were served.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The gateway's highest resident memory, MiB.
    pub peak_mib: f64,
    /// Most connections to one agent at any sample.
    pub connections_to_an_agent: usize,
    /// What became of the clients.
    pub ended: Ended,
    /// What the gateway complained of.
    pub complaints: Vec<String>,
}

/// Starts a pool and slow clients, and looks at it for some seconds.
pub async fn measure(load: &Load, seconds: u64) -> Result<Outcome> {
    let mut pool = pool();
    let client = pool.client();
    fill(&client, &[]).await?;
    let slow = SlowClients::start(&client, load).await;
    let mut connections = 0;
    for _ in 0..seconds * 4 {
        connections = connections.max(most_connections(&pool));
        sleep(Duration::from_millis(250)).await;
    }
    let ended = slow.end().await?;
    let gateway = pool.gateway.as_ref().expect("the gateway runs");
    let peak_mib = gateway.memory().peak as f64 / f64::from(1 << 20);
    let said = gateway.output();
    let is_complaint = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    let complaints = said.lines().filter(is_complaint).map(str::to_owned);
    let complaints = complaints.collect();
    pool.stop();
    Ok(Outcome {
        peak_mib,
        connections_to_an_agent: connections,
        ended,
        complaints,
    })
}

//! Many clients that put and get large objects at once, and what the gateway
//! holds in memory meanwhile.

use std::io::{Error, Result};
use std::time::{Duration, Instant};

use http::Method;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::Client;
use crate::pool::TestPool;
use crate::random;
use crate::raw::{Connection, Head};

const BUCKET: &str = "large";
/// What a client sends over and over to make up its object.
const PIECE: usize = 1024 * 1024;

/// How many, how large, how often.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Clients at once; each puts an object of its own, then gets it.
    pub clients: usize,
    /// Size of an object, MiB.
    pub mib: u64,
    /// Times that each client puts and gets.
    pub rounds: usize,
}

/// What was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// From the first byte to the last.
    pub seconds: f64,
    /// Sent and received, 1e9 bytes.
    pub gb_moved: f64,
    /// The gateway's highest resident memory, MiB.
    pub peak_mib: f64,
}

/// Runs the clients against an embedded pool of six disks; all that they get
/// is compared with what they put.
///
/// # Errors
/// A client that was refused, cut off, or got other bytes.
pub async fn measure(load: Load) -> Result<Outcome> {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for number in 0..load.clients {
        clients.spawn(one_client(client.clone(), number, load));
    }
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                Some(outcome) => outcome.map_err(Error::other)??,
                None => break,
            },
            () = sleep(Duration::from_secs(1)) => {
                let gateway = pool.gateway.as_ref().expect("the gateway runs");
                let mib = gateway.memory().resident >> 20;
                eprintln!("{:4.0} s resident {mib} MiB", begun.elapsed().as_secs_f64());
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let gateway = pool.gateway.as_ref().expect("the gateway runs");
    let peak_mib = gateway.memory().peak as f64 / f64::from(1 << 20);
    pool.stop();
    let moved = load.clients as u64 * load.mib * PIECE as u64 * 2 * load.rounds as u64;
    Ok(Outcome {
        seconds,
        gb_moved: moved as f64 / 1e9,
        peak_mib,
    })
}

/// Puts and gets of different clients overlap: each goes on by itself.
async fn one_client(client: Client, number: usize, load: Load) -> Result<()> {
    let piece = random::bytes(number as u64, PIECE);
    for _ in 0..load.rounds {
        put(&client, number, load.mib, &piece).await?;
        get(&client, number, load.mib, &piece).await?;
    }
    Ok(())
}

async fn put(client: &Client, key: usize, mib: u64, piece: &[u8]) -> Result<()> {
    let path = client.presign(&Method::PUT, &format!("/{BUCKET}/{key}"), 86_400);
    let len = mib * PIECE as u64;
    let host = client.addr;
    let head = format!("PUT {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len}\r\n\r\n");
    let mut connection = Connection::open(client.addr, None).await?;
    connection.send(head.as_bytes(), &[]).await?;
    for _ in 0..mib {
        connection.send(&[], piece).await?;
    }
    let answer = expect_ok(&mut connection, 0).await?;
    connection.drain(answer).await
}

async fn get(client: &Client, key: usize, mib: u64, piece: &[u8]) -> Result<()> {
    let path = client.presign(&Method::GET, &format!("/{BUCKET}/{key}"), 86_400);
    let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", client.addr);
    let mut connection = Connection::open(client.addr, None).await?;
    connection.send(head.as_bytes(), &[]).await?;
    let answer = expect_ok(&mut connection, mib * PIECE as u64).await?;
    connection.compare(answer, piece).await
}

async fn expect_ok(connection: &mut Connection, len: u64) -> Result<Head> {
    let head = connection.head().await?;
    match head.status == 200 && head.body_len == len {
        true => Ok(head),
        false => Err(Error::other(format!("{head:?}"))),
    }
}

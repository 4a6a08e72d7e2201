//! The gateway's memory while many clients put and get large objects.

use std::io::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use http::Method;
use serde::Serialize;
use shardgate_tests::client::Client;
use shardgate_tests::process::TestPool;
use shardgate_tests::random;
use shardgate_tests::raw::Connection;

use crate::report;

const BUCKET: &str = "large";
/// What is sent over and over to make up an object.
const PIECE: usize = 1024 * 1024;

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
    seconds: f64,
    gb_moved: f64,
    peak_mib: f64,
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
    expect_ok(&mut connection, 0).await
}

async fn get(client: &Client, key: usize, mib: u64) -> Result<()> {
    let path = client.presign(&Method::GET, &format!("/{BUCKET}/{key}"), 86_400);
    let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", client.addr);
    let mut connection = Connection::open(client.addr, None).await?;
    connection.send(head.as_bytes(), &[]).await?;
    expect_ok(&mut connection, mib * PIECE as u64).await
}

async fn expect_ok(connection: &mut Connection, len: u64) -> Result<()> {
    let head = connection.head().await?;
    if head.status != 200 || head.body_len != len {
        return Err(Error::other(format!("{head:?}")));
    }
    connection.drain(head).await
}

/// Puts and gets of different clients overlap: each goes on by itself.
async fn one_client(
    client: Client,
    number: usize,
    args: Arc<Args>,
    piece: Arc<Vec<u8>>,
) -> Result<()> {
    for _ in 0..args.rounds {
        put(&client, number, args.mib, &piece).await?;
        get(&client, number, args.mib).await?;
    }
    Ok(())
}

/// Runs the clients and states the peak.
pub(crate) async fn run(args: Args, output: &Path) -> Result<()> {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    let args = Arc::new(args);
    let piece = Arc::new(random::bytes(7, PIECE));
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..args.clients)
        .map(|number| {
            let (args, piece) = (Arc::clone(&args), Arc::clone(&piece));
            tokio::spawn(one_client(client.clone(), number, args, piece))
        })
        .collect();
    let mut running = Box::pin(try_join_all(clients.drain(..)));
    let outcomes = loop {
        let gateway = pool.gateway.as_ref().expect("the gateway runs");
        tokio::select! {
            outcomes = &mut running => break outcomes?,
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                let memory = gateway.memory();
                eprintln!("{:4.0} s resident {} MiB", begun.elapsed().as_secs_f64(), memory.resident >> 20);
            }
        }
    };
    outcomes.into_iter().collect::<Result<Vec<()>>>()?;
    let gateway = pool.gateway.as_ref().expect("the gateway runs");
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let moved = args.clients as u64 * args.mib * PIECE as u64 * 2 * args.rounds as u64;
    let row = Row {
        clients: args.clients,
        object_mib: args.mib,
        seconds: begun.elapsed().as_secs_f64(),
        gb_moved: moved as f64 / 1e9,
        peak_mib: mib(gateway.memory().peak),
    };
    let table = format!(
        "{} clients, objects of {} MiB: {:.1} GB moved in {:.0} s, peak resident {:.0} MiB\n",
        row.clients, row.object_mib, row.gb_moved, row.seconds, row.peak_mib
    );
    pool.stop();
    report::write(output, "memory", &row, &table)
}

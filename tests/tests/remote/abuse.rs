//! What arrives at an agent's port and is not a call.

use std::net::SocketAddr;
use std::time::Duration;

use shardgate_agent::Limits;
use shardgate_wire::DiskId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::agent::{TestAgent, memory, put, secret};

const DISK: &str = "00000000000000000000000000000001";
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends `text`, and reads until the agent closes.
async fn say(address: SocketAddr, text: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The agent may close before it has read all of it.
    let _ = stream.write_all(text).await;
    heard(&mut stream).await
}

async fn heard(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(Ok(len @ 1..)) = timeout(PATIENCE, stream.read(&mut piece)).await {
        answer.extend_from_slice(&piece[..len]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

fn call(headers: &str, body: &str) -> Vec<u8> {
    let head = format!("POST /v1/disks/{DISK}/shards/read HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    [head.as_bytes(), body.as_bytes()].concat()
}

fn quick() -> Limits {
    let soon = Duration::from_millis(300);
    Limits {
        body: soon,
        idle: soon,
        first_call: Duration::from_secs(1),
        ..Limits::default()
    }
}

/// Attacks 72, 82, 83 and 85, and an agent that still works after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_072_what_is_not_a_call_is_refused() {
    let (store, _) = memory(1).await;
    let agent = TestAgent::start_with(vec![store], quick(), Some(secret())).await;
    let mac = format!("x-shardgate-mac: {}.{}\r\n", "0".repeat(80), "0".repeat(64));
    let protocol = "x-shardgate-protocol: 2\r\n";
    let known = format!("{protocol}{mac}");
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let cases: [(&str, Vec<u8>, &[&str]); 14] = [
        ("noise", b"\x16\x03\x01\x02\x00\x01\x00".repeat(20), &["400"]),
        ("no protocol", call("content-length: 0\r\n", ""), &["400"]),
        ("no code", call(&format!("{protocol}content-length: 0\r\n"), ""), &["401"]),
        ("no body", call(&known, ""), &["400"]),
        ("zero code", call(&format!("{known}content-length: 6\r\n"), "\x01\x01\0\0\0x"), &["401"]),
        ("head beyond body", call(&format!("{known}content-length: 6\r\n"), "\x01\x7f\x7f\0\0x"), &["400"]),
        ("declared huge", call(&format!("{known}content-length: 99999999999\r\n"), "x"), &["400"]),
        ("declared more", call(&format!("{known}content-length: 9\r\n"), "\x01\x01"), &["408"]),
        ("chunked", call(&format!("{known}transfer-encoding: chunked\r\n"), "0\r\n\r\n"), &["400"]),
        ("both", call(&format!("{known}content-length: 5\r\ntransfer-encoding: chunked\r\n"), "0\r\n\r\n"), &["400"]),
        ("two lengths", call(&format!("{known}content-length: 5\r\ncontent-length: 6\r\n"), "123456"), &["400"]),
        ("many headers", call(&many, ""), &["400", "431"]),
        ("long header", call(&format!("x: {}\r\n", "y".repeat(100_000)), ""), &["400", "431", ""]),
        ("escape", b"POST /v1/disks/../../etc/passwd/health HTTP/1.1\r\nhost: a\r\nx-shardgate-protocol: 2\r\nx-shardgate-mac: 0\r\n\r\n".to_vec(), &["401", "404"]),
    ];
    for (what, text, statuses) in cases {
        let answer = say(agent.address, &text).await;
        let status = answer.split(' ').nth(1).unwrap_or("");
        assert!(statuses.contains(&status), "{what}: {answer:?}");
    }
    put(&agent.client().disk(DiskId(1)), 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_healthz_needs_no_secret() {
    let (store, _) = memory(1).await;
    let agent = TestAgent::start_with(vec![store], quick(), Some(secret())).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let answer = say(agent.address, get("/healthz").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
        "{answer}"
    );
    for path in ["/", "/v1/agent", "/metrics", "/healthz/"] {
        let answer = say(agent.address, get(path).as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{path}: {answer}");
    }
}

/// Attack 76: who says nothing, or says it forever, is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_076_silent_and_slow_callers_are_given_up() {
    let (store, _) = memory(1).await;
    let agent = TestAgent::start_with(vec![store], quick(), Some(secret())).await;
    let mut silent = TcpStream::connect(agent.address).await.unwrap();
    assert_eq!(heard(&mut silent).await, "");
    let mut dripping = TcpStream::connect(agent.address).await.unwrap();
    dripping
        .write_all(b"GET /healthz HTTP/1.1\r\nx: ")
        .await
        .unwrap();
    heard(&mut dripping).await;
    // Health checks do not make a caller known.
    let mut asking = TcpStream::connect(agent.address).await.unwrap();
    let ask = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut closed = false;
    for _ in 0..200 {
        let mut answer = [0; 1024];
        let sent = asking.write_all(ask).await;
        let read = asking.read(&mut answer).await;
        if sent.is_err() || matches!(read, Ok(0) | Err(_)) {
            closed = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(closed, "a caller that is never known keeps its connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_are_turned_away() {
    let (store, _) = memory(1).await;
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let agent = TestAgent::start_with(vec![store], limits, Some(secret())).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(agent.address).await.unwrap();
        let ask = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        let mut answer = [0; 1024];
        assert!(stream.read(&mut answer).await.unwrap() > 0);
        held.push(stream);
    }
    let mut third = TcpStream::connect(agent.address).await.unwrap();
    assert_eq!(heard(&mut third).await, "");
    drop(held);
    let disk = agent.client().disk(DiskId(1));
    let mut tries = 0;
    while put(&disk, 1).await.is_err() {
        tries += 1;
        assert!(tries < 100, "the places are not given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

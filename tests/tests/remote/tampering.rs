//! Someone between gateway and agent changes or repeats what passes.

use std::sync::Arc;
use std::time::Duration;

use shardgate::agents::{AgentClient, AgentSettings};
use shardgate::seam::SetClock;
use shardgate_wire::checksum::first_bad_block;
use shardgate_wire::conformance::sample;
use shardgate_wire::mac::Secret;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{DiskId, ShardStore, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::agent::{TestAgent, client, memory, put};
use crate::proxy::{self, Change};

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Flips a bit `behind` bytes after the end of the HTTP head of a message
/// that holds `mark`.
fn flip(mark: &'static [u8], behind: usize) -> Change {
    Arc::new(move |piece| {
        let Some(end) = find(piece, b"\r\n\r\n") else {
            return;
        };
        if find(piece, mark).is_some()
            && let Some(byte) = piece.get_mut(end + 4 + behind)
        {
            *byte ^= 1;
        }
    })
}

/// Attack 75: whatever of a request is changed, nothing is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_075_a_changed_request_is_refused() {
    // In the version, the head's length, the head, the data.
    for behind in [0, 1, 5, 30, 700] {
        let (store, handle) = memory(1).await;
        let agent = TestAgent::start(vec![store]).await;
        let change = flip(b"/shards/put", behind);
        let (address, _) = proxy::start(agent.address, change, proxy::nothing()).await;
        let disk = client(address, AgentSettings::default()).disk(DiskId(1));
        assert!(put(&disk, 1).await.is_err(), "byte {behind}");
        assert!(handle.finished().is_empty(), "byte {behind}");
    }
}

/// Attack 75: a changed answer is an error; changed data do not match the
/// checksums that came with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_075_a_changed_answer_is_refused() {
    for behind in [0, 1, 5, 8, 500] {
        let (store, _) = memory(1).await;
        let agent = TestAgent::start(vec![store]).await;
        put(&agent.client().disk(DiskId(1)), 1).await.unwrap();
        let change = flip(b"content-length: 10", behind);
        let (address, _) = proxy::start(agent.address, proxy::nothing(), change).await;
        let disk = client(address, AgentSettings::default()).disk(DiskId(1));
        match disk.read(sample::key(1), 0, 1000).await {
            Err(StoreError::Unreachable { .. }) => assert!(behind < 500),
            Ok(read) => {
                assert_eq!(behind, 500);
                assert_eq!(first_bad_block(&read.bytes, &read.crcs), Some(0));
            }
            other => panic!("byte {behind}: {other:?}"),
        }
    }
}

/// Attack 71: what was heard on the wire does nothing when it is said again,
/// and nothing else when it is changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_071_a_recorded_request_does_nothing() {
    let (store, handle) = memory(1).await;
    let agent = TestAgent::start(vec![store]).await;
    let (address, seen) = proxy::start(agent.address, proxy::nothing(), proxy::nothing()).await;
    let disk = client(address, AgentSettings::default()).disk(DiskId(1));
    put(&disk, 1).await.unwrap();
    let ctx = sample::context(1);
    disk.delete(&ctx, &[sample::key(1)]).await.unwrap();
    put(&disk, 1).await.unwrap();
    let heard = seen.requests();
    let at = find(
        &heard,
        b"POST /v1/disks/00000000000000000000000000000001/shards/delete",
    );
    let delete = &heard[at.expect("a delete was heard")..];
    for said in [
        delete.to_vec(),
        replace(delete, b"/shards/delete", b"/shards/append"),
        replace(delete, b"POST /v1", b"PUT  /v1"),
    ] {
        let mut stream = TcpStream::connect(agent.address).await.unwrap();
        stream.write_all(&said).await.unwrap();
        let mut answer = vec![0; 4096];
        let len = stream.read(&mut answer).await.unwrap_or(0);
        let answer = String::from_utf8_lossy(&answer[..len]).into_owned();
        assert!(
            !answer.starts_with("HTTP/1.1 200"),
            "{answer} to {}",
            String::from_utf8_lossy(&said)
        );
    }
    assert_eq!(handle.calls(Call::Delete), 1);
    assert_eq!(handle.finished().len(), 1);
}

fn replace(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    assert_eq!(what.len(), with.len());
    let at = find(bytes, what).expect("it is there");
    let mut bytes = bytes.to_vec();
    bytes[at..at + with.len()].copy_from_slice(with);
    bytes
}

/// Attacks 69 and 70: another secret, none, or another time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attack_070_strangers_are_refused() {
    let (store, handle) = memory(1).await;
    let agent = TestAgent::start(vec![store]).await;
    let other = Secret::from_text("another-secret-of-just-as-many-bytes-45").unwrap();
    let now = || Arc::new(shardgate::seam::SystemClock);
    let clients = [
        stranger(&agent, Some(other), now()),
        stranger(&agent, None, now()),
        stranger(
            &agent,
            Some(crate::agent::secret()),
            Arc::new(SetClock::at(0)),
        ),
    ];
    for client in clients {
        let disk = client.disk(DiskId(1));
        for outcome in [
            put(&disk, 1).await,
            disk.stat(sample::key(1)).await.map(|_| ()),
            client.report().await.map(|_| ()),
        ] {
            assert!(
                matches!(outcome, Err(StoreError::Unreachable { .. })),
                "{outcome:?}"
            );
        }
    }
    assert_eq!(handle.calls(Call::Put) + handle.calls(Call::Stat), 0);
}

fn stranger(
    agent: &TestAgent,
    secret: Option<Secret>,
    clock: Arc<dyn shardgate::seam::Clock>,
) -> Arc<AgentClient> {
    let settings = AgentSettings {
        call_timeout: Duration::from_secs(5),
        ..AgentSettings::default()
    };
    let address = agent.address.to_string();
    AgentClient::new(address, secret, settings, clock, TaskTracker::new())
}

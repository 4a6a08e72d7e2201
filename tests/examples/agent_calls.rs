//! What calls to an agent cost, over loopback, with a store that keeps nothing.
//!
//! `cargo run --release -p shardgate-tests --example agent_calls`: appends and
//! reads of 256 KiB in GB/s and CPU-s/GB, small shards per second. Both ends
//! run in this process, so the CPU time is that of both. The store neither
//! checks nor writes: what is left is the way to it and back.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use shardgate::agents::{AgentClient, AgentSettings, RemoteDisk};
use shardgate::seam::SystemClock;
use shardgate_agent::gate::{Gate, system_clock};
use shardgate_agent::metrics::Metrics;
use shardgate_agent::{Agent, FolderSet, Lanes, Limits, Who, serve};
use shardgate_wire::conformance::sample;
use shardgate_wire::mac::Secret;
use shardgate_wire::message::{FolderReport, FormatHead};
use shardgate_wire::store::{
    ListedShard, ShardBytes, ShardEnd, ShardHandle, ShardStat, SmallShard,
};
use shardgate_wire::{
    AgentId, BlobId, BlobNote, CallContext, CheckCursor, CheckPage, DamagedShard, DiskHealth,
    DiskId, GroupId, NoteCursor, NotePage, ShardHeader, ShardKey, ShardStore, SlotAssignment,
    StoreError,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const BLOCK: usize = 256 * 1024;
const SECRET: &str = "an-example-secret-of-enough-bytes-0123";

/// Answers at once.
struct Nothing {
    disk: DiskId,
    bytes: Bytes,
}

type Outcome<T = ()> = Result<T, StoreError>;

#[async_trait]
impl ShardStore for Nothing {
    fn disk(&self) -> DiskId {
        self.disk
    }
    async fn raise_epoch(&self, _: &CallContext) -> Outcome {
        Ok(())
    }
    async fn assign(&self, _: &CallContext, _: &[SlotAssignment]) -> Outcome {
        Ok(())
    }
    async fn open(&self, _: &CallContext, _: ShardHeader, _: Option<u64>) -> Outcome<ShardHandle> {
        Ok(ShardHandle(1))
    }
    async fn append(
        &self,
        _: &CallContext,
        _: ShardHandle,
        _: u64,
        _: Bytes,
        _: &[u32],
    ) -> Outcome {
        Ok(())
    }
    async fn finish(&self, _: &CallContext, _: ShardHandle, _: ShardEnd) -> Outcome {
        Ok(())
    }
    async fn abort(&self, _: &CallContext, _: ShardHandle) -> Outcome {
        Ok(())
    }
    async fn put(&self, _: &CallContext, _: SmallShard) -> Outcome {
        Ok(())
    }
    async fn read(&self, _: ShardKey, _: u64, len: u32) -> Outcome<ShardBytes> {
        let bytes = self.bytes.slice(..len as usize);
        let crcs = vec![0; bytes.len().div_ceil(64 * 1024)];
        Ok(ShardBytes { bytes, crcs })
    }
    async fn stat(&self, _: ShardKey) -> Outcome<ShardStat> {
        Err(StoreError::NotFound)
    }
    async fn delete(&self, _: &CallContext, _: &[ShardKey]) -> Outcome {
        Ok(())
    }
    async fn list(&self, _: Option<ShardKey>, _: usize) -> Outcome<Vec<ListedShard>> {
        Ok(Vec::new())
    }
    async fn put_notes(&self, _: &CallContext, _: &[BlobNote]) -> Outcome {
        Ok(())
    }
    async fn forget_notes(&self, _: &CallContext, _: &[(GroupId, BlobId)]) -> Outcome {
        Ok(())
    }
    async fn notes(&self, _: Option<NoteCursor>) -> Outcome<NotePage> {
        Ok(NotePage::default())
    }
    async fn slots(&self, _: Option<GroupId>) -> Outcome<Vec<SlotAssignment>> {
        Ok(Vec::new())
    }
    async fn damaged(&self) -> Outcome<Vec<DamagedShard>> {
        Ok(Vec::new())
    }
    async fn check(&self, _: &CallContext, _: Option<CheckCursor>, _: bool) -> Outcome<CheckPage> {
        Ok(CheckPage::default())
    }
    async fn health(&self) -> Outcome<DiskHealth> {
        Err(StoreError::Busy)
    }
}

struct NoFolders;

#[async_trait]
impl FolderSet for NoFolders {
    async fn report(&self) -> Vec<FolderReport> {
        Vec::new()
    }
    async fn format(&self, _: FormatHead) -> Result<DiskHealth, StoreError> {
        Err(StoreError::Busy)
    }
}

/// Six disks behind one agent.
async fn disks() -> Vec<RemoteDisk> {
    let (limits, metrics) = (Limits::default(), Arc::new(Metrics::default()));
    let lanes = Arc::new(Lanes::new(limits.calls_per_disk, Arc::clone(&metrics)));
    for disk in 1..=6 {
        lanes.open(Arc::new(Nothing {
            disk: DiskId(disk),
            bytes: Bytes::from(vec![7; 1024 * 1024]),
        }));
    }
    let secret = Secret::from_text(SECRET).expect("long enough");
    let name = || "bench".to_owned();
    let agent = Arc::new(Agent {
        who: Who {
            agent: AgentId(1),
            name: name(),
            server: name(),
            site: name(),
        },
        gate: Gate::new(Some(secret.clone()), &limits, system_clock),
        limits,
        lanes,
        folders: Arc::new(NoFolders),
        metrics,
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("it listens").to_string();
    tokio::spawn(serve(listener, agent, CancellationToken::new()));
    let (settings, clock) = (AgentSettings::default(), Arc::new(SystemClock));
    let client = AgentClient::new(address, Some(secret), settings, clock, TaskTracker::new());
    (1..=6).map(|disk| client.disk(DiskId(disk))).collect()
}

/// User and system time of this process, seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

/// One kind of call.
#[derive(Clone, Copy)]
enum Kind {
    Append,
    Read(u32),
    Put(usize),
}

async fn call(disk: &RemoteDisk, kind: Kind, n: usize, block: &Bytes) -> Outcome {
    let ctx = sample::context(1);
    match kind {
        Kind::Append => {
            let offset = (n * BLOCK) as u64;
            disk.append(&ctx, ShardHandle(1), offset, block.clone(), &[0; 4])
                .await
        }
        Kind::Read(len) => disk.read(sample::key(1), 0, len).await.map(|_| ()),
        Kind::Put(len) => {
            let mut shard = sample::small(&ctx, n as u128, 0);
            shard.bytes = block.slice(..len);
            shard.crcs = vec![0; len.div_ceil(64 * 1024)];
            disk.put(&ctx, shard).await
        }
    }
}

/// Runs `calls` calls, `at_once` at a time, and says what they cost.
async fn measure(disks: &[RemoteDisk], what: &str, kind: Kind, calls: usize, at_once: usize) {
    let bytes = match kind {
        Kind::Append => BLOCK,
        Kind::Read(len) => len as usize,
        Kind::Put(len) => len,
    };
    let block = Bytes::from(vec![7; BLOCK]);
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let workers = (0..at_once).map(|worker| {
        let (disk, block) = (disks[worker % disks.len()].clone(), block.clone());
        tokio::spawn(async move {
            for n in (worker..calls).step_by(at_once) {
                call(&disk, kind, n, &block)
                    .await
                    .expect("the store takes all");
            }
        })
    });
    for ended in join_all(workers).await {
        ended.expect("no call fails");
    }
    let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let (gb, n) = ((calls * bytes) as f64 / 1e9, calls as f64);
    println!(
        "{what:<16} {at_once:>3} at once {:>8.0}/s {:>5.2} GB/s {:>5.2} CPU-s/GB {:>6.1} us CPU each",
        n / took,
        gb / took,
        cpu / gb,
        cpu / n * 1e6
    );
}

#[tokio::main]
async fn main() {
    let disks = disks().await;
    for at_once in [1, 16, 64] {
        measure(&disks, "append 256 KiB", Kind::Append, 20_000, at_once).await;
        measure(
            &disks,
            "read 256 KiB",
            Kind::Read(BLOCK as u32),
            20_000,
            at_once,
        )
        .await;
        measure(
            &disks,
            "read 1 MiB",
            Kind::Read(1024 * 1024),
            5_000,
            at_once,
        )
        .await;
        measure(&disks, "read 4 KiB", Kind::Read(4096), 40_000, at_once).await;
        measure(&disks, "put 4 KiB", Kind::Put(4096), 40_000, at_once).await;
    }
}

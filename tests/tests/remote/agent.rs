//! An agent of this process, over whatever stores a test gives it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shardgate::agents::{AgentClient, AgentSettings, RemoteDisk};
use shardgate::seam::SystemClock;
use shardgate_agent::gate::{Gate, system_clock};
use shardgate_agent::metrics::Metrics;
use shardgate_agent::{Agent, FolderSet, Lanes, Limits, Who, serve};
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::AgentId;
use shardgate_wire::mac::Secret;
use shardgate_wire::memory_store::{MemoryDisk, MemoryStore};
use shardgate_wire::message::{FolderReport, FormatHead};
use shardgate_wire::{DiskHealth, DiskId, DiskIdentity, ShardStore, StoreError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const SECRET: &str = "an-example-secret-of-enough-bytes-0123";

pub fn secret() -> Secret {
    Secret::from_text(SECRET).unwrap()
}

/// Stores without folders.
struct NoFolders;

#[async_trait]
impl FolderSet for NoFolders {
    async fn report(&self) -> Vec<FolderReport> {
        Vec::new()
    }

    async fn format(&self, _: FormatHead) -> Result<DiskHealth, StoreError> {
        let what = "no folders".to_owned();
        Err(StoreError::BadCall { what })
    }
}

pub struct TestAgent {
    pub address: SocketAddr,
    pub agent: Arc<Agent>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl TestAgent {
    pub async fn start(stores: Vec<Arc<dyn ShardStore>>) -> Self {
        Self::start_with(stores, Limits::default(), Some(secret())).await
    }

    pub async fn start_with(
        stores: Vec<Arc<dyn ShardStore>>,
        limits: Limits,
        secret: Option<Secret>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::listen(listener, stores, limits, secret)
    }

    fn listen(
        listener: TcpListener,
        stores: Vec<Arc<dyn ShardStore>>,
        limits: Limits,
        secret: Option<Secret>,
    ) -> Self {
        let metrics = Arc::new(Metrics::default());
        let lanes = Arc::new(Lanes::new(limits.calls_per_disk, Arc::clone(&metrics)));
        for store in stores {
            assert!(lanes.open(store));
        }
        let agent = Arc::new(Agent {
            who: Who {
                agent: AgentId(1),
                name: "test".into(),
                server: "test".into(),
                site: "test".into(),
            },
            gate: Gate::new(secret, &limits, system_clock),
            limits,
            lanes,
            folders: Arc::new(NoFolders),
            metrics,
        });
        let stop = CancellationToken::new();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, Arc::clone(&agent), stop.clone()));
        Self {
            address,
            agent,
            stop,
            task,
        }
    }

    /// Its open disks.
    pub fn lanes(&self) -> &Lanes {
        &self.agent.lanes
    }

    /// Stops, drained.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Stops it and starts it anew at the same address.
    pub async fn restart(self, stores: Vec<Arc<dyn ShardStore>>) -> Self {
        let address = self.address;
        self.stop().await;
        let mut tries = 0;
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(error) => assert!(tries < 100, "bind {address} again: {error}"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        Self::listen(listener, stores, Limits::default(), Some(secret()))
    }

    pub fn client(&self) -> Arc<AgentClient> {
        client(self.address, AgentSettings::default())
    }
}

pub fn client(address: SocketAddr, settings: AgentSettings) -> Arc<AgentClient> {
    AgentClient::new(
        address.to_string(),
        Some(secret()),
        settings,
        Arc::new(SystemClock),
        TaskTracker::new(),
    )
}

/// A disk in memory that holds the sample slot.
pub async fn memory(disk: u128) -> (Arc<dyn ShardStore>, MemoryDisk) {
    let store = MemoryStore::new(DiskIdentity {
        disk: DiskId(disk),
        ..sample::identity()
    });
    let slots = [sample::slot()];
    store.assign(&sample::context(1), &slots).await.unwrap();
    let handle = store.handle();
    (Arc::new(store), handle)
}

/// Puts one sample shard.
pub async fn put(disk: &RemoteDisk, blob: u128) -> Result<(), StoreError> {
    let ctx = sample::context(1);
    disk.put(&ctx, sample::small(&ctx, blob, 1000)).await
}

//! A disk behind an agent keeps every rule of a disk.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use shardgate::agents::AgentSettings;
use shardgate_disk_store::{DiskOptions, Expected, KeptSpace, LocalDisk, NewDisk};
use shardgate_tests::places;
use shardgate_wire::conformance::{self, Subject, sample};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::journal_conformance::{self, JournalSubject};
use shardgate_wire::memory_store::{Call, MemoryDisk, MemoryStore};
use shardgate_wire::{DiskId, DiskIdentity, Medium, ShardKey, ShardStore};

use crate::agent::{TestAgent, memory};

/// What lies behind the agent.
#[async_trait]
trait Behind: Send + Sync {
    fn store(&self) -> Arc<dyn ShardStore>;
    async fn damage(&self, key: ShardKey, offset: u64);
    async fn restart(&mut self);
}

struct Remote<B> {
    behind: B,
    agent: Option<TestAgent>,
    disk: Arc<dyn ShardStore>,
}

impl<B: Behind> Remote<B> {
    async fn new(behind: B) -> Self {
        let agent = TestAgent::start(vec![behind.store()]).await;
        let disk = agent.client().disk(behind.store().disk());
        Self {
            behind,
            agent: Some(agent),
            disk: Arc::new(disk),
        }
    }
}

#[async_trait]
impl<B: Behind> Subject for Remote<B> {
    fn store(&self) -> Arc<dyn ShardStore> {
        Arc::clone(&self.disk)
    }

    async fn damage(&self, key: ShardKey, offset: u64) {
        self.behind.damage(key, offset).await;
    }

    /// The agent restarts, and the client stays: its connections are gone and
    /// its stamps are for another run.
    async fn restart(&mut self) {
        let agent = self.agent.take().expect("it runs");
        self.behind.restart().await;
        self.agent = Some(agent.restart(vec![self.behind.store()]).await);
    }
}

struct InMemory(MemoryStore);

#[async_trait]
impl Behind for InMemory {
    fn store(&self) -> Arc<dyn ShardStore> {
        Arc::new(self.0.clone())
    }

    async fn damage(&self, key: ShardKey, offset: u64) {
        let disk: MemoryDisk = self.0.handle();
        assert!(disk.flip(key, offset), "no such byte");
    }

    async fn restart(&mut self) {
        self.0.handle().restart();
    }
}

async fn in_memory(identity: DiskIdentity) -> Remote<InMemory> {
    Remote::new(InMemory(MemoryStore::new(identity))).await
}

struct OnDisk {
    identity: DiskIdentity,
    disk: Arc<LocalDisk>,
    folder: tempfile::TempDir,
}

impl OnDisk {
    fn open(folder: &tempfile::TempDir, identity: DiskIdentity) -> Arc<LocalDisk> {
        let expected = Expected {
            cluster: identity.cluster,
            disk: Some(identity.disk),
        };
        let options = DiskOptions {
            // The file system may be small where tests run.
            kept: Some(KeptSpace::NONE),
            ..DiskOptions::default()
        };
        Arc::new(LocalDisk::open(folder.path(), &expected, options).unwrap())
    }
}

#[async_trait]
impl Behind for OnDisk {
    fn store(&self) -> Arc<dyn ShardStore> {
        Arc::clone(&self.disk) as Arc<dyn ShardStore>
    }

    /// The shard's data as read, found where they lie and changed there.
    async fn damage(&self, key: ShardKey, offset: u64) {
        let stat = self.disk.stat(key).await.unwrap();
        let len = stat.end.expect("it is finished").shard_len.min(64 * 1024);
        let read = ShardStore::read(&*self.disk, key, 0, len as u32).await;
        let first = read.unwrap().bytes;
        let probe = &first[..first.len().min(512)];
        let blob = key.blob.to_string();
        for place in places::shards(self.folder.path()).unwrap() {
            let named = place.path.to_string_lossy().contains(&blob);
            if !named && place.blob != Some(key.blob.0) {
                continue;
            }
            let mut file = std::fs::read(&place.path).unwrap();
            let from = place.data.unwrap_or(place.start) as usize;
            let found = file[from..]
                .windows(probe.len())
                .position(|window| window == probe);
            let at = from + found.expect("the data lie in the file");
            file[at + offset as usize] ^= 1;
            std::fs::write(&place.path, file).unwrap();
            return;
        }
        panic!("the shard lies nowhere");
    }

    async fn restart(&mut self) {
        self.disk.close().await;
        self.disk = Self::open(&self.folder, self.identity);
    }
}

async fn on_disk(identity: DiskIdentity) -> Remote<OnDisk> {
    let folder = tempfile::tempdir().unwrap();
    let new = NewDisk {
        cluster: identity.cluster,
        disk: identity.disk,
        medium: Some(identity.medium),
        create_folder: false,
    };
    LocalDisk::format(folder.path(), &new).unwrap();
    let disk = OnDisk::open(&folder, identity);
    Remote::new(OnDisk {
        identity,
        disk,
        folder,
    })
    .await
}

/// The suite's futures are large.
fn boxed<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
    Box::pin(future)
}

/// The journal of a disk on files behind an agent.
struct RemoteJournal {
    remote: Remote<OnDisk>,
    journal: Arc<dyn JournalDisk>,
}

impl RemoteJournal {
    async fn new() -> Self {
        let identity = DiskIdentity {
            cluster: conformance::sample::CLUSTER,
            disk: DiskId(77),
            medium: Medium::Flash,
        };
        let mut remote = on_disk(identity).await;
        // The agent that was started knows the disk as a store alone.
        let agent = remote.agent.take().expect("it runs").restart(vec![]).await;
        assert!(
            agent
                .lanes()
                .open_with_journal(Arc::clone(&remote.behind.disk))
        );
        let journal = Arc::new(agent.client().disk(identity.disk));
        remote.agent = Some(agent);
        Self { remote, journal }
    }
}

#[async_trait]
impl JournalSubject for RemoteJournal {
    fn disk(&self) -> Arc<dyn JournalDisk> {
        Arc::clone(&self.journal)
    }

    async fn restart(&mut self) {
        let agent = self.remote.agent.take().expect("it runs");
        self.remote.behind.restart().await;
        let agent = agent.restart(vec![]).await;
        let disk = Arc::clone(&self.remote.behind.disk);
        assert!(agent.lanes().open_with_journal(disk));
        self.remote.agent = Some(agent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_behind_an_agent_conforms() {
    journal_conformance::run(|| boxed(RemoteJournal::new())).await;
}

/// More disks hang, with calls of another kind, than there are connections
/// for these.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_does_not_wait_behind_disks_that_hang() {
    let remote = RemoteJournal::new().await;
    let agent = remote.remote.agent.as_ref().expect("it runs");
    let client = agent.client();
    let journal = client.disk(DiskId(77));
    let answered = Arc::new(AtomicUsize::new(0));
    let (mut handles, mut raises) = (Vec::new(), Vec::new());
    let most = AgentSettings::default().control_connections;
    for number in 0..2 * most as u128 {
        let (store, handle) = memory(100 + number).await;
        assert!(agent.lanes().open(store));
        handle.delay(Duration::from_secs(60));
        let disk = client.disk(DiskId(100 + number));
        let answered = Arc::clone(&answered);
        raises.push(tokio::spawn(async move {
            let _ = disk.raise_epoch(&sample::context(9)).await;
            answered.fetch_add(1, Ordering::SeqCst);
        }));
        handles.push(handle);
    }
    let under_way = || -> u64 { handles.iter().map(|of| of.calls(Call::RaiseEpoch)).sum() };
    while under_way() < most as u64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..10 {
        journal.roots().await.unwrap();
    }
    assert_eq!(answered.load(Ordering::SeqCst), 0, "the journal waited");
    raises.iter().for_each(|raise| raise.abort());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_in_memory_behind_an_agent_conforms() {
    conformance::run(|identity| boxed(in_memory(identity))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_on_files_behind_an_agent_conforms() {
    conformance::run(|identity| boxed(on_disk(identity))).await;
}

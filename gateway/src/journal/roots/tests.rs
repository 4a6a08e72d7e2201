//! Which checkpoints a start and a restore go on with, over disks in memory
//! and a real engine.

use shardgate_catalog::checkpoint::{ContentHash, StoredFile};
use shardgate_catalog::engine::log::ChainPosition;
use shardgate_catalog::engine::{Engine, RocksStopped};
use shardgate_catalog::model::{BlobRef, ClusterRow};
use shardgate_catalog::{Catalog, CatalogOptions};
use shardgate_wire::checksum::crc32c;
use shardgate_wire::{
    BlobId, BlobLayout, CallContext, CommitNumber, Epoch, GroupId, LineageId, ShardStore,
};
use tempfile::TempDir;

use super::*;
use crate::journal::Journal;
use crate::journal::lineage::{Settling, settle};
use crate::journal::looked::look;
use crate::journal::seize::seize;
use crate::journal::start::{JournalStart, JournalStarted, start_journal};
use crate::pool::PoolSettings;
use crate::pool::place::Place;
use crate::pool::test_pool::MemoryPlace;

const PATIENCE: Duration = Duration::from_secs(2);

struct Test {
    own: TempDir,
    place: Arc<MemoryPlace>,
}

/// What a run has left.
struct Run {
    map: PoolMap,
    lineage: LineageId,
    ctx: CallContext,
    disks: Vec<Arc<dyn JournalDisk>>,
    /// The places of some of its commits, one after the other.
    places: Vec<ChainPosition>,
}

impl Test {
    fn new() -> Self {
        Self {
            own: tempfile::tempdir().unwrap(),
            place: MemoryPlace::new("s0", 5),
        }
    }

    fn request(&self) -> JournalStart {
        JournalStart {
            places: vec![Arc::clone(&self.place) as Arc<dyn Place>],
            settings: PoolSettings {
                start_patience: PATIENCE,
                ..PoolSettings::default()
            },
            own: self.own.path().to_owned(),
            lost: Vec::new(),
            take_over: false,
        }
    }

    async fn start(&self) -> Result<JournalStarted, JournalStartError> {
        let path = self.own.path().join("rocksdb");
        let engine = RocksStopped::open(&path, &CatalogOptions::default()).unwrap();
        start_journal(self.request(), engine).await
    }

    async fn refused(&self) -> JournalStartError {
        self.start().await.err().expect("the start is refused")
    }

    /// The numbers of the roots that a start goes on with.
    async fn inherited(&self) -> Vec<u64> {
        let started = self.start().await.unwrap();
        numbers(&started.roots)
    }

    /// Starts, settles, commits so often, and ends as a crash does. With
    /// `named`, its segments name these roots.
    async fn run(&self, commits: usize, named: Option<&Roots>) -> Run {
        let started = self.start().await.unwrap();
        let journal = Journal::new(started.writer);
        let engine = Arc::new(started.engine.start(journal.log()).unwrap());
        let catalog = Catalog::new(Arc::clone(&engine) as Arc<dyn Engine>);
        let disks = started.ways.open();
        let settling = Settling {
            catalog: &catalog,
            journal: &journal,
            disks: disks.clone(),
            told: &started.told,
            complete: started.complete,
            lost: &[],
            now_ms: 7,
            patience: PATIENCE,
        };
        let (history, map) = settle(settling, started.map).await.unwrap();
        if catalog.cluster().await.unwrap().is_none() {
            let row = ClusterRow {
                cluster: map.cluster,
                lineage: map.lineage,
                epoch: Epoch::default(),
                created: 1,
            };
            catalog.init_cluster(&row).await.unwrap();
        }
        if let Some(roots) = named {
            let mut held = journal.hold().await;
            let writer = held.writer().unwrap();
            writer.set_checkpoints(roots.encode_each());
            writer.begin_segment().await.unwrap();
        }
        let mut places = Vec::new();
        for number in 0..commits {
            let bucket = format!("{}-{number}", catalog.committed().0);
            catalog.create_bucket(&bucket, "owner", 1).await.unwrap();
            let links = self.own.path().join("links");
            places.push(engine.checkpoint(&links).unwrap());
            std::fs::remove_dir_all(&links).unwrap();
        }
        Run {
            lineage: history.lineage,
            ctx: journal.context(),
            disks,
            places,
            map,
        }
    }

    /// Writes the root record of each disk in turn, of the last one for all
    /// that are left.
    async fn name(&self, run: &Run, named: &[Bytes]) {
        for (index, disk) in run.disks.iter().enumerate() {
            let roots = named.get(index).or(named.last()).unwrap();
            disk.set_checkpoint(&run.ctx, roots.clone()).await.unwrap();
        }
    }
}

fn numbers(roots: &Roots) -> Vec<u64> {
    let all = roots.all().iter();
    all.map(|root| root.position.number.0).collect()
}

fn root(run: &Run, position: ChainPosition) -> CheckpointRoot {
    let blob = BlobRef {
        group: GroupId(1),
        blob: BlobId(position.number.0.into()),
        layout: BlobLayout { data: 1, parity: 2 },
        len: 10,
    };
    CheckpointRoot {
        cluster: run.map.cluster,
        lineage: run.lineage,
        position,
        taken: position.number.0,
        manifest: StoredFile {
            blob,
            disks: Vec::new(),
        },
        manifest_hash: ContentHash([0; 32]),
    }
}

/// The roots of these, the oldest first.
fn roots(of: &[CheckpointRoot]) -> Roots {
    let mut roots = Roots::default();
    for root in of {
        roots = roots.with(root.clone()).unwrap();
    }
    roots
}

/// Of a history that is no more.
fn dead(run: &Run, number: u64) -> CheckpointRoot {
    let position = ChainPosition {
        number: CommitNumber(number),
        hash: [7; 32],
    };
    CheckpointRoot {
        lineage: LineageId(77),
        ..root(run, position)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_with_the_newest_roots_that_are_on_the_journals_chain() {
    let test = Test::new();
    assert_eq!(test.inherited().await, [] as [u64; 0]);
    let run = test.run(4, None).await;
    let at = |index: usize| root(&run, run.places[index]);
    let number = |index: usize| run.places[index].number.0;
    let older = roots(&[at(0), at(1)]).encode();
    let newer = roots(&[at(1), at(2)]).encode();
    test.name(&run, &[older.clone(), newer, older.clone()])
        .await;
    assert_eq!(test.inherited().await, [number(2), number(1)]);
    // Of another history: in the middle of this one, and beyond its end.
    for (dead_at, run) in [(number(3), &run), (number(3) + 100, &run)] {
        let both = roots(&[at(2), dead(run, dead_at)]).encode();
        let alone = roots(&[dead(run, dead_at)]).encode();
        let ctx = test.run(0, None).await;
        test.name(&ctx, &[both, alone, older.clone()]).await;
        assert_eq!(test.inherited().await, [number(2)], "{dead_at}");
    }
    // Of another cluster.
    let again = test.run(0, None).await;
    let foreign = CheckpointRoot {
        cluster: ClusterId(99),
        ..at(3)
    };
    let foreign = roots(&[foreign]).encode();
    test.name(&again, &[foreign, older]).await;
    assert_eq!(test.inherited().await, [number(1), number(0)]);
}

/// The chain goes on, and with it everything that is on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_lineage_keeps_the_checkpoints_of_the_one_before() {
    let test = Test::new();
    let run = test.run(3, None).await;
    let named = roots(&[root(&run, run.places[0]), root(&run, run.places[2])]);
    test.name(&run, &[named.encode()]).await;
    // A disk that was told of more than the catalog has.
    let told = CallContext {
        committed: CommitNumber(run.places[2].number.0 + 50),
        ..run.ctx
    };
    test.place
        .store("s0/disk-4")
        .raise_epoch(&told)
        .await
        .unwrap();
    let later = test.run(2, None).await;
    assert_ne!(later.lineage, run.lineage, "it takes a new one");
    assert_eq!(test.inherited().await, numbers(&named));
    let looked = look(test.request()).await.unwrap();
    let read = looked.roots().await.read;
    assert!(!read.is_empty() && read.iter().all(|(_, roots)| *roots == named));
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_none_is_believed_of_a_majority_only() {
    let test = Test::new();
    let run = test.run(2, None).await;
    let (none, bad) = (Bytes::new(), Bytes::from_static(b"damaged"));
    // Two of the five journal disks.
    test.name(&run, &[bad.clone(), bad.clone(), none.clone()])
        .await;
    assert_eq!(test.inherited().await, [] as [u64; 0]);
    let again = test.run(0, None).await;
    test.name(&again, &[none.clone(), none.clone(), bad.clone()])
        .await;
    let refused = test.refused().await;
    assert!(
        matches!(&refused, JournalStartError::RootsUnread(unread) if unread.len() == 3),
        "{refused}"
    );
}

/// Root records are written first, and read first; the journal has them too.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_root_records_do_not_say_the_segments_do() {
    let test = Test::new();
    let first = test.run(3, None).await;
    let named = roots(&[root(&first, first.places[0]), root(&first, first.places[1])]);
    let mut run = test.run(1, Some(&named)).await;
    for records in [Bytes::from_static(b"damaged"), Bytes::new()] {
        test.name(&run, &[records]).await;
        let seized = seize(test.request(), run.map.cluster).await.unwrap();
        let decoded = seized.salvage.checkpoints();
        let decoded = decoded
            .iter()
            .map(|root| CheckpointRoot::decode(root).unwrap());
        assert_eq!(decoded.collect::<Vec<_>>(), named.all());
        drop(seized);
        assert_eq!(test.inherited().await, numbers(&named));
        run = test.run(0, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_of_a_later_version_are_refused_and_not_passed_over() {
    let test = Test::new();
    let run = test.run(2, None).await;
    let ours = roots(&[root(&run, run.places[0])]).encode();
    let mut later = root(&run, run.places[1]).encode().to_vec();
    later[8] = 2;
    let sum = later.len() - 4;
    let crc = crc32c(&later[..sum]);
    later[sum..].copy_from_slice(&crc.to_be_bytes());
    let framed = [&(later.len() as u32).to_be_bytes()[..], &later].concat();
    test.name(&run, &[Bytes::from(framed), ours]).await;
    let looked = look(test.request()).await.unwrap();
    assert!(looked.roots().await.check_version().is_err());
    drop(looked);
    let refused = test.refused().await;
    assert!(
        matches!(refused, JournalStartError::LaterRoots { found: 2, .. }),
        "{refused}"
    );
}

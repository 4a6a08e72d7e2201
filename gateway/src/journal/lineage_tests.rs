//! Which starts take a new lineage, over disks in memory and a real engine.

use shardgate_catalog::CatalogOptions;
use shardgate_catalog::engine::RocksStopped;
use shardgate_catalog::model::ClusterRow;
use shardgate_journal::map::read_maps;
use shardgate_wire::{CallContext, Epoch, ShardStore};
use tempfile::TempDir;

use super::*;
use crate::journal::start::{JournalStart, start_journal};
use crate::pool::PoolSettings;
use crate::pool::place::Place;
use crate::pool::test_pool::{Content, MemoryPlace};

const PATIENCE: Duration = Duration::from_secs(2);

struct Test {
    own: TempDir,
    place: Arc<MemoryPlace>,
}

/// What a start came to.
struct Outcome {
    history: LineageRow,
    map: PoolMap,
    on_disks: Vec<LineageId>,
    ctx: CallContext,
    members: Vec<DiskId>,
}

impl Test {
    fn new() -> Self {
        Self {
            own: tempfile::tempdir().unwrap(),
            place: MemoryPlace::new("s0", 6),
        }
    }

    /// Starts, settles, commits something, and stops as a crash does.
    async fn start(&self, lost: &[DiskId]) -> Outcome {
        let path = self.own.path().join("rocksdb");
        let engine = RocksStopped::open(&path, &CatalogOptions::default()).unwrap();
        let request = JournalStart {
            places: vec![Arc::clone(&self.place) as Arc<dyn Place>],
            settings: PoolSettings {
                start_patience: PATIENCE,
                ..PoolSettings::default()
            },
            own: self.own.path().to_owned(),
            lost: lost.to_vec(),
            take_over: false,
        };
        let started = start_journal(request, engine).await.unwrap();
        let journal = Journal::new(started.writer);
        let engine = started.engine.start(journal.log()).unwrap();
        let catalog = Catalog::new(Arc::new(engine));
        let disks: Vec<_> = started.ways.open();
        let settling = Settling {
            catalog: &catalog,
            journal: &journal,
            disks: disks.clone(),
            told: &started.told,
            complete: started.complete,
            lost,
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
        let members = journal.hold().await.writer().unwrap().members();
        let maps = read_maps(&disks, PATIENCE).await;
        Outcome {
            on_disks: maps.values().flatten().map(|map| map.lineage).collect(),
            ctx: journal.context(),
            members,
            history,
            map,
        }
    }

    /// Tells a disk of a commit.
    async fn tell(&self, folder: &str, outcome: &Outcome, lineage: LineageId, commit: u64) {
        let ctx = CallContext {
            lineage,
            committed: CommitNumber(commit),
            ..outcome.ctx
        };
        self.place.store(folder).raise_epoch(&ctx).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_no_reason_and_keeps_the_lineage() {
    let test = Test::new();
    let first = test.start(&[]).await;
    test.tell("s0/disk-1", &first, first.history.lineage, 1)
        .await;
    let again = test.start(&[]).await;
    assert_eq!(again.history, LineageRow::first(first.map.lineage));
    assert_eq!(again.map, first.map);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_another_history_makes_a_new_lineage_that_is_in_the_map() {
    let test = Test::new();
    let first = test.start(&[]).await;
    let second = test.start(&[]).await;
    test.tell("s0/disk-4", &second, LineageId(99), 5).await;
    let third = test.start(&[]).await;
    let hold = third.history.hold.clone().expect("it holds");
    assert!(
        matches!(
            hold.why[..],
            [HoldReason::OtherLineage {
                lineage: LineageId(99),
                ..
            }]
        ),
        "{hold:?}"
    );
    assert_ne!(third.history.lineage, first.history.lineage);
    assert_eq!(third.history.history, third.ctx.epoch.number);
    assert_eq!(third.history.before[0].0, first.history.lineage);
    assert_eq!(third.ctx.lineage, third.history.lineage);
    assert_eq!(third.map.lineage, third.history.lineage);
    assert_eq!(third.map.number, second.map.number + 1);
    assert!(third.on_disks.iter().all(|of| *of == third.history.lineage));
    // It stays, and nothing more comes of the old ones.
    test.tell("s0/disk-4", &third, third.history.lineage, 2)
        .await;
    test.tell("s0/disk-5", &third, third.history.lineage, 2)
        .await;
    let fourth = test.start(&[]).await;
    assert_eq!(fourth.history, third.history);
    assert_eq!(fourth.map, third.map);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_without_a_majority_is_not_complete() {
    let test = Test::new();
    let first = test.start(&[]).await;
    let mut lost = Vec::new();
    for n in 1..=6 {
        let folder = format!("s0/disk-{n}");
        let disk = test.place.store(&folder).disk();
        // One of those that have the segment stays, so that it is found.
        let stays = first.members[..2].contains(&disk);
        if first.map.journal.contains(&disk) && !stays {
            lost.push((folder, disk));
        }
    }
    assert_eq!(lost.len(), 3, "of five");
    for (folder, _) in &lost {
        test.place.set(folder, Content::Missing);
    }
    let ids: Vec<DiskId> = lost.iter().map(|(_, disk)| *disk).collect();
    let second = test.start(&ids).await;
    let hold = second.history.hold.expect("it holds");
    assert_eq!(hold.why, [HoldReason::JournalIncomplete]);
    assert_eq!(second.map.lineage, second.history.lineage);
}

/// Cut short between the commit and the map.
#[tokio::test(flavor = "multi_thread")]
async fn a_lineage_that_is_not_in_the_map_yet_is_written_there() {
    let test = Test::new();
    let first = test.start(&[]).await;
    test.tell("s0/disk-4", &first, LineageId(99), 5).await;
    let second = test.start(&[]).await;
    test.tell("s0/disk-4", &second, second.history.lineage, 1)
        .await;
    // The map of before is on the disks again, under a higher number.
    let stale = PoolMap {
        number: second.map.number + 1,
        lineage: first.map.lineage,
        ..second.map.clone()
    };
    let path = test.own.path().join("rocksdb");
    let engine = RocksStopped::open(&path, &CatalogOptions::default()).unwrap();
    let request = JournalStart {
        places: vec![Arc::clone(&test.place) as Arc<dyn Place>],
        settings: PoolSettings::default(),
        own: test.own.path().to_owned(),
        lost: Vec::new(),
        take_over: false,
    };
    let started = start_journal(request, engine).await.unwrap();
    let ctx = started.writer.context();
    let written = write_until_it_counts(&started.ways.open(), &ctx, &stale, &[], PATIENCE).await;
    written.unwrap();
    drop(started);
    let third = test.start(&[]).await;
    assert_eq!(third.history.lineage, second.history.lineage);
    assert_eq!(third.history.before, second.history.before, "no new one");
    assert_eq!(third.map.lineage, second.history.lineage);
    assert_eq!(third.map.number, stale.number + 1);
}

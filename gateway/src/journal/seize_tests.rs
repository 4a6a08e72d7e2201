//! A rebuild that is cut short, and what the next start finds: over disks in
//! memory and real engines.

use shardgate_catalog::engine::{MemoryEngine, RocksStopped};
use shardgate_catalog::model::ClusterRow;
use shardgate_catalog::rebuild::{Facts, NewCatalog, begin};
use shardgate_catalog::{Catalog, CatalogOptions};
use shardgate_journal::map::read_maps;
use shardgate_wire::ShardStore;
use tempfile::TempDir;

use super::*;
use crate::journal::start::{JournalStarted, start_journal};
use crate::pool::PoolSettings;
use crate::pool::place::Place;
use crate::pool::test_pool::{Content, MemoryPlace};

const PATIENCE: Duration = Duration::from_secs(2);
const NEW: LineageId = LineageId(77);
const COMMITS: u64 = 9;

struct Test {
    own: TempDir,
    place: Arc<MemoryPlace>,
    committed: CommitNumber,
}

fn open(folder: &TempDir) -> RocksStopped {
    let path = folder.path().join("rocksdb");
    RocksStopped::open(&path, &CatalogOptions::default()).unwrap()
}

impl Test {
    /// A pool whose catalog has some commits, after a crash.
    async fn new() -> Self {
        let mut test = Self {
            committed: CommitNumber(0),
            own: tempfile::tempdir().unwrap(),
            place: MemoryPlace::new("s0", 6),
        };
        let started = test.start(open(&test.own)).await.unwrap();
        let (map, journal) = (started.map, Journal::new(started.writer));
        let engine = started.engine.start(journal.log()).unwrap();
        let catalog = Catalog::new(Arc::new(engine));
        let row = ClusterRow {
            cluster: map.cluster,
            lineage: map.lineage,
            epoch: Epoch::default(),
            created: 1,
        };
        catalog.init_cluster(&row).await.unwrap();
        for number in 1..COMMITS {
            let name = format!("bucket-{number}");
            catalog.create_bucket(&name, "me", 1).await.unwrap();
        }
        let ctx = journal.context();
        for disk in started.ways.open() {
            disk.raise(&ctx).await.unwrap();
        }
        test.committed = catalog.committed();
        test
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

    async fn start(&self, engine: RocksStopped) -> Result<JournalStarted, JournalStartError> {
        start_journal(self.request(), engine).await
    }

    fn cluster(&self) -> ClusterId {
        OwnRecord::read(self.own.path()).unwrap().unwrap().cluster
    }

    async fn seize(&self) -> Seized {
        seize(self.request(), self.cluster()).await.unwrap()
    }

    /// Every pool map, as number and lineage.
    async fn maps(&self, seized: &Seized) -> Vec<(u64, LineageId)> {
        let maps = read_maps(&seized.starting.found.journals(&[]), PATIENCE).await;
        let maps = maps.values().flatten();
        maps.map(|map| (map.number, map.lineage)).collect()
    }

    /// Begins a rebuild, up to its first record.
    async fn begin(&self, seized: Seized) -> (Journal, MapToFollow) {
        let epoch = seized.salvage.context().epoch;
        let (writer, map) = seized.begin(NEW).await.unwrap();
        let journal = Journal::new(writer);
        let folder = tempfile::tempdir().unwrap();
        let engine = open(&folder).start(journal.log()).unwrap();
        let catalog = Catalog::new(Arc::new(engine));
        let new = NewCatalog {
            cluster: self.cluster(),
            lineage: NEW,
            epoch,
            owner: "root".to_owned(),
            now: 1,
        };
        let facts = Facts::new(Arc::new(MemoryEngine::new()));
        begin(&facts, &new, &catalog).await.unwrap();
        (journal, map)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn before_its_first_record_the_pool_is_as_it_was() {
    let test = Test::new().await;
    let seized = test.seize().await;
    let before = test.maps(&seized).await;
    drop(seized.begin(NEW).await.unwrap());
    let empty = tempfile::tempdir().unwrap();
    let started = test.start(open(&empty)).await.unwrap();
    assert_eq!(started.engine.applied().number, test.committed);
    drop(started);
    assert_eq!(test.maps(&test.seize().await).await, before);
}

/// Whatever a start then has of the catalog: it shows none of it, and knows
/// what disks were told of the lineage before.
#[tokio::test(flavor = "multi_thread")]
async fn between_its_first_record_and_the_map_no_start_takes_the_old_catalog() {
    let test = Test::new().await;
    let seized = test.seize().await;
    let before = test.maps(&seized).await;
    drop(test.begin(seized).await);
    let again = test.seize().await;
    assert_eq!(test.maps(&again).await, before, "the old lineage's");
    drop(again);
    let empty = tempfile::tempdir().unwrap();
    let refused = test.start(open(&empty)).await.err().unwrap();
    assert!(
        matches!(refused, JournalStartError::HalfRebuilt),
        "{refused}"
    );
    let refused = test.start(open(&test.own)).await.err().unwrap();
    let half = matches!(refused, JournalStartError::HalfRebuilt);
    assert!(half || refused.is_for_restore(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_map_it_is_half_rebuilt() {
    let test = Test::new().await;
    let seized = test.seize().await;
    let number = seized.map().number;
    let (journal, map) = test.begin(seized).await;
    map.write(&journal).await.unwrap();
    drop(journal);
    let empty = tempfile::tempdir().unwrap();
    let refused = test.start(open(&empty)).await.err().unwrap();
    assert!(
        matches!(refused, JournalStartError::HalfRebuilt),
        "{refused}"
    );
    let maps = test.maps(&test.seize().await).await;
    assert!(maps.iter().all(|map| *map == (number + 1, NEW)), "{maps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_first_record_is_on_a_majority_of_the_old_journal_disks_and_of_the_new() {
    let test = Test::new().await;
    let seized = test.seize().await;
    let (old, number) = (seized.map().journal.clone(), seized.map().number);
    drop(seized);
    // One of them is away: another takes its place.
    let folders = (1..=6).map(|n| format!("s0/disk-{n}"));
    let away = folders
        .map(|folder| (test.place.store(&folder).disk(), folder))
        .find(|(disk, _)| old.contains(disk));
    test.place.set(&away.unwrap().1, Content::Missing);
    let seized = test.seize().await;
    let (journal, map) = test.begin(seized).await;
    let new = map.map.journal.clone();
    assert_ne!(new, old);
    let members = journal.hold().await.writer().unwrap().members();
    for of in [&old, &new] {
        let held = of.iter().filter(|disk| members.contains(disk)).count();
        assert!(held > of.len() / 2, "{members:?} of {of:?}");
    }
    map.write(&journal).await.unwrap();
    drop(journal);
    let seized = test.seize().await;
    let found = seized.map();
    assert_eq!(
        (found.number, &found.old, &found.journal),
        (number + 2, &None, &new)
    );
}

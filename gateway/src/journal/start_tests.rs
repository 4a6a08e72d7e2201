//! Tests of the journal's half of a start, on disks in memory and a real
//! engine.

use shardgate_catalog::CatalogOptions;
use shardgate_journal::map::write_map;
use shardgate_wire::DiskIdentity;
use shardgate_wire::memory_store::MemoryStore;
use tempfile::TempDir;

use super::*;
use crate::pool::ClassSetting;
use crate::pool::start::plan::PlanError;
use crate::pool::test_pool::{Content, MemoryPlace};

struct Test {
    own: TempDir,
    places: Vec<Arc<MemoryPlace>>,
}

impl Test {
    fn new(servers: &[usize]) -> Self {
        let place = |(n, disks): (usize, &usize)| MemoryPlace::new(&format!("s{n}"), *disks);
        Self {
            own: tempfile::tempdir().unwrap(),
            places: servers.iter().enumerate().map(place).collect(),
        }
    }

    fn engine(&self) -> RocksStopped {
        let path = self.own.path().join("rocksdb");
        RocksStopped::open(&path, &CatalogOptions::default()).unwrap()
    }

    fn request(&self) -> JournalStart {
        let place = |place: &Arc<MemoryPlace>| Arc::clone(place) as Arc<dyn Place>;
        JournalStart {
            places: self.places.iter().map(place).collect(),
            settings: PoolSettings {
                classes: ClassSetting::with_defaults(Vec::new()),
                start_patience: Duration::from_secs(2),
                ..PoolSettings::default()
            },
            own: self.own.path().to_owned(),
            lost: Vec::new(),
            take_over: false,
        }
    }

    async fn start(&self) -> Result<JournalStarted, JournalStartError> {
        start_journal(self.request(), self.engine()).await
    }

    async fn refused(&self) -> JournalStartError {
        self.start().await.err().expect("the start is refused")
    }
}

#[tokio::test]
async fn a_new_cluster_has_a_map_and_a_journal_and_is_found_again() {
    let test = Test::new(&[6]);
    let first = test.start().await.unwrap();
    assert_eq!(first.opened.len(), 6);
    assert_eq!((first.map.number, first.map.journal.len()), (2, 5));
    assert_eq!(first.map.disks.len(), 6);
    let (map, epoch) = (first.map, first.writer.context().epoch);
    // Local disks: whoever opens them holds their locks.
    drop((first.engine, first.writer));
    let again = test.start().await.unwrap();
    assert_eq!(again.map, map, "nothing has changed");
    assert_eq!(again.writer.context().epoch.number, epoch.number + 1);
    assert!(again.taken_over.is_none());
}

#[tokio::test]
async fn an_emptied_folder_never_begins_anew_over_disks() {
    let test = Test::new(&[3]);
    drop(test.start().await.unwrap());
    std::fs::remove_dir_all(test.own.path().join("rocksdb")).unwrap();
    // The journal has it all, as long as the folder knows the cluster.
    drop(test.start().await.unwrap());
    std::fs::remove_dir_all(test.own.path().join("rocksdb")).unwrap();
    std::fs::remove_file(test.own.path().join("gateway")).unwrap();
    let refused = test.refused().await;
    assert!(
        matches!(
            refused,
            JournalStartError::Plan(PlanError::CatalogGone { .. })
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn a_new_cluster_waits_for_all_its_servers() {
    let test = Test::new(&[2, 2]);
    test.places[1].silence(true);
    let refused = test.refused().await;
    assert!(refused.to_string().contains("server s1"), "{refused}");
    assert!(test.places[0].disks().is_empty(), "nothing was formatted");
    test.places[1].silence(false);
    assert_eq!(test.start().await.unwrap().opened.len(), 4);
}

/// The first start was cut short between two disks.
#[tokio::test]
async fn a_cluster_that_was_half_made_is_made_whole() {
    let test = Test::new(&[3]);
    let cluster = ClusterId(77);
    let record = OwnRecord {
        cluster,
        instances: Vec::new(),
    };
    record.write(test.own.path()).unwrap();
    let identity = DiskIdentity {
        cluster,
        disk: DiskId(5),
        medium: shardgate_wire::Medium::Flash,
    };
    test.places[0].set("s0/disk-2", Content::Disk(MemoryStore::new(identity)));
    let started = test.start().await.unwrap();
    assert_eq!(started.map.cluster, cluster);
    assert_eq!(started.opened.len(), 3);
    assert!(started.opened.contains_key(&DiskId(5)));
}

#[tokio::test]
async fn without_a_majority_of_the_journal_disks_a_start_is_refused() {
    let test = Test::new(&[6]);
    let first = test.start().await.unwrap();
    // One that has the journal goes, and two that could have had it.
    let members = first.writer.members();
    let mut journal = first.map.journal.clone();
    journal.retain(|disk| *disk == members[0] || !members.contains(disk));
    drop(first);
    let folders: Vec<String> = (1..=6).map(|n| format!("s0/disk-{n}")).collect();
    let mut gone = Vec::new();
    for folder in &folders {
        let disk = test.places[0].store(folder);
        let id = shardgate_wire::ShardStore::disk(&disk);
        if journal.contains(&id) && gone.len() < 3 {
            test.places[0].set(folder, Content::Missing);
            gone.push(id);
        }
    }
    let refused = test.refused().await;
    assert!(
        matches!(refused, JournalStartError::NoMajority { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("--lost"), "{refused}");
    let request = JournalStart {
        lost: gone.clone(),
        ..test.request()
    };
    let started = start_journal(request, test.engine()).await.unwrap();
    assert_eq!(started.lost.all(), gone);
}

/// Between the reading of the map and the raise another gateway completes a
/// new map: what was read first names the wrong disks.
#[tokio::test]
async fn the_map_is_read_again_behind_the_raise() {
    let test = Test::new(&[6]);
    let first = test.start().await.unwrap();
    let (map, mut writer) = (first.map, first.writer);
    let away = map.disks.iter().map(|disk| disk.id);
    let other = away.into_iter().find(|id| !map.journal.contains(id));
    let mut journal = map.journal.clone();
    journal[0] = other.expect("five of six keep the journal");
    let next = PoolMap {
        number: map.number + 1,
        epoch: writer.context().epoch,
        old: Some(map.journal.clone()),
        journal,
        ..map.clone()
    };
    let known: Vec<_> = map.disks.iter().map(|disk| disk.id).collect();
    let member = |disk: DiskId| Member {
        disk: first.ways.get(disk),
        place: candidate(disk, "s0", Some(u64::try_from(disk.0 >> 64).unwrap_or(0))),
        segment_bytes: 1 << 20,
    };
    let members = known.iter().copied().map(member).collect();
    drop(first.engine);
    // As soon as the next start raises its epoch, it is there.
    let all: Vec<_> = known.iter().map(|disk| first.ways.get(*disk)).collect();
    let ctx = writer.context();
    writer
        .change_journal(members, next.journal_map())
        .await
        .unwrap();
    let written = next.clone();
    test.places[0].before_raise(async move {
        write_map(&all, &ctx, &written, ANSWER).await.unwrap();
    });
    let second = test.start().await.unwrap();
    assert_eq!(
        second.map.number,
        next.number + 1,
        "completed, then settled"
    );
    assert_eq!(second.map.journal, next.journal);
}

//! Tests of starts, replacements and losses, on disks in memory.

use shardgate_catalog::model::DiskState;
use shardgate_wire::memory_store::MemoryStore;
use shardgate_wire::{DiskIdentity, InstanceId, Medium, ShardStore, SlotAssignment};

use super::*;
use crate::object::ports::Disks;
use crate::pool::groups::PlaceError;
use crate::pool::standing::Standing;
use crate::pool::test_pool::{Content, TestPool};
use crate::pool::{ChangeError, DiskCount};

#[tokio::test]
async fn a_new_cluster_is_made_of_blank_folders_and_found_again() {
    let test = TestPool::new(&[6]).await;
    let disks = test.disks();
    assert_eq!(disks.len(), 6);
    let again = test.restart().await.unwrap();
    assert_eq!(test.disks(), disks);
    assert_eq!(again.context().cluster, test.pool.context().cluster);
    assert_eq!(
        again.context().epoch.number,
        test.pool.context().epoch.number + 1
    );
    assert_eq!(test.catalog.instances().await.unwrap().len(), 2);
    // The first gateway's disks have learned of the second.
    test.pool.probe_all().await;
    assert!(test.pool.is_taken_over());
}

#[tokio::test]
async fn swapped_folders_work_and_are_noted() {
    let test = TestPool::new(&[6]).await;
    let place = &test.places[0];
    let one = place.set("s0/disk-1", Content::Blank);
    let two = place.set("s0/disk-2", one);
    place.set("s0/disk-1", two);
    let pool = test.restart().await.unwrap();
    assert_eq!(
        pool.snapshot().view.by_server(|disk| disk.living).total(),
        6
    );
    for row in test.catalog.disks().await.unwrap() {
        assert_eq!(place.store(&row.path).disk(), row.id);
    }
}

#[tokio::test]
async fn a_wiped_folder_is_lost_and_never_formatted_by_itself() {
    let test = TestPool::new(&[6]).await;
    let place = &test.places[0];
    place.set("s0/disk-3", Content::Blank);
    place.set("s0/disk-4", Content::Missing);
    let pool = test.restart().await.unwrap();
    assert_eq!(test.disks().len(), 4);
    let status = pool.status().await;
    let why: Vec<_> = status
        .disks
        .iter()
        .filter_map(|disk| disk.why.clone())
        .collect();
    assert_eq!(why, ["s0/disk-3 is blank", "there is no folder s0/disk-4"]);

    let new = pool.replace_disk("s0/disk-3").await.unwrap();
    assert_eq!(place.store("s0/disk-3").disk(), new);
    assert!(pool.is_living(new));
    let rows = test.catalog.disks().await.unwrap();
    assert_eq!(
        rows.iter()
            .filter(|row| row.state == DiskState::Lost)
            .count(),
        1
    );
    assert_eq!(rows.len(), 7);
}

#[tokio::test]
async fn only_blank_and_configured_folders_are_replaced() {
    let test = TestPool::new(&[6]).await;
    for (folder, expected) in [
        ("s0/disk-1", "is not blank"),
        ("/etc", "is not a configured"),
    ] {
        let error = test.pool.replace_disk(folder).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(test.catalog.disks().await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_disk_declared_lost_is_never_taken_back() {
    let test = TestPool::new(&[6]).await;
    let disk = test.disks()[0];
    test.pool.declare_lost(disk).await.unwrap();
    test.pool.declare_lost(disk).await.unwrap();
    let scheme = test.standard().await.scheme.to_string();
    assert_eq!(scheme, "3+2", "what auto gives for five");
    test.pool.look_for_missing().await;
    assert!(!test.pool.is_living(disk));
    let pool = test.restart().await.unwrap();
    assert!(pool.is_lost_for_good(disk) && pool.store(disk).is_none());
    let unknown = shardgate_wire::DiskId(5);
    let error = pool.declare_lost(unknown).await.unwrap_err();
    assert!(matches!(error, ChangeError::NoSuchDisk(_)));
}

#[tokio::test]
async fn a_disk_that_returns_while_running_is_taken_back_under_the_epoch() {
    let test = TestPool::new(&[6]).await;
    let away = test.places[0].set("s0/disk-1", Content::Missing);
    let pool = test.restart().await.unwrap();
    assert_eq!(
        pool.snapshot().view.by_server(|disk| disk.living).total(),
        5
    );
    pool.look_for_missing().await;
    assert_eq!(
        pool.snapshot().view.by_server(|disk| disk.living).total(),
        5
    );

    test.places[0].set("s0/disk-7", away);
    pool.look_for_missing().await;
    assert_eq!(
        pool.snapshot().view.by_server(|disk| disk.living).total(),
        6
    );
    let store = test.places[0].store("s0/disk-7");
    assert_eq!(store.health().await.unwrap().epoch, pool.context().epoch);
    let row = test.catalog.disk(store.disk()).await.unwrap().unwrap();
    assert_eq!(row.path, "s0/disk-7");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_while_it_is_opened_delays_nothing() {
    let living = |pool: &Pool| pool.snapshot().view.by_server(|disk| disk.living).total();
    let test = TestPool::new(&[6]).await;
    let place = &test.places[0];
    place.hang(Some("s0/disk-1"));
    let other = place.set("s0/disk-2", Content::Missing);
    let starting = tokio::time::timeout(Duration::from_secs(600), test.restart());
    let pool = starting.await.expect("the start goes on").unwrap();
    assert_eq!(living(&pool), 4);
    place.set("s0/disk-2", other);
    let looking = tokio::time::timeout(Duration::from_secs(600), pool.look_for_missing());
    looking.await.expect("the look goes on");
    assert_eq!(living(&pool), 5, "the other is back");
    place.hang(None);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(living(&pool), 6, "it is taken in when it is open");
}

#[tokio::test]
async fn a_fenced_disk_and_one_that_is_another_take_no_writes() {
    let test = TestPool::new(&[6]).await;
    let living = || {
        let snapshot = test.pool.snapshot();
        snapshot.view.by_server(|disk| disk.living).total()
    };
    let disks = test.disks();
    test.disk(disks[0]).fence(Some("a failed fsync"));
    test.pool.probe_all().await;
    assert_eq!(living(), 5);
    let store = test.places[0].store("s0/disk-2");
    let own = store.health().await.unwrap().identity;
    for other in [
        DiskIdentity {
            disk: disks[2],
            ..own
        },
        DiskIdentity {
            cluster: ClusterId::random(),
            ..own
        },
    ] {
        store.handle().answer_as(Some(other));
        test.pool.probe_all().await;
        assert_eq!(living(), 4, "{other:?}");
        store.handle().answer_as(None);
        test.put_back(&[]).await;
        assert_eq!(living(), 5, "only the fenced one stays out");
    }
    assert!(matches!(
        test.pool.member(disks[0]).unwrap().standing(),
        Standing::Failed { .. }
    ));
}

#[tokio::test]
async fn a_probe_sees_that_another_gateway_took_over() {
    let test = TestPool::new(&[6]).await;
    let mut ctx = test.pool.context();
    ctx.epoch = Epoch {
        number: ctx.epoch.number + 1,
        instance: InstanceId::random(),
    };
    let store = test.places[0].store("s0/disk-3");
    store.raise_epoch(&ctx).await.unwrap();
    test.pool.probe_all().await;
    assert!(test.pool.is_taken_over());
    let epoch = store.health().await.unwrap().epoch;
    assert_eq!(epoch, ctx.epoch, "it keeps the higher one");
    let class = test.standard().await;
    let refused = test.pool.group_for_write(&class, Some(1 << 20), None).await;
    assert!(matches!(refused, Err(PlaceError::TakenOver)));
}

#[tokio::test]
async fn of_a_disk_and_its_copy_none_is_taken_back() {
    let test = TestPool::new(&[6]).await;
    let away = test.places[0].set("s0/disk-1", Content::Missing);
    let pool = test.restart().await.unwrap();
    test.places[0].set("s0/disk-7", away.clone());
    test.places[0].set("s0/disk-8", away);
    pool.look_for_missing().await;
    let living = |pool: &Pool| pool.snapshot().view.by_server(|disk| disk.living).total();
    assert_eq!(living(&pool), 5);
    test.places[0].set("s0/disk-8", Content::Missing);
    pool.look_for_missing().await;
    assert_eq!(living(&pool), 6);
}

#[tokio::test]
async fn a_disk_that_knows_more_than_the_catalog_is_not_used() {
    let test = TestPool::new(&[3]).await;
    let ctx = CallContext {
        committed: shardgate_wire::CommitNumber(test.catalog.committed().0 + 50),
        ..test.pool.context()
    };
    let store = test.places[0].store("s0/disk-2");
    let slot = SlotAssignment {
        group: shardgate_wire::GroupId(77),
        slot: 0,
        generation: shardgate_wire::Generation(1),
    };
    store.assign(&ctx, &[slot]).await.unwrap();
    let pool = test.restart().await.unwrap();
    let standing = pool.member(store.disk()).unwrap().standing();
    let Standing::Lost { why } = &standing else {
        panic!("{standing:?}");
    };
    assert!(why.contains("the catalog had"), "{why}");
    // It is not taken back while the pool runs, either.
    pool.look_for_missing().await;
    assert!(pool.store(store.disk()).is_none());
    assert_eq!(
        store.health().await.unwrap().told,
        (ctx.lineage, ctx.committed),
        "nor told of anything"
    );
}

#[tokio::test]
async fn a_disk_that_was_formatted_and_not_committed_is_taken_in() {
    let test = TestPool::new(&[6]).await;
    let identity = DiskIdentity {
        cluster: test.pool.context().cluster,
        disk: shardgate_wire::DiskId(4711),
        medium: Medium::Flash,
    };
    test.places[0].set("s0/disk-7", Content::Disk(MemoryStore::new(identity)));
    let pool = test.restart().await.unwrap();
    assert!(pool.is_living(identity.disk));
    assert!(test.catalog.disk(identity.disk).await.unwrap().is_some());
}

#[tokio::test]
async fn a_new_folder_joins_and_a_foreign_disk_does_not() {
    let test = TestPool::new(&[6]).await;
    let place = &test.places[0];
    place.set("s0/disk-7", Content::Blank);
    let foreign = MemoryStore::new(DiskIdentity {
        cluster: ClusterId(1),
        disk: shardgate_wire::DiskId(1),
        medium: Medium::Flash,
    });
    place.set("s0/disk-8", Content::Disk(foreign.clone()));
    test.restart().await.unwrap();
    assert_eq!(test.catalog.disks().await.unwrap().len(), 7);
    assert_eq!(
        foreign.health().await.unwrap().epoch,
        Epoch::default(),
        "left untouched"
    );
}

/// A configured folder that is no disk in use is told of for as long as it is
/// there, not by the start alone.
#[tokio::test]
async fn status_shows_what_is_wrong_with_folders() {
    let test = TestPool::new(&[6]).await;
    let place = &test.places[0];
    let identity = |cluster, disk| DiskIdentity {
        cluster,
        disk: shardgate_wire::DiskId(disk),
        medium: Medium::Flash,
    };
    let pool = &test.pool;
    assert_eq!(pool.status().await.warnings, Vec::<String>::new());
    let ours = pool.context().cluster;
    let known = place.store("s0/disk-1");
    let disk = |cluster, disk| Content::Disk(MemoryStore::new(identity(cluster, disk)));
    for (folder, content, words) in [
        (
            "s0/disk-7",
            Content::Missing,
            "there is no folder s0/disk-7",
        ),
        (
            "s0/disk-8",
            disk(ClusterId(1), 1),
            "a disk of another cluster",
        ),
        ("s0/disk-9", Content::Blank, "the next start makes it one"),
        ("s0/disk-a", disk(ours, 9), "the catalog does not know"),
        ("s0/disk-b", Content::Disk(known), "one is a copy"),
    ] {
        place.set(folder, content);
        let warnings = pool.status().await.warnings;
        let of = |warning: &&String| warning.contains(folder);
        let of: Vec<_> = warnings.iter().filter(of).collect();
        assert!(
            of.len() == 1 && of[0].contains(words),
            "{folder}: {warnings:?}"
        );
        place.remove(folder);
    }
    assert_eq!(pool.status().await.warnings, Vec::<String>::new());
    assert_eq!(pool.disk_count(), DiskCount { living: 6, all: 6 });
}

#[tokio::test]
async fn a_silent_server_is_started_without() {
    let test = TestPool::new(&[2, 2, 2]).await;
    test.places[1].silence(true);
    let pool = test.restart().await.unwrap();
    assert_eq!(
        pool.snapshot().view.by_server(|disk| disk.living).total(),
        4
    );
    assert_eq!(pool.snapshot().view.servers(), 3);
    test.places[1].silence(false);
    pool.look_for_missing().await;
    assert_eq!(
        pool.snapshot().view.by_server(|disk| disk.living).total(),
        6
    );
}

#[tokio::test(start_paused = true)]
async fn agents_may_start_later_than_the_gateway() {
    let test = TestPool::new(&[2, 2, 2]).await;
    test.places[0].silence(true);
    test.places[1].silence(true);
    let late = Arc::clone(&test.places[1]);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        late.silence(false);
    });
    let pool = test.restart().await.unwrap();
    assert_eq!(
        pool.snapshot().view.by_server(|disk| disk.living).total(),
        4
    );
}

#[tokio::test]
async fn status_says_what_may_be_lost() {
    let test = TestPool::new(&[2, 2, 2]).await;
    let status = test.pool.status().await;
    assert_eq!(
        status.loss,
        ["any 2 disks, any 1 server"],
        "before the first group too"
    );
    assert_eq!(status.disks.len(), 6);
    assert_eq!(status.classes[0].scheme.as_deref(), Some("4+2"));
    assert!(status.classes.iter().all(|class| class.free_bytes > 0));
    let class = test.standard().await;
    test.pool.group_for_write(&class, None, None).await.unwrap();
    test.pull(&test.disks()[..1]).await;
    let status = test.pool.status().await;
    assert_eq!(status.loss[0], "any 1 more disk");
    assert_eq!(status.groups.degraded, 1);
    assert!(
        status
            .warnings
            .iter()
            .any(|warning| warning.contains("is failed")),
        "{status:?}"
    );
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(
        serde_json::from_str::<crate::pool::PoolStatus>(&text).unwrap(),
        status
    );
}

#[tokio::test]
async fn one_disk_keeps_one_copy_and_says_so() {
    let test = TestPool::new(&[1]).await;
    assert_eq!(test.standard().await.scheme.to_string(), "1+0");
    assert_eq!(
        test.class("REDUCED_REDUNDANCY").await.scheme.to_string(),
        "1+0"
    );
    let status = test.pool.status().await;
    assert!(
        status
            .warnings
            .iter()
            .any(|warning| warning.contains("ONE copy"))
    );
    let class = test.standard().await;
    test.pool.group_for_write(&class, None, None).await.unwrap();
}

//! Tests of groups for writes, on disks in memory.

use shardgate_catalog::model::GroupState;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{CallContext, DiskId, Epoch, InstanceId, SlotAssignment};

use super::*;
use crate::object::ports::{CallReport, Disks};
use crate::pool::test_pool::{TestPool, out};

const LEN: Option<u64> = Some(1 << 20);

async fn write(pool: &TestPool) -> Result<Arc<GroupView>, PlaceError> {
    let class = pool.standard().await;
    pool.pool.group_for_write(&class, LEN, None).await
}

#[tokio::test]
async fn a_group_is_committed_and_assigned_before_it_is_handed_out() {
    let test = TestPool::new(&[6]).await;
    let group = write(&test).await.unwrap();
    assert_eq!(group.scheme.to_string(), "4+2");
    assert_eq!(
        test.catalog.group(group.row.id).await.unwrap().as_ref(),
        Some(&group.row)
    );
    for disk in test.disks() {
        assert_eq!(test.disk(disk).calls(Call::Assign), 1);
    }
    // Another write goes to the same one: six disks need no more.
    assert_eq!(write(&test).await.unwrap().row.id, group.row.id);
    assert_eq!(test.catalog.groups().await.unwrap().len(), 1);
}

#[tokio::test]
async fn writes_go_on_with_one_disk_out_and_narrow_with_two() {
    let test = TestPool::new(&[6]).await;
    let full = write(&test).await.unwrap();
    test.pull(&full.row.slots[..1]).await;
    assert_eq!(write(&test).await.unwrap().row.id, full.row.id);

    test.pull(&full.row.slots[1..2]).await;
    let narrow = write(&test).await.unwrap();
    assert_eq!(narrow.scheme.to_string(), "2+2");
    assert!(narrow.row.narrow);
    assert!(
        full.row.slots[..2]
            .iter()
            .all(|gone| !narrow.row.slots.contains(gone))
    );
    assert_eq!(
        write(&test).await.unwrap().row.id,
        narrow.row.id,
        "kept and reused"
    );

    test.pull(&full.row.slots[2..3]).await;
    assert_eq!(write(&test).await.unwrap().scheme.to_string(), "1+2");
    test.pull(&full.row.slots[3..4]).await;
    assert_eq!(write(&test).await.unwrap().scheme.to_string(), "1+1");
    test.pull(&full.row.slots[4..5]).await;
    let error = write(&test).await.unwrap_err();
    assert!(
        matches!(
            error,
            PlaceError::TooFewDisks {
                living: 1,
                disks: 6
            }
        ),
        "{error}"
    );

    test.put_back(&full.row.slots[..5]).await;
    assert_eq!(write(&test).await.unwrap().row.id, full.row.id);
}

#[tokio::test]
async fn the_server_rule_narrows_a_group_that_has_its_quorum() {
    let test = TestPool::new(&[2, 2, 2]).await;
    let full = write(&test).await.unwrap();
    assert_eq!(full.scheme.to_string(), "4+2");
    test.pull(&full.row.slots[..1]).await;
    let narrow = write(&test).await.unwrap();
    assert_eq!(narrow.scheme.to_string(), "3+2");
}

#[tokio::test]
async fn a_full_disk_is_invisible() {
    let test = TestPool::new(&[6]).await;
    let group = write(&test).await.unwrap();
    test.disk(group.row.slots[0]).set_capacity(0);
    test.pool.probe_all().await;
    assert_eq!(write(&test).await.unwrap().scheme.to_string(), "3+2");
    for disk in test.disks() {
        test.disk(disk).set_capacity(0);
    }
    test.pool.probe_all().await;
    assert!(matches!(write(&test).await, Err(PlaceError::NoSpace)));
    assert!(matches!(
        Disks::group_for_write(&test.pool, &test.standard().await, LEN, None).await,
        Err(crate::object::error::ObjectError::NoSpace)
    ));
}

#[tokio::test]
async fn a_disk_that_does_not_take_its_slot_is_out_and_the_group_drawn_again() {
    let test = TestPool::new(&[7]).await;
    let bad = test.disks()[3];
    test.disk(bad).fail_next(Call::Assign, 100, out());
    for _ in 0..8 {
        let group = write(&test).await.unwrap();
        assert!(!group.row.slots.contains(&bad));
        assert_eq!(group.scheme.to_string(), "4+2");
    }
}

#[tokio::test]
async fn a_late_disk_is_out_until_a_probe_is_answered() {
    let test = TestPool::new(&[6]).await;
    let disk = test.disks()[0];
    for _ in 0..3 {
        test.pool.report(disk, CallReport::Late);
    }
    assert!(test.pool.is_living(disk), "may be the load");
    test.pool.report(disk, CallReport::Late);
    assert!(!test.pool.is_living(disk), "its peers are not late");
    test.pool.probe_all().await;
    assert!(test.pool.is_living(disk));
    test.pool
        .report(disk, CallReport::Failed(&StoreError::NotFound));
    assert!(
        test.pool.is_living(disk),
        "the shard's fault is not the disk's"
    );
    test.pool.report(disk, CallReport::Failed(&out()));
    assert!(!test.pool.is_living(disk));
}

#[tokio::test]
async fn disks_that_are_late_in_turns_stay() {
    let test = TestPool::new(&[6]).await;
    for _ in 0..50 {
        for disk in test.disks() {
            test.pool.report(disk, CallReport::Late);
        }
    }
    assert!(test.disks().iter().all(|disk| test.pool.is_living(*disk)));
    assert_eq!(write(&test).await.unwrap().scheme.to_string(), "4+2");
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_delays_no_other_and_is_late() {
    let test = TestPool::new(&[6]).await;
    let disk = test.disks()[0];
    test.disk(disk).delay(std::time::Duration::from_secs(60));
    let began = tokio::time::Instant::now();
    test.pool.probe_all().await;
    assert!(began.elapsed() < std::time::Duration::from_secs(3));
    assert!(!test.pool.is_living(disk));
    assert_eq!(
        test.disks()
            .iter()
            .filter(|disk| test.pool.is_living(**disk))
            .count(),
        5
    );
}

#[tokio::test]
async fn classes_share_the_disks_and_have_their_own_groups() {
    let test = TestPool::new(&[6]).await;
    let standard = write(&test).await.unwrap();
    let reduced = test.class("REDUCED_REDUNDANCY").await;
    let copies = test
        .pool
        .group_for_write(&reduced, LEN, None)
        .await
        .unwrap();
    assert_eq!(copies.scheme.to_string(), "1+1");
    assert_ne!(copies.row.id, standard.row.id);
    assert_eq!(write(&test).await.unwrap().row.id, standard.row.id);
    assert!(Disks::class(&test.pool, Some("PLATINUM")).await.is_err());
    assert_eq!(test.pool.class_name(reduced.number), "REDUCED_REDUNDANCY");
}

#[tokio::test]
async fn a_preferred_group_is_kept_while_it_is_whole() {
    let test = TestPool::new(&[24]).await;
    let class = test.standard().await;
    let first = write(&test).await.unwrap();
    for _ in 0..2000 {
        write(&test).await.unwrap();
    }
    let groups = test.catalog.groups().await.unwrap().len();
    assert!((2..=4).contains(&groups), "{groups} groups on 24 disks");
    for _ in 0..20 {
        let again = test
            .pool
            .group_for_write(&class, LEN, Some(first.row.id))
            .await
            .unwrap();
        assert_eq!(again.row.id, first.row.id);
    }
    test.pull(&first.row.slots[..1]).await;
    let other = test
        .pool
        .group_for_write(&class, LEN, Some(first.row.id))
        .await
        .unwrap();
    assert_ne!(other.row.id, first.row.id);
}

#[tokio::test]
async fn no_disk_is_in_more_than_two_open_groups() {
    let test = TestPool::new(&[3, 3, 3, 3]).await;
    let class = test.standard().await;
    let reduced = test.class("REDUCED_REDUNDANCY").await;
    for round in 0..3000 {
        let class = if round % 3 == 0 { &reduced } else { &class };
        test.pool.group_for_write(class, LEN, None).await.unwrap();
    }
    let open = test.pool.inner.open.facts(0);
    for disk in test.disks() {
        let count = open
            .iter()
            .filter(|group| group.slots.contains(&disk))
            .count();
        assert!(count <= 2, "disk {disk} is in {count} open groups");
    }
}

#[tokio::test]
async fn a_full_group_is_sealed_and_another_made() {
    let test = TestPool::new(&[6]).await;
    for disk in test.disks() {
        test.disk(disk).set_capacity(200 << 30);
    }
    test.pool.probe_all().await;
    let class = test.standard().await;
    let five_gib = Some(5 << 30);
    let first = test
        .pool
        .group_for_write(&class, five_gib, None)
        .await
        .unwrap();
    let mut other = first.clone();
    for _ in 0..4 {
        other = test
            .pool
            .group_for_write(&class, five_gib, None)
            .await
            .unwrap();
    }
    assert_ne!(other.row.id, first.row.id);
    let sealed = test.catalog.group(first.row.id).await.unwrap().unwrap();
    assert_eq!(sealed.state, GroupState::Sealed);
    assert!(
        sealed.slot_bytes >= 2 << 30,
        "1 % of 200 GiB: {}",
        sealed.slot_bytes
    );
    // It is still read, and its record is current in the cache.
    assert_eq!(test.pool.group(first.row.id).await.unwrap().row, sealed);
}

#[tokio::test]
async fn a_restart_goes_on_with_the_same_groups_and_sizes() {
    let test = TestPool::new(&[6]).await;
    for disk in test.disks() {
        test.disk(disk).set_capacity(400 << 30);
    }
    test.pool.probe_all().await;
    let class = test.standard().await;
    let first = test
        .pool
        .group_for_write(&class, Some(5 << 30), None)
        .await
        .unwrap();
    let pool = test.restart().await.unwrap();
    let again = pool.group_for_write(&class, LEN, None).await.unwrap();
    assert_eq!(again.row.id, first.row.id);
    assert!(again.row.slot_bytes >= 1 << 30, "{}", again.row.slot_bytes);
    assert!(test.pool.context().epoch.number < pool.context().epoch.number);
}

#[tokio::test]
async fn a_disk_that_missed_its_slot_is_told_again() {
    let test = TestPool::new(&[6]).await;
    let group = write(&test).await.unwrap();
    let disk = group.row.slots[2];
    let before = test.disk(disk).calls(Call::Assign);
    test.pool.stale_generation(group.row.id).await.unwrap();
    assert_eq!(test.disk(disk).calls(Call::Assign), before + 1);
    assert_eq!(
        write(&test).await.unwrap().row.id,
        group.row.id,
        "still open"
    );
}

#[tokio::test]
async fn a_disk_with_a_newer_generation_than_the_catalog_is_not_overruled() {
    let test = TestPool::new(&[6]).await;
    let group = write(&test).await.unwrap();
    let newer = SlotAssignment {
        generation: Generation(9),
        ..group.assignment(0)
    };
    let store = test.pool.store(group.row.slots[0]).unwrap();
    store.assign(&test.pool.context(), &[newer]).await.unwrap();
    let error = test.pool.stale_generation(group.row.id).await.unwrap_err();
    assert!(matches!(error, PlaceError::Slot { .. }), "{error}");
}

#[tokio::test]
async fn a_gateway_that_was_taken_over_writes_nothing_more() {
    let test = TestPool::new(&[6]).await;
    write(&test).await.unwrap();
    let disk: DiskId = test.disks()[0];
    let taken = CallContext {
        epoch: Epoch {
            number: 99,
            instance: InstanceId(99),
        },
        ..test.pool.context()
    };
    test.pool
        .store(disk)
        .unwrap()
        .raise_epoch(&taken)
        .await
        .unwrap();
    assert!(!test.pool.is_taken_over());
    test.pool.probe_all().await;
    assert!(test.pool.is_taken_over());
    assert!(matches!(write(&test).await, Err(PlaceError::TakenOver)));
    assert!(test.pool.ready().is_err());
}

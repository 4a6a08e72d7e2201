//! Members that are late or fail: one switch, and writes wait.

use std::time::Duration;

use shardgate_journal::JournalError;
use shardgate_wire::DiskId;
use tokio::time::{Instant, sleep, timeout};

use crate::pool::{Pool, commit, link};

async fn timed(writer: &mut shardgate_journal::Writer) -> Duration {
    let began = Instant::now();
    commit(writer, 1).await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn one_late_member_costs_one_switch() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 20).await;
    let before = writer.members();
    pool.disk(before[0].0).stall(Duration::from_secs(10));
    let took = timed(&mut writer).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    let after = writer.members();
    assert!(!after.contains(&before[0]) && after.len() == 3);
    commit(&mut writer, 500).await;
    assert!(!writer.members().contains(&before[0]));
}

#[tokio::test(start_paused = true)]
async fn a_second_late_member_within_ten_seconds_is_waited_for() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 20).await;
    pool.disk(writer.members()[0].0)
        .stall(Duration::from_secs(1));
    assert!(timed(&mut writer).await < Duration::from_millis(500));
    sleep(Duration::from_secs(3)).await;
    let members = writer.members();
    pool.disk(members[0].0).stall(Duration::from_secs(4));
    let took = timed(&mut writer).await;
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert_eq!(writer.members(), members, "no second switch");
    sleep(Duration::from_secs(8)).await;
    pool.disk(members[0].0).stall(Duration::from_secs(4));
    assert!(timed(&mut writer).await < Duration::from_millis(500));
    assert_ne!(writer.members(), members);
}

#[tokio::test(start_paused = true)]
async fn lateness_never_moves_onto_the_same_device() {
    let mut pool = Pool::new(5, 2);
    pool.together = vec![DiskId(1), DiskId(5)];
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 20).await;
    let shared = pool.together.clone();
    let on: Vec<DiskId> = writer
        .members()
        .into_iter()
        .filter(|d| shared.contains(d))
        .collect();
    assert_eq!(on.len(), 1, "devices are kept apart: {on:?}");
    pool.disk(on[0].0).stall(Duration::from_secs(9));
    assert!(timed(&mut writer).await < Duration::from_millis(500));
    assert!(writer.members().iter().all(|disk| !shared.contains(disk)));
    // Another is late too: only the device that is late could take its place.
    sleep(Duration::from_secs(11)).await;
    let members = writer.members();
    pool.disk(1).stall(Duration::from_secs(30));
    pool.disk(members[0].0).stall(Duration::from_secs(5));
    let took = timed(&mut writer).await;
    assert!(!writer.members().contains(&DiskId(1)), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn three_disks_go_on_with_two_and_widen_again() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 3).await;
    assert_eq!(writer.members().len(), 3);
    pool.disk(2).kill();
    assert!(timed(&mut writer).await < Duration::from_millis(500));
    assert_eq!(writer.members().len(), 2);
    pool.disk(2).open();
    for _ in 0..30 {
        sleep(Duration::from_secs(1)).await;
        commit(&mut writer, 1).await;
    }
    assert_eq!(writer.members().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn writes_wait_and_do_not_fail() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 3).await;
    pool.disk(2).kill();
    pool.disk(3).kill();
    let (two, three) = (pool.disk(2).clone(), pool.disk(3).clone());
    tokio::spawn(async move {
        sleep(Duration::from_secs(60)).await;
        two.open();
        sleep(Duration::from_secs(60)).await;
        three.open();
    });
    let took = timed(&mut writer).await;
    assert!(
        took > Duration::from_secs(60) && took < Duration::from_secs(70),
        "{took:?}"
    );
    // Waiting leaves no heap of begun segments behind.
    assert!(
        pool.disk(1).contents().len() < 8,
        "{}",
        pool.disk(1).contents().len()
    );
    drop(writer);
    sleep(Duration::from_secs(70)).await;
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_older_gateway_is_refused_everything_and_stops() {
    let mut pool = Pool::new(5, 2);
    let (mut old, _) = pool.start().await.unwrap();
    let first = commit(&mut old, 3).await;
    let (mut new, shown) = pool.start().await.unwrap();
    assert_eq!(shown, first);
    let second = commit(&mut new, 2).await;
    let at = old.acknowledged();
    let record = shardgate_journal::Record::after(&at, &b"too late"[..]);
    let refused = timeout(Duration::from_secs(60), old.append(vec![record.clone()])).await;
    assert!(
        matches!(refused, Ok(Err(JournalError::Fenced(_)))),
        "{refused:?}"
    );
    let again = old.append(vec![record]).await;
    assert!(matches!(again, Err(JournalError::Fenced(_))), "{again:?}");
    let ctx = old.context();
    for disk in &pool.disks {
        let disk: &dyn shardgate_wire::journal::JournalDisk = &link(disk);
        assert!(disk.files(&ctx).await.is_err());
        assert!(disk.raise(&ctx).await.is_err());
    }
    drop(new);
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, [first, second].concat());
}

/// The one disk that could take its place lies on the device that is late.
#[tokio::test(start_paused = true)]
async fn without_another_device_a_late_member_is_waited_for() {
    let mut pool = Pool::new(3, 1);
    pool.together = vec![DiskId(1), DiskId(3)];
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 5).await;
    let members = writer.members();
    let late = members.iter().find(|disk| pool.together.contains(disk));
    pool.disk(late.unwrap().0).stall(Duration::from_secs(3));
    let took = timed(&mut writer).await;
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert_eq!(writer.members(), members);
}

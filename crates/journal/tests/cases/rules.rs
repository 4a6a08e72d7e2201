//! Rules whose breach shows only in one sequence of events.

use std::sync::Arc;
use std::time::Duration;

use shardgate_journal::disks::{JournalMap, is_majority};
use shardgate_journal::recover::Request;
use shardgate_journal::salvage::salvage;
use shardgate_journal::{JournalError, Member, Position, Record, WriterOptions, recover};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{
    CallContext, ClusterId, CommitNumber, DiskId, Epoch, InstanceId, LineageId, Purpose,
};
use tokio::time::timeout;

use crate::pool::{Pool, SEGMENT_BYTES, commit};

fn ids(of: &[u128]) -> Vec<DiskId> {
    of.iter().copied().map(DiskId).collect()
}

fn member(pool: &Pool, disk: Arc<dyn JournalDisk>) -> Member {
    Member {
        place: pool.place(disk.disk()),
        disk,
        segment_bytes: SEGMENT_BYTES as u64,
    }
}

fn request(map: JournalMap, instance: u128, from: Position) -> Request {
    Request {
        ctx: CallContext {
            cluster: ClusterId(1),
            epoch: Epoch {
                number: 0,
                instance: InstanceId(instance),
            },
            lineage: LineageId(1),
            committed: CommitNumber(0),
            purpose: Purpose::Client,
        },
        map,
        lost: Vec::new(),
        from,
        begun: true,
        judged: None,
        answer_within: Duration::from_secs(5),
    }
}

/// What a start shows that knows this map, to a catalog that is at `from`.
async fn shown(
    pool: &Pool,
    map: JournalMap,
    instance: u128,
    from: Position,
) -> Result<Vec<Record>, JournalError> {
    let recovered = recover(&pool.links(), request(map.clone(), instance, from)).await?;
    let named = map.all();
    let links = pool.links().into_iter();
    let members = links
        .filter(|link| named.contains(&link.disk()))
        .map(|link| member(pool, link));
    let options = WriterOptions {
        parity: pool.parity,
        ..WriterOptions::default()
    };
    let (_, mut replay) = recovered.settle(members.collect(), options).await?;
    let mut records = Vec::new();
    while let Some(more) = replay.next().await? {
        records.extend(more);
    }
    Ok(records)
}

/// The new journal disks alone would do for whoever knows the new map; a start
/// that knows the old one only would find nothing.
#[tokio::test(start_paused = true)]
async fn the_members_of_a_change_are_enough_of_the_old_and_of_the_new() {
    let mut pool = Pool::new(6, 1);
    let (mut writer, _) = pool.start().await.unwrap();
    let mut committed = commit(&mut writer, 3).await;
    let (old, new) = (ids(&[1, 2, 3]), ids(&[4, 5, 6]));
    assert_eq!(pool.map().disks, old);
    let changed = JournalMap {
        number: 2,
        disks: new.clone(),
        old: Some(old.clone()),
    };
    let all = pool.links().into_iter().map(|link| member(&pool, link));
    let members = all.collect();
    writer
        .change_journal(members, changed.clone())
        .await
        .unwrap();
    committed.extend(commit(&mut writer, 2).await);
    let members = writer.members();
    assert!(is_majority(&old, &members) && is_majority(&new, &members));
    drop(writer);
    // The map was not written yet, and the new disks do not answer.
    let down = |pool: &Pool, disks: &[DiskId]| disks.iter().for_each(|id| pool.disk(id.0).kill());
    let up = |pool: &Pool, disks: &[DiskId]| disks.iter().for_each(|id| pool.disk(id.0).open());
    down(&pool, &new);
    let start = Position::default();
    let found = shown(&pool, pool.map(), 70, start).await.unwrap();
    assert_eq!(found, committed);
    up(&pool, &new);
    // It was, and counts; then the old ones go.
    down(&pool, &old);
    let settled = JournalMap {
        old: None,
        ..changed
    };
    let before = committed[2].position;
    let found = shown(&pool, settled, 71, before).await.unwrap();
    assert_eq!(found, committed[3..], "what came since the change began");
}

/// Commits must not wait for disks that only the change needs.
#[tokio::test(start_paused = true)]
async fn a_change_whose_new_disks_hang_is_given_up() {
    let mut pool = Pool::new(6, 1);
    let (mut writer, _) = pool.start().await.unwrap();
    let mut committed = commit(&mut writer, 3).await;
    for id in [4, 5, 6] {
        pool.disk(id).stall(Duration::from_secs(600));
    }
    let old = pool.map().disks;
    let changed = JournalMap {
        number: 2,
        disks: ids(&[4, 5, 6]),
        old: Some(old.clone()),
    };
    let all = pool.links().into_iter().map(|link| member(&pool, link));
    let members = all.collect();
    let change = timeout(
        Duration::from_secs(10),
        writer.change_journal(members, changed),
    );
    assert_eq!(change.await.unwrap(), Err(JournalError::NotChanged));
    assert_eq!(writer.map().disks, old);
    let goes_on = timeout(Duration::from_secs(1), commit(&mut writer, 2));
    committed.extend(goes_on.await.unwrap());
    assert!(is_majority(&old, &writer.members()));
    drop(writer);
    for id in [4, 5, 6] {
        pool.disk(id).kill();
    }
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
}

/// A copy of the last segment would count as the journal's end on a disk that
/// a start may reach without the members.
#[tokio::test(start_paused = true)]
async fn a_segment_is_not_offered_for_copies_before_a_later_one_names_it() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 3).await;
    assert!(writer.closed().is_empty(), "it is written");
    assert!(writer.close().await);
    let (mut writer, _) = pool.start().await.unwrap();
    assert!(writer.closed().is_empty(), "nothing names it yet");
    commit(&mut writer, 1).await;
    assert_eq!(writer.closed().len(), 1);
    assert_eq!(writer.closed()[0].last.number, CommitNumber(3));
}

/// A record behind the place where the next segment goes on is of a history
/// that ended there.
#[tokio::test(start_paused = true)]
async fn what_lies_behind_a_seal_is_never_shown() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let committed = commit(&mut writer, 2).await;
    let members = writer.members();
    let others: Vec<DiskId> = (1..=5)
        .map(DiskId)
        .filter(|disk| *disk != members[0])
        .collect();
    others.iter().for_each(|id| pool.disk(id.0).kill());
    let alone = Record::after(&writer.acknowledged(), &b"on one member alone"[..]);
    let append = writer.append(vec![alone.clone()]);
    let waited = timeout(Duration::from_millis(300), append).await;
    assert!(waited.is_err(), "it cannot be acknowledged");
    drop(writer);
    // The next gateway does not reach that member, and writes its own third.
    others.iter().for_each(|id| pool.disk(id.0).open());
    pool.disk(members[0].0).kill();
    let (mut writer, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
    let third = commit(&mut writer, 1).await;
    assert_ne!(third[0].position, alone.position);
    drop(writer);
    pool.disk(members[0].0).open();
    for _ in 0..2 {
        let (_, shown) = pool.start().await.unwrap();
        assert_eq!(shown, [committed.clone(), third.clone()].concat());
    }
}

/// A disk that has too much to do has not failed: no segment is given up.
#[tokio::test(start_paused = true)]
async fn a_busy_disk_is_asked_again() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 1).await;
    pool.disk(2).be_busy(3);
    commit(&mut writer, 2).await;
    assert!(writer.closed().is_empty(), "one segment was enough");
    assert_eq!(writer.members().len(), 3);
}

/// Of two disks one is named lost while a commit waits for it: the commit is
/// made on the other, and so is the next start.
#[tokio::test(start_paused = true)]
async fn a_commit_that_waits_for_a_disk_goes_on_when_that_is_named_lost() {
    let mut pool = Pool::new(2, 1);
    let lost = shardgate_journal::disks::Lost::default();
    let recovered = pool.find().await.unwrap();
    let options = WriterOptions {
        parity: 1,
        lost: lost.clone(),
        ..WriterOptions::default()
    };
    let (mut writer, _) = recovered.settle(pool.members(), options).await.unwrap();
    let mut committed = commit(&mut writer, 2).await;
    pool.disk(1).kill();
    let record = Record::after(&writer.acknowledged(), &b"waits"[..]);
    {
        let append = writer.append(vec![record.clone()]);
        tokio::pin!(append);
        let waited = timeout(Duration::from_secs(30), &mut append).await;
        assert!(waited.is_err(), "one of two is no majority");
        lost.add(DiskId(1));
        append.await.unwrap();
    }
    committed.push(record);
    drop(writer);
    assert!(pool.find().await.is_err(), "not without a word");
    pool.lost = ids(&[1]);
    pool.begun = true;
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
}

/// A disk that does not answer while the journal is replayed is no proof that
/// a segment is missing.
#[tokio::test(start_paused = true)]
async fn a_disk_that_goes_while_it_is_replayed_is_an_error_to_try_again() {
    let mut pool = Pool::new(1, 0);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 3).await;
    assert!(writer.close().await);
    let recovered = pool.find().await.unwrap();
    let options = WriterOptions::default();
    let (_, mut replay) = recovered.settle(pool.members(), options).await.unwrap();
    pool.disk(1).kill();
    let error = replay.next().await.unwrap_err();
    assert!(matches!(error, JournalError::Disk { .. }), "{error}");
}

/// A start that was judged free, and another that came before it: that one
/// lives, and must not be fenced unheard.
#[tokio::test(start_paused = true)]
async fn a_start_does_not_fence_a_gateway_that_it_has_not_judged() {
    let mut pool = Pool::new(3, 1);
    let (writer, _) = pool.start().await.unwrap();
    let judged = writer.context().epoch;
    pool.disk(1).kill();
    let (mut other, _) = pool.start().await.unwrap();
    let epoch = other.context().epoch;
    // The first disk, which the start reached when it judged, does not know.
    pool.disk(1).open();
    for away in [None, Some(2)] {
        if let Some(away) = away {
            pool.disk(away).kill();
        }
        let request = Request {
            judged: Some(judged),
            ..pool.request()
        };
        let refused = recover(&pool.links(), request.clone()).await;
        assert_eq!(refused.unwrap_err(), JournalError::Fenced(epoch));
        let refused = salvage(&pool.links(), request).await;
        assert_eq!(refused.unwrap_err(), JournalError::Fenced(epoch));
    }
    pool.disk(2).open();
    commit(&mut other, 1).await;
    let request = Request {
        judged: Some(epoch),
        ..pool.request()
    };
    let recovered = recover(&pool.links(), request).await;
    assert_eq!(recovered.unwrap().context().epoch.number, epoch.number + 1);
}

//! Lost disks and clean stops: complete, or refused with what is missing.

use std::sync::Arc;

use shardgate_journal::copies::{copy, is_whole, not_fully_stored, plan_copies, plan_looks};
use shardgate_journal::{JournalError, Position, Record, Refusal};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{CommitNumber, DiskId};

use crate::pool::{Pool, commit};

fn refusal<T>(result: Result<T, JournalError>) -> Refusal {
    match result {
        Err(JournalError::Refused(refusal)) => refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_proves_everything_and_nothing_is_rewritten() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let committed = commit(&mut writer, 5).await;
    assert!(writer.close().await);
    let files = |pool: &Pool| -> usize { pool.disks.iter().map(|d| d.contents().len()).sum() };
    let before = files(&pool);
    for _ in 0..3 {
        let found = pool.find().await.unwrap();
        assert_eq!((found.unproven(), found.tail()), (0, committed[4].position));
        let (_, shown) = pool.start().await.unwrap();
        assert_eq!(shown, committed);
    }
    assert_eq!(files(&pool), before, "nothing was written");
    let (mut writer, _) = pool.start().await.unwrap();
    let more = commit(&mut writer, 1).await;
    drop(writer);
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, [committed, more].concat());
}

#[tokio::test(start_paused = true)]
async fn what_a_start_shows_survives_the_next_loss() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let committed = commit(&mut writer, 2).await;
    // The next record reaches one member only.
    let members = writer.members();
    let others = |pool: &Pool| -> Vec<u128> {
        let ids = pool.disks.iter().map(|disk| disk.id());
        ids.filter(|id| *id != members[0]).map(|id| id.0).collect()
    };
    for id in others(&pool) {
        pool.disk(id).kill();
    }
    let record = Record::after(&writer.acknowledged(), &b"not acknowledged"[..]);
    let waits = tokio::time::timeout(
        std::time::Duration::from_millis(300),
        writer.append(vec![record.clone()]),
    );
    assert!(waits.await.is_err(), "it cannot be acknowledged");
    drop(writer);
    for id in others(&pool) {
        pool.disk(id).open();
    }
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, [committed, vec![record]].concat());
    // The only member that had it is lost.
    pool.disk(members[0].0).lose_power();
    let (_, again) = pool.start().await.unwrap();
    assert_eq!(again, shown);
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_the_rest_must_be_named_lost() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 3).await;
    let members = writer.members();
    pool.links()[4].raise(&writer.context()).await.unwrap();
    drop(writer);
    for id in &members {
        pool.disk(id.0).kill();
    }
    let missing = refusal(pool.find().await);
    assert!(matches!(
        missing,
        Refusal::NoMajority {
            answered: 2,
            journal: 5,
            ..
        }
    ));
    // All that had the segment are lost: what a disk was told says so.
    pool.lost = members.clone();
    pool.begun = true;
    let incomplete = refusal(pool.find().await);
    let acknowledged = CommitNumber(3);
    assert!(
        matches!(incomplete, Refusal::Incomplete { acknowledged: a, .. } if a == acknowledged),
        "{incomplete}"
    );
    // One of them lives: all is there, and known to be without a majority.
    pool.disk(members[0].0).open();
    pool.lost = members[1..].to_vec();
    let found = pool.find().await.unwrap();
    assert_eq!(found.tail().number, acknowledged);
    assert!(found.is_complete(), "three of five answered");
    pool.disks
        .iter()
        .filter(|d| !members.contains(&d.id()))
        .take(1)
        .for_each(|d| d.kill());
    let other = pool
        .disks
        .iter()
        .find(|d| !d.is_up() && !members.contains(&d.id()));
    pool.lost.push(other.unwrap().id());
    let found = pool.find().await.unwrap();
    assert_eq!(found.tail().number, acknowledged);
    assert!(!found.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_pool_with_a_journal_of_which_nothing_is_found_is_refused() {
    let mut pool = Pool::new(3, 2);
    pool.begun = true;
    assert_eq!(refusal(pool.find().await), Refusal::NoJournal);
}

#[tokio::test(start_paused = true)]
async fn a_catalog_that_is_not_on_the_chain_is_refused() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let committed = commit(&mut writer, 4).await;
    drop(writer);
    pool.from = committed[1].position;
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed[2..]);
    for (number, hash) in [(2, [1; 32]), (4, [2; 32]), (9, committed[3].position.hash)] {
        pool.from = Position {
            number: CommitNumber(number),
            hash,
        };
        let refused = refusal(pool.start().await);
        assert_eq!(refused, Refusal::NotOnChain(CommitNumber(number)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_on_too_few_disks_is_copied_and_the_copy_restores() {
    let mut pool = Pool::new(5, 1);
    // Journal disks 1 to 3, members 2 of them; 4 and 5 are others.
    let (mut writer, _) = pool.start().await.unwrap();
    let mut committed = commit(&mut writer, 5).await;
    let first = writer.members();
    writer.begin_segment().await.unwrap();
    committed.extend(commit(&mut writer, 2).await);
    let lost = first[0];
    pool.disk(lost.0).lose_power();
    let living: Vec<DiskId> = [5, 4, 3, 2, 1]
        .map(DiskId)
        .into_iter()
        .filter(|d| *d != lost)
        .collect();
    let lacking = not_fully_stored(writer.closed(), &living, 1);
    assert_eq!(lacking.len(), 1);
    assert_eq!(
        (lacking[0].1, lacking[0].2),
        (CommitNumber(0), CommitNumber(5))
    );
    let tasks = plan_copies(writer.closed(), &living, 1);
    assert_eq!((tasks.len(), tasks[0].to), (1, DiskId(5)));
    let links = pool.links();
    let disk = |id: DiskId| -> Arc<dyn JournalDisk> {
        links.iter().find(|link| link.disk() == id).unwrap().clone()
    };
    let closed = writer.closed()[0].clone();
    let (from, to) = (disk(tasks[0].from.0), disk(tasks[0].to));
    let file = copy(&closed, &from, &to, writer.context()).await.unwrap();
    writer.copied(closed.segment, DiskId(5), file);
    assert!(not_fully_stored(writer.closed(), &living, 1).is_empty());
    // The segment that is written moves away from the lost disk, too.
    committed.extend(commit(&mut writer, 2).await);
    drop(writer);
    // Whoever else had the first segment loses it.
    for id in &first[1..] {
        let ctx = pool.find().await.unwrap().context();
        let file = pool.disk(id.0).contents()[0].0;
        disk(*id).remove(&ctx, &[file]).await.unwrap();
    }
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
}

/// A gateway dies while it copies: what it left on the target would be taken
/// for a copy when the last whole one goes.
#[tokio::test(start_paused = true)]
async fn a_copy_that_was_not_finished_counts_for_nothing() {
    let mut pool = Pool::new(5, 1);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 5).await;
    let (member, file) = (writer.members()[0], pool.files(writer.members()[0].0)[0]);
    writer.begin_segment().await.unwrap();
    commit(&mut writer, 2).await;
    let closed = writer.closed()[0].clone();
    let links = pool.links();
    let disk = |id: DiskId| -> Arc<dyn JournalDisk> {
        links.iter().find(|link| link.disk() == id).unwrap().clone()
    };
    // The first batch gets to disk 5, and all of it to disk 4.
    let ctx = writer.context();
    let first = disk(member).read(&ctx, file, 0, 4096).await.unwrap();
    disk(DiskId(5)).begin(&ctx, first).await.unwrap();
    let (from, to) = (disk(member), disk(DiskId(4)));
    copy(&closed, &from, &to, ctx).await.unwrap();
    drop(writer);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 1).await;
    let living = [DiskId(4), DiskId(5)];
    assert_eq!(
        not_fully_stored(writer.closed(), &living, 1)[0].2,
        closed.last.number
    );
    assert!(
        plan_copies(writer.closed(), &living, 1).is_empty(),
        "first it is looked at"
    );
    let looks = plan_looks(writer.closed(), &living);
    assert_eq!(looks.len(), 2);
    for (segment, on, file) in looks {
        let whole = is_whole(&closed, &disk(on), file, writer.context()).await;
        match whole.unwrap() {
            true => writer.copied(segment, on, file),
            false => writer.not_copied(segment, on),
        }
    }
    let of = writer.closed()[0].clone();
    assert!(of.holders.contains_key(&DiskId(4)) && !of.holders.contains_key(&DiskId(5)));
    let tasks = plan_copies(&[of], &living, 1);
    assert_eq!((tasks.len(), tasks[0].to), (1, DiskId(5)));
}

#[tokio::test(start_paused = true)]
async fn a_predecessor_that_is_needed_and_missing_is_refused() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let committed = commit(&mut writer, 3).await;
    writer.begin_segment().await.unwrap();
    commit(&mut writer, 3).await;
    drop(writer);
    let ctx = pool.find().await.unwrap().context();
    for link in pool.links() {
        let first = pool.disk(link.disk().0).contents()[0].0;
        link.remove(&ctx, &[first]).await.unwrap();
    }
    let refused = refusal(pool.find().await);
    assert!(
        matches!(
            refused,
            Refusal::MissingSegment {
                to: CommitNumber(3),
                ..
            }
        ),
        "{refused}"
    );
    // A catalog that has those commits needs it no more.
    pool.from = committed[2].position;
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown.len(), 3);
}

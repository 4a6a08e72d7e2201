//! Flipped bytes: taken from another member, else refused, never shorter.

use std::sync::Arc;

use bytes::Bytes;
use shardgate_journal::format::{Batch, Kind, claimed_len};
use shardgate_journal::{JournalError, Refusal, SegmentId, Writer};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{CommitNumber, DiskId};

use crate::pool::{Pool, commit};

const PAGE: usize = 4096;
/// Of a batch, what its checksum covers: zeroes behind it fill the page up.
const HASH: usize = 100;

#[tokio::test(start_paused = true)]
async fn a_bad_batch_with_a_whole_one_behind_is_taken_from_another_member() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let committed = commit(&mut writer, 4).await;
    drop(writer);
    pool.power();
    for page in [0, 1] {
        pool.disk(1).flip(pool.file(1), page * PAGE + HASH);
    }
    let found = pool.find().await.unwrap();
    assert_eq!(found.tail(), committed[3].position);
    assert_eq!(found.damaged().len(), 1);
    assert_eq!(found.damaged()[0].0, DiskId(1));
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
}

#[tokio::test(start_paused = true)]
async fn a_bad_batch_on_all_members_is_refused() {
    for page in [0, 1, 2] {
        let mut pool = Pool::new(3, 2);
        let (mut writer, _) = pool.start().await.unwrap();
        commit(&mut writer, 4).await;
        drop(writer);
        for id in 1..=3 {
            pool.disk(id).flip(pool.file(id), page * PAGE + HASH);
        }
        let refused = pool.start().await.unwrap_err();
        assert!(
            matches!(
                refused,
                JournalError::Refused(Refusal::Incomplete { .. } | Refusal::MissingSegment { .. })
            ),
            "{page}: {refused}"
        );
    }
}

/// Nothing on the disks tells a bad last batch from one that was never whole;
/// what a disk was told does.
#[tokio::test(start_paused = true)]
async fn a_bad_last_batch_is_the_end_unless_it_was_known_to_be_acknowledged() {
    for told in [false, true] {
        let mut pool = Pool::new(3, 2);
        let (mut writer, _) = pool.start().await.unwrap();
        let committed = commit(&mut writer, 3).await;
        if told {
            pool.links()[2].raise(&writer.context()).await.unwrap();
        }
        drop(writer);
        for id in 1..=3 {
            pool.disk(id).flip(pool.file(id), 2 * PAGE + HASH);
        }
        match pool.start().await {
            Ok((_, shown)) => assert!(!told && shown == committed[..2]),
            Err(JournalError::Refused(Refusal::Incomplete {
                acknowledged,
                found,
                ..
            })) => {
                assert!(told);
                assert_eq!((acknowledged, found), (CommitNumber(3), CommitNumber(2)));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_batch_of_an_older_segment_is_taken_from_another_member() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let mut committed = commit(&mut writer, 3).await;
    writer.begin_segment().await.unwrap();
    committed.extend(commit(&mut writer, 3).await);
    drop(writer);
    let first = pool.disk(1).contents()[0].0;
    pool.disk(1).flip(first, PAGE + HASH);
    pool.disk(2).flip(first, 2 * PAGE + HASH);
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, committed);
    for id in 1..=3 {
        pool.disk(id).flip(first, PAGE + HASH + 1);
    }
    let refused = pool.start().await.unwrap_err();
    let missing = matches!(
        refused,
        JournalError::Refused(Refusal::MissingSegment { .. })
    );
    assert!(missing, "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_journal_of_a_later_version_is_refused() {
    let mut pool = Pool::new(1, 0);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 1).await;
    drop(writer);
    // Version 1 becomes another.
    pool.disk(1).flip(pool.file(1), 9);
    let refused = pool.start().await.unwrap_err();
    let version = matches!(refused, JournalError::Refused(Refusal::Version { .. }));
    assert!(version, "{refused}");
}

/// The first batch of the oldest segment on a disk.
fn first_batch(pool: &Pool, disk: u128) -> Batch {
    let (_, bytes) = pool.disk(disk).contents().swap_remove(0);
    let bytes = Bytes::from(bytes);
    let len = claimed_len(&bytes).unwrap();
    Batch::decode(&bytes.slice(..len)).unwrap()
}

/// A disk that is no member of the open segment.
fn outsider(pool: &Pool, writer: &Writer) -> Arc<dyn JournalDisk> {
    let members = writer.members();
    let mut links = pool.links().into_iter();
    links.find(|of| !members.contains(&of.disk())).unwrap()
}

/// A sound checksum says that a batch is what was written; only the hash says
/// that its records are those that were committed.
#[tokio::test(start_paused = true)]
async fn records_that_do_not_lead_to_their_hash_are_the_end() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let committed = commit(&mut writer, 3).await;
    let forger = outsider(&pool, &writer);
    let mut forged = first_batch(&pool, writer.members()[0].0);
    let Kind::First(header) = &mut forged.kind else {
        panic!("a segment begins with a header");
    };
    header.predecessor = Some(forged.segment);
    header.base = committed[2].position;
    forged.segment = SegmentId {
        sequence: forged.segment.sequence + 1,
        ..forged.segment
    };
    (forged.before, forged.acknowledged) = (CommitNumber(3), CommitNumber(3));
    forged.last = committed[2].position.next(&forged.payloads[0]);
    forged.last.hash[0] ^= 1;
    forger
        .begin(&writer.context(), forged.encode())
        .await
        .unwrap();
    drop(writer);
    for _ in 0..2 {
        let (_, shown) = pool.start().await.unwrap();
        assert_eq!(shown, committed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_records_do_not_lead_to_their_hash_is_passed_over() {
    let mut pool = Pool::new(5, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let mut committed = commit(&mut writer, 1).await;
    let forger = outsider(&pool, &writer);
    let mut forged = first_batch(&pool, writer.members()[0].0);
    forged.payloads = vec![Bytes::from_static(b"commit 9")];
    forger
        .begin(&writer.context(), forged.encode())
        .await
        .unwrap();
    writer.begin_segment().await.unwrap();
    committed.extend(commit(&mut writer, 2).await);
    drop(writer);
    // It is asked first.
    let mut links = pool.links();
    links.sort_by_key(|link| link.disk() != forger.disk());
    let request = pool.request();
    let recovered = shardgate_journal::recover(&links, request).await.unwrap();
    let settled = recovered.settle(pool.members(), pool.options()).await;
    let (_, mut replay) = settled.unwrap();
    let mut shown = Vec::new();
    while let Some(more) = replay.next().await.unwrap() {
        shown.extend(more);
    }
    assert_eq!(shown, committed);
}

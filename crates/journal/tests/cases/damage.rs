//! Flipped bytes: taken from another member, else refused, never shorter.

use shardgate_journal::{JournalError, Refusal};
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

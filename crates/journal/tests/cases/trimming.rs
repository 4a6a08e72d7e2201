//! How long the journal is, what a checkpoint makes needless of it, and what
//! is left of that on a disk that was away.

use shardgate_journal::copies::list_segments;
use shardgate_wire::{CommitNumber, DiskId};

use super::pool::{Pool, SEGMENT_BYTES, commit};

const FILE: u64 = SEGMENT_BYTES as u64;

#[tokio::test(start_paused = true)]
async fn lengths_count_what_is_behind_a_commit() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    assert_eq!(writer.length_behind(CommitNumber(0)), 0);
    // Commits 1 to 3, 4 to 6, and 7 and 8 in the open one.
    commit(&mut writer, 3).await;
    writer.begin_segment().await.unwrap();
    commit(&mut writer, 3).await;
    writer.begin_segment().await.unwrap();
    commit(&mut writer, 2).await;
    let open = writer.length_behind(CommitNumber(6));
    assert!(open > 0 && open < FILE, "what was written of it: {open}");
    for (commit, behind, up_to) in [
        (0, 2 * FILE + open, 0),
        (2, 2 * FILE + open, 0),
        (3, FILE + open, FILE),
        (5, FILE + open, FILE),
        (6, open, 2 * FILE),
        (7, open, 2 * FILE),
        (8, 0, 2 * FILE),
    ] {
        let commit = CommitNumber(commit);
        assert_eq!(writer.length_behind(commit), behind, "behind {commit}");
        assert_eq!(writer.length_up_to(commit), up_to, "up to {commit}");
    }
    assert_eq!(writer.trim(CommitNumber(5)).len(), 1);
    assert_eq!(writer.length_up_to(CommitNumber(6)), FILE);
    assert_eq!(writer.length_bytes(), 2 * FILE);
}

#[tokio::test(start_paused = true)]
async fn what_a_disk_that_was_away_keeps_of_it_is_known() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    commit(&mut writer, 3).await;
    writer.begin_segment().await.unwrap();
    commit(&mut writer, 3).await;
    writer.begin_segment().await.unwrap();
    commit(&mut writer, 1).await;
    let disk = pool.links().swap_remove(0);
    let held = list_segments(&disk, writer.context()).await.unwrap();
    let mut segments: Vec<_> = held.iter().map(|(segment, _)| *segment).collect();
    segments.sort();
    assert_eq!(segments.len(), 3);
    assert!(
        !segments.iter().any(|of| writer.is_trimmed(*of)),
        "all are needed"
    );
    assert_eq!(writer.trim(CommitNumber(3)).len(), 1);
    let trimmed: Vec<bool> = segments.iter().map(|of| writer.is_trimmed(*of)).collect();
    assert_eq!(trimmed, [true, false, false]);
    drop((writer, disk));
    // The next start goes on without it, and without a word of a checkpoint
    // takes nothing for needless.
    let first = pool.links().into_iter().find(|of| of.disk() == DiskId(1));
    assert!(first.is_some());
    pool.from = shardgate_journal::Position::default();
    let (mut writer, shown) = pool.start().await.unwrap();
    assert_eq!(shown.len(), 7);
    assert!(!segments.iter().any(|of| writer.is_trimmed(*of)));
    writer.trim(CommitNumber(6));
    assert!(writer.is_trimmed(segments[0]) && writer.is_trimmed(segments[1]));
}

/// The disks of a segment are away: what is older may be needed when they are
/// back, and is on fewer disks than it was.
#[tokio::test(start_paused = true)]
async fn what_is_behind_a_segment_that_is_away_is_not_void() {
    let mut pool = Pool::new(3, 2);
    let (mut writer, _) = pool.start().await.unwrap();
    let mut committed = Vec::new();
    for _ in 0..3 {
        committed.extend(commit(&mut writer, 2).await);
        writer.begin_segment().await.unwrap();
    }
    let (oldest, away) = (writer.closed()[0].segment, writer.closed()[1].clone());
    drop(writer);
    for (disk, file) in away.holders {
        pool.remove(disk.0, file).await;
    }
    pool.from = committed[3].position;
    let recovered = pool.find().await.unwrap();
    let settled = recovered.settle(pool.members(), pool.options()).await;
    let (mut writer, mut replay) = settled.unwrap();
    replay.remove_void().await;
    commit(&mut writer, 1).await;
    for link in pool.links() {
        let held = list_segments(&link, writer.context()).await.unwrap();
        assert!(held.iter().any(|(segment, _)| *segment == oldest));
    }
    assert!(!writer.is_void(oldest) && !writer.is_trimmed(oldest));
}

//! A journal that was begun anew, as starts see it that were not told of it,
//! or see what is left of the one before.

use shardgate_journal::disks::JournalMap;
use shardgate_journal::salvage::salvage;
use shardgate_journal::{JournalError, Position, Refusal, Writer};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{CallContext, CommitNumber, LineageId};

use crate::pool::{Pool, commit};

/// Begins it under another lineage, as a rebuild does: its first segment
/// names a map that is on no disk yet.
async fn begin(pool: &mut Pool, lineage: LineageId) -> Writer {
    let request = pool.request();
    let found = salvage(&pool.links(), request).await.unwrap();
    let map = JournalMap {
        number: pool.map().number + 1,
        ..pool.map()
    };
    let ctx = CallContext {
        lineage,
        ..found.context()
    };
    Writer::anew(ctx, &map, pool.members(), pool.options())
}

/// A journal of 12 commits, in three segments, of which every disk was told.
async fn an_old_one(pool: &mut Pool) {
    let (mut writer, _) = pool.start().await.unwrap();
    pool.begun = true;
    for _ in 0..3 {
        commit(&mut writer, 4).await;
        writer.begin_segment().await.unwrap();
    }
    for link in pool.links() {
        link.raise(&writer.context()).await.unwrap();
    }
}

/// Its disk was away from before the new one was begun until its beginning
/// was trimmed: what it has of the old one stops no start.
#[tokio::test(start_paused = true)]
async fn what_a_disk_brings_back_of_the_old_one_counts_for_nothing() {
    let mut pool = Pool::new(3, 2);
    an_old_one(&mut pool).await;
    pool.disk(3).lose_power();
    let mut writer = begin(&mut pool, LineageId(2)).await;
    let first = commit(&mut writer, 2).await;
    writer.begin_segment().await.unwrap();
    let rest = commit(&mut writer, 1).await;
    for id in [1, 2] {
        let mut files = pool.files(id);
        // The newest stays.
        files.pop();
        for file in files {
            pool.remove(id, file).await;
        }
    }
    drop(writer);
    pool.disk(3).open();
    pool.lineage = LineageId(2);
    pool.from = first[1].position;
    let (writer, shown) = pool.start().await.unwrap();
    assert_eq!(shown, rest);
    assert_eq!(writer.acknowledged(), rest[0].position);
}

/// Cut short between its first record and the pool map: the numbers of the
/// one before are not asked of it.
#[tokio::test(start_paused = true)]
async fn before_its_map_is_written_it_is_the_journal_already() {
    let mut pool = Pool::new(5, 2);
    an_old_one(&mut pool).await;
    let mut writer = begin(&mut pool, LineageId(2)).await;
    let new = commit(&mut writer, 1).await;
    drop(writer);
    let found = pool.find().await.unwrap();
    assert!(found.is_ahead_of_map());
    assert_eq!(found.tail(), new[0].position);
}

/// Of the new one nothing is left: the old one is not it.
#[tokio::test(start_paused = true)]
async fn without_it_the_old_one_is_refused() {
    let mut pool = Pool::new(3, 2);
    an_old_one(&mut pool).await;
    let mut writer = begin(&mut pool, LineageId(2)).await;
    commit(&mut writer, 20).await;
    for link in pool.links() {
        link.raise(&writer.context()).await.unwrap();
    }
    drop(writer);
    for id in 1..=3 {
        let newest = pool.files(id).pop().unwrap();
        pool.remove(id, newest).await;
        // The call that removed it named the old lineage again.
        let ctx = CallContext {
            lineage: LineageId(2),
            committed: CommitNumber(20),
            epoch: pool.disk(id).epoch(),
            ..pool.request().ctx
        };
        pool.disk(id).link().raise(&ctx).await.unwrap();
    }
    pool.lineage = LineageId(2);
    pool.from = Position::default();
    let refused = pool.start().await.unwrap_err();
    assert!(
        matches!(refused, JournalError::Refused(Refusal::Incomplete { .. })),
        "{refused}"
    );
}

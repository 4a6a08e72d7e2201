//! What is read of a journal that is not whole, and a journal begun anew.

use shardgate_journal::salvage::{Read, Salvage, salvage};
use shardgate_journal::{Record, Writer};
use shardgate_wire::{CallContext, CommitNumber, LineageId};

use crate::pool::{Pool, commit};

const PAGE: usize = 4096;

fn span(from: u64, to: u64) -> (CommitNumber, CommitNumber) {
    (CommitNumber(from), CommitNumber(to))
}

async fn look(pool: &mut Pool) -> Salvage {
    let request = pool.request();
    salvage(&pool.links(), request).await.unwrap()
}

async fn read(found: &Salvage, piece: usize, to: Option<u64>) -> (Vec<Record>, Read) {
    let pieces = found.pieces();
    let mut records = Vec::new();
    let to = to.map(CommitNumber);
    let mut take = |record| records.push(record);
    let read = found.read(&pieces[piece], to, &mut take).await.unwrap();
    (records, read)
}

/// Three segments of four commits each, and the files of the second.
async fn three_segments(pool: &mut Pool) -> Vec<Record> {
    let (mut writer, _) = pool.start().await.unwrap();
    let mut all = commit(&mut writer, 4).await;
    for _ in 0..2 {
        writer.begin_segment().await.unwrap();
        all.extend(commit(&mut writer, 4).await);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_whole_journal_is_one_piece() {
    let mut pool = Pool::new(3, 2);
    let all = three_segments(&mut pool).await;
    let found = look(&mut pool).await;
    let pieces = found.pieces();
    assert_eq!((pieces.len(), pieces[0].from_the_first), (1, true));
    let (records, whole) = read(&found, 0, None).await;
    assert_eq!(records, all);
    assert_eq!(whole.spans, [span(1, 12)]);
    assert_eq!(found.first(&pieces[0]).await.unwrap(), Some(all[0].clone()));
    assert!(found.known(&pieces[0]) >= CommitNumber(8));
    let (records, some) = read(&found, 0, Some(6)).await;
    assert_eq!((records.len(), some.spans), (6, vec![span(1, 6)]));
}

#[tokio::test(start_paused = true)]
async fn around_a_segment_that_is_gone_there_are_two_pieces() {
    let mut pool = Pool::new(3, 2);
    let all = three_segments(&mut pool).await;
    for id in 1..=3 {
        // By order of their making: the second goes.
        let files = pool.files(id);
        assert_eq!(files.len(), 3);
        pool.remove(id, files[1]).await;
    }
    let found = look(&mut pool).await;
    let pieces = found.pieces();
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[0].base(), CommitNumber(8));
    assert!(!pieces[0].from_the_first && pieces[1].from_the_first);
    let (records, last) = read(&found, 0, None).await;
    assert_eq!((&records[..], last.spans), (&all[8..], vec![span(9, 12)]));
    let (records, first) = read(&found, 1, Some(8)).await;
    assert_eq!((&records[..], first.spans), (&all[..4], vec![span(1, 4)]));
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_everywhere_is_left_out_and_what_is_whole_somewhere_is_not() {
    let mut pool = Pool::new(3, 2);
    let all = three_segments(&mut pool).await;
    // The third batch of the first segment, and of two copies of the second.
    for id in 1..=3 {
        let files = pool.files(id);
        pool.disk(id).flip(files[0], 2 * PAGE + 100);
        if id < 3 {
            pool.disk(id).flip(files[1], PAGE + 100);
        }
    }
    let found = look(&mut pool).await;
    let (records, read) = read(&found, 0, None).await;
    assert_eq!(read.spans, [span(1, 2), span(5, 12)]);
    let expected = [&all[..2], &all[4..]].concat();
    assert_eq!(records, expected);
}

#[tokio::test(start_paused = true)]
async fn a_journal_begun_anew_is_the_journal_and_the_old_one_void() {
    let mut pool = Pool::new(3, 2);
    let old = three_segments(&mut pool).await;
    let found = look(&mut pool).await;
    let (map, members) = (pool.map(), pool.members());
    pool.lineage = LineageId(2);
    let ctx = CallContext {
        lineage: pool.lineage,
        ..found.context()
    };
    let mut writer = Writer::anew(ctx, &map, members, pool.options());
    let new = commit(&mut writer, 3).await;
    drop(writer);
    // Until a start has taken the new one, both can be read.
    let again = look(&mut pool).await;
    let (records, _) = read(&again, 0, None).await;
    assert_eq!(records, new);
    assert!(
        again.known(&again.pieces()[0]) <= CommitNumber(3),
        "of its own numbers"
    );
    let (records, _) = read(&again, 1, None).await;
    assert_eq!(records, old);
    pool.begun = true;
    let (_, shown) = pool.start().await.unwrap();
    assert_eq!(shown, new);
}

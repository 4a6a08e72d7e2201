//! Deleted rows are stepped over once at most, and no row that lives is
//! passed.

use std::ops::Range;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::read::scan_now;
use super::*;
use crate::engine::rocks::{RocksEngine, RocksOptions};
use crate::engine::{Commit, Engine, Entry, Fold, KeyRange, Op, Scan};

const ROWS: u64 = 12_000;

fn key(n: u64) -> Bytes {
    Bytes::from(format!("k/{n:06}"))
}

/// Changes rows by commits of many.
async fn commit(engine: &RocksEngine, numbers: Range<u64>, op: fn(Bytes) -> Op) {
    let numbers: Vec<u64> = numbers.collect();
    for some in numbers.chunks(4096) {
        let ops = some.iter().map(|n| op(key(*n))).collect();
        let expect = vec![];
        engine.commit(Commit { expect, ops }).await.unwrap();
    }
}

fn put(key: Bytes) -> Op {
    Op::Put(key, Bytes::from_static(&[7; 100]))
}

/// Rows, of which all but the first and last thousand were deleted after they
/// were written out.
async fn with_a_stretch(rows: u64) -> (RocksEngine, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &RocksOptions::default()).unwrap();
    commit(&engine, 0..rows, put).await;
    engine.flush().await.unwrap();
    commit(&engine, 1000..rows - 1000, Op::Delete).await;
    (engine, folder)
}

fn query(limit: usize, fold: Option<Fold>) -> Scan {
    Scan {
        range: KeyRange::prefix(&b"k/"[..]),
        reverse: false,
        limit,
        fold,
    }
}

/// How many entries there are, and how many deleted rows were stepped over.
fn scan(engine: &RocksEngine, fold: Option<Fold>) -> (usize, u64) {
    let mut steps = Steps::new();
    let (query, options) = (query(1500, fold), options::reads());
    let found = scan_now(&engine.db, &engine.reads.empty, &query, options, |_| {});
    (found.unwrap().len(), steps.count())
}

/// Waits until a scan has nothing to step over.
async fn until_passed(engine: &RocksEngine) {
    let begun = Instant::now();
    while engine.reads.empty.before().opened().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "never found");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_first_scan_over_a_stretch_spares_those_after_it() {
    let (engine, _folder) = with_a_stretch(ROWS).await;
    assert_eq!(scan(&engine, None), (1500, ROWS - 2000));
    assert_eq!(engine.scan(query(1500, None)).await.unwrap().len(), 1500);
    until_passed(&engine).await;
    assert_eq!(scan(&engine, None), (1500, 0));
    // From within, short, and folded.
    let within = Scan {
        range: KeyRange {
            start: key(5000),
            end: None,
        },
        ..query(1, None)
    };
    let found = engine.scan(within).await.unwrap();
    assert_eq!(found[0].clone().into_row().unwrap().0, key(ROWS - 1000));
    let fold = Fold {
        from: 2,
        delimiter: Bytes::from_static(b"000"),
        until: None,
    };
    // k/000..., then those of 11,001 on, and 11,000 as a prefix of its own.
    assert_eq!(scan(&engine, Some(fold)), (1001, 0));
}

#[tokio::test]
async fn many_deletions_are_found_before_anybody_lists() {
    let (engine, _folder) = with_a_stretch(WINDOW + 2000).await;
    until_passed(&engine).await;
    assert_eq!(scan(&engine, None), (1500, 0));
}

#[tokio::test]
async fn a_row_that_comes_back_is_seen_at_once() {
    let (engine, _folder) = with_a_stretch(ROWS).await;
    let all = engine.scan(query(9000, None)).await.unwrap();
    assert_eq!(all.len(), 2000);
    until_passed(&engine).await;
    commit(&engine, 5000..5001, put).await;
    let all = engine.scan(query(9000, None)).await.unwrap();
    assert_eq!(all.len(), 2001);
    // The end of all rows.
    commit(&engine, 0..ROWS, Op::Delete).await;
    assert_eq!(engine.scan(query(9000, None)).await.unwrap(), vec![]);
    commit(&engine, ROWS..ROWS + 1, put).await;
    let last = engine.scan(query(9000, None)).await.unwrap();
    let last: Vec<_> = last.into_iter().filter_map(Entry::into_row).collect();
    assert_eq!(last[0].0, key(ROWS));
    assert_eq!(last.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is known to be empty at any time, a scan gives what it gives
    /// without that.
    #[test]
    fn scans_are_the_same_with_and_without(
        steps in prop::collection::vec((0u64..60, 0u64..30, 0u8..4), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let engine = RocksEngine::open(folder.path(), &RocksOptions::default()).unwrap();
            let empty = &engine.reads.empty;
            for (from, len, what) in steps {
                match what {
                    0 => commit(&engine, from..from + len / 4, put).await,
                    1 => commit(&engine, from..from + len, Op::Delete).await,
                    _ => {
                        let around = key(from);
                        empty.begin_look(&around);
                        let found = stretch(&engine.db, empty, &around).unwrap();
                        empty.end_look(found);
                    }
                }
                let fold = (what == 3).then(|| Fold {
                    from: 2,
                    delimiter: Bytes::from_static(b"3"),
                    until: None,
                });
                for start in [0, from, from + len] {
                    let mut query = query(1 + len as usize, fold.clone());
                    query.range.start = key(start);
                    let open = |options| engine.db.raw_iterator_opt(options);
                    let plain = super::super::read::scan_rows(&query, options::reads(), open);
                    let passing = scan_now(&engine.db, empty, &query, options::reads(), |_| {});
                    assert_eq!(passing.unwrap(), plain.unwrap());
                }
            }
        });
    }
}

#[test]
fn a_window_of_deletions_is_looked_at_in_a_few_places() {
    let mut deletions = Deletions::default();
    let key = |n: u64| Bytes::from(n.to_string());
    for round in 0..2 {
        let told: Vec<_> = (0..WINDOW)
            .map(|n| deletions.note(&key(round * WINDOW + n)))
            .collect();
        assert!(told[..told.len() - 1].iter().all(Option::is_none));
        let places: Vec<_> = (0..LOOKS)
            .map(|n| key(round * WINDOW + n * WINDOW / LOOKS))
            .collect();
        assert_eq!(told.last().cloned().flatten(), Some(places));
    }
}

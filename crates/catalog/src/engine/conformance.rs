//! One suite that every engine runs: fixed cases of the contract, and random
//! commits and scans against a plain map.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(b(key), b(value))
}

fn all() -> KeyRange {
    KeyRange {
        start: b("a"),
        end: None,
    }
}

async fn rows(engine: &dyn Engine, scan: Scan) -> Vec<(Bytes, Bytes)> {
    let entries = engine.scan(scan).await.unwrap();
    entries.into_iter().filter_map(Entry::into_row).collect()
}

async fn commit(engine: &dyn Engine, expect: Vec<Expect>, ops: Vec<Op>) -> Option<CommitNumber> {
    match engine.commit(Commit { expect, ops }).await {
        Ok(number) => Some(number),
        Err(CommitError::Conflict(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Runs everything on engines that `open` makes; each is empty.
pub(super) async fn suite(open: impl Fn() -> Arc<dyn Engine>) {
    numbers_ascend_and_reads_see_commits(&*open()).await;
    expectations_hold_or_nothing_changes(&*open()).await;
    rows_are_expected_exactly(&*open()).await;
    neighbours_do_not_fail_each_other(open()).await;
    a_snapshot_stays(&*open()).await;
    folds_seek_past_what_they_take_together(&*open()).await;
    large_commits_work_and_larger_are_refused(&*open()).await;
    random_commits_match_a_map(&open);
}

async fn numbers_ascend_and_reads_see_commits(engine: &dyn Engine) {
    assert_eq!(engine.committed(), CommitNumber(0));
    let one = commit(engine, vec![], vec![put("k", "1"), put("k", "2")]).await;
    assert_eq!(one, Some(CommitNumber(1)));
    assert_eq!(engine.get(b"k").await.unwrap(), Some(b("2")));
    assert_eq!(engine.committed(), CommitNumber(1));
    let ops = vec![Op::PutNumbered {
        head: b("q"),
        tail: b("t"),
        value: b("v"),
    }];
    assert_eq!(commit(engine, vec![], ops).await, Some(CommitNumber(2)));
    let key = [b"q".as_slice(), &2u64.to_be_bytes(), b"t"].concat();
    assert_eq!(engine.get(&key).await.unwrap(), Some(b("v")));
    let ops = vec![Op::Delete(b("k")), Op::Delete(b("never"))];
    commit(engine, vec![], ops).await.unwrap();
    let found = engine.get_many(&[b("k"), key.clone().into()]).await;
    assert_eq!(found.unwrap(), vec![None, Some(b("v"))]);
}

async fn expectations_hold_or_nothing_changes(engine: &dyn Engine) {
    commit(engine, vec![], vec![put("k", "1"), put("empty", "")])
        .await
        .unwrap();
    let cases = [
        (Expect::Value(b("k"), Some(b("1"))), true),
        (Expect::Value(b("k"), Some(b("12"))), false),
        (Expect::Value(b("k"), Some(b(""))), false),
        (Expect::Value(b("k"), None), false),
        (Expect::Value(b("empty"), Some(b(""))), true),
        (Expect::Value(b("empty"), None), false),
        (Expect::Value(b("none"), None), true),
        (Expect::Value(b("none"), Some(b(""))), false),
    ];
    for (expect, holds) in cases {
        let before = engine.committed();
        let good = Expect::Value(b("none"), None);
        let outcome = engine
            .commit(Commit {
                expect: vec![good, expect.clone()],
                ops: vec![put("mark", "x")],
            })
            .await;
        if holds {
            assert!(outcome.is_ok(), "{expect:?}");
            commit(engine, vec![], vec![Op::Delete(b("mark"))])
                .await
                .unwrap();
        } else {
            assert_eq!(outcome, Err(CommitError::Conflict(1)), "{expect:?}");
            assert_eq!(engine.committed(), before, "a conflict takes no number");
        }
        assert_eq!(engine.get(b"mark").await.unwrap(), None);
    }
}

async fn rows_are_expected_exactly(engine: &dyn Engine) {
    let ops = vec![put("p1", "1"), put("p2", "2"), put("q", "3")];
    commit(engine, vec![], ops).await.unwrap();
    let range = || KeyRange::prefix(b("p"));
    let (one, two) = ((b("p1"), b("1")), (b("p2"), b("2")));
    let cases = [
        (range(), vec![one.clone(), two.clone()], true),
        (range(), vec![one.clone()], false),
        (range(), vec![two.clone(), one.clone()], false),
        (range(), vec![one.clone(), (b("p2"), b("3"))], false),
        (
            range(),
            vec![one.clone(), two.clone(), (b("p3"), b(""))],
            false,
        ),
        (range(), vec![], false),
        (KeyRange::prefix(b("r")), vec![], true),
        (
            KeyRange {
                start: b("b"),
                end: Some(b("a")),
            },
            vec![],
            true,
        ),
    ];
    for (range, rows, holds) in cases {
        let expect = Expect::Rows(range, rows);
        let done = commit(engine, vec![expect.clone()], vec![]).await;
        assert_eq!(done.is_some(), holds, "{expect:?}");
    }
}

/// Many commits at once: each adds one to a counter that it expects, so
/// exactly those that succeed are counted; others succeed beside them.
async fn neighbours_do_not_fail_each_other(engine: Arc<dyn Engine>) {
    let mut tasks = Vec::new();
    for task in 0..16 {
        let engine = engine.clone();
        tasks.push(tokio::spawn(async move {
            let mut won = 0u64;
            for round in 0..20 {
                let raw = engine.get(b"count").await.unwrap();
                let count = raw.as_deref().map_or(0, |raw| {
                    std::str::from_utf8(raw).unwrap().parse::<u64>().unwrap()
                });
                let expect = vec![Expect::Value(b("count"), raw)];
                let ops = vec![put("count", &(count + 1).to_string())];
                let own = format!("own{task}-{round}");
                let (contended, free) = tokio::join!(
                    commit(&*engine, expect, ops),
                    commit(
                        &*engine,
                        vec![Expect::Value(b(&own), None)],
                        vec![put(&own, "")]
                    ),
                );
                won += u64::from(contended.is_some());
                assert!(free.is_some(), "{own} was nobody else's");
            }
            won
        }));
    }
    let mut won = 0;
    for task in tasks {
        won += task.await.unwrap();
    }
    let count = engine.get(b"count").await.unwrap().unwrap();
    assert_eq!(count, won.to_string());
    assert_eq!(engine.committed().0, won + 320);
}

async fn a_snapshot_stays(engine: &dyn Engine) {
    commit(engine, vec![], vec![put("k", "1")]).await.unwrap();
    let view = engine.snapshot().await.unwrap();
    let ops = vec![put("k", "2"), put("l", "3")];
    commit(engine, vec![], ops).await.unwrap();
    assert_eq!(view.committed(), CommitNumber(1));
    assert_eq!(view.get(b"k").await.unwrap(), Some(b("1")));
    assert_eq!(view.get(b"l").await.unwrap(), None);
    let seen = view.scan(Scan::first(all(), 10)).await.unwrap();
    assert_eq!(seen, vec![Entry::Row(b("k"), b("1"))]);
    assert_eq!(rows(engine, Scan::first(all(), 10)).await.len(), 2);
}

async fn folds_seek_past_what_they_take_together(engine: &dyn Engine) {
    let keys = ["p/a", "p/b--1", "p/b--2", "p/b-c", "p/d--", "p/e!!x--", "q"];
    let ops = keys.iter().map(|key| put(key, "v")).collect();
    commit(engine, vec![], ops).await.unwrap();
    let scan = |until| Scan {
        range: KeyRange::prefix(b("p/")),
        reverse: false,
        limit: 10,
        fold: Some(Fold {
            from: 2,
            delimiter: b("--"),
            until,
        }),
    };
    let row = |key| Entry::Row(b(key), b("v"));
    let head = |head| Entry::Folded(b(head));
    let found = engine.scan(scan(None)).await.unwrap();
    let mut expected = vec![
        row("p/a"),
        head("p/b--"),
        row("p/b-c"),
        head("p/d--"),
        head("p/e!!x--"),
    ];
    assert_eq!(found, expected);
    let found = engine.scan(scan(Some(*b"!!"))).await.unwrap();
    expected[4] = row("p/e!!x--");
    assert_eq!(found, expected);
}

async fn large_commits_work_and_larger_are_refused(engine: &dyn Engine) {
    let ops = (0..20_000)
        .map(|n| put(&format!("row{n:05}"), "value"))
        .collect();
    commit(engine, vec![], ops).await.unwrap();
    let range = KeyRange::prefix(b("row"));
    let held = rows(engine, Scan::first(range.clone(), 30_000)).await;
    assert_eq!(held.len(), 20_000);
    let last = rows(engine, Scan::last(range.clone())).await;
    assert_eq!(last[0].0, b("row19999"));
    let ops = held.iter().map(|(key, _)| Op::Delete(key.clone()));
    let (expect, ops) = (Expect::Rows(range.clone(), held.clone()), ops.collect());
    commit(engine, vec![expect], ops).await.unwrap();
    assert!(rows(engine, Scan::first(range, 1)).await.is_empty());
    let value = Bytes::from(vec![0; MAX_COMMIT_BYTES]);
    let outcome = engine
        .commit(Commit {
            expect: vec![],
            ops: vec![Op::Put(b("k"), value)],
        })
        .await;
    assert_eq!(outcome, Err(CommitError::TooLarge(MAX_COMMIT_BYTES + 1)));
}

/// Keys over a small alphabet, so that they meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(b'/'), Just(b'b'), Just(0xFF)];
    vec(byte, 0..4).prop_map(|mut tail| {
        tail.insert(0, b'k');
        tail
    })
}

#[derive(Clone, Debug)]
enum Step {
    Commit {
        /// Keys to expect, with a wrong value if set.
        expect: Vec<(Vec<u8>, bool)>,
        /// Expects this range as it is (true) or one row longer.
        range: Option<(Vec<u8>, bool)>,
        puts: Vec<(Vec<u8>, u8)>,
        deletes: Vec<Vec<u8>>,
    },
    Scan {
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        reverse: bool,
        limit: usize,
    },
    Fold {
        prefix: Vec<u8>,
        limit: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let commits = (
        vec((key(), prop::bool::weighted(0.1)), 0..3),
        prop::option::of((key(), prop::bool::weighted(0.8))),
        vec((key(), any::<u8>()), 0..4),
        vec(key(), 0..3),
    );
    prop_oneof![
        3 => commits.prop_map(|(expect, range, puts, deletes)| Step::Commit {
            expect, range, puts, deletes,
        }),
        1 => (key(), prop::option::of(key()), any::<bool>(), 0usize..8).prop_map(
            |(start, end, reverse, limit)| Step::Scan { start, end, reverse, limit }
        ),
        1 => (key(), 1usize..8).prop_map(|(prefix, limit)| Step::Fold { prefix, limit }),
    ]
}

fn random_commits_match_a_map(open: &impl Fn() -> Arc<dyn Engine>) {
    let cases = 64;
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&vec(step(), 1..40), |steps| {
            let engine = open();
            let mut model = Model::new();
            futures_block(async {
                for step in steps {
                    take(&*engine, &mut model, step).await?;
                }
                let range = KeyRange::prefix(b("k"));
                let held = rows(&*engine, Scan::first(range, usize::MAX)).await;
                prop_assert_eq!(held, as_rows(&model));
                Ok(())
            })
        })
        .unwrap_or_else(|failure| panic!("{failure}\n{runner}"));
}

/// Runs a future on a thread that is in a runtime already.
fn futures_block<T: Send>(work: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            runtime.build_in_place().block_on(work)
        };
        scope.spawn(run).join().unwrap()
    })
}

trait BuildInPlace {
    fn build_in_place(self) -> tokio::runtime::Runtime;
}

impl BuildInPlace for tokio::runtime::Builder {
    fn build_in_place(mut self) -> tokio::runtime::Runtime {
        self.enable_all().build().unwrap()
    }
}

fn as_rows<'m>(rows: impl IntoIterator<Item = (&'m Vec<u8>, &'m Vec<u8>)>) -> Vec<(Bytes, Bytes)> {
    rows.into_iter()
        .map(|(key, value)| (key.clone().into(), value.clone().into()))
        .collect()
}

async fn take(engine: &dyn Engine, model: &mut Model, step: Step) -> Result<(), TestCaseError> {
    match step {
        Step::Commit {
            expect,
            range,
            puts,
            deletes,
        } => take_commit(engine, model, expect, range, puts, deletes).await,
        Step::Scan {
            start,
            end,
            reverse,
            limit,
        } => {
            let below = |key: &Vec<u8>| end.as_ref().is_none_or(|end| key < end);
            let mut expected: Vec<_> = model
                .iter()
                .filter(|(key, _)| **key >= start && below(key))
                .collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(limit);
            let range = KeyRange {
                start: start.clone().into(),
                // The engine's own rows lie below.
                end: Some(end.clone().map_or(b("l"), Bytes::from)),
            };
            let scan = Scan {
                range,
                reverse,
                limit,
                fold: None,
            };
            prop_assert_eq!(rows(engine, scan).await, as_rows(expected));
            Ok(())
        }
        Step::Fold { prefix, limit } => {
            let scan = Scan {
                range: KeyRange::prefix(prefix.clone()),
                reverse: false,
                limit,
                fold: Some(Fold {
                    from: prefix.len(),
                    delimiter: b("/"),
                    until: None,
                }),
            };
            let mut expected: Vec<Entry> = Vec::new();
            for (key, value) in model.iter().filter(|(key, _)| key.starts_with(&prefix)) {
                let slash = key[prefix.len()..].iter().position(|&byte| byte == b'/');
                let entry = match slash {
                    Some(at) => Entry::Folded(Bytes::copy_from_slice(&key[..=prefix.len() + at])),
                    None => Entry::Row(key.clone().into(), value.clone().into()),
                };
                if expected.last() != Some(&entry) {
                    expected.push(entry);
                }
            }
            expected.truncate(limit);
            prop_assert_eq!(engine.scan(scan).await.unwrap(), expected);
            Ok(())
        }
    }
}

async fn take_commit(
    engine: &dyn Engine,
    model: &mut Model,
    expect: Vec<(Vec<u8>, bool)>,
    range: Option<(Vec<u8>, bool)>,
    puts: Vec<(Vec<u8>, u8)>,
    deletes: Vec<Vec<u8>>,
) -> Result<(), TestCaseError> {
    let mut holds = true;
    let mut expects = Vec::new();
    for (key, wrong) in expect {
        let mut value = model.get(&key).cloned();
        if wrong {
            value = Some(b"wrong".to_vec());
            holds = false;
        }
        expects.push(Expect::Value(key.into(), value.map(Bytes::from)));
    }
    if let Some((prefix, right)) = range {
        let held = model.iter().filter(|(key, _)| key.starts_with(&prefix));
        let mut held = as_rows(held);
        if !right {
            held.push((Bytes::from(prefix.clone()), b("more")));
            holds = false;
        }
        expects.push(Expect::Rows(KeyRange::prefix(prefix), held));
    }
    let mut ops: Vec<_> = puts
        .iter()
        .map(|(key, value)| Op::Put(key.clone().into(), vec![*value].into()))
        .collect();
    ops.extend(deletes.iter().map(|key| Op::Delete(key.clone().into())));
    let done = commit(engine, expects, ops).await;
    prop_assert_eq!(done.is_some(), holds);
    if holds {
        model.extend(puts.into_iter().map(|(key, value)| (key, vec![value])));
        for key in deletes {
            model.remove(&key);
        }
    }
    Ok(())
}

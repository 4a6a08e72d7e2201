//! Random commits, checkpoints between them, and databases made of their
//! files: each is the catalog as of its commit, and with the log behind it the
//! catalog as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::test_runner::{Config, TestRunner};
use shardgate_catalog::checkpoint::{ContentHash, folder};
use shardgate_catalog::engine::log::{ChainPosition, CommitLog, Record};
use shardgate_catalog::engine::{
    Commit, Engine, EngineError, Entry, KeyRange, Op, RocksEngine, RocksOptions, RocksStopped, Scan,
};

/// The commits of a history, as a journal keeps them.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Record>>>);

impl CommitLog for Log {
    fn append(&mut self, records: &[Record]) -> Result<(), EngineError> {
        self.0.lock().unwrap().extend_from_slice(records);
        Ok(())
    }

    fn leaves_durability_to_engine(&self) -> bool {
        false
    }
}

impl Log {
    /// What is behind a place.
    fn behind(&self, position: ChainPosition) -> Vec<Record> {
        let all = self.0.lock().unwrap();
        let behind = all.iter();
        behind
            .filter(|record| record.position.number > position.number)
            .cloned()
            .collect()
    }
}

type Rows = BTreeMap<Bytes, Bytes>;

/// A checkpoint as it lies in the pool.
#[derive(Clone)]
struct Taken {
    position: ChainPosition,
    files: Vec<(String, ContentHash)>,
    model: Rows,
}

fn options() -> RocksOptions {
    RocksOptions {
        block_cache_bytes: 8 << 20,
        memtable_bytes: 4 << 20,
        create: true,
    }
}

async fn rows(engine: &RocksEngine) -> Rows {
    let all = KeyRange {
        start: Bytes::from_static(&[0x10]),
        end: None,
    };
    let entries = engine.scan(Scan::first(all, usize::MAX)).await.unwrap();
    entries.into_iter().filter_map(Entry::into_row).collect()
}

/// Takes a checkpoint, and puts what the pool lacks into it; how many bytes
/// that was.
fn take(
    engine: &RocksEngine,
    at: &Path,
    pool: &mut BTreeMap<ContentHash, Vec<u8>>,
) -> (ChainPosition, Vec<(String, ContentHash)>, u64) {
    let position = engine.checkpoint(at).unwrap();
    let mut sent = 0;
    let mut files = Vec::new();
    for file in folder::files(at).unwrap() {
        let path = at.join(&file.name);
        let (hash, len) = folder::hash(&path).unwrap();
        assert_eq!(len, file.len);
        if let std::collections::btree_map::Entry::Vacant(new) = pool.entry(hash) {
            new.insert(fs::read(&path).unwrap());
            sent += len;
        }
        files.push((file.name, hash));
    }
    fs::remove_dir_all(at).unwrap();
    (position, files, sent)
}

fn build(taken: &Taken, pool: &BTreeMap<ContentHash, Vec<u8>>, at: &Path) {
    fs::create_dir(at).unwrap();
    for (name, hash) in &taken.files {
        fs::write(at.join(name), &pool[hash]).unwrap();
    }
}

/// Commits random changes to engine and model.
async fn change(engine: &RocksEngine, model: &mut Rows, random: &mut impl FnMut(u64) -> u64) {
    for _ in 0..random(400) {
        let mut ops = Vec::new();
        for _ in 0..1 + random(4) {
            let key = Bytes::from(format!("\x20key-{:05}", random(3000)));
            if random(4) == 0 {
                model.remove(&key);
                ops.push(Op::Delete(key));
            } else {
                let fill = random(256) as u8;
                let value = Bytes::from(vec![fill; 1 + random(900) as usize]);
                model.insert(key.clone(), value.clone());
                ops.push(Op::Put(key, value));
            }
        }
        let commit = Commit {
            expect: Vec::new(),
            ops,
        };
        engine.commit(commit).await.unwrap();
    }
}

async fn history(mut random: impl FnMut(u64) -> u64) {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::default();
    let first = RocksEngine::open_with_log(&dir.path().join("0"), &options(), log.clone());
    let mut engine = Some(first.unwrap());
    let mut model = Rows::new();
    let mut pool = BTreeMap::new();
    let mut kept: Vec<Taken> = Vec::new();
    for round in 1..=4 + random(4) {
        let running = engine.as_ref().unwrap();
        change(running, &mut model, &mut random).await;
        let (position, files, _) = take(running, &dir.path().join("taken"), &mut pool);
        assert_eq!(position.number, running.committed());
        kept.push(Taken {
            position,
            files,
            model: model.clone(),
        });
        change(running, &mut model, &mut random).await;
        if random(2) == 0 {
            continue;
        }
        // The gateway's folder is gone: made anew of one of the last two.
        let from = kept.len() - 1 - random(2.min(kept.len() as u64)) as usize;
        let taken = kept[from].clone();
        let at = dir.path().join(round.to_string());
        build(&taken, &pool, &at);
        drop(engine.take());
        let mut restored = RocksStopped::open_restored(&at, &options(), taken.position).unwrap();
        if random(3) == 0 {
            // Shown as it was, without what came behind.
            let shown = restored.start(Log::default()).unwrap();
            assert_eq!(rows(&shown).await, taken.model);
            drop(shown);
            restored = RocksStopped::open_restored(&at, &options(), taken.position).unwrap();
        }
        restored.apply(&log.behind(taken.position)).unwrap();
        let started = restored.start(log.clone()).unwrap();
        assert_eq!(rows(&started).await, model);
        engine = Some(started);
    }
}

#[test]
fn a_database_of_a_checkpoints_files_is_the_catalog_as_of_its_commit() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(Config {
        cases: 12,
        ..Config::default()
    });
    let any = proptest::num::u64::ANY;
    let outcome = runner.run(&any, |seed| {
        let mut state = seed | 1;
        let random = move |below: u64| {
            // xorshift64*: the seed alone decides.
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_F491_4F6C_DD1D) % below
        };
        runtime.block_on(history(random));
        Ok(())
    });
    outcome.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine =
        RocksEngine::open_with_log(&dir.path().join("db"), &options(), Log::default()).unwrap();
    let mut pool = BTreeMap::new();
    let put = async |from: u64, count: u64, salt: u8| {
        for first in (from..from + count).step_by(100) {
            // Not to be compressed away.
            let row = |n: u64| {
                let bytes = ContentHash::of(&[&n.to_be_bytes()[..], &[salt]].concat()).0;
                Op::Put(format!("\x20key-{n:08}").into(), bytes.to_vec().into())
            };
            let commit = Commit {
                expect: Vec::new(),
                ops: (first..first + 100).map(row).collect(),
            };
            engine.commit(commit).await.unwrap();
        }
    };
    put(0, 100_000, 0).await;
    let at = dir.path().join("taken");
    let (_, _, all) = take(&engine, &at, &mut pool);
    // Nothing new: only what names the files may differ.
    let (_, _, sent) = take(&engine, &at, &mut pool);
    assert!(sent < 64 << 10, "{sent} bytes for no change");
    put(50_000, 1_000, 1).await;
    let (_, _, sent) = take(&engine, &at, &mut pool);
    assert!(sent * 4 < all, "{sent} of {all} bytes for 1 %");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_files_than_the_manifest_says_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine =
        RocksEngine::open_with_log(&dir.path().join("db"), &options(), Log::default()).unwrap();
    let mut pool = BTreeMap::new();
    let mut model = Rows::new();
    let mut next = 7;
    let mut random = move |below: u64| {
        next = (next * 31 + 17) % 100_003;
        next % below
    };
    let mut taken = Vec::new();
    for _ in 0..2 {
        change(&engine, &mut model, &mut random).await;
        let (position, files, _) = take(&engine, &dir.path().join("taken"), &mut pool);
        taken.push(Taken {
            position,
            files,
            model: model.clone(),
        });
    }
    assert!(taken[0].position.number < taken[1].position.number);
    let at = dir.path().join("mixed");
    build(&taken[0], &pool, &at);
    let refused = RocksStopped::open_restored(&at, &options(), taken[1].position);
    assert!(
        matches!(refused, Err(EngineError::Damaged(_))),
        "{refused:?}"
    );
    fs::remove_dir_all(&at).unwrap();
    // A table is missing.
    build(&taken[1], &pool, &at);
    let table = taken[1]
        .files
        .iter()
        .find(|(name, _)| folder::is_table(name));
    fs::remove_file(at.join(&table.unwrap().0)).unwrap();
    let refused = RocksStopped::open_restored(&at, &options(), taken[1].position);
    assert!(refused.is_err(), "opened without a table");
    // None at all: no new database is made.
    fs::remove_dir_all(&at).unwrap();
    assert!(RocksStopped::open_restored(&at, &options(), ChainPosition::default()).is_err());
}

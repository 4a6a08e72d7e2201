//! The suite, and what only this engine has: group commit, reopening, a log
//! before it, and kill -9.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};
use rocksdb::statistics::Ticker;
use tempfile::TempDir;

use super::*;
use crate::engine::log::{Record, decode_payload};
use crate::engine::{Expect, KeyRange, Op, conformance};

fn small() -> RocksOptions {
    RocksOptions {
        block_cache_bytes: 8 << 20,
        memtable_bytes: 8 << 20,
        create: true,
    }
}

/// An engine whose folder goes with it.
#[derive(Debug)]
struct Temporary {
    engine: RocksEngine,
    _folder: TempDir,
}

impl Temporary {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            engine: RocksEngine::open(folder.path(), &small()).unwrap(),
            _folder: folder,
        }
    }
}

#[async_trait]
impl Engine for Temporary {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.engine.get(key).await
    }
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.engine.get_many(keys).await
    }
    async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError> {
        self.engine.scan(scan).await
    }
    async fn commit(&self, commit: Commit) -> Result<CommitNumber, CommitError> {
        self.engine.commit(commit).await
    }
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        self.engine.snapshot().await
    }
    fn committed(&self) -> CommitNumber {
        self.engine.committed()
    }

    async fn flush(&self) -> Result<(), EngineError> {
        self.engine.flush().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    conformance::suite(|| Arc::new(Temporary::new())).await;
}

fn put(key: String) -> Commit {
    Commit {
        expect: vec![],
        ops: vec![Op::Put(key.into(), Bytes::from_static(b"v"))],
    }
}

/// A killed process loses nothing that was not synced; a machine without
/// power does.
#[tokio::test]
async fn a_commit_is_answered_when_it_is_synced() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = small().database();
    options.enable_statistics();
    let db = Arc::new(DB::open(&options, folder.path()).unwrap());
    let committed = Arc::default();
    let start = ChainPosition::default();
    let empty = Arc::<Empty>::default();
    let sweeper = Sweeper::start(db.clone(), empty.clone()).unwrap();
    let hand = sweeper.hand();
    let committer = Committer::start(db, start, committed, EngineLog, empty, hand).unwrap();
    for number in 1..=5 {
        let before = options.get_ticker_count(Ticker::WalFileSynced);
        committer.commit(put(format!("k{number}"))).await.unwrap();
        let synced = options.get_ticker_count(Ticker::WalFileSynced);
        assert_eq!(synced - before, 1, "commit {number}");
    }
}

#[tokio::test]
async fn numbers_go_on_after_reopening_and_rows_are_there() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let engine = RocksEngine::open(folder.path(), &small()).unwrap();
        assert_eq!(engine.committed(), CommitNumber(round * 10));
        for n in 0..10 {
            engine.commit(put(format!("k{round}-{n}"))).await.unwrap();
        }
        // Out of memory and cache: cold reads answer the same.
        engine.db.flush().unwrap();
    }
    let engine = RocksEngine::open(folder.path(), &small()).unwrap();
    let scan = Scan::first(KeyRange::prefix(&b"k"[..]), 100);
    assert_eq!(engine.scan(scan).await.unwrap().len(), 30);
    let keys = [Bytes::from_static(b"k1-5"), Bytes::from_static(b"k1-x")];
    let found = engine.get_many(&keys).await.unwrap();
    assert_eq!(found, vec![Some(Bytes::from_static(b"v")), None]);
    assert_eq!(
        engine.get(b"k2-9").await.unwrap().as_deref(),
        Some(&b"v"[..])
    );
}

#[tokio::test]
async fn a_second_opener_and_a_missing_database_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &small()).unwrap();
    assert!(RocksEngine::open(folder.path(), &small()).is_err());
    drop(engine);
    let options = RocksOptions {
        create: false,
        ..small()
    };
    RocksEngine::open(folder.path(), &options).unwrap();
    let missing = folder.path().join("missing");
    assert!(RocksEngine::open(&missing, &options).is_err());
}

/// Keeps what it is given, and fails when told to.
#[derive(Clone, Default)]
struct TestLog(Arc<Mutex<(Vec<Vec<Record>>, bool)>>);

impl CommitLog for TestLog {
    fn append(&mut self, records: &[Record]) -> Result<(), EngineError> {
        // Slow, so that commits gather.
        std::thread::sleep(Duration::from_millis(2));
        let (batches, failing) = &mut *self.0.lock();
        if *failing {
            return Err(EngineError::Unavailable("the log failed".to_owned()));
        }
        batches.push(records.to_vec());
        Ok(())
    }

    fn leaves_durability_to_engine(&self) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_comes_first_in_batches_and_its_failure_ends_all_commits() {
    let folder = tempfile::tempdir().unwrap();
    let log = TestLog::default();
    let engine = RocksEngine::open_with_log(folder.path(), &small(), log.clone()).unwrap();
    let engine = Arc::new(engine);
    let mut tasks = Vec::new();
    for n in 0..64 {
        let engine = engine.clone();
        tasks.push(tokio::spawn(async move {
            engine.commit(put(format!("k{n}"))).await.unwrap()
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let batches = log.0.lock().0.clone();
    assert!(batches.len() < 64, "commits that gather share a batch");
    let mut position = ChainPosition::default();
    for record in batches.iter().flatten() {
        let changes = decode_payload(record.payload.clone()).unwrap();
        assert_eq!(position.next(&changes), *record);
        position = record.position;
    }
    assert_eq!(position.number, CommitNumber(64));
    assert_eq!(applied(&engine.db).unwrap(), position);

    log.0.lock().1 = true;
    let failed = engine.commit(put("lost".to_owned())).await;
    assert!(matches!(failed, Err(CommitError::Engine(_))), "{failed:?}");
    assert_eq!(engine.get(b"lost").await.unwrap(), None);
    log.0.lock().1 = false;
    let refused = engine.commit(put("later".to_owned())).await;
    assert!(refused.is_err(), "never retried into success");
    // A conflict is an answer too, and is based on what is not known.
    let conflict = Commit {
        expect: vec![Expect::Value(Bytes::from_static(b"k0"), None)],
        ops: vec![],
    };
    let refused = engine.commit(conflict).await;
    assert!(matches!(refused, Err(CommitError::Engine(_))));
    assert_eq!(engine.committed(), CommitNumber(64));
}

#[tokio::test]
async fn a_dropped_request_is_committed_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let log = TestLog::default();
    let engine = RocksEngine::open_with_log(folder.path(), &small(), log.clone()).unwrap();
    // While this is held, nothing is durable.
    let gate = log.0.lock();
    let mut commit = Box::pin(engine.commit(put("k".to_owned())));
    let mut context = Context::from_waker(Waker::noop());
    let handed = commit.as_mut().poll(&mut context);
    assert!(handed.is_pending());
    drop(commit);
    drop(gate);
    engine.commit(put("l".to_owned())).await.unwrap();
    assert!(engine.get(b"k").await.unwrap().is_some());
}

/// Rows that a scan of everything below `k` steps over because they were
/// deleted.
fn skipped(db: &DB) -> u64 {
    let mut context = PerfContext::default();
    set_perf_stats(PerfStatsLevel::EnableCount);
    context.reset();
    let scan = Scan::first(KeyRange::prefix(&b"k"[..]), 1);
    let found = read::scan_rows(&scan, options::reads(), |options| {
        db.raw_iterator_opt(options)
    });
    assert_eq!(found.unwrap(), vec![]);
    let skipped = context.metric(PerfMetric::InternalDeleteSkippedCount);
    set_perf_stats(PerfStatsLevel::Disable);
    skipped
}

#[tokio::test]
async fn scans_do_not_crawl_over_deleted_rows_for_long() {
    const ROWS: usize = 50_000;
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &small()).unwrap();
    let key = |n: usize| Bytes::from(format!("k{n:06}"));
    let value = || Bytes::from_static(&[7; 100]);
    let ops = (0..ROWS).map(|n| Op::Put(key(n), value())).collect();
    let expect = vec![];
    engine.commit(Commit { expect, ops }).await.unwrap();
    engine.db.flush().unwrap();
    let ops = (0..ROWS).map(|n| Op::Delete(key(n))).collect();
    let expect = vec![];
    engine.commit(Commit { expect, ops }).await.unwrap();
    assert!(skipped(&engine.db) > 10_000, "they are still in memory");
    // What a store does anyway brings it about: commits and scans.
    for round in 0..300 {
        engine.commit(put(format!("other{round}"))).await.unwrap();
        if skipped(&engine.db) < 1000 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!(
        "{} deleted rows are still stepped over",
        skipped(&engine.db)
    );
}

/// The files of a closed database with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .filter(|path| std::fs::metadata(path).unwrap().len() > 0)
        .collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn flipped_bits_of_table_files_are_damage_and_never_absence() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &small()).unwrap();
    let keys: Vec<_> = (0..500).map(|n| format!("k{n:03}")).collect();
    for key in &keys {
        engine.commit(put(key.clone())).await.unwrap();
    }
    engine.db.flush().unwrap();
    drop(engine);
    let [table] = &files(folder.path(), ".sst")[..] else {
        panic!("one table file");
    };
    let len = std::fs::read(table).unwrap().len();
    let mut refused = 0;
    for at in (0..len).step_by(len / 40) {
        flip(table, at);
        let engine = match RocksEngine::open(folder.path(), &small()) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(
                    matches!(error, EngineError::Damaged(_)),
                    "byte {at}: {error}"
                );
                refused += 1;
                flip(table, at);
                continue;
            }
        };
        for key in &keys {
            match engine.get(key.as_bytes()).await {
                Ok(found) => assert_eq!(found.as_deref(), Some(&b"v"[..]), "byte {at}, {key}"),
                Err(EngineError::Damaged(_)) => {
                    refused += 1;
                    break;
                }
                Err(error) => panic!("byte {at}, {key}: {error}"),
            }
        }
        drop(engine);
        flip(table, at);
    }
    assert!(refused > 20, "only {refused} flips were seen");
}

#[tokio::test]
async fn a_flipped_bit_in_the_engines_log_refuses_to_open() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &small()).unwrap();
    for n in 0..500 {
        engine.commit(put(format!("k{n}"))).await.unwrap();
    }
    drop(engine);
    let [log] = &files(folder.path(), ".log")[..] else {
        panic!("one log with records");
    };
    let len = std::fs::read(log).unwrap().len();
    for tenth in 1..9 {
        flip(log, len * tenth / 10);
        let opened = RocksEngine::open(folder.path(), &small());
        assert!(
            matches!(opened, Err(EngineError::Damaged(_))),
            "{tenth}: {opened:?}"
        );
        flip(log, len * tenth / 10);
    }
    let engine = RocksEngine::open(folder.path(), &small()).unwrap();
    assert_eq!(engine.committed(), CommitNumber(500));
}

#[tokio::test]
async fn a_log_cut_at_its_end_opens_with_all_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(folder.path(), &small()).unwrap();
    for n in 0..100 {
        engine.commit(put(format!("k{n}"))).await.unwrap();
    }
    drop(engine);
    let [log] = &files(folder.path(), ".log")[..] else {
        panic!("one log with records");
    };
    let bytes = std::fs::read(log).unwrap();
    // As a power failure may leave a write that nobody was told of.
    std::fs::write(log, &bytes[..bytes.len() - 5]).unwrap();
    let engine = RocksEngine::open(folder.path(), &small()).unwrap();
    assert_eq!(engine.committed(), CommitNumber(99));
    assert!(engine.get(b"k98").await.unwrap().is_some());
    assert_eq!(engine.get(b"k99").await.unwrap(), None);
}

const CHILD: &str = "SHARDGATE_TEST_COMMIT_FOLDER";

/// Not a test by itself: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
async fn commits_until_killed() {
    let Some(folder) = std::env::var_os(CHILD) else {
        return;
    };
    let engine = Arc::new(RocksEngine::open(&PathBuf::from(folder), &small()).unwrap());
    for writer in 0..8 {
        let engine = engine.clone();
        tokio::spawn(async move {
            loop {
                let next = engine.committed().0;
                let key = format!("w{writer}-{next}");
                let number = engine.commit(put(key.clone())).await.unwrap();
                println!("acked {} {key}", number.0);
            }
        });
    }
    // Far longer than the parent waits.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn all_that_was_acknowledged_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut acked: Vec<(u64, String)> = Vec::new();
    for round in 0..4u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "engine::rocks::tests::commits_until_killed"])
            .arg("--nocapture")
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        for line in lines {
            // A line is cut where the process was killed.
            let Ok(line) = line else { break };
            let mut words = line.split(' ');
            if let (Some("acked"), Some(number), Some(key)) =
                (words.next(), words.next(), words.next())
            {
                acked.push((number.parse().unwrap(), key.to_owned()));
                seen += 1;
                if seen == 200 + 150 * round {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        let engine = RocksEngine::open(folder.path(), &small()).unwrap();
        // The last line may be cut.
        acked.pop();
        assert!(seen > 100, "the child commits");
        for (number, key) in &acked {
            assert!(engine.committed().0 >= *number);
            let found = engine.get(key.as_bytes()).await.unwrap();
            assert!(found.is_some(), "{key} of commit {number} is lost");
        }
    }
}

/// Whatever a disk has flipped in a table is found before it is copied.
#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_of_a_table_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let engine = RocksEngine::open(&dir.path().join("db"), &small()).unwrap();
    for batch in 0..40u32 {
        let ops = (0..500u32).map(|row| {
            let key = format!("k{:08}", batch * 500 + row);
            Op::Put(key.into(), format!("{row}").repeat(20).into())
        });
        let commit = Commit {
            expect: Vec::new(),
            ops: ops.collect(),
        };
        engine.commit(commit).await.unwrap();
    }
    let (links, scratch) = (dir.path().join("links"), dir.path().join("scratch"));
    engine.checkpoint(&links).unwrap();
    let names = crate::checkpoint::folder::files(&links).unwrap();
    let names = names.iter().map(|file| file.name.as_str());
    let tables: Vec<&str> = names.filter(|name| name.ends_with(".sst")).collect();
    assert!(!tables.is_empty());
    assert_eq!(verify_tables(&links, &tables, &scratch), Ok(()));
    assert!(!scratch.exists());
    let path = links.join(tables[0]);
    let whole = std::fs::read(&path).unwrap();
    let mut missed = Vec::new();
    for at in (0..whole.len()).step_by(whole.len() / 150) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x04;
        // Another file: the database has this one open.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &flipped).unwrap();
        if verify_tables(&links, &tables, &scratch).is_ok() {
            missed.push(at);
        }
        assert!(!scratch.exists());
    }
    assert!(missed.is_empty(), "{missed:?} of {}", whole.len());
}

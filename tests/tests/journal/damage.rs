//! A catalog whose files are damaged, older or gone: whole again from the
//! journal, or refused, never silently shorter.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardgate_tests::pool::TestPool;

use crate::load::{Acknowledged, BUCKET, Load};

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("list a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copy a file");
        }
    }
}

async fn write_some(pool: &TestPool, acknowledged: &Acknowledged) {
    let load = Load::start(&pool.client(), 4, acknowledged, true);
    tokio::time::sleep(Duration::from_millis(700)).await;
    load.end().await;
}

fn tables(rocksdb: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(rocksdb).expect("list the catalog");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut tables: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "sst"))
        .collect();
    tables.sort();
    tables
}

/// A pool that was stopped cleanly twice, so that its catalog has tables.
async fn stopped_pool() -> (TestPool, Acknowledged) {
    let mut pool = TestPool::embedded(3);
    pool.client().make_bucket(BUCKET).await;
    let acknowledged = Acknowledged::default();
    write_some(&pool, &acknowledged).await;
    pool.stop();
    pool.start();
    write_some(&pool, &acknowledged).await;
    pool.stop();
    (pool, acknowledged)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_or_none_is_brought_up_to_date() {
    let mut pool = TestPool::embedded(3);
    pool.client().make_bucket(BUCKET).await;
    let acknowledged = Acknowledged::default();
    write_some(&pool, &acknowledged).await;
    pool.stop();
    let rocksdb = pool.dir.join("catalog/rocksdb");
    let older = pool.dir.join("older");
    copy_folder(&rocksdb, &older);
    pool.start();
    write_some(&pool, &acknowledged).await;
    pool.stop();
    for replacement in [Some(&older), None] {
        fs::remove_dir_all(&rocksdb).expect("remove the catalog");
        if let Some(older) = replacement {
            copy_folder(older, &rocksdb);
        }
        pool.start();
        acknowledged.check(&pool.client()).await;
        write_some(&pool, &acknowledged).await;
        pool.stop();
    }
    pool.start();
    acknowledged.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_files_are_refused_with_the_way_out() {
    let (mut pool, acknowledged) = stopped_pool().await;
    let rocksdb = pool.dir.join("catalog/rocksdb");
    let whole = pool.dir.join("whole");
    copy_folder(&rocksdb, &whole);
    type Damage = fn(&Path);
    let damages: [Damage; 4] = [
        |rocksdb| {
            let table = tables(rocksdb).pop().expect("a table");
            let len = fs::metadata(&table).expect("its length").len();
            let file = fs::File::options().write(true).open(&table);
            file.expect("open it").set_len(len / 2).expect("cut it");
        },
        |rocksdb| {
            let table = tables(rocksdb).pop().expect("a table");
            fs::remove_file(table).expect("remove it");
        },
        |rocksdb| {
            for entry in fs::read_dir(rocksdb).expect("list the catalog") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("a name").to_string_lossy();
                if name.starts_with("MANIFEST") {
                    fs::write(&path, b"").expect("empty it");
                }
            }
        },
        |rocksdb| fs::write(rocksdb.join("CURRENT"), b"nonsense").expect("overwrite it"),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        fs::remove_dir_all(&rocksdb).expect("remove the catalog");
        copy_folder(&whole, &rocksdb);
        damage(&rocksdb);
        let mut gateway = pool.spawn_gateway();
        assert!(!gateway.wait_end(), "damage {number} was not refused");
        let said = gateway.output();
        assert!(
            said.contains("shardgate catalog restore"),
            "{number}: {said}"
        );
        fs::remove_file(pool.dir.join("gateway.log")).expect("begin a new log");
    }
    fs::remove_dir_all(&rocksdb).expect("remove the catalog");
    copy_folder(&whole, &rocksdb);
    pool.start();
    acknowledged.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_gateways_folder_nothing_begins_anew() {
    let (pool, _) = stopped_pool().await;
    fs::remove_dir_all(pool.dir.join("catalog")).expect("remove the folder");
    let mut gateway = pool.spawn_gateway();
    assert!(!gateway.wait_end(), "a new cluster over old disks");
    let said = gateway.output();
    assert!(said.contains("restored"), "{said}");
}

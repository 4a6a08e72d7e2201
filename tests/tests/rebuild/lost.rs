//! The gateway's folder is lost, and the journal with it.

use std::time::Duration;

use shardgate_tests::pool::TestPool;

use crate::answers::{BUCKETS, Told};
use crate::operator::{
    begin_rebuild, bring_back, hold, lose_gateway, lose_journal, purged, rebuild, status,
    take_away, wait_for, wait_for_notes,
};

const DISKS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_were_told_comes_back_and_what_they_deleted_does_not() {
    let mut pool = TestPool::embedded(DISKS);
    let mut told = Told::default();
    told.fill(&pool.client()).await;
    told.put_inline(&pool.client(), BUCKETS[0], "note").await;
    wait_for_notes(&pool, 0);
    // One disk is away while objects are deleted and overwritten.
    take_away(&pool, 3);
    wait_for("the loss of a disk", || status(&pool).contains(" lost"));
    for bucket in BUCKETS {
        told.delete(&pool.client(), bucket, "key/0").await;
        told.put(&pool.client(), bucket, "key/7").await;
    }
    wait_for_notes(&pool, 1);
    pool.kill();
    bring_back(&pool, 3);
    lose_gateway(&pool);
    lose_journal(&pool, DISKS);

    let (done, said) = rebuild(&pool, &[]);
    assert!(done, "{said}");
    assert!(
        said.contains("no part of the journal could be read"),
        "{said}"
    );
    told.forget(BUCKETS[0], "note");
    pool.start();
    told.check(&pool.client()).await;

    // Nothing goes, not even what is deleted from now on.
    assert!(status(&pool).contains("nothing is reclaimed"));
    told.delete(&pool.client(), BUCKETS[0], "key/6").await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(purged(&pool), 0);
    let said = hold(&pool, &[]);
    assert!(said.contains("rebuilt from the disks"), "{said}");
    // A restart holds on to it.
    pool.stop();
    pool.start();
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(purged(&pool), 0);
    hold(&pool, &["--end"]);
    wait_for("the purge", || purged(&pool) > 0);
    assert!(hold(&pool, &[]).contains("no hold"));
    told.check(&pool.client()).await;
    pool.stop();
    pool.start();
    assert!(!status(&pool).contains("nothing is reclaimed"));
    told.put(&pool.client(), BUCKETS[1], "after").await;
    told.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_is_killed_begins_again() {
    let mut pool = TestPool::embedded(DISKS);
    let mut told = Told::default();
    told.fill(&pool.client()).await;
    wait_for_notes(&pool, 0);
    pool.kill();
    lose_gateway(&pool);
    lose_journal(&pool, DISKS);
    let mut killed = 0;
    for milliseconds in [30, 100, 200, 300, 400, 600, 800, 1000, 1300, 1700] {
        let mut process = begin_rebuild(&pool);
        std::thread::sleep(Duration::from_millis(milliseconds));
        if !process.is_running() {
            break;
        }
        process.kill();
        killed += 1;
    }
    assert!(killed > 0, "it was too quick to be killed");
    let (done, said) = rebuild(&pool, &[]);
    // One that was killed at its very end had done it.
    assert!(done || said.contains("the journal is whole"), "{said}");
    pool.start();
    told.check(&pool.client()).await;
    assert!(hold(&pool, &[]).contains("rebuilt from the disks"));
    pool.stop();
}

/// A start never takes half a catalog for a whole one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_journal_is_not_given_up_without_a_word() {
    let mut pool = TestPool::embedded(DISKS);
    let mut told = Told::default();
    told.fill(&pool.client()).await;
    // Two segments: the second knows how far the first one was acknowledged,
    // in numbers that the new journal does not come to.
    pool.stop();
    pool.start();
    told.put_inline(&pool.client(), BUCKETS[1], "note").await;
    pool.kill();
    lose_gateway(&pool);
    let (done, said) = rebuild(&pool, &[]);
    assert!(!done && said.contains("the journal is whole"), "{said}");
    // With it nothing is missing, what lay in the catalog alone neither.
    let (done, said) = rebuild(&pool, &["--even-so"]);
    assert!(done, "{said}");
    pool.start();
    told.check(&pool.client()).await;
    assert!(hold(&pool, &[]).contains("rebuilt from the disks"));
    // The gateway's folder is lost again: the new journal is a whole one, from
    // its first commit on, or behind a checkpoint that was taken meanwhile.
    pool.kill();
    lose_gateway(&pool);
    let (done, said) = rebuild(&pool, &[]);
    assert!(!done && said.contains("is whole"), "{said}");
    let (done, said) = rebuild(&pool, &["--even-so"]);
    assert!(done, "{said}");
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

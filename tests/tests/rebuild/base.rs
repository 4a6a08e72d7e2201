//! A catalog of before is there: a rebuild is refused, or begins with it.

use shardgate_tests::pool::TestPool;

use crate::answers::{BUCKETS, Told};
use crate::operator::{lose_gateway, lose_journal, rebuild, wait_for_notes};

const DISKS: usize = 6;

/// A pool whose journal does not go back to the first commit any more, with
/// two checkpoints, and something that came later.
async fn with_checkpoints() -> (TestPool, Told) {
    let mut pool = TestPool::embedded(DISKS);
    let mut told = Told::default();
    told.fill(&pool.client()).await;
    told.put_inline(&pool.client(), BUCKETS[0], "early").await;
    // A start begins another segment: the first is needed no more behind two
    // checkpoints.
    pool.stop();
    pool.start();
    pool.checkpoint();
    told.put_inline(&pool.client(), BUCKETS[0], "middle").await;
    pool.checkpoint();
    told.put(&pool.client(), BUCKETS[1], "key/7").await;
    told.delete(&pool.client(), BUCKETS[1], "key/3").await;
    wait_for_notes(&pool, 0);
    (pool, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_restore_would_do_a_rebuild_is_refused() {
    let (mut pool, mut told) = with_checkpoints().await;
    told.put_inline(&pool.client(), BUCKETS[0], "late").await;
    pool.kill();
    // With the gateway's folder a start is enough, without it a restore.
    let (done, said) = rebuild(&pool, &[]);
    assert!(
        !done && said.contains("a start goes on from there"),
        "{said}"
    );
    lose_gateway(&pool);
    let (done, said) = rebuild(&pool, &[]);
    assert!(!done && said.contains("catalog restore"), "{said}");
    assert!(said.contains("the checkpoint at commit"), "{said}");
    // And nothing is lost by it where it is wanted nevertheless.
    let (done, said) = rebuild(&pool, &["--even-so"]);
    assert!(done, "{said}");
    assert!(said.contains("are all in it"), "{said}");
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_it_begins_with_the_newest_checkpoint() {
    let (mut pool, mut told) = with_checkpoints().await;
    told.put_inline(&pool.client(), BUCKETS[0], "late").await;
    pool.kill();
    lose_gateway(&pool);
    lose_journal(&pool, DISKS);
    let (done, said) = rebuild(&pool, &[]);
    assert!(done, "{said}");
    assert!(said.contains("It cannot vouch for commits"), "{said}");
    told.forget(BUCKETS[0], "late");
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_journal_it_begins_with_the_gateways_own_catalog() {
    let (mut pool, mut told) = with_checkpoints().await;
    told.put_inline(&pool.client(), BUCKETS[0], "late").await;
    pool.stop();
    lose_journal(&pool, DISKS);
    let (done, said) = rebuild(&pool, &[]);
    assert!(done, "{said}");
    assert!(said.contains("are all in it"), "{said}");
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

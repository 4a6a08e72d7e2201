//! The same over agents: the disks are other processes'.

use std::time::Duration;

use shardgate_tests::pool::TestPool;

use crate::answers::{BUCKETS, Told};
use crate::operator::{
    hold, lose_gateway, lose_journal, purged, rebuild, wait_for, wait_for_notes,
};

const AGENTS: usize = 6;

/// The gateway's machine is lost, and every agent its journal; one agent was
/// away while objects were deleted, another is when the catalog is made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_were_told_comes_back_from_six_agents() {
    let mut pool = TestPool::with_agents(AGENTS, 1, None);
    let mut told = Told::default();
    told.fill(&pool.client()).await;
    wait_for_notes(&pool, 0);
    pool.kill_agent(2);
    for bucket in BUCKETS {
        told.delete(&pool.client(), bucket, "key/0").await;
        told.put(&pool.client(), bucket, "key/7").await;
    }
    wait_for_notes(&pool, 1);
    pool.kill();
    lose_gateway(&pool);
    for agent in [0, 1, 3, 4, 5] {
        pool.kill_agent(agent);
    }
    lose_journal(&pool, AGENTS);
    // All but the last: two of the five journal disks may be away.
    (0..AGENTS - 1).for_each(|agent| pool.start_agent(agent));

    let (done, said) = rebuild(&pool, &[]);
    assert!(done, "{said}");
    assert!(said.contains("no answer"), "{said}");
    assert!(said.contains("is not there: what it alone had"), "{said}");
    pool.start_agent(AGENTS - 1);
    pool.start();
    told.check(&pool.client()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(purged(&pool), 0);
    assert!(hold(&pool, &[]).contains("rebuilt from the disks"));
    hold(&pool, &["--end"]);
    wait_for("the purge", || purged(&pool) > 0);
    told.put(&pool.client(), BUCKETS[1], "after").await;
    told.check(&pool.client()).await;
    pool.stop();
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

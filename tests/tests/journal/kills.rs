//! A gateway that is killed and started at once has everything that it
//! acknowledged.

use std::time::Duration;

use shardgate_tests::pool::TestPool;

use crate::load::{Acknowledged, BUCKET, Load};

const KILLS: u64 = 5;

async fn kill_and_start(mut pool: TestPool) {
    pool.client().make_bucket(BUCKET).await;
    let acknowledged = Acknowledged::default();
    for kill in 0..KILLS {
        let load = Load::start(&pool.client(), 8, &acknowledged, false);
        tokio::time::sleep(Duration::from_millis(200 + 300 * kill)).await;
        pool.kill();
        load.end().await;
        pool.start();
        acknowledged.check(&pool.client()).await;
    }
    assert!(acknowledged.len() > 0, "nothing was acknowledged at all");
    let log = pool.gateway.as_ref().expect("it runs").output();
    assert!(
        !log.contains("watching whether it still calls"),
        "a start after a kill waits for nobody"
    );
    // What was replayed is there after a clean stop, too.
    pool.stop();
    pool.start();
    acknowledged.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_its_own_disks() {
    kill_and_start(TestPool::embedded(6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_disk() {
    kill_and_start(TestPool::embedded(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_six_agents() {
    kill_and_start(TestPool::with_agents(6, 1, None)).await;
}

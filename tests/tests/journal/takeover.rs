//! Two gateways on the same agents: never both.

use std::time::Duration;

use shardgate_tests::client::Client;
use shardgate_tests::pool::{TestPool, root_keys};
use shardgate_tests::process::Process;

use crate::damage::copy_folder;
use crate::load::{Acknowledged, BUCKET, Load};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_refuses_while_the_first_lives_and_takes_over_when_told() {
    let mut pool = TestPool::with_agents(3, 1, None);
    pool.client().make_bucket(BUCKET).await;
    let acknowledged = Acknowledged::default();
    // Another machine has the catalog as it was at this stop.
    pool.stop();
    let other = pool.dir.join("catalog-2");
    copy_folder(&pool.dir.join("catalog"), &other);
    pool.start();
    let load = Load::start(&pool.client(), 4, &acknowledged, true);
    let mut second = pool.spawn_second(&other, &[]);
    assert!(!second.process.wait_end(), "two gateways at once");
    let said = second.process.output();
    assert!(
        said.contains("another gateway runs on these disks"),
        "{said}"
    );
    assert!(said.contains("--take-over"), "{said}");
    // An idle one lives as well.
    load.end().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut second = pool.spawn_second(&other, &[]);
    assert!(!second.process.wait_end(), "two gateways at once");
    acknowledged.check(&pool.client()).await;

    let load = Load::start(&pool.client(), 4, &acknowledged, false);
    let mut second = pool.spawn_second(&other, &["--take-over"]);
    let mut first = pool.gateway.take().expect("the first runs");
    assert!(!first.wait_end(), "the first goes on");
    load.end().await;
    let said = first.output();
    assert!(said.contains("another gateway has taken over"), "{said}");
    second.process.wait_ready(second.operator, "/health/ready");
    let client = Client::new(second.addr, root_keys());
    acknowledged.check(&client).await;
    let put = client.put(BUCKET, "second", "of the second");
    put.send().await.expect("an answer").expect_status(200);
    second.process.stop();
    // It closed the journal: the first, whose folder does not know of it, is
    // free at once, and has all of it.
    pool.start();
    acknowledged.check(&pool.client()).await;
    let answer = pool.client().get(BUCKET, "second").send().await;
    answer.expect("an answer").expect_status(200);
    let log = pool.gateway.as_ref().expect("it runs").output();
    assert!(!log.contains("watching whether it still calls"), "{log}");
    pool.stop();
}

// The gateway that was taken over from may answer for as long after as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_over_that_was_cut_off_lets_no_start_go_on_at_once() {
    let mut pool = TestPool::with_agents(3, 1, None);
    pool.client().make_bucket(BUCKET).await;
    pool.stop();
    let other = pool.dir.join("catalog-2");
    copy_folder(&pool.dir.join("catalog"), &other);
    pool.start();
    let second = pool.spawn_second(&other, &["--take-over"]);
    let waits = "waiting until the other gateway answers no more";
    said_in_time(&second.process, waits).await;
    second.process.kill();
    let third = pool.spawn_second(&other, &[]);
    said_in_time(&third.process, "watching whether it still calls").await;
    third.process.kill();
}

async fn said_in_time(process: &Process, words: &str) {
    for _ in 0..300 {
        if process.output().contains(words) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{words:?} is not in\n{}", process.output());
}

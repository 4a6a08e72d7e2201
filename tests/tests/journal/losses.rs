//! Journal disks that go or stop: writes go on, and nothing is lost.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use shardgate_disk_store::LocalDisk;
use shardgate_tests::pool::TestPool;

use crate::load::{Acknowledged, BUCKET, Load};

/// Between two looks whether writes go on.
const LOOK: Duration = Duration::from_millis(500);
/// After so many in vain they have stopped.
const LOOKS: u32 = 120;

fn take_away(pool: &TestPool, disk: usize) {
    let folder = pool.disk(disk);
    fs::rename(&folder, folder.with_extension("away")).expect("take a disk away");
}

fn bring_back(pool: &TestPool, disk: usize) {
    let folder = pool.disk(disk);
    fs::rename(folder.with_extension("away"), &folder).expect("bring a disk back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_two_of_six_may_be_removed_while_writing() {
    let mut pool = TestPool::embedded(6);
    pool.client().make_bucket(BUCKET).await;
    let acknowledged = Acknowledged::default();
    for (first, second) in [(1, 2), (3, 4), (5, 6)] {
        let load = Load::start(&pool.client(), 4, &acknowledged, true);
        tokio::time::sleep(Duration::from_millis(500)).await;
        take_away(&pool, first);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        take_away(&pool, second);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let done = load.end().await;
        assert!(done > 0, "without {first} and {second} nothing was written");
        acknowledged.check_inline(&pool.client()).await;
        // A crash now finds everything on the four that are left.
        pool.kill();
        pool.start();
        acknowledged.check_inline(&pool.client()).await;
        bring_back(&pool, first);
        bring_back(&pool, second);
        // Three that keep the journal bear one loss at a time, five two.
        while pool.journal_disks() < 5 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    acknowledged.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_agent_may_be_stopped_while_writing() {
    let mut pool = TestPool::with_agents(6, 1, None);
    pool.client().make_bucket(BUCKET).await;
    let acknowledged = Acknowledged::default();
    for agent in 0..6 {
        let load = Load::start(&pool.client(), 4, &acknowledged, true);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let process = pool.agents[agent].as_ref().expect("the agent runs");
        process.signal(Signal::STOP);
        let before = acknowledged.len();
        let mut looks = 0;
        while acknowledged.len() == before && looks < LOOKS {
            tokio::time::sleep(LOOK).await;
            looks += 1;
        }
        let during = acknowledged.len() - before;
        process.signal(Signal::CONT);
        load.end().await;
        assert!(
            during > 0,
            "no write was answered while agent {agent} was stopped"
        );
    }
    acknowledged.check(&pool.client()).await;
    pool.kill();
    pool.start();
    acknowledged.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_a_start_is_refused_until_disks_are_named_lost() {
    let mut pool = TestPool::with_agents(6, 1, None);
    pool.client().make_bucket(BUCKET).await;
    let acknowledged = Acknowledged::default();
    let load = Load::start(&pool.client(), 4, &acknowledged, true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.end().await;
    pool.stop();
    // Two stay, one of which has the journal.
    let has_journal = |agent: &usize| pool.disk(agent + 1).join("journal").exists();
    let kept = (0..6).find(has_journal).expect("a disk has the journal");
    let gone: Vec<usize> = (0..6).filter(|agent| *agent != kept).take(4).collect();
    let identify = |agent: &usize| LocalDisk::identify(&pool.disk(agent + 1)).expect("a disk");
    let ids: Vec<String> = gone
        .iter()
        .map(|agent| identify(agent).disk.to_string())
        .collect();
    gone.iter().for_each(|agent| pool.kill_agent(*agent));
    let mut refused = pool.spawn_gateway();
    assert!(!refused.wait_end(), "two of six disks are no majority");
    let said = refused.output();
    assert!(said.contains("a majority is needed"), "{said}");
    assert!(said.contains("--lost"), "{said}");
    // What four disks had of 4+2 is lost with them; the catalog is not.
    let flags: Vec<&str> = ids.iter().flat_map(|id| ["--lost", id]).collect();
    let mut gateway = pool.spawn_with(&flags);
    gateway.wait_ready(pool.operator, "/health/ready");
    pool.gateway = Some(gateway);
    let client = pool.client();
    let put = client.put(BUCKET, "after", "still here");
    put.send().await.expect("an answer").expect_status(200);
    // The others are never waited for again.
    pool.kill();
    pool.start();
    let answer = pool.client().get(BUCKET, "after").send().await;
    answer.expect("an answer").expect_status(200);
    pool.stop();
}

//! The gateway's folder is gone, and disks besides: everything comes back.

use std::fs;

use rand::seq::SliceRandom;
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;

use crate::told::Told;

/// The gateway's machine is gone.
pub fn lose_gateway(pool: &mut TestPool) {
    if pool.gateway.is_some() {
        pool.kill();
    }
    fs::remove_dir_all(pool.dir.join("catalog")).expect("remove the gateway's folder");
}

/// Disks are gone, with all that is on them.
fn lose_disks(pool: &TestPool, disks: &[usize]) {
    for disk in disks {
        fs::remove_dir_all(pool.disk(*disk)).expect("remove a disk");
    }
}

/// Restores, starts, and compares.
pub async fn restored(pool: &mut TestPool, told: &Told) -> String {
    let (done, said) = pool.restore(&[]);
    assert!(done, "{said}");
    pool.start();
    told.check(&pool.client()).await;
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_after_the_gateway_and_any_two_of_six_disks() {
    let seed = random::seed("all_of_it_after_the_gateway_and_any_two_of_six_disks");
    // Each disk once, in pairs that differ from run to run.
    let mut disks = [1, 2, 3, 4, 5, 6];
    disks.shuffle(&mut random::rng(seed));
    for lost in disks.as_chunks::<2>().0 {
        let lost: [usize; 2] = *lost;
        let mut pool = TestPool::embedded(6);
        let mut told = Told::new(seed ^ lost[0] as u64);
        told.fill(&pool.client(), 60).await;
        pool.checkpoint();
        told.fill(&pool.client(), 20).await;
        pool.checkpoint();
        told.fill(&pool.client(), 20).await;
        // All of it is fully stored: every slot was waited for.
        lose_gateway(&mut pool);
        lose_disks(&pool, &lost);
        let said = restored(&mut pool, &told).await;
        assert!(
            said.contains("begins with the checkpoint at commit"),
            "{said}"
        );
        told.complete_one(&pool.client()).await;
        told.fill(&pool.client(), 10).await;
        told.check(&pool.client()).await;
        // Once more, with what came since.
        lose_gateway(&mut pool);
        restored(&mut pool, &told).await;
        pool.stop();
        pool.start();
        told.check(&pool.client()).await;
        pool.stop();
    }
}

/// The same over the network: two servers of six, each with a disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_of_it_after_the_gateway_and_any_two_of_six_agents() {
    let seed = random::seed("all_of_it_after_the_gateway_and_any_two_of_six_agents");
    let mut agents = [0, 1, 2, 3, 4, 5];
    agents.shuffle(&mut random::rng(seed));
    let mut pool = TestPool::with_agents(6, 1, None);
    let mut told = Told::new(seed);
    told.fill(&pool.client(), 40).await;
    pool.checkpoint();
    told.fill(&pool.client(), 15).await;
    pool.checkpoint();
    told.fill(&pool.client(), 15).await;
    lose_gateway(&mut pool);
    for agent in &agents[..2] {
        pool.kill_agent(*agent);
    }
    let said = restored(&mut pool, &told).await;
    assert!(
        said.contains("begins with the checkpoint at commit"),
        "{said}"
    );
    told.complete_one(&pool.client()).await;
    told.fill(&pool.client(), 10).await;
    told.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_checkpoint_the_journal_alone() {
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(5);
    told.fill(&pool.client(), 30).await;
    lose_gateway(&mut pool);
    let said = restored(&mut pool, &told).await;
    assert!(said.contains("begins with the journal alone"), "{said}");
    told.fill(&pool.client(), 5).await;
    told.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_agents_from_an_empty_machine() {
    let mut pool = TestPool::with_agents(3, 2, None);
    let mut told = Told::new(6);
    told.fill(&pool.client(), 30).await;
    pool.checkpoint();
    told.fill(&pool.client(), 10).await;
    lose_gateway(&mut pool);
    // Any one server of three.
    pool.kill_agent(1);
    restored(&mut pool, &told).await;
    pool.start_agent(1);
    told.fill(&pool.client(), 10).await;
    told.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_overwritten_and_nothing_done_without_a_yes() {
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(7);
    told.fill(&pool.client(), 5).await;
    // While it runs, and after it has stopped.
    for _ in 0..2 {
        let (done, said) = pool.restore(&[]);
        assert!(!done && said.contains("move it away first"), "{said}");
        if pool.gateway.is_some() {
            pool.stop();
        }
    }
    let catalog = pool.dir.join("catalog");
    fs::rename(&catalog, pool.dir.join("moved")).expect("move it away");
    // The standard input of a command here is empty.
    let (done, said) = pool.command(&["catalog", "restore"]);
    assert!(!done && said.contains("nothing was changed"), "{said}");
    assert!(said.contains("6 of 6") || said.contains("3 of 3"), "{said}");
    assert!(!catalog.join("rocksdb").exists());
    fs::remove_dir_all(&catalog).expect("only a lock is in it");
    fs::rename(pool.dir.join("moved"), &catalog).expect("move it back");
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

/// A start without its folder says what to do, to the letter.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_says_the_command() {
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(8);
    told.fill(&pool.client(), 5).await;
    lose_gateway(&mut pool);
    let mut gateway = pool.spawn_gateway();
    assert!(!gateway.wait_end(), "a new cluster over old disks");
    let command = format!("shardgate catalog restore --data {}", pool.dir.display());
    let said = gateway.output();
    assert!(said.contains(&command), "{said}");
    fs::remove_dir_all(pool.dir.join("catalog/rocksdb")).expect("move it away, as it says");
    let said = restored(&mut pool, &told).await;
    assert!(said.contains("credentials"), "{said}");
    pool.stop();
}

/// Fewer than a majority of the journal disks prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_refused_where_what_is_missing_could_go_unnoticed() {
    let mut pool = TestPool::embedded(6);
    let mut told = Told::new(9);
    told.fill(&pool.client(), 10).await;
    pool.checkpoint();
    told.fill(&pool.client(), 5).await;
    lose_gateway(&mut pool);
    // Of six disks five keep the journal: of any two at least one.
    for disk in 3..=6 {
        fs::rename(pool.disk(disk), pool.dir.join(format!("away-{disk}"))).expect("take it away");
    }
    let (done, said) = pool.restore(&[]);
    assert!(!done && said.contains("a majority is needed"), "{said}");
    assert!(!pool.dir.join("catalog/rocksdb").exists());
    for disk in 3..=6 {
        fs::rename(pool.dir.join(format!("away-{disk}")), pool.disk(disk)).expect("bring it back");
    }
    restored(&mut pool, &told).await;
    pool.stop();
}

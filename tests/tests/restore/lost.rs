//! Disks that are lost for good, and what a restore promises without them.

use std::fs;
use std::path::Path;

use shardgate_disk_store::LocalDisk;
use shardgate_tests::pool::TestPool;

use crate::told::Told;
use crate::whole::{lose_gateway, restored};

fn id(pool: &TestPool, disk: usize) -> String {
    let identity = LocalDisk::identify(&pool.disk(disk)).expect("a disk");
    identity.disk.to_string()
}

/// Named lost, as a start and a restore take it.
fn flags(ids: &[String]) -> Vec<&str> {
    ids.iter().flat_map(|id| ["--lost", id]).collect()
}

/// Each of two disks has all of it, and neither proves that it is all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_disks_is_restored_on_the_operators_word_and_holds_on() {
    let mut pool = TestPool::embedded(2);
    let mut told = Told::new(41);
    told.fill(&pool.client(), 20).await;
    pool.checkpoint();
    told.fill(&pool.client(), 10).await;
    lose_gateway(&mut pool);
    let gone = [id(&pool, 2)];
    let away = pool.dir.join("away");
    fs::rename(pool.disk(2), &away).expect("take it away");
    let (done, said) = pool.restore(&[]);
    assert!(!done && said.contains("--lost ID"), "{said}");
    assert!(!pool.dir.join("catalog/rocksdb").exists());
    let (done, said) = pool.restore(&flags(&gone));
    assert!(done && said.contains("NOT PROVEN COMPLETE"), "{said}");
    // The demo makes no new disk where one is lost: the folder stays away.
    pool.flags = flags(&gone).iter().map(|&flag| flag.to_owned()).collect();
    pool.start();
    told.check(&pool.client()).await;
    let (_, hold) = pool.command(&["catalog", "hold"]);
    assert!(hold.contains("named lost"), "{hold}");
    told.fill(&pool.client(), 5).await;
    told.check(&pool.client()).await;
    pool.stop();
}

/// What answers proves more than the operator's word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_named_lost_and_answers_is_not_given_up_for_it() {
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(42);
    told.fill(&pool.client(), 10).await;
    pool.checkpoint();
    told.fill(&pool.client(), 5).await;
    lose_gateway(&mut pool);
    let named = [id(&pool, 2), id(&pool, 3)];
    let (done, said) = pool.restore(&flags(&named));
    assert!(!done && said.contains("leave out --lost"), "{said}");
    // One of three is not needed for the proof.
    let (done, said) = pool.restore(&flags(&named[..1]));
    assert!(done && !said.contains("NOT PROVEN"), "{said}");
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

/// A new lineage goes on with the chain, and with the checkpoints on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_of_the_lineage_before_are_restored_from() {
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(43);
    told.fill(&pool.client(), 15).await;
    pool.checkpoint();
    told.fill(&pool.client(), 5).await;
    pool.checkpoint();
    told.fill(&pool.client(), 5).await;
    pool.stop();
    let gone = [id(&pool, 2), id(&pool, 3)];
    for disk in [2, 3] {
        let away = pool.dir.join(format!("away-{disk}"));
        fs::rename(pool.disk(disk), away).expect("take it away");
    }
    // In the way of the folder that a checkpoint is linked into: none is taken
    // under the new lineage.
    fs::write(pool.dir.join("catalog/checkpoint"), "no folder").expect("stand in the way");
    pool.flags = flags(&gone).iter().map(|&flag| flag.to_owned()).collect();
    pool.start();
    let (_, hold) = pool.command(&["catalog", "hold"]);
    assert!(hold.contains("named lost"), "a new lineage: {hold}");
    told.fill(&pool.client(), 5).await;
    told.check(&pool.client()).await;
    lose_gateway(&mut pool);
    let (done, said) = pool.restore(&flags(&gone));
    assert!(done, "{said}");
    assert!(
        said.contains("begins with the checkpoint at commit"),
        "{said}"
    );
    assert!(!said.contains("the journal alone:"), "{said}");
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

/// The newest segment of each journal.
fn cut_journals(pool: &TestPool, disks: usize, into: &Path) {
    for disk in 1..=disks {
        let folder = pool.disk(disk).join("journal");
        let entries = fs::read_dir(&folder).expect("list a journal");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut segments: Vec<_> = paths
            .filter(|path| {
                let mut head = [0; 8];
                let read = fs::File::open(path)
                    .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
                read.is_ok() && &head == b"SG.jbat\0"
            })
            .collect();
        segments.sort();
        let newest = segments.pop().expect("a segment");
        let away = into.join(disk.to_string());
        fs::rename(&newest, &away).expect("take it away");
        let back = into.join(format!("{disk}.to"));
        fs::write(back, newest.to_str().expect("UTF-8")).expect("note it");
    }
}

/// The tail of the journal is gone on all disks; they were told of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_whose_end_is_missing_is_refused() {
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(44);
    told.fill(&pool.client(), 10).await;
    pool.checkpoint();
    pool.stop();
    pool.start();
    told.fill(&pool.client(), 5).await;
    pool.stop();
    lose_gateway(&mut pool);
    let away = pool.dir.join("cut");
    fs::create_dir(&away).expect("make a folder");
    cut_journals(&pool, 3, &away);
    let (done, said) = pool.restore(&[]);
    assert!(!done, "restored without its end: {said}");
    assert!(said.contains("was acknowledged"), "{said}");
    assert!(!pool.dir.join("catalog/rocksdb").exists());
    for disk in 1..=3 {
        let back = fs::read_to_string(away.join(format!("{disk}.to"))).expect("noted");
        fs::rename(away.join(disk.to_string()), back).expect("bring it back");
    }
    restored(&mut pool, &told).await;
    pool.stop();
}

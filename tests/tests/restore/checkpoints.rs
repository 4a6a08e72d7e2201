//! Checkpoints while a pool runs: taken when they are due, the journal taken
//! out behind them, and sent again when disks are lost.

use std::fs;
use std::time::{Duration, Instant};

use shardgate_tests::pool::TestPool;

use crate::told::Told;
use crate::whole::{lose_gateway, restored};

const PATIENCE: Duration = Duration::from_secs(90);

/// A number in the gateway's status, by the names on the way to it.
fn number(pool: &TestPool, names: &[&str]) -> u64 {
    let status = pool.status();
    let mut rest = &status[..];
    for name in names {
        let quoted = format!("\"{name}\":");
        let at = rest
            .find(&quoted)
            .unwrap_or_else(|| panic!("no {name} in {status}"));
        rest = &rest[at + quoted.len()..];
    }
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("{names:?} in {status}"))
}

fn kept(pool: &TestPool) -> usize {
    let status = pool.status();
    let (_, rest) = status.split_once("\"checkpoint\":").expect("it is there");
    let (_, rest) = rest.split_once("\"kept\":").expect("it is there");
    let end = rest.find(']').expect("a list ends");
    rest[..end].matches("\"commit\"").count()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}: in vain");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Segments of the journal on all disks; spares hold none, and are few.
fn segments(pool: &TestPool) -> Vec<String> {
    let mut names = Vec::new();
    for disk in 1..=3 {
        let folder = pool.disk(disk).join("journal");
        for entry in fs::read_dir(folder).expect("list a journal") {
            let name = entry.expect("an entry").file_name();
            names.push(format!("{disk}/{}", name.to_string_lossy()));
        }
    }
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_journal_goes_back_to_the_older_of_two_and_no_further() {
    let mut pool = TestPool::embedded(3);
    let mut told = Told::new(21);
    // Each start begins a segment.
    for _ in 0..3 {
        told.fill(&pool.client(), 5).await;
        pool.stop();
        pool.start();
    }
    let before = segments(&pool);
    pool.checkpoint();
    // One alone takes nothing out: the older one is not there yet.
    let first: Vec<String> = before.iter().take(1).cloned().collect();
    assert!(segments(&pool).contains(&first[0]), "{before:?}");
    told.fill(&pool.client(), 5).await;
    pool.checkpoint();
    assert_eq!(kept(&pool), 2);
    wait_until("segments go", || !segments(&pool).contains(&first[0]));
    let after = segments(&pool);
    let left = before.iter().filter(|of| after.contains(of)).count();
    assert!(left < before.len(), "{before:?} {after:?}");
    told.check(&pool.client()).await;
    pool.kill();
    pool.start();
    told.check(&pool.client()).await;
    // The start named both in its segment and went on with them.
    assert_eq!(kept(&pool), 2);
    lose_gateway(&mut pool);
    restored(&mut pool, &told).await;
    assert_eq!(kept(&pool), 2);
    // Without its database a start cannot replay what is not there any more.
    pool.stop();
    let catalog = pool.dir.join("catalog/rocksdb");
    fs::rename(&catalog, pool.dir.join("moved")).expect("move it away");
    let mut gateway = pool.spawn_gateway();
    assert!(!gateway.wait_end(), "started on half a journal");
    let said = gateway.output();
    assert!(said.contains("shardgate catalog restore --data"), "{said}");
    fs::remove_dir_all(&catalog).expect("an empty one");
    restored(&mut pool, &told).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_taken_by_length_and_by_age_without_being_asked_for() {
    let flags = ["--set", "catalog.checkpoint_bytes=128KiB"];
    let mut pool = TestPool::embedded_with(3, &flags);
    let mut told = Told::new(22);
    told.fill(&pool.client(), 40).await;
    wait_until("one by length", || kept(&pool) >= 1);
    told.fill(&pool.client(), 60).await;
    wait_until("a second by length", || kept(&pool) == 2);
    let taken = number(&pool, &["checkpoint", "taken"]);
    assert!(taken >= 2, "{taken}");
    pool.stop();
    // Nothing is committed any more but by them: then no further one.
    pool.flags = ["--set", "catalog.checkpoint_interval=2s"]
        .map(str::to_owned)
        .into();
    pool.start();
    told.fill(&pool.client(), 1).await;
    wait_until("one by age", || {
        number(&pool, &["checkpoint", "taken"]) >= 1
    });
    std::thread::sleep(Duration::from_secs(8));
    let taken = number(&pool, &["checkpoint", "taken"]);
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(
        number(&pool, &["checkpoint", "taken"]),
        taken,
        "none for nothing"
    );
    told.check(&pool.client()).await;
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lay_on_a_lost_disk_is_sent_again_at_once() {
    let mut pool = TestPool::embedded(6);
    let mut told = Told::new(23);
    told.fill(&pool.client(), 30).await;
    pool.checkpoint();
    told.fill(&pool.client(), 5).await;
    pool.checkpoint();
    let newest = number(&pool, &["checkpoint", "commit"]);
    // One after the other, more than a blob survives: between them, what lay
    // there is stored elsewhere.
    for disk in [1, 2] {
        let taken = number(&pool, &["checkpoint", "taken"]);
        fs::rename(pool.disk(disk), pool.dir.join(format!("away-{disk}"))).expect("take it away");
        wait_until("two more are taken", || {
            number(&pool, &["checkpoint", "taken"]) >= taken + 2
        });
    }
    assert!(number(&pool, &["checkpoint", "commit"]) > newest);
    lose_gateway(&mut pool);
    let (done, said) = pool.restore(&[]);
    assert!(done, "{said}");
    for disk in [1, 2] {
        fs::rename(pool.dir.join(format!("away-{disk}")), pool.disk(disk)).expect("bring it back");
    }
    pool.start();
    told.check(&pool.client()).await;
    pool.stop();
}

/// A kept checkpoint's blobs are no garbage, and dropped ones are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_of_dropped_checkpoints_go_and_others_stay() {
    let mut pool = TestPool::embedded(3);
    let client = pool.client();
    client.make_bucket("bucket").await;
    let mut sizes = Vec::new();
    // Nothing else is ever deleted here. With the third the first is dropped,
    // whose manifest at least nobody needs any more.
    for round in 0..3 {
        let key = format!("key-{round}");
        let put = client.put("bucket", &key, vec![round; 5000]).send().await;
        put.expect("an answer").expect_status(200);
        pool.checkpoint();
        sizes.push(number(&pool, &["checkpoint", "sent_bytes"]));
    }
    assert!(sizes.is_sorted(), "{sizes:?}");
    wait_until("dropped ones are purged", || purged(&pool) >= 1.0);
    lose_gateway(&mut pool);
    let (done, said) = pool.restore(&[]);
    assert!(done && !said.contains("shards that are needed"), "{said}");
    pool.start();
    for round in 0..3 {
        let key = format!("key-{round}");
        let got = pool.client().get("bucket", &key).send().await;
        assert_eq!(
            got.expect("an answer").expect_status(200).body,
            vec![round; 5000]
        );
    }
    pool.stop();
}

/// Blobs whose shards were all taken away since the start.
fn purged(pool: &TestPool) -> f64 {
    let metrics = pool.metrics();
    let mut lines = metrics.lines();
    let line = lines.find(|line| line.contains("blobs_purged"));
    let number = line.and_then(|line| line.rsplit(' ').next());
    number.map_or(0.0, |number| number.parse().expect("a number"))
}

/// Near its bound writes wait, whatever keeps checkpoints from being taken, and
/// deletes and reads go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn near_the_bound_of_the_journal_writes_wait_and_deletes_go_on() {
    let flags = [
        "--set",
        "catalog.journal_bound=256MiB",
        "--set",
        "catalog.checkpoint_bytes=64MiB",
    ];
    let mut pool = TestPool::embedded_with(3, &flags);
    let client = pool.client();
    client.make_bucket("bucket").await;
    let put = async |client: &shardgate_tests::client::Client, key: &str| {
        let put = client.put("bucket", key, "bytes").send().await;
        put.expect("an answer").status.as_u16()
    };
    for key in ["kept", "gone"] {
        assert_eq!(put(&client, key).await, 200);
    }
    // In the way of the folder that a checkpoint is linked into.
    let way = pool.dir.join("catalog/checkpoint");
    fs::write(&way, "no folder").expect("stand in the way");
    // Each start begins a segment, a file of its full length.
    let waits = |pool: &TestPool| pool.status().contains("\"writes_wait\":true");
    for _ in 0..4 {
        pool.stop();
        pool.start();
        let _one_more = put(&pool.client(), "more").await;
    }
    let client = pool.client();
    wait_until("writes wait", || waits(&pool));
    assert_eq!(put(&client, "refused").await, 503);
    let gone = client
        .ask(http::Method::DELETE, "/bucket/gone")
        .send()
        .await;
    gone.expect("an answer").expect_status(204);
    let read = client
        .get("bucket", "kept")
        .send()
        .await
        .expect("an answer");
    assert_eq!(read.expect_status(200).body, "bytes");
    let (_, said) = pool.command(&["status"]);
    assert!(said.contains("near its bound"), "{said}");
    assert!(
        said.contains("no checkpoint of the catalog could be taken"),
        "{said}"
    );
    fs::remove_file(&way).expect("give way");
    wait_until("writes go on", || !waits(&pool));
    assert_eq!(put(&client, "taken").await, 200);
    assert_eq!(kept(&pool), 2);
    pool.stop();
}

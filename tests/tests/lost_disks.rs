//! Disks that go: what was stored whole reads byte for byte while any two of
//! six are gone, writes go on; with three gone there are clear errors and
//! nothing wrong is returned; a flipped byte is never served.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use shardgate_tests::client::{Client, Response};
use shardgate_tests::places;
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;

const BUCKET: &str = "kept";
/// Inline, copies, shortened codes, one stripe, several.
const SIZES: &[usize] = &[
    0, 100, 1024, 1025, 4096, 70_000, 131_072, 262_145, 600_000, 1_048_576, 3_000_001, 9_000_000,
];

fn key(size: usize, round: usize) -> String {
    format!("round-{round}/size-{size}")
}

fn body(size: usize, round: usize) -> Bytes {
    random::bytes((size * 31 + round) as u64, size).into()
}

async fn write_round(client: &Client, round: usize) {
    for &size in SIZES {
        let ask = client.put(BUCKET, &key(size, round), body(size, round));
        ask.send().await.expect("an answer").expect_status(200);
    }
}

/// As [`write_round`], while disks go.
async fn write_round_as_disks_go(client: &Client, round: usize) {
    for &size in SIZES {
        let (key, body) = (key(size, round), body(size, round));
        client.put_as_disks_go(BUCKET, &key, body).await;
    }
}

async fn read_round(client: &Client, round: usize) {
    for &size in SIZES {
        let answer = client
            .get(BUCKET, &key(size, round))
            .send()
            .await
            .expect("an answer");
        assert!(
            answer.expect_status(200).body == body(size, round),
            "size {size} round {round}"
        );
    }
    let (size, expected) = (9_000_000, body(9_000_000, round));
    for (first, last) in [
        (0, 0),
        (262_143, 262_145),
        (1_000_000, 8_999_999),
        (8_999_999, 8_999_999),
    ] {
        let ask = client
            .get(BUCKET, &key(size, round))
            .header("range", format!("bytes={first}-{last}"));
        let answer = ask.send().await.expect("an answer");
        assert!(
            answer.expect_status(206).body == expected[first..=last],
            "{first}-{last}"
        );
    }
}

fn away(disk: &Path) -> PathBuf {
    disk.with_extension("away")
}

fn take_away(pool: &TestPool, disks: &[usize]) {
    for &disk in disks {
        let folder = pool.disk(disk);
        fs::rename(&folder, away(&folder)).expect("take a disk's folder away");
    }
}

fn bring_back(pool: &TestPool, disks: &[usize]) {
    for &disk in disks {
        let folder = pool.disk(disk);
        fs::rename(away(&folder), &folder).expect("bring a disk's folder back");
    }
}

#[tokio::test]
async fn any_two_of_six_disks_may_be_missing_at_start() {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    write_round(&client, 0).await;
    let mut round = 0;
    for first in 1..=6 {
        for second in first + 1..=6 {
            pool.stop();
            take_away(&pool, &[first, second]);
            pool.start();
            // A client of its own for each run: while the test waits for the
            // old process, nobody sees that its connections are closed.
            let client = pool.client();
            read_round(&client, 0).await;
            round += 1;
            write_round(&client, round).await;
            read_round(&client, round).await;
            pool.stop();
            bring_back(&pool, &[first, second]);
            pool.start();
            read_round(&pool.client(), round).await;
        }
    }
    let client = pool.client();
    for round in 0..=round {
        read_round(&client, round).await;
    }
    pool.stop();
}

#[tokio::test]
async fn two_disks_may_go_while_it_runs_and_come_back() {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    write_round(&client, 0).await;
    take_away(&pool, &[2]);
    read_round(&client, 0).await;
    write_round_as_disks_go(&client, 1).await;
    take_away(&pool, &[5]);
    write_round_as_disks_go(&client, 2).await;
    for round in 0..=2 {
        read_round(&client, round).await;
    }
    bring_back(&pool, &[2, 5]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    write_round(&client, 3).await;
    for round in 0..=3 {
        read_round(&client, round).await;
    }
    pool.stop();
}

/// Whole and right, or refused: never wrong bytes, never "absent".
fn assert_right_or_refused(
    answer: Result<Response, shardgate_tests::client::Cut>,
    expected: &Bytes,
) -> bool {
    match answer {
        Ok(answer) if answer.status == 200 => {
            assert!(answer.body == *expected, "wrong bytes were returned");
            true
        }
        Ok(answer) => {
            assert_ne!(answer.status.as_u16(), 404, "unreadable is not absent");
            assert!(answer.status.is_server_error(), "{answer:?}");
            assert!(!answer.code().is_empty(), "an error has a code: {answer:?}");
            false
        }
        // The connection was cut in the middle of the body.
        Err(_) => false,
    }
}

/// The disks that keep the journal, by their folders' numbers.
fn journal_disks(pool: &TestPool) -> Vec<usize> {
    let words = pool.status_words();
    let (above, journal) = words.split_once("Journal:").expect("a journal is shown");
    let keeps = |number: &usize| {
        let folder = format!(" {} ", pool.disk(*number).display());
        let line = above.lines().find(|line| line.contains(&folder));
        let id = line.and_then(|line| line.split_whitespace().next());
        id.is_some_and(|id| journal.contains(id))
    };
    (1..=6).filter(keeps).collect()
}

#[tokio::test]
async fn with_three_of_six_gone_errors_are_clear_and_nothing_wrong_is_returned() {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    write_round(&client, 0).await;
    let journal = journal_disks(&pool);
    assert_eq!(journal.len(), 5, "{}", pool.status_words());
    let gone = &journal[..3];
    take_away(&pool, gone);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut refused = 0;
    for &size in SIZES {
        let answer = client.get(BUCKET, &key(size, 0)).send().await;
        if !assert_right_or_refused(answer, &body(size, 0)) {
            refused += 1;
        }
    }
    assert!(refused > 0, "4+2 cannot read with three disks gone");
    // More than half of the journal disks is gone: no write is taken, and
    // its client is not kept waiting for them.
    let written = [0, 1024, 70_000, 3_000_001];
    for size in written {
        assert_write_refused(&client, &key(size, 7), body(size, 7)).await;
    }
    bring_back(&pool, gone);
    wait_until_answered(&client, &key(9_000_000, 0)).await;
    read_round(&client, 0).await;
    for size in written {
        // Refused is not undone, but never half there.
        let answer = client.get(BUCKET, &key(size, 7)).send().await;
        let answer = answer.expect("an answer");
        if answer.status != 404 {
            let same = answer.expect_status(200).body == body(size, 7);
            assert!(same, "size {size}");
        }
    }
    write_round(&client, 8).await;
    read_round(&client, 8).await;
    pool.stop();
}

/// With a majority of the journal disks left, writes go on as copies on what
/// lives, and stay readable.
#[tokio::test]
async fn with_three_of_six_gone_and_the_journal_there_writes_go_on() {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    let journal = journal_disks(&pool);
    let other = (1..=6).find(|disk| !journal.contains(disk));
    let gone = [other.expect("one keeps no journal"), journal[0], journal[1]];
    take_away(&pool, &gone);
    tokio::time::sleep(Duration::from_secs(3)).await;
    write_round(&client, 1).await;
    read_round(&client, 1).await;
    bring_back(&pool, &gone);
    tokio::time::sleep(Duration::from_secs(3)).await;
    read_round(&client, 1).await;
    pool.stop();
}

/// Waits until the journal's disks are in contact again.
async fn wait_until_answered(client: &Client, key: &str) {
    for _ in 0..120 {
        let answer = client.get(BUCKET, key).send().await;
        if answer.is_ok_and(|answer| answer.status == 200) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("nothing is answered although all disks are back");
}

/// Refused with 503 and a code that says to come again.
async fn assert_write_refused(client: &Client, key: &str, body: Bytes) {
    let answer = client.put(BUCKET, key, body).send().await;
    let answer = answer.expect("an answer");
    answer.expect_status(503);
    let code = answer.code();
    let known = ["ServiceUnavailable", "SlowDown"].contains(&code.as_str());
    assert!(known, "{key}: {answer:?}");
    assert!(!String::from_utf8_lossy(&answer.body).contains("panic"));
}

/// Bytes of all shards on these disks.
fn stored_bytes(pool: &TestPool, disks: &[usize]) -> u64 {
    let of = |disk: &usize| places::shards(&pool.disk(*disk)).expect("find shards");
    disks.iter().flat_map(of).map(|place| place.len).sum()
}

#[tokio::test]
async fn with_two_of_six_gone_new_objects_are_two_plus_two_on_what_lives() {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    write_round(&client, 0).await;
    assert!(
        pool.status_words().contains("4+2"),
        "{}",
        pool.status_words()
    );
    let no_more = " 0 narrow, 0 degraded";
    assert!(
        pool.status_words().contains(no_more),
        "{}",
        pool.status_words()
    );
    take_away(&pool, &[2, 5]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = stored_bytes(&pool, &[1, 3, 4, 6]);
    // Half of it on each of two data shards, as much parity: twice its length
    // in all. 4+2 would be one and a half times, copies three times.
    let len = 8 << 20;
    let mut bodies = Vec::new();
    for number in 0..3_u64 {
        let body: Bytes = random::bytes(number + 1000, len).into();
        let ask = client.put(BUCKET, &format!("narrow-{number}"), body.clone());
        ask.send().await.expect("an answer").expect_status(200);
        bodies.push(body);
    }
    let grown = stored_bytes(&pool, &[1, 3, 4, 6]) - before;
    let share = grown as f64 / (3 * len) as f64;
    assert!((1.95..2.1).contains(&share), "{share} bytes for each");
    let words = pool.status_words();
    assert!(!words.contains(" 0 narrow"), "{words}");
    // Any two of the four may go as well, but not more than the journal lets
    // go at once: one after the other, with the first two back.
    bring_back(&pool, &[2, 5]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    take_away(&pool, &[1, 4]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (number, body) in bodies.iter().enumerate() {
        let answer = client.get(BUCKET, &format!("narrow-{number}")).send().await;
        assert!(answer.expect("an answer").expect_status(200).body == *body);
    }
    bring_back(&pool, &[1, 4]);
    pool.stop();
}

fn flip_byte(path: &Path, at: u64) {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .expect("open a shard");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read a byte");
    byte[0] ^= 0x10;
    file.write_all_at(&byte, at).expect("write a byte");
}

#[tokio::test]
async fn a_flipped_byte_is_never_served() {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    write_round(&client, 0).await;
    // One byte of every shard of two disks, somewhere else in each.
    for disk in [1, 4] {
        let shards = places::shards(&pool.disk(disk)).expect("find shards");
        assert!(shards.len() >= 3, "disk {disk} has shards");
        for (index, place) in shards.iter().enumerate() {
            let at = (place.len / 7) * (index as u64 % 7);
            flip_byte(&place.path, place.start + at);
        }
    }
    read_round(&client, 0).await;
    // One more disk is one too many for what lies on all three.
    for place in places::shards(&pool.disk(6)).expect("find shards") {
        for part in 0..16 {
            flip_byte(&place.path, place.start + place.len / 16 * part);
        }
    }
    pool.stop();
    pool.start();
    for &size in SIZES {
        let answer = client.get(BUCKET, &key(size, 0)).send().await;
        assert_right_or_refused(answer, &body(size, 0));
    }
    pool.stop();
}

#[tokio::test]
async fn two_of_six_agents_may_be_killed() {
    let mut pool = TestPool::with_agents(6, 1, None);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    write_round(&client, 0).await;
    pool.kill_agent(0);
    write_round(&client, 1).await;
    pool.kill_agent(3);
    write_round(&client, 2).await;
    for round in 0..=2 {
        read_round(&client, round).await;
    }
    pool.start_agent(0);
    pool.start_agent(3);
    tokio::time::sleep(Duration::from_secs(3)).await;
    pool.kill_agent(1);
    pool.kill_agent(4);
    read_round(&client, 0).await;
    pool.stop();
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_leaves_nothing_visible() {
    let mut pool = TestPool::embedded(6);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    let path = client.presign(&Method::PUT, &format!("/{BUCKET}/half"), 600);
    let addr = pool.addr;
    let half = tokio::task::spawn_blocking(move || {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(addr).expect("connect");
        write!(
            stream,
            "PUT {path} HTTP/1.1\r\nHost: {addr}\r\nContent-Length: 8000000\r\n\r\n"
        )
        .and_then(|()| stream.write_all(&vec![7; 4_000_000]))
        .expect("send half a body");
    });
    half.await.expect("the half upload");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = client.get(BUCKET, "half").send().await.expect("an answer");
    assert_eq!(answer.expect_status(404).code(), "NoSuchKey");
    let ask = client.ask(Method::GET, format!("/{BUCKET}"));
    let listed = ask.send().await.expect("an answer");
    assert!(shardgate_tests::xml::texts_of(&listed.body, "Key").is_empty());
    pool.stop();
}

//! Flipped bytes in the tables of the catalog in place: refused or read from
//! elsewhere, never answered as if what they held had never been.

use std::fs;
use std::path::PathBuf;

use http::Method;
use shardgate_tests::client::Client;
use shardgate_tests::pool::TestPool;
use shardgate_tests::xml;

use crate::whole::lose_gateway;

const KEYS: usize = 400;

fn key(number: usize) -> String {
    // Long, so that the rows fill blocks.
    format!("key-{number:05}-{}", "x".repeat(200))
}

fn tables(pool: &TestPool) -> Vec<PathBuf> {
    let folder = pool.dir.join("catalog/rocksdb");
    let entries = fs::read_dir(folder).expect("list the catalog");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_table = |path: &PathBuf| path.extension().is_some_and(|of| of == "sst");
    paths.filter(is_table).collect()
}

/// Flips a byte in each so many of every table, in place.
fn flip(pool: &TestPool, each: usize) {
    for table in tables(pool) {
        let mut bytes = fs::read(&table).expect("read a table");
        let end = bytes.len();
        for at in (each / 2..end).step_by(each) {
            bytes[at] ^= 0x10;
        }
        fs::write(&table, bytes).expect("write it back");
    }
}

/// Every key is there, or its answer is an error of the server; how many were
/// errors.
async fn check(client: &Client) -> usize {
    let mut refused = 0;
    for number in 0..KEYS {
        let answer = client.get("bucket", &key(number)).send().await;
        let answer = answer.expect("an answer");
        match answer.status.as_u16() {
            200 => assert_eq!(answer.body, number.to_string()),
            500.. => refused += 1,
            other => panic!("key {number}: {other} {:?}", answer.body),
        }
    }
    let listed = client
        .ask(Method::GET, "/bucket")
        .query("list-type", "2")
        .send()
        .await
        .expect("an answer");
    match listed.status.as_u16() {
        200 => assert_eq!(
            xml::texts_of(&listed.body, "Key").len(),
            KEYS,
            "a shorter list"
        ),
        500.. => refused += 1,
        other => panic!("the list: {other}"),
    }
    refused
}

async fn filled(flags: &[&str]) -> TestPool {
    let pool = TestPool::embedded_with(3, flags);
    let client = pool.client();
    client.make_bucket("bucket").await;
    for number in 0..KEYS {
        let put = client.put("bucket", &key(number), number.to_string());
        put.send().await.expect("an answer").expect_status(200);
    }
    pool
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bytes_at_a_start_are_refused_or_answered_as_errors() {
    let mut pool = filled(&[]).await;
    pool.stop();
    flip(&pool, 1000);
    let mut gateway = pool.spawn_gateway();
    let serves = loop {
        if !gateway.is_running() {
            break false;
        }
        if pool.command(&["status"]).0 {
            break true;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    if serves {
        pool.gateway = Some(gateway);
        assert!(check(&pool.client()).await > 0, "nothing was damaged");
        pool.kill();
    } else {
        let said = gateway.output();
        assert!(said.contains("shardgate catalog restore"), "{said}");
    }
    lose_gateway(&mut pool);
    let (done, said) = pool.restore(&[]);
    assert!(done, "{said}");
    pool.start();
    assert_eq!(check(&pool.client()).await, 0, "all of it is back");
    pool.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_flip_while_it_runs_are_never_answered_as_absence() {
    let mut pool = filled(&[]).await;
    // So that rows are read from tables.
    pool.stop();
    pool.start();
    flip(&pool, 3000);
    let _some_are_cached = check(&pool.client()).await;
    // What is damaged goes into no checkpoint that counts: either it is not
    // taken, or it was sent as it was before and is known by its hash.
    let (_, _said) = pool.command(&["catalog", "checkpoint"]);
    pool.kill();
    lose_gateway(&mut pool);
    let (done, said) = pool.restore(&[]);
    assert!(done, "{said}");
    pool.start();
    assert_eq!(check(&pool.client()).await, 0, "all of it is back");
    pool.stop();
}

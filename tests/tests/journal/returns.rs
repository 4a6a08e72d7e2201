//! An agent that was away comes back with what it had: nothing of that is
//! shown, also when reads need its shards.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use shardgate_tests::client::Client;
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;

const BUCKET: &str = "returns";
const KEYS: u64 = 36;
const SIZES: [usize; 4] = [500, 5_000, 70_000, 600_000];
/// Until slots that missed shards are filled.
const PATIENCE: Duration = Duration::from_secs(120);

fn body(key: u64, version: u64) -> Bytes {
    random::bytes(1000 * version + key, SIZES[(key % 4) as usize]).into()
}

async fn put(client: &Client, key: u64, version: u64) {
    let put = client.put(BUCKET, &key.to_string(), body(key, version));
    put.send().await.expect("an answer").expect_status(200);
}

/// Deletes a third, overwrites a third.
async fn change(client: &Client, version: u64) {
    for key in 0..KEYS {
        match key % 3 {
            0 => put(client, key, version).await,
            1 => {
                let delete = client.ask(Method::DELETE, format!("/{BUCKET}/{key}"));
                delete.send().await.expect("an answer").expect_status(204);
            }
            _ => {}
        }
    }
}

async fn check(client: &Client, version: u64) {
    for key in 0..KEYS {
        let got = client.get(BUCKET, &key.to_string()).send().await;
        let got = got.expect("an answer");
        match key % 3 {
            0 => assert!(got.expect_status(200).body == body(key, version), "{key}"),
            1 => drop(got.expect_status(404)),
            _ => assert!(got.expect_status(200).body == body(key, 0), "{key}"),
        }
    }
}

async fn wait_for_filled_slots(pool: &TestPool) {
    let until = Instant::now() + PATIENCE;
    while !pool.status_words().contains(" 0 slots owed") {
        assert!(Instant::now() < until, "{}", pool.status_words());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_away_shows_nothing_old() {
    let mut pool = TestPool::with_agents(6, 1, None);
    let client = pool.client();
    client.make_bucket(BUCKET).await;
    for key in 0..KEYS {
        put(&client, key, 0).await;
    }
    for (version, away) in [(1, 1), (2, 4)] {
        pool.kill_agent(away);
        change(&client, version).await;
        check(&client, version).await;
        pool.start_agent(away);
        check(&client, version).await;
        wait_for_filled_slots(&pool).await;
        // Any two may go, so that what it has now is needed.
        let others = [(away + 1) % 6, (away + 3) % 6];
        others.iter().for_each(|&other| pool.kill_agent(other));
        check(&client, version).await;
        others.iter().for_each(|&other| pool.start_agent(other));
        wait_for_filled_slots(&pool).await;
    }
    pool.stop();
}

//! The run: clients that go on by themselves, and a gateway that is killed
//! under them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use shardgate_tests::linear::history::Life;
use shardgate_tests::process::TestPool;
use shardgate_tests::random;
use tokio::task::JoinHandle;

use crate::client::{Asker, BUCKET, Shared, Told};

/// Clients at once: a few on each key.
const CLIENTS: u64 = 16;

fn begin(pool: &TestPool, shared: &Arc<Shared>, seed: u64) -> Vec<JoinHandle<Told>> {
    let begin_one = |number| {
        let rng = random::rng(seed.wrapping_add(number));
        let asker = Asker::new(pool.client(), Arc::clone(shared), rng);
        tokio::spawn(asker.run())
    };
    (0..CLIENTS).map(begin_one).collect()
}

/// Whether a client has ended, which it does only if it found something.
async fn wait_for(shared: &Shared, clients: &[JoinHandle<Told>], answered: u64) -> bool {
    while shared.answered.load(Ordering::Relaxed) < answered {
        if clients.iter().any(JoinHandle::is_finished) {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

/// Lets clients go on until `operations` were answered, with a kill after
/// each `between_kills`. What they were told, and the lives of the gateway.
pub async fn run(
    mut pool: TestPool,
    seed: u64,
    operations: u64,
    between_kills: u64,
) -> (Told, Vec<Life>) {
    pool.client().make_bucket(BUCKET).await;
    let shared = Arc::new(Shared::new());
    let (mut lives, mut life_begun) = (Vec::new(), 0);
    let clients = begin(&pool, &shared, seed);
    let mut rng = random::rng(seed);
    let mut next = between_kills;
    while next < operations && wait_for(&shared, &clients, next).await {
        // Not always at the same point of whatever the gateway does.
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
        pool.kill();
        lives.push(Life {
            begun: life_begun,
            ended: shared.now(),
        });
        life_begun = shared.now();
        tokio::task::block_in_place(|| pool.start());
        next += between_kills;
    }
    wait_for(&shared, &clients, operations).await;
    shared.goes_on.store(false, Ordering::Relaxed);
    let mut told = Told::default();
    let mut gather = |part: Told| {
        told.records.extend(part.records);
        told.listings.extend(part.listings);
    };
    for client in clients {
        gather(client.await.expect("a client finds nothing wrong"));
    }
    let last = Asker::new(pool.client(), Arc::clone(&shared), rng);
    gather(last.read_all().await);
    pool.stop();
    lives.push(Life {
        begun: life_begun,
        ended: shared.now(),
    });
    (told, lives)
}

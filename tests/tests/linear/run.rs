//! The run: clients that go on by themselves, and a gateway that is killed
//! under them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use shardgate_tests::linear::history::Life;
use shardgate_tests::pool::TestPool;
use shardgate_tests::random;
use tokio::task::JoinHandle;

use crate::client::{Asker, Lie, Shared, Told};

/// Clients at once: a few on each key.
const CLIENTS: u64 = 16;

/// What to do.
pub struct Plan {
    /// Made by the run; of the run alone.
    pub bucket: &'static str,
    /// What clients do follows from it, as far as their order does.
    pub seed: u64,
    /// Answered operations.
    pub operations: u64,
    /// Answered operations between two kills.
    pub between_kills: u64,
    /// What is told wrong.
    pub lie: Option<Lie>,
}

fn begin(pool: &TestPool, shared: &Arc<Shared>, plan: &Plan) -> Vec<JoinHandle<Told>> {
    let begin_one = |number| {
        let rng = random::rng(plan.seed.wrapping_add(number));
        let asker = Asker::new(pool.client(), Arc::clone(shared), rng, plan);
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

/// Lets clients go on as planned, on a pool that runs, and stops it. What they
/// were told, and the lives of the gateway.
pub async fn run(pool: &mut TestPool, plan: &Plan) -> (Told, Vec<Life>) {
    pool.client().make_bucket(plan.bucket).await;
    let shared = Arc::new(Shared::new());
    let (mut lives, mut life_begun) = (Vec::new(), 0);
    let clients = begin(pool, &shared, plan);
    let mut rng = random::rng(plan.seed);
    let mut next = plan.between_kills;
    while next < plan.operations && wait_for(&shared, &clients, next).await {
        // Not always at the same point of whatever the gateway does.
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..20_000))).await;
        pool.kill();
        lives.push(Life {
            begun: life_begun,
            ended: shared.now(),
        });
        life_begun = shared.now();
        tokio::task::block_in_place(|| pool.start());
        next += plan.between_kills;
    }
    wait_for(&shared, &clients, plan.operations).await;
    shared.goes_on.store(false, Ordering::Relaxed);
    let mut told = Told::default();
    let mut gather = |part: Told| {
        told.records.extend(part.records);
        told.listings.extend(part.listings);
    };
    for client in clients {
        gather(client.await.expect("a client finds nothing wrong"));
    }
    let last = Asker::new(pool.client(), Arc::clone(&shared), rng, plan);
    gather(last.read_all().await);
    pool.stop();
    lives.push(Life {
        begun: life_begun,
        ended: shared.now(),
    });
    (told, lives)
}

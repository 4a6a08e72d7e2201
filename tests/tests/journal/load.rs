//! Clients that write until they are told to stop, and know what they were
//! told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_tests::client::Client;
use shardgate_tests::random;
use tokio::task::JoinHandle;

pub const BUCKET: &str = "journal";
/// Inline rows, and blobs on disks.
const SIZES: [usize; 4] = [10, 900, 5_000, 70_000];

fn body(number: u64) -> Bytes {
    let size = SIZES[(number % 4) as usize];
    random::bytes(number + 1, size).into()
}

/// What was acknowledged, by key.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Mutex<BTreeMap<String, u64>>>);

impl Acknowledged {
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Every acknowledged object is there, byte for byte.
    pub async fn check(&self, client: &Client) {
        self.check_of(client, |_| true).await;
    }

    /// As [`Self::check`], of those that lie in the catalog alone. A blob that
    /// was acknowledged at its quorum survives fewer losses until all of it is
    /// stored; the catalog does not.
    pub async fn check_inline(&self, client: &Client) {
        self.check_of(client, |number| body(number).len() <= 1024)
            .await;
    }

    async fn check_of(&self, client: &Client, wanted: fn(u64) -> bool) {
        let all = self.0.lock().clone().into_iter();
        for (key, number) in all.filter(|(_, number)| wanted(*number)) {
            let answer = client.get(BUCKET, &key).send().await.expect("an answer");
            let answer = answer.expect_status(200);
            assert!(answer.body == body(number), "{key} has other bytes");
        }
    }
}

/// Writers at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<u64>>,
}

static NUMBERS: AtomicU64 = AtomicU64::new(0);

impl Load {
    /// Starts `writers` clients. Where `must` is set every answer has to be a
    /// 200; else only what is answered so counts.
    pub fn start(client: &Client, writers: usize, acknowledged: &Acknowledged, must: bool) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |_| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            let acknowledged = acknowledged.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while !stop.load(Ordering::Relaxed) {
                    let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
                    let key = format!("key-{number}");
                    let sent = client.put(BUCKET, &key, body(number)).send().await;
                    match sent {
                        Ok(answer) if must => drop(answer.expect_status(200)),
                        Ok(answer) if answer.status != 200 => continue,
                        Err(_) if !must => continue,
                        Ok(_) => {}
                        Err(cut) => panic!("no answer: {cut:?}"),
                    }
                    acknowledged.0.lock().insert(key, number);
                    done += 1;
                }
                done
            })
        };
        Self {
            writers: (0..writers).map(writer).collect(),
            stop,
        }
    }

    /// Ends them; how many writes were acknowledged.
    pub async fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let mut done = 0;
        for writer in self.writers {
            done += writer.await.expect("a writer ends well");
        }
        done
    }
}

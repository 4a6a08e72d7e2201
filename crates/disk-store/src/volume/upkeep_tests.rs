//! Upkeep seals volumes while batches are written: what was answered is in
//! the directory of the volume that took it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shardgate_wire::conformance::sample;
use shardgate_wire::store::SmallShard;

use super::Op;
use super::engine::{Engine, VolumeFigures};
use super::opening::Opening;
use crate::condition::Condition;
use crate::io::sim::SimDisk;

const BATCHES: u64 = 600;
const BATCH: u64 = 25;

fn open(disk: &SimDisk) -> Engine {
    let salts = AtomicU64::new(1);
    let opened = Engine::open(Opening {
        io: disk.io(),
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        // A batch fills a volume and begins the next.
        figures: VolumeFigures {
            volume_bytes: 64 * 1024,
            volume_records: 40,
            zero_step: 8192,
            large_batch: 16 << 10,
            volume_max: 20_000,
            punch_from: 4096,
            log_bytes: 4096,
            open_files: 8,
            sync_at_once: true,
        },
        progress: Arc::default(),
        directories: Arc::default(),
        random: Box::new(move || salts.fetch_add(1, Ordering::Relaxed)),
    });
    opened.unwrap()
}

fn missing(engine: &Engine) -> Vec<u64> {
    let absent = |blob: &u64| {
        let read = engine.read(sample::key((*blob).into()), 0, 100).unwrap();
        read.is_none_or(|read| read.bytes != sample::bytes((*blob).into(), 100))
    };
    (0..BATCHES * BATCH).filter(absent).collect()
}

#[test]
fn a_volume_is_sealed_with_all_that_was_answered() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                engine.upkeep().unwrap();
            }
        });
        let ctx = sample::context(1);
        for batch in 0..BATCHES {
            let blobs = batch * BATCH..(batch + 1) * BATCH;
            let shards: Vec<SmallShard> = blobs
                .map(|blob| sample::small(&ctx, blob.into(), 100))
                .collect();
            let ops: Vec<_> = shards.iter().map(Op::Put).collect();
            assert!(engine.commit(&ops).iter().all(Result::is_ok));
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(missing(&engine), [0u64; 0], "while it is open");
    drop(engine);
    disk.power_loss(1);
    assert_eq!(missing(&open(&disk)), [0u64; 0], "after the power went");
}

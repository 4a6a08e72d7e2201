//! Upkeep seals volumes while batches are written: what was answered is in
//! the directory of the volume that took it. Closing writes into volumes that
//! are nearly full: what they hold stays.

use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{ShardEnd, SmallShard};

use super::Op;
use super::commit::Ending;
use super::engine::{Engine, VolumeFigures};
use super::format::zero_sectors;
use super::opening::Opening;
use crate::condition::Condition;
use crate::io::sim::SimDisk;

const BATCHES: u64 = 600;
const BATCH: u64 = 25;

fn open(disk: &SimDisk) -> Engine {
    let salts = AtomicU64::new(1);
    let opened = Engine::open(Opening {
        io: disk.io(),
        index: None,
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
    disk.set_yields(true);
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

/// Stores a shard in an extent.
fn put_in_extent(engine: &Engine, blob: u128, len: usize) {
    let header = sample::header(&sample::context(1), blob);
    let bytes = sample::bytes(blob, len);
    let extent = engine.reserve(&header, len as u64).unwrap().unwrap();
    extent
        .file
        .write_at(&[IoSlice::new(&bytes)], extent.data_at)
        .unwrap();
    let end = ShardEnd {
        shard_len: len as u64,
        blob_len: len as u64,
    };
    let ending = Ending {
        extent,
        header,
        end,
        crcs: block_crcs(&bytes),
        zeroes: zero_sectors(&bytes, 0),
    };
    assert_eq!(engine.commit(&[Op::Finish(&ending)]), [Ok(())]);
}

#[test]
fn closing_often_overwrites_nothing() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let ctx = sample::context(1);
    // Records from the front and extents from the end leave a few sectors.
    (0..2).for_each(|blob| put_in_extent(&engine, blob, 16_384));
    put_in_extent(&engine, 2, 8000);
    let room = |engine: &Engine| {
        let state = engine.state.read();
        let volumes = state.groups[&sample::GROUP].volumes.values();
        let room = volumes.map(|volume| volume.extents_from - volume.tail);
        room.collect::<Vec<_>>()
    };
    let shard = sample::small(&ctx, 3, 100);
    assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
    let left = room(&engine);
    assert!(left.len() == 1 && left[0] < 4096, "{left:?}");
    engine.close_as_it_is().unwrap();
    drop(engine);
    for _ in 0..20 {
        disk.restart();
        let engine = open(&disk);
        for (blob, len) in [(0, 16_384), (1, 16_384), (2, 8000), (3, 100)] {
            let read = engine.read(sample::key(blob), 0, len).unwrap().unwrap();
            assert_eq!(read.bytes, sample::bytes(blob, len as usize));
        }
        engine.close_as_it_is().unwrap();
    }
}

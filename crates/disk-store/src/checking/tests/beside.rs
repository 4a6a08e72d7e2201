//! A check while everything else goes on.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shardgate_wire::conformance::sample;
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{ShardKey, ShardStore};

use super::super::cursor::Place;
use super::super::{Report, Way};
use super::world::{FILE_LEN, IN_FILES, SMALL, STREAMED, World, batch, note, runtime};

/// How long others go on at least, and passes that are made meanwhile.
const TIME: Duration = Duration::from_secs(4);
const PASSES: u64 = 3;

/// One pass over the disk; the shards that were whole.
fn pass(world: &World) -> BTreeSet<ShardKey> {
    let core = &world.disk.core;
    let (mut next, mut seen) = (Some(Place::default()), BTreeSet::new());
    while let Some(at) = next {
        let mut report = Report::default();
        let way = Way::new(core);
        next = core.check_from(at, None, &way, &mut report).unwrap();
        seen.extend(report.seen.iter().copied());
        assert_eq!(report.into_page(None).findings, [], "{at:?}");
    }
    seen
}

/// Puts and deletes of small shards, so that volumes are sealed and compacted.
async fn small_ones(world: &World, ends: &AtomicBool) {
    let (ctx, mut blob) = (world.ctx(), 1_000_000);
    while !ends.load(Ordering::Relaxed) {
        let new: Vec<u128> = (blob..blob + 20).collect();
        for blob in &new {
            world.put(*blob, 3000).await;
        }
        // One of ten stays for the next round.
        let gone = new.iter().filter(|blob| **blob % 10 > 0);
        let gone: Vec<_> = gone.map(|blob| sample::key(*blob)).collect();
        world.disk.delete(&ctx, &gone).await.unwrap();
        let notes: Vec<_> = new.iter().map(|blob| note(*blob)).collect();
        world.disk.put_notes(&ctx, &notes).await.unwrap();
        blob += 20;
    }
}

/// Shards in files and in extents, that come and go.
async fn long_ones(world: &World, ends: &AtomicBool) {
    let ctx = world.ctx();
    while !ends.load(Ordering::Relaxed) {
        for blob in 20_000..20_004 {
            world.append_file(blob, FILE_LEN).await;
            world.append(blob + 10, 40_000, Some(40_000)).await;
        }
        let all: Vec<_> = (20_000..20_020).map(sample::key).collect();
        world.disk.delete(&ctx, &all).await.unwrap();
        // Of the same names, anew.
    }
}

/// Segments that are written, rolled and removed.
async fn journal(world: &World, ends: &AtomicBool) {
    let (ctx, mut files) = (world.ctx(), vec![]);
    while !ends.load(Ordering::Relaxed) {
        let file = world.disk.begin(&ctx, batch(0, &[7; 50])).await.unwrap();
        let mut offset = 4096;
        for len in [10, 9000, 50_000, 3, 20_000] {
            let batch = batch(offset, &vec![8; len]);
            let len = batch.len() as u64;
            let appended = JournalDisk::append(&world.disk, &ctx, file, offset, batch);
            appended.await.unwrap();
            offset += len;
        }
        files.push(file);
        if files.len() > 3 {
            let oldest = files.remove(0);
            JournalDisk::remove(&world.disk, &ctx, &[oldest])
                .await
                .unwrap();
        }
    }
}

/// Epochs and slots, which write the records of the disk.
async fn records(world: &World, ends: &AtomicBool) {
    let (ctx, mut number) = (world.ctx(), 1);
    while !ends.load(Ordering::Relaxed) {
        number += 1;
        let map = vec![number as u8; 3000].into();
        world.disk.set_map(&ctx, number, map).await.unwrap();
        let mut slot = sample::slot();
        slot.group.0 += number;
        world.disk.assign(&ctx, &[slot]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

#[test]
fn what_changes_meanwhile_is_never_wrong_and_what_stays_is_never_missed() {
    let runtime = runtime();
    let world = runtime.block_on(World::new());
    let steady: BTreeSet<ShardKey> = SMALL
        .chain(STREAMED)
        .chain(IN_FILES)
        .filter(|blob| ![3, 9, 101, 202].contains(blob))
        .map(sample::key)
        .collect();
    let (ends, passes) = (AtomicBool::new(false), AtomicU64::new(0));
    let seals = world.disk.core.volumes.state.read().moves;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            struct Ends<'a>(&'a AtomicBool);
            impl Drop for Ends<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let _ends = Ends(&ends);
            let since = Instant::now();
            while since.elapsed() < TIME || passes.load(Ordering::Relaxed) < PASSES {
                let seen = pass(&world);
                let missed: Vec<_> = steady.difference(&seen).collect();
                assert!(missed.is_empty(), "{missed:?}");
                passes.fetch_add(1, Ordering::Relaxed);
            }
        });
        runtime.block_on(async {
            tokio::join!(
                small_ones(&world, &ends),
                long_ones(&world, &ends),
                journal(&world, &ends),
                records(&world, &ends),
            )
        });
    });
    let moves = world.disk.core.volumes.state.read().moves - seals;
    assert!(moves > 10, "nothing was sealed or compacted: {moves}");
    println!("{passes:?} passes, {moves} volumes came and went");
    assert_eq!(world.disk.core.condition.errors(), 0);
}

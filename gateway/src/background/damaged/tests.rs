//! Damaged shards are made anew of the others, and go only if they can be.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use shardgate_catalog::DeleteCondition;
use shardgate_wire::memory_store::Call;
use shardgate_wire::{Purpose, ShardStore};

use super::super::owed::{Fill, Outcome};
use super::super::pace::Pace;
use super::*;
use crate::object::repairs::Repair;
use crate::object::tests::fixture::{Fixture, bytes, fixture};

const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];
const KIB: usize = 1024;
/// Copies, one stripe, several.
const SIZES: [usize; 3] = [10 * KIB, 900 * KIB, 3 << 20];

fn job(store: &Fixture) -> Mend {
    Mend {
        disks: store.pool.clone(),
        objects: store.service.clone(),
        turns: Box::new(Pace::new(u64::MAX)),
        progress: Arc::default(),
        stop: store.stop.clone(),
    }
}

fn filling(store: &Fixture) -> Fill {
    Fill {
        catalog: store.service.catalog().clone(),
        disks: store.pool.clone(),
        objects: store.service.clone(),
        turns: Box::new(Pace::new(u64::MAX)),
        progress: Arc::default(),
        stop: store.stop.clone(),
    }
}

async fn stored(store: &Fixture) -> Vec<(String, Bytes)> {
    let mut objects = Vec::new();
    for (number, size) in SIZES.iter().enumerate() {
        let (key, content) = (format!("key-{number}"), bytes(*size, number as u64));
        store.put(&key, &content).await.unwrap();
        objects.push((key, content));
    }
    objects
}

/// Flips a byte and has the disk find it, as its scrub does.
async fn damage(store: &Fixture, key: &str, shard: u8) -> (usize, ShardKey) {
    let blob = store.blob(key).await;
    store.flip(&blob, shard, 100).await;
    let (disk, key) = store.shard(&blob, shard).await;
    let of = store.pool.store_of(disk);
    let ctx = store.pool.context();
    let page = of.check(&ctx, None, false).await.unwrap();
    assert!(page.findings.iter().any(|it| it.shard == Some(key)));
    (disk, key)
}

async fn damaged(store: &Fixture, disk: usize) -> usize {
    store.pool.store_of(disk).damaged().await.unwrap().len()
}

async fn owed(store: &Fixture) -> usize {
    store.service.catalog().owed().await.unwrap().len()
}

async fn is_whole(store: &Fixture, disk: usize, key: ShardKey) -> bool {
    let disk = store.pool.store_of(disk);
    let len = disk.stat(key).await.unwrap().end.unwrap().shard_len;
    let len = u32::try_from(len.min(64 << 10)).unwrap();
    disk.read(key, 0, len).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn what_a_disk_finds_damaged_is_made_anew() {
    let store = fixture("4+2", &SIX).await;
    let objects = stored(&store).await;
    let (job, mut kept) = (job(&store), Kept::new());
    for (key, _) in &objects {
        let (first, one) = damage(&store, key, 0).await;
        job.pass(&mut kept).await;
        let (second, other) = damage(&store, key, 1).await;
        job.pass(&mut kept).await;
        for (disk, key) in [(first, one), (second, other)] {
            assert_eq!(damaged(&store, disk).await, 0);
            assert!(is_whole(&store, disk, key).await);
        }
        // The rows are closed after the next comparison.
        assert_eq!(owed(&store).await, 2);
        filling(&store).pass().await.unwrap();
        assert_eq!(owed(&store).await, 0);
    }
    assert_eq!(job.progress.counts()[0], ("damaged_made", 6));
    // Any two others may go now.
    for gone in [[2, 3], [4, 5], [0, 3]] {
        gone.iter()
            .for_each(|disk| store.pool.set_gone(*disk, true));
        for (key, content) in &objects {
            assert!(store.get(key).await.unwrap() == content, "{key}");
        }
        gone.iter()
            .for_each(|disk| store.pool.set_gone(*disk, false));
    }
}

/// One bad block of a shard leaves its other blocks, which may be needed.
#[tokio::test(start_paused = true)]
async fn what_the_others_do_not_give_stays() {
    let store = fixture("4+2", &SIX).await;
    let objects = stored(&store).await;
    let (key, content) = &objects[1];
    let blob = store.blob(key).await;
    let mut at = Vec::new();
    for shard in 0..3 {
        at.push(damage(&store, key, shard).await);
    }
    let (job, mut kept) = (job(&store), Kept::new());
    job.pass(&mut kept).await;
    assert_eq!((owed(&store).await, kept.len()), (0, 3));
    for (disk, key) in &at {
        assert_eq!(damaged(&store, *disk).await, 1);
        assert!(store.pool.disk(*disk).finished().contains(key));
    }
    assert_eq!(job.progress.counts()[2], ("damaged_kept", 3));
    // Not again at once; later, and by then there are enough.
    let reads = store.pool.disk(at[0].0).calls(Call::Read);
    job.pass(&mut kept).await;
    assert_eq!(store.pool.disk(at[0].0).calls(Call::Read), reads);
    store.flip(&blob, 2, 100).await;
    tokio::time::advance(AGAIN + Duration::from_secs(1)).await;
    job.pass(&mut kept).await;
    for (disk, key) in at {
        assert!(is_whole(&store, disk, key).await);
    }
    assert!(store.get(key).await.unwrap() == content);
}

/// A long shard is read a second time while it is written: with as many others
/// as are needed, and no more, it stays.
#[tokio::test(start_paused = true)]
async fn a_long_shard_goes_only_while_one_more_of_the_others_may_fail() {
    let store = fixture("4+2", &SIX).await;
    let content = bytes(3 << 20, 1);
    store.put("long", &content).await.unwrap();
    let (disk, key) = damage(&store, "long", 0).await;
    let blob = store.blob("long").await;
    let (away, _) = store.shard(&blob, 5).await;
    store.pool.set_gone(away, true);
    let (job, mut kept) = (job(&store), Kept::new());
    job.pass(&mut kept).await;
    assert_eq!((damaged(&store, disk).await, owed(&store).await), (1, 0));
    store.pool.set_gone(away, false);
    tokio::time::advance(SOON + Duration::from_secs(1)).await;
    job.pass(&mut kept).await;
    assert!(is_whole(&store, disk, key).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_of_what_is_deleted_or_held_or_has_no_room() {
    let store = fixture("4+2", &SIX).await;
    let objects = stored(&store).await;
    let (job, mut kept) = (job(&store), Kept::new());
    let (disk, key) = damage(&store, &objects[1].0, 0).await;
    let stays = || store.pool.disk(disk).finished().contains(&key);

    store.reclaiming.hold();
    job.pass(&mut kept).await;
    assert!(stays() && owed(&store).await == 0);
    store.reclaiming.resume();

    let soon = SOON + Duration::from_secs(1);
    let of_disk = store.pool.disk(disk);
    of_disk.keep_from(Purpose::Background, u64::MAX);
    tokio::time::advance(soon).await;
    job.pass(&mut kept).await;
    assert!(stays() && owed(&store).await == 0);
    of_disk.keep_from(Purpose::Background, 0);

    let none = DeleteCondition::None;
    let name = &objects[1].0;
    let deleted = store.service.delete_object(&store.bucket, name, none).await;
    deleted.unwrap();
    tokio::time::advance(soon).await;
    job.pass(&mut kept).await;
    // Its purge takes it, and nobody else.
    assert!(stays() && owed(&store).await == 0);
    assert_eq!(job.progress.counts().map(|count| count.1), [0, 0, 0]);

    // It is no fault of the job: another is made.
    let (disk, key) = damage(&store, &objects[0].0, 0).await;
    job.pass(&mut kept).await;
    assert!(is_whole(&store, disk, key).await);
}

/// Its slot has moved, or the disk speaks of a shard that is not its own.
#[tokio::test(start_paused = true)]
async fn a_disk_is_believed_of_its_own_slots_alone() {
    let store = fixture("4+2", &SIX).await;
    let objects = stored(&store).await;
    let (disk, key) = damage(&store, &objects[1].0, 0).await;
    let turns = Pace::new(u64::MAX);
    let beyond = ShardKey { index: 6, ..key };
    for (of, key) in [((disk + 1) % 6, key), (disk, beyond)] {
        let of = store.pool.store_of(of).disk();
        let made = store.service.make_damaged_anew(of, key, &turns).await;
        assert!(matches!(made, Ok(Mended::NotNeeded)), "{made:?}");
    }
    assert_eq!((damaged(&store, disk).await, owed(&store).await), (1, 0));
}

/// A deletion that was not answered may be done at any later time: until it is
/// known to be, the slot is not taken for whole.
#[tokio::test(start_paused = true)]
async fn a_slot_is_not_closed_while_a_damaged_shard_may_still_go() {
    let store = fixture("4+2", &SIX).await;
    let objects = stored(&store).await;
    let (disk, key) = damage(&store, &objects[1].0, 0).await;
    let busy = shardgate_wire::StoreError::Busy;
    store
        .pool
        .disk(disk)
        .fail_next(Call::Delete, 1000, busy.clone());
    let (job, mut kept) = (job(&store), Kept::new());
    job.pass(&mut kept).await;
    assert_eq!(owed(&store).await, 1);
    assert!(store.pool.disk(disk).finished().contains(&key));
    // The disk lists it, so that nothing seems to be missing.
    filling(&store).pass().await.unwrap();
    assert_eq!(owed(&store).await, 1);
    // It goes, late.
    store.pool.disk(disk).fail_next(Call::Delete, 0, busy);
    job.pass(&mut kept).await;
    assert!(!store.pool.disk(disk).finished().contains(&key));
    filling(&store).pass().await.unwrap();
    assert_eq!(owed(&store).await, 0);
    assert!(is_whole(&store, disk, key).await);
}

#[tokio::test(start_paused = true)]
async fn what_reads_miss_is_made_anew_and_no_comparison_made_void_for_it() {
    let store = fixture("4+2", &SIX).await;
    let objects = stored(&store).await;
    let (key, content) = &objects[2];
    let blob = store.blob(key).await;
    store.drop_shard(&blob, 1).await;
    assert!(store.get(key).await.unwrap() == content);
    let (job, mut kept) = (job(&store), Kept::new());
    job.pass(&mut kept).await;
    assert_eq!((owed(&store).await, job.progress.counts()[1].1), (1, 1));
    let group = store.pool.group(blob.group).await.unwrap();
    let slot = group.slot(&blob, 1);
    let catalog = store.service.catalog();
    let compared = catalog.compare_owed(blob.group, slot).await.unwrap();
    // It is missed again while the lists are compared.
    assert!(store.get(key).await.unwrap() == content);
    job.pass(&mut kept).await;
    assert_eq!(job.progress.missing.load(Ordering::Relaxed), 1);
    let row = compared.unwrap();
    let generation = group.row.generation;
    let closed = catalog.close_owed(blob.group, slot, &row, generation);
    closed.await.expect("nothing came in between");
    // Missed once more: owed again, and made.
    assert!(store.get(key).await.unwrap() == content);
    job.pass(&mut kept).await;
    let filled = filling(&store).fill(blob.group, slot).await.unwrap();
    assert_eq!(filled, Outcome::Closed);
    let (disk, shard) = store.shard(&blob, 1).await;
    assert!(store.pool.disk(disk).finished().contains(&shard));
    // What is there by now is not owed.
    store.service.repairs().add(Repair { blob, shard: 1 });
    job.pass(&mut kept).await;
    assert_eq!(owed(&store).await, 0);
}

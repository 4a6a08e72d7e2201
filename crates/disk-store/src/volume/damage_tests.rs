//! What is damaged in a volume is corrupt, never absent, and hides nothing
//! else.

use std::path::PathBuf;
use std::sync::Arc;

use shardgate_wire::conformance::sample;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::{Engine, VolumeFigures};
use super::opening::Opening;
use super::place::{What, volume_file};
use super::{Op, WindowCursor};
use crate::condition::Condition;
use crate::io::sim::SimDisk;

const LEN: usize = 1000;
const COUNT: u128 = 6;

pub(super) fn figures() -> VolumeFigures {
    VolumeFigures {
        volume_bytes: 64 * 1024,
        volume_records: 1000,
        zero_step: 16 * 1024,
        large_batch: 16 << 10,
        volume_max: 20_000,
        punch_from: 4096,
        log_bytes: 1 << 20,
        open_files: 2,
        sync_at_once: false,
    }
}

pub(super) fn open(disk: &SimDisk) -> Engine {
    try_open(disk).expect("it opens")
}

pub(super) fn try_open(disk: &SimDisk) -> Result<Engine, StoreError> {
    Engine::open(Opening {
        io: disk.io(),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: figures(),
        progress: Arc::default(),
        directories: Arc::default(),
        random: Box::new(|| 0x5a17),
    })
}

/// A disk with some shards, each synced alone, in one volume.
fn filled() -> (SimDisk, Engine) {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    for blob in 0..COUNT {
        put(&engine, blob).unwrap();
    }
    (disk, engine)
}

fn put(engine: &Engine, blob: u128) -> Result<(), StoreError> {
    let shard = sample::small(&sample::context(1), blob, LEN);
    engine.commit(&[Op::Put(&shard)]).remove(0)
}

fn volume() -> PathBuf {
    volume_file(sample::GROUP, 1, What::Volume)
}

pub(super) fn read(engine: &Engine, blob: u128) -> Result<bool, StoreError> {
    let read = engine.read(sample::key(blob), 0, LEN as u32)?;
    Ok(read.is_some_and(|read| read.bytes == sample::bytes(blob, LEN)))
}

fn is_corrupt<T>(read: &Result<T, StoreError>) -> bool {
    matches!(read, Err(StoreError::Corrupt { .. }))
}

/// Where the record of a shard begins.
fn offset(engine: &Engine, blob: u128) -> u64 {
    let located = engine.locate(sample::key(blob)).unwrap();
    located.unwrap().entry.offset()
}

/// Flips a bit of each of `bytes` of the record of blob 2, one at a time,
/// while the volume is open, after it was found by its records, and after it
/// was sealed.
fn every_flip_is_noticed(step: usize) {
    let (disk, engine) = filled();
    let at = offset(&engine, 2);
    let span = offset(&engine, 3) - at;
    let used = disk.bytes(&volume()).unwrap();
    let used = &used[at as usize..(at + span) as usize];
    let used = used.iter().rposition(|byte| *byte != 0).unwrap();
    drop(engine);
    disk.restart();
    for byte in (0..used).step_by(step) {
        disk.flip_bit(&volume(), at + byte as u64, 3);
        // Found by its records: a crash left it open.
        let engine = open(&disk);
        let what = format!("byte {byte}");
        assert!(
            is_corrupt(&read(&engine, 2)),
            "{what}: {:?}",
            read(&engine, 2)
        );
        // What describes the shard is checked without its bytes.
        let stat = engine.stat(sample::key(2));
        let told = stat.as_ref().is_ok_and(|stat| {
            let stat = stat.as_ref().map(|stat| &stat.header);
            stat == Some(&sample::header(&sample::context(1), 2))
        });
        assert!(is_corrupt(&stat) || told, "{what}: {stat:?}");
        for other in [0, 1, 3, 4, 5] {
            assert_eq!(read(&engine, other), Ok(true), "{what} hides {other}");
        }
        let window = engine.window(
            WindowCursor {
                group: sample::GROUP,
                ..WindowCursor::default()
            },
            1 << 20,
        );
        let window = window.unwrap();
        let bad: Vec<ShardKey> = window
            .records
            .iter()
            .filter(|record| record.shard.is_err())
            .map(|record| record.key)
            .collect();
        assert!(window.unknown || bad == [sample::key(2)], "{what}: {bad:?}");
        disk.flip_bit(&volume(), at + byte as u64, 3);
        drop(engine);
        disk.restart();
    }
}

#[test]
fn every_flip_of_a_record_is_noticed_and_hides_no_other() {
    every_flip_is_noticed(7);
}

#[test]
fn a_sealed_volume_and_its_directory_are_checked() {
    let (disk, engine) = filled();
    let at = offset(&engine, 2);
    engine.roll(sample::GROUP);
    assert_eq!(engine.upkeep(), Ok(true));
    let check = engine.check(false).unwrap();
    assert_eq!((check.shards, check.findings.len()), (6, 0), "{check:?}");
    disk.flip_bit(&volume(), at + 400, 1);
    assert!(is_corrupt(&read(&engine, 2)));
    assert!(
        is_corrupt(&put(&engine, 2)),
        "a repeat does not hide damage"
    );
    let check = engine.check(true).unwrap();
    assert_eq!(check.shards, 5);
    assert_eq!(check.findings.len(), 1, "{check:?}");
    assert_eq!(check.findings[0].shard, Some(sample::key(2)));
    assert!(!check.findings[0].repaired);
    // Repaired by its callers: deleted, and written anew.
    let deleted = engine.commit(&[Op::Delete(sample::key(2))]).remove(0);
    assert_eq!(deleted, Ok(()));
    assert_eq!(put(&engine, 2), Ok(()));
    assert_eq!(read(&engine, 2), Ok(true));
    assert_eq!(engine.check(false).unwrap().findings, []);
}

#[test]
fn a_directory_that_is_lost_or_damaged_is_made_anew() {
    let (disk, engine) = filled();
    let deleted = engine.commit(&[Op::Delete(sample::key(4))]).remove(0);
    assert_eq!(deleted, Ok(()));
    engine.roll(sample::GROUP);
    assert_eq!(engine.upkeep(), Ok(true));
    let deleted = engine.commit(&[Op::Delete(sample::key(5))]).remove(0);
    assert_eq!(deleted, Ok(()));
    engine.close(true).unwrap();
    let directory = volume_file(sample::GROUP, 1, What::Directory);
    type Damage = fn(&SimDisk, &std::path::Path);
    let damages: [Damage; 3] = [
        |disk, path| disk.flip_bit(path, 40, 1),
        |disk, path| disk.cut(path, 100),
        |disk, path| disk.io().remove(path).unwrap(),
    ];
    for damage in damages {
        disk.restart();
        damage(&disk, &directory);
        let engine = open(&disk);
        while engine.upkeep().unwrap() {}
        for blob in 0..4 {
            assert_eq!(read(&engine, blob), Ok(true));
        }
        for blob in [4, 5] {
            assert_eq!(read(&engine, blob), Ok(false), "{blob} was deleted");
        }
        assert_eq!(engine.check(false).unwrap().findings, []);
        engine.close(true).unwrap();
    }
    // A page of it: told, and repaired while it is open.
    disk.restart();
    let engine = open(&disk);
    disk.flip_bit(&directory, 4096 + 10, 1);
    assert!(is_corrupt(&read(&engine, 1)));
    let check = engine.check(true).unwrap();
    assert!(
        check.findings.len() == 1 && check.findings[0].repaired,
        "{check:?}"
    );
    assert_eq!(read(&engine, 1), Ok(true));
    assert_eq!(read(&engine, 5), Ok(false));
}

#[test]
fn a_sealed_volume_that_is_gone_is_damage() {
    let (disk, engine) = filled();
    engine.roll(sample::GROUP);
    assert_eq!(engine.upkeep(), Ok(true));
    assert_eq!(put(&engine, 50), Ok(()));
    engine.close(true).unwrap();
    disk.restart();
    disk.io().remove(&volume()).unwrap();
    for _ in 0..2 {
        let engine = open(&disk);
        for blob in 0..COUNT {
            assert!(is_corrupt(&read(&engine, blob)), "{blob}");
        }
        assert_eq!(read(&engine, 50), Ok(true));
        assert_eq!(read(&engine, 51), Ok(false));
        let found = engine.check(true).unwrap().findings;
        let shards = found.iter().filter(|finding| finding.shard.is_some());
        assert_eq!(
            (found.len(), shards.count()),
            (1 + COUNT as usize, COUNT as usize)
        );
        engine.close(true).unwrap();
        disk.restart();
    }
}

#[test]
fn a_wiped_stretch_is_damage_and_not_the_end() {
    let (disk, engine) = filled();
    let (from, to) = (offset(&engine, 2), offset(&engine, 3));
    drop(engine);
    let file = disk.io().open(&volume(), crate::io::OpenHow::ReadWrite);
    let file = file.unwrap();
    let zeroes = vec![0; (to - from) as usize];
    let write = [std::io::IoSlice::new(&zeroes)];
    file.write_at(&write, from).unwrap();
    file.sync_all().unwrap();
    drop(file);
    disk.restart();
    let engine = open(&disk);
    assert!(
        is_corrupt(&read(&engine, 2)),
        "nobody knows that it is absent"
    );
    for other in [0, 1, 3, 4, 5] {
        assert_eq!(read(&engine, other), Ok(true));
    }
    assert_eq!(put(&engine, 100), Ok(()), "others are still written");
}

#[test]
fn two_heads_that_are_damaged_hide_no_shard() {
    let (disk, engine) = filled();
    let places = [offset(&engine, 2), offset(&engine, 3)];
    drop(engine);
    disk.restart();
    for at in places {
        disk.flip_bit(&volume(), at + 20, 1);
    }
    let engine = open(&disk);
    for blob in [2, 3] {
        assert!(is_corrupt(&read(&engine, blob)), "{blob} was answered");
    }
    for other in [0, 1, 4, 5] {
        assert_eq!(read(&engine, other), Ok(true));
    }
}

#[test]
fn a_directory_on_a_bad_sector_is_made_anew() {
    let (disk, engine) = filled();
    engine.roll(sample::GROUP);
    assert_eq!(engine.upkeep(), Ok(true));
    engine.close(true).unwrap();
    disk.restart();
    disk.set_faults(crate::io::sim::Faults {
        unreadable: vec![volume_file(sample::GROUP, 1, What::Directory)],
        ..Default::default()
    });
    let engine = open(&disk);
    for blob in 0..COUNT {
        assert_eq!(read(&engine, blob), Ok(true));
    }
}

#[test]
fn a_torn_end_was_never_answered() {
    let (disk, engine) = filled();
    let at = offset(&engine, COUNT - 1);
    drop(engine);
    disk.restart();
    disk.lose_sector(&volume(), at / 512 * 512 + 512);
    let engine = open(&disk);
    // A sector is missing, and no record behind it says that it was synced.
    assert_eq!(read(&engine, COUNT - 1), Ok(false));
    assert_eq!(put(&engine, COUNT - 1), Ok(()));
    assert_eq!(read(&engine, COUNT - 1), Ok(true));
    while engine.upkeep().unwrap() {}
    assert_eq!(engine.check(false).unwrap().findings, []);
}

/// Nothing behind it says that it was synced, but no sector of it is missing.
#[test]
fn a_damaged_end_is_not_taken_for_a_torn_one() {
    let (disk, engine) = filled();
    let at = offset(&engine, COUNT - 1);
    drop(engine);
    disk.restart();
    let bytes = disk.bytes(&volume()).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    for place in (at..=end).step_by(5) {
        disk.flip_bit(&volume(), place, (place % 8) as u8);
        let engine = open(&disk);
        let last = read(&engine, COUNT - 1);
        assert!(is_corrupt(&last), "flipped at {place}: {last:?}");
        for other in 0..COUNT - 1 {
            assert_eq!(read(&engine, other), Ok(true), "flipped at {place}");
        }
        // It is still said once the volume is sealed, and by the next start.
        while engine.upkeep().unwrap() {}
        assert!(is_corrupt(&read(&engine, COUNT - 1)), "flipped at {place}");
        engine.close(true).unwrap();
        disk.restart();
        assert!(
            is_corrupt(&read(&open(&disk), COUNT - 1)),
            "flipped at {place}"
        );
        let directory = volume_file(sample::GROUP, 1, What::Directory);
        disk.io().remove(&directory).unwrap();
        rewrite(&disk, &bytes);
    }
}

/// Gives the volume its bytes back.
fn rewrite(disk: &SimDisk, bytes: &[u8]) {
    disk.restart();
    let file = disk.io().open(&volume(), crate::io::OpenHow::ReadWrite);
    let file = file.unwrap();
    file.write_at(&[std::io::IoSlice::new(bytes)], 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    for (path, _) in disk.files() {
        if path.starts_with(super::place::LOG) {
            disk.io().remove(&path).unwrap();
        }
    }
    disk.restart();
}

#[test]
fn a_cut_volume_is_damage() {
    let (disk, engine) = filled();
    let last = offset(&engine, COUNT - 1);
    drop(engine);
    disk.restart();
    disk.cut(&volume(), last + 600);
    let engine = open(&disk);
    for blob in 0..COUNT - 1 {
        assert_eq!(read(&engine, blob), Ok(true));
    }
    assert!(is_corrupt(&read(&engine, COUNT - 1)));
    assert!(is_corrupt(&read(&engine, 77)), "it may have been there");
}

#[test]
fn two_heads_of_one_batch_that_are_damaged_hide_no_shard() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let shards: Vec<_> = (0..COUNT)
        .map(|blob| sample::small(&sample::context(1), blob, LEN))
        .collect();
    let ops: Vec<_> = shards.iter().map(Op::Put).collect();
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
    put(&engine, 50).unwrap();
    let places = [offset(&engine, 2), offset(&engine, 3)];
    drop(engine);
    // The second one's header as well, so that nothing tells its key.
    for header in [false, true] {
        disk.restart();
        disk.flip_bit(&volume(), places[0] + 20, 1);
        disk.flip_bit(&volume(), places[1] + 20, 1);
        if header {
            disk.flip_bit(&volume(), places[1] + 100, 1);
        }
        let engine = open(&disk);
        for blob in [2, 3] {
            let read = read(&engine, blob);
            assert!(is_corrupt(&read), "{blob}: {read:?}");
        }
        for other in [0, 1, 4, 5, 50] {
            assert_eq!(read(&engine, other), Ok(true));
        }
        drop(engine);
        disk.restart();
        let _ = disk
            .io()
            .remove(&volume_file(sample::GROUP, 1, What::Directory));
        disk.flip_bit(&volume(), places[0] + 20, 1);
        disk.flip_bit(&volume(), places[1] + 20, 1);
    }
}

#[test]
fn a_group_far_larger_than_memory_would_like_costs_little() {
    let (_, engine) = filled();
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
    let state = engine.state.read();
    let of = &state.groups[&sample::GROUP];
    let volume = of.volumes.values().next().unwrap();
    let super::volume_state::Index::Directory(head) = &volume.index else {
        panic!("it is sealed");
    };
    assert_eq!(head.fence.len(), 1);
    assert!(volume.file.is_none() && volume.dead.is_empty());
}

//! Shards of which a disk has more than one record, because what it knew was
//! lost; directories with damaged pages; numbers of volumes.

use shardgate_wire::conformance::sample;
use shardgate_wire::{ShardKey, StoreError};

use super::Op;
use super::damage_tests::read;
use super::engine::Engine;
use super::place::{LOG, What, volume_file};
use super::unread_tests::open;
use crate::io::sim::{Faults, SimDisk};

fn put(engine: &Engine, blob: u128) {
    let shard = sample::small(&sample::context(1), blob, 1000);
    assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
}

fn delete(engine: &Engine, blob: u128) -> Result<(), StoreError> {
    engine.commit(&[Op::Delete(sample::key(blob))]).remove(0)
}

fn seal(engine: &Engine) {
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
}

fn lose_log(disk: &SimDisk) {
    for (path, _) in disk.files() {
        if path.starts_with(LOG) {
            disk.io().remove(&path).unwrap();
        }
    }
}

fn crash(disk: &SimDisk, engine: Engine) -> Engine {
    drop(engine);
    disk.power_loss(1);
    open(disk)
}

/// A disk that has forgotten that it deleted blobs 0 to 9 before they were
/// stored again; with a volume that has both, or each in its own.
fn with_copies(apart: bool) -> (SimDisk, Engine) {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..10).for_each(|blob| put(&engine, blob));
    if apart {
        seal(&engine);
    }
    (0..10).for_each(|blob| delete(&engine, blob).unwrap());
    (0..20).for_each(|blob| put(&engine, blob));
    drop(engine);
    disk.restart();
    lose_log(&disk);
    let engine = open(&disk);
    assert!(engine.state.read().incomplete);
    (disk, engine)
}

#[test]
fn a_delete_takes_all_records_of_a_shard() {
    for (apart, sealed) in [(false, false), (false, true), (true, false), (true, true)] {
        let (disk, engine) = with_copies(apart);
        if sealed {
            seal(&engine);
        }
        if apart {
            assert_eq!(engine.locate_all(sample::key(3)).unwrap().len(), 2);
        }
        (0..20).for_each(|blob| assert_eq!(read(&engine, blob), Ok(true)));
        (0..10).for_each(|blob| delete(&engine, blob).unwrap());
        let engine = crash(&disk, engine);
        for blob in 0..20 {
            let there = read(&engine, blob);
            assert_eq!(there, Ok(blob >= 10), "{blob}, {apart} {sealed}");
        }
    }
}

#[test]
fn copies_neither_show_twice_nor_end_a_list() {
    for apart in [false, true] {
        let (_, engine) = with_copies(apart);
        seal(&engine);
        for limit in 1..25 {
            let mut listed: Vec<ShardKey> = Vec::new();
            loop {
                let page = engine.list(listed.last().copied(), limit).unwrap();
                listed.extend(page.iter().map(|entry| entry.key));
                if page.len() < limit {
                    break;
                }
            }
            let wanted: Vec<_> = (0..20).map(sample::key).collect();
            assert_eq!(listed, wanted, "{limit} at once");
        }
    }
}

#[test]
fn compaction_leaves_one_record_of_a_shard() {
    let (disk, engine) = with_copies(true);
    seal(&engine);
    let volumes = {
        let state = engine.state.read();
        state.groups[&sample::GROUP]
            .volumes
            .keys()
            .copied()
            .collect()
    };
    let choice = super::compact::Choice {
        group: sample::GROUP,
        volumes,
        bytes: 0,
    };
    assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
    (0..10).for_each(|blob| delete(&engine, blob).unwrap());
    let engine = crash(&disk, engine);
    (0..20).for_each(|blob| assert_eq!(read(&engine, blob), Ok(blob >= 10)));
}

/// A disk with a sealed volume whose directory has a damaged page.
fn with_a_damaged_page() -> (SimDisk, Engine) {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..6).for_each(|blob| put(&engine, blob));
    seal(&engine);
    let directory = volume_file(sample::GROUP, 1, What::Directory);
    disk.flip_bit(&directory, 4096 + 10, 1);
    (disk, engine)
}

#[test]
fn a_damaged_page_keeps_nothing_from_being_deleted() {
    let (disk, engine) = with_a_damaged_page();
    assert_eq!(delete(&engine, 2), Ok(()));
    for blob in 0..6 {
        assert_eq!(read(&engine, blob), Ok(blob != 2));
    }
    let engine = crash(&disk, engine);
    for blob in 0..6 {
        assert_eq!(read(&engine, blob), Ok(blob != 2));
    }
    assert_eq!(engine.check(false).unwrap().findings, []);
}

#[test]
fn a_damaged_page_is_read_over_until_upkeep_makes_it_anew() {
    for unreadable in [false, true] {
        let (disk, engine) = with_a_damaged_page();
        if unreadable {
            let directory = volume_file(sample::GROUP, 1, What::Directory);
            disk.flip_bit(&directory, 4096 + 10, 1);
            disk.set_faults(Faults {
                bad: vec![(directory, 4096, 8192)],
                ..Faults::default()
            });
        }
        assert!(read(&engine, 2).is_err());
        disk.set_faults(Faults::default());
        assert_eq!(engine.upkeep(), Ok(true));
        (0..6).for_each(|blob| assert_eq!(read(&engine, blob), Ok(true)));
        assert_eq!(engine.upkeep(), Ok(false));
        assert_eq!(engine.check(false).unwrap().findings, []);
    }
}

#[test]
fn a_directory_made_anew_forgets_no_damage() {
    let (disk, engine) = with_a_damaged_page();
    // The record of blob 3 as well: nothing but its header tells its key.
    let at = disk
        .bytes(&volume_file(sample::GROUP, 1, What::Volume))
        .unwrap();
    let magic = b"SG.vrec\0";
    let heads: Vec<usize> = (8192..at.len())
        .step_by(64)
        .filter(|place| at[*place..].starts_with(magic))
        .collect();
    let volume = volume_file(sample::GROUP, 1, What::Volume);
    disk.flip_bit(&volume, heads[3] as u64 + 20, 1);
    disk.flip_bit(&volume, heads[3] as u64 + 90, 1);
    assert_eq!(delete(&engine, 1), Ok(()));
    for blob in [0, 2, 4, 5] {
        assert_eq!(read(&engine, blob), Ok(true));
    }
    assert!(read(&engine, 3).is_err(), "it is damaged, and not absent");
    assert!(read(&crash(&disk, engine), 3).is_err());
}

#[test]
fn a_directory_that_cannot_be_made_anew_refuses_deletes() {
    let (disk, engine) = with_a_damaged_page();
    disk.set_faults(Faults {
        unreadable: vec![volume_file(sample::GROUP, 1, What::Volume)],
        ..Faults::default()
    });
    assert!(delete(&engine, 2).is_err(), "it would come back");
    assert!(engine.upkeep().is_ok(), "it is not tried for ever");
    disk.set_faults(Faults::default());
    assert_eq!(delete(&engine, 2), Ok(()));
}

#[test]
fn numbers_of_volumes_are_used_once() {
    let disk = SimDisk::new(1);
    let newest = |engine: &Engine| {
        let state = engine.state.read();
        state.groups[&sample::GROUP].volumes.keys().last().copied()
    };
    let mut last = 0;
    for round in 0..5 {
        let engine = open(&disk);
        put(&engine, round);
        let number = newest(&engine).unwrap();
        assert!(number > last, "{number} was used before");
        last = number;
        // Everything goes, the volume too; then the power.
        seal(&engine);
        delete(&engine, round).unwrap();
        let choice = engine.worst().expect("nothing in it lives");
        assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
        assert_eq!(newest(&engine), None);
        drop(engine);
        disk.power_loss(round as u64);
    }
    // Nor where the log that would tell is gone.
    lose_log(&disk);
    let engine = open(&disk);
    put(&engine, 50);
    assert!(newest(&engine).unwrap() > last);
}

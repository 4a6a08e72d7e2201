//! Reads beside what others do, at each place where they could come between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shardgate_wire::StoreError;
use shardgate_wire::conformance::sample;

use super::Op;
use super::damage_tests::figures;
use super::engine::{Engine, VolumeFigures};
use super::opening::Opening;
use super::place::{What, volume_file};
use crate::condition::Condition;
use crate::directories::DirectoryMemory;
use crate::io::sim::{Faults, SimDisk, with_pauses};

/// Opens a disk of which nothing is kept, neither pages nor open files.
fn open(disk: &SimDisk) -> Arc<Engine> {
    let opened = Engine::open(Opening {
        io: disk.io(),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: VolumeFigures {
            volume_bytes: 1 << 20,
            open_files: 0,
            ..figures()
        },
        progress: Arc::default(),
        directories: Arc::new(DirectoryMemory::new(0)),
        random: Box::new(|| 0x5a17),
    });
    Arc::new(opened.unwrap())
}

fn put(engine: &Engine, blob: u128, len: usize) {
    let shard = sample::small(&sample::context(1), blob, len);
    assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
}

fn delete(engine: &Engine, blob: u128) {
    assert_eq!(engine.commit(&[Op::Delete(sample::key(blob))]), [Ok(())]);
}

fn seal(engine: &Engine) {
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
}

fn read(engine: &Engine, blob: u128, len: usize) -> Result<bool, StoreError> {
    let read = engine.read(sample::key(blob), 0, len as u32)?;
    Ok(read.is_some_and(|read| read.bytes == sample::bytes(blob, len)))
}

#[test]
fn a_read_beside_a_delete_is_not_damage() {
    const LEN: usize = 9000;
    let mut gone = 0;
    for sealed in [false, true] {
        for stop in 1..8 {
            let disk = SimDisk::new(1);
            let engine = open(&disk);
            put(&engine, 1, LEN);
            if sealed {
                seal(&engine);
            }
            let (calls, deletes) = (AtomicU64::new(0), Arc::clone(&engine));
            // What it does itself counts as well, so that it comes once.
            let between = move || {
                if calls.fetch_add(1, Ordering::Relaxed) + 1 == stop {
                    delete(&deletes, 1);
                    deletes.punch_all().unwrap();
                }
            };
            let read = with_pauses(Arc::new(between), || read(&engine, 1, LEN));
            assert!(read.is_ok(), "stop {stop}, sealed {sealed}: {read:?}");
            gone += u32::from(read == Ok(false));
        }
    }
    assert!(gone >= 2, "{gone}");
}

#[test]
fn a_shard_is_said_to_be_there_only_if_it_is() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..10).for_each(|blob| put(&engine, blob, 100));
    delete(&engine, 5);
    seal(&engine);
    let directory = volume_file(sample::GROUP, 1, What::Directory);
    disk.flip_bit(&directory, 4096 + 40, 1);
    // Nobody can tell while there is no room for another.
    disk.set_faults(Faults {
        capacity: Some(0),
        ..Faults::default()
    });
    for blob in [4, 5] {
        let held = engine.holds(sample::key(blob));
        assert!(held.is_err(), "{blob}: {held:?}");
    }
    disk.set_faults(Faults::default());
    assert_eq!(engine.holds(sample::key(5)), Ok(false), "it was deleted");
    assert_eq!(engine.holds(sample::key(4)), Ok(true));
    assert_eq!(read(&engine, 4, 100), Ok(true), "the directory is whole");
}

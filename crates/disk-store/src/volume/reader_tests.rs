//! Reads beside what others do, at each place where they could come between.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use shardgate_wire::StoreError;
use shardgate_wire::conformance::sample;

use super::damage_tests::figures;
use super::engine::{Engine, VolumeFigures};
use super::files::{Files, Order};
use super::format::Entry;
use super::logbook::read_heading;
use super::making::make_folder;
use super::opening::Opening;
use super::place::{VOLUMES, What, group_folder, volume_file};
use super::scan::scan;
use super::source::{BadSectors, Source};
use super::{Choice, Op};
use crate::checking::Report;
use crate::condition::Condition;
use crate::directories::DirectoryMemory;
use crate::io::OpenHow;
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

/// Another directory has the same volume's keys on other pages, and each page
/// verifies.
#[test]
fn no_page_is_read_by_the_head_of_another_directory() {
    const COUNT: u128 = 600;
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..COUNT).for_each(|blob| put(&engine, blob, 100));
    seal(&engine);
    (1..131).for_each(|blob| delete(&engine, blob));
    let directory = volume_file(sample::GROUP, 1, What::Directory);
    disk.flip_bit(&directory, 4096 + 40, 1);
    assert!(read(&engine, 0, 100).is_err());
    let (inside, looks) = (AtomicBool::new(false), Arc::new(AtomicU64::new(0)));
    let (reads, looked) = (Arc::clone(&engine), Arc::clone(&looks));
    let between = move || {
        if inside.swap(true, Ordering::Relaxed) {
            return; // by what is read here
        }
        looked.fetch_add(1, Ordering::Relaxed);
        for blob in [200, 260, 300, 390, 420, 599] {
            let read = read(&reads, blob, 100);
            assert_eq!(read, Ok(true), "{blob}");
        }
        inside.store(false, Ordering::Relaxed);
    };
    with_pauses(Arc::new(between), || engine.upkeep()).unwrap();
    assert!(looks.load(Ordering::Relaxed) > 5);
    for blob in (0..1).chain(131..COUNT) {
        assert_eq!(read(&engine, blob, 100), Ok(true), "{blob}");
    }
    assert_eq!(read(&engine, 77, 100), Ok(false));
}

/// A file that was opened before it was replaced is not kept.
#[test]
fn a_file_that_was_replaced_is_not_kept_open() {
    let disk = SimDisk::new(1);
    let files = Files::new(4, Arc::default());
    let path = volume_file(sample::GROUP, 1, What::Directory);
    let io = disk.io();
    make_folder(&*io, Path::new(VOLUMES)).unwrap();
    make_folder(&*io, &group_folder(sample::GROUP)).unwrap();
    io.open(&path, OpenHow::CreateNew).unwrap();
    let files = Arc::new(files);
    let open = |files: &Files| {
        let file = (1, What::Directory, Order::Scattered);
        files.open(&*io, sample::GROUP, file).unwrap()
    };
    let forgets = Arc::clone(&files);
    let first = with_pauses(Arc::new(move || forgets.forget(1)), || open(&files));
    let second = open(&files);
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &open(&files)));
}

/// The space of a deleted shard was given back: its record does not verify,
/// and is no damage.
#[test]
fn a_volume_whose_directory_was_made_anew_is_compacted() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..4).for_each(|blob| put(&engine, blob, 9000));
    seal(&engine);
    (1..4).for_each(|blob| delete(&engine, blob));
    engine.punch_all().unwrap();
    let directory = volume_file(sample::GROUP, 1, What::Directory);
    disk.flip_bit(&directory, 4096 + 40, 1);
    assert!(read(&engine, 0, 9000).is_err());
    assert_eq!(engine.upkeep(), Ok(true));
    assert_eq!(read(&engine, 0, 9000), Ok(true));
    let choice = engine.worst().expect("most of it is waste");
    assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
    assert_eq!(read(&engine, 0, 9000), Ok(true));
    assert_eq!(read(&engine, 1, 9000), Ok(false));
}

/// Of two records of a shard the last one in the volume is dead.
#[test]
fn a_deleted_record_takes_no_live_one_s_place() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..3).for_each(|blob| put(&engine, blob, 1000));
    delete(&engine, 1);
    put(&engine, 1, 1000);
    seal(&engine);
    // As where a repeat was deleted by its place: the first one counts.
    {
        let mut state = engine.state.write();
        let of = state.groups.get_mut(&sample::GROUP).unwrap();
        let volume = of.volumes.get_mut(&1).unwrap();
        let first = std::mem::take(&mut volume.dead)[0];
        let scanned = volume_entries(&engine);
        let last = scanned.iter().rfind(|entry| entry.blob.0 == 1);
        let last = *last.unwrap();
        assert!(last.at > first);
        volume.bury_entry(&last);
    }
    let directory = volume_file(sample::GROUP, 1, What::Directory);
    disk.flip_bit(&directory, 4096 + 40, 1);
    assert!(read(&engine, 0, 1000).is_err());
    assert_eq!(engine.upkeep(), Ok(true));
    (0..3).for_each(|blob| assert_eq!(read(&engine, blob, 1000), Ok(true), "{blob}"));
}

fn volume_entries(engine: &Engine) -> Vec<Entry> {
    let path = volume_file(sample::GROUP, 1, What::Volume);
    let file = engine.io.open(&path, OpenHow::Read).unwrap();
    let mut source = Source::new(&*file, BadSectors::Refuse).unwrap();
    let heading = read_heading(&mut source).unwrap().unwrap();
    scan(&*file, &heading, BadSectors::Refuse).unwrap().entries
}

#[test]
fn no_volume_is_read_behind_the_one_that_has_the_shard() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    // Each spans the keys of the others.
    for volume in 0..4 {
        (0..10).for_each(|at| put(&engine, 4 * at + volume, 100));
        seal(&engine);
    }
    let reads = |look: &dyn Fn() -> usize, wanted: usize| {
        let before = disk.counters().reads;
        assert_eq!(look(), wanted);
        disk.counters().reads - before
    };
    let key = |blob| sample::key(blob);
    let any = |blob| usize::from(engine.locate(key(blob)).unwrap().is_some());
    assert_eq!(reads(&|| any(4 * 5 + 3), 1), 1, "the newest has it");
    assert_eq!(reads(&|| engine.locate_all(key(19)).unwrap().len(), 1), 4);
    // A dead record is not enough.
    delete(&engine, 4 * 4 + 3);
    assert_eq!(any(4 * 4 + 3), 0);
}

#[test]
fn a_check_passes_over_nothing_that_is_compacted_in_between() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    for volume in 0..3 {
        (0..10).for_each(|at| put(&engine, 10 * volume + at, 100));
        seal(&engine);
    }
    put(&engine, 30, 100);
    let (mut report, mut after, mut seen) = (Report::default(), None, Vec::new());
    while let Some(place) = engine.check_next(&mut report, after, false).unwrap() {
        seen.push(place.1);
        after = Some(place);
        if place.1 == 1 {
            // And the open one is sealed.
            seal(&engine);
            let choice = Choice {
                group: sample::GROUP,
                volumes: vec![1, 2, 3],
                bytes: 0,
            };
            assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
        }
    }
    let check = report.into_page(None);
    assert_eq!(seen, [1, 4, 5]);
    assert_eq!(check.findings, []);
    assert_eq!(check.shards, 10 + 1 + 30, "the first ten twice");
}

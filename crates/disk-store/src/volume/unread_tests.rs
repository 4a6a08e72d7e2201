//! A disk that does not give what was written, or refuses a sync, while it is
//! opened: it opens, fenced for writes; what verifies is served, the rest is
//! corrupt.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use shardgate_wire::StoreError;
use shardgate_wire::conformance::sample;

use super::damage_tests::{figures, read};
use super::engine::Engine;
use super::opening::Opening;
use super::place::{LOG, VOLUMES, What, group_folder, volume_file};
use super::{Op, WindowCursor};
use crate::condition::Condition;
use crate::io::sim::{Faults, SimDisk};

const COUNT: u128 = 6;
const DELETED: u128 = 5;

/// Opens a disk, with another salt at each time.
pub(super) fn open(disk: &SimDisk) -> Engine {
    let opened = Engine::open(Opening {
        io: disk.io(),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: figures(),
        directories: std::sync::Arc::default(),
        progress: std::sync::Arc::default(),
        random: Box::new(|| shardgate_wire::ids::random_u128() as u64),
    });
    opened.expect("it opens")
}

fn put(engine: &Engine, blob: u128) -> Result<(), StoreError> {
    let shard = sample::small(&sample::context(1), blob, 1000);
    engine.commit(&[Op::Put(&shard)]).remove(0)
}

fn volume() -> PathBuf {
    volume_file(sample::GROUP, 1, What::Volume)
}

/// A disk that was not closed: one open volume, and a delete in the log.
fn filled() -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..COUNT).for_each(|blob| put(&engine, blob).unwrap());
    let deleted = engine.commit(&[Op::Delete(sample::key(DELETED))]);
    assert_eq!(deleted, [Ok(())]);
    let place = |blob| {
        let located = engine.locate(sample::key(blob)).unwrap();
        located.unwrap().entry.offset()
    };
    let places = (0..DELETED).map(place).collect();
    drop(engine);
    disk.restart();
    (disk, places)
}

fn is_corrupt<T>(read: &Result<T, StoreError>) -> bool {
    matches!(read, Err(StoreError::Corrupt { .. }))
}

fn is_fenced(engine: &Engine, because: &str) {
    let why = engine.condition.fenced().expect("it is fenced");
    assert!(why.contains(because), "{why}");
    assert!(matches!(put(engine, 90), Err(StoreError::Fenced { .. })));
    assert_eq!(engine.upkeep(), Ok(false));
    assert_eq!(engine.close(true), Ok(()));
}

/// Once its sectors are good again, the disk is as it was.
fn recovers(disk: &SimDisk) {
    disk.set_faults(Faults::default());
    disk.restart();
    let engine = open(disk);
    for blob in 0..DELETED {
        assert_eq!(read(&engine, blob), Ok(true), "{blob}");
    }
    assert_eq!(read(&engine, DELETED), Ok(false));
    assert_eq!(engine.check(false).unwrap().findings, []);
}

fn bad(path: &Path, from: u64, to: u64) -> Faults {
    Faults {
        bad: vec![(path.to_owned(), from, to)],
        ..Faults::default()
    }
}

#[test]
fn bad_sectors_of_an_open_volume_fence_the_disk_and_hide_nothing_else() {
    let (disk, places) = filled();
    // Each shard of itself, and the end, behind which nothing proves anything.
    for (blob, at) in places.iter().enumerate() {
        let page = at / 4096 * 4096;
        disk.set_faults(bad(&volume(), page, page + 4096));
        let engine = open(&disk);
        is_fenced(&engine, "could not be read");
        for (other, at) in places.iter().enumerate() {
            let touched = at / 4096 * 4096 <= page && page < at + 1400;
            let read = read(&engine, other as u128);
            let fits = read == Ok(true) || touched && is_corrupt(&read);
            assert!(fits, "{other} with {blob} bad: {read:?}");
        }
        let seen = read(&engine, blob as u128);
        assert!(is_corrupt(&seen), "{blob} is bad: {seen:?}");
        let absent = read(&engine, 91);
        assert!(is_corrupt(&absent) || absent == Ok(false), "{absent:?}");
        let group = sample::GROUP;
        let window = engine.window(
            WindowCursor {
                group,
                ..WindowCursor::default()
            },
            1 << 20,
        );
        let window = window.unwrap();
        assert!(window.unknown || window.records.iter().any(|record| record.shard.is_err()));
        drop(engine);
        disk.restart();
    }
    recovers(&disk);
}

#[test]
fn a_volume_that_gives_nothing_makes_its_group_corrupt() {
    let (disk, _) = filled();
    for range in [(0, 8192), (0, 1 << 20)] {
        disk.set_faults(bad(&volume(), range.0, range.1));
        let engine = open(&disk);
        is_fenced(&engine, "could not be read");
        for blob in 0..COUNT {
            assert!(is_corrupt(&read(&engine, blob)));
        }
        drop(engine);
        disk.restart();
    }
    recovers(&disk);
}

#[test]
fn folders_that_cannot_be_listed_make_their_groups_corrupt() {
    let (disk, _) = filled();
    for folder in [group_folder(sample::GROUP), VOLUMES.into()] {
        disk.set_faults(Faults {
            unreadable: vec![folder],
            ..Faults::default()
        });
        let engine = open(&disk);
        is_fenced(&engine, "could not be read");
        for blob in 0..COUNT {
            assert!(is_corrupt(&read(&engine, blob)));
        }
        drop(engine);
        disk.restart();
    }
    recovers(&disk);
}

#[test]
fn bad_sectors_of_the_log_are_said_and_hide_no_shard() {
    let (disk, _) = filled();
    let mut files = disk.files().into_iter().map(|(path, _)| path);
    let log = files.rfind(|path| path.starts_with(LOG)).unwrap();
    for (from, to) in [(0, 4096), (0, 8192), (8192, 12288), (0, 1 << 20)] {
        disk.set_faults(bad(&log, from, to));
        let engine = open(&disk);
        is_fenced(&engine, "could not be read");
        for blob in 0..DELETED {
            assert_eq!(read(&engine, blob), Ok(true), "{blob}");
        }
        let deleted = read(&engine, DELETED) == Ok(false);
        assert!(deleted || engine.state.read().incomplete, "{from} to {to}");
        drop(engine);
        disk.restart();
    }
    disk.set_faults(Faults {
        unreadable: vec![LOG.into()],
        ..Faults::default()
    });
    let engine = open(&disk);
    is_fenced(&engine, "could not be read");
    assert!(engine.state.read().incomplete);
    drop(engine);
    recovers(&disk);
}

#[test]
fn a_sync_that_fails_while_it_opens_fences_the_disk() {
    let mut fenced = 0;
    for sync in 1..12 {
        let (disk, _) = filled();
        disk.set_faults(Faults {
            fail_sync: Some(sync),
            ..Faults::default()
        });
        let engine = open(&disk);
        for blob in 0..DELETED {
            assert_eq!(read(&engine, blob), Ok(true), "{blob}, sync {sync}");
        }
        assert_eq!(read(&engine, DELETED), Ok(false), "sync {sync}");
        if engine.condition.fenced().is_some() {
            is_fenced(&engine, "Input/output error");
            fenced += 1;
        }
        drop(engine);
        recovers(&disk);
    }
    assert!(fenced >= 4, "{fenced}");
}

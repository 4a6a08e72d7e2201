//! A log that is cut, damaged or gone is never silently a shorter one: what it
//! said still holds, or the disk says that deletes may be missing, for as long
//! as nobody has accepted it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{BlobId, CommitNumber};

use super::Op;
use super::damage_tests::{figures, read};
use super::engine::{Engine, Note, VolumeFigures};
use super::opening::Opening;
use super::place::{LOG, What, volume_file};
use super::volume_state::Stage;
use crate::condition::Condition;
use crate::io::sim::SimDisk;

const SECTOR: u64 = 512;
const COUNT: u128 = 8;

fn open(disk: &SimDisk) -> Engine {
    let salts = AtomicU64::new(shardgate_wire::ids::random_u128() as u64);
    let opened = Engine::open(Opening {
        io: disk.io(),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: figures(),
        directories: std::sync::Arc::default(),
        progress: std::sync::Arc::default(),
        random: Box::new(move || salts.fetch_add(1, Ordering::Relaxed)),
    });
    opened.expect("it opens")
}

fn log_files(disk: &SimDisk) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.starts_with(LOG)).collect()
}

fn log_file(disk: &SimDisk) -> PathBuf {
    let files = log_files(disk);
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// Where the last byte of a file is that is not zero.
fn used(disk: &SimDisk, path: &Path) -> u64 {
    let bytes = disk.bytes(path).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64
}

/// Blobs below this were deleted, each by a batch of its own.
const DELETED: u128 = 4;

fn delete(engine: &Engine, blob: u128) {
    let deleted = engine.commit(&[Op::Delete(sample::key(blob))]).remove(0);
    assert_eq!(deleted, Ok(()));
}

/// A disk that was not closed, with a few deletes in its log.
fn filled() -> SimDisk {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    for blob in 0..COUNT {
        let shard = sample::small(&sample::context(1), blob, 1000);
        assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
    }
    engine.roll(sample::GROUP);
    assert_eq!(engine.upkeep(), Ok(true));
    (0..DELETED).for_each(|blob| delete(&engine, blob));
    drop(engine);
    disk.restart();
    disk
}

/// What opening makes of the log: whether it holds, or says that it does not.
fn holds(engine: &Engine, what: &str) -> bool {
    let all = (0..DELETED).all(|blob| read(engine, blob) == Ok(false));
    for blob in DELETED..COUNT {
        assert_eq!(read(engine, blob), Ok(true), "{what}: {blob} was stored");
    }
    let said = engine.state.read().incomplete;
    assert!(all || said, "{what}: deletes came back, and nobody says so");
    all
}

/// It is said again by every start until somebody accepts it.
fn is_said_until_accepted(disk: &SimDisk) {
    for _ in 0..2 {
        let engine = open(disk);
        assert!(engine.state.read().incomplete);
        assert_eq!(engine.condition.errors(), 1);
        let check = engine.check(false).unwrap();
        assert_eq!(check.findings.len(), 1, "{check:?}");
        assert_eq!(check.findings[0].place, "log");
        engine.close(true).unwrap();
        disk.restart();
    }
    let engine = open(disk);
    let check = engine.check(true).unwrap();
    assert!(check.findings[0].repaired, "{check:?}");
    assert_eq!(engine.check(false).unwrap().findings, []);
    engine.close(true).unwrap();
    disk.restart();
    assert!(!open(disk).state.read().incomplete);
}

#[test]
fn a_log_that_is_gone_is_said_to_be() {
    let disk = filled();
    disk.io().remove(&log_file(&disk)).unwrap();
    is_said_until_accepted(&disk);
}

#[test]
fn a_log_without_a_heading_is_said_to_be() {
    let disk = filled();
    let log = log_file(&disk);
    disk.flip_bit(&log, 30, 1);
    assert!(holds(&open(&disk), "one copy is damaged"));
    let disk = filled();
    let log = log_file(&disk);
    for copy in [0, 4096] {
        disk.flip_bit(&log, copy + 30, 1);
    }
    is_said_until_accepted(&disk);
}

#[test]
fn a_log_of_notes_alone_is_missed_as_well() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let note = Note {
        commit: CommitNumber(1),
        deleted: true,
        payload: vec![1; 10],
    };
    let kept = engine.keep_note(sample::GROUP, BlobId(1), Some(note));
    assert_eq!(kept, Ok(()));
    drop(engine);
    disk.restart();
    for copy in [0, 4096] {
        disk.flip_bit(&log_file(&disk), copy + 30, 1);
    }
    assert!(open(&disk).state.read().incomplete);
}

#[test]
fn a_cut_log_is_said_to_be() {
    let whole = filled();
    let log = log_file(&whole);
    let len = whole.bytes(&log).unwrap().len() as u64;
    let end = used(&whole, &log) + 1;
    for cut in (0..end).step_by(100).chain([end, len / 2, len - 1]) {
        let disk = filled();
        disk.cut(&log_file(&disk), cut);
        let engine = open(&disk);
        holds(&engine, &format!("cut to {cut}"));
        assert!(engine.state.read().incomplete, "cut to {cut}");
    }
}

#[test]
fn a_log_that_grew_and_was_cut_where_it_grew_is_said_to_be() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let log = log_file(&disk);
    let first = disk.bytes(&log).unwrap().len() as u64;
    for number in 1.. {
        let note = Note {
            commit: CommitNumber(number),
            deleted: true,
            payload: vec![7; 60_000],
        };
        let kept = engine.keep_note(sample::GROUP, BlobId(number.into()), Some(note));
        assert_eq!(kept, Ok(()));
        if used(&disk, &log) > first + 100_000 {
            break;
        }
    }
    assert_eq!(log_file(&disk), log, "the log was not begun anew");
    let notes = engine.notes(None, 1000).len();
    drop(engine);
    disk.restart();
    let sound = SimDisk::clone(&disk);
    disk.cut(&log, first);
    let engine = open(&sound);
    assert!(engine.notes(None, 1000).len() < notes);
    assert!(engine.state.read().incomplete);
}

#[test]
fn every_flip_of_the_log_is_said_or_does_no_harm() {
    let end = {
        let disk = filled();
        used(&disk, &log_file(&disk)) + 1
    };
    let mut said = 0;
    for at in (8192..end).step_by(3) {
        let disk = filled();
        let log = log_file(&disk);
        let zero = disk.bytes(&log).unwrap()[at as usize] == 0;
        disk.flip_bit(&log, at, (at % 8) as u8);
        let engine = open(&disk);
        let what = format!("flipped at {at}");
        holds(&engine, &what);
        // The bytes behind a batch, up to the next sector, are nobody's.
        let incomplete = engine.state.read().incomplete;
        assert!(incomplete || zero, "{what} is not said");
        said += u32::from(incomplete);
    }
    assert!(said > 50, "{said}");
}

#[test]
fn a_torn_batch_was_never_answered() {
    let disk = filled();
    let engine = open(&disk);
    let log = log_file(&disk);
    let from = (used(&disk, &log) / SECTOR + 1) * SECTOR;
    let note = Note {
        commit: CommitNumber(9),
        deleted: true,
        payload: vec![7; 2000],
    };
    let kept = engine.keep_note(sample::GROUP, BlobId(77), Some(note));
    assert_eq!(kept, Ok(()));
    drop(engine);
    disk.restart();
    for sector in 0..5 {
        let bytes = disk.bytes(&log).unwrap();
        let (start, len) = ((from + sector * SECTOR) as usize, SECTOR as usize);
        let kept = bytes[start..start + len].to_vec();
        disk.lose_sector(&log, from + sector * SECTOR);
        // Read alone: opening begins the log anew.
        let loaded = super::logbook::load(&*disk.io(), &sample::identity(), true).unwrap();
        assert!(loaded.begun && !loaded.lost, "sector {sector}");
        assert_eq!(loaded.findings, [""; 0], "sector {sector}");
        let file = disk.io().open(&log, crate::io::OpenHow::ReadWrite).unwrap();
        let write = [std::io::IoSlice::new(&kept)];
        file.write_at(&write, from + sector * SECTOR).unwrap();
        file.sync_all().unwrap();
    }
    assert!(open(&disk).note(sample::GROUP, BlobId(77)).is_some());
}

#[test]
fn a_stop_that_was_not_in_order_is_not_taken_for_one() {
    let disk = SimDisk::new(1);
    let stage = |engine: &Engine| {
        let state = engine.state.read();
        let of = &state.groups[&sample::GROUP];
        (of.volumes[&1].stage, of.open)
    };
    let put = |engine: &Engine, blob: u128| {
        let shard = sample::small(&sample::context(1), blob, 1000);
        assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
    };
    let engine = open(&disk);
    put(&engine, 1);
    engine.close_as_it_is().unwrap();
    disk.restart();
    let engine = open(&disk);
    assert_eq!(stage(&engine), (Stage::Open, Some(1)), "it was in order");
    // Nothing is written to the volume, whose end still says that it was
    // closed; the log alone tells.
    drop(engine);
    disk.restart();
    let engine = open(&disk);
    assert_eq!(stage(&engine), (Stage::Closed, None), "it was not");
    put(&engine, 2);
    drop(engine);
    disk.power_loss(3);
    let engine = open(&disk);
    for blob in [1, 2] {
        assert_eq!(read(&engine, blob), Ok(true));
    }
    assert_eq!(engine.check(false).unwrap().findings, []);
}

#[test]
fn a_volume_that_was_written_after_it_was_closed_needs_its_own_end() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let shard = sample::small(&sample::context(1), 1, 1000);
    assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
    engine.close_as_it_is().unwrap();
    disk.restart();
    // The end is lost: what followed it may be, too.
    let volume = volume_file(sample::GROUP, 1, What::Volume);
    let last = used(&disk, &volume) / SECTOR * SECTOR;
    disk.lose_sector(&volume, last);
    let engine = open(&disk);
    assert_eq!(read(&engine, 1), Ok(true));
    assert!(read(&engine, 2).is_err(), "nobody knows that it is absent");
}

/// A long log of many batches is read about once.
#[test]
fn opening_reads_the_log_about_once() {
    let disk = SimDisk::new(1);
    let open_with = || {
        Engine::open(Opening {
            io: disk.io(),
            index: None,
            identity: sample::identity(),
            condition: Arc::new(Condition::good(sample::identity().disk)),
            figures: VolumeFigures {
                log_bytes: 64 << 20,
                ..figures()
            },
            progress: Arc::default(),
            directories: Arc::default(),
            random: Box::new(|| 0x5a17),
        })
        .unwrap()
    };
    let engine = open_with();
    let note = Note {
        commit: CommitNumber(1),
        deleted: false,
        payload: vec![7; 50_000],
    };
    for blob in 0..160 {
        let op = Op::Note(sample::GROUP, BlobId(blob), &note);
        assert_eq!(engine.commit(&[op]), [Ok(())]);
    }
    drop(engine);
    disk.restart();
    let before = disk.counters().read_bytes;
    let engine = open_with();
    assert_eq!(engine.notes_len(), 160);
    let read = disk.counters().read_bytes - before;
    assert!(read < 3 * 160 * 50_000, "{read} bytes");
}

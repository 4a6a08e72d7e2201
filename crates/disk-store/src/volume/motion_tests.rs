//! What the volumes cost a disk with a moving head, in seeks and flushes, by
//! the model of one ([`RotatingDisk`]); beside a file per record.
//!
//! `cargo test -p shardgate-disk-store --lib motion -- --nocapture` prints the
//! table. Everything is counted, nothing timed, so the figures are exact.

use std::fmt::Write as _;
use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shardgate_wire::Medium;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::GroupId;
use shardgate_wire::store::{ShardEnd, SmallShard};

use super::engine::{Engine, VolumeFigures};
use super::opening::Opening;
use super::{Choice, HeldRecords, Op, OwnExtent, WindowCursor};
use crate::aligned::AlignedBuffer;
use crate::condition::Condition;
use crate::directories::DirectoryMemory;
use crate::io::rotating::{Motion, RotatingDisk};
use crate::io::sim::SimDisk;
use crate::io::{DiskIo, OpenHow};
use crate::medium::MediumFigures;

const RECORD: usize = 4096;
/// Records that are stored before anything is read.
const RECORDS: u64 = 8192;
const GB: f64 = 1e9;

/// A rotating disk's figures, but for volumes that a test can fill: their
/// making and sealing weigh sixteen times as much as they do on a disk.
fn figures() -> VolumeFigures {
    VolumeFigures {
        volume_bytes: 16 << 20,
        zero_step: 1 << 20,
        ..MediumFigures::of(Medium::Rotating).volumes
    }
}

/// As if there were thousands of volumes: nothing is open or kept.
fn cold() -> VolumeFigures {
    VolumeFigures {
        open_files: 1,
        ..figures()
    }
}

fn open(disk: &RotatingDisk, figures: VolumeFigures) -> Engine {
    open_with(disk, figures, Arc::default(), None)
}

fn open_with(
    disk: &RotatingDisk,
    figures: VolumeFigures,
    directories: Arc<DirectoryMemory>,
    index: Option<Arc<dyn DiskIo>>,
) -> Engine {
    let salts = AtomicU64::new(1);
    let opened = Engine::open(Opening {
        io: disk.io(),
        index,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures,
        progress: Arc::default(),
        directories,
        random: Box::new(move || salts.fetch_add(1, Ordering::Relaxed)),
    });
    let engine = opened.unwrap();
    engine.may_take_ahead(1 << 30);
    engine
}

fn shards(from: u64, count: u64) -> Vec<SmallShard> {
    let ctx = sample::context(1);
    let shard = |blob: u64| sample::small(&ctx, blob.into(), RECORD);
    (from..from + count).map(shard).collect()
}

fn put(engine: &Engine, shards: &[SmallShard]) {
    let ops: Vec<_> = shards.iter().map(Op::Put).collect();
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
}

fn delete(engine: &Engine, blobs: impl Iterator<Item = u64>) {
    let ops: Vec<_> = blobs.map(|b| Op::Delete(sample::key(b.into()))).collect();
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
}

/// Lines of the table; what was measured, for the assertions.
#[derive(Default)]
struct Table(String);

impl Table {
    fn line(&mut self, what: &str, each: f64, moved: Motion) -> (f64, f64) {
        let seeks = moved.seeks as f64 / each;
        let flushes = moved.flushes as f64 / each;
        let lookups = moved.lookups as f64 / each;
        let ms = moved.time().as_secs_f64() * 1000.0 / each;
        writeln!(
            self.0,
            "{what:<36} {seeks:>10.3} seeks ({lookups:>10.3} lookups) {flushes:>6.3} flushes {ms:>11.1} ms"
        )
        .unwrap();
        (seeks, flushes)
    }
}

fn moved(disk: &RotatingDisk, run: impl FnOnce()) -> Motion {
    let before = disk.motion();
    run();
    disk.motion() - before
}

/// Blobs in an order that no two neighbours keep.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|n| 1 + (n * 2_654_435_761) % RECORDS)
}

/// Reads all of the group in order of place, as streams do; bytes of the
/// shards.
fn rebuild(engine: &Engine) -> f64 {
    let mut next = Some(WindowCursor::start(sample::GROUP));
    let (mut held, mut bytes) = (HeldRecords::default(), 0);
    while let Some(at) = next {
        let window = engine.window_with(at, 4 << 20, &mut held).unwrap();
        for record in window.records {
            bytes += record.shard.unwrap().bytes.len();
        }
        next = window.next;
    }
    bytes as f64
}

#[test]
fn few_seeks_and_flushes() {
    let mut table = Table::default();
    let disk = RotatingDisk::new(SimDisk::new(1).io());
    let engine = open(&disk, figures());
    // The folder and the first volume are made once.
    put(&engine, &shards(0, 1));
    let all = shards(1, RECORDS);
    let (alone, rest) = all.split_at(128);
    let (by_16, by_64) = rest.split_at(1024);
    let done = moved(&disk, || alone.chunks(1).for_each(|s| put(&engine, s)));
    let (seeks, flushes) = table.line("PUT, alone", 128.0, done);
    assert!(seeks < 1.5 && flushes < 1.1, "{seeks} {flushes}");
    let done = moved(&disk, || by_16.chunks(16).for_each(|s| put(&engine, s)));
    table.line("PUT, 16 at once", 1024.0, done);
    let count = by_64.len() as f64;
    let done = moved(&disk, || by_64.chunks(64).for_each(|s| put(&engine, s)));
    let (seeks, flushes) = table.line("PUT, 64 at once", count, done);
    assert!(seeks < 0.2 && flushes < 0.1, "{seeks} {flushes}");
    engine.close(true).unwrap();
    drop(engine);

    let read = |engine: &Engine| {
        for blob in scattered(256) {
            let read = engine.read(sample::key(blob.into()), 0, RECORD as u32);
            assert_eq!(read.unwrap().unwrap().bytes.len(), RECORD);
        }
    };
    let nothing = || Arc::new(DirectoryMemory::new(0));
    let engine = open_with(&disk, cold(), nothing(), None);
    let done = moved(&disk, || read(&engine));
    let (cold_get, _) = table.line("GET, nothing open or kept", 256.0, done);
    drop(engine);
    let engine = open_with(&disk, figures(), nothing(), None);
    read(&engine);
    let done = moved(&disk, || read(&engine));
    let (without, _) = table.line("GET, no directories kept", 256.0, done);
    drop(engine);
    let faster = SimDisk::new(2);
    let engine = open_with(&disk, figures(), nothing(), Some(faster.io()));
    while engine.copy_directory().unwrap().is_some() {}
    read(&engine);
    let done = moved(&disk, || read(&engine));
    let (with_index, _) = table.line("GET, no directories kept, index_dir", 256.0, done);
    assert!(with_index <= 1.0 && without > 1.9, "{with_index} {without}");
    drop(engine);
    let engine = open(&disk, figures());
    read(&engine);
    let done = moved(&disk, || read(&engine));
    let (seeks, _) = table.line("GET, directories kept", 256.0, done);
    assert!(seeks <= 1.0, "{seeks}");
    // The pages of the record, and no others.
    assert!(done.read_bytes <= 256 * 3 * 4096, "{done:?}");

    extents(&mut table);
    let mut bytes = 0.0;
    let done = moved(&disk, || bytes = rebuild(&engine));
    let (rebuild, _) = table.line("rebuild, per GB", bytes / GB, done);
    // A volume of 16 MiB: its directory and itself, each looked up and read.
    assert!(rebuild < 400.0, "{rebuild}");
    // Runs of up to 1 MiB, and the pages between two of them once more.
    assert!(done.reads as f64 / bytes * 1e6 < 3.0, "{done:?}");

    let done = moved(&disk, || (1..65).for_each(|b| delete(&engine, b..b + 1)));
    let (seeks, flushes) = table.line("delete, alone", 64.0, done);
    assert!(seeks < 5.0 && flushes < 1.1, "{seeks} {flushes}");
    let done = moved(&disk, || {
        (65..1089)
            .step_by(64)
            .for_each(|b| delete(&engine, b..b + 64));
    });
    table.line("delete, 64 at once", 1024.0, done);

    let by_files = file_per_record(&mut table);
    println!("records of {RECORD} bytes\n{}", table.0);
    // Two lookups, a page of the directory, and the record.
    assert!(cold_get <= 4.5, "{cold_get}");
    assert!(rebuild * 10.0 < by_files, "{rebuild} and {by_files}");
}

/// Stores a shard in an extent.
fn stream(engine: &Arc<Engine>, blob: u64, len: usize) {
    let shard = sample::small(&sample::context(1), blob.into(), len);
    let extent = OwnExtent::reserve(engine, &shard.header, len as u64);
    let mut extent = extent.unwrap().expect("it belongs into a volume");
    let buffer = &mut AlignedBuffer::default();
    extent.append(buffer, 0, &shard.bytes).unwrap();
    let end = ShardEnd {
        shard_len: len as u64,
        blob_len: shard.blob_len,
    };
    extent.finish(shard.header, end, shard.crcs).unwrap();
}

/// Middling shards: each is read with its record at once, in the volume that
/// it was streamed into as after compaction.
fn extents(table: &mut Table) {
    const COUNT: u64 = 12;
    const LEN: usize = 1 << 20;
    let disk = RotatingDisk::new(SimDisk::new(1).io());
    let engine = Arc::new(open(&disk, figures()));
    (1..=COUNT).for_each(|blob| stream(&engine, blob, LEN));
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
    // Every other one, from the far end on.
    let read = |engine: &Engine| {
        for blob in (1..=COUNT).rev().step_by(2) {
            let read = engine.read(sample::key(blob.into()), 0, LEN as u32);
            assert_eq!(read.unwrap().unwrap().bytes.len(), LEN);
        }
    };
    read(&engine);
    let done = moved(&disk, || read(&engine));
    let (apart, _) = table.line("GET of 1 MiB, in an extent", 6.0, done);
    let mut bytes = 0.0;
    let streamed = moved(&disk, || bytes = rebuild(&engine));
    table.line("rebuild of 1 MiB each, per GB", bytes / GB, streamed);
    assert!(apart <= 1.0 && done.reads == 6, "{done:?}");
    let choice = Choice {
        group: sample::GROUP,
        volumes: vec![1],
        bytes: 0,
    };
    assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
    read(&engine);
    let done = moved(&disk, || read(&engine));
    let (joined, _) = table.line("GET of 1 MiB, compacted", 6.0, done);
    assert!(joined <= 1.0 && done.reads == 6, "{done:?}");
}

/// Of a shard in an extent, a page of its directory and the record are read,
/// whatever part of it is wanted but one that begins far behind its head.
#[test]
fn a_cold_read_of_an_extent_is_one_seek_beside_its_directory() {
    const BLOCK: u64 = 64 * 1024;
    let disk = RotatingDisk::new(SimDisk::new(1).io());
    let engine = Arc::new(open(&disk, figures()));
    let lens = [100, 5000, 64 * 1024, 300_000, 1 << 20, 3 << 20];
    let of = |blob: u64| lens[blob as usize % lens.len()];
    (0..12).for_each(|blob| stream(&engine, blob, of(blob)));
    engine.close(true).unwrap();
    drop(engine);
    let cold = |blob: u64, offset: u64, len: usize| {
        let nothing = Arc::new(DirectoryMemory::new(0));
        let engine = open_with(&disk, figures(), nothing, None);
        engine.roll(sample::GROUP);
        while engine.upkeep().unwrap() {}
        // Another, so that the files are open and the head is elsewhere.
        let other = (blob + 5) % 12;
        engine.read(sample::key(other.into()), 0, 100).ok();
        let done = moved(&disk, || {
            let read = engine.read(sample::key(blob.into()), offset, len as u32);
            let bytes = sample::bytes(blob.into(), of(blob));
            let wanted = &bytes[offset as usize..offset as usize + len];
            assert!(read.unwrap().unwrap().bytes == wanted);
        });
        (done.seeks, done.reads)
    };
    for blob in 0..12 {
        let all = of(blob).min(1 << 20);
        assert_eq!(cold(blob, 0, all), (2, 2), "{all} bytes");
        if of(blob) as u64 > 3 * BLOCK {
            assert_eq!(cold(blob, 0, BLOCK as usize), (2, 2));
            assert_eq!(cold(blob, BLOCK, BLOCK as usize), (2, 2));
        }
        if of(blob) >= 1 << 20 {
            assert_eq!(cold(blob, 10 * BLOCK, BLOCK as usize), (3, 3));
        }
    }
}

/// Bytes written for each byte stored, in batches of sixteen shards.
fn written_per_byte(large_batch: u64) -> f64 {
    const LEN: usize = 64 * 1024;
    let disk = RotatingDisk::new(SimDisk::new(1).io());
    let figures = VolumeFigures {
        large_batch,
        ..figures()
    };
    let engine = open(&disk, figures);
    let ctx = sample::context(1);
    let shards: Vec<_> = (1..=64).map(|b| sample::small(&ctx, b, LEN)).collect();
    let done = moved(&disk, || shards.chunks(16).for_each(|s| put(&engine, s)));
    for shard in &shards {
        let read = engine.read(shard.header.key, 0, LEN as u32);
        assert_eq!(read.unwrap().unwrap().bytes, shard.bytes);
    }
    done.written_bytes as f64 / (shards.len() * LEN) as f64
}

#[test]
fn large_batches_are_written_once() {
    let (zeroed, once) = (written_per_byte(u64::MAX), written_per_byte(256 * 1024));
    assert!(zeroed > 1.9 && once < 1.1, "{zeroed} and {once}");
}

/// One file per record, created, written and synced with its folder; seeks
/// per GB of reading all of them.
fn file_per_record(table: &mut Table) -> f64 {
    const FILES: u64 = 256;
    let disk = RotatingDisk::new(SimDisk::new(1).io());
    let io = disk.io();
    let name = |n: u64| GroupId(n).to_string();
    let done = moved(&disk, || {
        for n in 0..FILES {
            let file = io.open(Path::new(&name(n)), OpenHow::CreateNew).unwrap();
            file.write_at(&[IoSlice::new(&[1; RECORD])], 0).unwrap();
            file.sync_data().unwrap();
            io.sync_dir(Path::new("")).unwrap();
        }
    });
    let count = FILES as f64;
    table.line("file per record: PUT", count, done);
    let read = || {
        for n in 0..FILES {
            let file = io.open(Path::new(&name(n)), OpenHow::Read).unwrap();
            assert_eq!(file.read_at(&mut [0; RECORD], 0).unwrap(), RECORD);
        }
    };
    let done = moved(&disk, read);
    table.line("file per record: GET", count, done);
    let per_gb = count * RECORD as f64 / GB;
    let (rebuild, _) = table.line("file per record: rebuild, per GB", per_gb, done);
    let done = moved(&disk, || {
        for n in 0..FILES {
            io.remove(Path::new(&name(n))).unwrap();
            io.sync_dir(Path::new("")).unwrap();
        }
    });
    table.line("file per record: delete", count, done);
    rebuild
}

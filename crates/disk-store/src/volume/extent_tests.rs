//! Shards that come in appends lie in extents, with their records, and count
//! by their links alone.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{ShardEnd, SmallShard};
use shardgate_wire::{ShardHeader, StoreError};

use super::Op;
use super::commit::Ending;
use super::damage_tests::open;
use super::engine::Engine;
use super::format::{Body, FIRST_RECORD, NewRecord, decode_head, meta_len, zero_sectors};
use super::locate::Look;
use super::making::Extent;
use super::place::{LOG, What, volume_file};
use crate::io::OpenHow;
use crate::io::sim::SimDisk;

const LEN: usize = 5000;

fn volume() -> PathBuf {
    volume_file(sample::GROUP, 1, What::Volume)
}

fn header(blob: u128) -> ShardHeader {
    sample::header(&sample::context(1), blob)
}

/// Writes the bytes of a shard into an extent of it.
fn begin(engine: &Engine, header: &ShardHeader, announced: u64, bytes: &[u8]) -> Extent {
    let extent = engine.reserve(header, announced).unwrap().unwrap();
    let write = [IoSlice::new(bytes)];
    extent.file.write_at(&write, extent.data_at).unwrap();
    extent
}

fn ending(extent: Extent, header: ShardHeader, bytes: &[u8]) -> Ending {
    let len = bytes.len() as u64;
    Ending {
        extent,
        header,
        end: ShardEnd {
            shard_len: len,
            blob_len: 4 * len,
        },
        crcs: block_crcs(bytes),
        zeroes: zero_sectors(bytes, 0),
    }
}

/// Stores a shard in an extent, answered.
fn stream(engine: &Engine, blob: u128, len: usize) {
    let (header, bytes) = (header(blob), sample::bytes(blob, len));
    let extent = begin(engine, &header, len as u64, &bytes);
    let ending = ending(extent, header, &bytes);
    assert_eq!(engine.commit(&[Op::Finish(&ending)]), [Ok(())]);
}

fn put(engine: &Engine, blob: u128, len: usize) -> Result<(), StoreError> {
    let shard = sample::small(&sample::context(1), blob, len);
    engine.commit(&[Op::Put(&shard)]).remove(0)
}

fn delete(engine: &Engine, blob: u128) {
    let deleted = engine.commit(&[Op::Delete(sample::key(blob))]);
    assert_eq!(deleted, [Ok(())]);
}

/// Whether it is there, whole, with these bytes of it.
fn has(engine: &Engine, blob: u128, len: usize) -> Result<bool, StoreError> {
    let read = engine.read(sample::key(blob), 0, len as u32)?;
    Ok(read.is_some_and(|read| read.bytes == sample::bytes(blob, len)))
}

fn extents_from(engine: &Engine) -> u64 {
    let state = engine.state.read();
    state.groups[&sample::GROUP].volumes[&1].extents_from
}

#[test]
fn what_was_answered_is_there_when_the_power_goes() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let engine = open(&disk);
        (0..3).for_each(|blob| stream(&engine, blob, LEN));
        let from = extents_from(&engine);
        drop(engine);
        disk.power_loss(seed);
        let engine = open(&disk);
        assert_eq!(extents_from(&engine), from, "seed {seed}");
        for blob in 0..3 {
            assert_eq!(has(&engine, blob, LEN), Ok(true), "seed {seed}");
        }
        assert_eq!(engine.check(false).unwrap().findings, [], "seed {seed}");
    }
}

/// Also that of a shard that was given up, whose bytes may be there.
#[test]
fn no_space_is_given_out_twice() {
    let disk = SimDisk::new(1);
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for round in 0..3 {
        let engine = open(&disk);
        let mut extents = Vec::new();
        for blob in [2 * round, 2 * round + 1] {
            let extent = begin(&engine, &header(blob), 3000, &sample::bytes(blob, 3000));
            assert_eq!(extent.sequence, 1);
            taken.push((extent.at, extent.data_at + 4096));
            extents.push(extent);
        }
        // One of them is given up, the one that lies before the other.
        engine.release(&extents[1]);
        let of = ending(
            extents.swap_remove(0),
            header(2 * round),
            &sample::bytes(2 * round, 3000),
        );
        assert_eq!(engine.commit(&[Op::Finish(&of)]), [Ok(())]);
        for earlier in (0..=round).map(|round| 2 * round) {
            assert_eq!(has(&engine, earlier, 3000), Ok(true));
        }
        engine.close_as_it_is().unwrap();
        drop(engine);
        disk.restart();
    }
    taken.sort_unstable();
    assert!(taken.is_sorted_by(|a, b| a.1 <= b.0), "{taken:?}");
}

/// However full the volume is when they begin, and whatever fills it up
/// meanwhile, there is a place for the link of each that is out.
#[test]
fn links_never_run_into_extents() {
    for pad in 0..24 {
        let disk = SimDisk::new(pad);
        let engine = open(&disk);
        assert_eq!(put(&engine, 100, 64 * pad as usize), Ok(()));
        let mut extents = Vec::new();
        for blob in 0..6 {
            let bytes = sample::bytes(blob, 3000);
            let extent = begin(&engine, &header(blob), 3000, &bytes);
            assert_eq!(extent.sequence, 1);
            extents.push((extent, blob, bytes));
        }
        // What they leave goes to others.
        for blob in 200..260 {
            assert_eq!(put(&engine, blob, 30), Ok(()));
        }
        for (extent, blob, bytes) in extents {
            let of = ending(extent, header(blob), &bytes);
            assert_eq!(engine.commit(&[Op::Finish(&of)]), [Ok(())]);
        }
        while engine.upkeep().unwrap() {}
        for volume in engine.state.read().groups[&sample::GROUP].volumes.values() {
            assert!(volume.tail <= volume.extents_from, "pad {pad}");
        }
        for blob in 0..6 {
            assert_eq!(has(&engine, blob, 3000), Ok(true), "pad {pad}");
        }
        assert_eq!(engine.check(false).unwrap().findings, [], "pad {pad}");
    }
}

/// Then fewer checksums are before its bytes, and its record begins later.
#[test]
fn a_shard_may_be_shorter_than_it_was_announced() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let mut of = header(1);
    let missing = 4096 - meta_len(&of, 0);
    // One checksum more, and the rest of it takes another page.
    of.object.metadata = vec![7; missing as usize];
    let bytes = sample::bytes(1, 0);
    let extent = begin(&engine, &of, 9000, &bytes);
    assert_eq!(extent.data_at - extent.at, 8192);
    let ending = ending(extent, of.clone(), &bytes);
    assert_eq!(engine.commit(&[Op::Finish(&ending)]), [Ok(())]);
    stream(&engine, 2, LEN);
    drop(engine);
    disk.restart();
    let engine = open(&disk);
    let stat = engine.stat(sample::key(1)).unwrap().unwrap();
    assert_eq!((stat.header, stat.end.unwrap().shard_len), (of, 0));
    assert_eq!(has(&engine, 2, LEN), Ok(true));
    assert_eq!(engine.check(false).unwrap().findings, []);
}

#[test]
fn an_end_that_does_not_fit_is_refused() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let bytes = sample::bytes(1, LEN);
    let extent = begin(&engine, &header(1), LEN as u64, &bytes);
    let mut longer = header(1);
    longer.object.metadata = vec![7; 5000];
    let of = ending(extent, longer, &bytes);
    let refused = engine.commit(&[Op::Finish(&of)]).remove(0);
    assert!(
        matches!(refused, Err(StoreError::BadCall { .. })),
        "{refused:?}"
    );
}

/// What lies in an extent without a link was never answered; a search behind
/// damage does not take it for a record.
#[test]
fn a_record_without_a_link_is_nothing() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    stream(&engine, 1, LEN);
    let bytes = sample::bytes(2, LEN);
    let extent = begin(&engine, &header(2), LEN as u64, &bytes);
    let meta_len = meta_len(&header(2), LEN as u64);
    let at = extent.record_at(meta_len).unwrap();
    let of = ending(extent.clone(), header(2), &bytes);
    let salt = engine.state.read().groups[&sample::GROUP].volumes[&1]
        .heading
        .salt;
    let body = Body::Extent {
        at: extent.data_at,
        zeroes: 0,
    };
    let record = NewRecord::shard(salt, at, 8192, &of.header, of.end, &of.crcs, body);
    let write = [IoSlice::new(&record.meta)];
    extent.file.write_at(&write, at).unwrap();
    extent.file.sync_all().unwrap();
    drop(engine);
    disk.restart();
    let engine = open(&disk);
    assert_eq!(has(&engine, 1, LEN), Ok(true));
    assert_eq!(has(&engine, 2, LEN), Ok(false));
    while engine.upkeep().unwrap() {}
    assert_eq!(has(&engine, 2, LEN), Ok(false));
    assert_eq!(engine.check(false).unwrap().findings, []);
}

/// Whether keys that were never there are absent, the shard of the link is
/// read, and all that was stored is there, after a byte of its link is damaged
/// and the disk opened anew.
fn with_damaged_link(byte: u64) -> (Result<bool, StoreError>, Result<bool, StoreError>) {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    put(&engine, 1, 100).unwrap();
    stream(&engine, 2, LEN);
    put(&engine, 3, 100).unwrap();
    let located = engine.locate(sample::key(2)).unwrap().unwrap();
    let bytes = disk.bytes(&volume()).unwrap();
    let of = |at: u64| {
        let head = decode_head(&located.heading, at, &bytes[at as usize..]);
        head.and_then(|head| head.linked())
    };
    let mut places = (FIRST_RECORD..1 << 15).step_by(64);
    let is_its = |at: &u64| of(*at).is_some_and(|linked| linked.at == located.entry.offset());
    let link = places.find(is_its).unwrap();
    let from = extents_from(&engine);
    drop(engine);
    disk.restart();
    disk.flip_bit(&volume(), link + byte, 0);
    let engine = open(&disk);
    let is_known = !engine.may_hide(sample::GROUP);
    assert!(!is_known || extents_from(&engine) == from, "byte {byte}");
    // Sealed, with its directory, and what was taken ahead given back.
    while engine.upkeep().unwrap() {}
    for blob in [1, 3] {
        assert_eq!(has(&engine, blob, 100), Ok(true), "byte {byte}");
    }
    let absent = engine.locate_or_tell(sample::key(9), Look::Sure);
    let check = engine.check(false).unwrap();
    assert!(!check.findings.is_empty(), "byte {byte}");
    (absent.map(|found| found.is_some()), has(&engine, 2, LEN))
}

/// A link of which a byte is damaged says all the same which record it is of;
/// but for its place, and all keys may have been there.
#[test]
fn a_damaged_link_hides_no_other_keys() {
    for byte in 0..72 {
        let (absent, read) = with_damaged_link(byte);
        // The length of the record, and where its bytes begin.
        if (24..28).contains(&byte) || (32..40).contains(&byte) {
            let corrupt = |answer: &Result<_, _>| matches!(answer, Err(StoreError::Corrupt { .. }));
            assert!(corrupt(&absent), "byte {byte}: {absent:?}");
            assert!(corrupt(&read), "byte {byte}: {read:?}");
        } else {
            assert_eq!((absent, read), (Ok(false), Ok(true)), "byte {byte}");
        }
    }
}

/// A link is of one record: another that is whole in its place is damage.
#[test]
fn another_record_in_the_place_of_a_links_is_damage() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    stream(&engine, 1, LEN);
    let located = engine.locate(sample::key(1)).unwrap().unwrap();
    let (at, salt) = (located.entry.offset(), located.heading.salt);
    let bytes = sample::bytes(1, LEN);
    let end = ShardEnd {
        shard_len: LEN as u64,
        blob_len: 3 * LEN as u64,
    };
    let data_at = at + meta_len(&header(1), LEN as u64);
    let body = Body::Extent {
        at: data_at.next_multiple_of(4096),
        zeroes: 0,
    };
    let crcs = block_crcs(&bytes);
    let record = NewRecord::shard(salt, at, 8192, &header(1), end, &crcs, body);
    drop(engine);
    disk.restart();
    let file = disk.io().open(&volume(), OpenHow::ReadWrite).unwrap();
    file.write_at(&[IoSlice::new(&record.meta)], at).unwrap();
    file.sync_all().unwrap();
    let engine = open(&disk);
    while engine.upkeep().unwrap() {}
    let check = engine.check(false).unwrap();
    let shards: Vec<_> = check.findings.iter().map(|found| found.shard).collect();
    assert_eq!(shards, [Some(sample::key(1))], "{check:?}");
}

/// Of several records of a shard the last one that was written counts, not
/// the one that lies last in the volume.
#[test]
fn the_last_of_several_records_counts_wherever_it_lies() {
    for streamed_last in [false, true] {
        let disk = SimDisk::new(1);
        let engine = open(&disk);
        // The first is deleted; then the log with that is lost.
        let (first, last) = if streamed_last {
            (400, LEN)
        } else {
            (LEN, 400)
        };
        for len in [first, last] {
            match len {
                LEN => stream(&engine, 1, LEN),
                len => assert_eq!(put(&engine, 1, len), Ok(())),
            }
            if len == first {
                delete(&engine, 1);
            }
        }
        drop(engine);
        disk.restart();
        for (path, _) in disk.files() {
            if path.starts_with(LOG) {
                disk.io().remove(&path).unwrap();
            }
        }
        disk.io().sync_dir(Path::new(LOG)).unwrap();
        let engine = open(&disk);
        let stat = engine.stat(sample::key(1)).unwrap().unwrap();
        assert_eq!(stat.end.unwrap().shard_len, last as u64);
        // The others went: deleted, it does not come back.
        delete(&engine, 1);
        assert_eq!(engine.stat(sample::key(1)), Ok(None));
    }
}

/// What a deleted one took goes back at once, and its record hides nothing.
#[test]
fn the_space_of_a_deleted_one_is_given_back() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..2).for_each(|blob| stream(&engine, blob, 9000));
    assert_eq!(put(&engine, 2, 300), Ok(()));
    let located = engine.locate(sample::key(1)).unwrap().unwrap();
    let data_at = located.entry.offset() + meta_len(&header(1), 9000);
    let data_at = data_at.next_multiple_of(4096) as usize;
    delete(&engine, 1);
    engine.upkeep().unwrap();
    let bytes = disk.bytes(&volume()).unwrap();
    assert!(bytes[data_at..data_at + 8192].iter().all(|byte| *byte == 0));
    for round in 0..2 {
        drop(open(&disk));
        disk.restart();
        let engine = open(&disk);
        assert_eq!(has(&engine, 0, 9000), Ok(true), "round {round}");
        assert_eq!(has(&engine, 1, 9000), Ok(false), "round {round}");
        assert_eq!(has(&engine, 2, 300), Ok(true), "round {round}");
        while engine.upkeep().unwrap() {}
        assert_eq!(engine.check(false).unwrap().findings, []);
    }
}

/// Windows go through extents in the order in which they lie.
#[test]
fn windows_go_through_extents_in_order_of_place() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    for blob in 0..3 {
        stream(&engine, blob, LEN);
        assert_eq!(put(&engine, 10 + blob, 300), Ok(()));
    }
    let mut next = Some(super::WindowCursor {
        group: sample::GROUP,
        ..super::WindowCursor::default()
    });
    let mut blobs = Vec::new();
    while let Some(from) = next {
        let window = engine.window(from, 1).unwrap();
        for record in window.records {
            let len = record.shard.unwrap().bytes.len();
            assert_eq!(len, if record.key.blob.0 < 10 { LEN } else { 300 });
            blobs.push(record.key.blob.0);
        }
        next = window.next;
    }
    // Extents are taken from the volume's end on.
    assert_eq!(blobs, [10, 11, 12, 2, 1, 0]);
}

/// A batch with many of both kinds, as small shards whose bytes follow.
#[test]
fn one_batch_takes_both_kinds() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let streamed: Vec<_> = (0..3)
        .map(|blob| {
            let (header, bytes) = (header(blob), sample::bytes(blob, LEN));
            ending(begin(&engine, &header, LEN as u64, &bytes), header, &bytes)
        })
        .collect();
    let small: Vec<SmallShard> = (10..13)
        .map(|blob| sample::small(&sample::context(1), blob, 300))
        .collect();
    let ops: Vec<_> = streamed.iter().map(Op::Finish).collect();
    let ops: Vec<_> = ops
        .into_iter()
        .zip(small.iter().map(Op::Put))
        .flat_map(|(a, b)| [a, b])
        .collect();
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
    drop(engine);
    disk.restart();
    let engine = open(&disk);
    for blob in 0..3 {
        assert_eq!(has(&engine, blob, LEN), Ok(true));
        assert_eq!(has(&engine, 10 + blob, 300), Ok(true));
    }
}

/// A directory that is made anew from the records is the one that was lost,
/// to the byte: of volumes that were filled, and of one that compaction made.
#[test]
fn a_directory_made_anew_is_the_same() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    for blob in 0..4 {
        stream(&engine, blob, 3000 + 1000 * blob as usize);
        assert_eq!(put(&engine, 10 + blob, 300), Ok(()));
    }
    let seal = |engine: &Engine| {
        engine.roll(sample::GROUP);
        while engine.upkeep().unwrap() {}
    };
    seal(&engine);
    let choice = super::Choice {
        group: sample::GROUP,
        volumes: vec![1],
        bytes: 0,
    };
    assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
    stream(&engine, 20, LEN);
    assert_eq!(put(&engine, 21, 300), Ok(()));
    seal(&engine);
    engine.close(true).unwrap();
    drop(engine);
    let directories: Vec<_> = disk.files().into_iter().map(|(path, _)| path).collect();
    let directories = directories
        .iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "dir"));
    let mut count = 0;
    for path in directories {
        let before = disk.bytes(path).unwrap();
        disk.restart();
        disk.io().remove(path).unwrap();
        let engine = open(&disk);
        while engine.upkeep().unwrap() {}
        engine.close(true).unwrap();
        assert!(disk.bytes(path) == Some(before), "{path:?}");
        count += 1;
    }
    assert_eq!(count, 2);
}

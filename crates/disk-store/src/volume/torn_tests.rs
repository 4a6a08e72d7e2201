//! What a crash left between whole records is covered, whatever happens
//! meanwhile; and bytes of a shard are where their record says.

use std::io::IoSlice;

use shardgate_wire::StoreError;
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{ShardEnd, SmallShard};

use super::Op;
use super::damage_tests::{open, try_open};
use super::engine::Engine;
use super::format::{
    FIRST_RECORD, HEAD_BYTES, HEADING_COPY, Heading, NewRecord, encode_heading, keyed_sum,
};
use super::making::make_folder;
use super::place::{VOLUMES, What, group_folder, volume_file};
use crate::io::OpenHow;
use crate::io::sim::{Faults, SimDisk};

const SECTOR: u64 = 512;
/// Of the record that is torn: several sectors.
const TORN_LEN: usize = 3000;
const TORN: u128 = 2;
const TORN_TOO: u128 = 4;

fn stored(engine: &Engine, blob: u128, len: usize) -> Result<bool, StoreError> {
    let read = engine.read(sample::key(blob), 0, len as u32)?;
    Ok(read.is_some_and(|read| read.bytes == sample::bytes(blob, len)))
}

/// A batch of three whose second record begins so shortly before the border of
/// a sector that what covers it goes over the border, and lacks just the
/// sector behind that border, as after a crash. With the place of the border.
/// `two`: a later record of the batch is not whole either, and lacks no sector.
fn torn(seed: u64, two: bool) -> (SimDisk, u64) {
    for pad in (0..SECTOR as usize).step_by(64) {
        let disk = SimDisk::new(seed);
        disk.set_old_bytes(false);
        let engine = open(&disk);
        let lens = [
            (1, 300 + pad),
            (TORN, TORN_LEN),
            (3, 700),
            (TORN_TOO, 700),
            (5, 700),
        ];
        let lens = &lens[..if two { 5 } else { 3 }];
        let ctx = sample::context(1);
        let shards = lens.iter();
        let shards: Vec<_> = shards
            .map(|(blob, len)| sample::small(&ctx, *blob, *len))
            .collect();
        let before = sample::small(&ctx, 0, 300);
        assert_eq!(engine.commit(&[Op::Put(&before)]), [Ok(())]);
        let ops: Vec<_> = shards.iter().map(Op::Put).collect();
        assert!(engine.commit(&ops).iter().all(Result::is_ok));
        let located = engine.locate(sample::key(TORN)).unwrap().unwrap();
        let at = located.entry.offset();
        let border = at.next_multiple_of(SECTOR);
        if at % SECTOR == SECTOR - 64 {
            let too = engine.locate(sample::key(TORN_TOO)).unwrap();
            drop(engine);
            disk.restart();
            let path = volume_file(sample::GROUP, 1, What::Volume);
            disk.lose_sector(&path, border);
            if let Some(too) = too {
                disk.flip_bit(&path, too.entry.offset(), 0);
            }
            return (disk, border);
        }
    }
    unreachable!("records begin at every multiple of 64")
}

/// The power goes at each change that opening makes: what was answered before
/// stays, and what never was stays absent. If a part of the mark that covers it
/// lay behind the border before all of it was whole, no sector would be
/// missing, and it would be damage; and so would be a later record, if the mark
/// that covers it came after that of the record by which it is known.
#[test]
fn what_a_crash_left_is_covered_whenever_the_power_goes_again() {
    let mut covered = 0;
    for (seed, two) in (0..6).flat_map(|seed| [(seed, false), (seed, true)]) {
        for at in 1..40 {
            let (disk, _) = torn(seed, two);
            disk.set_faults(Faults {
                power_off: Some(at),
                ..Faults::default()
            });
            drop(try_open(&disk));
            let off = disk.is_off();
            disk.set_faults(Faults::default());
            disk.power_loss(seed * 1000 + at);
            let engine = open(&disk);
            let whole = [(0, 300), (3, 700), (5, 700)];
            for (blob, len) in &whole[..if two { 3 } else { 2 }] {
                let (blob, len) = (*blob, *len);
                let there = stored(&engine, blob, len);
                assert_eq!(
                    there,
                    Ok(true),
                    "blob {blob}, seed {seed}, power off at {at}"
                );
            }
            let there = stored(&engine, TORN, TORN_LEN);
            assert_eq!(there, Ok(false), "seed {seed}, power off at {at}");
            let there = stored(&engine, TORN_TOO, 700);
            assert_eq!(there, Ok(false), "seed {seed}, {two}, power off at {at}");
            while engine.upkeep().unwrap() {}
            assert_eq!(engine.check(false).unwrap().findings, [], "{seed} {at}");
            covered += u32::from(off);
        }
    }
    assert!(covered > 120, "{covered}");
}

/// Bytes may begin up to 4,096 behind their record's head: they are read, and
/// the next record found, where the head says.
#[test]
fn bytes_are_where_the_head_says() {
    const GAP: u64 = 192;
    const LEN: usize = 1000;
    let ctx = sample::context(1);
    let disk = SimDisk::new(1);
    let identity = sample::identity();
    let heading = Heading {
        cluster: identity.cluster,
        disk: identity.disk,
        group: sample::GROUP,
        sequence: 1,
        salt: 77,
        size: 64 * 1024,
    };
    let io = disk.io();
    for folder in [VOLUMES.into(), group_folder(sample::GROUP)] {
        make_folder(&*io, &folder).unwrap();
    }
    let path = volume_file(sample::GROUP, 1, What::Volume);
    let file = io.open(&path, OpenHow::CreateNew).unwrap();
    file.set_len(heading.size).unwrap();
    let write = |bytes: &[u8], at: u64| file.write_at(&[IoSlice::new(bytes)], at).unwrap();
    let bytes = encode_heading(&heading);
    write(&bytes, 0);
    write(&bytes, HEADING_COPY);
    let mut at = FIRST_RECORD;
    for (blob, gap) in [(1, GAP), (2, 0)] {
        let SmallShard { header, bytes, .. } = sample::small(&ctx, blob, LEN);
        let end = ShardEnd {
            shard_len: LEN as u64,
            blob_len: 4 * LEN as u64,
        };
        let crcs = block_crcs(&bytes);
        let record = NewRecord::shard(heading.salt, at, at, &header, end, &crcs, None);
        let mut meta = record.meta;
        let data_at = record.head.data_at + gap;
        meta[32..40].copy_from_slice(&data_at.to_be_bytes());
        for covered in [HEAD_BYTES - 4, meta.len() - 4] {
            let sum = keyed_sum(heading.salt, at, &meta[..covered]);
            meta[covered..covered + 4].copy_from_slice(&sum.to_be_bytes());
        }
        write(&meta, at);
        write(&bytes, data_at);
        at = (data_at + LEN as u64).next_multiple_of(64);
    }
    file.sync_all().unwrap();
    for folder in [std::path::Path::new(""), VOLUMES.as_ref()] {
        io.sync_dir(folder).unwrap();
    }
    io.sync_dir(&group_folder(sample::GROUP)).unwrap();
    let engine = open(&disk);
    let all = |engine: &Engine| {
        for blob in [1, 2] {
            assert_eq!(stored(engine, blob, LEN), Ok(true), "blob {blob}");
        }
    };
    all(&engine);
    // The same by its directory, by a window, and after compaction.
    while engine.upkeep().unwrap() {}
    all(&engine);
    let from = super::WindowCursor {
        group: sample::GROUP,
        ..super::WindowCursor::default()
    };
    let window = engine.window(from, 1 << 20).unwrap();
    assert!(window.records.iter().all(|record| record.shard.is_ok()));
    assert_eq!(window.records.len(), 2);
    let choice = super::Choice {
        group: sample::GROUP,
        volumes: vec![1],
        bytes: 0,
    };
    assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
    all(&engine);
}

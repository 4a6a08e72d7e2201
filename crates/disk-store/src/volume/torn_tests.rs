//! What a crash left of a batch is told from damage, whichever sectors it left
//! out and whenever the power goes again; and bytes of a shard are where their
//! record says.

use std::collections::BTreeSet;
use std::io::IoSlice;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use shardgate_wire::StoreError;
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{ShardEnd, SmallShard};

use super::Op;
use super::commit::Ending;
use super::damage_tests::{open, try_open};
use super::engine::Engine;
use super::format::{
    Body, FIRST_RECORD, HEAD_BYTES, HEADING_COPY, Heading, NewRecord, RECORD_ALIGN, decode_head,
    encode_heading, keyed_sum, meta_len, zero_sectors,
};
use super::locate::Located;
use super::making::make_folder;
use super::model_tests::world::Random;
use super::place::{VOLUMES, What, group_folder, volume_file};
use crate::io::OpenHow;
use crate::io::sim::{Faults, SimDisk};

const SECTOR: u64 = 512;
/// Answered before the batch, and never stored.
const BEFORE: u128 = 0;
const NEVER: u128 = 99;

fn volume() -> PathBuf {
    volume_file(sample::GROUP, 1, What::Volume)
}

/// A shard of which these bytes are zero.
fn shard(blob: u128, len: usize, zero: Range<usize>) -> SmallShard {
    let mut shard = sample::small(&sample::context(1), blob, len);
    let mut bytes = shard.bytes.to_vec();
    bytes[zero].fill(0);
    shard.crcs = block_crcs(&bytes);
    shard.bytes = Bytes::from(bytes);
    shard
}

/// A shard of the last batch, and where in the volume its bytes are, head and
/// all.
struct Written {
    shard: SmallShard,
    bytes: Vec<Range<u64>>,
}

impl Written {
    fn has(&self, at: u64) -> bool {
        self.bytes.iter().any(|range| range.contains(&at))
    }

    fn has_in_link(&self, at: u64) -> bool {
        self.bytes.len() == 3 && self.bytes[0].contains(&at)
    }

    /// Whether it has bytes in one of these sectors that are not zero.
    fn needs(&self, sectors: &BTreeSet<u64>, volume: &[u8]) -> bool {
        let mut all = self.bytes.iter().cloned().flatten();
        all.any(|at| volume[at as usize] != 0 && sectors.contains(&(at / SECTOR * SECTOR)))
    }
}

/// A disk whose process went behind a batch of shards of all kinds, the last
/// one that it wrote. `pad`: how long the first one is, so that the heads of
/// others go over the border of a sector.
fn filled(pad: usize) -> (SimDisk, Vec<Written>) {
    let disk = SimDisk::new(pad as u64);
    disk.set_old_bytes(false);
    let engine = open(&disk);
    let before = shard(BEFORE, 300, 0..0);
    assert_eq!(engine.commit(&[Op::Put(&before)]), [Ok(())]);
    let small = [
        shard(1, 300 + pad, 0..0),
        shard(2, 3000, 0..0),
        shard(3, 60, 0..60),
        shard(4, 2500, 700..2500),
        shard(5, 130, 0..0),
        shard(6, 2000, 0..2000),
        shard(7, 0, 0..0),
        shard(8, 450, 0..300),
    ];
    let middling = [shard(9, 5000, 600..3700), shard(10, 3000, 0..0)];
    let endings: Vec<Ending> = middling.iter().map(|of| extent(&engine, of)).collect();
    let mut ops: Vec<_> = small.iter().map(Op::Put).collect();
    ops.insert(5, Op::Finish(&endings[0]));
    ops.insert(3, Op::Finish(&endings[1]));
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
    let extents = endings.iter().map(|ending| Some(ending.extent.data_at));
    let written = small.iter().map(|shard| (shard, None));
    let written = written.chain(middling.iter().zip(extents));
    let volume = disk.bytes(&volume()).unwrap();
    let place = |(shard, extent): (&SmallShard, Option<u64>)| {
        let located = engine.locate(shard.header.key).unwrap().unwrap();
        let at = located.entry.offset();
        let len = shard.bytes.len() as u64;
        let data = at + meta_len(&shard.header, len);
        let bytes = match extent {
            Some(extent) => vec![link_of(&located, &volume), at..data, extent..extent + len],
            None => vec![at..data, data..data + len],
        };
        let shard = shard.clone();
        Written { shard, bytes }
    };
    let written: Vec<_> = written.map(place).collect();
    drop(engine);
    disk.restart();
    (disk, written)
}

/// Where the link of a record in an extent is.
fn link_of(located: &Located, volume: &[u8]) -> Range<u64> {
    let mut places = (FIRST_RECORD..located.entry.offset()).step_by(RECORD_ALIGN as usize);
    let is_link = |at: &u64| {
        let head = decode_head(&located.heading, *at, &volume[*at as usize..]);
        let linked = head.and_then(|head| head.linked());
        linked.is_some_and(|linked| linked.at == located.entry.offset())
    };
    let at = places.find(is_link).expect("each has a link");
    at..at + HEAD_BYTES as u64
}

/// Writes a shard into an extent.
fn extent(engine: &Engine, shard: &SmallShard) -> Ending {
    let len = shard.bytes.len() as u64;
    let extent = engine.reserve(&shard.header, len).unwrap().unwrap();
    let write = [IoSlice::new(&shard.bytes)];
    extent.file.write_at(&write, extent.data_at).unwrap();
    Ending {
        extent,
        header: shard.header.clone(),
        end: ShardEnd {
            shard_len: len,
            blob_len: shard.blob_len,
        },
        crcs: block_crcs(&shard.bytes),
        zeroes: zero_sectors(&shard.bytes, 0),
    }
}

/// Whether it is there, whole.
fn stored(engine: &Engine, shard: &SmallShard) -> Result<bool, StoreError> {
    let read = engine.read(shard.header.key, 0, shard.bytes.len() as u32)?;
    Ok(read.is_some_and(|read| read.bytes == shard.bytes))
}

/// Some of the sectors of a batch: one, a few, or most.
fn some_sectors(random: &mut Random, written: &[Written]) -> BTreeSet<u64> {
    let all: BTreeSet<u64> = written
        .iter()
        .flat_map(|written| &written.bytes)
        .flat_map(|range| (range.start / SECTOR..range.end.div_ceil(SECTOR)).map(|n| n * SECTOR))
        .collect();
    let of_100 = [2, 10, 50, 90][random.below(4) as usize];
    let one = random.below(all.len() as u64) as usize;
    let all = all.into_iter().enumerate();
    all.filter(|(n, _)| *n == one || random.below(100) < of_100)
        .map(|(_, at)| at)
        .collect()
}

/// What was answered is there, each of the batch as `wanted` says, and what
/// never was stored is absent.
fn check(engine: &Engine, written: &[Written], wanted: &[bool], what: &str) {
    for (blob, there) in [(BEFORE, true), (NEVER, false)] {
        let stored = stored(engine, &shard(blob, 300, 0..0));
        assert_eq!(stored, Ok(there), "blob {blob}, {what}");
    }
    for (written, wanted) in written.iter().zip(wanted) {
        let (there, key) = (stored(engine, &written.shard), written.shard.header.key);
        assert_eq!(there, Ok(*wanted), "blob {}, {what}", key.blob);
    }
    assert_eq!(engine.check(false).unwrap().findings, [], "{what}");
}

/// The power goes once more at one of the changes that opening makes; then
/// the volume is sealed, and its directory made anew from the records.
#[test]
fn what_a_crash_left_out_is_never_damage() {
    let (mut again, mut absent, mut straddling) = (0, 0, 0);
    for seed in 0..600u64 {
        let mut random = Random(seed);
        let (disk, written) = filled(64 * (seed as usize % 8));
        let sectors = some_sectors(&mut random, &written);
        let before = disk.bytes(&volume()).unwrap();
        for at in &sectors {
            disk.lose_sector(&volume(), *at);
        }
        let what = format!("seed {seed}, without the sectors {sectors:?}");
        let wanted: Vec<_> = written
            .iter()
            .map(|of| !of.needs(&sectors, &before))
            .collect();
        absent += wanted.iter().filter(|there| !**there).count();
        let head = |of: &&Written| of.bytes[0].start % SECTOR == SECTOR - 64;
        straddling += written.iter().filter(head).count();
        for _ in 0..random.below(3) {
            disk.set_faults(Faults {
                power_off: Some(1 + random.below(20)),
                ..Faults::default()
            });
            let _ = try_open(&disk).map(|engine| while engine.upkeep() == Ok(true) {});
            again += u32::from(disk.is_off());
            disk.set_faults(Faults::default());
            disk.power_loss(random.next());
        }
        let engine = open(&disk);
        check(&engine, &written, &wanted, &what);
        while engine.upkeep().unwrap() {}
        check(&engine, &written, &wanted, &what);
        engine.close(true).unwrap();
        drop(engine);
        let directory = volume_file(sample::GROUP, 1, What::Directory);
        disk.restart();
        disk.io().remove(&directory).unwrap();
        let engine = open(&disk);
        while engine.upkeep().unwrap() {}
        check(&engine, &written, &wanted, &what);
    }
    assert!(again > 300 && absent > 2000, "{again} {absent}");
    assert!(straddling > 300, "{straddling}");
}

/// Nothing says that the last batch was synced, and whole sectors of it are
/// zero; it is damaged all the same, and not absent.
#[test]
fn flips_in_what_was_answered_last_are_damage() {
    for pad in (0..SECTOR as usize).step_by(64) {
        let (disk, written) = filled(pad);
        let before = disk.bytes(&volume()).unwrap();
        let files = disk.files();
        for (n, of) in written.iter().enumerate() {
            let all = of.bytes.iter().cloned().flatten();
            for at in all.skip(pad / 64).step_by(if n % 2 == 0 { 31 } else { 97 }) {
                disk.flip_bit(&volume(), at, (at % 8) as u8);
                let engine = open(&disk);
                for other in &written {
                    let stored = stored(&engine, &other.shard);
                    let blob = other.shard.header.key.blob;
                    let what = format!("pad {pad}, flipped at {at}, blob {blob}: {stored:?}");
                    let is_corrupt = matches!(stored, Err(StoreError::Corrupt { .. }));
                    match other.has(at) {
                        // What is left of its link may tell where it is.
                        true if other.has_in_link(at) => {
                            assert!(is_corrupt || stored == Ok(true), "{what}");
                        }
                        true => assert!(is_corrupt, "{what}"),
                        false => assert_eq!(stored, Ok(true), "{what}"),
                    }
                }
                drop(engine);
                restore(&disk, &before, &files);
            }
        }
    }
}

/// Gives the volume its bytes back, and removes what was made since.
fn restore(disk: &SimDisk, bytes: &[u8], files: &[(PathBuf, u64)]) {
    disk.restart();
    let file = disk.io().open(&volume(), OpenHow::ReadWrite).unwrap();
    file.write_at(&[IoSlice::new(bytes)], 0).unwrap();
    file.sync_all().unwrap();
    for (path, _) in disk.files() {
        let is_log = path.starts_with(super::place::LOG);
        if !is_log && !files.iter().any(|(before, _)| *before == path) {
            disk.io().remove(&path).unwrap();
        }
    }
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
        let record = NewRecord::shard(
            heading.salt,
            at,
            at,
            &header,
            end,
            &crcs,
            Body::Follows(&bytes),
        );
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
            let there = stored(engine, &shard(blob, LEN, 0..0));
            assert_eq!(there, Ok(true), "blob {blob}");
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

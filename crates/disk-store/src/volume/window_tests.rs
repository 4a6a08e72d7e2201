//! Windows against what is stored, with everything going on between them, and
//! with damage of each kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shardgate_wire::checksum::CHECK_BLOCK;
use shardgate_wire::conformance::sample;
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{ShardKey, StoreError};

use super::engine::{Engine, VolumeFigures};
use super::model_tests::world::Random;
use super::opening::Opening;
use super::place::{What, volume_file};
use super::volume_state::Stage;
use super::{Choice, HeldRecords, Op, OwnExtent, WindowCursor};
use crate::aligned::AlignedBuffer;
use crate::condition::Condition;
use crate::io::sim::{Faults, SimDisk};
use crate::window::{Window, WindowPlace, WindowRecord};

const LENGTHS: [usize; 6] = [0, 1, 300, 4096, 70_000, 200_000];
/// Longer than what is read at once.
const LONG: usize = (2 << 20) + 12_345;

fn open(disk: &SimDisk) -> Arc<Engine> {
    let opened = Engine::open(Opening {
        io: disk.io(),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: VolumeFigures {
            volume_bytes: 6 << 20,
            volume_records: 16,
            zero_step: 64 << 10,
            large_batch: 1 << 20,
            volume_max: 4 << 20,
            punch_from: 64 << 10,
            log_bytes: 1 << 20,
            open_files: 3,
            sync_at_once: false,
        },
        progress: Arc::default(),
        directories: Arc::default(),
        random: Box::new(|| 0x5a17),
    });
    let engine = opened.unwrap();
    engine.may_take_ahead(1 << 30);
    Arc::new(engine)
}

fn put(engine: &Engine, blob: u128, len: usize) {
    let shard = sample::small(&sample::context(1), blob, len);
    assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
}

fn stream(engine: &Arc<Engine>, blob: u128, len: usize) {
    let shard = sample::small(&sample::context(1), blob, len);
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

fn start() -> WindowCursor {
    WindowCursor::start(sample::GROUP)
}

/// A disk, what is stored on it, and a stream that goes through it.
struct World {
    random: Random,
    disk: SimDisk,
    engine: Arc<Engine>,
    stored: BTreeMap<u128, usize>,
    deleted: BTreeSet<u128>,
    /// Blocks that came of each blob.
    came: BTreeMap<u128, BTreeSet<u64>>,
    next_blob: u128,
    held: HeldRecords,
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let mut world = Self {
            random: Random(seed),
            engine: open(&disk),
            disk,
            stored: BTreeMap::new(),
            deleted: BTreeSet::new(),
            came: BTreeMap::new(),
            next_blob: 1,
            held: HeldRecords::of_at_most(1 + seed as usize % 9),
        };
        for _ in 0..30 {
            world.change();
        }
        world
    }

    fn add(&mut self) {
        let blob = self.next_blob;
        self.next_blob += 1;
        let len = match self.random.below(12) {
            0 => LONG,
            pick => LENGTHS[pick as usize % LENGTHS.len()],
        };
        match len == LONG || self.random.below(2) == 0 && len > 0 {
            true => stream(&self.engine, blob, len),
            false => put(&self.engine, blob, len),
        }
        self.stored.insert(blob, len);
    }

    fn delete(&mut self) {
        let at = self.random.below(self.stored.len().max(1) as u64) as usize;
        if let Some(blob) = self.stored.keys().nth(at).copied() {
            let deleted = self.engine.commit(&[Op::Delete(sample::key(blob))]);
            assert_eq!(deleted, [Ok(())]);
            self.engine.punch_all().unwrap();
            self.stored.remove(&blob);
            self.deleted.insert(blob);
        }
    }

    fn compact(&mut self) {
        let sealed: Vec<u64> = {
            let state = self.engine.state.read();
            let of = state.groups.get(&sample::GROUP);
            let volumes = of.into_iter().flat_map(|of| &of.volumes);
            let sealed = volumes.filter(|(_, volume)| volume.stage == Stage::Sealed);
            sealed.map(|(sequence, _)| *sequence).collect()
        };
        if sealed.is_empty() {
            return;
        }
        let from = self.random.below(sealed.len() as u64) as usize;
        let to = (from + 1 + self.random.below(2) as usize).min(sealed.len());
        let choice = Choice {
            group: sample::GROUP,
            volumes: sealed[from..to].to_vec(),
            bytes: 0,
        };
        assert_eq!(self.engine.compact(&choice, &mut |_| true), Ok(true));
    }

    fn change(&mut self) {
        match self.random.below(12) {
            0..=5 => self.add(),
            6..=7 => self.delete(),
            8 => {
                self.engine.roll(sample::GROUP);
                while self.engine.upkeep().unwrap() {}
            }
            9..=10 => self.compact(),
            _ => {
                self.engine.close(true).unwrap();
                self.disk.restart();
                self.engine = open(&self.disk);
                self.held = HeldRecords::of_at_most(1 + self.random.below(9) as usize);
            }
        }
    }

    fn window(&mut self, from: WindowCursor) -> Window {
        let bytes = [1, 5000, 100_000, 1 << 20, 3 << 20][self.random.below(5) as usize];
        let window = match self.random.below(3) {
            0 => {
                let held = &mut HeldRecords::default();
                self.engine.window_with(from, bytes, held)
            }
            _ => self.engine.window_with(from, bytes, &mut self.held),
        };
        let window = window.unwrap();
        let lens = window.records.iter().map(|record| match &record.shard {
            Ok(shard) => shard.bytes.len() as u64,
            Err(error) => panic!("{:?}: {error}", record.key),
        });
        assert!(lens.sum::<u64>() <= bytes + (1 << 20), "{bytes}");
        window
    }

    fn take(&mut self, record: &WindowRecord) {
        let shard = record.shard.as_ref().unwrap();
        let blob = record.key.blob.0;
        assert!(!self.deleted.contains(&blob), "{blob} was deleted");
        let len = self.stored[&blob];
        let from = usize::try_from(shard.offset).unwrap();
        let whole = sample::bytes(blob, len);
        assert!(shard.bytes == whole[from..from + shard.bytes.len()]);
        assert_eq!(shard.header, sample::header(&sample::context(1), blob));
        assert_eq!(shard.end.shard_len, len as u64);
        assert_eq!(
            shard.crcs,
            shardgate_wire::checksum::block_crcs(&shard.bytes)
        );
        assert!(shard.offset.is_multiple_of(CHECK_BLOCK as u64));
        let blocks = shard.offset..shard.offset + (shard.bytes.len() as u64).max(1);
        let came = self.came.entry(blob).or_default();
        came.extend(
            blocks
                .step_by(CHECK_BLOCK)
                .map(|at| at / CHECK_BLOCK as u64),
        );
    }

    /// The records of a window lie one behind the other.
    fn in_order(&self, window: &Window) {
        let mut last = None;
        for record in &window.records {
            let located = self.engine.locate(record.key).unwrap().unwrap();
            let place = (located.heading.sequence, located.entry.offset());
            assert!(last <= Some(place), "{last:?} before {place:?}");
            last = Some(place);
        }
    }
}

#[test]
fn what_stays_comes_and_what_was_deleted_does_not() {
    for seed in 0..80 {
        let mut world = World::new(seed);
        let steady = world.stored.clone();
        let mut next = Some(start());
        let mut windows = 0;
        while let Some(from) = next {
            // In the end nothing is added, or the stream had no end.
            for _ in 0..world.random.below(if windows < 60 { 3 } else { 1 }) {
                world.change();
            }
            // Kept elsewhere meanwhile.
            let from = WindowCursor::from_bytes(&from.to_bytes()).unwrap();
            let window = world.window(from);
            world.in_order(&window);
            for record in &window.records {
                world.take(record);
            }
            assert!(window.next.is_none_or(|next| next > from), "seed {seed}");
            next = window.next;
            windows += 1;
        }
        for (blob, len) in steady {
            let all = (0..(len.div_ceil(CHECK_BLOCK) as u64).max(1)).collect();
            let came = world.came.get(&blob);
            let fits = world.deleted.contains(&blob) || came == Some(&all);
            assert!(fits, "seed {seed}: {blob} of {len} bytes: {came:?}");
        }
    }
}

/// Three neighbours and a long one, of a sealed volume or of one that is not.
fn four(sealed: bool) -> (SimDisk, Arc<Engine>) {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (1..=3).for_each(|blob| put(&engine, blob, 70_000));
    stream(&engine, 4, LONG);
    if sealed {
        engine.roll(sample::GROUP);
        while engine.upkeep().unwrap() {}
    }
    (disk, engine)
}

/// All of the group, in windows of so many bytes.
fn all(engine: &Engine, bytes: u64) -> Vec<WindowRecord> {
    let mut held = HeldRecords::default();
    let (mut next, mut records) = (Some(start()), Vec::new());
    while let Some(from) = next {
        let window = engine.window_with(from, bytes, &mut held).unwrap();
        records.extend(window.records);
        next = window.next;
    }
    records
}

fn keys(records: &[WindowRecord], bad: bool) -> BTreeSet<ShardKey> {
    let records = records.iter();
    let found = records.filter(|record| record.shard.is_err() == bad);
    found.map(|record| record.key).collect()
}

#[test]
fn damage_is_said_with_its_key_and_nothing_else_is() {
    for sealed in [false, true] {
        let (disk, engine) = four(sealed);
        let volume = volume_file(sample::GROUP, 1, What::Volume);
        assert_eq!(keys(&all(&engine, 1 << 20), true), [].into());
        for blob in 1..=4 {
            let key = sample::key(blob);
            let at = engine.locate(key).unwrap().unwrap().entry.offset();
            let len = if blob == 4 { LONG as u64 } else { 70_000 };
            // In its head, in its checksums, at the start and end of its
            // bytes.
            for place in [at + 9, at + 180, at + 8192, at + len] {
                disk.flip_bit(&volume, place, 3);
                for bytes in [1, 1 << 20, 9 << 20] {
                    let records = all(&engine, bytes);
                    let said = keys(&records, true);
                    assert_eq!(said, [key].into(), "{sealed} {place} of {blob}");
                    let corrupt = records
                        .iter()
                        .filter_map(|record| record.shard.as_ref().err());
                    for error in corrupt {
                        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
                    }
                    let others = keys(&records, false);
                    // What is whole of a long one comes all the same.
                    let rest = (1..=4).map(sample::key).filter(|other| *other != key);
                    assert!(rest.into_iter().all(|other| others.contains(&other)));
                    assert!(others.contains(&key) == (blob == 4 && place > at + 4096));
                }
                disk.flip_bit(&volume, place, 3);
            }
        }
    }
}

#[test]
fn what_the_device_does_not_give_is_said_with_its_key() {
    let (disk, engine) = four(true);
    let path = volume_file(sample::GROUP, 1, What::Volume);
    for (blob, within, pieces) in [(2, 8192, 0), (4, 0, 0), (4, 8192, 0), (4, 1 << 20, 1)] {
        let at = engine
            .locate(sample::key(blob))
            .unwrap()
            .unwrap()
            .entry
            .offset();
        let bad = (at + within) / 512 * 512;
        disk.set_faults(Faults {
            bad: vec![(path.clone(), bad, bad + 512)],
            ..Faults::default()
        });
        let records = all(&engine, 1 << 20);
        assert_eq!(
            keys(&records, true),
            [sample::key(blob)].into(),
            "{blob} {within}"
        );
        for record in &records {
            if let Err(error) = &record.shard {
                assert!(matches!(error, StoreError::Io { .. }), "{error}");
            }
        }
        let rest = (1..=4).filter(|other| *other != blob).map(sample::key);
        assert!(keys(&records, false).is_superset(&rest.collect()));
        let whole = records
            .iter()
            .filter(|record| record.key == sample::key(blob));
        assert!(whole.filter(|record| record.shard.is_ok()).count() >= pieces);
    }
    disk.set_faults(Faults::default());
    assert_eq!(keys(&all(&engine, 1 << 20), true), [].into());
}

/// A window ended inside of a long one, which is deleted then. Each lies
/// before the one that came before it.
#[test]
fn what_is_behind_a_long_one_that_went_is_read_from_its_start() {
    for (between, keeps) in [(0, true), (0, false), (2, true), (2, false)] {
        let engine = open(&SimDisk::new(1));
        stream(&engine, 1, LONG);
        (10..10 + between).for_each(|blob| stream(&engine, blob, 300));
        stream(&engine, 2, LONG);
        let mut held = HeldRecords::default();
        let window = engine.window_with(start(), 1 << 20, &mut held).unwrap();
        assert_eq!(keys(&window.records, false), [sample::key(2)].into());
        let mut next = window.next;
        let inside = next.map(|next| next.place);
        assert!(
            matches!(inside, Some(WindowPlace::Record { within, .. }) if within > 0),
            "{inside:?}"
        );
        let deleted = engine.commit(&[Op::Delete(sample::key(2))]);
        assert_eq!(deleted, [Ok(())]);
        let mut came = BTreeMap::new();
        while let Some(from) = next {
            if !keeps {
                held = HeldRecords::default();
            }
            let window = engine.window_with(from, 1 << 20, &mut held).unwrap();
            for record in window.records {
                let bytes = record.shard.unwrap().bytes.len();
                *came.entry(record.key.blob.0).or_insert(0) += bytes;
            }
            next = window.next;
        }
        let short = (10..10 + between).map(|blob| (blob, 300));
        let all = short.chain([(1, LONG)]).collect();
        assert_eq!(came, all, "{between} between, {keeps}");
    }
}

/// Not the place that was asked for, which may be volumes before it.
#[test]
fn an_error_says_which_volume_cannot_be_read() {
    let (disk, engine) = four(true);
    disk.set_faults(Faults {
        unreadable: vec![volume_file(sample::GROUP, 1, What::Directory)],
        ..Faults::default()
    });
    let unread = engine.window_with(
        WindowCursor::of_volume(sample::GROUP, 0),
        1 << 20,
        &mut HeldRecords::default(),
    );
    let unread = unread.unwrap_err();
    let volume = |number| WindowCursor::of_volume(sample::GROUP, number);
    assert_eq!((unread.at, unread.behind()), (volume(1), Some(volume(2))));
    assert_eq!(unread.go_on(), Some(volume(2)));
}

/// The directory is read a piece at a time, and not given any more.
#[test]
fn what_came_before_an_error_is_given() {
    let (disk, engine) = four(true);
    let mut held = HeldRecords::of_at_most(2);
    let first = engine.window_with(start(), 1, &mut held).unwrap();
    disk.set_faults(Faults {
        unreadable: vec![volume_file(sample::GROUP, 1, What::Directory)],
        ..Faults::default()
    });
    let second = engine.window_with(first.next.unwrap(), 9 << 20, &mut held);
    let second = second.unwrap();
    assert_eq!(keys(&second.records, false), [sample::key(2)].into());
    let next = second.next.unwrap();
    let third = engine.window_with(next, 9 << 20, &mut held);
    assert!(matches!(third.unwrap_err().error, StoreError::Io { .. }));
    disk.set_faults(Faults::default());
    let third = engine.window_with(next, 9 << 20, &mut held).unwrap();
    let rest = [sample::key(3), sample::key(4)];
    assert!(keys(&third.records, false).is_superset(&[rest[0]].into()));
    assert!(
        third
            .records
            .iter()
            .all(|record| rest.contains(&record.key))
    );
}

/// Each byte is read once, in calls of a MiB: not record by record.
#[test]
fn neighbours_are_read_at_once() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..14).for_each(|blob| put(&engine, blob, 4096));
    stream(&engine, 20, LONG);
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
    let before = disk.counters();
    let records = all(&engine, 4 << 20);
    assert_eq!(keys(&records, false).len(), 15);
    let reads = disk.counters().reads - before.reads;
    let bytes = disk.counters().read_bytes - before.read_bytes;
    // The directory, the small ones, and the long one in three.
    assert_eq!(reads, 5, "{bytes}");
    assert!(bytes < (LONG + 14 * 4600 + (64 << 10)) as u64, "{bytes}");
}

/// A place that nobody gave is one like any other.
#[test]
fn any_cursor_is_a_place() {
    let (_disk, engine) = four(true);
    let mut random = Random(1);
    let odd = |random: &mut Random| match random.below(6) {
        0 => u64::MAX - random.below(3),
        1 => random.next(),
        2 => random.below(6 << 20),
        _ => random.below(8) * 64,
    };
    for _ in 0..500 {
        let place = WindowPlace::Record {
            volume: if random.below(4) == 0 {
                odd(&mut random)
            } else {
                1
            },
            offset: match random.below(3) {
                0 => engine
                    .locate(sample::key(4))
                    .unwrap()
                    .unwrap()
                    .entry
                    .offset(),
                _ => odd(&mut random),
            },
            within: odd(&mut random),
        };
        let from = WindowCursor { place, ..start() };
        let window = engine.window(from, odd(&mut random).min(9 << 20)).unwrap();
        assert!(window.records.iter().all(|record| record.shard.is_ok()));
    }
}

//! Open volumes that take nothing are closed, and a start after a clean stop
//! reads none.

use std::cell::Cell;
use std::time::{Duration, Instant};

use shardgate_wire::StoreError;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::GroupId;

use super::Op;
use super::closing::{ClosingTime, OpenLimits, Rests, Step};
use super::damage_tests::read;
use super::engine::Engine;
use super::place::{What, volume_file};
use super::unread_tests::open;
use super::volume_state::Stage;
use crate::io::OpenHow;
use crate::io::sim::{Faults, SimDisk};

const LIMITS: OpenLimits = OpenLimits {
    rest: Duration::from_secs(300),
    most: 3,
};

fn put(engine: &Engine, group: u64, blob: u128) {
    let mut shard = sample::small(&sample::context(1), blob, 1000);
    shard.header.key.group = GroupId(group);
    assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
}

/// Groups that have an open volume.
fn open_groups(engine: &Engine) -> Vec<u64> {
    let state = engine.state.read();
    let groups = state.groups.iter().filter(|(_, of)| of.open.is_some());
    groups.map(|(group, _)| group.0).collect()
}

fn stages(engine: &Engine) -> Vec<Stage> {
    let state = engine.state.read();
    let volumes = state.groups.values().flat_map(|of| of.volumes.values());
    volumes.map(|volume| volume.stage).collect()
}

fn sealed(engine: &Engine) -> usize {
    let stages = stages(engine).into_iter();
    stages.filter(|stage| *stage == Stage::Sealed).count()
}

#[test]
fn a_volume_that_rests_is_closed_and_sealed() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let (mut rests, start) = (Rests::default(), Instant::now());
    let mut look = |engine: &Engine, seconds| {
        engine.close_resting(&mut rests, LIMITS, start + Duration::from_secs(seconds));
        while engine.upkeep().unwrap() {}
        open_groups(engine)
    };
    put(&engine, 1, 1);
    put(&engine, 2, 1);
    assert_eq!(look(&engine, 0), [1, 2]);
    assert_eq!(look(&engine, 299), [1, 2]);
    (2..8).for_each(|blob| put(&engine, 2, blob));
    assert_eq!(look(&engine, 300), [2], "the other was used");
    assert_eq!(look(&engine, 599), [2]);
    // Somebody still writes a shard.
    let mut header = sample::header(&sample::context(1), 3);
    header.key.group = GroupId(2);
    let extent = engine.reserve(&header, 9000).unwrap().unwrap();
    assert_eq!(look(&engine, 601), [2]);
    engine.release(&extent);
    assert_eq!(look(&engine, 602), [2]);
    assert_eq!(look(&engine, 902), [0; 0]);
    assert_eq!(stages(&engine), [Stage::Sealed; 2]);
    assert!(disk.counters().punches > 0, "what was taken ahead");
    // The next write begins another one.
    put(&engine, 1, 5);
    assert_eq!(look(&engine, 903), [1]);
}

#[test]
fn of_too_many_open_volumes_those_that_rest_longest_are_closed() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    let (mut rests, start) = (Rests::default(), Instant::now());
    let mut look = |engine: &Engine, seconds| {
        engine.close_resting(&mut rests, LIMITS, start + Duration::from_secs(seconds));
        open_groups(engine)
    };
    for group in 1..=5 {
        put(&engine, group, 1);
        let all: Vec<u64> = (1..=group).collect();
        assert_eq!(look(&engine, group), all, "they take turns");
    }
    assert_eq!(look(&engine, 10), [1, 2, 3, 4, 5]);
    assert_eq!(look(&engine, 20), [3, 4, 5]);
    assert_eq!(look(&engine, 60), [3, 4, 5], "few enough");
}

#[test]
fn a_start_after_a_clean_stop_reads_no_volume() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    for blob in 0..4 {
        put(&engine, sample::GROUP.0, blob);
    }
    engine.close(true).unwrap();
    drop(engine);
    disk.restart();
    let volume = volume_file(sample::GROUP, 1, What::Volume);
    disk.set_faults(Faults {
        bad: vec![(volume, 0, 1 << 20)],
        ..Faults::default()
    });
    let before = disk.counters().reads;
    let engine = open(&disk);
    println!("{} reads", disk.counters().reads - before);
    assert_eq!(engine.condition.fenced(), None);
    assert_eq!(stages(&engine), [Stage::Sealed]);
    disk.set_faults(Faults::default());
    for blob in 0..4 {
        assert_eq!(read(&engine, blob), Ok(true));
    }
    assert_eq!(engine.check(false).unwrap().findings, []);
}

// Files that a crash left unmarked must be looked at by the next start too.
#[test]
fn a_stop_before_all_is_settled_is_not_a_clean_one() {
    for settled in [false, true] {
        let disk = SimDisk::new(1);
        let engine = open(&disk);
        put(&engine, sample::GROUP.0, 1);
        engine.close(settled).unwrap();
        drop(engine);
        disk.restart();
        let engine = open(&disk);
        assert_eq!(engine.state.read().clean, settled);
        assert_eq!(read(&engine, 1), Ok(true));
    }
}

/// No room for a directory: the volume has its end, the stop is clean, and
/// the next one seals it.
#[test]
fn a_full_disk_closes_in_order() {
    let mut ends = 0;
    for capacity in 0.. {
        let disk = SimDisk::new(1);
        let engine = open(&disk);
        for blob in 0..4 {
            put(&engine, sample::GROUP.0, blob);
        }
        disk.set_faults(Faults {
            capacity: Some(capacity * 4096),
            ..Faults::default()
        });
        let closed = engine.close_in_time(true, &|_| true);
        drop(engine);
        disk.set_faults(Faults::default());
        disk.power_loss(capacity);
        let engine = open(&disk);
        if closed == Ok(true) {
            assert!(engine.state.read().clean, "capacity {capacity}");
        }
        for blob in 0..4 {
            assert_eq!(read(&engine, blob), Ok(true), "capacity {capacity}");
        }
        assert_eq!(read(&engine, 9), Ok(false), "capacity {capacity}");
        if stages(&engine) == [Stage::Sealed] {
            assert!(ends > 0, "{ends} closed in order without a directory");
            return;
        }
        ends += u32::from(closed == Ok(true));
    }
}

fn read_in(engine: &Engine, group: u64, blob: u128) -> Result<bool, StoreError> {
    let mut key = sample::key(blob);
    key.group = GroupId(group);
    engine.locate(key).map(|found| found.is_some())
}

const GROUPS: std::ops::RangeInclusive<u64> = 1..=5;

/// Closes a disk with five open volumes; time is up after so many steps of
/// sealing, and of ending. Gives what the next start finds.
fn closed_within(seals: u32, ends: u32) -> (Result<bool, StoreError>, Engine, SimDisk) {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    GROUPS.for_each(|group| put(&engine, group, 1));
    let left = [Cell::new(seals), Cell::new(ends)];
    let go_on = |step| {
        let of = &left[usize::from(step == Step::End)];
        let some = of.get() > 0;
        of.set(of.get().saturating_sub(1));
        some
    };
    let closed = engine.close_in_time(true, &go_on);
    drop(engine);
    disk.power_loss(u64::from(seals));
    let engine = open(&disk);
    for group in GROUPS {
        assert_eq!(read_in(&engine, group, 1), Ok(true), "group {group}");
        assert_eq!(read_in(&engine, group, 2), Ok(false), "group {group}");
    }
    (closed, engine, disk)
}

/// What a stop has no time to seal stays open: the next start reads it, doubts
/// none of it, and goes on with it.
#[test]
fn a_stop_seals_only_as_long_as_it_may() {
    for seals in 0..20 {
        let (closed, engine, _disk) = closed_within(seals, u32::MAX);
        assert_eq!(closed, Ok(true), "{seals} steps");
        assert!(engine.state.read().clean, "{seals} steps");
        let (sealed, open) = (sealed(&engine), open_groups(&engine));
        // Each is closed, sealed, and nothing is left to seal.
        assert!(sealed >= seals as usize / 4 && sealed + open.len() <= 5);
        if seals < 5 {
            assert!(sealed < 5 && !open.is_empty(), "{seals} steps");
        }
        GROUPS.for_each(|group| put(&engine, group, 3));
        assert_eq!(engine.check(false).unwrap().findings, []);
    }
    assert_eq!(stages(&closed_within(20, 0).1), [Stage::Sealed; 5]);
}

#[test]
fn a_stop_without_time_for_ends_is_not_a_clean_one() {
    for ends in 0..5 {
        let (closed, engine, _disk) = closed_within(0, ends);
        assert_eq!(closed, Ok(false), "{ends} ends");
        assert!(!engine.state.read().clean, "{ends} ends");
        assert_eq!(engine.check(false).unwrap().findings, []);
    }
}

#[test]
fn ends_have_time_of_their_own() {
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    // When ends are asked for first, and until when they have time.
    for (first, last) in [(0, 4000), (2900, 4000), (3500, 4500), (60_000, 61_000)] {
        let time = ClosingTime::new(start, Duration::from_secs(3));
        for (ms, left) in [(0, true), (2999, true), (3000, false)] {
            assert_eq!(time.is_left(Step::Seal, at(ms)), left, "{ms}");
        }
        let asked = [first, last - 1, last].map(|ms| time.is_left(Step::End, at(ms)));
        assert_eq!(asked, [true, true, false], "from {first}");
    }
}

/// A folder where a volume's directory is to be written.
fn stand_in_the_way(disk: &SimDisk, group: u64, sequence: u64) {
    let part = volume_file(GroupId(group), sequence, What::Part);
    disk.io().create_dir(&part).unwrap();
    let inside = part.join("inside");
    disk.io().open(&inside, OpenHow::CreateNew).unwrap();
}

#[test]
fn a_volume_that_is_not_sealed_keeps_no_other_from_it() {
    for stops in [false, true] {
        let disk = SimDisk::new(1);
        let engine = open(&disk);
        GROUPS.for_each(|group| put(&engine, group, 1));
        stand_in_the_way(&disk, 2, 2);
        if stops {
            assert_eq!(engine.close_in_time(true, &|_| true), Ok(true));
        } else {
            GROUPS.for_each(|group| engine.roll(GroupId(group)));
            let outcome = loop {
                match engine.upkeep() {
                    Ok(true) => {}
                    other => break other,
                }
            };
            assert!(matches!(outcome, Err(StoreError::Io { .. })), "{outcome:?}");
        }
        assert_eq!(sealed(&engine), 4);
        assert_eq!(engine.condition.fenced(), None);
        GROUPS.for_each(|group| assert_eq!(read_in(&engine, group, 1), Ok(true)));
    }
}

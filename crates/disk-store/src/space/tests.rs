//! What was promised is promised once.

use std::io::IoSlice;
use std::path::Path;

use shardgate_wire::DiskId;

use super::*;
use crate::io::OpenHow;
use crate::io::sim::{Faults, SimDisk};

const KEPT: KeptSpace = KeptSpace {
    background: 10_000,
    checkpoint: 20_000,
    journal: 40_000,
    upkeep: 80_000,
    compaction: 160_000,
};
const ALL: u64 = 310_000;

fn disk(capacity: u64) -> SimDisk {
    let disk = SimDisk::new(1);
    disk.set_faults(Faults {
        capacity: Some(capacity),
        ..Faults::default()
    });
    disk
}

fn space(disk: &SimDisk, devices: &SharedDevices) -> Space {
    let plan = Plan {
        set: Some(KEPT),
        segment_bytes: 0,
        volume_bytes: 0,
    };
    Space::new(disk.io(), (devices, 1), plan)
}

fn condition() -> Condition {
    Condition::good(DiskId(1))
}

const CLIENT: Taker = Taker::Shards(Purpose::Client);

#[test]
fn what_is_promised_is_given_to_nobody_else_until_it_is_written() {
    let (disk, condition) = (disk(ALL + 100_000), condition());
    let space = space(&disk, &SharedDevices::default());
    let client = || space.measure(&condition).unwrap().room.client_bytes;
    assert_eq!(client(), 100_000);
    let mut first = space.take(&condition, CLIENT, 60_000).unwrap();
    assert_eq!(first.ahead, 40_000);
    assert_eq!(client(), 40_000);
    let refused = space.take(&condition, CLIENT, 40_001).map(drop);
    assert_eq!(refused, Err(StoreError::NoSpace));
    assert_eq!(space.last().room.background_bytes, 50_000);
    // What it has written by now the file system knows.
    let file = disk.io().open(Path::new("some"), OpenHow::CreateNew);
    let bytes = [7; 51_200];
    let written = file.unwrap().write_at(&[IoSlice::new(&bytes)], 0);
    written.unwrap();
    assert_eq!(client(), 0);
    first.used(51_200);
    assert_eq!(client(), 40_000);
    drop(first);
    assert_eq!(client(), 48_800);
}

#[test]
fn a_compaction_writes_into_what_is_kept_for_it() {
    let (disk, condition) = (disk(ALL + 100_000), condition());
    let space = space(&disk, &SharedDevices::default());
    let room = || space.measure(&condition).unwrap().room;
    let before = room();
    let compaction = space.take(&condition, Taker::Compaction, 150_000).unwrap();
    // It is the same space, whether promised or kept.
    assert_eq!(room(), before);
    drop(compaction);
    assert_eq!(room(), before);
    // More than is kept goes off what others have.
    let most = space.take(&condition, Taker::Compaction, 200_000).unwrap();
    assert_eq!(before.client_bytes - room().client_bytes, 40_000);
    drop(most);
    assert_eq!(room(), before);
}

#[test]
fn what_the_journal_takes_is_not_kept_again() {
    let (disk, condition) = (disk(ALL + 100_000), condition());
    let space = space(&disk, &SharedDevices::default());
    let room = || space.measure(&condition).unwrap().room;
    let before = room();
    assert_eq!(before.journal_bytes, 100_000 + 70_000);
    assert_eq!(before.journal_kept_bytes, 40_000);
    space.hold_journal(30_000);
    assert_eq!(room().client_bytes, before.client_bytes + 30_000);
    space.hold_journal(90_000);
    assert_eq!(room().client_bytes, before.client_bytes + 40_000);
    assert_eq!(room().journal_bytes, before.journal_bytes);
}

#[test]
fn a_batch_is_promised_what_fits() {
    let (disk, condition) = (disk(ALL + 1000), condition());
    let space = space(&disk, &SharedDevices::default());
    let wanted = [
        (Purpose::Client, 900),
        (Purpose::Client, 200),
        (Purpose::Background, 10_100),
    ];
    let (fits, promised) = space.take_each(&condition, &wanted).unwrap();
    assert_eq!(fits, [true, false, true]);
    assert_eq!(promised.ahead, 0);
    let room = space.measure(&condition).unwrap().room;
    assert_eq!((room.client_bytes, room.background_bytes), (0, 0));
    drop(promised);
    let room = space.measure(&condition).unwrap().room;
    assert_eq!(room.client_bytes, 1000);
}

#[test]
fn disks_of_one_device_share_promises() {
    let (disk, condition, devices) = (disk(2 * ALL + 1000), condition(), SharedDevices::default());
    let (first, second) = (space(&disk, &devices), space(&disk, &devices));
    let client = |of: &Space| of.measure(&condition).unwrap().room.client_bytes;
    // A disk's claims are known from its first question on.
    assert_eq!(client(&first), ALL + 1000);
    assert_eq!(client(&second), 1000);
    assert_eq!(client(&first), 1000);
    let taken = second.take(&condition, CLIENT, 600).unwrap();
    assert_eq!(client(&first), 400);
    drop(taken);
    drop(second);
    assert_eq!(client(&first), ALL + 1000);
}

#[test]
fn a_disk_that_cannot_be_asked_promises_nothing() {
    let (disk, condition) = (disk(ALL + 1000), condition());
    let space = space(&disk, &SharedDevices::default());
    disk.restart();
    let refused = space.take(&condition, CLIENT, 1).map(drop);
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    assert_eq!(condition.fenced(), None);
}

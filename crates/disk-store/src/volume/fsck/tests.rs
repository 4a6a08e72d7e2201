//! What a check of volumes takes for damage, and what not.

use std::io::IoSlice;

use shardgate_wire::conformance::sample;

use super::*;
use crate::io::sim::SimDisk;
use crate::volume::Op;
use crate::volume::damage_tests::open;

fn put(engine: &Engine, blob: u128) {
    let shard = sample::small(&sample::context(1), blob, 1000);
    assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
}

fn volume() -> std::path::PathBuf {
    volume_file(sample::GROUP, 1, What::Volume)
}

fn write(disk: &SimDisk, bytes: &[u8], at: u64) {
    let file = disk.io().open(&volume(), OpenHow::ReadWrite).unwrap();
    file.write_at(&[IoSlice::new(bytes)], at).unwrap();
    file.sync_all().unwrap();
}

/// What is behind the end of an open volume is written just now: the half of
/// a batch, or a record whose bytes do not match yet.
#[test]
fn what_is_behind_the_end_of_an_open_volume_is_not_judged() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..3).for_each(|blob| put(&engine, blob));
    let tail = engine.held((sample::GROUP, 1)).unwrap().tail;
    let at = tail.next_multiple_of(512);
    for byte in [1, 0xff] {
        write(&disk, &[byte; 3000], at);
        let check = engine.check(false).unwrap();
        assert_eq!((check.findings, check.shards), (vec![], 3));
    }
    // Before it everything was answered, the last record too.
    write(&disk, &[0xff; 100], tail - 200);
    let check = engine.check(false).unwrap();
    assert_eq!(check.shards, 2);
    let shards: Vec<_> = check.findings.iter().map(|found| found.shard).collect();
    assert_eq!(shards, [Some(sample::key(2))]);
    // Zeroes there are no crash's: there was none.
    write(&disk, &[0; 2048], tail / 512 * 512 - 1024);
    let check = engine.check(false).unwrap();
    let shards: Vec<_> = check.findings.iter().map(|found| found.shard).collect();
    assert_eq!(shards, [Some(sample::key(2))], "{:?}", check.findings);
}

/// A record that only the directory tells of is named, and its directory stays.
#[test]
fn a_record_that_is_gone_is_told_by_the_directory() {
    let disk = SimDisk::new(1);
    let engine = open(&disk);
    (0..6).for_each(|blob| put(&engine, blob));
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
    let located = |blob| engine.locate(sample::key(blob)).unwrap().unwrap().entry;
    let (from, to) = (located(2).offset(), located(4).offset());
    write(&disk, &vec![0; (to - from) as usize], from);
    for _ in 0..2 {
        let check = engine.check(true).unwrap();
        let shards: Vec<_> = check.findings.iter().map(|found| found.shard).collect();
        let (one, other) = (Some(sample::key(2)), Some(sample::key(3)));
        assert_eq!(shards, [one, other, None], "{:?}", check.findings);
        assert!(check.findings.iter().all(|found| !found.repaired));
        assert_eq!(check.shards, 4);
    }
}

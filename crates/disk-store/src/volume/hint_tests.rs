//! Reads by hints: what a guess may say, and what only a directory may.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use shardgate_wire::Medium;
use shardgate_wire::StoreError;
use shardgate_wire::checksum::crc32c;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::BlobId;

use super::Op;
use super::engine::{Engine, VolumeFigures};
use super::opening::Opening;
use super::place::{What, volume_file};
use crate::condition::Condition;
use crate::directories::DirectoryMemory;
use crate::io::sim::SimDisk;
use crate::io::{DiskIo, OpenHow};
use crate::medium::MediumFigures;

const LEN: usize = 3000;

fn open(disk: &SimDisk, directories: &Arc<DirectoryMemory>) -> Engine {
    let salts = AtomicU64::new(1);
    let opened = Engine::open(Opening {
        io: disk.io(),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: VolumeFigures {
            volume_bytes: 4 << 20,
            zero_step: 64 << 10,
            ..MediumFigures::of(Medium::Flash).volumes
        },
        progress: Arc::default(),
        directories: Arc::clone(directories),
        random: Box::new(move || salts.fetch_add(1, Ordering::Relaxed)),
    });
    opened.unwrap()
}

/// Stores blobs and seals their volume.
fn sealed(engine: &Engine, blobs: impl Iterator<Item = u128>) {
    let ctx = sample::context(1);
    let shards: Vec<_> = blobs.map(|blob| sample::small(&ctx, blob, LEN)).collect();
    let ops: Vec<_> = shards.iter().map(Op::Put).collect();
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
}

fn read(engine: &Engine, blob: u128) -> Result<Option<usize>, StoreError> {
    let read = engine.read(sample::key(blob), 0, LEN as u32)?;
    Ok(read.map(|read| read.bytes.len()))
}

fn print_of(blob: u128) -> u32 {
    let key = sample::key(blob);
    let mut bytes = BlobId(blob).0.to_be_bytes().to_vec();
    bytes.push(key.index);
    crc32c(&bytes) & 0xffff
}

#[test]
fn a_wrong_guess_is_neither_damage_nor_another_shard() {
    let disk = SimDisk::new(1);
    let memory = Arc::default();
    let engine = open(&disk, &memory);
    let stranger = 1000;
    let like = (1001..).find(|blob| print_of(*blob) == print_of(stranger));
    let like = like.unwrap();
    sealed(&engine, [1, like, like + 1].into_iter());
    assert_eq!(read(&engine, like), Ok(Some(LEN)));
    assert!(memory.bytes() > 0, "hints were loaded");
    assert_eq!(read(&engine, stranger), Ok(None));
    // Two that look alike: each is found all the same.
    sealed(&engine, [2, stranger, like + 2].into_iter());
    assert_eq!(read(&engine, stranger), Ok(Some(LEN)));
    assert_eq!(read(&engine, like), Ok(Some(LEN)));
    let deleted = engine.commit(&[Op::Delete(sample::key(like))]);
    assert_eq!(deleted, [Ok(())]);
    assert_eq!(read(&engine, like), Ok(None));
    assert_eq!(read(&engine, stranger), Ok(Some(LEN)));
}

#[test]
fn damage_of_a_page_is_met_by_its_keys_alone() {
    let disk = SimDisk::new(1);
    let memory = Arc::default();
    let engine = open(&disk, &memory);
    sealed(&engine, 1..=200);
    drop(engine);
    let path = volume_file(sample::GROUP, 1, What::Directory);
    flip(&*disk.io(), &path, 4096);
    let engine = open(&disk, &memory);
    for blob in [1, 127] {
        assert!(matches!(
            read(&engine, blob),
            Err(StoreError::Corrupt { .. })
        ));
    }
    // The first of a page may have begun on the page before.
    for blob in [129, 200] {
        assert_eq!(read(&engine, blob), Ok(Some(LEN)));
    }
    assert_eq!(read(&engine, 201), Ok(None));
}

#[test]
fn a_damaged_record_is_damaged_by_hint_as_well() {
    let disk = SimDisk::new(1);
    let memory = Arc::default();
    let engine = open(&disk, &memory);
    sealed(&engine, 1..=3);
    assert_eq!(read(&engine, 2), Ok(Some(LEN)));
    // The head of the second record.
    let located = engine.locate(sample::key(2)).unwrap().unwrap();
    let path = volume_file(sample::GROUP, 1, What::Volume);
    flip(&*disk.io(), &path, located.entry.offset());
    assert!(matches!(read(&engine, 2), Err(StoreError::Corrupt { .. })));
    assert_eq!(read(&engine, 3), Ok(Some(LEN)));
}

fn flip(io: &dyn DiskIo, path: &Path, at: u64) {
    let file = io.open(path, OpenHow::ReadWrite).unwrap();
    let mut bytes = [0; 32];
    file.read_at(&mut bytes, at).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 1);
    let parts = [std::io::IoSlice::new(&bytes)];
    file.write_at(&parts, at).unwrap();
    file.sync_data().unwrap();
}

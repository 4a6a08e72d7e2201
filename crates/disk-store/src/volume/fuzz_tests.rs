//! Bytes of anybody's making, and whole files with fields changed and all
//! checksums right again: each parser reads or refuses them. None panics, and
//! none takes more memory than the bytes that it was given.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::Index as Place;
use shardgate_wire::checksum::crc32c;
use shardgate_wire::conformance::sample;

use super::damage_tests::figures;
use super::engine::{Engine, Note};
use super::format::{
    DIRECTORY_PAGE, Heading, decode_batch, decode_directory_head, decode_head, decode_heading,
    decode_meta, decode_page, explains, header_at, keyed_sum,
};
use super::opening::Opening;
use super::place::{LOG, parse_log_file, parse_volume_file};
use super::source::{BadSectors, Source};
use super::{Op, WindowCursor};
use crate::condition::Condition;
use crate::format as records;
use crate::io::OpenHow;
use crate::io::sim::SimDisk;

/// A change of a few bytes side by side.
type Edit = (Place, Vec<u8>);

/// Small numbers, the ends of what a field can say, and anything.
fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
    let of = |byte: u8| (1usize..=9).prop_map(move |len| vec![byte; len]);
    let lone = any::<u8>().prop_map(|byte| vec![byte]);
    let after_ff = (1usize..8).prop_map(|len| [vec![0xff; len], vec![0xc0]].concat());
    let bytes = prop_oneof![of(0xff), of(0), of(0x7f), after_ff, lone];
    proptest::collection::vec((any::<Place>(), bytes), 1..=most)
}

fn apply(bytes: &mut [u8], edits: &[Edit]) {
    for (place, new) in edits {
        let at = place.index(bytes.len());
        let len = new.len().min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&new[..len]);
    }
}

/// Changes the payload of the frame at the start of `bytes`.
fn edit_frame(bytes: &mut [u8], edits: &[Edit]) {
    let len: [u8; 4] = bytes[12..16].try_into().unwrap();
    let end = 16 + u32::from_be_bytes(len) as usize;
    apply(&mut bytes[16..end], edits);
    let sum = crc32c(&bytes[..end]);
    bytes[end..end + 4].copy_from_slice(&sum.to_be_bytes());
}

fn seal_keyed(heading: &Heading, at: u64, bytes: &mut [u8]) {
    let end = bytes.len() - 4;
    let sum = keyed_sum(heading.salt, at, &bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_be_bytes());
}

/// Changes fields of the record at `at`, its head's alone or all of it.
fn edit_record(heading: &Heading, at: usize, bytes: &mut [u8], edits: &[Edit], head_only: bool) {
    let meta: [u8; 4] = bytes[at + 12..at + 16].try_into().unwrap();
    let meta = u32::from_be_bytes(meta) as usize;
    let (magic, len) = (8, if head_only { 68 } else { meta - 4 });
    apply(&mut bytes[at + magic..at + len], edits);
    seal_keyed(heading, at as u64, &mut bytes[at..at + 72]);
    seal_keyed(heading, at as u64, &mut bytes[at..at + meta]);
}

/// The same of a batch of the log.
fn edit_batch(heading: &Heading, at: usize, bytes: &mut [u8], edits: &[Edit]) {
    let len: [u8; 4] = bytes[at + 12..at + 16].try_into().unwrap();
    let end = at + 28 + u32::from_be_bytes(len) as usize;
    apply(&mut bytes[at + 24..end], edits);
    bytes[at + 10..at + 12].fill(0);
    let sum = (keyed_sum(heading.salt, at as u64, &bytes[at..at + 28]) >> 16) as u16;
    bytes[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
    seal_keyed(heading, at as u64, &mut bytes[at..end + 4]);
}

fn open(disk: &SimDisk) -> Result<Engine, shardgate_wire::StoreError> {
    Engine::open(Opening {
        io: disk.io(),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: figures(),
        directories: std::sync::Arc::default(),
        progress: std::sync::Arc::default(),
        random: Box::new(|| shardgate_wire::ids::random_u128() as u64),
    })
}

const BLOBS: u128 = 12;

/// A disk with a sealed volume, an open one that a crash left, and a log that
/// has entries of every kind.
fn filled() -> SimDisk {
    let disk = SimDisk::new(1);
    let engine = open(&disk).unwrap();
    let put = |blob: u128| {
        let shard = sample::small(&sample::context(1), blob, 700);
        assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
    };
    let delete = |blob: u128| {
        let deleted = engine.commit(&[Op::Delete(sample::key(blob))]);
        assert_eq!(deleted, [Ok(())]);
    };
    (0..4).for_each(put);
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
    (0..4).for_each(delete);
    (4..9).for_each(put);
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
    let choice = engine.worst().unwrap();
    assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
    (9..BLOBS).for_each(put);
    [4, 9].into_iter().for_each(delete);
    let note = Note {
        commit: shardgate_wire::ids::CommitNumber(3),
        deleted: false,
        payload: vec![5; 40],
    };
    let blob = sample::key(5).blob;
    assert_eq!(engine.keep_note(sample::GROUP, blob, Some(note)), Ok(()));
    drop(engine);
    disk.restart();
    disk
}

fn files(disk: &SimDisk, ending: &str) -> Vec<PathBuf> {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let ends = |path: &PathBuf| path.extension().is_some_and(|found| found == ending);
    files.filter(ends).collect()
}

fn write(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.io().open(path, OpenHow::ReadWrite).unwrap();
    file.write_at(&[IoSlice::new(bytes)], 0).unwrap();
    file.sync_all().unwrap();
    drop(file);
    disk.restart();
}

/// Places of records or batches in a file.
fn starts(bytes: &[u8], magic: &[u8], step: usize) -> Vec<usize> {
    let places = (8192..bytes.len()).step_by(step);
    places
        .filter(|at| bytes[*at..].starts_with(magic))
        .collect()
}

/// What anybody can do with a disk, twice, the second time as a start finds
/// it. Answers are whatever they are.
fn use_it(disk: &SimDisk) {
    for _ in 0..2 {
        let Ok(engine) = open(disk) else {
            return;
        };
        for blob in 0..BLOBS + 1 {
            let _ = engine.read(sample::key(blob), 0, 700);
            let _ = engine.read(sample::key(blob), 65536, 100);
            let _ = engine.stat(sample::key(blob));
        }
        let _ = engine.list(None, 1000);
        for group in engine.groups_from(None) {
            let mut next = Some(WindowCursor {
                group,
                ..WindowCursor::default()
            });
            while let Some(from) = next {
                next = engine.window(from, 1 << 20).ok().and_then(|w| w.next);
            }
        }
        let _ = engine.check(true);
        for blob in 0..BLOBS {
            let _ = engine.commit(&[Op::Delete(sample::key(blob))]);
            let shard = sample::small(&sample::context(1), blob + 20, 700);
            let _ = engine.commit(&[Op::Put(&shard)]);
        }
        for _ in 0..8 {
            let _ = engine.upkeep();
            if let Some(choice) = engine.worst() {
                let _ = engine.compact(&choice, &mut |_| true);
            }
        }
        let _ = engine.close(true);
        drop(engine);
        disk.restart();
    }
}

fn heading_of(bytes: &[u8]) -> Heading {
    decode_heading(bytes).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let heading = Heading { size: 1 << 30, ..heading_of(&filled_heading()) };
        let _ = decode_head(&heading, 8192, &bytes);
        let _ = header_at(&bytes);
        let _ = explains(&bytes);
        let _ = decode_batch(1, 8192, &bytes);
        let _ = decode_directory_head(&bytes);
        let _ = decode_heading(&bytes);
        let _ = decode_page(1, 0, &bytes);
        let _ = records::decode_identity(&bytes);
        let _ = records::decode_root(&bytes);
        let _ = records::decode_slots(&bytes);
        let _ = records::decode_header(&bytes);
        if records::Footer::claimed_len(&bytes).is_ok_and(|len| len <= bytes.len()) {
            let _ = records::Footer::decode(&bytes, bytes.len() as u64);
        }
        let text = String::from_utf8_lossy(&bytes);
        let _ = (parse_volume_file(&text), parse_log_file(&text));
    }

    #[test]
    fn records_of_a_disk_with_fields_changed(edits in edits(4)) {
        let identity = records::encode_identity(&sample::identity());
        let header = records::encode_header(&sample::header(&sample::context(3), 77));
        let slots = records::encode_slots(&records::Slots {
            disk: sample::identity().disk,
            sequence: 1,
            table: [sample::slot()].into_iter().collect(),
        });
        let mut all = [identity, header, slots, filled_heading()];
        for bytes in &mut all {
            edit_frame(bytes, &edits);
            let _ = records::decode_identity(bytes);
            let _ = records::decode_root(bytes);
            let _ = records::decode_slots(bytes);
            let _ = records::decode_header(bytes);
            let _ = decode_heading(bytes);
        }
    }

    #[test]
    fn a_window_is_no_longer_than_its_file(len in 0u64..300_000, at in any::<u64>(), wanted in any::<u64>()) {
        let disk = SimDisk::new(1);
        let file = disk.io().open(Path::new("file"), OpenHow::CreateNew).unwrap();
        file.set_len(len).unwrap();
        let mut source = Source::new(&*file, BadSectors::Refuse).unwrap();
        for (at, wanted) in [(at % 400_000, wanted), (at, wanted), (0, wanted)] {
            let bytes = source.bytes(at, wanted).unwrap().len() as u64;
            prop_assert_eq!(bytes, wanted.min(len.saturating_sub(at)));
            prop_assert!(source.held_bytes() <= len.next_multiple_of(4096));
        }
    }
}

fn filled_heading() -> Vec<u8> {
    super::format::encode_heading(&Heading {
        cluster: sample::identity().cluster,
        disk: sample::identity().disk,
        group: sample::GROUP,
        sequence: 1,
        salt: 77,
        size: 1 << 20,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn volumes_with_fields_changed(
        edits in edits(3),
        which in any::<Place>(),
        place in any::<Place>(),
        head_only in any::<bool>(),
        heads in any::<bool>(),
        alone in any::<bool>(),
    ) {
        let disk = filled();
        let volumes = files(&disk, "vol");
        let path = &volumes[which.index(volumes.len())];
        let mut bytes = disk.bytes(path).unwrap();
        let heading = heading_of(&bytes);
        if heads {
            edit_frame(&mut bytes, &edits);
            let (first, second) = bytes.split_at_mut(4096);
            second[..200].copy_from_slice(&first[..200]);
        } else {
            let records = starts(&bytes, b"SG.vrec\0", 64);
            let at = records[place.index(records.len())];
            edit_record(&heading, at, &mut bytes, &edits, head_only);
            let head = decode_head(&heading, at as u64, &bytes[at..]);
            if let Some(head) = head {
                let _ = decode_meta(heading.salt, at as u64, &head, &bytes[at..]);
                prop_assert!(at as u64 + head.span(at as u64) <= heading.size + 64);
            }
        }
        write(&disk, path, &bytes);
        if alone {
            // It is found by its records.
            for directory in files(&disk, "dir") {
                disk.io().remove(&directory).unwrap();
            }
        }
        use_it(&disk);
    }

    #[test]
    fn directories_with_fields_changed(
        edits in edits(3),
        which in any::<Place>(),
        pages in any::<bool>(),
    ) {
        let disk = filled();
        let directories = files(&disk, "dir");
        let path = &directories[which.index(directories.len())];
        let mut bytes = disk.bytes(path).unwrap();
        let head = decode_directory_head(&bytes).unwrap();
        if pages {
            let at = usize::try_from(head.pages_at).unwrap();
            let page = &mut bytes[at..at + DIRECTORY_PAGE];
            apply(page, &edits);
            seal_keyed(&head.heading, at as u64, page);
            let _ = decode_page(head.heading.salt, at as u64, page);
        } else {
            edit_frame(&mut bytes, &edits);
            if let Ok(head) = decode_directory_head(&bytes) {
                prop_assert!(16 * head.fence.len() <= bytes.len());
            }
        }
        write(&disk, path, &bytes);
        use_it(&disk);
    }

    #[test]
    fn logs_with_fields_changed(edits in edits(3), place in any::<Place>()) {
        let disk = filled();
        let mut files = disk.files().into_iter().map(|(path, _)| path);
        let path = files.rfind(|path| path.starts_with(LOG)).unwrap();
        let mut bytes = disk.bytes(&path).unwrap();
        let heading = heading_of(&bytes);
        let batches = starts(&bytes, b"SG.dbat\0", 512);
        let at = batches[place.index(batches.len())];
        edit_batch(&heading, at, &mut bytes, &edits);
        write(&disk, &path, &bytes);
        use_it(&disk);
    }
}

#[test]
fn the_disk_that_is_changed_is_whole_before() {
    let disk = filled();
    let (volumes, directories) = (files(&disk, "vol"), files(&disk, "dir"));
    assert!(volumes.len() > directories.len() && !directories.is_empty());
    let engine = open(&disk).unwrap();
    assert_eq!(engine.check(false).unwrap().findings, []);
    for blob in 5..BLOBS {
        let read = engine.read(sample::key(blob), 0, 700).unwrap();
        assert_eq!(read.is_some(), blob != 9, "{blob}");
    }
}

//! Notes over a disk that loses what was not synced, tears and rots.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_wire::ids::{BlobId, CommitNumber, GroupId};
use shardgate_wire::note::NoteOrder;

use super::*;
use crate::io::sim::{Faults, SimDisk};

const DISK: DiskId = DiskId(7);

/// Small files, so that a test has many.
fn book(disk: &SimDisk) -> NoteBook {
    let condition = Arc::new(Condition::good(DISK));
    let mut book = NoteBook::open(disk.io(), DISK, condition).unwrap();
    book.file_bytes = 8 * 1024;
    book
}

fn note(blob: u64, commit: u64) -> BlobNote {
    BlobNote {
        group: GroupId(blob % 3),
        blob: BlobId(blob.into()),
        order: NoteOrder {
            history: 1,
            commit: CommitNumber(commit),
        },
        state: NoteState::Published(vec![blob as u8; 100 + (blob % 900) as usize]),
    }
}

type Read = (BTreeMap<BlobId, BlobNote>, u32);

fn read_all(book: &NoteBook) -> Read {
    let (mut held, mut damaged, mut from) = (BTreeMap::new(), 0, None);
    loop {
        let page = book.page(from).unwrap();
        damaged += page.damaged;
        for note in page.notes {
            let before = held.get(&note.blob);
            if before.is_none_or(|before| note.overrules(before)) {
                held.insert(note.blob, note);
            }
        }
        match page.next {
            Some(next) => from = Some(next),
            None => return (held, damaged),
        }
    }
}

/// A generator that needs no crate: the seed is the test's.
fn draw(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    *state >> 33
}

#[test]
fn what_was_answered_survives_every_loss_of_power() {
    for seed in 0..60_u64 {
        let disk = SimDisk::new(seed);
        let mut state = seed;
        let mut answered = BTreeMap::new();
        let mut tried = BTreeMap::<BlobId, Vec<BlobNote>>::new();
        for _ in 0..6 {
            let opened = book(&disk);
            let off = draw(&mut state) % 60 + 1;
            disk.set_faults(Faults {
                power_off: Some(off),
                ..Faults::default()
            });
            for _ in 0..12 {
                let many = draw(&mut state) % 20 + 1;
                let notes: Vec<_> = (0..many)
                    .map(|_| note(draw(&mut state) % 200, draw(&mut state) % 1000))
                    .collect();
                for note in &notes {
                    tried.entry(note.blob).or_default().push(note.clone());
                }
                if opened.append(&notes).is_err() {
                    break;
                }
                for note in notes {
                    let held: Option<&BlobNote> = answered.get(&note.blob);
                    if held.is_none_or(|held| note.overrules(held)) {
                        answered.insert(note.blob, note);
                    }
                }
            }
            disk.power_loss(seed);
            disk.set_faults(Faults::default());
            let (held, damaged) = read_all(&book(&disk));
            assert_eq!(damaged, 0, "seed {seed}: a torn end is no damage");
            for (blob, note) in &answered {
                let found = held.get(blob);
                let kept = found.is_some_and(|found| found == note || found.overrules(note));
                assert!(
                    kept,
                    "seed {seed}: {note:?} was answered, {found:?} is there"
                );
            }
            for note in held.values() {
                assert!(tried[&note.blob].contains(note), "seed {seed}: {note:?}");
            }
        }
    }
}

#[test]
fn damage_hides_its_own_notes_alone_and_is_counted() {
    let disk = SimDisk::new(1);
    let opened = book(&disk);
    for blob in 0..80 {
        opened.append(&[note(blob, 1)]).unwrap();
    }
    let files = disk.files();
    let notes = files.iter().filter(|(path, _)| path.starts_with(NOTES));
    let (path, len) = notes.clone().next().expect("there is a file");
    assert!(notes.count() > 3 && *len > 4096);
    // The second batch of the first file, and not its last one.
    disk.flip_bit(path, SECTOR + 40, 3);
    let (held, damaged) = read_all(&opened);
    assert_eq!((held.len(), damaged), (79, 1));
    // Bytes of another place are no notes of this one.
    let whole = disk.bytes(path).unwrap();
    let place = Place {
        disk: DISK,
        file: 1,
        offset: 0,
    };
    assert!(matches!(format::decode(place, &whole), Ok(Some(_))));
    for other in [
        Place {
            disk: DiskId(8),
            ..place
        },
        Place { file: 2, ..place },
        Place {
            offset: 512,
            ..place
        },
    ] {
        assert_eq!(format::decode(other, &whole), Ok(None));
    }
}

#[test]
fn cleaning_keeps_what_has_shards_and_bounds_the_files() {
    for seed in 0..6 {
        let disk = SimDisk::new(seed);
        let mut state = seed;
        let mut shards = BTreeSet::new();
        let mut opened = book(&disk);
        let mut longest = 0;
        for step in 0..150_u64 {
            let blobs: Vec<u64> = (0..8).map(|n| step * 8 + n).collect();
            let notes: Vec<_> = blobs.iter().map(|blob| note(*blob, *blob)).collect();
            opened.append(&notes).unwrap();
            shards.extend(blobs);
            while shards.len() > 40 {
                shards.pop_first();
            }
            let cleaned = |opened: &NoteBook| {
                opened.clean(&mut |blobs| {
                    let held = blobs
                        .iter()
                        .map(|(_, blob)| shards.contains(&(blob.0 as u64)));
                    Ok(held.collect())
                })
            };
            if step % 20 == 19 {
                // The power goes in the middle of it.
                let off = draw(&mut state) % 12 + 1;
                disk.set_faults(Faults {
                    power_off: Some(off),
                    ..Faults::default()
                });
                while cleaned(&opened) == Ok(true) {}
                disk.power_loss(seed);
                disk.set_faults(Faults::default());
                opened = book(&disk);
            }
            while cleaned(&opened) == Ok(true) {}
            let (held, damaged) = read_all(&opened);
            assert_eq!(damaged, 0);
            for blob in &shards {
                let found = held.get(&BlobId((*blob).into()));
                assert_eq!(found, Some(&note(*blob, *blob)), "seed {seed} step {step}");
            }
            // Blob 0 is none: its note is about the group.
            let of_group = held.get(&BlobId(0));
            assert_eq!(of_group, Some(&note(0, 0)), "seed {seed} step {step}");
            longest = longest.max(opened.state.lock().bytes());
        }
        // 1,200 notes are some 700 KB; the 40 that count are below 40 KB.
        assert!(longest < 200 * 1024, "seed {seed}: {longest} bytes");
    }
}

#[test]
fn a_full_disk_refuses_and_keeps_what_it_has() {
    let disk = SimDisk::new(3);
    let opened = book(&disk);
    opened.append(&[note(1, 1)]).unwrap();
    let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
    disk.set_faults(Faults {
        capacity: Some(used),
        ..Faults::default()
    });
    let many: Vec<_> = (2..50).map(|blob| note(blob, 1)).collect();
    assert_eq!(opened.append(&many), Err(StoreError::NoSpace));
    disk.set_faults(Faults::default());
    opened.append(&[note(99, 1)]).unwrap();
    let (held, damaged) = read_all(&opened);
    assert_eq!(damaged, 0);
    assert!(held.contains_key(&BlobId(1)) && held.contains_key(&BlobId(99)));
}

#[test]
fn a_folder_that_cannot_be_listed_fences_and_counts_as_damaged() {
    let disk = SimDisk::new(1);
    book(&disk).append(&[note(1, 1)]).expect("kept");
    disk.set_faults(Faults {
        unreadable: vec![Path::new(NOTES).to_owned()],
        ..Faults::default()
    });
    let book = book(&disk);
    assert!(book.condition.fenced().is_some());
    let page = book.page(None).expect("answered");
    assert_eq!((page.notes.len(), page.next, page.damaged), (0, None, 1));
    let kept = book.append(&[note(2, 1)]);
    assert!(matches!(kept, Err(StoreError::Fenced { .. })), "{kept:?}");
}

#[test]
fn a_disk_that_is_often_opened_anew_is_cleaned_all_the_same() {
    let disk = SimDisk::new(5);
    let mut longest = 0;
    for step in 0..150_u64 {
        let opened = book(&disk);
        let blobs = step * 8..step * 8 + 8;
        let notes: Vec<_> = blobs.clone().map(|blob| note(blob, 1)).collect();
        opened.append(&notes).expect("kept");
        let mut held = |of: &[(GroupId, BlobId)]| {
            let recent = |blob: u64| blob + 40 >= blobs.end;
            Ok(of.iter().map(|(_, blob)| recent(blob.0 as u64)).collect())
        };
        while opened.clean(&mut held) == Ok(true) {}
        longest = longest.max(opened.state.lock().bytes());
    }
    assert!(longest < 200 * 1024, "{longest} bytes");
    let marks = disk.files().into_iter().filter(|(path, len)| {
        let name = path.file_name().and_then(|name| name.to_str());
        *len == 0 && name.and_then(|name| parse_file(name, CLEANED)).is_some()
    });
    assert_eq!(marks.count(), 1);
}

#[test]
fn a_file_that_lost_its_name_takes_no_notes() {
    let disk = SimDisk::new(1);
    let opened = book(&disk);
    opened.append(&[note(1, 1)]).expect("kept");
    disk.io().remove(&file_path(1)).expect("there is one");
    let kept = opened.append(&[note(2, 1)]);
    assert!(matches!(kept, Err(StoreError::Lost { .. })), "{kept:?}");
}

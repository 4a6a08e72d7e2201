//! The simulator loses what it may lose, and never what was synced.

use std::collections::BTreeSet;

use super::*;

const SEEDS: u64 = 200;

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(io: &dyn DiskIo, name: &str) -> Arc<dyn DiskFile> {
    io.open(path(name), OpenHow::CreateNew).unwrap()
}

fn write(file: &dyn DiskFile, bytes: &[u8], offset: u64) {
    file.write_at(&[IoSlice::new(bytes)], offset).unwrap();
}

/// A file that is durable in full, name and all.
fn durable(io: &dyn DiskIo, name: &str, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = create(io, name);
    write(&*file, bytes, 0);
    file.sync_data().unwrap();
    io.sync_dir(path(name).parent().unwrap()).unwrap();
    file
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    result.err().as_ref().and_then(Errno::from_io_error)
}

fn past_cache(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.io().open(path(name), OpenHow::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_past_cache(&mut bytes, 0).unwrap();
    bytes
}

/// What a run with each seed leaves.
fn outcomes<T: Ord>(run: impl Fn(&SimDisk), see: impl Fn(&SimDisk) -> T) -> BTreeSet<T> {
    (0..SEEDS)
        .map(|seed| {
            let disk = SimDisk::new(7);
            run(&disk);
            disk.power_loss(seed);
            see(&disk)
        })
        .collect()
}

#[test]
fn conforms() {
    super::super::conforms::run(&*SimDisk::new(1).io());
}

#[test]
fn synced_data_is_always_there() {
    let left = outcomes(
        |disk| {
            let io = disk.io();
            io.create_dir(path("folder")).unwrap();
            io.sync_dir(path("")).unwrap();
            let file = durable(&*io, "folder/file", &[1; 3000]);
            write(&*file, &[2; 700], 3000);
            file.sync_all().unwrap();
        },
        |disk| disk.bytes(path("folder/file")),
    );
    let whole = [[1; 3000].as_slice(), &[2; 700]].concat();
    assert_eq!(left, BTreeSet::from([Some(whole)]));
}

#[test]
fn unsynced_writes_survive_by_sector_in_any_version() {
    let left = outcomes(
        |disk| {
            let io = disk.io();
            let file = durable(&*io, "file", &[1; 1024]);
            write(&*file, &[2; 1024], 0);
            write(&*file, &[3; 1024], 0);
        },
        |disk| {
            let bytes = disk.bytes(path("file")).unwrap();
            assert!(bytes.chunks(512).all(|c| c.iter().all(|b| *b == c[0])));
            (bytes[0], bytes[512])
        },
    );
    // Each sector has any of its versions, whatever the other has.
    let all = (1..=3).flat_map(|a| (1..=3).map(move |b| (a, b))).collect();
    assert_eq!(left, all);
}

#[test]
fn unsynced_lengths_survive_or_not() {
    let left = outcomes(
        |disk| {
            let io = disk.io();
            let file = durable(&*io, "file", &[1; 100]);
            write(&*file, &[2; 100], 100);
            file.set_len(50).unwrap();
        },
        |disk| disk.bytes(path("file")).unwrap().len(),
    );
    assert_eq!(left, BTreeSet::from([50, 100, 200]));
}

#[test]
fn unsynced_punches_survive_or_not() {
    let left = outcomes(
        |disk| {
            let io = disk.io();
            let file = durable(&*io, "file", &[1; 2048]);
            file.punch(512, 1024).unwrap();
        },
        |disk| {
            let bytes = disk.bytes(path("file")).unwrap();
            assert_eq!((bytes[0], bytes[2047]), (1, 1));
            (bytes[512], bytes[1024])
        },
    );
    assert_eq!(left, BTreeSet::from([(0, 0), (0, 1), (1, 0), (1, 1)]));
}

#[test]
fn unsynced_names_survive_or_not() {
    let names = |disk: &SimDisk| {
        let files = disk.files().into_iter();
        files.map(|(path, _)| path.into_os_string()).collect()
    };
    let left: BTreeSet<Vec<_>> = outcomes(
        |disk| {
            let io = disk.io();
            durable(&*io, "old", b"1");
            io.remove(path("old")).unwrap();
            create(&*io, "new").sync_all().unwrap();
        },
        names,
    );
    let all = [vec![], vec!["new"], vec!["old"], vec!["new", "old"]];
    let all = all.map(|names| names.into_iter().map(Into::into).collect());
    assert_eq!(left, BTreeSet::from(all));
}

#[test]
fn a_rename_is_one_change() {
    let see = |disk: &SimDisk| ["a", "b"].map(|name| disk.bytes(path(name)));
    let left = outcomes(
        |disk| {
            let io = disk.io();
            durable(&*io, "a", b"new");
            durable(&*io, "b", b"old");
            io.rename(path("a"), path("b")).unwrap();
        },
        see,
    );
    let before = [Some(b"new".to_vec()), Some(b"old".to_vec())];
    let after = [None, Some(b"new".to_vec())];
    assert_eq!(left, BTreeSet::from([before, after.clone()]));
    let left = outcomes(
        |disk| {
            let io = disk.io();
            durable(&*io, "a", b"new");
            io.rename(path("a"), path("b")).unwrap();
        },
        see,
    );
    let before = [Some(b"new".to_vec()), None];
    assert_eq!(left, BTreeSet::from([before, after.clone()]));
    let left = outcomes(
        |disk| {
            let io = disk.io();
            durable(&*io, "a", b"new");
            io.rename(path("a"), path("b")).unwrap();
            io.sync_dir(path("")).unwrap();
        },
        see,
    );
    assert_eq!(left, BTreeSet::from([after]));
}

#[test]
fn a_folder_that_was_not_synced_takes_its_files_along() {
    let left = outcomes(
        |disk| {
            let io = disk.io();
            io.create_dir(path("folder")).unwrap();
            durable(&*io, "folder/file", b"1");
        },
        |disk| disk.files().len(),
    );
    assert_eq!(left, BTreeSet::from([0, 1]));
}

#[test]
fn space_that_was_not_synced_shows_old_bytes() {
    let run = |sync: bool| {
        move |disk: &SimDisk| {
            let io = disk.io();
            durable(&*io, "old", &[9; 4096]);
            io.remove(path("old")).unwrap();
            io.sync_dir(path("")).unwrap();
            let file = create(&*io, "new");
            io.sync_dir(path("")).unwrap();
            file.allocate_zeroed(0, 4096).unwrap();
            if sync {
                file.sync_all().unwrap();
            }
        }
    };
    let see = |disk: &SimDisk| {
        let bytes = disk.bytes(path("new")).unwrap();
        bytes.iter().copied().collect::<BTreeSet<u8>>()
    };
    let left = outcomes(run(false), see);
    assert!(left.contains(&BTreeSet::from([0, 9])), "{left:?}");
    assert_eq!(outcomes(run(true), see), BTreeSet::from([[0].into()]));
    let no_old = |disk: &SimDisk| {
        disk.set_old_bytes(false);
        run(false)(disk);
    };
    assert_eq!(
        outcomes(no_old, see),
        BTreeSet::from([[0].into(), [].into()])
    );
    // Where zeroing is left out it shows at once.
    let disk = SimDisk::new(1);
    disk.set_sabotage(Sabotage {
        zeroing: true,
        ..Sabotage::default()
    });
    run(true)(&disk);
    assert_eq!(see(&disk), BTreeSet::from([9]));
}

#[test]
fn a_failed_sync_drops_what_reads_still_show() {
    let mut dropped = 0;
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let io = disk.io();
        let file = durable(&*io, "file", &[1; 2048]);
        write(&*file, &[2; 2048], 0);
        disk.set_faults(Faults {
            fail_sync: Some(1),
            ..Faults::default()
        });
        assert_eq!(errno(file.sync_data()), Some(Errno::IO));
        file.sync_data().expect("later ones succeed");
        assert_eq!(disk.bytes(path("file")).unwrap(), [2; 2048]);
        let on_device = past_cache(&disk, "file");
        assert!(on_device.iter().all(|byte| [1, 2].contains(byte)));
        dropped += usize::from(on_device.contains(&1));
        if seed % 2 == 0 {
            disk.drop_cache();
        } else {
            disk.power_loss(seed);
        }
        assert_eq!(disk.bytes(path("file")).unwrap(), on_device);
    }
    assert!(dropped > 50, "{dropped}");
}

#[test]
fn the_power_goes_at_a_given_change() {
    let mut written = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let io = disk.io();
        let file = durable(&*io, "file", &[1; 512]);
        disk.set_faults(Faults {
            power_off: Some(2),
            ..Faults::default()
        });
        write(&*file, &[2; 512], 0);
        assert!(!disk.is_off());
        // May have been done, though it was not answered.
        assert_eq!(errno(file.sync_data()), Some(Errno::IO));
        assert!(disk.is_off());
        assert_eq!(errno(file.read_at(&mut [0], 0)), Some(Errno::IO));
        disk.power_loss(seed);
        assert_eq!(errno(file.len()), Some(Errno::IO));
        assert_eq!(errno(io.read_dir(path(""))), Some(Errno::IO));
        written.insert(disk.bytes(path("file")).unwrap()[0]);
    }
    assert_eq!(written, BTreeSet::from([1, 2]));
}

#[test]
fn faults_hit_what_they_name() {
    let disk = SimDisk::new(3);
    let io = disk.io();
    let file = durable(&*io, "file", &[1; 4096]);
    let set = |faults| disk.set_faults(faults);
    set(Faults {
        fail_write: Some(2),
        ..Faults::default()
    });
    write(&*file, &[2; 10], 0);
    let failed = file.write_at(&[IoSlice::new(&[3; 4096])], 0);
    assert_eq!(errno(failed), Some(Errno::IO));
    write(&*file, &[4; 4096], 0);
    set(Faults {
        capacity: Some(8192),
        ..Faults::default()
    });
    assert_eq!(io.space().unwrap().free, 4096);
    file.allocate_zeroed(4096, 4096).unwrap();
    let full = file.write_at(&[IoSlice::new(&[5])], 8192);
    assert_eq!(errno(full), Some(Errno::NOSPC));
    file.punch(0, 4096).unwrap();
    write(&*file, &[5], 8192);
    set(Faults {
        read_only: true,
        ..Faults::default()
    });
    assert_eq!(errno(file.set_len(1)), Some(Errno::ROFS));
    assert_eq!(errno(io.remove(path("file"))), Some(Errno::ROFS));
    assert_eq!(file.read_at(&mut [0], 8192).unwrap(), 1);
    set(Faults {
        unreadable: vec!["file".into()],
        ..Faults::default()
    });
    assert_eq!(errno(file.read_at(&mut [0], 0)), Some(Errno::IO));
    set(Faults::default());
    disk.flip_bit(path("file"), 8192, 1);
    assert_eq!(disk.bytes(path("file")).unwrap()[8192], 5 ^ 2);
    assert_eq!(past_cache(&disk, "file")[8192], 5 ^ 2);
    disk.cut(path("file"), 100);
    assert_eq!(file.len().unwrap(), 100);
}

#[test]
fn a_restart_keeps_the_page_cache() {
    let disk = SimDisk::new(3);
    let io = disk.io();
    let file = create(&*io, "file");
    write(&*file, b"123", 0);
    disk.restart();
    assert_eq!(errno(file.len()), Some(Errno::IO));
    assert_eq!(disk.bytes(path("file")).unwrap(), b"123");
    drop(file);
    let file = disk.io().open(path("file"), OpenHow::Read).unwrap();
    assert_eq!(file.len().unwrap(), 3);
}

#[test]
fn one_seed_is_one_outcome() {
    let run = || {
        let disk = SimDisk::new(11);
        let io = disk.io();
        let file = durable(&*io, "file", &[1; 20_000]);
        write(&*file, &[2; 20_000], 100);
        disk.power_loss(5);
        disk.bytes(path("file"))
    };
    assert_eq!(run(), run());
}

#[test]
fn sabotaged_syncs_do_nothing() {
    let run = |sabotage: Sabotage| {
        move |disk: &SimDisk| {
            disk.set_sabotage(sabotage);
            durable(&*disk.io(), "file", &[1; 512]);
        }
    };
    let see = |disk: &SimDisk| disk.bytes(path("file")).map(|bytes| bytes.len());
    let none = Sabotage::default();
    assert_eq!(outcomes(run(none), see), [Some(512)].into());
    let file_sync = Sabotage {
        file_sync: true,
        ..none
    };
    assert_eq!(outcomes(run(file_sync), see), [Some(0), Some(512)].into());
    let folder_sync = Sabotage {
        folder_sync: true,
        ..none
    };
    assert_eq!(outcomes(run(folder_sync), see), [None, Some(512)].into());
}

#[test]
fn calls_are_counted() {
    let disk = SimDisk::new(1);
    let io = disk.io();
    let file = durable(&*io, "file", &[1; 512]);
    file.read_at(&mut [0; 100], 500).unwrap();
    let counted = Counters {
        creates: 1,
        reads: 1,
        read_bytes: 12,
        writes: 1,
        written_bytes: 512,
        file_syncs: 1,
        folder_syncs: 1,
        ..Counters::default()
    };
    assert_eq!(disk.counters(), counted);
}

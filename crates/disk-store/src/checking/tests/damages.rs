//! Each kind of damage, in a table: it is found in its place, nothing else is,
//! and once it is undone nothing is found.

use std::path::{Path, PathBuf};

use shardgate_wire::conformance::sample;
use shardgate_wire::store::MAX_READ_BYTES;
use shardgate_wire::{Finding, ShardKey, ShardStore};

use crate::LocalDisk;

use super::world::{FILE_LEN, IN_FILES, SMALL, World, check_all, flip, runtime};

/// What is done to a disk, and what is found then.
struct Case {
    name: &'static str,
    damage: Damage,
    /// What each finding's place begins with.
    place: String,
    /// The blob that is damaged, if its key is known.
    blob: Option<u128>,
}

enum Damage {
    Flip(PathBuf, u64),
    Cut(PathBuf, u64),
    Gone(PathBuf),
    /// The content of another file.
    Foreign(PathBuf, PathBuf),
    Extra(PathBuf),
}

impl Damage {
    /// Does it, and gives what undoes it.
    fn run(&self, aside: &Path) -> Box<dyn FnOnce()> {
        let keep = |path: &PathBuf| {
            // The file itself, which the disk may have open.
            let (path, bytes) = (path.clone(), std::fs::read(path).unwrap());
            let mode = std::fs::metadata(&path).unwrap().permissions();
            Box::new(move || write(&path, &bytes, mode))
        };
        match self {
            Self::Flip(path, at) => {
                flip(path, *at);
                let (path, at) = (path.clone(), *at);
                Box::new(move || flip(&path, at))
            }
            Self::Cut(path, len) => {
                let undo = keep(path);
                let mode = std::fs::metadata(path).unwrap().permissions();
                let bytes = std::fs::read(path).unwrap();
                write(path, &bytes[..*len as usize], mode);
                undo
            }
            Self::Foreign(path, other) => {
                let undo = keep(path);
                let mode = std::fs::metadata(path).unwrap().permissions();
                write(path, &std::fs::read(other).unwrap(), mode);
                undo
            }
            Self::Gone(path) => {
                let (from, to) = (path.clone(), aside.join("gone"));
                std::fs::rename(&from, &to).unwrap();
                Box::new(move || std::fs::rename(to, from).unwrap())
            }
            Self::Extra(path) => {
                std::fs::write(path, b"whose is it?").unwrap();
                let path = path.clone();
                Box::new(move || std::fs::remove_file(path).unwrap())
            }
        }
    }
}

fn write(path: &Path, bytes: &[u8], mode: std::fs::Permissions) {
    use std::os::unix::fs::{FileExt, PermissionsExt};
    let mut writable = mode.clone();
    writable.set_mode(0o600);
    std::fs::set_permissions(path, writable).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.sync_all().unwrap();
    std::fs::set_permissions(path, mode).unwrap();
}

fn u32_at(path: &Path, at: u64) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    let at = at as usize;
    u64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()))
}

fn u64_at(path: &Path, at: u64) -> u64 {
    u32_at(path, at) << 32 | u32_at(path, at + 4)
}

impl World {
    fn place_of(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.dir.path()).unwrap();
        path.to_string_lossy().into_owned()
    }

    fn volume_place(&self, path: &Path) -> String {
        let number = path.file_stem().unwrap().to_string_lossy().into_owned();
        format!("volume {}/{number}", sample::GROUP)
    }
}

fn of_records(world: &World) -> Vec<Case> {
    let mut cases = vec![];
    for name in ["root-a", "root-b", "slots-a", "slots-b"] {
        let path = world.dir.path().join(name);
        let mut add = |name, damage| {
            cases.push(Case {
                name,
                damage,
                place: world.place_of(&path),
                blob: None,
            });
        };
        add("record, magic", Damage::Flip(path.clone(), 3));
        add("record, payload", Damage::Flip(path.clone(), 60));
        add("record, cut", Damage::Cut(path.clone(), 30));
        add("record, gone", Damage::Gone(path.clone()));
        let other = world.dir.path().join("identity");
        add("record, foreign", Damage::Foreign(path.clone(), other));
    }
    for folder in ["", "log", "notes", "journal", "shards", "volumes"] {
        let path = world.dir.path().join(folder).join("extra");
        cases.push(Case {
            name: "extra file",
            place: world.place_of(&path),
            damage: Damage::Extra(path),
            blob: None,
        });
    }
    let group = sample::GROUP.to_string();
    let deeper = [
        world.dir.path().join("volumes").join(&group).join("1.vol"),
        world.dir.path().join("shards").join(&group).join("extra"),
        world.file_of(IN_FILES.start).with_file_name("extra"),
        // A name that could be, of a volume that nobody made.
        world
            .dir
            .path()
            .join("volumes")
            .join(&group)
            .join("00000000000fffff.vol"),
    ];
    for path in deeper {
        cases.push(Case {
            name: "extra file within",
            place: world.place_of(&path),
            damage: Damage::Extra(path),
            blob: None,
        });
    }
    cases
}

/// Damage to the record of a shard, at these places of it.
fn of_record(world: &World, blob: u128, kind: u8) -> Vec<Case> {
    let (path, at) = world.record(sample::key(blob), kind).pop().unwrap();
    let n = u32_at(&path, at + 12);
    let bytes = u64_at(&path, at + 32);
    let places = [
        ("head", at + 20),
        ("head's checksum", at + 70),
        ("header", at + 72 + 30),
        ("checksums", at + n - 6),
        ("record's checksum", at + n - 2),
        ("bytes", bytes + 1),
    ];
    let case = |(name, at)| Case {
        name,
        damage: Damage::Flip(path.clone(), at),
        place: world.volume_place(&path),
        blob: Some(blob),
    };
    places.into_iter().map(case).collect()
}

fn of_volumes(world: &World, sealed: &Path) -> Vec<Case> {
    let place = world.volume_place(sealed);
    let directory = sealed.with_extension("dir");
    let mut cases = vec![];
    let mut add = |name, damage, place: &str, blob| {
        let place = place.to_owned();
        cases.push(Case {
            name,
            damage,
            place,
            blob,
        });
    };
    let flip = |path: &Path, at| Damage::Flip(path.to_owned(), at);
    for at in [30, 4096 + 30] {
        add("heading", flip(sealed, at), &place, None);
    }
    let (linked, link) = world.record(sample::key(102), 2).pop().unwrap();
    let of_link = world.volume_place(&linked);
    add("link", flip(&linked, link + 50), &of_link, Some(102));
    let seals = world.record(sample::key(0), 3);
    let (_, seal) = seals.iter().find(|(path, _)| path == sealed).unwrap();
    add("seal", flip(sealed, seal + 20), &place, None);
    add(
        "volume, gone",
        Damage::Gone(sealed.to_owned()),
        &place,
        None,
    );
    let cut = Damage::Cut(sealed.to_owned(), 20_000);
    add("volume, cut", cut, &place, None);
    let other = Damage::Foreign(sealed.to_owned(), directory.clone());
    add("volume, foreign", other, &place, None);
    let place = format!("directory of {place}");
    let pages = std::fs::metadata(&directory).unwrap().len() - 4096;
    add("directory, head", flip(&directory, 40), &place, None);
    add("directory, page", flip(&directory, pages + 9), &place, None);
    let cut = Damage::Cut(directory.clone(), pages + 100);
    add("directory, cut", cut, &place, None);
    let gone = Damage::Gone(directory.clone());
    add("directory, gone", gone, &place, None);
    cases.extend(of_record(world, 5, 1));
    cases.extend(of_record(world, 103, 7));
    cases
}

fn of_files(world: &World) -> Vec<Case> {
    let blob = IN_FILES.start;
    let path = world.file_of(blob);
    let len = std::fs::metadata(&path).unwrap().len();
    let case = |name, damage| Case {
        name,
        damage,
        place: world.place_of(&path),
        blob: Some(blob),
    };
    let flip = |at| Damage::Flip(path.clone(), at);
    let other = world.file_of(blob + 1);
    vec![
        case("file, header", flip(40)),
        case("file, first block", flip(4096)),
        case("file, last block", flip(4096 + FILE_LEN as u64 - 1)),
        case("file, checksums", flip(len - 96 - 5)),
        case("file, trailer", flip(len - 60)),
        case("file, cut", Damage::Cut(path.clone(), len - 4096)),
        case("file, empty", Damage::Cut(path.clone(), 0)),
        case("file, foreign", Damage::Foreign(path.clone(), other)),
    ]
}

fn of_logs(world: &World) -> Vec<Case> {
    let one = |folder: &str, ending: &str| world.files(folder, ending).pop().unwrap();
    let (log, notes) = (one("log", "log"), one("notes", "notes"));
    let journal = format!("journal/{:016x}", world.segment.0.0);
    let journal = world.dir.path().join(journal);
    let notes_len = std::fs::metadata(&notes).unwrap().len();
    let end = world.segment.1;
    let case = |name, path: &PathBuf, damage| Case {
        name,
        damage,
        place: world.place_of(path),
        blob: None,
    };
    let flip = |path: &PathBuf, at| Damage::Flip(path.clone(), at);
    let cut = |path: &PathBuf, len| Damage::Cut(path.clone(), len);
    vec![
        case("log, heading", &log, flip(&log, 30)),
        case("log, copy of it", &log, flip(&log, 4096 + 30)),
        case("log, head of a batch", &log, flip(&log, 8192 + 13)),
        case("log, entry", &log, flip(&log, 8192 + 30)),
        case("log, cut", &log, cut(&log, 9000)),
        case("log, gone", &log, Damage::Gone(log.clone())),
        case("notes, first", &notes, flip(&notes, 200)),
        case("notes, last", &notes, flip(&notes, notes_len - 700)),
        case("notes, cut", &notes, cut(&notes, notes_len - 600)),
        case("notes, gone", &notes, Damage::Gone(notes.clone())),
        case("journal, first", &journal, flip(&journal, 100)),
        case("journal, within", &journal, flip(&journal, 4096 + 5000)),
        case("journal, last", &journal, flip(&journal, end - 4096 + 120)),
        case("journal, cut", &journal, cut(&journal, 4096)),
    ]
}

/// The zeroes of a file that is filled up, where nothing is.
fn is_expected(found: &[Finding], case: &Case) -> bool {
    let there = |finding: &Finding| finding.place.starts_with(&case.place);
    let key = case.blob.map(sample::key);
    let names_it = key.is_none() || found.iter().any(|finding| finding.shard == key);
    let only_it = || found.iter().all(|f| f.shard.is_none() || f.shard == key);
    !found.is_empty() && found.iter().all(there) && names_it && (key.is_none() || only_it())
}

/// Whether the whole shard reads.
async fn reads(disk: &LocalDisk, key: ShardKey) -> bool {
    let Ok(stat) = disk.stat(key).await else {
        return false;
    };
    let len = stat.end.expect("it is finished").shard_len;
    for offset in (0..len).step_by(MAX_READ_BYTES) {
        let take = u32::try_from((len - offset).min(MAX_READ_BYTES as u64)).unwrap();
        if disk.read(key, offset, take).await.is_err() {
            return false;
        }
    }
    true
}

#[test]
fn each_damage_is_found_in_its_place_and_no_other_is() {
    runtime().block_on(async {
        let mut world = World::new().await;
        let sealed = world.sealed().await;
        // And an open one, with a record that is not the last.
        for blob in [500, 501] {
            world.put(blob, 2000).await;
        }
        let whole = check_all(&world.disk, None).await;
        assert_eq!(whole.findings, []);
        let stored = SMALL.count() as u64 + 4 + 3 - 4 + 2;
        assert_eq!(whole.shards, stored, "{whole:?}");
        let aside = tempfile::tempdir_in(world.dir.path().parent().unwrap()).unwrap();
        let cases = [
            of_records(&world),
            of_volumes(&world, &sealed[0]),
            of_record(&world, 500, 1),
            of_files(&world),
            of_logs(&world),
        ];
        for case in cases.iter().flatten() {
            let undo = case.damage.run(aside.path());
            let found = check_all(&world.disk, None).await.findings;
            let what = format!("{} in {}: {found:#?}", case.name, case.place);
            assert!(is_expected(&found, case), "{what}");
            for finding in &found {
                assert!(!finding.what.contains("absent"), "{what}");
            }
            if let Some(blob) = case.blob {
                let damaged = world.disk.damaged().await.unwrap();
                let key = sample::key(blob);
                // What reads as it was written is given up by nobody.
                let is_told = damaged.iter().any(|it| it.key == key);
                assert_ne!(is_told, reads(&world.disk, key).await, "{what}");
            }
            undo();
        }
        let after = check_all(&world.disk, None).await;
        assert_eq!((after.findings, after.shards), (vec![], stored));
    });
}

/// What ends a file of an earlier run may be what a crash left; what is before
/// the end may not.
#[test]
fn the_end_of_a_file_of_before_is_not_judged() {
    runtime().block_on(async {
        let world = World::new().await.reopen().await;
        let notes = world.files("notes", "notes").pop().unwrap();
        let journal = format!("journal/{:016x}", world.segment.0.0);
        let journal = world.dir.path().join(journal);
        let notes_len = std::fs::metadata(&notes).unwrap().len();
        let cases = [
            (&notes, 200, true),
            (&notes, notes_len - 700, false),
            (&journal, 100, true),
            (&journal, world.segment.1 - 4096 + 120, false),
            // Zeroes behind the last batch.
            (&journal, world.segment.1 + 9000, false),
        ];
        for (path, at, found) in cases {
            flip(path, at);
            let findings = check_all(&world.disk, None).await.findings;
            assert_eq!(
                !findings.is_empty(),
                found,
                "{at} of {path:?}: {findings:?}"
            );
            flip(path, at);
        }
    });
}

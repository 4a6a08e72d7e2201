//! The scrub of a disk whose threads do not run: each turn is taken by the
//! test, and what it does is counted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::store::{MAX_APPEND_BYTES, ShardEnd};
use shardgate_wire::{Medium, ShardKey};
use tempfile::TempDir;

use super::*;
use crate::clock::Clock;
use crate::lanes::Lane;
use crate::layout::SCRUB;
use crate::names;
use crate::opening::{self, Expected, NewDisk};
use crate::space::KeptSpace;
use crate::volume::{Op, VolumeFigures};
use crate::window::WindowPlace;

const PERIOD: Duration = Duration::from_secs(3600);
/// Blobs of each kind.
const PACKED: u128 = 1;
const STREAMED: u128 = 2;
const LARGE: u128 = 3;
const STREAMED_LEN: usize = 700_000;
const LARGE_LEN: usize = 3_000_000;

/// A folder with a disk, and the time of day.
struct Folder {
    dir: TempDir,
    now_ms: Arc<AtomicU64>,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let new = NewDisk {
            cluster: sample::CLUSTER,
            disk: sample::identity().disk,
            medium: Some(Medium::Flash),
            create_folder: false,
        };
        opening::format(dir.path(), &new, &DiskOptions::default()).unwrap();
        let now_ms = Arc::new(AtomicU64::new(1_700_000_000_000));
        Self { dir, now_ms }
    }

    fn options(&self) -> DiskOptions {
        let now_ms = Arc::clone(&self.now_ms);
        DiskOptions {
            kept: Some(KeptSpace::NONE),
            volumes: Some(VolumeFigures {
                volume_bytes: 4 << 20,
                volume_max: 1 << 20,
                ..crate::MediumFigures::of(Medium::Flash).volumes
            }),
            scrub_period: Some(PERIOD),
            scrub_max_bytes_per_second: 300_000,
            clock: Clock::new(move || now_ms.load(Ordering::Relaxed)),
            ..DiskOptions::default()
        }
    }

    fn open(&self) -> Arc<Core> {
        self.open_with(self.options())
    }

    fn open_with(&self, options: DiskOptions) -> Arc<Core> {
        let expected = Expected {
            cluster: sample::CLUSTER,
            disk: None,
        };
        let core = opening::open(self.dir.path(), &expected, options).unwrap();
        core.read_scrub();
        core
    }

    /// A disk with shards of each kind.
    fn filled(&self) -> Arc<Core> {
        let core = self.open();
        let ctx = sample::context(1);
        drop(core.enter(&ctx).unwrap());
        let assigned = core.rules.assign(&core.condition, &ctx, &[sample::slot()]);
        assigned.unwrap();
        for blob in [PACKED, 11, 12, 13] {
            let shard = sample::small(&ctx, blob, 5000);
            assert_eq!(core.volumes.commit(&[Op::Put(&shard)]), [Ok(())]);
        }
        append(&core, STREAMED, STREAMED_LEN, true);
        append(&core, LARGE, LARGE_LEN, false);
        // What that left for the disk's threads goes with it.
        drop(core);
        self.open()
    }

    fn later(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.now_ms.fetch_add(ms, Ordering::Relaxed);
    }

    fn record(&self) -> PathBuf {
        self.dir.path().join(SCRUB)
    }
}

fn append(core: &Arc<Core>, blob: u128, len: usize, known: bool) {
    let (ctx, mut buffer) = (sample::context(1), AlignedBuffer::default());
    let header = sample::header(&ctx, blob);
    let announced = known.then_some(len as u64);
    let handle = core
        .open_shard(&ctx, header, announced, &mut buffer)
        .unwrap();
    let bytes = sample::bytes(blob, len);
    let mut at = 0;
    while at < len {
        let step = bytes.slice(at..(at + MAX_APPEND_BYTES).min(len));
        let crcs = block_crcs(&step);
        core.append_shard(&ctx, handle, at as u64, &step, &crcs, &mut buffer)
            .unwrap();
        at += step.len();
    }
    let end = ShardEnd {
        shard_len: len as u64,
        blob_len: 4 * len as u64,
    };
    core.finish_shard(&ctx, handle, end).unwrap();
}

/// Flips a bit of a shard, wherever it lies.
fn flip(folder: &Folder, core: &Core, blob: u128) {
    let located = core.volumes.locate(sample::key(blob)).unwrap();
    flip_at(folder, core, blob, located.map_or(2_000_000, |_| 4500));
}

/// The same so far behind the start of its record or file, or at the file's
/// end.
fn flip_at(folder: &Folder, core: &Core, blob: u128, within: u64) {
    let key = sample::key(blob);
    let located = core.volumes.locate(key).unwrap();
    let (path, at) = match &located {
        Some(located) => {
            let group = folder
                .dir
                .path()
                .join("volumes")
                .join(key.group.to_string());
            let name = format!("{:016x}.vol", located.heading.sequence);
            (group.join(name), located.entry.offset() + within)
        }
        None => {
            let shards = folder.dir.path().join("shards");
            (shards.join(names::file_path(&key)), within)
        }
    };
    let mode = std::fs::metadata(&path).unwrap().permissions();
    let mut writable = mode.clone();
    std::os::unix::fs::PermissionsExt::set_mode(&mut writable, 0o600);
    std::fs::set_permissions(&path, writable).unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let at = at.min(file.metadata().unwrap().len() - 50);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
    std::fs::set_permissions(&path, mode).unwrap();
}

/// Turns until no pass runs; how many.
fn pass(core: &Core) -> u32 {
    pass_with(core, &mut Work::new())
}

fn pass_with(core: &Core, work: &mut Work) -> u32 {
    let mut turns = 0;
    loop {
        core.scrub_turn(work, &mut |_| {});
        turns += 1;
        assert!(turns < 1000, "a pass has an end");
        if !core.scrub.passes.lock().runs() {
            return turns;
        }
    }
}

fn known(core: &Core) -> Vec<ShardKey> {
    core.damaged
        .all()
        .into_iter()
        .map(|shard| shard.key)
        .collect()
}

#[test]
fn a_flipped_byte_is_found_told_kept_and_forgotten() {
    let folder = Folder::new();
    let core = folder.filled();
    pass(&core);
    assert_eq!((known(&core), core.condition.errors()), (vec![], 0));
    let mut wanted = Vec::new();
    let mut core = core;
    for blob in [PACKED, STREAMED, LARGE] {
        flip(&folder, &core, blob);
        wanted.push(sample::key(blob));
        folder.later(PERIOD);
        pass(&core);
        assert_eq!(known(&core), wanted, "nobody has read it");
        // One more than this run knew before.
        assert_eq!(core.condition.errors(), 1);
        core.save_scrub();
        drop(core);
        core = folder.open();
        assert_eq!(known(&core), wanted, "after a restart");
    }
    let passes = core.scrub.standing();
    assert_eq!((passes.passes, passes.ended_ms > 0), (4, true));
    assert_eq!((passes.read_bytes, passes.pass_bytes), (0, 0));
    core.delete_shards(&sample::context(1), &wanted[..2])
        .unwrap();
    assert_eq!(known(&core), wanted[2..]);
    core.save_scrub();
    drop(core);
    let core = folder.open();
    assert_eq!(known(&core), wanted[2..]);
    // One that was deleted without the record hearing of it.
    let record = std::fs::read(folder.record()).unwrap();
    core.delete_shards(&sample::context(1), &wanted).unwrap();
    core.save_scrub();
    drop(core);
    std::fs::write(folder.record(), record).unwrap();
    let core = folder.open();
    assert_eq!(known(&core), wanted[2..]);
    core.forget_gone(&mut AlignedBuffer::default());
    assert_eq!(known(&core), []);
}

#[test]
fn a_pass_goes_on_where_it_was() {
    let folder = Folder::new();
    let core = folder.filled();
    pass(&core);
    let whole = core.scrub.read_bytes();
    assert!(whole > (STREAMED_LEN + LARGE_LEN) as u64, "{whole}");
    // After each turn the disk is opened anew: what is read once more is what
    // a stream keeps, and no pass begins from its start.
    folder.later(PERIOD);
    let (mut core, mut sum, mut turns) = (core, 0, 0);
    core.save_scrub();
    loop {
        drop(core);
        core = folder.open();
        let before = core.scrub.standing().read_bytes;
        core.scrub_turn(&mut Work::new(), &mut |_| {});
        sum += core.scrub.read_bytes();
        turns += 1;
        let standing = core.scrub.standing();
        core.save_scrub();
        if !core.scrub.passes.lock().runs() {
            break;
        }
        assert!(standing.read_bytes >= before && standing.pass_bytes >= standing.read_bytes);
    }
    assert!(turns >= 5, "{turns}");
    assert!(core.scrub.passes.lock().record().files > LARGE_LEN as u64);
    let again = (1 << 20) + 64 * 1024;
    assert!(sum < whole + turns * again, "{sum} of {whole} in {turns}");
    assert_eq!(core.scrub.standing().passes, 2);
}

#[test]
fn what_came_since_the_pass_before_is_guessed() {
    let folder = Folder::new();
    let core = folder.open();
    pass(&core);
    core.save_scrub();
    assert_eq!(core.scrub.standing().passes, 1);
    drop(core);
    let core = folder.filled();
    folder.later(PERIOD);
    core.scrub_turn(&mut Work::new(), &mut |_| {});
    let standing = core.scrub.standing();
    assert!(standing.pass_bytes > LARGE_LEN as u64, "{standing:?}");
}

/// A pass that began on an empty disk, or almost.
#[test]
fn a_pass_hears_of_what_comes_while_it_runs() {
    let folder = Folder::new();
    let core = folder.filled();
    let now_ms = folder.now_ms.load(Ordering::Relaxed);
    let none = Holds {
        volumes: 0,
        files: 0,
    };
    core.scrub.passes.lock().begin(none, now_ms);
    core.scrub_turn(&mut Work::new(), &mut |_| {});
    let standing = core.scrub.standing();
    assert!(standing.pass_bytes > LARGE_LEN as u64, "{standing:?}");
    assert!(standing.read_bytes < LARGE_LEN as u64, "{standing:?}");
}

#[test]
fn passes_begin_a_period_apart() {
    let folder = Folder::new();
    let core = folder.filled();
    pass(&core);
    let read = core.scrub.read_bytes();
    let mut work = Work::new();
    let mut turn = |core: &Core| core.scrub_turn(&mut work, &mut |_| {});
    folder.later(PERIOD - Duration::from_secs(1));
    assert_eq!(turn(&core), LOOK_EVERY);
    assert_eq!(core.scrub.read_bytes(), read);
    folder.later(Duration::from_secs(1));
    turn(&core);
    assert!(core.scrub.read_bytes() > read);
    // The speed is kept by the time that is rested.
    assert!(turn(&core) > Duration::from_millis(100));
}

#[test]
fn callers_go_first_but_not_for_ever() {
    let folder = Folder::new();
    let core = folder.filled();
    let mut work = Work::new();
    // A call that waits, which no thread takes.
    let call = || core.lanes.submit(Lane::Read, 0, Box::new(|_, _| {}));
    call().unwrap();
    let (mut rests, mut turns) = (0, 0);
    while turns < 3 {
        let before = core.scrub.read_bytes();
        core.scrub_turn(&mut work, &mut |time| {
            assert_eq!(time, Duration::from_millis(5));
            assert_eq!(core.scrub.read_bytes(), before, "it reads while one waits");
            rests += 1;
        });
        turns += 1;
        assert_eq!(rests, 100 * turns);
        assert!(core.scrub.read_bytes() > before, "it never reads");
    }
    // Those in the background are no callers.
    let folder = Folder::new();
    let core = folder.filled();
    let call = core.lanes.submit(Lane::Background, 0, Box::new(|_, _| {}));
    call.unwrap();
    core.scrub_turn(&mut work, &mut |_| panic!("nobody waits"));
    assert!(core.scrub.read_bytes() > 0);
}

#[test]
fn it_is_off_or_lost_and_reads_nothing() {
    let folder = Folder::new();
    drop(folder.filled());
    for period in [None, Some(Duration::ZERO)] {
        let core = folder.open_with(DiskOptions {
            scrub_period: period,
            ..folder.options()
        });
        let wait = core.scrub_turn(&mut Work::new(), &mut |_| {});
        assert_eq!((wait, core.scrub.read_bytes()), (LOOK_EVERY, 0));
        assert_eq!(core.scrub.standing(), ScrubStanding::default());
    }
    let core = folder.open();
    let _ = core.condition.lose("a test");
    let wait = core.scrub_turn(&mut Work::new(), &mut |_| {});
    assert_eq!((wait, core.scrub.read_bytes()), (LOOK_EVERY, 0));
    core.save_scrub();
    assert!(!folder.record().exists());
}

#[test]
fn a_fenced_disk_is_read_and_not_written() {
    let folder = Folder::new();
    let core = folder.filled();
    flip(&folder, &core, LARGE);
    let _ = core.condition.fence("a test".into());
    pass(&core);
    core.save_scrub();
    assert_eq!(known(&core), [sample::key(LARGE)]);
    assert!(!folder.record().exists());
}

/// What a volume's directory said is gone, and nobody makes it anew.
#[test]
fn what_cannot_be_read_is_passed_over() {
    let folder = Folder::new();
    let core = folder.filled();
    core.volumes.roll(sample::GROUP);
    while core.volumes.upkeep().unwrap() {}
    flip(&folder, &core, LARGE);
    let group = sample::GROUP.to_string();
    let volumes = folder.dir.path().join("volumes").join(group);
    for entry in std::fs::read_dir(volumes).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "dir") {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(4096)
                .unwrap();
        }
    }
    let turns = pass(&core);
    assert!((TRIES..20).contains(&turns), "{turns}");
    assert_eq!(known(&core), [sample::key(LARGE)], "what is behind it");
    assert!(core.condition.errors() >= 2);
}

/// A file in a folder's place, which cannot be listed.
fn is_no_folder(folder: &Folder, name: &str) {
    let path = folder.dir.path().join("shards").join(name);
    if path.exists() {
        std::fs::rename(&path, folder.dir.path().join("shards").join("aside")).unwrap();
    }
    File::create(path).unwrap();
}

#[test]
fn a_folder_that_cannot_be_listed_is_passed_over_at_once() {
    let group = sample::GROUP.to_string();
    for name in [&group, &format!("{group}/0777777")] {
        let folder = Folder::new();
        let core = folder.filled();
        flip(&folder, &core, PACKED);
        is_no_folder(&folder, name);
        let turns = pass(&core);
        assert!((TRIES..20).contains(&turns), "{turns}: {name}");
        assert_eq!(known(&core), [sample::key(PACKED)], "what is before it");
        assert_eq!(core.scrub.standing().passes, 1);
    }
}

#[test]
fn damage_before_a_folder_that_cannot_be_listed_is_noted() {
    let folder = Folder::new();
    let core = folder.filled();
    // Of its end: a look is all that it takes, and the window goes on.
    flip_at(&folder, &core, LARGE, u64::MAX);
    is_no_folder(&folder, &format!("{}/0000001", sample::GROUP));
    let turns = pass(&core);
    assert!((TRIES..20).contains(&turns), "{turns}");
    assert_eq!(known(&core), [sample::key(LARGE)]);
}

#[test]
fn a_panic_is_passed_over_as_what_cannot_be_read_is() {
    type Trap = fn(WindowCursor);
    let traps: [(Trap, u128); 2] = [
        (
            |at| assert!(at.volume() > Some(1) || at.volume().is_none(), "a test's"),
            LARGE,
        ),
        (|at| assert!(at.volume().is_some(), "a test's"), PACKED),
    ];
    for (trap, found) in traps {
        let folder = Folder::new();
        let core = folder.filled();
        flip(&folder, &core, PACKED);
        flip(&folder, &core, LARGE);
        let mut work = Work::new();
        work.trap = Some(trap);
        let turns = pass_with(&core, &mut work);
        assert!((TRIES..20).contains(&turns), "{turns}");
        assert_eq!(known(&core), [sample::key(found)]);
        assert!(core.condition.errors() > u64::from(TRIES));
        assert_eq!(core.scrub.standing().passes, 1);
    }
}

#[test]
fn a_panic_is_of_a_volume_or_a_folder_where_one_is_known() {
    let folder = Folder::new();
    let core = folder.filled();
    let mut held = Held::default();
    let start = WindowCursor::start(sample::GROUP);
    let unread = core.panicked_at(start, &held);
    assert_eq!(
        unread.behind(),
        Some(WindowCursor::of_volume(sample::GROUP, 2))
    );
    let files = WindowCursor::of_volume(sample::GROUP, 99);
    let next_group = files.next_group();
    assert_eq!(core.panicked_at(files, &held).go_on(), next_group);
    let window = core.window(files, 1, &mut held, &mut AlignedBuffer::default());
    let inside = window.unwrap().next.unwrap();
    let unread = core.panicked_at(inside, &held);
    let place = WindowPlace::File {
        blob: sample::key(LARGE).blob,
        index: sample::key(LARGE).index,
        within: 0,
    };
    assert_eq!((unread.at.place, unread.rest), (place, false));
}

#[test]
fn a_record_that_is_noise_or_of_later_keeps_no_disk_closed() {
    let folder = Folder::new();
    let core = folder.filled();
    pass(&core);
    core.save_scrub();
    drop(core);
    let whole = std::fs::read(folder.record()).unwrap();
    let change = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(folder.record(), bytes).unwrap();
    };
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 3] = [
        |bytes| bytes.clear(),
        |bytes| bytes[40] ^= 1,
        |bytes| bytes.truncate(50),
    ];
    for damage in damages {
        change(&damage);
        let core = folder.open();
        assert_eq!(core.scrub.standing(), ScrubStanding::default());
        pass(&core);
        core.save_scrub();
        drop(core);
        let core = folder.open();
        assert_eq!(core.scrub.standing().passes, 1, "it is written anew");
    }
    change(&|bytes| {
        bytes[9] = 2;
        let end = bytes.len() - 4;
        let crc = shardgate_wire::checksum::crc32c(&bytes[..end]);
        bytes[end..].copy_from_slice(&crc.to_be_bytes());
    });
    let later = std::fs::read(folder.record()).unwrap();
    let core = folder.open();
    pass(&core);
    core.save_scrub();
    let left = std::fs::read(folder.record()).unwrap() == later;
    assert!(left, "a later version's record was written over");
}

/// The thread ends soon after the disk is closed, and keeps what it knows.
#[test]
fn the_thread_ends_with_the_disk() {
    let folder = Folder::new();
    let core = folder.filled();
    flip(&folder, &core, PACKED);
    drop(core);
    let core = folder.open_with(DiskOptions {
        scrub_after_open: Duration::ZERO,
        ..folder.options()
    });
    let turns = Arc::new(AtomicUsize::new(0));
    let thread = {
        let (core, turns) = (Arc::clone(&core), Arc::clone(&turns));
        std::thread::spawn(move || {
            core.scrub();
            turns.fetch_add(1, Ordering::Relaxed);
        })
    };
    while known(&core).is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    core.lanes.close();
    thread.join().unwrap();
    assert_eq!(turns.load(Ordering::Relaxed), 1);
    drop(core);
    assert!(Path::new(&folder.record()).exists());
    assert_eq!(known(&folder.open()), [sample::key(PACKED)]);
}

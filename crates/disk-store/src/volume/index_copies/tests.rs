//! Copies of directories are used only while they say what the directories
//! say, and nothing hangs on them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use shardgate_wire::Medium;
use shardgate_wire::conformance::sample;

use super::*;
use crate::condition::Condition;
use crate::directories::DirectoryMemory;
use crate::io::sim::{Faults, SimDisk};
use crate::medium::MediumFigures;
use crate::volume::engine::VolumeFigures;
use crate::volume::opening::Opening;
use crate::volume::place::volume_file;
use crate::volume::{Choice, Op};

const LEN: usize = 3000;
const COPY: Place = (sample::GROUP, 1);

/// A disk, and the faster one.
struct Disks {
    slow: SimDisk,
    fast: SimDisk,
    salts: Arc<AtomicU64>,
}

impl Disks {
    fn new() -> Self {
        Self {
            slow: SimDisk::new(1),
            fast: SimDisk::new(2),
            salts: Arc::new(AtomicU64::new(1)),
        }
    }

    /// Nothing of directories is kept in memory.
    fn open_with(&self, index: Option<Arc<dyn DiskIo>>) -> Engine {
        let salts = Arc::clone(&self.salts);
        let opened = Engine::open(Opening {
            io: self.slow.io(),
            index,
            identity: sample::identity(),
            condition: Arc::new(Condition::good(sample::identity().disk)),
            figures: VolumeFigures {
                volume_bytes: 4 << 20,
                zero_step: 64 << 10,
                ..MediumFigures::of(Medium::Flash).volumes
            },
            progress: Arc::default(),
            directories: Arc::new(DirectoryMemory::new(0)),
            random: Box::new(move || salts.fetch_add(1, Ordering::Relaxed)),
        });
        opened.expect("opens")
    }

    fn open(&self) -> Engine {
        self.open_with(Some(self.fast.io()))
    }

    fn copies(&self) -> Vec<PathBuf> {
        let files = self.fast.files().into_iter().map(|(path, _)| path);
        files.filter(|path| path.extension().is_some()).collect()
    }

    fn copy(&self, place: Place) -> Option<Vec<u8>> {
        self.fast.bytes(&copy_file(place))
    }

    fn own(&self, sequence: u64) -> Option<Vec<u8>> {
        let path = volume_file(sample::GROUP, sequence, What::Directory);
        self.slow.bytes(&path)
    }
}

fn seal(engine: &Engine, blobs: std::ops::Range<u128>) {
    let ctx = sample::context(1);
    let shards: Vec<_> = blobs.map(|blob| sample::small(&ctx, blob, LEN)).collect();
    let ops: Vec<_> = shards.iter().map(Op::Put).collect();
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
    engine.roll(sample::GROUP);
    while engine.upkeep().expect("seals") {}
}

/// Makes what copies are wanted; how many were.
fn copy_all(engine: &Engine) -> usize {
    std::iter::from_fn(|| engine.copy_directory().expect("copies")).count()
}

fn has(engine: &Engine, blob: u128) -> bool {
    let read = engine.read(sample::key(blob), 0, LEN as u32);
    let read = read.unwrap_or_else(|error| panic!("blob {blob}: {error}"));
    assert!(read.as_ref().is_none_or(|read| read.bytes.len() == LEN));
    read.is_some()
}

/// Reads of the slow disk that it takes.
fn slow_reads(disks: &Disks, run: impl FnOnce()) -> u64 {
    let before = disks.slow.counters().reads;
    run();
    disks.slow.counters().reads - before
}

#[test]
fn a_cold_read_costs_the_slow_disk_its_record_alone() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    let without = slow_reads(&disks, || assert!(has(&engine, 77)));
    assert_eq!(without, 2, "a page of the directory, and the record");
    assert_eq!(copy_all(&engine), 1);
    assert_eq!(disks.copy(COPY), disks.own(1));
    assert_eq!(slow_reads(&disks, || assert!(has(&engine, 78))), 1);
    assert_eq!(slow_reads(&disks, || assert!(!has(&engine, 5000))), 0);
    // The next start looks at the copy, and does not make it again.
    engine.close(true).expect("closes");
    drop(engine);
    let engine = disks.open();
    let reads = slow_reads(&disks, || assert_eq!(copy_all(&engine), 0));
    assert_eq!(reads, 0);
    assert_eq!(slow_reads(&disks, || assert!(has(&engine, 79))), 1);
}

#[test]
fn a_damaged_copy_is_forgotten_and_made_again() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    copy_all(&engine);
    disks.fast.flip_bit(&copy_file(COPY), 4096 + 100, 3);
    let reads = slow_reads(&disks, || assert!(has(&engine, 2)));
    assert_eq!(reads, 2, "the directory itself was asked");
    assert_eq!(copy_all(&engine), 1);
    assert_eq!(disks.copy(COPY), disks.own(1));
    // One that is cut, and one that is gone.
    disks.fast.cut(&copy_file(COPY), 4096 + 10);
    assert!(has(&engine, 3));
    assert_eq!(copy_all(&engine), 1);
    drop(engine);
    disks.fast.io().remove(&copy_file(COPY)).expect("removed");
    let engine = disks.open();
    assert!(has(&engine, 4));
    assert_eq!(copy_all(&engine), 1);
    assert_eq!(disks.copy(COPY), disks.own(1));
    assert!(engine.mends.lock().is_empty(), "the directory is whole");
}

#[test]
fn a_copy_of_another_directory_is_not_read() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    seal(&engine, 300..600);
    assert_eq!(copy_all(&engine), 2);
    engine.close(true).expect("closes");
    drop(engine);
    // That of another volume, under this one's name.
    let second = (sample::GROUP, 2);
    disks
        .fast
        .io()
        .rename(&copy_file(second), &copy_file(COPY))
        .expect("renamed");
    let engine = disks.open();
    assert_eq!(copy_all(&engine), 2);
    assert!(has(&engine, 1) && has(&engine, 599));
    assert_eq!(disks.copy(COPY), disks.own(1));
    assert_eq!(disks.copy(second), disks.own(2));
}

/// While the faster disk was away the directory was made anew.
#[test]
fn a_stale_copy_is_replaced() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    copy_all(&engine);
    let deleted: Vec<_> = (1..200).map(|blob| Op::Delete(sample::key(blob))).collect();
    assert!(engine.commit(&deleted).iter().all(Result::is_ok));
    engine.close(true).expect("closes");
    drop(engine);
    let stale = disks.copy(COPY);
    let path = volume_file(sample::GROUP, 1, What::Directory);
    disks.slow.flip_bit(&path, 4096 + 10, 1);
    let engine = disks.open_with(None);
    // The first read that meets the page has it made anew.
    let _ = engine.read(sample::key(1), 0, LEN as u32);
    while engine.upkeep().expect("mends") {}
    engine.close(true).expect("closes");
    drop(engine);
    assert_ne!(disks.own(1), stale, "without what was deleted");
    let engine = disks.open();
    assert_eq!(copy_all(&engine), 1);
    assert_eq!(disks.copy(COPY), disks.own(1));
    assert!(!has(&engine, 1) && has(&engine, 250));
}

#[test]
fn a_directory_that_changes_has_no_copy_until_it_is_copied_again() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    copy_all(&engine);
    let path = volume_file(sample::GROUP, 1, What::Directory);
    disks.slow.flip_bit(&path, 4096 + 10, 1);
    // Found damaged behind the copy's back.
    engine.want_mended(sample::GROUP, 1);
    while engine.upkeep().expect("mends") {}
    assert!(has(&engine, 1));
    assert_eq!(copy_all(&engine), 1);
    assert_eq!(disks.copy(COPY), disks.own(1));
    assert_eq!(slow_reads(&disks, || assert!(has(&engine, 2))), 1);
}

#[test]
fn copies_go_with_their_volumes() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    seal(&engine, 300..310);
    copy_all(&engine);
    let choice = Choice {
        group: sample::GROUP,
        volumes: vec![1],
        bytes: 0,
    };
    let before = disks.fast.counters().removes;
    assert_eq!(engine.compact(&choice, &mut |_| true), Ok(true));
    let after = disks.fast.counters().removes;
    assert_eq!(after, before, "writers do not wait for the faster disk");
    assert_eq!(copy_all(&engine), 1);
    let left = [2, 3].map(|sequence| copy_file((sample::GROUP, sequence)));
    assert_eq!(disks.copies(), left);
    assert!(has(&engine, 1) && has(&engine, 305));
    drop(engine);
    // What a crash left, and what others put there.
    let io = disks.fast.io();
    let group = Path::new("00000000000000ff");
    io.create_dir(group).expect("made");
    let mut made = vec![group.join("0000000000000001.dir")];
    made.push(group.join("0000000000000001.part"));
    for path in &made {
        io.open(path, OpenHow::CreateNew).expect("made");
    }
    let other = Path::new("notes.txt");
    io.open(other, OpenHow::CreateNew).expect("made");
    let engine = disks.open();
    copy_all(&engine);
    let mut all = left.to_vec();
    all.push(other.to_owned());
    assert_eq!(disks.copies(), all);
    let folders = io.read_dir(Path::new("")).expect("listed");
    assert!(folders.iter().all(|entry| entry.name != group.as_os_str()));
}

#[test]
fn a_faster_disk_that_fails_is_let_be() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    disks.fast.set_faults(Faults {
        capacity: Some(1000),
        ..Faults::default()
    });
    assert_eq!(copy_all(&engine), 0);
    seal(&engine, 300..600);
    assert_eq!(copy_all(&engine), 0, "it is not tried again");
    assert!(has(&engine, 1) && has(&engine, 599));
    assert!(engine.condition.check_writable().is_ok());
    assert_eq!(engine.condition.errors(), 0);
    drop(engine);
    // It goes while copies are in use.
    disks.fast.set_faults(Faults::default());
    let engine = disks.open();
    assert_eq!(copy_all(&engine), 2);
    disks.fast.restart();
    assert!(has(&engine, 1) && has(&engine, 599));
    assert_eq!(copy_all(&engine), 0);
    assert!(has(&engine, 2));
    assert_eq!(engine.condition.errors(), 0);
}

/// The head of one is whole, and it is not: it is made again before anybody
/// looks for a page that is not there.
#[test]
fn a_copy_of_another_length_is_replaced() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    assert_eq!(copy_all(&engine), 1);
    let whole = disks.own(1).expect("it has one");
    let page = DIRECTORY_PAGE as u64;
    let lens = [
        page + 100,
        whole.len() as u64 - page,
        whole.len() as u64 - 1,
    ];
    for len in lens.into_iter().chain([whole.len() as u64 + page]) {
        engine.close(true).expect("closes");
        disks.slow.restart();
        let file = disks.fast.io().open(&copy_file(COPY), OpenHow::ReadWrite);
        let file = file.expect("it is there");
        file.set_len(len)
            .and_then(|()| file.sync_all())
            .expect("changes");
        let engine = disks.open();
        assert_eq!(copy_all(&engine), 1, "of {len} bytes");
        assert_eq!(disks.copy(COPY).as_ref(), Some(&whole));
        assert_eq!(slow_reads(&disks, || assert!(has(&engine, 299))), 1);
        engine.close(true).expect("closes");
        disks.slow.restart();
    }
}

#[test]
fn a_check_reads_the_directory_itself_and_all_else_about_once() {
    let disks = Disks::new();
    let engine = disks.open();
    seal(&engine, 1..300);
    copy_all(&engine);
    let before = disks.slow.counters().read_bytes;
    assert_eq!(engine.check(false).unwrap().findings, []);
    let read = disks.slow.counters().read_bytes - before;
    let stored = 300 * LEN as u64;
    assert!((stored..stored + (3 << 20)).contains(&read), "{read} bytes");
    let directory = volume_file(sample::GROUP, 1, What::Directory);
    disks.slow.flip_bit(&directory, 4096 + 100, 3);
    // The copy serves.
    assert!(has(&engine, 2));
    let found = engine.check(false).unwrap().findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].place.starts_with("directory of "), "{found:?}");
}

//! What happens in between: upkeep beside a commit, power lost while the log
//! is begun anew, refusals in the middle of a compaction.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use rustix::io::Errno;
use shardgate_wire::StoreError;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{BlobId, CommitNumber};

use super::Op;
use super::damage_tests::{figures, read};
use super::engine::Engine;
use super::opening::Opening;
use super::place::{LOG, What, volume_file};
use crate::condition::Condition;
use crate::io::sim::{Faults, SimDisk};
use crate::io::{DiskFile, DiskIo, OpenHow, SpaceOf};

/// What is about to be done with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Open(OpenHow),
    Rename,
    Remove,
}

type Hook = dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync;

/// Asks before names are opened, changed or removed.
struct Asking {
    inner: Arc<dyn DiskIo>,
    hook: Arc<Hook>,
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

impl DiskIo for Asking {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        (self.hook)(Step::Open(how), path)?;
        self.inner.open(path, how)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<crate::io::DirEntry>> {
        self.inner.read_dir(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        (self.hook)(Step::Remove, path)?;
        self.inner.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        (self.hook)(Step::Rename, to)?;
        self.inner.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn space(&self) -> io::Result<SpaceOf> {
        self.inner.space()
    }
}

fn open_asking(disk: &SimDisk, salts: u64, hook: Arc<Hook>) -> Arc<Engine> {
    try_open(disk, salts, hook).expect("it opens")
}

fn try_open(disk: &SimDisk, salts: u64, hook: Arc<Hook>) -> Result<Arc<Engine>, StoreError> {
    let salts = AtomicU64::new(salts);
    let opened = Engine::open(Opening {
        io: Arc::new(Asking {
            inner: disk.io(),
            hook,
        }),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: figures(),
        progress: Arc::default(),
        directories: Arc::default(),
        random: Box::new(move || salts.fetch_add(1, Ordering::Relaxed)),
    });
    opened.map(Arc::new)
}

fn open(disk: &SimDisk, salts: u64) -> Arc<Engine> {
    open_asking(disk, salts, Arc::new(|_, _| Ok(())))
}

fn put(engine: &Engine, blobs: std::ops::Range<u128>) {
    let ctx = sample::context(1);
    let shards: Vec<_> = blobs.map(|blob| sample::small(&ctx, blob, 1000)).collect();
    let ops: Vec<_> = shards.iter().map(Op::Put).collect();
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
}

fn delete(engine: &Engine, blobs: std::ops::Range<u128>) {
    let ops: Vec<_> = blobs.map(|blob| Op::Delete(sample::key(blob))).collect();
    assert!(engine.commit(&ops).iter().all(Result::is_ok));
}

fn ends_with(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found == ending)
}

#[test]
fn a_volume_is_not_sealed_under_a_batch_that_fills_it() {
    let disk = SimDisk::new(1);
    let (engine, armed) = (
        Arc::new(OnceLock::<Weak<Engine>>::new()),
        Arc::new(AtomicBool::new(false)),
    );
    let upkeeps = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let hook = {
        let (engine, armed) = (Arc::clone(&engine), Arc::clone(&armed));
        let asked = Arc::clone(&upkeeps);
        move |step, path: &Path| {
            let made = step == Step::Rename && ends_with(path, "vol");
            let engine = engine.get().and_then(Weak::upgrade);
            if let (true, Some(engine)) = (made && armed.load(Ordering::SeqCst), engine) {
                // The next volume is being made: the batch has records for
                // the one before, and none of them is written yet.
                let (done, waits) = channel();
                let upkeep = std::thread::spawn(move || {
                    let _ = done.send(engine.upkeep());
                });
                asked.lock().push(upkeep);
                let _ = waits.recv_timeout(Duration::from_millis(500));
            }
            Ok(())
        }
    };
    let held = open_asking(&disk, 1, Arc::new(hook));
    engine.set(Arc::downgrade(&held)).unwrap();
    put(&held, 0..1);
    armed.store(true, Ordering::SeqCst);
    put(&held, 1..60);
    armed.store(false, Ordering::SeqCst);
    let upkeeps: Vec<_> = upkeeps.lock().drain(..).collect();
    assert!(!upkeeps.is_empty(), "no volume was filled by a batch");
    upkeeps
        .into_iter()
        .for_each(|upkeep| upkeep.join().unwrap());
    while held.upkeep().unwrap() {}
    for blob in 0..60 {
        assert_eq!(read(&held, blob), Ok(true), "{blob} was answered");
    }
    held.close(true).unwrap();
    disk.restart();
    let engine = open(&disk, 100);
    for blob in 0..60 {
        assert_eq!(read(&engine, blob), Ok(true), "{blob} was answered");
    }
    assert_eq!(engine.check(false).unwrap().findings, []);
}

/// Notes that take more than one batch of the log.
const NOTES: u64 = 45;

fn note_all(engine: &Engine) {
    for blob in 0..NOTES {
        let note = super::Note {
            commit: CommitNumber(blob + 1),
            deleted: true,
            payload: vec![7; 64 * 1024],
        };
        let kept = engine.keep_note(sample::GROUP, BlobId(blob.into()), Some(note));
        assert_eq!(kept, Ok(()));
    }
}

#[test]
fn power_lost_while_the_log_is_begun_anew_loses_nothing() {
    for seed in 0..24 {
        let disk = SimDisk::new(seed);
        let engine = open(&disk, 1);
        note_all(&engine);
        disk.set_faults(Faults {
            power_off: Some(1 + seed % 8),
            ..Faults::default()
        });
        let _ = engine.renew_log(&mut engine.writer.lock());
        drop(engine);
        disk.power_loss(seed);
        disk.set_faults(Faults::default());
        let engine = open(&disk, 100);
        let notes = engine.notes(None, 1000).len() as u64;
        assert_eq!(notes, NOTES, "seed {seed}");
        assert_eq!(engine.check(false).unwrap().findings, [], "seed {seed}");
    }
}

/// Notes of such lengths in the log.
fn keep_notes(engine: &Engine, blobs: std::ops::Range<u128>, deleted: bool, len: usize) {
    for blob in blobs {
        let note = super::Note {
            commit: CommitNumber(1),
            deleted,
            payload: vec![7; len],
        };
        let kept = engine.keep_note(sample::GROUP, BlobId(blob), Some(note));
        assert_eq!(kept, Ok(()));
    }
}

/// At each of its steps, often enough that of the two batches that begin a
/// segment the later one alone is there, if nothing keeps it from that.
#[test]
fn a_segment_never_begins_without_what_held_before() {
    for seed in 0..400 {
        let disk = SimDisk::new(seed);
        let engine = open(&disk, 1);
        keep_notes(&engine, 0..4, true, 1000);
        disk.set_faults(Faults {
            power_off: Some(1 + seed % 10),
            ..Faults::default()
        });
        let _ = engine.renew_log(&mut engine.writer.lock());
        drop(engine);
        disk.power_loss(seed);
        disk.set_faults(Faults::default());
        let engine = open(&disk, 100);
        assert_eq!(engine.notes(None, 10).len(), 4, "seed {seed}");
        assert_eq!(engine.check(false).unwrap().findings, [], "seed {seed}");
    }
}

/// A start that found two would go by the one that it can read.
#[test]
fn there_is_one_segment_of_the_log_durably() {
    let disk = SimDisk::new(1);
    let segments = |what: &str| {
        let files = disk.files().into_iter().map(|(path, _)| path);
        let files: Vec<_> = files.filter(|path| path.starts_with(LOG)).collect();
        assert_eq!(files.len(), 1, "{what}: {files:?}");
    };
    for seed in 0..8 {
        let engine = open(&disk, 1);
        segments("after a start");
        assert_eq!(engine.renew_log(&mut engine.writer.lock()), Ok(()));
        segments("after it was begun anew");
        note_all(&engine);
        drop(engine);
        disk.power_loss(seed);
        segments("after a loss of power");
    }
}

fn compact(engine: &Engine) -> Option<Result<bool, StoreError>> {
    let choice = engine.worst()?;
    Some(engine.compact(&choice, &mut |_| true))
}

#[test]
fn a_volume_of_one_record_is_not_compacted_for_ever() {
    for len in (0..600).step_by(16) {
        let disk = SimDisk::new(1);
        let engine = open(&disk, 1);
        let shard = sample::small(&sample::context(1), 1, len);
        assert_eq!(engine.commit(&[Op::Put(&shard)]), [Ok(())]);
        engine.roll(sample::GROUP);
        while engine.upkeep().unwrap() {}
        for _ in 0..3 {
            compact(&engine);
        }
        assert_eq!(engine.worst(), None, "nothing to gain from {len} bytes");
    }
}

/// Two sealed volumes, of which the first is worth compacting most.
fn wasteful() -> (SimDisk, Arc<Engine>) {
    let disk = SimDisk::new(1);
    let engine = open(&disk, 1);
    for blobs in [0..20, 20..40] {
        put(&engine, blobs);
        engine.roll(sample::GROUP);
        while engine.upkeep().unwrap() {}
    }
    delete(&engine, 0..15);
    delete(&engine, 20..32);
    (disk, engine)
}

#[test]
fn a_volume_that_cannot_be_read_does_not_hold_up_the_others() {
    for what in [What::Directory, What::Volume] {
        let (disk, engine) = wasteful();
        engine.files.forget(1);
        disk.set_faults(Faults {
            unreadable: vec![volume_file(sample::GROUP, 1, what)],
            ..Faults::default()
        });
        for _ in 0..4 {
            compact(&engine);
        }
        disk.set_faults(Faults::default());
        let left: Vec<u64> = {
            let state = engine.state.read();
            let volumes = &state.groups[&sample::GROUP].volumes;
            volumes.keys().copied().collect()
        };
        assert!(
            left.contains(&1) && !left.contains(&2),
            "{what:?}: {left:?}"
        );
        for blob in (15..20).chain(32..40) {
            assert_eq!(read(&engine, blob), Ok(true));
        }
    }
}

/// The log is full when a compaction comes to its entry, so that it is begun
/// anew; whichever sync fails then, the disk is fenced, and there.
#[test]
fn a_failed_sync_of_a_compaction_fences_the_disk_and_does_not_lose_it() {
    let mut fenced = 0;
    for at in 1..40 {
        let (disk, engine) = wasteful();
        keep_notes(&engine, 100..103, false, 500_000);
        disk.set_faults(Faults {
            fail_sync: Some(at),
            ..Faults::default()
        });
        compact(&engine);
        assert_eq!(engine.condition.check_present(), Ok(()), "sync {at}");
        fenced += u32::from(engine.condition.check_writable().is_err());
    }
    assert!(fenced > 8, "{fenced}");
}

#[test]
fn a_compaction_that_finds_no_room_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let refuses = Arc::new(AtomicBool::new(false));
    let hook = {
        let refuses = Arc::clone(&refuses);
        move |step, path: &Path| match step {
            Step::Open(OpenHow::CreateNew)
                if refuses.load(Ordering::SeqCst) && ends_with(path, "part") =>
            {
                Err(Errno::NOSPC.into())
            }
            _ => Ok(()),
        }
    };
    let engine = open_asking(&disk, 1, Arc::new(hook));
    put(&engine, 0..20);
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
    delete(&engine, 0..15);
    refuses.store(true, Ordering::SeqCst);
    let before = disk.files();
    for _ in 0..3 {
        assert_eq!(compact(&engine), Some(Err(StoreError::NoSpace)));
    }
    assert_eq!(disk.files(), before);
    refuses.store(false, Ordering::SeqCst);
    assert_eq!(compact(&engine), Some(Ok(true)));
    for blob in 0..20 {
        assert_eq!(read(&engine, blob), Ok(blob >= 15));
    }
}

#[test]
fn a_log_that_finds_no_room_leaves_nothing_behind() {
    let disk = SimDisk::new(1);
    let engine = open(&disk, 1);
    put(&engine, 0..20);
    let used: u64 = disk.files().iter().map(|(_, len)| len).sum();
    let before = disk.files();
    disk.set_faults(Faults {
        capacity: Some(used + 8192),
        ..Faults::default()
    });
    for _ in 0..3 {
        let renewed = engine.renew_log(&mut engine.writer.lock());
        assert_eq!(renewed, Err(StoreError::NoSpace));
    }
    assert_eq!(disk.files(), before);
    delete(&engine, 0..1);
}

/// All shards of a volume are deleted, and it is compacted to nothing. The
/// power goes, or the process, at each change that this makes and that the
/// next start makes; the volume does not come back without its deletes.
#[test]
fn a_volume_that_was_compacted_to_nothing_stays_gone() {
    let mut cut = 0;
    for seed in 0..160u64 {
        let disk = SimDisk::new(seed);
        let engine = open(&disk, 1);
        put(&engine, 0..6);
        engine.roll(sample::GROUP);
        while engine.upkeep().unwrap() {}
        delete(&engine, 0..6);
        let off = |at| Faults {
            power_off: Some(at),
            ..Faults::default()
        };
        let stop = |seed: u64| match seed % 3 {
            0 => disk.restart(),
            _ => disk.power_loss(seed),
        };
        disk.set_faults(off(1 + seed % 8));
        compact(&engine);
        let mut goes = disk.is_off();
        drop(engine);
        disk.set_faults(Faults::default());
        if goes {
            disk.power_loss(seed);
        } else {
            stop(seed / 8);
        }
        disk.set_faults(off(1 + seed / 8));
        drop(try_open(&disk, 100, Arc::new(|_, _| Ok(()))));
        goes |= disk.is_off();
        disk.set_faults(Faults::default());
        disk.power_loss(seed);
        let engine = open(&disk, 200);
        for blob in 0..6 {
            assert_eq!(
                read(&engine, blob),
                Ok(false),
                "{blob} is back, seed {seed}"
            );
        }
        cut += u32::from(goes);
    }
    assert!(cut > 80, "{cut}");
}

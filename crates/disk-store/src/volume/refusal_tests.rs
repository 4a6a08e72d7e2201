//! A write that is refused for want of space, with part of it done, as file
//! systems that copy on write do: what it left is never found. And what else
//! is refused, or ends in a panic, half-way.

use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use shardgate_wire::StoreError;
use shardgate_wire::conformance::sample;

use super::Op;
use super::damage_tests::{figures, read};
use super::engine::Engine;
use super::opening::Opening;
use crate::condition::Condition;
use crate::io::sim::{Faults, SimDisk, with_pauses};
use crate::io::{DirEntry, DiskFile, DiskIo, OpenHow, SpaceOf};

/// What goes wrong, each counted down to.
#[derive(Debug, Default)]
struct Refuses {
    /// Does all of a write and says that there was no space.
    write: AtomicI64,
    /// Panics before a sync.
    sync: AtomicI64,
    /// Opens no file for writing, for want of more of them.
    open: AtomicI64,
}

impl Refuses {
    fn is_due(countdown: &AtomicI64) -> bool {
        countdown.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

#[derive(Clone, Debug)]
struct Refusing<T> {
    inner: T,
    refuses: Arc<Refuses>,
}

impl DiskIo for Refusing<Arc<dyn DiskIo>> {
    fn open(&self, path: &Path, how: OpenHow) -> io::Result<Arc<dyn DiskFile>> {
        if how == OpenHow::ReadWrite && Refuses::is_due(&self.refuses.open) {
            return Err(Errno::MFILE.into());
        }
        Ok(Arc::new(Refusing {
            inner: self.inner.open(path, how)?,
            refuses: Arc::clone(&self.refuses),
        }))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.inner.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.inner.sync_dir(path)
    }
    fn space(&self) -> io::Result<SpaceOf> {
        self.inner.space()
    }
}

impl DiskFile for Refusing<Arc<dyn DiskFile>> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buf, offset)
    }
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.inner.write_at(bufs, offset)?;
        if Refuses::is_due(&self.refuses.write) {
            return Err(Errno::NOSPC.into());
        }
        Ok(())
    }
    fn read_past_cache(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_past_cache(buf, offset)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.allocate(offset, len)
    }
    fn allocate_zeroed(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.allocate_zeroed(offset, len)
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.inner.punch(offset, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        assert!(!Refuses::is_due(&self.refuses.sync), "it was told to panic");
        self.inner.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.inner.sync_all()
    }
    fn names(&self) -> io::Result<u64> {
        self.inner.names()
    }
}

fn open(disk: &SimDisk, refuses: &Arc<Refuses>, salt: u64) -> Engine {
    let opened = Engine::open(Opening {
        io: Arc::new(Refusing {
            inner: disk.io(),
            refuses: Arc::clone(refuses),
        }),
        index: None,
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: figures(),
        progress: Arc::default(),
        directories: Arc::default(),
        random: Box::new(move || salt),
    });
    opened.expect("it opens")
}

fn put(engine: &Engine, blob: u128) -> Result<(), StoreError> {
    let shard = sample::small(&sample::context(1), blob, 1000);
    engine.commit(&[Op::Put(&shard)]).remove(0)
}

fn delete(engine: &Engine, blob: u128) -> Result<(), StoreError> {
    engine.commit(&[Op::Delete(sample::key(blob))]).remove(0)
}

/// The power goes; all that was written happens to be there.
fn lose_power(disk: &SimDisk, engine: Engine) {
    drop(engine);
    disk.restart();
}

#[test]
fn a_refused_record_is_never_found() {
    let disk = SimDisk::new(3);
    let refuses = Arc::<Refuses>::default();
    let engine = open(&disk, &refuses, 1);
    assert_eq!(put(&engine, 1), Ok(()));
    refuses.write.store(1, Ordering::SeqCst);
    assert_eq!(put(&engine, 2), Err(StoreError::NoSpace));
    assert_eq!(read(&engine, 2), Ok(false));
    // Its caller gives it up, and is told that it is gone.
    assert_eq!(delete(&engine, 2), Ok(()));
    lose_power(&disk, engine);
    let engine = open(&disk, &refuses, 2);
    assert_eq!(read(&engine, 2), Ok(false), "it was deleted");
    assert_eq!(read(&engine, 1), Ok(true));
    assert_eq!(put(&engine, 2), Ok(()));
    assert_eq!(read(&engine, 2), Ok(true));
}

#[test]
fn a_refused_delete_is_never_found() {
    let disk = SimDisk::new(3);
    let refuses = Arc::<Refuses>::default();
    let engine = open(&disk, &refuses, 1);
    assert_eq!(put(&engine, 1), Ok(()));
    refuses.write.store(1, Ordering::SeqCst);
    assert_eq!(delete(&engine, 1), Err(StoreError::NoSpace));
    // Its caller thinks better of it, and is told that it is stored.
    assert_eq!(put(&engine, 1), Ok(()));
    lose_power(&disk, engine);
    let engine = open(&disk, &refuses, 2);
    assert_eq!(read(&engine, 1), Ok(true), "it was stored");
}

#[test]
fn a_commit_that_panics_fences_the_disk() {
    let disk = SimDisk::new(3);
    let refuses = Arc::<Refuses>::default();
    let engine = open(&disk, &refuses, 1);
    assert_eq!(put(&engine, 1), Ok(()));
    refuses.sync.store(1, Ordering::SeqCst);
    let committed = AssertUnwindSafe(|| put(&engine, 2));
    assert!(catch_unwind(committed).is_err(), "it panics");
    // It is written and not synced: nothing may go over it.
    let next = put(&engine, 3);
    assert!(matches!(next, Err(StoreError::Fenced { .. })), "{next:?}");
    assert_eq!(read(&engine, 1), Ok(true));
    assert_eq!(read(&engine, 2), Ok(false));
}

/// Compaction that panics before the `at`th call of the disk; whether it did.
fn compact_and_panic(engine: &Engine, at: u64) -> bool {
    let choice = engine.worst().expect("there is waste");
    let calls = AtomicU64::new(0);
    let count = move || {
        let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
        assert!(call != at, "it was told to panic");
    };
    let compact = AssertUnwindSafe(|| engine.compact(&choice, &mut |_| true));
    catch_unwind(|| with_pauses(Arc::new(count), compact)).is_err()
}

/// Whether a compaction of 20 shards, all but two of them deleted, panics
/// before that call, and whether the disk is fenced by it. What is deleted
/// behind it stays so.
fn delete_after_panic(at: u64) -> Option<bool> {
    let disk = SimDisk::new(3);
    let engine = super::unread_tests::open(&disk);
    (0..20).for_each(|blob| put(&engine, blob).unwrap());
    engine.roll(sample::GROUP);
    while engine.upkeep().unwrap() {}
    (2..20).for_each(|blob| delete(&engine, blob).unwrap());
    if !compact_and_panic(&engine, at) {
        return None;
    }
    let deleted = delete(&engine, 0);
    let fenced = engine.condition.fenced().is_some();
    assert_eq!(deleted.is_err(), fenced, "call {at}: {deleted:?}");
    drop(engine);
    disk.power_loss(at);
    let engine = super::unread_tests::open(&disk);
    let found = [0, 1, 2].map(|blob| read(&engine, blob).expect("nothing is damaged"));
    assert_eq!(found, [fenced, true, false], "call {at}");
    Some(fenced)
}

#[test]
fn an_adoption_that_panics_fences_the_disk() {
    let fenced: Vec<bool> = (1..).map_while(delete_after_panic).collect();
    // Not while the output is written, and to the end from then on.
    let first = fenced.iter().position(|fenced| *fenced);
    let first = first.expect("an adoption calls the disk");
    assert!(first > 0 && fenced.len() > first + 4, "{fenced:?}");
    assert!(fenced[first..].iter().all(|fenced| *fenced), "{fenced:?}");
}

#[test]
fn what_waits_for_its_space_is_bounded() {
    const MOST: usize = 100;
    let disk = SimDisk::new(3);
    let engine = super::unread_tests::open(&disk);
    for blob in 0..MOST as u128 + 20 {
        let large = sample::small(&sample::context(1), blob, 10_000);
        assert_eq!(engine.commit(&[Op::Put(&large)]), [Ok(())]);
        assert_eq!(delete(&engine, blob), Ok(()));
    }
    assert_eq!(engine.punches.lock().len(), MOST);
    let before = disk.counters().punches;
    assert_eq!(engine.punch_all(), Ok(()));
    assert_eq!(disk.counters().punches - before, MOST as u64);
}

#[test]
fn space_that_there_was_no_time_for_is_given_back_later() {
    let disk = SimDisk::new(3);
    let engine = super::unread_tests::open(&disk);
    let mut given = 0;
    let before = disk.counters().punches;
    let mut punched = |more: bool| {
        given += 1;
        assert_eq!(disk.counters().punches - before, given, "one at a time");
        assert_eq!(engine.punches.lock().is_empty(), !more);
    };
    for blob in 0..4 {
        let large = sample::small(&sample::context(1), blob, 10_000);
        assert_eq!(engine.commit(&[Op::Put(&large)]), [Ok(())]);
        assert_eq!(delete(&engine, blob), Ok(()));
    }
    let (none, more) = (Duration::ZERO, Ok(true));
    assert_eq!(engine.punch_within(none), more);
    punched(true);
    for left in [true, true, false] {
        assert_eq!(engine.upkeep_within(none), Ok(left));
        punched(left);
    }
    assert_eq!(engine.upkeep_within(none), Ok(false));
}

#[test]
fn space_that_could_not_be_given_back_waits() {
    let disk = SimDisk::new(3);
    let refuses = Arc::<Refuses>::default();
    let engine = open(&disk, &refuses, 1);
    let large = sample::small(&sample::context(1), 1, 20_000);
    assert_eq!(engine.commit(&[Op::Put(&large)]), [Ok(())]);
    assert_eq!(delete(&engine, 1), Ok(()));
    refuses.open.store(1, Ordering::SeqCst);
    let before = disk.counters().punches;
    assert_eq!(engine.punch_all(), Err(StoreError::Busy));
    assert_eq!(disk.counters().punches, before);
    assert_eq!(engine.condition.fenced(), None);
    assert_eq!(engine.punch_all(), Ok(()));
    assert_eq!(disk.counters().punches, before + 1);
    // A file system that has turned read-only is found out.
    let large = sample::small(&sample::context(1), 2, 20_000);
    assert_eq!(engine.commit(&[Op::Put(&large)]), [Ok(())]);
    assert_eq!(delete(&engine, 2), Ok(()));
    disk.set_faults(Faults {
        read_only: true,
        ..Faults::default()
    });
    let punched = engine.punch_all();
    assert!(
        matches!(punched, Err(StoreError::Fenced { .. })),
        "{punched:?}"
    );
}

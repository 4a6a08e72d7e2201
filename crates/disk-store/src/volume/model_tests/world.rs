//! A disk, its volumes, and what its callers know.

mod checks;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{BlobId, CommitNumber, GroupId};
use shardgate_wire::store::{ShardEnd, SmallShard};
use shardgate_wire::{ShardKey, StoreError};

use crate::condition::Condition;
use crate::directories::DirectoryMemory;
use crate::io::sim::{Faults, Sabotage, SimDisk};
use crate::volume::commit::Ending;
use crate::volume::engine::{Engine, Note, VolumeFigures};
use crate::volume::format::zero_sectors;
use crate::volume::making::Extent;
use crate::volume::opening::Opening;
use crate::volume::{Op, OpenLimits, Rests};
use checks::Known;

const GROUPS: [GroupId; 2] = [GroupId(7), GroupId(0x91)];
const BLOBS: u64 = 24;
const LENGTHS: [usize; 8] = [0, 1, 60, 300, 700, 2000, 4096, 9000];

fn figures() -> VolumeFigures {
    VolumeFigures {
        volume_bytes: 64 * 1024,
        volume_records: 12,
        zero_step: 8192,
        large_batch: 16 << 10,
        volume_max: 20_000,
        punch_from: 4096,
        log_bytes: 4096,
        open_files: 3,
        sync_at_once: false,
    }
}

/// SplitMix64.
pub(in crate::volume) struct Random(pub(in crate::volume) u64);

impl Random {
    pub(in crate::volume) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub(in crate::volume) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// An extent that is being written.
struct Writing {
    extent: Extent,
    shard: SmallShard,
}

impl Writing {
    fn ending(&self) -> Ending {
        Ending {
            extent: self.extent.clone(),
            header: self.shard.header.clone(),
            end: ShardEnd {
                shard_len: self.shard.bytes.len() as u64,
                blob_len: self.shard.blob_len,
            },
            crcs: block_crcs(&self.shard.bytes),
            zeroes: zero_sectors(&self.shard.bytes, 0),
        }
    }
}

pub(super) struct World {
    disk: SimDisk,
    /// A faster disk with copies of directories, which nothing hangs on.
    index: SimDisk,
    engine: Arc<Engine>,
    random: Random,
    salts: Arc<AtomicU64>,
    known: BTreeMap<ShardKey, Known>,
    notes: BTreeMap<(GroupId, BlobId), Note>,
    maybe_notes: BTreeSet<(GroupId, BlobId)>,
    writing: Vec<Writing>,
    commits: u64,
    rests: Rests,
    now: Instant,
    trace: bool,
}

/// A shard that is to be there, or not.
type Wanted = (ShardKey, Option<SmallShard>);

fn ops(wanted: &[Wanted]) -> Vec<Op<'_>> {
    wanted
        .iter()
        .map(|(key, shard)| match shard {
            Some(shard) => Op::Put(shard),
            None => Op::Delete(*key),
        })
        .collect()
}

fn open(disk: &SimDisk, index: &SimDisk, salts: &Arc<AtomicU64>) -> Result<Engine, StoreError> {
    let salts = Arc::clone(salts);
    Engine::open(Opening {
        io: disk.io(),
        index: Some(index.io()),
        identity: sample::identity(),
        condition: Arc::new(Condition::good(sample::identity().disk)),
        figures: figures(),
        // Room for some of what is asked for.
        progress: Arc::default(),
        directories: Arc::new(DirectoryMemory::new(40_000)),
        random: Box::new(move || {
            let count = salts.fetch_add(1, Ordering::Relaxed);
            Random(count).next()
        }),
    })
}

impl World {
    pub(super) fn new(seed: u64, sabotage: Sabotage) -> Self {
        let disk = SimDisk::new(seed);
        disk.set_sabotage(sabotage);
        let salts = Arc::new(AtomicU64::new(seed << 16));
        let index = SimDisk::new(seed);
        let engine = open(&disk, &index, &salts).expect("an empty disk opens");
        Self {
            disk,
            index,
            engine: Arc::new(engine),
            random: Random(seed),
            salts,
            known: BTreeMap::new(),
            notes: BTreeMap::new(),
            maybe_notes: BTreeSet::new(),
            writing: Vec::new(),
            commits: 0,
            rests: Rests::default(),
            now: Instant::now(),
            trace: std::env::var("SHARDGATE_TRACE").is_ok(),
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{}", what());
        }
    }

    pub(super) fn step(&mut self) {
        match self.random.below(46) {
            0..=14 => self.commit(),
            15..=17 => self.begin(),
            18..=20 => self.finish(),
            21 => self.give_up(),
            22..=24 => self.read(),
            25 => self.list(),
            26 => self.windows(),
            27 => self.engine.roll(self.random.pick(&GROUPS)),
            28 => self.close_resting(),
            29..=31 => self.upkeep(),
            32..=34 => self.compact(),
            35 => self.note(),
            36 => self.reopen(),
            37 => self.restart(),
            38 => self.crash(),
            39..=42 => self.together(),
            _ => self.fault(),
        }
    }

    fn key(&mut self) -> ShardKey {
        ShardKey {
            group: self.random.pick(&GROUPS),
            ..sample::key(u128::from(self.random.below(BLOBS)))
        }
    }

    fn shard(&mut self, key: ShardKey) -> SmallShard {
        let len = self.random.pick(&LENGTHS);
        let seed = key.blob.0 << 8 | u128::from(self.random.below(3));
        let ctx = sample::context(1);
        let mut shard = sample::small(&ctx, seed, len);
        if self.random.below(3) == 0 {
            // Zeroes too, of whole sectors: a sector that is missing shows them.
            let mut bytes = shard.bytes.to_vec();
            let from = self.random.below(len as u64 + 1) as usize;
            bytes[from..].fill(0);
            shard.crcs = block_crcs(&bytes);
            shard.bytes = bytes.into();
        }
        shard.header = sample::header(&ctx, key.blob.0);
        shard.header.key = key;
        shard
    }

    fn known(&mut self, key: ShardKey) -> &mut Known {
        self.known.entry(key).or_default()
    }

    fn refuses(&self, key: ShardKey) -> bool {
        let note = self.notes.get(&(key.group, key.blob));
        note.is_some_and(|note| note.deleted)
    }

    /// A put or a delete.
    fn wanted(&mut self, key: ShardKey) -> Wanted {
        let put = self.random.below(3) > 0;
        (key, put.then(|| self.shard(key)))
    }

    /// Puts and deletes, several at once.
    fn commit(&mut self) {
        let mut wanted: Vec<Wanted> = Vec::new();
        for _ in 0..=self.random.below(5) {
            let key = self.key();
            wanted.push(self.wanted(key));
        }
        let answers = self.engine.commit(&ops(&wanted));
        for ((key, shard), answer) in wanted.into_iter().zip(answers) {
            self.say(|| {
                let put = shard.as_ref().map(|shard| shard.bytes.len());
                format!("put {put:?} {key:?}: {answer:?}")
            });
            self.judge(key, shard, answer);
        }
    }

    /// Begins a shard in an extent, and writes all of it.
    fn begin(&mut self) {
        let key = self.key();
        let shard = self.shard(key);
        if self.writing.iter().any(|w| w.shard.header.key == key) {
            return;
        }
        let len = shard.bytes.len() as u64;
        let reserved = self.engine.reserve(&shard.header, len);
        let Ok(Some(extent)) = reserved else { return };
        let write = [std::io::IoSlice::new(&shard.bytes)];
        let written = extent.file.write_at(&write, extent.data_at);
        self.say(|| {
            format!(
                "begin {key:?} at {} of {}: {written:?}",
                extent.at, extent.sequence
            )
        });
        match written {
            Ok(()) => self.writing.push(Writing { extent, shard }),
            Err(_) => self.engine.release(&extent),
        }
    }

    fn finish(&mut self) {
        let Some(writing) = self.some_writing() else {
            return;
        };
        let ending = writing.ending();
        let answer = self.engine.commit(&[Op::Finish(&ending)]).remove(0);
        self.finished(writing, answer);
    }

    /// An extent that was written, and is to be ended.
    fn some_writing(&mut self) -> Option<Writing> {
        let count = self.writing.len() as u64;
        let at = (count > 0).then(|| self.random.below(count) as usize)?;
        Some(self.writing.swap_remove(at))
    }

    fn finished(&mut self, writing: Writing, answer: Result<(), StoreError>) {
        let Writing { extent, shard } = writing;
        let key = shard.header.key;
        self.say(|| format!("finish {key:?}: {answer:?}"));
        if answer.is_err() {
            self.engine.release(&extent);
        }
        match answer {
            Err(StoreError::NoHandle) => {}
            // A repeat is not one here.
            Err(StoreError::Exists) => {
                let known = self.known(key);
                let some = known.sure.is_some() || known.maybe.iter().any(Option::is_some);
                assert!(some, "{key:?} exists");
            }
            answer => self.judge(key, Some(shard), answer),
        }
    }

    fn give_up(&mut self) {
        if let Some(writing) = self.writing.pop() {
            self.engine.release(&writing.extent);
        }
    }

    fn upkeep(&mut self) {
        let done = self.engine.upkeep();
        self.say(|| format!("upkeep: {done:?}"));
        let copied = self.engine.copy_directory();
        self.say(|| format!("copies: {copied:?}"));
    }

    /// The faster disk forgets, tears, turns bits around, or stays.
    fn lose_index(&mut self) {
        let seed = self.random.next();
        match self.random.below(4) {
            0 => self.index.restart(),
            1 => self.index.power_loss(seed),
            2 => self.index = SimDisk::new(seed),
            _ => {
                let files = self.index.files();
                let files: Vec<_> = files.into_iter().filter(|(_, len)| *len > 0).collect();
                if !files.is_empty() {
                    let (path, len) = &files[self.random.below(files.len() as u64) as usize];
                    let at = self.random.below(*len);
                    self.index.flip_bit(path, at, 1);
                }
            }
        }
    }

    fn compact(&mut self) {
        let Some(choice) = self.engine.worst() else {
            return;
        };
        let stops = self.random.below(8) == 0;
        let done = self.engine.compact(&choice, &mut |_| !stops);
        self.say(|| format!("compact {choice:?}: {done:?}"));
    }

    fn note(&mut self) {
        let key = self.key();
        let of = (key.group, key.blob);
        self.commits += 1;
        let note = Note {
            commit: CommitNumber(self.commits),
            deleted: self.random.below(2) == 0,
            payload: vec![7; self.random.below(40) as usize],
        };
        let forgets = self.random.below(3) == 0;
        let op = if forgets {
            Op::Forget(of.0, of.1)
        } else {
            Op::Note(of.0, of.1, &note)
        };
        let answer = self.engine.commit(&[op]).remove(0);
        self.say(|| format!("note {of:?} {forgets}: {answer:?}"));
        match answer {
            Ok(()) if forgets => {
                self.notes.remove(&of);
                self.maybe_notes.remove(&of);
            }
            Ok(()) => {
                self.notes.insert(of, note);
                self.maybe_notes.remove(&of);
            }
            Err(_) => drop(self.maybe_notes.insert(of)),
        }
    }

    /// Closes volumes that took nothing since the last time, some of those
    /// that did, or none.
    fn close_resting(&mut self) {
        let limits = OpenLimits {
            rest: Duration::from_secs(self.random.below(3)),
            most: 2,
        };
        self.now += Duration::from_secs(1);
        self.engine.close_resting(&mut self.rests, limits, self.now);
    }

    /// Closed in order and opened again.
    fn reopen(&mut self) {
        self.give_up_all();
        let closed = match self.random.below(2) {
            0 => self.engine.close_as_it_is(),
            _ => self.engine.close(true),
        };
        self.say(|| format!("close: {closed:?}"));
        self.disk.restart();
        self.open();
    }

    /// The process goes, the page cache stays.
    fn restart(&mut self) {
        self.say(|| "restart".to_owned());
        self.disk.restart();
        self.open();
    }

    pub(super) fn crash(&mut self) {
        let seed = self.random.next();
        self.say(|| format!("power loss {seed}"));
        self.disk.set_faults(Faults::default());
        self.disk.power_loss(seed);
        self.open();
    }

    fn give_up_all(&mut self) {
        while !self.writing.is_empty() {
            self.give_up();
        }
    }

    fn open(&mut self) {
        self.writing.clear();
        self.disk.set_faults(Faults::default());
        if self.random.below(2) == 0 {
            // It goes again while it opens.
            let power_off = Some(1 + self.random.below(40));
            self.disk.set_faults(Faults {
                power_off,
                ..Faults::default()
            });
            let opened = open(&self.disk, &self.index, &self.salts);
            self.say(|| {
                format!(
                    "opened, to fail at {power_off:?}: {:?}",
                    opened.as_ref().err()
                )
            });
            drop(opened);
            self.disk.set_faults(Faults::default());
            let seed = self.random.next();
            if self.disk.is_off() || self.random.below(2) == 0 {
                self.disk.power_loss(seed);
            } else {
                self.disk.restart();
            }
        }
        self.lose_index();
        let opened = open(&self.disk, &self.index, &self.salts);
        self.engine = Arc::new(opened.unwrap_or_else(|error| panic!("open: {error}")));
        self.check_all();
    }

    /// Something goes wrong with one of the next changes.
    fn fault(&mut self) {
        let at = Some(1 + self.random.below(30));
        let faults = match self.random.below(4) {
            0 => Faults {
                fail_sync: at,
                ..Faults::default()
            },
            1 => Faults {
                fail_write: at,
                ..Faults::default()
            },
            2 => Faults {
                power_off: at,
                ..Faults::default()
            },
            _ => {
                let used: u64 = self.disk.files().iter().map(|(_, len)| len).sum();
                Faults {
                    capacity: Some(used + self.random.below(40_000)),
                    ..Faults::default()
                }
            }
        };
        self.say(|| format!("{faults:?}"));
        self.disk.set_faults(faults);
        for _ in 0..6 {
            match self.random.below(9) {
                0 => self.begin(),
                1 => self.finish(),
                2 => self.upkeep(),
                3 | 4 => self.compact(),
                5 => self.together(),
                _ => self.commit(),
            }
        }
        if self.disk.is_off() {
            self.crash();
        } else if self.engine.condition.check_writable().is_err() {
            if self.random.below(2) == 0 {
                self.restart();
            } else {
                self.crash();
            }
        } else {
            self.disk.set_faults(Faults::default());
        }
    }
}

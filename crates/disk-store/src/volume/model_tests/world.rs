//! A disk, its volumes, and what its callers know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
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
use crate::volume::making::Extent;
use crate::volume::opening::Opening;
use crate::volume::{Op, WindowCursor};

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
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// What callers know of one shard.
#[derive(Clone, Debug, Default)]
struct Known {
    /// What it surely is if nothing in `maybe` came true.
    sure: Option<SmallShard>,
    /// What it may be as well, by calls that were not answered with success.
    maybe: Vec<Option<SmallShard>>,
}

impl Known {
    fn may_be(&self, seen: &Option<SmallShard>) -> bool {
        self.sure == *seen || self.maybe.contains(seen)
    }

    fn is(&mut self, now: Option<SmallShard>) {
        self.sure = now;
        self.maybe.clear();
    }
}

/// An extent that is being written.
struct Writing {
    extent: Extent,
    shard: SmallShard,
}

pub(super) struct World {
    disk: SimDisk,
    engine: Arc<Engine>,
    random: Random,
    salts: Arc<AtomicU64>,
    known: BTreeMap<ShardKey, Known>,
    notes: BTreeMap<(GroupId, BlobId), Note>,
    maybe_notes: BTreeSet<(GroupId, BlobId)>,
    writing: Vec<Writing>,
    commits: u64,
    trace: bool,
}

fn open(disk: &SimDisk, salts: &Arc<AtomicU64>) -> Result<Engine, StoreError> {
    let salts = Arc::clone(salts);
    Engine::open(Opening {
        io: disk.io(),
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
        let engine = open(&disk, &salts).expect("an empty disk opens");
        Self {
            disk,
            engine: Arc::new(engine),
            random: Random(seed),
            salts,
            known: BTreeMap::new(),
            notes: BTreeMap::new(),
            maybe_notes: BTreeSet::new(),
            writing: Vec::new(),
            commits: 0,
            trace: std::env::var("SHARDGATE_TRACE").is_ok(),
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{}", what());
        }
    }

    pub(super) fn step(&mut self) {
        match self.random.below(42) {
            0..=14 => self.commit(),
            15..=17 => self.begin(),
            18..=20 => self.finish(),
            21 => self.give_up(),
            22..=24 => self.read(),
            25 => self.list(),
            26 => self.windows(),
            27..=28 => self.engine.roll(self.random.pick(&GROUPS)),
            29..=31 => self.upkeep(),
            32..=34 => self.compact(),
            35 => self.note(),
            36 => self.reopen(),
            37 => self.restart(),
            38 => self.crash(),
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

    /// Puts and deletes, several at once.
    fn commit(&mut self) {
        let mut wanted: Vec<(ShardKey, Option<SmallShard>)> = Vec::new();
        for _ in 0..=self.random.below(5) {
            let key = self.key();
            let put = self.random.below(3) > 0;
            let shard = put.then(|| self.shard(key));
            wanted.push((key, shard));
        }
        let ops: Vec<Op<'_>> = wanted
            .iter()
            .map(|(key, shard)| match shard {
                Some(shard) => Op::Put(shard),
                None => Op::Delete(*key),
            })
            .collect();
        let answers = self.engine.commit(&ops);
        for ((key, shard), answer) in wanted.into_iter().zip(answers) {
            self.say(|| {
                let put = shard.as_ref().map(|shard| shard.bytes.len());
                format!("put {put:?} {key:?}: {answer:?}")
            });
            self.judge(key, shard, answer);
        }
    }

    /// Whether an answer fits what is known, and what is known after it.
    fn judge(&mut self, key: ShardKey, shard: Option<SmallShard>, answer: Result<(), StoreError>) {
        let refuses = self.refuses(key);
        let known = self.known(key);
        match answer {
            Ok(()) if shard.is_some() => {
                let fits = known.sure.is_none()
                    || known.sure == shard
                    || known
                        .maybe
                        .iter()
                        .any(|maybe| maybe.is_none() || *maybe == shard);
                assert!(fits, "{key:?} was stored over another");
                assert!(!refuses, "{key:?} was stored though it has a delete note");
                known.is(shard);
            }
            Ok(()) => known.is(None),
            Err(StoreError::Exists) => {
                let other = |held: &Option<SmallShard>| held.is_some() && *held != shard;
                assert!(
                    other(&known.sure) || known.maybe.iter().any(other),
                    "{key:?} exists"
                );
            }
            Err(StoreError::BadCall { .. }) => {
                let key = (key.group, key.blob);
                assert!(refuses || self.maybe_notes.contains(&key), "{key:?}");
            }
            Err(StoreError::Fenced { .. } | StoreError::NoSpace | StoreError::Io { .. }) => {
                known.maybe.push(shard)
            }
            Err(error) => panic!("{key:?}: {error}"),
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
        let written = extent.file.write_at(&write, extent.at);
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
        if self.writing.is_empty() {
            return;
        }
        let at = self.random.below(self.writing.len() as u64) as usize;
        let Writing { extent, shard } = self.writing.swap_remove(at);
        let key = shard.header.key;
        let ending = Ending {
            extent: extent.clone(),
            header: shard.header.clone(),
            end: ShardEnd {
                shard_len: shard.bytes.len() as u64,
                blob_len: shard.blob_len,
            },
            crcs: block_crcs(&shard.bytes),
        };
        let answer = self.engine.commit(&[Op::Finish(&ending)]).remove(0);
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

    /// What is stored under a key.
    fn stored(&self, key: ShardKey) -> Option<SmallShard> {
        let stat = self
            .engine
            .stat(key)
            .unwrap_or_else(|e| panic!("stat {key:?}: {e}"))?;
        let end = stat.end.expect("volumes hold what has ended");
        let len = u32::try_from(end.shard_len).unwrap();
        let (bytes, crcs) = if len == 0 {
            (Bytes::new(), vec![])
        } else {
            let read = self.engine.read(key, 0, len);
            let read = read.unwrap_or_else(|e| panic!("read {key:?}: {e}"));
            let read = read.expect("it was there just now");
            (read.bytes, read.crcs)
        };
        Some(SmallShard {
            header: stat.header,
            blob_len: end.blob_len,
            bytes,
            crcs,
        })
    }

    fn read(&mut self) {
        let key = self.key();
        self.check(key, false);
    }

    /// `settles`: what is seen is so from now on.
    fn check(&mut self, key: ShardKey, settles: bool) {
        let seen = self.stored(key);
        let known = self.known(key);
        let short = |shard: &Option<SmallShard>| {
            shard
                .as_ref()
                .map(|shard| (shard.bytes.len(), shard.crcs.clone()))
        };
        assert!(
            known.may_be(&seen),
            "{key:?} is {:?}, and should be {:?} or one of {:?}",
            short(&seen),
            short(&known.sure),
            known.maybe.iter().map(short).collect::<Vec<_>>()
        );
        if settles {
            known.is(seen);
        }
    }

    fn list(&mut self) {
        let limit = self.random.pick(&[1, 3, 100]);
        let mut after = None;
        let mut listed = Vec::new();
        loop {
            let page = self.engine.list(after, limit).expect("lists");
            listed.extend(page.iter().map(|entry| entry.key));
            if page.len() < limit {
                break;
            }
            after = page.last().map(|entry| entry.key);
        }
        assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
        let listed: BTreeSet<_> = listed.into_iter().collect();
        self.check_keys(&listed, "list");
    }

    fn windows(&mut self) {
        let bytes = self.random.pick(&[1, 5000, 1 << 20]);
        let mut seen = BTreeSet::new();
        for group in self.engine.groups_from(None) {
            let mut next = Some(WindowCursor {
                group,
                ..WindowCursor::default()
            });
            while let Some(from) = next {
                let window = self.engine.window(from, bytes).expect("reads");
                assert!(!window.unknown);
                for record in window.records {
                    let shard = record
                        .shard
                        .unwrap_or_else(|e| panic!("{:?}: {e}", record.key));
                    assert_eq!(shard.header.key, record.key);
                    assert!(seen.insert(record.key), "{:?} twice", record.key);
                }
                assert!(window.next.is_none_or(|next| next > from));
                next = window.next;
            }
        }
        self.check_keys(&seen, "windows");
    }

    /// Keys that were enumerated against what is known.
    fn check_keys(&self, keys: &BTreeSet<ShardKey>, what: &str) {
        for (key, known) in &self.known {
            let may_be = |there: bool| {
                known.sure.is_some() == there
                    || known.maybe.iter().any(|maybe| maybe.is_some() == there)
            };
            assert!(
                may_be(keys.contains(key)),
                "{what}: {key:?} is {}",
                keys.contains(key)
            );
        }
        for key in keys {
            assert!(
                self.known.contains_key(key),
                "{what}: {key:?} was never stored"
            );
        }
    }

    fn upkeep(&mut self) {
        let done = self.engine.upkeep();
        self.say(|| format!("upkeep: {done:?}"));
    }

    fn compact(&mut self) {
        let Some(choice) = self.engine.worst() else {
            return;
        };
        let stops = self.random.below(8) == 0;
        // What others do while it runs.
        let keys: Vec<_> = (0..2).map(|_| self.key()).collect();
        let engine = Arc::clone(&self.engine);
        let mut answers = Vec::new();
        let done = self.engine.compact(&choice, &mut |_| {
            if answers.is_empty() {
                let ops: Vec<_> = keys.iter().map(|key| Op::Delete(*key)).collect();
                answers = engine.commit(&ops);
            }
            !stops
        });
        self.say(|| format!("compact {choice:?}: {done:?}, meanwhile {keys:?}: {answers:?}"));
        for (key, answer) in keys.into_iter().zip(answers) {
            self.judge(key, None, answer);
        }
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

    /// Closed in order and opened again.
    fn reopen(&mut self) {
        self.give_up_all();
        let closed = self.engine.close();
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
            let opened = open(&self.disk, &self.salts);
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
        let opened = open(&self.disk, &self.salts);
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
            match self.random.below(8) {
                0 => self.begin(),
                1 => self.finish(),
                2 => self.upkeep(),
                3 | 4 => self.compact(),
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

    /// Everything is as it should be, and stays so.
    pub(super) fn check_all(&mut self) {
        let keys: Vec<_> = self.known.keys().copied().collect();
        for key in keys {
            self.check(key, true);
        }
        self.list();
        self.windows();
        for of in std::mem::take(&mut self.maybe_notes) {
            match self.engine.note(of.0, of.1) {
                Some(note) => drop(self.notes.insert(of, note)),
                None => drop(self.notes.remove(&of)),
            }
        }
        let held: BTreeMap<_, _> = self.engine.notes(None, 1000).into_iter().collect();
        assert_eq!(held, self.notes);
    }
}

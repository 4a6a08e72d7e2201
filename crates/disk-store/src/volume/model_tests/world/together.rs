//! Callers, upkeep, compaction and readers at once, in an order that the seed
//! says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use shardgate_wire::store::SmallShard;
use shardgate_wire::{Finding, ShardKey};

use super::super::turns::{Task, take_turns};
use super::checks::{listed, stored, windowed};
use super::{Wanted, World, ops};
use crate::checking::Report;
use crate::volume::commit::{Answer, OwnedOp};
use crate::volume::engine::Engine;
use crate::volume::source::Unhurried;
use crate::volume::{OpenLimits, Rests};

/// Batches of one caller, and what it was answered.
type Batches = Vec<(Vec<Wanted>, Vec<Answer>)>;

/// What a reader saw while others wrote; what it could not see is left out.
#[derive(Default)]
struct Seen {
    shards: Vec<(ShardKey, Option<SmallShard>)>,
    lists: Vec<BTreeSet<ShardKey>>,
    windows: Vec<BTreeSet<ShardKey>>,
}

/// What a check found while others wrote, and the shards that it saw whole.
#[derive(Default)]
struct Checked {
    findings: Vec<Finding>,
    whole: BTreeSet<ShardKey>,
}

impl Checked {
    fn check(&mut self, engine: &Engine) {
        let (mut report, mut after) = (Report::default(), None);
        while let Some(place) = engine
            .check_next(&mut report, after, false)
            .expect("a check does not fail")
        {
            after = Some(place);
        }
        engine
            .check_log(&mut report, None, &Unhurried)
            .expect("nor that of the log");
        self.whole.extend(report.seen.iter().copied());
        self.findings = report.into_page(None).findings;
    }
}

impl Seen {
    fn look(&mut self, engine: &Engine, keys: &[ShardKey], disk_fails: bool) {
        // A disk that fails refuses reads as well.
        let there = |read: Result<_, _>, key: &ShardKey| match read {
            Err(shardgate_wire::StoreError::Io { .. }) if disk_fails => None,
            read => Some(read.unwrap_or_else(|e| panic!("read {key:?}: {e}"))),
        };
        for key in keys {
            let read = there(stored(engine, *key), key);
            self.shards.extend(read.map(|shard| (*key, shard)));
        }
        match listed(engine, 5) {
            Err(_) if disk_fails => {}
            keys => self.lists.push(keys.expect("lists")),
        }
        match windowed(engine, 9000) {
            Err(_) if disk_fails => {}
            seen => self
                .windows
                .push(seen.expect("reads").into_keys().collect()),
        }
    }
}

impl World {
    /// Two callers of other shards each, one that ends an extent, upkeep and
    /// compaction, a reader of what nobody changes, and a check.
    pub(super) fn together(&mut self) {
        let mut free: BTreeSet<ShardKey> = (0..20).map(|_| self.key()).collect();
        let writing = self.some_writing();
        let ends = writing.as_ref().map(|writing| writing.shard.header.key);
        free.retain(|key| Some(*key) != ends);
        let mut callers = [self.batches(&mut free), self.batches(&mut free)];
        let quiet: Vec<ShardKey> = free.into_iter().take(4).collect();
        let changed: BTreeSet<ShardKey> = callers
            .iter()
            .flatten()
            .flat_map(|(wanted, _)| wanted.iter().map(|(key, _)| *key))
            .chain(ends)
            .collect();
        let disk_fails = self.disk.has_faults();
        let stops = self.random.below(8) == 0;
        let seed = self.random.next();
        let (mut seen, mut ended) = (Seen::default(), None);
        let mut checked = Checked::default();
        let engine = &*self.engine;
        let mut tasks: Vec<Task<'_>> = Vec::new();
        for batches in &mut callers {
            tasks.push(Box::new(move || {
                for (wanted, answers) in batches {
                    *answers = engine.commit(&ops(wanted));
                }
            }));
        }
        if let Some(writing) = &writing {
            let ended = &mut ended;
            tasks.push(Box::new(move || {
                let op = OwnedOp::Finish(Box::new(writing.ending()));
                *ended = Some(engine.commit_with_others(vec![op]).remove(0));
            }));
        }
        tasks.push(Box::new(move || look_after(engine, stops)));
        let seen_there = &mut seen;
        let quiet = &quiet;
        tasks.push(Box::new(move || seen_there.look(engine, quiet, disk_fails)));
        let checked_there = &mut checked;
        tasks.push(Box::new(move || checked_there.check(engine)));
        take_turns(seed, tasks);
        self.say(|| format!("together, seed {seed}, faults {disk_fails}"));
        self.answered(callers);
        if let (Some(writing), Some(answer)) = (writing, ended) {
            self.finished(writing, answer);
        }
        self.saw(seen, &changed);
        // A disk that fails does not give what is there.
        if !disk_fails {
            assert_eq!(checked.findings, [], "check, while others wrote");
            self.check_keys(&checked.whole, &changed, "check, while others wrote");
        }
    }

    /// Batches of one caller, of keys that nobody else changes.
    fn batches(&mut self, free: &mut BTreeSet<ShardKey>) -> Batches {
        let mut batches = Vec::new();
        for _ in 0..=self.random.below(2) {
            let count = 1 + self.random.below(5) as usize;
            let keys: Vec<_> = free.iter().copied().take(count).collect();
            free.retain(|key| !keys.contains(key));
            let wanted = keys.into_iter().map(|key| self.wanted(key)).collect();
            batches.push((wanted, Vec::new()));
        }
        batches
    }

    fn answered(&mut self, callers: [Batches; 2]) {
        for (wanted, answers) in callers.into_iter().flatten() {
            assert_eq!(wanted.len(), answers.len());
            for ((key, shard), answer) in wanted.into_iter().zip(answers) {
                self.say(|| {
                    let put = shard.as_ref().map(|shard| shard.bytes.len());
                    format!("together, put {put:?} {key:?}: {answer:?}")
                });
                self.judge(key, shard, answer);
            }
        }
    }

    fn saw(&mut self, seen: Seen, changed: &BTreeSet<ShardKey>) {
        for (key, shard) in seen.shards {
            let fits = self.known(key).may_be(&shard);
            assert!(fits, "{key:?} was read as {shard:?} while others wrote");
        }
        for keys in &seen.lists {
            self.check_keys(keys, changed, "list, while others wrote");
        }
        for keys in &seen.windows {
            self.check_keys(keys, changed, "windows, while others wrote");
        }
    }
}

fn look_after(engine: &Engine, stops: bool) {
    let mut rests = Rests::default();
    let limits = OpenLimits {
        rest: Duration::ZERO,
        most: 1,
    };
    for _ in 0..3 {
        engine.close_resting(&mut rests, limits, Instant::now());
        while engine.upkeep() == Ok(true) {}
        let _ = engine.copy_directory();
        if let Some(choice) = engine.worst() {
            let _ = engine.compact(&choice, &mut |_| !stops);
        }
    }
}

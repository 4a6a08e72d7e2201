//! What the disk shows against what its callers know.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use shardgate_wire::store::SmallShard;
use shardgate_wire::{ShardKey, StoreError};

use super::World;
use crate::volume::WindowCursor;
use crate::volume::engine::Engine;

/// What callers know of one shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// What it surely is if nothing in `maybe` came true.
    pub(super) sure: Option<SmallShard>,
    /// What it may be as well, by calls that were not answered with success.
    pub(super) maybe: Vec<Option<SmallShard>>,
}

impl Known {
    pub(super) fn may_be(&self, seen: &Option<SmallShard>) -> bool {
        self.sure == *seen || self.maybe.contains(seen)
    }

    pub(super) fn is(&mut self, now: Option<SmallShard>) {
        self.sure = now;
        self.maybe.clear();
    }
}

/// What is stored under a key.
pub(super) fn stored(engine: &Engine, key: ShardKey) -> Result<Option<SmallShard>, StoreError> {
    let Some(stat) = engine.stat(key)? else {
        return Ok(None);
    };
    let end = stat.end.expect("volumes hold what has ended");
    let len = u32::try_from(end.shard_len).unwrap();
    let (bytes, crcs) = match len {
        0 => (Bytes::new(), vec![]),
        len => match engine.read(key, 0, len)? {
            Some(read) => (read.bytes, read.crcs),
            None => return Ok(None), // it went meanwhile
        },
    };
    Ok(Some(SmallShard {
        header: stat.header,
        blob_len: end.blob_len,
        bytes,
        crcs,
    }))
}

/// All keys that a list shows, of pages of `limit`.
pub(super) fn listed(engine: &Engine, limit: usize) -> Result<BTreeSet<ShardKey>, StoreError> {
    let mut listed: Vec<ShardKey> = Vec::new();
    loop {
        let page = engine.list(listed.last().copied(), limit)?;
        listed.extend(page.iter().map(|entry| entry.key));
        if page.len() < limit {
            break;
        }
    }
    assert!(listed.is_sorted_by(|a, b| a < b), "{listed:?}");
    Ok(listed.into_iter().collect())
}

/// All keys that windows of about `bytes` show, and how often each.
pub(super) fn windowed(engine: &Engine, bytes: u64) -> Result<BTreeMap<ShardKey, u32>, StoreError> {
    let mut seen = BTreeMap::new();
    for group in engine.groups_from(None) {
        let mut next = Some(WindowCursor {
            group,
            ..WindowCursor::default()
        });
        while let Some(from) = next {
            let window = engine.window(from, bytes)?;
            assert!(!window.unknown);
            for record in window.records {
                match record.shard {
                    Ok(shard) => assert_eq!(shard.header.key, record.key),
                    Err(StoreError::Io { .. }) => {}
                    Err(error) => panic!("{:?}: {error}", record.key),
                }
                *seen.entry(record.key).or_default() += 1;
            }
            assert!(window.next.is_none_or(|next| next > from));
            next = window.next;
        }
    }
    Ok(seen)
}

impl World {
    /// Whether an answer fits what is known, and what is known after it.
    pub(super) fn judge(
        &mut self,
        key: ShardKey,
        shard: Option<SmallShard>,
        answer: Result<(), StoreError>,
    ) {
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

    pub(super) fn read(&mut self) {
        let key = self.key();
        self.check(key, false);
    }

    /// `settles`: what is seen is so from now on.
    pub(super) fn check(&mut self, key: ShardKey, settles: bool) {
        let seen = stored(&self.engine, key).unwrap_or_else(|e| panic!("read {key:?}: {e}"));
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

    pub(super) fn list(&mut self) {
        let limit = self.random.pick(&[1, 3, 100]);
        let keys = listed(&self.engine, limit).expect("lists");
        self.check_keys(&keys, &BTreeSet::new(), "list");
    }

    pub(super) fn windows(&mut self) {
        let bytes = self.random.pick(&[1, 5000, 1 << 20]);
        let seen = windowed(&self.engine, bytes).expect("reads");
        let twice = seen.iter().find(|(_, times)| **times > 1);
        assert_eq!(twice, None, "windows");
        let keys = seen.into_keys().collect();
        self.check_keys(&keys, &BTreeSet::new(), "windows");
    }

    /// Keys that were enumerated against what is known; not those that were
    /// being changed meanwhile.
    pub(super) fn check_keys(
        &self,
        keys: &BTreeSet<ShardKey>,
        but: &BTreeSet<ShardKey>,
        what: &str,
    ) {
        for (key, known) in self.known.iter().filter(|(key, _)| !but.contains(key)) {
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
        for key in keys.difference(but) {
            assert!(
                self.known.contains_key(key),
                "{what}: {key:?} was never stored"
            );
        }
    }

    /// Everything is as it should be, and stays so.
    pub(in super::super) fn check_all(&mut self) {
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
        let check = self.engine.check(false).expect("checks");
        assert_eq!(check.findings, []);
    }
}

//! Makes rows of objects by the million, with commits of many.
//!
//! The rows are those that the catalog itself makes: one object is published
//! as any, and its rows are the pattern of all others.

use std::io::{Error, Result};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use rand::RngCore;
use shardgate_catalog::engine::{Commit, Engine, Entry, KeyRange, Op, Scan};
use shardgate_catalog::model::{
    BlobRef, Content, DetailRow, ETag, GroupRow, GroupState, VersionRow,
};
use shardgate_catalog::{BucketRef, Catalog, Publish, PublishBody, WriteCondition, WrittenBlob};
use shardgate_wire::{
    BlobId, BlobLayout, BucketIncarnation, DiskId, Generation, GroupId, Medium, VersionUid,
};
use tokio::task::JoinHandle;

/// Objects of a commit.
const TOGETHER: u64 = 2_000;
/// Tasks that commit.
const LANES: u64 = 4;
/// First bytes of the keys of rows (`docs/catalog.md`).
const CURRENT: u8 = 0x10;
const BLOB: u8 = 0x20;
const GROUP: GroupId = GroupId(1);
/// Stands in the pattern where a row has an MD5 of its own.
const MD5: [u8; 16] = [0xE7; 16];
/// Multiplies numbers into an order that looks like none; a prime.
const SHUFFLE: u128 = 2_654_435_761;

/// The keys of a bucket, by their place in its order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// How many entries a listing has.
    pub(crate) count: u64,
    /// Keys below each common prefix; 0 where there are none.
    below_each: u64,
}

impl Names {
    /// Keys without a delimiter.
    pub(crate) fn flat(count: u64) -> Self {
        Self {
            count,
            below_each: 0,
        }
    }

    /// Common prefixes with two keys below each.
    pub(crate) fn folders(count: u64) -> Self {
        Self {
            count,
            below_each: 2,
        }
    }

    /// The first key of entry `at`.
    pub(crate) fn key(&self, at: u64) -> String {
        self.below(at, 0)
    }

    /// As long as any other, so that rows differ in nothing but their bytes.
    fn below(&self, at: u64, number: u64) -> String {
        match self.below_each {
            0 => format!("uploads-object-{at:010}-{number}"),
            _ => format!("uploads-{at:010}/object-{number}"),
        }
    }

    fn keys_of(&self, at: u64) -> impl Iterator<Item = String> {
        let names = *self;
        (0..self.below_each.max(1)).map(move |number| names.below(at, number))
    }

    /// The entry that is made as number `n`.
    fn shuffled(&self, n: u64) -> u64 {
        let at = u128::from(n) * SHUFFLE % u128::from(self.count);
        u64::try_from(at).expect("below the count")
    }
}

/// The rows of one object.
struct Pattern {
    key: String,
    version: Bytes,
    blob: Bytes,
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "rows keep their length");
    let mut bytes = bytes.to_vec();
    let at = bytes.windows(from.len()).position(|part| part == from);
    if let Some(at) = at {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

fn current(incarnation: BucketIncarnation, name: &str) -> Bytes {
    [
        &[CURRENT],
        &incarnation.0.to_be_bytes()[..],
        name.as_bytes(),
    ]
    .concat()
    .into()
}

fn blob(number: u128) -> Bytes {
    let (group, blob) = (GROUP.0.to_be_bytes(), number.to_be_bytes());
    [&[BLOB], &group[..], &blob[..]].concat().into()
}

impl Pattern {
    fn ops(&self, incarnation: BucketIncarnation, name: &str) -> [Op; 2] {
        let mut md5 = [0; 16];
        rand::rng().fill_bytes(&mut md5);
        let version = replaced(&self.version, &MD5, &md5);
        let owner = replaced(&self.blob, self.key.as_bytes(), name.as_bytes());
        [
            Op::Put(current(incarnation, name), version.into()),
            Op::Put(blob(u128::from_be_bytes(md5)), owner.into()),
        ]
    }
}

/// Commits rows; what it was told to do is done when [`Self::finish`] returns.
pub(crate) struct Filler {
    engine: Arc<dyn Engine>,
    pattern: Arc<Pattern>,
    lanes: Mutex<Vec<JoinHandle<Result<()>>>>,
}

async fn only_row(engine: &dyn Engine, prefix: Bytes) -> Result<Bytes> {
    let scan = Scan::first(KeyRange::prefix(prefix), 1);
    let found = engine.scan(scan).await.map_err(Error::other)?;
    let row = found.into_iter().find_map(Entry::into_row);
    Ok(row.expect("it was just published").1)
}

fn pattern_object(bucket: &BucketRef, key: &str) -> Publish {
    let written = WrittenBlob {
        blob: BlobRef {
            group: GROUP,
            blob: BlobId(1),
            layout: BlobLayout { data: 4, parity: 2 },
            len: 1 << 20,
        },
        generation: Generation(1),
        owed_slots: vec![],
        lowest_in_flight: BlobId(1),
    };
    Publish {
        bucket: bucket.clone(),
        key: key.to_owned(),
        row: VersionRow {
            // As long as those that are drawn from the time.
            uid: VersionUid(0x0198_0000_0000_0000_0000_0000_0000_0001),
            size: 1 << 20,
            modified: 1_760_000_000_000,
            etag: ETag { md5: MD5, parts: 0 },
            class: 0,
            content: Content::Inline,
            checksum: None,
            null: true,
            has_detail: false,
        },
        detail: DetailRow::default(),
        body: PublishBody::Blob(written),
        condition: WriteCondition::None,
    }
}

impl Filler {
    /// Publishes the pattern, in a bucket of its own if it is the first.
    pub(crate) async fn new(engine: Arc<dyn Engine>, catalog: &Catalog) -> Result<Self> {
        const NAME: &str = "pattern";
        let key = Names::flat(1).key(0);
        let row = match catalog.create_bucket(NAME, "bench", 0).await {
            Ok(row) => row,
            Err(_) => catalog.bucket(NAME).await.map_err(Error::other)?,
        };
        let bucket = BucketRef {
            name: NAME.to_owned(),
            incarnation: row.incarnation,
        };
        if catalog.object(row.incarnation, &key).await.is_err() {
            let group = GroupRow {
                id: GROUP,
                generation: Generation(1),
                data: 4,
                parity: 2,
                medium: Medium::Flash,
                slots: (1..=6).map(DiskId).collect(),
                state: GroupState::Open,
                narrow: false,
                slot_bytes: 0,
            };
            let put = catalog.put_group(&group, None).await;
            put.map_err(Error::other)?;
            let published = catalog.publish(pattern_object(&bucket, &key)).await;
            published.map_err(Error::other)?;
        }
        let version = only_row(&*engine, current(row.incarnation, "")).await?;
        let blob = only_row(&*engine, blob(1)).await?;
        Ok(Self {
            engine,
            pattern: Arc::new(Pattern { key, version, blob }),
            lanes: Mutex::new(Vec::new()),
        })
    }

    /// Runs `ops` of the numbers below `count`, [`TOGETHER`] in a commit.
    fn commit_all(&self, count: u64, ops: impl Fn(u64) -> Vec<Op> + Clone + Send + 'static) {
        for lane in 0..LANES {
            let (engine, ops) = (Arc::clone(&self.engine), ops.clone());
            let commits = (0..count.div_ceil(TOGETHER)).filter(move |n| n % LANES == lane);
            let work = async move {
                for commit in commits {
                    let numbers = commit * TOGETHER..count.min((commit + 1) * TOGETHER);
                    let commit = Commit {
                        expect: vec![],
                        ops: numbers.flat_map(&ops).collect(),
                    };
                    engine.commit(commit).await.map_err(Error::other)?;
                }
                Ok(())
            };
            self.lanes.lock().push(tokio::spawn(work));
        }
    }

    /// Makes all objects of a bucket.
    pub(crate) fn fill(&self, incarnation: BucketIncarnation, names: &Names) {
        self.fill_some(incarnation, names, 0, names.count);
    }

    /// Makes `count` objects of a bucket, or makes them anew, in the order in
    /// which [`Self::fill`] does, from number `first` on.
    pub(crate) fn fill_some(
        &self,
        incarnation: BucketIncarnation,
        names: &Names,
        first: u64,
        count: u64,
    ) {
        let (pattern, names) = (Arc::clone(&self.pattern), *names);
        self.commit_all(count, move |n| {
            let keys = names.keys_of(names.shuffled(first + n));
            keys.flat_map(|key| pattern.ops(incarnation, &key))
                .collect()
        });
    }

    /// Makes one object.
    pub(crate) fn put(&self, incarnation: BucketIncarnation, key: &str) {
        let key = format!("{key:z<width$}", width = self.pattern.key.len());
        let pattern = Arc::clone(&self.pattern);
        self.commit_all(1, move |_| pattern.ops(incarnation, &key).to_vec());
    }

    /// Deletes the first `count` entries of a bucket, in their order.
    pub(crate) fn delete_first(&self, incarnation: BucketIncarnation, names: &Names, count: u64) {
        let names = *names;
        self.commit_all(count, move |n| {
            let keys = names.keys_of(n);
            keys.map(|key| Op::Delete(current(incarnation, &key)))
                .collect()
        });
    }

    /// Waits for everything.
    pub(crate) async fn finish(&self) -> Result<()> {
        let mut lanes: FuturesUnordered<_> = self.lanes.lock().drain(..).collect();
        while let Some(ended) = lanes.next().await {
            ended.expect("a lane does not panic")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_every_one_is_made_once() {
        for names in [Names::flat(1000), Names::folders(1000)] {
            let keys: Vec<_> = (0..1000).map(|at| names.key(at)).collect();
            assert!(keys.is_sorted(), "{keys:?}");
            assert!(keys.iter().all(|key| key.len() == keys[0].len()));
            let mut made: Vec<_> = (0..1000).map(|n| names.shuffled(n)).collect();
            assert!(!made.is_sorted());
            made.sort_unstable();
            assert!(made.into_iter().eq(0..1000));
        }
    }
}

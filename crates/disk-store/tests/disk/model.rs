//! The disk against the store in memory: the same calls, the same answers.
//!
//! Both stand under one suite; this finds what the suite did not think of.
//! `SHARDGATE_TEST_SEED=N` repeats a run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use shardgate_disk_store::{DiskOptions, LocalDisk};
use shardgate_wire::checksum::{CHECK_BLOCK, block_crcs};
use shardgate_wire::conformance::{check_whole, sample};
use shardgate_wire::ids::{Generation, GroupId};
use shardgate_wire::memory_store::MemoryStore;
use shardgate_wire::store::{ListedShard, MAX_APPEND_BYTES, ShardEnd, ShardHandle};
use shardgate_wire::{CallContext, ShardKey, ShardStore, SlotAssignment, StoreError};

use crate::folder::{Folder, expected, options};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

fn seed() -> u64 {
    let seed = match std::env::var("SHARDGATE_TEST_SEED") {
        Ok(told) => told.parse().unwrap(),
        Err(_) => shardgate_wire::ids::random_u128() as u64,
    };
    println!("SHARDGATE_TEST_SEED={seed}");
    seed
}

/// Answers without what each store words or measures for itself.
#[track_caller]
fn assert_same<T: std::fmt::Debug + PartialEq>(
    disk: Result<T, StoreError>,
    model: Result<T, StoreError>,
    what: &str,
) {
    let plain = |error| match error {
        StoreError::BadCall { .. } => StoreError::BadCall {
            what: String::new(),
        },
        StoreError::WrongDisk { .. } => StoreError::WrongDisk {
            what: String::new(),
        },
        other => other,
    };
    assert_eq!(disk.map_err(plain), model.map_err(plain), "{what}");
}

struct Pair {
    folder: Folder,
    options: DiskOptions,
    disk: Arc<LocalDisk>,
    model: MemoryStore,
    ctx: CallContext,
    /// Handles of the disk, of the model, their shard and what was appended.
    handles: Vec<(ShardHandle, ShardHandle, u128, u64)>,
    generations: HashMap<GroupId, u32>,
    /// Shards that were begun with a length, lately.
    announced: HashSet<ShardKey>,
}

const GROUPS: [GroupId; 2] = [GroupId(7), GroupId(0x91)];
const LENGTHS: [usize; 7] = [
    0,
    1,
    4095,
    4096,
    CHECK_BLOCK,
    CHECK_BLOCK + 1,
    MAX_APPEND_BYTES,
];

impl Pair {
    fn new(options: DiskOptions) -> Self {
        let folder = Folder::new();
        let disk = LocalDisk::open(folder.path(), &expected(), options.clone()).unwrap();
        Self {
            folder,
            options,
            disk: Arc::new(disk),
            model: MemoryStore::new(sample::identity()),
            ctx: sample::context(1),
            handles: vec![],
            generations: HashMap::new(),
            announced: HashSet::new(),
        }
    }

    /// Blobs of a few folders.
    fn key(&self, random: &mut Random) -> ShardKey {
        let blob = u128::from(random.below(4)) << 100 | u128::from(random.below(3));
        ShardKey {
            group: random.pick(&GROUPS),
            ..sample::key(blob)
        }
    }

    fn header(&self, key: ShardKey, random: &mut Random) -> shardgate_wire::ShardHeader {
        let mut header = sample::header(&self.ctx, key.blob.0);
        header.key = key;
        let held = self.generations.get(&key.group).copied().unwrap_or(0);
        // Now and then one that is not held.
        header.generation = Generation(held + u32::from(random.below(12) == 0));
        header
    }

    async fn step(&mut self, random: &mut Random) {
        match random.below(24) {
            0 => self.assign(random).await,
            1..=4 => self.open(random).await,
            5..=9 => self.append(random).await,
            10..=12 => self.finish(random).await,
            13 => self.abort(random).await,
            14..=16 => self.put(random).await,
            17..=18 => self.read(random).await,
            19 => self.stat(random).await,
            20 => self.delete(random).await,
            21 => self.list(random).await,
            22 => self.raise(random).await,
            _ => self.restart(random).await,
        }
    }

    async fn assign(&mut self, random: &mut Random) {
        let group = random.pick(&GROUPS);
        let held = self.generations.get(&group).copied().unwrap_or(0);
        let generation = (held + random.below(3) as u32).saturating_sub(1);
        let slot = SlotAssignment {
            group,
            slot: sample::slot().slot,
            generation: Generation(generation),
        };
        let disk = self.disk.assign(&self.ctx, &[slot]).await;
        let model = self.model.assign(&self.ctx, &[slot]).await;
        if model.is_ok() {
            self.generations.insert(group, generation);
        }
        assert_same(disk, model, &format!("assign {slot:?}"));
    }

    async fn open(&mut self, random: &mut Random) {
        let key = self.key(random);
        let header = self.header(key, random);
        let announced = random.pick(&[None, Some(CHECK_BLOCK as u64), Some(600_000)]);
        let disk = self.disk.open(&self.ctx, header.clone(), announced).await;
        let model = self.model.open(&self.ctx, header, announced).await;
        if let (Ok(disk), Ok(model)) = (&disk, &model) {
            match announced {
                Some(_) => self.announced.insert(key),
                None => self.announced.remove(&key),
            };
            self.handles.push((*disk, *model, key.blob.0, 0));
        }
        assert_same(disk.map(drop), model.map(drop), &format!("open {key:?}"));
    }

    async fn append(&mut self, random: &mut Random) {
        if self.handles.is_empty() {
            return;
        }
        let at = random.below(self.handles.len() as u64) as usize;
        let (disk, model, blob, end) = self.handles[at];
        let offset = match random.below(6) {
            0 => end.saturating_sub(CHECK_BLOCK as u64),
            1 => end + 1,
            _ => end,
        };
        let len = random.pick(&LENGTHS);
        let bytes = sample::bytes(blob ^ u128::from(offset), len);
        let crcs = block_crcs(&bytes);
        let on_disk = self
            .disk
            .append(&self.ctx, disk, offset, bytes.clone(), &crcs)
            .await;
        let in_model = self
            .model
            .append(&self.ctx, model, offset, bytes, &crcs)
            .await;
        if in_model.is_ok() {
            self.handles[at].3 = offset + len as u64;
        }
        assert_same(on_disk, in_model, &format!("append {len} at {offset}"));
    }

    async fn finish(&mut self, random: &mut Random) {
        if self.handles.is_empty() {
            return;
        }
        let (disk, model, _, end) = random.pick(&self.handles);
        let end = ShardEnd {
            shard_len: end + u64::from(random.below(8) == 0),
            blob_len: 4 * end,
        };
        let on_disk = self.disk.finish(&self.ctx, disk, end).await;
        let in_model = self.model.finish(&self.ctx, model, end).await;
        assert_same(on_disk, in_model, &format!("finish {end:?}"));
    }

    async fn abort(&mut self, random: &mut Random) {
        if self.handles.is_empty() {
            return;
        }
        let at = random.below(self.handles.len() as u64) as usize;
        let (disk, model, ..) = self.handles.swap_remove(at);
        let on_disk = self.disk.abort(&self.ctx, disk).await;
        let in_model = self.model.abort(&self.ctx, model).await;
        assert_same(on_disk, in_model, "abort");
    }

    async fn put(&mut self, random: &mut Random) {
        let key = self.key(random);
        let len = random.pick(&LENGTHS);
        // Two kinds of content, so that some repeats are of other bytes.
        let seed = key.blob.0 + u128::from(random.below(2));
        let mut small = sample::small(&self.ctx, seed, len);
        small.header = self.header(key, random);
        let on_disk = self.disk.put(&self.ctx, small.clone()).await;
        let in_model = self.model.put(&self.ctx, small).await;
        assert_same(on_disk, in_model, &format!("put {key:?} {len}"));
    }

    async fn read(&mut self, random: &mut Random) {
        let key = self.key(random);
        let block = CHECK_BLOCK as u64;
        let offset = random.pick(&[0, 0, 0, block, 4 * block, 1]);
        let len = random.pick(&[
            1,
            4095,
            4096,
            CHECK_BLOCK as u32,
            MAX_APPEND_BYTES as u32,
            0,
        ]);
        let on_disk = self.disk.read(key, offset, len).await;
        let in_model = self.model.read(key, offset, len).await;
        assert_same(
            on_disk,
            in_model,
            &format!("read {key:?} {len} at {offset}"),
        );
    }

    async fn stat(&mut self, random: &mut Random) {
        let key = self.key(random);
        let on_disk = self.disk.stat(key).await;
        let in_model = self.model.stat(key).await;
        assert_same(on_disk, in_model, &format!("stat {key:?}"));
    }

    async fn delete(&mut self, random: &mut Random) {
        let keys: Vec<_> = (0..random.below(4)).map(|_| self.key(random)).collect();
        let on_disk = self.disk.delete(&self.ctx, &keys).await;
        let in_model = self.model.delete(&self.ctx, &keys).await;
        assert_same(on_disk, in_model, &format!("delete {keys:?}"));
    }

    async fn list(&mut self, random: &mut Random) {
        let limit = random.pick(&[1, 2, 5, 1000]);
        let mut after = (random.below(2) == 0).then(|| self.key(random));
        let plain = |page: Vec<ListedShard>| {
            let entry = |entry: ListedShard| (entry.key, entry.finished);
            page.into_iter().map(entry).collect::<Vec<_>>()
        };
        loop {
            let on_disk = self.disk.list(after, limit).await.map(plain);
            let in_model = self.model.list(after, limit).await.map(plain);
            let last = in_model.as_ref().ok().and_then(|page| page.last().copied());
            assert_same(on_disk, in_model, &format!("list {limit} after {after:?}"));
            let Some((key, _)) = last else {
                return;
            };
            after = Some(key);
        }
    }

    async fn raise(&mut self, random: &mut Random) {
        let number = self.ctx.epoch.number;
        let ctx = sample::context((number + random.below(3)).saturating_sub(1).max(1));
        let on_disk = self.disk.raise_epoch(&ctx).await;
        let in_model = self.model.raise_epoch(&ctx).await;
        if in_model.is_ok() {
            self.ctx = ctx;
            self.forget_unfinished().await;
        }
        assert_same(on_disk, in_model, &format!("raise to {:?}", ctx.epoch));
    }

    /// What was begun in a volume and never ended is gone with its handle; a
    /// file stays.
    async fn forget_unfinished(&mut self) {
        let unfinished = self.model.list(None, 1000).await.unwrap();
        for entry in unfinished.iter().filter(|entry| !entry.finished) {
            if self.disk.stat(entry.key).await == Err(StoreError::NotFound) {
                assert!(self.announced.contains(&entry.key), "{:?}", entry.key);
                let gone = self.model.delete(&self.ctx, &[entry.key]).await;
                gone.unwrap();
            }
        }
    }

    async fn restart(&mut self, random: &mut Random) {
        if random.below(4) > 0 {
            return;
        }
        self.disk.close().await;
        let opened = LocalDisk::open(self.folder.path(), &expected(), self.options.clone());
        self.disk = Arc::new(opened.unwrap());
        self.model.handle().restart();
        self.forget_unfinished().await;
        let on_disk = self
            .disk
            .health()
            .await
            .map(|health| (health.epoch, health.told));
        let in_model = self
            .model
            .health()
            .await
            .map(|health| (health.epoch, health.told));
        assert_same(on_disk, in_model, "restart");
        let checked = check_whole(&*self.disk, &self.ctx, false).await;
        assert_eq!(checked.findings, [], "restart");
        let listed = self.model.list(None, 1000).await.unwrap();
        let finished = listed.iter().filter(|entry| entry.finished).count();
        // What compaction moves meanwhile is counted there as well.
        let counted = usize::try_from(checked.shards).unwrap();
        assert!(counted >= finished, "restart: {counted} of {finished}");
    }
}

#[tokio::test]
async fn answers_as_the_model_does() {
    let mut random = Random(seed());
    for options in [
        options(),
        DiskOptions {
            max_handle_files: 1,
            max_cached_files: 1,
            ..options()
        },
    ] {
        let mut pair = Pair::new(options);
        for group in GROUPS {
            let slot = SlotAssignment {
                group,
                slot: sample::slot().slot,
                generation: Generation(0),
            };
            pair.disk.assign(&pair.ctx, &[slot]).await.unwrap();
            pair.model.assign(&pair.ctx, &[slot]).await.unwrap();
        }
        for _ in 0..1500 {
            pair.step(&mut random).await;
        }
    }
}

/// Many callers on few keys at once: what reads is whole, what was answered
/// is there, and nothing hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_at_once_do_not_mix() {
    let seed = seed();
    let folder = Folder::new();
    let disk = Arc::new(folder.open_assigned().await);
    let ctx = sample::context(1);
    let len = 5000;
    let callers: Vec<_> = (0..16u64)
        .map(|caller| {
            let disk = Arc::clone(&disk);
            tokio::spawn(async move {
                let mut random = Random(seed ^ caller);
                for _ in 0..60 {
                    let blob = u128::from(random.below(6));
                    let key = sample::key(blob);
                    match random.below(5) {
                        0 => disk.delete(&ctx, &[key]).await.unwrap(),
                        1 => {
                            let read = disk.read(key, 0, len as u32).await;
                            match read {
                                Ok(read) => assert_eq!(read.bytes, sample::bytes(blob, len)),
                                Err(error) => assert_eq!(error, StoreError::NotFound),
                            }
                        }
                        2 => {
                            let opened = disk.open(&ctx, sample::header(&ctx, blob), None).await;
                            let Ok(handle) = opened else {
                                assert_eq!(opened, Err(StoreError::Exists));
                                continue;
                            };
                            let bytes = sample::bytes(blob, len);
                            let crcs = block_crcs(&bytes);
                            let end = ShardEnd {
                                shard_len: len as u64,
                                blob_len: 4 * len as u64,
                            };
                            let gone = |done: Result<(), StoreError>| match done {
                                Ok(()) => false,
                                Err(error) => {
                                    assert_eq!(error, StoreError::NoHandle);
                                    true
                                }
                            };
                            if !gone(disk.append(&ctx, handle, 0, bytes, &crcs).await) {
                                gone(disk.finish(&ctx, handle, end).await);
                            }
                        }
                        _ => disk
                            .put(&ctx, sample::small(&ctx, blob, len))
                            .await
                            .unwrap(),
                    }
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let health = disk.health().await.unwrap();
    assert_eq!((health.fenced, health.errors), (None, 0));
    for blob in 0..6 {
        let small = sample::small(&ctx, blob, len);
        assert_eq!(disk.put(&ctx, small).await, Ok(()));
        let read = disk.read(sample::key(blob), 0, len as u32).await;
        assert_eq!(read.unwrap().bytes, sample::bytes(blob, len));
    }
}

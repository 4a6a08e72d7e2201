//! Cluster, epoch, generation, and what the disk says of itself.

use super::{Case, Subject, assert_bad_call, sample};
use crate::checksum::block_crcs;
use crate::disk::SlotAssignment;
use crate::ids::{ClusterId, Generation, GroupId, InstanceId};
use crate::shard::{MAX_METADATA_BYTES, ShardHeader};
use crate::store::{CallContext, ShardEnd, ShardHandle, StoreError};

impl<S: Subject> Case<S> {
    /// The answers of every call that changes something, made by `ctx`.
    async fn every_change(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
    ) -> Vec<Result<(), StoreError>> {
        let store = &self.store;
        let bytes = sample::bytes(1, 100);
        let crcs = block_crcs(&bytes);
        let end = ShardEnd {
            shard_len: 0,
            blob_len: 0,
        };
        let mut header = sample::header(ctx, 77);
        header.cluster = sample::CLUSTER;
        let mut small = sample::small(ctx, 78, 10);
        small.header.cluster = sample::CLUSTER;
        vec![
            store.raise_epoch(ctx).await,
            store.assign(ctx, &[sample::slot()]).await,
            store.open(ctx, header, None).await.map(drop),
            store.append(ctx, handle, 0, bytes, &crcs).await,
            store.finish(ctx, handle, end).await,
            store.abort(ctx, handle).await,
            store.put(ctx, small).await,
            store.delete(ctx, &[sample::key(1)]).await,
        ]
    }

    async fn open(&self, header: ShardHeader) -> Result<ShardHandle, StoreError> {
        self.store.open(&self.ctx, header, None).await
    }
}

/// Asserts that nothing was changed by calls that were refused.
async fn assert_untouched<S: Subject>(case: &Case<S>) {
    let listed = case.store.list(None, 10).await.expect("lists");
    let keys: Vec<_> = listed
        .iter()
        .map(|entry| (entry.key.blob.0, entry.finished))
        .collect();
    assert_eq!(keys, [(1, true), (2, false)]);
}

async fn one_of_each<S: Subject>(case: &Case<S>) -> ShardHandle {
    let small = sample::small(&case.ctx, 1, 10);
    case.store.put(&case.ctx, small).await.expect("puts");
    let opened = case.open(sample::header(&case.ctx, 2)).await;
    opened.expect("opens")
}

pub(super) async fn other_clusters_are_refused<S: Subject>(case: Case<S>) {
    let handle = one_of_each(&case).await;
    // The higher epoch of another cluster counts for nothing.
    let mut foreign = sample::context(9);
    foreign.cluster = ClusterId(0xbad);
    for (at, answer) in case
        .every_change(&foreign, handle)
        .await
        .into_iter()
        .enumerate()
    {
        let refused = matches!(answer, Err(StoreError::WrongDisk { .. }));
        assert!(refused, "call {at}: {answer:?}");
    }
    let mut header = sample::header(&case.ctx, 3);
    header.cluster = foreign.cluster;
    let answer = case.open(header).await;
    assert!(
        matches!(answer, Err(StoreError::WrongDisk { .. })),
        "{answer:?}"
    );
    assert_untouched(&case).await;
    let health = case.store.health().await.expect("tells");
    assert_eq!(health.epoch, case.ctx.epoch);
}

pub(super) async fn stale_epochs_are_refused<S: Subject>(mut case: Case<S>) {
    let handle = one_of_each(&case).await;
    let held = sample::context(5).epoch;
    assert_eq!(case.store.raise_epoch(&sample::context(5)).await, Ok(()));
    assert_eq!(case.store.raise_epoch(&sample::context(5)).await, Ok(()));
    let mut twin = sample::context(5);
    twin.epoch.instance = InstanceId(0x7717);
    for restarted in [false, true] {
        if restarted {
            case.restart().await;
        }
        for stale in [sample::context(1), sample::context(4), twin] {
            for (at, answer) in case
                .every_change(&stale, handle)
                .await
                .into_iter()
                .enumerate()
            {
                let refused = Err(StoreError::StaleEpoch { held });
                assert_eq!(answer, refused, "call {at}, restarted: {restarted}");
            }
        }
        assert_untouched(&case).await;
        assert_eq!(case.store.health().await.expect("tells").epoch, held);
    }
}

pub(super) async fn a_higher_epoch_is_taken<S: Subject>(mut case: Case<S>) {
    let old = one_of_each(&case).await;
    let newer = sample::context(8);
    // By any call, and what the epoch before had open ends.
    let small = sample::small(&newer, 3, 10);
    case.store.put(&newer, small).await.expect("puts");
    let bytes = sample::bytes(1, 10);
    let crcs = block_crcs(&bytes);
    let late = case.store.append(&newer, old, 0, bytes, &crcs).await;
    assert_eq!(late, Err(StoreError::NoHandle));
    case.restart().await;
    let stale = case.store.delete(&case.ctx, &[]).await;
    let held = newer.epoch;
    assert_eq!(stale, Err(StoreError::StaleEpoch { held }));
    // Shards of earlier epochs are read and deleted as others.
    assert!(case.store.read(sample::key(1), 0, 10).await.is_ok());
    let deleted = case
        .store
        .delete(&newer, &[sample::key(1), sample::key(2)])
        .await;
    assert_eq!(deleted, Ok(()));
    assert_eq!(case.store.list(None, 10).await.expect("lists").len(), 1);
}

pub(super) async fn generations_are_exact<S: Subject>(case: Case<S>) {
    let held = sample::slot();
    let stale = |held| StoreError::StaleGeneration { held };
    let mut heads = vec![];
    for (group, slot, generation, told) in [
        (held.group, held.slot, Generation(4), Some(held)),
        (held.group, held.slot, Generation(6), Some(held)),
        (held.group, held.slot + 1, held.generation, Some(held)),
        (GroupId(1), held.slot, held.generation, None),
    ] {
        let mut header = sample::header(&case.ctx, 1);
        header.key.group = group;
        header.slot = slot;
        header.generation = generation;
        heads.push((header, told));
    }
    for (header, told) in heads {
        let opened = case.open(header.clone()).await;
        assert_eq!(opened, Err(stale(told)), "{header:?}");
        let mut small = sample::small(&case.ctx, 1, 10);
        small.header = header;
        let put = case.store.put(&case.ctx, small).await;
        assert_eq!(put, Err(stale(told)));
    }
    assert_eq!(case.store.list(None, 10).await, Ok(vec![]));

    let other = SlotAssignment {
        group: GroupId(2),
        ..held
    };
    let lower = SlotAssignment {
        generation: Generation(4),
        ..held
    };
    let moved = SlotAssignment {
        slot: held.slot + 1,
        ..held
    };
    assert_eq!(case.store.assign(&case.ctx, &[held]).await, Ok(()));
    for wrong in [lower, moved] {
        let answer = case.store.assign(&case.ctx, &[other, wrong]).await;
        assert_eq!(answer, Err(stale(Some(held))));
    }
    // Nothing of a refused call was taken.
    let mut header = sample::header(&case.ctx, 1);
    header.key.group = other.group;
    assert_eq!(case.open(header.clone()).await, Err(stale(None)));
    assert_eq!(case.store.assign(&case.ctx, &[other]).await, Ok(()));
    assert!(case.open(header).await.is_ok());
}

pub(super) async fn a_moved_slot_ends_writing<S: Subject>(case: Case<S>) {
    let bytes = sample::bytes(1, 10);
    let crcs = block_crcs(&bytes);
    let handle = one_of_each(&case).await;
    let appended = case
        .store
        .append(&case.ctx, handle, 0, bytes.clone(), &crcs);
    appended.await.expect("appends");
    let next = SlotAssignment {
        generation: Generation(6),
        ..sample::slot()
    };
    case.store
        .assign(&case.ctx, &[next])
        .await
        .expect("assigns");
    let refused = Err(StoreError::StaleGeneration { held: Some(next) });
    let late = case.store.append(&case.ctx, handle, 0, bytes, &crcs).await;
    assert_eq!(late, refused);
    let end = ShardEnd {
        shard_len: 10,
        blob_len: 40,
    };
    let late = case.store.finish(&case.ctx, handle, end).await;
    assert_eq!(late, refused);
    assert_untouched(&case).await;
    // What was finished before stays.
    assert!(case.store.read(sample::key(1), 0, 10).await.is_ok());
}

pub(super) async fn headers_are_checked<S: Subject>(case: Case<S>) {
    let change: [fn(&mut ShardHeader); 6] = [
        |header| header.epoch.number += 1,
        |header| header.layout.data = 0,
        |header| header.key.index = 6,
        |header| header.object.key = "k".repeat(1025),
        |header| header.object.bucket = "b".repeat(256),
        |header| header.object.metadata = vec![0; MAX_METADATA_BYTES + 1],
    ];
    for (at, change) in change.into_iter().enumerate() {
        let mut header = sample::header(&case.ctx, 1);
        change(&mut header);
        let opened = case.open(header.clone()).await;
        let refused = matches!(opened, Err(StoreError::BadCall { .. }));
        assert!(refused, "change {at}: {opened:?}");
        let mut small = sample::small(&case.ctx, 1, 10);
        small.header = header;
        assert_bad_call(case.store.put(&case.ctx, small).await);
    }
    let mut header = sample::header(&case.ctx, 1);
    header.object.key = "k".repeat(1024);
    header.object.bucket = "b".repeat(255);
    header.object.metadata = vec![7; MAX_METADATA_BYTES];
    let mut small = sample::small(&case.ctx, 1, 10);
    small.header = header.clone();
    case.store.put(&case.ctx, small).await.expect("fits");
    let stat = case.store.stat(header.key).await.expect("stats");
    assert_eq!(stat.header, header);
}

pub(super) async fn rules_survive_a_restart<S: Subject>(mut case: Case<S>) {
    case.restart().await;
    let small = sample::small(&case.ctx, 1, 10);
    assert_eq!(case.store.put(&case.ctx, small).await, Ok(()));
    let lower = SlotAssignment {
        generation: Generation(4),
        ..sample::slot()
    };
    let answer = case.store.assign(&case.ctx, &[lower]).await;
    let held = Some(sample::slot());
    assert_eq!(answer, Err(StoreError::StaleGeneration { held }));
}

pub(super) async fn health_tells<S: Subject>(case: Case<S>) {
    assert_eq!(case.store.disk(), sample::identity().disk);
    let mut ctx = case.ctx;
    ctx.committed.0 += 5;
    case.store.delete(&ctx, &[]).await.expect("nothing to do");
    // A call that was sent earlier tells nothing new.
    case.store
        .delete(&case.ctx, &[])
        .await
        .expect("nothing to do");
    let health = case.store.health().await.expect("tells");
    assert_eq!(health.identity, sample::identity());
    assert_eq!(health.epoch, ctx.epoch);
    assert_eq!(health.told, (ctx.lineage, ctx.committed));
    assert!(health.free_bytes > 0 && health.free_bytes <= health.capacity_bytes);
    assert_eq!(health.fenced, None);
}

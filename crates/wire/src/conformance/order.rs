//! Lists, and bounds of batches.

use super::{Case, Subject, assert_bad_call, sample};
use crate::disk::SlotAssignment;
use crate::ids::{BlobId, GroupId};
use crate::shard::ShardKey;
use crate::store::{ListedShard, MAX_BATCH, SmallShard};

/// Keys in order: blobs close together and far apart, several groups.
fn keys() -> Vec<ShardKey> {
    let mut keys = vec![];
    for group in [0, 1, 0x91, u64::MAX] {
        for blob in [0, 1, 0xff, 1 << 80, (1 << 80) + 1, 1 << 100, u128::MAX] {
            for index in [0, 1, 5] {
                keys.push(ShardKey {
                    group: GroupId(group),
                    blob: BlobId(blob),
                    index,
                });
            }
        }
    }
    keys
}

impl<S: Subject> Case<S> {
    fn small_at(&self, key: ShardKey) -> SmallShard {
        let mut small = sample::small(&self.ctx, key.blob.0, 10);
        small.header.key = key;
        small
    }

    /// Stores `keys`, last first.
    async fn fill(&self, keys: &[ShardKey]) {
        let slot = |key: &ShardKey| SlotAssignment {
            group: key.group,
            ..sample::slot()
        };
        let slots: Vec<_> = keys.iter().map(slot).collect();
        self.store.assign(&self.ctx, &slots).await.expect("assigns");
        for key in keys.iter().rev() {
            let put = self.store.put(&self.ctx, self.small_at(*key)).await;
            put.expect("puts");
        }
    }
}

fn named(page: &[ListedShard]) -> Vec<ShardKey> {
    page.iter().map(|entry| entry.key).collect()
}

pub(super) async fn lists_in_order<S: Subject>(mut case: Case<S>) {
    assert_eq!(case.store.list(None, MAX_BATCH).await, Ok(vec![]));
    let keys = keys();
    case.fill(&keys).await;
    for restarted in [false, true] {
        if restarted {
            case.restart().await;
        }
        let all = case.store.list(None, MAX_BATCH).await.expect("lists");
        assert_eq!(named(&all), keys);
        assert!(
            all.iter()
                .all(|entry| entry.finished && entry.disk_bytes >= 10)
        );
    }
}

pub(super) async fn pages_join<S: Subject>(case: Case<S>) {
    let keys = keys();
    case.fill(&keys).await;
    for limit in [1, 2, 5, 20, keys.len(), keys.len() + 1] {
        let (mut seen, mut after) = (vec![], None);
        loop {
            let page = case.store.list(after, limit).await.expect("lists");
            let last_page = page.len() < limit;
            assert!(page.len() <= limit);
            seen.extend(named(&page));
            after = seen.last().copied();
            if last_page {
                break;
            }
        }
        assert_eq!(seen, keys, "pages of {limit}");
    }
    // From between two entries, and from one that is gone.
    let mut between = keys[10];
    between.index = 4;
    let at = keys.partition_point(|key| *key <= between);
    let page = case.store.list(Some(between), 3).await.expect("lists");
    assert_eq!(named(&page), &keys[at..at + 3]);
    case.store
        .delete(&case.ctx, &keys[..12])
        .await
        .expect("deletes");
    let page = case.store.list(Some(keys[5]), 3).await.expect("lists");
    assert_eq!(named(&page), &keys[12..15]);
    let past = case.store.list(keys.last().copied(), 3).await;
    assert_eq!(past, Ok(vec![]));
}

pub(super) async fn bounds_of_batches<S: Subject>(case: Case<S>) {
    assert_bad_call(case.store.list(None, 0).await);
    assert_bad_call(case.store.list(None, MAX_BATCH + 1).await);
    let many = vec![sample::key(1); MAX_BATCH + 1];
    assert_bad_call(case.store.delete(&case.ctx, &many).await);
    assert_eq!(
        case.store.delete(&case.ctx, &many[1..]).await,
        Ok(()),
        "the same unknown shard many times"
    );
    let many = vec![sample::slot(); MAX_BATCH + 1];
    assert_bad_call(case.store.assign(&case.ctx, &many).await);
}

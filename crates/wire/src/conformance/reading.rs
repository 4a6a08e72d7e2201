//! Reading, and what is never served.

use super::{Case, Subject, assert_bad_call, check_whole, sample};
use crate::check::{CheckCursor, MAX_CHECK_CURSOR_BYTES};
use crate::checksum::{CHECK_BLOCK, block_crcs};
use crate::store::{MAX_READ_BYTES, ShardStore, StoreError};

const BLOCK: u64 = CHECK_BLOCK as u64;

pub(super) async fn ranges_are_bounded<S: Subject>(case: Case<S>) {
    let len = 18 * BLOCK + 50;
    let bytes = sample::bytes(1, len as usize);
    case.write(1, &bytes).await;
    let key = sample::key(1);
    let most = MAX_READ_BYTES as u32;
    let block = CHECK_BLOCK as u32;
    for (offset, take) in [
        (0, block),
        (0, most),
        (BLOCK, most),
        (17 * BLOCK, block),
        (17 * BLOCK, block + 50),
        (18 * BLOCK, 50),
    ] {
        let read = case.store.read(key, offset, take).await.expect("reads");
        let wanted = bytes.slice(offset as usize..offset as usize + take as usize);
        assert_eq!(read.bytes, wanted, "{take} at {offset}");
        assert_eq!(read.crcs, block_crcs(&wanted), "{take} at {offset}");
    }
    for (offset, take) in [
        (0, 0),
        (0, most + block),
        (1, block),
        (0, 50),
        (18 * BLOCK, 51),
        (18 * BLOCK, 49),
        (19 * BLOCK, block),
        (u64::MAX - BLOCK + 1, block),
    ] {
        assert_bad_call(case.store.read(key, offset, take).await);
    }
    let absent = case.store.read(sample::key(2), 0, block).await;
    assert_eq!(absent, Err(StoreError::NotFound));
    let mut sibling = key;
    sibling.index += 1;
    let absent = case.store.stat(sibling).await;
    assert_eq!(absent, Err(StoreError::NotFound));
}

pub(super) async fn unfinished_is_not_served<S: Subject>(mut case: Case<S>) {
    let bytes = sample::bytes(1, CHECK_BLOCK);
    let header = sample::header(&case.ctx, 1);
    let opened = case.store.open(&case.ctx, header.clone(), Some(2 * BLOCK));
    let handle = opened.await.expect("opens");
    let crcs = block_crcs(&bytes);
    let appended = case
        .store
        .append(&case.ctx, handle, 0, bytes.clone(), &crcs);
    appended.await.expect("appends");
    for restarted in [false, true] {
        if restarted {
            case.restart().await;
            let crcs = block_crcs(&bytes);
            let late = case
                .store
                .append(&case.ctx, handle, BLOCK, bytes.clone(), &crcs);
            assert_eq!(late.await, Err(StoreError::NoHandle));
        }
        let read = case.store.read(sample::key(1), 0, CHECK_BLOCK as u32).await;
        assert_eq!(read, Err(StoreError::NotFound));
        let stat = case.store.stat(sample::key(1)).await;
        let listed = case.store.list(None, 10).await.expect("lists");
        // A store may forget what never ended when its handle ends.
        if restarted && stat == Err(StoreError::NotFound) {
            assert_eq!(listed, []);
            continue;
        }
        let stat = stat.expect("stats");
        assert_eq!((stat.header, stat.end), (header.clone(), None));
        assert_eq!(listed.len(), 1);
        assert_eq!((listed[0].key, listed[0].finished), (sample::key(1), false));
    }
    // What a restart left is begun anew.
    let again = case.store.open(&case.ctx, header, None).await;
    let again = again.expect("opens anew");
    case.store.abort(&case.ctx, again).await.expect("aborts");
    assert_eq!(case.store.list(None, 10).await, Ok(vec![]));
}

pub(super) async fn damage_is_corrupt<S: Subject>(case: Case<S>) {
    let len = 2 * BLOCK + 100;
    let bytes = sample::bytes(1, len as usize);
    for (blob, at) in [
        (1, 0),
        (2, BLOCK - 1),
        (3, BLOCK),
        (4, 2 * BLOCK),
        (5, len - 1),
    ] {
        case.write(blob, &bytes).await;
        case.subject.damage(sample::key(blob), at).await;
        let read = case.store.read(sample::key(blob), 0, len as u32).await;
        assert!(
            matches!(read, Err(StoreError::Corrupt { .. })),
            "byte {at}: {read:?}"
        );
        let block = at / BLOCK * BLOCK;
        let take = (len - block).min(BLOCK) as u32;
        let read = case.store.read(sample::key(blob), block, take).await;
        assert!(
            matches!(read, Err(StoreError::Corrupt { .. })),
            "byte {at}: {read:?}"
        );
        // The other blocks are still good.
        let other = if block == 0 { BLOCK } else { 0 };
        let read = case
            .store
            .read(sample::key(blob), other, CHECK_BLOCK as u32)
            .await;
        let good = &bytes[other as usize..][..CHECK_BLOCK];
        assert_eq!(read.expect("a good block reads").bytes, good);
        let again = case
            .store
            .open(&case.ctx, sample::header(&case.ctx, blob), None);
        assert_eq!(again.await, Err(StoreError::Exists));
    }
    let listed = case.store.list(None, 10).await.expect("lists");
    assert_eq!(listed.len(), 5);
}

pub(super) async fn damage_is_known_until_it_is_deleted<S: Subject>(case: Case<S>) {
    let bytes = sample::bytes(1, BLOCK as usize);
    for blob in 1..=4 {
        case.write(blob, &bytes).await;
    }
    let known = async |store: &dyn ShardStore| {
        let damaged = store.damaged().await.expect("lists what is damaged");
        let health = store.health().await.expect("tells");
        assert_eq!(health.damaged as usize, damaged.len());
        damaged.iter().map(|shard| shard.key).collect::<Vec<_>>()
    };
    let store = &*case.store;
    assert_eq!(known(store).await, []);
    case.subject.damage(sample::key(3), 100).await;
    let read = store.read(sample::key(3), 0, CHECK_BLOCK as u32).await;
    assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    assert_eq!(known(store).await, [sample::key(3)]);
    // A check reads what nobody asked for.
    case.subject.damage(sample::key(2), BLOCK - 1).await;
    let check = check_whole(store, &case.ctx, false).await;
    let found = check.findings.iter().filter_map(|finding| finding.shard);
    let mut found: Vec<_> = found.collect();
    found.sort();
    assert_eq!(found, [sample::key(2), sample::key(3)]);
    assert_eq!(check.shards, 2);
    assert_eq!(known(store).await, [sample::key(2), sample::key(3)]);
    let gone = [sample::key(3), sample::key(4)];
    store.delete(&case.ctx, &gone).await.expect("deletes");
    assert_eq!(known(store).await, [sample::key(2)]);
    let long = CheckCursor(vec![0; MAX_CHECK_CURSOR_BYTES + 1]);
    assert_bad_call(store.check(&case.ctx, Some(long), false).await);
}

pub(super) async fn finished_survive_a_restart<S: Subject>(mut case: Case<S>) {
    let long = sample::bytes(1, 10 * CHECK_BLOCK + 1);
    case.write(1, &long).await;
    let small = sample::small(&case.ctx, 2, 500);
    case.store
        .put(&case.ctx, small.clone())
        .await
        .expect("puts");
    case.restart().await;
    let read = case.store.read(sample::key(1), 0, long.len() as u32).await;
    assert_eq!(read.expect("reads").bytes, long);
    let read = case.store.read(sample::key(2), 0, 500).await;
    assert_eq!(read.expect("reads").bytes, small.bytes);
    let listed = case.store.list(None, 10).await.expect("lists");
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|entry| entry.finished));
}

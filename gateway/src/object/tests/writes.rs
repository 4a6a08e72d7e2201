//! Writes: quorum, lateness, failed bodies, leaving clients.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use md5::{Digest, Md5};
use shardgate_catalog::model::{ChecksumAlgorithm, Content};
use shardgate_wire::StoreError;
use shardgate_wire::memory_store::Call;
use tokio::time::Instant;

use super::fixture::*;
use crate::object::*;

const KIB: usize = 1024;
const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];

fn dead() -> Option<StoreError> {
    Some(StoreError::Unreachable { why: "test".into() })
}

/// A body that gives some bytes and then never ends.
fn endless(bytes: &Bytes) -> BodyStream {
    Box::pin(body(bytes, 50_000).chain(futures::stream::pending()))
}

/// A body that gives some bytes and then breaks off.
fn broken(bytes: &Bytes) -> BodyStream {
    let error = Err(BodyError("chunk signature".into()));
    Box::pin(body(bytes, 50_000).chain(futures::stream::iter([error])))
}

#[tokio::test(start_paused = true)]
async fn the_etag_is_the_md5_and_short_objects_lie_in_the_catalog() {
    let store = fixture("4+2", &SIX).await;
    for len in [0, 1, 1023, 1024, 1025, 3 << 20] {
        let expected = bytes(len, 5);
        let outcome = store.put("key", &expected).await.unwrap();
        let md5: [u8; 16] = Md5::digest(&expected).into();
        assert_eq!((outcome.etag.md5, outcome.etag.parts), (md5, 0));
        let handle = store
            .service
            .open_object(&store.bucket, "key")
            .await
            .unwrap();
        assert_eq!(
            handle.row().content == Content::Inline,
            len <= 1024,
            "{len}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn checksums_are_verified_kept_and_given() {
    let store = fixture("4+2", &SIX).await;
    for len in [10, 100_000, 3 << 20] {
        let content = bytes(len, 5);
        let put = async |expected: ExpectedDigest, content_md5| {
            let mut request = store.request("key", Some(len));
            request.content_md5 = content_md5;
            request.checksum = Some(ChecksumRequest {
                algorithm: ChecksumAlgorithm::Crc32c,
                expected,
            });
            store
                .service
                .put_object(request, body(&content, 10_000))
                .await
        };
        let digest = shardgate_wire::checksum::crc32c(&content)
            .to_be_bytes()
            .to_vec();
        let outcome = put(ExpectedDigest::Value(digest.clone()), None)
            .await
            .unwrap();
        assert_eq!(outcome.checksum.unwrap().digest, digest);
        let wrong = Arc::new(|| Ok(Some(vec![0; 4])));
        let refused = put(ExpectedDigest::Trailer(wrong), None).await.unwrap_err();
        assert!(matches!(refused, ObjectError::ChecksumMismatch { .. }));
        let refused = put(ExpectedDigest::Unknown, Some([1; 16]))
            .await
            .unwrap_err();
        assert!(matches!(refused, ObjectError::BadDigest));
        let handle = store
            .service
            .open_object(&store.bucket, "key")
            .await
            .unwrap();
        assert_eq!(handle.row().checksum.clone().unwrap().digest, digest);
    }
    store.purge().await;
    // What was refused left nothing: only the shards of the last object.
    assert_eq!(store.pool.shards(), 6);
    assert_eq!(store.pool.open_handles(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_of_six_disks_may_fail_and_its_slot_is_owed() {
    for len in [10 * KIB, 700 * KIB, 3 << 20] {
        let store = fixture("4+2", &SIX).await;
        store.pool.disk(2).fail(dead());
        let mut expected = Vec::new();
        // A short object lies on three of the six disks: until one is met.
        let mut owed = Vec::new();
        while expected.len() < 6 || owed.is_empty() {
            let number = expected.len();
            assert!(number < 64, "{len}: the dead disk is never met");
            let content = bytes(len, number as u64);
            let key = number.to_string();
            store.put(&key, &content).await.unwrap();
            expected.push((key, content));
            owed = store.service.catalog().owed().await.unwrap();
        }
        let slots: Vec<u8> = owed.iter().map(|(_, slot, _)| *slot).collect();
        assert_eq!(slots, [2], "{len}");
        for (key, content) in expected {
            assert!(store.get(&key).await.unwrap() == content);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn writes_go_on_in_a_narrow_group_when_two_die_at_once() {
    let store = fixture("4+2", &SIX).await;
    let before = bytes(2 << 20, 1);
    store.put("before", &before).await.unwrap();
    store.pool.disk(1).fail(dead());
    store.pool.disk(4).fail(dead());
    for (key, len) in [("small", 5 * KIB), ("stripe", 1024 * KIB)] {
        let content = bytes(len, 2);
        store.put(key, &content).await.unwrap();
        assert!(store.get(key).await.unwrap() == content, "{key}");
        let blob = store.blob(key).await;
        assert!(blob.layout.data <= 2 && blob.layout.parity == 2);
    }
    // By now the pool knows, and longer bodies go to the narrow group too.
    let content = bytes(5 << 20, 3);
    store.put("long", &content).await.unwrap();
    assert!(store.get("long").await.unwrap() == content);
    assert!(store.get("before").await.unwrap() == before);
    assert!(store.service.metrics().blobs_resent.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_body_that_loses_its_quorum_is_refused_and_leaves_nothing() {
    let store = fixture("4+2", &SIX).await;
    store
        .pool
        .disk(1)
        .fail_next(Call::Append, 1, dead().unwrap());
    store
        .pool
        .disk(4)
        .fail_next(Call::Finish, 1, dead().unwrap());
    let refused = store.put("key", &bytes(5 << 20, 1)).await.unwrap_err();
    assert!(
        matches!(refused, ObjectError::QuorumLost { needed: 5, .. }),
        "{refused}"
    );
    assert!(matches!(
        store.get("key").await,
        Err(ObjectError::NoSuchKey)
    ));
    store.pool.revive();
    store.purge().await;
    assert_eq!((store.pool.shards(), store.pool.open_handles()), (0, 0));
    assert_eq!(store.service.metrics().blobs_purged.get(), 1);
    assert_eq!(store.service.memory().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_disk_is_not_waited_for_but_the_quorum_is() {
    for len in [10 * KIB, 900 * KIB, 6 << 20] {
        let store = fixture("4+2", &SIX).await;
        // The group is made before the disk becomes slow.
        store.put("before", &bytes(2000, 1)).await.unwrap();
        store.pool.disk(3).delay(Duration::from_secs(600));
        let begun = Instant::now();
        // A short object lies on three of the six disks: until one is met.
        let mut number = 0;
        while number < 6 || store.pool.late.load(Relaxed) == 0 {
            assert!(number < 64, "{len}: the late disk is never met");
            let key = format!("{len}-{number}");
            store.put(&key, &bytes(len, number)).await.unwrap();
            store.pool.revive();
            number += 1;
        }
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(100), "{len}: {took:?}");
        assert!(took < Duration::from_secs(4), "{len}: {took:?}");
        assert!(store.pool.late.load(Relaxed) > 0);
        let owed = store.service.catalog().owed().await.unwrap();
        assert_eq!(owed.len(), 1, "{len}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_server_never_holds_what_the_others_lack() {
    // Three servers of two disks: with any disk missing, the loss of another
    // server would leave three shards of four. The group must not be used.
    let store = fixture("4+2", &[0, 1, 2, 0, 1, 2]).await;
    let content = bytes(2 << 20, 1);
    store.put("before", &content).await.unwrap();
    store.pool.disk(0).fail(dead());
    let refused = store.put("long", &content).await.unwrap_err();
    assert!(
        matches!(refused, ObjectError::QuorumLost { .. }),
        "{refused}"
    );
    assert!(store.get("before").await.unwrap() == content);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_restarts_or_forgot_its_slot_is_told_again() {
    let store = fixture("4+2", &SIX).await;
    let stale = StoreError::StaleGeneration { held: None };
    store.pool.disk(0).fail_next(Call::Put, 1, stale.clone());
    store.pool.disk(1).fail_next(Call::Open, 1, stale);
    store
        .pool
        .disk(2)
        .fail_next(Call::Append, 3, StoreError::Busy);
    for len in [200 * KIB, 3 << 20] {
        let content = bytes(len, 1);
        store.put("key", &content).await.unwrap();
        assert!(store.get("key").await.unwrap() == content);
    }
    assert!(store.service.catalog().owed().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn disks_that_go_while_memory_is_waited_for_cost_nothing() {
    let settings = ObjectSettings {
        memory_bytes: 1 << 20,
        ..ObjectSettings::default()
    };
    let store = fixture_with("4+2", &SIX, settings).await;
    let (content, second) = (bytes(5 << 20, 2), Duration::from_secs(1));
    store.put("before", &content).await.unwrap();
    let request = store.request("held", Some(5 << 20));
    let holds_memory = store.service.put_object(request, endless(&bytes(10, 1)));
    let disks_go = async {
        tokio::time::sleep(second).await;
        store.pool.set_gone(0, true);
        store.pool.set_gone(1, true);
    };
    let (held, (), put) = tokio::join!(
        tokio::time::timeout(2 * second, holds_memory),
        disks_go,
        store.put("key", &content),
    );
    assert!(held.is_err(), "the first body never ends");
    put.unwrap();
    assert!(store.get("key").await.unwrap() == content);
}

// Those that were not begun yet are idle, and no measure for one that is.
#[tokio::test(start_paused = true)]
async fn a_first_block_is_not_late_by_what_others_have_not_begun() {
    let settings = ObjectSettings {
        memory_bytes: 1 << 20,
        ..ObjectSettings::default()
    };
    let store = fixture_with("4+2", &SIX, settings).await;
    store.put("before", &bytes(2000, 1)).await.unwrap();
    for index in 0..6 {
        store.pool.disk(index).delay(Duration::from_millis(300));
    }
    store.put("key", &bytes(5 << 20, 1)).await.unwrap();
    assert_eq!(store.pool.late.load(Relaxed), 0);
    assert!(store.service.catalog().owed().await.unwrap().is_empty());
}

// What waits for its turn here may be answered well, however long it took.
#[tokio::test(start_paused = true)]
async fn disks_that_end_their_calls_themselves_are_not_cut_short() {
    let store = fixture("4+2", &SIX).await;
    let past_every_limit = Duration::from_secs(35);
    for (ends, stored) in [(false, false), (true, true)] {
        for index in 0..6 {
            store.pool.disk(index).delay(past_every_limit);
            store.pool.disk(index).end_calls_in_time(ends);
        }
        store.pool.revive();
        let put = store.put("key", &bytes(200 * KIB, 1)).await;
        assert_eq!(put.is_ok(), stored, "{:?}", put.err());
    }
}

#[tokio::test(start_paused = true)]
async fn another_gateway_fences_this_one() {
    let store = fixture("4+2", &SIX).await;
    store.put("key", &bytes(10 * KIB, 1)).await.unwrap();
    let held = shardgate_wire::Epoch {
        number: 9,
        instance: shardgate_wire::InstanceId(9),
    };
    store
        .pool
        .disk(0)
        .fail(Some(StoreError::StaleEpoch { held }));
    let mut refused = None;
    for number in 0..6 {
        refused = store
            .put(&number.to_string(), &bytes(200 * KIB, 1))
            .await
            .err();
    }
    assert!(matches!(refused, Some(ObjectError::Fenced)), "{refused:?}");
    assert!(matches!(store.get("key").await, Err(ObjectError::Fenced)));
}

#[tokio::test(start_paused = true)]
async fn no_space_is_said_as_such() {
    let store = fixture("1+0", &[0]).await;
    store.pool.disk(0).set_capacity(1000);
    let refused = store.put("key", &bytes(10 * KIB, 1)).await.unwrap_err();
    assert!(matches!(refused, ObjectError::NoSpace), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn bodies_that_break_leave_nothing() {
    let store = fixture("4+2", &SIX).await;
    for len in [10 * KIB, 700 * KIB, 5 << 20] {
        for declared in [Some(len + 10), None] {
            let request = store.request("key", declared);
            let content = bytes(len, 1);
            let refused = store.service.put_object(request, broken(&content)).await;
            assert!(matches!(refused, Err(ObjectError::Body(_))));
            let request = store.request("key", Some(len + 10));
            let refused = store
                .service
                .put_object(request, body(&content, 9999))
                .await;
            assert!(matches!(refused, Err(ObjectError::IncompleteBody { .. })));
        }
    }
    assert!(matches!(
        store.get("key").await,
        Err(ObjectError::NoSuchKey)
    ));
    store.purge().await;
    assert_eq!((store.pool.shards(), store.pool.open_handles()), (0, 0));
    assert_eq!(store.service.memory().0, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_leaves_nothing() {
    let store = fixture("4+2", &SIX).await;
    for len in [10 * KIB, 700 * KIB, 5 << 20] {
        let request = store.request("key", Some(len + 1));
        let put = store.service.put_object(request, endless(&bytes(len, 1)));
        assert!(
            tokio::time::timeout(Duration::from_secs(5), put)
                .await
                .is_err()
        );
    }
    assert!(matches!(
        store.get("key").await,
        Err(ObjectError::NoSuchKey)
    ));
    store.purge().await;
    assert_eq!((store.pool.shards(), store.pool.open_handles()), (0, 0));
    assert_eq!(store.service.memory().0, 0);
}

#[tokio::test(start_paused = true)]
async fn dropped_at_any_point_an_object_is_whole_or_absent() {
    let store = fixture("4+2", &SIX).await;
    for disk in 0..6 {
        store.pool.disk(disk).delay(Duration::from_millis(10));
    }
    let content = bytes(3 << 20, 1);
    for after in 0..40 {
        let key = format!("key-{after}");
        let put = store.put(&key, &content);
        let after = Duration::from_millis(after * 5);
        let answered = tokio::time::timeout(after, put).await.is_ok();
        tokio::time::sleep(Duration::from_secs(1)).await;
        match store.get(&key).await {
            Ok(found) => assert!(found == content, "{key}"),
            Err(ObjectError::NoSuchKey) => assert!(!answered, "{key}"),
            Err(error) => panic!("{key}: {error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn conditions_decide_and_the_loser_leaves_nothing() {
    let store = fixture("4+2", &SIX).await;
    let put = async |condition, seed| {
        let content = bytes(200 * KIB, seed);
        let mut request = store.request("key", Some(content.len()));
        request.condition = condition;
        store
            .service
            .put_object(request, body(&content, 100_000))
            .await
    };
    let first = put(WriteCondition::IfNoneMatchAny, 1).await.unwrap();
    let refused = put(WriteCondition::IfNoneMatchAny, 2).await;
    assert!(matches!(refused, Err(ObjectError::PreconditionFailed)));
    put(WriteCondition::IfMatch(first.etag), 3).await.unwrap();
    let refused = put(WriteCondition::IfMatch(first.etag), 4).await;
    assert!(matches!(refused, Err(ObjectError::PreconditionFailed)));
    assert!(store.get("key").await.unwrap() == bytes(200 * KIB, 3));
    store.purge().await;
    let blob = store.blob("key").await;
    let shards = blob.layout.data + blob.layout.parity;
    assert_eq!(store.pool.shards(), usize::from(shards));
}

#[tokio::test(start_paused = true)]
async fn copies_of_objects_are_their_own() {
    let store = fixture("4+2", &SIX).await;
    for len in [100, 3 << 20] {
        let content = bytes(len, 1);
        store.put("source", &content).await.unwrap();
        let source = store
            .service
            .open_object(&store.bucket, "source")
            .await
            .unwrap();
        let request = store.request("copy", None);
        let copied = store.service.copy_object(source, request).await.unwrap();
        assert_eq!(copied.etag.md5, <[u8; 16]>::from(Md5::digest(&content)));
        let none = DeleteCondition::None;
        assert!(
            store
                .service
                .delete_object(&store.bucket, "source", none)
                .await
                .unwrap()
        );
        store.purge().await;
        assert!(store.get("copy").await.unwrap() == content);
    }
}

#[tokio::test(start_paused = true)]
async fn classes_and_too_long_bodies() {
    let store = fixture("4+2", &SIX).await;
    let content = bytes(3 << 20, 1);
    let mut request = store.request("key", Some(content.len()));
    request.class = Some("COPIES".into());
    let outcome = store
        .service
        .put_object(request.clone(), body(&content, 65_536))
        .await;
    assert_eq!(outcome.unwrap().class, 1);
    assert_eq!(store.blob("key").await.layout.data, 1);
    assert!(store.get("key").await.unwrap() == content);
    request.class = Some("GLACIER".into());
    let refused = store
        .service
        .put_object(request.clone(), body(&content, 65_536))
        .await;
    assert!(matches!(refused, Err(ObjectError::UnknownClass)));
    request.class = None;
    request.len = Some((5 << 30) + 1);
    let refused = store
        .service
        .put_object(request, body(&content, 65_536))
        .await;
    assert!(matches!(refused, Err(ObjectError::EntityTooLarge { .. })));
}

//! What a crash in the middle of a deletion leaves, and damaged rows.

use bytes::Bytes;

use super::*;
use crate::model::{ETag, GroupRow, VersionRow};
use crate::publish::{Publish, PublishBody, WriteCondition};
use shardgate_wire::VersionUid;

fn put(bucket: &BucketRef) -> Publish {
    Publish {
        bucket: bucket.clone(),
        key: "k".to_owned(),
        row: VersionRow {
            uid: VersionUid(1),
            size: 1,
            modified: 1,
            etag: ETag {
                md5: [0; 16],
                parts: 0,
            },
            class: 0,
            content: crate::model::Content::Inline,
            checksum: None,
            null: true,
            has_detail: false,
        },
        detail: Default::default(),
        body: PublishBody::Inline(Bytes::from_static(b"x")),
        condition: WriteCondition::None,
    }
}

/// A catalog that comes up after a crash: the bucket is still `Deleting`.
async fn left_deleting() -> (Catalog, BucketRef) {
    let catalog = Catalog::in_memory();
    let row = catalog.create_bucket("b", "me", 1).await.unwrap();
    let deleting = BucketRow {
        state: BucketState::Deleting { attempt: 1 },
        ..row.clone()
    };
    let mut draft = Draft::new();
    draft.put(keys::bucket("b"), &deleting);
    catalog.commit(draft).await.unwrap();
    let catalog = Catalog::new(catalog.inner.engine.clone());
    let bucket = BucketRef {
        name: "b".to_owned(),
        incarnation: row.incarnation,
    };
    (catalog, bucket)
}

#[tokio::test]
async fn a_writer_undoes_a_deletion_that_a_crash_left() {
    let (catalog, bucket) = left_deleting().await;
    catalog.publish(put(&bucket)).await.unwrap();
    assert_eq!(
        catalog.bucket("b").await.unwrap().state,
        BucketState::Active
    );
    let deleted = catalog.delete_bucket("b").await;
    assert_eq!(deleted, Err(CatalogError::BucketNotEmpty));
    assert_eq!(
        catalog.bucket("b").await.unwrap().state,
        BucketState::Active
    );
}

#[tokio::test]
async fn the_next_deletion_takes_over_one_that_a_crash_left() {
    let (catalog, bucket) = left_deleting().await;
    let exists = catalog.create_bucket("b", "you", 1).await;
    let owner = "me".to_owned();
    assert_eq!(exists, Err(CatalogError::BucketExists { owner }));
    catalog.delete_bucket("b").await.unwrap();
    let gone = catalog.publish(put(&bucket)).await;
    assert_eq!(gone.unwrap_err(), CatalogError::NoSuchBucket);
    let again = catalog.create_bucket("b", "you", 1).await.unwrap();
    assert!(again.incarnation > bucket.incarnation);
    let old_life = catalog.publish(put(&bucket)).await;
    assert_eq!(old_life.unwrap_err(), CatalogError::NoSuchBucket);
}

/// A scan made under one attempt counts for no other: the engine refuses.
#[tokio::test]
async fn a_deletion_that_was_overtaken_removes_nothing() {
    let (catalog, bucket) = left_deleting().await;
    let slow = catalog.read_bucket("b").await.unwrap().unwrap();
    catalog.publish(put(&bucket)).await.unwrap();
    let attempt = BucketState::Deleting { attempt: 2 };
    let held = catalog.read_bucket("b").await.unwrap().unwrap();
    catalog.set_state("b", &held, attempt).await.unwrap();
    let mut draft = Draft::new();
    draft.expect(keys::bucket("b"), Some(slow.raw));
    draft.delete(keys::bucket("b"));
    assert_eq!(catalog.commit(draft).await, Err(CatalogError::Conflict));
}

#[tokio::test]
async fn damaged_rows_are_damaged_everywhere_and_never_absent() {
    let (catalog, bucket) = left_deleting().await;
    catalog.publish(put(&bucket)).await.unwrap();
    let current = keys::current(bucket.incarnation, "k");
    for bytes in [&b""[..], b"\x01", b"\x09whatever"] {
        let mut draft = Draft::new();
        draft.put_raw(current.clone(), Bytes::from_static(bytes));
        catalog.commit(draft).await.unwrap();
        let damaged = |outcome: Result<()>| {
            assert!(
                matches!(outcome, Err(CatalogError::Damaged { .. })),
                "{outcome:?}"
            );
        };
        let incarnation = bucket.incarnation;
        damaged(catalog.object(incarnation, "k").await.map(drop));
        damaged(catalog.read_object(incarnation, "k").await.map(drop));
        let query = crate::ListQuery {
            limit: 1,
            ..Default::default()
        };
        damaged(catalog.list_objects(incarnation, &query).await.map(drop));
        damaged(catalog.publish(put(&bucket)).await.map(drop));
        let condition = crate::DeleteCondition::None;
        damaged(
            catalog
                .delete_object(&bucket, "k", condition)
                .await
                .map(drop),
        );
        let deleted = catalog.delete_bucket("b").await;
        assert_eq!(deleted, Err(CatalogError::BucketNotEmpty));
    }
    let mut draft = Draft::new();
    draft.put_raw(
        keys::group(shardgate_wire::GroupId(1)),
        Bytes::from_static(b"\x01\xff"),
    );
    catalog.commit(draft).await.unwrap();
    let group: Result<Option<GroupRow>> = catalog.group(shardgate_wire::GroupId(1)).await;
    assert!(matches!(group, Err(CatalogError::Damaged { .. })));
}

#[tokio::test]
async fn a_version_that_lost_its_bytes_is_damaged() {
    let (catalog, bucket) = left_deleting().await;
    catalog.publish(put(&bucket)).await.unwrap();
    let mut draft = Draft::new();
    draft.delete(keys::inline(VersionUid(1)));
    catalog.commit(draft).await.unwrap();
    let read = catalog.read_object(bucket.incarnation, "k").await;
    assert!(
        matches!(read, Err(CatalogError::Damaged { .. })),
        "{read:?}"
    );
}

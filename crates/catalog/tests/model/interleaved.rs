//! Another gateway acts between a call's reads and its commit. Turns inside
//! one process do not help here: only what the commit expects does.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use shardgate_catalog::engine::{
    Commit, CommitError, Engine, EngineError, Entry, MemoryEngine, Scan, Snapshot,
};
use shardgate_catalog::model::{GroupState, UploadPartRow};
use shardgate_catalog::{
    BucketRef, Catalog, CatalogError, CompletePart, Completed, DeleteCondition, MIN_PART_BYTES,
    Publish, PublishBody, Published, WriteCondition,
};
use shardgate_wire::{BlobId, CommitNumber, Generation, VersionUid};

use super::build::{self, etag, finish, part, publish};
use super::check::check;

type Act = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Passes everything on; before one commit, somebody else acts.
struct Interposed {
    engine: Arc<MemoryEngine>,
    /// Commits to pass before, and the act.
    act: Mutex<Option<(usize, Act)>>,
    /// The same before the next scan.
    before_scan: Mutex<Option<Act>>,
}

#[async_trait]
impl Engine for Interposed {
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.engine.get(key).await
    }
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>, EngineError> {
        self.engine.get_many(keys).await
    }
    async fn scan(&self, scan: Scan) -> Result<Vec<Entry>, EngineError> {
        let act = self.before_scan.lock().take();
        if let Some(act) = act {
            act.await;
        }
        self.engine.scan(scan).await
    }
    async fn commit(&self, commit: Commit) -> Result<CommitNumber, CommitError> {
        let act = {
            let mut act = self.act.lock();
            match &mut *act {
                Some((0, _)) => act.take(),
                Some((before, _)) => {
                    *before -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, act)) = act {
            act.await;
        }
        self.engine.commit(commit).await
    }
    async fn snapshot(&self) -> Result<Box<dyn Snapshot>, EngineError> {
        self.engine.snapshot().await
    }
    fn committed(&self) -> CommitNumber {
        self.engine.committed()
    }

    async fn flush(&self) -> Result<(), EngineError> {
        self.engine.flush().await
    }
}

/// Two gateways over one engine, with a bucket and an object in it.
struct Two {
    interposed: Arc<Interposed>,
    ours: Catalog,
    other: Catalog,
    bucket: BucketRef,
}

impl Two {
    async fn new() -> Self {
        let engine = Arc::new(MemoryEngine::new());
        let interposed = Arc::new(Interposed {
            engine: engine.clone(),
            act: Mutex::new(None),
            before_scan: Mutex::new(None),
        });
        let ours = Catalog::new(interposed.clone());
        let other = Catalog::new(engine);
        let bucket = build::furnish(&ours).await;
        // Both have the bucket in their caches.
        other.bucket("b").await.unwrap();
        Self {
            interposed,
            ours,
            other,
            bucket,
        }
    }

    /// Before our commit that is `before` commits away, the other does this.
    fn meanwhile<F>(&self, before: usize, act: impl FnOnce(Catalog, BucketRef) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let act = act(self.other.clone(), self.bucket.clone());
        *self.interposed.act.lock() = Some((before, Box::pin(act)));
    }

    fn acted(&self) -> bool {
        self.interposed.act.lock().is_none()
    }

    async fn put(&self, n: u64) -> Result<Published, CatalogError> {
        self.ours.publish(request(&self.bucket, n)).await
    }

    async fn part(&self, number: u16, n: u64) -> Result<CommitNumber, CatalogError> {
        put_part(&self.ours, &self.bucket, number, n).await
    }

    async fn complete(&self, parts: &[(u16, u64)]) -> Result<Completed, CatalogError> {
        complete(&self.ours, &self.bucket, parts).await
    }

    /// An upload with parts 1 and 2.
    async fn upload(&self) {
        let row = build::upload(7, true);
        let begun = self.ours.create_upload(&self.bucket, "k", &row);
        begun.await.unwrap();
        self.part(1, 100).await.unwrap();
        self.part(2, 200).await.unwrap();
    }

    /// Checks what must hold of every catalog; what is condemned.
    async fn condemned(&self) -> Vec<BlobId> {
        assert!(self.acted(), "the other never came to act");
        let found = check(&self.other).await;
        found.condemned.into_iter().collect()
    }
}

fn request(bucket: &BucketRef, n: u64) -> Publish {
    publish(
        bucket,
        "k",
        n,
        PublishBody::Blob(build::written(n.into(), 10)),
    )
}

async fn other_puts(catalog: Catalog, bucket: BucketRef) {
    catalog.publish(request(&bucket, 50)).await.unwrap();
}

async fn put_part(
    catalog: &Catalog,
    bucket: &BucketRef,
    number: u16,
    n: u64,
) -> Result<CommitNumber, CatalogError> {
    let row: UploadPartRow = part(number, n, MIN_PART_BYTES);
    let written = build::written(n.into(), MIN_PART_BYTES);
    let put = catalog.put_part(bucket, "k", VersionUid(7), row, Some(&written));
    put.await
}

async fn complete(
    catalog: &Catalog,
    bucket: &BucketRef,
    parts: &[(u16, u64)],
) -> Result<Completed, CatalogError> {
    let named = parts.iter().map(|&(number, n)| CompletePart {
        number,
        md5: etag(n).md5,
    });
    let request = build::complete(bucket, "k", VersionUid(7), named.collect());
    let finish = |_: &_, parts: &[_]| Ok::<_, CatalogError>(finish(parts));
    catalog.complete_upload(&request, finish).await
}

async fn abort(catalog: Catalog, bucket: BucketRef) {
    let aborted = catalog.abort_upload(&bucket, "k", VersionUid(7));
    aborted.await.unwrap();
}

#[tokio::test]
async fn the_parts_of_an_object_are_read_while_it_is_replaced() {
    let two = Two::new().await;
    two.upload().await;
    two.complete(&[(1, 100), (2, 200)]).await.unwrap();
    let ours = &two.ours;
    let read = || ours.object_with_parts(two.bucket.incarnation, "k");
    let (row, parts) = read().await.unwrap();
    assert_eq!((row.uid, parts.len()), (VersionUid(7), 2));
    let put = other_puts(two.other.clone(), two.bucket.clone());
    *two.interposed.before_scan.lock() = Some(Box::pin(put));
    let (row, parts) = read().await.unwrap();
    assert_eq!((row.uid, parts.len()), (VersionUid(50), 0));
    assert_eq!(two.condemned().await, [BlobId(100), BlobId(200)]);
}

#[tokio::test]
async fn a_put_meets_another_put() {
    let two = Two::new().await;
    two.meanwhile(0, other_puts);
    let done = two.put(60).await.unwrap();
    assert_eq!(done.replaced.unwrap().uid, VersionUid(50));
    assert_eq!(two.condemned().await, [BlobId(50)]);
}

#[tokio::test]
async fn a_conditional_put_meets_another_put() {
    let two = Two::new().await;
    two.put(40).await.unwrap();
    for condition in [
        WriteCondition::IfMatch(etag(40)),
        WriteCondition::IfNoneMatchAny,
    ] {
        if condition == WriteCondition::IfNoneMatchAny {
            let gone = two
                .ours
                .delete_object(&two.bucket, "k", DeleteCondition::None);
            gone.await.unwrap();
            two.meanwhile(0, |catalog, bucket| async move {
                catalog.publish(request(&bucket, 51)).await.unwrap();
            });
        } else {
            two.meanwhile(0, other_puts);
        }
        let mut ours = request(&two.bucket, 60);
        ours.condition = condition;
        let refused = two.ours.publish(ours).await.unwrap_err();
        assert_eq!(refused, CatalogError::PreconditionFailed, "{condition:?}");
    }
    assert_eq!(two.condemned().await, [BlobId(40), BlobId(50)]);
}

#[tokio::test]
async fn a_put_meets_the_deletion_of_its_bucket() {
    let two = Two::new().await;
    two.meanwhile(0, |catalog, _| async move {
        catalog.delete_bucket("b").await.unwrap();
        catalog.create_bucket("b", "another", 2).await.unwrap();
    });
    let refused = two.put(60).await.unwrap_err();
    assert_eq!(refused, CatalogError::NoSuchBucket);
    assert_eq!(two.condemned().await, []);
}

#[tokio::test]
async fn an_upload_is_begun_as_its_bucket_is_deleted() {
    let two = Two::new().await;
    two.meanwhile(0, |catalog, _| async move {
        catalog.delete_bucket("b").await.unwrap();
    });
    let row = build::upload(7, false);
    let refused = two.ours.create_upload(&two.bucket, "k", &row).await;
    assert_eq!(refused, Err(CatalogError::NoSuchBucket));
    assert_eq!(two.condemned().await, []);
}

#[tokio::test]
async fn a_deletion_of_a_bucket_meets_a_put_at_each_of_its_commits() {
    for (before, expected) in [
        // It sets its state behind the put, and finds the object.
        (0, CatalogError::BucketNotEmpty),
        // The put undoes the state that the emptiness was found under.
        (1, CatalogError::Conflict),
    ] {
        let two = Two::new().await;
        two.meanwhile(before, other_puts);
        assert_eq!(two.ours.delete_bucket("b").await, Err(expected));
        let held = two.ours.object(two.bucket.incarnation, "k").await.unwrap();
        assert_eq!(held.uid, VersionUid(50));
        assert_eq!(two.condemned().await, []);
    }
}

#[tokio::test]
async fn a_put_meets_changes_of_its_group() {
    let two = Two::new().await;
    two.meanwhile(0, |catalog, _| async move {
        let mut sealed = build::group(1);
        sealed.state = GroupState::Sealed;
        let open = build::group(1);
        let sealing = catalog.put_group(&sealed, Some(&open));
        sealing.await.unwrap();
    });
    two.put(60).await.unwrap();
    let mut sealed = build::group(1);
    sealed.state = GroupState::Sealed;
    two.meanwhile(0, move |catalog, _| async move {
        let next = build::group(2);
        catalog.put_group(&next, Some(&sealed)).await.unwrap();
    });
    let refused = two.put(61).await.unwrap_err();
    let current = Box::new(build::group(2));
    assert_eq!(refused, CatalogError::GroupMoved { current });
    assert_eq!(two.condemned().await, []);
}

#[tokio::test]
async fn a_put_meets_the_condemnation_of_its_blob() {
    let two = Two::new().await;
    two.meanwhile(0, |catalog, _| async move {
        let row = build::condemned(build::blob(60, 10));
        catalog.condemn(&[row]).await.unwrap();
    });
    assert_eq!(two.put(60).await.unwrap_err(), CatalogError::Conflict);
    assert_eq!(two.condemned().await, [BlobId(60)]);
}

#[tokio::test]
async fn a_put_that_owes_a_slot_meets_its_closing() {
    let two = Two::new().await;
    let owing = |n| {
        let mut request = request(&two.bucket, n);
        let PublishBody::Blob(written) = &mut request.body else {
            unreachable!("it has a blob");
        };
        written.owed_slots = vec![1];
        two.ours.publish(request)
    };
    owing(60).await.unwrap();
    two.meanwhile(0, |catalog, _| async move {
        let compared = catalog.compare_owed(build::GROUP, 1).await.unwrap();
        let compared = compared.unwrap();
        let closed = catalog.close_owed(build::GROUP, 1, &compared, Generation(1));
        closed.await.unwrap();
    });
    owing(61).await.unwrap();
    let owed = two.ours.owed().await.unwrap();
    assert_eq!(owed[0].2.lowest, BlobId(61), "it is open again");
    assert_eq!(two.condemned().await, [BlobId(60)]);
}

#[tokio::test]
async fn a_part_meets_the_end_of_its_upload() {
    let two = Two::new().await;
    two.upload().await;
    two.meanwhile(0, abort);
    let refused = two.part(3, 300).await;
    assert_eq!(refused, Err(CatalogError::NoSuchUpload));
    assert_eq!(two.condemned().await, [BlobId(100), BlobId(200)]);

    let two = Two::new().await;
    two.upload().await;
    two.meanwhile(0, |catalog, bucket| async move {
        complete(&catalog, &bucket, &[(1, 100)]).await.unwrap();
    });
    let refused = two.part(1, 101).await;
    assert_eq!(refused, Err(CatalogError::NoSuchUpload));
    assert_eq!(two.condemned().await, [BlobId(200)]);
}

#[tokio::test]
async fn a_part_meets_another_of_its_number() {
    let two = Two::new().await;
    two.upload().await;
    two.meanwhile(0, |catalog, bucket| async move {
        put_part(&catalog, &bucket, 1, 102).await.unwrap();
    });
    two.part(1, 101).await.unwrap();
    assert_eq!(two.condemned().await, [BlobId(100), BlobId(102)]);
}

#[tokio::test]
async fn a_completion_meets_changes_of_its_parts() {
    // One that it does not name comes: it is freed with the upload.
    let two = Two::new().await;
    two.upload().await;
    two.meanwhile(0, |catalog, bucket| async move {
        put_part(&catalog, &bucket, 3, 300).await.unwrap();
    });
    two.complete(&[(1, 100), (2, 200)]).await.unwrap();
    assert_eq!(two.condemned().await, [BlobId(300)]);

    // One that it names is replaced: it is not what the client meant.
    let two = Two::new().await;
    two.upload().await;
    two.meanwhile(0, |catalog, bucket| async move {
        put_part(&catalog, &bucket, 2, 201).await.unwrap();
    });
    let refused = two.complete(&[(1, 100), (2, 200)]).await;
    assert_eq!(refused, Err(CatalogError::InvalidPart { number: 2 }));
    assert_eq!(two.condemned().await, [BlobId(200)]);
}

#[tokio::test]
async fn a_completion_meets_an_abort_and_another_completion() {
    let two = Two::new().await;
    two.upload().await;
    two.meanwhile(0, abort);
    let refused = two.complete(&[(1, 100)]).await;
    assert_eq!(refused, Err(CatalogError::NoSuchUpload));
    assert_eq!(two.condemned().await, [BlobId(100), BlobId(200)]);

    let two = Two::new().await;
    two.upload().await;
    two.meanwhile(0, |catalog, bucket| async move {
        complete(&catalog, &bucket, &[(1, 100)]).await.unwrap();
    });
    let repeat = two.complete(&[(1, 100)]).await.unwrap();
    assert_eq!(repeat.published, None);
    assert_eq!(two.condemned().await, [BlobId(200)]);
}

#[tokio::test]
async fn a_deletion_meets_a_put() {
    let two = Two::new().await;
    two.put(40).await.unwrap();
    two.meanwhile(0, other_puts);
    let gone = two
        .ours
        .delete_object(&two.bucket, "k", DeleteCondition::None);
    assert_eq!(gone.await.unwrap().unwrap().uid, VersionUid(50));
    assert_eq!(two.condemned().await, [BlobId(40), BlobId(50)]);

    let two = Two::new().await;
    two.put(40).await.unwrap();
    two.meanwhile(0, other_puts);
    let keys = ["a".to_owned(), "k".to_owned()];
    let gone = two.ours.delete_objects(&two.bucket, &keys).await.unwrap();
    assert_eq!(gone[0], Ok(None));
    assert_eq!(
        gone[1].as_ref().unwrap().as_ref().unwrap().uid,
        VersionUid(50)
    );
    assert_eq!(two.condemned().await, [BlobId(40), BlobId(50)]);
}

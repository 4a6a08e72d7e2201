//! Random operations, one after another, with the invariants checked at the
//! end of each run.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};
use shardgate_catalog::{
    Catalog, CatalogError, CompletePart, Completed, DeleteCondition, MIN_PART_BYTES, PublishBody,
    WriteCondition, WrittenBlob,
};
use shardgate_wire::{BlobId, Generation, VersionUid};

use super::build::{self, finish, part, publish};
use super::check::check;
use super::reference::{Bucket, Object, Reference, Upload, UploadState};
use super::steps::{Body, Condition, KEYS, Step, step};
use super::{Opened, in_memory};

/// A catalog, what it should hold, and how far the numbers are.
struct Run {
    catalog: Catalog,
    reference: Reference,
    next: u64,
    generation: u32,
}

fn run_all<F: Future<Output = Opened>>(cases: u32, open: impl Fn() -> F) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&vec(step(), 1..60), |steps| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let opened = open().await;
            build::furnish(&opened.catalog).await;
            opened.catalog.delete_bucket("b").await.unwrap();
            let mut run = Run {
                catalog: opened.catalog.clone(),
                reference: Reference::default(),
                next: 1,
                generation: 1,
            };
            run.create_bucket(0).await;
            for step in steps {
                run.take(step).await;
            }
            run.compare().await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}\n{runner}"));
}

#[test]
fn random_operations_match_the_reference_in_memory() {
    run_all(400, || async { in_memory() });
}

#[cfg(feature = "rocksdb")]
#[test]
fn random_operations_match_the_reference_on_rocksdb() {
    run_all(24, super::on_rocksdb);
}

impl Run {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn written(&mut self, len: u64, owed: Option<u8>, stale: bool) -> WrittenBlob {
        let id = u128::from(self.number());
        WrittenBlob {
            generation: Generation(self.generation - u32::from(stale)),
            owed_slots: owed.into_iter().collect(),
            ..build::written(id, len)
        }
    }

    fn bucket(&self, bucket: usize) -> shardgate_catalog::BucketRef {
        let held = self.reference.buckets.get(&bucket);
        let incarnation = held.map(|held| held.incarnation).unwrap_or_default();
        build::bucket(&format!("b{bucket}"), incarnation)
    }

    fn held(&self, bucket: usize, key: &str) -> Option<Object> {
        let bucket = self.reference.buckets.get(&bucket)?;
        bucket.objects.get(key).cloned()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Put(b, k, body, detail, condition) => {
                self.put(b, KEYS[k], body, detail, condition).await;
            }
            Step::Delete(b, k, condition) => self.delete(b, KEYS[k], condition).await,
            Step::DeleteMany(b, keys) => self.delete_many(b, &keys).await,
            Step::Create(b, k, detail) => self.create_upload(b, KEYS[k], detail).await,
            Step::PutPart(u, number, blob, large) => self.put_part(u, number, blob, large).await,
            Step::Complete(u, numbers, sorted) => self.complete(u, numbers, sorted).await,
            Step::Abort(u) => self.abort(u).await,
            Step::DeleteBucket(b) => self.delete_bucket(b).await,
            Step::CreateBucket(b) => self.create_bucket(b).await,
            Step::Condemn => self.condemn().await,
            Step::CondemnHeld(b, k) => self.condemn_held(b, KEYS[k]).await,
            Step::Purge(count) => self.purge(count).await,
            Step::MoveGroup => self.move_group().await,
        }
    }

    async fn put(&mut self, b: usize, key: &str, body: Body, detail: bool, condition: Condition) {
        let n = self.number();
        let (body, blobs, stale) = match body {
            Body::Inline(len) => (
                PublishBody::Inline(Bytes::from(vec![1; len])),
                vec![],
                false,
            ),
            Body::Blob { owed, stale } => {
                let written = self.written(5000, owed, stale);
                let blobs = vec![written.blob.blob];
                (PublishBody::Blob(written), blobs, stale)
            }
        };
        let held = self.held(b, key);
        let mut request = publish(&self.bucket(b), key, n, body);
        request.detail = build::detail(detail);
        request.condition = match (condition, &held) {
            (Condition::None, _) => WriteCondition::None,
            (Condition::Absent, _) => WriteCondition::IfNoneMatchAny,
            (Condition::MatchesHeld, Some(held)) => WriteCondition::IfMatch(held.etag),
            (Condition::MatchesHeld, None) => WriteCondition::IfMatchAny,
            (Condition::MatchesOther, _) => WriteCondition::IfMatch(build::etag(0)),
        };
        let expected = match (condition, &held) {
            _ if !self.reference.buckets.contains_key(&b) => Err(CatalogError::NoSuchBucket),
            (Condition::Absent, Some(_)) | (Condition::MatchesOther, Some(_)) => {
                Err(CatalogError::PreconditionFailed)
            }
            (Condition::MatchesHeld | Condition::MatchesOther, None) => {
                Err(CatalogError::NoSuchKey)
            }
            _ if stale => Err(CatalogError::GroupMoved {
                current: Box::new(build::group(self.generation)),
            }),
            _ => Ok(held.map(|held| held.etag)),
        };
        let size = request.row.size;
        let owed = match &request.body {
            PublishBody::Blob(written) => written.owed_slots.clone(),
            PublishBody::Inline(_) => vec![],
        };
        let outcome = self.catalog.publish(request).await;
        let replaced = outcome.map(|done| done.replaced.map(|row| row.etag));
        assert_eq!(replaced, expected);
        if expected.is_ok() {
            for slot in owed {
                self.reference.owed.entry(slot).or_insert(blobs[0]);
            }
            let etag = build::etag(n);
            self.reference.put(b, key, Object { etag, size, blobs });
        }
    }

    async fn delete(&mut self, b: usize, key: &str, condition: Condition) {
        let held = self.held(b, key);
        let asked = match (condition, &held) {
            (Condition::None | Condition::Absent, _) => DeleteCondition::None,
            (Condition::MatchesHeld, Some(held)) => DeleteCondition::IfMatch(held.etag),
            (Condition::MatchesHeld, None) => DeleteCondition::IfMatchAny,
            (Condition::MatchesOther, _) => DeleteCondition::IfMatch(build::etag(0)),
        };
        let expected = match (asked, &held) {
            _ if !self.reference.buckets.contains_key(&b) => Err(CatalogError::NoSuchBucket),
            (DeleteCondition::None, _) => Ok(held.clone()),
            (_, None) => Err(CatalogError::NoSuchKey),
            (DeleteCondition::IfMatch(etag), Some(held)) if etag != held.etag => {
                Err(CatalogError::PreconditionFailed)
            }
            _ => Ok(held.clone()),
        };
        let outcome = self
            .catalog
            .delete_object(&self.bucket(b), key, asked)
            .await;
        let gone = outcome.map(|row| row.map(|row| row.etag));
        assert_eq!(gone, expected.map(|held| held.map(|held| held.etag)));
        if gone.is_ok() {
            self.reference.delete(b, key);
        }
    }

    async fn delete_many(&mut self, b: usize, keys: &[usize]) {
        let names: Vec<_> = keys.iter().map(|&k| KEYS[k].to_owned()).collect();
        let outcome = self.catalog.delete_objects(&self.bucket(b), &names).await;
        if !self.reference.buckets.contains_key(&b) {
            assert_eq!(outcome, Err(CatalogError::NoSuchBucket));
            return;
        }
        let answers = outcome.unwrap();
        assert_eq!(answers.len(), names.len());
        for (key, answer) in names.iter().zip(answers) {
            let expected = self.reference.delete(b, key);
            let gone = answer.unwrap().map(|row| row.etag);
            assert_eq!(gone, expected.map(|held| held.etag));
        }
    }

    async fn create_upload(&mut self, b: usize, key: &str, detail: bool) {
        let uid = self.number();
        let bucket = self.bucket(b);
        let row = build::upload(uid, detail);
        let outcome = self.catalog.create_upload(&bucket, key, &row).await;
        if !self.reference.buckets.contains_key(&b) {
            assert_eq!(outcome, Err(CatalogError::NoSuchBucket));
            return;
        }
        outcome.unwrap();
        self.reference.uploads.push(Upload {
            incarnation: bucket.incarnation,
            bucket: b,
            key: key.to_owned(),
            uid,
            parts: [].into(),
            state: UploadState::Open,
        });
    }

    /// The upload of an index, counted from the newest.
    fn upload(&self, back: usize) -> Option<(usize, Upload, shardgate_catalog::BucketRef)> {
        let at = self.reference.uploads.len().checked_sub(back + 1)?;
        let upload = self.reference.uploads[at].clone();
        let bucket = build::bucket(&format!("b{}", upload.bucket), upload.incarnation);
        Some((at, upload, bucket))
    }

    async fn put_part(&mut self, back: usize, number: u16, blob: bool, large: bool) {
        let Some((at, upload, bucket)) = self.upload(back) else {
            return;
        };
        let size = if large { MIN_PART_BYTES } else { 10 };
        let written = blob.then(|| self.written(size, None, false));
        let n = self.number();
        let row = part(number, n, if blob { size } else { 0 });
        let size = row.len;
        let uid = VersionUid(upload.uid.into());
        let stored = written.as_ref();
        let outcome = self
            .catalog
            .put_part(&bucket, &upload.key, uid, row, stored);
        let outcome = outcome.await;
        if upload.state != UploadState::Open {
            assert_eq!(outcome, Err(CatalogError::NoSuchUpload));
            return;
        }
        outcome.unwrap();
        let blobs = written.iter().map(|written| written.blob.blob).collect();
        let etag = build::etag(n);
        let parts = &mut self.reference.uploads[at].parts;
        if let Some(old) = parts.insert(number, Object { etag, size, blobs }) {
            self.reference.condemned.extend(old.blobs);
        }
    }

    async fn complete(&mut self, back: usize, mut numbers: Vec<u16>, sorted: bool) {
        let Some((at, upload, bucket)) = self.upload(back) else {
            return;
        };
        if sorted {
            numbers.sort_unstable();
            numbers.dedup();
        }
        let named = numbers.iter().map(|&number| CompletePart {
            number,
            md5: upload
                .parts
                .get(&number)
                .map_or([9; 16], |part| part.etag.md5),
        });
        let uid = VersionUid(upload.uid.into());
        let request = build::complete(&bucket, &upload.key, uid, named.collect());
        let expected = expected_completion(&upload, &numbers);
        let outcome = self
            .catalog
            .complete_upload(&request, |_, parts| Ok::<_, CatalogError>(finish(parts)));
        let outcome = outcome.await;
        if !self.reference.buckets.contains_key(&upload.bucket)
            || self.bucket(upload.bucket).incarnation != upload.incarnation
        {
            assert_eq!(outcome, Err(CatalogError::NoSuchBucket));
            return;
        }
        let completed: Result<Completed, _> = outcome;
        assert_eq!(
            completed.as_ref().map(|done| done.etag),
            expected.as_ref().copied()
        );
        let Ok(done) = completed else { return };
        if done.published.is_none() {
            assert!(matches!(upload.state, UploadState::Completed(..)));
            return;
        }
        let used = numbers.iter().map(|number| &upload.parts[number]);
        let object = Object {
            etag: done.etag,
            size: used.clone().map(|part| part.size).sum(),
            blobs: used.flat_map(|part| part.blobs.clone()).collect(),
        };
        for (number, part) in &upload.parts {
            if !numbers.contains(number) {
                self.reference.condemned.extend(part.blobs.clone());
            }
        }
        self.reference.put(upload.bucket, &upload.key, object);
        self.reference.uploads[at].state = UploadState::Completed(numbers, done.etag);
    }

    async fn abort(&mut self, back: usize) {
        let Some((at, upload, bucket)) = self.upload(back) else {
            return;
        };
        let uid = VersionUid(upload.uid.into());
        let outcome = self.catalog.abort_upload(&bucket, &upload.key, uid).await;
        let gone = self.bucket(upload.bucket).incarnation != upload.incarnation
            || !self.reference.buckets.contains_key(&upload.bucket);
        if gone {
            assert_eq!(outcome, Err(CatalogError::NoSuchBucket));
        } else if upload.state == UploadState::Open {
            outcome.unwrap();
            self.reference.end_upload(at);
        } else {
            assert_eq!(outcome, Err(CatalogError::NoSuchUpload));
        }
    }

    async fn delete_bucket(&mut self, b: usize) {
        let outcome = self.catalog.delete_bucket(&format!("b{b}")).await;
        match self.reference.buckets.get(&b) {
            None => assert_eq!(outcome, Err(CatalogError::NoSuchBucket)),
            Some(bucket) if !bucket.objects.is_empty() => {
                assert_eq!(outcome, Err(CatalogError::BucketNotEmpty));
            }
            Some(_) => {
                outcome.unwrap();
                self.reference.delete_bucket(b);
            }
        }
    }

    async fn create_bucket(&mut self, b: usize) {
        let outcome = self.catalog.create_bucket(&format!("b{b}"), "me", 5).await;
        if self.reference.buckets.contains_key(&b) {
            let owner = "me".to_owned();
            assert_eq!(outcome, Err(CatalogError::BucketExists { owner }));
            return;
        }
        let bucket = Bucket {
            incarnation: outcome.unwrap().incarnation,
            objects: [].into(),
        };
        self.reference.buckets.insert(b, bucket);
    }

    async fn condemn(&mut self) {
        let blob = build::blob(self.number().into(), 10);
        self.catalog
            .condemn(&[build::condemned(blob)])
            .await
            .unwrap();
        self.reference.condemned.insert(blob.blob);
        // It can never be published any more.
        let mut written = build::written(blob.blob.0, 10);
        written.generation = Generation(self.generation);
        if self.reference.buckets.contains_key(&0) {
            let n = self.number();
            let body = PublishBody::Blob(written);
            let outcome = self.catalog.publish(publish(&self.bucket(0), "k", n, body));
            assert_eq!(outcome.await.unwrap_err(), CatalogError::Conflict);
        }
    }

    async fn condemn_held(&mut self, b: usize, key: &str) {
        let held = self.held(b, key);
        let blob = held.and_then(|held| held.blobs.first().copied());
        let Some(BlobId(id)) = blob else { return };
        let row = build::condemned(build::blob(id, 10));
        let outcome = self.catalog.condemn(&[row]).await;
        assert_eq!(outcome, Err(CatalogError::Conflict), "it is owned");
    }

    async fn purge(&mut self, count: usize) {
        let queue = self.catalog.condemned(None, 20).await.unwrap();
        // Not always from the head.
        let some: Vec<_> = queue.into_iter().skip(count % 2).take(count).collect();
        self.catalog.purged(&some).await.unwrap();
        for blob in some {
            self.reference.condemned.remove(&blob.row.blob);
        }
    }

    async fn move_group(&mut self) {
        let (before, after) = (
            build::group(self.generation),
            build::group(self.generation + 1),
        );
        self.catalog.put_group(&after, Some(&before)).await.unwrap();
        let again = self.catalog.put_group(&after, Some(&before)).await;
        assert_eq!(again, Err(CatalogError::Conflict));
        self.generation += 1;
    }

    async fn compare(&self) {
        let found = check(&self.catalog).await;
        let mut expected = Vec::new();
        for (b, bucket) in &self.reference.buckets {
            for (key, object) in &bucket.objects {
                expected.push(((format!("b{b}"), key.clone()), object.etag, object.size));
            }
        }
        let objects = found.objects.iter();
        let objects: Vec<_> = objects
            .map(|(name, row)| (name.clone(), row.etag, row.size))
            .collect();
        assert_eq!(objects, expected);
        assert_eq!(found.condemned, self.reference.condemned);
        let owed = self.catalog.owed().await.unwrap();
        let owed: Vec<_> = owed
            .into_iter()
            .map(|(_, slot, row)| (slot, row.lowest))
            .collect();
        let expected: Vec<_> = self.reference.owed.clone().into_iter().collect();
        assert_eq!(owed, expected);
    }
}

fn expected_completion(
    upload: &Upload,
    numbers: &[u16],
) -> Result<shardgate_catalog::model::ETag, CatalogError> {
    match &upload.state {
        UploadState::Ended => return Err(CatalogError::NoSuchUpload),
        UploadState::Completed(before, etag) if before == numbers => return Ok(*etag),
        UploadState::Completed(..) => return Err(CatalogError::NoSuchUpload),
        UploadState::Open => {}
    }
    if !numbers.windows(2).all(|pair| pair[0] < pair[1]) {
        return Err(CatalogError::InvalidPartOrder);
    }
    if let Some(&number) = numbers.iter().find(|n| !upload.parts.contains_key(n)) {
        return Err(CatalogError::InvalidPart { number });
    }
    let (_, but_last) = numbers.split_last().unwrap();
    let small = but_last
        .iter()
        .find(|n| upload.parts[n].size < MIN_PART_BYTES);
    if let Some(&number) = small {
        return Err(CatalogError::EntityTooSmall { number });
    }
    let rows: Vec<_> = numbers
        .iter()
        .map(|number| {
            let held = &upload.parts[number];
            let mut row = part(*number, 0, held.size);
            row.md5 = held.etag.md5;
            row
        })
        .collect();
    Ok(finish(&rows).etag)
}

//! Uploads in parts: what is put together reads as one object.

use md5::{Digest, Md5};
use shardgate_catalog::model::{ChecksumAlgorithm, ChecksumKind, DetailRow};
use shardgate_wire::VersionUid;

use super::fixture::*;
use crate::object::digest::digest_whole;
use crate::object::*;

const SIX: [u16; 6] = [0, 1, 2, 3, 4, 5];
const MIB: usize = 1 << 20;

async fn upload(
    store: &Fixture,
    checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
) -> VersionUid {
    let request = UploadRequest {
        bucket: store.bucket.clone(),
        key: "key".into(),
        owner: "owner".into(),
        class: None,
        detail: DetailRow {
            content_type: Some("text/plain".into()),
            ..DetailRow::default()
        },
        checksum,
    };
    store.service.create_upload(request).await.unwrap()
}

fn part_request(store: &Fixture, upload: VersionUid, number: u16) -> PartRequest {
    PartRequest {
        bucket: store.bucket.clone(),
        key: "key".into(),
        upload,
        number,
        len: None,
        checksum: None,
        content_md5: None,
    }
}

async fn put_part(
    store: &Fixture,
    upload: VersionUid,
    number: u16,
    content: &bytes::Bytes,
) -> Result<PartChoice, ObjectError> {
    let mut request = part_request(store, upload, number);
    request.len = Some(content.len() as u64);
    let outcome = store
        .service
        .put_part(request, body(content, 200_000))
        .await?;
    Ok(PartChoice {
        number,
        md5: outcome.md5,
        digest: None,
    })
}

fn complete(store: &Fixture, upload: VersionUid, parts: Vec<PartChoice>) -> CompleteRequest {
    CompleteRequest {
        bucket: store.bucket.clone(),
        key: "key".into(),
        upload,
        parts,
        expected: None,
        expected_size: None,
        condition: WriteCondition::None,
    }
}

#[tokio::test(start_paused = true)]
async fn parts_make_one_object_with_all_its_ranges() {
    let store = fixture("4+2", &SIX).await;
    let checksum = Some((ChecksumAlgorithm::Crc64Nvme, ChecksumKind::FullObject));
    let upload = upload(&store, checksum).await;
    let contents = [bytes(5 * MIB, 1), bytes(6 * MIB + 3, 2), bytes(70_001, 3)];
    let (mut parts, mut md5) = (Vec::new(), Md5::new());
    for (number, content) in [2, 5, 9].into_iter().zip(&contents) {
        let part = put_part(&store, upload, number, content).await.unwrap();
        md5.update(part.md5);
        parts.push(part);
    }
    // A part that is replaced, and one that is not used.
    put_part(&store, upload, 7, &bytes(5 * MIB, 9))
        .await
        .unwrap();
    put_part(&store, upload, 2, &contents[0]).await.unwrap();
    let whole: bytes::Bytes = contents.concat().into();
    let request = complete(&store, upload, parts);
    let outcome = store
        .service
        .complete_upload(request.clone())
        .await
        .unwrap();
    assert_eq!(outcome.etag.parts, 3);
    assert_eq!(outcome.etag.md5, <[u8; 16]>::from(md5.finalize()));
    let expected = digest_whole(Some(ChecksumAlgorithm::Crc64Nvme), &whole);
    assert_eq!(outcome.checksum, expected.checksum);
    assert_eq!(
        store.service.complete_upload(request).await.unwrap(),
        outcome
    );

    let handle = store
        .service
        .open_object(&store.bucket, "key")
        .await
        .unwrap();
    assert_eq!(handle.detail().content_type.as_deref(), Some("text/plain"));
    let (first, second) = (5 * MIB, 11 * MIB + 3);
    for (from, to) in [
        (0, whole.len()),
        (first - 1, first + 1),
        (first, second),
        (second - 5, second + 5),
        (whole.len() - 1, whole.len()),
        (3, whole.len() - 3),
    ] {
        let found = read(&handle, from as u64..to as u64).await.unwrap();
        assert!(found == whole[from..to], "{from}..{to}");
    }
    let part = handle.part(5).await.unwrap();
    assert_eq!((part.start, part.len), (first as u64, 6 * MIB as u64 + 3));
    assert!(matches!(handle.part(7).await, Err(ObjectError::NoSuchPart)));

    // The parts that the object does not use are purged.
    store.purge().await;
    assert!(read(&handle, 0..whole.len() as u64).await.unwrap() == whole);
    // The last part is one copy and m more: 128 KiB at most.
    assert_eq!(store.pool.shards(), 6 + 6 + 3);

    // Overwritten while it is read: its part rows are gone from the catalog.
    store.put("key", &bytes(10, 1)).await.unwrap();
    store.purge().await;
    assert!(read(&handle, 0..whole.len() as u64).await.unwrap() == whole);
    drop(handle);
    store.purge().await;
    assert_eq!(store.pool.shards(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_an_object_that_was_replaced_is_not_one_that_never_was() {
    let store = fixture("4+2", &SIX).await;
    let begun = upload(&store, None).await;
    let only = put_part(&store, begun, 3, &bytes(MIB, 1)).await.unwrap();
    let request = complete(&store, begun, vec![only]);
    store.service.complete_upload(request).await.unwrap();
    let handle = store.service.open_object(&store.bucket, "key");
    let handle = handle.await.unwrap();
    assert_eq!(handle.part(3).await.unwrap().len, MIB as u64);
    let never = handle.part(4).await;
    assert!(matches!(never, Err(ObjectError::NoSuchPart)));
    store.put("key", &bytes(MIB, 2)).await.unwrap();
    let replaced = handle.part(3).await;
    assert!(matches!(replaced, Err(ObjectError::Unavailable { .. })));
}

#[tokio::test(start_paused = true)]
async fn composite_checksums_are_of_the_digests() {
    let store = fixture("4+2", &SIX).await;
    let checksum = Some((ChecksumAlgorithm::Sha256, ChecksumKind::Composite));
    let upload = upload(&store, checksum).await;
    let content = bytes(100_000, 1);
    let part = put_part(&store, upload, 1, &content).await.unwrap();
    let digest = digest_whole(Some(ChecksumAlgorithm::Sha256), &content);
    let digest = digest.checksum.unwrap().digest;
    let expected = digest_whole(Some(ChecksumAlgorithm::Sha256), &digest.into());
    let expected = expected.checksum.unwrap().digest;
    let mut request = complete(&store, upload, vec![part]);
    let said = |digest| Some((ChecksumAlgorithm::Sha256, ChecksumKind::Composite, digest));
    request.expected = said(vec![0; 32]);
    let refused = store.service.complete_upload(request.clone()).await;
    assert!(matches!(refused, Err(ObjectError::ChecksumMismatch { .. })));
    request.expected = said(expected.clone());
    let outcome = store.service.complete_upload(request).await.unwrap();
    assert_eq!(outcome.checksum.unwrap().digest, expected);
}

#[tokio::test(start_paused = true)]
async fn parts_that_are_not_as_named_are_refused() {
    let store = fixture("4+2", &SIX).await;
    let upload = upload(&store, None).await;
    let small = put_part(&store, upload, 1, &bytes(100_000, 1))
        .await
        .unwrap();
    let last = put_part(&store, upload, 2, &bytes(100_000, 2))
        .await
        .unwrap();
    let finish = async |parts| {
        store
            .service
            .complete_upload(complete(&store, upload, parts))
            .await
    };
    let too_small = finish(vec![small.clone(), last.clone()]).await;
    assert!(matches!(
        too_small,
        Err(ObjectError::EntityTooSmall { number: 1 })
    ));
    let disordered = finish(vec![last.clone(), small.clone()]).await;
    assert!(matches!(disordered, Err(ObjectError::InvalidPartOrder)));
    let mut other = small.clone();
    other.md5[0] ^= 1;
    assert!(matches!(
        finish(vec![other]).await,
        Err(ObjectError::InvalidPart { number: 1 })
    ));
    assert!(matches!(
        finish(vec![]).await,
        Err(ObjectError::InvalidPartCount)
    ));
    for number in [0, 10_001] {
        let refused = put_part(&store, upload, number, &bytes(10, 1)).await;
        assert!(matches!(refused, Err(ObjectError::InvalidPart { .. })));
    }
    let abort = store
        .service
        .abort_upload(&store.bucket, "key", upload)
        .await;
    abort.unwrap();
    let refused = put_part(&store, upload, 3, &bytes(100_000, 1)).await;
    assert!(matches!(refused, Err(ObjectError::NoSuchUpload)));
    store.purge().await;
    assert_eq!(store.pool.shards(), 0);
}

#[tokio::test(start_paused = true)]
async fn ranges_of_objects_become_parts() {
    let store = fixture("4+2", &SIX).await;
    let source = bytes(12 * MIB, 1);
    store.put("source", &source).await.unwrap();
    let upload = upload(&store, None).await;
    let mut parts = Vec::new();
    for (number, range) in [(1, 1..6 * MIB as u64), (2, 7 * MIB as u64..12 * MIB as u64)] {
        let handle = store
            .service
            .open_object(&store.bucket, "source")
            .await
            .unwrap();
        let request = part_request(&store, upload, number);
        let copied = store
            .service
            .put_part_copy(handle, Some(range), request)
            .await
            .unwrap();
        let digest = None;
        parts.push(PartChoice {
            number,
            md5: copied.md5,
            digest,
        });
    }
    store
        .service
        .complete_upload(complete(&store, upload, parts))
        .await
        .unwrap();
    let expected = [&source[1..6 * MIB], &source[7 * MIB..]].concat();
    assert!(store.get("key").await.unwrap() == expected);
}

#[tokio::test(start_paused = true)]
async fn completions_are_forgotten_when_their_repeats_are_over() {
    let store = fixture("1+2", &SIX).await;
    let upload = upload(&store, None).await;
    let part = put_part(&store, upload, 1, &bytes(70_000, 1))
        .await
        .unwrap();
    let again = || {
        store
            .service
            .complete_upload(complete(&store, upload, vec![part.clone()]))
    };
    let first = again().await.unwrap();
    let day = 24 * 3600 * 1000;
    store.clock.set(1_700_000_000_000 + 6 * day);
    tokio::time::sleep(std::time::Duration::from_secs(7300)).await;
    assert_eq!(again().await.unwrap().etag, first.etag);
    store.clock.set(1_700_000_000_000 + 8 * day);
    tokio::time::sleep(std::time::Duration::from_secs(7300)).await;
    let error = again().await.unwrap_err();
    assert!(matches!(error, ObjectError::NoSuchUpload), "{error:?}");
    assert_eq!(store.get("key").await.unwrap(), bytes(70_000, 1));
}

#[tokio::test(start_paused = true)]
async fn a_catalog_without_room_takes_no_writes_and_all_deletes() {
    let store = fixture("1+2", &SIX).await;
    let content = bytes(70_000, 1);
    store.put("kept", &content).await.unwrap();
    let upload = upload(&store, None).await;
    let part = put_part(&store, upload, 1, &content).await.unwrap();
    store.catalog_room.set_short(true);
    let full = |error: ObjectError| assert!(matches!(error, ObjectError::NoSpace), "{error:?}");
    full(store.put("new", &bytes(10, 2)).await.unwrap_err());
    full(put_part(&store, upload, 2, &content).await.unwrap_err());
    let request = complete(&store, upload, vec![part]);
    full(store.service.complete_upload(request).await.unwrap_err());
    assert_eq!(store.get("kept").await.unwrap(), content);
    let aborted = store
        .service
        .abort_upload(&store.bucket, "key", upload)
        .await;
    aborted.unwrap();
    let deleted = store
        .service
        .delete_object(&store.bucket, "kept", DeleteCondition::None)
        .await;
    assert!(deleted.unwrap());
    store.purge().await;
    assert_eq!(store.pool.shards(), 0);
    store.catalog_room.set_short(false);
    store.put("new", &content).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_journal_near_its_bound_slows_writes_down_and_takes_all_deletes() {
    let store = fixture("1+2", &SIX).await;
    let content = bytes(70_000, 1);
    store.put("kept", &content).await.unwrap();
    store.catalog_room.set_journal_full(true);
    let slow = store.put("new", &bytes(10, 2)).await.unwrap_err();
    assert!(matches!(slow, ObjectError::SlowDown), "{slow:?}");
    assert_eq!(store.get("kept").await.unwrap(), content);
    let deleted = store
        .service
        .delete_object(&store.bucket, "kept", DeleteCondition::None)
        .await;
    assert!(deleted.unwrap());
    store.catalog_room.set_journal_full(false);
    store.put("new", &content).await.unwrap();
}

/// Parts as records alone, the last of them of `last` bytes.
async fn recorded_parts(store: &Fixture, upload: VersionUid, last: u64) -> Vec<PartChoice> {
    let mut parts = Vec::new();
    for number in 1..=1024u16 {
        let row = shardgate_catalog::model::UploadPartRow {
            number,
            blob: None,
            len: if number == 1024 { last } else { 5 << 30 },
            md5: [number as u8; 16],
            checksum: None,
            modified: 1,
        };
        parts.push(PartChoice {
            number,
            md5: row.md5,
            digest: None,
        });
        let catalog = store.service.catalog();
        let put = catalog.put_part(&store.bucket, "key", upload, row, None);
        put.await.unwrap();
    }
    parts
}

#[tokio::test(start_paused = true)]
async fn an_object_has_at_most_five_tib() {
    let store = fixture("1+2", &SIX).await;
    for (last, taken) in [((5 << 30) + 1, false), (5 << 30, true)] {
        let upload = upload(&store, None).await;
        let parts = recorded_parts(&store, upload, last).await;
        let request = complete(&store, upload, parts);
        let outcome = store.service.complete_upload(request).await;
        match (outcome, taken) {
            (Ok(done), true) => assert_eq!(done.etag.parts, 1024),
            (Err(ObjectError::EntityTooLarge { limit_bytes }), false) => {
                assert_eq!(limit_bytes, 5 << 40);
                let opened = store.service.open_object(&store.bucket, "key").await;
                assert!(matches!(opened, Err(ObjectError::NoSuchKey)));
            }
            (outcome, _) => panic!("{last}: {outcome:?}"),
        }
    }
    let opened = store.service.open_object(&store.bucket, "key").await;
    assert_eq!(opened.unwrap().row().size, 5 << 40);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_another_checksum_than_the_upload_is_refused_at_once() {
    let store = fixture("1+2", &SIX).await;
    let sha = Some((ChecksumAlgorithm::Sha256, ChecksumKind::Composite));
    let content = bytes(70_000, 1);
    for (of_upload, taken) in [(sha, false), (None, true)] {
        let upload = upload(&store, of_upload).await;
        let mut request = part_request(&store, upload, 1);
        request.checksum = Some(ChecksumRequest {
            algorithm: ChecksumAlgorithm::Crc32,
            expected: ExpectedDigest::Unknown,
        });
        let outcome = store
            .service
            .put_part(request, body(&content, 10_000))
            .await;
        match outcome {
            Ok(_) => assert!(taken, "{of_upload:?}"),
            Err(ObjectError::BadChecksum { .. }) => assert!(!taken, "{of_upload:?}"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

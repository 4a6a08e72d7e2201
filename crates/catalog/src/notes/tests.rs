//! What is queued by which commit, what a note then says, and when a row may
//! leave the queue.

use bytes::Bytes;
use shardgate_wire::note::MAX_NOTE_BYTES;
use shardgate_wire::{BlobLayout, Generation, Medium, VersionUid};

use super::*;
use crate::buckets::BucketRef;
use crate::complete::{CompleteFinish, CompletePart, CompleteRequest, MIN_PART_BYTES};
use crate::delete::DeleteCondition;
use crate::model::{BlobRef, ETag, GroupRow, GroupState, UploadRow};
use crate::publish::{Publish, PublishBody, WriteCondition, WrittenBlob};

const GROUP: GroupId = GroupId(1);

async fn catalog() -> (Catalog, BucketRef) {
    catalog_over(std::sync::Arc::new(crate::engine::MemoryEngine::new())).await
}

async fn catalog_over(engine: std::sync::Arc<crate::engine::MemoryEngine>) -> (Catalog, BucketRef) {
    let catalog = Catalog::new(engine);
    let group = GroupRow {
        id: GROUP,
        generation: Generation(1),
        data: 2,
        parity: 1,
        medium: Medium::Flash,
        slots: vec![DiskId(1), DiskId(2), DiskId(3)],
        state: GroupState::Open,
        narrow: false,
        slot_bytes: 0,
    };
    catalog.put_group(&group, None).await.unwrap();
    assert_eq!(catalog.class_number("STANDARD").await, Ok(0));
    let row = catalog.create_bucket("b", "owner", 1).await.unwrap();
    let bucket = BucketRef {
        name: "b".to_owned(),
        incarnation: row.incarnation,
    };
    (catalog, bucket)
}

fn written(id: u128, len: u64) -> WrittenBlob {
    WrittenBlob {
        blob: BlobRef {
            group: GROUP,
            blob: BlobId(id),
            layout: BlobLayout { data: 2, parity: 1 },
            len,
        },
        generation: Generation(1),
        owed_slots: vec![],
        lowest_in_flight: BlobId(id),
    }
}

fn detail(bytes: usize) -> DetailRow {
    DetailRow {
        content_type: Some("text/plain".to_owned()),
        user: vec![("k".to_owned(), "v".repeat(bytes))],
        ..DetailRow::default()
    }
}

/// An object of one blob, whose uid is that of its blob.
async fn put(catalog: &Catalog, bucket: &BucketRef, key: &str, id: u128) -> VersionRow {
    let publish = Publish {
        bucket: bucket.clone(),
        key: key.to_owned(),
        row: VersionRow {
            uid: VersionUid(id),
            size: 10,
            modified: 5,
            etag: ETag {
                md5: [3; 16],
                parts: 0,
            },
            class: 0,
            content: Content::Inline,
            checksum: None,
            null: true,
            has_detail: false,
        },
        detail: detail(1),
        body: PublishBody::Blob(written(id, 10)),
        condition: WriteCondition::None,
    };
    catalog.publish(publish).await.unwrap().row
}

async fn waiting(catalog: &Catalog) -> Vec<u128> {
    let page = catalog.waiting_notes(None, 100).await.unwrap();
    assert!(!page.more && page.damaged.is_empty());
    let blobs = page.rows.iter().map(|row| row.blob);
    blobs
        .filter(|blob| *blob != NO_BLOB)
        .map(|blob| blob.0)
        .collect()
}

#[tokio::test]
async fn a_publication_is_queued_and_says_what_it_is_when_it_is_sent() {
    let (catalog, bucket) = catalog().await;
    let row = put(&catalog, &bucket, "key", 7).await;
    assert_eq!(waiting(&catalog).await, [7]);
    let note = catalog.note_of(GROUP, BlobId(7)).await.unwrap().unwrap();
    let expected = NotePayload::Version {
        incarnation: bucket.incarnation,
        key: "key".to_owned(),
        class: "STANDARD".to_owned(),
        row,
        detail: Some(detail(1)),
        part: None,
        empty_last: None,
    };
    assert_eq!(note, expected);
    assert_eq!(NotePayload::decode(&note.encode()), Ok(note));
    // Another takes its key: it belongs to nothing any more.
    put(&catalog, &bucket, "key", 8).await;
    assert_eq!(catalog.note_of(GROUP, BlobId(7)).await, Ok(None));
    assert!(catalog.note_of(GROUP, BlobId(8)).await.unwrap().is_some());
    let none = DeleteCondition::None;
    catalog.delete_object(&bucket, "key", none).await.unwrap();
    assert_eq!(catalog.note_of(GROUP, BlobId(8)).await, Ok(None));
    assert_eq!(waiting(&catalog).await, [7, 8]);
}

#[tokio::test]
async fn a_groups_disks_are_told_its_record_when_it_is_made_or_moves() {
    let (catalog, _) = catalog().await;
    let made = catalog.group(GROUP).await.unwrap().unwrap();
    let note = catalog.note_of(GROUP, NO_BLOB).await;
    assert_eq!(note, Ok(Some(NotePayload::Group(made.clone()))));
    let count = async || page_of(&catalog, None, 10).await.rows.len();
    assert_eq!(count().await, 1);
    let sealed = GroupRow {
        state: GroupState::Sealed,
        ..made.clone()
    };
    catalog.put_group(&sealed, Some(&made)).await.unwrap();
    assert_eq!(count().await, 1, "it lies where it lay");
    let moved = GroupRow {
        generation: Generation(2),
        ..sealed.clone()
    };
    catalog.put_group(&moved, Some(&sealed)).await.unwrap();
    assert_eq!(count().await, 2);
    assert_eq!(catalog.note_of(GroupId(5), NO_BLOB).await, Ok(None));
}

#[tokio::test]
async fn what_belongs_to_nothing_that_is_there_is_damage() {
    let (catalog, bucket) = catalog().await;
    put(&catalog, &bucket, "key", 7).await;
    let mut draft = Draft::new();
    draft.delete(keys::current(bucket.incarnation, "key"));
    catalog.commit(draft).await.unwrap();
    let note = catalog.note_of(GROUP, BlobId(7)).await;
    assert!(
        matches!(note, Err(CatalogError::Damaged { .. })),
        "{note:?}"
    );
}

#[tokio::test]
async fn parts_are_noted_when_they_come_and_when_they_become_an_object() {
    let (catalog, bucket) = catalog().await;
    let uid = VersionUid(100);
    let upload = UploadRow {
        uid,
        initiated: 1,
        owner: "owner".to_owned(),
        class: 0,
        detail: detail(1),
        checksum: None,
        group: Some(GROUP),
    };
    catalog
        .create_upload(&bucket, "key", &upload)
        .await
        .unwrap();
    let part = |number: u16, len| UploadPartRow {
        number,
        blob: None,
        len,
        md5: [number as u8; 16],
        checksum: None,
        modified: 2,
    };
    // Two parts with bytes, one without, and one that is not used.
    for (number, len) in [(1, MIN_PART_BYTES), (2, MIN_PART_BYTES), (3, 0), (4, 5)] {
        let blob = (len > 0).then(|| written(u128::from(number), len));
        let row = part(number, len);
        let put = catalog.put_part(&bucket, "key", uid, row, blob.as_ref());
        put.await.unwrap();
    }
    assert_eq!(waiting(&catalog).await, [1, 2, 4]);
    let note = catalog.note_of(GROUP, BlobId(2)).await.unwrap().unwrap();
    let mut second = part(2, MIN_PART_BYTES);
    second.blob = Some(written(2, MIN_PART_BYTES).blob);
    let expected = NotePayload::UploadPart {
        incarnation: bucket.incarnation,
        key: "key".to_owned(),
        class: "STANDARD".to_owned(),
        upload,
        part: second,
    };
    assert_eq!(note, expected);

    let named = |number: u16| CompletePart {
        number,
        md5: [number as u8; 16],
    };
    let request = CompleteRequest {
        bucket: bucket.clone(),
        key: "key".to_owned(),
        uid,
        parts: vec![named(1), named(2), named(3)],
        condition: WriteCondition::None,
        now: 9,
    };
    let finish = |_: &UploadRow, _: &[UploadPartRow]| {
        Ok::<_, CatalogError>(CompleteFinish {
            etag: ETag {
                md5: [9; 16],
                parts: 3,
            },
            checksum: None,
        })
    };
    catalog.complete_upload(&request, finish).await.unwrap();
    assert_eq!(waiting(&catalog).await, [1, 2, 4, 1, 2]);
    assert_eq!(catalog.note_of(GROUP, BlobId(4)).await, Ok(None));
    for (number, start, has_detail, has_last) in
        [(1, 0, true, false), (2, MIN_PART_BYTES, false, true)]
    {
        let note = catalog.note_of(GROUP, BlobId(number)).await.unwrap();
        let Some(NotePayload::Version {
            row,
            detail,
            part: Some(part),
            empty_last,
            ..
        }) = note
        else {
            panic!("{note:?}");
        };
        assert_eq!((row.uid, row.content), (uid, Content::Parts(3)));
        assert_eq!((u128::from(part.number), part.start), (number, start));
        assert_eq!(detail.is_some(), has_detail);
        assert_eq!(empty_last.map(|last| last.number), has_last.then_some(3));
    }
}

#[test]
fn long_details_are_left_to_the_headers() {
    let row = VersionRow {
        uid: VersionUid(u128::MAX),
        size: u64::MAX,
        modified: u64::MAX,
        etag: ETag {
            md5: [255; 16],
            parts: u16::MAX,
        },
        class: u16::MAX,
        content: Content::Blob(written(u128::MAX, u64::MAX).blob),
        checksum: None,
        null: true,
        has_detail: true,
    };
    let note = |bytes| NotePayload::Version {
        incarnation: shardgate_wire::BucketIncarnation(u64::MAX),
        key: "\u{10ffff}".repeat(256),
        class: "C".repeat(64),
        row: row.clone(),
        detail: Some(detail(bytes)),
        part: None,
        empty_last: None,
    };
    for (bytes, kept) in [(100, true), (1100, false), (16_000, false)] {
        let encoded = note(bytes).encode();
        assert!(encoded.len() <= MAX_NOTE_BYTES);
        let Ok(NotePayload::Version { detail, .. }) = NotePayload::decode(&encoded) else {
            panic!("another note");
        };
        assert_eq!(detail.is_some(), kept, "{bytes}");
    }
}

#[tokio::test]
async fn a_row_stays_until_every_disk_has_it() {
    let (catalog, bucket) = catalog().await;
    for id in 1..=5 {
        put(&catalog, &bucket, "key", id).await;
    }
    let page = catalog.waiting_notes(None, 100).await.unwrap();
    // The first is the group's.
    let places: Vec<NotePlace> = page.rows[1..].iter().map(|row| row.place).collect();
    let told = |of: [Option<usize>; 2]| {
        let place = |at: Option<usize>| at.map(|at| places[at]);
        BTreeMap::from([(DiskId(1), place(of[0])), (DiskId(2), place(of[1]))])
    };
    let record = async |of| catalog.record_noted(&told(of), &[]).await.unwrap();
    assert_eq!(record([Some(4), None]).await, 0, "one was told nothing");
    assert_eq!(waiting(&catalog).await, [1, 2, 3, 4, 5]);
    assert_eq!(record([Some(4), Some(1)]).await, 3);
    assert_eq!(waiting(&catalog).await, [3, 4, 5]);
    let noted = catalog.noted().await.unwrap();
    let expected = BTreeMap::from([(DiskId(1), places[4]), (DiskId(2), places[1])]);
    assert_eq!(noted, expected);
    // The second is lost for good: the first alone counts.
    let left = BTreeMap::from([(DiskId(1), Some(places[4]))]);
    assert_eq!(catalog.record_noted(&left, &[DiskId(2)]).await, Ok(3));
    assert_eq!(waiting(&catalog).await, [] as [u128; 0]);
    assert_eq!(catalog.noted().await.unwrap().len(), 1);
    put(&catalog, &bucket, "key", 6).await;
    assert_eq!(waiting(&catalog).await, [6]);
}

async fn page_of(catalog: &Catalog, after: Option<NotePlace>, limit: usize) -> WaitingNotes {
    catalog.waiting_notes(after, limit).await.unwrap()
}

#[tokio::test]
async fn a_page_vouches_for_whole_commits_only() {
    let (catalog, bucket) = catalog().await;
    put(&catalog, &bucket, "key", 1).await;
    let first = catalog.committed();
    let group = page_of(&catalog, None, 1).await.last();
    let mut draft = Draft::new();
    for id in 2..=4 {
        draft.note(&written(id, 1).blob);
    }
    catalog.commit(draft).await.unwrap();
    let page = async |after, limit| page_of(&catalog, after, limit).await;
    let two = page(group, 2).await;
    assert_eq!((two.through, two.more), (first, true));
    let three = page(two.last(), 2).await;
    assert_eq!((three.through, three.more), (first, true));
    let rest = page(three.last(), 2).await;
    assert_eq!((rest.through, rest.more), (catalog.committed(), false));
    assert_eq!(rest.rows, []);
}

#[tokio::test]
async fn damaged_rows_are_shown_and_pass() {
    let (catalog, bucket) = catalog().await;
    put(&catalog, &bucket, "key", 1).await;
    let place = page_of(&catalog, None, 2).await.last().unwrap();
    let mut draft = Draft::new();
    let key = keys::note(place.commit, place.index);
    draft.put_raw(key, Bytes::from_static(b"\xFFspoilt"));
    catalog.commit(draft).await.unwrap();
    let page = page_of(&catalog, None, 10).await;
    assert_eq!((page.rows.len(), page.damaged.len()), (1, 1));
    assert_eq!(page.last(), Some(place));
    let told = BTreeMap::from([(DiskId(1), Some(place))]);
    assert_eq!(catalog.record_noted(&told, &[]).await, Ok(2));
}

/// What a publication costs more: every byte of it is in the journal, on
/// several disks.
#[tokio::test]
async fn a_queued_note_adds_little_to_a_commit() {
    let engine = std::sync::Arc::new(crate::engine::MemoryEngine::new());
    let (catalog, bucket) = catalog_over(engine.clone()).await;
    put(
        &catalog,
        &bucket,
        "photos/2026/11/26/picture.jpg",
        u128::MAX >> 1,
    )
    .await;
    let (_, changes) = engine.commits().pop().expect("the publication");
    let bytes =
        |(key, value): &crate::engine::Change| 9 + key.len() + value.as_ref().map_or(0, Bytes::len);
    let of_note = |change: &&crate::engine::Change| change.0[0] == space::NOTE;
    let all: usize = changes.iter().map(bytes).sum();
    let note: usize = changes.iter().filter(of_note).map(bytes).sum();
    println!("{note} of {all} bytes");
    assert!((30..=48).contains(&note), "{note}");
    assert!(note * 5 < all, "{note} of {all}");
}

/// What notes cost a write: no sync, for nothing of it waits, and these bytes
/// of its commit.
#[tokio::test]
async fn a_queued_note_is_small_beside_its_commit() {
    let engine = std::sync::Arc::new(crate::engine::MemoryEngine::new());
    let (catalog, bucket) = catalog_over(engine.clone()).await;
    put(&catalog, &bucket, "a/key/of/usual/length.jpg", 7).await;
    let (_, changes) = engine.commits().pop().unwrap();
    let bytes = |of_notes: bool| -> usize {
        let of = changes
            .iter()
            .filter(|(key, _)| !of_notes || key[0] == space::NOTE);
        of.map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len))
            .sum()
    };
    let (note, all) = (bytes(true), bytes(false));
    println!("of a commit of {all} bytes {note} are for the note");
    assert!(note > 0 && note <= 50 && note * 6 <= all, "{note} of {all}");
}

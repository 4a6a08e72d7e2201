//! Rows for the tests: everything that a caller would have made.

use shardgate_catalog::model::{
    BlobRef, CondemnReason, CondemnedRow, Content, DetailRow, ETag, GroupRow, GroupState,
    UploadPartRow, UploadRow, VersionRow,
};
use shardgate_catalog::{
    BucketRef, Catalog, CompleteFinish, CompletePart, CompleteRequest, Publish, PublishBody,
    WriteCondition, WrittenBlob,
};
use shardgate_wire::{
    BlobId, BlobLayout, BucketIncarnation, DiskId, Generation, GroupId, Medium, VersionUid,
};

pub const LAYOUT: BlobLayout = BlobLayout { data: 2, parity: 1 };
pub const GROUP: GroupId = GroupId(1);

pub fn group(generation: u32) -> GroupRow {
    GroupRow {
        id: GROUP,
        generation: Generation(generation),
        data: 2,
        parity: 1,
        medium: Medium::Flash,
        slots: vec![DiskId(1), DiskId(2), DiskId(3)],
        state: GroupState::Open,
        narrow: false,
        slot_bytes: 0,
    }
}

/// A catalog with one group and one bucket.
pub async fn furnish(catalog: &Catalog) -> BucketRef {
    catalog.put_group(&group(1), None).await.unwrap();
    let row = catalog.create_bucket("b", "owner", 1).await.unwrap();
    BucketRef {
        name: "b".to_owned(),
        incarnation: row.incarnation,
    }
}

pub fn bucket(name: &str, incarnation: BucketIncarnation) -> BucketRef {
    BucketRef {
        name: name.to_owned(),
        incarnation,
    }
}

pub fn etag(n: u64) -> ETag {
    let mut md5 = [0; 16];
    md5[8..].copy_from_slice(&n.to_be_bytes());
    ETag { md5, parts: 0 }
}

pub fn detail(full: bool) -> DetailRow {
    DetailRow {
        content_type: full.then(|| "text/plain".to_owned()),
        ..DetailRow::default()
    }
}

pub fn blob(id: u128, len: u64) -> BlobRef {
    BlobRef {
        group: GROUP,
        blob: BlobId(id),
        layout: LAYOUT,
        len,
    }
}

pub fn written(id: u128, len: u64) -> WrittenBlob {
    WrittenBlob {
        blob: blob(id, len),
        generation: Generation(1),
        owed_slots: vec![],
        lowest_in_flight: BlobId(id),
    }
}

pub fn condemned(blob: BlobRef) -> CondemnedRow {
    CondemnedRow {
        group: blob.group,
        blob: blob.blob,
        layout: blob.layout,
        reason: CondemnReason::NeverPublished,
    }
}

/// An object whose uid, ETag and blob all follow from `n`.
pub fn publish(bucket: &BucketRef, key: &str, n: u64, body: PublishBody) -> Publish {
    let size = match &body {
        PublishBody::Inline(bytes) => bytes.len() as u64,
        PublishBody::Blob(written) => written.blob.len,
    };
    Publish {
        bucket: bucket.clone(),
        key: key.to_owned(),
        row: VersionRow {
            uid: VersionUid(n.into()),
            size,
            modified: n,
            etag: etag(n),
            class: 0,
            content: Content::Inline,
            checksum: None,
            null: true,
            has_detail: false,
        },
        detail: DetailRow::default(),
        body,
        condition: WriteCondition::None,
    }
}

pub fn upload(n: u64, with_detail: bool) -> UploadRow {
    UploadRow {
        uid: VersionUid(n.into()),
        initiated: n,
        owner: "owner".to_owned(),
        class: 0,
        detail: detail(with_detail),
        checksum: None,
        group: Some(GROUP),
    }
}

pub fn part(number: u16, n: u64, len: u64) -> UploadPartRow {
    UploadPartRow {
        number,
        blob: None,
        len,
        md5: etag(n).md5,
        checksum: None,
        modified: n,
    }
}

pub fn complete(
    bucket: &BucketRef,
    key: &str,
    uid: VersionUid,
    parts: Vec<CompletePart>,
) -> CompleteRequest {
    CompleteRequest {
        bucket: bucket.clone(),
        key: key.to_owned(),
        uid,
        parts,
        condition: WriteCondition::None,
        now: 1,
    }
}

/// An ETag that tells the parts.
pub fn finish(parts: &[UploadPartRow]) -> CompleteFinish {
    let mut etag = parts[0].md5;
    for part in &parts[1..] {
        etag.iter_mut().zip(part.md5).for_each(|(a, b)| *a ^= b);
    }
    CompleteFinish {
        etag: ETag {
            md5: etag,
            parts: u16::try_from(parts.len()).unwrap(),
        },
        checksum: None,
    }
}

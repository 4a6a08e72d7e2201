//! The invariants that hold of every catalog at rest, whatever was done to it.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_catalog::engine::{Entry, KeyRange, Scan};
use shardgate_catalog::model::{BlobState, BucketState, Content, VersionRow};
use shardgate_catalog::{Catalog, ListEntry, ListQuery, UploadEntry, UploadsQuery};
use shardgate_wire::{BlobId, BucketIncarnation, VersionUid};

use super::build::GROUP;

/// Who names a blob: incarnation, key, version or upload, part.
type Owner = (BucketIncarnation, String, VersionUid, u16);

/// What was found on the way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub objects: BTreeMap<(String, String), VersionRow>,
    pub named: BTreeMap<BlobId, Owner>,
    pub condemned: BTreeSet<BlobId>,
    details: usize,
    inline: usize,
    parts: usize,
    upload_parts: usize,
    uploads: usize,
}

impl Found {
    fn name(&mut self, blob: BlobId, owner: Owner) {
        let before = self.named.insert(blob, owner);
        assert_eq!(before, None, "{blob} has two owners");
    }
}

/// Panics if an invariant is broken.
pub async fn check(catalog: &Catalog) -> Found {
    let mut found = Found::default();
    for bucket in catalog.list_buckets(None, 1000).await.unwrap() {
        assert_eq!(bucket.row.state, BucketState::Active, "{}", bucket.name);
        let incarnation = bucket.row.incarnation;
        walk_objects(catalog, &bucket.name, incarnation, &mut found).await;
        walk_uploads(catalog, incarnation, &mut found).await;
    }
    let mut queue = catalog.condemned(None, 10_000).await.unwrap();
    assert!(queue.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
    for row in queue.drain(..) {
        let new = found.condemned.insert(row.row.blob);
        assert!(new, "{} is condemned twice", row.row.blob);
    }
    let mut owned = BTreeMap::new();
    for (blob, state) in catalog.blobs(GROUP, None, 10_000).await.unwrap() {
        match state {
            BlobState::Owned(row) => {
                assert!(!found.condemned.contains(&blob), "{blob} is both");
                owned.insert(blob, (row.incarnation, row.key, row.uid, row.part));
            }
            BlobState::NeverPublished => assert!(found.condemned.contains(&blob)),
            BlobState::Checkpoint(_) => panic!("{blob}: no checkpoint is taken here"),
        }
    }
    assert_eq!(owned, found.named, "blob rows and what names blobs");
    nothing_is_left_behind(catalog, &found).await;
    found
}

async fn walk_objects(
    catalog: &Catalog,
    name: &str,
    incarnation: BucketIncarnation,
    found: &mut Found,
) {
    let query = ListQuery {
        limit: 10_000,
        ..ListQuery::default()
    };
    let page = catalog.list_objects(incarnation, &query).await.unwrap();
    for entry in page.entries {
        let ListEntry::Object(key, row) = entry else {
            panic!("no delimiter was given");
        };
        let read = catalog.read_object(incarnation, &key).await.unwrap();
        assert_eq!(read.row, row);
        assert_eq!(read.detail.is_some(), row.has_detail);
        found.details += usize::from(row.has_detail);
        match row.content {
            Content::Inline => {
                found.inline += usize::from(row.size > 0);
                assert_eq!(read.inline.unwrap().len() as u64, row.size);
            }
            Content::Blob(blob) => {
                found.name(blob.blob, (incarnation, key.clone(), row.uid, 0));
            }
            Content::Parts(count) => {
                let parts = catalog.parts(row.uid, 0, 20_000).await.unwrap();
                assert_eq!(parts.len(), usize::from(count));
                found.parts += parts.len();
                let mut end = 0;
                for part in &parts {
                    assert_eq!(part.start, end);
                    end += part.len;
                    if let Some(blob) = part.blob {
                        let owner = (incarnation, key.clone(), row.uid, part.number);
                        found.name(blob.blob, owner);
                    }
                }
                assert_eq!(end, row.size);
            }
        }
        found.objects.insert((name.to_owned(), key), row);
    }
}

async fn walk_uploads(catalog: &Catalog, incarnation: BucketIncarnation, found: &mut Found) {
    let query = UploadsQuery {
        limit: 10_000,
        ..UploadsQuery::default()
    };
    let page = catalog.list_uploads(incarnation, &query).await.unwrap();
    for entry in page.entries {
        let UploadEntry::Upload(key, row) = entry else {
            panic!("no delimiter was given");
        };
        found.uploads += 1;
        let parts = catalog
            .list_parts(incarnation, &key, row.uid, 0, 20_000)
            .await;
        for part in parts.unwrap() {
            found.upload_parts += 1;
            if let Some(blob) = part.blob {
                found.name(blob.blob, (incarnation, key.clone(), row.uid, part.number));
            }
        }
    }
}

/// Rows by their first byte (docs/catalog.md): none that nothing points to.
async fn nothing_is_left_behind(catalog: &Catalog, found: &Found) {
    let view = catalog.snapshot().await.unwrap();
    let expected = [
        (0x10, found.objects.len()),
        (0x11, 0),
        (0x12, found.details),
        (0x13, found.inline),
        (0x14, found.parts),
        (0x16, found.uploads),
        (0x17, found.upload_parts),
        (0x21, found.condemned.len()),
    ];
    for (space, count) in expected {
        let scan = Scan::first(KeyRange::prefix(vec![space]), 100_000);
        let rows: Vec<Entry> = view.scan(scan).await.unwrap();
        assert_eq!(rows.len(), count, "rows of space {space:#x}");
    }
}

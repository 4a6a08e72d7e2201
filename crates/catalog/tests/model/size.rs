//! How much an object takes: 500 million of them within 200 GB, before
//! compression.

use shardgate_catalog::engine::{Entry, KeyRange, Scan};
use shardgate_catalog::model::{ChecksumAlgorithm, ChecksumKind, StoredChecksum};
use shardgate_catalog::{Catalog, PublishBody};
use shardgate_wire::{BlobId, VersionUid};

use super::build::{self, furnish, publish};

const BYTES_PER_OBJECT: usize = 200_000_000_000 / 500_000_000;

async fn bytes(catalog: &Catalog) -> usize {
    let view = catalog.snapshot().await.unwrap();
    let all = KeyRange {
        start: vec![0x02].into(),
        end: None,
    };
    let entries = view.scan(Scan::first(all, usize::MAX)).await.unwrap();
    let rows = entries.into_iter().filter_map(Entry::into_row);
    rows.map(|(key, value)| key.len() + value.len()).sum()
}

#[tokio::test]
async fn an_object_takes_little() {
    let catalog = Catalog::in_memory();
    let bucket = furnish(&catalog).await;
    let before = bytes(&catalog).await;
    let key = "downloads/2026/11/some-file-of-a-usual-name-1234567.tar.gz";
    let mut written = build::written(0, 700 << 20);
    written.blob.blob = BlobId(u128::MAX);
    let mut request = publish(&bucket, key, 1_700_000_000_000, PublishBody::Blob(written));
    request.row.uid = VersionUid(u128::MAX);
    request.row.checksum = Some(StoredChecksum {
        algorithm: ChecksumAlgorithm::Crc64Nvme,
        kind: ChecksumKind::FullObject,
        digest: vec![7; 8],
    });
    request.detail.content_type = Some("application/octet-stream".to_owned());
    catalog.publish(request).await.unwrap();
    let took = bytes(&catalog).await - before;
    assert!(took <= BYTES_PER_OBJECT, "{took} bytes");
}

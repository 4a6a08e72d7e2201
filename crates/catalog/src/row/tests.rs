//! Damaged bytes are refused, never a panic, never another kind of absence.

use proptest::prelude::*;
use shardgate_wire::{BlobId, BlobLayout, GroupId, VersionUid};

use super::*;
use crate::model::{
    BlobRef, ChecksumAlgorithm, ChecksumKind, Content, ETag, StoredChecksum, VersionRow,
};

fn version() -> VersionRow {
    VersionRow {
        uid: VersionUid(0x0102),
        size: 300,
        modified: 1_700_000_000_000,
        etag: ETag {
            md5: [7; 16],
            parts: 0,
        },
        class: 1,
        content: Content::Blob(BlobRef {
            group: GroupId(9),
            blob: BlobId(0x0A0B),
            layout: BlobLayout { data: 4, parity: 2 },
            len: 300,
        }),
        checksum: Some(StoredChecksum {
            algorithm: ChecksumAlgorithm::Crc32c,
            kind: ChecksumKind::FullObject,
            digest: vec![1, 2, 3, 4],
        }),
        null: true,
        has_detail: false,
    }
}

/// The format on disk. A change of these bytes needs a new version, and this
/// one must stay readable.
#[test]
fn version_rows_of_format_1_are_read() {
    let stored = hex(concat!(
        "01",           // format
        "8202",         // uid
        "ac02",         // size
        "80d095ffbc31", // modified
        "07070707070707070707070707070707",
        "00", // parts
        "01", // class
        "01",
        "09",
        "8b14",
        "04",
        "02",
        "ac02", // one blob
        "01",
        "01",
        "00",
        "04",
        "01020304", // checksum
        "01",
        "00" // null, no detail
    ));
    assert_eq!(encode(&version()), stored);
    assert_eq!(decode(&stored), Ok(version()));
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// A listing's row stays as small as 500 million of them need.
#[test]
fn version_rows_are_small() {
    let mut row = version();
    row.uid = VersionUid(u128::MAX);
    row.size = 5 << 40;
    assert!(encode(&row).len() < 120, "{}", encode(&row).len());
}

#[test]
fn cut_lengthened_and_unknown_rows_are_damaged() {
    let bytes = encode(&version());
    for len in 0..bytes.len() {
        assert!(decode::<VersionRow>(&bytes[..len]).is_err(), "{len}");
    }
    let mut longer = bytes.to_vec();
    longer.push(0);
    assert!(decode::<VersionRow>(&longer).is_err());
    let mut newer = bytes.to_vec();
    newer[0] = 2;
    let error = decode::<VersionRow>(&newer).unwrap_err();
    assert_eq!(error.to_string(), "damaged version row: unknown format 2");
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = bytes;
        for version in [None, Some(1)] {
            if let (Some(version), Some(first)) = (version, bytes.first_mut()) {
                *first = version;
            }
            let _ = decode::<VersionRow>(&bytes);
            let _ = decode::<UploadRow>(&bytes);
            let _ = decode::<BlobState>(&bytes);
            let _ = decode::<GroupRow>(&bytes);
            let _ = decode::<DetailRow>(&bytes);
        }
    }
}

//! Round trips, and bytes that are not what they should be.

use proptest::prelude::*;
use shardgate_wire::checksum::block_crcs;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{BlobId, CommitNumber, GroupId};
use shardgate_wire::store::ShardEnd;

use super::*;

const SALT: u64 = 0x1234_5678_9abc_def0;

fn heading() -> Heading {
    let identity = sample::identity();
    Heading {
        cluster: identity.cluster,
        disk: identity.disk,
        group: sample::GROUP,
        sequence: 9,
        salt: SALT,
        size: 1 << 20,
    }
}

fn record(offset: u64, len: usize, extent: Option<u64>) -> NewRecord {
    let header = sample::header(&sample::context(3), 77);
    let end = ShardEnd {
        shard_len: len as u64,
        blob_len: 4 * len as u64,
    };
    let bytes = sample::bytes(1, len);
    let crcs = block_crcs(&bytes);
    let body = match extent {
        Some(at) => Body::Extent { at, zeroes: 3 },
        None => Body::Follows(&bytes),
    };
    NewRecord::shard(SALT, offset, 512, &header, end, &crcs, body)
}

fn entries(count: u32) -> Vec<Entry> {
    (0..count)
        .map(|at| Entry {
            blob: BlobId(u128::from(at / 2) << 90),
            index: (at % 2) as u8,
            at,
            span: 64 * at,
            besides: 4096 * (at % 3),
        })
        .collect()
}

fn log_entries() -> Vec<LogEntry> {
    vec![
        LogEntry::Next { volume: 7 },
        LogEntry::Dead {
            volume: 3,
            bytes: 999,
            at: vec![1, 5, 70_000],
        },
        LogEntry::Begun,
        LogEntry::Delete {
            volume: 4,
            offset: 8192,
            bytes: 640,
        },
        LogEntry::Adopt {
            group: GroupId(5),
            volume: 8,
            of: vec![1, 2],
        },
        LogEntry::Note {
            group: GroupId(5),
            blob: BlobId(6),
            commit: CommitNumber(7),
            deleted: true,
            payload: b"a note".to_vec(),
        },
        LogEntry::Forget {
            group: GroupId(5),
            blob: BlobId(6),
        },
        LogEntry::Clean,
    ]
}

#[test]
fn headings_round_trip() {
    assert_eq!(decode_heading(&encode_heading(&heading())), Ok(heading()));
}

#[test]
fn records_round_trip() {
    for (len, offset, extent) in [
        (0, 8192, None),
        (1, 8192, None),
        (200_000, 8192, None),
        (70_000, 4096 * 99 - 512, Some(4096 * 99)),
    ] {
        let record = record(offset, len, extent);
        let head = decode_head(&heading(), offset, &record.meta).unwrap();
        assert_eq!(head, record.head);
        let meta = decode_meta(SALT, offset, &head, &record.meta).unwrap();
        assert_eq!(meta.header, sample::header(&sample::context(3), 77));
        assert_eq!(meta.crcs, block_crcs(&sample::bytes(1, len)));
        let told = meta_len(&meta.header, len as u64);
        assert_eq!(told, record.meta.len() as u64);
        let span = match extent {
            Some(at) => (at + len as u64 - offset).next_multiple_of(RECORD_ALIGN),
            None => (record.meta.len() + len + record.padding()) as u64,
        };
        assert_eq!(head.span(offset), span);
        assert_eq!(span % RECORD_ALIGN, 0);
        let key = header_at(&record.meta).unwrap();
        assert_eq!(key, sample::key(77));
    }
}

#[test]
fn every_flip_and_every_cut_of_a_record_is_noticed() {
    let offset = 8192;
    let record = record(offset, 100, None).meta;
    let whole = |bytes: &[u8]| {
        let head = decode_head(&heading(), offset, bytes);
        head.is_some_and(|head| decode_meta(SALT, offset, &head, bytes).is_ok())
    };
    assert!(whole(&record));
    for at in 0..record.len() {
        assert!(!whole(&record[..at]), "cut to {at}");
        let mut flipped = record.clone();
        flipped[at] ^= 0x20;
        assert!(!whole(&flipped), "byte {at}");
    }
}

/// Each checksum by itself, of a record that lies in an extent too.
#[test]
fn both_checksums_of_a_record_notice_flips() {
    for (at, extent) in [(8192, None), (4096 * 99 - 512, Some(4096 * 99))] {
        let record = record(at, 100, extent);
        for byte in 0..record.meta.len() {
            let mut flipped = record.meta.clone();
            flipped[byte] ^= 0x10;
            let head = decode_head(&heading(), at, &flipped);
            assert_eq!(head.is_none(), byte < HEAD_BYTES, "byte {byte}");
            let meta = decode_meta(SALT, at, &record.head, &flipped);
            assert!(meta.is_err(), "byte {byte}");
        }
    }
}

#[test]
fn a_link_is_of_one_record_and_every_flip_is_noticed() {
    const DATA_AT: u64 = 4096 * 99;
    let (at, place) = (DATA_AT - 512, 8192 + 448);
    let record = record(at, 70_000, Some(DATA_AT));
    let link = record.link(SALT, place);
    let head = decode_head(&heading(), place, &link.meta).unwrap();
    assert_eq!(head, link.head);
    assert!(is_linked(&head, at, &record.head, &record.meta));
    let (span, padding) = (head.span(place), link.padding() as u64);
    assert_eq!(
        (span, link.meta.len() as u64 + padding),
        (LINK_SPAN, LINK_SPAN)
    );
    let entry = head.entry(place);
    assert_eq!(entry.offset(), at);
    assert_eq!(u64::from(entry.span), record.head.span(at));
    // The page with its head, eighteen with its bytes, the link.
    assert_eq!(entry.bytes(), 19 * 4096 + LINK_SPAN);
    for byte in 0..link.meta.len() {
        let mut flipped = link.meta.clone();
        flipped[byte] ^= 2;
        assert_eq!(decode_head(&heading(), place, &flipped), None, "{byte}");
    }
    // Another record that is whole, at the same place.
    let mut other = record.clone();
    other.head.end.blob_len += 1;
    let header = sample::header(&sample::context(3), 77);
    let crcs = block_crcs(&sample::bytes(1, 70_000));
    let body = Body::Extent {
        at: DATA_AT,
        zeroes: 3,
    };
    let other = NewRecord::shard(SALT, at, 512, &header, other.head.end, &crcs, body);
    assert!(decode_head(&heading(), at, &other.meta).is_some());
    assert!(!is_linked(&head, at, &other.head, &other.meta));
}

#[test]
fn a_record_counts_at_its_place_in_its_file_alone() {
    let record = record(8192, 100, None).meta;
    assert!(decode_head(&heading(), 8192, &record).is_some());
    assert_eq!(decode_head(&heading(), 8192 + 64, &record), None);
    let other = Heading {
        salt: SALT ^ 1,
        ..heading()
    };
    assert_eq!(decode_head(&other, 8192, &record), None);
}

#[test]
fn directories_round_trip_and_notice_flips() {
    for count in [0, 1, 126, 127, 128, 1000] {
        let entries = entries(count);
        let ends = Ends {
            tail: 1 << 19,
            extents_from: 1 << 20,
            unknown: 2,
            recorded: 77,
        };
        let directory = encode_directory(heading(), ends, &entries);
        let head = decode_directory_head(&directory.bytes).unwrap();
        assert_eq!(head, directory.head);
        let mut read = Vec::new();
        let from = usize::try_from(head.pages_at).unwrap();
        for (at, page) in directory.bytes[from..].chunks(DIRECTORY_PAGE).enumerate() {
            let place = head.pages_at + (at * DIRECTORY_PAGE) as u64;
            read.extend(decode_page(SALT, place, page).unwrap());
            assert!(decode_page(SALT, place + 4096, page).is_err());
            for at in (0..DIRECTORY_PAGE).step_by(97) {
                let mut flipped = page.to_vec();
                flipped[at] ^= 1;
                assert!(decode_page(SALT, place, &flipped).is_err(), "byte {at}");
            }
        }
        assert_eq!(read, entries);
        assert_eq!(head.fence.len(), (count as usize).div_ceil(127));
    }
}

#[test]
fn batches_round_trip_and_notice_flips_and_cuts() {
    let bytes = encode_batch(SALT, 8192, 512, &log_entries());
    let batch = decode_batch(SALT, 8192, &bytes).unwrap().unwrap();
    assert_eq!(batch.entries, log_entries());
    assert_eq!((batch.durable_to, batch.span), (512, bytes.len() as u64));
    assert_eq!(decode_batch(SALT, 8192 + 512, &bytes), Ok(None));
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for at in 0..used {
        assert_eq!(
            decode_batch(SALT, 8192, &bytes[..at]),
            Ok(None),
            "cut to {at}"
        );
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        assert_eq!(decode_batch(SALT, 8192, &flipped), Ok(None), "byte {at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_head(&heading(), 0, &bytes);
        let _ = header_at(&bytes);
        let _ = decode_batch(SALT, 0, &bytes);
        let _ = decode_directory_head(&bytes);
        let _ = decode_heading(&bytes);
    }

    /// With right checksums and any content.
    #[test]
    fn any_record_with_right_checksums_is_read_or_refused(
        mut head in proptest::collection::vec(any::<u8>(), 68),
        kind in 0u8..8,
        meta_len in prop_oneof![60u32..400, any::<u32>()],
        rest in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        head[..8].copy_from_slice(b"SG.vrec\0");
        head[8..10].copy_from_slice(&1u16.to_be_bytes());
        head[10] = kind;
        head[12..16].copy_from_slice(&meta_len.to_be_bytes());
        let sum = keyed_sum(SALT, 64, &head);
        head.extend(sum.to_be_bytes());
        if let Some(found) = decode_head(&heading(), 64, &head) {
            prop_assert!(found.span(64) >= 64);
            let mut bytes = head;
            bytes.extend(rest);
            bytes.resize((found.meta_len as usize).clamp(76, 1 << 20) - 4, 0);
            let sum = keyed_sum(SALT, 64, &bytes);
            bytes.extend(sum.to_be_bytes());
            let _ = decode_meta(SALT, 64, &found, &bytes);
        }
    }
}

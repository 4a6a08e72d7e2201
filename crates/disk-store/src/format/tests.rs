//! Round trips, and bytes that are not what they should be.

use proptest::prelude::*;
use shardgate_wire::checksum::CHECK_BLOCK;
use shardgate_wire::conformance::sample;
use shardgate_wire::ids::{CommitNumber, LineageId};
use shardgate_wire::store::ShardEnd;

use super::*;

fn root() -> Root {
    Root {
        identity: sample::identity(),
        sequence: 7,
        map_number: 3,
        map: b"a pool map".to_vec(),
        epoch: sample::context(5).epoch,
        checkpoint: b"a checkpoint root".to_vec(),
        told: vec![
            (LineageId(2), CommitNumber(9)),
            (LineageId(1), CommitNumber(80)),
        ],
    }
}

fn slots() -> Slots {
    Slots {
        disk: sample::identity().disk,
        sequence: 4,
        table: [sample::slot()].into_iter().collect(),
    }
}

fn footer(shard_len: u64) -> Footer {
    let blocks = u32::try_from(shard_len.div_ceil(CHECK_BLOCK as u64)).unwrap();
    Footer {
        key: sample::key(1 << 100),
        end: ShardEnd {
            shard_len,
            blob_len: 3 * shard_len,
        },
        data_offset: 4096,
        header_crc: 0x1234_5678,
        crcs: (0..blocks).collect(),
    }
}

/// A file of zeroes with the footer at its end.
fn file(footer: &Footer) -> Vec<u8> {
    let data_end = u64::from(footer.data_offset) + footer.end.shard_len;
    let mut file = vec![0; usize::try_from(data_end).unwrap()];
    file.extend(footer.encode());
    file
}

#[test]
fn records_round_trip() {
    let identity = sample::identity();
    assert_eq!(decode_identity(&encode_identity(&identity)), Ok(identity));
    assert_eq!(decode_root(&encode_root(&root())), Ok(root()));
    assert_eq!(decode_slots(&encode_slots(&slots())), Ok(slots()));
    let mut header = sample::header(&sample::context(3), 77);
    for blob_len in [None, Some(0), Some(u64::MAX)] {
        header.blob_len = blob_len;
        let record = encode_header(&header);
        assert_eq!(header_record_len(&record[..16]), Some(record.len()));
        let (read, crc) = decode_header(&record).unwrap();
        assert_eq!(read, header);
        assert_eq!(crc.to_be_bytes(), record[record.len() - 4..]);
    }
    for shard_len in [0, 1, CHECK_BLOCK as u64, 5 * CHECK_BLOCK as u64 + 1] {
        let footer = footer(shard_len);
        let file = file(&footer);
        assert_eq!(Footer::claimed_len(&file), Ok(footer_bytes(shard_len)));
        assert_eq!(Footer::decode(&file, file.len() as u64), Ok(footer));
    }
}

#[test]
fn what_follows_a_record_is_ignored() {
    let mut bytes = encode_root(&root());
    bytes.extend([0xaa; 500]);
    assert_eq!(decode_root(&bytes), Ok(root()));
}

#[test]
fn every_flip_and_every_cut_of_a_record_is_noticed() {
    type Decode = fn(&[u8]) -> bool;
    let shard = file(&footer(100));
    let header = encode_header(&sample::header(&sample::context(3), 77));
    let records: [(Vec<u8>, Decode); 4] = [
        (encode_identity(&sample::identity()), |b| {
            decode_identity(b).is_ok()
        }),
        (encode_root(&root()), |b| decode_root(b).is_ok()),
        (encode_slots(&slots()), |b| decode_slots(b).is_ok()),
        (header, |b| decode_header(b).is_ok()),
    ];
    for (record, decodes) in records {
        assert!(decodes(&record));
        for at in 0..record.len() {
            assert!(!decodes(&record[..at]), "cut to {at}");
            let mut flipped = record.clone();
            flipped[at] ^= 0x40;
            assert!(!decodes(&flipped), "byte {at}");
        }
    }
    for at in 4096 + 100..shard.len() {
        let mut flipped = shard.clone();
        flipped[at] ^= 0x40;
        assert!(Footer::decode(&flipped, shard.len() as u64).is_err());
    }
}

#[test]
fn a_footer_that_claims_more_than_its_file_is_refused() {
    let whole = file(&footer(1000));
    let len = footer_bytes(1000);
    let tail = &whole[whole.len() - len..];
    assert!(Footer::decode(tail, whole.len() as u64).is_ok());
    assert!(Footer::decode(tail, whole.len() as u64 - 1).is_err());
}

#[test]
fn a_later_version_is_told_from_damage() {
    let mut record = encode_root(&root());
    record[9] = 2;
    assert!(matches!(
        decode_root(&record),
        Err(FormatError::Damaged { .. })
    ));
    let body = record.len() - 4;
    let crc = crc32c(&record[..body]);
    record[body..].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(decode_root(&record), Err(FormatError::Version { found: 2 }));
}

proptest! {
    /// Whole records with any payload: refused or read, never a panic.
    #[test]
    fn any_payload_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        for magic in [b"SG.ident", b"SG.root\0", b"SG.slots", b"SG.shard"] {
            let record = frame(magic, &payload);
            let _ = decode_identity(&record);
            let _ = decode_root(&record);
            let _ = decode_slots(&record);
            let _ = decode_header(&record);
        }
    }

    /// Trailers with a right checksum and any content.
    #[test]
    fn any_trailer_is_read_or_refused(
        mut trailer in proptest::collection::vec(any::<u8>(), 92..300),
        version in prop_oneof![Just(VERSION), any::<u16>()],
        shard_len in prop_oneof![0u64..200_000, any::<u64>()],
    ) {
        let at = trailer.len() - 92;
        trailer[at..at + 8].copy_from_slice(b"SG.sfoot");
        trailer[at + 8..at + 10].copy_from_slice(&version.to_be_bytes());
        trailer[at + 16..at + 24].copy_from_slice(&shard_len.to_be_bytes());
        let covered = usize::try_from(shard_len.div_ceil(CHECK_BLOCK as u64)).unwrap_or(0) * 4;
        let from = at.saturating_sub(covered);
        let crc = crc32c(&trailer[from..]);
        trailer.extend(crc.to_be_bytes());
        if let Ok(footer) = Footer::decode(&trailer, 1 << 40) {
            prop_assert_eq!(&footer.encode()[..], &trailer[from..]);
        }
    }
}

//! The format against fixtures, every cut, and every flipped byte.

use super::*;

pub(crate) fn header() -> SegmentHeader {
    SegmentHeader {
        cluster: ClusterId(1),
        lineage: LineageId(2),
        members: vec![DiskId(3), DiskId(4)],
        map_number: 5,
        predecessor: Some(SegmentId {
            epoch: Epoch {
                number: 6,
                instance: InstanceId(7),
            },
            sequence: 8,
        }),
        base: Position {
            number: CommitNumber(9),
            hash: [10; 32],
        },
        checkpoints: vec![Bytes::from_static(b"root")],
    }
}

fn batch(kind: Kind, payloads: &[&'static [u8]]) -> Batch {
    let mut last = header().base;
    for payload in payloads {
        last = last.next(payload);
    }
    Batch {
        segment: SegmentId {
            epoch: Epoch {
                number: 11,
                instance: InstanceId(12),
            },
            sequence: 13,
        },
        offset: 8192,
        kind,
        before: CommitNumber(9),
        acknowledged: CommitNumber(9),
        last,
        payloads: payloads.iter().map(|p| Bytes::from_static(p)).collect(),
    }
}

fn all() -> Vec<Batch> {
    vec![
        batch(Kind::First(header()), &[b"one", b""]),
        batch(
            Kind::First(SegmentHeader {
                predecessor: None,
                checkpoints: vec![],
                ..header()
            }),
            &[],
        ),
        batch(Kind::Next, &[&[7; 5000], b"x"]),
        batch(Kind::Closing, &[]),
    ]
}

#[test]
fn batches_come_back_and_take_whole_pages() {
    for batch in all() {
        let bytes = batch.encode();
        assert_eq!(bytes.len() % JOURNAL_PAGE, 0);
        assert_eq!(claimed_len(&bytes), Ok(bytes.len()));
        assert_eq!(Batch::decode(&bytes).as_ref(), Ok(&batch));
        let longer = [&bytes[..], &[9; 100]].concat();
        assert_eq!(Batch::decode(&Bytes::from(longer)), Ok(batch));
    }
}

#[test]
fn no_cut_and_no_flipped_byte_passes() {
    for batch in all() {
        let bytes = batch.encode();
        for len in (0..bytes.len()).step_by(97) {
            assert!(Batch::decode(&bytes.slice(..len)).is_err(), "{len}");
        }
        let used = HEAD_BYTES + u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize;
        for at in 0..used + CRC_BYTES {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1;
            assert!(Batch::decode(&Bytes::from(flipped)).is_err(), "{at}");
        }
    }
    assert_eq!(
        Batch::decode(&Bytes::from(vec![0; 4096])),
        Err(FormatError::None)
    );
}

#[test]
fn a_later_version_is_told_from_damage() {
    let mut bytes = all()[0].encode().to_vec();
    bytes[9] = 2;
    let found = Batch::decode(&Bytes::from(bytes));
    assert_eq!(found, Err(FormatError::Version { found: 2 }));
}

/// Batches of version 1 as they were first written: never change them.
#[test]
fn fixtures_of_version_1_are_read() {
    for (batch, fixture) in all().into_iter().zip([
        &include_bytes!("../../tests/fixtures/v1-first")[..],
        include_bytes!("../../tests/fixtures/v1-first-of-all"),
        include_bytes!("../../tests/fixtures/v1-next"),
        include_bytes!("../../tests/fixtures/v1-closing"),
    ]) {
        assert_eq!(
            Batch::decode(&Bytes::from_static(fixture)),
            Ok(batch.clone())
        );
        assert_eq!(batch.encode(), fixture);
    }
}

#[test]
fn segments_are_ordered_by_epoch_then_sequence() {
    let id = |number, sequence| SegmentId {
        epoch: Epoch {
            number,
            instance: InstanceId(u128::from(9 - number)),
        },
        sequence,
    };
    assert!(id(1, 9) < id(2, 1));
    assert!(id(2, 1) < id(2, 2));
}

/// The largest commit of the catalog fits behind the largest header.
#[test]
fn the_largest_first_append_fits() {
    let batch = Batch {
        kind: Kind::First(SegmentHeader {
            members: vec![DiskId(1); MAX_MEMBERS],
            checkpoints: vec![Bytes::from(vec![1; MAX_CHECKPOINT_BYTES]); MAX_CHECKPOINTS],
            ..header()
        }),
        payloads: vec![Bytes::from(vec![2; MAX_RECORDS_BYTES - RECORD_BYTES])],
        ..batch(Kind::Closing, &[])
    };
    assert!(batch.encode().len() <= MAX_JOURNAL_APPEND_BYTES);
    const { assert!(MAX_RECORDS_BYTES > 17 << 20) };
}

/// Writes the fixtures; only for a new version.
#[test]
#[ignore = "writes files"]
fn write_fixtures() {
    for (batch, name) in all()
        .into_iter()
        .zip(["first", "first-of-all", "next", "closing"])
    {
        let path = format!("{}/tests/fixtures/v1-{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, batch.encode()).unwrap();
    }
}

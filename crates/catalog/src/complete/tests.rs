//! Which parts a completion accepts.

use super::*;

fn stored(number: u16, len: u64) -> UploadPartRow {
    UploadPartRow {
        number,
        blob: None,
        len,
        md5: [u8::try_from(number).unwrap(); 16],
        checksum: None,
        modified: 0,
    }
}

fn named(number: u16) -> CompletePart {
    CompletePart {
        number,
        md5: [u8::try_from(number).unwrap(); 16],
    }
}

#[test]
fn parts_are_checked() {
    let held = [
        stored(1, MIN_PART_BYTES),
        stored(3, MIN_PART_BYTES - 1),
        stored(7, MIN_PART_BYTES),
        stored(9, 0),
    ];
    let wrong = CompletePart {
        number: 7,
        md5: [0; 16],
    };
    let cases = [
        (vec![named(1)], Ok(vec![1])),
        (vec![named(1), named(7), named(9)], Ok(vec![1, 7, 9])),
        (vec![named(1), named(3)], Ok(vec![1, 3])),
        (vec![named(9)], Ok(vec![9])),
        (vec![], Err(CatalogError::InvalidPart { number: 0 })),
        (vec![named(2)], Err(CatalogError::InvalidPart { number: 2 })),
        (
            vec![named(1), wrong],
            Err(CatalogError::InvalidPart { number: 7 }),
        ),
        (
            vec![named(7), named(1)],
            Err(CatalogError::InvalidPartOrder),
        ),
        (
            vec![named(1), named(1)],
            Err(CatalogError::InvalidPartOrder),
        ),
        (
            vec![named(3), named(7)],
            Err(CatalogError::EntityTooSmall { number: 3 }),
        ),
    ];
    for (parts, expected) in cases {
        let used = used_parts(&held, &parts);
        let numbers = used.map(|used| used.iter().map(|part| part.number).collect::<Vec<_>>());
        assert_eq!(numbers, expected, "{parts:?}");
    }
}

#[test]
fn only_the_same_request_is_a_repeat() {
    let hash = |key: &str, parts: &[CompletePart]| request_hash(key, parts);
    assert_eq!(hash("k", &[named(1)]), hash("k", &[named(1)]));
    assert_ne!(hash("k", &[named(1)]), hash("l", &[named(1)]));
    assert_ne!(hash("k", &[named(1)]), hash("k", &[named(2)]));
    assert_ne!(hash("k", &[named(1)]), hash("k", &[named(1), named(2)]));
}

//! Tests of digests against published values, and of the parts' arithmetic.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const ALL: [ChecksumAlgorithm; 5] = [
    ChecksumAlgorithm::Crc32,
    ChecksumAlgorithm::Crc32c,
    ChecksumAlgorithm::Crc64Nvme,
    ChecksumAlgorithm::Sha1,
    ChecksumAlgorithm::Sha256,
];

fn digest(algorithm: ChecksumAlgorithm, body: &[u8]) -> Vec<u8> {
    let digests = digest_whole(Some(algorithm), &Bytes::copy_from_slice(body));
    digests.checksum.unwrap().digest
}

#[test]
fn check_values() {
    // The catalogue values of the CRCs over "123456789"; FIPS 180 for SHA.
    for (algorithm, expected) in [
        (ChecksumAlgorithm::Crc32, "cbf43926"),
        (ChecksumAlgorithm::Crc32c, "e3069283"),
        (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
        (
            ChecksumAlgorithm::Sha1,
            "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
        ),
        (
            ChecksumAlgorithm::Sha256,
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
        ),
    ] {
        assert_eq!(hex::encode(digest(algorithm, b"123456789")), expected);
    }
    let md5 = digest_whole(None, &Bytes::new()).md5;
    assert_eq!(hex::encode(md5), "d41d8cd98f00b204e9800998ecf8427e");
}

fn request(algorithm: ChecksumAlgorithm, expected: ExpectedDigest) -> Expectations {
    Expectations {
        checksum: Some(ChecksumRequest {
            algorithm,
            expected,
        }),
        ..Expectations::default()
    }
}

#[test]
fn a_body_that_differs_is_refused() {
    let body = Bytes::from_static(b"the body");
    for algorithm in ALL {
        let digests = digest_whole(Some(algorithm), &body);
        let good = digests.checksum.clone().unwrap().digest;
        let mut bad = good.clone();
        bad[0] ^= 1;
        let check = |expected| request(algorithm, expected).check(&digests);
        let trailer =
            |value: Option<Vec<u8>>| ExpectedDigest::Trailer(Arc::new(move || Ok(value.clone())));
        assert!(check(ExpectedDigest::Unknown).is_ok());
        assert!(check(ExpectedDigest::Value(good.clone())).is_ok());
        assert!(check(trailer(Some(good.clone()))).is_ok());
        let mismatch = |result| matches!(result, Err(ObjectError::ChecksumMismatch { .. }));
        assert!(mismatch(check(ExpectedDigest::Value(bad.clone()))));
        assert!(mismatch(check(trailer(Some(bad)))));
        let unusable = |result| matches!(result, Err(ObjectError::BadChecksum { .. }));
        assert!(unusable(check(trailer(None))));
        assert!(unusable(check(ExpectedDigest::Value(good[1..].to_vec()))));
    }
}

#[test]
fn length_and_md5_are_compared() {
    let digests = digest_whole(None, &Bytes::from_static(b"abc"));
    let expect = |len, content_md5| Expectations {
        len,
        content_md5,
        checksum: None,
    };
    assert!(expect(Some(3), Some(digests.md5)).check(&digests).is_ok());
    assert!(matches!(
        expect(Some(4), None).check(&digests),
        Err(ObjectError::IncompleteBody {
            declared: 4,
            received: 3
        })
    ));
    assert!(matches!(
        expect(None, Some([0; 16])).check(&digests),
        Err(ObjectError::BadDigest)
    ));
}

#[test]
fn composite_is_the_digest_of_the_digests() {
    let (one, two) = (
        digest(ChecksumAlgorithm::Sha256, b"1"),
        digest(ChecksumAlgorithm::Sha256, b"2"),
    );
    let parts = [
        PartDigest {
            digest: &one,
            len: 1,
        },
        PartDigest {
            digest: &two,
            len: 1,
        },
    ];
    let found = object_checksum(ChecksumAlgorithm::Sha256, ChecksumKind::Composite, &parts);
    let joined = [one.clone(), two.clone()].concat();
    assert_eq!(
        found.unwrap().digest,
        digest(ChecksumAlgorithm::Sha256, &joined)
    );
    let full = object_checksum(ChecksumAlgorithm::Sha256, ChecksumKind::FullObject, &parts);
    assert_eq!(full, None);
}

#[test]
fn digests_of_another_length_have_no_sum() {
    let parts = [PartDigest {
        digest: &[0; 8],
        len: 1,
    }];
    for kind in [ChecksumKind::Composite, ChecksumKind::FullObject] {
        assert_eq!(
            object_checksum(ChecksumAlgorithm::Crc32, kind, &parts),
            None
        );
    }
}

proptest! {
    #[test]
    fn crcs_of_parts_make_that_of_the_whole(
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6),
    ) {
        for algorithm in &ALL[..3] {
            let digests: Vec<_> = parts.iter().map(|part| digest(*algorithm, part)).collect();
            let known: Vec<_> = digests
                .iter()
                .zip(&parts)
                .map(|(digest, part)| PartDigest { digest, len: part.len() as u64 })
                .collect();
            let sum = object_checksum(*algorithm, ChecksumKind::FullObject, &known).unwrap();
            prop_assert_eq!(sum.digest, digest(*algorithm, &parts.concat()));
        }
    }
}

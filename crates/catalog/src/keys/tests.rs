//! Keys keep the order of what they are made of, and come back.

use proptest::prelude::*;

use super::*;

/// Strings in which escapes, terminators and prefixes of each other meet.
fn name() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("\0"),
        Just("\u{1}"),
        Just("a"),
        Just("/"),
        Just("\u{ff}"),
        Just("\u{10ffff}"),
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn upload_parts_of() -> impl Strategy<Value = (u64, String, u128)> {
    (
        0u64..3,
        name(),
        prop_oneof![Just(0), Just(1 << 64), any::<u128>()],
    )
}

proptest! {
    #[test]
    fn upload_keys_order_and_come_back(a in upload_parts_of(), b in upload_parts_of()) {
        let key = |(incarnation, name, uid): &(u64, String, u128)| {
            upload(BucketIncarnation(*incarnation), name, VersionUid(*uid))
        };
        prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        let (name, uid) = decode_upload(&key(&a)).unwrap();
        prop_assert_eq!((name, uid.0), (a.1, a.2));
    }

    #[test]
    fn the_prefix_of_uploads_holds_exactly_those_of_its_keys(prefix in name(), key in name()) {
        let incarnation = BucketIncarnation(1);
        let head = uploads(incarnation, &prefix);
        let whole = upload(incarnation, &key, VersionUid(5));
        prop_assert_eq!(whole.starts_with(&head), key.starts_with(&prefix));
        let of_key = uploads_of_key(incarnation, &prefix);
        prop_assert_eq!(whole.starts_with(&of_key), key == prefix);
        prop_assert_eq!(decode_upload_prefix(&head).unwrap(), prefix);
    }

    #[test]
    fn current_keys_order_and_come_back(a in (0u64..3, name()), b in (0u64..3, name())) {
        let key = |(incarnation, name): &(u64, String)| {
            current(BucketIncarnation(*incarnation), name)
        };
        prop_assert_eq!(key(&a).cmp(&key(&b)), a.cmp(&b));
        prop_assert_eq!(decode_current(&key(&a)).unwrap(), a.1);
    }

    #[test]
    fn the_successor_is_the_least_key_behind_a_prefix(
        prefix in proptest::collection::vec(prop_oneof![Just(0u8), Just(7), Just(255)], 0..5),
        key in proptest::collection::vec(prop_oneof![Just(0u8), Just(7), Just(8), Just(255)], 0..6),
    ) {
        let inside_or_before = match successor(&prefix) {
            Some(end) => key[..] < end[..],
            None => true,
        };
        prop_assert_eq!(inside_or_before, key.starts_with(&prefix) || key < prefix);
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let _ = decode_bucket(&bytes);
        let _ = decode_current(&bytes);
        let _ = decode_upload(&bytes);
        let _ = decode_upload_prefix(&bytes);
        let _ = decode_blob(&bytes);
        let _ = decode_queued(&bytes);
        let _ = decode_owed(&bytes);
        let _ = decode_checkpoint_file(&bytes);
    }
}

#[test]
fn numbered_keys_come_back_and_others_are_damaged() {
    let key = condemned(CommitNumber(258), 7);
    assert_eq!(decode_queued(&key), Ok((CommitNumber(258), 7)));
    assert!(decode_queued(&key[..12]).is_err());
    assert_eq!(decode_owed(&owed(GroupId(3), 5)), Ok((GroupId(3), 5)));
    let key = checkpoint_file(&[9; 32], BlobId(1));
    assert_eq!(decode_checkpoint_file(&key), Ok([9; 32]));
    assert!(decode_checkpoint_file(&key[..48]).is_err());
    let key = blob(GroupId(3), BlobId(1 << 100));
    assert_eq!(decode_blob(&key), Ok(BlobId(1 << 100)));
    assert!(decode_blob(&key[..24]).is_err());
    assert!(decode_upload(b"\x1612345678a\x00\x02").is_err());
    assert!(decode_upload(b"\x1612345678abc").is_err());
}

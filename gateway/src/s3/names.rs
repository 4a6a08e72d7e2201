//! Which names buckets and keys may have.
//!
//! Pure. A key is never a path: every key of 1 to 1,024 bytes of UTF-8 is a
//! name of its own, taken literally. One byte is refused, NUL, because
//! nothing that handles keys as C strings tells such a key from its prefix.

use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

/// Longest key, bytes of UTF-8.
pub(crate) const MAX_KEY_BYTES: usize = 1024;

/// Beginnings that S3 keeps for itself.
const RESERVED_PREFIXES: &[&str] = &["xn--", "sthree-", "amzn-s3-demo-"];
/// Endings that S3 keeps for itself.
const RESERVED_SUFFIXES: &[&str] = &["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"];

/// Whether a new bucket may have this name.
pub(crate) fn is_bucket_name(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    (3..=63).contains(&bytes.len())
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'))
        && !name.contains("..")
        && !name.contains(".-")
        && !name.contains("-.")
        && !looks_like_an_address(name)
        && !RESERVED_PREFIXES.iter().any(|p| name.starts_with(p))
        && !RESERVED_SUFFIXES.iter().any(|s| name.ends_with(s))
}

/// Four groups of digits: taken for an IPv4 address by some client.
fn looks_like_an_address(name: &str) -> bool {
    let mut groups = 0;
    for group in name.split('.') {
        if group.is_empty() || !group.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
        groups += 1;
    }
    groups == 4
}

/// Checks a key before anything is asked of storage.
pub(crate) fn check_key(key: &str) -> S3Result<()> {
    if key.is_empty() {
        return Err(s3_error!(InvalidArgument, "the object key is empty"));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(S3Error::new(S3ErrorCode::KeyTooLongError));
    }
    if key.contains('\0') {
        return Err(s3_error!(
            InvalidArgument,
            "object keys cannot contain NUL bytes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // ATTACKS 58: bucket names.
    #[test]
    fn bucket_names_follow_s3s_rules() {
        for name in [
            "abc",
            "my-bucket",
            "my.bucket.with.dots",
            "123",
            "1.2.3",
            "1.2.3.4.5",
            "a--b",
            &"a".repeat(63),
        ] {
            assert!(is_bucket_name(name), "{name}");
        }
        for name in [
            "",
            "ab",
            &"a".repeat(64),
            "Upper",
            "under_score",
            "-abc",
            "abc-",
            ".abc",
            "abc.",
            "a..b",
            "a.-b",
            "a-.b",
            "192.168.5.4",
            "999.999.999.999",
            "xn--bucket",
            "sthree-bucket",
            "amzn-s3-demo-bucket",
            "bucket-s3alias",
            "bucket--ol-s3",
            "bucket.mrap",
            "bucket--x-s3",
            "..",
            "...",
            "a/b",
            "büc",
            "a\0b",
            "a\nb",
            "bucket ",
        ] {
            assert!(!is_bucket_name(name), "{name}");
        }
    }

    // ATTACKS 48, 50, 53 to 56, 59: keys are literal names.
    #[test]
    fn keys_are_any_text_of_1_to_1024_bytes() {
        for key in [
            "a",
            "..",
            ".",
            "../../etc/passwd",
            "/",
            "//",
            "/lead",
            "trail/",
            "back\\slash",
            "é",
            "e\u{301}",
            "%_'\"; DROP TABLE",
            "\r\n\u{1b}",
            &"k".repeat(1024),
            &"é".repeat(512),
        ] {
            assert!(check_key(key).is_ok(), "{key:?}");
        }
        assert_eq!(
            check_key(&"k".repeat(1025)).unwrap_err().code(),
            &S3ErrorCode::KeyTooLongError
        );
        assert_eq!(
            check_key(&"é".repeat(513)).unwrap_err().code(),
            &S3ErrorCode::KeyTooLongError
        );
        for key in ["", "a\0b"] {
            assert_eq!(
                check_key(key).unwrap_err().code(),
                &S3ErrorCode::InvalidArgument
            );
        }
    }
}

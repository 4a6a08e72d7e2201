//! The `x-amz-copy-source` header.
//!
//! Pure. Read here and not by s3s, because S3 decodes `+` as a space there
//! (and `%2B` as a plus), which clients rely on.

use http::HeaderMap;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};

use super::names::check_key;

/// What is to be copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CopySource {
    /// Its bucket.
    pub(crate) bucket: String,
    /// Its key.
    pub(crate) key: String,
    /// The version asked for.
    pub(crate) version: Option<String>,
}

/// Reads the header of a request.
pub(crate) fn copy_source(headers: &HeaderMap) -> S3Result<CopySource> {
    let mut values = headers.get_all("x-amz-copy-source").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(s3_error!(
            InvalidArgument,
            "x-amz-copy-source must be given once"
        ));
    };
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| malformed())?;
    parse(text)
}

fn parse(text: &str) -> S3Result<CopySource> {
    let (path, version) = match text.rsplit_once("?versionId=") {
        Some((path, version)) => (path, Some(decode(version)?)),
        None => (text, None),
    };
    let path = decode(path)?;
    let path = path.strip_prefix('/').unwrap_or(&path);
    if path.starts_with("arn:") {
        return Err(s3_error!(
            NotImplemented,
            "copy sources by ARN are not supported"
        ));
    }
    let (bucket, key) = path.split_once('/').ok_or_else(malformed)?;
    if bucket.is_empty() {
        return Err(malformed());
    }
    if !s3s::path::check_bucket_name(bucket) {
        return Err(S3Error::new(S3ErrorCode::InvalidBucketName));
    }
    check_key(key)?;
    Ok(CopySource {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        version,
    })
}

fn decode(text: &str) -> S3Result<String> {
    // `%2B` is decoded after `+` has become a space.
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8()
        .map(|decoded| decoded.into_owned())
        .map_err(|_| malformed())
}

fn malformed() -> S3Error {
    s3_error!(
        InvalidArgument,
        "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_decoded_as_s3_does() {
        for (text, bucket, key, version) in [
            ("bucket/key", "bucket", "key", None),
            ("/bucket/key", "bucket", "key", None),
            ("bucket/a+b%2Bc", "bucket", "a b+c", None),
            ("bucket/a%20b", "bucket", "a b", None),
            ("bucket//k", "bucket", "/k", None),
            ("bucket%2Fkey", "bucket", "key", None),
            ("bucket/../x", "bucket", "../x", None),
            ("bucket/%C3%A9", "bucket", "é", None),
            ("bucket/k?versionId=null", "bucket", "k", Some("null")),
            (
                "bucket/k%3FversionId=null",
                "bucket",
                "k?versionId=null",
                None,
            ),
            ("bucket/k?x", "bucket", "k?x", None),
        ] {
            let source = parse(text).unwrap();
            assert_eq!(source.bucket, bucket, "{text}");
            assert_eq!(source.key, key, "{text}");
            assert_eq!(source.version.as_deref(), version, "{text}");
        }
    }

    // ATTACKS 49, 57: traversal and empty names in the copy source.
    #[test]
    fn malformed_sources_are_refused() {
        for text in [
            "",
            "/",
            "bucket",
            "bucket/",
            "/bucket/",
            "//key",
            "../key",
            "/../bucket/key",
            "BUCKET/key",
            "bucket/%ff",
            "bucket/a%00b",
            "arn:aws:s3:::b/k",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let long = format!("bucket/{}", "k".repeat(1025));
        assert_eq!(
            parse(&long).unwrap_err().code(),
            &S3ErrorCode::KeyTooLongError
        );
    }

    // ATTACKS 16: a repeated copy source.
    #[test]
    fn a_repeated_source_is_refused() {
        let mut headers = HeaderMap::new();
        headers.append("x-amz-copy-source", "a/b".parse().unwrap());
        headers.append("x-amz-copy-source", "c/d".parse().unwrap());
        assert!(copy_source(&headers).is_err());
    }
}

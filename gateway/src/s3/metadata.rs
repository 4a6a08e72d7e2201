//! What is kept beside an object's bytes: standard headers, user metadata and
//! the storage class.
//!
//! Invariant: what is stored can be sent back as headers. Values with control
//! characters (which RFC 2047 can smuggle in) are refused.

use http::HeaderMap;
use s3s::dto::{Metadata, StorageClass};
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use shardgate_catalog::model::DetailRow;

/// User metadata of an object, names and values, bytes.
const MAX_USER_BYTES: usize = 2048;
/// One standard header, bytes.
const MAX_HEADER_BYTES: usize = 4096;

/// What AWS says of an object without a `Content-Type`.
pub(crate) const DEFAULT_CONTENT_TYPE: &str = "binary/octet-stream";

/// The headers of a write that describe its object.
#[derive(Debug, Default)]
pub(crate) struct Described {
    /// `Content-Type`
    pub(crate) content_type: Option<String>,
    /// `Content-Encoding`
    pub(crate) content_encoding: Option<String>,
    /// `Content-Disposition`
    pub(crate) content_disposition: Option<String>,
    /// `Content-Language`
    pub(crate) content_language: Option<String>,
    /// `Cache-Control`
    pub(crate) cache_control: Option<String>,
    /// `Expires`
    pub(crate) expires: Option<String>,
    /// `x-amz-website-redirect-location`
    pub(crate) website_redirect: Option<String>,
    /// `x-amz-meta-*`
    pub(crate) user: Option<Metadata>,
}

impl Described {
    /// The row that keeps it, if all of it can be kept.
    pub(crate) fn into_row(self) -> S3Result<DetailRow> {
        if let Some(location) = &self.website_redirect {
            check_redirect(location)?;
        }
        let encoding = self
            .content_encoding
            .and_then(|value| stored_encoding(&value));
        Ok(DetailRow {
            content_type: kept("content-type", self.content_type)?,
            content_encoding: kept("content-encoding", encoding)?,
            content_disposition: kept("content-disposition", self.content_disposition)?,
            content_language: kept("content-language", self.content_language)?,
            cache_control: kept("cache-control", self.cache_control)?,
            expires: kept("expires", self.expires)?,
            website_redirect: self.website_redirect,
            user: user_metadata(self.user)?,
        })
    }
}

fn kept(name: &str, value: Option<String>) -> S3Result<Option<String>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    if value.len() > MAX_HEADER_BYTES || value.chars().any(char::is_control) {
        return Err(s3_error!(InvalidArgument, "invalid header: {name}"));
    }
    Ok(Some(value))
}

/// `Content-Encoding` without `aws-chunked`, which is of the transfer alone.
fn stored_encoding(value: &str) -> Option<String> {
    let kept: Vec<&str> = value
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case("aws-chunked"))
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

/// A redirect may lead to a path or to a web page, not to a script.
fn check_redirect(location: &str) -> S3Result<()> {
    let lower = location.to_ascii_lowercase();
    let leads = ["/", "http://", "https://"]
        .iter()
        .any(|start| lower.starts_with(start));
    if leads && location.len() <= 2048 && !location.chars().any(char::is_control) {
        return Ok(());
    }
    Err(s3_error!(
        InvalidArgument,
        "The website redirect location must have a prefix of 'http://' or 'https://' or '/'."
    ))
}

fn user_metadata(user: Option<Metadata>) -> S3Result<Vec<(String, String)>> {
    let mut rows: Vec<(String, String)> = user
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    rows.sort();
    let bytes: usize = rows
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if bytes > MAX_USER_BYTES {
        return Err(S3Error::new(S3ErrorCode::MetadataTooLarge));
    }
    for (name, value) in &rows {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(token) || value.chars().any(char::is_control) {
            return Err(s3_error!(
                InvalidArgument,
                "user metadata has a name or value that no header can carry"
            ));
        }
    }
    if rows.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(s3_error!(InvalidArgument, "user metadata repeats a name"));
    }
    Ok(rows)
}

/// User metadata as s3s gives it back.
pub(crate) fn shown_metadata(row: &DetailRow) -> Option<Metadata> {
    (!row.user.is_empty()).then(|| row.user.iter().cloned().collect())
}

/// The storage class that a request names.
pub(crate) fn class_of(class: Option<StorageClass>) -> Option<String> {
    class
        .map(|class| class.as_str().to_owned())
        .filter(|name| !name.is_empty())
}

/// Features whose headers would promise something that is not kept: refused,
/// so that nobody takes plain bytes for encrypted or locked ones.
pub(crate) fn refuse_unkept_promises(headers: &HeaderMap) -> S3Result<()> {
    for (prefix, what) in [
        ("x-amz-server-side-encryption", "server-side encryption"),
        ("x-amz-object-lock-", "object lock"),
        ("x-amz-tagging", "object tagging"),
        ("x-amz-write-offset-bytes", "appending"),
    ] {
        // `x-amz-tagging-directive` says where tags come from, of which there are none.
        let promised = headers
            .keys()
            .map(http::HeaderName::as_str)
            .any(|name| name.starts_with(prefix) && name != "x-amz-tagging-directive");
        if promised {
            return Err(s3_error!(NotImplemented, "{what} is not supported"));
        }
    }
    let grants = headers
        .keys()
        .any(|name| name.as_str().starts_with("x-amz-grant-"));
    if grants {
        return Err(S3Error::new(S3ErrorCode::AccessControlListNotSupported));
    }
    match headers.get("x-amz-acl").map(|acl| acl.as_bytes()) {
        None | Some(b"" | b"private" | b"bucket-owner-full-control" | b"bucket-owner-read") => {
            Ok(())
        }
        Some(_) => Err(S3Error::new(S3ErrorCode::AccessControlListNotSupported)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_user(name: &str, value: &str) -> S3Result<DetailRow> {
        Described {
            user: Some([(name.to_owned(), value.to_owned())].into_iter().collect()),
            ..Described::default()
        }
        .into_row()
    }

    #[test]
    fn aws_chunked_is_not_kept() {
        for (given, kept) in [
            ("aws-chunked", None),
            ("aws-chunked,gzip", Some("gzip")),
            ("gzip, AWS-Chunked", Some("gzip")),
            ("gzip,br", Some("gzip,br")),
            ("", None),
        ] {
            assert_eq!(stored_encoding(given).as_deref(), kept, "{given}");
        }
    }

    // ATTACKS 101: user metadata that is too large, or breaks headers.
    #[test]
    fn user_metadata_is_bounded_and_clean() {
        assert!(with_user("a", &"v".repeat(2047)).is_ok());
        let error = with_user("a", &"v".repeat(2048)).unwrap_err();
        assert_eq!(error.code(), &S3ErrorCode::MetadataTooLarge);
        assert!(with_user("naïve", "v").is_err());
        assert!(with_user("a", "b\r\nx-injected: 1").is_err());
        assert_eq!(
            with_user("Name", "é").unwrap().user,
            [("name".to_owned(), "é".to_owned())]
        );
    }

    // ATTACKS 104: a redirect to a script.
    #[test]
    fn redirects_lead_to_pages() {
        for (location, fine) in [
            ("/other", true),
            ("https://example.com/", true),
            ("javascript:alert(1)", false),
            ("data:text/html,x", false),
            ("http://a\r\nx: y", false),
        ] {
            assert_eq!(check_redirect(location).is_ok(), fine, "{location}");
        }
    }

    // ATTACKS 66: encryption reported, plaintext on disk.
    #[test]
    fn promises_that_are_not_kept_are_refused() {
        for (name, value, fine) in [
            ("x-amz-server-side-encryption", "AES256", false),
            (
                "x-amz-server-side-encryption-customer-algorithm",
                "AES256",
                false,
            ),
            ("x-amz-object-lock-mode", "COMPLIANCE", false),
            ("x-amz-tagging", "a=b", false),
            ("x-amz-tagging-directive", "COPY", true),
            ("x-amz-acl", "public-read", false),
            ("x-amz-acl", "private", true),
            ("x-amz-meta-x", "1", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(
                refuse_unkept_promises(&headers).is_ok(),
                fine,
                "{name}: {value}"
            );
        }
    }
}

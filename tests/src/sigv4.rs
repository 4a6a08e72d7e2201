//! AWS Signature Version 4, the client's side: header and query signing.
//!
//! After the AWS General Reference, "Signature Version 4 signing process";
//! S3's variant: the path is encoded once, and not normalised.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

/// Unreserved characters stay, everything else is encoded.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Payload hash of a body that is not signed.
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// An access key, its secret, and the region that requests are scoped to.
#[derive(Clone)]
pub struct Keys {
    /// Access key id.
    pub access: String,
    /// Secret access key.
    pub secret: String,
    /// Region of the scope.
    pub region: String,
}

/// A request, as far as its signature covers it.
pub struct Unsigned<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Host header.
    pub host: &'a str,
    /// Path, not encoded.
    pub path: &'a str,
    /// Query pairs, not encoded.
    pub query: &'a [(String, String)],
    /// Further headers to sign, names in lower case.
    pub headers: &'a [(String, String)],
}

/// `path` as it is sent.
pub fn encode_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// The canonical query, which is also how it is sent.
pub fn encode_query(query: &[(String, String)]) -> String {
    let mut pairs: Vec<_> = query
        .iter()
        .map(|(name, value)| {
            let encode = |text: &str| utf8_percent_encode(text, QUERY).to_string();
            (encode(name), encode(value))
        })
        .collect();
    pairs.sort();
    let joined: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    joined.join("&")
}

/// Lower-case hex SHA-256.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn stamp(now: OffsetDateTime) -> String {
    now.format(format_description!(
        "[year][month][day]T[hour][minute][second]Z"
    ))
    .expect("the format has no fallible part")
}

fn signature(keys: &Keys, stamp: &str, canonical: &str) -> String {
    let day = &stamp[..8];
    let scope = format!("{day}/{}/s3/aws4_request", keys.region);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
        sha256_hex(canonical.as_bytes())
    );
    let mut key = hmac(format!("AWS4{}", keys.secret).as_bytes(), day.as_bytes());
    for part in [keys.region.as_str(), "s3", "aws4_request"] {
        key = hmac(&key, part.as_bytes());
    }
    hex::encode(hmac(&key, to_sign.as_bytes()))
}

/// Headers to send beside `request.headers`: date, payload hash, authorization.
pub fn sign_headers(
    keys: &Keys,
    request: &Unsigned<'_>,
    payload_hash: &str,
    now: OffsetDateTime,
) -> Vec<(String, String)> {
    let stamp = stamp(now);
    let mut signed: Vec<(String, String)> = request.headers.to_vec();
    signed.push(("host".into(), request.host.into()));
    signed.push(("x-amz-content-sha256".into(), payload_hash.into()));
    signed.push(("x-amz-date".into(), stamp.clone()));
    signed.sort();
    let canonical_headers: String = signed
        .iter()
        .map(|(name, value)| format!("{name}:{}\n", value.trim()))
        .collect();
    let names = signed
        .iter()
        .map(|(name, _)| name.as_str())
        .collect::<Vec<_>>()
        .join(";");
    let canonical = format!(
        "{}\n{}\n{}\n{canonical_headers}\n{names}\n{payload_hash}",
        request.method,
        encode_path(request.path),
        encode_query(request.query),
    );
    let signature = signature(keys, &stamp, &canonical);
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{}/{}/s3/aws4_request, SignedHeaders={names}, Signature={signature}",
        keys.access,
        &stamp[..8],
        keys.region,
    );
    vec![
        ("x-amz-date".into(), stamp),
        ("x-amz-content-sha256".into(), payload_hash.into()),
        ("authorization".into(), authorization),
    ]
}

/// Path and query of a presigned request that is valid for `seconds`.
pub fn presign(keys: &Keys, request: &Unsigned<'_>, seconds: u32, now: OffsetDateTime) -> String {
    let stamp = stamp(now);
    let scope = format!("{}/{}/s3/aws4_request", &stamp[..8], keys.region);
    let mut query = request.query.to_vec();
    for (name, value) in [
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
        ("X-Amz-Credential", format!("{}/{scope}", keys.access)),
        ("X-Amz-Date", stamp.clone()),
        ("X-Amz-Expires", seconds.to_string()),
        ("X-Amz-SignedHeaders", "host".to_owned()),
    ] {
        query.push((name.to_owned(), value));
    }
    let path = encode_path(request.path);
    let query = encode_query(&query);
    let canonical = format!(
        "{}\n{path}\n{query}\nhost:{}\n\nhost\n{UNSIGNED}",
        request.method, request.host
    );
    format!(
        "{path}?{query}&X-Amz-Signature={}",
        signature(keys, &stamp, &canonical)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// The example of the AWS S3 API reference, "Authenticating Requests:
    /// Using Query Parameters": its keys, request and signature.
    #[test]
    fn presigns_as_the_api_reference_does() {
        let keys = Keys {
            access: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            region: "us-east-1".into(),
        };
        let request = Unsigned {
            method: "GET",
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            query: &[],
            headers: &[],
        };
        let url = presign(&keys, &request, 86_400, datetime!(2013-05-24 00:00:00 UTC));
        assert!(
            url.ends_with("aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"),
            "{url}"
        );
    }
}

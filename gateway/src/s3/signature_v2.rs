//! Version 2 signatures that S3 takes and s3s does not.
//!
//! `s3cmd --signature-v2` writes `x-amz-date` as mail does (`Tue, 24 Nov 2026
//! 12:00:00 +0000`), which s3s answers with 400. boto3 asks for `/bucket` and
//! signs `/bucket/`. Such requests are verified here, with s3s's own
//! computation of the signature, and handed to the service of verified
//! requests; see `repair.rs`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use http::{HeaderMap, header};
use s3s::dto::{Timestamp, TimestampFormat};
use s3s::service::S3Service;
use s3s::{S3Error, S3ErrorCode, S3Result, s3_error};
use s3s_sigv2::{AuthorizationV2, Mode, calculate_signature, create_string_to_sign};

use super::access::Verified;
use super::conditions::parse_http_date;
use super::host::BaseNames;
use super::repair::take_off_unreadable;
use crate::auth::{CredentialStore, Principal, same_secret};
use crate::seam::Clock;

/// How far a request's clock may be from ours, as with every signature.
const MAX_SKEW_SECONDS: i64 = 900;

/// Verifies version 2 signatures in the `Authorization` header.
pub(crate) struct SignatureV2 {
    /// The service of verified requests.
    pub(crate) verified: S3Service,
    /// Who the access keys are.
    pub(crate) credentials: Arc<dyn CredentialStore>,
    /// Buckets in host names are signed too.
    pub(crate) names: BaseNames,
    /// The time of day.
    pub(crate) clock: Arc<dyn Clock>,
}

impl SignatureV2 {
    /// Whether a request is signed in a way that s3s would refuse.
    pub(crate) fn takes(&self, parts: &Parts) -> bool {
        let headers = &parts.headers;
        let signed = headers
            .get(header::AUTHORIZATION)
            .is_some_and(|value| value.as_bytes().starts_with(b"AWS "));
        if !signed {
            return false;
        }
        let bare = self.host_bucket(headers).is_none() && is_bare_bucket(parts.uri.path());
        match (headers.get("x-amz-date"), headers.get(header::DATE)) {
            (Some(date), _) => date.as_bytes().contains(&b' '),
            (None, Some(date)) => {
                let date = date.to_str().ok();
                bare || date
                    .is_none_or(|date| Timestamp::parse(TimestampFormat::HttpDate, date).is_err())
            }
            (None, None) => false,
        }
    }

    /// Verifies a request, and takes off its signature and what s3s cannot
    /// read.
    pub(crate) fn verify(&self, parts: &mut Parts) -> S3Result<()> {
        let principal = self.principal(parts)?;
        take_off_unreadable(&parts.method, &mut parts.headers, &mut parts.extensions);
        parts.headers.remove(header::AUTHORIZATION);
        parts.extensions.insert(Verified(principal));
        Ok(())
    }

    fn principal(&self, parts: &Parts) -> S3Result<Principal> {
        let headers = &parts.headers;
        self.check_date(headers)?;
        let mismatch = || S3Error::new(S3ErrorCode::SignatureDoesNotMatch);
        let mut pairs = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            match std::str::from_utf8(value.as_bytes()) {
                Ok(value) => pairs.push((name.as_str(), value)),
                Err(_) if name.as_str().starts_with("x-amz-") => return Err(mismatch()),
                Err(_) => {}
            }
        }
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(authorization), None) = (given.next(), given.next()) else {
            return Err(mismatch());
        };
        let authorization = authorization.to_str().map_err(|_| mismatch())?;
        let authorization = AuthorizationV2::parse(authorization).map_err(|_| mismatch())?;
        let identity = self
            .credentials
            .identity(authorization.access_key)
            .ok_or_else(|| S3Error::new(S3ErrorCode::InvalidAccessKeyId))?;
        let given = STANDARD
            .decode(authorization.signature)
            .map_err(|_| mismatch())?;
        let bucket = self.host_bucket(headers);
        let query = parts.uri.query().map(parameters);
        let signs = |path: &str| {
            let text = create_string_to_sign(
                Mode::HeaderAuth,
                parts.method.as_str(),
                path,
                query.as_deref(),
                &pairs,
                bucket.as_deref(),
            );
            let computed = STANDARD.decode(calculate_signature(identity.secret.expose(), &text));
            computed.is_ok_and(|computed| same_secret(&computed, &given))
        };
        let path = parts.uri.path();
        // With the slash or without it, the same bucket is meant.
        let bare = bucket.is_none() && is_bare_bucket(path);
        if signs(path) || (bare && signs(&format!("{path}/"))) {
            return Ok(identity.principal);
        }
        Err(mismatch())
    }

    fn host_bucket(&self, headers: &HeaderMap) -> Option<String> {
        let host = headers.get(header::HOST)?.to_str().ok()?;
        self.names.bucket(host)
    }

    fn check_date(&self, headers: &HeaderMap) -> S3Result<()> {
        let date = headers
            .get("x-amz-date")
            .or_else(|| headers.get(header::DATE));
        let at = date
            .and_then(|date| date.to_str().ok())
            .and_then(parse_mail_date)
            .ok_or_else(|| {
                s3_error!(
                    AccessDenied,
                    "AWS authentication requires a valid Date or x-amz-date header"
                )
            })?;
        let now = i64::try_from(self.clock.now_ms() / 1000).unwrap_or(i64::MAX);
        if now.abs_diff(at) > MAX_SKEW_SECONDS.unsigned_abs() {
            return Err(s3_error!(
                RequestTimeTooSkewed,
                "The difference between the request time and the server's time is too large."
            ));
        }
        Ok(())
    }
}

/// Whether a path names a bucket and nothing behind it, not even a slash.
fn is_bare_bucket(path: &str) -> bool {
    path.len() > 1 && !path[1..].contains('/')
}

/// A date of mail in universal time: `+0000` and `-0000` are other words for
/// `GMT`.
fn parse_mail_date(text: &str) -> Option<i64> {
    let text = text.trim();
    for zone in ["+0000", "-0000", "UTC"] {
        if let Some(date) = text.strip_suffix(zone) {
            return parse_http_date(&format!("{date}GMT"));
        }
    }
    parse_http_date(text)
}

/// The parameters of a query, decoded and in order of name.
fn parameters(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_mail_are_read() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 +0000", Some(784_111_777)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sun, 06 Nov 1994 08:49:37 +0100", None),
            ("19941106T084937Z", None),
            ("", None),
        ] {
            assert_eq!(parse_mail_date(text), seconds, "{text}");
        }
    }

    #[test]
    fn parameters_are_decoded_and_sorted() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parameters("uploads&acl=&response-content-type=a%20b+c"),
            [
                pair("acl", ""),
                pair("response-content-type", "a b c"),
                pair("uploads", ""),
            ]
        );
    }
}

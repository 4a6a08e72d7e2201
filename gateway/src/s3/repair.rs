//! Requests that s3s refuses and S3 serves: verified first, then repaired.
//!
//! s3s answers 400 to a range or a condition that it cannot read; RFC 9110
//! and S3 ignore them. They may be signed, so that they cannot be taken off
//! before the signature is checked. This route lets s3s check the signature,
//! takes off what it cannot read, and hands the request to a second service
//! that has the same operations and takes the identity from the extensions.
//! The headers as they came stay readable through [`original_headers`].

use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Uri};
use s3s::dto::{ETagCondition, Range, Timestamp, TimestampFormat};
use s3s::route::S3Route;
use s3s::service::S3Service;
use s3s::{Body, HttpRequest, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::Verified;
use crate::auth::CredentialStore;

/// The headers of a repaired request as they came.
#[derive(Clone)]
struct Original(Arc<HeaderMap>);

/// The headers as the client sent them.
pub(crate) fn original_headers<T>(request: &S3Request<T>) -> &HeaderMap {
    match request.extensions.get::<Original>() {
        Some(Original(headers)) => headers,
        None => &request.headers,
    }
}

/// Whether s3s reads a header of this name.
fn readable(name: &str, value: &str) -> bool {
    match name {
        "range" => Range::parse(value).is_ok(),
        "if-match" | "if-none-match" => ETagCondition::parse_http_header(value.as_bytes()).is_ok(),
        "if-modified-since" | "if-unmodified-since" => {
            Timestamp::parse(TimestampFormat::HttpDate, value).is_ok()
        }
        "x-amz-copy-source-if-match" | "x-amz-copy-source-if-none-match" => {
            ETagCondition::parse_http_header(value.as_bytes()).is_ok()
        }
        "x-amz-copy-source-if-modified-since" | "x-amz-copy-source-if-unmodified-since" => {
            Timestamp::parse(TimestampFormat::HttpDate, value).is_ok()
        }
        _ => true,
    }
}

const ON_READS: [&str; 5] = [
    "range",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
];

const ON_COPIES: [&str; 4] = [
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-unmodified-since",
];

/// The headers of a request that s3s would refuse and S3 ignores.
fn unreadable(method: &Method, headers: &HeaderMap) -> impl Iterator<Item = &'static str> {
    let names: &'static [&'static str] = match *method {
        Method::GET | Method::HEAD => &ON_READS,
        Method::PUT if headers.contains_key("x-amz-copy-source") => &ON_COPIES,
        _ => &[],
    };
    names.iter().copied().filter(|name| {
        headers.get(*name).is_some_and(|value| {
            !value
                .to_str()
                .is_ok_and(|text| text.is_empty() || readable(name, text))
        })
    })
}

/// Takes off what s3s would refuse; the headers as they came stay readable.
pub(super) fn take_off_unreadable(
    method: &Method,
    headers: &mut HeaderMap,
    extensions: &mut Extensions,
) {
    let names: Vec<_> = unreadable(method, headers).collect();
    if names.is_empty() {
        return;
    }
    extensions.insert(Original(Arc::new(headers.clone())));
    for name in names {
        headers.remove(name);
    }
}

/// The route that takes such requests.
#[derive(Clone)]
pub(crate) struct Repair {
    /// The service of verified requests.
    pub(crate) verified: S3Service,
    /// Who the access keys are.
    pub(crate) credentials: Arc<dyn CredentialStore>,
}

#[async_trait::async_trait]
impl S3Route for Repair {
    fn is_match(&self, method: &Method, _: &Uri, headers: &HeaderMap, _: &mut Extensions) -> bool {
        unreadable(method, headers).next().is_some()
    }

    // The gate of the second service decides, about the repaired request.
    async fn check_access(&self, _: &mut S3Request<Body>) -> S3Result<()> {
        Ok(())
    }

    async fn call(&self, mut request: S3Request<Body>) -> S3Result<S3Response<Body>> {
        take_off_unreadable(
            &request.method,
            &mut request.headers,
            &mut request.extensions,
        );
        request.headers.remove(http::header::AUTHORIZATION);
        if let Some(credentials) = &request.credentials {
            let identity = self.credentials.identity(&credentials.access_key);
            let identity = identity.ok_or_else(|| S3Error::new(S3ErrorCode::InvalidAccessKeyId))?;
            request.extensions.insert(Verified(identity.principal));
        }
        let mut forwarded = HttpRequest::new(request.input);
        *forwarded.method_mut() = request.method;
        *forwarded.uri_mut() = without_signature(&request.uri);
        *forwarded.headers_mut() = request.headers;
        *forwarded.extensions_mut() = request.extensions;
        let answer = self.verified.call(forwarded).await.map_err(|error| {
            tracing::error!(%error, "a repaired request failed");
            S3Error::new(S3ErrorCode::InternalError)
        })?;
        let (parts, body) = answer.into_parts();
        Ok(S3Response {
            output: body,
            status: Some(parts.status),
            headers: parts.headers,
            extensions: parts.extensions,
        })
    }
}

/// The address without the parameters of a query signature.
fn without_signature(uri: &Uri) -> Uri {
    const SIGNATURE: [&str; 9] = [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Date",
        "X-Amz-Expires",
        "X-Amz-SignedHeaders",
        "X-Amz-Signature",
        "AWSAccessKeyId",
        "Signature",
        "Expires",
    ];
    let Some(query) = uri.query() else {
        return uri.clone();
    };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| {
            let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
            let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
            !SIGNATURE.contains(&name.as_ref())
        })
        .collect();
    let mut parts = uri.clone().into_parts();
    let path_and_query = if kept.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), kept.join("&"))
    };
    parts.path_and_query = path_and_query.parse().ok();
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(method: Method, name: &'static str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        unreadable(&method, &headers).next().is_some()
    }

    #[test]
    fn only_what_s3s_refuses_is_repaired() {
        for (method, name, value, taken) in [
            (Method::GET, "range", "bytes=0-5", false),
            (Method::GET, "range", "bytes=0-5,7-9", true),
            (Method::GET, "range", "bytes=9-5", true),
            (Method::HEAD, "range", "lines=1", true),
            (Method::PUT, "range", "lines=1", false),
            (Method::GET, "if-modified-since", "yesterday", true),
            (Method::GET, "if-none-match", "\"a\"", false),
            (Method::GET, "if-none-match", "", false),
            (Method::GET, "if-none-match", "{}", true),
            (Method::PUT, "if-none-match", "{}", false),
        ] {
            assert_eq!(repaired(method, name, value), taken, "{name}: {value}");
        }
    }

    #[test]
    fn signatures_are_taken_off_the_address() {
        for (address, expected) in [
            (
                "/b/k?X-Amz-Signature=x&partNumber=2&X-Amz-Date=d",
                "/b/k?partNumber=2",
            ),
            ("/b/k?AWSAccessKeyId=x&Signature=y&Expires=1", "/b/k"),
            ("/b/k?%58-Amz-Signature=x&a=b", "/b/k?a=b"),
            ("/b/k", "/b/k"),
            ("/b/k?versionId=null", "/b/k?versionId=null"),
        ] {
            let uri: Uri = address.parse().unwrap();
            assert_eq!(without_signature(&uri).to_string(), expected);
        }
    }
}

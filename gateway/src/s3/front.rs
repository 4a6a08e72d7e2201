//! The door in front of s3s: what every request passes before and after it.
//!
//! Before: refuses two signatures at once, sets the checks of the body, and
//! tries the sorted join of repeated headers. After: gives every answer its
//! request ids and completes S3's error documents. Owns no operation.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use s3s::service::S3Service;
use s3s::{Body, S3Error, S3ErrorCode, S3Result, s3_error};

use super::body::{BodyCheck, BodyPace, CheckedBody, FaultCell, Tail};
use super::contact::{self, Contact};
use super::digest::DocumentDigest;
use super::error::custom;
use super::error_document::complete_error;
use super::signature_v2::SignatureV2;
use super::telemetry::Observed;

/// S3 over HTTP, as one function from request to answer.
#[derive(Clone)]
pub struct S3Front {
    inner: Arc<Inner>,
}

/// The services behind the door, all with the same operations.
pub(crate) struct Services {
    /// Of clients.
    pub(crate) clients: S3Service,
    /// Of browsers' forms, whose signatures are older than others may be.
    pub(crate) forms: S3Service,
    /// Version 2 signatures that s3s does not read, if version 2 is on.
    pub(crate) signature_v2: Option<SignatureV2>,
}

struct Inner {
    services: Services,
    contact: Arc<dyn Contact>,
    region: String,
    body_pace: BodyPace,
    host_id: HeaderValue,
}

impl S3Front {
    /// Puts the door in front of a service.
    pub(crate) fn new(
        services: Services,
        contact: Arc<dyn Contact>,
        region: &str,
        body_pace: BodyPace,
    ) -> Self {
        let host_id = format!("{:032x}", rand::random::<u128>());
        Self {
            inner: Arc::new(Inner {
                services,
                contact,
                region: region.to_owned(),
                body_pace,
                host_id: HeaderValue::from_str(&host_id).expect("hex digits are fit for a header"),
            }),
        }
    }

    /// Answers a request. Never fails: what goes wrong is an answer too.
    pub async fn answer<B>(
        &self,
        request: Request<B>,
        request_id: &str,
        observed: &Observed,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + Sync + 'static,
    {
        let method = request.method().clone();
        let resource = request.uri().path().to_owned();
        let fault = FaultCell::default();
        let version = request.version();
        let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let mut response = match self.serve_in_contact(request, observed, &fault).await {
            Ok(response) => response,
            Err(error) => {
                let again = *error.code() == S3ErrorCode::ServiceUnavailable;
                let mut response = error_response(&method, error);
                if again {
                    contact::say_again(&mut response);
                }
                response
            }
        };
        if response.status().is_client_error() || response.status().is_server_error() {
            if let Some(fault) = fault.get() {
                let (code, message) = fault.code();
                response = error_response(&method, S3Error::with_message(code, message));
            }
            response = complete_error(
                response,
                &resource,
                request_id,
                self.inner.host_id.to_str().unwrap_or_default(),
                &self.inner.region,
            );
        }
        if method == Method::HEAD && response.headers().contains_key(header::CONTENT_RANGE) {
            // s3s answers every HEAD that succeeds with 200.
            if response.status() == StatusCode::OK {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            }
        }
        // A proxy that goes by a Content-Length beside it, which hyper takes
        // off unseen, would take what follows for another client's request.
        if chunked || fault.is_unread() {
            end_connection(&mut response, version);
        }
        self.mark(response.headers_mut(), request_id);
        response
    }

    /// An answer that s3s has no part in, such as "slow down".
    pub fn refuse<B: http_body::Body>(
        &self,
        error: S3Error,
        request: &Request<B>,
        request_id: &str,
    ) -> Response<Body> {
        let (method, path) = (request.method(), request.uri().path());
        let response = error_response(method, error);
        let host_id = self.inner.host_id.to_str().unwrap_or_default();
        let mut response = complete_error(response, path, request_id, host_id, &self.inner.region);
        if !request.body().is_end_stream() {
            end_connection(&mut response, request.version());
        }
        self.mark(response.headers_mut(), request_id);
        response
    }

    fn mark(&self, headers: &mut HeaderMap, request_id: &str) {
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert("x-amz-request-id", id);
        }
        headers.insert("x-amz-id-2", self.inner.host_id.clone());
        headers.insert(header::SERVER, HeaderValue::from_static("Shardgate"));
        // What is stored is the operator's users' own: no browser guesses at it.
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        let kind = headers.get(header::CONTENT_TYPE);
        if kind.is_some_and(|kind| runs_scripts(kind.as_bytes())) {
            headers.insert(header::CONTENT_SECURITY_POLICY, SANDBOX);
        }
    }

    /// Serves, if anything may be answered before and after it.
    async fn serve_in_contact<B>(
        &self,
        request: Request<B>,
        observed: &Observed,
        fault: &FaultCell,
    ) -> S3Result<Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + Sync + 'static,
    {
        let method = request.method().clone();
        contact::check(&*self.inner.contact, &method)?;
        let outcome = tokio::select! {
            outcome = self.serve(request, observed, fault) => outcome,
            error = contact::lost(&*self.inner.contact, &method) => return Err(error),
        };
        contact::check(&*self.inner.contact, &method)?;
        outcome
    }

    async fn serve<B>(
        &self,
        request: Request<B>,
        observed: &Observed,
        fault: &FaultCell,
    ) -> S3Result<Response<Body>>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + Sync + 'static,
    {
        refuse_what_s3s_takes(request.method(), request.headers(), request.uri().query())?;
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(observed.clone());
        if body.is_end_stream() {
            name_empty_payload(&mut parts.headers);
        }
        let query = parts.uri.query().unwrap_or_default();
        let check = body_check(&parts.method, query, &parts.headers)?;
        let body = if body.is_end_stream() && matches!(check, BodyCheck::Nothing) {
            Body::empty()
        } else {
            Body::http_body(CheckedBody::new(
                body,
                self.inner.body_pace,
                observed.clone(),
                fault.clone(),
                check,
            ))
        };
        if is_bare_form(&parts) {
            let forms = &self.inner.services.forms;
            return call(forms, Request::from_parts(parts, body)).await;
        }
        if let Some(version_2) = self.signature_v2(&parts) {
            version_2.verify(&mut parts)?;
            return call(&version_2.verified, Request::from_parts(parts, body)).await;
        }
        let sorted = sorted_repeats(&parts.method, &parts.headers);
        let Some(sorted) = sorted else {
            return self.call(Request::from_parts(parts, body)).await;
        };
        // SDKs send a list as one header a value and sign the values sorted.
        // Both orders cover the same bytes; the order as sent comes first.
        let mut again = parts.clone();
        again.headers = sorted;
        let response = self.call(Request::from_parts(parts, body)).await?;
        if response.status() != StatusCode::FORBIDDEN {
            return Ok(response);
        }
        self.call(Request::from_parts(again, Body::empty())).await
    }

    fn signature_v2(&self, parts: &Parts) -> Option<&SignatureV2> {
        let version_2 = self.inner.services.signature_v2.as_ref();
        version_2.filter(|version_2| version_2.takes(parts))
    }

    async fn call(&self, request: Request<Body>) -> S3Result<Response<Body>> {
        call(&self.inner.services.clients, request).await
    }
}

/// A page works in it, but as an origin of its own: its scripts reach neither
/// what else this host serves nor the cookies of its name.
const SANDBOX: HeaderValue = HeaderValue::from_static(
    "sandbox allow-downloads allow-forms allow-modals allow-popups allow-popups-to-escape-sandbox allow-scripts",
);

/// Whether a browser runs scripts in documents of this type.
fn runs_scripts(content_type: &[u8]) -> bool {
    let end = content_type.iter().position(|b| *b == b';');
    let kind = content_type[..end.unwrap_or(content_type.len())].trim_ascii();
    let kind = kind.to_ascii_lowercase();
    [
        &b"text/html"[..],
        b"text/xml",
        b"application/xml",
        b"multipart/x-mixed-replace",
    ]
    .contains(&kind.as_slice())
        || kind.ends_with(b"+xml")
}

/// Says that the connection ends. After an answer before the body was read
/// the client would send its next request on it.
fn end_connection(response: &mut Response<Body>, version: http::Version) {
    if version <= http::Version::HTTP_11 {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
}

async fn call(service: &S3Service, request: Request<Body>) -> S3Result<Response<Body>> {
    service.call(request).await.map_err(|error| {
        tracing::error!(%error, "no answer could be made");
        S3Error::new(S3ErrorCode::InternalError)
    })
}

/// Older clients (curl before 8) do not name the hash of a body that they do
/// not send. Named here, it is what they signed, and s3s verifies it.
fn name_empty_payload(headers: &mut HeaderMap) {
    const NAME: &str = "x-amz-content-sha256";
    const OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let signed = headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| value.as_bytes().starts_with(b"AWS4-HMAC-SHA256"));
    if signed && !headers.contains_key(NAME) {
        headers.insert(NAME, HeaderValue::from_static(OF_NOTHING));
    }
}

/// What s3s would take and must not be taken.
fn refuse_what_s3s_takes(
    method: &Method,
    headers: &HeaderMap,
    query: Option<&str>,
) -> S3Result<()> {
    let known = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::POST,
        Method::DELETE,
    ];
    if method == Method::OPTIONS {
        // A browser asks whether pages of another origin may. None may, and
        // nobody learns whether the bucket is there.
        return Err(custom(
            "AccessForbidden",
            403,
            "CORSResponse: CORS is not enabled for this bucket.",
        ));
    }
    if !known.contains(method) {
        return Err(S3Error::new(S3ErrorCode::MethodNotAllowed));
    }
    let query = query.unwrap_or_default();
    let signs = |pair: &str| pair.starts_with("X-Amz-Signature=") || pair.starts_with("Signature=");
    if headers.contains_key(header::AUTHORIZATION) && query.split('&').any(signs) {
        return Err(s3_error!(
            InvalidArgument,
            "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string parameter or the Authorization header should be specified"
        ));
    }
    if method == Method::POST && is_form(headers) && !headers.contains_key(header::CONTENT_LENGTH) {
        // Without it the form would be gathered in memory.
        return Err(S3Error::new(S3ErrorCode::MissingContentLength));
    }
    Ok(())
}

/// Which check a body needs.
fn body_check(method: &Method, query: &str, headers: &HeaderMap) -> S3Result<BodyCheck> {
    let hash = headers
        .get("x-amz-content-sha256")
        .map(HeaderValue::as_bytes);
    if hash == Some(b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD") {
        return Ok(BodyCheck::FinalChunk(Tail::default()));
    }
    if method == Method::POST && headers.contains_key("x-amz-trailer") {
        // Documents are parsed before their trailers could be compared.
        return Err(s3_error!(
            InvalidRequest,
            "The value specified in the x-amz-trailer header is not supported"
        ));
    }
    let form = is_form(headers);
    if method != Method::POST || form {
        return Ok(BodyCheck::Nothing);
    }
    Ok(BodyCheck::Document {
        left: MAX_DOCUMENT_BYTES,
        digest: DocumentDigest::of_request(query, headers)?.map(Box::new),
    })
}

/// Longest document: 10,000 parts with a checksum each have about 3 MiB.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 8 << 20;

/// A form, and nothing else in the request that could be a signature: only
/// the form's own is then verified, if it has one.
fn is_bare_form(parts: &Parts) -> bool {
    parts.method == Method::POST
        && is_form(&parts.headers)
        && !parts.headers.contains_key(header::AUTHORIZATION)
        && parts.uri.query().is_none()
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/form-data"))
}

/// The headers with the values of repeated `x-amz-` headers sorted, where
/// that is another order and the request can be tried twice.
fn sorted_repeats(method: &Method, headers: &HeaderMap) -> Option<HeaderMap> {
    let repeats = headers.len() != headers.keys_len();
    if !repeats || !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let mut sorted = headers.clone();
    let mut changed = false;
    for name in headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-amz-"))
    {
        let mut values: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
        if values.is_sorted() {
            continue;
        }
        values.sort();
        changed = true;
        sorted.remove(name);
        for value in values {
            sorted.append(name, value);
        }
    }
    changed.then_some(sorted)
}

/// An error as an answer to a method; never fails.
fn error_response(method: &Method, error: S3Error) -> Response<Body> {
    let status = error
        .status_code()
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = error.to_http_response().unwrap_or_else(|_| {
        let mut plain = Response::new(Body::empty());
        *plain.status_mut() = status;
        plain
    });
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    // ATTACKS 20: a header and a query signature at once.
    #[test]
    fn two_signatures_are_refused() {
        let signed = headers(&[("authorization", "AWS4-HMAC-SHA256 x")]);
        for (map, query, refused) in [
            (&signed, "X-Amz-Signature=a", true),
            (&signed, "a=b&Signature=a", true),
            (&signed, "prefix=Signature", false),
            (&HeaderMap::new(), "X-Amz-Signature=a", false),
        ] {
            let outcome = refuse_what_s3s_takes(&Method::GET, map, Some(query));
            assert_eq!(outcome.is_err(), refused, "{query}");
        }
    }

    #[test]
    fn repeated_headers_are_sorted_for_a_second_try() {
        let name = "x-amz-object-attributes";
        let unsorted = headers(&[(name, "ObjectSize"), (name, "ETag")]);
        let sorted = sorted_repeats(&Method::GET, &unsorted).unwrap();
        let values: Vec<_> = sorted.get_all(name).iter().collect();
        assert_eq!(values, ["ETag", "ObjectSize"]);
        let in_order = headers(&[(name, "ETag"), (name, "ObjectSize")]);
        assert!(sorted_repeats(&Method::GET, &in_order).is_none());
        assert!(sorted_repeats(&Method::PUT, &unsorted).is_none());
        assert!(sorted_repeats(&Method::GET, &headers(&[(name, "b")])).is_none());
    }
}

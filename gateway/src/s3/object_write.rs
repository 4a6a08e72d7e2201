//! PutObject and the form of PostObject.
//!
//! Invariant: everything that the request's head says is checked before the
//! first byte of its body is read, and nothing is stored before the body's
//! end, its signature and its trailers were seen.

use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, header};
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

use super::access::allow_object;
use super::checksum::{content_md5, requested};
use super::conditions::{WriteRequest, etag_text, write_condition};
use super::error::s3_error_of;
use super::metadata::{Described, class_of, refuse_unkept_promises};
use super::names::check_key;
use super::service::Operations;
use super::shown::{etag, put_checksum_and_type, size};
use crate::auth::Action;
use crate::object::{BodyError, BodyStream, PutOutcome, PutRequest, WriteCondition};

/// Longest object of one PUT, bytes.
pub(crate) const MAX_PUT_BYTES: u64 = 5 << 30;

/// A body as the object path takes it.
pub(crate) fn body_stream(body: Option<StreamingBlob>) -> BodyStream {
    match body {
        None => Box::pin(futures::stream::empty()),
        Some(blob) => Box::pin(blob.map(|item| item.map_err(BodyError))),
    }
}

/// The length that a request declares.
pub(crate) fn declared_len(len: Option<i64>) -> S3Result<Option<u64>> {
    let Some(len) = len else { return Ok(None) };
    let len = u64::try_from(len).map_err(|_| S3Error::new(S3ErrorCode::InvalidArgument))?;
    if len > MAX_PUT_BYTES {
        return Err(S3Error::new(S3ErrorCode::EntityTooLarge));
    }
    Ok(Some(len))
}

/// The condition as the object path takes it. No object has an ETag that is
/// no MD5, so that such a condition fails before anything is read.
pub(crate) fn stored_condition(request: WriteRequest) -> S3Result<WriteCondition> {
    match request {
        WriteRequest::Always => Ok(WriteCondition::None),
        WriteRequest::OnlyNew => Ok(WriteCondition::IfNoneMatchAny),
        WriteRequest::OnlyOver(Some(etag)) => Ok(WriteCondition::IfMatch(etag)),
        WriteRequest::OnlyOver(None) => Err(S3Error::new(S3ErrorCode::PreconditionFailed)),
    }
}

/// Stores an object.
pub(crate) async fn put_object(
    operations: &Operations,
    request: S3Request<PutObjectInput>,
) -> S3Result<S3Response<PutObjectOutput>> {
    refuse_unkept_promises(&request.headers)?;
    check_key(&request.input.key)?;
    let checksum = requested(&request.headers, request.trailing_headers.as_ref())?;
    let content_md5 = content_md5(&request.headers)?;
    let condition = stored_condition(write_condition(&request.headers)?)?;
    let input = request.input;
    let len = declared_len(input.content_length)?;
    let detail = Described {
        content_type: input.content_type,
        content_encoding: input.content_encoding,
        content_disposition: input.content_disposition,
        content_language: input.content_language,
        cache_control: input.cache_control,
        expires: input.expires,
        website_redirect: input.website_redirect_location,
        user: input.metadata,
    }
    .into_row()?;
    let put = PutRequest {
        bucket: operations.bucket(&input.bucket).await?,
        key: input.key,
        class: class_of(input.storage_class),
        detail,
        len,
        checksum,
        content_md5,
        condition,
    };
    let stored = operations
        .objects
        .put_object(put, body_stream(input.body))
        .await;
    let stored = stored.map_err(s3_error_of)?;
    let mut output = PutObjectOutput {
        e_tag: Some(etag(&stored.etag)),
        ..PutObjectOutput::default()
    };
    put_checksum_and_type!(output, stored.checksum.as_ref(), 0);
    Ok(S3Response::new(output))
}

/// Stores an object that a browser sends as a form. Its key is a field, so
/// that it is authorised here once more, by its name.
pub(crate) async fn post_object(
    operations: &Operations,
    request: S3Request<PostObjectInput>,
) -> S3Result<S3Response<PostObjectOutput>> {
    let (bucket, key) = (&request.input.bucket, &request.input.key);
    check_key(key)?;
    allow_object(&request, Action::PutObject, bucket, key)?;
    refuse_form_promises(&request.input)?;
    let said = headers_of_form(&request.input)?;
    let checksum = requested(&said, None)?;
    let content_md5 = content_md5(&said)?;
    let condition = condition_of_form(&request.input)?;
    let input = request.input;
    let detail = Described {
        content_type: input.content_type,
        content_encoding: input.content_encoding,
        content_disposition: input.content_disposition,
        content_language: input.content_language,
        cache_control: input.cache_control,
        expires: input.expires,
        website_redirect: input.website_redirect_location,
        user: input.metadata,
    }
    .into_row()?;
    let put = PutRequest {
        bucket: operations.bucket(&input.bucket).await?,
        key: input.key,
        class: class_of(input.storage_class),
        detail,
        // The rest of the form gives it; an empty file is given as unknown.
        len: declared_len(input.content_length)?,
        checksum,
        content_md5,
        condition,
    };
    let stored: PutOutcome = operations
        .objects
        .put_object(put, body_stream(input.body))
        .await
        .map_err(s3_error_of)?;
    let mut response = S3Response::new(PostObjectOutput {
        e_tag: Some(etag(&stored.etag)),
        size: Some(size(stored.size)),
        ..PostObjectOutput::default()
    });
    // s3s writes it into the document of a 201 alone.
    if let Ok(etag) = HeaderValue::from_str(&etag_text(&stored.etag)) {
        response.headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

/// What a form's fields say of its file, as the headers of a PUT would.
fn headers_of_form(input: &PostObjectInput) -> S3Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-md5", &input.content_md5),
        ("x-amz-checksum-crc32", &input.checksum_crc32),
        ("x-amz-checksum-crc32c", &input.checksum_crc32c),
        ("x-amz-checksum-crc64nvme", &input.checksum_crc64nvme),
        ("x-amz-checksum-sha1", &input.checksum_sha1),
        ("x-amz-checksum-sha256", &input.checksum_sha256),
        // Refused like the headers.
        ("x-amz-checksum-md5", &input.checksum_md5),
        ("x-amz-checksum-sha512", &input.checksum_sha512),
        ("x-amz-checksum-xxhash3", &input.checksum_xxhash3),
        ("x-amz-checksum-xxhash64", &input.checksum_xxhash64),
        ("x-amz-checksum-xxhash128", &input.checksum_xxhash128),
    ] {
        if let Some(value) = value {
            let value = HeaderValue::from_str(value)
                .map_err(|_| S3Error::new(S3ErrorCode::InvalidArgument))?;
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

/// A form may ask that nothing is overwritten.
fn condition_of_form(input: &PostObjectInput) -> S3Result<WriteCondition> {
    match (&input.if_match, &input.if_none_match) {
        (None, None) => Ok(WriteCondition::None),
        (None, Some(ETagCondition::Any)) => Ok(WriteCondition::IfNoneMatchAny),
        _ => Err(S3Error::new(S3ErrorCode::NotImplemented)),
    }
}

/// Fields of a form that would promise what is not kept.
fn refuse_form_promises(input: &PostObjectInput) -> S3Result<()> {
    let promised = input.server_side_encryption.is_some()
        || input.sse_customer_algorithm.is_some()
        || input.sse_customer_key.is_some()
        || input.object_lock_mode.is_some()
        || input.object_lock_legal_hold_status.is_some()
        || input.object_lock_retain_until_date.is_some()
        || input.tagging.is_some();
    if promised {
        return Err(S3Error::new(S3ErrorCode::NotImplemented));
    }
    let grants = [
        &input.grant_full_control,
        &input.grant_read,
        &input.grant_read_acp,
        &input.grant_write_acp,
    ];
    if grants.iter().any(|grant| grant.is_some()) {
        return Err(S3Error::new(S3ErrorCode::AccessControlListNotSupported));
    }
    match input.acl.as_ref().map(ObjectCannedACL::as_str) {
        None | Some("private" | "bucket-owner-full-control" | "bucket-owner-read") => Ok(()),
        Some(_) => Err(S3Error::new(S3ErrorCode::AccessControlListNotSupported)),
    }
}

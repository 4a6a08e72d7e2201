//! CopyObject and UploadPartCopy.
//!
//! The source is authorised as a read of its own, and judged by conditions of
//! its own, before anything is written.

use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use shardgate_catalog::model::{ChecksumAlgorithm, DetailRow};

use super::access::allow_object;
use super::checksum::parse_algorithm;
use super::conditions::{ON_COPY_SOURCE, ReadConditions, Verdict, write_condition};
use super::copy_source::{CopySource as Source, copy_source};
use super::error::s3_error_of;
use super::metadata::{Described, class_of, refuse_unkept_promises};
use super::multipart::{part_number, upload_id};
use super::names::check_key;
use super::object_write::{MAX_PUT_BYTES, stored_condition};
use super::range::RangeRequest;
use super::repair::original_headers;
use super::service::{Operations, check_version};
use super::shown::{etag, part_etag, put_checksum, put_checksum_and_type, timestamp};
use super::store::OpenedObject;
use crate::auth::Action;
use crate::object::{ChecksumRequest, ExpectedDigest, PartRequest, PutRequest};

/// Opens the source of a copy, if the requester may read it.
async fn open_source<T>(
    operations: &Operations,
    request: &S3Request<T>,
) -> S3Result<(Source, Box<dyn OpenedObject>)> {
    let headers = original_headers(request);
    let source = copy_source(headers)?;
    let action = match source.version {
        Some(_) => Action::GetObjectVersion,
        None => Action::GetObject,
    };
    allow_object(request, action, &source.bucket, &source.key)?;
    check_version(source.version.as_deref())?;
    let bucket = operations.bucket(&source.bucket).await?;
    let opened = operations.objects.open_object(&bucket, &source.key).await;
    let opened = opened.map_err(s3_error_of)?;
    let row = opened.row();
    let conditions = ReadConditions::read(headers, ON_COPY_SOURCE);
    if conditions.judge(&row.etag, row.modified) != Verdict::Proceed {
        return Err(S3Error::new(S3ErrorCode::PreconditionFailed));
    }
    Ok((source, opened))
}

/// Copies an object.
pub(crate) async fn copy_object(
    operations: &Operations,
    request: S3Request<CopyObjectInput>,
) -> S3Result<S3Response<CopyObjectOutput>> {
    refuse_unkept_promises(&request.headers)?;
    check_key(&request.input.key)?;
    let condition = stored_condition(write_condition(&request.headers)?)?;
    let bucket = operations.bucket(&request.input.bucket).await?;
    let (source, opened) = open_source(operations, &request).await?;
    let input = request.input;
    let replace = match input
        .metadata_directive
        .as_ref()
        .map(MetadataDirective::as_str)
    {
        None | Some(MetadataDirective::COPY) => false,
        Some(MetadataDirective::REPLACE) => true,
        Some(_) => return Err(s3_error!(InvalidArgument, "Unknown metadata directive.")),
    };
    let onto_itself = source.bucket == input.bucket && source.key == input.key;
    let changes = replace
        || input.storage_class.is_some()
        || input.website_redirect_location.is_some()
        || input.checksum_algorithm.is_some();
    if onto_itself && !changes {
        return Err(s3_error!(
            InvalidRequest,
            "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes."
        ));
    }
    if opened.row().size > MAX_PUT_BYTES {
        return Err(s3_error!(
            InvalidRequest,
            "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120"
        ));
    }
    let checksum = checksum_of_copy(input.checksum_algorithm.as_ref(), &*opened)?;
    let detail = detail_of_copy(&input, replace, &*opened).await?;
    let put = PutRequest {
        bucket,
        key: input.key,
        class: class_of(input.storage_class),
        detail,
        len: None,
        checksum,
        content_md5: None,
        condition,
    };
    let stored = operations.objects.copy_object(opened, put).await;
    let stored = stored.map_err(s3_error_of)?;
    let mut result = CopyObjectResult {
        e_tag: Some(etag(&stored.etag)),
        last_modified: Some(timestamp(stored.modified)),
        ..CopyObjectResult::default()
    };
    put_checksum_and_type!(result, stored.checksum.as_ref(), 0);
    Ok(S3Response::new(CopyObjectOutput {
        copy_object_result: Some(result),
        ..CopyObjectOutput::default()
    }))
}

/// The checksum that the copy will have: what is asked for, else of the
/// algorithm that the source has.
fn checksum_of_copy(
    asked: Option<&s3s::dto::ChecksumAlgorithm>,
    source: &dyn OpenedObject,
) -> S3Result<Option<ChecksumRequest>> {
    let algorithm: Option<ChecksumAlgorithm> = match asked {
        Some(name) => Some(parse_algorithm(name.as_str())?),
        None => source
            .row()
            .checksum
            .as_ref()
            .map(|stored| stored.algorithm),
    };
    Ok(algorithm.map(|algorithm| ChecksumRequest {
        algorithm,
        expected: ExpectedDigest::Unknown,
    }))
}

async fn detail_of_copy(
    input: &CopyObjectInput,
    replace: bool,
    source: &dyn OpenedObject,
) -> S3Result<DetailRow> {
    if replace {
        return Described {
            content_type: input.content_type.clone(),
            content_encoding: input.content_encoding.clone(),
            content_disposition: input.content_disposition.clone(),
            content_language: input.content_language.clone(),
            cache_control: input.cache_control.clone(),
            expires: input.expires.clone(),
            website_redirect: input.website_redirect_location.clone(),
            user: input.metadata.clone(),
        }
        .into_row();
    }
    let mut detail = DetailRow::default();
    if source.row().has_detail {
        detail = source.detail().await.map_err(s3_error_of)?;
    }
    // A redirect is not copied; it is given anew or there is none.
    let redirect = Described {
        website_redirect: input.website_redirect_location.clone(),
        ..Described::default()
    };
    detail.website_redirect = redirect.into_row()?.website_redirect;
    Ok(detail)
}

/// Copies bytes of an object into a part.
pub(crate) async fn upload_part_copy(
    operations: &Operations,
    request: S3Request<UploadPartCopyInput>,
) -> S3Result<S3Response<UploadPartCopyOutput>> {
    refuse_unkept_promises(&request.headers)?;
    check_key(&request.input.key)?;
    let number = part_number(request.input.part_number)?;
    let upload = upload_id(&request.input.upload_id)?;
    let bucket = operations.bucket(&request.input.bucket).await?;
    let (_, opened) = open_source(operations, &request).await?;
    let input = request.input;
    let bytes = source_range(input.copy_source_range.as_deref(), opened.row().size)?;
    if bytes.end - bytes.start > MAX_PUT_BYTES {
        return Err(S3Error::new(S3ErrorCode::EntityTooLarge));
    }
    let part = PartRequest {
        bucket,
        key: input.key,
        upload,
        number,
        len: None,
        checksum: None,
        content_md5: None,
    };
    let stored = operations.objects.copy_part(opened, bytes, part).await;
    let stored = stored.map_err(s3_error_of)?;
    let mut result = CopyPartResult {
        e_tag: Some(part_etag(&stored.md5)),
        last_modified: Some(timestamp(stored.modified)),
        ..CopyPartResult::default()
    };
    put_checksum!(result, stored.checksum.as_ref(), 0);
    Ok(S3Response::new(UploadPartCopyOutput {
        copy_part_result: Some(result),
        ..UploadPartCopyOutput::default()
    }))
}

/// The bytes of `x-amz-copy-source-range`: unlike a read's range it must name
/// both ends and lie inside of the source.
fn source_range(header: Option<&str>, size: u64) -> S3Result<std::ops::Range<u64>> {
    let Some(header) = header else {
        return Ok(0..size);
    };
    match RangeRequest::parse(header.as_bytes()) {
        RangeRequest::FromTo(first, last) if last < size => Ok(first..last + 1),
        RangeRequest::FromTo(..) => Err(s3_error!(
            InvalidArgument,
            "Range specified is not valid for source object of size: {size}"
        )),
        _ => Err(s3_error!(
            InvalidArgument,
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // ATTACKS 87: hostile ranges of a copy.
    #[test]
    fn a_source_range_names_both_ends_inside() {
        for (header, expected) in [
            (None, Some(0..10)),
            (Some("bytes=0-9"), Some(0..10)),
            (Some("bytes=3-5"), Some(3..6)),
            (Some("bytes=0-10"), None),
            (Some("bytes=5-"), None),
            (Some("bytes=-5"), None),
            (Some("bytes=5-3"), None),
            (Some("bytes=0-99999999999999999999"), None),
            (Some("0-5"), None),
        ] {
            assert_eq!(source_range(header, 10).ok(), expected, "{header:?}");
        }
        assert_eq!(source_range(None, 0).ok(), Some(0..0));
    }
}

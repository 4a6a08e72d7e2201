//! Multipart uploads: begin, parts, complete, abort.

use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use shardgate_catalog::model::ChecksumKind;
use shardgate_wire::VersionUid;

use super::access::principal_of;
use super::checksum::{
    ALGORITHMS, algorithm_name, check_kind, content_md5, default_kind, header_digest, kind_name,
    parse_algorithm, parse_digest, parse_kind, requested,
};
use super::conditions::{parse_etag, write_condition};
use super::encode::{path_encode, xml_text};
use super::error::s3_error_of;
use super::metadata::{Described, class_of, refuse_unkept_promises};
use super::names::check_key;
use super::object_write::{body_stream, declared_len, stored_condition};
use super::service::Operations;
use super::shown::{etag, part_etag, put_checksum, put_checksum_and_type};
use crate::object::{CompleteRequest, PartChoice, PartRequest, UploadRequest};

/// Most parts of an object.
const MAX_PARTS: u16 = 10_000;

/// An upload id; what is none was never given out.
pub(crate) fn upload_id(text: &str) -> S3Result<VersionUid> {
    text.parse()
        .map_err(|_| S3Error::new(S3ErrorCode::NoSuchUpload))
}

/// A part's number.
pub(crate) fn part_number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number).ok();
    number
        .filter(|number| (1..=MAX_PARTS).contains(number))
        .ok_or_else(|| {
            s3_error!(
                InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive"
            )
        })
}

/// Begins an upload.
pub(crate) async fn create_multipart_upload(
    operations: &Operations,
    request: S3Request<CreateMultipartUploadInput>,
) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
    refuse_unkept_promises(&request.headers)?;
    check_key(&request.input.key)?;
    let owner = operations.owners.id_of(&principal_of(&request));
    let input = request.input;
    let checksum = match (&input.checksum_algorithm, &input.checksum_type) {
        (None, None) => None,
        (None, Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "x-amz-checksum-type needs x-amz-checksum-algorithm"
            ));
        }
        (Some(name), kind) => {
            let algorithm = parse_algorithm(name.as_str())?;
            let kind = match kind {
                Some(kind) => parse_kind(kind.as_str())?,
                None => default_kind(algorithm),
            };
            check_kind(algorithm, kind)?;
            Some((algorithm, kind))
        }
    };
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
    let upload = UploadRequest {
        bucket: operations.bucket(&input.bucket).await?,
        key: input.key.clone(),
        owner,
        class: class_of(input.storage_class),
        detail,
        checksum,
    };
    let uid = operations.objects.create_upload(upload).await;
    let uid = uid.map_err(s3_error_of)?;
    let shown = checksum.map(|(algorithm, kind)| {
        (
            ChecksumAlgorithm::from_static(algorithm_name(algorithm)),
            ChecksumType::from_static(kind_name(kind)),
        )
    });
    let (checksum_algorithm, checksum_type) = shown.unzip();
    Ok(S3Response::new(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(xml_text(&input.key)),
        upload_id: Some(uid.to_string()),
        checksum_algorithm,
        checksum_type,
        ..CreateMultipartUploadOutput::default()
    }))
}

/// Stores a part.
pub(crate) async fn upload_part(
    operations: &Operations,
    request: S3Request<UploadPartInput>,
) -> S3Result<S3Response<UploadPartOutput>> {
    refuse_unkept_promises(&request.headers)?;
    check_key(&request.input.key)?;
    let checksum = requested(&request.headers, request.trailing_headers.as_ref())?;
    let content_md5 = content_md5(&request.headers)?;
    let input = request.input;
    let part = PartRequest {
        number: part_number(input.part_number)?,
        upload: upload_id(&input.upload_id)?,
        len: declared_len(input.content_length)?,
        bucket: operations.bucket(&input.bucket).await?,
        key: input.key,
        checksum,
        content_md5,
    };
    let stored = operations
        .objects
        .put_part(part, body_stream(input.body))
        .await;
    let stored = stored.map_err(s3_error_of)?;
    let mut output = UploadPartOutput {
        e_tag: Some(part_etag(&stored.md5)),
        ..UploadPartOutput::default()
    };
    put_checksum!(output, stored.checksum.as_ref(), 0);
    Ok(S3Response::new(output))
}

/// The parts that a document names. Their order is judged with the upload.
fn choices(document: Option<CompletedMultipartUpload>) -> S3Result<Vec<PartChoice>> {
    let parts = document
        .and_then(|document| document.parts)
        .unwrap_or_default();
    if parts.is_empty() || parts.len() > usize::from(MAX_PARTS) {
        return Err(S3Error::new(S3ErrorCode::MalformedXML));
    }
    parts.iter().map(choice).collect()
}

fn choice(part: &CompletedPart) -> S3Result<PartChoice> {
    let malformed = || S3Error::new(S3ErrorCode::MalformedXML);
    let number = part_number(part.part_number.ok_or_else(malformed)?)?;
    let tag = part.e_tag.as_ref().ok_or_else(malformed)?;
    let md5 = parse_etag(tag.value())
        .filter(|etag| etag.parts == 0)
        .ok_or_else(|| S3Error::new(S3ErrorCode::InvalidPart))?
        .md5;
    let given = [
        &part.checksum_crc32,
        &part.checksum_crc32c,
        &part.checksum_crc64nvme,
        &part.checksum_sha1,
        &part.checksum_sha256,
    ];
    let mut digest = None;
    for ((algorithm, ..), text) in ALGORITHMS.iter().zip(given) {
        if let Some(text) = text {
            digest = Some((*algorithm, parse_digest(*algorithm, text)?));
        }
    }
    Ok(PartChoice {
        number,
        md5,
        digest,
    })
}

/// Makes the object.
pub(crate) async fn complete_multipart_upload(
    operations: &Operations,
    request: S3Request<CompleteMultipartUploadInput>,
) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
    check_key(&request.input.key)?;
    let upload = upload_id(&request.input.upload_id)?;
    let condition = stored_condition(write_condition(&request.headers)?)?;
    let expected = expected_checksum(&request)?;
    let location = location_of(operations, &request);
    let input = request.input;
    let complete = CompleteRequest {
        bucket: operations.bucket(&input.bucket).await?,
        key: input.key.clone(),
        upload,
        parts: choices(input.multipart_upload)?,
        expected,
        expected_size: declared_size(input.mpu_object_size)?,
        condition,
    };
    let completed = operations.objects.complete_upload(complete).await;
    let completed = completed.map_err(s3_error_of)?;
    let mut output = CompleteMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(xml_text(&input.key)),
        location: Some(location),
        e_tag: Some(etag(&completed.etag)),
        ..CompleteMultipartUploadOutput::default()
    };
    put_checksum_and_type!(output, completed.checksum.as_ref(), completed.etag.parts);
    Ok(S3Response::new(output))
}

/// Where the object is, as the client reached it.
fn location_of(
    operations: &Operations,
    request: &S3Request<CompleteMultipartUploadInput>,
) -> String {
    let host = request.headers.get("host");
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let key = path_encode(&request.input.key);
    match operations.names.bucket(host) {
        Some(_) => format!("http://{host}/{key}"),
        None => format!("http://{host}/{}/{key}", request.input.bucket),
    }
}

fn declared_size(size: Option<i64>) -> S3Result<Option<u64>> {
    size.map(|size| u64::try_from(size).map_err(|_| S3Error::new(S3ErrorCode::InvalidArgument)))
        .transpose()
}

type Expected = (
    shardgate_catalog::model::ChecksumAlgorithm,
    ChecksumKind,
    Vec<u8>,
);

/// The checksum that the object must have. A composite may be written with
/// the number of its parts behind it.
fn expected_checksum(
    request: &S3Request<CompleteMultipartUploadInput>,
) -> S3Result<Option<Expected>> {
    let mut headers = request.headers.clone();
    for (_, _, name) in ALGORITHMS {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        let digest = value
            .and_then(|value| value.rsplit_once('-'))
            .map(|(digest, _)| digest.parse());
        if let Some(Ok(digest)) = digest {
            headers.insert(name, digest);
        }
    }
    let Some((algorithm, digest)) = header_digest(&headers)? else {
        return Ok(None);
    };
    let kind = match &request.input.checksum_type {
        Some(kind) => parse_kind(kind.as_str())?,
        None => default_kind(algorithm),
    };
    check_kind(algorithm, kind)?;
    Ok(Some((algorithm, kind, digest)))
}

/// Ends an upload without an object.
pub(crate) async fn abort_multipart_upload(
    operations: &Operations,
    request: S3Request<AbortMultipartUploadInput>,
) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
    let input = request.input;
    check_key(&input.key)?;
    let upload = upload_id(&input.upload_id)?;
    let bucket = operations.bucket(&input.bucket).await?;
    let aborted = operations
        .objects
        .abort_upload(&bucket, &input.key, upload)
        .await;
    aborted.map_err(s3_error_of)?;
    Ok(S3Response::new(AbortMultipartUploadOutput::default()))
}

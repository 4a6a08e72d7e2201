//! GetObject and HeadObject.
//!
//! Both choose the same bytes and the same headers; only GET opens the bytes.
//! A read that fails in the middle ends the connection, so that a client
//! never takes a part for the whole.

use http::{HeaderMap, HeaderValue, header};
use http_body_util::StreamBody;
use s3s::dto::*;
use s3s::{Body, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use shardgate_catalog::model::{DetailRow, PartRow, StoredChecksum, VersionRow};

use super::conditions::{ON_READ, ReadConditions, Verdict, etag_text, http_date, range_stands};
use super::error::{invalid_range, s3_error_of};
use super::metadata::{DEFAULT_CONTENT_TYPE, shown_metadata};
use super::multipart::part_number;
use super::names::check_key;
use super::range::{RangeRequest, Selected};
use super::repair::original_headers;
use super::service::{Operations, check_version};
use super::shown::{etag, put_checksum_and_type, size, timestamp};
use super::store::{OpenedObject, ReadStream};

/// What a read asks for, of GET and HEAD alike.
struct Asked<'a> {
    bucket: &'a str,
    key: &'a str,
    version: Option<&'a str>,
    part: Option<i32>,
    checksums: bool,
}

/// What is to be answered.
struct Chosen {
    object: Box<dyn OpenedObject>,
    detail: DetailRow,
    /// The bytes, and whether they are all there is.
    selected: Selected,
    /// The part, where one was asked for.
    part: Option<PartRow>,
    checksums: bool,
    asked_for_part: bool,
}

async fn choose(
    operations: &Operations,
    asked: Asked<'_>,
    headers: &HeaderMap,
) -> S3Result<Chosen> {
    check_key(asked.key)?;
    let bucket = operations.bucket(asked.bucket).await?;
    check_version(asked.version)?;
    let object = operations.objects.open_object(&bucket, asked.key).await;
    let object = object.map_err(s3_error_of)?;
    let row = object.row();
    let conditions = ReadConditions::read(headers, ON_READ);
    match conditions.judge(&row.etag, row.modified) {
        Verdict::Proceed => {}
        Verdict::Failed => return Err(S3Error::new(S3ErrorCode::PreconditionFailed)),
        Verdict::NotModified => {
            let detail = detail_of(&*object).await?;
            return Err(not_modified(row, &detail));
        }
    }
    let range = headers.get(header::RANGE);
    let (selected, part) = match (range, asked.part) {
        (Some(_), Some(_)) => {
            return Err(s3_error!(
                InvalidRequest,
                "Cannot specify both Range header and partNumber query parameter"
            ));
        }
        (None, Some(number)) => part_range(&*object, number).await?,
        (Some(value), None) if range_stands(headers, &row.etag, row.modified) => {
            let selected = RangeRequest::parse(value.as_bytes()).select(row.size);
            (selected.map_err(|_| invalid_range(row.size))?, None)
        }
        (_, None) => (Selected::All, None),
    };
    let detail = detail_of(&*object).await?;
    Ok(Chosen {
        object,
        detail,
        selected,
        part,
        checksums: asked.checksums,
        asked_for_part: asked.part.is_some(),
    })
}

async fn detail_of(object: &dyn OpenedObject) -> S3Result<DetailRow> {
    if !object.row().has_detail {
        return Ok(DetailRow::default());
    }
    object.detail().await.map_err(s3_error_of)
}

/// The bytes of a part. An object that was put whole has part 1.
async fn part_range(
    object: &dyn OpenedObject,
    number: i32,
) -> S3Result<(Selected, Option<PartRow>)> {
    let part = object
        .part(part_number(number)?)
        .await
        .map_err(s3_error_of)?;
    let selected = match part.len {
        0 => Selected::All,
        len => Selected::Bytes(part.start..part.start + len),
    };
    let of_upload = object.row().etag.parts > 0;
    Ok((selected, of_upload.then_some(part)))
}

/// 304 with the headers that a 200 would have had.
fn not_modified(row: &VersionRow, detail: &DetailRow) -> S3Error {
    let mut headers = HeaderMap::new();
    let mut put = |name, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    put(header::ETAG, &etag_text(&row.etag));
    put(header::LAST_MODIFIED, &http_date(row.modified));
    for (name, value) in [
        (header::CACHE_CONTROL, &detail.cache_control),
        (header::EXPIRES, &detail.expires),
    ] {
        if let Some(value) = value {
            put(name, value);
        }
    }
    let mut error = S3Error::new(S3ErrorCode::NotModified);
    error.set_headers(headers);
    error
}

impl Chosen {
    fn bytes(&self) -> std::ops::Range<u64> {
        match &self.selected {
            Selected::All => 0..self.object.row().size,
            Selected::Bytes(bytes) => bytes.clone(),
        }
    }

    fn content_range(&self) -> Option<String> {
        let Selected::Bytes(bytes) = &self.selected else {
            return None;
        };
        let total = self.object.row().size;
        Some(format!("bytes {}-{}/{total}", bytes.start, bytes.end - 1))
    }

    /// The checksum of what is sent, if it has one and the client asks.
    fn checksum(&self) -> Option<(StoredChecksum, u16)> {
        if !self.checksums {
            return None;
        }
        let row = self.object.row();
        if let Some(part) = &self.part {
            return part.checksum.clone().map(|checksum| (checksum, 0));
        }
        let whole = self.asked_for_part || self.selected == Selected::All;
        row.checksum
            .clone()
            .filter(|_| whole)
            .map(|checksum| (checksum, row.etag.parts))
    }

    fn parts_count(&self) -> Option<i32> {
        let parts = self.object.row().etag.parts;
        (self.asked_for_part && parts > 0).then(|| i32::from(parts))
    }
}

/// The class as HEAD and GET show it: the default one is not named.
fn shown_class(operations: &Operations, row: &VersionRow) -> Option<StorageClass> {
    let name = operations.objects.class_name(row.class);
    (name != StorageClass::STANDARD).then(|| StorageClass::from(name))
}

/// The fields that the outputs of GET and HEAD have in common.
macro_rules! describe {
    ($output:ident, $operations:expr, $chosen:expr) => {{
        let row = $chosen.object.row();
        let bytes = $chosen.bytes();
        let mut output = $output {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(size(bytes.end - bytes.start)),
            content_range: $chosen.content_range(),
            e_tag: Some(etag(&row.etag)),
            last_modified: Some(timestamp(row.modified)),
            metadata: shown_metadata(&$chosen.detail),
            parts_count: $chosen.parts_count(),
            storage_class: shown_class($operations, row),
            ..$output::default()
        };
        if let Some((checksum, parts)) = $chosen.checksum() {
            put_checksum_and_type!(output, Some(&checksum), parts);
        }
        let detail = &mut $chosen.detail;
        let content_type = detail.content_type.take();
        output.content_type = Some(content_type.unwrap_or_else(|| DEFAULT_CONTENT_TYPE.to_owned()));
        output.content_encoding = detail.content_encoding.take();
        output.content_disposition = detail.content_disposition.take();
        output.content_language = detail.content_language.take();
        output.cache_control = detail.cache_control.take();
        output.expires = detail.expires.take();
        output.website_redirect_location = detail.website_redirect.take();
        output
    }};
}

/// The object's bytes, or those of a range or a part.
pub(crate) async fn get_object(
    operations: &Operations,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    let input = &request.input;
    let asked = Asked {
        bucket: &input.bucket,
        key: &input.key,
        version: input.version_id.as_deref(),
        part: input.part_number,
        checksums: wants_checksums(input.checksum_mode.as_ref()),
    };
    let mut chosen = choose(operations, asked, original_headers(&request)).await?;
    let mut output = describe!(GetObjectOutput, operations, chosen);
    let bytes = chosen.bytes();
    let len = bytes.end - bytes.start;
    let stream = chosen.object.read(bytes).await.map_err(s3_error_of)?;
    output.body = Some(body_of(stream, len));
    Ok(S3Response::new(output))
}

fn wants_checksums(mode: Option<&ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str().eq_ignore_ascii_case(ChecksumMode::ENABLED))
}

/// A stream as an answer's body. A failure is logged here: the client sees
/// only that the connection ends.
fn body_of(stream: ReadStream, len: u64) -> StreamingBlob {
    use futures::StreamExt as _;
    if len == 0 {
        return StreamingBlob::from_bytes(bytes::Bytes::new());
    }
    let frames = stream.map(|item| match item {
        Ok(bytes) => Ok(http_body::Frame::data(bytes)),
        Err(error) => {
            tracing::error!(%error, "a read failed after its answer had begun");
            Err(std::io::Error::other(error))
        }
    });
    StreamingBlob::from(Body::http_body_unsync(StreamBody::new(frames)))
}

/// The headers that GetObject would answer with.
pub(crate) async fn head_object(
    operations: &Operations,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    let input = &request.input;
    let asked = Asked {
        bucket: &input.bucket,
        key: &input.key,
        version: input.version_id.as_deref(),
        part: input.part_number,
        checksums: wants_checksums(input.checksum_mode.as_ref()),
    };
    let mut chosen = choose(operations, asked, original_headers(&request)).await?;
    let output = describe!(HeadObjectOutput, operations, chosen);
    let mut response = S3Response::new(output);
    response.headers = overridden(&request.input)?;
    Ok(response)
}

/// `response-*` of a HEAD; s3s knows them for GET only.
fn overridden(input: &HeadObjectInput) -> S3Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::CACHE_CONTROL, &input.response_cache_control),
        (
            header::CONTENT_DISPOSITION,
            &input.response_content_disposition,
        ),
        (header::CONTENT_ENCODING, &input.response_content_encoding),
        (header::CONTENT_LANGUAGE, &input.response_content_language),
        (header::CONTENT_TYPE, &input.response_content_type),
    ] {
        if let Some(value) = value {
            let value = value
                .parse()
                .map_err(|_| s3_error!(InvalidRequest, "invalid overridden header: {name}"))?;
            headers.insert(name, value);
        }
    }
    if let Some(expires) = &input.response_expires {
        let mut text = Vec::new();
        let written = expires.format(TimestampFormat::HttpDate, &mut text);
        let value = written
            .ok()
            .and_then(|()| HeaderValue::from_bytes(&text).ok());
        headers.extend(value.map(|value| (header::EXPIRES, value)));
    }
    Ok(headers)
}

//! ListMultipartUploads and ListParts.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};
use shardgate_catalog::model::{UploadPartRow, UploadRow};
use shardgate_catalog::{UploadEntry, UploadsFrom, UploadsQuery};

use super::checksum::{algorithm_name, kind_name};
use super::encode::{NameEncoding, xml_text};
use super::list::{asks_for_url, page_limit, shown_encoding};
use super::multipart::upload_id;
use super::names::check_key;
use super::service::{Operations, catalog_error};
use super::shown::{part_etag, put_checksum, size, timestamp};

fn shown_checksum(row: &UploadRow) -> (Option<ChecksumAlgorithm>, Option<ChecksumType>) {
    row.checksum
        .map(|(algorithm, kind)| {
            (
                ChecksumAlgorithm::from_static(algorithm_name(algorithm)),
                ChecksumType::from_static(kind_name(kind)),
            )
        })
        .unzip()
}

/// Where a listing of uploads begins.
fn uploads_from(
    prefix: &str,
    delimiter: Option<&str>,
    key_marker: &str,
    upload_marker: Option<&str>,
) -> Option<UploadsFrom> {
    if key_marker.is_empty() {
        return None;
    }
    // An upload marker that is no id stands behind all uploads of the key.
    match upload_marker.and_then(|marker| upload_id(marker).ok()) {
        Some(upload) => Some(UploadsFrom::Upload(key_marker.to_owned(), upload)),
        None => Some(UploadsFrom::marker(prefix, delimiter, key_marker)),
    }
}

/// Uploads that are open, by key and then by id.
pub(crate) async fn list_multipart_uploads(
    operations: &Operations,
    request: S3Request<ListMultipartUploadsInput>,
) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
    let input = request.input;
    let limit = page_limit(input.max_uploads, "max-uploads")?;
    let url = asks_for_url(input.encoding_type.as_ref())?;
    let bucket = operations.bucket(&input.bucket).await?;
    let prefix = input.prefix.unwrap_or_default();
    let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
    let key_marker = input.key_marker.unwrap_or_default();
    let upload_marker = input.upload_id_marker.filter(|marker| !marker.is_empty());
    let query = UploadsQuery {
        prefix: prefix.clone(),
        delimiter: delimiter.clone(),
        from: uploads_from(
            &prefix,
            delimiter.as_deref(),
            &key_marker,
            upload_marker.as_deref(),
        ),
        limit,
    };
    let (mut entries, mut next) = (Vec::new(), None);
    if limit > 0 {
        let page = operations
            .catalog
            .list_uploads(bucket.incarnation, &query)
            .await;
        let page = page.map_err(catalog_error)?;
        (entries, next) = (page.entries, page.next);
    }
    let names = entries.iter().map(|entry| match entry {
        UploadEntry::Upload(key, _) | UploadEntry::Prefix(key) => key.as_str(),
    });
    let given = [prefix.as_str(), key_marker.as_str()];
    let given = given.into_iter().chain(delimiter.as_deref());
    let encoding = NameEncoding::choose(url, names.chain(given));
    let (next_key, next_upload) = match &next {
        None => (None, None),
        Some(UploadsFrom::Upload(key, upload)) => (Some(key), Some(upload.to_string())),
        Some(UploadsFrom::Key(key) | UploadsFrom::CommonPrefix(key)) => (Some(key), None),
    };
    let mut output = ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        delimiter: delimiter.map(|delimiter| encoding.apply(&delimiter)),
        encoding_type: shown_encoding(encoding),
        is_truncated: Some(next.is_some()),
        key_marker: Some(encoding.apply(&key_marker)),
        max_uploads: Some(limit as i32),
        next_key_marker: next_key.map(|key| encoding.apply(key)),
        next_upload_id_marker: next_upload,
        prefix: Some(encoding.apply(&prefix)),
        upload_id_marker: Some(xml_text(&upload_marker.unwrap_or_default())),
        ..ListMultipartUploadsOutput::default()
    };
    let mut uploads = Vec::new();
    let mut prefixes = Vec::new();
    for entry in entries {
        match entry {
            UploadEntry::Upload(key, row) => {
                uploads.push(shown_upload(operations, encoding.apply(&key), &row));
            }
            UploadEntry::Prefix(prefix) => prefixes.push(CommonPrefix {
                prefix: Some(encoding.apply(&prefix)),
            }),
        }
    }
    output.uploads = Some(uploads);
    output.common_prefixes = Some(prefixes);
    Ok(S3Response::new(output))
}

fn shown_upload(operations: &Operations, key: String, row: &UploadRow) -> MultipartUpload {
    let (checksum_algorithm, checksum_type) = shown_checksum(row);
    MultipartUpload {
        checksum_algorithm,
        checksum_type,
        initiated: Some(timestamp(row.initiated)),
        initiator: Some(operations.owners.initiator(&row.owner)),
        key: Some(key),
        owner: Some(operations.owners.shown(&row.owner)),
        storage_class: Some(StorageClass::from(operations.objects.class_name(row.class))),
        upload_id: Some(row.uid.to_string()),
    }
}

/// The parts of an upload, by number.
pub(crate) async fn list_parts(
    operations: &Operations,
    request: S3Request<ListPartsInput>,
) -> S3Result<S3Response<ListPartsOutput>> {
    let input = request.input;
    check_key(&input.key)?;
    let limit = page_limit(input.max_parts, "max-parts")?;
    let uid = upload_id(&input.upload_id)?;
    let after = input.part_number_marker.unwrap_or(0);
    let after = u16::try_from(after.max(0)).unwrap_or(u16::MAX);
    let bucket = operations.bucket(&input.bucket).await?;
    let incarnation = bucket.incarnation;
    let row = operations
        .catalog
        .upload(incarnation, &input.key, uid)
        .await;
    let row = row.map_err(catalog_error)?;
    // One more than is shown tells whether there are more.
    let parts = operations
        .catalog
        .list_parts(incarnation, &input.key, uid, after, limit + 1)
        .await;
    let mut parts: Vec<UploadPartRow> = parts.map_err(catalog_error)?;
    let more = limit > 0 && parts.len() > limit;
    parts.truncate(limit);
    let last = parts.last().map_or(after, |part| part.number);
    let (checksum_algorithm, checksum_type) = shown_checksum(&row);
    Ok(S3Response::new(ListPartsOutput {
        bucket: Some(input.bucket),
        checksum_algorithm,
        checksum_type,
        initiator: Some(operations.owners.initiator(&row.owner)),
        is_truncated: Some(more),
        key: Some(xml_text(&input.key)),
        max_parts: Some(limit as i32),
        next_part_number_marker: Some(i32::from(last)),
        owner: Some(operations.owners.shown(&row.owner)),
        part_number_marker: Some(i32::from(after)),
        parts: Some(parts.iter().map(shown_part).collect()),
        storage_class: Some(StorageClass::from(operations.objects.class_name(row.class))),
        upload_id: Some(input.upload_id),
        ..ListPartsOutput::default()
    }))
}

fn shown_part(row: &UploadPartRow) -> Part {
    let mut part = Part {
        e_tag: Some(part_etag(&row.md5)),
        last_modified: Some(timestamp(row.modified)),
        part_number: Some(i32::from(row.number)),
        size: Some(size(row.len)),
        ..Part::default()
    };
    put_checksum!(part, row.checksum.as_ref(), 0);
    part
}

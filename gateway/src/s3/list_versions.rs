//! ListObjectVersions: every object has one version, the null version.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result};
use shardgate_catalog::{ListEntry, ListFrom, ListQuery};

use super::encode::{NameEncoding, xml_text};
use super::list::{asks_for_url, marker_of, names, page_limit, shown_encoding};
use super::service::{Operations, catalog_error};
use super::shown::{etag, size, timestamp};

/// Lists the null version of each key.
pub(crate) async fn list_object_versions(
    operations: &Operations,
    request: S3Request<ListObjectVersionsInput>,
) -> S3Result<S3Response<ListObjectVersionsOutput>> {
    let input = request.input;
    let limit = page_limit(input.max_keys, "max-keys")?;
    let url = asks_for_url(input.encoding_type.as_ref())?;
    let bucket = operations.catalog.bucket(&input.bucket).await;
    let bucket = bucket.map_err(catalog_error)?;
    let prefix = input.prefix.unwrap_or_default();
    let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
    let marker = input.key_marker.unwrap_or_default();
    let query = ListQuery {
        prefix: prefix.clone(),
        delimiter: delimiter.clone(),
        from: (!marker.is_empty())
            .then(|| ListFrom::marker(&prefix, delimiter.as_deref(), &marker)),
        limit,
    };
    let mut entries = Vec::new();
    let mut next = None;
    if limit > 0 {
        let page = operations
            .catalog
            .list_objects(bucket.incarnation, &query)
            .await;
        let page = page.map_err(catalog_error)?;
        entries = page.entries;
        next = page.next;
    }
    let given = [prefix.as_str(), marker.as_str()];
    let given = given.into_iter().chain(delimiter.as_deref());
    let encoding = NameEncoding::choose(url, names(&entries).chain(given));
    let next_key = next.as_ref().map(|next| encoding.apply(marker_of(next)));
    let mut versions = Vec::new();
    let mut prefixes = Vec::new();
    for entry in entries {
        match entry {
            ListEntry::Object(key, row) => versions.push(ObjectVersion {
                e_tag: Some(etag(&row.etag)),
                is_latest: Some(true),
                key: Some(encoding.apply(&key)),
                last_modified: Some(timestamp(row.modified)),
                owner: Some(operations.owners.shown(&bucket.owner)),
                size: Some(size(row.size)),
                storage_class: Some(ObjectVersionStorageClass::from(
                    operations.objects.class_name(row.class),
                )),
                version_id: Some("null".to_owned()),
                ..ObjectVersion::default()
            }),
            ListEntry::Prefix(prefix) => prefixes.push(CommonPrefix {
                prefix: Some(encoding.apply(&prefix)),
            }),
        }
    }
    Ok(S3Response::new(ListObjectVersionsOutput {
        common_prefixes: Some(prefixes),
        delimiter: delimiter.map(|delimiter| encoding.apply(&delimiter)),
        encoding_type: shown_encoding(encoding),
        is_truncated: Some(next_key.is_some()),
        key_marker: Some(encoding.apply(&marker)),
        max_keys: Some(limit as i32),
        name: Some(input.bucket),
        next_version_id_marker: next_key.as_ref().map(|_| "null".to_owned()),
        next_key_marker: next_key,
        prefix: Some(encoding.apply(&prefix)),
        version_id_marker: input.version_id_marker.as_deref().map(xml_text),
        versions: Some(versions),
        ..ListObjectVersionsOutput::default()
    }))
}

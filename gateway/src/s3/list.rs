//! ListObjects, first and second version.
//!
//! Both are one page of the catalog, written differently. A page costs what
//! it returns: the catalog seeks past common prefixes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use shardgate_catalog::model::VersionRow;
use shardgate_catalog::{ListEntry, ListFrom, ListPage, ListQuery};
use shardgate_wire::BucketIncarnation;

use super::checksum::{algorithm_name, kind_name};
use super::encode::NameEncoding;
use super::service::{Operations, catalog_error};
use super::shown::{etag, size, timestamp};

/// Most entries of a page.
const MAX_KEYS: i32 = 1000;

/// How many entries a request asks for.
pub(crate) fn page_limit(asked: Option<i32>, name: &str) -> S3Result<usize> {
    match asked {
        None => Ok(MAX_KEYS as usize),
        Some(count) if count < 0 => Err(s3_error!(
            InvalidArgument,
            "Argument {name} must be an integer between 0 and 2147483647"
        )),
        Some(count) => Ok(count.min(MAX_KEYS) as usize),
    }
}

/// Whether names are to be url-encoded.
pub(crate) fn asks_for_url(encoding: Option<&EncodingType>) -> S3Result<bool> {
    match encoding.map(EncodingType::as_str) {
        None | Some("") => Ok(false),
        Some(EncodingType::URL) => Ok(true),
        Some(_) => Err(s3_error!(
            InvalidArgument,
            "Invalid Encoding Method specified in Request"
        )),
    }
}

/// A page of keys; an empty one where none is asked for.
async fn page(
    operations: &Operations,
    incarnation: BucketIncarnation,
    query: ListQuery,
) -> S3Result<ListPage> {
    if query.limit == 0 {
        return Ok(ListPage {
            entries: Vec::new(),
            next: None,
        });
    }
    let page = operations.catalog.list_objects(incarnation, &query).await;
    page.map_err(catalog_error)
}

/// The names on a page, for the choice of their encoding.
pub(crate) fn names(entries: &[ListEntry]) -> impl Iterator<Item = &str> {
    entries.iter().map(|entry| match entry {
        ListEntry::Object(key, _) | ListEntry::Prefix(key) => key.as_str(),
    })
}

/// The entries of a page as S3 writes them.
struct Written {
    contents: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
}

impl Written {
    fn of(
        operations: &Operations,
        entries: Vec<ListEntry>,
        encoding: NameEncoding,
        shown_owner: Option<&str>,
    ) -> Self {
        let mut written = Self {
            contents: Vec::with_capacity(entries.len()),
            prefixes: Vec::new(),
        };
        for entry in entries {
            match entry {
                ListEntry::Object(key, row) => {
                    let mut object = shown_object(operations, &row);
                    object.key = Some(encoding.apply(&key));
                    object.owner = shown_owner.map(|owner| operations.owners.shown(owner));
                    written.contents.push(object);
                }
                ListEntry::Prefix(prefix) => written.prefixes.push(CommonPrefix {
                    prefix: Some(encoding.apply(&prefix)),
                }),
            }
        }
        written
    }
}

fn shown_object(operations: &Operations, row: &VersionRow) -> Object {
    let class = operations.objects.class_name(row.class);
    let checksum = row.checksum.as_ref();
    Object {
        checksum_algorithm: checksum.map(|stored| {
            vec![ChecksumAlgorithm::from_static(algorithm_name(
                stored.algorithm,
            ))]
        }),
        checksum_type: checksum.map(|stored| ChecksumType::from_static(kind_name(stored.kind))),
        e_tag: Some(etag(&row.etag)),
        last_modified: Some(timestamp(row.modified)),
        size: Some(size(row.size)),
        storage_class: Some(ObjectStorageClass::from(class)),
        ..Object::default()
    }
}

/// Where a page ends, as a marker that the next request gives.
pub(crate) fn marker_of(next: &ListFrom) -> &str {
    match next {
        ListFrom::Key(key) | ListFrom::CommonPrefix(key) => key,
    }
}

/// ListObjects as it was first.
pub(crate) async fn list_objects(
    operations: &Operations,
    request: S3Request<ListObjectsInput>,
) -> S3Result<S3Response<ListObjectsOutput>> {
    let input = request.input;
    let limit = page_limit(input.max_keys, "max-keys")?;
    let url = asks_for_url(input.encoding_type.as_ref())?;
    let bucket = operations.catalog.bucket(&input.bucket).await;
    let bucket = bucket.map_err(catalog_error)?;
    let prefix = input.prefix.unwrap_or_default();
    let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
    let marker = input.marker.unwrap_or_default();
    let from =
        (!marker.is_empty()).then(|| ListFrom::marker(&prefix, delimiter.as_deref(), &marker));
    let query = ListQuery {
        prefix: prefix.clone(),
        delimiter: delimiter.clone(),
        from,
        limit,
    };
    let page = page(operations, bucket.incarnation, query).await?;
    let given = [prefix.as_str(), marker.as_str()];
    let given = given.into_iter().chain(delimiter.as_deref());
    let encoding = NameEncoding::choose(url, names(&page.entries).chain(given));
    let next = page
        .next
        .as_ref()
        .map(|next| encoding.apply(marker_of(next)));
    let written = Written::of(operations, page.entries, encoding, Some(&bucket.owner));
    Ok(S3Response::new(ListObjectsOutput {
        name: Some(input.bucket),
        prefix: Some(encoding.apply(&prefix)),
        marker: Some(encoding.apply(&marker)),
        max_keys: Some(limit as i32),
        is_truncated: Some(next.is_some()),
        next_marker: next,
        contents: Some(written.contents),
        common_prefixes: Some(written.prefixes),
        delimiter: delimiter.map(|delimiter| encoding.apply(&delimiter)),
        encoding_type: shown_encoding(encoding),
        request_charged: None,
    }))
}

/// `EncodingType` of an answer.
pub(crate) fn shown_encoding(encoding: NameEncoding) -> Option<EncodingType> {
    encoding
        .is_url()
        .then(|| EncodingType::from_static(EncodingType::URL))
}

/// A place in a list as an opaque token.
fn write_token(from: &ListFrom) -> String {
    let (kind, name) = match from {
        ListFrom::Key(key) => ('k', key),
        ListFrom::CommonPrefix(prefix) => ('p', prefix),
    };
    URL_SAFE_NO_PAD.encode(format!("{kind}{name}"))
}

fn read_token(token: &str) -> S3Result<ListFrom> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let place = text
        .as_deref()
        .and_then(|text| match text.split_at_checked(1)? {
            ("k", key) => Some(ListFrom::Key(key.to_owned())),
            ("p", prefix) => Some(ListFrom::CommonPrefix(prefix.to_owned())),
            _ => None,
        });
    place.ok_or_else(|| {
        s3_error!(
            InvalidArgument,
            "The continuation token provided is incorrect"
        )
    })
}

/// ListObjectsV2.
pub(crate) async fn list_objects_v2(
    operations: &Operations,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let input = request.input;
    let limit = page_limit(input.max_keys, "max-keys")?;
    let url = asks_for_url(input.encoding_type.as_ref())?;
    let bucket = operations.catalog.bucket(&input.bucket).await;
    let bucket = bucket.map_err(catalog_error)?;
    let prefix = input.prefix.unwrap_or_default();
    let delimiter = input.delimiter.filter(|delimiter| !delimiter.is_empty());
    let start_after = input.start_after.unwrap_or_default();
    let from = match &input.continuation_token {
        Some(token) => Some(read_token(token)?),
        None if start_after.is_empty() => None,
        None => Some(ListFrom::marker(
            &prefix,
            delimiter.as_deref(),
            &start_after,
        )),
    };
    let query = ListQuery {
        prefix: prefix.clone(),
        delimiter: delimiter.clone(),
        from,
        limit,
    };
    let page = page(operations, bucket.incarnation, query).await?;
    let given = [prefix.as_str(), start_after.as_str()];
    let given = given.into_iter().chain(delimiter.as_deref());
    let encoding = NameEncoding::choose(url, names(&page.entries).chain(given));
    let shown_owner = input
        .fetch_owner
        .unwrap_or(false)
        .then_some(bucket.owner.as_str());
    let next = page.next.as_ref().map(write_token);
    let written = Written::of(operations, page.entries, encoding, shown_owner);
    let count = written.contents.len() + written.prefixes.len();
    Ok(S3Response::new(ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: Some(encoding.apply(&prefix)),
        max_keys: Some(limit as i32),
        key_count: Some(count as i32),
        continuation_token: input.continuation_token,
        is_truncated: Some(next.is_some()),
        next_continuation_token: next,
        contents: Some(written.contents),
        common_prefixes: Some(written.prefixes),
        delimiter: delimiter.map(|delimiter| encoding.apply(&delimiter)),
        encoding_type: shown_encoding(encoding),
        start_after: (!start_after.is_empty()).then(|| encoding.apply(&start_after)),
        request_charged: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_give_the_place_back() {
        for place in [
            ListFrom::Key("é/\u{1}".into()),
            ListFrom::Key(String::new()),
            ListFrom::CommonPrefix("photos/".into()),
        ] {
            let token = write_token(&place);
            assert_eq!(marker_of(&read_token(&token).unwrap()), marker_of(&place));
            assert_eq!(write_token(&read_token(&token).unwrap()), token);
        }
        for wrong in ["", "!!", "eA", "a"] {
            assert!(read_token(wrong).is_err(), "{wrong}");
        }
    }

    // ATTACKS 81: bounds of max-keys.
    #[test]
    fn pages_have_at_most_1000_entries() {
        for (asked, limit) in [
            (None, Some(1000)),
            (Some(0), Some(0)),
            (Some(7), Some(7)),
            (Some(1000), Some(1000)),
            (Some(i32::MAX), Some(1000)),
            (Some(-1), None),
            (Some(i32::MIN), None),
        ] {
            assert_eq!(page_limit(asked, "max-keys").ok(), limit, "{asked:?}");
        }
    }
}

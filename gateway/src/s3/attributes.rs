//! GetObjectAttributes.

use s3s::dto::*;
use s3s::{S3Request, S3Response, S3Result, s3_error};
use shardgate_catalog::model::{PartRow, VersionRow};

use super::list::page_limit;
use super::names::check_key;
use super::service::{Operations, catalog_error, check_version};
use super::shown::{etag, put_checksum, put_checksum_and_type, size, timestamp};

/// Which attributes are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    etag: bool,
    checksum: bool,
    parts: bool,
    class: bool,
    size: bool,
}

/// Reads the names, which come one a header line or joined by commas.
fn wanted<'a>(values: impl Iterator<Item = &'a str>) -> S3Result<Wanted> {
    let mut wanted = Wanted::default();
    for name in values.flat_map(|value| value.split(',')).map(str::trim) {
        match name {
            "ETag" => wanted.etag = true,
            "Checksum" => wanted.checksum = true,
            "ObjectParts" => wanted.parts = true,
            "StorageClass" => wanted.class = true,
            "ObjectSize" => wanted.size = true,
            _ => {
                return Err(s3_error!(
                    InvalidArgument,
                    "Invalid attribute name specified."
                ));
            }
        }
    }
    Ok(wanted)
}

/// The attributes of an object that a request names.
pub(crate) async fn get_object_attributes(
    operations: &Operations,
    request: S3Request<GetObjectAttributesInput>,
) -> S3Result<S3Response<GetObjectAttributesOutput>> {
    let input = request.input;
    check_key(&input.key)?;
    check_version(input.version_id.as_deref())?;
    let names = input.object_attributes.iter().map(ObjectAttributes::as_str);
    let wanted = wanted(names)?;
    let limit = page_limit(input.max_parts, "max-parts")?;
    let after = u16::try_from(input.part_number_marker.unwrap_or(0).max(0)).unwrap_or(u16::MAX);
    let bucket = operations.bucket(&input.bucket).await?;
    let catalog = &operations.catalog;
    let found = match wanted.parts {
        true => {
            catalog
                .object_with_parts(bucket.incarnation, &input.key)
                .await
        }
        false => catalog
            .object(bucket.incarnation, &input.key)
            .await
            .map(|row| (row, Vec::new())),
    };
    let (row, parts) = found.map_err(catalog_error)?;
    let mut output = GetObjectAttributesOutput {
        last_modified: Some(timestamp(row.modified)),
        e_tag: wanted.etag.then(|| etag(&row.etag)),
        object_size: wanted.size.then(|| size(row.size)),
        storage_class: wanted
            .class
            .then(|| StorageClass::from(operations.objects.class_name(row.class))),
        ..GetObjectAttributesOutput::default()
    };
    if wanted.checksum && row.checksum.is_some() {
        let mut checksum = Checksum::default();
        put_checksum_and_type!(checksum, row.checksum.as_ref(), row.etag.parts);
        output.checksum = Some(checksum);
    }
    if wanted.parts && row.etag.parts > 0 {
        output.object_parts = Some(parts_of(&row, &parts, after, limit));
    }
    Ok(S3Response::new(output))
}

/// The parts behind a number. As in S3, each is listed only where parts have
/// checksums; else their number alone is said.
fn parts_of(
    row: &VersionRow,
    parts: &[PartRow],
    after: u16,
    limit: usize,
) -> GetObjectAttributesParts {
    let mut shown = GetObjectAttributesParts {
        total_parts_count: Some(i32::from(row.etag.parts)),
        ..GetObjectAttributesParts::default()
    };
    if row.checksum.is_none() {
        return shown;
    }
    let mut behind = parts.iter().filter(|part| part.number > after);
    let page: Vec<&PartRow> = behind.by_ref().take(limit).collect();
    let last = page.last().map_or(after, |part| part.number);
    shown.is_truncated = Some(limit > 0 && behind.next().is_some());
    shown.max_parts = Some(limit as i32);
    shown.part_number_marker = Some(i32::from(after));
    shown.next_part_number_marker = Some(i32::from(last));
    shown.parts = Some(page.into_iter().map(shown_part).collect());
    shown
}

fn shown_part(row: &PartRow) -> ObjectPart {
    let mut part = ObjectPart {
        part_number: Some(i32::from(row.number)),
        size: Some(size(row.len)),
        ..ObjectPart::default()
    };
    put_checksum!(part, row.checksum.as_ref(), 0);
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_lines_and_with_commas() {
        let both = Wanted {
            etag: true,
            size: true,
            ..Wanted::default()
        };
        for values in [&["ETag", "ObjectSize"][..], &["ObjectSize, ETag"]] {
            assert_eq!(wanted(values.iter().copied()).unwrap(), both);
        }
        assert!(wanted(["ETag,Password"].into_iter()).is_err());
    }
}

//! Operations on buckets as a whole.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use shardgate_catalog::{CatalogError, NamedBucket};

use super::access::principal_of;
use super::encode::xml_text;
use super::error::s3_error_of;
use super::metadata::refuse_unkept_promises;
use super::names::is_bucket_name;
use super::service::{Operations, catalog_error};
use super::shown::timestamp;

/// Most buckets of one answer.
const MAX_BUCKETS: usize = 10_000;

/// Buckets of the store, by name.
pub(crate) async fn list_buckets(
    operations: &Operations,
    request: S3Request<ListBucketsInput>,
) -> S3Result<S3Response<ListBucketsOutput>> {
    let principal = principal_of(&request);
    let owners = &operations.owners;
    let input = request.input;
    let limit = match input.max_buckets {
        None => MAX_BUCKETS,
        Some(count) if (1..=MAX_BUCKETS as i32).contains(&count) => count as usize,
        Some(_) => {
            return Err(s3_error!(
                InvalidArgument,
                "max-buckets must be between 1 and 10000"
            ));
        }
    };
    let after = input.continuation_token.as_deref().map(read_token);
    let prefix = input.prefix.clone().unwrap_or_default();
    let elsewhere = input
        .bucket_region
        .as_ref()
        .is_some_and(|region| *region != operations.region);
    let mut found = Vec::new();
    if !elsewhere {
        found = buckets_of(operations, after.transpose()?, &prefix, limit + 1).await?;
    }
    let more = found.len() > limit;
    found.truncate(limit);
    let token = found
        .last()
        .filter(|_| more)
        .map(|last| write_token(&last.name));
    let buckets = found
        .into_iter()
        .map(|bucket| Bucket {
            bucket_arn: None,
            bucket_region: Some(operations.region.clone()),
            creation_date: Some(timestamp(bucket.row.created)),
            name: Some(bucket.name),
        })
        .collect();
    Ok(S3Response::new(ListBucketsOutput {
        buckets: Some(buckets),
        continuation_token: token,
        owner: Some(owners.shown(&owners.id_of(&principal))),
        prefix: input.prefix.as_deref().map(xml_text),
    }))
}

/// At most `limit` buckets with the prefix, behind `after`.
async fn buckets_of(
    operations: &Operations,
    mut after: Option<String>,
    prefix: &str,
    limit: usize,
) -> S3Result<Vec<NamedBucket>> {
    const PAGE: usize = 1000;
    let mut found = Vec::new();
    loop {
        let page = operations
            .catalog
            .list_buckets(after.as_deref(), PAGE)
            .await;
        let page = page.map_err(catalog_error)?;
        let ended = page.len() < PAGE;
        after = page.last().map(|bucket| bucket.name.clone());
        for bucket in page {
            if bucket.name.starts_with(prefix) {
                found.push(bucket);
            } else if bucket.name.as_str() > prefix {
                return Ok(found);
            }
            if found.len() == limit {
                return Ok(found);
            }
        }
        if ended {
            return Ok(found);
        }
    }
}

fn write_token(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(name)
}

fn read_token(token: &str) -> S3Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| {
            s3_error!(
                InvalidArgument,
                "The continuation token provided is incorrect"
            )
        })
}

/// Makes a bucket.
pub(crate) async fn create_bucket(
    operations: &Operations,
    request: S3Request<CreateBucketInput>,
) -> S3Result<S3Response<CreateBucketOutput>> {
    let principal = principal_of(&request);
    refuse_unkept_promises(&request.headers)?;
    let input = request.input;
    if !is_bucket_name(&input.bucket) {
        return Err(S3Error::new(S3ErrorCode::InvalidBucketName));
    }
    if input.object_lock_enabled_for_bucket == Some(true) {
        return Err(s3_error!(NotImplemented, "object lock is not supported"));
    }
    let constraint = input
        .create_bucket_configuration
        .and_then(|configuration| configuration.location_constraint);
    if let Some(constraint) = constraint {
        let asked = constraint.as_str();
        if !asked.is_empty() && asked != operations.region {
            return Err(s3_error!(
                InvalidLocationConstraint,
                "The specified location-constraint is not valid; this store is in {}",
                operations.region
            ));
        }
    }
    operations.objects.check_room().map_err(s3_error_of)?;
    let id = operations.owners.id_of(&principal);
    let made = operations
        .catalog
        .create_bucket(&input.bucket, &id, operations.clock.now_ms())
        .await;
    match made {
        Ok(_) => Ok(S3Response::new(CreateBucketOutput {
            bucket_arn: None,
            location: Some(format!("/{}", input.bucket)),
        })),
        Err(CatalogError::BucketExists { owner }) if operations.owners.recorded(&owner) == id => {
            Err(S3Error::new(S3ErrorCode::BucketAlreadyOwnedByYou))
        }
        Err(error) => Err(catalog_error(error)),
    }
}

/// Whether a bucket is there.
pub(crate) async fn head_bucket(
    operations: &Operations,
    request: S3Request<HeadBucketInput>,
) -> S3Result<S3Response<HeadBucketOutput>> {
    operations.bucket(&request.input.bucket).await?;
    Ok(S3Response::new(HeadBucketOutput {
        bucket_region: Some(operations.region.clone()),
        ..HeadBucketOutput::default()
    }))
}

/// Deletes an empty bucket.
pub(crate) async fn delete_bucket(
    operations: &Operations,
    request: S3Request<DeleteBucketInput>,
) -> S3Result<S3Response<DeleteBucketOutput>> {
    let deleted = operations
        .catalog
        .delete_bucket(&request.input.bucket)
        .await;
    deleted.map_err(catalog_error)?;
    Ok(S3Response::new(DeleteBucketOutput::default()))
}

/// Where a bucket is: S3 writes its first region as nothing.
pub(crate) async fn get_bucket_location(
    operations: &Operations,
    request: S3Request<GetBucketLocationInput>,
) -> S3Result<S3Response<GetBucketLocationOutput>> {
    operations.bucket(&request.input.bucket).await?;
    let constraint = match operations.region.as_str() {
        "us-east-1" => String::new(),
        region => region.to_owned(),
    };
    Ok(S3Response::new(GetBucketLocationOutput {
        location_constraint: Some(BucketLocationConstraint::from(constraint)),
    }))
}

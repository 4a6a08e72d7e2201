//! The S3 operations as one service: which file does which operation.

use std::sync::Arc;

use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use shardgate_catalog::{Catalog, CatalogError};

use super::host::BaseNames;
use super::owner::Owners;
use super::store::ObjectStore;
use super::{
    attributes, bucket, copy, delete, list, list_uploads, list_versions, multipart, object_read,
    object_write, probes,
};
use crate::object::{BucketAt, ObjectError};
use crate::seam::Clock;

/// What all operations work with.
#[derive(Clone)]
pub(crate) struct Operations {
    /// Buckets and listings.
    pub(crate) catalog: Catalog,
    /// Objects.
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// The time of day.
    pub(crate) clock: Arc<dyn Clock>,
    /// The only region.
    pub(crate) region: String,
    /// Base names of virtual hosts.
    pub(crate) names: BaseNames,
    /// Whom things belong to.
    pub(crate) owners: Owners,
}

impl Operations {
    /// The bucket of a request.
    pub(crate) async fn bucket(&self, name: &str) -> S3Result<BucketAt> {
        let row = self.catalog.bucket(name).await.map_err(catalog_error)?;
        Ok(BucketAt {
            name: name.to_owned(),
            incarnation: row.incarnation,
        })
    }
}

/// An error of the catalog as S3's.
pub(crate) fn catalog_error(error: CatalogError) -> S3Error {
    use CatalogError as C;
    super::error::s3_error_of(match error {
        C::Conflict | C::GroupMoved { .. } => ObjectError::Conflict,
        C::NoSuchBucket => ObjectError::NoSuchBucket,
        C::BucketExists { owner } => ObjectError::BucketExists { owner },
        C::BucketNotEmpty => ObjectError::BucketNotEmpty,
        C::NoSuchKey => ObjectError::NoSuchKey,
        C::NoSuchUpload => ObjectError::NoSuchUpload,
        C::InvalidPart { number } => ObjectError::InvalidPart { number },
        C::InvalidPartOrder => ObjectError::InvalidPartOrder,
        C::EntityTooSmall { number } => ObjectError::EntityTooSmall { number },
        C::PreconditionFailed => ObjectError::PreconditionFailed,
        C::Unavailable { why } => ObjectError::Unavailable { why },
        other => ObjectError::Damaged {
            why: other.to_string(),
        },
    })
}

/// Answers a version that is asked for: there is the null version only.
pub(crate) fn check_version(version: Option<&str>) -> S3Result<()> {
    match version {
        None | Some("" | "null") => Ok(()),
        Some(_) => Err(S3Error::new(S3ErrorCode::NoSuchVersion)),
    }
}

macro_rules! operations {
    ($($module:ident :: $name:ident ( $input:ident ) -> $output:ident;)*) => {
        #[async_trait::async_trait]
        impl S3 for Operations {
            $(
                async fn $name(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                    $module::$name(self, request).await
                }
            )*
        }
    };
}

operations! {
    bucket::list_buckets(ListBucketsInput) -> ListBucketsOutput;
    bucket::create_bucket(CreateBucketInput) -> CreateBucketOutput;
    bucket::head_bucket(HeadBucketInput) -> HeadBucketOutput;
    bucket::delete_bucket(DeleteBucketInput) -> DeleteBucketOutput;
    bucket::get_bucket_location(GetBucketLocationInput) -> GetBucketLocationOutput;

    object_read::get_object(GetObjectInput) -> GetObjectOutput;
    object_read::head_object(HeadObjectInput) -> HeadObjectOutput;
    object_write::put_object(PutObjectInput) -> PutObjectOutput;
    object_write::post_object(PostObjectInput) -> PostObjectOutput;
    copy::copy_object(CopyObjectInput) -> CopyObjectOutput;
    delete::delete_object(DeleteObjectInput) -> DeleteObjectOutput;
    delete::delete_objects(DeleteObjectsInput) -> DeleteObjectsOutput;
    attributes::get_object_attributes(GetObjectAttributesInput) -> GetObjectAttributesOutput;

    list::list_objects(ListObjectsInput) -> ListObjectsOutput;
    list::list_objects_v2(ListObjectsV2Input) -> ListObjectsV2Output;
    list_versions::list_object_versions(ListObjectVersionsInput) -> ListObjectVersionsOutput;
    list_uploads::list_multipart_uploads(ListMultipartUploadsInput) -> ListMultipartUploadsOutput;
    list_uploads::list_parts(ListPartsInput) -> ListPartsOutput;

    multipart::create_multipart_upload(CreateMultipartUploadInput) -> CreateMultipartUploadOutput;
    multipart::upload_part(UploadPartInput) -> UploadPartOutput;
    copy::upload_part_copy(UploadPartCopyInput) -> UploadPartCopyOutput;
    multipart::complete_multipart_upload(CompleteMultipartUploadInput) -> CompleteMultipartUploadOutput;
    multipart::abort_multipart_upload(AbortMultipartUploadInput) -> AbortMultipartUploadOutput;

    probes::get_bucket_acl(GetBucketAclInput) -> GetBucketAclOutput;
    probes::put_bucket_acl(PutBucketAclInput) -> PutBucketAclOutput;
    probes::get_object_acl(GetObjectAclInput) -> GetObjectAclOutput;
    probes::put_object_acl(PutObjectAclInput) -> PutObjectAclOutput;
    probes::get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    probes::get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput;
    probes::get_bucket_policy_status(GetBucketPolicyStatusInput) -> GetBucketPolicyStatusOutput;
    probes::get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput;
    probes::get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput;
    probes::get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput;
    probes::get_bucket_encryption(GetBucketEncryptionInput) -> GetBucketEncryptionOutput;
    probes::get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput;
    probes::get_bucket_replication(GetBucketReplicationInput) -> GetBucketReplicationOutput;
    probes::get_object_lock_configuration(GetObjectLockConfigurationInput) -> GetObjectLockConfigurationOutput;
    probes::get_bucket_ownership_controls(GetBucketOwnershipControlsInput) -> GetBucketOwnershipControlsOutput;
    probes::get_public_access_block(GetPublicAccessBlockInput) -> GetPublicAccessBlockOutput;
    probes::get_bucket_notification_configuration(GetBucketNotificationConfigurationInput) -> GetBucketNotificationConfigurationOutput;
    probes::get_bucket_logging(GetBucketLoggingInput) -> GetBucketLoggingOutput;
    probes::get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput) -> GetBucketAccelerateConfigurationOutput;
    probes::get_bucket_request_payment(GetBucketRequestPaymentInput) -> GetBucketRequestPaymentOutput;
    probes::get_object_tagging(GetObjectTaggingInput) -> GetObjectTaggingOutput;
    probes::delete_bucket_policy(DeleteBucketPolicyInput) -> DeleteBucketPolicyOutput;
    probes::delete_bucket_lifecycle(DeleteBucketLifecycleInput) -> DeleteBucketLifecycleOutput;
    probes::delete_bucket_cors(DeleteBucketCorsInput) -> DeleteBucketCorsOutput;
    probes::delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput;
    probes::delete_bucket_website(DeleteBucketWebsiteInput) -> DeleteBucketWebsiteOutput;
    probes::delete_public_access_block(DeletePublicAccessBlockInput) -> DeletePublicAccessBlockOutput;
}

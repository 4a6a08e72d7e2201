//! What clients ask before they work: settings that are not kept here.
//!
//! Reads say "there is none" in the words of S3; deletes of what is not there
//! succeed; writes stay NotImplemented, because taking them would promise
//! something. Everything belongs to the bucket's owner, and only to it.

use s3s::dto::*;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::error::custom;
use super::names::check_key;
use super::service::{Operations, catalog_error, check_version};

async fn full_control(
    operations: &Operations,
    bucket: &str,
) -> S3Result<(Option<Owner>, Option<Vec<Grant>>)> {
    let row = operations.catalog.bucket(bucket).await;
    let row = row.map_err(catalog_error)?;
    let owner = operations.owners.shown(&row.owner);
    let grantee = Grantee {
        display_name: owner.display_name.clone(),
        email_address: None,
        id: owner.id.clone(),
        type_: Type::from_static(Type::CANONICAL_USER),
        uri: None,
    };
    let grant = Grant {
        grantee: Some(grantee),
        permission: Some(Permission::from_static(Permission::FULL_CONTROL)),
    };
    Ok((Some(owner), Some(vec![grant])))
}

async fn object_exists(operations: &Operations, bucket: &str, key: &str) -> S3Result<()> {
    check_key(key)?;
    let bucket = operations.bucket(bucket).await?;
    let row = operations.catalog.object(bucket.incarnation, key).await;
    row.map(|_| ()).map_err(catalog_error)
}

/// `?acl` of a bucket.
pub(crate) async fn get_bucket_acl(
    operations: &Operations,
    request: S3Request<GetBucketAclInput>,
) -> S3Result<S3Response<GetBucketAclOutput>> {
    let (owner, grants) = full_control(operations, &request.input.bucket).await?;
    Ok(S3Response::new(GetBucketAclOutput { grants, owner }))
}

/// `?acl` of an object.
pub(crate) async fn get_object_acl(
    operations: &Operations,
    request: S3Request<GetObjectAclInput>,
) -> S3Result<S3Response<GetObjectAclOutput>> {
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    object_exists(operations, &input.bucket, &input.key).await?;
    let (owner, grants) = full_control(operations, &input.bucket).await?;
    Ok(S3Response::new(GetObjectAclOutput {
        grants,
        owner,
        ..GetObjectAclOutput::default()
    }))
}

/// Everything is private to its owner already; nothing else can be asked for.
/// s3cmd writes back after a copy what it has read: that is the same in XML.
fn check_private(
    canned: Option<&str>,
    policy: Option<&AccessControlPolicy>,
    owner: &str,
) -> S3Result<()> {
    let private = match (canned, policy) {
        (Some("private" | "bucket-owner-full-control"), None) => true,
        (None, Some(policy)) => {
            let grants = policy.grants.as_deref().unwrap_or_default();
            !grants.is_empty() && grants.iter().all(|grant| gives_owner_all(grant, owner))
        }
        _ => false,
    };
    private
        .then_some(())
        .ok_or_else(|| S3Error::new(S3ErrorCode::AccessControlListNotSupported))
}

fn gives_owner_all(grant: &Grant, owner: &str) -> bool {
    let to_owner = grant
        .grantee
        .as_ref()
        .is_some_and(|grantee| grantee.id.as_deref() == Some(owner));
    let permission = grant.permission.as_ref().map(Permission::as_str);
    to_owner && permission == Some(Permission::FULL_CONTROL)
}

/// Takes what holds already and nothing else.
pub(crate) async fn put_bucket_acl(
    operations: &Operations,
    request: S3Request<PutBucketAclInput>,
) -> S3Result<S3Response<PutBucketAclOutput>> {
    let input = request.input;
    let row = operations.catalog.bucket(&input.bucket).await;
    let owner = operations
        .owners
        .recorded(&row.map_err(catalog_error)?.owner);
    let canned = input.acl.as_ref().map(BucketCannedACL::as_str);
    check_private(canned, input.access_control_policy.as_ref(), &owner)?;
    Ok(S3Response::new(PutBucketAclOutput::default()))
}

/// Takes what holds already and nothing else.
pub(crate) async fn put_object_acl(
    operations: &Operations,
    request: S3Request<PutObjectAclInput>,
) -> S3Result<S3Response<PutObjectAclOutput>> {
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    object_exists(operations, &input.bucket, &input.key).await?;
    let row = operations.catalog.bucket(&input.bucket).await;
    let owner = operations
        .owners
        .recorded(&row.map_err(catalog_error)?.owner);
    let canned = input.acl.as_ref().map(ObjectCannedACL::as_str);
    check_private(canned, input.access_control_policy.as_ref(), &owner)?;
    Ok(S3Response::new(PutObjectAclOutput::default()))
}

/// `?tagging` of an object: none.
pub(crate) async fn get_object_tagging(
    operations: &Operations,
    request: S3Request<GetObjectTaggingInput>,
) -> S3Result<S3Response<GetObjectTaggingOutput>> {
    let input = request.input;
    check_version(input.version_id.as_deref())?;
    object_exists(operations, &input.bucket, &input.key).await?;
    Ok(S3Response::new(GetObjectTaggingOutput {
        tag_set: Vec::new(),
        version_id: None,
    }))
}

/// `?ownershipControls`: lists of access control are off.
pub(crate) async fn get_bucket_ownership_controls(
    operations: &Operations,
    request: S3Request<GetBucketOwnershipControlsInput>,
) -> S3Result<S3Response<GetBucketOwnershipControlsOutput>> {
    operations.bucket(&request.input.bucket).await?;
    let rule = OwnershipControlsRule {
        object_ownership: ObjectOwnership::from_static(ObjectOwnership::BUCKET_OWNER_ENFORCED),
    };
    Ok(S3Response::new(GetBucketOwnershipControlsOutput {
        ownership_controls: Some(OwnershipControls { rules: vec![rule] }),
    }))
}

/// `?publicAccessBlock`: none is configured.
pub(crate) async fn get_public_access_block(
    operations: &Operations,
    request: S3Request<GetPublicAccessBlockInput>,
) -> S3Result<S3Response<GetPublicAccessBlockOutput>> {
    operations.bucket(&request.input.bucket).await?;
    Err(custom(
        "NoSuchPublicAccessBlockConfiguration",
        404,
        "The public access block configuration was not found",
    ))
}

/// `?encryption`: none is configured.
pub(crate) async fn get_bucket_encryption(
    operations: &Operations,
    request: S3Request<GetBucketEncryptionInput>,
) -> S3Result<S3Response<GetBucketEncryptionOutput>> {
    operations.bucket(&request.input.bucket).await?;
    let mut error = s3_error!(ServerSideEncryptionConfigurationNotFoundError);
    // s3s gives it 400; AWS answers 404, and clients look at that.
    error.set_status_code(http::StatusCode::NOT_FOUND);
    Err(error)
}

/// `?requestPayment`: the owner pays.
pub(crate) async fn get_bucket_request_payment(
    operations: &Operations,
    request: S3Request<GetBucketRequestPaymentInput>,
) -> S3Result<S3Response<GetBucketRequestPaymentOutput>> {
    operations.bucket(&request.input.bucket).await?;
    Ok(S3Response::new(GetBucketRequestPaymentOutput {
        payer: Some(Payer::from_static(Payer::BUCKET_OWNER)),
    }))
}

/// Settings whose absence is an empty answer.
macro_rules! empty {
    ($($name:ident($input:ident) -> $output:ident;)*) => {$(
        pub(crate) async fn $name(
            operations: &Operations,
            request: S3Request<$input>,
        ) -> S3Result<S3Response<$output>> {
            operations.bucket(&request.input.bucket).await?;
            Ok(S3Response::new($output::default()))
        }
    )*};
}

empty! {
    get_bucket_versioning(GetBucketVersioningInput) -> GetBucketVersioningOutput;
    get_bucket_notification_configuration(GetBucketNotificationConfigurationInput) -> GetBucketNotificationConfigurationOutput;
    get_bucket_logging(GetBucketLoggingInput) -> GetBucketLoggingOutput;
    get_bucket_accelerate_configuration(GetBucketAccelerateConfigurationInput) -> GetBucketAccelerateConfigurationOutput;
    delete_bucket_policy(DeleteBucketPolicyInput) -> DeleteBucketPolicyOutput;
    delete_bucket_lifecycle(DeleteBucketLifecycleInput) -> DeleteBucketLifecycleOutput;
    delete_bucket_cors(DeleteBucketCorsInput) -> DeleteBucketCorsOutput;
    delete_bucket_tagging(DeleteBucketTaggingInput) -> DeleteBucketTaggingOutput;
    delete_bucket_website(DeleteBucketWebsiteInput) -> DeleteBucketWebsiteOutput;
    delete_public_access_block(DeletePublicAccessBlockInput) -> DeletePublicAccessBlockOutput;
}

/// Settings whose absence is an error of its own.
macro_rules! absent {
    ($($name:ident($input:ident) -> $output:ident: $code:ident;)*) => {$(
        pub(crate) async fn $name(
            operations: &Operations,
            request: S3Request<$input>,
        ) -> S3Result<S3Response<$output>> {
            operations.bucket(&request.input.bucket).await?;
            Err(s3_error!($code))
        }
    )*};
}

absent! {
    get_bucket_policy(GetBucketPolicyInput) -> GetBucketPolicyOutput: NoSuchBucketPolicy;
    get_bucket_policy_status(GetBucketPolicyStatusInput) -> GetBucketPolicyStatusOutput: NoSuchBucketPolicy;
    get_bucket_lifecycle_configuration(GetBucketLifecycleConfigurationInput) -> GetBucketLifecycleConfigurationOutput: NoSuchLifecycleConfiguration;
    get_bucket_cors(GetBucketCorsInput) -> GetBucketCorsOutput: NoSuchCORSConfiguration;
    get_bucket_tagging(GetBucketTaggingInput) -> GetBucketTaggingOutput: NoSuchTagSet;
    get_bucket_website(GetBucketWebsiteInput) -> GetBucketWebsiteOutput: NoSuchWebsiteConfiguration;
    get_bucket_replication(GetBucketReplicationInput) -> GetBucketReplicationOutput: ReplicationConfigurationNotFoundError;
    get_object_lock_configuration(GetObjectLockConfigurationInput) -> GetObjectLockConfigurationOutput: ObjectLockConfigurationNotFoundError;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(id: &str, permission: &'static str) -> AccessControlPolicy {
        let grantee = Grantee {
            display_name: None,
            email_address: None,
            id: Some(id.to_owned()),
            type_: Type::from_static(Type::CANONICAL_USER),
            uri: None,
        };
        let grant = Grant {
            grantee: Some(grantee),
            permission: Some(Permission::from_static(permission)),
        };
        AccessControlPolicy {
            grants: Some(vec![grant]),
            owner: None,
        }
    }

    #[test]
    fn only_what_holds_already_is_taken() {
        let empty = AccessControlPolicy::default();
        let full = policy("root", Permission::FULL_CONTROL);
        for (canned, given, taken) in [
            (Some("private"), None, true),
            (Some("bucket-owner-full-control"), None, true),
            (Some("public-read"), None, false),
            (None, None, false),
            (None, Some(&full), true),
            (Some("private"), Some(&full), false),
            (None, Some(&policy("root", Permission::READ)), false),
            (
                None,
                Some(&policy("other", Permission::FULL_CONTROL)),
                false,
            ),
            (None, Some(&empty), false),
        ] {
            assert_eq!(
                check_private(canned, given, "root").is_ok(),
                taken,
                "{canned:?}"
            );
        }
    }
}

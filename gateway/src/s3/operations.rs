//! Which action each S3 operation is: one table for all of them.
//!
//! Invariant: an operation that is not in the table is denied, whoever asks.

use crate::auth::Action;

/// The action of an operation, by s3s's name for it. `versioned`: the request
/// names a version, which needs a right of its own.
pub(crate) fn action_of(operation: &str, versioned: bool) -> Option<Action> {
    use Action as A;
    Some(match operation {
        "GetObject" | "HeadObject" | "GetObjectTorrent" | "SelectObjectContent" => {
            if versioned {
                A::GetObjectVersion
            } else {
                A::GetObject
            }
        }
        "GetObjectAttributes" => A::GetObjectAttributes,
        "PutObject"
        | "PostObject"
        | "CopyObject"
        | "CreateMultipartUpload"
        | "UploadPart"
        | "UploadPartCopy"
        | "CompleteMultipartUpload"
        | "RenameObject"
        | "RestoreObject"
        | "WriteGetObjectResponse" => A::PutObject,
        "DeleteObject" if versioned => A::DeleteObjectVersion,
        "DeleteObject" => A::DeleteObject,
        // Each of its keys is decided again by itself.
        "DeleteObjects" => A::DeleteObject,
        "AbortMultipartUpload" => A::AbortMultipartUpload,
        "ListParts" => A::ListMultipartUploadParts,
        "ListObjects" | "ListObjectsV2" | "HeadBucket" => A::ListBucket,
        "ListObjectVersions" => A::ListBucketVersions,
        "ListMultipartUploads" => A::ListBucketMultipartUploads,
        "ListBuckets" | "ListDirectoryBuckets" => A::ListAllMyBuckets,
        "CreateBucket" => A::CreateBucket,
        "DeleteBucket" => A::DeleteBucket,
        "GetBucketLocation" => A::GetBucketLocation,
        _ => return setting_of(operation),
    })
}

/// Names of the operations that are counted one by one.
const COUNTED: &[&str] = &[
    "AbortMultipartUpload",
    "CompleteMultipartUpload",
    "CopyObject",
    "CreateBucket",
    "CreateMultipartUpload",
    "DeleteBucket",
    "DeleteObject",
    "DeleteObjects",
    "GetBucketLocation",
    "GetObject",
    "GetObjectAttributes",
    "HeadBucket",
    "HeadObject",
    "ListBuckets",
    "ListMultipartUploads",
    "ListObjectVersions",
    "ListObjects",
    "ListObjectsV2",
    "ListParts",
    "PostObject",
    "PutObject",
    "UploadPart",
    "UploadPartCopy",
];

/// The operation's name for logs and metrics; all settings share one.
pub(crate) fn static_name(operation: &str) -> &'static str {
    let found = COUNTED.iter().find(|name| **name == operation);
    found.copied().unwrap_or("Setting")
}

/// Settings of objects and of buckets, by the form of the name.
fn setting_of(operation: &str) -> Option<Action> {
    const OBJECT_READS: &[&str] = &[
        "GetObjectAcl",
        "GetObjectAnnotation",
        "GetObjectLegalHold",
        "GetObjectRetention",
        "GetObjectTagging",
        "ListObjectAnnotations",
    ];
    const OBJECT_WRITES: &[&str] = &[
        "DeleteObjectAnnotation",
        "DeleteObjectTagging",
        "PutObjectAcl",
        "PutObjectAnnotation",
        "PutObjectLegalHold",
        "PutObjectRetention",
        "PutObjectTagging",
        "UpdateObjectEncryption",
    ];
    if OBJECT_READS.contains(&operation) {
        return Some(Action::GetObjectSetting);
    }
    if OBJECT_WRITES.contains(&operation) {
        return Some(Action::PutObjectSetting);
    }
    if BUCKET_READS.contains(&operation) {
        return Some(Action::GetBucketSetting);
    }
    if BUCKET_WRITES.contains(&operation) {
        return Some(Action::PutBucketSetting);
    }
    None
}

const BUCKET_READS: &[&str] = &[
    "CreateSession",
    "GetBucketAbac",
    "GetBucketAccelerateConfiguration",
    "GetBucketAcl",
    "GetBucketAnalyticsConfiguration",
    "GetBucketCors",
    "GetBucketEncryption",
    "GetBucketIntelligentTieringConfiguration",
    "GetBucketInventoryConfiguration",
    "GetBucketLifecycleConfiguration",
    "GetBucketLogging",
    "GetBucketMetadataConfiguration",
    "GetBucketMetadataTableConfiguration",
    "GetBucketMetricsConfiguration",
    "GetBucketNotificationConfiguration",
    "GetBucketOwnershipControls",
    "GetBucketPolicy",
    "GetBucketPolicyStatus",
    "GetBucketReplication",
    "GetBucketRequestPayment",
    "GetBucketTagging",
    "GetBucketVersioning",
    "GetBucketWebsite",
    "GetObjectLockConfiguration",
    "GetPublicAccessBlock",
    "ListBucketAnalyticsConfigurations",
    "ListBucketIntelligentTieringConfigurations",
    "ListBucketInventoryConfigurations",
    "ListBucketMetricsConfigurations",
    "ListenBucketNotification",
];

const BUCKET_WRITES: &[&str] = &[
    "CreateBucketMetadataConfiguration",
    "CreateBucketMetadataTableConfiguration",
    "DeleteBucketAnalyticsConfiguration",
    "DeleteBucketCors",
    "DeleteBucketEncryption",
    "DeleteBucketIntelligentTieringConfiguration",
    "DeleteBucketInventoryConfiguration",
    "DeleteBucketLifecycle",
    "DeleteBucketMetadataConfiguration",
    "DeleteBucketMetadataTableConfiguration",
    "DeleteBucketMetricsConfiguration",
    "DeleteBucketOwnershipControls",
    "DeleteBucketPolicy",
    "DeleteBucketReplication",
    "DeleteBucketTagging",
    "DeleteBucketWebsite",
    "DeletePublicAccessBlock",
    "PutBucketAbac",
    "PutBucketAccelerateConfiguration",
    "PutBucketAcl",
    "PutBucketAnalyticsConfiguration",
    "PutBucketCors",
    "PutBucketEncryption",
    "PutBucketIntelligentTieringConfiguration",
    "PutBucketInventoryConfiguration",
    "PutBucketLifecycleConfiguration",
    "PutBucketLogging",
    "PutBucketMetricsConfiguration",
    "PutBucketNotificationConfiguration",
    "PutBucketOwnershipControls",
    "PutBucketPolicy",
    "PutBucketReplication",
    "PutBucketRequestPayment",
    "PutBucketTagging",
    "PutBucketVersioning",
    "PutBucketWebsite",
    "PutObjectLockConfiguration",
    "PutPublicAccessBlock",
    "UpdateBucketMetadataAnnotationTableConfiguration",
    "UpdateBucketMetadataInventoryTableConfiguration",
    "UpdateBucketMetadataJournalTableConfiguration",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation that s3s 0.17.0 can dispatch.
    const DISPATCHED: &str = include_str!("operations_0_17_0.txt");

    #[test]
    fn every_operation_has_an_action() {
        let mut count = 0;
        for operation in DISPATCHED.split_whitespace() {
            for versioned in [false, true] {
                assert!(action_of(operation, versioned).is_some(), "{operation}");
            }
            count += 1;
        }
        assert!(count > 100, "{count}");
    }

    #[test]
    fn the_list_is_of_the_release_in_use() {
        let lock = include_str!("../../../Cargo.lock");
        let used = lock
            .split("[[package]]")
            .find(|package| package.contains("name = \"s3s\"\n"))
            .unwrap();
        assert!(
            used.contains("version = \"0.17.0\""),
            "list the operations of the new s3s, then raise this"
        );
    }

    #[test]
    fn an_unknown_operation_is_nobodys() {
        assert_eq!(action_of("FormatAllDisks", false), None);
        assert_eq!(action_of("", false), None);
    }

    // ATTACKS 39: versions need rights of their own.
    #[test]
    fn versions_are_other_actions() {
        assert_eq!(action_of("GetObject", true), Some(Action::GetObjectVersion));
        assert_eq!(
            action_of("DeleteObject", true),
            Some(Action::DeleteObjectVersion)
        );
        assert_eq!(action_of("DeleteObject", false), Some(Action::DeleteObject));
    }
}

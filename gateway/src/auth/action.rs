//! What can be asked for: actions with S3's own names, and what they act on.

/// An action, named as in S3's policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// `s3:ListAllMyBuckets`
    ListAllMyBuckets,
    /// `s3:CreateBucket`
    CreateBucket,
    /// `s3:DeleteBucket`
    DeleteBucket,
    /// `s3:ListBucket`
    ListBucket,
    /// `s3:ListBucketVersions`
    ListBucketVersions,
    /// `s3:ListBucketMultipartUploads`
    ListBucketMultipartUploads,
    /// `s3:GetBucketLocation`
    GetBucketLocation,
    /// Reading any other setting of a bucket.
    GetBucketSetting,
    /// Changing any setting of a bucket.
    PutBucketSetting,
    /// `s3:GetObject`
    GetObject,
    /// `s3:GetObjectVersion`
    GetObjectVersion,
    /// `s3:GetObjectAttributes`
    GetObjectAttributes,
    /// Reading tags, retention, legal hold or the ACL of an object.
    GetObjectSetting,
    /// Changing tags, retention, legal hold or the ACL of an object.
    PutObjectSetting,
    /// `s3:PutObject`
    PutObject,
    /// `s3:DeleteObject`
    DeleteObject,
    /// `s3:DeleteObjectVersion`
    DeleteObjectVersion,
    /// `s3:AbortMultipartUpload`
    AbortMultipartUpload,
    /// `s3:ListMultipartUploadParts`
    ListMultipartUploadParts,
    /// Reading the pool's status.
    AdminStatus,
    /// Replacing disks and declaring them lost.
    AdminDisks,
    /// Taking checkpoints of the catalog, and ending the hold on reclaiming.
    AdminCatalog,
}

/// What an action is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// The store as a whole.
    Service,
    /// A bucket.
    Bucket(&'a str),
    /// An object, by its literal key.
    Object {
        /// Its bucket.
        bucket: &'a str,
        /// Its key.
        key: &'a str,
    },
}

//! The plain reference: what S3 says must come out of each operation.

use std::collections::BTreeMap;

use shardgate_catalog::model::ETag;
use shardgate_wire::{BlobId, BucketIncarnation};

/// An object as a client sees it, and its blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub etag: ETag,
    pub size: u64,
    pub blobs: Vec<BlobId>,
}

/// An upload that was begun at some time.
#[derive(Clone, Debug)]
pub struct Upload {
    pub incarnation: BucketIncarnation,
    pub bucket: usize,
    pub key: String,
    pub uid: u64,
    pub parts: BTreeMap<u16, Object>,
    pub state: UploadState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadState {
    Open,
    /// With these parts, as this.
    Completed(Vec<u16>, ETag),
    Ended,
}

#[derive(Debug, Default)]
pub struct Bucket {
    pub incarnation: BucketIncarnation,
    pub objects: BTreeMap<String, Object>,
}

#[derive(Debug, Default)]
pub struct Reference {
    pub buckets: BTreeMap<usize, Bucket>,
    pub uploads: Vec<Upload>,
    pub condemned: std::collections::BTreeSet<BlobId>,
    /// Slots that some acknowledged blob lacks, and the lowest such blob.
    pub owed: BTreeMap<u8, BlobId>,
}

impl Reference {
    pub fn put(&mut self, bucket: usize, key: &str, object: Object) {
        let bucket = self.buckets.get_mut(&bucket).unwrap();
        if let Some(old) = bucket.objects.insert(key.to_owned(), object) {
            self.condemned.extend(old.blobs);
        }
    }

    pub fn delete(&mut self, bucket: usize, key: &str) -> Option<Object> {
        let bucket = self.buckets.get_mut(&bucket)?;
        let old = bucket.objects.remove(key)?;
        self.condemned.extend(old.blobs.clone());
        Some(old)
    }

    pub fn end_upload(&mut self, at: usize) {
        let upload = &mut self.uploads[at];
        upload.state = UploadState::Ended;
        let parts = std::mem::take(&mut upload.parts);
        for part in parts.into_values() {
            self.condemned.extend(part.blobs);
        }
    }

    pub fn delete_bucket(&mut self, bucket: usize) {
        let gone = self.buckets.remove(&bucket).unwrap();
        for at in 0..self.uploads.len() {
            let upload = &self.uploads[at];
            if upload.incarnation != gone.incarnation {
                continue;
            }
            if upload.state == UploadState::Open {
                self.end_upload(at);
            }
            // What a repeat would be answered with goes too.
            self.uploads[at].state = UploadState::Ended;
        }
    }
}

//! What S3 is meant to do, in the simplest form that can be right.
//!
//! One bucket, unversioned. A test does the same to it and to the store and
//! compares every answer.

use std::collections::BTreeMap;

use bytes::Bytes;
use md5::{Digest, Md5};

/// An object as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its ETag, with quotes.
    pub etag: String,
    /// The value of `x-amz-meta-note`, if it was given.
    pub note: Option<String>,
}

impl Object {
    /// An object of one PUT.
    pub fn single(bytes: Bytes, note: Option<String>) -> Self {
        let etag = format!("\"{}\"", hex::encode(Md5::digest(&bytes)));
        Self { bytes, etag, note }
    }

    /// An object of a multipart upload.
    pub fn multipart(parts: &[Bytes], note: Option<String>) -> Self {
        let mut sums = Md5::new();
        parts.iter().for_each(|part| sums.update(Md5::digest(part)));
        let etag = format!("\"{}-{}\"", hex::encode(sums.finalize()), parts.len());
        Self {
            bytes: parts.concat().into(),
            etag,
            note,
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys.
    pub keys: Vec<String>,
    /// Common prefixes.
    pub prefixes: Vec<String>,
    /// Whether more follows.
    pub truncated: bool,
}

/// The bucket.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// Keys are ordered by their UTF-8 bytes, as S3 lists them.
    pub objects: BTreeMap<String, Object>,
}

impl Bucket {
    /// ListObjectsV2: everything after `start_after`, at most `max` entries.
    pub fn list(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        start_after: &str,
        max: usize,
    ) -> Page {
        let mut page = Page::default();
        for key in self.objects.keys().filter(|key| key.starts_with(prefix)) {
            let rest = &key[prefix.len()..];
            let common = delimiter
                .and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()))
                .map(|end| &key[..prefix.len() + end]);
            // A common prefix at or before the marker was returned already,
            // and so was everything under it.
            let entry = common.unwrap_or(key);
            if entry <= start_after || page.prefixes.last().is_some_and(|last| last == entry) {
                continue;
            }
            if common.is_some() && start_after.starts_with(entry) {
                continue;
            }
            if page.keys.len() + page.prefixes.len() == max {
                page.truncated = max > 0;
                break;
            }
            match common {
                Some(prefix) => page.prefixes.push(prefix.to_owned()),
                None => page.keys.push(key.clone()),
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_prefixes_once_and_in_order() {
        let mut bucket = Bucket::default();
        for key in ["a", "b/1", "b/2", "c", "d/1"] {
            bucket
                .objects
                .insert(key.into(), Object::single(Bytes::new(), None));
        }
        let page = bucket.list("", Some("/"), "", 3);
        assert_eq!(page.keys, ["a", "c"]);
        assert_eq!(page.prefixes, ["b/"]);
        assert!(page.truncated);
        let rest = bucket.list("", Some("/"), "c", 3);
        assert_eq!((rest.keys.len(), rest.prefixes), (0, vec!["d/".to_owned()]));
        assert!(!rest.truncated);
    }
}

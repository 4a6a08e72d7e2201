//! Listing objects and uploads: an ordered scan that seeks past common
//! prefixes. Cost follows what is returned, not what is stored.
//!
//! Keys are in order of their UTF-8 bytes. Whether a key rolls up into a
//! common prefix is decided by the engine's fold; nothing is collected here.

use bytes::Bytes;
use shardgate_wire::{BucketIncarnation, VersionUid};

use crate::catalog::Catalog;
use crate::engine::{Entry, Fold, KeyRange, Scan};
use crate::error::Result;
use crate::keys::{self, TERMINATOR};
use crate::model::{UploadRow, VersionRow};
use crate::row::decode;

/// Where a listing begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListFrom {
    /// Behind this key.
    Key(String),
    /// Behind every key that begins with this.
    CommonPrefix(String),
}

impl ListFrom {
    /// Where a client's marker (ListObjects), start-after (ListObjectsV2) or
    /// key marker (ListMultipartUploads) begins: a marker inside a common
    /// prefix stands behind all of it, so that a client which goes on from the
    /// last name it was given never meets the same prefix again.
    pub fn marker(prefix: &str, delimiter: Option<&str>, marker: &str) -> Self {
        let common = delimiter
            .filter(|delimiter| !delimiter.is_empty())
            .and_then(|delimiter| {
                let rest = marker.strip_prefix(prefix)?;
                let at = rest.find(delimiter)?;
                Some(&marker[..prefix.len() + at + delimiter.len()])
            });
        match common {
            Some(common) => Self::CommonPrefix(common.to_owned()),
            None => Self::Key(marker.to_owned()),
        }
    }
}

/// Which objects to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// Keys that begin with this.
    pub prefix: String,
    /// Keys that have this behind the prefix are taken together. Empty is none.
    pub delimiter: Option<String>,
    /// Where to begin.
    pub from: Option<ListFrom>,
    /// How many entries at most.
    pub limit: usize,
}

/// One entry of a list of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListEntry {
    /// A key and its newest version.
    Object(String, VersionRow),
    /// A common prefix.
    Prefix(String),
}

/// Some of the entries of a list, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPage {
    /// The entries.
    pub entries: Vec<ListEntry>,
    /// Where the list goes on; `None` if it is complete.
    pub next: Option<ListFrom>,
}

/// Where a listing of uploads begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadsFrom {
    /// Behind all uploads of this key.
    Key(String),
    /// Behind this upload of this key.
    Upload(String, VersionUid),
    /// Behind the uploads of every key that begins with this.
    CommonPrefix(String),
}

impl UploadsFrom {
    /// Where a key marker without an upload id begins. See [`ListFrom::marker`].
    pub fn marker(prefix: &str, delimiter: Option<&str>, marker: &str) -> Self {
        match ListFrom::marker(prefix, delimiter, marker) {
            ListFrom::Key(key) => Self::Key(key),
            ListFrom::CommonPrefix(prefix) => Self::CommonPrefix(prefix),
        }
    }
}

/// Which uploads to list.
#[derive(Clone, Debug, Default)]
pub struct UploadsQuery {
    /// Those of keys that begin with this.
    pub prefix: String,
    /// Keys that have this behind the prefix are taken together. Empty is none.
    pub delimiter: Option<String>,
    /// Where to begin.
    pub from: Option<UploadsFrom>,
    /// How many entries at most.
    pub limit: usize,
}

/// One entry of a list of uploads.
#[expect(
    clippy::large_enum_variant,
    reason = "a page of them lives for one answer, and prefixes are few"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UploadEntry {
    /// A key and an upload of it.
    Upload(String, UploadRow),
    /// A common prefix.
    Prefix(String),
}

/// Some of the entries of a list of uploads, in order of key, then upload id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadsPage {
    /// The entries.
    pub entries: Vec<UploadEntry>,
    /// Where the list goes on; `None` if it is complete.
    pub next: Option<UploadsFrom>,
}

impl Catalog {
    /// Lists the newest versions of a bucket's objects.
    pub async fn list_objects(
        &self,
        incarnation: BucketIncarnation,
        query: &ListQuery,
    ) -> Result<ListPage> {
        let head = keys::current(incarnation, &query.prefix);
        let start = query.from.as_ref().map(|from| match from {
            ListFrom::Key(key) => Some(keys::after(&keys::current(incarnation, key))),
            ListFrom::CommonPrefix(prefix) => keys::successor(&keys::current(incarnation, prefix)),
        });
        let fold = delimiter(query.delimiter.as_deref()).map(|delimiter| Fold {
            from: head.len(),
            delimiter: Bytes::copy_from_slice(delimiter.as_bytes()),
            until: None,
        });
        let (found, more) = self.list(head, start, fold, query.limit).await?;
        let mut entries = Vec::with_capacity(found.len());
        for entry in &found {
            entries.push(match entry {
                Entry::Row(key, value) => {
                    ListEntry::Object(keys::decode_current(key)?, decode(value)?)
                }
                Entry::Folded(head) => ListEntry::Prefix(keys::decode_current(head)?),
            });
        }
        let next = entries.last().filter(|_| more).map(|last| match last {
            ListEntry::Object(key, _) => ListFrom::Key(key.clone()),
            ListEntry::Prefix(prefix) => ListFrom::CommonPrefix(prefix.clone()),
        });
        Ok(ListPage { entries, next })
    }

    /// Lists the open uploads of a bucket.
    pub async fn list_uploads(
        &self,
        incarnation: BucketIncarnation,
        query: &UploadsQuery,
    ) -> Result<UploadsPage> {
        let head = keys::uploads(incarnation, &query.prefix);
        let start = query.from.as_ref().map(|from| match from {
            UploadsFrom::Key(key) => keys::successor(&keys::uploads_of_key(incarnation, key)),
            UploadsFrom::Upload(key, uid) => {
                Some(keys::after(&keys::upload(incarnation, key, *uid)))
            }
            UploadsFrom::CommonPrefix(prefix) => {
                keys::successor(&keys::uploads(incarnation, prefix))
            }
        });
        let fold = delimiter(query.delimiter.as_deref()).map(|delimiter| Fold {
            from: head.len(),
            delimiter: keys::escape(delimiter).into(),
            until: Some(TERMINATOR),
        });
        let (found, more) = self.list(head, start, fold, query.limit).await?;
        let mut entries = Vec::with_capacity(found.len());
        for entry in &found {
            entries.push(match entry {
                Entry::Row(key, value) => {
                    UploadEntry::Upload(keys::decode_upload(key)?.0, decode(value)?)
                }
                Entry::Folded(head) => UploadEntry::Prefix(keys::decode_upload_prefix(head)?),
            });
        }
        let next = entries.last().filter(|_| more).map(|last| match last {
            UploadEntry::Upload(key, row) => UploadsFrom::Upload(key.clone(), row.uid),
            UploadEntry::Prefix(prefix) => UploadsFrom::CommonPrefix(prefix.clone()),
        });
        Ok(UploadsPage { entries, next })
    }

    /// The first `limit` entries below `head` from `start` on, and whether
    /// there are more. `Some(None)` as the start is behind every key.
    async fn list(
        &self,
        head: Bytes,
        start: Option<Option<Bytes>>,
        fold: Option<Fold>,
        limit: usize,
    ) -> Result<(Vec<Entry>, bool)> {
        let mut range = KeyRange::prefix(head);
        match start {
            Some(Some(start)) => range.start = range.start.max(start),
            Some(None) => return Ok((Vec::new(), false)),
            None => {}
        }
        // Asked for nothing, S3 answers that there is no more.
        if limit == 0 || range.is_empty() {
            return Ok((Vec::new(), false));
        }
        let scan = Scan {
            range,
            reverse: false,
            limit: limit.saturating_add(1),
            fold,
        };
        let mut found = self.engine().scan(scan).await?;
        let more = found.len() > limit;
        found.truncate(limit);
        Ok((found, more))
    }
}

fn delimiter(given: Option<&str>) -> Option<&str> {
    given.filter(|delimiter| !delimiter.is_empty())
}

#[cfg(test)]
mod tests;

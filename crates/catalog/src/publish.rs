//! Publishing: the one commit that makes an object visible.
//!
//! Invariant: the commit expects the bucket's row, the exact record that it
//! replaces (or its absence), the group's record under which the blob was
//! written, and that the blob is known to nobody; what it replaces is
//! condemned in the same commit (PROTOCOL.md 5 to 7).

use bytes::Bytes;
use shardgate_wire::{BlobId, BucketIncarnation, CommitNumber, Generation};

use crate::buckets::BucketRef;
use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::{Draft, StoredVersion};
use crate::error::{CatalogError, Result};
use crate::keys;
use crate::model::{
    BlobRef, BlobRow, BlobState, CondemnReason, Content, DetailRow, ETag, GroupRow, OwedRow,
    VersionRow,
};
use crate::row::decode;

/// Most bytes of an object that are kept in the catalog.
pub const MAX_INLINE_BYTES: usize = 16 << 10;

/// A blob whose shards are durable on a quorum of the slots they belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenBlob {
    /// The blob.
    pub blob: BlobRef,
    /// The generation of the group under which its shards were written.
    pub generation: Generation,
    /// The group's slots that lack their shard.
    pub owed_slots: Vec<u8>,
    /// The lowest BlobId of the group that is in flight anywhere in this
    /// gateway; at most this blob's own.
    pub lowest_in_flight: BlobId,
}

/// What must hold of the key for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteCondition {
    /// Nothing: the last one committed wins.
    None,
    /// `If-None-Match: *`: there is no object.
    IfNoneMatchAny,
    /// `If-Match: *`: there is one.
    IfMatchAny,
    /// `If-Match`: there is one, with this ETag.
    IfMatch(ETag),
}

impl WriteCondition {
    /// # Errors
    /// [`CatalogError::PreconditionFailed`]; [`CatalogError::NoSuchKey`]
    /// where a match is asked of no object.
    pub(crate) fn check(&self, current: Option<&VersionRow>) -> Result<()> {
        match (self, current) {
            (Self::None, _) | (Self::IfNoneMatchAny, None) | (Self::IfMatchAny, Some(_)) => Ok(()),
            (Self::IfMatch(etag), Some(row)) if row.etag == *etag => Ok(()),
            (Self::IfNoneMatchAny | Self::IfMatch(_), Some(_)) => {
                Err(CatalogError::PreconditionFailed)
            }
            (Self::IfMatchAny | Self::IfMatch(_), None) => Err(CatalogError::NoSuchKey),
        }
    }
}

/// An object to publish.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where.
    pub bucket: BucketRef,
    /// Under which key.
    pub key: String,
    /// Its row. `content` and `has_detail` are set from the fields below.
    pub row: VersionRow,
    /// Its details; not stored if empty.
    pub detail: DetailRow,
    /// Where its bytes are.
    pub body: PublishBody,
    /// What must hold.
    pub condition: WriteCondition,
}

/// Where the bytes of an object to publish are.
#[derive(Clone, Debug)]
pub enum PublishBody {
    /// Here, to be kept in the catalog.
    Inline(Bytes),
    /// In the pool.
    Blob(WrittenBlob),
}

/// What a publication did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its commit.
    pub commit: CommitNumber,
    /// The row as it was stored.
    pub row: VersionRow,
    /// What it replaced.
    pub replaced: Option<VersionRow>,
}

impl Catalog {
    /// Publishes an object, in place of what is there.
    ///
    /// # Errors
    /// [`CatalogError::GroupMoved`]: a slot of the group moved; say again
    /// which slots are owed. [`CatalogError::Conflict`]: the blob is known
    /// already, or was condemned. [`CatalogError::TooLarge`]: more than
    /// [`MAX_INLINE_BYTES`] inline.
    pub async fn publish(&self, publish: Publish) -> Result<Published> {
        let Publish {
            bucket,
            key,
            mut row,
            detail,
            body,
            condition,
        } = publish;
        if let PublishBody::Inline(inline) = &body
            && inline.len() > MAX_INLINE_BYTES
        {
            let bytes = inline.len();
            return Err(CatalogError::TooLarge { bytes });
        }
        row.has_detail = !detail.is_empty();
        row.content = match &body {
            PublishBody::Inline(_) => Content::Inline,
            PublishBody::Blob(written) => Content::Blob(written.blob),
        };
        let turn = (bucket.incarnation, &key);
        let _turn = self.inner.key_turns.one(&turn).await;
        for attempt in 0..ATTEMPTS {
            let mut draft = Draft::new();
            self.expect_writable(&mut draft, &bucket, attempt).await?;
            let replaced = self
                .replace_version(&mut draft, &bucket, &key, &row, &condition)
                .await?;
            if row.has_detail {
                draft.put(keys::detail(row.uid), &detail);
            }
            match &body {
                PublishBody::Inline(bytes) if bytes.is_empty() => {}
                PublishBody::Inline(bytes) => {
                    draft.put_raw(keys::inline(row.uid), bytes.clone());
                }
                PublishBody::Blob(written) => {
                    let owner = blob_owner(bucket.incarnation, &key, &row, &written.blob);
                    self.take_blob(&mut draft, written, owner).await?;
                }
            }
            match self.commit(draft).await {
                Ok(commit) => {
                    return Ok(Published {
                        commit,
                        row,
                        replaced,
                    });
                }
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// Expects the row of a bucket that takes writes. A second attempt reads
    /// it anew.
    pub(crate) async fn expect_writable(
        &self,
        draft: &mut Draft,
        bucket: &BucketRef,
        attempt: usize,
    ) -> Result<()> {
        if attempt > 0 {
            self.inner.bucket_cache.forget(&bucket.name);
        }
        let found = self.writable_bucket(bucket).await?;
        draft.expect(keys::bucket(&bucket.name), Some(found.raw.clone()));
        Ok(())
    }

    /// Puts `row` as the newest version of a key, in place of what is there if
    /// the condition allows it; returns what that was.
    pub(crate) async fn replace_version(
        &self,
        draft: &mut Draft,
        bucket: &BucketRef,
        key: &str,
        row: &VersionRow,
        condition: &WriteCondition,
    ) -> Result<Option<VersionRow>> {
        let held = self.stored_version(bucket.incarnation, key).await?;
        condition.check(held.as_ref().map(|held| &held.row))?;
        let current = keys::current(bucket.incarnation, key);
        let reason = CondemnReason::Overwritten;
        match &held {
            Some(held) => draft.drop_version(bucket.incarnation, key, held, reason),
            None => draft.expect(current.clone(), None),
        }
        draft.put(current, row);
        Ok(held.map(|held| held.row))
    }

    /// The newest version of a key with its parts, as it is stored.
    pub(crate) async fn stored_version(
        &self,
        incarnation: BucketIncarnation,
        key: &str,
    ) -> Result<Option<StoredVersion>> {
        match self.engine().get(&keys::current(incarnation, key)).await? {
            Some(raw) => Ok(Some(self.with_parts(raw).await?)),
            None => Ok(None),
        }
    }

    /// Gives a written blob its owner: expects the group's record, opens or
    /// expects the owed rows of the slots that lack it.
    pub(crate) async fn take_blob(
        &self,
        draft: &mut Draft,
        written: &WrittenBlob,
        owner: BlobRow,
    ) -> Result<()> {
        let blob = &written.blob;
        let owed = written.owed_slots.iter();
        let mut wanted = vec![keys::group(blob.group)];
        wanted.extend(owed.map(|&slot| keys::owed(blob.group, slot)));
        let mut found = self.engine().get_many(&wanted).await?.into_iter();
        let mut wanted = wanted.into_iter();

        let group_raw = found.next().flatten().ok_or(CatalogError::NoSuchGroup)?;
        let group: GroupRow = decode(&group_raw)?;
        if group.generation != written.generation {
            return Err(CatalogError::GroupMoved {
                current: Box::new(group),
            });
        }
        let group_key = wanted.next().expect("the group's key was put first");
        draft.expect(group_key, Some(group_raw));

        for (key, raw) in wanted.zip(found) {
            let held = raw.as_deref().map(decode::<OwedRow>).transpose()?;
            if let Some(row) = owe(held, written) {
                draft.put(key.clone(), &row);
            }
            draft.expect(key, raw);
        }
        let blob_key = keys::blob(blob.group, blob.blob);
        draft.expect(blob_key.clone(), None);
        draft.put(blob_key, &BlobState::Owned(owner));
        draft.note(blob);
        Ok(())
    }
}

/// The owed row after a commit that lacks its slot; `None`: as it is.
fn owe(held: Option<OwedRow>, written: &WrittenBlob) -> Option<OwedRow> {
    let lowest = written.lowest_in_flight.min(written.blob.blob);
    let row = match held {
        None => OwedRow {
            lowest,
            comparing: None,
        },
        // It covers everything in flight since it was opened; an id below it
        // comes from a clock that is behind. A comparison under way does not
        // know of this blob.
        Some(held) => OwedRow {
            lowest: held.lowest.min(written.blob.blob),
            comparing: None,
        },
    };
    (held != Some(row)).then_some(row)
}

fn blob_owner(
    incarnation: BucketIncarnation,
    key: &str,
    row: &VersionRow,
    blob: &BlobRef,
) -> BlobRow {
    BlobRow {
        incarnation,
        key: key.to_owned(),
        uid: row.uid,
        part: 0,
        layout: blob.layout,
        len: blob.len,
    }
}

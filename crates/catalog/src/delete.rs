//! Deleting objects: the version goes and its blobs are condemned in one
//! commit, which expects the exact record that named them (PROTOCOL.md 7).

use std::collections::HashSet;

use crate::buckets::BucketRef;
use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::error::{CatalogError, Result};
use crate::keys;
use crate::model::{CondemnReason, ETag, VersionRow};
use crate::publish::WriteCondition;

/// Changes after which a deletion of many keys goes into another commit.
const OPS_PER_COMMIT: usize = 10_000;

/// What must hold of the key for it to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteCondition {
    /// Nothing; that there is no object is no error.
    None,
    /// `If-Match: *`: there is one.
    IfMatchAny,
    /// `If-Match`: there is one, with this ETag.
    IfMatch(ETag),
}

impl DeleteCondition {
    fn check(&self, current: Option<&VersionRow>) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::IfMatchAny => WriteCondition::IfMatchAny.check(current),
            Self::IfMatch(etag) => WriteCondition::IfMatch(*etag).check(current),
        }
    }
}

impl Catalog {
    /// Deletes the newest version of a key; returns what it was, if anything.
    pub async fn delete_object(
        &self,
        bucket: &BucketRef,
        key: &str,
        condition: DeleteCondition,
    ) -> Result<Option<VersionRow>> {
        let turn = (bucket.incarnation, key);
        let _turn = self.inner.key_turns.one(&turn).await;
        self.delete_in_turn(bucket, key, condition).await
    }

    async fn delete_in_turn(
        &self,
        bucket: &BucketRef,
        key: &str,
        condition: DeleteCondition,
    ) -> Result<Option<VersionRow>> {
        for attempt in 0..ATTEMPTS {
            let mut draft = Draft::new();
            self.expect_writable(&mut draft, bucket, attempt).await?;
            let held = self.stored_version(bucket.incarnation, key).await?;
            condition.check(held.as_ref().map(|held| &held.row))?;
            let Some(held) = held else { return Ok(None) };
            draft.drop_version(bucket.incarnation, key, &held, CondemnReason::Deleted);
            match self.commit(draft).await {
                Ok(_) => return Ok(Some(held.row)),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// Deletes many keys, in as few commits as are bounded; one answer for
    /// each key, in order. A key that stands twice is there once.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchBucket`] for all of them.
    pub async fn delete_objects(
        &self,
        bucket: &BucketRef,
        keys: &[String],
    ) -> Result<Vec<Result<Option<VersionRow>>>> {
        self.writable_bucket(bucket).await?;
        let names = keys.iter().map(|key| (bucket.incarnation, key));
        let _turns = self.inner.key_turns.many(names).await;
        let mut answers = Vec::with_capacity(keys.len());
        let mut seen = HashSet::new();
        let mut rest = keys;
        while !rest.is_empty() {
            let (done, mut step) = self.delete_step(bucket, rest, &mut seen).await?;
            answers.append(&mut step);
            rest = &rest[done..];
        }
        Ok(answers)
    }

    /// Deletes as many of the first keys as one commit holds.
    async fn delete_step<'k>(
        &self,
        bucket: &BucketRef,
        keys: &'k [String],
        seen: &mut HashSet<&'k str>,
    ) -> Result<(usize, Vec<Result<Option<VersionRow>>>)> {
        let wanted: Vec<_> = keys
            .iter()
            .map(|key| keys::current(bucket.incarnation, key))
            .collect();
        let found = self.engine().get_many(&wanted).await?;
        let mut draft = Draft::new();
        self.expect_writable(&mut draft, bucket, 0).await?;
        let mut rows = Vec::new();
        for (key, raw) in keys.iter().zip(found) {
            if draft.ops() >= OPS_PER_COMMIT {
                break;
            }
            let raw = raw.filter(|_| seen.insert(key));
            let row = match raw {
                None => None,
                Some(raw) => {
                    let held = self.with_parts(raw).await?;
                    draft.drop_version(bucket.incarnation, key, &held, CondemnReason::Deleted);
                    Some(held.row)
                }
            };
            rows.push(row);
        }
        let done = rows.len();
        let outcome = if draft.is_empty() {
            Ok(())
        } else {
            self.commit(draft).await.map(|_| ())
        };
        let answers = match outcome {
            Ok(()) => rows.into_iter().map(Ok).collect(),
            Err(CatalogError::Conflict | CatalogError::TooLarge { .. }) => {
                self.delete_singly(bucket, &keys[..done], &rows).await
            }
            Err(error) => return Err(error),
        };
        Ok((done, answers))
    }

    /// One commit each, for keys whose common one failed.
    async fn delete_singly(
        &self,
        bucket: &BucketRef,
        keys: &[String],
        found: &[Option<VersionRow>],
    ) -> Vec<Result<Option<VersionRow>>> {
        let mut answers = Vec::with_capacity(keys.len());
        for (key, row) in keys.iter().zip(found) {
            answers.push(match row {
                Some(_) => {
                    self.delete_in_turn(bucket, key, DeleteCondition::None)
                        .await
                }
                None => Ok(None),
            });
        }
        answers
    }
}

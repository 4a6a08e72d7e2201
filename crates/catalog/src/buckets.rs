//! Buckets: making, finding, listing and deleting them.
//!
//! Invariant: a bucket row goes only by a commit that expects the `Deleting`
//! state under which its contents were found empty (PROTOCOL.md 8); whoever
//! writes into a bucket expects its `Active` row.

use std::sync::Arc;

use shardgate_wire::BucketIncarnation;

use crate::bucket_cache::StoredBucket;
use crate::catalog::{ATTEMPTS, Catalog, detached};
use crate::draft::Draft;
use crate::engine::KeyRange;
use crate::error::{CatalogError, Result};
use crate::keys::{self, space};
use crate::model::{BucketRow, BucketState, UnixMillis};
use crate::row::{Counter, decode, encode};

/// Rows that one step of a deletion removes.
const STEP: usize = 1000;

/// One life of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketRef {
    /// Its name.
    pub name: String,
    /// Which life of the name.
    pub incarnation: BucketIncarnation,
}

/// A bucket and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedBucket {
    /// The name.
    pub name: String,
    /// The row.
    pub row: BucketRow,
}

impl Catalog {
    /// Makes a bucket.
    ///
    /// # Errors
    /// [`CatalogError::BucketExists`], whoever owns it.
    pub async fn create_bucket(
        &self,
        name: &str,
        owner: &str,
        now: UnixMillis,
    ) -> Result<BucketRow> {
        let (catalog, name, owner) = (self.clone(), name.to_owned(), owner.to_owned());
        detached(async move { catalog.create_bucket_attached(&name, owner, now).await }).await
    }

    async fn create_bucket_attached(
        &self,
        name: &str,
        owner: String,
        now: UnixMillis,
    ) -> Result<BucketRow> {
        let _turn = self.inner.bucket_turns.one(&name).await;
        let _counter = self.inner.counter_turn.lock().await;
        for _ in 0..ATTEMPTS {
            if let Some(held) = self.read_bucket(name).await? {
                let owner = held.row.owner.clone();
                return Err(CatalogError::BucketExists { owner });
            }
            let counter = self.stored::<Counter>(keys::LAST_INCARNATION).await?;
            let (counter_raw, last) = counter.unzip();
            let number = last.map_or(0, |last| last.0) + 1;
            let row = BucketRow {
                incarnation: BucketIncarnation(number),
                created: now,
                owner: owner.clone(),
                state: BucketState::Active,
            };
            let mut draft = Draft::new();
            draft.expect(keys::LAST_INCARNATION.into(), counter_raw);
            draft.put(keys::LAST_INCARNATION.into(), &Counter(number));
            draft.expect(keys::bucket(name), None);
            draft.put(keys::bucket(name), &row);
            let _change = self.inner.bucket_cache.change(name);
            match self.commit(draft).await {
                Ok(_) => return Ok(row),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// The bucket of a name.
    ///
    /// # Errors
    /// [`CatalogError::NoSuchBucket`].
    pub async fn bucket(&self, name: &str) -> Result<BucketRow> {
        Ok(self.find_bucket(name).await?.row.clone())
    }

    /// Buckets in order of name, those behind `after`.
    pub async fn list_buckets(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<NamedBucket>> {
        let mut range = KeyRange::prefix(vec![space::BUCKET]);
        if let Some(name) = after {
            range.start = keys::after(&keys::bucket(name));
        }
        let rows = self.rows(range, limit, keys::decode_bucket).await?;
        Ok(rows
            .into_iter()
            .map(|(name, row)| NamedBucket { name, row })
            .collect())
    }

    /// Deletes a bucket that holds no object; its open uploads end with it.
    ///
    /// # Errors
    /// [`CatalogError::BucketNotEmpty`], [`CatalogError::NoSuchBucket`].
    pub async fn delete_bucket(&self, name: &str) -> Result<()> {
        let (catalog, name) = (self.clone(), name.to_owned());
        detached(async move { catalog.delete_bucket_attached(&name).await }).await
    }

    async fn delete_bucket_attached(&self, name: &str) -> Result<()> {
        let _turn = self.inner.bucket_turns.one(&name).await;
        let Some(held) = self.read_bucket(name).await? else {
            return Err(CatalogError::NoSuchBucket);
        };
        let _change = self.inner.bucket_cache.change(name);
        // A state that a crash left behind is taken over: the attempt is new.
        let attempt = fresh_number();
        let deleting = self
            .set_state(name, &held, BucketState::Deleting { attempt })
            .await?;
        if self.holds_versions(held.row.incarnation).await? {
            self.set_state(name, &deleting, BucketState::Active).await?;
            return Err(CatalogError::BucketNotEmpty);
        }
        self.end_uploads(held.row.incarnation).await?;
        self.forget_all_completed(held.row.incarnation).await?;
        let mut draft = Draft::new();
        draft.expect(keys::bucket(name), Some(deleting.raw));
        draft.delete(keys::bucket(name));
        self.commit(draft).await?;
        Ok(())
    }

    /// The caller has the bucket's turn and has marked it as changing.
    async fn set_state(
        &self,
        name: &str,
        held: &StoredBucket,
        state: BucketState,
    ) -> Result<StoredBucket> {
        let row = BucketRow {
            state,
            ..held.row.clone()
        };
        let raw = encode(&row);
        let mut draft = Draft::new();
        draft.expect(keys::bucket(name), Some(held.raw.clone()));
        draft.put_raw(keys::bucket(name), raw.clone());
        self.commit(draft).await?;
        Ok(StoredBucket { row, raw })
    }

    async fn holds_versions(&self, incarnation: BucketIncarnation) -> Result<bool> {
        for space in [space::CURRENT, space::NONCURRENT] {
            let range = KeyRange::prefix(keys::of_bucket(space, incarnation));
            if !self.raw_rows(range, 1).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn end_uploads(&self, incarnation: BucketIncarnation) -> Result<()> {
        loop {
            let range = KeyRange::prefix(keys::of_bucket(space::UPLOAD, incarnation));
            let rows = self.raw_rows(range, STEP).await?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, _) in rows {
                let (name, uid) = keys::decode_upload(&key)?;
                match self.end_upload(incarnation, &name, uid).await {
                    Ok(()) | Err(CatalogError::NoSuchUpload) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    async fn forget_all_completed(&self, incarnation: BucketIncarnation) -> Result<()> {
        let mut range = KeyRange::prefix(keys::of_bucket(space::COMPLETED, incarnation));
        loop {
            let rows = self.raw_rows(range.clone(), STEP).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(());
            };
            range.start = keys::after(last);
            let mut draft = Draft::new();
            for (key, _) in rows {
                draft.delete(key);
            }
            self.commit(draft).await?;
        }
    }

    /// The bucket row as the engine holds it, past the cache.
    async fn read_bucket(&self, name: &str) -> Result<Option<StoredBucket>> {
        let stored = self.stored(&keys::bucket(name)).await?;
        Ok(stored.map(|(raw, row)| StoredBucket { row, raw }))
    }

    pub(crate) async fn find_bucket(&self, name: &str) -> Result<Arc<StoredBucket>> {
        let stamp = match self.inner.bucket_cache.get(name) {
            Ok(bucket) => return Ok(bucket),
            Err(stamp) => stamp,
        };
        let raw = self.engine().get(&keys::bucket(name)).await?;
        let raw = raw.ok_or(CatalogError::NoSuchBucket)?;
        let row = decode(&raw)?;
        let bucket = Arc::new(StoredBucket { row, raw });
        self.inner.bucket_cache.fill(name, bucket.clone(), stamp);
        Ok(bucket)
    }

    /// The row that a writer into this bucket expects. A deletion that is
    /// under way is waited for; one that a crash left behind is undone.
    pub(crate) async fn writable_bucket(&self, bucket: &BucketRef) -> Result<Arc<StoredBucket>> {
        for _ in 0..ATTEMPTS {
            let found = self.find_bucket(&bucket.name).await?;
            if found.row.incarnation != bucket.incarnation {
                return Err(CatalogError::NoSuchBucket);
            }
            if found.row.state == BucketState::Active {
                return Ok(found);
            }
            let (catalog, name) = (self.clone(), bucket.name.clone());
            detached(async move { catalog.settle_bucket(&name).await }).await?;
        }
        Err(CatalogError::Conflict)
    }

    async fn settle_bucket(&self, name: &str) -> Result<()> {
        let _turn = self.inner.bucket_turns.one(&name).await;
        let Some(held) = self.read_bucket(name).await? else {
            return Ok(());
        };
        if held.row.state == BucketState::Active {
            return Ok(());
        }
        let _change = self.inner.bucket_cache.change(name);
        match self.set_state(name, &held, BucketState::Active).await {
            Ok(_) | Err(CatalogError::Conflict) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A number that was never drawn before.
pub(crate) fn fresh_number() -> u64 {
    (shardgate_wire::ids::random_u128() >> 64) as u64
}

#[cfg(test)]
mod tests;

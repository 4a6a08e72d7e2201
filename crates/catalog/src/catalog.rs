//! The handle that everything else holds: an engine, and what makes its use
//! fast inside one process (turns, the bucket cache, the class table).

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use shardgate_wire::CommitNumber;
use tokio::sync::Mutex;

use crate::bucket_cache::BucketCache;
use crate::draft::Draft;
use crate::engine::{Engine, Entry, KeyRange, MemoryEngine, Scan, Snapshot};
#[cfg(feature = "rocksdb")]
use crate::engine::{RocksEngine, RocksOptions as CatalogOptions};
use crate::error::{CatalogError, Result};
use crate::model::ClassRow;
use crate::row::{Damaged, Row, decode};
use crate::turns::Turns;

/// How often a write whose records changed meanwhile is made again.
pub(crate) const ATTEMPTS: usize = 16;

const KEY_TURNS: usize = 4096;
const BUCKET_TURNS: usize = 64;

/// The metadata of a cluster. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Catalog {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) bucket_cache: BucketCache,
    /// By incarnation and key, or by upload and part.
    pub(crate) key_turns: Turns,
    /// By name.
    pub(crate) bucket_turns: Turns,
    /// Whoever draws numbers or purges.
    pub(crate) counter_turn: Mutex<()>,
    pub(crate) purge_turn: Mutex<()>,
    /// Every registered class; only grows.
    pub(crate) classes: RwLock<Vec<ClassRow>>,
}

impl Catalog {
    /// A catalog over some engine.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            inner: Arc::new(Inner {
                engine,
                bucket_cache: BucketCache::default(),
                key_turns: Turns::new(KEY_TURNS),
                bucket_turns: Turns::new(BUCKET_TURNS),
                counter_turn: Mutex::new(()),
                purge_turn: Mutex::new(()),
                classes: RwLock::default(),
            }),
        }
    }

    /// A catalog that is gone with the process, for tests.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(MemoryEngine::new()))
    }

    /// The catalog in a folder of this machine, on RocksDB.
    ///
    /// # Errors
    /// Another process has it open, or it is damaged.
    #[cfg(feature = "rocksdb")]
    pub async fn open_rocksdb(
        path: impl Into<std::path::PathBuf>,
        options: CatalogOptions,
    ) -> Result<Self> {
        let path = path.into();
        let open = move || RocksEngine::open(&path, &options);
        let engine = tokio::task::spawn_blocking(open).await;
        let engine = engine.map_err(|error| CatalogError::Unavailable {
            why: error.to_string(),
        })??;
        Ok(Self::new(Arc::new(engine)))
    }

    /// The highest commit that is durable and visible.
    pub fn committed(&self) -> CommitNumber {
        self.engine().committed()
    }

    /// As [`crate::engine::Engine::flush`].
    pub async fn flush(&self) -> Result<()> {
        Ok(self.engine().flush().await?)
    }

    /// What the engine holds at this moment, for checks over many rows.
    pub async fn snapshot(&self) -> Result<Box<dyn Snapshot>> {
        Ok(self.engine().snapshot().await?)
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.inner.engine
    }

    /// The row of a key and its bytes.
    pub(crate) async fn stored<R: Row>(&self, key: &[u8]) -> Result<Option<(Bytes, R)>> {
        let raw = self.engine().get(key).await?;
        raw.map(|raw| {
            let row = decode(&raw)?;
            Ok((raw, row))
        })
        .transpose()
    }

    /// The row of a key.
    pub(crate) async fn row<R: Row>(&self, key: &[u8]) -> Result<Option<R>> {
        Ok(self.stored(key).await?.map(|(_, row)| row))
    }

    /// The first `limit` rows of a range, with their keys.
    pub(crate) async fn raw_rows(
        &self,
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>> {
        let entries = self.engine().scan(Scan::first(range, limit)).await?;
        Ok(entries.into_iter().filter_map(Entry::into_row).collect())
    }

    /// The first `limit` rows of a range, decoded.
    pub(crate) async fn rows<R: Row, K>(
        &self,
        range: KeyRange,
        limit: usize,
        decode_key: impl Fn(&[u8]) -> Result<K, Damaged>,
    ) -> Result<Vec<(K, R)>> {
        let rows = self.raw_rows(range, limit).await?;
        rows.iter()
            .map(|(key, value)| Ok((decode_key(key)?, decode(value)?)))
            .collect()
    }

    /// Commits once; a failed expectation is [`CatalogError::Conflict`].
    pub(crate) async fn commit(&self, draft: Draft) -> Result<CommitNumber> {
        Ok(self.engine().commit(draft.into_commit()).await?)
    }

    /// Puts a row whose predecessor is exactly `expect`.
    pub(crate) async fn replace<R: Row + PartialEq>(
        &self,
        key: Bytes,
        row: &R,
        expect: Option<&R>,
    ) -> Result<CommitNumber> {
        let held = self.stored::<R>(&key).await?;
        let (raw, held) = held.unzip();
        if held.as_ref() != expect {
            return Err(CatalogError::Conflict);
        }
        let mut draft = Draft::new();
        draft.expect(key.clone(), raw);
        draft.put(key, row);
        self.commit(draft).await
    }
}

/// Runs to its end whatever becomes of the caller.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work).await {
        Ok(result) => result,
        Err(error) => Err(CatalogError::Unavailable {
            why: format!("catalog task ended: {error}"),
        }),
    }
}

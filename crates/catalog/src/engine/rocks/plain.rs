//! RocksDB by itself, set as the engine sets it: what benchmarks compare the
//! engine with. Every write syncs; RocksDB takes those together that wait.

use std::path::Path;

use bytes::Bytes;
use rocksdb::{DB, WriteBatch, WriteOptions};

use super::{RocksOptions, engine_error};
use crate::engine::EngineError;

/// See the module.
#[derive(Debug)]
pub struct PlainRocks {
    db: DB,
}

impl PlainRocks {
    /// Opens the database in a folder, or makes it. Blocks.
    ///
    /// # Errors
    /// As `RocksEngine::open`.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, EngineError> {
        let db = DB::open(&options.database(), path).map_err(engine_error)?;
        Ok(Self { db })
    }

    /// Puts rows together; returns when they are durable. Blocks.
    ///
    /// # Errors
    /// RocksDB's.
    pub fn write(&self, rows: &[(Bytes, Bytes)]) -> Result<(), EngineError> {
        let mut batch = WriteBatch::default();
        for (key, value) in rows {
            batch.put(key, value);
        }
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch, &options).map_err(engine_error)
    }
}

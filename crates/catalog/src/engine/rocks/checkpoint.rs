//! Checkpoints of the database: its files in another folder, hard-linked, as
//! of one commit; and the database that is made of such files.

use std::path::Path;
use std::{fs, io};

use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;

use super::{RocksEngine, RocksOptions, RocksStopped, applied, engine_error, options};
use crate::engine::EngineError;
use crate::engine::log::ChainPosition;

/// Rows for one look into the filters: a part of one is of some 3,000.
const PROBE_EACH: u64 = 64;

impl RocksEngine {
    /// Writes out what is in memory and links the files of the database into
    /// `folder`, which must not exist yet and lie on the same file system.
    /// Returns the last commit that they have. Commits go on meanwhile.
    /// Blocks.
    ///
    /// # Errors
    /// The database or the file system failed; the folder may be there.
    pub fn checkpoint(&self, folder: &Path) -> Result<ChainPosition, EngineError> {
        let checkpoint = Checkpoint::new(&*self.db).map_err(engine_error)?;
        checkpoint.create_checkpoint(folder).map_err(engine_error)?;
        // What the files have is what they say, not what was applied around
        // the time.
        let options = RocksOptions {
            create: false,
            ..RocksOptions::default()
        };
        let opened = DB::open_for_read_only(&options.database(), folder, false);
        applied(&opened.map_err(engine_error)?)
    }
}

/// Reads every block of some tables of a checkpoint's folder and checks it, so
/// that what a local disk has damaged goes into no checkpoint in the place of
/// what the pool has whole. Works in `scratch`, which must not exist yet and
/// lie on the same file system, and removes it. Blocks.
///
/// # Errors
/// [`EngineError::Damaged`]: one of them is; or the file system failed.
pub fn verify_tables(folder: &Path, names: &[&str], scratch: &Path) -> Result<(), EngineError> {
    if names.is_empty() {
        return Ok(());
    }
    let verified = read_all(folder, names, scratch);
    fs::remove_dir_all(scratch).map_err(local)?;
    verified
}

/// A database of these tables and no others is made and read from its first
/// row to its last: to do so it must read every block of each.
fn read_all(folder: &Path, names: &[&str], scratch: &Path) -> Result<(), EngineError> {
    fs::create_dir(scratch).map_err(local)?;
    for name in names {
        fs::hard_link(folder.join(name), scratch.join(name)).map_err(local)?;
    }
    let database = RocksOptions {
        create: false,
        ..RocksOptions::default()
    };
    let database = database.database();
    DB::repair(&database, scratch).map_err(engine_error)?;
    let db = DB::open_for_read_only(&database, scratch, false).map_err(engine_error)?;
    let tables = db.live_files().map_err(engine_error)?;
    if tables.len() != names.len() {
        return Err(EngineError::Damaged(format!(
            "{} of {} new tables can be read",
            tables.len(),
            names.len()
        )));
    }
    for first in tables.iter().filter_map(|table| table.start_key.as_ref()) {
        probe(&db, first)?;
    }
    let mut rows = db.raw_iterator_opt(uncached());
    rows.seek_to_first();
    let mut number = 0u64;
    while let Some(key) = rows.key() {
        if number.is_multiple_of(PROBE_EACH) {
            probe(&db, key)?;
        }
        number += 1;
        rows.next();
    }
    rows.status().map_err(engine_error)
}

/// A scan reads no filters. A row that is not there is looked for in those of
/// all tables around its place.
fn probe(db: &DB, key: &[u8]) -> Result<(), EngineError> {
    let absent = [key, &[0]].concat();
    let found = db.get_pinned_opt(absent, &uncached());
    found.map(drop).map_err(engine_error)
}

fn uncached() -> rocksdb::ReadOptions {
    let mut reads = options::reads();
    reads.fill_cache(false);
    reads
}

fn local(error: io::Error) -> EngineError {
    EngineError::Unavailable(error.to_string())
}

impl RocksStopped {
    /// Opens a database that was made of a checkpoint's files. Blocks.
    ///
    /// # Errors
    /// As [`Self::open`]; [`EngineError::Damaged`] if it is not at `expected`.
    pub fn open_restored(
        path: &Path,
        options: &RocksOptions,
        expected: ChainPosition,
    ) -> Result<Self, EngineError> {
        let options = RocksOptions {
            create: false,
            ..options.clone()
        };
        let opened = Self::open(path, &options)?;
        let found = opened.applied();
        if found != expected {
            return Err(EngineError::Damaged(format!(
                "the files are at commit {}, their manifest says {}",
                found.number.0, expected.number.0
            )));
        }
        Ok(opened)
    }
}

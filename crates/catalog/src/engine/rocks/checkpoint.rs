//! Checkpoints of the database: its files in another folder, hard-linked, as
//! of one commit; and the database that is made of such files.

use std::path::Path;

use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;

use super::{RocksEngine, RocksOptions, RocksStopped, applied, engine_error};
use crate::engine::EngineError;
use crate::engine::log::ChainPosition;

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

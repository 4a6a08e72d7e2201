//! The files of the local database, as a checkpoint takes them.
//!
//! Owns the two folders beside the database: one that its files are linked
//! into, and one that new tables are checked in. Both are gone when nothing is
//! taken: links hold on to tables that the database has given up. Invariant: a
//! table is hashed once under its name, length and inode; it never changes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use shardgate_catalog::checkpoint::{ContentHash, folder};
use shardgate_catalog::engine::log::ChainPosition;
use shardgate_catalog::engine::{RocksEngine, verify_tables};

use super::take::TakeError;

/// The folder that a checkpoint's files are linked into.
const LINKS: &str = "checkpoint";
/// The folder that new tables are checked in.
const SCRATCH: &str = "checkpoint.checked";

/// Hashes of tables.
type Hashes = HashMap<(String, u64, u64), ContentHash>;

/// See the module.
pub struct LocalDatabase {
    engine: Arc<RocksEngine>,
    /// The gateway's own folder.
    own: PathBuf,
    hashes: Mutex<Hashes>,
}

/// A file of it.
pub(super) struct LocalFile {
    pub(super) name: String,
    pub(super) len: u64,
    pub(super) hash: ContentHash,
}

impl LocalDatabase {
    /// The database of a gateway with this folder.
    pub fn new(engine: Arc<RocksEngine>, own: PathBuf) -> Self {
        Self {
            engine,
            own,
            hashes: Mutex::default(),
        }
    }

    /// Links its files and hashes them; the commit that they have.
    pub(super) async fn link(&self) -> Result<(ChainPosition, Vec<LocalFile>), TakeError> {
        let (engine, at) = (Arc::clone(&self.engine), self.own.join(LINKS));
        let known = self.hashes.lock().clone();
        let linked = tokio::task::spawn_blocking(move || {
            remove(&at)?;
            let position = engine.checkpoint(&at)?;
            Ok::<_, TakeError>((position, hash_all(&at, &known)?))
        });
        let (position, (files, hashes)) = linked.await.map_err(|_| TakeError::Ended)??;
        *self.hashes.lock() = hashes;
        Ok((position, files))
    }

    /// Where a linked file is.
    pub(super) fn linked(&self, name: &str) -> PathBuf {
        self.own.join(LINKS).join(name)
    }

    /// Reads those of the linked files that are tables, every block.
    pub(super) async fn verify(
        &self,
        files: impl Iterator<Item = &LocalFile>,
    ) -> Result<(), TakeError> {
        let tables = files.filter(|file| folder::is_table(&file.name));
        let names: Vec<String> = tables.map(|file| file.name.clone()).collect();
        let (links, scratch) = (self.own.join(LINKS), self.own.join(SCRATCH));
        let verified = tokio::task::spawn_blocking(move || {
            remove(&scratch)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            Ok::<_, TakeError>(verify_tables(&links, &names, &scratch)?)
        });
        verified.await.map_err(|_| TakeError::Ended)?
    }

    /// Removes both folders.
    pub(super) async fn clean(&self) -> Result<(), TakeError> {
        let folders = [LINKS, SCRATCH].map(|name| self.own.join(name));
        blocking(move || folders.iter().try_for_each(|folder| remove(folder))).await
    }

    /// The same one, as after a start.
    #[cfg(test)]
    pub(super) fn again(&self) -> Self {
        Self::new(Arc::clone(&self.engine), self.own.clone())
    }

    /// As after a start.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.hashes.lock().clear();
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Hashes the files of a folder; tables whose hash is known are not read.
fn hash_all(at: &Path, known: &Hashes) -> io::Result<(Vec<LocalFile>, Hashes)> {
    let mut hashes = Hashes::new();
    let mut files = Vec::new();
    for file in folder::files(at)? {
        let path = at.join(&file.name);
        let key = (file.name.clone(), file.len, fs::metadata(&path)?.ino());
        let hash = match known.get(&key) {
            Some(hash) => *hash,
            None => folder::hash(&path)?.0,
        };
        if folder::is_table(&file.name) {
            hashes.insert(key, hash);
        }
        files.push(LocalFile {
            name: file.name,
            len: file.len,
            hash,
        });
    }
    Ok((files, hashes))
}

/// Does something that blocks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, TakeError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| TakeError::Ended)??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_hashed_once_and_others_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        write("000001.sst", b"table");
        write("CURRENT", b"first");
        write("LOG", b"no part of it");
        let (files, hashes) = hash_all(dir.path(), &Hashes::new()).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["000001.sst", "CURRENT"]);
        assert_eq!(files[0].hash, ContentHash::of(b"table"));
        assert_eq!(hashes.len(), 1);
        // Same length, same inode: a table is believed, anything else is not.
        write("000001.sst", b"TABLE");
        write("CURRENT", b"later");
        let (files, hashes) = hash_all(dir.path(), &hashes).unwrap();
        assert_eq!(files[0].hash, ContentHash::of(b"table"));
        assert_eq!(files[1].hash, ContentHash::of(b"later"));
        // Another file under the name of an old one.
        let path = dir.path().join("000001.sst");
        write("new", b"other");
        fs::rename(dir.path().join("new"), &path).unwrap();
        let (files, hashes) = hash_all(dir.path(), &hashes).unwrap();
        assert_eq!(files[0].hash, ContentHash::of(b"other"));
        fs::remove_file(&path).unwrap();
        let (_, hashes) = hash_all(dir.path(), &hashes).unwrap();
        assert!(hashes.is_empty(), "what is gone is forgotten");
    }
}

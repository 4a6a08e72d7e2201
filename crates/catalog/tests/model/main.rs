//! The catalog against a plain reference, over random operations, on every
//! engine; and what only appears when many do things at once.

#![expect(clippy::unwrap_used, reason = "in a test it is the assertion")]

mod build;
mod check;
#[cfg(feature = "rocksdb")]
mod checkpoints;
mod concurrent;
mod interleaved;
#[cfg(feature = "rocksdb")]
mod killed;
mod random;
mod reference;
mod size;
mod steps;

use shardgate_catalog::Catalog;

/// A catalog, and the folder that goes with it.
pub(crate) struct Opened {
    pub(crate) catalog: Catalog,
    _folder: Option<tempfile::TempDir>,
}

pub(crate) fn in_memory() -> Opened {
    Opened {
        catalog: Catalog::in_memory(),
        _folder: None,
    }
}

#[cfg(feature = "rocksdb")]
pub(crate) async fn on_rocksdb() -> Opened {
    let folder = tempfile::tempdir().unwrap();
    Opened {
        catalog: open_in(folder.path()).await,
        _folder: Some(folder),
    }
}

#[cfg(feature = "rocksdb")]
pub(crate) async fn open_in(folder: &std::path::Path) -> Catalog {
    let options = shardgate_catalog::CatalogOptions {
        block_cache_bytes: 8 << 20,
        memtable_bytes: 8 << 20,
        create: true,
    };
    Catalog::open_rocksdb(folder, options).await.unwrap()
}

//! What an earlier run left: whether a checkpoint that a start has found by
//! its root is whole.
//!
//! Invariant: it counts as whole only if its manifest was read, and every file
//! of it has a shard on each disk that takes writes. A root alone proves
//! nothing: its files may be gone since.

use shardgate_catalog::checkpoint::{CheckpointRoot, Manifest, StoredFile};

use super::due::Health;
use super::fetch::PoolFiles;
use super::take::Taker;
use super::verify::KeptCheckpoint;

/// Looks at one.
pub(super) async fn look(taker: &Taker, root: CheckpointRoot) -> KeptCheckpoint {
    let (files, commit) = (taker.pool_files(), root.position.number.0);
    let manifest = match manifest(&files, &root).await {
        Ok(manifest) => manifest,
        Err(why) => {
            tracing::error!(commit, why, "the manifest of a checkpoint cannot be read");
            return KeptCheckpoint {
                root,
                manifest: None,
                whole: false,
            };
        }
    };
    let mut lacking = 0;
    for stored in manifest.stored().map(|(_, of)| of).chain([&root.manifest]) {
        lacking += usize::from(lacks(taker, &files, stored).await);
    }
    if lacking > 0 {
        tracing::error!(commit, lacking, "files of a checkpoint are not whole");
    }
    KeptCheckpoint {
        root,
        manifest: Some(manifest),
        whole: lacking == 0,
    }
}

async fn manifest(files: &PoolFiles, root: &CheckpointRoot) -> Result<Manifest, String> {
    let read = files.read_whole(&root.manifest, root.manifest_hash).await;
    let bytes = read.map_err(|error| error.to_string())?;
    Manifest::decode(&bytes).map_err(|error| error.to_string())
}

/// Whether a file must be sent again for what is missing of it. Shards on
/// disks that are known to be away are missing for as long as they are.
async fn lacks(taker: &Taker, files: &PoolFiles, stored: &StoredFile) -> bool {
    let (there, of) = files.count(stored).await;
    let least = match taker.health(&stored.blob) {
        Health::Whole => of,
        Health::Away | Health::Lost => usize::from(stored.blob.layout.data),
    };
    there < least.max(1)
}

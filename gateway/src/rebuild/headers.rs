//! The headers of shards, from whichever disk has one of the blob.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use shardgate_catalog::rebuild::Headers;
use shardgate_wire::{BlobId, GroupId, ShardHeader, ShardKey, ShardStore};
use tokio::time::timeout;

/// How long a disk may take to answer.
const WITHIN: Duration = Duration::from_secs(20);
/// Shards of one blob that a disk has: where it was moved, more than one.
const SHARDS: usize = 4;

/// See the module.
pub struct ShardHeaders {
    disks: Vec<Arc<dyn ShardStore>>,
    /// A blob is asked for more than once in a row.
    last: Mutex<Option<(GroupId, BlobId, ShardHeader)>>,
}

impl ShardHeaders {
    /// Of these disks.
    pub fn new(disks: Vec<Arc<dyn ShardStore>>) -> Self {
        Self {
            disks,
            last: Mutex::default(),
        }
    }

    async fn at(disk: &dyn ShardStore, group: GroupId, blob: BlobId) -> Option<ShardHeader> {
        let listed = timeout(WITHIN, disk.list(before(group, blob), SHARDS)).await;
        for shard in listed.ok()?.ok()? {
            if (shard.key.group, shard.key.blob) != (group, blob) {
                continue;
            }
            if let Ok(Ok(stat)) = timeout(WITHIN, disk.stat(shard.key)).await {
                return Some(stat.header);
            }
        }
        None
    }
}

#[async_trait]
impl Headers for ShardHeaders {
    async fn header(&self, group: GroupId, blob: BlobId) -> Option<ShardHeader> {
        if let Some((of, held, header)) = &*self.last.lock()
            && (*of, *held) == (group, blob)
        {
            return Some(header.clone());
        }
        for disk in &self.disks {
            if let Some(header) = Self::at(&**disk, group, blob).await {
                *self.last.lock() = Some((group, blob, header.clone()));
                return Some(header);
            }
        }
        None
    }
}

/// The last key before those of a blob.
fn before(group: GroupId, blob: BlobId) -> Option<ShardKey> {
    let index = u8::MAX;
    let (group, blob) = match (blob.0.checked_sub(1), group.0.checked_sub(1)) {
        (Some(before), _) => (group, BlobId(before)),
        (None, Some(before)) => (GroupId(before), BlobId(u128::MAX)),
        (None, None) => return None,
    };
    Some(ShardKey { group, blob, index })
}

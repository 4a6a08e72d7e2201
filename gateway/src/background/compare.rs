//! What a slot lacks, from the catalog's list and the disk's.
//!
//! Pure. The catalog's page must have been read before the disk was listed:
//! then a shard that was durable when its blob was committed is in both.

use std::collections::HashSet;

use shardgate_catalog::model::{BlobRef, BlobState};
use shardgate_wire::store::ListedShard;
use shardgate_wire::{BlobId, ShardKey};

use crate::object::ports::{GroupView, layout_of};

/// A shard that its disk does not have, or did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// Its blob.
    pub(super) blob: BlobRef,
    /// Which shard.
    pub(super) shard: u8,
}

/// The shards of a page of the group's blobs that belong to `slot` and are
/// not in its disk's list.
pub(super) fn missing(
    group: &GroupView,
    slot: u8,
    page: &[(BlobId, BlobState)],
    listed: &[ListedShard],
) -> Vec<Missing> {
    let finished = listed.iter().filter(|shard| shard.finished);
    let there: HashSet<ShardKey> = finished.map(|shard| shard.key).collect();
    let mut missing = Vec::new();
    for (id, state) in page {
        let Some((layout, len)) = state.extent() else {
            continue;
        };
        let blob = BlobRef {
            group: group.row.id,
            blob: *id,
            layout,
            len,
        };
        // A record that is damaged is said to be so by the next read.
        let shards = layout_of(&blob).map_or(0, |layout| layout.shards());
        let of_slot = (0..shards).filter(|shard| group.slot(&blob, *shard) == slot);
        let lacks = of_slot.filter(|shard| !there.contains(&group.key(&blob, *shard)));
        missing.extend(lacks.map(|shard| Missing { blob, shard }));
    }
    missing
}

#[cfg(test)]
mod tests {
    use shardgate_catalog::model::{BlobRow, CheckpointBlob, GroupRow, GroupState};
    use shardgate_wire::{
        BlobLayout, BucketIncarnation, DiskId, Generation, GroupId, Medium, VersionUid,
    };

    use super::*;

    fn group() -> GroupView {
        let slots = (1..=6).map(DiskId).collect();
        let row = GroupRow {
            id: GroupId(7),
            generation: Generation(1),
            data: 4,
            parity: 2,
            medium: Medium::Flash,
            slots,
            state: GroupState::Open,
            narrow: false,
            slot_bytes: 0,
        };
        GroupView {
            row,
            scheme: "4+2".parse().unwrap(),
            servers: vec![0; 6],
        }
    }

    fn owned(blob: u128, data: u8) -> (BlobId, BlobState) {
        let row = BlobRow {
            incarnation: BucketIncarnation(1),
            key: "k".into(),
            uid: VersionUid(blob),
            part: 0,
            layout: BlobLayout { data, parity: 2 },
            len: 1000,
        };
        (BlobId(blob), BlobState::Owned(row))
    }

    fn of_checkpoint(stored: bool) -> BlobState {
        BlobState::Checkpoint(CheckpointBlob {
            file: [1; 32],
            layout: BlobLayout { data: 4, parity: 2 },
            len: 1000,
            stored,
        })
    }

    #[test]
    fn every_shard_of_the_slot_that_is_not_finished_there() {
        let group = group();
        let page: Vec<_> = (1..=50)
            .map(|blob| owned(blob, if blob % 2 == 0 { 4 } else { 1 }))
            .chain([(BlobId(51), BlobState::NeverPublished)])
            .chain([(BlobId(52), of_checkpoint(true))])
            .chain([(BlobId(53), of_checkpoint(false))])
            .collect();
        let mut total = 0;
        for slot in 0..6 {
            let all = missing(&group, slot, &page, &[]);
            total += all.len();
            assert!(all.iter().all(|it| group.slot(&it.blob, it.shard) == slot));
            let listed = |finished| {
                let one = |it: &Missing| ListedShard {
                    key: group.key(&it.blob, it.shard),
                    disk_bytes: 1,
                    finished,
                };
                all.iter().map(one).collect::<Vec<_>>()
            };
            assert_eq!(missing(&group, slot, &page, &listed(true)), []);
            assert_eq!(missing(&group, slot, &page, &listed(false)), all);
            let few = &listed(true)[1..];
            assert_eq!(missing(&group, slot, &page, few), all[..1]);
        }
        // 25 blobs of six shards, 25 of three, and a checkpoint's file of six;
        // one that is being sent lacks nothing yet.
        assert_eq!(total, 25 * 6 + 25 * 3 + 6);
    }
}

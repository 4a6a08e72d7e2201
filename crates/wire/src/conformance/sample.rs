//! Ids, contexts, heads and bytes to test with.

use bytes::Bytes;

use crate::checksum::block_crcs;
use crate::disk::{DiskIdentity, Medium, SlotAssignment};
use crate::ids::{
    BlobId, BucketIncarnation, ClusterId, CommitNumber, DiskId, Epoch, Generation, GroupId,
    InstanceId, LineageId, VersionUid,
};
use crate::shard::{BlobLayout, ObjectRef, ShardHeader, ShardKey};
use crate::space::Purpose;
use crate::store::{CallContext, SmallShard};

/// The cluster of all samples.
pub const CLUSTER: ClusterId = ClusterId(0xc105);
/// The group of all samples.
pub const GROUP: GroupId = GroupId(0x91);

/// The disk that the suite runs on.
pub fn identity() -> DiskIdentity {
    DiskIdentity {
        cluster: CLUSTER,
        disk: DiskId(0xd15c),
        medium: Medium::Flash,
    }
}

/// A caller of the epoch `number`; its instance is made from the number.
pub fn context(number: u64) -> CallContext {
    CallContext {
        cluster: CLUSTER,
        epoch: Epoch {
            number,
            instance: InstanceId(0x1000 + u128::from(number)),
        },
        lineage: LineageId(0x11),
        committed: CommitNumber(number * 100),
        purpose: Purpose::Client,
    }
}

/// The slot that the disk holds.
pub fn slot() -> SlotAssignment {
    SlotAssignment {
        group: GROUP,
        slot: 3,
        generation: Generation(5),
    }
}

/// The key of the shard of a blob in [`GROUP`].
pub fn key(blob: u128) -> ShardKey {
    ShardKey {
        group: GROUP,
        blob: BlobId(blob),
        index: 1,
    }
}

/// A head that [`slot`] admits; the blob's length is left open.
pub fn header(ctx: &CallContext, blob: u128) -> ShardHeader {
    ShardHeader {
        cluster: ctx.cluster,
        lineage: ctx.lineage,
        epoch: ctx.epoch,
        key: key(blob),
        slot: slot().slot,
        generation: slot().generation,
        layout: BlobLayout { data: 4, parity: 2 },
        blob_len: None,
        object: ObjectRef {
            bucket: "samples".into(),
            incarnation: BucketIncarnation(9),
            key: format!("a/../key of {blob}"),
            version: VersionUid(blob),
            part: 0,
            metadata: vec![1, 2, 3],
        },
    }
}

/// Bytes that differ everywhere, and between seeds.
pub fn bytes(seed: u128, len: usize) -> Bytes {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// A whole small shard of `len` bytes.
pub fn small(ctx: &CallContext, blob: u128, len: usize) -> SmallShard {
    let bytes = bytes(blob, len);
    SmallShard {
        header: header(ctx, blob),
        blob_len: len as u64 * 4,
        crcs: block_crcs(&bytes),
        bytes,
    }
}

//! The records of the disk itself: identity, root, slots.

use shardgate_wire::ids::{
    ClusterId, CommitNumber, DiskId, Epoch, Generation, GroupId, InstanceId, LineageId,
};
use shardgate_wire::slots::SlotTable;
use shardgate_wire::{DiskIdentity, Medium, SlotAssignment};

use super::bytes::{Reader, Writer};
use super::{FormatError, damaged, frame, unframe};

const IDENTITY_MAGIC: &[u8; 8] = b"SG.ident";
const ROOT_MAGIC: &[u8; 8] = b"SG.root\0";
const SLOTS_MAGIC: &[u8; 8] = b"SG.slots";

/// The root record (PROTOCOL.md 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Whose root it is.
    pub(crate) identity: DiskIdentity,
    /// Raised by every write; of two whole records the higher counts.
    pub(crate) sequence: u64,
    /// Number of the pool map, 0 before the first.
    pub(crate) map_number: u64,
    /// The pool map, opaque here.
    pub(crate) map: Vec<u8>,
    /// The highest epoch accepted.
    pub(crate) epoch: Epoch,
    /// The checkpoint root, opaque here.
    pub(crate) checkpoint: Vec<u8>,
    /// The highest commit number told in each of the last lineages, the
    /// newest first; at most 255.
    pub(crate) told: Vec<(LineageId, CommitNumber)>,
}

/// The slots that the disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    /// Whose slots they are.
    pub(crate) disk: DiskId,
    /// As in [`Root`].
    pub(crate) sequence: u64,
    /// The table.
    pub(crate) table: SlotTable,
}

fn write_identity(w: &mut Writer, identity: &DiskIdentity) {
    w.u128(identity.cluster.0);
    w.u128(identity.disk.0);
    w.u8(match identity.medium {
        Medium::Rotating => 0,
        Medium::Flash => 1,
    });
}

fn read_identity(r: &mut Reader<'_>) -> Result<DiskIdentity, FormatError> {
    Ok(DiskIdentity {
        cluster: ClusterId(r.u128()?),
        disk: DiskId(r.u128()?),
        medium: match r.u8()? {
            0 => Medium::Rotating,
            1 => Medium::Flash,
            _ => return Err(damaged("unknown medium")),
        },
    })
}

pub(crate) fn encode_identity(identity: &DiskIdentity) -> Vec<u8> {
    let mut w = Writer::default();
    write_identity(&mut w, identity);
    frame(IDENTITY_MAGIC, &w.out)
}

pub(crate) fn decode_identity(bytes: &[u8]) -> Result<DiskIdentity, FormatError> {
    let mut r = Reader::new(unframe(IDENTITY_MAGIC, bytes)?.0);
    let identity = read_identity(&mut r)?;
    r.end()?;
    Ok(identity)
}

pub(crate) fn encode_root(root: &Root) -> Vec<u8> {
    let mut w = Writer::default();
    write_identity(&mut w, &root.identity);
    w.u64(root.sequence);
    w.u64(root.map_number);
    w.long(&root.map);
    w.u64(root.epoch.number);
    w.u128(root.epoch.instance.0);
    w.long(&root.checkpoint);
    w.u8(u8::try_from(root.told.len()).expect("at most 255 lineages are kept"));
    for (lineage, number) in &root.told {
        w.u128(lineage.0);
        w.u64(number.0);
    }
    frame(ROOT_MAGIC, &w.out)
}

pub(crate) fn decode_root(bytes: &[u8]) -> Result<Root, FormatError> {
    let mut r = Reader::new(unframe(ROOT_MAGIC, bytes)?.0);
    let mut root = Root {
        identity: read_identity(&mut r)?,
        sequence: r.u64()?,
        map_number: r.u64()?,
        map: r.long()?.to_vec(),
        epoch: Epoch {
            number: r.u64()?,
            instance: InstanceId(r.u128()?),
        },
        checkpoint: r.long()?.to_vec(),
        told: Vec::new(),
    };
    for _ in 0..r.u8()? {
        let told = (LineageId(r.u128()?), CommitNumber(r.u64()?));
        root.told.push(told);
    }
    r.end()?;
    Ok(root)
}

pub(crate) fn encode_slots(slots: &Slots) -> Vec<u8> {
    let mut w = Writer::default();
    w.u128(slots.disk.0);
    w.u64(slots.sequence);
    w.u32(u32::try_from(slots.table.len()).expect("the table is bounded"));
    for slot in slots.table.iter() {
        w.u64(slot.group.0);
        w.u8(slot.slot);
        w.u32(slot.generation.0);
    }
    frame(SLOTS_MAGIC, &w.out)
}

pub(crate) fn decode_slots(bytes: &[u8]) -> Result<Slots, FormatError> {
    let mut r = Reader::new(unframe(SLOTS_MAGIC, bytes)?.0);
    let (disk, sequence, count) = (DiskId(r.u128()?), r.u64()?, r.u32()?);
    let mut table = Vec::new();
    for _ in 0..count {
        table.push(SlotAssignment {
            group: GroupId(r.u64()?),
            slot: r.u8()?,
            generation: Generation(r.u32()?),
        });
    }
    r.end()?;
    Ok(Slots {
        disk,
        sequence,
        table: table.into_iter().collect(),
    })
}

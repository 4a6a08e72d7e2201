//! The head of a shard's file.

use shardgate_wire::ids::{
    BlobId, BucketIncarnation, ClusterId, Epoch, Generation, GroupId, InstanceId, LineageId,
    VersionUid,
};
use shardgate_wire::{BlobLayout, ObjectRef, ShardHeader, ShardKey};

use super::bytes::{Reader, Writer};
use super::{FormatError, damaged, frame, framed_len, unframe};

const MAGIC: &[u8; 8] = b"SG.shard";

/// Bytes from which [`header_record_len`] tells the length of a record.
pub(crate) const HEADER_PREFIX_BYTES: usize = super::FRAME_HEAD_BYTES;

/// Length of the header record that begins with `prefix`; `None` if none
/// does, or if it claims to be longer than any header is.
pub(crate) fn header_record_len(prefix: &[u8]) -> Option<usize> {
    const MOST: usize = 64 * 1024;
    framed_len(MAGIC, prefix).filter(|len| *len <= MOST)
}

/// Bytes of the header record, without making it.
pub(crate) fn header_bytes(header: &ShardHeader) -> usize {
    const FIXED: usize = 131;
    let object = &header.object;
    let names = object.bucket.len() + object.key.len() + object.metadata.len();
    super::FRAME_HEAD_BYTES + FIXED + names + super::FRAME_TAIL_BYTES
}

pub(crate) fn encode_header(header: &ShardHeader) -> Vec<u8> {
    let mut w = Writer::default();
    w.u128(header.cluster.0);
    w.u128(header.lineage.0);
    w.u64(header.epoch.number);
    w.u128(header.epoch.instance.0);
    w.u64(header.key.group.0);
    w.u128(header.key.blob.0);
    w.u8(header.key.index);
    w.u8(header.slot);
    w.u32(header.generation.0);
    w.u8(header.layout.data);
    w.u8(header.layout.parity);
    w.u8(u8::from(header.blob_len.is_some()));
    w.u64(header.blob_len.unwrap_or(0));
    let object = &header.object;
    w.u64(object.incarnation.0);
    w.u128(object.version.0);
    w.u16(object.part);
    w.short(object.bucket.as_bytes());
    w.short(object.key.as_bytes());
    w.long(&object.metadata);
    frame(MAGIC, &w.out)
}

/// The header, and its record's checksum.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<(ShardHeader, u32), FormatError> {
    let (payload, crc) = unframe(MAGIC, bytes)?;
    let mut r = Reader::new(payload);
    let cluster = ClusterId(r.u128()?);
    let lineage = LineageId(r.u128()?);
    let epoch = Epoch {
        number: r.u64()?,
        instance: InstanceId(r.u128()?),
    };
    let key = ShardKey {
        group: GroupId(r.u64()?),
        blob: BlobId(r.u128()?),
        index: r.u8()?,
    };
    let slot = r.u8()?;
    let generation = Generation(r.u32()?);
    let layout = BlobLayout {
        data: r.u8()?,
        parity: r.u8()?,
    };
    let (known, blob_len) = (r.u8()?, r.u64()?);
    let incarnation = BucketIncarnation(r.u64()?);
    let version = VersionUid(r.u128()?);
    let part = r.u16()?;
    let bucket = text(r.short()?)?;
    let object_key = text(r.short()?)?;
    let metadata = r.long()?.to_vec();
    r.end()?;
    let header = ShardHeader {
        cluster,
        lineage,
        epoch,
        key,
        slot,
        generation,
        layout,
        blob_len: match known {
            0 => None,
            1 => Some(blob_len),
            _ => return Err(damaged("unknown kind of length")),
        },
        object: ObjectRef {
            bucket,
            incarnation,
            key: object_key,
            version,
            part,
            metadata,
        },
    };
    Ok((header, crc))
}

fn text(bytes: &[u8]) -> Result<String, FormatError> {
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("a name is not UTF-8"))?;
    Ok(text.to_owned())
}

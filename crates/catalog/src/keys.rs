//! The key spaces: which bytes name which row.
//!
//! A key begins with one byte that says its space; numbers are big-endian, so
//! that byte order is numeric order. A string that is the last part of a key
//! stands as it is; before other parts it is escaped (0x00 as 0x00 0xFF) and
//! ended by 0x00 0x01, which keeps the order. `docs/catalog.md` has the table.

use bytes::{BufMut, Bytes};
use shardgate_wire::{BlobId, BucketIncarnation, CommitNumber, DiskId, GroupId, VersionUid};

use crate::row::Damaged;

/// First bytes of keys. Never renumbered.
pub(crate) mod space {
    // 0x01 begins the single rows below.
    pub(crate) const BUCKET: u8 = 0x02;
    pub(crate) const CURRENT: u8 = 0x10;
    pub(crate) const NONCURRENT: u8 = 0x11;
    pub(crate) const DETAIL: u8 = 0x12;
    pub(crate) const INLINE: u8 = 0x13;
    pub(crate) const PART: u8 = 0x14;
    pub(crate) const UPLOAD: u8 = 0x16;
    pub(crate) const UPLOAD_PART: u8 = 0x17;
    pub(crate) const COMPLETED: u8 = 0x18;
    pub(crate) const BLOB: u8 = 0x20;
    pub(crate) const CONDEMNED: u8 = 0x21;
    pub(crate) const OWED: u8 = 0x22;
    pub(crate) const NOTE: u8 = 0x23;
    pub(crate) const NOTED: u8 = 0x24;
    pub(crate) const GROUP: u8 = 0x30;
    pub(crate) const DISK: u8 = 0x31;
    pub(crate) const CLASS: u8 = 0x32;
    pub(crate) const INSTANCE: u8 = 0x33;
    // 0x34 identities and 0x35 jobs are reserved.
    pub(crate) const CHECKPOINT_FILE: u8 = 0x36;
}

/// Ends an escaped string.
pub(crate) const TERMINATOR: [u8; 2] = [0x00, 0x01];

/// The engine's own row: highest applied commit and chain hash.
#[cfg(feature = "rocksdb")]
pub(crate) const APPLIED: &[u8] = b"\x01applied";
/// The cluster row.
pub(crate) const CLUSTER: &[u8] = b"\x01cluster";
/// The lineage row.
pub(crate) const LINEAGE: &[u8] = b"\x01lineage";
/// There while a catalog is made anew and is not whole.
pub(crate) const REBUILDING: &[u8] = b"\x01rebuilding";
/// The last group id that was given out.
pub(crate) const LAST_GROUP: &[u8] = b"\x01last-group";
/// The last bucket incarnation that was given out.
pub(crate) const LAST_INCARNATION: &[u8] = b"\x01last-incarnation";
/// Low-water mark of the queue of condemned blobs.
pub(crate) const CONDEMNED_LOW: &[u8] = b"\x01condemned-low";
/// Low-water mark of the queue of notes.
pub(crate) const NOTES_LOW: &[u8] = b"\x01notes-low";

fn key(space: u8, capacity: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = Vec::with_capacity(1 + capacity);
    bytes.push(space);
    fill(&mut bytes);
    Bytes::from(bytes)
}

fn escape_into(bytes: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xFF);
        }
    }
}

/// Escaped, without the terminator: what all keys that begin with `text` share.
pub(crate) fn escape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 2);
    escape_into(&mut bytes, text.as_bytes());
    bytes
}

/// Splits at the terminator and undoes the escape.
fn unescape<'k>(bytes: &'k [u8], what: &'static str) -> Result<(String, &'k [u8]), Damaged> {
    let damaged = |why: &str| Damaged {
        what,
        why: why.to_owned(),
    };
    let mut text = Vec::with_capacity(bytes.len());
    let mut at = 0;
    loop {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(0), Some(0xFF)) => {
                text.push(0);
                at += 2;
            }
            (Some(0), Some(0x01)) => break,
            (Some(0), _) => return Err(damaged("a bad escape")),
            (Some(&byte), _) => {
                text.push(byte);
                at += 1;
            }
            (None, _) => return Err(damaged("no terminator")),
        }
    }
    let text = String::from_utf8(text).map_err(|_| damaged("not UTF-8"))?;
    Ok((text, &bytes[at + 2..]))
}

/// The least key above every key that begins with `prefix`; `None` if there
/// is none.
pub(crate) fn successor(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|&byte| byte != 0xFF)?;
    let mut bytes = prefix[..=last].to_vec();
    bytes[last] += 1;
    Some(Bytes::from(bytes))
}

/// The least key above `key`.
pub(crate) fn after(key: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.extend_from_slice(key);
    bytes.push(0);
    Bytes::from(bytes)
}

/// `bucket/<name>`.
pub(crate) fn bucket(name: &str) -> Bytes {
    key(space::BUCKET, name.len(), |k| k.put_slice(name.as_bytes()))
}

/// `current/(incarnation, key)`; with a prefix of keys, what they share.
pub(crate) fn current(incarnation: BucketIncarnation, name: &str) -> Bytes {
    key(space::CURRENT, 8 + name.len(), |k| {
        k.put_u64(incarnation.0);
        k.put_slice(name.as_bytes());
    })
}

/// Bytes of a `current` key before the object's key.
pub(crate) const CURRENT_HEAD: usize = 9;

/// All of a space that belongs to one bucket.
pub(crate) fn of_bucket(space: u8, incarnation: BucketIncarnation) -> Bytes {
    key(space, 8, |k| k.put_u64(incarnation.0))
}

/// `detail/(uid)`.
pub(crate) fn detail(uid: VersionUid) -> Bytes {
    key(space::DETAIL, 16, |k| k.put_u128(uid.0))
}

/// `inline/(uid)`.
pub(crate) fn inline(uid: VersionUid) -> Bytes {
    key(space::INLINE, 16, |k| k.put_u128(uid.0))
}

/// `part/(uid, start)`.
pub(crate) fn part(uid: VersionUid, start: u64) -> Bytes {
    key(space::PART, 24, |k| {
        k.put_u128(uid.0);
        k.put_u64(start);
    })
}

/// All part rows of a version.
pub(crate) fn parts(uid: VersionUid) -> Bytes {
    key(space::PART, 16, |k| k.put_u128(uid.0))
}

/// What the uploads of keys that begin with `prefix` share.
pub(crate) fn uploads(incarnation: BucketIncarnation, prefix: &str) -> Bytes {
    key(space::UPLOAD, 10 + prefix.len(), |k| {
        k.put_u64(incarnation.0);
        escape_into(k, prefix.as_bytes());
    })
}

/// What all uploads of one key share.
pub(crate) fn uploads_of_key(incarnation: BucketIncarnation, name: &str) -> Bytes {
    key(space::UPLOAD, 12 + name.len(), |k| {
        k.put_u64(incarnation.0);
        escape_into(k, name.as_bytes());
        k.put_slice(&TERMINATOR);
    })
}

/// Bytes of an `upload` key before the object's key.
pub(crate) const UPLOAD_HEAD: usize = 9;

/// `upload/(incarnation, key, uid)`.
pub(crate) fn upload(incarnation: BucketIncarnation, name: &str, uid: VersionUid) -> Bytes {
    key(space::UPLOAD, 28 + name.len(), |k| {
        k.put_u64(incarnation.0);
        escape_into(k, name.as_bytes());
        k.put_slice(&TERMINATOR);
        k.put_u128(uid.0);
    })
}

/// `uploadpart/(uid, number)`.
pub(crate) fn upload_part(uid: VersionUid, number: u16) -> Bytes {
    key(space::UPLOAD_PART, 18, |k| {
        k.put_u128(uid.0);
        k.put_u16(number);
    })
}

/// All part rows of an upload.
pub(crate) fn upload_parts(uid: VersionUid) -> Bytes {
    key(space::UPLOAD_PART, 16, |k| k.put_u128(uid.0))
}

/// `completed/(incarnation, uid)`.
pub(crate) fn completed(incarnation: BucketIncarnation, uid: VersionUid) -> Bytes {
    key(space::COMPLETED, 24, |k| {
        k.put_u64(incarnation.0);
        k.put_u128(uid.0);
    })
}

/// `blob/(group, BlobId)`.
pub(crate) fn blob(group: GroupId, blob: BlobId) -> Bytes {
    key(space::BLOB, 24, |k| {
        k.put_u64(group.0);
        k.put_u128(blob.0);
    })
}

/// All blobs of a group.
pub(crate) fn blobs(group: GroupId) -> Bytes {
    key(space::BLOB, 8, |k| k.put_u64(group.0))
}

/// `condemned/(commit, index)`.
pub(crate) fn condemned(commit: CommitNumber, index: u32) -> Bytes {
    key(space::CONDEMNED, 12, |k| {
        k.put_u64(commit.0);
        k.put_u32(index);
    })
}

/// `owed/(group, slot)`.
pub(crate) fn owed(group: GroupId, slot: u8) -> Bytes {
    key(space::OWED, 9, |k| {
        k.put_u64(group.0);
        k.put_u8(slot);
    })
}

/// `note/(commit, index)`.
pub(crate) fn note(commit: CommitNumber, index: u32) -> Bytes {
    key(space::NOTE, 12, |k| {
        k.put_u64(commit.0);
        k.put_u32(index);
    })
}

/// `noted/(disk)`.
pub(crate) fn noted(disk: DiskId) -> Bytes {
    key(space::NOTED, 16, |k| k.put_u128(disk.0))
}

/// `group/(id)`.
pub(crate) fn group(id: GroupId) -> Bytes {
    key(space::GROUP, 8, |k| k.put_u64(id.0))
}

/// `disk/(id)`.
pub(crate) fn disk(id: DiskId) -> Bytes {
    key(space::DISK, 16, |k| k.put_u128(id.0))
}

/// `class/(number)`.
pub(crate) fn class(number: u16) -> Bytes {
    key(space::CLASS, 2, |k| k.put_u16(number))
}

/// `instance/(epoch)`.
pub(crate) fn instance(epoch: u64) -> Bytes {
    key(space::INSTANCE, 8, |k| k.put_u64(epoch))
}

/// `checkpoint-file/(content hash, BlobId)`.
pub(crate) fn checkpoint_file(hash: &[u8; 32], blob: BlobId) -> Bytes {
    key(space::CHECKPOINT_FILE, 48, |k| {
        k.put_slice(hash);
        k.put_u128(blob.0);
    })
}

fn fixed<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], Damaged> {
    bytes.try_into().map_err(|_| Damaged {
        what,
        why: format!("{} bytes where {N} belong", bytes.len()),
    })
}

fn body<'k>(key: &'k [u8], head: usize, what: &'static str) -> Result<&'k [u8], Damaged> {
    key.get(head..).ok_or_else(|| Damaged {
        what,
        why: "too short".to_owned(),
    })
}

fn text(bytes: &[u8], what: &'static str) -> Result<String, Damaged> {
    let text = std::str::from_utf8(bytes).map_err(|_| Damaged {
        what,
        why: "not UTF-8".to_owned(),
    })?;
    Ok(text.to_owned())
}

/// The name in a bucket's key.
pub(crate) fn decode_bucket(key: &[u8]) -> Result<String, Damaged> {
    text(body(key, 1, "bucket key")?, "bucket key")
}

/// The object's key in a `current` key (or the prefix in the head of one).
pub(crate) fn decode_current(key: &[u8]) -> Result<String, Damaged> {
    text(body(key, CURRENT_HEAD, "current key")?, "current key")
}

/// The object's key and the upload id in an `upload` key.
pub(crate) fn decode_upload(key: &[u8]) -> Result<(String, VersionUid), Damaged> {
    const WHAT: &str = "upload key";
    let (name, rest) = unescape(body(key, UPLOAD_HEAD, WHAT)?, WHAT)?;
    Ok((name, VersionUid::from_be_bytes(fixed(rest, WHAT)?)))
}

/// The prefix in the head of an `upload` key.
pub(crate) fn decode_upload_prefix(key: &[u8]) -> Result<String, Damaged> {
    const WHAT: &str = "upload key";
    let mut bytes = body(key, UPLOAD_HEAD, WHAT)?.to_vec();
    bytes.extend_from_slice(&TERMINATOR);
    Ok(unescape(&bytes, WHAT)?.0)
}

/// The blob in a blob's key.
pub(crate) fn decode_blob(key: &[u8]) -> Result<BlobId, Damaged> {
    const WHAT: &str = "blob key";
    Ok(BlobId::from_be_bytes(fixed(body(key, 9, WHAT)?, WHAT)?))
}

/// Commit and index in the key of a queue: of condemned blobs, or of notes.
pub(crate) fn decode_queued(key: &[u8]) -> Result<(CommitNumber, u32), Damaged> {
    const WHAT: &str = "queue key";
    let bytes: [u8; 12] = fixed(body(key, 1, WHAT)?, WHAT)?;
    let (commit, index) = bytes.split_at(8);
    Ok((
        CommitNumber::from_be_bytes(fixed(commit, WHAT)?),
        u32::from_be_bytes(fixed(index, WHAT)?),
    ))
}

/// The content hash in a checkpoint file's key.
pub(crate) fn decode_checkpoint_file(key: &[u8]) -> Result<[u8; 32], Damaged> {
    const WHAT: &str = "checkpoint file key";
    let bytes: [u8; 48] = fixed(body(key, 1, WHAT)?, WHAT)?;
    fixed(&bytes[..32], WHAT)
}

/// The disk in a `noted` key.
pub(crate) fn decode_noted(key: &[u8]) -> Result<DiskId, Damaged> {
    const WHAT: &str = "noted key";
    Ok(DiskId::from_be_bytes(fixed(body(key, 1, WHAT)?, WHAT)?))
}

/// Group and slot in an owed row's key.
pub(crate) fn decode_owed(key: &[u8]) -> Result<(GroupId, u8), Damaged> {
    const WHAT: &str = "owed key";
    let bytes: [u8; 9] = fixed(body(key, 1, WHAT)?, WHAT)?;
    Ok((GroupId::from_be_bytes(fixed(&bytes[..8], WHAT)?), bytes[8]))
}

#[cfg(test)]
mod tests;

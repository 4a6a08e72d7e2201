//! The keys of the scratch engine that facts are gathered in, and how its rows
//! are packed. Which there are, [`super::facts`] says.

use bytes::{BufMut, Bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shardgate_wire::{BlobId, BucketIncarnation, CommitNumber, GroupId, NoteOrder, VersionUid};

use crate::error::{CatalogError, Result};
use crate::keys;

pub(super) fn tagged(tag: u8, rest: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(tag);
    key.extend_from_slice(rest);
    key.into()
}

pub(super) fn noted(group: GroupId, blob: BlobId) -> Bytes {
    tagged(b'n', &keys::blob(group, blob)[1..])
}

/// The group and the blob of an `n` key.
pub(super) fn noted_of(key: &[u8]) -> Result<(GroupId, BlobId)> {
    let group = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
    let blob = key.get(9..25).and_then(|bytes| bytes.try_into().ok());
    match (group, blob) {
        (Some(group), Some(blob)) => {
            Ok((GroupId::from_be_bytes(group), BlobId::from_be_bytes(blob)))
        }
        _ => Err(scratch_damaged()),
    }
}

/// What was said of one key of a bucket.
pub(super) fn of_key(incarnation: BucketIncarnation, key: &str) -> Vec<u8> {
    let mut out = vec![b'k'];
    out.put_u64(incarnation.0);
    out.extend_from_slice(&keys::escape(key));
    out.extend_from_slice(&keys::TERMINATOR);
    out
}

pub(super) fn said(
    incarnation: BucketIncarnation,
    key: &str,
    order: NoteOrder,
    uid: VersionUid,
) -> Bytes {
    let mut out = of_key(incarnation, key);
    out.put_u64(order.history);
    out.put_u64(order.commit.0);
    out.put_u128(uid.0);
    out.into()
}

/// Incarnation, key and order of a `k` key.
pub(super) fn said_of(key: &[u8]) -> Result<(BucketIncarnation, String, NoteOrder)> {
    const TAIL: usize = 32;
    let head = key.len().checked_sub(TAIL).ok_or_else(scratch_damaged)?;
    // The head is built as an upload's key is.
    let mut upload = vec![keys::space::UPLOAD];
    upload.extend_from_slice(&key[1..head]);
    upload.extend_from_slice(&[0; 16]);
    let (name, _) = keys::decode_upload(&upload)?;
    let number = |at: usize| -> Result<u64> {
        let bytes = key.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes).ok_or_else(scratch_damaged)
    };
    let order = NoteOrder {
        history: number(head)?,
        commit: CommitNumber(number(head + 8)?),
    };
    Ok((BucketIncarnation(number(1)?), name, order))
}

pub(super) fn parts_of(uid: VersionUid) -> Bytes {
    tagged(b'p', &uid.to_be_bytes())
}

pub(super) fn part(uid: VersionUid, number: u16, blob: BlobId) -> Bytes {
    let mut out = parts_of(uid).to_vec();
    out.put_u16(number);
    out.put_u128(blob.0);
    out.into()
}

pub(super) fn upload(uid: VersionUid) -> Bytes {
    tagged(b'u', &uid.to_be_bytes())
}

pub(super) fn published(uid: VersionUid) -> Bytes {
    tagged(b'v', &uid.to_be_bytes())
}

pub(super) fn pack<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_stdvec(value);
    bytes
        .expect("facts hold nothing that postcard refuses")
        .into()
}

pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|_| scratch_damaged())
}

fn scratch_damaged() -> CatalogError {
    CatalogError::Damaged {
        why: "a row of the scratch engine is damaged".to_owned(),
    }
}

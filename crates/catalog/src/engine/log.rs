//! Commits as records of a log, and where such a log slots in.
//!
//! Between "expectations hold" and "applied" an engine hands the records to
//! its [`CommitLog`]; only what that made durable is applied. Each record is
//! bound to all before it by the chain hash: SHA-256 over the previous hash,
//! the number and the payload, and nothing else (PROTOCOL.md 2 and 3).

use bytes::{Buf, BufMut, Bytes};
use sha2::{Digest, Sha256};
use shardgate_wire::CommitNumber;

use super::{Change, EngineError};
use crate::row::Damaged;

const PAYLOAD_VERSION: u8 = 1;
const POSITION_VERSION: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;

/// A place on the chain: a commit and the hash over everything up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainPosition {
    /// The commit; 0 is before the first.
    pub number: CommitNumber,
    /// The chain hash; zero before the first.
    pub hash: [u8; 32],
}

/// One commit, as a log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place on the chain.
    pub position: ChainPosition,
    /// Its changes, encoded.
    pub payload: Bytes,
}

/// Makes records durable before they are applied.
pub trait CommitLog: Send + 'static {
    /// Returns when all of these are durable, in order, behind those before.
    /// After an error nothing more is appended.
    fn append(&mut self, records: &[Record]) -> Result<(), EngineError>;

    /// Whether the engine has to make its own changes durable, because this
    /// log keeps nothing.
    fn leaves_durability_to_engine(&self) -> bool;
}

/// No log beside the engine's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct EngineLog;

impl CommitLog for EngineLog {
    fn append(&mut self, _records: &[Record]) -> Result<(), EngineError> {
        Ok(())
    }

    fn leaves_durability_to_engine(&self) -> bool {
        true
    }
}

impl ChainPosition {
    /// The record of the next commit.
    pub fn next(&self, changes: &[Change]) -> Record {
        let payload = encode_payload(changes);
        Record {
            position: self.after(&payload),
            payload,
        }
    }

    /// The place behind a commit of this payload.
    fn after(&self, payload: &[u8]) -> Self {
        let number = CommitNumber(self.number.0 + 1);
        let hash = Sha256::new()
            .chain_update(self.hash)
            .chain_update(number.to_be_bytes())
            .chain_update(payload);
        Self {
            number,
            hash: hash.finalize().into(),
        }
    }

    /// Whether `record` is the next.
    pub fn is_before(&self, record: &Record) -> bool {
        record.position == self.after(&record.payload)
    }

    /// As it stands beside the rows of an engine.
    pub fn to_bytes(self) -> Bytes {
        let mut bytes = Vec::with_capacity(41);
        bytes.put_u8(POSITION_VERSION);
        bytes.put_u64(self.number.0);
        bytes.put_slice(&self.hash);
        bytes.into()
    }

    /// The inverse of [`Self::to_bytes`].
    ///
    /// # Errors
    /// Other bytes.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, Damaged> {
        if bytes.len() != 41 || bytes.get_u8() != POSITION_VERSION {
            return Err(Damaged {
                what: "applied position",
                why: "not 41 bytes of a known format".to_owned(),
            });
        }
        let number = CommitNumber(bytes.get_u64());
        let mut hash = [0; 32];
        bytes.copy_to_slice(&mut hash);
        Ok(Self { number, hash })
    }
}

/// The changes of a commit as bytes.
fn encode_payload(changes: &[Change]) -> Bytes {
    let len = |part: &Bytes| u32::try_from(part.len()).expect("commits are bounded below 4 GiB");
    let size: usize = changes
        .iter()
        .map(|(key, value)| 9 + key.len() + value.as_ref().map_or(0, Bytes::len))
        .sum();
    let mut bytes = Vec::with_capacity(1 + size);
    bytes.put_u8(PAYLOAD_VERSION);
    for (key, value) in changes {
        bytes.put_u8(if value.is_some() { PUT } else { DELETE });
        for part in [Some(key), value.as_ref()].into_iter().flatten() {
            bytes.put_u32(len(part));
            bytes.put_slice(part);
        }
    }
    bytes.into()
}

/// The changes of a commit from a record's payload.
///
/// # Errors
/// The payload is not one.
pub fn decode_payload(mut payload: Bytes) -> Result<Vec<Change>, Damaged> {
    let damaged = |why: &str| Damaged {
        what: "commit payload",
        why: why.to_owned(),
    };
    let part = |bytes: &mut Bytes| {
        let len = bytes.try_get_u32().ok()?;
        let len = usize::try_from(len).ok()?;
        (len <= bytes.len()).then(|| bytes.split_to(len))
    };
    if payload.try_get_u8().ok() != Some(PAYLOAD_VERSION) {
        return Err(damaged("unknown format"));
    }
    let mut changes = Vec::new();
    while let Ok(tag) = payload.try_get_u8() {
        let cut = || damaged("cut short");
        let key = part(&mut payload).ok_or_else(cut)?;
        let value = match tag {
            PUT => Some(part(&mut payload).ok_or_else(cut)?),
            DELETE => None,
            _ => return Err(damaged("unknown change")),
        };
        changes.push((key, value));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes() -> Vec<Change> {
        vec![
            (Bytes::from_static(b"a\0"), Some(Bytes::from_static(b"1"))),
            (Bytes::from_static(b"b"), None),
            (Bytes::new(), Some(Bytes::new())),
        ]
    }

    #[test]
    fn payloads_come_back_and_cut_ones_are_refused() {
        let record = ChainPosition::default().next(&changes());
        assert_eq!(decode_payload(record.payload.clone()), Ok(changes()));
        // A cut between two changes is another payload; the hash tells them.
        let whole = [1, 13, 19, record.payload.len()];
        for len in (0..record.payload.len()).filter(|len| !whole.contains(len)) {
            assert!(
                decode_payload(record.payload.slice(..len)).is_err(),
                "{len}"
            );
        }
    }

    #[test]
    fn the_chain_binds_numbers_and_payloads() {
        let start = ChainPosition::default();
        let first = start.next(&changes());
        assert_eq!(first.position.number, CommitNumber(1));
        let again = first.position.next(&changes());
        assert_eq!(again.payload, first.payload);
        assert_ne!(again.position.hash, first.position.hash);
        let bytes = again.position.to_bytes();
        assert_eq!(ChainPosition::from_bytes(&bytes), Ok(again.position));
        assert!(ChainPosition::from_bytes(&bytes[1..]).is_err());
    }

    /// The format on disk: changing it needs a new version.
    #[test]
    fn the_chain_hash_is_fixed() {
        let record = ChainPosition::default().next(&[(
            Bytes::from_static(b"key"),
            Some(Bytes::from_static(b"value")),
        )]);
        assert_eq!(&record.payload[..], b"\x01\x01\0\0\0\x03key\0\0\0\x05value");
        let mut expected = vec![0; 32];
        expected.extend(1u64.to_be_bytes());
        expected.extend(&record.payload);
        assert_eq!(record.position.hash, *Sha256::digest(expected));
    }
}

//! Records and their places on the chain.
//!
//! The chain hash is SHA-256 over the previous hash, the number and the
//! payload, and nothing else, so that a record keeps it in another segment
//! (PROTOCOL.md 2). A payload means nothing here.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use shardgate_wire::CommitNumber;

/// A place on the chain: a commit and the hash over everything up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The commit; 0 is before the first.
    pub number: CommitNumber,
    /// The chain hash; zero before the first.
    pub hash: [u8; 32],
}

impl Position {
    /// The place of the next record.
    pub fn next(&self, payload: &[u8]) -> Self {
        let number = CommitNumber(self.number.0 + 1);
        let hash = Sha256::new()
            .chain_update(self.hash)
            .chain_update(number.to_be_bytes())
            .chain_update(payload)
            .finalize();
        Self {
            number,
            hash: hash.into(),
        }
    }
}

/// One commit, as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place on the chain.
    pub position: Position,
    /// What it carries.
    pub payload: Bytes,
}

impl Record {
    /// The record of `payload` behind `before`.
    pub fn after(before: &Position, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self {
            position: before.next(&payload),
            payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The format on disk, the catalog's too: changing it needs a version.
    #[test]
    fn the_hash_is_over_hash_number_and_payload() {
        let first = Record::after(&Position::default(), &b"payload"[..]);
        let mut covered = vec![0; 32];
        covered.extend(1u64.to_be_bytes());
        covered.extend(b"payload");
        assert_eq!(first.position.hash, *Sha256::digest(covered));
        let again = Record::after(&first.position, first.payload.clone());
        assert_ne!(again.position.hash, first.position.hash);
        assert_eq!(again.position.number, CommitNumber(2));
    }
}

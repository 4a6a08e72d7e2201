//! Digests of bodies: MD5 for the ETag, and the checksum that is asked for.
//!
//! Owns how a body is digested while it passes, how the digest is compared
//! with what the client said, and how checksums of parts become that of the
//! object. Invariant: a body that fails a comparison is never committed.

#[cfg(test)]
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use md5::{Digest as _, Md5};
use sha1::Sha1;
use sha2::Sha256;
use shardgate_catalog::model::{ChecksumAlgorithm, ChecksumKind, StoredChecksum};

use super::error::ObjectError;
use super::request::{ChecksumRequest, ExpectedDigest};

enum Running {
    Crc(crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
}

/// What a body's digests are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyDigests {
    /// Its MD5.
    pub md5: [u8; 16],
    /// The checksum that was asked for.
    pub checksum: Option<StoredChecksum>,
    /// Its length, bytes.
    pub len: u64,
}

/// Digests a body as it passes.
pub struct Digester {
    md5: Md5,
    checksum: Option<(ChecksumAlgorithm, Running)>,
    len: u64,
}

fn crc_of(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        ChecksumAlgorithm::Sha1 | ChecksumAlgorithm::Sha256 => None,
    }
}

/// Bytes of a digest.
pub fn digest_len(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Crc32 | ChecksumAlgorithm::Crc32c => 4,
        ChecksumAlgorithm::Crc64Nvme => 8,
        ChecksumAlgorithm::Sha1 => 20,
        ChecksumAlgorithm::Sha256 => 32,
    }
}

fn running(algorithm: ChecksumAlgorithm) -> Running {
    match (algorithm, crc_of(algorithm)) {
        (_, Some(crc)) => Running::Crc(crc_fast::Digest::new(crc)),
        (ChecksumAlgorithm::Sha1, _) => Running::Sha1(Sha1::new()),
        _ => Running::Sha256(Sha256::new()),
    }
}

/// The low bytes of a CRC, big-endian, as S3 writes it.
fn crc_bytes(algorithm: ChecksumAlgorithm, value: u64) -> Vec<u8> {
    value.to_be_bytes()[8 - digest_len(algorithm)..].to_vec()
}

fn finish(algorithm: ChecksumAlgorithm, running: Running) -> Vec<u8> {
    match running {
        Running::Crc(crc) => crc_bytes(algorithm, crc.finalize()),
        Running::Sha1(sha) => sha.finalize().to_vec(),
        Running::Sha256(sha) => sha.finalize().to_vec(),
    }
}

impl Digester {
    /// Digests by MD5, and by `algorithm` where there is one.
    pub fn new(algorithm: Option<ChecksumAlgorithm>) -> Self {
        Self {
            md5: Md5::new(),
            checksum: algorithm.map(|algorithm| (algorithm, running(algorithm))),
            len: 0,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.md5.update(bytes);
        match &mut self.checksum {
            Some((_, Running::Crc(crc))) => crc.update(bytes),
            Some((_, Running::Sha1(sha))) => sha.update(bytes),
            Some((_, Running::Sha256(sha))) => sha.update(bytes),
            None => {}
        }
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The digests of all that passed.
    pub fn finish(self) -> BodyDigests {
        BodyDigests {
            md5: self.md5.finalize().into(),
            checksum: self.checksum.map(|(algorithm, running)| StoredChecksum {
                algorithm,
                kind: ChecksumKind::FullObject,
                digest: finish(algorithm, running),
            }),
            len: self.len,
        }
    }
}

/// What the client said of its body.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    /// Its length.
    pub len: Option<u64>,
    /// `Content-MD5`.
    pub content_md5: Option<[u8; 16]>,
    /// Its checksum.
    pub checksum: Option<ChecksumRequest>,
}

impl Expectations {
    /// Which checksum to compute.
    pub fn algorithm(&self) -> Option<ChecksumAlgorithm> {
        self.checksum.as_ref().map(|request| request.algorithm)
    }

    /// Compares the body with all that was said of it. Called after its end.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, digests: &BodyDigests) -> Result<(), ObjectError> {
        if let Some(declared) = self.len
            && declared != digests.len
        {
            return Err(ObjectError::IncompleteBody {
                declared,
                received: digests.len,
            });
        }
        if self.content_md5.is_some_and(|md5| md5 != digests.md5) {
            return Err(ObjectError::BadDigest);
        }
        let Some(request) = &self.checksum else {
            return Ok(());
        };
        let algorithm = request.algorithm;
        let expected = match &request.expected {
            ExpectedDigest::Unknown => return Ok(()),
            ExpectedDigest::Value(value) => value.clone(),
            ExpectedDigest::Trailer(read) => read()?.ok_or(ObjectError::BadChecksum {
                what: "the announced trailer did not come",
            })?,
        };
        if expected.len() != digest_len(algorithm) {
            return Err(ObjectError::BadChecksum {
                what: "not of its algorithm's length",
            });
        }
        match &digests.checksum {
            Some(found) if found.digest == expected => Ok(()),
            _ => Err(ObjectError::ChecksumMismatch { algorithm }),
        }
    }
}

/// The digests of a body that is in memory.
#[cfg(test)]
pub fn digest_whole(algorithm: Option<ChecksumAlgorithm>, body: &Bytes) -> BodyDigests {
    let mut digester = Digester::new(algorithm);
    digester.update(body);
    digester.finish()
}

/// A part's checksum and length.
#[derive(Clone, Copy, Debug)]
pub struct PartDigest<'a> {
    /// Its raw digest.
    pub digest: &'a [u8],
    /// Its length, bytes.
    pub len: u64,
}

/// The checksum of an object from those of its parts: the digest of the
/// digests (composite), or, for CRCs alone, that of all bytes (full object).
/// `None`: a digest has another algorithm's length, or a SHA was asked for
/// over the full object.
pub fn object_checksum(
    algorithm: ChecksumAlgorithm,
    kind: ChecksumKind,
    parts: &[PartDigest<'_>],
) -> Option<StoredChecksum> {
    if parts
        .iter()
        .any(|part| part.digest.len() != digest_len(algorithm))
    {
        return None;
    }
    let digest = match kind {
        ChecksumKind::Composite => {
            let joined: Vec<u8> = parts.iter().flat_map(|part| part.digest).copied().collect();
            let mut state = Digester::new(Some(algorithm));
            state.update(&joined);
            state.finish().checksum?.digest
        }
        ChecksumKind::FullObject => {
            let crc = crc_of(algorithm)?;
            let empty = crc_fast::checksum(crc, &[]);
            let whole = parts.iter().fold(empty, |sum, part| {
                let value = part
                    .digest
                    .iter()
                    .fold(0, |value, byte| value << 8 | u64::from(*byte));
                match part.len {
                    0 => sum,
                    len => crc_fast::checksum_combine(crc, sum, value, len),
                }
            });
            crc_bytes(algorithm, whole)
        }
    };
    Some(StoredChecksum {
        algorithm,
        kind,
        digest,
    })
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;

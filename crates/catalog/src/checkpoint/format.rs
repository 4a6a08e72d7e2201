//! Manifests and roots as bytes.
//!
//! Invariant: bytes that are not exactly one of a known version, or whose
//! checksum does not match, are refused; nothing is allocated on their word
//! alone. `docs/catalog.md` has the layout.

use bytes::{Buf, BufMut, Bytes};
use serde::{Deserialize, Serialize};
use shardgate_wire::checksum::crc32c;
use shardgate_wire::{ClusterId, CommitNumber, LineageId};
use thiserror::Error;

use super::folder::is_file_name;
use super::{CheckpointRoot, ContentHash, KEPT, Manifest, ManifestFile, Roots, StoredFile};
use crate::engine::log::ChainPosition;
use crate::model::UnixMillis;

const MANIFEST_MAGIC: &[u8; 8] = b"SG.cman\0";
const ROOT_MAGIC: &[u8; 8] = b"SG.croot";
const VERSION: u8 = 1;
/// Magic, version and checksum.
const FRAME: usize = 8 + 1 + 4;

/// Longest manifest, bytes: some hundred thousand files.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;

/// Bytes that are no manifest or no root.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CheckpointFormatError {
    /// Something else, or damaged.
    #[error("damaged {what}: {why}")]
    Damaged {
        /// What it should be.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A later version wrote it.
    #[error("{what} of format version {found}")]
    Version {
        /// What it is.
        what: &'static str,
        /// Which version.
        found: u8,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    cluster: ClusterId,
    lineage: LineageId,
    number: CommitNumber,
    hash: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct ManifestBody {
    head: Head,
    files: Vec<ManifestFile>,
}

#[derive(Serialize, Deserialize)]
struct RootBody {
    head: Head,
    taken: UnixMillis,
    manifest: StoredFile,
    manifest_hash: ContentHash,
}

impl Head {
    fn of(cluster: ClusterId, lineage: LineageId, position: ChainPosition) -> Self {
        Self {
            cluster,
            lineage,
            number: position.number,
            hash: position.hash,
        }
    }

    fn position(&self) -> ChainPosition {
        ChainPosition {
            number: self.number,
            hash: self.hash,
        }
    }
}

fn frame(magic: &[u8; 8], body: &impl Serialize) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.put_u8(VERSION);
    let mut bytes = postcard::to_extend(body, bytes)
        .expect("the bodies hold nothing that postcard refuses, and a Vec grows");
    bytes.put_u32(crc32c(&bytes));
    bytes
}

fn damaged(what: &'static str, why: impl Into<String>) -> CheckpointFormatError {
    let why = why.into();
    CheckpointFormatError::Damaged { what, why }
}

/// The body between magic and checksum.
fn unframe<'b>(
    magic: &[u8; 8],
    what: &'static str,
    bytes: &'b [u8],
) -> Result<&'b [u8], CheckpointFormatError> {
    if bytes.len() < FRAME || !bytes.starts_with(magic) {
        return Err(damaged(what, "not one"));
    }
    let (covered, mut sum) = bytes.split_at(bytes.len() - 4);
    if sum.get_u32() != crc32c(covered) {
        return Err(damaged(what, "its checksum does not match"));
    }
    match covered[8] {
        VERSION => Ok(&covered[9..]),
        found => Err(CheckpointFormatError::Version { what, found }),
    }
}

fn body<'b, T: Deserialize<'b>>(
    what: &'static str,
    bytes: &'b [u8],
) -> Result<T, CheckpointFormatError> {
    let (body, rest) =
        postcard::take_from_bytes(bytes).map_err(|error| damaged(what, error.to_string()))?;
    match rest.is_empty() {
        true => Ok(body),
        false => Err(damaged(what, "longer than it says")),
    }
}

impl Manifest {
    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        let body = ManifestBody {
            head: Head::of(self.cluster, self.lineage, self.position),
            files: self.files.clone(),
        };
        frame(MANIFEST_MAGIC, &body).into()
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// Other bytes; a name that is none of a checkpoint's file, or is there
    /// twice.
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointFormatError> {
        const WHAT: &str = "manifest of a checkpoint";
        let ManifestBody { head, files } = body(WHAT, unframe(MANIFEST_MAGIC, WHAT, bytes)?)?;
        if let Some(file) = files.iter().find(|file| !is_file_name(&file.name)) {
            return Err(damaged(WHAT, format!("a file {:?}", file.name)));
        }
        if !files.is_sorted_by(|one, next| one.name < next.name) {
            return Err(damaged(WHAT, "files are not in order"));
        }
        Ok(Self {
            cluster: head.cluster,
            lineage: head.lineage,
            position: head.position(),
            files,
        })
    }
}

impl CheckpointRoot {
    /// As it stands in the header of a segment.
    pub fn encode(&self) -> Bytes {
        let body = RootBody {
            head: Head::of(self.cluster, self.lineage, self.position),
            taken: self.taken,
            manifest: self.manifest.clone(),
            manifest_hash: self.manifest_hash,
        };
        frame(ROOT_MAGIC, &body).into()
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// Other bytes; a manifest longer than [`MAX_MANIFEST_BYTES`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CheckpointFormatError> {
        const WHAT: &str = "checkpoint root";
        let root: RootBody = body(WHAT, unframe(ROOT_MAGIC, WHAT, bytes)?)?;
        let len = root.manifest.blob.len;
        if len > MAX_MANIFEST_BYTES {
            return Err(damaged(WHAT, format!("a manifest of {len} bytes")));
        }
        Ok(Self {
            cluster: root.head.cluster,
            lineage: root.head.lineage,
            position: root.head.position(),
            taken: root.taken,
            manifest: root.manifest,
            manifest_hash: root.manifest_hash,
        })
    }
}

/// What the roots of one place are called.
const ROOTS: &str = "checkpoint roots";

fn in_order(roots: Vec<CheckpointRoot>) -> Result<Roots, CheckpointFormatError> {
    let falls =
        |one: &CheckpointRoot, next: &CheckpointRoot| one.position.number >= next.position.number;
    match roots.len() > KEPT || !roots.is_sorted_by(falls) {
        true => Err(damaged(ROOTS, "too many, or not in order")),
        false => Ok(Roots(roots)),
    }
}

impl Roots {
    /// Each of them, as segment headers name them.
    pub fn encode_each(&self) -> Vec<Bytes> {
        self.all().iter().map(CheckpointRoot::encode).collect()
    }

    /// All of them, as a disk's root record has them.
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::new();
        for root in self.encode_each() {
            bytes.put_u32(u32::try_from(root.len()).expect("a root is short"));
            bytes.put_slice(&root);
        }
        bytes.into()
    }

    /// The inverse of [`Self::encode`].
    ///
    /// # Errors
    /// Other bytes; more than [`KEPT`], or not the newest first.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, CheckpointFormatError> {
        let mut roots: Vec<CheckpointRoot> = Vec::new();
        while !bytes.is_empty() {
            let len = bytes
                .try_get_u32()
                .map_err(|_| damaged(ROOTS, "cut short"))?;
            let split = bytes.split_at_checked(len as usize);
            let (root, rest) = split.ok_or_else(|| damaged(ROOTS, "cut short"))?;
            roots.push(CheckpointRoot::decode(root)?);
            bytes = rest;
        }
        in_order(roots)
    }

    /// The inverse of [`Self::encode_each`].
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_each(each: &[Bytes]) -> Result<Self, CheckpointFormatError> {
        let roots = each.iter().map(|root| CheckpointRoot::decode(root));
        in_order(roots.collect::<Result<_, _>>()?)
    }
}

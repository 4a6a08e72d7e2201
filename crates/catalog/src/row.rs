//! How rows become bytes and come back: a format version byte, then postcard.
//!
//! Invariant: bytes that are not exactly one row of a known version are
//! [`Damaged`]; they are never taken for an absent row, and never panic.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::model::{
    BlobState, BucketRow, CheckpointFileRow, ClassRow, ClusterRow, CompletedRow, CondemnedRow,
    DetailRow, DiskRow, GroupRow, InstanceRow, LineageRow, NotePayload, NoteRow, OwedRow, PartRow,
    UploadPartRow, UploadRow, VersionRow,
};
use crate::rebuild::RebuildingRow;

/// Bytes of the catalog that are not what they should be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("damaged {what}: {why}")]
pub struct Damaged {
    /// Which key or row.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

/// A value of the catalog.
pub(crate) trait Row: Serialize + DeserializeOwned {
    /// Its name in messages.
    const WHAT: &'static str;
    /// The format that is written, and for now the only one that is read.
    const VERSION: u8 = 1;
}

macro_rules! rows {
    ($($row:ty = $what:literal),* $(,)?) => {$(
        impl Row for $row {
            const WHAT: &'static str = $what;
        }
    )*};
}

rows! {
    BucketRow = "bucket row",
    VersionRow = "version row",
    DetailRow = "detail row",
    PartRow = "part row",
    UploadRow = "upload row",
    UploadPartRow = "upload part row",
    CompletedRow = "completed row",
    BlobState = "blob row",
    CheckpointFileRow = "checkpoint file row",
    CondemnedRow = "condemned row",
    OwedRow = "owed row",
    NoteRow = "queued note",
    GroupRow = "group row",
    DiskRow = "disk row",
    ClassRow = "class row",
    InstanceRow = "instance row",
    ClusterRow = "cluster row",
    LineageRow = "lineage row",
    RebuildingRow = "rebuilding row",
    Counter = "counter",
    LowWater = "low-water mark",
    NotePayload = "note",
}

/// The last number that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Counter(pub(crate) u64);

/// Everything of a queue up to here, inclusive, is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct LowWater {
    pub(crate) commit: u64,
    pub(crate) index: u32,
}

/// The bytes of a row.
pub(crate) fn encode<R: Row>(row: &R) -> Bytes {
    let bytes = postcard::to_extend(row, vec![R::VERSION])
        .expect("rows hold nothing that postcard refuses, and a Vec grows");
    Bytes::from(bytes)
}

/// The row of some bytes.
pub(crate) fn decode<R: Row>(bytes: &[u8]) -> Result<R, Damaged> {
    let damaged = |why: String| Damaged { what: R::WHAT, why };
    let (&version, body) = bytes
        .split_first()
        .ok_or_else(|| damaged("empty".to_owned()))?;
    if version != R::VERSION {
        return Err(damaged(format!("unknown format {version}")));
    }
    let (row, rest) =
        postcard::take_from_bytes(body).map_err(|error| damaged(error.to_string()))?;
    if !rest.is_empty() {
        return Err(damaged(format!("{} bytes too many", rest.len())));
    }
    Ok(row)
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

//! Where on a disk shards lie: whole files, and records of volumes, found by
//! what `docs/formats.md` says of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of a shard and of what describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Where it begins there.
    pub start: u64,
    /// Where its own bytes begin, if that is known.
    pub data: Option<u64>,
    /// Its length.
    pub len: u64,
    /// The blob's id, in a volume.
    pub blob: Option<u128>,
}

/// Every shard below the folder of a disk; a deleted one may be among them.
///
/// # Errors
/// Of the file system.
pub fn shards(folder: &Path) -> io::Result<Vec<Place>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(shards(&path)?);
        } else if path.extension().is_some_and(|ending| ending == "vol") {
            found.extend(records(&path)?);
        } else if path.components().any(|part| part.as_os_str() == "shards") {
            let len = fs::metadata(&path)?.len();
            found.push(Place {
                path,
                start: 0,
                data: None,
                len,
                blob: None,
            });
        }
    }
    Ok(found)
}

/// The records of a volume that hold shards.
fn records(path: &Path) -> io::Result<Vec<Place>> {
    const ALIGN: usize = 64;
    const EXTENT: u8 = 2;
    let bytes = fs::read(path)?;
    let number = |at: usize| {
        bytes[at..]
            .first_chunk()
            .map_or(0, |be| u64::from_be_bytes(*be))
    };
    let mut found = Vec::new();
    for at in (0..bytes.len()).step_by(ALIGN) {
        let kind = bytes.get(at + 10).copied().unwrap_or(0);
        if !bytes[at..].starts_with(b"SG.vrec\0") || !(1..=EXTENT).contains(&kind) {
            continue;
        }
        let blob = bytes[at + 48..]
            .first_chunk()
            .map(|be| u128::from_be_bytes(*be));
        let (len, data) = (number(at + 16), number(at + 32));
        // Of one in an extent, the bytes alone.
        let start = if kind == EXTENT { data } else { at as u64 };
        found.push(Place {
            path: path.to_owned(),
            start,
            data: Some(data),
            len: data + len - start,
            blob,
        });
    }
    Ok(found)
}

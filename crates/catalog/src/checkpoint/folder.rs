//! The files of a checkpoint in a folder.
//!
//! Owns which names belong to one: what the engine needs to open it, and none
//! of its logs, locks and leavings. Blocks.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ContentHash;

/// A file of a checkpoint that lies in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderFile {
    /// Its name.
    pub name: String,
    /// Length, bytes.
    pub len: u64,
}

/// Bytes that are hashed at once.
const PIECE: usize = 256 << 10;

/// Whether a name is one of a checkpoint's files. Such a name is never a path.
pub fn is_file_name(name: &str) -> bool {
    let number = |text: &str| {
        (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    name == "CURRENT"
        || is_table(name)
        || name.strip_prefix("MANIFEST-").is_some_and(number)
        || name.strip_prefix("OPTIONS-").is_some_and(number)
}

/// Whether it is a table: written once, and the same for ever.
pub fn is_table(name: &str) -> bool {
    let number = name.strip_suffix(".sst");
    number.is_some_and(|text| {
        (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// The checkpoint's files, in order of name.
///
/// # Errors
/// The folder cannot be read.
pub fn files(folder: &Path) -> io::Result<Vec<FolderFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if is_file_name(&name) {
            let len = entry.metadata()?.len();
            files.push(FolderFile { name, len });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

/// Hash and length of a file's content.
///
/// # Errors
/// The file cannot be read.
pub fn hash(path: &Path) -> io::Result<(ContentHash, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut len = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((ContentHash(hash.finalize().into()), len));
        }
        hash.update(&piece[..read]);
        len += read as u64;
    }
}

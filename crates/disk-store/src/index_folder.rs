//! The folder of a disk on a faster one, for copies of its directories.
//!
//! Owns `INDEX_DIR/DISK` and the identity in it, by which it is known to be of
//! this disk. Invariant: what is not an index folder of this disk is left
//! untouched, and the disk does without.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use shardgate_wire::DiskIdentity;
use tracing::warn;

use crate::files;
use crate::format::{decode_identity, encode_identity};
use crate::io::{DiskIo, RealIo};
use crate::layout::IDENTITY;

/// What is written there first: a folder without it is another's.
const INDEX_IDENTITY: &str = "index-identity";

/// Why a folder is not used.
#[derive(Debug, PartialEq, Eq)]
enum Unfit {
    Refused(Errno),
    ADisk,
    Foreign,
}

impl From<Errno> for Unfit {
    fn from(errno: Errno) -> Self {
        Self::Refused(errno)
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(errno) => write!(f, "{errno}"),
            Self::ADisk => write!(f, "it is a disk of its own"),
            Self::Foreign => write!(f, "what is there is not this disk's"),
        }
    }
}

/// The folder for copies of this disk's directories, made if there is none.
pub(crate) fn open(index_dir: &Path, identity: &DiskIdentity) -> Option<Arc<dyn DiskIo>> {
    match find(index_dir, identity) {
        Ok(folder) => Some(Arc::new(RealIo::new(folder, usize::MAX))),
        Err(unfit) => {
            warn!(
                disk = %identity.disk, index_dir = %index_dir.display(), why = %unfit,
                "index_dir is not used"
            );
            None
        }
    }
}

fn find(index_dir: &Path, identity: &DiskIdentity) -> Result<OwnedFd, Unfit> {
    let all = files::open_folder(index_dir)?;
    if files::exists_at(&all, IDENTITY)? {
        return Err(Unfit::ADisk);
    }
    let name = identity.disk.to_string();
    match rustix::fs::mkdirat(&all, &name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let folder = files::open_folder_at(&all, &name)?;
    match files::open_file_at(&folder, INDEX_IDENTITY) {
        Ok(file) => {
            let found = decode_identity(&files::read_whole(&file, 4096)?);
            // The medium may be told anew.
            let same = |found: DiskIdentity| {
                (found.cluster, found.disk) == (identity.cluster, identity.disk)
            };
            match found.is_ok_and(same) {
                true => Ok(folder),
                false => Err(Unfit::Foreign),
            }
        }
        Err(Errno::NOENT) if is_empty(&folder)? => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = rustix::fs::openat(&folder, INDEX_IDENTITY, flags, mode)?;
            files::write_all(&file, &encode_identity(identity), 0)?;
            rustix::fs::fsync(&file)?;
            rustix::fs::fsync(&folder)?;
            Ok(folder)
        }
        Err(Errno::NOENT) => Err(Unfit::Foreign),
        Err(errno) => Err(errno.into()),
    }
}

fn is_empty(folder: &OwnedFd) -> Result<bool, Errno> {
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?;
        let name = name.file_name().to_bytes();
        if name != b"." && name != b".." {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use shardgate_wire::conformance::sample;
    use shardgate_wire::ids::{ClusterId, DiskId};

    use super::*;

    #[test]
    fn only_a_folder_of_this_disk_is_used() {
        let dir = tempfile::tempdir().expect("make a folder");
        let identity = sample::identity();
        assert!(find(dir.path(), &identity).is_ok(), "made");
        assert!(find(dir.path(), &identity).is_ok(), "and found again");
        // Another disk has another folder there.
        let other = DiskIdentity {
            disk: DiskId(99),
            ..identity
        };
        assert!(find(dir.path(), &other).is_ok());
        let of_cluster = DiskIdentity {
            cluster: ClusterId(77),
            ..identity
        };
        let found = find(dir.path(), &of_cluster).map(drop);
        assert_eq!(found, Err(Unfit::Foreign));
        // Somebody else's things.
        let third = DiskId(100);
        let theirs = dir.path().join(third.to_string());
        std::fs::create_dir(&theirs).expect("made");
        std::fs::write(theirs.join("thesis"), b"years").expect("written");
        let third = DiskIdentity {
            disk: third,
            ..identity
        };
        let found = find(dir.path(), &third).map(drop);
        assert_eq!(found, Err(Unfit::Foreign));
        let left = std::fs::read_dir(&theirs).expect("listed").count();
        assert_eq!(left, 1);
        // No folder, and a disk.
        let none = find(&dir.path().join("none"), &identity).map(drop);
        assert_eq!(none, Err(Unfit::Refused(Errno::NOENT)));
        std::fs::write(dir.path().join(IDENTITY), b"").expect("written");
        let found = find(dir.path(), &identity).map(drop);
        assert_eq!(found, Err(Unfit::ADisk));
    }
}

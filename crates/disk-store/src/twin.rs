//! A small record that is kept in two files.
//!
//! Each write goes to the one file, is synced, then goes to the other and is
//! synced. So at every moment one of them is whole, and once a write was
//! answered either of them may rot. Invariant: the sequence number within the
//! record is raised by every write; of two whole records the higher counts.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::files;
use crate::format::{FormatError, damaged};

/// Most bytes of such a file.
const MOST_BYTES: u64 = 8 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Twin {
    files: [OwnedFd; 2],
}

/// Why a write did not come to its end.
#[derive(Debug)]
pub(crate) enum TwinError {
    /// The system refused to write: the other file is as it was.
    Unwritten(Errno),
    /// The system refused to sync: nobody knows what is durable.
    Unsynced(Errno),
    /// A file has no name any more: the folder was wiped.
    Nameless,
}

/// What the two files held.
pub(crate) struct Loaded<T> {
    pub(crate) twin: Twin,
    /// The record that counts, or why neither is whole.
    pub(crate) record: Result<T, FormatError>,
    /// Whether both files hold that record.
    pub(crate) both: bool,
}

impl Twin {
    /// Makes both files with `record` in them. The caller syncs the folder.
    pub(crate) fn create(folder: &OwnedFd, names: [&str; 2], record: &[u8]) -> Result<(), Errno> {
        for name in names {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
            let file = rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR)?;
            files::write_all(&file, record, 0)?;
            rustix::fs::fsync(&file)?;
        }
        Ok(())
    }

    /// A twin of files that a test has.
    #[cfg(test)]
    pub(crate) fn of(files: [OwnedFd; 2]) -> Self {
        Self { files }
    }

    /// Opens both files; `sequence` tells a record's number. A missing file is
    /// made anew, unless both are missing.
    pub(crate) fn load<T: Clone + PartialEq>(
        folder: &OwnedFd,
        names: [&str; 2],
        decode: impl Fn(&[u8]) -> Result<T, FormatError>,
        sequence: impl Fn(&T) -> u64,
    ) -> Result<Loaded<T>, Errno> {
        let read_only = files::is_read_only(folder)?;
        let there = |name: &str| files::open_file_at(folder, name).is_ok();
        if !names.into_iter().any(there) {
            return Err(Errno::NOENT);
        }
        let open = |name: &str| {
            let access = if read_only {
                OFlags::RDONLY
            } else {
                OFlags::RDWR | OFlags::CREATE
            };
            rustix::fs::openat(
                folder,
                name,
                access | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            )
        };
        let files = [open(names[0])?, open(names[1])?];
        let mut records = Vec::new();
        for file in &files {
            records.push(match files::read_whole(file, MOST_BYTES) {
                Ok(bytes) => decode(&bytes),
                // This copy is damaged; the other may be whole, and writing
                // both anew mends the sector, or fences the disk.
                Err(errno) if files::is_bad_medium(errno) => Err(damaged("it cannot be read")),
                Err(errno) => return Err(errno),
            });
        }
        let second = records.remove(1);
        let first = records.remove(0);
        let (record, both) = match (first, second) {
            (Ok(a), Ok(b)) if a == b => (Ok(a), true),
            (Ok(a), Ok(b)) if sequence(&a) >= sequence(&b) => (Ok(a), false),
            (Ok(_), Ok(b)) => (Ok(b), false),
            // A record of a later version may be the one that counts.
            (Err(v @ FormatError::Version { .. }), _)
            | (_, Err(v @ FormatError::Version { .. })) => (Err(v), false),
            (Ok(a), Err(_)) => (Ok(a), false),
            (Err(_), b) => (b, false),
        };
        let twin = Self { files };
        Ok(Loaded { twin, record, both })
    }

    /// Writes `record`, whose sequence number is new, to both, one after the
    /// other, durably.
    pub(crate) fn write(&self, record: &[u8]) -> Result<(), TwinError> {
        for file in &self.files {
            files::write_all(file, record, 0).map_err(TwinError::Unwritten)?;
            rustix::fs::fdatasync(file).map_err(TwinError::Unsynced)?;
            let stat = rustix::fs::fstat(file).map_err(TwinError::Unsynced)?;
            if stat.st_nlink == 0 {
                return Err(TwinError::Nameless);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 2] = ["t-a", "t-b"];

    /// Eight bytes of number, eight bytes of its complement.
    fn encode(number: u64) -> Vec<u8> {
        [number.to_be_bytes(), (!number).to_be_bytes()].concat()
    }

    fn decode(bytes: &[u8]) -> Result<u64, FormatError> {
        let number: [u8; 8] = bytes.get(..8).ok_or(damaged("short"))?.try_into().unwrap();
        let number = u64::from_be_bytes(number);
        (encode(number) == bytes)
            .then_some(number)
            .ok_or(damaged("bad"))
    }

    fn load(folder: &OwnedFd) -> Loaded<u64> {
        Twin::load(folder, NAMES, decode, |number| *number).unwrap()
    }

    #[test]
    fn every_torn_write_leaves_the_old_or_the_new_record() {
        let dir = tempfile::tempdir().unwrap();
        let folder = files::open_folder(dir.path()).unwrap();
        Twin::create(&folder, NAMES, &encode(1)).unwrap();
        assert!(load(&folder).both);
        for name in NAMES {
            for cut in 0..16 {
                load(&folder).twin.write(&encode(1)).unwrap();
                let mut torn = encode(2);
                torn[cut..].copy_from_slice(&encode(1)[cut..]);
                std::fs::write(dir.path().join(name), &torn).unwrap();
                let loaded = load(&folder);
                assert_eq!(loaded.record, Ok(1), "{name} torn at {cut}");
            }
            std::fs::write(dir.path().join(name), encode(2)).unwrap();
            let loaded = load(&folder);
            assert_eq!((loaded.record, loaded.both), (Ok(2), false));
            std::fs::remove_file(dir.path().join(name)).unwrap();
            assert_eq!(load(&folder).record, Ok(1));
            load(&folder).twin.write(&encode(1)).unwrap();
        }
        for name in NAMES {
            std::fs::write(dir.path().join(name), b"rot").unwrap();
        }
        assert!(load(&folder).record.is_err());
    }

    #[test]
    fn a_write_to_a_wiped_folder_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = files::open_folder(dir.path()).unwrap();
        Twin::create(&folder, NAMES, &encode(1)).unwrap();
        let twin = load(&folder).twin;
        std::fs::remove_file(dir.path().join(NAMES[1])).unwrap();
        assert!(matches!(twin.write(&encode(2)), Err(TwinError::Nameless)));
    }
}

//! Where volumes, their directories and the log lie in a disk's folder.
//!
//! Pure. Names are made of ids and numbers alone.

use std::path::{Path, PathBuf};

use shardgate_wire::ids::GroupId;

use super::format::MAX_SEQUENCE;

/// The folder of volumes.
pub(crate) const VOLUMES: &str = "volumes";
/// The folder of the log.
pub(crate) const LOG: &str = "log";

/// What a file in a group's folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum What {
    /// A volume.
    Volume,
    /// A sealed volume's directory.
    Directory,
    /// What compaction writes: no volume before the log says so.
    Output,
    /// A directory that is being written.
    Part,
}

impl What {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Volume, "vol"),
        (Self::Directory, "dir"),
        (Self::Output, "out"),
        (Self::Part, "part"),
    ];

    fn ending(self) -> &'static str {
        let found = Self::ALL.iter().find(|(what, _)| *what == self);
        found.map_or("", |(_, ending)| ending)
    }
}

/// The folder of a group's volumes.
pub(crate) fn group_folder(group: GroupId) -> PathBuf {
    Path::new(VOLUMES).join(group.to_string())
}

/// A file of a volume.
pub(crate) fn volume_file(group: GroupId, sequence: u64, what: What) -> PathBuf {
    group_folder(group).join(format!("{sequence:016x}.{}", what.ending()))
}

/// A segment of the log.
pub(crate) fn log_file(sequence: u64) -> PathBuf {
    Path::new(LOG).join(format!("{sequence:016x}.log"))
}

/// The number and kind of a file in a group's folder.
pub(crate) fn parse_volume_file(name: &str) -> Option<(u64, What)> {
    let (number, ending) = name.split_once('.')?;
    let what = What::ALL.iter().find(|(_, known)| *known == ending)?.0;
    Some((parse_number(number)?, what))
}

/// The number of a segment of the log.
pub(crate) fn parse_log_file(name: &str) -> Option<u64> {
    parse_number(name.strip_suffix(".log")?)
}

fn parse_number(text: &str) -> Option<u64> {
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let fits = text.len() == 16 && text.bytes().all(hex);
    let number = u64::from_str_radix(text, 16).ok().filter(|_| fits)?;
    (number < MAX_SEQUENCE).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_none() {
        for (what, _) in What::ALL {
            let path = volume_file(GroupId(7), 0xab, what);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(parse_volume_file(name), Some((0xab, what)));
        }
        assert_eq!(parse_log_file("0000000000000001.log"), Some(1));
        for other in [
            "1.vol",
            "00000000000000AB.vol",
            "0000000000000001.txt",
            "ffffffffffffffff.vol",
            "x",
        ] {
            assert_eq!(parse_volume_file(other), None, "{other}");
        }
    }
}

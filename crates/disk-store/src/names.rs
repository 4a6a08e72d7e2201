//! Where the file of a shard lies.
//!
//! Pure. `shards/GROUP/PREFIX/BLOB-INDEX`, all lower-case hex of fixed width,
//! so that the order of names is the order of [`ShardKey`]s. The prefix is
//! the blob id without its low bits: ids begin with the millisecond of their
//! making, so a folder takes the blobs of one group of about 17 minutes, and
//! writes that are made together touch one folder. A name is made of ids and
//! nothing else; a name that is not one is no shard.

use shardgate_wire::ShardKey;
use shardgate_wire::ids::{BlobId, GroupId};

/// Bits of a blob id that its prefix leaves out.
const PREFIX_SHIFT: u32 = 100;
const PREFIX_DIGITS: usize = 7;
const NAME_BYTES: usize = 32 + 1 + 2;

/// One folder of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FolderName {
    pub(crate) group: GroupId,
    pub(crate) prefix: u32,
}

impl FolderName {
    pub(crate) fn of(key: &ShardKey) -> Self {
        let prefix = u32::try_from(key.blob.0 >> PREFIX_SHIFT).expect("28 bits are left");
        Self {
            group: key.group,
            prefix,
        }
    }

    /// The first blob of the next folder of its group, if there can be one.
    pub(crate) fn first_behind(blob: BlobId) -> Option<BlobId> {
        let next = (blob.0 >> PREFIX_SHIFT) + 1;
        (next < 1 << (128 - PREFIX_SHIFT)).then_some(BlobId(next << PREFIX_SHIFT))
    }

    /// No blob in it is before this one.
    pub(crate) fn first_blob(self) -> BlobId {
        BlobId(u128::from(self.prefix) << PREFIX_SHIFT)
    }

    pub(crate) fn group_name(self) -> String {
        self.group.to_string()
    }

    pub(crate) fn prefix_name(self) -> String {
        format!("{:0PREFIX_DIGITS$x}", self.prefix)
    }

    /// Under `shards`.
    pub(crate) fn path(self) -> String {
        format!("{}/{}", self.group, self.prefix_name())
    }
}

/// The shard's file name in its folder.
pub(crate) fn file_name(key: &ShardKey) -> String {
    format!("{}-{:02x}", key.blob, key.index)
}

/// The shard's path under `shards`.
pub(crate) fn file_path(key: &ShardKey) -> String {
    format!("{}/{}", FolderName::of(key).path(), file_name(key))
}

pub(crate) fn parse_group(name: &[u8]) -> Option<GroupId> {
    std::str::from_utf8(name).ok()?.parse().ok()
}

pub(crate) fn parse_prefix(name: &[u8]) -> Option<u32> {
    let hex = name.len() == PREFIX_DIGITS && name.iter().all(|b| is_lower_hex(*b));
    let text = std::str::from_utf8(name).ok().filter(|_| hex)?;
    u32::from_str_radix(text, 16).ok()
}

/// The shard that a file of that name in `folder` is; `None` if its name is
/// none, or belongs into another folder.
pub(crate) fn parse_file(folder: FolderName, name: &[u8]) -> Option<ShardKey> {
    if name.len() != NAME_BYTES || name[32] != b'-' || !name[33..].iter().all(|b| is_lower_hex(*b))
    {
        return None;
    }
    let blob: BlobId = std::str::from_utf8(&name[..32]).ok()?.parse().ok()?;
    let index = u8::from_str_radix(std::str::from_utf8(&name[33..]).ok()?, 16).ok()?;
    let key = ShardKey {
        group: folder.group,
        blob,
        index,
    };
    (FolderName::of(&key) == folder).then_some(key)
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(group: u64, blob: u128, index: u8) -> ShardKey {
        ShardKey {
            group: GroupId(group),
            blob: BlobId(blob),
            index,
        }
    }

    #[test]
    fn a_path_is_of_ids_only() {
        let path = file_path(&key(0x91, 0xabc << 100 | 5, 0x1f));
        let wanted = "0000000000000091/0000abc/0000abc0000000000000000000000005-1f";
        assert_eq!(path, wanted);
    }

    proptest! {
        #[test]
        fn names_round_trip_and_keep_the_order(
            a in (any::<u64>(), any::<u128>(), any::<u8>()),
            b in (any::<u64>(), any::<u128>(), any::<u8>()),
        ) {
            let (a, b) = (key(a.0, a.1, a.2), key(b.0, b.1, b.2));
            prop_assert_eq!(a.cmp(&b), file_path(&a).cmp(&file_path(&b)));
            let folder = FolderName::of(&a);
            prop_assert_eq!(parse_file(folder, file_name(&a).as_bytes()), Some(a));
            prop_assert_eq!(parse_group(folder.group_name().as_bytes()), Some(a.group));
            prop_assert_eq!(parse_prefix(folder.prefix_name().as_bytes()), Some(folder.prefix));
        }

        #[test]
        fn what_is_no_name_is_no_shard(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            let folder = FolderName { group: GroupId(1), prefix: 0 };
            if let Some(key) = parse_file(folder, &name) {
                prop_assert_eq!(file_name(&key).into_bytes(), name);
            }
        }
    }

    #[test]
    fn a_file_in_a_foreign_folder_is_no_shard() {
        let stray = key(1, 7 << 100, 0);
        let folder = FolderName {
            group: GroupId(1),
            prefix: 8,
        };
        assert_eq!(parse_file(folder, file_name(&stray).as_bytes()), None);
        assert_eq!(parse_prefix(b"+000001"), None);
    }
}

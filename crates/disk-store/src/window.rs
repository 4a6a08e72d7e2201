//! What is given of a disk to those who read all of it: pieces of shards in
//! the order in which they lie, and the places between them.
//!
//! Pure. A [`WindowCursor`] names a place and no more, so that whoever keeps
//! one goes on there after whatever was sealed, compacted or deleted
//! meanwhile, and after a restart of either side.

use bytes::Bytes;
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::store::ShardEnd;
use shardgate_wire::{ShardHeader, ShardKey, StoreError};

use crate::format::bytes::{Reader, Writer};
use crate::names::FolderName;

/// A place among the shards of a disk: first the records of the group's
/// volumes, then its shards in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowCursor {
    /// The group.
    pub group: GroupId,
    /// Where among its shards.
    pub place: WindowPlace,
}

/// Where among the shards of a group. `within` counts bytes of the shard that
/// were given already; it is a multiple of 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WindowPlace {
    /// In volumes.
    Record {
        /// Number of the volume.
        volume: u64,
        /// Where in it.
        offset: u64,
        /// Where in the shard whose record begins there.
        within: u64,
    },
    /// At a shard in a file, in order of keys.
    File {
        /// Its blob.
        blob: BlobId,
        /// Its index.
        index: u8,
        /// Where in it.
        within: u64,
    },
}

impl Default for WindowPlace {
    fn default() -> Self {
        Self::Record {
            volume: 0,
            offset: 0,
            within: 0,
        }
    }
}

impl WindowPlace {
    /// Where the shards in files begin.
    pub(crate) const FILES: Self = Self::File {
        blob: BlobId(0),
        index: 0,
        within: 0,
    };
}

impl WindowCursor {
    /// Bytes of a cursor outside of this process.
    pub const BYTES: usize = 34;

    /// The start of a group.
    pub fn start(group: GroupId) -> Self {
        Self {
            group,
            place: WindowPlace::default(),
        }
    }

    /// Whether it is the start of a group.
    pub(crate) fn is_start(&self) -> bool {
        self.place == WindowPlace::default()
    }

    /// The start of what may be the next group.
    pub(crate) fn next_group(&self) -> Option<Self> {
        Some(Self::start(GroupId(self.group.0.checked_add(1)?)))
    }

    /// The start of a volume.
    pub(crate) fn of_volume(group: GroupId, volume: u64) -> Self {
        let place = WindowPlace::Record {
            volume,
            offset: 0,
            within: 0,
        };
        Self { group, place }
    }

    /// The start of a folder of shards.
    pub(crate) fn of_folder(folder: FolderName) -> Self {
        let place = WindowPlace::File {
            blob: folder.first_blob(),
            index: 0,
            within: 0,
        };
        let group = folder.group;
        Self { group, place }
    }

    /// The volume that the place is in.
    pub(crate) fn volume(&self) -> Option<u64> {
        match self.place {
            WindowPlace::Record { volume, .. } => Some(volume),
            WindowPlace::File { .. } => None,
        }
    }

    /// Where to go on if a directory or folder at the place cannot be read:
    /// at the next volume, or the next folder of shards; `None` if the group
    /// has no other.
    #[must_use]
    pub fn behind(self) -> Option<Self> {
        let place = match self.place {
            WindowPlace::Record { volume, .. } => match volume.checked_add(1) {
                Some(volume) => return Some(Self::of_volume(self.group, volume)),
                None => WindowPlace::FILES,
            },
            WindowPlace::File { blob, .. } => WindowPlace::File {
                blob: FolderName::first_behind(blob)?,
                index: 0,
                within: 0,
            },
        };
        Some(Self { place, ..self })
    }

    /// The cursor as bytes that keep their meaning (`docs/formats.md`).
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut w = Writer::default();
        w.u64(self.group.0);
        match self.place {
            WindowPlace::Record {
                volume,
                offset,
                within,
            } => {
                w.u8(0);
                w.u64(volume);
                w.u64(offset);
                w.u8(0);
                w.u64(within);
            }
            WindowPlace::File {
                blob,
                index,
                within,
            } => {
                w.u8(1);
                w.u128(blob.0);
                w.u8(index);
                w.u64(within);
            }
        }
        w.out.try_into().expect("both kinds have this length")
    }

    /// The cursor of bytes that [`Self::to_bytes`] gave; `None` for others.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut r = Reader::new(bytes);
        let group = GroupId(r.u64().ok()?);
        let place = match r.u8().ok()? {
            0 => {
                let (volume, offset) = (r.u64().ok()?, r.u64().ok()?);
                let zero = r.u8().ok()? == 0;
                let within = r.u64().ok().filter(|_| zero)?;
                WindowPlace::Record {
                    volume,
                    offset,
                    within,
                }
            }
            1 => WindowPlace::File {
                blob: BlobId(r.u128().ok()?),
                index: r.u8().ok()?,
                within: r.u64().ok()?,
            },
            _ => return None,
        };
        r.end().ok()?;
        Some(Self { group, place })
    }
}

/// A piece of a shard, in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowRecord {
    /// Which shard.
    pub key: ShardKey,
    /// What is stored of it, verified; or what is wrong with it: `Corrupt` if
    /// it does not verify, `Io` if the device does not give it.
    pub shard: Result<WindowShard, StoreError>,
}

/// Bytes of a shard, at most 1 MiB: all of a shorter one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowShard {
    /// The shard's head.
    pub header: ShardHeader,
    /// Its lengths.
    pub end: ShardEnd,
    /// Where in the shard the bytes begin: a multiple of 64 KiB.
    pub offset: u64,
    /// The bytes. Those of neighbours share memory: who keeps one for longer
    /// than the window copies it.
    pub bytes: Bytes,
    /// One per 64 KiB block.
    pub crcs: Vec<u32>,
}

/// Some pieces in order of place, and where the next window begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The pieces.
    pub records: Vec<WindowRecord>,
    /// `None` at the end of the group.
    pub next: Option<WindowCursor>,
    /// A volume is damaged in a stretch whose keys nobody knows.
    pub unknown: bool,
    /// Bytes that were read for it from the device, about.
    pub read_bytes: u64,
}

/// Why there is no window.
#[derive(Debug)]
pub(crate) struct Unread {
    pub(crate) error: StoreError,
    /// What cannot be read: not the place that was asked for, but the first
    /// from there on with anything in it.
    pub(crate) at: WindowCursor,
    /// Nor can all that is behind it in its group.
    pub(crate) rest: bool,
}

impl Unread {
    /// A place in the volume, or the folder, that cannot be read.
    pub(crate) fn at(place: WindowCursor) -> impl FnOnce(StoreError) -> Self {
        move |error| Self {
            error,
            at: place,
            rest: false,
        }
    }

    /// All that is left of the place's group.
    pub(crate) fn from(place: WindowCursor) -> impl FnOnce(StoreError) -> Self {
        move |error| Self {
            error,
            at: place,
            rest: true,
        }
    }

    /// Where to go on behind it; `None` if nothing is left of its group.
    pub(crate) fn behind(&self) -> Option<WindowCursor> {
        self.at.behind().filter(|_| !self.rest)
    }

    /// Where to go on, in its group or behind it.
    pub(crate) fn go_on(&self) -> Option<WindowCursor> {
        self.behind().or_else(|| self.at.next_group())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(volume: u64, offset: u64, within: u64) -> WindowPlace {
        WindowPlace::Record {
            volume,
            offset,
            within,
        }
    }

    fn file(blob: u128, index: u8, within: u64) -> WindowPlace {
        WindowPlace::File {
            blob: BlobId(blob),
            index,
            within,
        }
    }

    fn cursors() -> impl Strategy<Value = WindowCursor> {
        let places = prop_oneof![
            any::<(u64, u64, u64)>().prop_map(|(v, o, w)| record(v, o, w)),
            any::<(u128, u8, u64)>().prop_map(|(b, i, w)| file(b, i, w)),
        ];
        (any::<u64>(), places).prop_map(|(group, place)| WindowCursor {
            group: GroupId(group),
            place,
        })
    }

    proptest! {
        #[test]
        fn cursors_round_trip_and_their_bytes_keep_the_order(a in cursors(), b in cursors()) {
            prop_assert_eq!(WindowCursor::from_bytes(&a.to_bytes()), Some(a));
            prop_assert_eq!(a.cmp(&b), a.to_bytes().cmp(&b.to_bytes()));
            prop_assert!(a.behind().is_none_or(|behind| behind > a));
        }

        #[test]
        fn noise_is_no_cursor_or_a_whole_one(noise in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(cursor) = WindowCursor::from_bytes(&noise) {
                prop_assert_eq!(cursor.to_bytes().to_vec(), noise);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_over() {
        let behind = |place| {
            let group = GroupId(7);
            let behind = WindowCursor { group, place }.behind();
            behind.map(|cursor| {
                assert_eq!(cursor.group, group);
                cursor.place
            })
        };
        assert_eq!(behind(record(3, 64, 65_536)), Some(record(4, 0, 0)));
        assert_eq!(behind(record(u64::MAX, 0, 0)), Some(WindowPlace::FILES));
        assert_eq!(behind(file(5 << 100 | 9, 3, 1)), Some(file(6 << 100, 0, 0)));
        assert_eq!(behind(file(u128::MAX, 3, 1)), None);
    }
}

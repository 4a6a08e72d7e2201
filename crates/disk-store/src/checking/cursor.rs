//! Where a check goes on, to and from the bytes of a cursor.
//!
//! Pure. Callers hand back what they like: what this disk could not have
//! given is refused, and a place that is no more is followed by the next.

use shardgate_wire::checksum::CHECK_BLOCK;
use shardgate_wire::ids::{BlobId, GroupId};
use shardgate_wire::journal::JOURNAL_PAGE;
use shardgate_wire::{CheckCursor, ShardKey, StoreError};

use crate::format::FormatError;
use crate::format::bytes::{Reader, Writer};
use crate::volume::{LogPlace, VolumePlace};

/// The first byte, so that a later order of parts is told from this one.
const VERSION: u8 = 1;

/// What a part begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// The folder, and the records of the disk itself.
    #[default]
    Records,
    /// The log; `None` from its start.
    Log(Option<LogPlace>),
    /// The volumes behind this one. `tries`: how often the next one has waited
    /// to be repaired.
    Volumes {
        after: Option<VolumePlace>,
        tries: u8,
    },
    /// Files of shards; `None` from the first.
    Files(Option<FilePlace>),
    /// Files of notes from this number on.
    Notes(u64),
    /// Journal segments; `None` from the first.
    Journal(Option<JournalPlace>),
}

/// A place among the files of shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilePlace {
    Behind(ShardKey),
    /// Within this one, whose bytes before this offset are whole.
    Within(ShardKey, u64),
}

/// A place among the journal's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JournalPlace {
    pub(super) file: u64,
    pub(super) offset: u64,
    /// Where bytes before it begin that are no batch.
    pub(super) gap: Option<u64>,
}

fn put_key(w: &mut Writer, key: &ShardKey) {
    w.u64(key.group.0);
    w.u128(key.blob.0);
    w.u8(key.index);
}

fn take_key(r: &mut Reader<'_>) -> Result<ShardKey, FormatError> {
    Ok(ShardKey {
        group: GroupId(r.u64()?),
        blob: BlobId(r.u128()?),
        index: r.u8()?,
    })
}

fn unknown() -> FormatError {
    crate::format::damaged("no place of a check")
}

/// A place that is a multiple of `unit`.
fn multiple(place: u64, unit: usize) -> Result<u64, FormatError> {
    match place.is_multiple_of(unit as u64) {
        true => Ok(place),
        false => Err(unknown()),
    }
}

impl Place {
    pub(super) fn encode(self) -> CheckCursor {
        let mut w = Writer::default();
        w.u8(VERSION);
        match self {
            Self::Records => w.u8(0),
            Self::Log(None) => w.u8(1),
            Self::Log(Some(place)) => {
                w.u8(2);
                w.u64(place.segment);
                w.u64(place.offset);
            }
            Self::Volumes { after: None, tries } => {
                w.u8(3);
                w.u8(tries);
            }
            Self::Volumes {
                after: Some((group, sequence)),
                tries,
            } => {
                w.u8(4);
                w.u8(tries);
                w.u64(group.0);
                w.u64(sequence);
            }
            Self::Files(None) => w.u8(5),
            Self::Files(Some(FilePlace::Behind(key))) => {
                w.u8(6);
                put_key(&mut w, &key);
            }
            Self::Files(Some(FilePlace::Within(key, offset))) => {
                w.u8(7);
                put_key(&mut w, &key);
                w.u64(offset);
            }
            Self::Notes(file) => {
                w.u8(8);
                w.u64(file);
            }
            Self::Journal(None) => w.u8(9),
            Self::Journal(Some(place)) => {
                w.u8(10);
                w.u64(place.file);
                w.u64(place.offset);
                // A gap is before the offset, so that is none.
                w.u64(place.gap.unwrap_or(place.offset));
            }
        }
        CheckCursor(w.out)
    }

    pub(super) fn decode(cursor: &CheckCursor) -> Result<Self, StoreError> {
        Self::read(&cursor.0).map_err(|_| StoreError::BadCall {
            what: "cursor of no check of this disk".into(),
        })
    }

    fn read(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(unknown());
        }
        let place = match r.u8()? {
            0 => Self::Records,
            1 => Self::Log(None),
            2 => Self::Log(Some(LogPlace {
                segment: r.u64()?,
                offset: multiple(r.u64()?, 512)?,
            })),
            3 => Self::Volumes {
                tries: r.u8()?,
                after: None,
            },
            4 => Self::Volumes {
                tries: r.u8()?,
                after: Some((GroupId(r.u64()?), r.u64()?)),
            },
            5 => Self::Files(None),
            6 => Self::Files(Some(FilePlace::Behind(take_key(&mut r)?))),
            7 => Self::Files(Some(FilePlace::Within(
                take_key(&mut r)?,
                multiple(r.u64()?, CHECK_BLOCK)?,
            ))),
            8 => Self::Notes(r.u64()?),
            9 => Self::Journal(None),
            10 => {
                let (file, offset) = (r.u64()?, multiple(r.u64()?, JOURNAL_PAGE)?);
                let gap = multiple(r.u64()?, JOURNAL_PAGE)?;
                Self::Journal(Some(JournalPlace {
                    file,
                    offset,
                    gap: (gap < offset).then_some(gap),
                }))
            }
            _ => return Err(unknown()),
        };
        r.end()?;
        Ok(place)
    }
}

#[cfg(test)]
pub(super) use tests::places;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardgate_wire::check::MAX_CHECK_CURSOR_BYTES;

    use super::*;

    /// Every kind of place, with these numbers.
    pub(in crate::checking) fn places(a: u64, b: u64, tries: u8) -> Vec<Place> {
        let key = ShardKey {
            group: GroupId(a),
            blob: BlobId(u128::from(b) << 60 | u128::from(a)),
            index: tries,
        };
        let page = |of: u64| of / 4096 * 4096;
        vec![
            Place::Records,
            Place::Log(None),
            Place::Log(Some(LogPlace {
                segment: a,
                offset: page(b),
            })),
            Place::Volumes { after: None, tries },
            Place::Volumes {
                after: Some((GroupId(a), b)),
                tries,
            },
            Place::Files(None),
            Place::Files(Some(FilePlace::Behind(key))),
            Place::Files(Some(FilePlace::Within(key, b / 65536 * 65536))),
            Place::Notes(a),
            Place::Journal(None),
            Place::Journal(Some(JournalPlace {
                file: a,
                offset: page(b),
                gap: (b > 8192).then_some(4096),
            })),
        ]
    }

    proptest! {
        #[test]
        fn places_are_read_as_they_were_written(a: u64, b: u64, tries: u8) {
            for place in places(a, b, tries) {
                let cursor = place.encode();
                prop_assert!(cursor.0.len() <= MAX_CHECK_CURSOR_BYTES);
                prop_assert_eq!(Place::decode(&cursor), Ok(place));
                // What is longer or shorter is of no disk.
                for len in 0..cursor.0.len() {
                    let cut = CheckCursor(cursor.0[..len].to_vec());
                    prop_assert!(Place::decode(&cut).is_err());
                }
                let longer = CheckCursor([&cursor.0[..], &[0]].concat());
                prop_assert!(Place::decode(&longer).is_err());
            }
        }

        #[test]
        fn noise_is_refused_or_a_place(bytes: Vec<u8>) {
            if let Ok(place) = Place::decode(&CheckCursor(bytes.clone())) {
                let again = Place::decode(&place.encode());
                prop_assert_eq!(again, Ok(place));
            }
        }
    }
}

//! A directory in short: where the record of a key may be.
//!
//! Six bytes for each record instead of thirty-two, so that the directories
//! of many records stay in memory and a small read costs one I/O. Pure.
//! Invariant: made of a whole directory, so that a key that no hint tells of
//! has no record in the volume; one that a hint tells of may have one, which
//! only the record itself proves.

use std::ops::Range;

use shardgate_wire::checksum::crc32c;

use super::format::{DIRECTORY_PAGE, Entry, PAGE_ENTRIES, RECORD_ALIGN};
use super::volume_state::InGroup;

/// Bits of a hint that say where a record is, in units of 64 bytes.
const PLACE_BITS: u32 = 22;
/// Bits that say how many pages of the volume it touches.
const PAGES_BITS: u32 = u32::BITS - PLACE_BITS;
/// Pages of a longer record that a hint tells of: more than is read at once.
const MOST_PAGES: u32 = (1 << PAGES_BITS) - 1;
/// What a volume's hints take besides six bytes for each record.
const FIXED_BYTES: usize = 128;

/// The hints of one volume, in the order of its directory.
#[derive(Debug)]
pub(crate) struct Hints {
    prints: Box<[u16]>,
    places: Box<[u32]>,
}

/// What hints say of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// The volume has no record of it.
    Absent,
    /// Its record is this, or there is none.
    Perhaps {
        /// In units of 64 bytes.
        at: u32,
        /// Bytes from there on that hold the record, or the first 4 MiB of it.
        span: u32,
    },
    /// The directory has to say.
    Unclear,
}

/// What the hints of so many records take, bytes.
pub(crate) fn hints_bytes(count: usize) -> usize {
    FIXED_BYTES + count * (size_of::<u16>() + size_of::<u32>())
}

fn print_of(key: InGroup) -> u16 {
    let mut bytes = [key.1; 17];
    bytes[..16].copy_from_slice(&key.0.0.to_be_bytes());
    (crc32c(&bytes) & 0xffff) as u16
}

/// Pages of its volume that a record touches.
fn pages_touched(entry: &Entry) -> u64 {
    let page = DIRECTORY_PAGE as u64;
    let skip = entry.offset() % page;
    (skip + u64::from(entry.span)).div_ceil(page)
}

impl Hints {
    /// The hints of all entries of a directory, in order; `None` where a
    /// place does not fit into one.
    pub(crate) fn of(entries: &[Entry]) -> Option<Self> {
        let mut prints = Vec::with_capacity(entries.len());
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.at >> PLACE_BITS != 0 {
                return None;
            }
            let pages = pages_touched(entry).clamp(1, MOST_PAGES.into());
            let pages = u32::try_from(pages).expect("clamped");
            prints.push(print_of(entry.key()));
            places.push(entry.at | pages << PLACE_BITS);
        }
        Some(Self {
            prints: prints.into(),
            places: places.into(),
        })
    }

    /// What they say of a key that only these pages of the directory may
    /// have.
    pub(crate) fn find(&self, pages: Range<usize>, key: InGroup) -> Hint {
        let end = (pages.end * PAGE_ENTRIES).min(self.prints.len());
        let start = (pages.start * PAGE_ENTRIES).min(end);
        let wanted = print_of(key);
        let mut same = (start..end).filter(|at| self.prints[*at] == wanted);
        let Some(first) = same.next() else {
            return Hint::Absent;
        };
        let place = self.places[first];
        let (at, pages) = (place & ((1 << PLACE_BITS) - 1), place >> PLACE_BITS);
        if same.next().is_some() {
            return Hint::Unclear;
        }
        let page = DIRECTORY_PAGE as u64;
        let skip = u64::from(at) * RECORD_ALIGN % page;
        let span = u64::from(pages) * page - skip;
        Hint::Perhaps {
            at,
            span: u32::try_from(span).unwrap_or(u32::MAX),
        }
    }

    /// What they take, bytes.
    pub(crate) fn bytes(&self) -> usize {
        hints_bytes(self.prints.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use shardgate_wire::ids::BlobId;

    fn entry(blob: u128, index: u8, at: u32, span: u32) -> Entry {
        Entry {
            blob: BlobId(blob),
            index,
            at,
            span,
            besides: 0,
        }
    }

    #[test]
    fn what_does_not_fit_is_left_to_the_directory() {
        let far = entry(1, 0, 1 << PLACE_BITS, 64);
        assert!(Hints::of(&[far]).is_none());
        // Of a longer record, as much as it can say.
        let long = entry(1, 0, 0, 4096 << PAGES_BITS);
        let hints = Hints::of(&[long]).unwrap();
        let found = hints.find(0..1, long.key());
        let span = 4096 * MOST_PAGES;
        assert_eq!(found, Hint::Perhaps { at: 0, span });
        let last = entry(1, 0, (1 << PLACE_BITS) - 1, 64);
        let hints = Hints::of(&[last]).unwrap();
        let found = hints.find(0..1, last.key());
        assert_eq!(
            found,
            Hint::Perhaps {
                at: last.at,
                span: 64
            }
        );
    }

    proptest! {
        /// Every entry is told of, with all of its bytes; a stranger is
        /// absent, or sent to a record that is not its own.
        #[test]
        fn every_record_is_told_of(
            blobs in proptest::collection::btree_map(any::<u64>(), (0u32..1 << 22, 1u32..1 << 21), 1..600),
            stranger in any::<u64>(),
        ) {
            let entries: Vec<_> = blobs
                .iter()
                .map(|(blob, (at, span))| entry((*blob).into(), 3, *at, *span))
                .collect();
            let hints = Hints::of(&entries).unwrap();
            prop_assert_eq!(hints.bytes(), hints_bytes(entries.len()));
            for (n, entry) in entries.iter().enumerate() {
                let page = n / PAGE_ENTRIES;
                match hints.find(page..page + 1, entry.key()) {
                    Hint::Absent => prop_assert!(false, "a record is denied"),
                    Hint::Perhaps { at, span } => {
                        prop_assert_eq!(at, entry.at);
                        prop_assert!(span >= entry.span && span < entry.span + 4096);
                    }
                    Hint::Unclear => {}
                }
            }
            let key = (BlobId(stranger.into()), 4);
            let pages = 0..entries.len().div_ceil(PAGE_ENTRIES);
            if let Hint::Perhaps { at, .. } = hints.find(pages, key) {
                prop_assert!(entries.iter().any(|entry| entry.at == at));
            }
        }
    }
}

//! The layout of one blob: how many data and parity shards it is cut into.
//!
//! Owns the choice of k' (a shortened code for short blobs) and the rotation
//! of shards over the slots of a group. Both are pure functions, the same
//! for every writer and reader. It knows nothing of bytes or blocks (that is
//! `geometry`).

use std::fmt;

use crate::geometry;
use crate::scheme::{Scheme, SchemeError};

/// `k'+m` of one blob: the scheme's own k, or a smaller k' for a blob that
/// would otherwise be cut into needlessly small shards. The tolerance, m, is
/// always the scheme's.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Layout {
    // A layout has the limits of a scheme, and keeps them by being one.
    counts: Scheme,
}

impl Layout {
    /// A layout as read from a record.
    ///
    /// # Errors
    /// The counts are out of the bounds of a [`Scheme`].
    pub const fn new(data: u8, parity: u8) -> Result<Self, SchemeError> {
        match Scheme::new(data, parity) {
            Ok(counts) => Ok(Self { counts }),
            Err(error) => Err(error),
        }
    }

    /// The scheme's own layout, with all its slots.
    #[must_use]
    pub const fn full(scheme: Scheme) -> Self {
        Self { counts: scheme }
    }

    /// The layout of a blob of `len` bytes: k' is the smallest of 1, 2, 4,
    /// ... k whose shards are at most `shard_target` bytes, and k where none
    /// is or where the length is not known.
    #[must_use]
    pub fn choose(scheme: Scheme, len: Option<u64>, shard_target: u64) -> Self {
        let full = Self::full(scheme);
        let Some(len) = len else { return full };
        let mut data = 1;
        while data < scheme.data() {
            let layout = Self::new(data, scheme.parity())
                .expect("a scheme with k > 1 has parity, and a smaller k is allowed");
            if geometry::shard_len(layout, len) <= shard_target {
                return layout;
            }
            data *= 2;
        }
        full
    }

    /// k', the number of data shards.
    #[must_use]
    pub const fn data(self) -> u8 {
        self.counts.data()
    }

    /// m, the number of parity shards.
    #[must_use]
    pub const fn parity(self) -> u8 {
        self.counts.parity()
    }

    /// k' + m. Shards 0 to k' - 1 hold data, the rest parity.
    #[must_use]
    pub const fn shards(self) -> u8 {
        self.counts.slots()
    }

    /// Whether every shard is the whole blob.
    #[must_use]
    pub const fn is_copies(self) -> bool {
        self.counts.is_copies()
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.counts.fmt(f)
    }
}

/// The slot that holds shard `shard` of a blob: `(shard + hash) mod slots`,
/// so that the data shards of many blobs, which serve the reads, spread over
/// all disks of a group.
///
/// # Panics
/// If `slots` is 0 or `shard` is not below it: a group has more slots than
/// any of its blobs has shards.
#[must_use]
pub fn slot_of(blob_hash: u64, shard: u8, slots: u8) -> u8 {
    assert!(shard < slots, "shard {shard} in a group of {slots} slots");
    let turned = blob_hash % u64::from(slots) + u64::from(shard);
    (turned % u64::from(slots)) as u8
}

/// The inverse of [`slot_of`]: which shard of a blob lies in `slot`; `None`
/// where the blob's layout leaves that slot empty.
///
/// # Panics
/// If `slot` is not below `slots`.
#[must_use]
pub fn shard_in(blob_hash: u64, layout: Layout, slot: u8, slots: u8) -> Option<u8> {
    assert!(slot < slots, "slot {slot} of a group of {slots} slots");
    let slots = u64::from(slots);
    let shard = ((u64::from(slot) + slots - blob_hash % slots) % slots) as u8;
    (shard < layout.shards()).then_some(shard)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;

    fn chosen(scheme: &str, len: u64, target: u64) -> u8 {
        Layout::choose(scheme.parse().unwrap(), Some(len), target).data()
    }

    #[test]
    fn k_grows_with_the_length() {
        for (scheme, len, data) in [
            ("4+2", 0, 1),
            ("4+2", 1, 1),
            ("4+2", 128 * KIB, 1),
            ("4+2", 128 * KIB + 1, 2),
            ("4+2", 256 * KIB, 2),
            ("4+2", 256 * KIB + 1, 4),
            ("4+2", u64::MAX, 4),
            ("6+3", 512 * KIB, 4),
            ("6+3", 512 * KIB + 1, 6),
            ("3+2", 256 * KIB + 1, 3),
            ("12+4", 1024 * KIB, 8),
            ("12+4", 1024 * KIB + 1, 12),
            ("16+8", 1024 * KIB + 1, 16),
            ("1+2", u64::MAX, 1),
            ("1+0", 5 << 40, 1),
        ] {
            assert_eq!(chosen(scheme, len, 128 * KIB), data, "{scheme} of {len}");
        }
    }

    #[test]
    fn the_padded_shard_must_keep_to_the_target() {
        assert_eq!(chosen("4+2", 100, 100), 2);
        assert_eq!(chosen("4+2", 100, 128), 1);
        assert_eq!(chosen("4+2", 100, 0), 4);
    }

    #[test]
    fn an_unknown_length_takes_the_full_layout() {
        let scheme = Scheme::new(6, 3).unwrap();
        assert_eq!(Layout::choose(scheme, None, u64::MAX), Layout::full(scheme));
    }

    #[test]
    fn tolerance_never_shrinks() {
        let scheme = Scheme::new(12, 4).unwrap();
        for bits in 0..44 {
            let layout = Layout::choose(scheme, Some(1 << bits), 128 * KIB);
            assert_eq!(layout.parity(), 4);
        }
    }

    proptest! {
        #[test]
        fn slots_turn_and_turn_back(hash: u64, data in 1..=16_u8, spare in 0..8_u8) {
            let layout = Layout::new(data, 2).unwrap();
            let slots = layout.shards() + spare;
            let taken: Vec<u8> =
                (0..layout.shards()).map(|i| slot_of(hash, i, slots)).collect();
            for slot in 0..slots {
                let holds = taken.iter().position(|s| *s == slot).map(|i| i as u8);
                prop_assert_eq!(shard_in(hash, layout, slot, slots), holds);
            }
        }
    }

    #[test]
    fn slot_of_the_largest_hash_does_not_wrap() {
        // u64::MAX = 3 mod 6
        assert_eq!(slot_of(u64::MAX, 0, 6), 3);
        assert_eq!(slot_of(u64::MAX, 5, 6), 2);
    }
}

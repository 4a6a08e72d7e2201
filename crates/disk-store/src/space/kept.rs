//! What is kept of a disk, and from whom: pure decisions.
//!
//! Invariant: what one may take, those behind it may take as well, in the
//! order of [`Purpose`]; journal, notes and compaction leave each other's
//! space alone, and every other disk's on the same file system.

use shardgate_wire::{DiskRoom, Purpose};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Bytes of a disk that are kept for whom (PROTOCOL.md 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeptSpace {
    /// Left by clients to copies in the background.
    pub background: u64,
    /// Left by both to files of checkpoints.
    pub checkpoint: u64,
    /// For journal segments, those that are there included.
    pub journal: u64,
    /// For the log of deletes, notes, directories and root records.
    pub upkeep: u64,
    /// For the volume that one compaction writes.
    pub compaction: u64,
}

impl KeptSpace {
    /// Nothing is kept.
    pub const NONE: Self = Self {
        background: 0,
        checkpoint: 0,
        journal: 0,
        upkeep: 0,
        compaction: 0,
    };

    /// Bytes of the smallest disk that is made: half of it takes two segments
    /// of the journal, the one that is written and the one that is ready, so
    /// that a pool that is full can still delete.
    pub(crate) fn smallest(segment_bytes: u64) -> u64 {
        4 * segment_bytes
    }

    /// What is kept of a disk of `share` bytes whose journal segments and
    /// volumes are so long. The table is here and in `docs/operations.md`.
    pub(crate) fn of(share: u64, segment_bytes: u64, volume_bytes: u64) -> Self {
        let part = |of: u64, least: u64, most: u64| (share / of).clamp(least, most);
        let whole = Self {
            background: part(100, 64 * MIB, 16 * GIB),
            checkpoint: part(100, 64 * MIB, 8 * GIB),
            // A checkpoint is taken each 1 % of a disk, 64 MiB to 4 GiB; two
            // are kept, and a third is under way. One segment is written, and
            // one is made ready.
            journal: 3 * part(100, 64 * MIB, 4 * GIB) + 2 * segment_bytes,
            upkeep: part(200, 64 * MIB, GIB),
            // An output is filled to half of a volume, and has a directory.
            compaction: volume_bytes / 2 + 4 * MIB,
        };
        // A small disk is for shards all the same; but a journal that has no
        // place for its next segment would stop deletes too.
        let two = (2 * segment_bytes).min(share / 2);
        let scaled = whole.within(share / 4);
        if scaled.journal >= two {
            return scaled;
        }
        let left = (share / 4).saturating_sub(two).max(share / 16);
        let others = Self {
            journal: 0,
            ..whole
        };
        Self {
            journal: two,
            ..others.within(left)
        }
    }

    fn sum(&self) -> u64 {
        self.background + self.checkpoint + self.journal + self.upkeep + self.compaction
    }

    /// The same in proportion, if it is more than `most` in all.
    fn within(self, most: u64) -> Self {
        let sum = self.sum();
        if sum <= most {
            return self;
        }
        let part = |bytes: u64| {
            let scaled = u128::from(bytes) * u128::from(most) / u128::from(sum);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        Self {
            background: part(self.background),
            checkpoint: part(self.checkpoint),
            journal: part(self.journal),
            upkeep: part(self.upkeep),
            compaction: part(self.compaction),
        }
    }
}

/// Who wants space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taker {
    Shards(Purpose),
    Journal,
    Notes,
    Compaction,
}

/// What a disk still claims of its file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) kept: KeptSpace,
    /// Bytes that its journal's files take.
    pub(crate) journal_held: u64,
    /// Bytes that a compaction was promised.
    pub(crate) compacting: u64,
}

impl Claims {
    /// What must stay free when `taker` has taken what it wants, for this
    /// disk's sake. `own`: whether the taker is of this disk.
    fn stays(&self, taker: Taker, own: bool) -> u64 {
        let kept = &self.kept;
        let journal = match taker {
            Taker::Journal if own => 0,
            _ => kept.journal.saturating_sub(self.journal_held),
        };
        let upkeep = match taker {
            // Notes of what is stored leave half of it to deletes.
            Taker::Notes if own => kept.upkeep / 2,
            _ => kept.upkeep,
        };
        let compaction = match taker {
            Taker::Compaction if own => 0,
            _ => kept.compaction.saturating_sub(self.compacting),
        };
        let before = match taker {
            Taker::Shards(Purpose::Client) => kept.background + kept.checkpoint,
            Taker::Shards(Purpose::Background) => kept.checkpoint,
            _ => 0,
        };
        journal + upkeep + compaction + before
    }
}

/// What a file system has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Free {
    /// Bytes, those that were promised taken off.
    pub(crate) bytes: u64,
    /// Files that may still be made.
    pub(crate) files: u64,
}

/// Files that shards leave to everything else.
const KEPT_FILES: u64 = 64;

/// Bytes that `taker` of the disk `own` may take of a file system that is
/// also that of `others`.
pub(crate) fn room<'a>(
    free: Free,
    taker: Taker,
    own: &Claims,
    others: impl Iterator<Item = &'a Claims>,
) -> u64 {
    let files = match taker {
        Taker::Shards(_) => KEPT_FILES,
        _ => 0,
    };
    // A file system without files left has no room, whatever its bytes.
    if free.files <= files {
        return 0;
    }
    let stays = others
        .map(|claims| claims.stays(taker, false))
        .fold(own.stays(taker, true), u64::saturating_add);
    free.bytes.saturating_sub(stays)
}

/// The room of all, as the disk says it.
pub(crate) fn rooms(free: Free, own: &Claims, others: &[Claims]) -> DiskRoom {
    let of = |taker| room(free, taker, own, others.iter());
    DiskRoom {
        client_bytes: of(Taker::Shards(Purpose::Client)),
        background_bytes: of(Taker::Shards(Purpose::Background)),
        checkpoint_bytes: of(Taker::Shards(Purpose::Checkpoint)),
        journal_bytes: of(Taker::Journal),
        journal_kept_bytes: own.kept.journal,
    }
}

/// Which of several writes fit, in their order; each may take what its
/// purpose has in `room`, less what those before it take. With the bytes of
/// all that fit.
pub(crate) fn which_fit(room: &DiskRoom, wanted: &[(Purpose, u64)]) -> (Vec<bool>, u64) {
    let mut taken = 0;
    let mut fits = Vec::with_capacity(wanted.len());
    for (purpose, bytes) in wanted {
        let fit = taken + bytes <= room.of(*purpose);
        if fit {
            taken += bytes;
        }
        fits.push(fit);
    }
    (fits, taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: u64 = 64 * MIB;
    const VOLUME: u64 = 64 * MIB;
    const TIB: u64 = 1 << 40;

    const SOME: KeptSpace = KeptSpace {
        background: 1,
        checkpoint: 20,
        journal: 300,
        upkeep: 4000,
        compaction: 50_000,
    };

    fn free(bytes: u64) -> Free {
        Free { bytes, files: 1000 }
    }

    fn alone(bytes: u64, taker: Taker, own: Claims) -> u64 {
        room(free(bytes), taker, &own, [].iter())
    }

    #[test]
    fn what_is_kept_of_disks_of_all_sizes() {
        let of = |share| KeptSpace::of(share, SEGMENT, VOLUME);
        let terabyte = of(TIB);
        assert_eq!(terabyte.background, TIB / 100);
        assert_eq!(terabyte.checkpoint, 8 * GIB);
        assert_eq!(terabyte.journal, 12 * GIB + 2 * SEGMENT);
        assert_eq!(terabyte.upkeep, GIB);
        assert_eq!(terabyte.compaction, 36 * MIB);
        // From some size on it is the same, and little.
        assert_eq!(of(16 * TIB), of(4 * TIB));
        assert!(of(16 * TIB).sum() < 16 * TIB / 400);
        // Of a small disk never more than a quarter, and none of it nothing.
        for share in [900 * MIB, GIB, 10 * GIB] {
            assert!(of(share).sum() <= share / 4, "{share}");
        }
        // Of a smaller one two segments first, if they fit into half of it.
        for share in (16..1024).map(|n| n * 4 * MIB) {
            let kept = of(share);
            let two = (2 * SEGMENT).min(share / 2);
            assert!(kept.journal >= two, "{share}: {kept:?}");
            let most = (share / 4).max(two + share / 16);
            assert!(kept.sum() <= most, "{share}: {kept:?}");
        }
        for share in [32 * MIB, GIB, 10 * GIB] {
            let kept = of(share);
            let least = [
                kept.background,
                kept.checkpoint,
                kept.journal,
                kept.upkeep,
                kept.compaction,
            ];
            assert!(least.iter().all(|bytes| *bytes > 0), "{share}: {kept:?}");
        }
        assert_eq!(of(0), KeptSpace::NONE);
    }

    #[test]
    fn the_smallest_disk_has_two_segments_and_some_of_all_else() {
        let smallest = KeptSpace::smallest(SEGMENT);
        let kept = KeptSpace::of(smallest, SEGMENT, VOLUME);
        assert_eq!(kept.journal, 2 * SEGMENT);
        assert!(kept.sum() < smallest * 6 / 10, "{kept:?}");
        let below = KeptSpace::of(smallest - MIB, SEGMENT, VOLUME);
        assert!(below.journal < 2 * SEGMENT, "{below:?}");
    }

    #[test]
    fn each_leaves_what_is_not_its_own() {
        let own = Claims {
            kept: SOME,
            ..Claims::default()
        };
        let left = |taker| 1_000_000 - alone(1_000_000, taker, own);
        assert_eq!(left(Taker::Shards(Purpose::Client)), 54_321);
        assert_eq!(left(Taker::Shards(Purpose::Background)), 54_320);
        assert_eq!(left(Taker::Shards(Purpose::Checkpoint)), 54_300);
        assert_eq!(left(Taker::Journal), 54_000);
        assert_eq!(left(Taker::Notes), 52_300);
        assert_eq!(left(Taker::Compaction), 4300);
    }

    #[test]
    fn what_is_taken_already_is_not_kept_again() {
        let own = Claims {
            kept: SOME,
            journal_held: 250,
            compacting: 40_000,
        };
        let client = Taker::Shards(Purpose::Client);
        assert_eq!(1_000_000 - alone(1_000_000, client, own), 14_071);
        let more = Claims {
            journal_held: 1_000,
            compacting: 90_000,
            ..own
        };
        assert_eq!(1_000_000 - alone(1_000_000, client, more), 4021);
    }

    #[test]
    fn a_neighbour_on_the_file_system_keeps_its_own() {
        let own = Claims {
            kept: SOME,
            ..Claims::default()
        };
        let all = [own];
        for (taker, left) in [
            (Taker::Shards(Purpose::Client), 2 * 54_321),
            (Taker::Journal, 54_000 + 54_300),
            (Taker::Compaction, 4300 + 54_300),
        ] {
            let room = room(free(1_000_000), taker, &own, all.iter());
            assert_eq!(1_000_000 - room, left, "{taker:?}");
        }
    }

    #[test]
    fn files_that_may_still_be_made_count_too() {
        let own = Claims::default();
        let of = |files, taker| room(Free { bytes: 10, files }, taker, &own, [].iter());
        let client = Taker::Shards(Purpose::Client);
        assert_eq!([64, 65].map(|files| of(files, client)), [0, 10]);
        assert_eq!([0, 1].map(|files| of(files, Taker::Compaction)), [0, 10]);
    }

    #[test]
    fn of_a_batch_those_fit_that_may_take_the_space() {
        let room = DiskRoom {
            client_bytes: 100,
            background_bytes: 150,
            checkpoint_bytes: 200,
            ..DiskRoom::default()
        };
        use Purpose::{Background, Checkpoint, Client};
        let wanted = [
            (Client, 60),
            (Client, 60),
            (Background, 60),
            (Client, 1),
            (Background, 60),
            (Checkpoint, 60),
            (Checkpoint, 21),
            (Checkpoint, 20),
        ];
        let (fits, taken) = which_fit(&room, &wanted);
        let only = [true, false, true, false, false, true, false, true];
        assert_eq!((&fits[..], taken), (&only[..], 200));
    }

    proptest! {
        #[test]
        fn who_is_refused_later_has_more_room(
            bytes in 0u64..1 << 40,
            share in 0u64..1 << 44,
            held in 0u64..1 << 40,
        ) {
            let kept = KeptSpace::of(share, SEGMENT, VOLUME);
            let own = Claims { kept, journal_held: held, compacting: 0 };
            let rooms = rooms(free(bytes), &own, &[]);
            prop_assert!(rooms.client_bytes <= rooms.background_bytes);
            prop_assert!(rooms.background_bytes <= rooms.checkpoint_bytes);
            prop_assert!(rooms.checkpoint_bytes <= rooms.journal_bytes);
            prop_assert!(rooms.journal_bytes <= bytes);
        }
    }
}

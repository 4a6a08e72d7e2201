//! Which bytes of which shards a read needs next.
//!
//! Owns the choice between reading data shards directly and decoding a part
//! of a stripe, and which shards a decoding reads. Pure, and made anew for
//! every step from what is known of the shards by then, so that a shard that
//! turned out bad is not asked again for every block.

use std::ops::Range;

use shardgate_erasure::{Geometry, MAX_SHARDS};

/// What a read knows of one shard. Ordered: better ones first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Nothing against it.
    #[default]
    Good,
    /// Its disk is not living, or it was late: the others first.
    Avoid,
    /// A block of it was corrupt: other blocks may be whole.
    Damaged,
    /// It is not there, or its disk failed. Not asked unless nothing else is
    /// left.
    Gone,
}

/// The standing of all shards of a blob.
#[derive(Clone, Copy, Debug)]
pub struct Standings {
    shards: [Standing; MAX_SHARDS as usize],
}

impl Default for Standings {
    fn default() -> Self {
        Self {
            shards: [Standing::Good; MAX_SHARDS as usize],
        }
    }
}

impl Standings {
    /// Of one shard.
    pub fn of(&self, shard: u8) -> Standing {
        self.shards[usize::from(shard)]
    }

    /// Notes something against a shard; never takes a worse word back.
    pub fn worsen(&mut self, shard: u8, standing: Standing) {
        let known = &mut self.shards[usize::from(shard)];
        *known = (*known).max(standing);
    }
}

/// What to do for the next bytes of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes of one data shard.
    Direct {
        /// Which shard.
        shard: u8,
        /// Which bytes of it.
        within: Range<u64>,
    },
    /// Bytes of several data shards of one stripe, some of which must be
    /// computed from others.
    Decode {
        /// The bytes of each shard that are read: whole check blocks.
        column: Range<u64>,
        /// In the object's order: data shard, and which bytes of it.
        pieces: Vec<(u8, Range<u64>)>,
    },
}

impl Step {
    /// Bytes of the object that it gives.
    pub fn len(&self) -> u64 {
        match self {
            Self::Direct { within, .. } => within.end - within.start,
            Self::Decode { pieces, .. } => {
                let lens = pieces.iter().map(|(_, within)| within.end - within.start);
                lens.sum()
            }
        }
    }
}

/// The next step of reading `range`, of at most `most` bytes where that is
/// a check block or more. `None` when the range is empty.
///
/// A shard that is bad makes its piece a decoding; where `most` covers the
/// rest of the stripe, one decoding gives all of it, so that each block is
/// read once.
pub fn next_step(
    geometry: &Geometry,
    range: Range<u64>,
    standings: &Standings,
    most: u64,
) -> Option<Step> {
    let first = geometry.pieces(range.clone()).next()?;
    let within = cut(first.shard_range(), most);
    let is_bad = |shard: u8| standings.of(shard) != Standing::Good;
    if geometry.layout().is_copies() || !is_bad(first.data_index) {
        return Some(Step::Direct {
            shard: first.data_index,
            within,
        });
    }
    let of_stripe: Vec<(u8, Range<u64>)> = geometry
        .pieces(range)
        .take_while(|piece| piece.stripe == first.stripe)
        .map(|piece| (piece.data_index, piece.shard_range()))
        .collect();
    let bytes: u64 = of_stripe.iter().map(|(_, of)| of.end - of.start).sum();
    let pieces = match bytes <= most {
        true => of_stripe,
        false => vec![(first.data_index, within)],
    };
    let start = pieces.iter().map(|(_, of)| of.start).min()?;
    let end = pieces.iter().map(|(_, of)| of.end).max()?;
    Some(Step::Decode {
        column: geometry.check_range(start..end),
        pieces,
    })
}

/// Cuts a range at a check block's border, so that it is at most `most` long
/// and the next one begins where a block does.
fn cut(range: Range<u64>, most: u64) -> Range<u64> {
    let block = shardgate_erasure::CHECK_BLOCK;
    let blocks = (most / block).max(1);
    let border = (range.start / block + blocks) * block;
    range.start..range.end.min(border)
}

/// All shards in the order in which a decoding asks them; the first k' are
/// asked at once. Data shards come before parity of the same standing:
/// what needs no arithmetic.
pub fn decode_order(geometry: &Geometry, standings: &Standings) -> Vec<u8> {
    let mut shards: Vec<u8> = (0..geometry.layout().shards()).collect();
    shards.sort_by_key(|shard| standings.of(*shard));
    shards
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardgate_erasure::{CHECK_BLOCK, Layout};

    use super::*;

    fn geometry(data: u8, parity: u8, len: u64) -> Geometry {
        Geometry::new(Layout::new(data, parity).unwrap(), len).unwrap()
    }

    const KIB: u64 = 1024;

    #[test]
    fn healthy_reads_touch_only_what_they_need() {
        let geometry = geometry(4, 2, 3 << 20);
        let standings = Standings::default();
        let step = next_step(&geometry, 300 * KIB..310 * KIB, &standings, 1 << 20);
        let within = 44 * KIB..54 * KIB;
        assert_eq!(step, Some(Step::Direct { shard: 1, within }));
        assert_eq!(next_step(&geometry, 9..9, &standings, 1), None);
    }

    #[test]
    fn a_bad_shard_makes_the_rest_of_its_stripe_one_decoding() {
        let geometry = geometry(4, 2, 3 << 20);
        let mut standings = Standings::default();
        standings.worsen(1, Standing::Gone);
        let step = next_step(&geometry, 300 * KIB..700 * KIB, &standings, 1 << 20).unwrap();
        assert_eq!(step.len(), 400 * KIB);
        assert_eq!(
            step,
            Step::Decode {
                column: 0..256 * KIB,
                pieces: vec![(1, 44 * KIB..256 * KIB), (2, 0..188 * KIB)],
            }
        );
        let small = next_step(&geometry, 300 * KIB..700 * KIB, &standings, CHECK_BLOCK).unwrap();
        assert_eq!(
            small,
            Step::Decode {
                column: 0..64 * KIB,
                pieces: vec![(1, 44 * KIB..64 * KIB)],
            }
        );
    }

    #[test]
    fn decoding_asks_the_best_first() {
        let geometry = geometry(4, 2, 1 << 20);
        let mut standings = Standings::default();
        standings.worsen(0, Standing::Gone);
        standings.worsen(0, Standing::Avoid);
        standings.worsen(2, Standing::Avoid);
        standings.worsen(4, Standing::Damaged);
        assert_eq!(decode_order(&geometry, &standings), [1, 3, 5, 2, 4, 0]);
    }

    proptest! {
        /// The steps of a range give each byte once, in order, and never
        /// read directly from a shard that is bad.
        #[test]
        fn steps_cover_the_range(
            data in 1..9_u8, parity in 1..4_u8, len in 1..6_000_000_u64,
            from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
            bad in 0..9_u8, most in 1..40_u64,
        ) {
            let geometry = geometry(data, parity, len);
            let mut standings = Standings::default();
            standings.worsen(bad, Standing::Gone);
            let (a, b) = (from.index(len as usize + 1) as u64, to.index(len as usize + 1) as u64);
            let (mut at, end) = (a.min(b), a.max(b));
            while let Some(step) = next_step(&geometry, at..end, &standings, most * CHECK_BLOCK) {
                let pieces = match &step {
                    Step::Direct { shard, within } => {
                        prop_assert!(*shard != bad || data == 1);
                        prop_assert!(step.len() <= most * CHECK_BLOCK);
                        vec![(*shard, within.clone())]
                    }
                    Step::Decode { column, pieces } => {
                        prop_assert_eq!(column.start % CHECK_BLOCK, 0);
                        let inside = pieces
                            .iter()
                            .all(|(_, of)| of.start >= column.start && of.end <= column.end);
                        prop_assert!(inside);
                        pieces.clone()
                    }
                };
                for (shard, of) in pieces {
                    prop_assert_eq!(geometry.object_offset(shard, of.start), Some(at));
                    prop_assert_eq!(
                        geometry.object_offset(shard, of.end - 1),
                        Some(at + (of.end - of.start) - 1)
                    );
                    at += of.end - of.start;
                }
            }
            prop_assert_eq!(at, end.max(a.min(b)));
        }
    }
}

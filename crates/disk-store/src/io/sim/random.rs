//! Numbers that a seed decides.

/// SplitMix64: short, and good enough to choose what is lost.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not zero.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// How a loss chooses: the extremes come often, because they find most.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    /// What was not synced is gone.
    NothingSurvives,
    /// What was written last is there.
    AllSurvives,
    /// Any version of each.
    Any,
}

impl Mood {
    pub(super) fn choose(random: &mut Random) -> Self {
        match random.below(6) {
            0 => Self::NothingSurvives,
            1 => Self::AllSurvives,
            _ => Self::Any,
        }
    }

    /// Which of `versions` survives after the durable one: none is that one.
    pub(super) fn pick(self, random: &mut Random, versions: usize) -> Option<usize> {
        match self {
            Self::NothingSurvives => None,
            Self::AllSurvives => versions.checked_sub(1),
            Self::Any => random.below(versions + 1).checked_sub(1),
        }
    }
}

//! Which volumes are worth compacting.
//!
//! Pure but for the look at the state.

use shardgate_wire::ids::GroupId;

use crate::volume::engine::Engine;
use crate::volume::volume_state::Stage;

/// What a record takes in a directory, its share of the page's end too.
const ENTRY_BYTES: u64 = 33;
/// Volumes that one output takes at most.
const MOST_SOURCES: usize = 16;

/// Volumes of one group that are to become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) group: GroupId,
    pub(crate) volumes: Vec<u64>,
    /// What the one takes at most, with its directory.
    pub(crate) bytes: u64,
}

/// What compaction knows of a sealed volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weight {
    sequence: u64,
    used: u64,
    waste: u64,
    records: u64,
}

impl Weight {
    fn live(&self) -> u64 {
        self.used.saturating_sub(self.waste)
    }
}

/// What an output of these volumes takes at most, with its directory.
fn output_bytes(volumes: &[Weight]) -> u64 {
    let of = |volume: &Weight| volume.live() + volume.records * ENTRY_BYTES;
    // Headings, seal, the head and the last page of the directory.
    volumes.iter().map(of).sum::<u64>() + 8 * 4096
}

/// Which volumes of a group to compact: those that are at least half waste,
/// and small ones where several make one. The worst first.
fn choose(mut volumes: Vec<Weight>, volume_bytes: u64) -> Vec<Weight> {
    const MANY: usize = 4;
    volumes.sort_by_key(|volume| std::cmp::Reverse((volume.waste, volume.sequence)));
    let wasteful = |volume: &&Weight| volume.used > 0 && 2 * volume.waste >= volume.used;
    let small = |volume: &&Weight| volume.live() < volume_bytes / 8;
    let worst: Vec<_> = volumes.iter().filter(wasteful).collect();
    let smalls: Vec<_> = volumes.iter().filter(small).collect();
    let chosen = if !worst.is_empty() {
        worst
    } else if smalls.len() >= MANY {
        smalls
    } else {
        return Vec::new();
    };
    // The output must take all of it.
    let mut room = volume_bytes / 2;
    let mut taken = Vec::new();
    for volume in chosen.into_iter().take(MOST_SOURCES) {
        if taken.is_empty() || volume.live() <= room {
            room = room.saturating_sub(volume.live());
            taken.push(*volume);
        }
    }
    taken
}

impl Engine {
    /// The volumes that are worth compacting most, if any are.
    pub(crate) fn worst(&self) -> Option<Choice> {
        let state = self.state.read();
        let mut best: Option<(u64, Choice)> = None;
        for (group, of) in &state.groups {
            let volumes = of.volumes.values().filter(|volume| {
                volume.stage == Stage::Sealed && !volume.damaged && volume.unknown == 0
            });
            let weights: Vec<_> = volumes
                .map(|volume| Weight {
                    sequence: volume.heading.sequence,
                    used: volume.used_bytes(),
                    waste: volume.waste().min(volume.used_bytes()),
                    records: volume.count() as u64,
                })
                .collect();
            let waste = weights.iter().map(|weight| weight.waste).max().unwrap_or(0);
            let chosen = choose(weights, self.figures.volume_bytes);
            if !chosen.is_empty() && best.as_ref().is_none_or(|(most, _)| waste > *most) {
                let choice = Choice {
                    group: *group,
                    volumes: chosen.iter().map(|weight| weight.sequence).collect(),
                    bytes: output_bytes(&chosen),
                };
                best = Some((waste, choice));
            }
        }
        best.map(|(_, choice)| choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_are_chosen_and_fit_into_one() {
        const SIZE: u64 = 1000;
        let volume = |sequence, used, waste| Weight {
            sequence,
            used,
            waste,
            records: 10,
        };
        let chosen = |volumes: &[Weight]| -> Vec<u64> {
            let chosen = choose(volumes.to_vec(), SIZE);
            chosen.iter().map(|weight| weight.sequence).collect()
        };
        assert_eq!(chosen(&[]), Vec::<u64>::new());
        // Mostly live, and full: nothing to gain.
        let full = [volume(1, 1000, 100), volume(2, 1000, 499)];
        assert_eq!(chosen(&full), Vec::<u64>::new());
        // Half waste is enough; more of them as long as they fit.
        let worst = [
            volume(1, 1000, 500),
            volume(2, 1000, 900),
            volume(3, 1000, 700),
            volume(4, 1000, 0),
        ];
        assert_eq!(chosen(&worst), [2, 3]);
        // Few small ones stay, many become one.
        let small = |count| -> Vec<_> { (1..=count).map(|at| volume(at, 100, 0)).collect() };
        assert_eq!(chosen(&small(3)), Vec::<u64>::new());
        assert_eq!(chosen(&small(4)), [4, 3, 2, 1]);
        // What is live, and the directory.
        let bytes = output_bytes(&worst[1..3]);
        assert_eq!(bytes, 100 + 300 + 20 * ENTRY_BYTES + 8 * 4096);
    }
}

//! Which volumes of a group may have a key, without asking each of them.
//!
//! A group has hundreds of volumes, and blob ids rise with time, so that few
//! span a key; compaction joins volumes, so that some span many. An implicit
//! tree over the sealed ones finds those that do in logarithmic time. Pure.
//! Invariant: made anew whenever a volume comes, goes or is sealed.

use std::collections::BTreeMap;

use shardgate_wire::ids::BlobId;

use super::volume_state::{InGroup, Index, Volume};

/// The keys of a sealed volume.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: BlobId,
    last: InGroup,
    sequence: u64,
}

/// The volumes of a group by their keys.
#[derive(Debug, Default)]
pub(crate) struct KeyRanges {
    /// By first key.
    spans: Box<[Span]>,
    /// The highest last key below each place, taken as a node of the tree
    /// whose root is the middle.
    reach: Box<[InGroup]>,
    /// Volumes whose records are all in memory.
    mapped: Box<[u64]>,
    /// Damaged stretches of any of them hide keys that nobody knows.
    unknown: bool,
}

impl KeyRanges {
    pub(crate) fn of(volumes: &BTreeMap<u64, Volume>) -> Self {
        let (mut spans, mut mapped) = (Vec::new(), Vec::new());
        for (sequence, volume) in volumes {
            match &volume.index {
                Index::Map(_) => mapped.push(*sequence),
                Index::Directory(head) => spans.extend(head.fence.first().map(|first| Span {
                    first: *first,
                    last: head.last,
                    sequence: *sequence,
                })),
            }
        }
        spans.sort_by_key(|span| span.first);
        let mut reach = vec![(BlobId(0), 0); spans.len()];
        fill_reach(&spans, &mut reach);
        Self {
            spans: spans.into(),
            reach: reach.into(),
            mapped: mapped.into(),
            unknown: volumes.values().any(|volume| volume.unknown > 0),
        }
    }

    /// Whether a volume may have had any key.
    pub(crate) fn unknown(&self) -> bool {
        self.unknown
    }

    /// The volumes that may have a key, the newest first.
    pub(crate) fn spanning(&self, key: InGroup) -> Vec<u64> {
        let mut found = self.mapped.to_vec();
        visit(&self.spans, &self.reach, key, &mut found);
        found.sort_unstable_by_key(|sequence| std::cmp::Reverse(*sequence));
        found
    }
}

/// Says what is the highest last key of all that a node stands for.
fn fill_reach(spans: &[Span], reach: &mut [InGroup]) -> InGroup {
    let middle = spans.len() / 2;
    let Some(span) = spans.get(middle) else {
        return (BlobId(0), 0);
    };
    let below = fill_reach(&spans[..middle], &mut reach[..middle]);
    let above = fill_reach(&spans[middle + 1..], &mut reach[middle + 1..]);
    reach[middle] = span.last.max(below).max(above);
    reach[middle]
}

fn visit(spans: &[Span], reach: &[InGroup], key: InGroup, found: &mut Vec<u64>) {
    let middle = spans.len() / 2;
    let Some(span) = spans.get(middle) else {
        return;
    };
    if reach[middle] < key {
        return;
    }
    visit(&spans[..middle], &reach[..middle], key, found);
    if span.first <= key.0 {
        if key <= span.last {
            found.push(span.sequence);
        }
        visit(&spans[middle + 1..], &reach[middle + 1..], key, found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardgate_wire::conformance::sample;

    use super::*;
    use crate::volume::format::{DirectoryHead, Heading};

    fn ranges(of: &[(u128, u128, u8)]) -> KeyRanges {
        let mut spans: Vec<Span> = (1..)
            .zip(of)
            .map(|(sequence, (first, more, index))| Span {
                first: BlobId(*first),
                last: (BlobId(first + more), *index),
                sequence,
            })
            .collect();
        spans.sort_by_key(|span| span.first);
        let mut reach = vec![(BlobId(0), 0); spans.len()];
        fill_reach(&spans, &mut reach);
        KeyRanges {
            spans: spans.into(),
            reach: reach.into(),
            ..KeyRanges::default()
        }
    }

    #[test]
    fn none_has_nothing() {
        assert_eq!(ranges(&[]).spanning((BlobId(1), 0)), Vec::<u64>::new());
    }

    /// `cargo test -p shardgate-disk-store --lib many_volumes -- --ignored
    /// --nocapture` prints what a look costs with many volumes, and what asking
    /// each of them costs.
    #[test]
    #[ignore = "prints times"]
    fn many_volumes_cost_hardly_more_than_few() {
        const LOOKS: u128 = 20_000;
        for count in [10, 100, 1000, 10_000] {
            let volumes: BTreeMap<u64, Volume> = (1..=count)
                .map(|sequence| (sequence, sealed(sequence)))
                .collect();
            let ranges = KeyRanges::of(&volumes);
            // Between the volumes: no volume spans any of these.
            let keys: Vec<InGroup> = (0..LOOKS)
                .map(|n| (BlobId((n * 7919 % u128::from(count) + 1) * 1000 + 950), 0))
                .collect();
            let begun = std::time::Instant::now();
            let found: usize = keys.iter().map(|key| ranges.spanning(*key).len()).sum();
            let by_tree = begun.elapsed() / LOOKS as u32;
            let begun = std::time::Instant::now();
            let each = |key: &InGroup| volumes.values().rev().filter(|v| v.spans(*key)).count();
            let by_each: usize = keys.iter().map(each).sum();
            let one_by_one = begun.elapsed() / LOOKS as u32;
            println!("{count:>6} volumes: {by_tree:?} by the tree, {one_by_one:?} one by one");
            assert_eq!((found, by_each), (0, 0));
        }
    }

    fn sealed(sequence: u64) -> Volume {
        let first = u128::from(sequence) * 1000;
        Volume::sealed(DirectoryHead {
            heading: Heading {
                cluster: sample::CLUSTER,
                disk: sample::identity().disk,
                group: sample::GROUP,
                sequence,
                salt: 1,
                size: 64 << 20,
            },
            tail: 8192,
            extents_from: 64 << 20,
            unknown: 0,
            recorded: 0,
            count: 2,
            last: (BlobId(first + 900), 0),
            fence: vec![BlobId(first)],
            pages_at: 4096,
        })
    }

    proptest! {
        #[test]
        fn those_that_span_a_key_are_found_and_no_others(
            of in proptest::collection::vec((0u128..200, 0u128..30, 0u8..3), 0..40),
            wide in proptest::collection::vec((0u128..200, 0u128..200, 0u8..3), 0..4),
            key in (0u128..400, 0u8..3),
        ) {
            let of: Vec<_> = of.into_iter().chain(wide).collect();
            let key = (BlobId(key.0), key.1);
            let spans = |(first, more, index): &(u128, u128, u8)| {
                BlobId(*first) <= key.0 && key <= (BlobId(first + more), *index)
            };
            let mut wanted: Vec<u64> = (1..)
                .zip(&of)
                .filter_map(|(sequence, of)| spans(of).then_some(sequence))
                .collect();
            wanted.reverse();
            prop_assert_eq!(ranges(&of).spanning(key), wanted);
        }
    }
}

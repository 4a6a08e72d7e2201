//! Which groups take writes.
//!
//! Few groups are open for writing at once, so that the small writes of a
//! disk share one or two volumes and one fsync (DESIGN.md section 7). Owns
//! the numbers and choices of that; invariant: a scheme in use always has a
//! group, and beyond its first one none puts a disk above
//! [`MAX_OPEN_PER_DISK`]. Does not draw groups (`draw`) and does not keep
//! them (`pool`).

use std::collections::HashMap;

use rand::Rng;
use shardgate_erasure::Scheme;
use shardgate_wire::{DiskId, GroupId};

use super::draw::weight;
use super::view::{DiskView, PoolView};

/// Groups open for writing that a disk takes part in, of all schemes.
pub const MAX_OPEN_PER_DISK: usize = 2;

/// How long a scheme's last open group is left unused before it makes room
/// for another scheme's, milliseconds.
pub const REST_AFTER_MS: u64 = 60_000;

/// Least bytes of a slot at which a group is sealed.
///
/// On small disks one per cent is less than a volume or two, and more groups
/// gain nothing there: such a disk is rebuilt in minutes from any peers. The
/// cap decides how many groups there are, and nothing else.
pub const MIN_SEAL_BYTES: u64 = 1 << 30;

/// Bytes of one slot at which a group is sealed: 1 % of its smallest disk,
/// so that a disk takes part in about 100 groups when it is full.
pub fn seal_at_bytes(smallest_disk_bytes: u64) -> u64 {
    (smallest_disk_bytes / 100).max(MIN_SEAL_BYTES)
}

/// A group that is open for writing, as the choices here see it.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenGroup {
    /// Which.
    pub id: GroupId,
    /// Its scheme.
    pub scheme: Scheme,
    /// Its disks.
    pub slots: Vec<DiskId>,
    /// Time since it last took a write, milliseconds.
    pub idle_ms: u64,
}

/// How many groups of a scheme are worth keeping open over `disks` disks when
/// it takes many writes: enough that most disks are in one, with room left
/// for the first group of other schemes.
pub fn wanted_open(disks: usize, scheme: Scheme) -> usize {
    (3 * disks / (2 * usize::from(scheme.slots()))).max(1)
}

/// The disks that one more open group may take.
pub fn with_room<'a>(candidates: &[&'a DiskView], open: &[OpenGroup]) -> Vec<&'a DiskView> {
    let mut taken: HashMap<DiskId, usize> = HashMap::new();
    for slot in open.iter().flat_map(|group| &group.slots) {
        *taken.entry(*slot).or_default() += 1;
    }
    let has_room = |disk: &&&DiskView| {
        taken
            .get(&disk.id)
            .is_none_or(|count| *count < MAX_OPEN_PER_DISK)
    };
    candidates.iter().filter(has_room).copied().collect()
}

/// The open group that rests so that `scheme` can have its first one: the
/// longest unused of a scheme that has several, else one that nobody used
/// for [`REST_AFTER_MS`]. `None` if all are in use: then the limit gives.
pub fn to_rest(open: &[OpenGroup], scheme: Scheme) -> Option<GroupId> {
    let siblings = |group: &OpenGroup| open.iter().filter(|of| of.scheme == group.scheme).count();
    open.iter()
        .filter(|group| group.scheme != scheme)
        .filter(|group| siblings(group) > 1 || group.idle_ms >= REST_AFTER_MS)
        .max_by_key(|group| (siblings(group) > 1, group.idle_ms))
        .map(|group| group.id)
}

/// Index of the better of two random groups: the one whose weakest disk has
/// more weight (free bytes, discounted by load and errors).
///
/// # Panics
/// If there is none to choose from.
pub fn better_of_two(groups: &[&[DiskId]], view: &PoolView, rng: &mut impl Rng) -> usize {
    assert!(!groups.is_empty(), "a choice of none");
    let first = rng.random_range(0..groups.len());
    if groups.len() == 1 {
        return first;
    }
    let mut second = rng.random_range(0..groups.len() - 1);
    if second >= first {
        second += 1;
    }
    let worth = |index: usize| {
        let weights = groups[index]
            .iter()
            .filter_map(|disk| view.disk(*disk))
            .map(weight);
        weights.fold(f64::INFINITY, f64::min)
    };
    if worth(second) > worth(first) {
        second
    } else {
        first
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::view::samples::pool;
    use super::*;

    fn group(id: u64, scheme: &str, slots: &[u128], idle_ms: u64) -> OpenGroup {
        OpenGroup {
            id: GroupId(id),
            scheme: scheme.parse().unwrap(),
            slots: slots.iter().map(|id| DiskId(*id)).collect(),
            idle_ms,
        }
    }

    #[test]
    fn seals_at_one_per_cent_and_never_below_the_least() {
        assert_eq!(seal_at_bytes(4_000_000_000_000), 40_000_000_000);
        assert_eq!(seal_at_bytes(20_000_000_000), MIN_SEAL_BYTES);
        assert_eq!(seal_at_bytes(0), MIN_SEAL_BYTES);
    }

    #[test]
    fn few_groups_are_wanted() {
        for (disks, scheme, wanted) in [
            (6, "4+2", 1),
            (7, "4+2", 1),
            (8, "4+2", 2),
            (24, "4+2", 6),
            (2, "4+2", 1),
            (6, "1+1", 4),
        ] {
            assert_eq!(
                wanted_open(disks, scheme.parse().unwrap()),
                wanted,
                "{disks} {scheme}"
            );
        }
    }

    #[test]
    fn disks_of_two_open_groups_have_no_room() {
        let view = pool(&[4]);
        let disks: Vec<_> = view.disks.iter().collect();
        let open = [group(1, "1+1", &[1, 2], 0), group(2, "1+1", &[2, 3], 0)];
        let room: Vec<_> = with_room(&disks, &open)
            .iter()
            .map(|disk| disk.id.0)
            .collect();
        assert_eq!(room, [1, 3, 4]);
    }

    #[test]
    fn the_group_that_is_missed_least_rests() {
        let two_of_a_kind = [
            group(1, "4+2", &[], 5),
            group(2, "4+2", &[], 9),
            group(3, "1+1", &[], REST_AFTER_MS * 2),
        ];
        let new = "1+2".parse().unwrap();
        assert_eq!(to_rest(&two_of_a_kind, new), Some(GroupId(2)));
        assert_eq!(to_rest(&two_of_a_kind[1..], new), Some(GroupId(3)));
        assert_eq!(to_rest(&two_of_a_kind[1..2], new), None);
        let own = "1+1".parse().unwrap();
        assert_eq!(to_rest(&two_of_a_kind[2..], own), None);
    }

    #[test]
    fn the_group_with_more_free_wins() {
        let mut view = pool(&[4]);
        view.disks[3].free_bytes = 10;
        let (good, bad) = ([DiskId(1), DiskId(2)], [DiskId(3), DiskId(4)]);
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            assert_eq!(
                better_of_two(&[&good, &bad], &view, &mut rng),
                0,
                "seed {seed}"
            );
            assert_eq!(
                better_of_two(&[&bad, &good], &view, &mut rng),
                1,
                "seed {seed}"
            );
            assert_eq!(better_of_two(&[&bad], &view, &mut rng), 0, "seed {seed}");
        }
    }
}

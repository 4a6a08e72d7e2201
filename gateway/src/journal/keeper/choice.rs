//! Which disks are to keep the journal now: decided here, without I/O.
//!
//! Invariants: a disk that is out keeps it no longer where another can; one
//! that is merely not heard for a moment stays, and none such is chosen anew.

use shardgate_journal::disks::{Candidate, choose_journal};
use shardgate_wire::DiskId;

/// How a disk looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It takes writes.
    Well,
    /// It does not now, and may again in a moment.
    Away,
    /// It is lost, fenced, or away for long.
    Out,
}

/// A disk of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) place: Candidate,
    pub(super) outlook: Outlook,
}

/// The journal disks to change to, or `None` where they stay.
pub(super) fn choose(judged: &[Judged], current: &[DiskId], parity: usize) -> Option<Vec<DiskId>> {
    let may = |of: &&Judged| match of.outlook {
        Outlook::Well => true,
        Outlook::Away => current.contains(&of.place.disk),
        Outlook::Out => false,
    };
    let usable: Vec<Candidate> = judged.iter().filter(may).map(|of| of.place).collect();
    let chosen = choose_journal(&usable, current, parity);
    let same = chosen.len() == current.len() && chosen.iter().all(|disk| current.contains(disk));
    (!chosen.is_empty() && !same).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(outlooks: &[Outlook]) -> Vec<Judged> {
        let disk = |(number, outlook): (usize, &Outlook)| Judged {
            place: Candidate {
                disk: DiskId(number as u128 + 1),
                server: number as u128,
                device: number as u128,
            },
            outlook: *outlook,
        };
        outlooks.iter().enumerate().map(disk).collect()
    }

    fn ids(ids: &[u128]) -> Vec<DiskId> {
        ids.iter().copied().map(DiskId).collect()
    }

    #[test]
    fn one_that_is_out_is_replaced_and_one_that_is_away_is_not() {
        use Outlook::{Away, Out, Well};
        let five = ids(&[1, 2, 3, 4, 5]);
        for (outlooks, current, expected) in [
            ([Well; 6], &five, None),
            ([Away, Well, Well, Well, Well, Well], &five, None),
            ([Well, Well, Well, Well, Well, Away], &five, None),
            (
                [Out, Well, Well, Well, Well, Well],
                &five,
                Some(ids(&[2, 3, 4, 5, 6])),
            ),
            // No disk that is away comes in.
            (
                [Out, Well, Well, Well, Well, Away],
                &five,
                Some(ids(&[2, 3, 4])),
            ),
            // Two of six gone: four are left, whose journal is three.
            (
                [Out, Out, Well, Well, Well, Well],
                &five,
                Some(ids(&[3, 4, 5])),
            ),
            // They are back.
            ([Well; 6], &ids(&[3, 4, 5]), Some(ids(&[1, 2, 3, 4, 5]))),
            ([Out; 6], &five, None),
        ] {
            let chosen = choose(&pool(&outlooks), current, 2).map(|mut chosen| {
                chosen.sort_unstable();
                chosen
            });
            assert_eq!(chosen, expected, "{outlooks:?} {current:?}");
        }
    }

    #[test]
    fn what_was_chosen_is_kept() {
        let judged = pool(&[Outlook::Well; 12]);
        let chosen = choose(&judged, &[], 4).expect("chosen");
        assert_eq!(chosen.len(), 9);
        assert_eq!(choose(&judged, &chosen, 4), None);
    }
}

//! Whether it is proven that nothing that was acknowledged is missing: decided
//! here, without I/O (PROTOCOL.md 1).
//!
//! A majority of the journal disks proves it. Without one a restore may go on
//! only where the operator has named every other journal disk lost for good,
//! and then it is not proven.

use shardgate_journal::disks::JournalMap;
use shardgate_wire::DiskId;
use thiserror::Error;

/// What a restore can promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// What these had alone is missing: they are named lost for good.
    Without(Vec<DiskId>),
    /// Nothing is missing.
    Complete,
}

/// Why a restore promises nothing.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NotProven {
    /// Too few journal disks answer.
    #[error(
        "{answered} of the {of} journal disks answer, which is no majority: what the others alone \
         had would be missing unnoticed; not reached: {}; those that are gone for good are named \
         with --lost ID",
        ids(missing)
    )]
    TooFew {
        /// So many answer, those not counted that were named lost.
        answered: usize,
        /// Of so many.
        of: usize,
        /// Those that do not.
        missing: Vec<DiskId>,
    },
    /// What is named lost is there, and would prove it.
    #[error(
        "these disks were named lost, and answer: {}; with what they have nothing is missing, so \
         leave out --lost for them, or take them out of the pool if they cannot be read",
        ids(.0)
    )]
    NotLost(Vec<DiskId>),
    /// It was proven when the operator was asked.
    #[error("journal disks have stopped to answer meanwhile: nothing was restored, run it again")]
    Meanwhile,
}

fn ids(disks: &[DiskId]) -> String {
    let ids: Vec<String> = disks.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

/// What can be promised. `found`: the disks that answer; `named`: those that
/// the operator names lost now, of which nothing is read; `lost`: these, and
/// those that were declared lost before.
pub(super) fn prove(
    map: &JournalMap,
    found: &[DiskId],
    named: &[DiskId],
    lost: &[DiskId],
) -> Result<Proof, NotProven> {
    let read: Vec<DiskId> = found
        .iter()
        .copied()
        .filter(|disk| !lost.contains(disk))
        .collect();
    if map.has_enough(&read, &[]) {
        return Ok(Proof::Complete);
    }
    let all = map.all();
    let there = |disk: &DiskId| named.contains(disk) && found.contains(disk);
    let not_lost: Vec<DiskId> = all.iter().copied().filter(there).collect();
    let with_these = [&read[..], &not_lost].concat();
    if !not_lost.is_empty() && map.has_enough(&with_these, &[]) {
        return Err(NotProven::NotLost(not_lost));
    }
    let unread = |disk: &DiskId| !read.contains(disk);
    let missing: Vec<DiskId> = all.iter().copied().filter(unread).collect();
    match map.has_enough(&read, lost) {
        true => Ok(Proof::Without(missing)),
        false => Err(NotProven::TooFew {
            answered: all.len() - missing.len(),
            of: all.len(),
            missing,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(disks: u128) -> JournalMap {
        JournalMap {
            number: 1,
            disks: (1..=disks).map(DiskId).collect(),
            old: None,
        }
    }

    fn disks(ids: &[u128]) -> Vec<DiskId> {
        ids.iter().copied().map(DiskId).collect()
    }

    fn too_few(answered: usize, of: usize, missing: &[u128]) -> NotProven {
        NotProven::TooFew {
            answered,
            of,
            missing: disks(missing),
        }
    }

    #[test]
    fn a_majority_proves_it_and_the_operators_word_only_lets_it_go_on() {
        let without = |ids: &[u128]| Ok(Proof::Without(disks(ids)));
        for (of, found, named, expected) in [
            // A majority, whatever was named besides.
            (3, &[1, 2, 3][..], &[][..], Ok(Proof::Complete)),
            (3, &[1, 2], &[], Ok(Proof::Complete)),
            (3, &[1, 2], &[3], Ok(Proof::Complete)),
            (3, &[1, 2, 3], &[3], Ok(Proof::Complete)),
            // None.
            (3, &[1], &[], Err(too_few(1, 3, &[2, 3]))),
            (3, &[1], &[2], Err(too_few(1, 3, &[2, 3]))),
            (3, &[1], &[2, 3], without(&[2, 3])),
            (5, &[1, 2], &[3, 4], Err(too_few(2, 5, &[3, 4, 5]))),
            (5, &[1, 2], &[3, 4, 5], without(&[3, 4, 5])),
            // Both of two are needed, and one will do on the operator's word.
            (2, &[1, 2], &[], Ok(Proof::Complete)),
            (2, &[2], &[], Err(too_few(1, 2, &[1]))),
            (2, &[2], &[1], without(&[1])),
            // Named lost, and there.
            (2, &[1, 2], &[1], Err(NotProven::NotLost(disks(&[1])))),
            (3, &[1, 2], &[2, 3], Err(NotProven::NotLost(disks(&[2])))),
            (5, &[1, 2], &[2, 3, 4, 5], without(&[2, 3, 4, 5])),
            // Nothing at all.
            (3, &[], &[1, 2, 3], Err(too_few(0, 3, &[1, 2, 3]))),
        ] {
            let named = disks(named);
            let proof = prove(&map(of), &disks(found), &named, &named);
            assert_eq!(proof, expected, "{of} {found:?} {named:?}");
        }
    }

    #[test]
    fn while_the_journal_disks_change_a_majority_of_both() {
        let map = JournalMap {
            old: Some(disks(&[4, 5, 6])),
            ..map(3)
        };
        let prove = |found: &[u128]| prove(&map, &disks(found), &[], &[]);
        assert_eq!(prove(&[1, 2, 4, 5]), Ok(Proof::Complete));
        assert_eq!(prove(&[1, 2, 3, 4]), Err(too_few(4, 6, &[5, 6])));
    }

    /// What was declared lost before, and the map still names, is not read.
    #[test]
    fn a_disk_that_was_declared_lost_before_proves_nothing() {
        let lost = disks(&[2]);
        let proof = prove(&map(2), &disks(&[1, 2]), &[], &lost);
        assert_eq!(proof, Ok(Proof::Without(disks(&[2]))));
    }
}

//! Whether a disk knows of commits that the catalog does not have
//! (PROTOCOL.md 7): pure.
//!
//! A catalog that is older than a disk must never reclaim by what it knows: an
//! object that it believes deleted may have been written again since.

use shardgate_catalog::model::{HoldReason, LineageRow};
use shardgate_wire::{CommitNumber, DiskId, LineageId};

/// Why the catalog may know less than the disk, which was told of `told` last;
/// `None` if it does not.
pub fn conflict(
    history: &LineageRow,
    committed: CommitNumber,
    disk: DiskId,
    told: (LineageId, CommitNumber),
) -> Option<HoldReason> {
    let (lineage, told) = told;
    if told.0 == 0 {
        // It was told of nothing yet.
        return None;
    }
    let before = history.before.iter().find(|(of, _)| *of == lineage);
    let known = match before {
        _ if lineage == history.lineage => committed,
        Some((_, last)) => *last,
        None => return Some(HoldReason::OtherLineage { disk, lineage }),
    };
    (told > known).then_some(HoldReason::DiskKnowsMore {
        disk,
        told,
        committed: known,
    })
}

/// The reason as the operator reads it.
pub fn in_words(reason: &HoldReason) -> String {
    match reason {
        HoldReason::JournalIncomplete => "journal disks were named lost, and what they alone had \
             of the journal is not known"
            .to_owned(),
        HoldReason::DiskKnowsMore {
            disk,
            told,
            committed,
        } => format!(
            "disk {disk} was told of commit {}, and the catalog had {} commits",
            told.0, committed.0
        ),
        HoldReason::OtherLineage { disk, lineage } => {
            format!("disk {disk} is of another history of the catalog ({lineage})")
        }
        HoldReason::Rebuilt { vouched, last } => format!(
            "the catalog was rebuilt from the disks: all commits up to {} are in it, of those up \
             to {} some may be missing",
            vouched.0, last.0
        ),
        HoldReason::Decided { through } => format!(
            "what the rebuild itself gave up, by commits up to {}, disks are told when the hold \
             ends",
            through.0
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_may_know_what_the_catalog_knows_and_no_more() {
        let history = LineageRow {
            before: vec![(LineageId(2), CommitNumber(50))],
            ..LineageRow::first(LineageId(3))
        };
        let (disk, committed) = (DiskId(9), CommitNumber(100));
        let more = |told, committed| {
            Some(HoldReason::DiskKnowsMore {
                disk,
                told: CommitNumber(told),
                committed: CommitNumber(committed),
            })
        };
        let other = Some(HoldReason::OtherLineage {
            disk,
            lineage: LineageId(7),
        });
        let cases = [
            ((3, 100), None),
            ((3, 101), more(101, 100)),
            ((2, 50), None),
            ((2, 51), more(51, 50)),
            ((7, 1), other),
            ((7, 0), None),
            ((0, 0), None),
        ];
        for ((lineage, told), expected) in cases {
            let told = (LineageId(lineage), CommitNumber(told));
            assert_eq!(
                conflict(&history, committed, disk, told),
                expected,
                "{told:?}"
            );
        }
    }
}

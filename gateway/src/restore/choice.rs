//! What a restore can begin with, in the order in which it is tried: decided
//! here, without I/O.
//!
//! The newest checkpoint that any disk names comes first, then older ones, with
//! more journal behind them; the journal alone, from the first commit on, is
//! the last.

use shardgate_catalog::checkpoint::{CheckpointRoot, Roots};
use shardgate_wire::{CommitNumber, DiskId};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A checkpoint and the journal behind it.
    Checkpoint(CheckpointRoot),
    /// The journal from the first commit on.
    Journal,
}

impl Source {
    /// The last commit in it.
    pub(super) fn commit(&self) -> CommitNumber {
        match self {
            Self::Checkpoint(root) => root.position.number,
            Self::Journal => CommitNumber(0),
        }
    }

    /// As messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Checkpoint(root) => {
                format!("the checkpoint at commit {}", root.position.number.0)
            }
            Self::Journal => "the journal alone".to_owned(),
        }
    }
}

/// All of them, each once.
pub(super) fn sources(named: &[(DiskId, Roots)]) -> Vec<Source> {
    let mut roots: Vec<CheckpointRoot> = Vec::new();
    for root in named.iter().flat_map(|(_, roots)| roots.all()) {
        if !roots.contains(root) {
            roots.push(root.clone());
        }
    }
    roots.sort_by_key(|root| std::cmp::Reverse((root.position.number, root.taken)));
    let checkpoints = roots.into_iter().map(Source::Checkpoint);
    checkpoints.chain([Source::Journal]).collect()
}

/// What these roots give besides, the newest first.
pub(super) fn more_sources(roots: &[CheckpointRoot], tried: &[Source]) -> Vec<Source> {
    let mut more: Vec<CheckpointRoot> = Vec::new();
    for root in roots {
        if !more.contains(root) && !tried.contains(&Source::Checkpoint(root.clone())) {
            more.push(root.clone());
        }
    }
    more.sort_by_key(|root| std::cmp::Reverse((root.position.number, root.taken)));
    more.into_iter().map(Source::Checkpoint).collect()
}

#[cfg(test)]
mod tests {
    use shardgate_catalog::checkpoint::{ContentHash, StoredFile};
    use shardgate_catalog::engine::log::ChainPosition;
    use shardgate_catalog::model::BlobRef;
    use shardgate_wire::{BlobId, BlobLayout, ClusterId, GroupId, LineageId};

    use super::*;

    fn root(number: u64) -> CheckpointRoot {
        CheckpointRoot {
            cluster: ClusterId(1),
            lineage: LineageId(1),
            position: ChainPosition {
                number: CommitNumber(number),
                hash: [0; 32],
            },
            taken: number,
            manifest: StoredFile {
                blob: BlobRef {
                    group: GroupId(1),
                    blob: BlobId(number.into()),
                    layout: BlobLayout { data: 1, parity: 1 },
                    len: 10,
                },
                disks: Vec::new(),
            },
            manifest_hash: ContentHash([0; 32]),
        }
    }

    fn roots(numbers: &[u64]) -> Roots {
        let oldest_first = numbers.iter().rev();
        oldest_first.fold(Roots::default(), |roots, number| {
            roots.with(root(*number)).unwrap()
        })
    }

    #[test]
    fn the_newest_of_any_disk_first_and_the_journal_last() {
        let order = |named: &[&[u64]]| -> Vec<u64> {
            let named = named.iter().zip(1..);
            let named: Vec<_> = named.map(|(of, disk)| (DiskId(disk), roots(of))).collect();
            sources(&named).iter().map(|of| of.commit().0).collect()
        };
        assert_eq!(order(&[]), [0]);
        assert_eq!(order(&[&[], &[7]]), [7, 0]);
        assert_eq!(order(&[&[9, 7], &[9, 7], &[9, 7]]), [9, 7, 0]);
        // A disk that was away names older ones, another alone the newest.
        assert_eq!(order(&[&[7, 5], &[9, 7], &[12, 9]]), [12, 9, 7, 5, 0]);
    }

    #[test]
    fn what_segments_name_besides_is_tried_once() {
        let tried = sources(&[(DiskId(1), roots(&[9, 7]))]);
        let named = [root(5), root(7), root(8), root(5)];
        let more = more_sources(&named, &tried);
        let order: Vec<u64> = more.iter().map(|of| of.commit().0).collect();
        assert_eq!(order, [8, 5]);
        assert!(more_sources(&[root(9)], &tried).is_empty());
    }
}

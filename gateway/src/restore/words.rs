//! What a restore says before it asks.

use std::path::Path;

use shardgate_wire::{CommitNumber, DiskId};

use super::Operator;
use super::choice::Source;
use super::proof::Proof;
use crate::journal::looked::Looked;
use crate::journal::roots::Unread;

/// Says what was found, and what is going to happen.
pub(super) fn found(
    looked: &Looked,
    sources: &[Source],
    told: CommitNumber,
    database: &Path,
    operator: &dyn Operator,
) {
    let map = looked.map();
    let disks = looked.disks();
    let journal = map.journal_map().all();
    let answered = journal.iter().filter(|disk| disks.contains(disk)).count();
    operator.say(&format!(
        "cluster {}, lineage {}, pool map {}",
        looked.cluster(),
        map.lineage,
        map.number
    ));
    operator.say(&format!(
        "disks: {} of {} found, {answered} of {} journal disks",
        disks.len(),
        map.disks.len(),
        journal.len()
    ));
    for disk in map.disks.iter().filter(|disk| !disks.contains(&disk.id)) {
        operator.say(&format!(
            "  not found: {} ({} {})",
            disk.id, disk.server, disk.path
        ));
    }
    for silent in looked.silent() {
        operator.say(&format!("  no answer: {silent}"));
    }
    operator.say(&format!("commits: at least {} were acknowledged", told.0));
    for (index, source) in sources.iter().enumerate() {
        let when = match index {
            0 => "begins with",
            _ => "else with",
        };
        operator.say(&format!("  {when} {}", source.name()));
    }
    operator.say(&format!(
        "then the journal behind it; the catalog is written into {}",
        database.display()
    ));
    operator.say("the epoch is raised: a gateway that still runs on these disks stops for good");
}

/// Says which disks do not tell their checkpoints, and why.
pub(super) fn unread(disks: &[(DiskId, Unread)], operator: &dyn Operator) {
    for (disk, why) in disks {
        if let Unread::Not(why) = why {
            operator.say(&format!(
                "  ! disk {disk} does not say which checkpoints there are: {why}"
            ));
        }
    }
}

/// Says what is not promised.
pub(super) fn proof(proof: &Proof, operator: &dyn Operator) {
    if let Proof::Without(lost) = proof {
        operator.say(
            "  ! NOT PROVEN COMPLETE: no majority of the journal disks is left. What these alone \
             had is lost, acknowledged or not:",
        );
        for disk in lost {
            operator.say(&format!("  !   {disk}"));
        }
        operator.say(
            "  ! the catalog takes a new lineage, and nothing is reclaimed until `shardgate \
             catalog hold --end`",
        );
    }
}

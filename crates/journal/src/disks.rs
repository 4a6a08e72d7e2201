//! Which disks keep the journal: decided here, without I/O (PROTOCOL.md 1).
//!
//! Invariants: any two majorities of the journal disks share a disk; the
//! members of a segment are always a majority; while the journal disks change,
//! of the old and of the new.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use shardgate_wire::DiskId;

use crate::error::Refusal;

/// A disk that may keep the journal, and what it fails together with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which disk.
    pub disk: DiskId,
    /// Its server, under any number that tells servers apart.
    pub server: u128,
    /// Its device, under any number that tells devices apart.
    pub device: u128,
}

/// The journal disks as a numbered pool map names them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalMap {
    /// Number of the pool map.
    pub number: u64,
    /// The journal disks.
    pub disks: Vec<DiskId>,
    /// Those of the map before, until this one is known to count.
    pub old: Option<Vec<DiskId>>,
}

impl JournalMap {
    /// The sets of disks of which a majority each is needed.
    pub fn quorums(&self) -> Vec<&[DiskId]> {
        let old = self.old.as_deref();
        std::iter::once(&self.disks[..]).chain(old).collect()
    }

    /// All disks that are named.
    pub fn all(&self) -> Vec<DiskId> {
        let all: BTreeSet<DiskId> = self.quorums().concat().into_iter().collect();
        all.into_iter().collect()
    }

    /// Whether these disks are enough of the old and of the new, for a map to
    /// count or a gateway to start; `lost`: those named lost for good.
    pub fn has_enough(&self, disks: &[DiskId], lost: &[DiskId]) -> bool {
        let mut quorums = self.quorums().into_iter();
        quorums.all(|quorum| is_enough(quorum, disks, lost))
    }
}

/// The disks that the operator named lost for good, as several tasks know
/// them; only grows.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<RwLock<Vec<DiskId>>>);

impl Lost {
    /// These so far.
    pub fn new(disks: Vec<DiskId>) -> Self {
        Self(Arc::new(RwLock::new(disks)))
    }

    /// One more.
    pub fn add(&self, disk: DiskId) {
        let mut disks = self.0.write();
        if !disks.contains(&disk) {
            disks.push(disk);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<DiskId> {
        self.0.read().clone()
    }
}

/// What a start does next about the maps that it sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapStep {
    /// A newer map, or disks not asked yet: ask these.
    Ask(Vec<DiskId>),
    /// This is the newest; make it durable on a majority of old and new
    /// before anything else, since it may not count yet.
    Complete(JournalMap),
    /// This is the newest, and it counts.
    Settled(JournalMap),
}

/// Follows the highest map seen until none is newer. `seen`: what each disk
/// that answered holds; `asked`: all that were asked, answered or not.
pub fn follow_maps(seen: &BTreeMap<DiskId, JournalMap>, asked: &[DiskId]) -> Option<MapStep> {
    let newest = seen.values().max_by_key(|map| map.number)?;
    let unasked: Vec<DiskId> = newest
        .all()
        .into_iter()
        .filter(|disk| !asked.contains(disk))
        .collect();
    if !unasked.is_empty() {
        return Some(MapStep::Ask(unasked));
    }
    let holders: Vec<DiskId> = seen
        .iter()
        .filter(|(_, map)| map.number == newest.number)
        .map(|(disk, _)| *disk)
        .collect();
    if newest.old.is_some() || !newest.has_enough(&holders, &[]) {
        return Some(MapStep::Complete(newest.clone()));
    }
    Some(MapStep::Settled(newest.clone()))
}

/// The least number of `count` disks that is a majority.
pub fn majority(count: usize) -> usize {
    count / 2 + 1
}

/// Whether `disks` hold a majority of `quorum`.
pub fn is_majority(quorum: &[DiskId], disks: &[DiskId]) -> bool {
    let held = quorum.iter().filter(|disk| disks.contains(disk)).count();
    held >= majority(quorum.len())
}

/// Whether `disks` may act for `quorum`: a majority of it, or all that were
/// not named lost for good, and one at least.
pub fn is_enough(quorum: &[DiskId], disks: &[DiskId], lost: &[DiskId]) -> bool {
    let here = |disk: &DiskId| disks.contains(disk);
    let accounted = |disk: &DiskId| here(disk) || lost.contains(disk);
    is_majority(quorum, disks) || (quorum.iter().any(here) && quorum.iter().all(accounted))
}

/// How many journal disks `disks` disks give, where the largest number of
/// parity shards of any class is `parity`.
pub fn journal_size(disks: usize, parity: usize) -> usize {
    if disks <= 2 {
        return disks;
    }
    let most = disks.min(2 * parity + 1);
    most - usize::from(most.is_multiple_of(2))
}

/// Members of a segment: how many are wanted, and how few will do.
pub fn segment_size(journal: usize, parity: usize) -> (usize, usize) {
    let least = majority(journal);
    ((parity + 1).min(journal).max(least), least)
}

/// Chooses the journal disks from all that live; `current` ones are kept
/// where nothing speaks against it.
///
/// They are on distinct servers as far as there are, and where there are
/// three servers on none so many that the others are no majority.
pub fn choose_journal(living: &[Candidate], current: &[DiskId], parity: usize) -> Vec<DiskId> {
    let servers: BTreeSet<u128> = living.iter().map(|disk| disk.server).collect();
    let mut size = journal_size(living.len(), parity);
    loop {
        let most = if servers.len() >= 3 {
            size - majority(size)
        } else {
            size
        };
        let chosen = spread(living, current, size, most);
        if chosen.len() == size || size <= 1 {
            return chosen;
        }
        size = if size == 2 { 1 } else { size - 2 };
    }
}

fn spread(living: &[Candidate], current: &[DiskId], size: usize, most: usize) -> Vec<DiskId> {
    let mut chosen: Vec<Candidate> = Vec::new();
    while chosen.len() < size {
        let on_server = |disk: &Candidate| {
            let same = |other: &&Candidate| other.server == disk.server;
            chosen.iter().filter(same).count()
        };
        let on_device = |disk: &Candidate| {
            let same = |other: &&Candidate| other.device == disk.device;
            chosen.iter().filter(same).count()
        };
        let next = living
            .iter()
            .filter(|disk| !chosen.contains(disk) && on_server(disk) < most.max(1))
            .min_by_key(|disk| {
                let new = !current.contains(&disk.disk);
                (on_server(disk), on_device(disk), new, disk.disk)
            });
        match next {
            Some(disk) => chosen.push(*disk),
            None => break,
        }
    }
    chosen.into_iter().map(|disk| disk.disk).collect()
}

/// The members of the next segment: of the journal disks those that are
/// `usable`, the most wanted first. `None` if too few are; `lost`: those named
/// lost for good.
///
/// m+1 of them, fewer where fewer are usable, always a majority, never all on
/// one server where the journal disks are on two.
pub fn choose_members(
    journal: &[Candidate],
    usable: &[DiskId],
    parity: usize,
    lost: &[DiskId],
) -> Option<Vec<DiskId>> {
    let (target, _) = segment_size(journal.len(), parity);
    let find = |disk: &DiskId| journal.iter().find(|of| of.disk == *disk).copied();
    let usable: Vec<Candidate> = usable.iter().filter_map(find).collect();
    // Devices fail as one: another device before a second disk of one.
    let mut chosen: Vec<Candidate> = Vec::new();
    for again in [false, true] {
        for disk in &usable {
            let device_taken = chosen.iter().any(|of| of.device == disk.device);
            if chosen.len() < target && !chosen.contains(disk) && device_taken == again {
                chosen.push(*disk);
            }
        }
    }
    // A server all of whose disks are lost is none to have a member on.
    let left = journal.iter().filter(|disk| !lost.contains(&disk.disk));
    let servers: BTreeSet<u128> = left.map(|disk| disk.server).collect();
    let on_one = |of: &[Candidate]| of.iter().all(|disk| disk.server == of[0].server);
    if servers.len() > 1 && !chosen.is_empty() && on_one(&chosen) {
        let elsewhere = usable.iter().find(|of| of.server != chosen[0].server)?;
        if chosen.len() == target && target > 1 {
            chosen.pop();
        }
        if target > 1 {
            chosen.push(*elsewhere);
        }
    }
    let all: Vec<DiskId> = journal.iter().map(|disk| disk.disk).collect();
    let chosen: Vec<DiskId> = chosen.into_iter().map(|disk| disk.disk).collect();
    is_enough(&all, &chosen, lost).then_some(chosen)
}

/// The members of the segment that begins before the journal disks change: a
/// majority of the old and of the new, as many as wanted. `None` if too few
/// are usable. `places`: those of the old and of the new; the segment goes on
/// behind the change, and so is not all on one server where the new are on
/// two.
pub fn choose_members_for_change(
    places: &[Candidate],
    (old, new): (&[DiskId], &[DiskId]),
    usable: &[DiskId],
    parity: usize,
    lost: &[DiskId],
) -> Option<Vec<DiskId>> {
    let mut chosen: Vec<DiskId> = Vec::new();
    let enough = |chosen: &[DiskId], of: &[DiskId]| {
        let held = chosen.iter().filter(|disk| of.contains(disk)).count();
        held >= segment_size(of.len(), parity).0
    };
    let both = |disk: &&DiskId| old.contains(disk) && new.contains(disk);
    for disk in usable.iter().filter(both) {
        if !enough(&chosen, old) || !enough(&chosen, new) {
            chosen.push(*disk);
        }
    }
    for of in [old, new] {
        for disk in usable.iter().filter(|disk| of.contains(disk)) {
            if !chosen.contains(disk) && !enough(&chosen, of) {
                chosen.push(*disk);
            }
        }
    }
    let server = |disk: &DiskId| {
        let place = places.iter().find(|of| of.disk == *disk);
        place.map(|of| of.server)
    };
    let on = |of: &[DiskId]| -> BTreeSet<_> {
        let left = of.iter().filter(|disk| !lost.contains(disk));
        left.filter_map(server).collect()
    };
    if on(new).len() > 1 && on(&chosen).len() == 1 {
        let named = |disk: &&DiskId| old.contains(disk) || new.contains(disk);
        let elsewhere = |disk: &&DiskId| server(disk) != server(&chosen[0]);
        let mut others = usable.iter().filter(named);
        chosen.push(*others.find(elsewhere)?);
    }
    let enough = |of: &[DiskId]| is_enough(of, &chosen, lost);
    (enough(old) && enough(new)).then_some(chosen)
}

/// Whether a start that these disks answered may go on.
///
/// # Errors
/// Without a majority of each set it may only if every disk that does not
/// answer was named lost for good.
pub fn check_quorum(map: &JournalMap, answered: &[DiskId], lost: &[DiskId]) -> Result<(), Refusal> {
    for quorum in map.quorums() {
        if is_enough(quorum, answered, lost) {
            continue;
        }
        let missing = quorum
            .iter()
            .filter(|disk| !answered.contains(disk) && !lost.contains(disk));
        return Err(Refusal::NoMajority {
            answered: quorum.iter().filter(|disk| answered.contains(disk)).count(),
            journal: quorum.len(),
            missing: missing.copied().collect(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

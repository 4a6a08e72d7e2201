//! What may be lost now, in numbers and in words.
//!
//! Owns the sentence that `status` shows the operator. Invariant: it promises
//! only what every group keeps, with the disks that are missing now already
//! counted. Blobs with owed slots are counted by the caller, not here.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_erasure::Scheme;
use shardgate_wire::DiskId;

use super::view::{DeviceKey, PoolView};

/// A group, as far as losses go.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupFacts {
    /// Its scheme.
    pub scheme: Scheme,
    /// Its disks.
    pub slots: Vec<DiskId>,
}

/// What may be lost without losing fully stored data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Any so many disks.
    pub disks: usize,
    /// Any so many servers; 0 in a pool of one.
    pub servers: usize,
    /// Groups that have lost more slots than they can.
    pub unreadable: usize,
    /// Sizes of the sets of disks that share a device whose loss loses data.
    pub shared_devices: Vec<usize>,
    /// Number of servers that the pool has.
    pub of_servers: usize,
    /// Disks that do not live, and hold slots.
    pub missing_disks: usize,
}

/// What `groups` can lose in this pool. A disk that is not living, or not in
/// the view at all, is missing already.
pub fn loss(view: &PoolView, groups: &[GroupFacts]) -> Loss {
    let alive = |disk: &DiskId| view.disk(*disk).is_some_and(|disk| disk.living);
    let missing: BTreeSet<DiskId> = groups
        .iter()
        .flat_map(|group| &group.slots)
        .filter(|disk| !alive(disk))
        .copied()
        .collect();
    let mut found = Loss {
        disks: usize::MAX,
        servers: usize::MAX,
        of_servers: view.servers(),
        missing_disks: missing.len(),
        ..Loss::default()
    };
    let mut devices: BTreeSet<DeviceKey> = BTreeSet::new();
    for group in groups {
        let dead = group.slots.iter().filter(|disk| !alive(disk)).count();
        let Some(spare) = usize::from(group.scheme.parity()).checked_sub(dead) else {
            found.unreadable += 1;
            continue;
        };
        found.disks = found.disks.min(spare);
        found.servers = found.servers.min(servers_to_spare(view, group, spare));
        devices.extend(fatal_devices(view, group, spare));
    }
    if groups.len() == found.unreadable {
        found.disks = 0;
        found.servers = 0;
    }
    if found.of_servers < 2 {
        found.servers = 0;
    }
    found.shared_devices = devices
        .iter()
        .map(|device| disks_on(view, device))
        .collect();
    found.shared_devices.sort_unstable_by(|a, b| b.cmp(a));
    found
}

/// How many of the group's servers may go, the fullest first, before more
/// than `spare` living slots are gone.
fn servers_to_spare(view: &PoolView, group: &GroupFacts, spare: usize) -> usize {
    let mut slots: BTreeMap<&str, usize> = BTreeMap::new();
    for disk in group.slots.iter().filter_map(|disk| view.disk(*disk)) {
        *slots.entry(&disk.server).or_default() += usize::from(disk.living);
    }
    let mut slots: Vec<usize> = slots.into_values().filter(|count| *count > 0).collect();
    slots.sort_unstable_by(|a, b| b.cmp(a));
    let mut gone = 0;
    slots
        .iter()
        .take_while(|count| {
            gone += **count;
            gone <= spare
        })
        .count()
}

/// Devices shared by several disks of the group whose loss is too much for it.
fn fatal_devices(view: &PoolView, group: &GroupFacts, spare: usize) -> Vec<DeviceKey> {
    let mut slots: BTreeMap<DeviceKey, usize> = BTreeMap::new();
    for disk in group.slots.iter().filter_map(|disk| view.disk(*disk)) {
        *slots.entry(disk.device_key()).or_default() += usize::from(disk.living);
    }
    slots.retain(|_, count| *count > 1 && *count > spare);
    slots.into_keys().collect()
}

fn disks_on(view: &PoolView, device: &DeviceKey) -> usize {
    view.disks
        .iter()
        .filter(|disk| disk.device_key() == *device)
        .count()
}

impl Loss {
    /// The sentences, the most important first.
    pub fn in_words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.unreadable > 0 {
            words.push(format!(
                "{} cannot be read: too many of {} disks are missing",
                counted(self.unreadable, "group"),
                if self.unreadable == 1 { "its" } else { "their" },
            ));
        }
        words.push(self.any());
        if self.missing_disks > 0 {
            words.push(format!(
                "{} missing now: this is already taken off",
                counted(self.missing_disks, "disk")
            ));
        }
        for disks in &self.shared_devices {
            words.push(format!("{disks} disks on one device: its loss loses all"));
        }
        words
    }

    fn any(&self) -> String {
        let more = if self.missing_disks > 0 { "more " } else { "" };
        let of = |count: usize, what: &str| {
            format!(
                "any {count} {more}{what}{}",
                if count == 1 { "" } else { "s" }
            )
        };
        match (self.disks, self.servers) {
            (0, 0) if self.missing_disks > 0 => "no further disk may be lost".into(),
            (0, 0) => "nothing may be lost: there is one copy of everything".into(),
            (0, servers) => of(servers, "server"),
            (disks, 0) => of(disks, "disk"),
            (disks, servers) => format!("{}, {}", of(disks, "disk"), of(servers, "server")),
        }
    }
}

/// "1 disk", "3 disks".
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
#[path = "loss_tests.rs"]
mod tests;

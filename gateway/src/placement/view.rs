//! The pool as placement sees it: a snapshot, as plain data.
//!
//! Invariant: holds every disk that the operator has not declared lost,
//! living or not. Does not know how disks are reached.

use std::collections::{BTreeMap, BTreeSet};

use shardgate_wire::{DiskId, DiskRoom, Medium, Purpose};

/// One disk.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskView {
    /// Which.
    pub id: DiskId,
    /// Its server's name, a failure domain.
    pub server: String,
    /// Its site's name, a failure domain.
    pub site: String,
    /// Its file system (`st_dev`), where it was ever seen. Disks of one
    /// server with the same one share its free bytes and its fate.
    pub device: Option<u64>,
    /// Its medium.
    pub medium: Medium,
    /// Size of its file system, bytes.
    pub capacity_bytes: u64,
    /// What shards of clients may still take of it, bytes.
    pub free_bytes: u64,
    /// What each may still take, where it was ever seen.
    pub room: Option<DiskRoom>,
    /// Calls that wait for it or are in it.
    pub load: u32,
    /// Median latency of its recent calls, microseconds; 0 if not known.
    pub p50_us: u32,
    /// Calls that failed by its fault lately.
    pub errors: u32,
    /// Whether it takes new writes now.
    pub living: bool,
}

impl DiskView {
    /// What shards of a purpose may still take of it, bytes.
    pub fn free_for(&self, purpose: Purpose) -> u64 {
        self.room.map_or(self.free_bytes, |room| room.of(purpose))
    }

    /// What stands and falls together below the server: its file system, or
    /// the disk alone while that is not known.
    pub fn device_key(&self) -> DeviceKey {
        match self.device {
            Some(device) => DeviceKey::Device(self.server.clone(), device),
            None => DeviceKey::Unknown(self.id),
        }
    }
}

/// Names a device in the pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKey {
    /// Server and `st_dev`.
    Device(String, u64),
    /// Of a disk that was not seen yet.
    Unknown(DiskId),
}

/// A disk so many times slower than its peers is slow.
const SLOW_TIMES: u32 = 4;
/// Among fewer peers nobody can be called slow.
const SLOW_NEEDS_PEERS: usize = 3;
/// Faster than this, differences are the cache's.
const SLOW_LEAST_US: u32 = 2_000;

/// Disks by server: all that scheme questions need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerCount {
    /// Number of disks of each server, none of them zero.
    pub disks: Vec<usize>,
    /// Whether the pool has more than one server, those without a disk in
    /// `disks` included: then at most m slots of a group lie on one.
    pub several: bool,
}

impl ServerCount {
    /// All disks counted.
    pub fn total(&self) -> usize {
        self.disks.iter().sum()
    }
}

/// All disks of the pool that are not declared lost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolView {
    /// In any order.
    pub disks: Vec<DiskView>,
}

impl PoolView {
    /// The disk of that id.
    pub fn disk(&self, id: DiskId) -> Option<&DiskView> {
        self.disks.iter().find(|disk| disk.id == id)
    }

    /// Whether a disk is several times slower than half of the other living
    /// disks of its medium: it takes no new groups where there are others.
    pub fn is_slow(&self, disk: &DiskView) -> bool {
        let peers = self.disks.iter().filter(|of| {
            of.id != disk.id && of.living && of.medium == disk.medium && of.p50_us > 0
        });
        let mut peers: Vec<u32> = peers.map(|of| of.p50_us).collect();
        peers.sort_unstable();
        let usual = peers.get(peers.len() / 2).copied();
        peers.len() >= SLOW_NEEDS_PEERS
            && usual.is_some_and(|usual| disk.p50_us > usual.max(SLOW_LEAST_US) * SLOW_TIMES)
    }

    /// The media that the pool has.
    pub fn media(&self) -> Vec<Medium> {
        let media: BTreeSet<_> = self.disks.iter().map(|disk| disk.medium).collect();
        media.into_iter().collect()
    }

    /// The same, with the space that shards of a purpose may take as free.
    pub fn for_purpose(&self, purpose: Purpose) -> Self {
        let disk = |disk: &DiskView| DiskView {
            free_bytes: disk.free_for(purpose),
            ..disk.clone()
        };
        Self {
            disks: self.disks.iter().map(disk).collect(),
        }
    }

    /// The disks of one medium, or all.
    pub fn of_medium(&self, medium: Option<Medium>) -> Self {
        let wanted = |disk: &&DiskView| medium.is_none_or(|medium| disk.medium == medium);
        Self {
            disks: self.disks.iter().filter(wanted).cloned().collect(),
        }
    }

    /// How many disks each server has of those that `counts` accepts.
    pub fn by_server(&self, counts: impl Fn(&DiskView) -> bool) -> ServerCount {
        let mut servers: BTreeMap<&str, usize> = BTreeMap::new();
        for disk in &self.disks {
            *servers.entry(&disk.server).or_default() += usize::from(counts(disk));
        }
        ServerCount {
            several: servers.len() > 1,
            disks: servers.into_values().filter(|count| *count > 0).collect(),
        }
    }

    /// The living disks by server.
    ///
    /// A pool of three servers or more keeps the rule that no server holds
    /// more than m slots even when only one lives, and then takes no writes
    /// (DESIGN.md 3.4). A pool of two goes on with the one.
    pub fn living_by_server(&self) -> ServerCount {
        let mut count = self.by_server(|disk| disk.living);
        count.several = count.disks.len() > 1 || self.servers() > 2;
        count
    }

    /// Number of servers.
    pub fn servers(&self) -> usize {
        let names: BTreeSet<&str> = self.disks.iter().map(|disk| disk.server.as_str()).collect();
        names.len()
    }
}

#[cfg(test)]
mod tests {
    use super::samples::pool;
    use super::*;

    #[test]
    fn a_disk_is_slow_beside_its_peers_only() {
        let mut view = pool(&[6]);
        view.disks[0].p50_us = 20_000;
        let slow = |view: &PoolView| view.disks.iter().filter(|disk| view.is_slow(disk)).count();
        assert_eq!(slow(&view), 1);
        assert!(view.is_slow(&view.disks[0]));
        for disk in &mut view.disks[1..] {
            disk.p50_us = 15_000;
        }
        assert_eq!(slow(&view), 0, "all are");
        view.disks[0].p50_us = 90_000;
        view.disks[0].medium = Medium::Rotating;
        assert_eq!(slow(&view), 0, "another medium has no peers");
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Pools for the tests of this module.

    use super::*;

    const TB: u64 = 1_000_000_000_000;

    /// A living disk of 1 TB, half free, alone on its device.
    pub(crate) fn disk(id: u128, server: &str) -> DiskView {
        DiskView {
            id: DiskId(id),
            server: server.into(),
            site: "here".into(),
            device: Some(id as u64),
            medium: Medium::Flash,
            capacity_bytes: TB,
            free_bytes: TB / 2,
            room: None,
            load: 0,
            p50_us: 500,
            errors: 0,
            living: true,
        }
    }

    /// A pool with this many disks on each server.
    pub(crate) fn pool(servers: &[usize]) -> PoolView {
        let mut disks = Vec::new();
        for (server, count) in servers.iter().enumerate() {
            for _ in 0..*count {
                disks.push(disk(disks.len() as u128 + 1, &format!("server-{server}")));
            }
        }
        PoolView { disks }
    }
}

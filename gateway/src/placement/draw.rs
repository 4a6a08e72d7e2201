//! The draw of a new group.
//!
//! Owns which disks a group gets and in which order. Invariant: a drawn group
//! has distinct disks, all living and of one medium, no server with more
//! slots than the scheme allows, and as few on one server and one device as
//! these disks allow. Which disks may be drawn at all (those that take part
//! in few open groups) is the caller's to say.

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use rand::seq::SliceRandom;
use shardgate_erasure::Scheme;
use shardgate_wire::DiskId;
use thiserror::Error;

use super::scheme::slots_per_server;
use super::view::{DeviceKey, DiskView};

/// Why no group can be drawn.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{needed} slots are needed and the disks give {usable}")]
pub struct DrawError {
    /// Slots of the scheme.
    pub needed: usize,
    /// Slots that these disks can take by the rules.
    pub usable: usize,
}

/// Draws the disks of a new group of `scheme`, in slot order, from the
/// `candidates`: living disks of one medium with space.
///
/// Disks are sampled without replacement, each weighted by its free bytes,
/// discounted by load and errors. Slots lie on distinct servers while there
/// are as many, then at most m on one where the pool has `several_servers`;
/// distinct devices come first. Neighbouring slots are on different servers
/// where no server has more than half of them. The start is random.
///
/// # Errors
/// [`DrawError`] if the candidates are too few under these rules.
pub fn draw(
    candidates: &[&DiskView],
    scheme: Scheme,
    several_servers: bool,
    rng: &mut impl Rng,
) -> Result<Vec<DiskId>, DrawError> {
    let needed = usize::from(scheme.slots());
    let cap = server_cap(candidates, scheme, several_servers)?;
    let mut order: Vec<(f64, &DiskView)> = candidates
        .iter()
        .map(|disk| (waiting_time(disk, rng), *disk))
        .collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));

    let mut taken = Taken::default();
    for distinct_devices in [true, false] {
        for (_, disk) in &order {
            if taken.disks.len() < needed {
                taken.offer(disk, cap, distinct_devices);
            }
        }
    }
    assert_eq!(
        taken.disks.len(),
        needed,
        "the cap was chosen so that the slots fit"
    );
    Ok(spread(taken.disks, rng))
}

/// What a disk is worth to a new group: its free bytes, less the more it has
/// to do and the more it failed.
pub fn weight(disk: &DiskView) -> f64 {
    // 32 waiting calls, or two errors, halve it.
    let load = 1.0 + f64::from(disk.load) / 32.0;
    let errors = 1.0 + f64::from(disk.errors) / 2.0;
    disk.free_bytes as f64 / (load * errors)
}

/// Fewest slots per server with which the scheme fits the candidates, at most
/// what the scheme allows.
fn server_cap(
    candidates: &[&DiskView],
    scheme: Scheme,
    several_servers: bool,
) -> Result<usize, DrawError> {
    let mut servers: BTreeMap<&str, usize> = BTreeMap::new();
    for disk in candidates {
        *servers.entry(&disk.server).or_default() += 1;
    }
    let needed = usize::from(scheme.slots());
    let usable = |cap: usize| -> usize { servers.values().map(|disks| *disks.min(&cap)).sum() };
    let most = slots_per_server(scheme, several_servers);
    (1..=most)
        .find(|cap| usable(*cap) >= needed)
        .ok_or_else(|| DrawError {
            needed,
            usable: usable(most),
        })
}

/// The time until a disk's clock, which ticks at the rate of its weight,
/// first rings: the order of these times is a weighted sample without
/// replacement (Efraimidis and Spirakis, 2006).
fn waiting_time(disk: &DiskView, rng: &mut impl Rng) -> f64 {
    let uniform: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
    -uniform.ln() / weight(disk).max(1.0)
}

#[derive(Default)]
struct Taken<'a> {
    disks: Vec<&'a DiskView>,
    servers: BTreeMap<&'a str, usize>,
    devices: BTreeSet<DeviceKey>,
}

impl<'a> Taken<'a> {
    fn offer(&mut self, disk: &'a DiskView, cap: usize, distinct_devices: bool) {
        let on_server = self.servers.get(disk.server.as_str()).copied().unwrap_or(0);
        let device_is_free = !self.devices.contains(&disk.device_key());
        let is_taken = self.disks.iter().any(|taken| taken.id == disk.id);
        if is_taken || on_server >= cap || (distinct_devices && !device_is_free) {
            return;
        }
        self.disks.push(disk);
        self.devices.insert(disk.device_key());
        *self.servers.entry(&disk.server).or_default() += 1;
    }
}

/// Slot order: servers in turns, from a random start.
///
/// The disks, those of the fullest server first, go to the even places and
/// then to the odd ones. No server with at most half the slots meets itself,
/// around the end included.
fn spread(disks: Vec<&DiskView>, rng: &mut impl Rng) -> Vec<DiskId> {
    let mut by_server: BTreeMap<&str, Vec<DiskId>> = BTreeMap::new();
    for disk in &disks {
        by_server.entry(&disk.server).or_default().push(disk.id);
    }
    let mut servers: Vec<Vec<DiskId>> = by_server.into_values().collect();
    servers.iter_mut().for_each(|disks| disks.shuffle(rng));
    servers.shuffle(rng);
    servers.sort_by_key(|disks| std::cmp::Reverse(disks.len()));

    let count = disks.len();
    let places = (0..count).step_by(2).chain((1..count).step_by(2));
    let mut slots = vec![DiskId(0); count];
    for (place, disk) in places.zip(servers.into_iter().flatten()) {
        slots[place] = disk;
    }
    slots.rotate_left(rng.random_range(0..count));
    slots
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;

//! How many bytes of objects a pool can still take.
//!
//! Owns the simulation that stands behind every figure of free space: a sum
//! of bytes would promise what placement cannot store (a large disk among
//! small ones, disks that share a device, servers at their limit). Invariant:
//! never above the sum of free bytes times k/(k+m). Does not know about the
//! padding of small blobs.

use std::collections::{BTreeMap, HashMap};

use shardgate_erasure::Scheme;

use super::scheme::slots_per_server;
use super::view::{DeviceKey, DiskView};

/// How finely the simulation fills: the largest disk in this many steps at
/// first, then ever smaller ones.
const FIRST_STEPS: u64 = 16;
const FINEST: u64 = 4096;

/// Object bytes that groups of `scheme` can still take on these disks, full
/// layouts assumed.
pub fn storable_bytes(candidates: &[&DiskView], scheme: Scheme, several_servers: bool) -> u64 {
    let mut free: HashMap<DeviceKey, u64> = HashMap::new();
    for disk in candidates {
        let bytes = free.entry(disk.device_key()).or_default();
        *bytes = (*bytes).max(disk.free_bytes);
    }
    let largest = free.values().max().copied().unwrap_or(0);
    let cap = slots_per_server(scheme, several_servers);
    let mut slot_bytes = 0_u64;
    let mut step = largest / FIRST_STEPS;
    while step > 0 && step >= largest / FINEST {
        while place(candidates, &mut free, scheme, cap, step) {
            slot_bytes = slot_bytes.saturating_add(step);
        }
        step /= 2;
    }
    slot_bytes.saturating_mul(u64::from(scheme.data()))
}

/// Takes `step` bytes from each of the k+m disks with the most left; false
/// and nothing taken if there are not as many.
fn place(
    candidates: &[&DiskView],
    free: &mut HashMap<DeviceKey, u64>,
    scheme: Scheme,
    cap: usize,
    step: u64,
) -> bool {
    let mut left = free.clone();
    let mut servers: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unused: Vec<&DiskView> = candidates.to_vec();
    for _ in 0..scheme.slots() {
        let usable = |disk: &DiskView| {
            left[&disk.device_key()] >= step
                && servers
                    .get(disk.server.as_str())
                    .is_none_or(|count| *count < cap)
        };
        let best = (0..unused.len())
            .filter(|index| usable(unused[*index]))
            .max_by_key(|index| left[&unused[*index].device_key()]);
        let Some(best) = best else { return false };
        let disk = unused.swap_remove(best);
        *left
            .get_mut(&disk.device_key())
            .expect("every candidate's device is in the map") -= step;
        *servers.entry(&disk.server).or_default() += 1;
    }
    *free = left;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::view::PoolView;
    use super::super::view::samples::pool;
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn with_free(servers: &[usize], free_gb: &[u64]) -> PoolView {
        let mut view = pool(servers);
        for (disk, gb) in view.disks.iter_mut().zip(free_gb) {
            disk.free_bytes = gb * GB;
        }
        view
    }

    fn storable_gb(view: &PoolView, scheme: &str) -> f64 {
        let disks: Vec<_> = view.disks.iter().collect();
        let bytes = storable_bytes(&disks, scheme.parse().unwrap(), view.servers() > 1);
        bytes as f64 / GB as f64
    }

    #[test]
    fn counts_what_groups_can_take() {
        for (servers, free, scheme, expected) in [
            // Equal disks: all of it.
            (&[6][..], &[100; 6][..], "4+2", 400.0),
            // One large disk among small ones: the small ones decide.
            (&[6], &[100, 100, 100, 100, 100, 1000], "4+2", 400.0),
            (&[3], &[100, 200, 300], "1+1", 300.0),
            // A full disk among six leaves no room for six slots.
            (&[6], &[100, 100, 100, 100, 100, 0], "4+2", 0.0),
            // Two slots per server at most: the large server's third and
            // fourth disk wait for the others.
            (&[4, 2, 2], &[100; 8], "4+2", 400.0),
            (&[1], &[50], "1+0", 50.0),
            (&[1, 1], &[50, 20], "1+1", 20.0),
            (&[1, 1], &[50, 20], "4+2", 0.0),
        ] {
            let found = storable_gb(&with_free(servers, free), scheme);
            assert!(
                found <= expected && found >= expected * 0.97,
                "{scheme} on {servers:?} {free:?}: {found}, not {expected}"
            );
        }
    }

    #[test]
    fn a_shared_device_counts_once() {
        let mut view = with_free(&[6], &[600; 6]);
        for disk in &mut view.disks {
            disk.device = Some(1);
        }
        let found = storable_gb(&view, "4+2");
        assert!((388.0..=400.0).contains(&found), "{found}");
    }

    proptest! {
        #[test]
        fn never_promises_more_than_the_bytes(
            servers in prop::collection::vec(1..4_usize, 1..5),
            free in prop::collection::vec(0..1000_u64, 16),
            data in 1..5_u8,
            parity in 1..3_u8,
        ) {
            let view = with_free(&servers, &free);
            let disks: Vec<_> = view.disks.iter().collect();
            let scheme = Scheme::new(data, parity).unwrap();
            let bytes = storable_bytes(&disks, scheme, servers.len() > 1);
            let sum: u64 = view.disks.iter().map(|disk| disk.free_bytes).sum();
            prop_assert!(bytes <= sum / u64::from(scheme.slots()) * u64::from(data));
        }
    }
}

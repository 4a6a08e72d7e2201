//! Tests of the draw.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::view::samples::{disk, pool};
use super::super::view::{PoolView, ServerCount};
use super::*;
use crate::placement::scheme::fits;

fn scheme(text: &str) -> Scheme {
    text.parse().unwrap()
}

fn all(view: &PoolView) -> Vec<&DiskView> {
    view.disks.iter().collect()
}

fn per_server(view: &PoolView, slots: &[DiskId]) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for slot in slots {
        *count
            .entry(view.disk(*slot).unwrap().server.clone())
            .or_default() += 1;
    }
    count
}

#[test]
fn too_few_disks_are_refused_with_the_count() {
    let view = pool(&[4, 1]);
    let error = draw(
        &all(&view),
        scheme("4+2"),
        true,
        &mut StdRng::seed_from_u64(1),
    );
    assert_eq!(
        error,
        Err(DrawError {
            needed: 6,
            usable: 3
        })
    );
}

#[test]
fn slots_lie_on_distinct_servers_while_there_are_as_many() {
    let view = pool(&[9, 2, 2, 2, 2, 2]);
    for seed in 0..50 {
        let slots = draw(
            &all(&view),
            scheme("4+2"),
            true,
            &mut StdRng::seed_from_u64(seed),
        )
        .unwrap();
        assert!(
            per_server(&view, &slots).values().all(|count| *count == 1),
            "seed {seed}"
        );
    }
}

#[test]
fn distinct_devices_come_first() {
    let mut view = pool(&[9]);
    for disk in &mut view.disks[3..] {
        disk.device = Some(7);
    }
    for seed in 0..50 {
        let slots = draw(
            &all(&view),
            scheme("4+2"),
            false,
            &mut StdRng::seed_from_u64(seed),
        )
        .unwrap();
        // Four devices in all: each is in, the shared one with the rest.
        for alone in &view.disks[..3] {
            assert!(slots.contains(&alone.id), "seed {seed}");
        }
    }
}

#[test]
fn disks_fill_to_the_same_share() {
    // Twelve disks, of which four are four times as large.
    let mut view = pool(&[1; 12]);
    for (index, disk) in view.disks.iter_mut().enumerate() {
        disk.free_bytes = if index < 4 { 4_000_000 } else { 1_000_000 };
        disk.capacity_bytes = disk.free_bytes;
    }
    let mut rng = StdRng::seed_from_u64(3);
    for _ in 0..400 {
        let slots = draw(&all(&view), scheme("1+2"), true, &mut rng).unwrap();
        for slot in slots {
            let disk = view.disks.iter_mut().find(|disk| disk.id == slot).unwrap();
            disk.free_bytes -= 10_000;
        }
    }
    // Half of all bytes are used: 12 of 24 MB.
    for disk in &view.disks {
        let share = 1.0 - disk.free_bytes as f64 / disk.capacity_bytes as f64;
        assert!(
            (0.35..0.65).contains(&share),
            "{share} of {}",
            disk.capacity_bytes
        );
    }
}

#[test]
fn load_and_errors_discount() {
    let calm = disk(1, "a");
    let mut busy = disk(2, "a");
    busy.load = 32;
    let mut failing = disk(3, "a");
    failing.errors = 2;
    assert_eq!(weight(&busy), weight(&calm) / 2.0);
    assert_eq!(weight(&failing), weight(&calm) / 2.0);
}

#[test]
fn the_first_slot_moves() {
    let view = pool(&[1; 6]);
    let mut rng = StdRng::seed_from_u64(11);
    let mut first: BTreeMap<DiskId, u32> = BTreeMap::new();
    for _ in 0..600 {
        let slots = draw(&all(&view), scheme("4+2"), true, &mut rng).unwrap();
        *first.entry(slots[0]).or_default() += 1;
    }
    assert_eq!(first.len(), 6);
    assert!(
        first.values().all(|count| (60..150).contains(count)),
        "{first:?}"
    );
}

proptest! {
    #[test]
    fn a_draw_keeps_the_rules(
        servers in prop::collection::vec(1..6_usize, 1..9),
        data in 1..=8_u8,
        parity in 1..=4_u8,
        seed: u64,
    ) {
        let view = pool(&servers);
        let scheme = Scheme::new(data, parity).unwrap();
        let several = servers.len() > 1;
        let count = ServerCount { disks: servers, several };
        let drawn = draw(&all(&view), scheme, several, &mut StdRng::seed_from_u64(seed));
        prop_assert_eq!(drawn.is_ok(), fits(&count, scheme));
        let Ok(slots) = drawn else { return Ok(()) };

        prop_assert_eq!(slots.len(), usize::from(scheme.slots()));
        let mut distinct = slots.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), slots.len());
        let on = per_server(&view, &slots);
        let most = on.values().max().copied().unwrap();
        prop_assert!(!several || most <= usize::from(parity));
        if most * 2 <= slots.len() {
            let server = |slot: usize| view.disk(slots[slot % slots.len()]).unwrap().server.clone();
            for slot in 0..slots.len() {
                prop_assert_ne!(server(slot), server(slot + 1), "slots {:?}", slots);
            }
        }
    }
}

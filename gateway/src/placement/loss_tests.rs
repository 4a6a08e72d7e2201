//! Tests of what may be lost.

use proptest::prelude::*;

use super::super::view::samples::pool;
use super::*;

fn group(scheme: &str, slots: &[u128]) -> GroupFacts {
    GroupFacts {
        scheme: scheme.parse().unwrap(),
        slots: slots.iter().map(|id| DiskId(*id)).collect(),
    }
}

fn kill(view: &mut PoolView, ids: &[u128]) {
    for disk in &mut view.disks {
        disk.living &= !ids.contains(&disk.id.0);
    }
}

/// The words for `groups` on servers of so many disks, some of them dead.
fn words(servers: &[usize], dead: &[u128], groups: &[GroupFacts]) -> Vec<String> {
    let mut view = pool(servers);
    kill(&mut view, dead);
    loss(&view, groups).in_words()
}

#[test]
fn words_of_whole_pools() {
    let six = group("4+2", &[1, 2, 3, 4, 5, 6]);
    let pair = group("1+1", &[1, 2]);
    let one = group("1+0", &[1]);
    for (servers, groups, expected) in [
        (&[6][..], vec![six.clone()], "any 2 disks"),
        (&[2, 2, 2], vec![six.clone()], "any 2 disks, any 1 server"),
        (&[1; 6], vec![six.clone()], "any 2 disks, any 2 servers"),
        (&[6], vec![six, pair], "any 1 disk"),
        (
            &[1],
            vec![one],
            "nothing may be lost: there is one copy of everything",
        ),
    ] {
        assert_eq!(words(servers, &[], &groups), [expected], "{servers:?}");
    }
}

#[test]
fn words_of_pools_with_missing_disks() {
    let six = [group("4+2", &[1, 2, 3, 4, 5, 6])];
    for (servers, dead, expected) in [
        (
            &[1; 6][..],
            &[3][..],
            "any 1 more disk, any 1 more server; 1 disk missing",
        ),
        (&[2, 2, 2], &[3], "any 1 more disk; 1 disk missing"),
        (
            &[6],
            &[3, 4],
            "no further disk may be lost; 2 disks missing",
        ),
        (
            &[6],
            &[3, 4, 5],
            "1 group cannot be read: too many of its disks are missing; \
             no further disk may be lost; 3 disks missing",
        ),
    ] {
        let expected = format!("{expected} now: this is already taken off");
        assert_eq!(
            words(servers, dead, &six).join("; "),
            expected,
            "{servers:?} without {dead:?}"
        );
    }
}

#[test]
fn disks_of_one_device_are_named() {
    let mut view = pool(&[6]);
    for disk in &mut view.disks {
        disk.device = Some(1);
    }
    let words = loss(&view, &[group("4+2", &[1, 2, 3, 4, 5, 6])]).in_words();
    assert_eq!(
        words,
        ["any 2 disks", "6 disks on one device: its loss loses all"]
    );
    // Two of six on one device are within the scheme's tolerance.
    for disk in &mut view.disks[2..] {
        disk.device = Some(disk.id.0 as u64);
    }
    let words = loss(&view, &[group("4+2", &[1, 2, 3, 4, 5, 6])]).in_words();
    assert_eq!(words, ["any 2 disks"]);
}

#[test]
fn a_disk_declared_lost_is_missing() {
    let mut view = pool(&[6]);
    view.disks.pop();
    let found = loss(&view, &[group("4+2", &[1, 2, 3, 4, 5, 6])]);
    assert_eq!((found.disks, found.missing_disks), (1, 1));
}

proptest! {
    #[test]
    fn what_is_promised_is_kept(
        servers in prop::collection::vec(1..3_usize, 3..6),
        parity in 1..4_u8,
        dead in 0..2_u128,
        gone in prop::collection::btree_set(1..12_u128, 0..4),
    ) {
        let mut view = pool(&servers);
        let ids: Vec<u128> = (1..=view.disks.len() as u128).collect();
        let scheme = Scheme::new(2, parity).unwrap();
        let slots = usize::from(scheme.slots());
        prop_assume!(ids.len() >= slots);
        let groups: Vec<_> = ids
            .windows(slots)
            .map(|ids| GroupFacts { scheme, slots: ids.iter().map(|id| DiskId(*id)).collect() })
            .collect();
        kill(&mut view, &(1..=dead).collect::<Vec<_>>());
        let promised = loss(&view, &groups);
        prop_assume!(promised.unreadable == 0);

        let extra: Vec<u128> = gone.into_iter().filter(|id| *id > dead).take(promised.disks).collect();
        let mut after = view.clone();
        kill(&mut after, &extra);
        prop_assert_eq!(loss(&after, &groups).unreadable, 0);

        let names: BTreeSet<String> = view.disks.iter().map(|disk| disk.server.clone()).collect();
        for name in names.iter().take(promised.servers) {
            for disk in &mut view.disks {
                disk.living &= disk.server != *name;
            }
        }
        prop_assert_eq!(loss(&view, &groups).unreadable, 0);
    }
}

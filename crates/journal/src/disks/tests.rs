//! The table of PROTOCOL.md 1 row by row, and properties of every choice.

use proptest::prelude::*;

use super::*;

fn disks(servers: &[usize]) -> Vec<Candidate> {
    let mut all = Vec::new();
    for (server, count) in servers.iter().enumerate() {
        for _ in 0..*count {
            let id = all.len() as u128 + 1;
            all.push(Candidate {
                disk: DiskId(id),
                server: server as u128,
                device: id,
            });
        }
    }
    all
}

fn ids(range: std::ops::RangeInclusive<u128>) -> Vec<DiskId> {
    range.map(DiskId).collect()
}

struct Row {
    disks: std::ops::RangeInclusive<usize>,
    parity: usize,
    journal: usize,
    target: usize,
    least: usize,
    /// Disks that may be lost at once while writes go on.
    survives: usize,
}

const fn row(
    disks: std::ops::RangeInclusive<usize>,
    parity: usize,
    journal: usize,
    (target, least): (usize, usize),
    survives: usize,
) -> Row {
    Row {
        disks,
        parity,
        journal,
        target,
        least,
        survives,
    }
}

const TABLE: [Row; 7] = [
    row(1..=1, 0, 1, (1, 1), 0),
    row(2..=2, 1, 2, (2, 2), 0),
    row(3..=3, 2, 3, (3, 2), 1),
    row(4..=4, 2, 3, (3, 2), 1),
    row(5..=8, 2, 5, (3, 3), 2),
    row(9..=11, 3, 7, (4, 4), 3),
    row(12..=40, 4, 9, (5, 5), 4),
];

#[test]
fn each_row_of_the_table() {
    for row in &TABLE {
        for count in row.disks.clone() {
            let all = disks(&[count]);
            let journal = choose_journal(&all, &[], row.parity);
            assert_eq!(journal.len(), row.journal, "{count} disks");
            let sizes = segment_size(journal.len(), row.parity);
            assert_eq!(sizes, (row.target, row.least), "{count} disks");
            let placed: Vec<Candidate> = all
                .into_iter()
                .filter(|disk| journal.contains(&disk.disk))
                .collect();
            for lost in 0..=journal.len() {
                let members = choose_members(&placed, &journal[lost..], row.parity, &[]);
                assert_eq!(
                    members.is_some(),
                    lost <= row.survives,
                    "{count}, {lost} lost"
                );
                if let Some(members) = members {
                    let expected = row.target.min(journal.len() - lost);
                    assert_eq!(members.len(), expected);
                    assert!(is_majority(&journal, &members));
                }
            }
        }
    }
}

/// Four disks go on after two losses one after another: the journal disk that
/// is lost is replaced before the next.
#[test]
fn four_disks_go_on_after_two_losses_one_after_another() {
    let all = disks(&[4]);
    let first = choose_journal(&all, &[], 2);
    let left: Vec<Candidate> = all.into_iter().filter(|d| d.disk != first[0]).collect();
    let second = choose_journal(&left, &first, 2);
    assert!(!second.contains(&first[0]) && second.len() == 3);
    let living: Vec<DiskId> = second[1..].to_vec();
    let usable: Vec<DiskId> = left.iter().map(|disk| disk.disk).collect();
    assert!(choose_members_for_change(&left, (&first, &second), &usable, 2, &[]).is_some());
    assert!(choose_members(&left, &living, 2, &[]).is_some());
}

#[test]
fn journal_disks_are_spread_over_servers() {
    for (servers, parity, expected) in [
        (&[5, 1, 1][..], 3, 3), // no server has half of what the others have
        (&[3, 3, 3], 3, 7),
        (&[2, 2], 2, 3),
        (&[1, 1, 1, 1, 1, 1], 2, 5),
        (&[10, 1], 2, 5),
    ] {
        let all = disks(servers);
        let journal = choose_journal(&all, &[], parity);
        assert_eq!(journal.len(), expected, "{servers:?}");
        let on = |server: usize| {
            let there =
                |disk: &&Candidate| disk.server == server as u128 && journal.contains(&disk.disk);
            all.iter().filter(there).count()
        };
        for server in 0..servers.len() {
            assert!(
                on(server) >= 1 || journal.len() < servers.len(),
                "{servers:?}"
            );
            if servers.len() >= 3 {
                let others = journal.len() - on(server);
                assert!(others >= majority(journal.len()), "{servers:?}");
            }
        }
    }
}

#[test]
fn members_are_never_all_on_one_server_of_two() {
    let all = disks(&[2, 1]);
    let members = choose_members(&all, &ids(1..=3), 1, &[]).unwrap();
    assert!(members.contains(&DiskId(3)), "{members:?}");
    assert_eq!(choose_members(&all, &ids(1..=2), 1, &[]), None);
    let one = disks(&[3]);
    assert!(choose_members(&one, &ids(1..=2), 1, &[]).is_some());
}

/// The segment that a change begins with goes on behind it.
#[test]
fn members_of_a_change_are_not_all_on_one_server_of_two() {
    let all = disks(&[3, 2]);
    let members = |new: &[u128], usable: &[u128], lost: &[u128]| {
        let of = |ids: &[u128]| ids.iter().copied().map(DiskId).collect::<Vec<_>>();
        let sets = (&of(&[1, 2, 4])[..], &of(new)[..]);
        let members = choose_members_for_change(&all, sets, &of(usable), 1, &of(lost));
        members.map(|members| members.iter().map(|disk| disk.0).collect::<Vec<_>>())
    };
    // The first two would be enough of both sets.
    assert_eq!(members(&[1, 2, 5], &[1, 2, 3, 5], &[]), Some(vec![1, 2, 5]));
    assert_eq!(members(&[1, 2, 5], &[1, 2, 3], &[]), None);
    // The other server is gone: the change is what writes go on by.
    assert_eq!(members(&[1, 2, 3], &[1, 2, 3], &[]), Some(vec![1, 2]));
    assert_eq!(members(&[1, 2, 5], &[1, 2, 3], &[5]), Some(vec![1, 2]));
}

#[test]
fn another_device_comes_before_a_second_disk_of_one() {
    let mut all = disks(&[5]);
    for disk in &mut all[..3] {
        disk.device = 1;
    }
    let members = choose_members(&all, &ids(1..=5), 2, &[]).unwrap();
    assert_eq!(members, [DiskId(1), DiskId(4), DiskId(5)]);
    let members = choose_members(&all, &ids(1..=3), 2, &[]).unwrap();
    assert_eq!(members, ids(1..=3));
}

#[test]
fn without_a_majority_all_others_must_be_named_lost() {
    let map = JournalMap {
        number: 1,
        disks: ids(1..=5),
        old: None,
    };
    assert_eq!(check_quorum(&map, &ids(3..=5), &[]), Ok(()));
    let refused = check_quorum(&map, &ids(4..=5), &ids(1..=2));
    assert_eq!(
        refused,
        Err(Refusal::NoMajority {
            answered: 2,
            journal: 5,
            missing: vec![DiskId(3)]
        })
    );
    assert_eq!(check_quorum(&map, &ids(4..=5), &ids(1..=3)), Ok(()));
    assert!(check_quorum(&map, &[], &ids(1..=5)).is_err());
    let changing = JournalMap {
        old: Some(ids(6..=8)),
        ..map
    };
    assert!(check_quorum(&changing, &ids(3..=6), &[]).is_err());
    assert_eq!(check_quorum(&changing, &ids(3..=7), &[]), Ok(()));
}

/// Who knows only the old map would start on the old journal disks, and who
/// knows the new one on the new.
#[test]
fn a_map_counts_on_a_majority_of_the_old_and_of_the_new() {
    let settled = JournalMap {
        number: 3,
        disks: ids(3..=5),
        old: None,
    };
    for (disks, enough) in [(3..=3, false), (1..=3, false), (3..=4, true)] {
        assert_eq!(
            settled.has_enough(&ids(disks.clone()), &[]),
            enough,
            "{disks:?}"
        );
    }
    let changing = JournalMap {
        old: Some(ids(1..=3)),
        ..settled
    };
    for (disks, enough) in [
        (3..=3, false),
        (3..=5, false),
        (1..=3, false),
        (2..=4, true),
    ] {
        assert_eq!(
            changing.has_enough(&ids(disks.clone()), &[]),
            enough,
            "{disks:?}"
        );
    }
}

#[test]
fn maps_are_followed_until_none_is_newer() {
    let map = |number, disks, old| JournalMap { number, disks, old };
    let first = map(1, ids(1..=3), None);
    let second = map(2, ids(2..=4), Some(ids(1..=3)));
    let third = map(3, ids(2..=4), None);
    let seen = |held: &[(u128, &JournalMap)]| -> BTreeMap<DiskId, JournalMap> {
        held.iter()
            .map(|(id, map)| (DiskId(*id), (*map).clone()))
            .collect()
    };
    let asked = ids(1..=3);
    assert_eq!(follow_maps(&BTreeMap::new(), &asked), None);
    let settled = seen(&[(1, &first), (2, &first)]);
    assert_eq!(
        follow_maps(&settled, &asked),
        Some(MapStep::Settled(first.clone()))
    );
    let newer = seen(&[(1, &first), (2, &second)]);
    assert_eq!(follow_maps(&newer, &asked), Some(MapStep::Ask(ids(4..=4))));
    assert_eq!(
        follow_maps(&newer, &ids(1..=4)),
        Some(MapStep::Complete(second))
    );
    let alone = seen(&[(1, &first), (2, &third)]);
    assert_eq!(
        follow_maps(&alone, &ids(1..=4)),
        Some(MapStep::Complete(third.clone()))
    );
    let held = seen(&[(4, &third), (2, &third)]);
    assert_eq!(
        follow_maps(&held, &ids(1..=4)),
        Some(MapStep::Settled(third))
    );
}

proptest! {
    #[test]
    fn a_change_has_majorities_of_both(
        old in 1u128..6, shift in 0u128..4, count in 1u128..6, down in proptest::collection::vec(1u128..12, 0..4),
        parity in 0usize..4,
    ) {
        let (old, new) = (ids(1..=old), ids(1 + shift..=shift + count));
        let usable: Vec<DiskId> = ids(1..=12).into_iter().filter(|d| !down.contains(&d.0)).collect();
        let possible = is_majority(&old, &usable) && is_majority(&new, &usable);
        let members = choose_members_for_change(&disks(&[12]), (&old, &new), &usable, parity, &[]);
        prop_assert_eq!(members.is_some(), possible);
        for member in members.unwrap_or_default() {
            prop_assert!(usable.contains(&member));
        }
    }

    #[test]
    fn members_are_a_majority_and_usable(
        servers in proptest::collection::vec(1usize..5, 1..5), parity in 0usize..5, down in any::<u64>(),
    ) {
        let all = disks(&servers);
        let journal = choose_journal(&all, &[], parity);
        let placed: Vec<Candidate> = all.into_iter().filter(|d| journal.contains(&d.disk)).collect();
        let usable: Vec<DiskId> = journal.iter().copied().filter(|d| down >> d.0 & 1 == 0).collect();
        if let Some(members) = choose_members(&placed, &usable, parity, &[]) {
            prop_assert!(is_majority(&journal, &members));
            prop_assert!(members.iter().all(|member| usable.contains(member)));
            let distinct: BTreeSet<_> = members.iter().collect();
            prop_assert_eq!(distinct.len(), members.len());
        } else {
            let on: BTreeSet<u128> = placed.iter().filter(|d| usable.contains(&d.disk)).map(|d| d.server).collect();
            let all_on: BTreeSet<u128> = placed.iter().map(|d| d.server).collect();
            prop_assert!(usable.len() < majority(journal.len()) || (on.len() < 2 && all_on.len() > 1));
        }
    }
}

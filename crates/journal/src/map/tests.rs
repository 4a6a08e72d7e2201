//! Tests of the pool map: its bytes, and which of several counts.

use super::*;

fn map(number: u64, epoch: u64, journal: &[u128]) -> PoolMap {
    PoolMap {
        number,
        epoch: Epoch {
            number: epoch,
            instance: InstanceId(7),
        },
        cluster: ClusterId(1),
        lineage: LineageId(2),
        journal: journal.iter().copied().map(DiskId).collect(),
        old: None,
        disks: vec![
            MapDisk {
                id: DiskId(1),
                agent: None,
                path: "/srv/one".into(),
                server: "here".into(),
                site: String::new(),
                medium: Medium::Flash,
                state: MapDiskState::Member,
            },
            MapDisk {
                id: DiskId(2),
                agent: Some(AgentId(9)),
                path: "/srv/zwei \u{fc}".into(),
                server: "there".into(),
                site: "east".into(),
                medium: Medium::Rotating,
                state: MapDiskState::Lost,
            },
        ],
    }
}

#[test]
fn maps_come_back_and_others_are_refused() {
    let changing = PoolMap {
        old: Some(vec![DiskId(4), DiskId(5)]),
        ..map(3, 2, &[1, 2, 3])
    };
    for map in [map(1, 1, &[]), changing] {
        let bytes = map.encode();
        assert_eq!(PoolMap::decode(&bytes), Ok(map));
        for len in 0..bytes.len() {
            assert!(PoolMap::decode(&bytes[..len]).is_err(), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(PoolMap::decode(&longer).is_err());
    }
    assert_eq!(PoolMap::decode(&[2, 0, 0]), Err(MapError::Version(2)));
}

/// The format: it never changes under its version.
#[test]
fn the_bytes_are_as_described() {
    let bytes = map(1, 2, &[1]).encode();
    let mut expected = vec![1u8];
    expected.extend(1u64.to_be_bytes());
    expected.extend(2u64.to_be_bytes());
    for id in [7u128, 1, 2] {
        expected.extend(id.to_be_bytes());
    }
    expected.push(1);
    expected.extend(1u128.to_be_bytes());
    expected.extend([0, 0, 0, 0, 0, 2]);
    expected.extend(1u128.to_be_bytes());
    expected.push(0);
    expected.extend(0u128.to_be_bytes());
    expected.extend(8u32.to_be_bytes());
    expected.extend(b"/srv/one");
    assert_eq!(&bytes[..expected.len()], expected);
}

fn seen(of: &[(u128, Option<PoolMap>)]) -> Maps {
    of.iter()
        .map(|(disk, map)| (DiskId(*disk), map.clone()))
        .collect()
}

#[test]
fn the_newest_is_followed_and_completed() {
    let asked: Vec<DiskId> = (1..=3).map(DiskId).collect();
    assert_eq!(follow(&seen(&[(1, None), (2, None)]), &asked), None);
    let one = map(1, 1, &[1, 2, 3]);
    let two = map(2, 1, &[1, 2, 3]);
    let partly = seen(&[(1, Some(two.clone())), (2, Some(one.clone())), (3, None)]);
    let (found, step) = follow(&partly, &asked).unwrap();
    assert_eq!(found, two);
    assert_eq!(step, MapStep::Complete(two.journal_map()));
    let both = seen(&[
        (1, Some(two.clone())),
        (2, Some(two.clone())),
        (3, Some(one)),
    ]);
    let settled = Some((two.clone(), MapStep::Settled(two.journal_map())));
    assert_eq!(follow(&both, &asked), settled);
    let moved = map(3, 1, &[4, 5, 6]);
    let away = seen(&[(1, Some(moved)), (2, Some(two))]);
    let (_, step) = follow(&away, &asked).unwrap();
    assert_eq!(step, MapStep::Ask(vec![DiskId(4), DiskId(5), DiskId(6)]));
}

/// A gateway wrote map 3 to one disk and was fenced; the next did not see it
/// and wrote its own map 3. Both are then seen: the first never counted.
#[test]
fn of_two_maps_of_one_number_the_one_of_the_higher_epoch_counts() {
    let asked: Vec<DiskId> = (1..=3).map(DiskId).collect();
    let never = map(3, 1, &[1, 4, 5]);
    let counts = map(3, 2, &[1, 2, 3]);
    for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        let maps = seen(&[
            (order[0], Some(never.clone())),
            (order[1], Some(counts.clone())),
            (order[2], Some(counts.clone())),
        ]);
        let settled = MapStep::Settled(counts.journal_map());
        assert_eq!(follow(&maps, &asked), Some((counts.clone(), settled)));
        let maps = seen(&[
            (order[0], Some(never.clone())),
            (order[1], Some(counts.clone())),
        ]);
        let complete = MapStep::Complete(counts.journal_map());
        assert_eq!(follow(&maps, &asked), Some((counts.clone(), complete)));
    }
}

//! Which scheme a pool can have.
//!
//! Owns `auto`, the test whether a scheme fits, and the narrower scheme for a
//! pool with fewer living disks than the scheme needs (PROTOCOL.md 5).
//! Invariant: a group is never of fewer than two disks where the pool has two.

use shardgate_erasure::Scheme;

use super::view::{PoolView, ServerCount};
use shardgate_wire::Medium;

/// What `auto` chooses from: the last that fits.
pub const AUTO_SCHEMES: [(u8, u8); 8] = [
    (1, 0),
    (1, 1),
    (1, 2),
    (2, 2),
    (3, 2),
    (4, 2),
    (6, 3),
    (8, 4),
];

/// Most slots of a group that may lie on one server.
///
/// m where there is more than one server, so that losing one loses nothing;
/// a scheme without parity has nothing to keep, and one slot.
pub fn slots_per_server(scheme: Scheme, several_servers: bool) -> usize {
    if several_servers {
        usize::from(scheme.parity()).max(1)
    } else {
        usize::from(scheme.slots())
    }
}

/// Whether a group of `scheme` can be laid on these disks.
pub fn fits(count: &ServerCount, scheme: Scheme) -> bool {
    let cap = slots_per_server(scheme, count.several);
    let usable: usize = count.disks.iter().map(|disks| *disks.min(&cap)).sum();
    usable >= usize::from(scheme.slots())
}

/// The scheme of `auto` for these disks; `None` for none.
pub fn auto_scheme(count: &ServerCount) -> Option<Scheme> {
    AUTO_SCHEMES
        .iter()
        .rev()
        .map(|(data, parity)| Scheme::new(*data, *parity).expect("the table has valid schemes"))
        .find(|scheme| fits(count, *scheme))
}

/// The scheme over the `living` disks for a class of `scheme` that does not
/// fit them: the same m and the largest k that fits, then copies with a
/// smaller m, never fewer than two disks.
///
/// `None` when fewer than two disks live, or all that do are on one server
/// of three or more.
pub fn narrow_scheme(living: &ServerCount, scheme: Scheme) -> Option<Scheme> {
    let same_tolerance = (1..=scheme.data())
        .rev()
        .filter_map(|data| Scheme::new(data, scheme.parity()).ok());
    let copies = (1..scheme.parity())
        .rev()
        .filter_map(|parity| Scheme::new(1, parity).ok());
    same_tolerance
        .chain(copies)
        .filter(|narrow| narrow.slots() >= 2)
        .find(|narrow| fits(living, *narrow))
}

/// What a class of the scheme `wanted` (`None`: auto) has in a pool of these
/// members, when all of them live: `wanted` where it fits, else the nearest
/// that does; a pool of one disk has 1+0.
pub fn effective_scheme(members: &ServerCount, wanted: Option<Scheme>) -> Option<Scheme> {
    let Some(wanted) = wanted else {
        return auto_scheme(members);
    };
    if fits(members, wanted) {
        return Some(wanted);
    }
    narrow_scheme(members, wanted).or((members.total() == 1).then_some(Scheme::SINGLE))
}

/// [`effective_scheme`] of a class in a pool: of its medium, or of the medium
/// that gives the largest scheme.
///
/// A group has disks of one medium only, so a class that names none is laid
/// over the media on which this scheme fits.
pub fn class_scheme(
    view: &PoolView,
    wanted: Option<Scheme>,
    medium: Option<Medium>,
) -> Option<Scheme> {
    view.media()
        .into_iter()
        .filter(|of| medium.is_none_or(|medium| medium == *of))
        .filter_map(|of| effective_scheme(&view.of_medium(Some(of)).by_server(|_| true), wanted))
        .max_by_key(|scheme| (scheme.slots(), scheme.parity()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::view::samples::pool;
    use super::*;

    fn count(servers: &[usize]) -> ServerCount {
        pool(servers).by_server(|_| true)
    }

    fn scheme(text: &str) -> Scheme {
        text.parse().unwrap()
    }

    #[test]
    fn auto_is_the_last_that_fits() {
        for (servers, expected) in [
            (&[1][..], "1+0"),
            (&[2], "1+1"),
            (&[3], "1+2"),
            (&[4], "2+2"),
            (&[5], "3+2"),
            (&[6], "4+2"),
            (&[8], "4+2"),
            (&[9], "6+3"),
            (&[11], "6+3"),
            (&[12], "8+4"),
            (&[40], "8+4"),
            (&[1, 1], "1+1"),
            (&[6, 1], "1+2"),
            (&[6, 6], "2+2"),
            (&[1, 1, 1], "1+2"),
            (&[2, 2, 2], "4+2"),
            (&[4, 4, 4], "8+4"),
            (&[3, 3, 3], "6+3"),
            (&[1, 1, 1, 1, 1, 1], "4+2"),
            (&[20, 1, 1, 1, 1], "4+2"),
            (&[4, 4], "2+2"),
        ] {
            assert_eq!(
                auto_scheme(&count(servers)),
                Some(scheme(expected)),
                "{servers:?}"
            );
        }
        assert_eq!(auto_scheme(&ServerCount::default()), None);
    }

    #[test]
    fn fewer_living_disks_narrow_the_scheme() {
        for (wanted, servers, expected) in [
            ("4+2", &[4][..], Some("2+2")),
            ("4+2", &[5], Some("3+2")),
            ("4+2", &[3], Some("1+2")),
            ("4+2", &[2], Some("1+1")),
            ("4+2", &[1], None),
            ("4+2", &[], None),
            ("8+4", &[11], Some("7+4")),
            ("8+4", &[4], Some("1+3")),
            ("1+1", &[1], None),
            ("1+2", &[2], Some("1+1")),
            ("4+2", &[2, 2], Some("2+2")),
            ("4+2", &[2, 2, 1], Some("3+2")),
            ("4+2", &[4, 1], Some("1+2")),
            ("6+3", &[5, 1], Some("1+3")),
        ] {
            assert_eq!(
                narrow_scheme(&count(servers), scheme(wanted)),
                expected.map(scheme),
                "{wanted} on {servers:?}"
            );
        }
    }

    #[test]
    fn what_lives_of_three_servers_never_lies_on_one() {
        let dead_from = |servers: &[usize], first: usize| {
            let mut view = pool(servers);
            for disk in &mut view.disks[first..] {
                disk.living = false;
            }
            view.living_by_server()
        };
        // Of two servers, one may go on: no promise covers a server there.
        let of_two = dead_from(&[4, 4], 4);
        assert_eq!(of_two.disks, [4]);
        assert_eq!(narrow_scheme(&of_two, scheme("2+2")), Some(scheme("2+2")));
        let of_three = dead_from(&[4, 4, 4], 4);
        assert_eq!(of_three.disks, [4]);
        assert_eq!(narrow_scheme(&of_three, scheme("8+4")), None);
        let two_of_three = dead_from(&[2, 2, 2], 4);
        assert_eq!(
            narrow_scheme(&two_of_three, scheme("4+2")),
            Some(scheme("2+2"))
        );
    }

    #[test]
    fn a_scheme_too_large_for_the_pool_is_the_nearest_that_fits() {
        assert_eq!(
            effective_scheme(&count(&[6]), Some(scheme("8+4"))),
            Some(scheme("2+4"))
        );
        assert_eq!(
            effective_scheme(&count(&[1]), Some(scheme("1+1"))),
            Some(Scheme::SINGLE)
        );
        assert_eq!(effective_scheme(&count(&[]), Some(scheme("1+1"))), None);
    }

    #[test]
    fn a_class_without_medium_takes_the_one_with_the_larger_scheme() {
        let mut view = pool(&[8]);
        view.disks[0].medium = Medium::Rotating;
        view.disks[1].medium = Medium::Rotating;
        assert_eq!(class_scheme(&view, None, None), Some(scheme("4+2")));
        assert_eq!(
            class_scheme(&view, None, Some(Medium::Rotating)),
            Some(scheme("1+1"))
        );
    }

    proptest! {
        #[test]
        fn narrow_schemes_fit_and_never_promise_more(
            servers in prop::collection::vec(1..8_usize, 1..8),
            data in 1..=16_u8,
            parity in 1..=8_u8,
        ) {
            let living = count(&servers);
            let wanted = Scheme::new(data, parity).unwrap();
            match narrow_scheme(&living, wanted) {
                Some(narrow) => {
                    prop_assert!(fits(&living, narrow));
                    prop_assert!(narrow.data() <= data && narrow.parity() <= parity);
                    prop_assert!(narrow.slots() >= 2);
                    prop_assert!(narrow.parity() == parity || narrow.is_copies());
                }
                None => prop_assert!(living.total() < 2),
            }
        }

        #[test]
        fn auto_fits_and_more_disks_never_give_less(
            servers in prop::collection::vec(1..8_usize, 1..8),
        ) {
            let before = count(&servers);
            let chosen = auto_scheme(&before).unwrap();
            prop_assert!(fits(&before, chosen));
            let mut more = servers.clone();
            more[0] += 1;
            prop_assert!(auto_scheme(&count(&more)).unwrap().slots() >= chosen.slots());
        }
    }
}

//! Histories that can have happened and histories that cannot, as tables;
//! and the search compared with trying every order.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;

use super::history::{Asked, Life, Record, Told, When};
use super::listing::{Listing, torn};
use super::{Found, Held, Op, check};
use crate::random;

fn put(begun: u64, ended: u64, number: u64) -> Op {
    put_when(begun, ended, number, Found::Anything)
}

fn put_when(begun: u64, ended: u64, number: u64, found: Found) -> Op {
    Op {
        begun,
        ended,
        found,
        leaves: Some(Some(number)),
        certain: true,
    }
}

fn new(begun: u64, ended: u64, number: u64) -> Op {
    put_when(begun, ended, number, Found::Exactly(None))
}

fn over(begun: u64, ended: u64, number: u64, held: u64) -> Op {
    put_when(begun, ended, number, Found::Exactly(Some(held)))
}

fn delete(begun: u64, ended: u64) -> Op {
    Op {
        leaves: Some(None),
        ..put(begun, ended, 0)
    }
}

fn maybe(op: Op) -> Op {
    Op {
        certain: false,
        ..op
    }
}

fn saw(begun: u64, ended: u64, found: Found) -> Op {
    Op {
        begun,
        ended,
        found,
        leaves: None,
        certain: true,
    }
}

fn read(begun: u64, ended: u64, held: impl Into<Held>) -> Op {
    saw(begun, ended, Found::Exactly(held.into()))
}

#[test]
fn what_can_have_happened_is_accepted() {
    let table: &[(&str, &[Op])] = &[
        ("nothing at all", &[]),
        ("nothing is there at first", &[read(1, 2, None)]),
        ("one after another", &[put(1, 2, 1), read(3, 4, 1)]),
        (
            "a read beside a write sees the old",
            &[put(1, 2, 1), put(3, 6, 2), read(4, 5, 1), read(7, 8, 2)],
        ),
        (
            "a read beside a write sees the new, and its answer comes first",
            &[put(1, 2, 1), put(3, 9, 2), read(4, 5, 2), read(6, 7, 2)],
        ),
        (
            "the later answer is not the later write",
            &[put(1, 5, 1), put(2, 6, 2), read(7, 8, 1)],
        ),
        (
            "touching times are together",
            &[put(1, 2, 1), put(2, 3, 2), read(4, 5, 1)],
        ),
        (
            "one of two creations wins",
            &[new(1, 4, 1), saw(2, 5, Found::Something), read(6, 7, 1)],
        ),
        (
            "a creation beside a deletion may come before and after it",
            &[new(1, 2, 1), delete(3, 8), new(4, 7, 2), read(9, 10, 2)],
        ),
        (
            "a chain of swaps that only one order explains",
            &[
                put(1, 2, 1),
                over(3, 20, 4, 3),
                over(3, 20, 3, 2),
                over(3, 20, 2, 1),
                read(21, 22, 4),
            ],
        ),
        (
            "a refused swap while another wins",
            &[
                put(1, 2, 1),
                over(3, 6, 2, 1),
                saw(4, 7, Found::SomethingBut(1)),
            ],
        ),
        (
            "an unknown write is never seen",
            &[put(1, 2, 1), maybe(put(3, 9, 2)), read(10, 11, 1)],
        ),
        (
            "an unknown write is seen late",
            &[
                put(1, 2, 1),
                maybe(put(3, 90, 2)),
                read(4, 5, 1),
                read(50, 51, 2),
                read(100, 101, 2),
            ],
        ),
        (
            "an unknown write lets a condition hold",
            &[maybe(put(1, 9, 1)), over(2, 5, 2, 1), read(10, 11, 2)],
        ),
        (
            "an unknown swap whose condition never held",
            &[put(1, 2, 1), maybe(over(3, 9, 3, 2)), read(10, 11, 1)],
        ),
        (
            "an unknown deletion",
            &[put(1, 2, 1), maybe(delete(3, 9)), read(10, 11, None)],
        ),
    ];
    for (what, ops) in table {
        if let Err(violation) = check(ops) {
            panic!("{what}: {}", violation.explain(ops));
        }
    }
}

#[test]
fn what_cannot_have_happened_is_found() {
    // The last column is the operation that is named.
    let table: &[(&str, &[Op], usize)] = &[
        ("a read out of nowhere", &[read(1, 2, 7)], 0),
        (
            "a lost update: an acknowledged write is not there",
            &[put(1, 2, 1), read(3, 4, None)],
            1,
        ),
        (
            "a lost update: two swaps of one value succeed",
            &[put(1, 2, 1), over(3, 6, 2, 1), over(4, 7, 3, 1)],
            2,
        ),
        (
            "a stale read",
            &[put(1, 2, 1), put(3, 4, 2), read(5, 6, 1)],
            2,
        ),
        (
            "a read that goes back, while the write is under way",
            &[put(1, 2, 1), put(3, 20, 2), read(4, 5, 2), read(6, 7, 1)],
            3,
        ),
        (
            "two readers that disagree on the order of two writes",
            &[put(1, 9, 1), put(1, 9, 2), read(10, 11, 1), read(12, 13, 2)],
            3,
        ),
        (
            "a conditional put that succeeds twice",
            &[new(1, 4, 1), new(2, 5, 2)],
            1,
        ),
        (
            "a creation over what is there",
            &[put(1, 2, 1), new(3, 4, 2)],
            1,
        ),
        (
            "a creation refused over nothing",
            &[put(1, 2, 1), delete(3, 4), saw(5, 6, Found::Something)],
            2,
        ),
        (
            "a swap refused for a value that is there",
            &[put(1, 2, 1), saw(3, 4, Found::SomethingBut(1))],
            1,
        ),
        (
            "a deleted key returns",
            &[put(1, 2, 1), delete(3, 4), read(5, 6, 1)],
            2,
        ),
        (
            "an unknown write is seen, and then not",
            &[
                put(1, 2, 1),
                maybe(put(3, 90, 2)),
                read(4, 5, 2),
                read(6, 7, 1),
            ],
            3,
        ),
        (
            "a write of a dead process takes effect",
            &[
                put(1, 2, 1),
                maybe(put(3, 9, 2)),
                read(10, 11, 1),
                read(12, 13, 2),
            ],
            3,
        ),
        (
            "an unknown swap takes effect without its condition",
            &[put(1, 2, 1), maybe(over(3, 9, 3, 2)), read(4, 5, 3)],
            2,
        ),
    ];
    for (what, ops, at) in table {
        let violation = check(ops).expect_err(what);
        assert_eq!(violation.at, *at, "{what}: {}", violation.explain(ops));
    }
}

/// Tries every order.
fn has_an_order(ops: &[Op]) -> bool {
    fn go(ops: &[Op], left: &[usize], held: Held) -> bool {
        if left.iter().all(|&op| !ops[op].certain) {
            return true;
        }
        for at in 0..left.len() {
            let op = ops[left[at]];
            let must_wait = |&other: &usize| ops[other].certain && ops[other].ended < op.begun;
            // What is uncertain and ended may be left out for ever.
            if left.iter().any(must_wait) || !op.found.fits(held) {
                continue;
            }
            let mut rest = left.to_owned();
            rest.remove(at);
            rest.retain(|&other| ops[other].ended >= op.begun);
            if go(ops, &rest, op.leaves.unwrap_or(held)) {
                return true;
            }
        }
        false
    }
    let all: Vec<_> = (0..ops.len()).collect();
    go(ops, &all, None)
}

fn any_op(rng: &mut StdRng, number: u64) -> Op {
    let begun = rng.random_range(0..20);
    let ended = begun + rng.random_range(1..12);
    let held = |rng: &mut StdRng| rng.random_bool(0.75).then(|| rng.random_range(0..5));
    let op = match rng.random_range(0..8) {
        0..3 => read(begun, ended, held(rng)),
        3 => saw(begun, ended, Found::Something),
        4 => saw(begun, ended, Found::SomethingBut(rng.random_range(0..5))),
        5 => delete(begun, ended),
        6 => put(begun, ended, number),
        _ => put_when(begun, ended, number, Found::Exactly(held(rng))),
    };
    match op.leaves {
        Some(_) if rng.random_bool(0.3) => maybe(op),
        _ => op,
    }
}

#[test]
fn the_search_agrees_with_trying_every_order() {
    let mut rng = random::rng(random::seed("the_search_agrees_with_trying_every_order"));
    let (mut accepted, mut found) = (0, 0);
    for _ in 0..20_000 {
        let count = rng.random_range(1..=7);
        let ops: Vec<_> = (0..count).map(|n| any_op(&mut rng, n % 5)).collect();
        let expected = has_an_order(&ops);
        match check(&ops) {
            Ok(()) => assert!(expected, "accepted what has no order: {ops:#?}"),
            Err(violation) => assert!(!expected, "{}", violation.explain(&ops)),
        }
        *(if expected { &mut accepted } else { &mut found }) += 1;
    }
    assert!(accepted > 1000 && found > 1000, "{accepted} {found}");
}

/// A key of which every operation takes effect at a moment of its own.
fn happened(rng: &mut StdRng, count: u64) -> Vec<Op> {
    let mut held = None;
    let mut ops = Vec::new();
    for number in 0..count {
        let moment = 100 * (number + 4);
        let begun = moment - rng.random_range(0..300);
        let ended = moment + rng.random_range(0..300);
        let op = match (rng.random_range(0..10), held) {
            (0..4, held) => read(begun, ended, held),
            (4, Some(number)) => saw(begun, ended, Found::SomethingBut(number + 1)),
            (5, _) => delete(begun, ended),
            (6, None) => new(begun, ended, number),
            (7, Some(other)) => over(begun, ended, number, other),
            (8, _) => maybe(put(begun, ended, number)),
            _ => put(begun, ended, number),
        };
        if op.certain || rng.random_bool(0.5) {
            held = op.leaves.unwrap_or(held);
        }
        ops.push(op);
    }
    ops
}

#[test]
fn long_histories_are_searched_to_their_end() {
    let mut rng = random::rng(random::seed("long_histories_are_searched_to_their_end"));
    let mut ops = happened(&mut rng, 20_000);
    if let Err(violation) = check(&ops) {
        panic!("{}", violation.explain(&ops));
    }
    // One read near the end of what was overwritten long before.
    let end = ops.iter().map(|op| op.ended).max().expect("there are some");
    ops.push(read(end + 1, end + 2, 3));
    assert_eq!(check(&ops).expect_err("stale").at, 20_000);
}

/// A gateway that answers nothing for long leaves many writes unknown.
#[test]
fn many_unknown_writes_are_searched() {
    let mut ops: Vec<_> = (1..40).map(|n| maybe(put(n, 1000, n))).collect();
    ops.extend((1..35).map(|n| read(100 + 5 * n, 102 + 5 * n, n)));
    check(&ops).expect("one after another");
    // One that was overwritten.
    ops.push(read(900, 901, 4));
    assert_eq!(check(&ops).expect_err("stale").at, ops.len() - 1);
}

fn listing(begun: u64, ended: u64, shown: &[(&str, Held)]) -> Listing {
    let shown = shown.iter().map(|(key, held)| ((*key).to_owned(), *held));
    Listing {
        begun,
        ended,
        shown: shown.collect(),
    }
}

#[test]
fn listings_show_one_moment() {
    let ops = BTreeMap::from([
        (
            "a".to_owned(),
            vec![put(10, 20, 1), put(50, 60, 2), delete(100, 110)],
        ),
        ("b".to_owned(), vec![put(30, 40, 3), put(70, 80, 4)]),
        ("c".to_owned(), vec![maybe(put(200, 300, 5))]),
    ]);
    type Case<'a> = (u64, u64, &'a [(&'a str, Held)], bool);
    let table: &[Case<'_>] = &[
        (1, 2, &[("a", None), ("b", None), ("z", None)], true),
        (1, 500, &[("z", Some(9))], false),
        (41, 42, &[("a", Some(1)), ("b", Some(3))], true),
        // Misses what was acknowledged.
        (41, 42, &[("a", None), ("b", Some(3))], false),
        (41, 42, &[("a", Some(1)), ("b", None)], false),
        // Shows what is overwritten, what is deleted, what is not yet begun.
        (81, 82, &[("a", Some(2)), ("b", Some(3))], false),
        (111, 112, &[("a", Some(2)), ("b", Some(4))], false),
        (41, 42, &[("a", Some(2)), ("b", Some(3))], false),
        (111, 112, &[("a", None), ("b", Some(4))], true),
        // Beside a change it may show either.
        (51, 59, &[("a", Some(1))], true),
        (51, 59, &[("a", Some(2))], true),
        // Each key alone can have been so while it lasted; both never were.
        (41, 200, &[("a", Some(1)), ("b", Some(4))], false),
        (41, 200, &[("a", Some(2)), ("b", Some(3))], true),
        (41, 200, &[("a", None), ("b", Some(3))], false),
        // What is unknown may show, or not.
        (250, 260, &[("c", Some(5))], true),
        (250, 260, &[("c", None)], true),
        (190, 199, &[("c", Some(5))], false),
        (400, 410, &[("c", Some(5)), ("b", Some(4))], true),
        (400, 410, &[("c", None), ("b", Some(4))], true),
    ];
    for (begun, ended, shown, whole) in table {
        let found = torn(&[listing(*begun, *ended, shown)], &ops);
        assert_eq!(found.is_empty(), *whole, "{begun}..{ended} {shown:?}");
    }
}

#[test]
fn answers_become_operations() {
    let lives = [
        Life {
            begun: 0,
            ended: 100,
        },
        Life {
            begun: 110,
            ended: 200,
        },
    ];
    let record = |begun, ended, asked, told| Record {
        begun,
        ended,
        asked,
        told,
    };
    let table = [
        (5, 6, Asked::Read, Told::Held(None), Some(read(5, 6, None))),
        (5, 6, Asked::Read, Told::CutOff, None),
        (5, 6, Asked::Read, Told::Failed, None),
        (
            5,
            6,
            Asked::Put(1, When::Always),
            Told::Done,
            Some(put(5, 6, 1)),
        ),
        (
            5,
            6,
            Asked::Put(1, When::HoldsNothing),
            Told::Done,
            Some(new(5, 6, 1)),
        ),
        (
            5,
            6,
            Asked::Put(1, When::HoldsNothing),
            Told::Refused,
            Some(saw(5, 6, Found::Something)),
        ),
        (
            5,
            6,
            Asked::Put(2, When::Holds(1)),
            Told::Refused,
            Some(saw(5, 6, Found::SomethingBut(1))),
        ),
        (
            5,
            6,
            Asked::Put(2, When::Holds(1)),
            Told::Missing,
            Some(read(5, 6, None)),
        ),
        (5, 6, Asked::Put(2, When::Holds(1)), Told::Disturbed, None),
        (
            5,
            6,
            Asked::Delete(When::Always),
            Told::Done,
            Some(delete(5, 6)),
        ),
        // Failed: it may happen as long as the process lives.
        (
            5,
            6,
            Asked::Put(1, When::Always),
            Told::Failed,
            Some(maybe(put(5, 100, 1))),
        ),
        // Cut off by the death of the process, however late that was noticed.
        (
            98,
            105,
            Asked::Delete(When::Always),
            Told::CutOff,
            Some(maybe(delete(98, 100))),
        ),
        (
            98,
            120,
            Asked::Put(1, When::Always),
            Told::CutOff,
            Some(maybe(put(98, 100, 1))),
        ),
        // Cut off while nobody died.
        (
            5,
            6,
            Asked::Put(1, When::Holds(7)),
            Told::CutOff,
            Some(maybe(over(5, 100, 1, 7))),
        ),
        (
            115,
            120,
            Asked::Put(1, When::Always),
            Told::CutOff,
            Some(maybe(put(115, 200, 1))),
        ),
        // Nobody was there.
        (102, 105, Asked::Put(1, When::Always), Told::NotSent, None),
    ];
    for (begun, ended, asked, told, expected) in table {
        let record = record(begun, ended, asked, told);
        assert_eq!(record.op(&lives), expected, "{record:?}");
    }
}

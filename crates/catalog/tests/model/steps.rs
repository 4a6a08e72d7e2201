//! The random operations.

use proptest::collection::vec;
use proptest::prelude::*;

pub const KEYS: [&str; 4] = ["k", "k/a", "\0", "z"];

/// The bytes of a put.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    Inline(usize),
    Blob { owed: Option<u8>, stale: bool },
}

#[derive(Clone, Copy, Debug)]
pub enum Condition {
    None,
    Absent,
    MatchesHeld,
    MatchesOther,
}

#[derive(Clone, Debug)]
pub enum Step {
    Put(usize, usize, Body, bool, Condition),
    Delete(usize, usize, Condition),
    DeleteMany(usize, Vec<usize>),
    Create(usize, usize, bool),
    PutPart(usize, u16, bool, bool),
    Complete(usize, Vec<u16>, bool),
    Abort(usize),
    DeleteBucket(usize),
    CreateBucket(usize),
    Condemn,
    CondemnHeld(usize, usize),
    Purge(usize),
    MoveGroup,
}

/// Any operation.
pub fn step() -> impl Strategy<Value = Step> {
    let body = prop_oneof![
        (0usize..3).prop_map(Body::Inline),
        (
            prop::option::weighted(0.2, 0u8..3),
            prop::bool::weighted(0.1)
        )
            .prop_map(|(owed, stale)| Body::Blob { owed, stale }),
    ];
    let condition = prop_oneof![
        4 => Just(Condition::None),
        1 => Just(Condition::Absent),
        1 => Just(Condition::MatchesHeld),
        1 => Just(Condition::MatchesOther),
    ];
    let (bucket, key, upload) = (0usize..2, 0usize..4, 0usize..6);
    prop_oneof![
        6 => (bucket.clone(), key.clone(), body, any::<bool>(), condition.clone())
            .prop_map(|(b, k, body, detail, c)| Step::Put(b, k, body, detail, c)),
        2 => (bucket.clone(), key.clone(), condition)
            .prop_map(|(b, k, c)| Step::Delete(b, k, c)),
        1 => (bucket.clone(), vec(key.clone(), 0..4)).prop_map(|(b, k)| Step::DeleteMany(b, k)),
        3 => (bucket.clone(), key.clone(), any::<bool>())
            .prop_map(|(b, k, d)| Step::Create(b, k, d)),
        6 => (upload.clone(), 1u16..5, any::<bool>(), prop::bool::weighted(0.8))
            .prop_map(|(u, n, blob, large)| Step::PutPart(u, n, blob, large)),
        4 => (upload.clone(), vec(1u16..5, 1..4), prop::bool::weighted(0.9))
            .prop_map(|(u, n, sorted)| Step::Complete(u, n, sorted)),
        1 => upload.prop_map(Step::Abort),
        1 => bucket.clone().prop_map(Step::DeleteBucket),
        1 => bucket.clone().prop_map(Step::CreateBucket),
        1 => Just(Step::Condemn),
        1 => (bucket, key).prop_map(|(b, k)| Step::CondemnHeld(b, k)),
        1 => (0usize..6).prop_map(Step::Purge),
        1 => Just(Step::MoveGroup),
    ]
}

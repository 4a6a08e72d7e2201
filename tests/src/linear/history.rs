//! What clients asked and were told, in the terms of the check.
//!
//! A client that was cut off does not know whether its write took effect.
//! What is known: a process that is dead changes nothing any more. So such a
//! write took effect before the death of the process that it was sent to, or
//! never.

use super::{Found, Held, Op};

/// When a write may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Whatever the key holds.
    Always,
    /// `If-None-Match: *`.
    HoldsNothing,
    /// `If-Match` with the ETag of this write.
    Holds(u64),
}

/// What was asked of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// GET or HEAD.
    Read,
    /// PUT of this number.
    Put(u64, When),
    /// DELETE.
    Delete(When),
}

/// What the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Of a read: this.
    Held(Held),
    /// Of a write: done.
    Done,
    /// 412: its condition did not hold.
    Refused,
    /// 404: the condition names what is not there.
    Missing,
    /// 409: it met another write, and changed nothing.
    Disturbed,
    /// That something failed: it may have happened, or still happen.
    Failed,
    /// Nothing: the connection broke, as it does when the process dies.
    CutOff,
    /// Nothing, because there was nobody to connect to.
    NotSent,
}

/// One operation of a client on a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Before it was sent.
    pub begun: u64,
    /// After it was answered.
    pub ended: u64,
    /// What was asked.
    pub asked: Asked,
    /// What was told.
    pub told: Told,
}

/// From before the start of a process to after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Before it was started.
    pub begun: u64,
    /// After it was seen to be dead.
    pub ended: u64,
}

/// When the process was dead that lived at `time`. `lives` are in order, and
/// one after another.
fn death_of(time: u64, lives: &[Life]) -> u64 {
    let started = lives.partition_point(|life| life.begun <= time);
    started.checked_sub(1).map_or(0, |last| lives[last].ended)
}

/// The last death up to `time`.
fn death_before(time: u64, lives: &[Life]) -> Option<u64> {
    let dead = lives.partition_point(|life| life.ended <= time);
    dead.checked_sub(1).map(|last| lives[last].ended)
}

impl When {
    fn found(self) -> Found {
        match self {
            Self::Always => Found::Anything,
            Self::HoldsNothing => Found::Exactly(None),
            Self::Holds(number) => Found::Exactly(Some(number)),
        }
    }

    /// What a write with this condition found that was refused for it.
    fn refused(self) -> Found {
        match self {
            Self::Always => panic!("a write without a condition is not refused for one"),
            Self::HoldsNothing => Found::Something,
            Self::Holds(number) => Found::SomethingBut(number),
        }
    }
}

impl Record {
    /// As the check takes it; `None` if it tells nothing.
    ///
    /// # Panics
    /// The answer is none that this request can have.
    pub fn op(&self, lives: &[Life]) -> Option<Op> {
        let Self { begun, ended, .. } = *self;
        let (when, leaves) = match self.asked {
            Asked::Read => (None, None),
            Asked::Put(number, when) => (Some(when), Some(Some(number))),
            Asked::Delete(when) => (Some(when), Some(None)),
        };
        let found = |found| Op {
            begun,
            ended,
            found,
            leaves: None,
            certain: true,
        };
        let changed = |when: When, ended, certain| Op {
            begun,
            ended,
            found: when.found(),
            leaves,
            certain,
        };
        match (when, self.told) {
            (None, Told::Held(held)) => Some(found(Found::Exactly(held))),
            (None, Told::Failed | Told::CutOff) | (Some(_), Told::Disturbed) => None,
            (_, Told::NotSent) => None,
            (Some(when), Told::Done) => Some(changed(when, ended, true)),
            (Some(when), Told::Refused) => Some(found(when.refused())),
            (Some(When::Holds(_)), Told::Missing) => Some(found(Found::Exactly(None))),
            (Some(when), Told::Failed) => Some(changed(when, death_of(ended, lives), false)),
            (Some(when), Told::CutOff) => {
                // It broke by the last death while it was under way. Should it
                // have broken without one, only the next death is an end.
                let death = death_before(ended, lives).filter(|death| *death >= begun);
                let death = death.unwrap_or_else(|| death_of(ended, lives));
                Some(changed(when, death.max(begun), false))
            }
            (_, told) => panic!("{:?} is not answered {told:?}", self.asked),
        }
    }
}

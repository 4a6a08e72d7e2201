//! Whether what clients were told can have happened in one order: a check of
//! linearizability, for keys that hold the number of a write or nothing.
//!
//! Each key is checked by itself, which is enough for operations on one key
//! ([`check`]); listings are reads of all keys in their range, and besides
//! must show one moment ([`listing`]). Everything here is pure; what is told
//! by a process is put into these terms by [`history`].
//!
//! The search is that of Wing and Gong with Lowe's two savings: operations
//! take effect only when an answer forces them to, and what was reached once
//! (what the key holds, and which of the operations under way have taken
//! effect) is not searched again. A third one is for operations of which it is
//! not known whether they took effect: what is reached with fewer of them can
//! do all that the same with more of them can, and stands for it.

use std::collections::{HashMap, VecDeque};
use std::fmt;

pub mod history;
pub mod listing;
#[cfg(test)]
mod tests;

/// What a key holds: the number of the write that put it there, or nothing.
pub type Held = Option<u64>;

/// Operations under way on one key that the search can tell apart.
pub const MOST_AT_ONCE: usize = 128;

/// What an operation must have found when it took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It says nothing of it.
    Anything,
    /// Exactly this.
    Exactly(Held),
    /// Something.
    Something,
    /// Something, and not this.
    SomethingBut(u64),
}

impl Found {
    fn fits(self, held: Held) -> bool {
        match self {
            Self::Anything => true,
            Self::Exactly(wanted) => held == wanted,
            Self::Something => held.is_some(),
            Self::SomethingBut(other) => held.is_some_and(|number| number != other),
        }
    }
}

/// One operation on one key. Times are of one clock, in any unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Not before this it took effect.
    pub begun: u64,
    /// Not after this.
    pub ended: u64,
    /// What it found.
    pub found: Found,
    /// What it left; `None`: what it found.
    pub leaves: Option<Held>,
    /// Whether it took effect at all is known.
    pub certain: bool,
}

/// No order explains what clients were told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The operation that cannot have taken effect, as a place in the list.
    pub at: usize,
    /// Those that were under way with it.
    pub beside: Vec<usize>,
    /// What the key can have held before it, at the latest.
    pub held: Vec<Held>,
}

/// A key as it may be: one of the ends that the search goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct End {
    held: Held,
    /// Places of operations under way that have taken effect, as bits.
    done: u128,
}

/// The operations under way, each in a place of its own.
struct UnderWay<'a> {
    ops: &'a [Op],
    places: Vec<Option<usize>>,
    /// The places of those that are not certain, as bits.
    uncertain: u128,
}

/// Ends, of which none can do only what another one can as well.
#[derive(Default)]
struct Frontier {
    /// By what the key holds and which certain operations took effect: the
    /// sets of uncertain ones that did.
    reached: HashMap<End, Vec<u128>>,
}

impl Frontier {
    /// Adds an end; `false` if another one stands for it.
    fn add(&mut self, end: End, uncertain: u128) -> bool {
        let used = end.done & uncertain;
        let done = end.done & !uncertain;
        let sets = self.reached.entry(End { done, ..end }).or_default();
        if sets.iter().any(|fewer| fewer & used == *fewer) {
            return false;
        }
        sets.retain(|more| more & used != used);
        sets.push(used);
        true
    }

    fn ends(&self) -> impl Iterator<Item = End> {
        self.reached.iter().flat_map(|(end, sets)| {
            let with = |used: &u128| End {
                done: end.done | used,
                ..*end
            };
            sets.iter().map(with)
        })
    }
}

impl UnderWay<'_> {
    fn begin(&mut self, op: usize) {
        let free = self.places.iter().position(Option::is_none);
        let free = free.unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        assert!(free < MOST_AT_ONCE, "too many operations at once");
        self.places[free] = Some(op);
        if !self.ops[op].certain {
            self.uncertain |= 1 << free;
        }
    }

    fn end(&mut self, place: usize) {
        self.places[place] = None;
        self.uncertain &= !(1 << place);
    }

    fn place_of(&self, op: usize) -> usize {
        let place = self.places.iter().position(|held| *held == Some(op));
        place.expect("what ends has begun")
    }

    /// Those that have not taken effect in `end`, with their bits.
    fn waiting(&self, end: End) -> impl Iterator<Item = (Op, u128)> {
        let open = |(place, op): (usize, &Option<usize>)| op.map(|op| (self.ops[op], 1 << place));
        let places = self.places.iter().enumerate();
        places
            .filter_map(open)
            .filter(move |(_, bit)| end.done & bit == 0)
    }

    /// Lets all reads take effect that can: sooner costs nothing.
    fn settle(&self, mut end: End) -> End {
        for (op, bit) in self.waiting(end) {
            if op.leaves.is_none() && op.found.fits(end.held) {
                end.done |= bit;
            }
        }
        end
    }

    /// All ends in which the operation of `bit` has just taken effect, that
    /// are reached from `starts`; those with fewer uncertain ones first.
    fn reach(&self, starts: impl Iterator<Item = End>, bit: u128) -> Frontier {
        let (mut seen, mut reached) = (Frontier::default(), Frontier::default());
        let mut open: VecDeque<End> = starts.collect();
        while let Some(end) = open.pop_front() {
            let end = self.settle(end);
            if !seen.add(end, self.uncertain) {
                continue;
            }
            if end.done & bit != 0 {
                reached.add(end, self.uncertain);
                continue;
            }
            for (op, bit) in self.waiting(end) {
                let Some(held) = op.leaves else { continue };
                if !op.found.fits(end.held) {
                    continue;
                }
                let done = end.done | bit;
                let next = End { held, done };
                if op.certain {
                    open.push_front(next);
                } else {
                    open.push_back(next);
                }
            }
        }
        reached
    }
}

/// Begins and ends in the order of time; what begins at the moment in which
/// another ends may have been before it.
fn events(ops: &[Op]) -> Vec<(u64, bool, usize)> {
    let mut events = Vec::with_capacity(2 * ops.len());
    for (index, op) in ops.iter().enumerate() {
        assert!(
            op.begun <= op.ended,
            "operation {index} ends before it begins"
        );
        events.push((op.begun, false, index));
        events.push((op.ended, true, index));
    }
    events.sort_unstable();
    events
}

/// Whether operations on one key, which holds nothing at first, can have
/// taken effect in one order, each between its begin and its end.
///
/// # Errors
/// The first operation, by its end, that no order explains.
///
/// # Panics
/// More than [`MOST_AT_ONCE`] operations are under way at once.
pub fn check(ops: &[Op]) -> Result<(), Violation> {
    let mut under_way = UnderWay {
        ops,
        places: Vec::new(),
        uncertain: 0,
    };
    let mut ends = vec![End {
        held: None,
        done: 0,
    }];
    for (_, is_end, index) in events(ops) {
        if !is_end {
            under_way.begin(index);
            continue;
        }
        let place = under_way.place_of(index);
        let bit = 1 << place;
        let mut reached = under_way.reach(ends.iter().copied(), bit);
        if !ops[index].certain {
            for &end in &ends {
                reached.add(end, under_way.uncertain);
            }
        }
        under_way.end(place);
        let mut left = Frontier::default();
        for end in reached.ends() {
            let done = end.done & !bit;
            left.add(End { done, ..end }, under_way.uncertain);
        }
        if left.reached.is_empty() {
            return Err(violation(index, &ends, &under_way));
        }
        ends = left.ends().collect();
    }
    Ok(())
}

fn violation(at: usize, ends: &[End], under_way: &UnderWay<'_>) -> Violation {
    let mut held: Vec<_> = ends.iter().map(|end| end.held).collect();
    held.sort_unstable();
    held.dedup();
    Violation {
        at,
        beside: under_way.places.iter().flatten().copied().collect(),
        held,
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} found {:?}", self.begun, self.ended, self.found)?;
        if let Some(left) = self.leaves {
            write!(f, ", left {left:?}")?;
        }
        if !self.certain {
            write!(f, ", if at all")?;
        }
        Ok(())
    }
}

impl Violation {
    /// The operation and its neighbours, a line each.
    pub fn explain(&self, ops: &[Op]) -> String {
        let mut text = format!(
            "no order explains operation {}: {}\nbefore it the key held one of {:?}; beside it:\n",
            self.at, ops[self.at], self.held
        );
        for &index in &self.beside {
            text.push_str(&format!("  {index}: {}\n", ops[index]));
        }
        let mut before: Vec<_> = ops.iter().enumerate().collect();
        before.retain(|(_, op)| op.ended < ops[self.at].ended && op.leaves.is_some());
        before.sort_by_key(|(_, op)| op.ended);
        text.push_str("changes that ended before it, the last first:\n");
        for (index, op) in before.iter().rev().take(12) {
            text.push_str(&format!("  {index}: {op}\n"));
        }
        text
    }
}

//! Whether a listing shows one moment.
//!
//! Each name that a listing shows, and each that it leaves out of its range,
//! is a read of that key, which the search of the key checks. What that
//! cannot see is a listing that was put together from several moments. This
//! looks for a moment within the listing at which all that it shows can have
//! been so at once. It refuses nothing that can have happened; it does not
//! find every listing that cannot.

use std::collections::BTreeMap;

use super::{Held, Op};

/// What one listing showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Not before this.
    pub begun: u64,
    /// Not after this.
    pub ended: u64,
    /// Every key in its range, and what it was shown to hold.
    pub shown: BTreeMap<String, Held>,
}

/// From when to when a key can have held something, both included.
type Span = (u64, u64);

/// The spans of one key.
#[derive(Default)]
struct Spans {
    /// Of what a write left.
    held: BTreeMap<u64, Span>,
    /// Of nothing, by their begin, with the latest end of all up to there.
    nothing: Vec<(Span, u64)>,
}

/// Ends of certain changes by their begin, with the soonest end of all from
/// there on.
struct Changes(Vec<(u64, u64)>);

impl Changes {
    fn of<'a>(ops: impl Iterator<Item = &'a Op>) -> Self {
        let mut changes: Vec<_> = ops.map(|op| (op.begun, op.ended)).collect();
        changes.sort_unstable();
        let mut soonest = u64::MAX;
        for change in changes.iter_mut().rev() {
            soonest = soonest.min(change.1);
            change.1 = soonest;
        }
        Self(changes)
    }

    /// When the first of those that begin after `time` has ended.
    fn next_after(&self, time: u64) -> u64 {
        let at = self.0.partition_point(|change| change.0 <= time);
        self.0.get(at).map_or(u64::MAX, |change| change.1)
    }
}

impl Spans {
    fn of(ops: &[Op]) -> Self {
        let certain = || ops.iter().filter(|op| op.certain);
        let changes = Changes::of(certain().filter(|op| op.leaves.is_some()));
        let writes = Changes::of(certain().filter(|op| matches!(op.leaves, Some(Some(_)))));
        let mut spans = Self::default();
        // Before the first write there is nothing.
        let first = writes.0.first().map_or(u64::MAX, |first| first.1);
        let mut nothing = vec![(0, first)];
        for op in ops {
            match op.leaves {
                Some(Some(number)) => {
                    let span = (op.begun, changes.next_after(op.ended));
                    spans.held.insert(number, span);
                }
                Some(None) => nothing.push((op.begun, writes.next_after(op.ended))),
                None => {}
            }
        }
        nothing.sort_unstable();
        let mut latest = 0;
        for span in nothing {
            latest = latest.max(span.1);
            spans.nothing.push((span, latest));
        }
        spans
    }

    /// The spans of `held` that meet `within`.
    fn meeting(&self, held: Held, within: Span) -> Vec<Span> {
        let meets = |span: &Span| span.0 <= within.1 && span.1 >= within.0;
        match held {
            Some(number) => {
                let span = self.held.get(&number).copied();
                span.into_iter().filter(meets).collect()
            }
            None => {
                let end = self.nothing.partition_point(|(span, _)| span.0 <= within.1);
                let sooner = self.nothing[..end].iter().rev();
                sooner
                    .take_while(|(_, latest)| *latest >= within.0)
                    .map(|(span, _)| *span)
                    .filter(meets)
                    .collect()
            }
        }
    }
}

/// The listings, as places in the list, that show no one moment.
/// `ops` has the operations on each key.
pub fn torn(listings: &[Listing], ops: &BTreeMap<String, Vec<Op>>) -> Vec<usize> {
    let spans: BTreeMap<_, _> = ops
        .iter()
        .map(|(key, ops)| (key.as_str(), Spans::of(ops)))
        .collect();
    let never = Spans::of(&[]);
    let is_torn = |listing: &Listing| {
        let within = (listing.begun, listing.ended);
        let shown: Vec<Vec<Span>> = listing
            .shown
            .iter()
            .map(|(key, held)| {
                let spans = spans.get(key.as_str()).unwrap_or(&never);
                spans.meeting(*held, within)
            })
            .collect();
        // If there is such a moment, then also where one of the spans begins.
        let begins = shown.iter().flatten().map(|span| span.0.max(within.0));
        let mut moments = begins.chain([within.0]);
        let holds = |moment: u64, spans: &Vec<Span>| {
            spans
                .iter()
                .any(|span| span.0 <= moment && moment <= span.1)
        };
        !moments.any(|moment| shown.iter().all(|spans| holds(moment, spans)))
    };
    (0..listings.len())
        .filter(|&at| is_torn(&listings[at]))
        .collect()
}

//! Who may start, and when: the start rules of PROTOCOL.md 1.
//!
//! A start is free at once if the instance before it is known to be gone.
//! Otherwise it watches a majority of the journal disks, and refuses if the
//! other gateway still calls. So two machines never fence each other in turns,
//! and a gateway restarts at once after it was killed. Pure: the caller asks
//! the disks and says what time it is.

use std::collections::BTreeMap;
use std::time::Duration;

use shardgate_wire::journal::JournalStanding;
use shardgate_wire::{DiskId, Epoch, InstanceId};
use tokio::time::Instant;

use crate::contact::CONTACT;
use crate::disks::JournalMap;

/// How long a start watches, and how long a take-over waits: longer than a
/// gateway answers without contact.
pub const WATCH: Duration = Duration::from_secs(12);

const _: () = assert!(WATCH.as_millis() > CONTACT.as_millis());

/// What is known of the instance before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// It closed the journal.
    pub closed: bool,
    /// The instance whose id stands in the data folder whose lock is ours. One
    /// that takes over must not write its id there before it has waited: the
    /// gateway that it took over from may live, whoever starts next.
    pub our_folder: Option<InstanceId>,
    /// All journal disks are local, and we hold their locks.
    pub all_locked: bool,
    /// The operator said `--take-over`.
    pub take_over: bool,
}

/// What a start does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// Raises the epoch and answers as soon as it can.
    Free,
    /// Watches before it raises the epoch.
    Watch,
    /// Raises the epoch, and waits [`WATCH`] before it answers.
    TakeOver,
}

/// The epoch by which a start is judged: the highest that any disk has
/// accepted, those that keep no journal too. Of two instances that both raised
/// this number one may have a majority, nobody knows which: it is one that is
/// not known to be gone, if there is any.
pub fn highest(
    epochs: impl IntoIterator<Item = Epoch>,
    is_gone: impl Fn(InstanceId) -> bool,
) -> Epoch {
    let epochs = epochs.into_iter();
    let highest = epochs.max_by_key(|epoch| (epoch.number, !is_gone(epoch.instance)));
    highest.unwrap_or_default()
}

/// Decides by what is known without waiting. `held`: the [`highest`] epoch of
/// the disks that answer; that no other has a higher one is seen to by
/// [`crate::recover::Request::judged`].
pub fn first(before: &Before, held: Epoch) -> First {
    let never = held.number == 0;
    let ours = before.our_folder == Some(held.instance);
    if never || before.closed || ours || before.all_locked {
        First::Free
    } else if before.take_over {
        First::TakeOver
    } else {
        First::Watch
    }
}

/// What watching has shown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Ask again.
    GoOn,
    /// The other does not call: the start may raise the epoch.
    Gone,
    /// The other still calls, or has started anew: refuse.
    Alive(Epoch),
}

/// A watch over the journal disks.
#[derive(Clone, Debug)]
pub struct Watch {
    map: JournalMap,
    lost: Vec<DiskId>,
    held: Epoch,
    began: Instant,
    /// When each disk was first and last asked with an answer.
    asked: BTreeMap<DiskId, (Instant, Instant)>,
    alive: Option<Epoch>,
}

impl Watch {
    /// Begins at `now`; `held` as in [`first`]; `lost`: the disks that were
    /// named lost for good.
    pub fn new(map: JournalMap, lost: Vec<DiskId>, held: Epoch, now: Instant) -> Self {
        Self {
            map,
            lost,
            held,
            began: now,
            asked: BTreeMap::new(),
            alive: None,
        }
    }

    /// A disk answered at `now` to a question sent at `sent`.
    pub fn saw(&mut self, disk: DiskId, standing: &JournalStanding, sent: Instant, now: Instant) {
        let age = standing.last_call_ms.map(Duration::from_millis);
        // A call that came since the watch began, whatever the way took.
        let called = age.is_some_and(|age| age < sent.saturating_duration_since(self.began));
        if standing.epoch.number > self.held.number || called {
            self.alive = Some(standing.epoch);
        }
        let asked = self.asked.entry(disk).or_insert((sent, now));
        asked.1 = sent.max(asked.1);
    }

    /// What is known at `now`.
    pub fn watched(&self, now: Instant) -> Watched {
        if let Some(epoch) = self.alive {
            return Watched::Alive(epoch);
        }
        if now.saturating_duration_since(self.began) < WATCH {
            return Watched::GoOn;
        }
        // Each disk that counts was seen quiet over the whole time.
        let quiet: Vec<DiskId> = self
            .asked
            .iter()
            .filter(|(_, (_, last))| last.saturating_duration_since(self.began) >= WATCH)
            .map(|(disk, _)| *disk)
            .collect();
        if self.map.has_enough(&quiet, &self.lost) {
            Watched::Gone
        } else {
            Watched::GoOn
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_wire::{CommitNumber, LineageId};

    fn epoch(number: u64, instance: u128) -> Epoch {
        Epoch {
            number,
            instance: InstanceId(instance),
        }
    }

    #[test]
    fn who_is_free_at_once() {
        let none = Before::default();
        let held = epoch(3, 7);
        let cases = [
            (none, Epoch::default(), First::Free),
            (none, held, First::Watch),
            (
                Before {
                    closed: true,
                    ..none
                },
                held,
                First::Free,
            ),
            (
                Before {
                    all_locked: true,
                    ..none
                },
                held,
                First::Free,
            ),
            (
                Before {
                    our_folder: Some(InstanceId(7)),
                    ..none
                },
                held,
                First::Free,
            ),
            (
                Before {
                    our_folder: Some(InstanceId(8)),
                    ..none
                },
                held,
                First::Watch,
            ),
            (
                Before {
                    take_over: true,
                    ..none
                },
                held,
                First::TakeOver,
            ),
            (
                Before {
                    take_over: true,
                    closed: true,
                    ..none
                },
                held,
                First::Free,
            ),
        ];
        for (before, held, expected) in cases {
            assert_eq!(first(&before, held), expected, "{before:?}");
        }
    }

    #[test]
    fn of_two_of_one_number_the_one_that_may_live_is_judged() {
        let is_gone = |instance: InstanceId| instance.0 < 5;
        let cases = [
            (vec![], Epoch::default()),
            (vec![epoch(3, 7), epoch(4, 1), epoch(2, 8)], epoch(4, 1)),
            (vec![epoch(4, 7), epoch(4, 1)], epoch(4, 7)),
            (vec![epoch(4, 1), epoch(4, 7)], epoch(4, 7)),
        ];
        for (epochs, expected) in cases {
            assert_eq!(highest(epochs, is_gone), expected);
        }
    }

    fn standing(epoch: Epoch, last_call_ms: Option<u64>) -> JournalStanding {
        JournalStanding {
            epoch,
            last_call_ms,
            told: (LineageId(0), CommitNumber(0)),
            segment_bytes: 0,
        }
    }

    fn watch(start: Instant) -> Watch {
        let map = JournalMap {
            number: 1,
            disks: vec![DiskId(1), DiskId(2), DiskId(3)],
            old: None,
        };
        Watch::new(map, Vec::new(), epoch(3, 7), start)
    }

    #[test]
    fn quiet_for_twelve_seconds_on_a_majority_is_gone() {
        let start = Instant::now();
        let mut watch = watch(start);
        for seconds in 0..=12 {
            let at = start + Duration::from_secs(seconds);
            assert_eq!(watch.watched(at), Watched::GoOn, "{seconds}");
            let quiet = standing(epoch(3, 7), Some(seconds * 1000 + 500));
            watch.saw(DiskId(1), &quiet, at, at);
        }
        let end = start + WATCH;
        // One of three has answered.
        assert_eq!(watch.watched(end), Watched::GoOn);
        watch.saw(DiskId(2), &standing(epoch(3, 7), None), end, end);
        assert_eq!(watch.watched(end), Watched::Gone);
    }

    #[test]
    fn a_call_or_a_new_epoch_meanwhile_is_alive() {
        let start = Instant::now();
        let at = start + Duration::from_secs(5);
        let mut called = watch(start);
        called.saw(DiskId(1), &standing(epoch(3, 7), Some(4_000)), at, at);
        assert_eq!(called.watched(at), Watched::Alive(epoch(3, 7)));
        let mut raised = watch(start);
        raised.saw(DiskId(1), &standing(epoch(4, 9), None), at, at);
        assert_eq!(raised.watched(at), Watched::Alive(epoch(4, 9)));
        // The last call was before the watch began.
        let mut quiet = watch(start);
        quiet.saw(DiskId(1), &standing(epoch(3, 7), Some(5_000)), at, at);
        assert_eq!(quiet.watched(at), Watched::GoOn);
    }
}

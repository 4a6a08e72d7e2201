//! When a write is answered: all shards, or the quorum and no longer.
//!
//! Owns [`Tally`], the state of the shards of one write, and the rule of
//! PROTOCOL.md 5: wait for all slots; answer at the quorum only when the
//! others have failed or are late, that is, still missing after the quorum
//! for max(100 ms, the time that the others took). Which sets of shards are a
//! quorum is `placement::quorum`. Pure: time comes in as durations since the
//! last byte was handed out.

use std::time::Duration;

use crate::placement::quorum::QuorumRule;

/// The least time that a shard has after the quorum.
pub const LATE_AFTER_LEAST: Duration = Duration::from_millis(100);

/// How long the others may take after a quorum took `took`.
pub fn late_after(took: Duration) -> Duration {
    took.max(LATE_AFTER_LEAST)
}

/// How far one shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// On its way.
    Pending,
    /// Fsynced.
    Durable,
    /// Never going to be; its slot is owed.
    Failed,
}

/// What the writer does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Wait for the next answer.
    Wait,
    /// Wait for the next answer, at most until then.
    WaitUntil(Duration),
    /// Commit; what is pending is owed.
    Commit,
    /// The quorum cannot be reached any more.
    Lost,
}

/// The shards of one write.
#[derive(Clone, Debug)]
pub struct Tally {
    rule: QuorumRule,
    shards: Vec<ShardState>,
    quorum_at: Option<Duration>,
}

impl Tally {
    /// All shards pending.
    pub fn new(rule: QuorumRule, shards: usize) -> Self {
        Self {
            rule,
            shards: vec![ShardState::Pending; shards],
            quorum_at: None,
        }
    }

    /// Notes that a shard is durable, `at` after the last byte was handed
    /// out.
    pub fn durable(&mut self, shard: usize, at: Duration) {
        self.shards[shard] = ShardState::Durable;
        if self.quorum_at.is_none() && self.rule.reached(&self.which(ShardState::Durable)) {
            self.quorum_at = Some(at);
        }
    }

    /// Notes that a shard failed or is given up, or that the disk on which it
    /// is durable does not count any more: then the quorum may be gone again.
    pub fn failed(&mut self, shard: usize) {
        self.shards[shard] = ShardState::Failed;
        if !self.rule.reached(&self.which(ShardState::Durable)) {
            self.quorum_at = None;
        }
    }

    /// How far a shard is.
    pub fn state(&self, shard: usize) -> ShardState {
        self.shards[shard]
    }

    /// Whether the rest can still become a quorum.
    pub fn reachable(&self) -> bool {
        self.rule.reachable(&self.which(ShardState::Failed))
    }

    /// Whether these shards would be a quorum.
    pub fn would_do(&self, shards: &[bool]) -> bool {
        self.rule.reached(shards)
    }

    /// Durable shards, and how many the quorum has.
    pub fn counts(&self) -> (usize, usize) {
        let durable = self.which(ShardState::Durable);
        let acked = durable.iter().filter(|durable| **durable).count();
        (acked, usize::from(self.rule.needed()))
    }

    /// Shards that are not durable: their slots are owed.
    pub fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        let states = self.shards.iter().enumerate();
        states
            .filter(|(_, state)| **state != ShardState::Durable)
            .map(|(shard, _)| shard)
    }

    /// What to do, `now` after the last byte was handed out.
    pub fn verdict(&self, now: Duration) -> Verdict {
        let pending = self.shards.contains(&ShardState::Pending);
        match self.quorum_at {
            Some(_) if !pending => Verdict::Commit,
            Some(at) => {
                let late = at + late_after(at);
                match now >= late {
                    true => Verdict::Commit,
                    false => Verdict::WaitUntil(late),
                }
            }
            None if !self.reachable() => Verdict::Lost,
            None => Verdict::Wait,
        }
    }

    fn which(&self, state: ShardState) -> Vec<bool> {
        self.shards.iter().map(|shard| *shard == state).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shardgate_erasure::Layout;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn tally(data: u8, parity: u8, servers: &[u16]) -> Tally {
        let layout = Layout::new(data, parity).unwrap();
        Tally::new(QuorumRule::new(layout, servers.to_vec()), servers.len())
    }

    #[test]
    fn the_quorum_waits_for_the_others_as_long_as_it_took() {
        for (took, late) in [(10, 110), (100, 200), (400, 800), (3000, 6000)] {
            let mut tally = tally(4, 2, &[0, 1, 2, 3, 4, 5]);
            for shard in 0..4 {
                tally.durable(shard, ms(1));
            }
            assert_eq!(tally.verdict(ms(took)), Verdict::Wait);
            tally.durable(4, ms(took));
            assert_eq!(tally.verdict(ms(took)), Verdict::WaitUntil(ms(late)));
            assert_eq!(tally.verdict(ms(late - 1)), Verdict::WaitUntil(ms(late)));
            assert_eq!(tally.verdict(ms(late)), Verdict::Commit);
            assert_eq!(tally.missing().collect::<Vec<_>>(), [5]);
        }
    }

    #[test]
    fn nothing_is_waited_for_once_all_have_answered() {
        let mut tally = tally(4, 2, &[0, 1, 2, 3, 4, 5]);
        tally.failed(2);
        for shard in [0, 1, 3, 4, 5] {
            assert_eq!(tally.verdict(ms(5)), Verdict::Wait);
            tally.durable(shard, ms(5));
        }
        assert_eq!(tally.verdict(ms(5)), Verdict::Commit);
    }

    #[test]
    fn a_quorum_out_of_reach_is_lost_at_once() {
        let mut tally = tally(4, 2, &[0, 1, 2, 3, 4, 5]);
        tally.failed(0);
        assert_eq!(tally.verdict(ms(0)), Verdict::Wait);
        tally.failed(5);
        assert_eq!(tally.verdict(ms(0)), Verdict::Lost);
        assert_eq!(tally.counts(), (0, 5));
    }

    #[test]
    fn a_quorum_that_loses_a_durable_shard_is_none() {
        let mut tally = tally(4, 2, &[0, 1, 2, 3, 4, 5]);
        for shard in 0..6 {
            tally.durable(shard, ms(1));
        }
        tally.failed(0);
        assert_eq!(tally.verdict(ms(1)), Verdict::Commit);
        tally.failed(1);
        assert_eq!(tally.verdict(Duration::MAX), Verdict::Lost);
    }

    #[test]
    fn one_server_does_not_hold_what_the_others_lack() {
        // 4+2 on three servers of two disks: the loss of one server leaves
        // four shards of the full layout, so all six must be durable.
        let mut tally = tally(4, 2, &[0, 0, 1, 1, 2, 2]);
        for shard in 0..5 {
            tally.durable(shard, ms(1));
        }
        assert_eq!(tally.verdict(ms(10_000)), Verdict::Wait);
        tally.durable(5, ms(9));
        assert_eq!(tally.verdict(ms(9)), Verdict::Commit);
    }

    proptest! {
        /// Whatever comes in whatever order: committed only with a quorum,
        /// lost only without one in reach.
        #[test]
        fn verdicts_follow_the_rule(
            data in 1..6_u8, parity in 1..4_u8,
            events in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..12),
            servers in 1..6_u16,
        ) {
            let count = usize::from(data + parity);
            let of: Vec<u16> = (0..count as u16).map(|i| i % servers).collect();
            let rule = QuorumRule::new(Layout::new(data, parity).unwrap(), of);
            let mut tally = Tally::new(rule.clone(), count);
            for (at, (index, good)) in events.into_iter().enumerate() {
                let shard = index.index(count);
                if tally.state(shard) != ShardState::Pending {
                    continue;
                }
                match good {
                    true => tally.durable(shard, ms(at as u64)),
                    false => tally.failed(shard),
                }
            }
            let durable = tally.which(ShardState::Durable);
            match tally.verdict(ms(1 << 40)) {
                Verdict::Commit => prop_assert!(rule.reached(&durable)),
                Verdict::Lost => prop_assert!(!tally.reachable()),
                Verdict::Wait => prop_assert!(!rule.reached(&durable) && tally.reachable()),
                Verdict::WaitUntil(_) => prop_assert!(false, "a time that has passed"),
            }
        }
    }
}

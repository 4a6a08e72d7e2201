//! Who asked for a checkpoint, and what came of it.
//!
//! Invariant: everybody who asks is answered: by the attempt that began after
//! the question, or by the end of the job, after which nobody waits.

use std::sync::atomic::{AtomicU64, Ordering};

use shardgate_wire::CommitNumber;
use tokio::sync::watch;

/// See the module.
pub(super) struct Asks {
    /// How many were asked for.
    asked: AtomicU64,
    done: watch::Sender<Done>,
}

/// How the questions up to a number ended.
#[derive(Clone, Debug, Default)]
struct Done {
    asked: u64,
    outcome: Option<Result<CommitNumber, String>>,
}

impl Asks {
    pub(super) fn new() -> Self {
        Self {
            asked: AtomicU64::new(0),
            done: watch::Sender::new(Done::default()),
        }
    }

    /// One more; its number.
    pub(super) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Waits for the answer to the question of this number.
    pub(super) async fn outcome(&self, number: u64) -> Result<CommitNumber, String> {
        let mut done = self.done.subscribe();
        loop {
            let now = done.borrow_and_update().clone();
            if now.asked >= number
                && let Some(outcome) = now.outcome
            {
                return outcome;
            }
            if done.changed().await.is_err() {
                return Err(ENDED.to_owned());
            }
        }
    }

    /// How many there were so far.
    pub(super) fn so_far(&self) -> u64 {
        self.asked.load(Ordering::Acquire)
    }

    /// Whether one was not answered yet.
    pub(super) fn is_open(&self) -> bool {
        self.so_far() > self.done.borrow().asked
    }

    /// Answers those up to this number.
    pub(super) fn answer(&self, asked: u64, outcome: Result<CommitNumber, String>) {
        self.done.send_replace(Done {
            asked,
            outcome: Some(outcome),
        });
    }

    /// Answers all, those to come too: no checkpoint is taken any more.
    pub(super) fn end(&self) {
        self.answer(u64::MAX, Err(ENDED.to_owned()));
    }
}

const ENDED: &str = "this gateway takes no checkpoints any more: it stops";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_is_answered_by_an_attempt_that_began_later() {
        let asks = Asks::new();
        assert!(!asks.is_open());
        let first = asks.ask();
        let begun = asks.so_far();
        let second = asks.ask();
        asks.answer(begun, Ok(CommitNumber(7)));
        assert_eq!(asks.outcome(first).await, Ok(CommitNumber(7)));
        assert!(asks.is_open());
        tokio::select! {
            early = asks.outcome(second) => panic!("by an attempt of before: {early:?}"),
            () = tokio::time::sleep(std::time::Duration::from_secs(60)) => {}
        }
        asks.answer(asks.so_far(), Err("no space".to_owned()));
        assert_eq!(asks.outcome(second).await, Err("no space".to_owned()));
        assert!(!asks.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_job_that_has_ended() {
        let asks = Asks::new();
        let before = asks.ask();
        asks.end();
        let after = asks.ask();
        for number in [before, after] {
            let outcome =
                tokio::time::timeout(std::time::Duration::from_secs(3600), asks.outcome(number));
            let outcome = outcome.await.expect("an answer");
            assert!(outcome.is_err_and(|why| why.contains("stops")));
        }
        assert!(!asks.is_open());
    }
}

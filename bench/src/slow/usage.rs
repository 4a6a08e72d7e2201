//! What processes take of the processors, from the kernel's own count.

use std::fs;
use std::ops::Sub;

use serde::Serialize;

/// Processor time, and the time that threads were ready and had none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    run_ns: u64,
    wait_ns: u64,
    turns: u64,
}

impl Usage {
    /// Of all threads of these processes.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let tasks = pids
            .iter()
            .filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok())
            .flatten()
            .flatten();
        tasks
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
            .filter_map(|text| Self::parse(&text))
            .fold(Self::default(), Self::plus)
    }

    /// Of the thread that asks.
    pub(crate) fn of_this_thread() -> Self {
        let text = fs::read_to_string("/proc/thread-self/schedstat");
        text.ok()
            .and_then(|text| Self::parse(&text))
            .unwrap_or_default()
    }

    fn parse(schedstat: &str) -> Option<Self> {
        let mut numbers = schedstat.split_whitespace().map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            run_ns: next()?,
            wait_ns: next()?,
            turns: next()?,
        })
    }

    fn plus(self, other: Self) -> Self {
        Self {
            run_ns: self.run_ns + other.run_ns,
            wait_ns: self.wait_ns + other.wait_ns,
            turns: self.turns + other.turns,
        }
    }
}

impl Sub for Usage {
    type Output = Self;

    /// What came since; a thread that ended takes its part with it.
    fn sub(self, before: Self) -> Self {
        Self {
            run_ns: self.run_ns.saturating_sub(before.run_ns),
            wait_ns: self.wait_ns.saturating_sub(before.wait_ns),
            turns: self.turns.saturating_sub(before.turns),
        }
    }
}

/// A usage per second.
#[derive(Debug, Serialize)]
pub(crate) struct Share {
    pub(crate) name: String,
    /// Processors that it kept busy.
    pub(crate) processors: f64,
    /// Seconds per second that its threads, taken together, were ready and
    /// had no processor.
    pub(crate) waiting: f64,
    /// Times per second that a thread got one.
    pub(crate) turns_per_second: f64,
    /// How long it had waited for it then, on average.
    pub(crate) wait_per_turn_us: f64,
}

impl Share {
    pub(crate) fn new(name: &str, took: Usage, seconds: u64) -> Self {
        let per_second = |value: u64| value as f64 / seconds as f64;
        Self {
            name: name.to_owned(),
            processors: per_second(took.run_ns) / 1e9,
            waiting: per_second(took.wait_ns) / 1e9,
            turns_per_second: per_second(took.turns),
            wait_per_turn_us: took.wait_ns as f64 / 1e3 / took.turns.max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_is_read() {
        let one = Usage::parse("100 20 3\n").unwrap();
        let wanted = Usage {
            run_ns: 100,
            wait_ns: 20,
            turns: 3,
        };
        assert_eq!(one, wanted);
        assert_eq!(Usage::parse("100 x 3"), None);
        let share = Share::new("x", one.plus(one) - one, 1);
        assert_eq!((share.turns_per_second, share.processors), (3.0, 1e-7));
        let own = Usage::of(&[std::process::id()]);
        assert!(own.turns > 0 && own.run_ns >= Usage::of_this_thread().run_ns / 2);
    }
}

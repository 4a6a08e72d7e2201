//! Many writers or readers for a time; how often, and how long each took.

use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::report::{ms, quantile};

/// What a load reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub(crate) per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Rate {
    fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        times.sort_unstable();
        Self {
            per_s: times.len() as f64 / took.as_secs_f64(),
            p50_ms: ms(quantile(&times, 0.5)),
            p99_ms: ms(quantile(&times, 0.99)),
        }
    }

    /// The one in the middle of several rounds, by its rate.
    pub(crate) fn median(mut rounds: Vec<Self>) -> Option<Self> {
        rounds.sort_by(|a, b| a.per_s.total_cmp(&b.per_s));
        let middle = rounds.len() / 2;
        rounds.into_iter().nth(middle)
    }

    pub(crate) fn cell(&self) -> String {
        let Self {
            per_s,
            p50_ms,
            p99_ms,
        } = self;
        format!("{per_s:>9.0} ({p50_ms:.2}, {p99_ms:.2})")
    }
}

/// The one in the middle; not a number of none.
pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs `op` with numbers from `next` on in so many tasks.
pub(crate) async fn tasks<F, Fut>(
    at_once: usize,
    seconds: u64,
    next: &Arc<AtomicU64>,
    op: F,
) -> Result<Rate>
where
    F: Fn(u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    tasks_until_eof(at_once, seconds, next, op).await
}

/// As [`tasks`]; one that says that there is no more ends without an error.
pub(crate) async fn tasks_until_eof<F, Fut>(
    at_once: usize,
    seconds: u64,
    next: &Arc<AtomicU64>,
    op: F,
) -> Result<Rate>
where
    F: Fn(u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<()>> + Send,
{
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let mut running = JoinSet::new();
    for _ in 0..at_once {
        let (op, next) = (op.clone(), Arc::clone(next));
        running.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                match op(next.fetch_add(1, Ordering::Relaxed)).await {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
                    done => done?,
                }
                times.push(start.elapsed());
            }
            Result::Ok(times)
        });
    }
    let mut all = Vec::new();
    for times in running.join_all().await {
        all.extend(times?);
    }
    Ok(Rate::of(all, begun.elapsed()))
}

/// As [`tasks`], in threads, for what blocks.
pub(crate) fn threads(
    at_once: usize,
    seconds: u64,
    op: impl Fn(u64) -> Result<()> + Sync,
) -> Result<Rate> {
    let begun = Instant::now();
    let end = begun + Duration::from_secs(seconds);
    let next = AtomicU64::new(0);
    let work = || {
        let mut times = Vec::new();
        while Instant::now() < end {
            let start = Instant::now();
            op(next.fetch_add(1, Ordering::Relaxed))?;
            times.push(start.elapsed());
        }
        Result::Ok(times)
    };
    let mut all = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        for thread in running {
            all.extend(thread.join().expect("a load does not panic")?);
        }
        Result::Ok(())
    })?;
    Ok(Rate::of(all, begun.elapsed()))
}

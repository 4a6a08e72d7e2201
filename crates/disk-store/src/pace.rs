//! How fast something is read in the background, and for whom it waits.
//!
//! Pure: told the time and who waits, it says how long to rest. Invariant:
//! from the begin of any read to that of a later one, no more bytes were read
//! than the speed allows. Time in which nothing was read is not saved up.

use std::time::{Duration, Instant};

/// Most bytes of a window.
pub(crate) const MOST_WINDOW_BYTES: u64 = 4 << 20;
/// Least bytes of one, where the speed is low.
const LEAST_WINDOW_BYTES: u64 = 64 * 1024;
/// How often one who gives way looks whether callers still wait.
const GIVE_WAY: Duration = Duration::from_millis(5);
/// Callers hold the background up no longer than this before each window: a
/// disk that is never idle is read all the same.
const MOST_WAY: Duration = Duration::from_millis(500);

/// A set speed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    bytes_per_second: u64,
    /// When what was read last is paid for.
    free_at: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            free_at: None,
        }
    }

    /// Another speed, for what is read from now on.
    pub(crate) fn set(&mut self, bytes_per_second: u64) {
        self.bytes_per_second = bytes_per_second.max(1);
    }

    /// Bytes of a window, so that one takes about a second.
    pub(crate) fn window_bytes(&self) -> u64 {
        let second = self.bytes_per_second;
        second.clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES)
    }

    /// How long to rest before the next read.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let free_at = self.free_at.unwrap_or(now);
        free_at.saturating_duration_since(now)
    }

    /// So many bytes were read, by a read that began then.
    pub(crate) fn took(&mut self, begun: Instant, bytes: u64) {
        let seconds = bytes as f64 / self.bytes_per_second as f64;
        let paid = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let from = self.free_at.map_or(begun, |free_at| free_at.max(begun));
        // A speed at which it never ends: not within this run.
        let free_at = from.checked_add(paid);
        self.free_at = Some(free_at.unwrap_or_else(|| from + Duration::from_secs(u32::MAX.into())));
    }
}

/// How long one has given way to callers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GivenWay(Duration);

impl GivenWay {
    /// How long to rest before looking again; `None` to go on.
    pub(crate) fn rest(&mut self, callers: usize) -> Option<Duration> {
        if callers == 0 || self.0 >= MOST_WAY {
            return None;
        }
        self.0 += GIVE_WAY;
        Some(GIVE_WAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn no_more_is_read_than_the_speed_allows() {
        let start = Instant::now();
        // At 1000 bytes a second: begin of a read and its bytes, then how
        // long is waited when asked for at that time.
        for (reads, asked, wait) in [
            (&[][..], 0, 0),
            (&[(0, 500)][..], 0, 500),
            (&[(0, 500)], 200, 300),
            (&[(0, 500)], 500, 0),
            // A read that took long itself is waited for no longer.
            (&[(0, 500)], 700, 0),
            // What follows on time is counted from there.
            (&[(0, 500), (500, 250)], 500, 250),
            // Rest is not saved up.
            (&[(0, 500), (10_000, 500)], 10_000, 500),
            (&[(0, 500), (10_000, 500), (10_500, 1)], 10_500, 1),
            // One that came too soon is paid for with the one before.
            (&[(0, 500), (100, 500)], 100, 900),
            (&[(0, 0)], 0, 0),
        ] {
            let mut pace = Pace::new(1000);
            for (begun, bytes) in reads {
                pace.took(start + ms(*begun), *bytes);
            }
            let waits = pace.wait(start + ms(asked));
            assert_eq!(waits, ms(wait), "{reads:?} at {asked}");
        }
    }

    #[test]
    fn over_any_time_the_speed_holds() {
        let start = Instant::now();
        let mut pace = Pace::new(1000);
        let (mut now, mut begun) = (start, Vec::new());
        for turn in 0..200_u64 {
            now += pace.wait(now);
            let bytes = turn * 7919 % 1500;
            pace.took(now, bytes);
            begun.push((now, bytes));
            // Reading takes time, and callers stall.
            now += ms(turn * 31 % 90) + ms(if turn % 50 == 0 { 20_000 } else { 0 });
        }
        for (from, (first, _)) in begun.iter().enumerate() {
            let mut bytes = 0;
            for (at, read) in &begun[from..] {
                let allowed = at.duration_since(*first).as_millis() as u64 + 1;
                assert!(bytes <= allowed, "{bytes} in {allowed} ms");
                bytes += read;
            }
        }
    }

    #[test]
    fn any_speed_is_one() {
        let now = Instant::now();
        for (speed, window) in [(0, 65_536), (1 << 20, 1 << 20), (u64::MAX, 4 << 20)] {
            let mut pace = Pace::new(speed);
            assert_eq!(pace.window_bytes(), window);
            pace.took(now, u64::MAX);
            pace.took(now, u64::MAX);
            assert!(pace.wait(now) > Duration::ZERO || speed == u64::MAX);
            pace.set(1000);
            assert_eq!(pace.window_bytes(), 65_536);
        }
    }

    #[test]
    fn callers_go_first_but_not_for_ever() {
        let mut way = GivenWay::default();
        assert_eq!(way.rest(0), None);
        assert_eq!((way.rest(3), way.rest(0)), (Some(ms(5)), None));
        let mut rests = 0;
        let mut way = GivenWay::default();
        while let Some(rest) = way.rest(1) {
            assert_eq!(rest, ms(5));
            rests += 1;
        }
        assert_eq!(rests, 100);
    }
}

//! How slowly a client may send a body. Pure.
//!
//! A client has so much waiting to its credit. It uses it up while the body
//! waits for its bytes, and earns it back with bytes, up to what it began
//! with. So a pause is no more than a pause, a slow line is served for as long
//! as it sends the least rate, and a byte now and then holds nothing for long.

use std::time::Duration;

/// The credit of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Bytes per second; 0: no client is too slow.
    least_rate: u64,
    most: Duration,
    left: Duration,
}

impl Pace {
    /// A client that may be behind `least_rate`, bytes per second, by as much
    /// as it would have sent in `most`.
    pub(crate) fn new(least_rate: u64, most: Duration) -> Self {
        Self {
            least_rate,
            most,
            left: most,
        }
    }

    /// How long the next bytes may take; `None`: as long as they like.
    pub(crate) fn left(&self) -> Option<Duration> {
        (self.least_rate > 0).then_some(self.left)
    }

    /// After a wait of `waited`, so many bytes came.
    pub(crate) fn came(&mut self, waited: Duration, bytes: usize) {
        if self.least_rate == 0 {
            return;
        }
        let earned = Duration::from_secs_f64(bytes as f64 / self.least_rate as f64);
        let left = self.left.saturating_sub(waited).saturating_add(earned);
        self.left = left.min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(120);

    /// Sends `bytes` after each `seconds`; whether it is served for an hour.
    fn served(least_rate: u64, seconds: f64, bytes: usize) -> bool {
        let wait = Duration::from_secs_f64(seconds);
        let mut pace = Pace::new(least_rate, MOST);
        for _ in 0..(3600.0 / seconds) as usize {
            if pace.left().is_some_and(|left| left < wait) {
                return false;
            }
            pace.came(wait, bytes);
        }
        true
    }

    // ATTACKS 76: slow clients.
    #[test]
    fn slow_lines_are_served_and_single_bytes_are_not() {
        for (least_rate, seconds, bytes, expected) in [
            (1024, 0.25, 12_500, true),
            (1024, 1.0, 1024, true),
            (1024, 50.0, 64 * 1024, true),
            (1024, 5.0, 1, false),
            (1024, 1.0, 900, false),
            (1024, 119.0, 64 * 1024, false),
            // What came at once is no credit for hours.
            (1024, 121.0, 1 << 30, false),
            (0, 5.0, 1, true),
        ] {
            let what = format!("{bytes} bytes each {seconds} s at {least_rate}");
            assert_eq!(served(least_rate, seconds, bytes), expected, "{what}");
        }
    }

    #[test]
    fn a_pause_of_a_fast_client_is_a_pause() {
        let mut pace = Pace::new(1024, MOST);
        for _ in 0..100 {
            pace.came(Duration::from_secs(100), 50_000);
            assert_eq!(
                pace.left(),
                Some(MOST - Duration::from_secs(100) + Duration::from_secs_f64(50_000.0 / 1024.0))
            );
            pace.came(Duration::from_secs(1), 1 << 20);
            assert_eq!(pace.left(), Some(MOST));
        }
    }
}

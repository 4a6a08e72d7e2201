//! Whether a disk takes new writes, and how it comes to and from that.
//!
//! Pure: reports and probes in, standing out. Invariant: whatever put a disk
//! out, only a probe that was answered in time brings it back; one that is
//! late again and again stays out for longer each time, and a lost one comes
//! back only by being opened anew.

use std::time::Duration;

/// How a disk stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It takes new writes.
    Living,
    /// It did not answer in time.
    Late,
    /// A call failed by its fault, or it is fenced.
    Failed {
        /// How.
        why: String,
    },
    /// It is not there: no folder, a blank one, another disk in it, or its
    /// agent does not have it.
    Lost {
        /// How.
        why: String,
    },
}

impl Standing {
    /// One word for status and metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Living => "living",
            Self::Late => "late",
            Self::Failed { .. } => "failed",
            Self::Lost { .. } => "lost",
        }
    }
}

/// Late calls within this time count together.
const LATES_FADE_MS: u64 = 10_000;
/// Fewer late calls never put a disk out.
const LEAST_LATES: u32 = 4;

/// The late calls of a disk in the last seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lates {
    since_ms: u64,
    count: u32,
}

impl Lates {
    /// One more.
    pub fn note(&mut self, now_ms: u64) {
        *self = Self {
            since_ms: if self.recent(now_ms) == 0 {
                now_ms
            } else {
                self.since_ms
            },
            count: self.recent(now_ms).saturating_add(1),
        };
    }

    /// How many there were lately.
    pub fn recent(&self, now_ms: u64) -> u32 {
        let is_recent = now_ms.saturating_sub(self.since_ms) <= LATES_FADE_MS;
        if is_recent { self.count } else { 0 }
    }
}

/// Whether a disk with `own` late calls is itself the cause, `peers` being
/// those of the other disks of its medium.
///
/// A machine or a device with too much to do makes its disks late in turns.
/// Were each put out for it, two would soon be out at once, and new blobs
/// would go to narrow groups or lack slots though nothing is broken; so a
/// disk goes out only if it is late far more often than half of the others.
/// One that does not answer at all is found by its probe at once.
pub fn is_the_late_one(own: u32, peers: &mut [u32]) -> bool {
    peers.sort_unstable();
    let usual = peers.get(peers.len() / 2).copied().unwrap_or(0);
    own >= LEAST_LATES && own > usual.saturating_mul(3).saturating_add(1)
}

/// Lapses within this time of each other count together.
const LAPSES_FADE_MS: u64 = 60_000;
/// The first lapses cost no more than a probe.
const FREE_LAPSES: u32 = 3;
/// The longest that an answering disk is kept out for.
const LONGEST_OUT: Duration = Duration::from_secs(60);

/// A disk's standing over time.
#[derive(Clone, Debug)]
pub struct Record {
    standing: Standing,
    /// Times it went out lately.
    lapses: u32,
    last_lapse_ms: u64,
    out_until_ms: u64,
}

impl Record {
    /// A disk that was just opened, or could not be.
    pub fn new(standing: Standing) -> Self {
        Self {
            standing,
            lapses: 0,
            last_lapse_ms: 0,
            out_until_ms: 0,
        }
    }

    /// How it stands.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether it takes new writes.
    pub fn is_living(&self) -> bool {
        self.standing == Standing::Living
    }

    /// A call showed that it is out. True if that changes its standing.
    pub fn lapse(&mut self, standing: Standing, now_ms: u64) -> bool {
        assert!(standing != Standing::Living, "a lapse puts a disk out");
        if self.is_living() {
            if now_ms.saturating_sub(self.last_lapse_ms) > LAPSES_FADE_MS {
                self.lapses = 0;
            }
            self.lapses += 1;
            self.last_lapse_ms = now_ms;
            self.out_until_ms = now_ms + out_for(self.lapses).as_millis() as u64;
        }
        let changed = self.standing != standing;
        self.standing = standing;
        changed
    }

    /// A probe was answered in time, by the right disk under our epoch. True
    /// if it takes writes again.
    pub fn answered(&mut self, now_ms: u64) -> bool {
        if now_ms.saturating_sub(self.last_lapse_ms) > LAPSES_FADE_MS {
            self.lapses = 0;
        }
        if self.is_living() || now_ms < self.out_until_ms {
            return false;
        }
        self.standing = Standing::Living;
        true
    }
}

/// How long a disk stays out at its nth lapse.
fn out_for(lapses: u32) -> Duration {
    match lapses.checked_sub(FREE_LAPSES) {
        None | Some(0) => Duration::ZERO,
        Some(more) => Duration::from_secs(1 << more.min(6)).min(LONGEST_OUT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_brings_a_late_disk_back() {
        let mut record = Record::new(Standing::Living);
        assert!(record.lapse(Standing::Late, 1000));
        assert!(!record.is_living());
        assert!(!record.lapse(Standing::Late, 1001), "already out");
        assert!(record.answered(1002));
        assert!(record.is_living());
    }

    #[test]
    fn a_disk_that_is_late_again_and_again_stays_out_longer() {
        let mut record = Record::new(Standing::Living);
        let mut now = 1000;
        let mut outs = Vec::new();
        for _ in 0..12 {
            record.lapse(Standing::Late, now);
            let from = now;
            while !record.answered(now) {
                now += 500;
            }
            outs.push((now - from) / 1000);
        }
        assert_eq!(outs[..3], [0, 0, 0]);
        assert_eq!(outs[3..9], [2, 4, 8, 16, 32, 60]);
    }

    #[test]
    fn only_a_disk_that_is_late_more_than_its_peers_is_to_blame() {
        for (own, peers, is) in [
            (1, &[0, 0, 0, 0, 0][..], false),
            (4, &[0, 0, 0, 0, 0], true),
            (4, &[], true),
            (4, &[0, 0, 0, 9, 9], true),
            (6, &[5, 7, 6, 4, 8], false),
            (40, &[5, 7, 6, 4, 8], true),
            (4, &[4], false),
        ] {
            assert_eq!(
                is_the_late_one(own, &mut peers.to_vec()),
                is,
                "{own} of {peers:?}"
            );
        }
    }

    #[test]
    fn late_calls_fade() {
        let mut lates = Lates::default();
        for now in 0..5 {
            lates.note(now);
        }
        assert_eq!(lates.recent(LATES_FADE_MS), 5);
        assert_eq!(lates.recent(LATES_FADE_MS + 1), 0);
        lates.note(LATES_FADE_MS + 2);
        assert_eq!(lates.recent(LATES_FADE_MS + 2), 1);
    }

    #[test]
    fn old_lapses_are_forgotten() {
        let mut record = Record::new(Standing::Living);
        for now in 0..5 {
            record.lapse(Standing::Late, now);
            record.answered(now + 20_000);
        }
        let later = 500_000;
        record.answered(later);
        record.lapse(Standing::Late, later);
        assert_eq!(record.lapses, 1);
        assert!(record.answered(later + 1));
    }
}

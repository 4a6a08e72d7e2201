//! What one part of a check finds, bounded.
//!
//! Invariant: a page has at most [`MAX_FINDINGS`], and if there were more, the
//! last one says how many.

use shardgate_wire::check::{MAX_DAMAGED, MAX_FINDINGS, bounded};
use shardgate_wire::{CheckCursor, CheckPage, Finding, ShardKey};

/// Findings that are said one by one; one more has room for what is beyond.
const SAID: usize = MAX_FINDINGS - 1;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Report {
    page: CheckPage,
    /// Findings beyond [`SAID`], and where the last of them was.
    more: u64,
    more_in: String,
    damaged: Vec<(ShardKey, String)>,
    /// Shards that were found whole, for tests that know which there are.
    #[cfg(test)]
    pub(crate) seen: Vec<ShardKey>,
}

impl Report {
    pub(crate) fn find(&mut self, place: &str, shard: Option<ShardKey>, what: impl Into<String>) {
        let what = bounded(what.into());
        if let Some(key) = shard.filter(|_| self.damaged.len() < MAX_DAMAGED) {
            self.damaged.push((key, what.clone()));
        }
        let place = bounded(place.to_owned());
        self.push(Finding {
            place,
            shard,
            what,
            repaired: false,
        });
    }

    fn push(&mut self, finding: Finding) {
        if self.page.findings.len() < SAID {
            self.page.findings.push(finding);
        } else {
            self.more += 1;
            self.more_in = finding.place;
        }
    }

    /// What was found first is repaired: a directory is told before the
    /// records of its volume, which nobody repairs here.
    pub(crate) fn repaired(&mut self) {
        if let Some(first) = self.page.findings.first_mut() {
            first.repaired = true;
        }
    }

    /// A shard that is whole.
    pub(crate) fn whole(&mut self, key: ShardKey, bytes: u64) {
        self.page.shards += 1;
        self.page.bytes += bytes;
        #[cfg(test)]
        self.seen.push(key);
        let _ = key;
    }

    /// A volume that was read.
    pub(crate) fn volume(&mut self) {
        self.page.volumes += 1;
    }

    /// Takes in what was found of something smaller.
    pub(crate) fn add(&mut self, other: Self) {
        self.page.volumes += other.page.volumes;
        self.page.shards += other.page.shards;
        self.page.bytes += other.page.bytes;
        for finding in other.page.findings {
            self.push(finding);
        }
        if other.more > 0 {
            self.more += other.more;
            self.more_in = other.more_in;
        }
        let room = MAX_DAMAGED.saturating_sub(self.damaged.len());
        self.damaged.extend(other.damaged.into_iter().take(room));
        #[cfg(test)]
        self.seen.extend(other.seen);
    }

    /// Whether a part should end here: what follows would not be said.
    pub(crate) fn is_full(&self) -> bool {
        self.page.findings.len() >= SAID
    }

    /// The shards that are damaged, those that no finding says as well.
    pub(crate) fn damaged(&self) -> &[(ShardKey, String)] {
        &self.damaged
    }

    pub(crate) fn into_page(mut self, next: Option<CheckCursor>) -> CheckPage {
        if self.more > 0 {
            self.page.findings.push(Finding {
                place: self.more_in,
                shard: None,
                what: format!("{} more are wrong here", self.more),
                repaired: false,
            });
        }
        self.page.next = next;
        self.page
    }
}

#[cfg(test)]
mod tests {
    use shardgate_wire::check::MAX_FINDING_BYTES;
    use shardgate_wire::conformance::sample;

    use super::*;

    #[test]
    fn what_is_found_is_bounded_and_says_so() {
        for many in [SAID, SAID + 1, 5000] {
            let mut report = Report::default();
            for blob in 0..many {
                let key = sample::key(blob as u128);
                report.find("volume 1", Some(key), "x".repeat(1000));
            }
            assert!(report.is_full());
            assert_eq!(report.damaged().len(), many.min(MAX_DAMAGED));
            let mut all = Report::default();
            all.find("root-a", None, "it is damaged");
            all.add(report);
            let page = all.into_page(None);
            assert_eq!(page.findings.len(), MAX_FINDINGS);
            let texts = |finding: &Finding| finding.what.len().max(finding.place.len());
            assert!(page.findings.iter().map(texts).max() <= Some(MAX_FINDING_BYTES));
            let last = page.findings.last().unwrap();
            let more = format!("{} more are wrong here", many + 1 - SAID);
            assert_eq!((&*last.place, &*last.what), ("volume 1", &*more));
        }
    }
}

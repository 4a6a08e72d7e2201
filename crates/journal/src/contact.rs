//! Whether a gateway may still answer: the contact rule of PROTOCOL.md 1.
//!
//! A gateway that was cut off would serve old data for ever. So it answers
//! nothing unless a majority of the journal disks has answered a call of its
//! epoch in the last ten seconds, counted from when the call was sent. Pure:
//! the caller says what time it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shardgate_wire::DiskId;
use tokio::time::Instant;

use crate::disks::{JournalMap, is_majority};

/// How old an answered call may be.
pub const CONTACT: Duration = Duration::from_secs(10);
/// After so long without one a disk is asked.
pub const IDLE: Duration = Duration::from_secs(3);

/// When each journal disk was last heard.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    /// When the newest call that was answered had been sent.
    heard: BTreeMap<DiskId, Instant>,
}

/// What may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Everything.
    All,
    /// Reads only: of two journal disks the other is reported gone.
    Read,
    /// Nothing.
    Nothing,
}

impl Contact {
    /// A disk answered a call of this epoch that had been sent at `sent`.
    pub fn answered(&mut self, disk: DiskId, sent: Instant) {
        let heard = self.heard.entry(disk).or_insert(sent);
        *heard = (*heard).max(sent);
    }

    /// What may be answered at `now`; `gone`: the disks that are reported
    /// gone, by their agent or the system and not for silence alone; `lost`:
    /// those that the operator named lost for good.
    pub fn may_answer(
        &self,
        map: &JournalMap,
        gone: &[DiskId],
        lost: &[DiskId],
        now: Instant,
    ) -> May {
        let heard: Vec<DiskId> = self
            .heard
            .iter()
            .filter(|(_, sent)| now.saturating_duration_since(**sent) < CONTACT)
            .map(|(disk, _)| *disk)
            .collect();
        if map.has_enough(&heard, lost) {
            return May::All;
        }
        let of_two = |of: &[DiskId]| {
            of.len() == 2 && of.iter().any(|d| heard.contains(d)) && {
                let silent = |disk: &&DiskId| !heard.contains(disk);
                of.iter().filter(silent).all(|disk| gone.contains(disk))
            }
        };
        let reads = |of: &[DiskId]| is_majority(of, &heard) || of_two(of);
        if map.quorums().into_iter().all(reads) {
            May::Read
        } else {
            May::Nothing
        }
    }

    /// The disks to ask at `now`, because nothing was heard for a while.
    pub fn due(&self, map: &JournalMap, now: Instant) -> Vec<DiskId> {
        let idle = |disk: &DiskId| {
            let heard = self.heard.get(disk);
            heard.is_none_or(|sent| now.saturating_duration_since(*sent) >= IDLE)
        };
        map.all().into_iter().filter(idle).collect()
    }
}

/// A [`Contact`] that several tasks feed.
#[derive(Clone, Debug, Default)]
pub struct SharedContact(Arc<Mutex<Contact>>);

impl SharedContact {
    /// As [`Contact::answered`].
    pub fn answered(&self, disk: DiskId, sent: Instant) {
        self.0.lock().answered(disk, sent);
    }

    /// As it stands.
    pub fn now(&self) -> Contact {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(disks: std::ops::RangeInclusive<u128>) -> JournalMap {
        JournalMap {
            number: 1,
            disks: disks.map(DiskId).collect(),
            old: None,
        }
    }

    #[test]
    fn a_majority_within_ten_seconds_of_sending() {
        let start = Instant::now();
        let mut contact = Contact::default();
        let may = |contact: &Contact, after| {
            contact.may_answer(&map(1..=3), &[], &[], start + Duration::from_millis(after))
        };
        assert_eq!(may(&contact, 0), May::Nothing);
        contact.answered(DiskId(1), start);
        assert_eq!(may(&contact, 0), May::Nothing);
        contact.answered(DiskId(2), start);
        assert_eq!(may(&contact, 9_999), May::All);
        assert_eq!(may(&contact, 10_000), May::Nothing);
        contact.answered(DiskId(3), start + Duration::from_secs(5));
        assert_eq!(may(&contact, 10_000), May::Nothing);
        contact.answered(DiskId(1), start + Duration::from_secs(6));
        assert_eq!(may(&contact, 14_999), May::All);
        // An answer that comes late counts from when its call was sent.
        contact.answered(DiskId(3), start);
        assert_eq!(may(&contact, 15_000), May::Nothing);
    }

    #[test]
    fn of_two_one_suffices_for_reads_while_the_other_is_gone() {
        let start = Instant::now();
        let mut contact = Contact::default();
        contact.answered(DiskId(1), start);
        let two = map(1..=2);
        assert_eq!(contact.may_answer(&two, &[], &[], start), May::Nothing);
        assert_eq!(
            contact.may_answer(&two, &[DiskId(2)], &[], start),
            May::Read
        );
        let three = map(1..=3);
        let gone = [DiskId(2), DiskId(3)];
        assert_eq!(contact.may_answer(&three, &gone, &[], start), May::Nothing);
        // Named lost for good by the operator, they are waited for no more.
        assert_eq!(contact.may_answer(&three, &[], &gone, start), May::All);
        assert_eq!(
            contact.may_answer(&three, &[], &gone[..1], start),
            May::Nothing
        );
    }

    #[test]
    fn both_sets_count_while_the_journal_disks_change() {
        let start = Instant::now();
        let mut contact = Contact::default();
        let changing = JournalMap {
            old: Some(vec![DiskId(3), DiskId(4), DiskId(5)]),
            ..map(1..=3)
        };
        for disk in [1, 2] {
            contact.answered(DiskId(disk), start);
        }
        assert_eq!(contact.may_answer(&changing, &[], &[], start), May::Nothing);
        for disk in [4, 5] {
            contact.answered(DiskId(disk), start);
        }
        assert_eq!(contact.may_answer(&changing, &[], &[], start), May::All);
    }

    #[test]
    fn idle_disks_are_asked() {
        let start = Instant::now();
        let mut contact = Contact::default();
        contact.answered(DiskId(1), start);
        let ids = |ids: &[u128]| ids.iter().copied().map(DiskId).collect::<Vec<_>>();
        assert_eq!(contact.due(&map(1..=2), start), ids(&[2]));
        assert_eq!(contact.due(&map(1..=2), start + IDLE), ids(&[1, 2]));
    }
}

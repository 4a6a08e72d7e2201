//! The journal disks as the writer sees them: which are usable now.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{CallContext, DiskId, Epoch, StoreError};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Member, WriterOptions};
use crate::contact::SharedContact;
use crate::disks::{
    Candidate, JournalMap, Lost, choose_members, choose_members_for_change, is_enough, segment_size,
};
use crate::lateness::Latencies;

/// How long a disk that failed is left alone.
const REST: Duration = Duration::from_secs(1);
/// How long a probe may take.
const PROBE: Duration = Duration::from_secs(2);
/// How long a disk that was late comes last.
const LATE_FOR: Duration = Duration::from_secs(10);

/// How a disk stands; shared with the calls that are under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Calls without an answer yet.
    pub(super) under_way: u32,
    /// It failed, and is probed from then on.
    pub(super) failed: Option<Instant>,
    /// It was late, and comes last until then.
    pub(super) late_until: Option<Instant>,
    /// Another's epoch is in force on it.
    pub(super) refused: Option<Epoch>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) disk: Arc<dyn JournalDisk>,
    pub(super) place: Candidate,
    segment_bytes: u64,
    pub(super) standing: Arc<watch::Sender<Standing>>,
}

#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) slots: Vec<Slot>,
    disks: Vec<DiskId>,
    old: Option<Vec<DiskId>>,
    parity: usize,
    lost: Lost,
    pub(super) latencies: Latencies,
    pub(super) contact: SharedContact,
    /// When a segment was last given up because a member was late.
    pub(super) switched: Option<Instant>,
}

impl Slot {
    fn of(member: Member) -> Self {
        Self {
            disk: member.disk,
            place: member.place,
            segment_bytes: member.segment_bytes,
            standing: Arc::default(),
        }
    }

    pub(super) fn now(&self) -> Standing {
        *self.standing.borrow()
    }
}

impl Standing {
    fn is_usable(&self) -> bool {
        self.under_way == 0 && self.failed.is_none() && self.refused.is_none()
    }

    fn is_late(&self) -> bool {
        self.late_until.is_some_and(|until| until > Instant::now())
    }

    pub(super) fn note(&mut self, error: &StoreError) {
        match error {
            StoreError::StaleEpoch { held } => self.refused = Some(*held),
            // The agent was started anew: the disk is sound, the file ended.
            StoreError::NoHandle => {}
            _ => self.failed = Some(Instant::now()),
        }
    }
}

impl Fleet {
    pub(super) fn new(members: Vec<Member>, map: &JournalMap, options: &WriterOptions) -> Self {
        let mut fleet = Self {
            slots: members.into_iter().map(Slot::of).collect(),
            disks: map.disks.clone(),
            old: map.old.clone(),
            parity: options.parity,
            lost: options.lost.clone(),
            latencies: Latencies::default(),
            contact: options.contact.clone(),
            switched: None,
        };
        fleet.keep(map);
        fleet
    }

    /// Takes disks in for a change of the journal disks.
    pub(super) fn change(&mut self, members: Vec<Member>, map: &JournalMap) {
        for member in members {
            if self
                .slots
                .iter()
                .all(|slot| slot.place.disk != member.place.disk)
            {
                self.slots.push(Slot::of(member));
            }
        }
        self.keep(map);
    }

    /// Keeps the disks that the map names.
    pub(super) fn keep(&mut self, map: &JournalMap) {
        self.disks = map.disks.clone();
        self.old = map.old.clone();
        let named = map.all();
        self.slots.retain(|slot| named.contains(&slot.place.disk));
    }

    pub(super) fn target(&self) -> usize {
        segment_size(self.disks.len(), self.parity).0
    }

    pub(super) fn least_segment_bytes(&self) -> u64 {
        let sizes = self.slots.iter().map(|slot| slot.segment_bytes);
        sizes.min().unwrap_or(0)
    }

    pub(super) fn slot(&self, disk: DiskId) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.place.disk == disk)
    }

    /// The members of the next segment, those of the last before others; only
    /// disks that are not late, if `punctual`.
    pub(super) fn choose(&self, last: &[DiskId], punctual: bool) -> Option<Vec<DiskId>> {
        let late: BTreeSet<u128> = self
            .slots
            .iter()
            .filter(|slot| slot.now().is_late())
            .map(|slot| slot.place.device)
            .collect();
        let lost = self.lost.all();
        let mut usable: Vec<&Slot> = self
            .slots
            .iter()
            .filter(|slot| slot.now().is_usable() && !lost.contains(&slot.place.disk))
            .filter(|slot| !punctual || !late.contains(&slot.place.device))
            .collect();
        usable.sort_by_key(|slot| {
            let disk = slot.place.disk;
            let new = !last.contains(&disk);
            let is_late = late.contains(&slot.place.device);
            (is_late, new, self.latencies.rank(&disk), disk)
        });
        self.choose_of(
            &usable
                .iter()
                .map(|slot| slot.place.disk)
                .collect::<Vec<_>>(),
        )
    }

    /// Whether a segment could go on without these, and without any disk on
    /// their devices.
    pub(super) fn can_do_without(&self, late: &BTreeSet<DiskId>) -> bool {
        let devices: BTreeSet<u128> = late
            .iter()
            .filter_map(|disk| Some(self.slot(*disk)?.place.device))
            .collect();
        let usable: Vec<DiskId> = self
            .slots
            .iter()
            .filter(|slot| slot.now().is_usable() && !slot.now().is_late())
            .filter(|slot| !devices.contains(&slot.place.device))
            .map(|slot| slot.place.disk)
            .collect();
        self.choose_of(&usable).is_some()
    }

    fn choose_of(&self, usable: &[DiskId]) -> Option<Vec<DiskId>> {
        let lost = self.lost.all();
        let journal: Vec<Candidate> = self.slots.iter().map(|slot| slot.place).collect();
        if let Some(old) = &self.old {
            let sets = (&old[..], &self.disks[..]);
            return choose_members_for_change(&journal, sets, usable, self.parity, &lost);
        }
        // Enough is of all journal disks, also of those that are not here.
        let members = choose_members(&journal, usable, self.parity, &lost)?;
        is_enough(&self.disks, &members, &lost).then_some(members)
    }

    /// The epoch that so many disks have accepted that this writer can never
    /// have a majority again.
    pub(super) fn taken_over(&self) -> Option<Epoch> {
        let lost = self.lost.all();
        let refusing = |quorum: &[DiskId]| {
            let left = quorum.iter().filter(|disk| {
                let refused = self.slot(**disk).and_then(|slot| slot.now().refused);
                refused.is_none() && !lost.contains(disk)
            });
            !is_enough(quorum, &left.copied().collect::<Vec<_>>(), &lost)
        };
        let taken = refusing(&self.disks) || self.old.as_deref().is_some_and(refusing);
        let refused = self.slots.iter().filter_map(|slot| slot.now().refused);
        taken.then(|| refused.max_by_key(|epoch| epoch.number))?
    }

    /// Asks disks that failed whether they are back, in the background.
    pub(super) fn probe(&self, ctx: CallContext) {
        for slot in &self.slots {
            let standing = slot.now();
            let rested = standing.failed.is_some_and(|at| at.elapsed() >= REST);
            if !rested || standing.under_way > 0 {
                continue;
            }
            let (disk, shared) = (Arc::clone(&slot.disk), Arc::clone(&slot.standing));
            shared.send_modify(|standing| standing.under_way += 1);
            let contact = self.contact.clone();
            tokio::spawn(async move {
                let sent = Instant::now();
                let answer = timeout(PROBE, disk.raise(&ctx)).await;
                shared.send_modify(|standing| {
                    standing.under_way -= 1;
                    match &answer {
                        Ok(Ok(())) => standing.failed = None,
                        Ok(Err(error)) => standing.note(error),
                        Err(_) => standing.failed = Some(Instant::now()),
                    }
                });
                if let Ok(Ok(())) = answer {
                    contact.answered(disk.disk(), sent);
                }
            });
        }
    }

    /// Marks disks as late: for a while they come last.
    pub(super) fn mark_late(&mut self, late: &BTreeSet<DiskId>) {
        let until = Instant::now() + LATE_FOR;
        self.switched = Some(Instant::now());
        for disk in late {
            if let Some(slot) = self.slot(*disk) {
                slot.standing
                    .send_modify(|standing| standing.late_until = Some(until));
            }
        }
    }
}

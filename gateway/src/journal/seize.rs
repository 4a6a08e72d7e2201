//! Taking a pool whose catalog is to be made anew.
//!
//! Owns the order that a rebuild has in common with a start: find the disks,
//! follow the pool map, be free to start or watch, raise the epoch; then read
//! what there is of the journal, and only when everything is read begin
//! another. Invariants: the pool map names the old lineage until the first
//! record of the new journal is durable, on as many disks of the old journal
//! as of the new, and until then nothing of the old one is void: whatever is
//! cut short before begins here again, and a start knows what disks were told.

use std::sync::Arc;
use std::time::Duration;

use shardgate_journal::disks::{Lost, choose_journal};
use shardgate_journal::map::{MapDisk, MapDiskState, PoolMap};
use shardgate_journal::recover::Request;
use shardgate_journal::salvage::{Salvage, salvage};
use shardgate_journal::{JournalError, Position, Writer, WriterOptions};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{
    CallContext, ClusterId, CommitNumber, DiskHealth, DiskId, Epoch, LineageId, Purpose,
};
use tokio::time::Instant;

use super::find::Found;
use super::log::Journal;
use super::maps::write_until_it_counts;
use super::own::OwnRecord;
use super::start::{ANSWER, JournalStart, JournalStartError, Starting};
use crate::pool::start::plan::At;
use crate::pool::ways::DiskWays;

/// How often the map may change while this begins.
const ROUNDS: usize = 5;

/// A pool that is this process's.
pub struct Seized {
    starting: Starting,
    map: PoolMap,
    /// Whether the map is known to count.
    counts: bool,
    lost: Vec<DiskId>,
    /// What there is of the journal.
    pub salvage: Salvage,
}

/// A disk of it.
pub struct SeizedDisk {
    /// Where it is.
    pub at: At,
    /// What it said before the epoch was raised.
    pub health: DiskHealth,
    /// The ways to it.
    pub ways: DiskWays,
}

/// Takes the pool of a cluster.
///
/// # Errors
/// [`JournalStartError`]; nothing was written but an epoch.
pub async fn seize(start: JournalStart, cluster: ClusterId) -> Result<Seized, JournalStartError> {
    let own = OwnRecord::read(&start.own).map_err(JournalStartError::Own)?;
    let own = own.filter(|own| own.cluster == cluster);
    let give_up = Instant::now() + start.settings.start_patience;
    let mut starting = Starting::new(Found::new(cluster), Some(cluster), own, start);
    let mut newest = starting.find_map(give_up).await?;
    for _ in 0..ROUNDS {
        let lost = starting.lost(&newest.map);
        let freed = starting.be_free(&newest.map, &lost).await?;
        let request = Request {
            ctx: CallContext {
                cluster,
                epoch: Epoch {
                    number: 0,
                    instance: freed.instance,
                },
                lineage: newest.map.lineage,
                committed: CommitNumber(0),
                purpose: Purpose::Client,
            },
            map: newest.map.journal_map(),
            lost: lost.clone(),
            from: Position::default(),
            begun: true,
            judged: Some(freed.held),
            answer_within: ANSWER,
        };
        let found = salvage(&starting.found.journals(&lost), request).await;
        let salvage = match found {
            // Another gateway has begun meanwhile.
            Err(JournalError::Fenced(_)) => {
                newest = starting
                    .newest()
                    .await
                    .ok_or(JournalStartError::Unsettled)?;
                continue;
            }
            found => found?,
        };
        match starting.newest().await {
            Some(again) if again.map != newest.map => newest = again,
            Some(again) => {
                if let Some(mut taken_over) = starting.taken_over.take() {
                    taken_over.begin_wait();
                    let waited = taken_over.wait().await;
                    waited.map_err(JournalStartError::Own)?;
                }
                return Ok(Seized {
                    starting,
                    map: again.map,
                    counts: again.counts,
                    lost,
                    salvage,
                });
            }
            None => return Err(JournalStartError::Unsettled),
        }
    }
    Err(JournalStartError::Unsettled)
}

impl Seized {
    /// The newest pool map.
    pub fn map(&self) -> &PoolMap {
        &self.map
    }

    /// Disks that were named lost for good: none is read.
    pub fn lost(&self) -> &[DiskId] {
        &self.lost
    }

    /// The disks that are open and not lost for good.
    pub fn disks(&self) -> Vec<(DiskId, SeizedDisk)> {
        let disks = self.starting.found.disks.iter();
        let here = disks.filter(|(disk, _)| !self.lost.contains(disk));
        let seized = here.map(|(disk, found)| {
            let seized = SeizedDisk {
                at: found.at.clone(),
                health: found.health.clone(),
                ways: found.ways.clone(),
            };
            (*disk, seized)
        });
        seized.collect()
    }

    /// Makes ready for another journal under a new lineage, over the disks
    /// that are here: gives its writer, and the pool map that is to follow.
    /// The first record must say that the catalog is not whole: with it the
    /// journal begins, and the old one is void.
    ///
    /// # Errors
    /// Too few disks take a pool map that was not complete, or another gateway
    /// has taken over.
    pub async fn begin(
        self,
        lineage: LineageId,
    ) -> Result<(Writer, MapToFollow), JournalStartError> {
        let Self {
            starting,
            map,
            counts,
            lost,
            salvage,
        } = self;
        let mut ctx = salvage.context();
        let disks = starting.found.journals(&lost);
        let patience = starting.start.settings.start_patience;
        if !counts {
            write_until_it_counts(&disks, &ctx, &map, &lost, patience).await?;
        }
        let candidates = starting.found.candidates();
        let here: Vec<_> = candidates
            .into_iter()
            .filter(|of| !lost.contains(&of.disk))
            .collect();
        let journal = choose_journal(&here, &map.journal, starting.parity());
        ctx.lineage = lineage;
        let changed = PoolMap {
            number: map.number + 1,
            epoch: ctx.epoch,
            lineage,
            old: (journal != map.journal).then(|| map.journal.clone()),
            journal,
            disks: disks_of(&starting, &map, &lost),
            ..map
        };
        let members = starting.members(&changed).await;
        let options = WriterOptions {
            parity: starting.parity(),
            lost: Lost::new(lost.clone()),
            ..WriterOptions::default()
        };
        // Its members are a majority of the old journal disks too, so that
        // whoever starts by the old map meets it.
        let writer = Writer::anew(ctx, &changed.journal_map(), members, options);
        let follows = MapToFollow {
            map: changed,
            disks,
            lost,
            patience,
        };
        Ok((writer, follows))
    }
}

/// The pool map of a journal that was begun anew.
#[must_use = "the journal's first record is followed by it"]
pub struct MapToFollow {
    map: PoolMap,
    disks: Vec<Arc<dyn JournalDisk>>,
    lost: Vec<DiskId>,
    patience: Duration,
}

impl MapToFollow {
    /// Writes it, until it counts; the journal's first record is durable.
    ///
    /// # Errors
    /// Too few disks take it, or another gateway has taken over.
    pub async fn write(self, journal: &Journal) -> Result<(), JournalStartError> {
        let ctx = journal.context();
        assert!(
            ctx.committed > CommitNumber(0),
            "the first record comes first"
        );
        let (disks, lost) = (&self.disks, &self.lost);
        write_until_it_counts(disks, &ctx, &self.map, lost, self.patience).await?;
        if self.map.old.is_some() {
            journal.hold().await.writer()?.change_done();
            let settled = self.map.settled(ctx.epoch);
            write_until_it_counts(disks, &ctx, &settled, lost, self.patience).await?;
        }
        Ok(())
    }
}

/// All disks as the map has them from now on.
fn disks_of(starting: &Starting, map: &PoolMap, lost: &[DiskId]) -> Vec<MapDisk> {
    let mut disks = map.disks.clone();
    for disk in starting.found.map_disks() {
        match disks.iter_mut().find(|known| known.id == disk.id) {
            Some(known) if known.state == MapDiskState::Member => *known = disk,
            Some(_) => {}
            None => disks.push(disk),
        }
    }
    for disk in disks.iter_mut().filter(|disk| lost.contains(&disk.id)) {
        disk.state = MapDiskState::Lost;
    }
    disks
}

#[cfg(test)]
#[path = "seize_tests.rs"]
mod tests;

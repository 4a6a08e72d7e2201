//! Whether a start may raise the epoch: nobody else serves the pool, or the
//! operator takes over (PROTOCOL.md 1).
//!
//! Invariants: the epoch is not raised as long as another gateway may still
//! call, unless the operator says so; then nothing is answered, and no other
//! start is let go on at once, for as long as that one may answer.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shardgate_journal::JournalError;
use shardgate_journal::disks::{JournalMap, check_quorum};
use shardgate_journal::map::PoolMap;
use shardgate_journal::start::{Before, First, WATCH, Watch, Watched, first, highest};
use shardgate_wire::journal::{JournalDisk, JournalStanding};
use shardgate_wire::{CallContext, DiskId, Epoch, InstanceId};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::own::OwnRecord;
use super::refused::JournalStartError;
use super::start::Starting;

/// Between two questions while another gateway may live.
const ASK: Duration = Duration::from_secs(1);
/// The instance of an epoch that nobody holds: a clean stop leaves it.
pub(super) const RELEASED: InstanceId = InstanceId(0);

/// By what a start was let go on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freed {
    /// This run.
    pub(super) instance: InstanceId,
    /// The highest epoch that was seen. Whoever has a higher one may live.
    pub(super) held: Epoch,
}

/// A pool that was taken from a gateway that may live, and answer for a time.
#[derive(Debug)]
pub struct TakenOver {
    until: Instant,
    record: OwnRecord,
    folder: PathBuf,
}

impl TakenOver {
    /// Counts from now on: no older gateway can commit any more.
    pub(super) fn begin_wait(&mut self) {
        self.until = Instant::now() + WATCH;
    }

    /// Waits until the other answers no more. Only then the own folder says
    /// who this run was: the next start there is free at once by that, also if
    /// this one ends before.
    ///
    /// # Errors
    /// The own folder cannot be written.
    pub async fn wait(self) -> io::Result<()> {
        tracing::info!("waiting until the other gateway answers no more");
        sleep_until(self.until).await;
        self.record.write(&self.folder)
    }
}

impl Starting {
    /// Waits until this gateway may raise the epoch.
    pub(super) async fn be_free(
        &mut self,
        map: &PoolMap,
        lost: &[DiskId],
    ) -> Result<Freed, JournalStartError> {
        // Of a round before: what is met now is judged anew.
        self.taken_over = None;
        let journal = map.journal_map();
        let mut disks: BTreeSet<DiskId> = self.found.disks.keys().copied().collect();
        disks.extend(journal.all());
        let standings = self.standings(disks).await;
        let own = self.own.as_ref();
        let is_ours =
            |instance: InstanceId| own.is_some_and(|own| own.instances.contains(&instance));
        let is_gone = |instance: InstanceId| instance == RELEASED || is_ours(instance);
        let held = highest(standings.iter().map(|(_, of, _)| of.epoch), is_gone);
        let is_local = |disk: &DiskId| {
            let found = self.found.disks.get(disk);
            found.is_some_and(|found| found.at.agent.is_none())
        };
        let before = Before {
            closed: held.instance == RELEASED,
            our_folder: is_ours(held.instance).then_some(held.instance),
            // Whoever opened a disk here holds the lock on its folder.
            all_locked: journal.all().iter().all(is_local),
            take_over: self.start.take_over,
        };
        let first = first(&before, held);
        if first == First::Watch {
            self.watch(journal, lost, held).await?;
        }
        let instance = InstanceId::random();
        let record = OwnRecord {
            cluster: self.found.cluster,
            instances: own.map_or_else(Vec::new, |own| own.instances.clone()),
        };
        let record = record.with_instance(instance);
        if first == First::TakeOver {
            let epoch = held.number;
            tracing::warn!(epoch, "taking over from a gateway that may live");
            self.taken_over = Some(TakenOver {
                until: Instant::now() + WATCH,
                record,
                folder: self.start.own.clone(),
            });
        } else {
            let written = record.write(&self.start.own);
            written.map_err(JournalStartError::Own)?;
            self.own = Some(record);
        }
        Ok(Freed { instance, held })
    }

    /// What disks say of their journal, and when they were asked.
    pub(super) async fn standings(
        &self,
        disks: impl IntoIterator<Item = DiskId>,
    ) -> Vec<(DiskId, JournalStanding, Instant)> {
        let within = self.start.settings.probe_timeout;
        let asked = disks.into_iter().map(|disk| async move {
            let sent = Instant::now();
            let way = self.found.ways.get(disk);
            let answer = timeout(within, way.standing()).await;
            Some((disk, answer.ok()?.ok()?, sent))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    /// Watches whether another gateway still calls.
    async fn watch(
        &self,
        journal: JournalMap,
        lost: &[DiskId],
        held: Epoch,
    ) -> Result<(), JournalStartError> {
        tracing::info!(
            epoch = held.number,
            seconds = WATCH.as_secs(),
            "another gateway was here last: watching whether it still calls"
        );
        let began = Instant::now();
        let patience = WATCH + self.start.settings.start_patience;
        let mut watch = Watch::new(journal.clone(), lost.to_vec(), held, began);
        loop {
            for (disk, standing, sent) in self.standings(journal.all()).await {
                watch.saw(disk, &standing, sent, Instant::now());
            }
            match watch.watched(Instant::now()) {
                Watched::Gone => return Ok(()),
                Watched::Alive(epoch) => return Err(JournalStartError::Alive(epoch)),
                Watched::GoOn if began.elapsed() > patience => {
                    let answered: Vec<_> = self.standings(journal.all()).await;
                    let answered: Vec<_> = answered.iter().map(|(disk, _, _)| *disk).collect();
                    check_quorum(&journal, &answered, lost).map_err(JournalError::from)?;
                    return Err(JournalStartError::Unsettled);
                }
                Watched::GoOn => sleep(ASK).await,
            }
        }
    }
}

/// Says to the next start that this gateway is gone: an epoch of no instance.
pub async fn release(disks: &[Arc<dyn JournalDisk>], mut ctx: CallContext, within: Duration) {
    ctx.epoch = Epoch {
        number: ctx.epoch.number + 1,
        instance: RELEASED,
    };
    let calls = disks.iter().map(|disk| async move {
        let _told = timeout(within, disk.raise(&ctx)).await;
    });
    join_all(calls).await;
}

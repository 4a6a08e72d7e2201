//! What a start makes of the segments that it finds (PROTOCOL.md 1 and 2).
//!
//! [`recover`] raises the epoch on a majority of the journal disks, reads, and
//! finds the one chain that counts, or refuses. [`Recovered::settle`] then
//! makes every record whose acknowledgement is not proven durable in a new
//! segment, and only after that hands out what there is to show.
//!
//! Invariants: nothing is read before the epoch is durable on the disks read;
//! nothing is shown that could be gone at the next start; a chain that is
//! shorter than what is known to be acknowledged is refused.

mod found;
mod place;
mod replay;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use shardgate_wire::journal::{JournalDisk, JournalFile, JournalStanding};
use shardgate_wire::{CallContext, DiskId, Epoch, StoreError};
use tokio::time::timeout;

use crate::chain::{Position, Record};
use crate::copies::Closed;
use crate::disks::{JournalMap, check_quorum};
use crate::error::{JournalError, Refusal};
use crate::format::SegmentId;
use crate::scan::{Held, ScanError, look};
use crate::writer::{Member, Writer, WriterOptions};

pub use found::Planned;
pub(crate) use found::disk_error;
pub use replay::Replay;

/// What a start asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Cluster, lineage and instance; the epoch's number is found out.
    pub ctx: CallContext,
    /// The newest pool map ([`crate::disks::follow_maps`]).
    pub map: JournalMap,
    /// Disks that the operator named lost for good.
    pub lost: Vec<DiskId>,
    /// What the local catalog has applied; before the first for a restore.
    pub from: Position,
    /// Whether the pool is known to have a journal, so that finding none of it
    /// is a loss and not a beginning.
    pub begun: bool,
    /// The epoch by which the start was judged free ([`crate::start::first`],
    /// [`crate::start::Watch`]), the highest of all the disks. Who has raised
    /// it since, or was not seen then because few disks answered, may live and
    /// answer, and is not fenced unheard. `None` fences whoever there is.
    pub judged: Option<Epoch>,
    /// How long one disk may take to answer one call.
    pub answer_within: Duration,
}

/// The number that the epoch is raised to.
pub(crate) fn next_epoch(
    standings: &[(DiskId, JournalStanding)],
    judged: Option<Epoch>,
) -> Result<u64, JournalError> {
    let epochs = standings.iter().map(|(_, of)| of.epoch);
    let highest = epochs.max_by_key(|epoch| epoch.number).unwrap_or_default();
    match judged {
        None => Ok(highest.number + 1),
        Some(judged) if highest.number > judged.number => Err(JournalError::Fenced(highest)),
        // Disks that did not answer now, and have a higher one, refuse it.
        Some(judged) => Ok(judged.number + 1),
    }
}

/// The journal as it was found; nothing of it may be shown yet.
#[derive(Debug)]
pub struct Recovered {
    pub(crate) ctx: CallContext,
    pub(crate) map: JournalMap,
    pub(crate) from: Position,
    pub(crate) tail: Position,
    pub(crate) proven: Position,
    pub(crate) unproven: Vec<Record>,
    pub(crate) predecessor: Option<SegmentId>,
    pub(crate) plan: Vec<Planned>,
    pub(crate) journal: Vec<Closed>,
    pub(crate) void: Vec<(DiskId, JournalFile)>,
    pub(crate) checkpoints: Vec<Vec<Bytes>>,
    pub(crate) disks: Vec<Arc<dyn JournalDisk>>,
    reached: Vec<DiskId>,
    damaged: Vec<(DiskId, SegmentId)>,
    complete: bool,
    ahead: bool,
}

/// Raises the epoch and finds the journal on `disks`, those of the map and any
/// others that may hold copies.
///
/// # Errors
/// [`JournalError::Refused`] says what is missing; [`JournalError::Fenced`]
/// that another gateway has a higher epoch than [`Request::judged`], or began
/// at the same time: whether the start is free has to be judged again.
pub async fn recover(
    disks: &[Arc<dyn JournalDisk>],
    request: Request,
) -> Result<Recovered, JournalError> {
    let standings = ask_standings(disks, request.answer_within).await;
    let number = next_epoch(&standings, request.judged)?;
    let mut ctx = request.ctx;
    ctx.epoch.number = number;
    let told: Vec<_> = standings.iter().map(|(_, of)| of.told).collect();
    let raised = raise(disks, &ctx, &request).await?;
    let (held, reached) = look_at_all(&raised, ctx, request.answer_within).await?;
    check_quorum(&request.map, &reached, &request.lost)?;
    let complete = check_quorum(&request.map, &reached, &[]).is_ok();
    let disks: Vec<_> = raised
        .into_iter()
        .filter(|disk| reached.contains(&disk.disk()))
        .collect();
    let search = found::Search {
        ctx,
        disks: &disks,
        held: &held,
        reached: &reached,
        told: &told,
        request: &request,
    };
    let found = search.find().await?;
    Ok(Recovered {
        ctx,
        map: request.map,
        from: request.from,
        tail: found.tail,
        proven: found.proven,
        unproven: found.unproven,
        predecessor: found.predecessor,
        plan: found.plan,
        journal: found.journal,
        void: found.void,
        checkpoints: found.checkpoints,
        damaged: found.damaged,
        ahead: found.ahead,
        disks,
        reached,
        complete,
    })
}

pub(crate) async fn ask_standings(
    disks: &[Arc<dyn JournalDisk>],
    within: Duration,
) -> Vec<(DiskId, JournalStanding)> {
    let asked = disks.iter().map(|disk| async move {
        let answer = timeout(within, disk.standing()).await;
        Some((disk.disk(), answer.ok()?.ok()?))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The disks that made the epoch durable; a majority of the map's.
pub(crate) async fn raise(
    disks: &[Arc<dyn JournalDisk>],
    ctx: &CallContext,
    request: &Request,
) -> Result<Vec<Arc<dyn JournalDisk>>, JournalError> {
    let calls = disks.iter().map(|disk| async move {
        let answer = timeout(request.answer_within, disk.raise(ctx)).await;
        (Arc::clone(disk), answer)
    });
    let mut raised = Vec::new();
    let mut fenced = None;
    for (disk, answer) in join_all(calls).await {
        match answer {
            Ok(Ok(())) => raised.push(disk),
            Ok(Err(StoreError::StaleEpoch { held })) => fenced = Some(held),
            Ok(Err(error)) => tracing::warn!(disk = %disk.disk(), %error, "disk takes no epoch"),
            Err(_) => tracing::warn!(disk = %disk.disk(), "disk does not answer"),
        }
    }
    let answered: Vec<DiskId> = raised.iter().map(|disk| disk.disk()).collect();
    match (check_quorum(&request.map, &answered, &request.lost), fenced) {
        (Ok(()), _) => Ok(raised),
        (Err(_), Some(held)) => Err(JournalError::Fenced(held)),
        (Err(refusal), None) => Err(refusal.into()),
    }
}

/// What lies on each disk, and which disks could be read to the end.
pub(crate) async fn look_at_all(
    disks: &[Arc<dyn JournalDisk>],
    ctx: CallContext,
    within: Duration,
) -> Result<(Vec<Held>, Vec<DiskId>), JournalError> {
    let calls = disks
        .iter()
        .map(|disk| async move { (disk.disk(), look_at(disk, ctx, within).await) });
    let (mut held, mut reached) = (Vec::new(), Vec::new());
    for (disk, found) in join_all(calls).await {
        match found {
            Ok(found) => {
                held.extend(found);
                reached.push(disk);
            }
            Err(ScanError::Version(found)) => {
                return Err(Refusal::Version { disk, found }.into());
            }
            Err(ScanError::Disk(StoreError::StaleEpoch { held })) => {
                return Err(JournalError::Fenced(held));
            }
            Err(ScanError::Disk(error)) => {
                tracing::warn!(%disk, %error, "journal of a disk cannot be read");
            }
        }
    }
    Ok((held, reached))
}

async fn look_at(
    disk: &Arc<dyn JournalDisk>,
    ctx: CallContext,
    within: Duration,
) -> Result<Vec<Held>, ScanError> {
    let late = |_| ScanError::Disk(StoreError::TimedOut(within));
    let files = timeout(within, disk.files(&ctx)).await.map_err(late)??;
    let mut held = Vec::new();
    for file in files {
        held.push(
            timeout(within, look(disk, ctx, file))
                .await
                .map_err(late)??,
        );
    }
    Ok(held)
}

impl Recovered {
    /// Cluster, lineage, and the epoch that was raised.
    pub fn context(&self) -> CallContext {
        self.ctx
    }

    /// The last record that there is.
    pub fn tail(&self) -> Position {
        self.tail
    }

    /// How many records have to be written anew before anything is shown.
    pub fn unproven(&self) -> usize {
        self.unproven.len()
    }

    /// Whether a majority of the journal disks answered. If not, the operator
    /// named the others lost, and what they alone had is not known of.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether it was begun anew and whoever did so had not come to write the
    /// pool map: what it would hold is not there.
    pub fn is_ahead_of_map(&self) -> bool {
        self.ahead
    }

    /// Segments of the journal that a disk has damaged; others had them.
    pub fn damaged(&self) -> &[(DiskId, SegmentId)] {
        &self.damaged
    }

    /// The checkpoint roots that segments of the journal name, those of the
    /// newest segment first, each time as the segment has them.
    pub fn checkpoints(&self) -> &[Vec<Bytes>] {
        &self.checkpoints
    }

    /// The disks that were read.
    pub fn reached(&self) -> &[DiskId] {
        &self.reached
    }

    /// Makes what is not proven durable in a new segment on all its members;
    /// waits for disks as long as it takes. Then what there is may be shown.
    ///
    /// # Errors
    /// Another gateway has taken over.
    pub async fn settle(
        mut self,
        members: Vec<Member>,
        options: WriterOptions,
    ) -> Result<(Writer, Replay), JournalError> {
        let unproven = std::mem::take(&mut self.unproven);
        let mut writer = Writer::new(&self, members, options);
        if !unproven.is_empty() {
            writer.rewrite(unproven.clone()).await?;
        }
        Ok((writer, Replay::new(self, unproven)))
    }
}

//! Which history the catalog continues after a start (PROTOCOL.md 7).
//!
//! Behind the replay and before the pool: the catalog is whole, and no disk
//! was told yet under which lineage. Where it may know less than was once
//! acknowledged, it takes a new lineage and holds on to everything. Invariant:
//! the lineage is committed first and then written into the pool map, which
//! only repeats it: a start that was cut short between the two goes on here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::model::{HoldReason, LineageRow};
use shardgate_catalog::{Catalog, CatalogError, NewLineage};
use shardgate_journal::JournalError;
use shardgate_journal::map::PoolMap;
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{CommitNumber, DiskId, LineageId};
use thiserror::Error;

use super::log::Journal;
use super::maps::write_until_it_counts;
use super::start::JournalStartError;
use crate::pool::lineage::{conflict, in_words};

/// What each disk was told last, before this start told it anything.
pub type Told = BTreeMap<DiskId, (LineageId, CommitNumber)>;

/// What settling needs.
pub struct Settling<'a> {
    /// The catalog, up to the last acknowledged commit.
    pub catalog: &'a Catalog,
    /// The journal.
    pub journal: &'a Journal,
    /// The disks that are open and were not named lost.
    pub disks: Vec<Arc<dyn JournalDisk>>,
    /// What they were told.
    pub told: &'a Told,
    /// Whether a majority of the journal disks was read.
    pub complete: bool,
    /// Disks named lost for good.
    pub lost: &'a [DiskId],
    /// The time, milliseconds since 1970.
    pub now_ms: u64,
    /// How long enough disks may take to have a pool map.
    pub patience: Duration,
}

/// Why it is not settled.
#[derive(Debug, Error)]
pub enum SettleError {
    /// The catalog's.
    #[error("catalog: {0}")]
    Catalog(#[from] CatalogError),
    /// The journal's.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The pool map's.
    #[error(transparent)]
    Map(#[from] JournalStartError),
}

/// Why the catalog may know less than was once acknowledged.
fn reasons(
    history: &LineageRow,
    committed: CommitNumber,
    told: &Told,
    complete: bool,
) -> Vec<HoldReason> {
    let incomplete = (!complete).then_some(HoldReason::JournalIncomplete);
    let of_disks = told.iter();
    let of_disks = of_disks.filter_map(|(disk, told)| conflict(history, committed, *disk, *told));
    incomplete.into_iter().chain(of_disks).collect()
}

/// Settles it: the history that the catalog continues, and the pool map that
/// says so.
///
/// # Errors
/// [`SettleError`]; the next start begins here again.
pub async fn settle(
    with: Settling<'_>,
    map: PoolMap,
) -> Result<(LineageRow, PoolMap), SettleError> {
    let Some(history) = with.catalog.lineage().await? else {
        // A new cluster: its row is still to come.
        return Ok((LineageRow::first(map.lineage), map));
    };
    let committed = with.catalog.committed();
    let why = reasons(&history, committed, with.told, with.complete);
    let history = match why.is_empty() {
        true => history,
        false => take(&with, history, committed, why).await?,
    };
    if map.lineage == history.lineage {
        return Ok((history, map));
    }
    with.journal.set_lineage(history.lineage).await?;
    let ctx = with.journal.context();
    let map = PoolMap {
        number: map.number + 1,
        epoch: ctx.epoch,
        lineage: history.lineage,
        ..map
    };
    write_until_it_counts(&with.disks, &ctx, &map, with.lost, with.patience).await?;
    Ok((history, map))
}

async fn take(
    with: &Settling<'_>,
    history: LineageRow,
    committed: CommitNumber,
    why: Vec<HoldReason>,
) -> Result<LineageRow, CatalogError> {
    for reason in &why {
        tracing::error!("nothing is reclaimed from now on: {}", in_words(reason));
    }
    let mut told: BTreeMap<LineageId, CommitNumber> = BTreeMap::new();
    for (lineage, last) in with.told.values().filter(|(_, last)| last.0 > 0) {
        let known = told.entry(*lineage).or_default();
        *known = (*last).max(*known);
    }
    // The commit that takes it is of the one before, and disks may hear so.
    let last = told.remove(&history.lineage).unwrap_or_default();
    let last_before = last.max(CommitNumber(committed.0 + 1));
    let new = NewLineage {
        lineage: LineageId::random(),
        history: with.journal.context().epoch.number,
        last_before,
        others: told.into_iter().collect(),
        why,
        now: with.now_ms,
    };
    with.catalog.take_lineage(&new).await
}

#[cfg(test)]
#[path = "lineage_tests.rs"]
mod tests;

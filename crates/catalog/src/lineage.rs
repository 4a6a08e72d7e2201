//! Which history the catalog continues, and the hold on reclaiming
//! (PROTOCOL.md 7).
//!
//! Invariant: a new lineage, the end of the one before and the hold come in
//! one commit; only the operator's word ends a hold.

use shardgate_wire::{CommitNumber, LineageId};

use crate::catalog::{ATTEMPTS, Catalog};
use crate::draft::Draft;
use crate::error::{CatalogError, Result};
use crate::keys;
use crate::model::{ClusterRow, Hold, HoldReason, LineageRow, UnixMillis};

/// A history that begins now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLineage {
    /// Its id.
    pub lineage: LineageId,
    /// The epoch in which it is taken.
    pub history: u64,
    /// The last commit of the one before that anybody knows of: the one that
    /// takes this one is of it still.
    pub last_before: CommitNumber,
    /// Others that disks were told of, and how far: known from now on.
    pub others: Vec<(LineageId, CommitNumber)>,
    /// Why nothing is reclaimed from now on; not empty.
    pub why: Vec<HoldReason>,
    /// The time.
    pub now: UnixMillis,
}

impl Catalog {
    /// The history that it continues; `None` before there is a cluster.
    pub async fn lineage(&self) -> Result<Option<LineageRow>> {
        if let Some(row) = self.row(keys::LINEAGE).await? {
            return Ok(Some(row));
        }
        let cluster = self.cluster().await?;
        Ok(cluster.map(|cluster| LineageRow::first(cluster.lineage)))
    }

    /// Takes a new lineage, under a hold. Reasons of a hold that there is
    /// already stay.
    ///
    /// # Errors
    /// [`CatalogError::Conflict`]: there is no cluster.
    pub async fn take_lineage(&self, new: &NewLineage) -> Result<LineageRow> {
        for _ in 0..ATTEMPTS {
            let cluster = self.stored::<ClusterRow>(keys::CLUSTER).await?;
            let (cluster_raw, mut cluster) = cluster.ok_or(CatalogError::Conflict)?;
            let held = self.stored::<LineageRow>(keys::LINEAGE).await?;
            let (held_raw, held) = held.unzip();
            let held = held.unwrap_or_else(|| LineageRow::first(cluster.lineage));
            let row = next(held, new);
            cluster.lineage = new.lineage;
            let mut draft = Draft::new();
            draft.expect(keys::CLUSTER.into(), Some(cluster_raw));
            draft.put(keys::CLUSTER.into(), &cluster);
            draft.expect(keys::LINEAGE.into(), held_raw);
            draft.put(keys::LINEAGE.into(), &row);
            match self.commit(draft).await {
                Ok(_) => return Ok(row),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }

    /// Ends the hold, if there is one; the operator has seen the list.
    pub async fn end_hold(&self) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let Some((raw, mut row)) = self.stored::<LineageRow>(keys::LINEAGE).await? else {
                return Ok(());
            };
            if row.hold.take().is_none() {
                return Ok(());
            }
            let mut draft = Draft::new();
            draft.expect(keys::LINEAGE.into(), Some(raw));
            draft.put(keys::LINEAGE.into(), &row);
            match self.commit(draft).await {
                Ok(_) => return Ok(()),
                Err(CatalogError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict)
    }
}

fn next(held: LineageRow, new: &NewLineage) -> LineageRow {
    let mut before = held.before;
    for (lineage, last) in &new.others {
        match before.iter_mut().find(|(of, _)| of == lineage) {
            Some((_, known)) => *known = (*last).max(*known),
            None => before.insert(0, (*lineage, *last)),
        }
    }
    before.insert(0, (held.lineage, new.last_before));
    before.truncate(LineageRow::KEPT);
    let mut hold = held.hold.unwrap_or(Hold {
        since: new.now,
        why: Vec::new(),
    });
    for reason in &new.why {
        if !hold.why.contains(reason) && hold.why.len() < Hold::REASONS {
            hold.why.push(*reason);
        }
    }
    LineageRow {
        lineage: new.lineage,
        history: new.history,
        before,
        hold: Some(hold),
    }
}

#[cfg(test)]
mod tests {
    use shardgate_wire::{ClusterId, DiskId, Epoch};

    use super::*;

    fn new(lineage: u128, last: u64, why: HoldReason) -> NewLineage {
        NewLineage {
            lineage: LineageId(lineage),
            history: lineage as u64 * 10,
            last_before: CommitNumber(last),
            others: Vec::new(),
            why: vec![why],
            now: 5,
        }
    }

    #[tokio::test]
    async fn lineages_follow_each_other_and_a_hold_lasts_until_its_end() {
        let catalog = Catalog::in_memory();
        assert_eq!(catalog.lineage().await, Ok(None));
        let why = HoldReason::JournalIncomplete;
        let none = catalog.take_lineage(&new(2, 9, why)).await;
        assert_eq!(none, Err(CatalogError::Conflict));
        let cluster = ClusterRow {
            cluster: ClusterId(1),
            lineage: LineageId(1),
            epoch: Epoch::default(),
            created: 1,
        };
        catalog.init_cluster(&cluster).await.unwrap();
        let first = LineageRow::first(LineageId(1));
        assert_eq!(catalog.lineage().await, Ok(Some(first)));
        catalog.take_lineage(&new(2, 9, why)).await.unwrap();
        let other = HoldReason::OtherLineage {
            disk: DiskId(4),
            lineage: LineageId(77),
        };
        catalog.take_lineage(&new(3, 12, other)).await.unwrap();
        let row = catalog.lineage().await.unwrap().unwrap();
        let before = vec![
            (LineageId(2), CommitNumber(12)),
            (LineageId(1), CommitNumber(9)),
        ];
        assert_eq!((row.lineage, row.history), (LineageId(3), 30));
        assert_eq!(row.before, before);
        assert_eq!(row.hold.unwrap().why, [why, other]);
        let held = catalog.cluster().await.unwrap().unwrap();
        assert_eq!(held.lineage, LineageId(3));

        catalog.end_hold().await.unwrap();
        let row = catalog.lineage().await.unwrap().unwrap();
        assert_eq!((row.lineage, row.hold), (LineageId(3), None));
        let committed = catalog.committed();
        catalog.end_hold().await.unwrap();
        assert_eq!(catalog.committed(), committed, "there was none");
    }

    #[test]
    fn what_disks_were_told_of_others_is_known_from_then_on() {
        let why = HoldReason::JournalIncomplete;
        let row = next(LineageRow::first(LineageId(1)), &new(2, 9, why));
        let others = vec![
            (LineageId(1), CommitNumber(12)),
            (LineageId(77), CommitNumber(5)),
        ];
        let row = next(
            row,
            &NewLineage {
                others,
                ..new(3, 20, why)
            },
        );
        let known = [
            (LineageId(2), CommitNumber(20)),
            (LineageId(77), CommitNumber(5)),
            (LineageId(1), CommitNumber(12)),
        ];
        assert_eq!(row.before, known);
    }

    #[test]
    fn lineages_and_reasons_are_bounded() {
        let mut row = LineageRow::first(LineageId(0));
        for number in 1..200 {
            let why = HoldReason::OtherLineage {
                disk: DiskId(number),
                lineage: LineageId(number),
            };
            row = next(row, &new(number, 1, why));
        }
        assert_eq!(row.before.len(), LineageRow::KEPT);
        assert_eq!(row.before[0].0, LineageId(198));
        assert_eq!(row.hold.unwrap().why.len(), Hold::REASONS);
    }
}

//! A catalog made anew from what disks and journal still have: the last
//! resort (PROTOCOL.md 9).
//!
//! [`Facts`] gathers what was read; [`rebuild`] decides (`decide`, pure)
//! and writes the rows of a new catalog, in ordinary commits. Invariants: what
//! was deleted stays deleted; of several versions of a key the one of the
//! highest commit is the newest, whatever clocks say; what cannot be told is
//! handed to the caller and not guessed; the first commit says that the
//! catalog is not whole, and the last one that it is, under a hold.
//!
//! Reads no disk: who gathers the facts does.

mod before;
mod decide;
mod facts;
mod pool_rows;
mod scratch;
mod sort;
#[cfg(test)]
mod tests;
mod uploads;
mod versions;
mod write;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use shardgate_wire::{
    BlobId, ClusterId, CommitNumber, DiskId, Epoch, GroupId, LineageId, NoteOrder, ShardHeader,
};

use crate::catalog::Catalog;
use crate::draft::Draft;
use crate::engine::log::decode_payload;
use crate::error::{CatalogError, Result};
use crate::keys;
use crate::model::{ClusterRow, DiskState, Hold, HoldReason, LineageRow, UnixMillis};
use crate::row::Damaged;
pub use decide::Doubt;
pub use facts::Facts;
use versions::Buckets;
use write::RowWriter;

/// The row of a catalog that is being made anew and is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RebuildingRow {
    /// Under which lineage.
    pub(crate) lineage: LineageId,
}

/// Reads what a blob's shards say of themselves.
#[async_trait]
pub trait Headers: Send + Sync {
    /// The header of any shard of the blob; `None` if none can be read.
    async fn header(&self, group: GroupId, blob: BlobId) -> Option<ShardHeader>;
}

/// Who the new catalog is of.
#[derive(Clone, Debug)]
pub struct NewCatalog {
    /// The cluster.
    pub cluster: ClusterId,
    /// The lineage that it takes.
    pub lineage: LineageId,
    /// The epoch in which that is.
    pub epoch: Epoch,
    /// Access key of the identity that owns buckets of which nothing is known
    /// but their names.
    pub owner: String,
    /// The time.
    pub now: UnixMillis,
}

/// Something that cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The blob.
    pub group: GroupId,
    /// The blob.
    pub blob: BlobId,
    /// Why.
    pub doubt: Doubt,
    /// Its bucket and key, as far as that is known.
    pub object: Option<(String, String)>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Buckets.
    pub buckets: u64,
    /// Objects.
    pub objects: u64,
    /// Uploads that are open.
    pub uploads: u64,
    /// Groups.
    pub groups: u64,
    /// Blobs whose shards may go when the hold ends.
    pub condemned: u64,
    /// What cannot be told.
    pub undecided: u64,
    /// Slots that lack shards.
    pub owed: u64,
    /// Everything that was done to blobs up to this commit is in it.
    pub vouched: CommitNumber,
    /// The last commit that is known to have been.
    pub last: CommitNumber,
    /// The commit of a catalog that was read: a checkpoint's.
    pub base: Option<CommitNumber>,
    /// Commits whose records were read, from and to: beside that, only these
    /// tell of objects that lie in the catalog alone.
    pub journal: Vec<(CommitNumber, CommitNumber)>,
    /// Disks some of whose notes are damaged or cannot be read: how many
    /// stretches of them.
    pub damaged_notes: Vec<(DiskId, u64)>,
    /// Disks of the pool that were not there, and were not declared lost.
    pub missing: Vec<DiskId>,
}

impl Rebuilt {
    /// Commits that are known to have been, and were neither in a catalog that
    /// was read nor in what was read of the journal.
    pub fn unknown_spans(&self) -> Vec<(CommitNumber, CommitNumber)> {
        let mut known = self.base.unwrap_or_default().0;
        let mut unknown = Vec::new();
        let last = CommitNumber(self.last.0 + 1);
        let ends = self.journal.iter().copied().chain([(last, last)]);
        for (from, to) in ends {
            if from.0 > known + 1 {
                unknown.push((CommitNumber(known + 1), CommitNumber(from.0 - 1)));
            }
            known = known.max(to.0);
        }
        unknown
    }
}

/// Hears what cannot be told, one after the other.
pub type Doubts<'a> = &'a mut (dyn FnMut(&Undecided) + Send);

/// Everything that deciding needs.
pub(crate) struct Work<'a> {
    facts: &'a Facts,
    headers: &'a dyn Headers,
    new: &'a NewCatalog,
    writer: RowWriter,
    doubts: Doubts<'a>,
    buckets: Buckets,
    done: Rebuilt,
}

/// Whether a record begins a catalog that is made anew.
///
/// # Errors
/// It is no record of a catalog.
pub fn begins_rebuild(payload: bytes::Bytes) -> std::result::Result<bool, Damaged> {
    let changes = decode_payload(payload)?;
    let marks = |(key, value): &(bytes::Bytes, Option<bytes::Bytes>)| {
        key[..] == *keys::REBUILDING && value.is_some()
    };
    Ok(changes.iter().any(marks))
}

/// Whether a record ends that: the catalog is whole.
///
/// # Errors
/// It is no record of a catalog.
pub fn ends_rebuild(payload: bytes::Bytes) -> std::result::Result<bool, Damaged> {
    let changes = decode_payload(payload)?;
    let ends = |(key, value): &(bytes::Bytes, Option<bytes::Bytes>)| {
        key[..] == *keys::REBUILDING && value.is_none()
    };
    Ok(changes.iter().any(ends))
}

/// Makes the rows of `into`, which [`begin`] has begun, from `facts`.
///
/// # Errors
/// The engines'. Then the catalog says of itself that it is not whole.
/// [`CatalogError::Conflict`]: there is more in it, or less.
pub async fn rebuild(
    facts: &mut Facts,
    headers: &dyn Headers,
    new: &NewCatalog,
    into: &Catalog,
    doubts: Doubts<'_>,
) -> Result<Rebuilt> {
    let begun: Option<RebuildingRow> = into.row(keys::REBUILDING).await?;
    if begun.is_none() || into.committed() != CommitNumber(1) {
        return Err(CatalogError::Conflict);
    }
    facts.settle_groups().await?;
    let groups: Vec<_> = facts.groups.values().map(|(_, row)| row).collect();
    let (vouched, last) = (
        decide::vouched(&groups, &facts.vouching()),
        facts.known_last(),
    );
    let missing = facts
        .disks
        .values()
        .filter(|row| row.state != DiskState::Lost && !facts.marks.contains_key(&row.id));
    let mut done = Rebuilt {
        vouched: decide::comparable(vouched, last),
        last: last.commit,
        base: facts.base.map(|base| base.commit),
        journal: facts.last_spans(),
        damaged_notes: facts
            .damaged
            .iter()
            .map(|(disk, of)| (*disk, *of))
            .collect(),
        missing: missing.map(|row| row.id).collect(),
        ..Rebuilt::default()
    };
    // What was read of a catalog and of its journal needs no notes.
    let unknown = done.unknown_spans();
    let read = unknown.first().map(|(from, _)| CommitNumber(from.0 - 1));
    done.vouched = done.vouched.max(read.unwrap_or(done.last));
    let mut work = Work {
        facts,
        headers,
        new,
        writer: RowWriter::new(into.clone()),
        doubts,
        buckets: Buckets::default(),
        done,
    };
    work.pool_rows().await?;
    work.sort_journal().await?;
    work.sort_blobs().await?;
    work.write_versions().await?;
    work.write_uploads().await?;
    work.finish().await
}

/// The first commit of `into`, which is empty: the catalog is not whole. It
/// has its lineage from the beginning, so that what reads the journal later
/// knows its place, and what disks were told of those before: they may say no
/// more of it once they were told of this one.
///
/// # Errors
/// The engine's; [`CatalogError::Conflict`]: there is something in it.
pub async fn begin(facts: &Facts, new: &NewCatalog, into: &Catalog) -> Result<()> {
    if into.committed() != CommitNumber(0) {
        return Err(CatalogError::Conflict);
    }
    let mut before: Vec<_> = facts.told.iter().map(|(id, last)| (*id, *last)).collect();
    // The last one comes first, whatever the numbers of others are.
    before.sort_by_key(|(id, last)| (facts.current != Some(*id), std::cmp::Reverse(*last)));
    let earlier = facts.lineage.iter().flat_map(|row| &row.before);
    for (lineage, last) in earlier {
        if !before.iter().any(|(known, _)| known == lineage) {
            before.push((*lineage, *last));
        }
    }
    before.truncate(LineageRow::KEPT);
    let row = LineageRow {
        lineage: new.lineage,
        history: new.epoch.number,
        before,
        hold: Some(Hold {
            since: new.now,
            why: vec![HoldReason::Rebuilt {
                vouched: CommitNumber(0),
                last: facts.known_last().commit,
            }],
        }),
    };
    let cluster = ClusterRow {
        cluster: new.cluster,
        lineage: new.lineage,
        epoch: new.epoch,
        created: new.now,
    };
    let mut draft = Draft::new();
    let rebuilding = RebuildingRow {
        lineage: new.lineage,
    };
    draft.put(keys::REBUILDING.into(), &rebuilding);
    draft.put(keys::CLUSTER.into(), &cluster);
    draft.put(keys::LINEAGE.into(), &row);
    into.commit(draft).await?;
    Ok(())
}

impl Work<'_> {
    /// The last commit: the catalog is whole, and nothing is reclaimed.
    async fn finish(mut self) -> Result<Rebuilt> {
        self.done.owed = self.writer.put_owed().await?;
        let catalog = self.writer.end().await?;
        let row = catalog.lineage().await?;
        let mut row = row.ok_or(CatalogError::Conflict)?;
        if let Some(hold) = &mut row.hold {
            let rebuilt = HoldReason::Rebuilt {
                vouched: self.done.vouched,
                last: self.done.last,
            };
            let through = catalog.committed();
            hold.why = vec![rebuilt, HoldReason::Decided { through }];
        }
        let mut draft = Draft::new();
        draft.put(keys::LINEAGE.into(), &row);
        draft.delete(keys::REBUILDING.into());
        catalog.commit(draft).await?;
        Ok(self.done)
    }

    /// Hands on what cannot be told.
    async fn doubt(&mut self, group: GroupId, blob: BlobId, doubt: Doubt) {
        self.done.undecided += 1;
        let header = match doubt {
            Doubt::NoHeader | Doubt::NoShard => None,
            _ => self.headers.header(group, blob).await,
        };
        let object = header.map(|header| (header.object.bucket, header.object.key));
        (self.doubts)(&Undecided {
            group,
            blob,
            doubt,
            object,
        });
    }
}

/// The order of something of which none is known.
const FIRST: NoteOrder = NoteOrder {
    history: 0,
    commit: CommitNumber(0),
};

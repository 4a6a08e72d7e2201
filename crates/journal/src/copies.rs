//! Segments that too few living disks hold, and copying them.
//!
//! A segment is complete while m+1 living disks hold it. One that was begun on
//! fewer, or whose disk is lost, fenced or draining, is copied to another
//! disk, a journal disk or any other. Invariant: only a segment that a later,
//! acknowledged one names is copied, so that a copy never counts as the
//! journal's end; a copy has the same bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use shardgate_wire::journal::{
    JOURNAL_PAGE, JournalDisk, JournalFile, ListedJournalFile, MAX_JOURNAL_READ_BYTES,
};
use shardgate_wire::{CallContext, CommitNumber, DiskId};

use crate::chain::Position;
use crate::error::{JournalError, Refusal};
use crate::format::SegmentId;
use crate::recover::disk_error;
use crate::scan::{BatchAt, Chain, Held, ScanError, chain, look};

/// A segment that gets no further batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which.
    pub segment: SegmentId,
    /// The place before its first record.
    pub base: Position,
    /// Its last record that counts.
    pub last: Position,
    /// Bytes that can be read of its file.
    pub file_bytes: u64,
    /// Who holds it, in which file.
    pub holders: BTreeMap<DiskId, JournalFile>,
    /// Disks with a copy of it that an earlier gateway began and may not have
    /// finished; they count once [`is_whole`] has read it.
    pub doubtful: BTreeMap<DiskId, JournalFile>,
}

/// A copy that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyTask {
    /// Of which segment.
    pub segment: SegmentId,
    /// From a disk that has it.
    pub from: (DiskId, JournalFile),
    /// To a disk that has not.
    pub to: DiskId,
}

/// How many living disks lack of the m+1 that hold a segment.
pub fn lacking(closed: &Closed, living: &[DiskId], parity: usize) -> usize {
    let holds = closed.holders.keys().filter(|disk| living.contains(disk));
    (parity + 1).saturating_sub(holds.count())
}

/// Segments that are not fully stored, and up to which commit from which:
/// what `status` shows, and what a drain waits for.
pub fn not_fully_stored(
    closed: &[Closed],
    living: &[DiskId],
    parity: usize,
) -> Vec<(SegmentId, CommitNumber, CommitNumber)> {
    let lacks = |closed: &&Closed| lacking(closed, living, parity) > 0;
    let span = |of: &Closed| (of.segment, of.base.number, of.last.number);
    closed.iter().filter(lacks).map(span).collect()
}

/// The copies to make now, the oldest segment first; `living` in the order in
/// which they are wanted. Fewer than lack where too few disks live.
pub fn plan_copies(closed: &[Closed], living: &[DiskId], parity: usize) -> Vec<CopyTask> {
    let mut tasks = Vec::new();
    for of in closed {
        if of.doubtful.keys().any(|disk| living.contains(disk)) {
            // Perhaps nothing lacks: that is looked at first.
            continue;
        }
        let mut holds = of.holders.iter().filter(|(disk, _)| living.contains(disk));
        let Some((from, file)) = holds.next() else {
            continue;
        };
        let has = |disk: &&DiskId| of.holders.contains_key(disk) || of.doubtful.contains_key(disk);
        let targets = living.iter().filter(|disk| !has(disk));
        for to in targets.take(lacking(of, living, parity)) {
            tasks.push(CopyTask {
                segment: of.segment,
                from: (*from, *file),
                to: *to,
            });
        }
    }
    tasks
}

/// The copies of earlier gateways to look at now, the oldest segment first.
pub fn plan_looks(closed: &[Closed], living: &[DiskId]) -> Vec<(SegmentId, DiskId, JournalFile)> {
    let of_one = |of: &Closed| {
        let doubtful = of.doubtful.clone().into_iter();
        let segment = of.segment;
        doubtful.map(move |(disk, file)| (segment, disk, file))
    };
    let all = closed.iter().flat_map(of_one);
    all.filter(|(_, disk, _)| living.contains(disk)).collect()
}

/// Whether a disk has every batch of a segment that counts.
///
/// # Errors
/// The disk failed, or another gateway has taken over.
pub async fn is_whole(
    closed: &Closed,
    disk: &Arc<dyn JournalDisk>,
    file: JournalFile,
    ctx: CallContext,
) -> Result<bool, JournalError> {
    let found = read_chain(closed, disk, file, ctx).await?;
    Ok(counted(&found, closed).last().map(|batch| batch.last) == Some(closed.last))
}

/// What a disk has of a segment.
async fn read_chain(
    closed: &Closed,
    disk: &Arc<dyn JournalDisk>,
    file: JournalFile,
    ctx: CallContext,
) -> Result<Chain, JournalError> {
    let held = Held {
        disk: disk.disk(),
        file: ListedJournalFile {
            file,
            len: closed.file_bytes,
        },
        segment: Some(closed.segment),
        header: None,
        acknowledged: CommitNumber(0),
    };
    let found = chain(disk, ctx, &held, closed.segment, closed.base).await;
    found.map_err(|error| disk_error(disk.disk(), error))
}

/// The batches up to the last that counts: what lies behind is void.
fn counted<'a>(found: &'a Chain, closed: &Closed) -> Vec<&'a BatchAt> {
    let counts = |batch: &&BatchAt| batch.last.number <= closed.last.number;
    found.batches.iter().take_while(counts).collect()
}

/// Copies a segment to another disk, verified batch by batch before the first
/// byte is written, and returns the new file.
///
/// # Errors
/// The source does not have it whole; a disk failed.
pub async fn copy(
    closed: &Closed,
    from: &Arc<dyn JournalDisk>,
    to: &Arc<dyn JournalDisk>,
    ctx: CallContext,
) -> Result<JournalFile, JournalError> {
    let source = from.disk();
    let file = closed.holders.get(&source).copied();
    let missing = || Refusal::MissingSegment {
        segment: closed.segment,
        from: closed.base.number,
        to: closed.last.number,
        reached: vec![source],
    };
    let file = file.ok_or_else(missing)?;
    let found = read_chain(closed, from, file, ctx).await?;
    let batches = counted(&found, closed);
    if batches.last().map(|batch| batch.last) != Some(closed.last) {
        return Err(missing().into());
    }
    let mut target = None;
    let mut at = 0;
    // Each batch is appended as it was first written, the first one whole.
    for end in batches.iter().map(|batch| batch.offset + batch.len) {
        let mut bytes = BytesMut::new();
        while at + (bytes.len() as u64) < end {
            let offset = at + bytes.len() as u64;
            let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
            let read = from.read(&ctx, file, offset, left.min(MAX_JOURNAL_READ_BYTES));
            let read = read
                .await
                .map_err(|error| disk_error(source, error.into()))?;
            if read.is_empty() {
                return Err(missing().into());
            }
            bytes.extend_from_slice(&read);
        }
        debug_assert_eq!(bytes.len() % JOURNAL_PAGE, 0);
        let bytes = bytes.freeze();
        let failed = |error| JournalError::Disk {
            disk: to.disk(),
            error,
        };
        match target {
            None => target = Some(to.begin(&ctx, bytes).await.map_err(failed)?),
            Some(file) => to.append(&ctx, file, at, bytes).await.map_err(failed)?,
        }
        at = end;
    }
    target.ok_or_else(|| missing().into())
}

/// The segments that a disk has files of; a file whose start is damaged is
/// left out.
///
/// # Errors
/// The disk failed, or another gateway has taken over.
pub async fn list_segments(
    disk: &Arc<dyn JournalDisk>,
    ctx: CallContext,
) -> Result<Vec<(SegmentId, JournalFile)>, JournalError> {
    let failed = |error: ScanError| disk_error(disk.disk(), error);
    let files = disk.files(&ctx).await;
    let mut segments = Vec::new();
    for file in files.map_err(|error| failed(error.into()))? {
        let held = look(disk, ctx, file).await.map_err(failed)?;
        if let (Some(segment), Some(_)) = (held.segment, held.header) {
            segments.push((segment, file.file));
        }
    }
    Ok(segments)
}

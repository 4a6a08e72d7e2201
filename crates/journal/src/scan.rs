//! Reading what a disk has of a segment, batch by batch.
//!
//! Invariant: a batch counts only if it is whole, of that segment, at its own
//! offset, and on the chain of those before it. Memory is bounded by one batch
//! and a summary of each.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use shardgate_wire::journal::{
    JOURNAL_PAGE, JournalDisk, ListedJournalFile, MAX_JOURNAL_READ_BYTES,
};
use shardgate_wire::{CallContext, CommitNumber, DiskId, StoreError};

use crate::chain::Position;
use crate::format::{Batch, FormatError, Kind, SegmentHeader, SegmentId, claimed_len};

/// Why a file is not read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScanError {
    /// The disk does not answer, or refuses.
    Disk(StoreError),
    /// A later version wrote it.
    Version(u16),
}

impl From<StoreError> for ScanError {
    fn from(error: StoreError) -> Self {
        Self::Disk(error)
    }
}

/// A file that holds a segment, or once did.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) disk: DiskId,
    pub(crate) file: ListedJournalFile,
    /// The segment, if anything of one is whole in it.
    pub(crate) segment: Option<SegmentId>,
    /// What its first batch says; `None` if that is damaged.
    pub(crate) header: Option<SegmentHeader>,
    /// The highest number that a whole batch seen so far knew acknowledged.
    pub(crate) acknowledged: CommitNumber,
}

/// One batch of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchAt {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) before: Position,
    pub(crate) last: Position,
}

/// The longest whole chain of a segment in one file.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) batches: Vec<BatchAt>,
    /// Whether a closing batch ends it.
    pub(crate) closed: bool,
    /// The place of its last record.
    pub(crate) last: Position,
    /// The highest number that any whole batch knew acknowledged, those
    /// behind a damaged one too.
    pub(crate) acknowledged: CommitNumber,
    /// Whether a whole batch lies behind the end: what is between is damaged.
    pub(crate) damaged: bool,
}

/// Reads batches of one file, past every cache.
pub(crate) struct Reader {
    disk: Arc<dyn JournalDisk>,
    ctx: CallContext,
    file: ListedJournalFile,
    buffer: Bytes,
    start: u64,
}

impl Reader {
    pub(crate) fn new(
        disk: Arc<dyn JournalDisk>,
        ctx: CallContext,
        file: ListedJournalFile,
    ) -> Self {
        Self {
            disk,
            ctx,
            file,
            buffer: Bytes::new(),
            start: 0,
        }
    }

    /// At least `len` bytes from `offset`, fewer only at the file's end.
    async fn fill(&mut self, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let left = usize::try_from(self.file.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = len.min(left);
        let end = self.start + self.buffer.len() as u64;
        if offset < self.start || offset + len as u64 > end {
            let mut bytes = BytesMut::new();
            while bytes.len() < len {
                let at = offset + bytes.len() as u64;
                let step = (left - bytes.len()).min(MAX_JOURNAL_READ_BYTES);
                let read = self.disk.read(&self.ctx, self.file.file, at, step).await?;
                if read.is_empty() {
                    break;
                }
                bytes.extend_from_slice(&read);
            }
            self.buffer = bytes.freeze();
            self.start = offset;
        }
        let from = usize::try_from(offset - self.start).expect("within the buffer");
        Ok(self.buffer.slice(from.min(self.buffer.len())..))
    }

    /// The batch at `offset`, and its length.
    pub(crate) async fn batch(
        &mut self,
        offset: u64,
    ) -> Result<Result<(Batch, u64), FormatError>, StoreError> {
        let head = self.fill(offset, JOURNAL_PAGE).await?;
        let len = match claimed_len(&head) {
            Ok(len) => len,
            Err(error) => return Ok(Err(error)),
        };
        let bytes = self.fill(offset, len).await?;
        Ok(Batch::decode(&bytes).and_then(|batch| {
            if batch.offset != offset {
                return Err(FormatError::Damaged("of another offset"));
            }
            Ok((batch, len as u64))
        }))
    }

    /// The first whole batch from `offset` on, of `segment` if that is known.
    async fn search(
        &mut self,
        mut offset: u64,
        segment: Option<SegmentId>,
    ) -> Result<Option<(Batch, u64)>, ScanError> {
        while offset < self.file.len {
            match self.batch(offset).await? {
                Ok(found) if segment.is_none_or(|of| of == found.0.segment) => {
                    return Ok(Some(found));
                }
                Ok(_) | Err(FormatError::None | FormatError::Damaged(_)) => {}
                Err(FormatError::Version { found }) => return Err(ScanError::Version(found)),
            }
            offset += JOURNAL_PAGE as u64;
        }
        Ok(None)
    }
}

/// What a file is: its first batch, or, where that is damaged, whatever whole
/// batch lies behind it.
pub(crate) async fn look(
    disk: &Arc<dyn JournalDisk>,
    ctx: CallContext,
    file: ListedJournalFile,
) -> Result<Held, ScanError> {
    let mut reader = Reader::new(Arc::clone(disk), ctx, file);
    let mut held = Held {
        disk: disk.disk(),
        file,
        segment: None,
        header: None,
        acknowledged: CommitNumber(0),
    };
    let first = match reader.batch(0).await? {
        Ok((batch, _)) => Some(batch),
        Err(FormatError::Version { found }) => return Err(ScanError::Version(found)),
        Err(FormatError::None | FormatError::Damaged(_)) => {
            let behind = reader.search(JOURNAL_PAGE as u64, None).await?;
            behind.map(|(batch, _)| batch)
        }
    };
    if let Some(batch) = first {
        held.segment = Some(batch.segment);
        held.acknowledged = batch.acknowledged;
        held.header = batch.header().cloned();
    }
    Ok(held)
}

/// The longest whole chain of a segment whose header is known. Looks behind
/// its end for whole batches.
pub(crate) async fn chain(
    disk: &Arc<dyn JournalDisk>,
    ctx: CallContext,
    held: &Held,
    segment: SegmentId,
    base: Position,
) -> Result<Chain, ScanError> {
    let mut reader = Reader::new(Arc::clone(disk), ctx, held.file);
    let mut chain = Chain {
        batches: Vec::new(),
        closed: false,
        last: base,
        acknowledged: held.acknowledged,
        damaged: false,
    };
    let mut offset = 0;
    while offset < held.file.len {
        match reader.batch(offset).await? {
            Ok((batch, len)) if follows(&batch, segment, &chain) => {
                chain.acknowledged = chain.acknowledged.max(batch.acknowledged);
                chain.batches.push(BatchAt {
                    offset,
                    len,
                    before: chain.last,
                    last: batch.last,
                });
                chain.last = batch.last;
                if batch.kind == Kind::Closing {
                    chain.closed = true;
                    return Ok(chain);
                }
                offset += len;
            }
            Err(FormatError::Version { found }) => return Err(ScanError::Version(found)),
            Ok(_) | Err(_) => break,
        }
    }
    // A writer goes on only after the fsync of the batch before: a whole batch
    // behind a bad one says that the bad one was whole once.
    let mut from = offset + JOURNAL_PAGE as u64;
    while let Some((batch, len)) = reader.search(from, Some(segment)).await? {
        chain.damaged = true;
        chain.acknowledged = chain.acknowledged.max(batch.acknowledged);
        from = batch.offset + len;
    }
    Ok(chain)
}

/// Whether a whole batch is the next of a chain: its records lead to its hash.
fn follows(batch: &Batch, segment: SegmentId, chain: &Chain) -> bool {
    let first = matches!(batch.kind, Kind::First(_));
    batch.segment == segment
        && first == chain.batches.is_empty()
        && batch.before == chain.last.number
        && batch
            .records(chain.last)
            .last()
            .map_or(chain.last, |record| record.position)
            == batch.last
}

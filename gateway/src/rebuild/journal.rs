//! What there is of the journal, as facts for a rebuild.
//!
//! Journals that an earlier rebuild began and did not finish are passed over:
//! they hold what was found here, and no more.

use bytes::Bytes;
use shardgate_catalog::CatalogError;
use shardgate_catalog::rebuild::{Facts, begins_rebuild, ends_rebuild};
use shardgate_journal::salvage::{Piece, Read, Salvage};
use shardgate_journal::{JournalError, Record};
use shardgate_wire::CommitNumber;
use thiserror::Error;

/// Records that are handed on at once.
const AT_ONCE: usize = 512;

/// Why it is not read.
#[derive(Debug, Error)]
pub enum JournalReadError {
    /// The journal's.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The scratch engine's.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// What was found of it.
pub struct JournalFound {
    /// Pieces that are part of it, the oldest first, and up to which commit
    /// each counts.
    pieces: Vec<(Piece, Option<CommitNumber>)>,
    /// The commits from and to which nothing is missing of it, where these
    /// are the last that are known to have been.
    last: Option<(CommitNumber, CommitNumber)>,
    /// The first records of rebuilds that were begun and not finished.
    pub unfinished: Vec<Bytes>,
}

/// Looks what there is, and what of it counts.
///
/// # Errors
/// The journal's.
pub async fn look_at_journal(salvage: &Salvage) -> Result<JournalFound, JournalReadError> {
    let mut found = JournalFound {
        pieces: Vec::new(),
        last: None,
        unfinished: Vec::new(),
    };
    let mut to = None;
    for piece in salvage.pieces() {
        let first = salvage.first(&piece).await?.map(|first| first.payload);
        let first = first.filter(|_| piece.from_the_first);
        if let Some(first) = first.filter(|of| begins_rebuild(of.clone()).unwrap_or(false))
            && !is_finished(salvage, &piece).await?
        {
            found.unfinished.push(first);
            continue;
        }
        if found.pieces.is_empty() {
            found.last = to_the_end(salvage, &piece).await?;
        }
        let (base, first) = (piece.base(), piece.from_the_first);
        found.pieces.insert(0, (piece, to));
        to = Some(base);
        if first {
            // What is older was void already.
            break;
        }
    }
    Ok(found)
}

async fn is_finished(salvage: &Salvage, piece: &Piece) -> Result<bool, JournalError> {
    let mut finished = false;
    let mut look = |record: Record| {
        finished |= ends_rebuild(record.payload).unwrap_or(false);
    };
    salvage.read(piece, None, &mut look).await?;
    Ok(finished)
}

/// Its last unbroken stretch, if nothing is known to have been behind.
async fn to_the_end(
    salvage: &Salvage,
    piece: &Piece,
) -> Result<Option<(CommitNumber, CommitNumber)>, JournalError> {
    let read = salvage.read(piece, None, &mut |_| {}).await?;
    let last = read.spans.last().copied();
    Ok(last.filter(|(_, to)| *to >= salvage.known(piece)))
}

impl JournalFound {
    /// Whether it goes on to its end from a catalog of this commit, so that a
    /// start or a restore would have everything.
    pub fn goes_on_from(&self, commit: CommitNumber) -> bool {
        // One that was begun has made the journal before it void.
        let last = self.last.filter(|_| self.unfinished.is_empty());
        last.is_some_and(|(from, to)| from.0 <= commit.0 + 1 && commit <= to)
    }
}

/// Reads what counts. Where the journal itself does not say which history its
/// records are of, the epochs of its segments do, by what is known of notes:
/// those are read before.
///
/// # Errors
/// The journal cannot be read.
pub async fn read_journal(
    salvage: &Salvage,
    found: &JournalFound,
    facts: &mut Facts,
) -> Result<(), JournalReadError> {
    for (piece, to) in &found.pieces {
        let mut history = 0;
        let mut read = Read::default();
        for index in 0..piece.segments() {
            history = facts.history_at(piece.epoch(index)).max(history);
            let mut records = Vec::new();
            let mut take = |record: Record| {
                records.push((record.position.number, record.payload));
            };
            let segment = salvage.read_segment((piece, index), *to, &mut take, &mut read);
            segment.await?;
            let mut records = records.into_iter();
            loop {
                let some: Vec<_> = records.by_ref().take(AT_ONCE).collect();
                if some.is_empty() {
                    break;
                }
                history = facts.add_journal(history, some).await?;
            }
        }
        facts.add_spans(history, &read.spans);
    }
    Ok(())
}

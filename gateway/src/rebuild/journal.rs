//! What there is of the journal, as facts for a rebuild.
//!
//! Journals that an earlier rebuild began and did not finish are passed over:
//! they hold what was found here, and no more.

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
    /// Whether it is whole: a start would have the catalog from it.
    pub whole: bool,
    /// Rebuilds that were begun and not finished.
    pub unfinished: usize,
}

/// Looks what there is, and what of it counts.
///
/// # Errors
/// The journal's.
pub async fn look_at_journal(salvage: &Salvage) -> Result<JournalFound, JournalReadError> {
    let mut found = JournalFound {
        pieces: Vec::new(),
        whole: false,
        unfinished: 0,
    };
    let mut to = None;
    for piece in salvage.pieces() {
        let rebuilt = match salvage.first(&piece).await? {
            Some(first) if piece.from_the_first => begins_rebuild(first.payload).unwrap_or(false),
            _ => false,
        };
        if rebuilt && !is_finished(salvage, &piece).await? {
            found.unfinished += 1;
            continue;
        }
        if piece.from_the_first && found.pieces.is_empty() {
            found.whole = is_whole(salvage, &piece).await?;
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

/// Whether nothing is missing of it that is known to have been.
async fn is_whole(salvage: &Salvage, piece: &Piece) -> Result<bool, JournalError> {
    let read = salvage.read(piece, None, &mut |_| {}).await?;
    let reaches = |(from, to): &(CommitNumber, CommitNumber)| {
        *from == CommitNumber(1) && *to >= salvage.known(piece)
    };
    Ok(matches!(&read.spans[..], [span] if reaches(span)))
}

/// Reads what counts; `history`: the one that is believed to be in force where
/// the journal itself does not say.
///
/// # Errors
/// The journal cannot be read.
pub async fn read_journal(
    salvage: &Salvage,
    found: &JournalFound,
    mut history: u64,
    facts: &mut Facts,
) -> Result<(), JournalReadError> {
    for (piece, to) in &found.pieces {
        if piece.from_the_first {
            history = 0;
        }
        let mut read = Read::default();
        for index in 0..piece.segments() {
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
        facts.add_spans(&read.spans);
    }
    Ok(())
}

//! Whether a place is on the chain that was found.
//!
//! A checkpoint that disks name may be of a history that is no more: its
//! number says nothing then, and only the hash tells. Nothing is written here.

use shardgate_wire::CommitNumber;
use shardgate_wire::journal::ListedJournalFile;

use super::{Planned, Recovered, Replay};
use crate::chain::Position;
use crate::copies::Closed;
use crate::error::{JournalError, Refusal};
use crate::scan::Held;

impl Recovered {
    /// Whether the record of this number has this hash, and there is one. A
    /// place that no segment found here goes back to is not known to be on the
    /// chain, and so is not. Reads at most one segment.
    ///
    /// # Errors
    /// A disk does not answer, or another gateway has taken over.
    pub async fn is_on_chain(&self, place: Position) -> Result<bool, JournalError> {
        let known = self.unproven.iter().map(|record| record.position);
        let bases = self.journal.iter().flat_map(|of| [of.base, of.last]);
        let mut known = known.chain(bases).chain([self.tail]);
        if let Some(known) = known.find(|of| of.number == place.number) {
            return Ok(known == place);
        }
        let holds = |of: &&Closed| of.base.number < place.number && place.number < of.last.number;
        let Some(closed) = self.journal.iter().find(holds) else {
            return Ok(false);
        };
        let mut within = Replay::within(self, planned(closed), place);
        match within.next().await {
            Ok(_) => Ok(true),
            Err(JournalError::Refused(Refusal::NotOnChain(_) | Refusal::MissingSegment { .. })) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

fn planned(closed: &Closed) -> Planned {
    let held = |(disk, file): (&_, &_)| Held {
        disk: *disk,
        file: ListedJournalFile {
            file: *file,
            len: closed.file_bytes,
        },
        segment: Some(closed.segment),
        header: None,
        acknowledged: CommitNumber(0),
    };
    Planned {
        segment: closed.segment,
        base: closed.base,
        to: closed.last,
        holders: closed.holders.iter().map(held).collect(),
    }
}

//! Writing a pool map while a gateway starts.

use std::sync::Arc;
use std::time::Duration;

use shardgate_journal::JournalError;
use shardgate_journal::disks::check_quorum;
use shardgate_journal::map::{PoolMap, write_map};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{CallContext, DiskId};
use tokio::time::{Instant, sleep};

use super::refused::refused;
use super::start::{ANSWER, JournalStartError, LOOK_AGAIN};

/// Writes a map to all disks until it counts, at most for `patience`.
pub(super) async fn write_until_it_counts(
    disks: &[Arc<dyn JournalDisk>],
    ctx: &CallContext,
    map: &PoolMap,
    lost: &[DiskId],
    patience: Duration,
) -> Result<(), JournalStartError> {
    let give_up = Instant::now() + patience;
    loop {
        let written = write_map(disks, ctx, map, ANSWER).await;
        let durable = written.map_err(JournalError::Fenced)?;
        match check_quorum(&map.journal_map(), &durable, lost) {
            Ok(()) => return Ok(()),
            Err(refusal) if Instant::now() >= give_up => return Err(refused(refusal)),
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}

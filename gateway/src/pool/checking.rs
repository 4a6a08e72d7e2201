//! Checks of a disk in use, for the operator.

use std::time::Duration;

use shardgate_wire::{CheckCursor, CheckPage, DiskId, StoreError};
use thiserror::Error;
use tokio::time::timeout;

use super::state::Pool;

/// How long one part may take: a disk reads for a few seconds at most.
const PART_TIME: Duration = Duration::from_secs(25);

/// Until a busy disk is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Why a part of a disk was not checked.
#[derive(Debug, Error)]
pub enum CheckError {
    /// No such disk.
    #[error("the pool has no such disk")]
    NoSuchDisk,
    /// It is not there now.
    #[error("it is not there")]
    NotThere,
    /// It did not answer, or refused.
    #[error(transparent)]
    Disk(#[from] StoreError),
}

impl Pool {
    /// Checks the part of a disk behind `from` (see
    /// [`ShardStore::check`](shardgate_wire::ShardStore::check)).
    ///
    /// # Errors
    /// [`CheckError`]; what is damaged is no error but a finding.
    pub async fn check_disk(
        &self,
        disk: DiskId,
        from: Option<CheckCursor>,
        repair: bool,
    ) -> Result<CheckPage, CheckError> {
        let members = self.members();
        let member = members.iter().find(|member| member.id() == disk);
        let store = member.ok_or(CheckError::NoSuchDisk)?.store();
        let store = store.ok_or(CheckError::NotThere)?;
        let part = async {
            loop {
                match store.check(&self.context(), from.clone(), repair).await {
                    // It has more to do than it takes: a check is in no hurry.
                    Err(StoreError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                    page => return page,
                }
            }
        };
        let page = timeout(PART_TIME, part).await;
        Ok(page.unwrap_or(Err(StoreError::TimedOut(PART_TIME)))?)
    }
}

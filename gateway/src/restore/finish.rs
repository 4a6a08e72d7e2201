//! The end of a restore: from a database that has every commit to one that the
//! next gateway starts with.
//!
//! Invariants: the database is durable before it has its name; one that is not
//! proven complete has taken a new lineage, and holds on to everything, before
//! that (PROTOCOL.md 7): the next start must not find it whole.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::Catalog;
use shardgate_wire::CommitNumber;

use super::{Operator, RELEASE, RestoreError, Restored, blocking, local};
use crate::journal::lineage::{SettleError, Settling, settle};
use crate::journal::start::JournalStarted;
use crate::journal::{Journal, release};
use crate::seam::Clock;

/// What it needs besides.
pub(super) struct Finish<'a> {
    /// The last commit of what it began with.
    pub(super) from: CommitNumber,
    pub(super) unfinished: &'a Path,
    pub(super) database: &'a Path,
    pub(super) clock: &'a dyn Clock,
    /// How long enough disks may take to have a pool map.
    pub(super) patience: Duration,
}

impl Finish<'_> {
    /// Makes the database durable, gives it its name, and lets the next
    /// gateway have the epoch.
    pub(super) async fn run(
        self,
        mut started: JournalStarted,
        operator: &dyn Operator,
    ) -> Result<Restored, RestoreError> {
        let (proven, ways) = (started.complete, started.ways.clone());
        let taken_over = started.taken_over.take();
        let (journal, to) = match proven {
            true => {
                let engine = started.engine;
                let to = engine.applied().number;
                operator.say("making it durable");
                blocking(move || engine.flush()).await?;
                (Journal::new(started.writer), to)
            }
            false => self.hold_on(started, operator).await?,
        };
        let named = name(self.unfinished, self.database);
        named.map_err(local("give the restored catalog its name"))?;
        if let Some(taken_over) = taken_over {
            let waited = taken_over.wait().await;
            waited.map_err(local("write the gateway's own folder"))?;
        }
        let ctx = journal.context();
        // A start finds the journal as it is, closed or not.
        if journal.close().await {
            release(&ways.open(), ctx, RELEASE).await;
        }
        Ok(Restored {
            from: self.from,
            to,
            proven,
        })
    }

    /// Takes a new lineage under a hold, as a start does that is not complete,
    /// and makes the database durable with it.
    async fn hold_on(
        &self,
        started: JournalStarted,
        operator: &dyn Operator,
    ) -> Result<(Journal, CommitNumber), RestoreError> {
        let journal = Journal::new(started.writer);
        let engine = started.engine.start(journal.log())?;
        let catalog = Catalog::new(Arc::new(engine));
        let lost = started.lost.all();
        let open = started.ways.open().into_iter();
        let settling = Settling {
            catalog: &catalog,
            journal: &journal,
            disks: open.filter(|disk| !lost.contains(&disk.disk())).collect(),
            told: &started.told,
            complete: false,
            lost: &lost,
            now_ms: self.clock.now_ms(),
            patience: self.patience,
        };
        let settled = settle(settling, started.map).await;
        operator.say("making it durable");
        let flushed = match settled {
            Ok(_) => catalog.flush().await.map_err(SettleError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = flushed {
            // The catalog's thread may wait for disks; it must let go.
            journal.give_up();
            return Err(error.into());
        }
        let to = catalog.committed();
        Ok((journal, to))
    }
}

/// Renames, durably. Never onto something that is there.
fn name(unfinished: &Path, database: &Path) -> io::Result<()> {
    if database.exists() {
        return Err(io::Error::other("a database is there by now"));
    }
    fs::rename(unfinished, database)?;
    match database.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

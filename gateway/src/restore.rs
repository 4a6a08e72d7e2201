//! `shardgate catalog restore`: the catalog from the newest checkpoint in the
//! pool and the journal behind it (PROTOCOL.md 4).
//!
//! Owns the order: look at disks, map and roots; say what was found, and ask;
//! fetch a checkpoint's files into a folder of another name; start as a
//! gateway does, with that database, up to the last acknowledged commit; give
//! the folder its name; release the epoch. Invariants: nothing is written
//! before the operator agreed; a database that is there is never touched; what
//! is not proven complete is refused, with what is missing; cut off anywhere,
//! it can be run again.

pub(crate) mod build;
mod choice;
mod words;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::CatalogOptions;
use shardgate_catalog::checkpoint::CheckpointRoot;
use shardgate_catalog::engine::{EngineError, RocksStopped};
use shardgate_wire::{CommitNumber, DiskId};
use thiserror::Error;

use crate::checkpoint::fetch::FetchError;
use crate::journal::looked::{Looked, look};
use crate::journal::start::{JournalStart, JournalStartError, JournalStarted, release};
use crate::pool::PoolSettings;
use crate::pool::place::Place;
use build::{Build, BuildError};
use choice::{Source, sources};

/// The database's folder in the gateway's own.
pub const DATABASE: &str = "rocksdb";
/// What it is called until it is whole.
const UNFINISHED: &str = "rocksdb.restoring";
/// How long a disk may take to hear that it is over, or to close.
const RELEASE: Duration = Duration::from_secs(5);

/// What a restore needs.
pub struct Restore {
    /// Where disks are.
    pub places: Vec<Arc<dyn Place>>,
    /// What can be set of the pool.
    pub settings: PoolSettings,
    /// The gateway's own folder, locked.
    pub own: PathBuf,
    /// How the database is opened.
    pub options: CatalogOptions,
    /// Disks that the operator names lost for good.
    pub lost: Vec<DiskId>,
    /// Whether the operator wants to take over from a gateway that may live.
    pub take_over: bool,
}

/// Whom it tells, and asks.
pub trait Operator: Send + Sync {
    /// Says a line.
    fn say(&self, line: &str);
    /// Whether it may go on.
    fn agrees(&self) -> bool;
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The checkpoint's commit; 0 where the journal alone was enough.
    pub from: CommitNumber,
    /// The last commit that there is.
    pub to: CommitNumber,
}

/// Why nothing was restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// There is a database.
    #[error("{} is there: move it away first, nothing is ever overwritten", path.display())]
    Exists {
        /// Where.
        path: PathBuf,
    },
    /// The operator said no.
    #[error("nothing was changed")]
    NotAgreed,
    /// Disks and journal.
    #[error(transparent)]
    Journal(#[from] JournalStartError),
    /// It could not be proven that nothing is missing.
    #[error(
        "{} of the {} journal disks answer, which is no majority: what the others alone had would be \
         missing unnoticed; not reached: {}",
        answered,
        of,
        ids(missing)
    )]
    NotProvable {
        /// So many answer.
        answered: usize,
        /// Of so many.
        of: usize,
        /// Those that do not.
        missing: Vec<DiskId>,
    },
    /// Neither a checkpoint nor the journal alone gives the catalog.
    #[error("the catalog cannot be restored completely:{}", list(tried))]
    Impossible {
        /// What was tried, and what was missing.
        tried: Vec<String>,
    },
    /// The gateway's own folder.
    #[error("{what}: {source}")]
    Local {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The database.
    #[error("database: {0}")]
    Engine(#[from] EngineError),
}

fn ids(disks: &[DiskId]) -> String {
    let ids: Vec<String> = disks.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

impl Restore {
    /// Restores the catalog.
    ///
    /// # Errors
    /// [`RestoreError`]; there is no database then.
    pub async fn run(&self, operator: &dyn Operator) -> Result<Restored, RestoreError> {
        let unfinished = self.own.join(UNFINISHED);
        let database = self.own.join(DATABASE);
        if database.exists() {
            return Err(RestoreError::Exists { path: database });
        }
        let outcome = self.run_into(&unfinished, &database, operator).await;
        for place in &self.places {
            place.close(RELEASE).await;
        }
        if outcome.is_err() {
            remove(&unfinished).map_err(local("remove what was not finished"))?;
        }
        outcome
    }

    async fn run_into(
        &self,
        unfinished: &Path,
        database: &Path,
        operator: &dyn Operator,
    ) -> Result<Restored, RestoreError> {
        let looked = self.look().await?;
        let sources = sources(&looked.roots().await);
        let told = looked.told().await;
        words::found(&looked, &sources, told, database, operator);
        check_provable(&looked)?;
        if !operator.agrees() {
            return Err(RestoreError::NotAgreed);
        }
        let mut looked = Some(looked);
        let mut tried = Vec::new();
        for source in sources {
            // A start uses up what was looked at.
            let now = match looked.take() {
                Some(looked) => looked,
                None => {
                    let again = self.look().await?;
                    check_provable(&again)?;
                    again
                }
            };
            match self.try_source(&source, now, unfinished, operator).await? {
                Tried::Done(started) => {
                    let from = source.commit();
                    return self
                        .finish(*started, from, unfinished, database, operator)
                        .await;
                }
                Tried::Not(why, unused) => {
                    let line = format!("{}: {why}", source.name());
                    operator.say(&line);
                    tried.push(line);
                    looked = unused.map(|unused| *unused);
                }
            }
        }
        Err(RestoreError::Impossible { tried })
    }

    async fn look(&self) -> Result<Looked, RestoreError> {
        let start = JournalStart {
            places: self.places.clone(),
            settings: self.settings.clone(),
            own: self.own.clone(),
            lost: self.lost.clone(),
            take_over: self.take_over,
        };
        Ok(look(start).await?)
    }

    /// Builds the database from one source and starts with it.
    async fn try_source(
        &self,
        source: &Source,
        looked: Looked,
        unfinished: &Path,
        operator: &dyn Operator,
    ) -> Result<Tried, RestoreError> {
        remove(unfinished).map_err(local("remove an earlier attempt"))?;
        let engine = match source {
            Source::Checkpoint(root) => {
                match self.fetch(root, &looked, unfinished, operator).await {
                    Ok(engine) => engine,
                    Err(BuildError::Local(source)) => {
                        let what = format!("write into {}", unfinished.display());
                        return Err(RestoreError::Local { what, source });
                    }
                    Err(error) => return Ok(Tried::Not(error.to_string(), Some(Box::new(looked)))),
                }
            }
            Source::Journal => {
                let (at, options) = (unfinished.to_owned(), self.options.clone());
                blocking(move || RocksStopped::open(&at, &options)).await?
            }
        };
        operator.say("replaying the journal");
        match looked.start(engine).await {
            Ok(started) => Ok(Tried::Done(Box::new(started))),
            Err(error) if error.is_for_restore() => Ok(Tried::Not(error.to_string(), None)),
            Err(error) => Err(error.into()),
        }
    }

    async fn fetch(
        &self,
        root: &CheckpointRoot,
        looked: &Looked,
        unfinished: &Path,
        operator: &dyn Operator,
    ) -> Result<RocksStopped, BuildError> {
        let build = Build {
            stores: looked.stores(),
            at: unfinished.to_owned(),
            options: self.options.clone(),
        };
        build.run(root, operator).await
    }

    /// Makes the database durable, gives it its name, and lets the next
    /// gateway have the epoch.
    async fn finish(
        &self,
        started: JournalStarted,
        from: CommitNumber,
        unfinished: &Path,
        database: &Path,
        operator: &dyn Operator,
    ) -> Result<Restored, RestoreError> {
        let to = started.engine.applied().number;
        operator.say("making it durable");
        let engine = started.engine;
        blocking(move || engine.flush()).await?;
        let named = name(unfinished, database);
        named.map_err(local("give the restored catalog its name"))?;
        let ctx = started.writer.context();
        // A start finds the journal as it is, closed or not.
        if started.writer.close().await {
            release(&started.ways.open(), ctx, RELEASE).await;
        }
        Ok(Restored { from, to })
    }
}

enum Tried {
    Done(Box<JournalStarted>),
    /// Why not, and what was looked at if it is still good.
    Not(String, Option<Box<Looked>>),
}

/// A majority of the journal disks must answer: without it the journal may
/// have gone on elsewhere.
fn check_provable(looked: &Looked) -> Result<(), RestoreError> {
    if looked.is_provable() {
        return Ok(());
    }
    let (all, disks) = (looked.map().journal_map().all(), looked.disks());
    let missing: Vec<DiskId> = all
        .iter()
        .copied()
        .filter(|of| !disks.contains(of))
        .collect();
    Err(RestoreError::NotProvable {
        answered: all.len() - missing.len(),
        of: all.len(),
        missing,
    })
}

fn local(what: &str) -> impl FnOnce(io::Error) -> RestoreError {
    let what = what.to_owned();
    |source| RestoreError::Local { what, source }
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renames, durably. Never onto something that is there.
fn name(unfinished: &Path, database: &Path) -> io::Result<()> {
    if database.exists() {
        return Err(io::Error::other("a database is there by now"));
    }
    fs::rename(unfinished, database)?;
    match database.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| EngineError::Unavailable(error.to_string()))?
}

impl From<FetchError> for BuildError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Sink(error) => Self::Local(error),
            error => Self::Fetch(error),
        }
    }
}

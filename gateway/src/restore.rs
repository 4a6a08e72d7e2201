//! `shardgate catalog restore`: the catalog from the newest checkpoint in the
//! pool and the journal behind it (PROTOCOL.md 4).
//!
//! Owns the order: look at disks, map and roots; say what was found, and ask;
//! fetch a checkpoint's files into a folder of another name; start as a
//! gateway does, with that database, up to the last acknowledged commit; give
//! the folder its name; release the epoch. Invariants: nothing is written
//! before the operator agreed; a database that is there is never touched; what
//! is not proven complete is refused, with what is missing, unless the operator
//! named every disk lost that could prove it: then the catalog takes a new
//! lineage and holds on to everything before the database has its name; cut
//! off anywhere, it can be run again.

pub(crate) mod build;
mod choice;
mod finish;
mod proof;
mod words;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::CatalogOptions;
use shardgate_catalog::checkpoint::CheckpointRoot;
use shardgate_catalog::engine::{EngineError, RocksStopped};
use shardgate_wire::{ClusterId, CommitNumber, DiskId};
use thiserror::Error;

use crate::checkpoint::fetch::FetchError;
use crate::journal::lineage::SettleError;
use crate::journal::looked::{Looked, look};
use crate::journal::seize::seize;
use crate::journal::start::{JournalStart, JournalStartError, JournalStarted};
use crate::pool::PoolSettings;
use crate::pool::place::Place;
use crate::seam::Clock;
use build::{Build, BuildError};
use choice::{Source, more_sources, sources};
use finish::Finish;
pub use proof::NotProven;
use proof::{Proof, prove};

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
    /// The time.
    pub clock: Arc<dyn Clock>,
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
    /// Whether it is proven that no later one was acknowledged.
    pub proven: bool,
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
    #[error(transparent)]
    NotProven(#[from] NotProven),
    /// The hold of a catalog that is not proven complete.
    #[error("hold on to what may be missing: {0}")]
    Settle(#[from] SettleError),
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
        let named = looked.roots().await;
        named.check_version()?;
        let sources = sources(&named.read);
        let told = looked.told().await;
        words::found(&looked, &sources, told, database, operator);
        words::unread(&named.unread, operator);
        let proof = self.prove(&looked)?;
        words::proof(&proof, operator);
        if !operator.agrees() {
            return Err(RestoreError::NotAgreed);
        }
        let cluster = looked.cluster();
        let mut attempt = Attempt {
            looked: Some(looked),
            proof,
            tried: Vec::new(),
        };
        let restored = self.try_all(&sources, &mut attempt, (unfinished, database), operator);
        if let Some(restored) = restored.await? {
            return Ok(restored);
        }
        // Behind the root records: what the journal itself names.
        attempt.looked = None;
        let more = match self.named_by_journal(cluster).await {
            Ok(named) => more_sources(&named, &sources),
            Err(error) => {
                let line = format!("checkpoints that the journal names: {error}");
                attempt.tried.push(line);
                Vec::new()
            }
        };
        let restored = self.try_all(&more, &mut attempt, (unfinished, database), operator);
        let impossible = |tried| RestoreError::Impossible { tried };
        restored.await?.ok_or_else(|| impossible(attempt.tried))
    }

    /// The first of them that gives the catalog.
    async fn try_all(
        &self,
        sources: &[Source],
        attempt: &mut Attempt,
        (unfinished, database): (&Path, &Path),
        operator: &dyn Operator,
    ) -> Result<Option<Restored>, RestoreError> {
        for source in sources {
            // A start uses up what was looked at.
            let now = match attempt.looked.take() {
                Some(looked) => looked,
                None => {
                    let again = self.look().await?;
                    let proof = self.prove(&again)?;
                    if proof != Proof::Complete && proof != attempt.proof {
                        return Err(NotProven::Meanwhile.into());
                    }
                    again
                }
            };
            match self.try_source(source, now, unfinished, operator).await? {
                Tried::Done(started) => {
                    if !started.complete && attempt.proof == Proof::Complete {
                        return Err(NotProven::Meanwhile.into());
                    }
                    let finish = Finish {
                        from: source.commit(),
                        unfinished,
                        database,
                        clock: &*self.clock,
                        patience: self.settings.start_patience,
                    };
                    return Ok(Some(finish.run(*started, operator).await?));
                }
                Tried::Not(why, unused) => {
                    let line = format!("{}: {why}", source.name());
                    operator.say(&line);
                    attempt.tried.push(line);
                    attempt.looked = unused.map(|unused| *unused);
                }
            }
        }
        Ok(None)
    }

    fn prove(&self, looked: &Looked) -> Result<Proof, NotProven> {
        let map = looked.map().journal_map();
        prove(&map, &looked.disks(), &self.lost, &looked.lost())
    }

    /// The roots that segments of the journal name, of whatever history.
    async fn named_by_journal(
        &self,
        cluster: ClusterId,
    ) -> Result<Vec<CheckpointRoot>, RestoreError> {
        let seized = seize(self.journal_start(), cluster).await?;
        let named = seized.salvage.checkpoints();
        let read = named.iter().filter_map(|root| {
            let root = CheckpointRoot::decode(root);
            root.inspect_err(|error| tracing::error!(%error, "a segment names no checkpoint"))
                .ok()
        });
        Ok(read.filter(|root| root.cluster == cluster).collect())
    }

    fn journal_start(&self) -> JournalStart {
        JournalStart {
            places: self.places.clone(),
            settings: self.settings.clone(),
            own: self.own.clone(),
            lost: self.lost.clone(),
            take_over: self.take_over,
        }
    }

    async fn look(&self) -> Result<Looked, RestoreError> {
        Ok(look(self.journal_start()).await?)
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
}

/// How far the trying is.
struct Attempt {
    /// What was looked at and not used up yet.
    looked: Option<Looked>,
    /// What the operator was told, and agreed to.
    proof: Proof,
    tried: Vec<String>,
}

enum Tried {
    Done(Box<JournalStarted>),
    /// Why not, and what was looked at if it is still good.
    Not(String, Option<Box<Looked>>),
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

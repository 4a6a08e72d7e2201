//! A whole catalog to begin with: the one in the gateway's own folder, or the
//! newest checkpoint that can be read from the pool.
//!
//! Invariants: it is of the history that is made anew; of several the one of
//! the highest commit is taken that can be read; none is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use shardgate_catalog::checkpoint::CheckpointRoot;
use shardgate_catalog::engine::{Engine, RocksEngine, RocksStopped};
use shardgate_catalog::{Catalog, CatalogOptions};
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{ClusterId, CommitNumber, LineageId, ShardStore};

use crate::journal::roots::read_roots;
use crate::restore::Operator;
use crate::restore::build::Build;

/// How long a disk may take to answer.
const WITHIN: Duration = Duration::from_secs(20);

/// Where it may be.
pub struct Bases {
    /// The cluster.
    pub cluster: ClusterId,
    /// The lineages that it may be of: the last one, and where a rebuild came
    /// to no end, the one before that.
    pub lineages: Vec<LineageId>,
    /// The disks, as they keep shards.
    pub shards: Vec<Arc<dyn ShardStore>>,
    /// The disks, as they keep roots.
    pub journals: Vec<Arc<dyn JournalDisk>>,
    /// The database in the gateway's own folder.
    pub database: PathBuf,
    /// An empty folder, for what is fetched.
    pub scratch: PathBuf,
}

/// One that was opened.
pub struct Base {
    /// It.
    pub engine: Arc<dyn Engine>,
    /// Its last commit.
    pub commit: CommitNumber,
    /// Whether it is the gateway's own; else a checkpoint.
    pub is_own: bool,
}

impl Base {
    /// As messages call it.
    pub fn name(&self) -> String {
        match self.is_own {
            true => format!("the catalog in catalog.path, at commit {}", self.commit.0),
            false => format!("the checkpoint at commit {}", self.commit.0),
        }
    }
}

/// Says it in the log.
struct Log;

impl Operator for Log {
    fn say(&self, line: &str) {
        tracing::info!("{line}");
    }

    fn agrees(&self) -> bool {
        true
    }
}

impl Bases {
    /// Opens them one after the other, the newest first, until `take` takes
    /// one: it says why not.
    pub async fn first(
        &self,
        mut take: impl AsyncFnMut(&Base) -> Result<(), String>,
    ) -> Option<Base> {
        let own = self.own().await;
        let mut roots = self.roots().await;
        let mut own = own.into_iter().peekable();
        loop {
            let newest = roots.last().map(|root| root.position.number);
            let opened = match own.peek() {
                Some(of) if newest.is_none_or(|newest| newest <= of.commit) => {
                    Ok(own.next().expect("it was just seen"))
                }
                _ => self.fetch(&roots.pop()?).await,
            };
            let taken = match opened {
                Ok(base) => take(&base).await.map(|()| base),
                Err(why) => Err(why),
            };
            match taken {
                Ok(base) => return Some(base),
                Err(why) => tracing::warn!(why, "a catalog of before cannot be used"),
            }
        }
    }

    /// The roots that disks name, the newest last.
    async fn roots(&self) -> Vec<CheckpointRoot> {
        let named = read_roots(&self.journals, self.cluster, WITHIN).await;
        let mut all: Vec<CheckpointRoot> = Vec::new();
        for root in named.read.iter().flat_map(|(_, roots)| roots.all()) {
            if self.lineages.contains(&root.lineage) && !all.contains(root) {
                all.push(root.clone());
            }
        }
        all.sort_by_key(|root| (root.position.number, root.taken));
        all
    }

    async fn fetch(&self, root: &CheckpointRoot) -> Result<Base, String> {
        let commit = root.position.number;
        let at = self.scratch.join(format!("checkpoint-{}", commit.0));
        let build = Build {
            stores: self.shards.clone(),
            at,
            options: CatalogOptions::default(),
        };
        let built = build.run(root, &Log).await;
        let stopped = built.map_err(|error| format!("checkpoint at commit {commit}: {error}"))?;
        open(stopped, false)
    }

    /// The gateway's own, if it can be opened and is one of these.
    async fn own(&self) -> Option<Base> {
        let stopped = existing(&self.database)?;
        let ours = matches!(stopped.cluster(), Ok(Some(row)) if row.cluster == self.cluster);
        if !ours || !matches!(stopped.is_being_rebuilt(), Ok(false)) {
            return None;
        }
        let base = open(stopped, true).ok()?;
        let lineage = Catalog::new(Arc::clone(&base.engine)).lineage().await;
        let lineage = lineage.ok()??.lineage;
        self.lineages.contains(&lineage).then_some(base)
    }
}

fn existing(path: &Path) -> Option<RocksStopped> {
    let options = CatalogOptions {
        create: false,
        ..CatalogOptions::default()
    };
    path.exists()
        .then(|| RocksStopped::open(path, &options).ok())?
}

fn open(stopped: RocksStopped, is_own: bool) -> Result<Base, String> {
    let commit = stopped.applied().number;
    let engine = RocksEngine::of(stopped).map_err(|error| error.to_string())?;
    Ok(Base {
        engine: Arc::new(engine),
        commit,
        is_own,
    })
}

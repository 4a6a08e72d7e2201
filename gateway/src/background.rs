//! Work that nobody waits for: each job has a speed limit, yields to clients,
//! and shows how far it is.
//!
//! Owns the jobs and their pace. Invariant: a job does nothing that the
//! catalog's records do not ask for, and leaves them right wherever it is cut
//! off: what it had not done is found again by the next start. How shards are
//! read, made and written is the data path's (`object`).

mod compare;
mod damaged;
mod owed;
mod owing;
mod pace;

use std::sync::Arc;

use shardgate_catalog::Catalog;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use damaged::MendProgress;
pub use owed::FillProgress;
pub use owing::{OwedCount, Owing};

use crate::object::ObjectService;
use crate::object::ports::Disks;
use crate::object::rebuild::Turns;

/// A speed limit of its own for work that moves so many bytes per second.
pub fn paced(bytes_per_second: u64) -> Box<dyn Turns> {
    Box::new(pace::Pace::new(bytes_per_second))
}

/// What the jobs need.
pub struct JobParts {
    /// The metadata.
    pub catalog: Catalog,
    /// The pool.
    pub disks: Arc<dyn Disks>,
    /// The data path.
    pub objects: ObjectService,
    /// Bytes per second to and from disks.
    pub rate: u64,
    /// Every task is one of its.
    pub tracker: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

/// The jobs that run. Cheap to clone.
#[derive(Clone)]
pub struct Jobs {
    fill: Arc<FillProgress>,
    mend: Arc<MendProgress>,
    pace: pace::Pace,
    owing: Arc<Owing>,
}

impl Jobs {
    /// Starts them.
    pub fn start(parts: JobParts) -> Self {
        let fill = Arc::new(FillProgress::default());
        let owing = Arc::new(Owing::default());
        let (count, catalog) = (Arc::clone(&owing), parts.catalog.clone());
        let stop = parts.stop.clone();
        parts
            .tracker
            .spawn(async move { count.keep(&catalog, &stop).await });
        let pace = pace::Pace::new(parts.rate);
        let mend = Arc::new(MendProgress::default());
        let mending = damaged::Mend {
            disks: Arc::clone(&parts.disks),
            objects: parts.objects.clone(),
            turns: Box::new(pace.clone()),
            progress: Arc::clone(&mend),
            stop: parts.stop.clone(),
        };
        parts.tracker.spawn(mending.run());
        let job = owed::Fill {
            catalog: parts.catalog,
            disks: parts.disks,
            objects: parts.objects,
            turns: Box::new(pace.clone()),
            progress: Arc::clone(&fill),
            stop: parts.stop,
        };
        parts.tracker.spawn(job.run());
        Self {
            fill,
            mend,
            pace,
            owing,
        }
    }

    /// How far the filling of owed slots is.
    pub fn fill(&self) -> &FillProgress {
        &self.fill
    }

    /// The speed limit that all of them share.
    pub fn turns(&self) -> Box<dyn Turns> {
        Box::new(self.pace.clone())
    }

    /// What was done about damaged and missing shards.
    pub fn mend(&self) -> &MendProgress {
        &self.mend
    }

    /// How much is owed.
    pub fn owing(&self) -> &Owing {
        &self.owing
    }
}

//! The configured folders: which of them are disks, and opening those.
//!
//! Owns one task per folder, so that a folder that hangs keeps none of the
//! others from opening. Invariant: a folder is opened only as the disk that it
//! says it is, of this agent's cluster, and never two of one id; only a
//! gateway's order makes a blank folder a disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use shardgate_disk_store::{
    DiskOptions, Expected, LocalDisk, NewDisk, OpenError, OpenProgress, medium_of,
};
use shardgate_wire::message::{FolderReport, FolderState, FormatHead};
use shardgate_wire::{ClusterId, DiskHealth, DiskIdentity, Medium, ShardStore, StoreError};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::DiskConfig;
use crate::lanes::Lanes;
use crate::service::FolderSet;

/// How long a disk may take to say how it is.
const HEALTH_TIME: Duration = Duration::from_secs(1);
/// How long a disk may take to close.
const CLOSE_TIME: Duration = Duration::from_secs(10);

/// The folders of one agent.
pub struct Folders {
    folders: Vec<Arc<Folder>>,
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Arc<Lanes>,
    /// The only cluster whose disks are opened: the configured one, or that of
    /// the first disk.
    cluster: Mutex<Option<ClusterId>>,
    /// What all disks share.
    options: DiskOptions,
}

struct Folder {
    config: DiskConfig,
    shown: Mutex<Shown>,
    /// How far its opening is, while it is opened.
    opening: Mutex<Option<Arc<OpenProgress>>>,
    /// What the kernel said of the folder when it was last looked at.
    medium: Mutex<Option<Medium>>,
    /// Held while the folder is opened, formatted or closed.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
enum Shown {
    Open(Arc<LocalDisk>),
    Closed(Box<FolderState>),
}

impl Folders {
    /// The folders as configured; none is open yet.
    pub fn new(
        disks: &[DiskConfig],
        cluster: Option<ClusterId>,
        lanes: Arc<Lanes>,
        options: DiskOptions,
    ) -> Arc<Self> {
        let folder = |config: &DiskConfig| {
            let why = "not opened yet".to_owned();
            let state = FolderState::Failed {
                identity: None,
                why,
            };
            Arc::new(Folder {
                config: config.clone(),
                shown: Mutex::new(Shown::Closed(Box::new(state))),
                opening: Mutex::new(None),
                medium: Mutex::new(None),
                changing: tokio::sync::Mutex::new(()),
            })
        };
        Arc::new(Self {
            folders: disks.iter().map(folder).collect(),
            shared: Arc::new(Shared {
                lanes,
                cluster: Mutex::new(cluster),
                options,
            }),
        })
    }

    /// Looks at every folder now, waits `within` at most, and goes on looking
    /// every `every` until `stop`.
    pub async fn start(
        &self,
        every: Duration,
        within: Duration,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let (looked, mut first) = tokio::sync::mpsc::channel(self.folders.len().max(1));
        for folder in &self.folders {
            let (folder, shared) = (Arc::clone(folder), Arc::clone(&self.shared));
            let (looked, stop) = (looked.clone(), stop.clone());
            tracker.spawn(async move {
                folder.look(&shared).await;
                drop(looked);
                loop {
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(every) => folder.look(&shared).await,
                    }
                }
            });
        }
        drop(looked);
        // Nobody sends: the channel ends when every folder was looked at.
        let _: Result<Option<()>, _> = timeout(within, first.recv()).await;
    }

    /// Closes all disks, each within its time.
    pub async fn close(&self) {
        let close = self.folders.iter().map(|folder| async {
            let shown = folder.shown.lock().clone();
            if let Shown::Open(disk) = shown {
                self.shared.lanes.close(disk.disk());
                if timeout(CLOSE_TIME, disk.close()).await.is_err() {
                    tracing::warn!(disk = %disk.disk(), "disk did not close in time");
                }
            }
        });
        join_all(close).await;
    }
}

impl Folder {
    /// Opens the folder if it is closed, closes it if its disk is lost.
    async fn look(&self, shared: &Shared) {
        let _changing = self.changing.lock().await;
        let shown = self.shown.lock().clone();
        match shown {
            Shown::Open(disk) => self.look_at_open(disk, shared).await,
            Shown::Closed(_) => self.open(shared).await,
        }
    }

    async fn look_at_open(&self, disk: Arc<LocalDisk>, shared: &Shared) {
        let health = timeout(HEALTH_TIME, disk.health()).await;
        let Ok(Err(StoreError::Lost { why })) = health else {
            return;
        };
        tracing::error!(disk = %disk.disk(), folder = %self.config.path.display(), why, "disk lost, closing it");
        shared.lanes.close(disk.disk());
        let identity = Some(disk.identity());
        self.show(FolderState::Failed { identity, why });
        let _ = timeout(CLOSE_TIME, disk.close()).await;
    }

    async fn open(&self, shared: &Shared) {
        let config = self.config.clone();
        let cluster = *shared.cluster.lock();
        let progress = Arc::new(OpenProgress::default());
        *self.opening.lock() = Some(Arc::clone(&progress));
        let options = DiskOptions {
            medium: config.medium,
            index_dir: config.index_dir.clone(),
            progress,
            ..shared.options.clone()
        };
        let looked = spawn_blocking(move || {
            let medium = medium_of(&config.path);
            (medium, open_disk(&config.path, cluster, options))
        });
        let (medium, opened) = looked
            .await
            .unwrap_or_else(|panic| (None, Err((None, panic.to_string()).into())));
        *self.medium.lock() = medium;
        *self.opening.lock() = None;
        match opened {
            Ok(disk) => self.opened(disk, shared),
            Err(Unopened(state)) => {
                let changed = !matches!(&*self.shown.lock(), Shown::Closed(was) if **was == state);
                if changed {
                    tracing::warn!(folder = %self.config.path.display(), ?state, "folder is not open");
                }
                self.show(state);
            }
        }
    }

    fn opened(&self, disk: LocalDisk, shared: &Shared) {
        let identity = disk.identity();
        let mut cluster = shared.cluster.lock();
        if *cluster.get_or_insert(identity.cluster) != identity.cluster {
            // Two folders of two clusters were opened at once.
            return self.show(FolderState::Foreign(identity));
        }
        drop(cluster);
        let disk = Arc::new(disk);
        if !shared.lanes.open_with_journal(Arc::clone(&disk)) {
            let why = "a disk of the same id is open: a copy?".to_owned();
            let identity = Some(identity);
            return self.show(FolderState::Failed { identity, why });
        }
        tracing::info!(disk = %identity.disk, folder = %self.config.path.display(), "disk open");
        *self.shown.lock() = Shown::Open(disk);
    }

    fn show(&self, state: FolderState) {
        *self.shown.lock() = Shown::Closed(Box::new(state));
    }

    async fn format(&self, head: FormatHead, shared: &Shared) -> Result<DiskHealth, StoreError> {
        let _changing = self.changing.lock().await;
        let shown = self.shown.lock().clone();
        let disk = match shown {
            Shown::Open(disk) => disk,
            Shown::Closed(_) => self.make(&head, shared).await?,
        };
        if disk.identity() != head.identity {
            return Err(StoreError::WrongDisk {
                what: format!("the folder is disk {}", disk.disk()),
            });
        }
        disk.raise_epoch(&head.ctx).await?;
        disk.health().await
    }

    async fn make(&self, head: &FormatHead, shared: &Shared) -> Result<Arc<LocalDisk>, StoreError> {
        let ours = *shared.cluster.lock();
        if ours.is_some_and(|ours| ours != head.identity.cluster) {
            return Err(StoreError::WrongDisk {
                what: "the agent's disks are of another cluster".to_owned(),
            });
        }
        let path = self.config.path.clone();
        let new = NewDisk {
            cluster: head.identity.cluster,
            disk: head.identity.disk,
            medium: Some(head.identity.medium),
            create_folder: false,
        };
        let made = spawn_blocking(move || LocalDisk::format(&path, &new)).await;
        match made {
            Ok(Ok(_)) => {}
            // A repeat, or another disk: opening it tells.
            Ok(Err(OpenError::Foreign { .. })) => {}
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(panic) => return Err(refused(panic.to_string())),
        }
        self.open(shared).await;
        let shown = self.shown.lock().clone();
        match shown {
            Shown::Open(disk) => Ok(disk),
            Shown::Closed(state) => Err(refused(format!("the folder did not open: {state:?}"))),
        }
    }

    /// How far it is, while its volumes are opened.
    fn opening_state(&self) -> Option<FolderState> {
        let opening = self.opening.lock();
        let progress = opening.as_ref().filter(|progress| progress.has_begun())?;
        let why = format!("it is being opened: {progress}");
        let identity = None;
        Some(FolderState::Failed { identity, why })
    }

    async fn report(&self) -> FolderReport {
        let shown = self.shown.lock().clone();
        let (written, state) = match shown {
            Shown::Closed(state) => (None, self.opening_state().unwrap_or(*state)),
            Shown::Open(disk) => (Some(disk.identity().medium), health_of(&disk).await),
        };
        let medium = self.config.medium.or(written).or(*self.medium.lock());
        FolderReport {
            folder: self.config.path.display().to_string(),
            medium,
            state,
        }
    }
}

async fn health_of(disk: &LocalDisk) -> FolderState {
    let why = match timeout(HEALTH_TIME, disk.health()).await {
        Ok(Ok(health)) => return FolderState::Open(health),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the disk does not answer".to_owned(),
    };
    let identity = Some(disk.identity());
    FolderState::Failed { identity, why }
}

fn refused(why: String) -> StoreError {
    StoreError::Io {
        what: "format".to_owned(),
        why,
    }
}

/// Why a folder is not open, as it is shown.
struct Unopened(FolderState);

impl From<(Option<DiskIdentity>, String)> for Unopened {
    fn from((identity, why): (Option<DiskIdentity>, String)) -> Self {
        Self(FolderState::Failed { identity, why })
    }
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        Self(match error {
            OpenError::Missing { .. } => FolderState::Missing,
            OpenError::Blank { .. } => FolderState::Blank,
            OpenError::Foreign { found, .. } => FolderState::Foreign(found),
            other => return (None, other.to_string()).into(),
        })
    }
}

/// Opens the disk that is in a folder, whichever of the cluster it is.
// A start and a look every few seconds: the size of its error costs nothing.
#[expect(clippy::result_large_err)]
fn open_disk(
    path: &Path,
    cluster: Option<ClusterId>,
    options: DiskOptions,
) -> Result<LocalDisk, Unopened> {
    let identity = LocalDisk::identify(path)?;
    let expected = Expected {
        cluster: cluster.unwrap_or(identity.cluster),
        disk: Some(identity.disk),
    };
    let opened = LocalDisk::open(path, &expected, options);
    opened.map_err(|error| match Unopened::from(error) {
        Unopened(FolderState::Failed { why, .. }) => (Some(identity), why).into(),
        other => other,
    })
}

#[async_trait]
impl FolderSet for Folders {
    async fn report(&self) -> Vec<FolderReport> {
        join_all(self.folders.iter().map(|folder| folder.report())).await
    }

    async fn format(&self, head: FormatHead) -> Result<DiskHealth, StoreError> {
        if head.ctx.cluster != head.identity.cluster {
            return Err(StoreError::WrongDisk {
                what: "the new disk is not of the caller's cluster".to_owned(),
            });
        }
        let named = |folder: &&Arc<Folder>| folder.config.path.display().to_string() == head.folder;
        match self.folders.iter().find(named) {
            Some(folder) => folder.format(head, &self.shared).await,
            None => Err(StoreError::BadCall {
                what: "no such folder is configured".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests;

//! Where disks are: the folders of this server, and those of agents.
//!
//! Owns [`Place`], the one way to see, format and open disks wherever they
//! are. Invariant: surveying changes nothing; only [`Place::format`] makes a
//! folder or writes into one without a disk, and only into an empty one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use shardgate_disk_store::{DiskOptions, Expected, LocalDisk, NewDisk, OpenError};
use shardgate_wire::{
    AgentId, CallContext, DiskHealth, DiskId, DiskIdentity, Medium, ShardStore, StoreError,
};
use tokio::time::timeout;

use super::ways::DiskWays;

/// What is in a folder.
#[derive(Clone, Debug, PartialEq)]
pub enum FoundState {
    /// A disk, of whatever cluster.
    Disk(DiskIdentity),
    /// Nothing: a new disk, or a lost one.
    Blank,
    /// There is no such folder.
    Missing,
    /// It cannot be told.
    Failed {
        /// Why.
        why: String,
    },
}

/// One configured folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its path as configured.
    pub folder: String,
    /// The medium that a new disk there would have, where it is given.
    pub medium: Option<Medium>,
    /// What is there.
    pub state: FoundState,
}

/// Which folders of disks are made where they are missing. Elsewhere a
/// missing folder is a mistake, or a drive that is not mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MakeFolders {
    /// None.
    #[default]
    Never,
    /// All of a new cluster.
    ForNewCluster,
    /// Those as well where no disk of the pool ever was.
    ForNewDisks,
}

/// What a place has.
#[derive(Clone, Debug, PartialEq)]
pub struct Survey {
    /// The agent, `None` for the gateway's own server.
    pub agent: Option<AgentId>,
    /// What the agent's operator calls it.
    pub name: String,
    /// The server's name, a domain.
    pub server: String,
    /// The site's name, a domain.
    pub site: String,
    /// Its folders, in the order of the configuration.
    pub folders: Vec<Found>,
    /// Which of them are made where they are missing.
    pub makes: MakeFolders,
}

/// A server's folders.
#[async_trait]
pub trait Place: Send + Sync + 'static {
    /// What messages call it.
    fn label(&self) -> String;

    /// What is in its folders; why it cannot be told otherwise.
    async fn survey(&self, within: Duration) -> Result<Survey, String>;

    /// Makes an empty folder the disk `disk`; the folder too, where it is one
    /// that is made.
    async fn format(
        &self,
        ctx: &CallContext,
        folder: &str,
        disk: DiskId,
        medium: Option<Medium>,
    ) -> Result<DiskIdentity, String>;

    /// Opens the disk of that identity, anew if it was open.
    async fn open(&self, folder: &str, identity: &DiskIdentity) -> Result<DiskWays, String>;

    /// Closes what is open, within the time.
    async fn close(&self, within: Duration);
}

/// A folder of the gateway's own server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFolder {
    /// Its path.
    pub path: PathBuf,
    /// The medium; found from the kernel if `None`.
    pub medium: Option<Medium>,
    /// A folder on a faster disk for copies of its directories.
    pub index_dir: Option<PathBuf>,
}

/// The folders of the gateway's own server.
///
/// A folder may hang, on a device that does not answer any more. Whatever
/// touches one therefore runs on a thread of its own, one at a time for each
/// folder: a folder that hangs holds one thread, however often it is asked
/// for, and none of its neighbours.
pub struct LocalFolders {
    folders: Vec<Configured>,
    server: String,
    site: String,
    options: DiskOptions,
    makes: MakeFolders,
    open: Mutex<Vec<Arc<LocalDisk>>>,
}

/// A folder, and the turn of whoever touches it.
#[derive(Clone)]
struct Configured {
    folder: LocalFolder,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Until a disk that is opened anew has let go of its folder.
const REOPEN_WAIT: Duration = Duration::from_secs(5);

impl LocalFolders {
    /// These folders, in the domains of this server.
    pub fn new(
        folders: Vec<LocalFolder>,
        server: String,
        site: String,
        options: DiskOptions,
    ) -> Self {
        let configured = |folder| Configured {
            folder,
            turn: Arc::default(),
        };
        Self {
            folders: folders.into_iter().map(configured).collect(),
            server,
            site,
            options,
            makes: MakeFolders::Never,
            open: Mutex::default(),
        }
    }

    /// With folders that are made.
    #[must_use]
    pub fn making(self, makes: MakeFolders) -> Self {
        Self { makes, ..self }
    }

    fn folder(&self, name: &str) -> Result<Configured, String> {
        let found = self
            .folders
            .iter()
            .find(|of| of.folder.path.to_string_lossy() == name);
        found
            .cloned()
            .ok_or_else(|| format!("{name} is not a configured folder"))
    }

    fn take_open(&self, disk: DiskId) -> Vec<Arc<LocalDisk>> {
        let mut open = self.open.lock();
        let (taken, kept) = open.drain(..).partition(|of| of.identity().disk == disk);
        *open = kept;
        taken
    }
}

impl Configured {
    /// Runs what may hang, when it is its turn. Dropped, the work goes on to
    /// its end, and the turn with it.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalFolder) -> T + Send + 'static,
    ) -> T {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let folder = self.folder.clone();
        let work = tokio::task::spawn_blocking(move || {
            let done = work(&folder);
            drop(turn);
            done
        });
        work.await
            .expect("looking at a disk does not panic and is not aborted")
    }

    async fn look(&self, within: Duration) -> Found {
        let found = timeout(within, self.blocking(look_into)).await;
        found.unwrap_or_else(|_| Found {
            state: FoundState::Failed {
                why: format!(
                    "{} did not answer in {within:?}",
                    self.folder.path.display()
                ),
            },
            folder: self.folder.path.to_string_lossy().into_owned(),
            medium: self.folder.medium,
        })
    }
}

fn look_into(folder: &LocalFolder) -> Found {
    let state = match LocalDisk::identify(&folder.path) {
        Ok(identity) => FoundState::Disk(identity),
        Err(OpenError::Blank { .. }) => FoundState::Blank,
        Err(OpenError::Missing { .. }) => FoundState::Missing,
        Err(error) => FoundState::Failed {
            why: error.to_string(),
        },
    };
    Found {
        folder: folder.path.to_string_lossy().into_owned(),
        medium: folder.medium,
        state,
    }
}

#[async_trait]
impl Place for LocalFolders {
    fn label(&self) -> String {
        "this server".into()
    }

    async fn survey(&self, within: Duration) -> Result<Survey, String> {
        let looks = self.folders.iter().map(|folder| folder.look(within));
        let folders = futures::future::join_all(looks).await;
        Ok(Survey {
            agent: None,
            name: String::new(),
            server: self.server.clone(),
            site: self.site.clone(),
            folders,
            makes: self.makes,
        })
    }

    async fn format(
        &self,
        ctx: &CallContext,
        folder: &str,
        disk: DiskId,
        medium: Option<Medium>,
    ) -> Result<DiskIdentity, String> {
        let folder = self.folder(folder)?;
        let new = NewDisk {
            cluster: ctx.cluster,
            disk,
            medium: medium.or(folder.folder.medium),
            create_folder: self.makes != MakeFolders::Never,
        };
        let format = move |folder: &LocalFolder| LocalDisk::format(&folder.path, &new);
        let formatted = folder.blocking(format).await;
        formatted.map_err(|error| error.to_string())
    }

    async fn open(&self, folder: &str, identity: &DiskIdentity) -> Result<DiskWays, String> {
        let folder = self.folder(folder)?;
        for old in self.take_open(identity.disk) {
            // One that hangs keeps its folder locked, and opening fails below.
            let _ = timeout(REOPEN_WAIT, old.close()).await;
        }
        let expected = Expected {
            cluster: identity.cluster,
            disk: Some(identity.disk),
        };
        let options = DiskOptions {
            medium: folder.folder.medium,
            index_dir: folder.folder.index_dir.clone(),
            progress: Arc::default(),
            ..self.options.clone()
        };
        let open = move |folder: &LocalFolder| LocalDisk::open(&folder.path, &expected, options);
        let opened = folder.blocking(open).await;
        let disk = Arc::new(opened.map_err(|error| error.to_string())?);
        self.open.lock().push(Arc::clone(&disk));
        Ok(DiskWays::of(disk))
    }

    async fn close(&self, within: Duration) {
        let open: Vec<_> = self.open.lock().drain(..).collect();
        let closing = futures::future::join_all(open.iter().map(|disk| disk.close()));
        if timeout(within, closing).await.is_err() {
            tracing::warn!("a disk did not close in time");
        }
    }
}

/// A disk's health within a time.
pub(crate) async fn health_of(
    store: &dyn ShardStore,
    within: Duration,
) -> Result<DiskHealth, StoreError> {
    match timeout(within, store.health()).await {
        Ok(health) => health,
        Err(_) => Err(StoreError::TimedOut(within)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_folder_that_hangs_holds_one_thread_and_hides_none_of_its_neighbours() {
        let dir = tempfile::tempdir().unwrap();
        let folders = ["one", "two"].map(|name| {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).unwrap();
            LocalFolder {
                path,
                medium: None,
                index_dir: None,
            }
        });
        let (server, site) = ("server".into(), "site".into());
        let place = LocalFolders::new(folders.into(), server, site, DiskOptions::default());
        let short = Duration::from_millis(200);

        let (release, hanging) = mpsc::channel::<()>();
        let hang = place.folders[0].blocking(move |_| hanging.recv().is_err());
        assert!(timeout(short, hang).await.is_err());
        let began = Arc::new(AtomicBool::new(false));
        let second = {
            let began = Arc::clone(&began);
            place.folders[0].blocking(move |_| began.store(true, Ordering::SeqCst))
        };
        assert!(timeout(short, second).await.is_err());
        assert!(!began.load(Ordering::SeqCst), "one at a time");
        let survey = place.survey(short).await.unwrap();
        let states: Vec<_> = survey.folders.iter().map(|found| &found.state).collect();
        assert!(
            matches!(states[..], [FoundState::Failed { .. }, FoundState::Blank]),
            "{states:?}"
        );
        drop(release);
        let survey = place.survey(Duration::from_secs(60)).await.unwrap();
        let blank = |found: &Found| found.state == FoundState::Blank;
        assert!(survey.folders.iter().all(blank), "{survey:?}");
    }
}

//! Folders become disks by order, come late, go, and are told apart.

use shardgate_wire::conformance::sample;
use shardgate_wire::{DiskId, Medium};

use super::*;
use crate::metrics::Metrics;

struct Agent {
    folders: Arc<Folders>,
    lanes: Arc<Lanes>,
}

impl Agent {
    fn of(paths: &[&Path], cluster: Option<ClusterId>) -> Self {
        let lanes = Arc::new(Lanes::new(8, Arc::new(Metrics::default())));
        let disks: Vec<_> = paths
            .iter()
            .map(|path| DiskConfig {
                path: path.to_path_buf(),
                medium: None,
                index_dir: None,
            })
            .collect();
        Self {
            folders: Folders::new(&disks, cluster, Arc::clone(&lanes), DiskOptions::default()),
            lanes,
        }
    }

    async fn look(&self) -> Vec<FolderState> {
        for folder in &self.folders.folders {
            folder.look(&self.folders.shared).await;
        }
        let report = self.folders.report().await;
        report.into_iter().map(|folder| folder.state).collect()
    }

    async fn format(&self, folder: &Path, disk: u128) -> Result<DiskHealth, StoreError> {
        self.folders.format(head(folder, disk)).await
    }
}

fn head(folder: &Path, disk: u128) -> FormatHead {
    let ctx = sample::context(1);
    FormatHead {
        ctx,
        folder: folder.display().to_string(),
        identity: DiskIdentity {
            cluster: ctx.cluster,
            disk: DiskId(disk),
            medium: Medium::Flash,
        },
    }
}

fn is_open(state: &FolderState, disk: u128) -> bool {
    matches!(state, FolderState::Open(health) if health.identity.disk == DiskId(disk))
}

#[tokio::test]
async fn only_an_order_makes_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::of(&[dir.path()], None);
    assert_eq!(agent.look().await, [FolderState::Blank]);
    assert_eq!(agent.look().await, [FolderState::Blank]);
    let report = agent.folders.report().await;
    assert!(report[0].medium.is_some(), "the kernel is asked");
    let health = agent.format(dir.path(), 1).await.unwrap();
    assert_eq!(health.epoch, sample::context(1).epoch);
    assert!(is_open(&agent.look().await[0], 1));
    assert!(agent.lanes.get(DiskId(1)).is_some());
    // Once more: done. As another: refused.
    assert!(agent.format(dir.path(), 1).await.is_ok());
    assert!(matches!(
        agent.format(dir.path(), 2).await,
        Err(StoreError::WrongDisk { .. })
    ));
    agent.folders.close().await;
    let again = Agent::of(&[dir.path()], None);
    assert!(is_open(&again.look().await[0], 1));
    again.folders.close().await;
}

#[tokio::test]
async fn a_folder_that_is_not_empty_is_never_made_a_disk() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("holiday.jpg"), "picture").unwrap();
    let agent = Agent::of(&[dir.path()], None);
    assert!(matches!(
        agent.look().await[..],
        [FolderState::Failed { .. }]
    ));
    assert!(agent.format(dir.path(), 1).await.is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_that_is_not_configured_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let agent = Agent::of(&[dir.path()], None);
    for path in [
        other.path().to_path_buf(),
        dir.path().join("../x"),
        dir.path().join("."),
    ] {
        // `join(".")` is spelled otherwise than configured.
        assert!(matches!(
            agent.format(&path, 1).await,
            Err(StoreError::BadCall { .. })
        ));
    }
}

#[tokio::test]
async fn a_late_mount_opens_and_a_lost_disk_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("disk");
    let agent = Agent::of(&[&folder], None);
    assert_eq!(agent.look().await, [FolderState::Missing]);
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(agent.look().await, [FolderState::Blank]);
    agent.format(&folder, 1).await.unwrap();
    let away = dir.path().join("away");
    std::fs::rename(&folder, &away).unwrap();
    let mut tries = 0;
    while !matches!(agent.look().await[..], [FolderState::Missing]) {
        tries += 1;
        assert!(tries < 100, "the disk is not found to be lost");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(agent.lanes.get(DiskId(1)).is_none());
    std::fs::rename(&away, &folder).unwrap();
    assert!(is_open(&agent.look().await[0], 1));
    agent.folders.close().await;
}

#[tokio::test]
async fn a_foreign_disk_and_a_copy_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [1, 2].map(|n| dir.path().join(n.to_string()));
    for path in &paths {
        std::fs::create_dir(path).unwrap();
    }
    let first = Agent::of(&[&paths[0]], None);
    first.format(&paths[0], 1).await.unwrap();
    first.folders.close().await;
    let foreign = Agent::of(&[&paths[0]], Some(ClusterId(0xf)));
    assert!(matches!(
        foreign.look().await[..],
        [FolderState::Foreign(DiskIdentity {
            disk: DiskId(1),
            ..
        })]
    ));
    assert!(foreign.lanes.all().is_empty());
    copy(&paths[0], &paths[1]);
    let both = Agent::of(&[&paths[0], &paths[1]], None);
    let states = both.look().await;
    assert!(is_open(&states[0], 1), "{states:?}");
    assert!(matches!(&states[1], FolderState::Failed { why, .. } if why.contains("same id")));
    both.folders.close().await;
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

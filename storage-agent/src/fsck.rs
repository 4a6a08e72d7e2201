//! `--fsck`: checks the disk in a folder that no process has open.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use shardgate_disk_store::{DiskOptions, Expected, LocalDisk, OpenError};
use shardgate_wire::{Checked, DiskId, ShardStore, StoreError};
use thiserror::Error;

/// How often it is said how far a check is.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Why a disk was not checked to the end.
#[derive(Debug, Error)]
pub enum FsckError {
    /// A process has it open.
    #[error(
        "disk {path} is in use: the gateway that runs checks it with `shardgate disk check {disk}`"
    )]
    InUse {
        /// Where.
        path: PathBuf,
        /// Which.
        disk: DiskId,
    },
    /// It does not open.
    #[error(transparent)]
    Open(OpenError),
    /// It was lost, or refused what a repair needs.
    #[error("check disk: {0}")]
    Check(#[from] StoreError),
    /// What was found could not be said.
    #[error("write report: {0}")]
    Report(#[from] std::io::Error),
}

/// Where a check says what it has to say.
pub struct Says<'a> {
    /// What is wrong, as it is found, and the sum.
    pub report: &'a mut dyn Write,
    /// How far it is, every few seconds.
    pub progress: &'a mut dyn Write,
    /// How often.
    pub every: Duration,
}

impl<'a> Says<'a> {
    /// To these, every five seconds.
    pub fn to(report: &'a mut dyn Write, progress: &'a mut dyn Write) -> Self {
        let every = SAY_EVERY;
        Self {
            report,
            progress,
            every,
        }
    }
}

/// Reads the whole disk, part by part. With `repair`, directories of volumes
/// that do not say what the records do are written anew, and what is left of a
/// log that was lost is accepted; nothing else is changed, but for what every
/// start does after a crash.
///
/// # Errors
/// [`FsckError`]; what is damaged is no error but a finding.
pub async fn fsck(folder: &Path, repair: bool, says: Says<'_>) -> Result<Checked, FsckError> {
    let identity = LocalDisk::identify(folder).map_err(FsckError::Open)?;
    let expected = Expected {
        cluster: identity.cluster,
        disk: Some(identity.disk),
    };
    let disk = LocalDisk::open(folder, &expected, DiskOptions::default());
    let disk = disk.map_err(|error| match error {
        OpenError::InUse { path } => FsckError::InUse {
            path,
            disk: identity.disk,
        },
        error => FsckError::Open(error),
    })?;
    let checked = check(&disk, repair, says).await;
    disk.close().await;
    checked
}

async fn check(disk: &LocalDisk, repair: bool, says: Says<'_>) -> Result<Checked, FsckError> {
    // Who may write to it stays as it is.
    let ctx = disk.own_context();
    let mut all = Checked::default();
    let (mut from, mut said) = (None, Instant::now());
    loop {
        let page = disk.check(&ctx, from, repair).await?;
        all.add(&page);
        for finding in &page.findings {
            writeln!(says.report, "{finding}")?;
        }
        from = page.next;
        if from.is_none() {
            break;
        }
        if said.elapsed() >= says.every {
            said = Instant::now();
            // A terminal that went does not end the check.
            let _ = writeln!(says.progress, "so far: {all}");
        }
    }
    writeln!(says.report, "{all}")?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_disk_store::NewDisk;
    use shardgate_wire::conformance::sample;

    /// A check that says nothing.
    async fn check_in(folder: &Path, repair: bool) -> Result<Checked, FsckError> {
        let (mut report, mut progress) = (Vec::new(), Vec::new());
        fsck(folder, repair, Says::to(&mut report, &mut progress)).await
    }

    #[tokio::test]
    async fn a_damaged_directory_is_found_and_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let new = NewDisk {
            cluster: sample::CLUSTER,
            disk: sample::identity().disk,
            medium: None,
            create_folder: false,
        };
        LocalDisk::format(dir.path(), &new).unwrap();
        let expected = Expected {
            cluster: sample::CLUSTER,
            disk: None,
        };
        let disk = LocalDisk::open(dir.path(), &expected, DiskOptions::default()).unwrap();
        let ctx = sample::context(1);
        disk.assign(&ctx, &[sample::slot()]).await.unwrap();
        for blob in 0..20 {
            disk.put(&ctx, sample::small(&ctx, blob, 3000))
                .await
                .unwrap();
        }
        let in_use = check_in(dir.path(), false).await.unwrap_err();
        let command = format!("`shardgate disk check {}`", sample::identity().disk);
        assert!(in_use.to_string().contains(&command), "{in_use}");
        // Not closed in order: the volume is sealed by the next start.
        drop(disk);
        let volumes = dir.path().join("volumes").join(sample::GROUP.to_string());
        let checked = loop {
            match check_in(dir.path(), false).await {
                Ok(checked) => break checked,
                // The threads of the disk that was dropped still end.
                Err(FsckError::InUse { .. }) => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!((checked.shards, checked.found), (20, 0), "{checked:?}");
        let directory = volumes.join("0000000000000001.dir");
        let mut bytes = std::fs::read(&directory).unwrap();
        let at = bytes.len() - 4090;
        bytes[at] ^= 1;
        std::fs::write(&directory, &bytes).unwrap();
        let (mut said, mut progress) = (Vec::new(), Vec::new());
        let says = Says {
            every: Duration::ZERO,
            ..Says::to(&mut said, &mut progress)
        };
        let found = fsck(dir.path(), false, says).await.unwrap();
        let progress = String::from_utf8(progress).unwrap();
        assert!(
            progress.contains("so far: 1 volumes, 20 shards whole"),
            "{progress}"
        );
        assert_eq!((found.found, found.repaired), (1, 0), "{found:?}");
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("directory of "), "{said}");
        let repaired = check_in(dir.path(), true).await.unwrap();
        assert_eq!((repaired.found, repaired.repaired), (1, 1), "{repaired:?}");
        let checked = check_in(dir.path(), false).await.unwrap();
        assert_eq!((checked.shards, checked.found), (20, 0), "{checked:?}");
    }
}

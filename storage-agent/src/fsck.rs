//! `--fsck`: checks the disk in a folder that no process has open.

use std::io::Write;
use std::path::Path;

use shardgate_disk_store::{DiskOptions, Expected, LocalDisk, OpenError};
use shardgate_wire::{ShardStore, StoreError};
use thiserror::Error;

/// Why a disk was not checked to the end.
#[derive(Debug, Error)]
pub enum FsckError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It was lost, or refused what a repair needs.
    #[error("check disk: {0}")]
    Check(#[from] StoreError),
    /// What was found could not be said.
    #[error("write report: {0}")]
    Report(#[from] std::io::Error),
}

/// What a check found in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Volumes that were read.
    pub volumes: u64,
    /// Shards that are whole.
    pub shards: u64,
    /// Bytes of those shards' records or files.
    pub bytes: u64,
    /// What was wrong.
    pub found: u64,
    /// Of it, what was repaired.
    pub repaired: u64,
}

/// Reads the whole disk, and says to `out` what is wrong as it is found. With
/// `repair`, directories of volumes that do not say what the records do are
/// written anew; nothing else is changed, but for what every start does after
/// a crash.
///
/// # Errors
/// [`FsckError`]; what is damaged is no error but a finding.
pub async fn fsck(folder: &Path, repair: bool, out: &mut dyn Write) -> Result<Checked, FsckError> {
    let identity = LocalDisk::identify(folder)?;
    let expected = Expected {
        cluster: identity.cluster,
        disk: Some(identity.disk),
    };
    let disk = LocalDisk::open(folder, &expected, DiskOptions::default())?;
    let checked = check(&disk, repair, out).await;
    disk.close().await;
    checked
}

async fn check(disk: &LocalDisk, repair: bool, out: &mut dyn Write) -> Result<Checked, FsckError> {
    // Who may write to it stays as it is.
    let ctx = disk.own_context();
    let mut all = Checked::default();
    let mut from = None;
    loop {
        let page = disk.check(&ctx, from, repair).await?;
        all.volumes += page.volumes;
        all.shards += page.shards;
        all.bytes += page.bytes;
        for finding in &page.findings {
            all.found += 1;
            all.repaired += u64::from(finding.repaired);
            writeln!(out, "{finding}")?;
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    writeln!(
        out,
        "{} volumes, {} shards whole, {} bytes; {} found wrong",
        all.volumes, all.shards, all.bytes, all.found
    )?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_disk_store::NewDisk;
    use shardgate_wire::conformance::sample;

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
        // Not closed in order: the volume is sealed by the next start.
        drop(disk);
        let volumes = dir.path().join("volumes").join(sample::GROUP.to_string());
        let checked = loop {
            match fsck(dir.path(), false, &mut Vec::new()).await {
                Ok(checked) => break checked,
                // The threads of the disk that was dropped still end.
                Err(FsckError::Open(OpenError::InUse { .. })) => {
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
        let mut said = Vec::new();
        let found = fsck(dir.path(), false, &mut said).await.unwrap();
        assert_eq!((found.found, found.repaired), (1, 0), "{found:?}");
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("directory of "), "{said}");
        let repaired = fsck(dir.path(), true, &mut Vec::new()).await.unwrap();
        assert_eq!((repaired.found, repaired.repaired), (1, 1), "{repaired:?}");
        let checked = fsck(dir.path(), false, &mut Vec::new()).await.unwrap();
        assert_eq!((checked.shards, checked.found), (20, 0), "{checked:?}");
    }
}

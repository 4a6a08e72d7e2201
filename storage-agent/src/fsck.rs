//! `--fsck`: checks the disk in a folder that no process has open.

use std::io::Write;
use std::path::Path;

use shardgate_disk_store::{DiskCheck, DiskOptions, Expected, LocalDisk, OpenError};
use shardgate_wire::StoreError;
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
}

/// Reads the whole disk. With `repair`, directories of volumes that do not
/// say what the records do are written anew; nothing else is changed, but for
/// what every start does after a crash.
///
/// # Errors
/// [`FsckError`]; what is damaged is no error but a finding.
pub async fn fsck(folder: &Path, repair: bool) -> Result<DiskCheck, FsckError> {
    let identity = LocalDisk::identify(folder)?;
    let expected = Expected {
        cluster: identity.cluster,
        disk: Some(identity.disk),
    };
    let disk = LocalDisk::open(folder, &expected, DiskOptions::default())?;
    let check = disk.check(repair).await;
    disk.close().await;
    Ok(check?)
}

/// Says what was found. True if nothing is wrong.
///
/// # Errors
/// Of the writer.
pub fn report(check: &DiskCheck, out: &mut dyn Write) -> std::io::Result<bool> {
    for finding in &check.findings {
        let state = if finding.repaired { " (repaired)" } else { "" };
        let shard = match finding.shard {
            Some(key) => format!(" group {} blob {} index {}", key.group, key.blob, key.index),
            None => String::new(),
        };
        writeln!(out, "{}{shard}: {}{state}", finding.place, finding.what)?;
    }
    let wrong = check.findings.len();
    writeln!(
        out,
        "{} volumes, {} shards whole, {} bytes; {wrong} found wrong",
        check.volumes, check.shards, check.bytes
    )?;
    Ok(check.findings.iter().all(|finding| finding.repaired))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_disk_store::NewDisk;
    use shardgate_wire::ShardStore;
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
        let check = loop {
            match fsck(dir.path(), false).await {
                Ok(check) => break check,
                // The threads of the disk that was dropped still end.
                Err(FsckError::Open(OpenError::InUse { .. })) => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!((check.shards, check.findings.len()), (20, 0), "{check:?}");
        let directory = volumes.join("0000000000000001.dir");
        let mut bytes = std::fs::read(&directory).unwrap();
        let at = bytes.len() - 4090;
        bytes[at] ^= 1;
        std::fs::write(&directory, &bytes).unwrap();
        let found = fsck(dir.path(), false).await.unwrap();
        assert_eq!(found.findings.len(), 1, "{found:?}");
        let mut out = Vec::new();
        assert!(!report(&found, &mut out).unwrap());
        let repaired = fsck(dir.path(), true).await.unwrap();
        assert!(repaired.findings[0].repaired, "{repaired:?}");
        let check = fsck(dir.path(), false).await.unwrap();
        assert_eq!((check.shards, check.findings.len()), (20, 0), "{check:?}");
    }
}

//! What the gateway's own folder remembers of the cluster.
//!
//! One small text file: the cluster, and the instances that ran with this
//! folder, so that a start knows its own earlier run by the epoch that disks
//! hold (PROTOCOL.md 1). Written before the first disk of a new cluster is
//! formatted, and before each epoch is raised; after a take-over, when its
//! wait is over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use shardgate_wire::{ClusterId, InstanceId};

/// Its file in the gateway's own folder.
const FILE: &str = "gateway";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRecord {
    /// The cluster that the folder's catalog is of.
    pub cluster: ClusterId,
    /// The last runs with this folder, the newest first: the one that may be
    /// in force on disks, and the one that was begun after it.
    pub instances: Vec<InstanceId>,
}

/// Runs that are remembered: one that did not come to raise its epoch must
/// not make the one before it a stranger.
const KEPT: usize = 8;

impl OwnRecord {
    /// Reads it; `None` where there is none.
    ///
    /// # Errors
    /// The file cannot be read, or is something else.
    pub fn read(folder: &Path) -> io::Result<Option<Self>> {
        let text = match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let damaged = || io::Error::other(format!("{FILE}: not what a gateway wrote"));
        let mut cluster = None;
        let mut instances = Vec::new();
        for line in text.lines() {
            match line.split_once(' ') {
                Some(("cluster", id)) => cluster = Some(id.parse().map_err(|_| damaged())?),
                Some(("instance", id)) => instances.push(id.parse().map_err(|_| damaged())?),
                _ => return Err(damaged()),
            }
        }
        let cluster = cluster.ok_or_else(damaged)?;
        Ok(Some(Self { cluster, instances }))
    }

    /// The record of a run that begins now.
    pub fn with_instance(&self, instance: InstanceId) -> Self {
        let earlier = self.instances.iter().copied();
        Self {
            cluster: self.cluster,
            instances: std::iter::once(instance)
                .chain(earlier)
                .take(KEPT)
                .collect(),
        }
    }

    /// Replaces it, durably.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let mut text = format!("cluster {}\n", self.cluster);
        for instance in &self.instances {
            text.push_str(&format!("instance {instance}\n"));
        }
        let new = folder.join(format!("{FILE}.new"));
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, folder.join(FILE))?;
        // Rename alone is not durable.
        File::open(folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_other_files_are_refused() {
        let dir = tempfile::tempdir().expect("make a folder");
        assert_eq!(OwnRecord::read(dir.path()).expect("read"), None);
        let mut record = OwnRecord {
            cluster: ClusterId(7),
            instances: Vec::new(),
        };
        for number in 0..10u128 {
            record = record.with_instance(InstanceId(number));
            record.write(dir.path()).expect("written");
        }
        let kept: Vec<_> = (2..10).rev().map(InstanceId).collect();
        assert_eq!(record.instances, kept);
        let read = OwnRecord::read(dir.path()).expect("read");
        assert_eq!(read, Some(record));
        for text in ["", "instance 00\n", "cluster x\n", "something else\n"] {
            fs::write(dir.path().join(FILE), text).expect("written");
            assert!(OwnRecord::read(dir.path()).is_err(), "{text:?}");
        }
    }
}

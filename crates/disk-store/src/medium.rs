//! What a disk's medium is, and what depends on it.
//!
//! The table of figures is here and in `docs/operations.md`, nowhere else.

use std::path::{Path, PathBuf};

use shardgate_wire::Medium;

use crate::volume::VolumeFigures;

/// What depends on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediumFigures {
    /// Threads of one disk that read small pieces for callers who wait: what
    /// a drive does side by side.
    pub readers: usize,
    /// Threads of one disk for all else that callers wait for.
    pub threads: usize,
    /// Batches of small shards that are written at once.
    pub put_batches: usize,
    /// Small shards of one batch.
    pub batch_shards: usize,
    /// Writes of at least this many bytes go past the page cache. Never on
    /// rotating disks: the page cache gathers the blocks of many shards that
    /// are written at once into long runs, which saves seeks there, while
    /// flash only saves the copying.
    pub direct_from: usize,
    /// What volumes are like.
    pub volumes: VolumeFigures,
}

impl MediumFigures {
    /// The table.
    pub const fn of(medium: Medium) -> Self {
        match medium {
            Medium::Flash => Self {
                readers: 32,
                threads: 8,
                put_batches: 1,
                batch_shards: 1024,
                direct_from: 64 * 1024,
                volumes: VolumeFigures {
                    volume_bytes: 64 << 20,
                    volume_records: 64 * 1024,
                    zero_step: 4 << 20,
                    large_batch: 256 * 1024,
                    volume_max: 1 << 20,
                    punch_from: 64 * 1024,
                    log_bytes: 16 << 20,
                    open_files: 256,
                    sync_at_once: true,
                },
            },
            Medium::Rotating => Self {
                readers: 4,
                threads: 4,
                put_batches: 1,
                batch_shards: 1024,
                direct_from: usize::MAX,
                volumes: VolumeFigures {
                    volume_bytes: 256 << 20,
                    volume_records: 64 * 1024,
                    zero_step: 16 << 20,
                    // A sync that makes metadata durable moves the head.
                    large_batch: u64::MAX,
                    volume_max: 16 << 20,
                    punch_from: 1 << 20,
                    log_bytes: 16 << 20,
                    open_files: 256,
                    sync_at_once: true,
                },
            },
        }
    }
}

/// The medium of a folder's device, as far as the kernel knows it; flash where
/// it does not. `None` if there is no folder.
pub fn medium_of(folder: &Path) -> Option<Medium> {
    let stat = rustix::fs::stat(folder).ok()?;
    Some(detect(stat.st_dev))
}

/// The medium of a device, as far as the kernel knows it; flash where it
/// does not (no block device, or a virtual one, whose flag says nothing).
pub(crate) fn detect(device: u64) -> Medium {
    detect_under(Path::new("/sys"), device)
}

fn detect_under(sys: &Path, device: u64) -> Medium {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let node = sys.join(format!("dev/block/{major}:{minor}"));
    let Ok(node) = std::fs::canonicalize(node) else {
        return Medium::Flash;
    };
    // A partition has no queue of its own: its disk is the folder above.
    let disk = [Some(node.as_path()), node.parent()]
        .into_iter()
        .flatten()
        .find(|dir| dir.join("queue/rotational").is_file())
        .map(PathBuf::from);
    let Some(disk) = disk else {
        return Medium::Flash;
    };
    let flag = std::fs::read_to_string(disk.join("queue/rotational"));
    if flag.is_ok_and(|flag| flag.trim() == "1") && !is_virtual(&disk) {
        Medium::Rotating
    } else {
        Medium::Flash
    }
}

/// The drivers of virtual machines leave the flag at its default, whatever
/// lies behind them.
fn is_virtual(disk: &Path) -> bool {
    let driver = std::fs::read_link(disk.join("device/driver")).ok();
    let name = driver.as_deref().and_then(Path::file_name);
    name.is_some_and(|name| name == "virtio_blk" || name == "vbd")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_kernel_says_what_a_disk_is() {
        let sys = tempfile::tempdir().unwrap();
        let root = sys.path();
        let disk = |name: &str, rotational: &str, driver: &str| {
            let dir = root.join("devices").join(name);
            fs::create_dir_all(dir.join("queue")).unwrap();
            fs::create_dir_all(dir.join("device")).unwrap();
            fs::create_dir_all(dir.join("part1")).unwrap();
            fs::write(dir.join("queue/rotational"), rotational).unwrap();
            let drivers = root.join("drivers").join(driver);
            fs::create_dir_all(&drivers).unwrap();
            symlink(&drivers, dir.join("device/driver")).unwrap();
        };
        disk("sda", "1\n", "sd");
        disk("nvme0n1", "0\n", "nvme");
        disk("vda", "1\n", "virtio_blk");
        fs::create_dir_all(root.join("dev/block")).unwrap();
        let cases = [
            (8, 0, "sda", Medium::Rotating),
            (8, 1, "sda/part1", Medium::Rotating),
            (259, 0, "nvme0n1", Medium::Flash),
            (254, 1, "vda/part1", Medium::Flash),
        ];
        for (major, minor, name, wanted) in cases {
            let link = root.join(format!("dev/block/{major}:{minor}"));
            symlink(root.join("devices").join(name), link).unwrap();
            let found = detect_under(root, rustix::fs::makedev(major, minor));
            assert_eq!(found, wanted, "{name}");
        }
        let none = rustix::fs::makedev(0, 40);
        assert_eq!(detect_under(root, none), Medium::Flash);
    }
}

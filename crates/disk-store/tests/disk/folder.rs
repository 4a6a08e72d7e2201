//! A disk in a folder of its own, and what a test does to its files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardgate_disk_store::{
    DiskOptions, Expected, KeptSpace, LocalDisk, MediumFigures, NewDisk, OpenError, VolumeFigures,
};
use shardgate_wire::conformance::sample;
use shardgate_wire::journal::JournalDisk;
use shardgate_wire::{Medium, ShardKey, ShardStore};
use tempfile::TempDir;

pub(crate) fn expected() -> Expected {
    Expected {
        cluster: sample::CLUSTER,
        disk: Some(sample::identity().disk),
    }
}

pub(crate) fn new_disk() -> NewDisk {
    NewDisk {
        cluster: sample::CLUSTER,
        disk: sample::identity().disk,
        medium: Some(Medium::Flash),
        create_folder: false,
    }
}

pub(crate) fn options() -> DiskOptions {
    DiskOptions {
        kept: Some(KeptSpace::NONE),
        ..DiskOptions::default()
    }
}

/// Volumes that are full, sealed and compacted many times in a short run.
pub(crate) fn small_volumes() -> DiskOptions {
    DiskOptions {
        volumes: Some(VolumeFigures {
            volume_bytes: 512 * 1024,
            volume_records: 12,
            zero_step: 32 * 1024,
            volume_max: 128 * 1024,
            punch_from: 16 * 1024,
            log_bytes: 32 * 1024,
            ..MediumFigures::of(Medium::Flash).volumes
        }),
        volume_rest: Duration::from_millis(500),
        max_open_volumes: 1,
        ..options()
    }
}

/// What became of the sealed volumes of a disk that is looked at now and then.
#[derive(Debug, Default)]
pub(crate) struct SeenVolumes {
    sealed: BTreeSet<PathBuf>,
    compacted: BTreeSet<PathBuf>,
    /// Those that a run sealed before it was killed.
    in_runs: usize,
}

impl SeenVolumes {
    /// Behind a run that was killed.
    pub(crate) fn look_after_run(&mut self, disk: &Path) {
        let before = self.sealed.len();
        self.look(disk);
        self.in_runs += self.sealed.len() - before;
    }

    /// A sealed volume goes by compaction and by nothing else.
    pub(crate) fn look(&mut self, disk: &Path) {
        let (mut now, mut folders) = (BTreeSet::new(), vec![disk.join("volumes")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "dir") {
                    now.insert(path.strip_prefix(disk).unwrap().to_owned());
                }
            }
        }
        self.compacted.extend(self.sealed.difference(&now).cloned());
        self.sealed.extend(now);
    }

    /// That runs sealed some each, and not only the starts behind them.
    pub(crate) fn check(&self, runs: usize) {
        let (sealed, compacted) = (self.sealed.len(), self.compacted.len());
        let in_runs = self.in_runs;
        println!("{sealed} volumes were sealed, {in_runs} by runs, {compacted} compacted");
        assert!(in_runs >= runs && compacted > 0, "{self:?}");
    }
}

/// A formatted folder.
pub(crate) struct Folder {
    dir: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    pub(crate) fn within(parent: &Path) -> Self {
        let dir = tempfile::tempdir_in(parent).unwrap();
        LocalDisk::format_for(dir.path(), &new_disk(), &options()).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn try_open(&self) -> Result<LocalDisk, OpenError> {
        LocalDisk::open(self.path(), &expected(), options())
    }

    pub(crate) fn open(&self) -> LocalDisk {
        self.try_open().unwrap()
    }

    /// A disk with the slot of the samples.
    pub(crate) async fn open_assigned(&self) -> LocalDisk {
        let disk = self.open();
        let ctx = sample::context(1);
        disk.assign(&ctx, &[sample::slot()]).await.unwrap();
        disk
    }

    pub(crate) fn shard_path(&self, key: ShardKey) -> PathBuf {
        let blob = key.blob.to_string();
        let shards = self.path().join("shards").join(key.group.to_string());
        let name = format!("{blob}-{:02x}", key.index);
        shards.join(&blob[..7]).join(name)
    }

    /// Changes the bytes of a shard's file, whatever its permissions, and
    /// leaves those as they are.
    pub(crate) fn change(&self, key: ShardKey, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.shard_path(key);
        let mode = std::fs::metadata(&path).unwrap().permissions();
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        let mut writable = mode.clone();
        std::os::unix::fs::PermissionsExt::set_mode(&mut writable, 0o600);
        std::fs::set_permissions(&path, writable).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        std::fs::set_permissions(&path, mode).unwrap();
    }

    /// The volume that has the shard's record, and where its bytes begin in
    /// it; of several records the last.
    pub(crate) fn in_volume(&self, key: ShardKey) -> Option<(PathBuf, u64)> {
        let folder = self.path().join("volumes").join(key.group.to_string());
        let mut volumes: Vec<_> = std::fs::read_dir(folder)
            .ok()?
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "vol"))
            .collect();
        volumes.sort();
        let mut found = None;
        for path in volumes {
            let bytes = std::fs::read(&path).unwrap();
            for record in bytes.chunks_exact(64).enumerate() {
                let (at, head) = record;
                let of = head[48..64] == key.blob.to_be_bytes() && bytes[64 * at + 64] == key.index;
                if head.starts_with(b"SG.vrec\0") && of {
                    let data_at = u64::from_be_bytes(head[32..40].try_into().unwrap());
                    found = Some((path.clone(), data_at));
                }
            }
        }
        found
    }

    /// Flips a bit of a stored shard's bytes, wherever they lie.
    pub(crate) fn flip(&self, key: ShardKey, offset: u64) {
        use std::os::unix::fs::FileExt;
        let Some((path, data_at)) = self.in_volume(key) else {
            let at = self.data_offset(key) + offset as usize;
            return self.change(key, |bytes| bytes[at] ^= 1);
        };
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, data_at + offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], data_at + offset).unwrap();
    }

    /// Where a finished shard's bytes begin in its file, by its trailer.
    pub(crate) fn data_offset(&self, key: ShardKey) -> usize {
        let bytes = std::fs::read(self.shard_path(key)).unwrap();
        let trailer = &bytes[bytes.len() - 96..];
        u32::from_be_bytes(trailer[12..16].try_into().unwrap()) as usize
    }
}

/// The disk's journal and its roots, beside its shards.
pub fn journal_of(disk: &LocalDisk) -> &dyn JournalDisk {
    disk
}

/// All files below these folders, in order.
pub(crate) fn contents(mut folders: Vec<PathBuf>) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                found.push((path, bytes));
            }
        }
    }
    found.sort();
    found
}

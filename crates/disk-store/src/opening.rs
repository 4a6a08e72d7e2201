//! Opening a folder as a disk, and making one of an empty folder.
//!
//! Invariant: a folder is changed by opening only once it is locked and known
//! to be the disk that was asked for; by formatting only if it was empty. The
//! identity is the last that formatting writes, so a folder has one only if
//! all else is there.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use shardgate_wire::ids::{ClusterId, DiskId, Epoch};
use shardgate_wire::slots::SlotTable;
use shardgate_wire::{DiskIdentity, Medium};

use crate::cache::Cache;
use crate::condition::Condition;
use crate::core::Core;
use crate::damaged::Damaged;
use crate::error::OpenError;
use crate::files;
use crate::folder_lock::LockedFolder;
use crate::folders::Folders;
use crate::format::{
    Root, Slots, decode_identity, decode_root, decode_slots, encode_identity, encode_root,
    encode_slots,
};
use crate::handles::Handles;
use crate::index_folder;
use crate::io::{DiskIo, RealIo};
use crate::journal::JournalQueue;
use crate::key_locks::KeyLocks;
use crate::lanes::Lanes;
use crate::latency::Latency;
use crate::layout::{IDENTITY, IDENTITY_PART, LOST_AND_FOUND, ROOTS, SHARDS, SLOTS};
use crate::medium::{self, MediumFigures};
use crate::notes::NoteBook;
use crate::options::DiskOptions;
use crate::rules::Rules;
use crate::scrub::Scrub;
use crate::space::{KeptSpace, Plan, Space};
use crate::twin::{Loaded, Twin};
use crate::volume::{Engine, Opening};
use crate::writer::Direct;

/// Which disk is expected in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Of this cluster.
    pub cluster: ClusterId,
    /// This disk; any of the cluster if `None` (disks may be swapped between
    /// slots of a server).
    pub disk: Option<DiskId>,
}

/// A disk that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewDisk {
    /// Of this cluster, for ever.
    pub cluster: ClusterId,
    /// Its id.
    pub disk: DiskId,
    /// Its medium; found from the kernel if `None`.
    pub medium: Option<Medium>,
    /// Whether to make the folder itself if there is none.
    pub create_folder: bool,
}

/// The errors of one path.
struct At<'a>(&'a Path);

impl At<'_> {
    fn io(&self, what: &'static str) -> impl Fn(Errno) -> OpenError {
        move |source| OpenError::Io {
            path: self.0.to_owned(),
            what,
            source,
        }
    }

    fn damaged(&self, what: impl Into<String>) -> OpenError {
        OpenError::Damaged {
            path: self.0.to_owned(),
            what: what.into(),
        }
    }

    fn folder(&self) -> Result<OwnedFd, OpenError> {
        match files::open_folder(self.0) {
            Err(Errno::NOENT | Errno::NOTDIR) => Err(OpenError::Missing {
                path: self.0.to_owned(),
            }),
            opened => opened.map_err(self.io("open folder")),
        }
    }

    fn lock(&self, folder: OwnedFd) -> Result<LockedFolder, OpenError> {
        match LockedFolder::lock(folder) {
            Err(Errno::WOULDBLOCK) => Err(OpenError::InUse {
                path: self.0.to_owned(),
            }),
            locked => locked.map_err(self.io("lock folder")),
        }
    }

    /// The identity record, and what it says.
    fn identity(&self, folder: &OwnedFd) -> Result<(Vec<u8>, DiskIdentity), OpenError> {
        let file = match files::open_file_at(folder, IDENTITY) {
            Err(Errno::NOENT) => {
                let path = self.0.to_owned();
                return Err(if self.is_blank(folder)? {
                    OpenError::Blank { path }
                } else {
                    OpenError::NoIdentity { path }
                });
            }
            opened => opened.map_err(self.io("open identity"))?,
        };
        let record = files::read_whole(&file, 4096).map_err(self.io("read identity"))?;
        let identity = decode_identity(&record);
        let identity = identity.map_err(|error| self.damaged(format!("identity: {error}")))?;
        Ok((record, identity))
    }

    /// Whether a folder holds nothing but what formatting makes before the
    /// identity.
    fn is_blank(&self, folder: &OwnedFd) -> Result<bool, OpenError> {
        let early = [ROOTS[0], ROOTS[1], SLOTS[0], SLOTS[1], IDENTITY_PART];
        for name in self.entries(folder)? {
            let known = early.iter().any(|early| name == early.as_bytes());
            let empty = name == SHARDS.as_bytes() && {
                let shards = files::open_folder_at(folder, SHARDS);
                self.entries(&shards.map_err(self.io("open shards"))?)?
                    .is_empty()
            };
            if !known && !empty && name != LOST_AND_FOUND.as_bytes() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the file system is not too small. All of it counts: how many
    /// folders share it nobody knows here.
    fn check_size(&self, folder: &OwnedFd, least: u64) -> Result<(), OpenError> {
        let stat = rustix::fs::fstatvfs(folder).map_err(self.io("check file system"))?;
        let bytes = stat.f_blocks.saturating_mul(stat.f_frsize);
        // Some do not say.
        if bytes == 0 || bytes >= least {
            return Ok(());
        }
        let path = self.0.to_owned();
        Err(OpenError::TooSmall { path, bytes, least })
    }

    fn entries(&self, folder: &OwnedFd) -> Result<Vec<Vec<u8>>, OpenError> {
        let listed = || -> Result<Vec<Vec<u8>>, Errno> {
            let mut names = Vec::new();
            for entry in Dir::read_from(folder)?.take(1000) {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." {
                    names.push(name);
                }
            }
            Ok(names)
        };
        listed().map_err(self.io("list folder"))
    }

    fn twin<T: Clone + PartialEq>(
        &self,
        folder: &OwnedFd,
        names: [&str; 2],
        decode: impl Fn(&[u8]) -> Result<T, crate::format::FormatError>,
        sequence: impl Fn(&T) -> u64,
    ) -> Result<(Twin, T), OpenError> {
        let Loaded { twin, record, both } = match Twin::load(folder, names, decode, sequence) {
            Err(Errno::NOENT) => return Err(self.damaged(format!("no {}", names[0]))),
            loaded => loaded.map_err(self.io("read records"))?,
        };
        let record = record.map_err(|error| self.damaged(format!("{}: {error}", names[0])))?;
        if !both {
            tracing::warn!(path = %self.0.display(), file = names[0], "one of two copies was old or damaged");
        }
        Ok((twin, record))
    }
}

/// Who the disk in a folder is. Changes nothing, takes no lock.
pub(crate) fn identify(path: &Path) -> Result<DiskIdentity, OpenError> {
    let at = At(path);
    Ok(at.identity(&at.folder()?)?.1)
}

/// Makes a disk of an empty folder.
pub(crate) fn format(
    path: &Path,
    new: &NewDisk,
    options: &DiskOptions,
) -> Result<DiskIdentity, OpenError> {
    let at = At(path);
    if new.create_folder {
        create_folder(path).map_err(at.io("make folder"))?;
    }
    let folder = at.lock(at.folder()?)?;
    if !at.is_blank(&folder)? {
        let path = path.to_owned();
        return Err(match at.identity(&folder) {
            Ok((_, found)) => OpenError::Foreign {
                path,
                found,
                expected: "an empty folder".into(),
            },
            Err(error) => error,
        });
    }
    if options.kept.is_none() {
        at.check_size(&folder, KeptSpace::smallest(options.journal_segment_bytes))?;
    }
    let device = rustix::fs::fstat(&folder)
        .map_err(at.io("stat folder"))?
        .st_dev;
    let identity = DiskIdentity {
        cluster: new.cluster,
        disk: new.disk,
        medium: new.medium.unwrap_or_else(|| medium::detect(device)),
    };
    write_records(&folder, &identity).map_err(at.io("write records"))?;
    Ok(identity)
}

/// Makes a folder, its parents there, durable.
fn create_folder(path: &Path) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Err(Errno::EXIST) => return Ok(()),
        made => made?,
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    rustix::fs::fsync(files::open_folder(parent.unwrap_or(Path::new(".")))?)
}

fn write_records(folder: &OwnedFd, identity: &DiskIdentity) -> Result<(), Errno> {
    match rustix::fs::mkdirat(folder, SHARDS, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    let root = Root {
        identity: *identity,
        sequence: 1,
        map_number: 0,
        map: Vec::new(),
        epoch: Epoch::default(),
        checkpoint: Vec::new(),
        told: Vec::new(),
    };
    Twin::create(folder, ROOTS, &encode_root(&root))?;
    let slots = Slots {
        disk: identity.disk,
        sequence: 1,
        table: SlotTable::default(),
    };
    Twin::create(folder, SLOTS, &encode_slots(&slots))?;
    rustix::fs::fsync(folder)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, IDENTITY_PART, flags, Mode::RUSR | Mode::WUSR)?;
    files::write_all(&file, &encode_identity(identity), 0)?;
    rustix::fs::fsync(&file)?;
    rustix::fs::renameat(folder, IDENTITY_PART, folder, IDENTITY)?;
    rustix::fs::fsync(folder)
}

/// Opens the disk in a folder; its threads are the caller's to start.
pub(crate) fn open(
    path: &Path,
    expected: &Expected,
    options: DiskOptions,
) -> Result<Arc<Core>, OpenError> {
    let at = At(path);
    // It is looked at through its path as long as it is open.
    let absolute = std::path::absolute(path).map_err(|_| OpenError::Missing {
        path: path.to_owned(),
    })?;
    let folder = at.folder()?;
    let (identity_record, identity) = at.identity(&folder)?;
    check_expected(path, expected, identity)?;
    let folder = at.lock(folder)?;
    let (root_twin, root) = at.twin(&folder, ROOTS, decode_root, |root: &Root| root.sequence)?;
    let (slots_twin, slots) =
        at.twin(&folder, SLOTS, decode_slots, |slots: &Slots| slots.sequence)?;
    if root.identity != identity || slots.disk != identity.disk {
        return Err(at.damaged("records of another disk"));
    }
    let shards = match files::open_folder_at(&folder, SHARDS) {
        Err(Errno::NOENT) => return Err(at.damaged("no shards folder")),
        opened => opened.map_err(at.io("open shards"))?,
    };
    let device = rustix::fs::fstat(&folder)
        .map_err(at.io("stat folder"))?
        .st_dev;
    // The folder that is locked, whatever its path leads to by now.
    let own = || files::open_folder_at(&folder, ".").map_err(at.io("open folder"));
    let figures = MediumFigures::of(options.medium.unwrap_or(identity.medium));
    let first_handle = (shardgate_wire::ids::random_u128() as u64) >> 1;
    let condition = Arc::new(Condition::good(identity.disk));
    if files::is_read_only(&folder).map_err(at.io("check file system"))? {
        let _ = condition.fence("the file system is read-only".into());
    }
    let io: Arc<dyn DiskIo> = Arc::new(RealIo::new(own()?, figures.direct_from));
    // Changes nothing, so it comes before what does.
    let notes = NoteBook::open(Arc::clone(&io), identity.disk, Arc::clone(&condition));
    let notes = notes.map_err(|error| at.damaged(format!("notes: {error}")))?;
    let volumes = open_volumes(&at, own()?, identity, &condition, &figures, &options)?;
    let plan = Plan {
        set: options.kept,
        segment_bytes: options.journal_segment_bytes,
        volume_bytes: options.volumes.unwrap_or(figures.volumes).volume_bytes,
    };
    let settled = volumes.state.read().clean;
    let space = Space::new(io, (&options.devices, device), plan);
    let core = Core {
        identity,
        notes,
        volumes: Arc::new(volumes),
        path: absolute,
        identity_record,
        device,
        figures,
        condition,
        damaged: Damaged::default(),
        scrub: Scrub::new(&options),
        rules: Rules::new(root, root_twin, slots, slots_twin),
        folders: Folders::new(shards),
        keys: KeyLocks::default(),
        handles: Handles::new(first_handle, options.max_handles, options.max_handle_files),
        cache: Cache::new(options.max_cached_files, options.max_cached_bytes),
        cursor: Mutex::new(None),
        space,
        direct: Direct::new(figures.direct_from),
        latency: Latency::new(),
        journal: JournalQueue::new(),
        lanes: Lanes::new(figures, options.max_queued_calls, options.max_queued_bytes),
        tidying: Mutex::new(()),
        settled: AtomicBool::new(settled),
        options,
        folder,
    };
    make_sure(&core).map_err(at.io("check file system"))?;
    Ok(Arc::new(core))
}

/// The volumes of the disk.
fn open_volumes(
    at: &At<'_>,
    folder: OwnedFd,
    identity: DiskIdentity,
    condition: &Arc<Condition>,
    figures: &MediumFigures,
    options: &DiskOptions,
) -> Result<Engine, OpenError> {
    let index = options.index_dir.as_deref();
    let opened = Engine::open(Opening {
        io: Arc::new(RealIo::new(folder, figures.direct_from)),
        index: index.and_then(|index| index_folder::open(index, &identity)),
        identity,
        condition: Arc::clone(condition),
        figures: options.volumes.unwrap_or(figures.volumes),
        directories: Arc::clone(&options.directories),
        progress: Arc::clone(&options.progress),
        random: Box::new(|| shardgate_wire::ids::random_u128() as u64),
    });
    opened.map_err(|error| at.damaged(format!("volumes: {error}")))
}

fn check_expected(path: &Path, expected: &Expected, found: DiskIdentity) -> Result<(), OpenError> {
    let disk = expected.disk.unwrap_or(found.disk);
    if found.cluster == expected.cluster && found.disk == disk {
        return Ok(());
    }
    Err(OpenError::Foreign {
        path: path.to_owned(),
        found,
        expected: format!("disk {disk} of cluster {}", expected.cluster),
    })
}

/// What was read is durable from here on, or the disk is fenced.
fn make_sure(core: &Core) -> Result<(), Errno> {
    if core.condition.fenced().is_some() {
        // Nothing is written.
    } else if core.rules.rewrite(&core.condition).is_ok()
        && let Err(errno) = rustix::fs::fsync(&core.folder)
    {
        let _ = core.condition.fence(format!("sync folder: {errno}"));
    }
    // A partial format or an old copy leaves nothing else behind.
    match rustix::fs::unlinkat(&core.folder, IDENTITY_PART, AtFlags::empty()) {
        Ok(()) | Err(_) => {}
    }
    let _ = core.space.measure(&core.condition);
    Ok(())
}

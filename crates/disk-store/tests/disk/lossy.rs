//! A file system for real processes that loses what was not synced.
//!
//! A [`SimDisk`] mounted with FUSE: what a process writes lies in this
//! process's memory, and [`SimDisk::power_loss`] drops it by the simulator's
//! rules, whatever the kernel and the process believe. Needs root and
//! `/dev/fuse`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite,
    Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use shardgate_disk_store::io::sim::SimDisk;
use shardgate_disk_store::io::{DiskFile, DiskIo, OpenHow};
use tempfile::TempDir;

/// The kernel asks again each time.
const NO_TTL: Duration = Duration::ZERO;
const ROOT: u64 = 1;
/// `FALLOC_FL_KEEP_SIZE`, and `FALLOC_FL_PUNCH_HOLE`.
const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;

/// A simulated disk, mounted.
pub(crate) struct Mounted {
    session: Option<BackgroundSession>,
    at: TempDir,
}

impl Mounted {
    pub(crate) fn new(disk: &SimDisk) -> Self {
        let at = TempDir::new().unwrap();
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("lossy".into())];
        config.n_threads = Some(2);
        let session = fuser::spawn_mount(Lossy::new(disk.io()), at.path(), &config);
        let session = Some(session.expect("root may mount, and /dev/fuse is there"));
        Self { session, at }
    }

    pub(crate) fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

struct Node {
    path: PathBuf,
    /// Kept open, so that it outlives its name, as long as the kernel knows it.
    file: Option<Arc<dyn DiskFile>>,
    /// How often the kernel was told of it, and has not forgotten.
    lookups: u64,
    /// Permissions; lost with the power, which is one of the ways it may go.
    mode: u32,
}

struct Nodes {
    by_ino: HashMap<u64, Node>,
    by_path: HashMap<PathBuf, u64>,
    last: u64,
}

struct Lossy {
    io: Arc<dyn DiskIo>,
    nodes: Mutex<Nodes>,
}

fn attr(ino: u64, node: &Node) -> io::Result<FileAttr> {
    let (kind, size, nlink) = match &node.file {
        Some(file) => (FileType::RegularFile, file.len()?, file.names()?),
        None => (FileType::Directory, 0, 2),
    };
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: u16::try_from(node.mode & 0o7777).unwrap(),
        nlink: u32::try_from(nlink).unwrap(),
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

impl Lossy {
    fn new(io: Arc<dyn DiskIo>) -> Self {
        let root = Node {
            path: PathBuf::new(),
            file: None,
            lookups: 1,
            mode: 0o700,
        };
        Self {
            io,
            nodes: Mutex::new(Nodes {
                by_ino: HashMap::from([(ROOT, root)]),
                by_path: HashMap::from([(PathBuf::new(), ROOT)]),
                last: ROOT,
            }),
        }
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        let nodes = self.nodes.lock();
        let node = nodes.by_ino.get(&ino.0).ok_or_else(missing)?;
        Ok(node.path.clone())
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn file(&self, ino: INodeNo) -> io::Result<Arc<dyn DiskFile>> {
        let nodes = self.nodes.lock();
        let node = nodes.by_ino.get(&ino.0).ok_or_else(missing)?;
        node.file.clone().ok_or_else(missing)
    }

    fn attr(&self, ino: INodeNo) -> io::Result<FileAttr> {
        let nodes = self.nodes.lock();
        attr(ino.0, nodes.by_ino.get(&ino.0).ok_or_else(missing)?)
    }

    /// The node of what is at `path`, made if it was not known.
    fn known(&self, path: PathBuf, file: Option<Arc<dyn DiskFile>>) -> io::Result<FileAttr> {
        let mut nodes = self.nodes.lock();
        if let Some(ino) = nodes.by_path.get(&path).copied() {
            let node = nodes.by_ino.get_mut(&ino).expect("a path has its node");
            let attr = attr(ino, node)?;
            node.lookups += 1;
            return Ok(attr);
        }
        nodes.last += 1;
        let ino = nodes.last;
        let mode = if file.is_some() { 0o600 } else { 0o700 };
        nodes.by_path.insert(path.clone(), ino);
        let node = Node {
            path,
            file,
            lookups: 1,
            mode,
        };
        let attr = attr(ino, &node)?;
        nodes.by_ino.insert(ino, node);
        Ok(attr)
    }

    fn find(&self, path: PathBuf) -> io::Result<FileAttr> {
        let known = self.nodes.lock().by_path.contains_key(&path);
        let file = match self.io.open(&path, OpenHow::ReadWrite) {
            _ if known => None,
            Ok(file) => Some(file),
            Err(error) if error.raw_os_error() == Some(Errno::EISDIR.code()) => None,
            Err(error) => return Err(error),
        };
        self.known(path, file)
    }

    fn set_attr(&self, ino: INodeNo, mode: Option<u32>, len: Option<u64>) -> io::Result<FileAttr> {
        if let Some(len) = len {
            self.file(ino)?.set_len(len)?;
        }
        if let (Some(mode), Some(node)) = (mode, self.nodes.lock().by_ino.get_mut(&ino.0)) {
            node.mode = mode;
        }
        self.attr(ino)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr) -> io::Result<()> {
        let path = self.child(parent, name)?;
        self.io.remove(&path)?;
        self.nodes.lock().by_path.remove(&path);
        Ok(())
    }

    /// The kernel forgets a node: without a name it is gone then, and its space
    /// is free.
    fn forgotten(&self, ino: INodeNo, lookups: u64) {
        let mut nodes = self.nodes.lock();
        let Some(node) = nodes.by_ino.get_mut(&ino.0) else {
            return;
        };
        node.lookups = node.lookups.saturating_sub(lookups);
        let (left, path) = (node.lookups, node.path.clone());
        if left == 0 && nodes.by_path.get(&path) != Some(&ino.0) {
            nodes.by_ino.remove(&ino.0);
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.io.rename(from, to)?;
        let mut nodes = self.nodes.lock();
        nodes.by_path.remove(to);
        let moved = |path: &&PathBuf| path.starts_with(from);
        let moved: Vec<PathBuf> = nodes.by_path.keys().filter(moved).cloned().collect();
        for old in moved {
            let ino = nodes.by_path.remove(&old).expect("it was just there");
            let rest = old.strip_prefix(from).expect("it starts so");
            // A joined empty path would end with a slash.
            let new = if rest == Path::new("") {
                to.to_owned()
            } else {
                to.join(rest)
            };
            nodes.by_path.insert(new.clone(), ino);
            nodes.by_ino.entry(ino).and_modify(|node| node.path = new);
        }
        Ok(())
    }

    fn list(&self, ino: INodeNo, offset: u64, reply: &mut ReplyDirectory) -> io::Result<()> {
        let path = self.path(ino)?;
        let entries = self.io.read_dir(&path)?.into_iter();
        for (at, entry) in (0..).zip(entries).skip(usize::try_from(offset).unwrap()) {
            let kind = if entry.is_dir {
                FileType::Directory
            } else {
                FileType::RegularFile
            };
            // Numbers count only after a lookup.
            if reply.add(INodeNo(u64::MAX), at + 1, kind, &entry.name) {
                break;
            }
        }
        Ok(())
    }
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(Errno::ENOENT.code())
}

fn empty(reply: ReplyEmpty, done: io::Result<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn entry(reply: ReplyEntry, found: io::Result<FileAttr>) {
    match found {
        Ok(attr) => reply.entry(&NO_TTL, &attr, Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

fn attributes(reply: ReplyAttr, found: io::Result<FileAttr>) {
    match found {
        Ok(attr) => reply.attr(&NO_TTL, &attr),
        Err(error) => reply.error(error.into()),
    }
}

impl Filesystem for Lossy {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.child(parent, name);
        entry(reply, path.and_then(|path| self.find(path)));
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        self.forgotten(ino, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.attr(ino));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        len: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        attributes(reply, self.set_attr(ino, mode, len));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made = self.child(parent, name).and_then(|path| {
            self.io.create_dir(&path)?;
            self.known(path, None)
        });
        entry(reply, made);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.remove(parent, name));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.remove(parent, name));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let places = (self.child(parent, name), self.child(new_parent, new_name));
        let renamed = match places {
            (Ok(from), Ok(to)) => Lossy::rename(self, &from, &to),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        empty(reply, renamed);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.child(parent, name).and_then(|path| {
            let file = self.io.open(&path, OpenHow::CreateNew)?;
            self.known(path, Some(file))
        });
        match made {
            Ok(attr) => {
                let (generation, handle) = (Generation(0), FileHandle(0));
                reply.created(&NO_TTL, &attr, generation, handle, FopenFlags::empty());
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        let read = self.file(ino);
        match read.and_then(|file| file.read_at(&mut bytes, offset)) {
            Ok(len) => reply.data(&bytes[..len]),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let file = self.file(ino);
        match file.and_then(|file| file.write_at(&[IoSlice::new(data)], offset)) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap()),
            Err(error) => reply.error(error.into()),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(reply, self.file(ino).and_then(|file| file.sync_all()));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let path = self.path(ino);
        empty(reply, path.and_then(|path| self.io.sync_dir(&path)));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        match self.list(ino, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.into()),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.io.space() {
            Ok(space) => {
                let (total, free) = (space.total / 4096, space.free / 4096);
                reply.statfs(total, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        len: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.file(ino).and_then(|file| {
            if mode & PUNCH_HOLE != 0 {
                file.punch(offset, len)
            } else {
                if mode & KEEP_SIZE == 0 && file.len()? < offset + len {
                    file.set_len(offset + len)?;
                }
                file.allocate(offset, len)
            }
        });
        empty(reply, done);
    }
}

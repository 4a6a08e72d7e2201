//! Shards that come in appends: `open`, `append`, `finish`, `abort`.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::fs::{AtFlags, OFlags};
use rustix::io::Errno;
use shardgate_wire::store::{ShardEnd, ShardHandle};
use shardgate_wire::{CallContext, ShardHeader, ShardKey, StoreError, bounds};

use crate::aligned::AlignedBuffer;
use crate::condition::Doing;
use crate::core::Core;
use crate::folders::Folder;
use crate::lanes::Lane;
use crate::names::{self, FolderName};
use crate::shard_file::{self, Found, WRITING_MODE};
use crate::space::Taker;
use crate::volume::OwnExtent;
use crate::writer::{Phase, Writing, file_len};

/// What a file of a shard may take besides its bytes: header and footer.
const HEAD_BYTES: u64 = 64 * 1024;

impl Core {
    pub(crate) fn open_shard(
        self: &Arc<Self>,
        ctx: &CallContext,
        header: ShardHeader,
        announced: Option<u64>,
        buffer: &mut AlignedBuffer,
    ) -> Result<ShardHandle, StoreError> {
        let gate = self.enter(ctx)?;
        bounds::check_header(&self.identity, ctx, &header)?;
        bounds::check_open(announced)?;
        gate.slots.check(&header)?;
        self.handles.has_room()?;
        let key = header.key;
        let _guard = self.keys.lock(key);
        self.handles.end_open(key);
        if self.volumes.holds(key)? {
            return Err(StoreError::Exists);
        }
        match self.examine_locked(key, buffer)? {
            Found::Absent => {}
            Found::Unfinished(_) => self.unlink(key)?,
            Found::Finished { .. } | Found::Damaged(_) => return Err(StoreError::Exists),
        }
        let needed = file_len(HEAD_BYTES, announced.unwrap_or(0));
        let taker = Taker::Shards(ctx.purpose);
        // Until the space is taken, below.
        let promised = self.space.take(&self.condition, taker, needed)?;
        self.volumes.may_take_ahead(promised.ahead);
        if let Some(len) = announced
            && let Some(extent) = OwnExtent::reserve(&self.volumes, &header, len)?
        {
            let writing = Writing::begin_extent(extent, header, len);
            return Ok(self.handles.add(writing));
        }
        self.handles.make_room_for_file(&self.condition)?;
        let (file, folder) = self.create(key)?;
        let begun = Writing::begin(&self.condition, file, header, announced, &folder);
        let writing = begun.inspect_err(|_| {
            let _ = self.unlink(key);
        })?;
        let ticket = writing.folder().map_or(1, |(_, ticket)| ticket);
        let handle = self.handles.add(writing);
        // While the body streams; if the queue is full, finish does it.
        let sync = move |core: &Arc<Core>, _: &mut AlignedBuffer| {
            let _ = core.sync_folder(&folder, ticket);
        };
        let _ = self.lanes.submit(Lane::Foreground, 0, Box::new(sync));
        Ok(handle)
    }

    /// Creates the file of a shard that has none, in its durable folder.
    pub(crate) fn create(&self, key: ShardKey) -> Result<(OwnedFd, Arc<Folder>), StoreError> {
        let name = FolderName::of(&key);
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut removed_before = false;
        loop {
            let folder = self.folders.get(&self.condition, name)?;
            let file = names::file_name(&key);
            match rustix::fs::openat(&folder.fd, file.as_str(), flags, WRITING_MODE) {
                Ok(file) => return Ok((file, folder)),
                // The folder was empty, and removed just now.
                Err(Errno::NOENT) if !removed_before => {
                    self.folders.forget(name);
                    removed_before = true;
                }
                Err(Errno::EXIST) => return Err(StoreError::Exists),
                Err(errno) => {
                    return Err(self
                        .condition
                        .refused(Doing::Writing, "create shard", errno));
                }
            }
        }
    }

    /// Removes a shard's name; not durable. The key's lock is held.
    pub(crate) fn unlink(&self, key: ShardKey) -> Result<(), StoreError> {
        let path = names::file_path(&key);
        match rustix::fs::unlinkat(&self.folders.shards, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self
                .condition
                .refused(Doing::Writing, "remove shard", errno)),
        }
    }

    pub(crate) fn append_shard(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        offset: u64,
        bytes: &Bytes,
        crcs: &[u32],
        buffer: &mut AlignedBuffer,
    ) -> Result<(), StoreError> {
        let gate = self.enter(ctx)?;
        let shard = self.handles.get(handle)?;
        let mut writing = shard.writing.lock();
        bounds::check_append(writing.announced(), offset, bytes, crcs)?;
        gate.slots.check(writing.header())?;
        let repeat = writing.check_append(offset, bytes, crcs)?;
        if repeat {
            return Ok(());
        }
        let step = writing.space_needed(bytes.len());
        let taker = Taker::Shards(ctx.purpose);
        let _promised = match step {
            0 => None,
            step => Some(self.space.take(&self.condition, taker, step)?),
        };
        if !writing.is_extent() {
            self.reopen(&mut writing)?;
        }
        let condition = &self.condition;
        writing.append(condition, &self.direct, buffer, offset, bytes, crcs)
    }

    /// Opens the file of a handle that rested.
    fn reopen(&self, writing: &mut Writing) -> Result<(), StoreError> {
        if writing.file.is_some() || writing.phase != Phase::Open {
            return Ok(());
        }
        self.handles.make_room_for_file(&self.condition)?;
        let path = names::file_path(&writing.key());
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.folders.shards, path, flags, WRITING_MODE) {
            Ok(file) => {
                writing.file = Some(file);
                Ok(())
            }
            Err(Errno::NOENT) => Err(self.vanished()),
            Err(errno) => Err(self.condition.refused(Doing::Writing, "open shard", errno)),
        }
    }

    pub(crate) fn finish_shard(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
        end: ShardEnd,
    ) -> Result<(), StoreError> {
        let gate = self.enter(ctx)?;
        let shard = self.handles.get(handle)?;
        let mut writing = shard.writing.lock();
        if writing.has_ended(end)? {
            // It may have waited for one whose disk was fenced at the end.
            return self.condition.check_writable();
        }
        gate.slots.check(writing.header())?;
        writing.check_end(end)?;
        if writing.is_extent() {
            let finished = writing.finish_extent(end);
            shard.open.store(false, Ordering::SeqCst);
            return finished;
        }
        let key = writing.key();
        self.volumes.check_deleted(key)?;
        self.reopen(&mut writing)?;
        // The folder first: it was mostly synced while the body came.
        let (folder, ticket) = match writing.folder() {
            Some(known) => known,
            None => {
                let folder = self.folders.get(&self.condition, FolderName::of(&key))?;
                let ticket = folder.ticket();
                (folder, ticket)
            }
        };
        self.sync_folder(&folder, ticket)?;
        let file = writing.finish(&self.condition, end)?;
        if let Err(gone) = self.check_named(&file) {
            self.handles.end_shard(&shard, &mut writing);
            return Err(gone);
        }
        // After a sync that failed, one that comes back proves nothing.
        self.condition.check_writable()?;
        shard_file::mark(&file);
        shard.open.store(false, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn sync_folder(&self, folder: &Folder, ticket: u64) -> Result<(), StoreError> {
        folder.sync(&self.condition, ticket)
    }

    /// A file that was just synced still has its name.
    pub(crate) fn check_named(&self, file: &OwnedFd) -> Result<(), StoreError> {
        match rustix::fs::fstat(file) {
            Ok(stat) if stat.st_nlink > 0 => Ok(()),
            Ok(_) => Err(self.vanished()),
            Err(errno) => Err(self.condition.refused(Doing::Reading, "stat shard", errno)),
        }
    }

    /// A file that nobody here removed is gone: the whole disk may be.
    fn vanished(&self) -> StoreError {
        match self.check_presence() {
            Err(lost) => lost,
            Ok(()) => self
                .condition
                .fence("a shard that was being written is gone".into()),
        }
    }

    pub(crate) fn abort_shard(
        &self,
        ctx: &CallContext,
        handle: ShardHandle,
    ) -> Result<(), StoreError> {
        let _gate = self.enter(ctx)?;
        let Ok(shard) = self.handles.get(handle) else {
            return Ok(());
        };
        let _guard = self.keys.lock(shard.key);
        let mut writing = shard.writing.lock();
        let open = writing.phase == Phase::Open && !writing.is_extent();
        self.handles.end_shard(&shard, &mut writing);
        if open { self.unlink(shard.key) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shardgate_wire::Medium;
    use shardgate_wire::conformance::sample;

    use super::*;
    use crate::opening::{self, Expected, NewDisk};
    use crate::options::DiskOptions;
    use crate::space::KeptSpace;

    /// A disk without threads.
    fn core() -> (tempfile::TempDir, Arc<Core>) {
        let dir = tempfile::tempdir().expect("make a folder");
        let new = NewDisk {
            cluster: sample::CLUSTER,
            disk: sample::identity().disk,
            medium: Some(Medium::Flash),
            create_folder: false,
        };
        opening::format(dir.path(), &new, &DiskOptions::default()).expect("formatted");
        let expected = Expected {
            cluster: sample::CLUSTER,
            disk: None,
        };
        let options = DiskOptions {
            kept: Some(KeptSpace::NONE),
            ..DiskOptions::default()
        };
        let core = opening::open(dir.path(), &expected, options).expect("it opens");
        let ctx = sample::context(1);
        drop(core.enter(&ctx).expect("raised"));
        let assigned = core.rules.assign(&core.condition, &ctx, &[sample::slot()]);
        assigned.expect("taken");
        (dir, core)
    }

    #[test]
    fn a_finish_that_is_in_when_the_disk_is_fenced_is_not_answered_as_done() {
        let ctx = sample::context(1);
        let end = ShardEnd {
            shard_len: 0,
            blob_len: 0,
        };
        for repeated in [false, true] {
            let (_dir, core) = core();
            let mut buffer = AlignedBuffer::default();
            let header = sample::header(&ctx, 1);
            let opened = core.open_shard(&ctx, header, None, &mut buffer);
            let handle = opened.expect("opened");
            if repeated {
                assert_eq!(core.finish_shard(&ctx, handle, end), Ok(()));
            }
            let shard = core.handles.get(handle).expect("it is known");
            let before = shard.writing.lock();
            let finished = std::thread::scope(|scope| {
                let finishing = scope.spawn(|| core.finish_shard(&ctx, handle, end));
                // It passes the gate, and waits for the one before.
                std::thread::sleep(Duration::from_millis(200));
                let _ = core.condition.fence("a sync failed".into());
                drop(before);
                finishing.join().expect("no panic")
            });
            let fenced = matches!(finished, Err(StoreError::Fenced { .. }));
            assert!(fenced, "{repeated}: {finished:?}");
        }
    }
}

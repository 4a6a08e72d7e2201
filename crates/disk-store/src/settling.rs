//! Settling after a stop that was not clean: files of shards that lost their
//! mark with the power are read back and marked, before damage comes to one
//! that would then be taken for what the crash left.
//!
//! Done in turns beside everything else that the disk needs. Invariant: a turn
//! ends after some bytes or some time, also in the middle of a file, and the
//! next one goes on there; so what waits for it waits that long at most,
//! whatever a file is long.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Stat};
use rustix::io::Errno;
use shardgate_wire::{ShardKey, StoreError};

use crate::aligned::AlignedBuffer;
use crate::condition::Doing;
use crate::core::Core;
use crate::names;
use crate::shard_file::{self, Found, ReadBack, Settle};

/// Bytes that are read in one turn, and one block more.
const TURN_BYTES: u64 = if cfg!(test) { 1 << 20 } else { 16 << 20 };
/// What a turn takes on a disk that reads less in that time.
pub(crate) const TURN_TIME: Duration = Duration::from_millis(100);
/// Names that are listed at once.
const NAMES: usize = 256;

/// How far settling is.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// Names that were listed and not looked at.
    names: VecDeque<ShardKey>,
    /// The last that was listed.
    after: Option<ShardKey>,
    /// Nothing is behind it.
    listed_all: bool,
    /// A file that is read back in turns.
    part: Option<Part>,
    buffer: AlignedBuffer,
    /// Where a test has a call refused: after so many more.
    #[cfg(test)]
    refused_after: Option<u32>,
}

#[cfg(test)]
impl Settling {
    fn may_be_refused(&mut self) -> Result<(), StoreError> {
        let left = self.refused_after.take();
        self.refused_after = left.and_then(|left| left.checked_sub(1));
        match left {
            Some(0) => Err(StoreError::Busy),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Part {
    key: ShardKey,
    read: ReadBack,
    /// The file as it was when that began.
    stat: Stat,
}

/// Whether nobody touched a file between two turns.
fn is_same(a: &Stat, b: &Stat) -> bool {
    let of = |stat: &Stat| (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mode);
    let changed = |stat: &Stat| (stat.st_ctime, stat.st_ctime_nsec);
    of(a) == of(b) && changed(a) == changed(b)
}

impl Core {
    /// Settles for a turn, of so much time at most; true if that was all.
    ///
    /// # Errors
    /// `Busy`: to be tried again, it goes on where it was. Others: the rest is
    /// settled when it is read.
    pub(crate) fn settle_turn(
        &self,
        settling: &mut Settling,
        time: Duration,
    ) -> Result<bool, StoreError> {
        let (since, mut bytes) = (Instant::now(), 0);
        while bytes < TURN_BYTES && since.elapsed() < time {
            if settling.part.is_some() {
                bytes += self.settle_part(settling)?;
                continue;
            }
            let Some(key) = self.next_to_settle(settling)? else {
                return Ok(true);
            };
            if let Err(error) = self.settle_begin(settling, key) {
                settling.names.push_front(key);
                return Err(error);
            }
        }
        Ok(false)
    }

    fn next_to_settle(&self, settling: &mut Settling) -> Result<Option<ShardKey>, StoreError> {
        if settling.names.is_empty() && !settling.listed_all {
            let names = self.list_names(settling.after, NAMES)?;
            settling.listed_all = names.len() < NAMES;
            settling.after = names.last().copied().or(settling.after);
            settling.names = names.into();
        }
        Ok(settling.names.pop_front())
    }

    /// Looks at one file; one without a mark is settled, or begun to be.
    fn settle_begin(&self, settling: &mut Settling, key: ShardKey) -> Result<(), StoreError> {
        let _guard = self.keys.lock(key);
        let Some(stat) = self.stat_unmarked(key)? else {
            return Ok(());
        };
        match self.begin_settling(key) {
            Ok(Settle::Read(read)) => settling.part = Some(Part { key, read, stat }),
            Ok(Settle::Sure(_)) => {}
            // Of this file alone: it is said to whoever reads it.
            Err(
                StoreError::Io { .. }
                | StoreError::LaterVersion { .. }
                | StoreError::Corrupt { .. },
            ) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Reads the next of a file back, and marks it if that was all. Gives the
    /// bytes that were read.
    fn settle_part(&self, settling: &mut Settling) -> Result<u64, StoreError> {
        let Some(part) = settling.part.take() else {
            return Ok(0);
        };
        let key = part.key;
        let read = self.settle_rest(settling, part);
        if read.is_err() {
            // Nothing of this file: it is begun anew, and not passed over.
            settling.names.push_front(key);
        }
        read
    }

    /// The same of a part that was taken. Fails for what is not of this file
    /// alone.
    fn settle_rest(&self, settling: &mut Settling, mut part: Part) -> Result<u64, StoreError> {
        let key = part.key;
        let _guard = self.keys.lock(key);
        #[cfg(test)]
        settling.may_be_refused()?;
        // Written anew, removed, or settled by somebody who read it.
        let now = self.stat_unmarked(key)?;
        if now.is_none_or(|now| !is_same(&now, &part.stat)) || self.handles.is_open(key) {
            settling.names.push_front(key);
            return Ok(0);
        }
        #[cfg(test)]
        settling.may_be_refused()?;
        match self.read_back(&mut part.read, &mut settling.buffer) {
            Ok(None) => {
                let bytes = part.read.last_bytes();
                settling.part = Some(part);
                return Ok(bytes);
            }
            Ok(Some(whole)) => {
                let bytes = part.read.last_bytes();
                // Says also whether a sync failed since it began.
                self.condition.check_writable()?;
                drop::<Found>(self.end_settling(part.read, whole));
                return Ok(bytes);
            }
            Err(StoreError::Io { .. } | StoreError::LaterVersion { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(0)
    }

    /// A file of that name without a mark.
    fn stat_unmarked(&self, key: ShardKey) -> Result<Option<Stat>, StoreError> {
        let path = names::file_path(&key);
        match rustix::fs::statat(&self.folders.shards, path, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat).filter(|stat| !shard_file::is_marked(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => match self
                .condition
                .refused(Doing::Reading, "settle shard", errno)
            {
                StoreError::Io { .. } => Ok(None),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::PathBuf;

    use shardgate_wire::Medium;
    use shardgate_wire::checksum::block_crcs;
    use shardgate_wire::conformance::sample;
    use shardgate_wire::store::{MAX_APPEND_BYTES, ShardEnd};

    use super::*;
    use crate::local_disk::LocalDisk;
    use crate::opening::{self, Expected, NewDisk};
    use crate::options::DiskOptions;
    use crate::space::KeptSpace;
    use crate::volume::Op;

    const EXPECTED: Expected = Expected {
        cluster: sample::CLUSTER,
        disk: None,
    };
    /// Four turns.
    const LEN: usize = 4 << 20;

    fn options() -> DiskOptions {
        DiskOptions {
            kept: Some(KeptSpace::NONE),
            ..DiskOptions::default()
        }
    }

    struct Disk {
        core: std::sync::Arc<Core>,
        dir: tempfile::TempDir,
    }

    impl Disk {
        /// A disk without threads.
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("make a folder");
            let new = NewDisk {
                cluster: sample::CLUSTER,
                disk: sample::identity().disk,
                medium: Some(Medium::Flash),
                create_folder: false,
            };
            opening::format(dir.path(), &new, &DiskOptions::default()).expect("formatted");
            let core = opening::open(dir.path(), &EXPECTED, options()).expect("it opens");
            let ctx = sample::context(1);
            drop(core.enter(&ctx).expect("raised"));
            let assigned = core.rules.assign(&core.condition, &ctx, &[sample::slot()]);
            assigned.expect("taken");
            Self { core, dir }
        }

        /// A finished file that lost its mark.
        fn unmarked(&self, blob: u128, len: usize) -> PathBuf {
            let (ctx, mut buffer) = (sample::context(1), AlignedBuffer::default());
            let header = sample::header(&ctx, blob);
            let opened = self.core.open_shard(&ctx, header, None, &mut buffer);
            let handle = opened.expect("opened");
            let bytes = sample::bytes(blob, len);
            for at in (0..len).step_by(MAX_APPEND_BYTES) {
                let part = bytes.slice(at..len.min(at + MAX_APPEND_BYTES));
                let crcs = block_crcs(&part);
                let appended =
                    self.core
                        .append_shard(&ctx, handle, at as u64, &part, &crcs, &mut buffer);
                appended.expect("appended");
            }
            let end = ShardEnd {
                shard_len: len as u64,
                blob_len: len as u64,
            };
            let finished = self.core.finish_shard(&ctx, handle, end);
            finished.expect("finished");
            let file = names::file_path(&sample::key(blob));
            let file = self.dir.path().join("shards").join(file);
            assert!(is_marked(&file));
            unmark(&file);
            file
        }

        /// The turns that it takes to settle all, and what is done before each
        /// but the first.
        fn turns(&self, mut between: impl FnMut()) -> usize {
            let mut settling = Settling::default();
            for turn in 1..100 {
                match self.core.settle_turn(&mut settling, Duration::MAX) {
                    Ok(true) => return turn,
                    Ok(false) => between(),
                    Err(error) => panic!("{error}"),
                }
            }
            panic!("it comes to no end");
        }
    }

    fn is_marked(file: &PathBuf) -> bool {
        let found = std::fs::metadata(file).expect("it is there");
        shard_file::is_marked(found.mode())
    }

    fn unmark(file: &PathBuf) {
        let writing = Permissions::from_mode(0o600);
        std::fs::set_permissions(file, writing).expect("changed");
    }

    /// A file's time is as coarse as the kernel's ticks.
    fn tick() {
        std::thread::sleep(Duration::from_millis(20));
    }

    #[test]
    fn a_turn_ends_in_the_middle_of_a_file_and_the_next_goes_on() {
        let disk = Disk::new();
        let files = [(1, 100), (2, LEN), (3, 100)].map(|(blob, len)| disk.unmarked(blob, len));
        let mut marked = Vec::new();
        let turns = disk.turns(|| {
            marked.push(files.iter().filter(|file| is_marked(file)).count());
        });
        assert!(turns >= 4, "{turns} turns");
        assert_eq!(marked.first(), Some(&1), "the large one takes several");
        assert!(files.iter().all(is_marked));
        assert_eq!(disk.turns(|| ()), 1, "nothing is left");
    }

    #[test]
    fn what_changes_between_turns_is_looked_at_again() {
        // Touched, damaged where it was read, removed, settled by a reader.
        let disk = Disk::new();
        let file = disk.unmarked(1, LEN);
        let mut touched = false;
        disk.turns(|| {
            if !std::mem::replace(&mut touched, true) {
                tick();
                unmark(&file);
            }
        });
        assert!(touched && is_marked(&file));

        let disk = Disk::new();
        let file = disk.unmarked(1, LEN);
        let mut damaged = false;
        disk.turns(|| {
            if std::mem::replace(&mut damaged, true) {
                return;
            }
            let mut bytes = std::fs::read(&file).expect("it is there");
            bytes[20_000] ^= 1;
            tick();
            std::fs::write(&file, bytes).expect("damaged");
        });
        assert!(!is_marked(&file), "it does not read back");

        let disk = Disk::new();
        let file = disk.unmarked(1, LEN);
        disk.turns(|| std::fs::remove_file(&file).unwrap_or_default());

        let disk = Disk::new();
        let file = disk.unmarked(1, LEN);
        let turns = disk.turns(|| {
            let mut buffer = AlignedBuffer::default();
            let read = disk.core.read_shard(sample::key(1), 0, 65_536, &mut buffer);
            read.expect("it is whole");
        });
        assert_eq!(turns, 2);
        assert!(is_marked(&file));
    }

    #[test]
    fn a_file_that_is_refused_in_its_middle_is_settled_later() {
        let disk = Disk::new();
        let files = [(1, LEN), (2, 100)].map(|(blob, len)| disk.unmarked(blob, len));
        for after in 0.. {
            files.iter().for_each(unmark);
            let mut settling = Settling {
                refused_after: Some(after),
                ..Settling::default()
            };
            let mut refusals = 0;
            loop {
                match disk.core.settle_turn(&mut settling, Duration::MAX) {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => {
                        assert_eq!(error, StoreError::Busy);
                        refusals += 1;
                    }
                }
            }
            assert!(files.iter().all(is_marked), "refused after {after}");
            if refusals == 0 {
                // Each part is looked at and read.
                assert!(after >= 2 * 5, "{after} calls");
                return;
            }
            assert_eq!(refusals, 1);
        }
    }

    #[test]
    fn volumes_are_sealed_before_files_are_settled() {
        let disk = Disk::new();
        let file = disk.unmarked(1, LEN);
        let small = sample::small(&sample::context(1), 2, 100);
        assert_eq!(disk.core.volumes.commit(&[Op::Put(&small)]), [Ok(())]);
        let Disk { core, dir } = disk;
        // As if the process were killed.
        drop(core);
        let volumes = dir.path().join("volumes").join(sample::GROUP.to_string());
        let opened = LocalDisk::open(dir.path(), &EXPECTED, options()).expect("it opens");
        let since = Instant::now();
        while !is_marked(&file) {
            assert!(since.elapsed() < Duration::from_secs(60), "it is settled");
            std::thread::sleep(Duration::from_millis(1));
        }
        let found = std::fs::read_dir(volumes).expect("there is a volume");
        let files = found.map(|entry| entry.expect("listed").file_name());
        assert_eq!(files.count(), 2, "a volume and its directory");
        drop(opened);
    }
}

//! `read` and `stat`: what is served was verified, what is damaged is said
//! to be.

use std::sync::Arc;

use bytes::Bytes;
use shardgate_wire::checksum::{CHECK_BLOCK, first_bad_block};
use shardgate_wire::store::{ShardBytes, ShardStat};
use shardgate_wire::{ShardKey, StoreError, bounds};

use crate::aligned::AlignedBuffer;
use crate::cache::Whole;
use crate::condition::Doing;
use crate::core::Core;
use crate::damaged::damage_of;
use crate::files;
use crate::shard_file::Found;

fn corrupt(what: impl Into<String>) -> StoreError {
    StoreError::Corrupt { what: what.into() }
}

/// What the volumes say, or what to say if there is no file either.
fn absent<T>(
    in_volume: Result<Option<T>, StoreError>,
) -> Result<Result<T, StoreError>, StoreError> {
    match in_volume {
        Ok(Some(found)) => Ok(Ok(found)),
        Ok(None) => Err(StoreError::NotFound),
        // A volume may be damaged and the shard in a file all the same.
        Err(error @ StoreError::Corrupt { .. }) => Err(error),
        Err(error) => Ok(Err(error)),
    }
}

impl Core {
    pub(crate) fn read_shard(
        &self,
        key: ShardKey,
        offset: u64,
        len: u32,
        buffer: &mut AlignedBuffer,
    ) -> Result<ShardBytes, StoreError> {
        self.condition.check_present()?;
        bounds::check_read(offset, len)?;
        let read = self.read_verified(key, offset, len, buffer);
        if let Some(what) = read.as_ref().err().and_then(damage_of) {
            self.found_damaged(key, &what);
        }
        read
    }

    /// Without taking note of damage.
    pub(crate) fn read_verified(
        &self,
        key: ShardKey,
        offset: u64,
        len: u32,
        buffer: &mut AlignedBuffer,
    ) -> Result<ShardBytes, StoreError> {
        let in_volume = self.volumes.read(key, offset, len);
        let absent = match absent(in_volume) {
            Ok(answer) => return answer,
            Err(absent) => absent,
        };
        if let Some(whole) = self.cached(key) {
            return self.read_blocks(&whole, None, offset, len);
        }
        match self.examine(key, buffer)? {
            Found::Absent | Found::Unfinished(_) => Err(absent),
            Found::Damaged(what) => Err(corrupt(what)),
            Found::Finished { whole, head } => {
                self.cache.insert(Arc::clone(&whole));
                self.read_blocks(&whole, head, offset, len)
            }
        }
    }

    /// A shard that was read before, if its file still has its name.
    fn cached(&self, key: ShardKey) -> Option<Arc<Whole>> {
        let whole = self.cache.get(key)?;
        let stat = rustix::fs::fstat(&whole.file).ok()?;
        if stat.st_nlink == 0 {
            self.cache.remove(key);
            return None;
        }
        Some(whole)
    }

    /// Reads and verifies blocks; `head` are the file's bytes if they were
    /// read already.
    fn read_blocks(
        &self,
        whole: &Whole,
        head: Option<Vec<u8>>,
        offset: u64,
        len: u32,
    ) -> Result<ShardBytes, StoreError> {
        let footer = &whole.footer;
        bounds::check_range(footer.end.shard_len, offset, len)?;
        let (at, len) = (u64::from(footer.data_offset) + offset, len as usize);
        let bytes = match head {
            Some(head) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                Bytes::from(head).slice(at..at + len)
            }
            None => {
                let read = files::read_at(&whole.file, at, len);
                let failed = |errno| self.condition.refused(Doing::Reading, "read shard", errno);
                Bytes::from(read.map_err(failed)?)
            }
        };
        if bytes.len() < len {
            self.cache.remove(footer.key);
            return Err(corrupt("file is shorter than its shard"));
        }
        let first = usize::try_from(offset / CHECK_BLOCK as u64).unwrap_or(usize::MAX);
        let crcs = &footer.crcs[first..first + len.div_ceil(CHECK_BLOCK)];
        if let Some(block) = first_bad_block(&bytes, crcs) {
            // The next read looks at the file anew.
            self.cache.remove(footer.key);
            return Err(corrupt(format!("block {}", first + block)));
        }
        let crcs = crcs.to_vec();
        Ok(ShardBytes { bytes, crcs })
    }

    pub(crate) fn stat_shard(
        &self,
        key: ShardKey,
        buffer: &mut AlignedBuffer,
    ) -> Result<ShardStat, StoreError> {
        self.condition.check_present()?;
        let absent = match absent(self.volumes.stat(key)) {
            Ok(answer) => return answer,
            Err(absent) => absent,
        };
        if let Some(header) = self.handles.open_extent(key) {
            return Ok(ShardStat { header, end: None });
        }
        match self.examine(key, buffer)? {
            Found::Absent => Err(absent),
            Found::Damaged(what) => Err(corrupt(what)),
            Found::Unfinished(file) => Ok(ShardStat {
                header: self.read_header(key, &file, None)?,
                end: None,
            }),
            Found::Finished { whole, .. } => Ok(ShardStat {
                header: self.read_header(key, &whole.file, Some(&whole.footer))?,
                end: Some(whole.footer.end),
            }),
        }
    }
}

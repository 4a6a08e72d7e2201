//! Small shards, whole: many that wait at once are written as one batch.
//!
//! A batch writes all its files, then syncs each, then syncs each folder that
//! it touched once. No timer: a batch is what waited while others synced.
//! Each shard is answered for itself.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use shardgate_wire::checksum::first_bad_block;
use shardgate_wire::store::{ShardEnd, SmallShard};
use shardgate_wire::{ShardKey, StoreError, bounds};
use tokio::sync::oneshot;

use crate::aligned::AlignedBuffer;
use crate::appending::put_space;
use crate::cache::Whole;
use crate::condition::Doing;
use crate::core::Core;
use crate::files;
use crate::folders::Folder;
use crate::format::{Footer, encode_header};
use crate::key_locks::KeyGuard;
use crate::lanes::PutCall;
use crate::names::FolderName;
use crate::rules::Gate;
use crate::shard_file::{self, Found};
use crate::writer::file_len;

/// A shard whose file is written and not yet synced.
struct Written<'a> {
    key: ShardKey,
    file: OwnedFd,
    folder: Arc<Folder>,
    ticket: u64,
    answer: oneshot::Sender<Result<(), StoreError>>,
    /// Held until it is durable and answered.
    _guard: KeyGuard<'a>,
}

impl Core {
    /// Writes the shards that waited, and answers each.
    pub(crate) fn put_batch(&self, puts: Vec<PutCall>, buffer: &mut AlignedBuffer) {
        let times: Vec<_> = puts.iter().map(|put| put.since).collect();
        let mut later = Vec::new();
        {
            let gate = self.rules.read();
            let mut written = Vec::with_capacity(puts.len());
            for put in puts {
                match self.rules.judge(&gate, &self.condition, &put.ctx) {
                    Err(error) => drop(put.answer.send(Err(error))),
                    Ok(false) => later.push(put),
                    Ok(true) => match self.keys.try_lock(put.shard.header.key) {
                        Some(guard) => written.extend(self.begin_put(&gate, put, guard, buffer)),
                        None => later.push(put),
                    },
                }
            }
            self.end_puts(written);
        }
        // Those with an epoch to raise, and those whose shard another call
        // had locked: one after the other.
        for put in later {
            match self.enter(&put.ctx) {
                Err(error) => drop(put.answer.send(Err(error))),
                Ok(gate) => {
                    let guard = self.keys.lock(put.shard.header.key);
                    let alone = self.begin_put(&gate, put, guard, buffer);
                    self.end_puts(alone.into_iter().collect());
                }
            }
        }
        for since in times {
            self.latency.record(since.elapsed());
        }
    }

    /// Checks and writes one shard; answers it where there is nothing to sync.
    fn begin_put<'a>(
        &self,
        gate: &Gate,
        put: PutCall,
        guard: KeyGuard<'a>,
        buffer: &mut AlignedBuffer,
    ) -> Option<Written<'a>> {
        let key = put.shard.header.key;
        let begun = bounds::check_header(&self.identity, &put.ctx, &put.shard.header)
            .and_then(|()| bounds::check_put(&put.shard))
            .and_then(|()| self.write_small(gate, &put.shard, buffer));
        let answer = match begun {
            Ok(Some((file, folder, ticket))) => {
                return Some(Written {
                    key,
                    file,
                    folder,
                    ticket,
                    answer: put.answer,
                    _guard: guard,
                });
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        // A caller that went away hears nothing.
        let _ = put.answer.send(answer);
        None
    }

    /// Writes a checked shard into its file; `None` if it is stored already.
    fn write_small(
        &self,
        gate: &Gate,
        shard: &SmallShard,
        buffer: &mut AlignedBuffer,
    ) -> Result<Option<(OwnedFd, Arc<Folder>, u64)>, StoreError> {
        gate.slots.check(&shard.header)?;
        let key = shard.header.key;
        self.handles.end_open(key);
        self.space
            .reserve(&self.condition, put_space(shard.bytes.len()))?;
        let (file, folder) = match self.create(key) {
            Err(StoreError::Exists) => {
                if self.is_stored(shard, buffer)? {
                    return Ok(None);
                }
                self.unlink(key)?;
                self.create(key)?
            }
            created => created?,
        };
        let ticket = folder.changed();
        let filled = self.fill_small(&file, shard, buffer);
        filled.inspect_err(|_| drop(self.unlink(key)))?;
        Ok(Some((file, folder, ticket)))
    }

    /// Whether the file under the shard's key is this shard, finished and
    /// whole; false if it is an unfinished one.
    fn is_stored(
        &self,
        shard: &SmallShard,
        buffer: &mut AlignedBuffer,
    ) -> Result<bool, StoreError> {
        let whole = match self.examine_locked(shard.header.key, buffer)? {
            Found::Absent | Found::Unfinished(_) => return Ok(false),
            Found::Damaged(what) => return Err(StoreError::Corrupt { what }),
            Found::Finished { whole, .. } => whole,
        };
        let Whole { file, footer } = &*whole;
        let stored = bounds::Stored {
            key: footer.key,
            end: footer.end,
            crcs: &footer.crcs,
        };
        bounds::check_repeat(stored, shard)?;
        let read = files::read_at(file, u64::from(footer.data_offset), shard.bytes.len())
            .map_err(|errno| self.condition.refused(Doing::Reading, "read shard", errno))?;
        match first_bad_block(&read, &footer.crcs) {
            None => Ok(true),
            Some(block) => {
                let what = format!("block {block}");
                Err(StoreError::Corrupt { what })
            }
        }
    }

    fn fill_small(
        &self,
        file: &OwnedFd,
        shard: &SmallShard,
        buffer: &mut AlignedBuffer,
    ) -> Result<(), StoreError> {
        let header = encode_header(&shard.header);
        let crc = header[header.len() - 4..].try_into();
        let footer = Footer {
            key: shard.header.key,
            end: ShardEnd {
                shard_len: shard.bytes.len() as u64,
                blob_len: shard.blob_len,
            },
            data_offset: u32::try_from(header.len()).expect("a header is short"),
            header_crc: u32::from_be_bytes(crc.expect("a record ends with four bytes")),
            crcs: shard.crcs.clone(),
        };
        let footer = footer.encode();
        let len = usize::try_from(file_len(header.len() as u64, shard.bytes.len() as u64))
            .expect("a small shard is short");
        let pad = vec![0; len - header.len() - shard.bytes.len() - footer.len()];
        let parts: [&[u8]; 4] = [&header, &shard.bytes, &pad, &footer];
        let refused = |errno| self.condition.refused(Doing::Writing, "write shard", errno);
        if self.direct.suits(len) {
            let pages = buffer.fill(&parts, len);
            if self.direct.write(file, pages, 0).map_err(refused)? {
                return Ok(());
            }
        }
        files::write_parts(file, &parts, 0).map_err(refused)
    }

    /// Makes what was written durable, files before folders, and answers.
    fn end_puts(&self, written: Vec<Written<'_>>) {
        let mut synced = Vec::with_capacity(written.len());
        for put in written {
            let done = self.sync_small(&put.file);
            match done {
                Ok(()) => synced.push(put),
                Err(error) => drop(put.answer.send(Err(error))),
            }
        }
        // The last ticket of a folder serves all before it.
        let mut folders: HashMap<FolderName, (Arc<Folder>, u64)> = HashMap::new();
        for put in &synced {
            let fresh = || (Arc::clone(&put.folder), put.ticket);
            let held = folders.entry(put.folder.name).or_insert_with(fresh);
            if !Arc::ptr_eq(&held.0, &put.folder) || held.1 < put.ticket {
                *held = fresh();
            }
        }
        let folders: HashMap<_, _> = folders
            .into_iter()
            .map(|(name, (folder, ticket))| (name, self.sync_folder(&folder, ticket)))
            .collect();
        for put in synced {
            let durable = folders[&put.folder.name].clone();
            if durable.is_ok() {
                shard_file::mark(&put.file);
                self.cache.remove(put.key);
            }
            let _ = put.answer.send(durable);
        }
    }

    fn sync_small(&self, file: &OwnedFd) -> Result<(), StoreError> {
        self.condition.check_writable()?;
        rustix::fs::fdatasync(file)
            .map_err(|errno| self.condition.refused(Doing::Syncing, "sync shard", errno))?;
        self.check_named(file)
    }
}

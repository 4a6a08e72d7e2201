//! Small shards, whole: many that wait at once are one batch of the volumes.
//!
//! No timer: a batch is what waited while the one before was synced. Each
//! shard is answered for itself.

use shardgate_wire::checksum::first_bad_block;
use shardgate_wire::store::SmallShard;
use shardgate_wire::{StoreError, bounds};

use crate::aligned::AlignedBuffer;
use crate::cache::Whole;
use crate::condition::Doing;
use crate::core::Core;
use crate::files;
use crate::key_locks::KeyGuard;
use crate::lanes::PutCall;
use crate::names::{self, FolderName};
use crate::rules::Gate;
use crate::shard_file::Found;
use crate::volume::Op;

/// A shard that may be written, its key locked until it is answered.
struct Admitted<'a> {
    put: PutCall,
    _guard: KeyGuard<'a>,
}

impl Core {
    /// Writes the shards that waited, and answers each.
    pub(crate) fn put_batch(&self, puts: Vec<PutCall>, buffer: &mut AlignedBuffer) {
        let times: Vec<_> = puts.iter().map(|put| put.since).collect();
        let mut later = Vec::new();
        {
            let gate = self.rules.read();
            let mut admitted = Vec::with_capacity(puts.len());
            for put in puts {
                match self.rules.judge(&gate, &self.condition, &put.ctx) {
                    Err(error) => drop(put.answer.send(Err(error))),
                    Ok(false) => later.push(put),
                    Ok(true) => match self.keys.try_lock(put.shard.header.key) {
                        Some(guard) => admitted.extend(self.admit(&gate, put, guard, buffer)),
                        None => later.push(put),
                    },
                }
            }
            self.store(admitted);
        }
        // Those with an epoch to raise, and those whose shard another call
        // had locked: one after the other.
        for put in later {
            match self.enter(&put.ctx) {
                Err(error) => drop(put.answer.send(Err(error))),
                Ok(gate) => {
                    let guard = self.keys.lock(put.shard.header.key);
                    let alone = self.admit(&gate, put, guard, buffer);
                    self.store(alone.into_iter().collect());
                }
            }
        }
        for since in times {
            self.latency.record(since.elapsed());
        }
    }

    /// Checks one shard; answers it where there is nothing to write.
    fn admit<'a>(
        &self,
        gate: &Gate,
        put: PutCall,
        guard: KeyGuard<'a>,
        buffer: &mut AlignedBuffer,
    ) -> Option<Admitted<'a>> {
        let checked = bounds::check_header(&self.identity, &put.ctx, &put.shard.header)
            .and_then(|()| bounds::check_put(&put.shard))
            .and_then(|()| gate.slots.check(&put.shard.header))
            .and_then(|()| {
                self.handles.end_open(put.shard.header.key);
                self.clear_file(&put.shard, buffer)
            });
        let answer = match checked {
            Ok(true) => {
                return Some(Admitted { put, _guard: guard });
            }
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        // A caller that went away hears nothing.
        let _ = put.answer.send(answer);
        None
    }

    /// Makes way where the shard's key has a file: an unfinished one goes.
    /// False if the file is this very shard.
    fn clear_file(
        &self,
        shard: &SmallShard,
        buffer: &mut AlignedBuffer,
    ) -> Result<bool, StoreError> {
        let key = shard.header.key;
        if !self.folders.may_be(FolderName::of(&key)) {
            return Ok(true);
        }
        let path = names::file_path(&key);
        match files::exists_at(&self.folders.shards, &path) {
            Ok(false) => return Ok(true),
            Ok(true) => {}
            Err(errno) => {
                return Err(self
                    .condition
                    .refused(Doing::Reading, "look for shard", errno));
            }
        }
        let whole = match self.examine_locked(key, buffer)? {
            Found::Absent => return Ok(true),
            Found::Unfinished(_) => {
                self.unlink(key)?;
                return Ok(true);
            }
            Found::Damaged(what) => return Err(StoreError::Corrupt { what }),
            Found::Finished { whole, .. } => whole,
        };
        self.is_repeat(&whole, shard)?;
        Ok(false)
    }

    /// Whether a finished file is this shard, whole.
    fn is_repeat(&self, whole: &Whole, shard: &SmallShard) -> Result<(), StoreError> {
        let Whole { file, footer } = whole;
        let stored = bounds::Stored {
            key: footer.key,
            end: footer.end,
            crcs: &footer.crcs,
        };
        bounds::check_repeat(stored, shard)?;
        let read = files::read_at(file, u64::from(footer.data_offset), shard.bytes.len())
            .map_err(|errno| self.condition.refused(Doing::Reading, "read shard", errno))?;
        match first_bad_block(&read, &footer.crcs) {
            None => Ok(()),
            Some(block) => {
                let what = format!("block {block}");
                Err(StoreError::Corrupt { what })
            }
        }
    }

    /// Stores admitted shards with one commit of the volumes, and answers.
    fn store(&self, admitted: Vec<Admitted<'_>>) {
        if admitted.is_empty() {
            return;
        }
        let wanted: Vec<_> = admitted
            .iter()
            .map(|admitted| (admitted.put.ctx.purpose, put_space(&admitted.put.shard)))
            .collect();
        let promised = self.space.take_each(&self.condition, &wanted);
        let (fits, _promised) = match promised {
            Ok((fits, promised)) => {
                self.volumes.may_take_ahead(promised.ahead);
                (fits, promised)
            }
            Err(error) => {
                for Admitted { put, .. } in admitted {
                    let _ = put.answer.send(Err(error.clone()));
                }
                return;
            }
        };
        let mut fit = Vec::with_capacity(admitted.len());
        for (admitted, fits) in admitted.into_iter().zip(fits) {
            if fits {
                fit.push(admitted);
            } else {
                let _ = admitted.put.answer.send(Err(StoreError::NoSpace));
            }
        }
        let ops: Vec<_> = fit
            .iter()
            .map(|admitted| Op::Put(&admitted.put.shard))
            .collect();
        let answers = self.volumes.commit(&ops);
        for (Admitted { put, .. }, answer) in fit.into_iter().zip(answers) {
            let _ = put.answer.send(answer);
        }
    }
}

/// Bytes that a record takes at most.
fn put_space(shard: &SmallShard) -> u64 {
    const HEADS: usize = 1024;
    let object = &shard.header.object;
    let names = object.bucket.len() + object.key.len() + object.metadata.len();
    (HEADS + names + shard.bytes.len()) as u64
}

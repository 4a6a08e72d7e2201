//! Epoch, slots, what was told, pool map and checkpoint root: what of the
//! disk is not shards, kept durable in the root and slots records.
//!
//! Invariant: [`Rules::enter`]'s guard is held by every call that changes
//! something until it is done, so that no call of an epoch or generation
//! before takes effect after a raise or an assignment was answered. The
//! journal's calls, which slots do not concern, hold [`Rules::enter_journal`]'s
//! instead: they never wait for a call of shards that is under way, as whoever
//! comes behind an assignment does. A raise takes both.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use shardgate_wire::ids::{CommitNumber, Epoch, LineageId};
use shardgate_wire::journal::{DiskRoots, MAX_CHECKPOINT_ROOT_BYTES, MAX_POOL_MAP_BYTES};
use shardgate_wire::slots::SlotTable;
use shardgate_wire::{CallContext, DiskIdentity, SlotAssignment, StoreError, bounds};

use crate::condition::{Condition, Doing};
use crate::format::{Root, Slots, encode_root, encode_slots};
use crate::twin::{Twin, TwinError};

/// Lineages whose highest told commit number is kept.
const LINEAGES_KEPT: usize = 8;

/// What callers are judged by.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) epoch: Epoch,
    pub(crate) slots: SlotTable,
    slots_sequence: u64,
}

#[derive(Debug)]
struct Told {
    /// The newest lineage first.
    highest: Vec<(LineageId, CommitNumber)>,
    /// The newest lineage in the root record.
    saved: Option<LineageId>,
}

/// The newest lineage that a root record names.
fn newest(root: &Root) -> Option<LineageId> {
    root.told.first().map(|(lineage, _)| *lineage)
}

#[derive(Debug)]
pub(crate) struct Rules {
    identity: DiskIdentity,
    gate: RwLock<Gate>,
    /// The epoch in force, held by a call of the journal until it is done.
    journal: Mutex<Epoch>,
    // Lock order: gate, journal, root, told.
    root: Mutex<Root>,
    told: Mutex<Told>,
    /// As in the gate, for those who must not wait for a raise.
    epoch: Mutex<Epoch>,
    /// When the last call of the epoch in force came.
    last_call: Mutex<Option<Instant>>,
    root_twin: Twin,
    slots_twin: Twin,
}

impl Rules {
    pub(crate) fn new(root: Root, root_twin: Twin, slots: Slots, slots_twin: Twin) -> Self {
        Self {
            identity: root.identity,
            gate: RwLock::new(Gate {
                epoch: root.epoch,
                slots: slots.table,
                slots_sequence: slots.sequence,
            }),
            journal: Mutex::new(root.epoch),
            told: Mutex::new(Told {
                highest: root.told.clone(),
                saved: newest(&root),
            }),
            epoch: Mutex::new(root.epoch),
            last_call: Mutex::new(None),
            root: Mutex::new(root),
            root_twin,
            slots_twin,
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        *self.epoch.lock()
    }

    /// How long ago the last call of the epoch in force came.
    pub(crate) fn last_call(&self) -> Option<Duration> {
        self.last_call.lock().map(|at| at.elapsed())
    }

    pub(crate) fn told(&self) -> (LineageId, CommitNumber) {
        let told = self.told.lock();
        told.highest.first().copied().unwrap_or_default()
    }

    /// What the root record keeps for the journal's owner.
    pub(crate) fn roots(&self) -> DiskRoots {
        let root = self.root.lock();
        DiskRoots {
            map_number: root.map_number,
            map: Bytes::copy_from_slice(&root.map),
            checkpoint: Bytes::copy_from_slice(&root.checkpoint),
        }
    }

    /// The gate, for a batch of calls that are judged one by one.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Gate> {
        self.gate.read()
    }

    /// Whether a call may pass: refused, or true, or false if its epoch must
    /// be raised before.
    pub(crate) fn judge(
        &self,
        gate: &Gate,
        condition: &Condition,
        ctx: &CallContext,
    ) -> Result<bool, StoreError> {
        self.judge_epoch(gate.epoch, condition, ctx)
    }

    fn judge_epoch(
        &self,
        held: Epoch,
        condition: &Condition,
        ctx: &CallContext,
    ) -> Result<bool, StoreError> {
        self.check_epoch(held, condition, ctx)?;
        condition.check_writable()?;
        if held != ctx.epoch {
            return Ok(false);
        }
        *self.last_call.lock() = Some(Instant::now());
        self.tell(condition, ctx)?;
        Ok(true)
    }

    fn check_epoch(
        &self,
        held: Epoch,
        condition: &Condition,
        ctx: &CallContext,
    ) -> Result<(), StoreError> {
        condition.check_present()?;
        bounds::check_cluster(&self.identity, ctx)?;
        if !held.admits(&ctx.epoch) {
            return Err(StoreError::StaleEpoch { held });
        }
        Ok(())
    }

    /// Lets a call in, or refuses it. A higher epoch is made durable first,
    /// and `ended` is called for what the epoch before had open.
    pub(crate) fn enter(
        &self,
        condition: &Condition,
        ctx: &CallContext,
        ended: &dyn Fn(),
    ) -> Result<RwLockReadGuard<'_, Gate>, StoreError> {
        loop {
            let gate = self.gate.read();
            if self.judge(&gate, condition, ctx)? {
                return Ok(gate);
            }
            drop(gate);
            self.raise(condition, ctx, ended)?;
        }
    }

    /// The same for a call of the journal.
    pub(crate) fn enter_journal(
        &self,
        condition: &Condition,
        ctx: &CallContext,
        ended: &dyn Fn(),
    ) -> Result<MutexGuard<'_, Epoch>, StoreError> {
        loop {
            let epoch = self.journal.lock();
            if self.judge_epoch(*epoch, condition, ctx)? {
                return Ok(epoch);
            }
            drop(epoch);
            self.raise(condition, ctx, ended)?;
        }
    }

    /// The same for one that only reads. A fenced disk gives what it has: it
    /// takes no epoch, and no write of an earlier one either.
    pub(crate) fn enter_journal_to_read(
        &self,
        condition: &Condition,
        ctx: &CallContext,
        ended: &dyn Fn(),
    ) -> Result<MutexGuard<'_, Epoch>, StoreError> {
        match self.enter_journal(condition, ctx, ended) {
            Err(StoreError::Fenced { .. }) => {
                let epoch = self.journal.lock();
                self.check_epoch(*epoch, condition, ctx)?;
                Ok(epoch)
            }
            entered => entered,
        }
    }

    fn raise(
        &self,
        condition: &Condition,
        ctx: &CallContext,
        ended: &dyn Fn(),
    ) -> Result<(), StoreError> {
        let mut gate = self.gate.write();
        if !gate.epoch.admits(&ctx.epoch) || gate.epoch == ctx.epoch {
            return Ok(()); // another call was faster; the loop judges anew
        }
        // From here on the journal waits too, for one write of a small record.
        let mut journal = self.journal.lock();
        self.save(condition, |root| root.epoch = ctx.epoch)?;
        gate.epoch = ctx.epoch;
        *journal = ctx.epoch;
        *self.epoch.lock() = ctx.epoch;
        ended();
        Ok(())
    }

    /// Remembers what the caller tells: at once where its lineage is new,
    /// else with the next save.
    fn tell(&self, condition: &Condition, ctx: &CallContext) -> Result<(), StoreError> {
        let mut told = self.told.lock();
        match told.highest.first_mut() {
            Some((lineage, number)) if *lineage == ctx.lineage => {
                *number = ctx.committed.max(*number);
                if told.saved == Some(ctx.lineage) {
                    return Ok(());
                }
                // The save of a call before this one was refused, or is under
                // way: this one does not pass without it either.
                drop(told);
                let mut root = self.root.lock();
                if newest(&root) == Some(ctx.lineage) {
                    return Ok(());
                }
                return self.save_to(&mut root, condition, |_| {});
            }
            _ => {}
        }
        let known = told.highest.iter().position(|(l, _)| *l == ctx.lineage);
        let before = known
            .map(|at| told.highest.remove(at).1)
            .unwrap_or_default();
        let highest = before.max(ctx.committed);
        told.highest.insert(0, (ctx.lineage, highest));
        told.highest.truncate(LINEAGES_KEPT);
        drop(told);
        self.save(condition, |_| {})
    }

    /// Saves what was told since the last save.
    pub(crate) fn save_told(&self, condition: &Condition) -> Result<(), StoreError> {
        let mut root = self.root.lock();
        let saved = root.told == self.told.lock().highest;
        if saved || condition.check_writable().is_err() {
            return Ok(());
        }
        self.save_to(&mut root, condition, |_| {})
    }

    /// Makes a changed root record durable in both files.
    fn save(
        &self,
        condition: &Condition,
        change: impl FnOnce(&mut Root),
    ) -> Result<(), StoreError> {
        self.save_to(&mut self.root.lock(), condition, change)
    }

    fn save_to(
        &self,
        root: &mut Root,
        condition: &Condition,
        change: impl FnOnce(&mut Root),
    ) -> Result<(), StoreError> {
        let mut next = root.clone();
        change(&mut next);
        next.sequence += 1;
        next.told.clone_from(&self.told.lock().highest);
        let written = self.root_twin.write(&encode_root(&next));
        written.map_err(|error| twin_refused(condition, "write root record", error))?;
        // Only now: what a refused write was to say is still to be said.
        self.told.lock().saved = newest(&next);
        *root = next;
        Ok(())
    }

    /// Takes slots in, durably.
    pub(crate) fn assign(
        &self,
        condition: &Condition,
        ctx: &CallContext,
        slots: &[SlotAssignment],
    ) -> Result<(), StoreError> {
        let mut gate = self.gate.write();
        if gate.epoch != ctx.epoch {
            return Err(StoreError::StaleEpoch { held: gate.epoch });
        }
        let Some(next) = gate.slots.with(slots)? else {
            return Ok(());
        };
        let record = Slots {
            disk: self.identity.disk,
            sequence: gate.slots_sequence + 1,
            table: next,
        };
        let written = self.slots_twin.write(&encode_slots(&record));
        written.map_err(|error| twin_refused(condition, "write slots record", error))?;
        gate.slots_sequence = record.sequence;
        gate.slots = record.table;
        Ok(())
    }

    /// Replaces the pool map by one of a higher number.
    pub(crate) fn set_map(
        &self,
        condition: &Condition,
        number: u64,
        map: &[u8],
    ) -> Result<(), StoreError> {
        let held = self.root.lock().map_number;
        if map.len() > MAX_POOL_MAP_BYTES || number < held {
            let what = format!("map {number} of {} bytes, map {held} is held", map.len());
            return Err(StoreError::BadCall { what });
        }
        self.save(condition, |root| {
            root.map_number = number;
            root.map = map.to_vec();
        })
    }

    /// Replaces the checkpoint root.
    pub(crate) fn set_checkpoint(
        &self,
        condition: &Condition,
        checkpoint: &[u8],
    ) -> Result<(), StoreError> {
        if checkpoint.len() > MAX_CHECKPOINT_ROOT_BYTES {
            let what = format!("checkpoint root of {} bytes", checkpoint.len());
            return Err(StoreError::BadCall { what });
        }
        self.save(condition, |root| root.checkpoint = checkpoint.to_vec())
    }

    /// The root record as it was last written, which nobody writes meanwhile.
    pub(crate) fn with_root<T>(&self, look: impl FnOnce(&Root) -> T) -> T {
        look(&self.root.lock())
    }

    /// The same with the slots record.
    pub(crate) fn with_slots<T>(&self, look: impl FnOnce(&Slots) -> T) -> T {
        let gate = self.gate.read();
        look(&Slots {
            disk: self.identity.disk,
            sequence: gate.slots_sequence,
            table: gate.slots.clone(),
        })
    }

    /// Writes both records anew, so that what was read at the start is what
    /// the disk holds: after a failed fsync the page cache shows more.
    pub(crate) fn rewrite(&self, condition: &Condition) -> Result<(), StoreError> {
        self.save(condition, |_| {})?;
        let mut gate = self.gate.write();
        gate.slots_sequence += 1;
        let record = encode_slots(&Slots {
            disk: self.identity.disk,
            sequence: gate.slots_sequence,
            table: gate.slots.clone(),
        });
        let written = self.slots_twin.write(&record);
        written.map_err(|error| twin_refused(condition, "write slots record", error))
    }
}

fn twin_refused(condition: &Condition, what: &str, error: TwinError) -> StoreError {
    match error {
        TwinError::Unwritten(errno) => condition.refused(Doing::Writing, what, errno),
        TwinError::Unsynced(errno) => condition.refused(Doing::Syncing, what, errno),
        TwinError::Nameless => condition.lose(format!("{what}: the file has no name any more")),
    }
}

#[cfg(test)]
mod tests;

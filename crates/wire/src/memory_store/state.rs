//! The shards, handles and epoch of a disk in memory.
//!
//! Invariant: an open handle belongs to an unfinished shard, and a shard has
//! at most one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;

use crate::bounds::{self, Stored};
use crate::check::{CheckPage, DamagedShard, Finding, MAX_DAMAGED, MAX_FINDINGS, ScrubStanding};
use crate::checksum::{CHECK_BLOCK, block_crcs, first_bad_block};
use crate::disk::{DiskHealth, DiskIdentity};
use crate::ids::{BlobId, CommitNumber, Epoch, GroupId, LineageId};
use crate::note::{BlobNote, MAX_NOTES, NoteCursor, NotePage, NoteState};
use crate::shard::{ShardHeader, ShardKey};
use crate::slots::SlotTable;
use crate::space::{DiskRoom, Purpose};
use crate::store::{
    CallContext, ListedShard, ShardBytes, ShardEnd, ShardHandle, ShardStat, SmallShard, StoreError,
};

#[derive(Debug)]
struct Shard {
    header: ShardHeader,
    bytes: Vec<u8>,
    crcs: Vec<u32>,
    end: Option<ShardEnd>,
}

impl Shard {
    fn first_bad(&self) -> Option<usize> {
        first_bad_block(&self.bytes, &self.crcs)
    }
}

#[derive(Debug)]
struct Open {
    key: ShardKey,
    announced: Option<u64>,
    /// Offset of the last append.
    last: Option<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    epoch: Epoch,
    told: (LineageId, CommitNumber),
    pub(super) slots: SlotTable,
    shards: BTreeMap<ShardKey, Shard>,
    open: HashMap<ShardHandle, Open>,
    notes: BTreeMap<(GroupId, BlobId), BlobNote>,
    /// What reads and checks found damaged.
    known_damaged: BTreeSet<ShardKey>,
    last_handle: u64,
    pub(super) capacity: u64,
    /// What is kept from each purpose and those behind it, in their order.
    pub(super) kept: [u64; Purpose::ALL.len()],
}

impl Default for State {
    fn default() -> Self {
        Self {
            epoch: Epoch::default(),
            told: Default::default(),
            slots: SlotTable::default(),
            shards: BTreeMap::new(),
            open: HashMap::new(),
            notes: BTreeMap::new(),
            known_damaged: BTreeSet::new(),
            last_handle: 0,
            capacity: u64::MAX,
            kept: Default::default(),
        }
    }
}

fn bad(what: &str) -> StoreError {
    StoreError::BadCall { what: what.into() }
}

impl State {
    /// Takes the caller's epoch, or refuses the call.
    pub(super) fn admit(&mut self, ctx: &CallContext) -> Result<(), StoreError> {
        if !self.epoch.admits(&ctx.epoch) {
            return Err(StoreError::StaleEpoch { held: self.epoch });
        }
        if ctx.epoch != self.epoch {
            self.epoch = ctx.epoch;
            self.end_handles();
        }
        let known = if self.told.0 == ctx.lineage {
            self.told.1
        } else {
            CommitNumber::default()
        };
        self.told = (ctx.lineage, known.max(ctx.committed));
        Ok(())
    }

    pub(super) fn end_handles(&mut self) {
        self.open.clear();
    }

    fn check_note(&self, key: ShardKey) -> Result<(), StoreError> {
        match self.notes.get(&(key.group, key.blob)) {
            Some(note) if note.state == NoteState::Deleted => Err(bad("the blob was deleted")),
            _ => Ok(()),
        }
    }

    pub(super) fn put_notes(&mut self, notes: &[BlobNote]) {
        for note in notes {
            let held = self.notes.get(&(note.group, note.blob));
            if held.is_none_or(|held| note.overrules(held)) {
                self.notes.insert((note.group, note.blob), note.clone());
            }
        }
    }

    pub(super) fn forget_notes(&mut self, blobs: &[(GroupId, BlobId)]) {
        for blob in blobs {
            let held = self.notes.get(blob);
            if held.is_some_and(|note| note.state == NoteState::Deleted) {
                self.notes.remove(blob);
            }
        }
    }

    pub(super) fn notes(&self, after: Option<NoteCursor>) -> NotePage {
        let from = match after {
            Some(NoteCursor::Deleted(group, blob)) => Bound::Excluded((group, blob)),
            _ => Bound::Unbounded,
        };
        let rest = self.notes.range((from, Bound::Unbounded));
        let notes: Vec<_> = rest.take(MAX_NOTES).map(|(_, note)| note.clone()).collect();
        let last = notes.last().filter(|_| notes.len() == MAX_NOTES);
        NotePage {
            next: last.map(|note| NoteCursor::Deleted(note.group, note.blob)),
            notes,
            damaged: 0,
        }
    }

    fn used(&self) -> u64 {
        let held = self.shards.values();
        held.map(|shard| shard.bytes.len() as u64).sum()
    }

    fn room(&self, purpose: Purpose) -> u64 {
        let kept = self.kept[purpose as usize..].iter();
        let taken = kept.fold(self.used(), |sum, kept| sum.saturating_add(*kept));
        self.capacity.saturating_sub(taken)
    }

    fn reserve(&self, purpose: Purpose, bytes: u64) -> Result<(), StoreError> {
        if self.room(purpose) < bytes {
            return Err(StoreError::NoSpace);
        }
        Ok(())
    }

    pub(super) fn open(
        &mut self,
        purpose: Purpose,
        header: ShardHeader,
        announced: Option<u64>,
    ) -> Result<ShardHandle, StoreError> {
        self.slots.check(&header)?;
        let key = header.key;
        self.check_note(key)?;
        if self.shards.get(&key).is_some_and(|s| s.end.is_some()) {
            return Err(StoreError::Exists);
        }
        self.remove(key);
        self.reserve(purpose, announced.unwrap_or(0))?;
        let fresh = Shard {
            header,
            bytes: Vec::new(),
            crcs: Vec::new(),
            end: None,
        };
        self.shards.insert(key, fresh);
        self.last_handle += 1;
        let handle = ShardHandle(self.last_handle);
        let open = Open {
            key,
            announced,
            last: None,
        };
        self.open.insert(handle, open);
        Ok(handle)
    }

    pub(super) fn append(
        &mut self,
        purpose: Purpose,
        handle: ShardHandle,
        offset: u64,
        bytes: &Bytes,
        crcs: &[u32],
    ) -> Result<(), StoreError> {
        let open = self.open.get(&handle).ok_or(StoreError::NoHandle)?;
        bounds::check_append(open.announced, offset, bytes, crcs)?;
        let shard = self.shards.get(&open.key).expect("a handle has its shard");
        self.slots.check(&shard.header)?;
        if shard.end.is_some() {
            return Err(bad("append to a finished shard"));
        }
        let expected = shard.bytes.len() as u64;
        if open.last == Some(offset) && shard.bytes[offset as usize..] == bytes[..] {
            return Ok(());
        }
        if offset != expected {
            let given = offset;
            return Err(StoreError::WrongOffset { expected, given });
        }
        self.reserve(purpose, bytes.len() as u64)?;
        let open = self.open.get_mut(&handle).expect("looked up above");
        open.last = Some(offset);
        let shard = self.shards.get_mut(&open.key).expect("looked up above");
        shard.bytes.extend_from_slice(bytes);
        shard.crcs.extend_from_slice(crcs);
        Ok(())
    }

    pub(super) fn finish(&mut self, handle: ShardHandle, end: ShardEnd) -> Result<(), StoreError> {
        let open = self.open.get(&handle).ok_or(StoreError::NoHandle)?;
        let key = open.key;
        let shard = self.shards.get_mut(&key).expect("a handle has its shard");
        match shard.end {
            Some(done) if done == end => return Ok(()),
            Some(_) => return Err(bad("shard was finished with another end")),
            None => {}
        }
        self.slots.check(&shard.header)?;
        self.check_note(key)?;
        let shard = self.shards.get_mut(&key).expect("looked up above");
        bounds::check_end(&shard.header, shard.bytes.len() as u64, end)?;
        shard.end = Some(end);
        Ok(())
    }

    pub(super) fn abort(&mut self, handle: ShardHandle) {
        let Some(open) = self.open.remove(&handle) else {
            return;
        };
        if self.shards.get(&open.key).is_some_and(|s| s.end.is_none()) {
            self.shards.remove(&open.key);
        }
    }

    pub(super) fn put(&mut self, purpose: Purpose, small: SmallShard) -> Result<(), StoreError> {
        self.slots.check(&small.header)?;
        let key = small.header.key;
        self.check_note(key)?;
        let end = ShardEnd {
            shard_len: small.bytes.len() as u64,
            blob_len: small.blob_len,
        };
        if let Some(shard) = self.shards.get(&key)
            && let Some(stored) = shard.end
        {
            let crcs = &shard.crcs;
            let end = stored;
            bounds::check_repeat(Stored { key, end, crcs }, &small)?;
            return whole(shard);
        }
        self.remove(key);
        self.reserve(purpose, end.shard_len)?;
        let stored = Shard {
            header: small.header,
            bytes: small.bytes.to_vec(),
            crcs: block_crcs(&small.bytes),
            end: Some(end),
        };
        self.shards.insert(key, stored);
        Ok(())
    }

    pub(super) fn read(
        &mut self,
        key: ShardKey,
        offset: u64,
        len: u32,
    ) -> Result<ShardBytes, StoreError> {
        let shard = self.shards.get(&key).ok_or(StoreError::NotFound)?;
        let end = shard.end.ok_or(StoreError::NotFound)?;
        bounds::check_range(end.shard_len, offset, len)?;
        let (start, stop) = (offset as usize, offset as usize + len as usize);
        let bytes = &shard.bytes[start..stop];
        let blocks = start / CHECK_BLOCK..stop.div_ceil(CHECK_BLOCK);
        let crcs = &shard.crcs[blocks];
        if let Some(block) = first_bad_block(bytes, crcs) {
            self.known_damaged.insert(key);
            return Err(corrupt(start / CHECK_BLOCK + block));
        }
        Ok(ShardBytes {
            bytes: Bytes::copy_from_slice(bytes),
            crcs: crcs.to_vec(),
        })
    }

    pub(super) fn stat(&self, key: ShardKey) -> Result<ShardStat, StoreError> {
        let shard = self.shards.get(&key).ok_or(StoreError::NotFound)?;
        Ok(ShardStat {
            header: shard.header.clone(),
            end: shard.end,
        })
    }

    pub(super) fn remove(&mut self, key: ShardKey) -> bool {
        self.open.retain(|_, open| open.key != key);
        self.known_damaged.remove(&key);
        self.shards.remove(&key).is_some()
    }

    pub(super) fn flip(&mut self, key: ShardKey, offset: u64) -> bool {
        let shard = self.shards.get_mut(&key);
        let byte = shard.and_then(|s| s.bytes.get_mut(usize::try_from(offset).ok()?));
        byte.map(|byte| *byte ^= 1).is_some()
    }

    pub(super) fn list(&self, after: Option<ShardKey>, limit: usize) -> Vec<ListedShard> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.shards.range((from, Bound::Unbounded));
        let entry = |(key, shard): (&ShardKey, &Shard)| ListedShard {
            key: *key,
            disk_bytes: shard.bytes.len() as u64,
            finished: shard.end.is_some(),
        };
        rest.take(limit).map(entry).collect()
    }

    pub(super) fn damaged(&self) -> Vec<DamagedShard> {
        let known = self.known_damaged.iter().take(MAX_DAMAGED);
        let shard = |key: &ShardKey| DamagedShard {
            key: *key,
            what: "a block".to_owned(),
        };
        known.map(shard).collect()
    }

    pub(super) fn check(&mut self) -> CheckPage {
        let mut page = CheckPage::default();
        for (key, shard) in self.shards.iter().filter(|(_, shard)| shard.end.is_some()) {
            match shard.first_bad() {
                None => {
                    page.shards += 1;
                    page.bytes += shard.bytes.len() as u64;
                }
                Some(block) => {
                    self.known_damaged.insert(*key);
                    page.findings.push(Finding {
                        place: "memory".to_owned(),
                        shard: Some(*key),
                        what: format!("block {block}"),
                        repaired: false,
                    });
                }
            }
        }
        page.findings.truncate(MAX_FINDINGS);
        page
    }

    pub(super) fn finished(&self) -> Vec<ShardKey> {
        let done = self.shards.iter().filter(|(_, shard)| shard.end.is_some());
        done.map(|(key, _)| *key).collect()
    }

    pub(super) fn open_handles(&self) -> usize {
        let unfinished = |open: &&Open| self.shards.get(&open.key).is_some_and(|s| s.end.is_none());
        self.open.values().filter(unfinished).count()
    }

    pub(super) fn health(&self, identity: DiskIdentity) -> DiskHealth {
        DiskHealth {
            identity,
            epoch: self.epoch,
            told: self.told,
            capacity_bytes: self.capacity,
            free_bytes: self.room(Purpose::Client),
            room: DiskRoom {
                client_bytes: self.room(Purpose::Client),
                background_bytes: self.room(Purpose::Background),
                checkpoint_bytes: self.room(Purpose::Checkpoint),
                journal_bytes: 0,
                journal_kept_bytes: 0,
            },
            // As if each were a device of its own.
            device: identity.disk.0 as u64,
            queued: 0,
            p50_us: 0,
            p99_us: 0,
            errors: 0,
            damaged: u32::try_from(self.known_damaged.len()).unwrap_or(u32::MAX),
            scrub: ScrubStanding::default(),
            fenced: None,
        }
    }
}

fn corrupt(block: usize) -> StoreError {
    StoreError::Corrupt {
        what: format!("block {block}"),
    }
}

fn whole(shard: &Shard) -> Result<(), StoreError> {
    shard
        .first_bad()
        .map_or(Ok(()), |block| Err(corrupt(block)))
}

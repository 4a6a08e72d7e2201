//! What was found on disks and in the journal, gathered until all is there.
//!
//! Owns a scratch engine of its own, so that memory does not grow with the
//! number of objects; what grows with disks and groups alone is in memory.
//! Keys, by their first byte: `n` group, blob: a [`BlobFact`]; `j` a key of the
//! catalog: what the journal last said of it; `k` incarnation, key, order, uid:
//! what was [`Said`] of the key; `p` uid, part, blob: a [`PartFact`]; `u` uid:
//! an [`UploadFact`]; `v` uid: it was published.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shardgate_wire::note::{NO_BLOB, NO_GROUP};
use shardgate_wire::store::ListedShard;
use shardgate_wire::{
    BlobId, BlobNote, BucketIncarnation, CommitNumber, DiskId, GroupId, LineageId, NoteOrder,
    NoteState, SlotAssignment, VersionUid,
};

use super::decide::{BlobFact, Noted, Said};
use crate::engine::log::decode_payload;
use crate::engine::{Commit, Engine, Entry, KeyRange, Op, Scan};
use crate::error::{CatalogError, Result};
use crate::keys;
use crate::model::{
    BlobRef, DiskRow, GroupRow, LineageRow, NotePayload, PartRow, UploadPartRow, UploadRow,
};
use crate::row::decode;

/// Rows that are read at once.
pub(super) const PAGE: usize = 2000;

/// What the journal last said of a key of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournalFact {
    pub(super) order: NoteOrder,
    /// `None`: it removed it.
    pub(super) value: Option<Vec<u8>>,
}

/// A blob that is a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartFact {
    pub(super) order: NoteOrder,
    pub(super) blob: BlobRef,
    pub(super) incarnation: BucketIncarnation,
    pub(super) key: String,
    pub(super) is: PartIs,
}

/// Of what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum PartIs {
    OfVersion(PartRow),
    OfUpload(UploadPartRow),
}

/// An upload that was open once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UploadFact {
    pub(super) order: NoteOrder,
    pub(super) incarnation: BucketIncarnation,
    pub(super) key: String,
    pub(super) row: UploadRow,
    pub(super) class: String,
    /// The journal says that it was completed or aborted.
    pub(super) ended: bool,
}

/// Everything that was found. See the module.
pub struct Facts {
    engine: Arc<dyn Engine>,
    /// Groups, as notes and the journal last have them.
    pub(super) groups: BTreeMap<GroupId, (NoteOrder, GroupRow)>,
    /// What disks say of their slots.
    pub(super) slots: BTreeMap<GroupId, Vec<(DiskId, SlotAssignment)>>,
    /// Disks that were read, and up to where each vouches.
    pub(super) marks: BTreeMap<DiskId, NoteOrder>,
    /// Every disk that is known.
    pub(super) disks: BTreeMap<DiskId, DiskRow>,
    /// The histories that disks were told of, and how far.
    pub(super) told: BTreeMap<LineageId, CommitNumber>,
    /// What the journal last said of histories.
    pub(super) lineage: Option<LineageRow>,
    /// Commits of the journal that were read.
    pub(super) spans: Vec<(CommitNumber, CommitNumber)>,
    /// The highest order that anything had.
    pub(super) last: NoteOrder,
    /// Stretches of notes that are damaged.
    pub(super) damaged_notes: u64,
    /// Notes that cannot be read.
    pub(super) unread_notes: u64,
}

impl Facts {
    /// None so far; `engine` is empty, and thrown away afterwards.
    pub fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            groups: BTreeMap::new(),
            slots: BTreeMap::new(),
            marks: BTreeMap::new(),
            disks: BTreeMap::new(),
            told: BTreeMap::new(),
            lineage: None,
            spans: Vec::new(),
            last: NoteOrder::default(),
            damaged_notes: 0,
            unread_notes: 0,
        }
    }

    /// A disk of the pool; `read`: its notes and lists are (to be) read.
    pub fn add_disk(&mut self, row: DiskRow, read: bool) {
        if read {
            self.marks.entry(row.id).or_default();
        }
        self.disks.insert(row.id, row);
    }

    /// A disk was not read to its end: it vouches for nothing, and what it was
    /// not seen to have it may have.
    pub fn not_read(&mut self, disk: DiskId) {
        self.marks.remove(&disk);
    }

    /// The highest history that anything was noted under.
    pub fn history(&self) -> u64 {
        self.last.history
    }

    /// What a disk was told last.
    pub fn add_told(&mut self, (lineage, commit): (LineageId, CommitNumber)) {
        if commit.0 > 0 {
            let told = self.told.entry(lineage).or_default();
            *told = commit.max(*told);
        }
    }

    /// The slots that a disk holds.
    pub fn add_slots(&mut self, disk: DiskId, slots: &[SlotAssignment]) {
        for slot in slots {
            self.slots
                .entry(slot.group)
                .or_default()
                .push((disk, *slot));
        }
    }

    /// A stretch of the journal was read.
    pub fn add_spans(&mut self, spans: &[(CommitNumber, CommitNumber)]) {
        self.spans.extend_from_slice(spans);
    }

    /// Records of the journal, in order, behind those before; `history` is the
    /// one in force before the first; gives the one in force behind the last.
    ///
    /// # Errors
    /// The scratch engine's; [`CatalogError::Damaged`]: a payload is none.
    pub async fn add_journal(
        &mut self,
        mut history: u64,
        records: Vec<(CommitNumber, Bytes)>,
    ) -> Result<u64> {
        let mut ops = Vec::new();
        for (commit, payload) in records {
            let changes = decode_payload(payload)?;
            let lineage = changes.iter().find(|(key, _)| key[..] == *keys::LINEAGE);
            if let Some((_, Some(value))) = lineage {
                let row: LineageRow = decode(value)?;
                history = row.history;
                self.lineage = Some(row);
            }
            let order = NoteOrder { history, commit };
            self.last = self.last.max(order);
            for (key, value) in changes {
                let fact = JournalFact {
                    order,
                    value: value.map(|value| value.to_vec()),
                };
                ops.push(Op::Put(tagged(b'j', &key), pack(&fact)));
            }
        }
        self.commit(ops).await?;
        Ok(history)
    }

    /// Notes of a disk.
    ///
    /// # Errors
    /// The scratch engine's.
    pub async fn add_notes(
        &mut self,
        disk: DiskId,
        notes: &[BlobNote],
        damaged: u32,
    ) -> Result<()> {
        self.damaged_notes += u64::from(damaged);
        let mut best: BTreeMap<(GroupId, BlobId), BlobNote> = BTreeMap::new();
        for note in notes {
            self.last = self.last.max(note.order);
            if note.blob == NO_BLOB {
                self.take_in(disk, note);
                continue;
            }
            let held = best.get(&(note.group, note.blob));
            if held.is_none_or(|held| note.overrules(held)) {
                best.insert((note.group, note.blob), note.clone());
            }
        }
        let wanted: Vec<_> = best
            .keys()
            .map(|(group, blob)| noted(*group, *blob))
            .collect();
        let mut facts: Vec<BlobFact> = self.many(&wanted).await?;
        let mut ops = Vec::new();
        for ((key, fact), note) in wanted.into_iter().zip(&mut facts).zip(best.values()) {
            let said = match &note.state {
                NoteState::Deleted => Noted::Deleted,
                NoteState::Published(payload) => match NotePayload::decode(payload) {
                    Ok(payload) => Noted::Is(payload),
                    Err(_) => {
                        self.unread_notes += 1;
                        continue;
                    }
                },
            };
            if overrules(note.order, &said, fact.note.as_ref()) {
                fact.note = Some((note.order, said));
                ops.push(Op::Put(key, pack(fact)));
            }
        }
        self.commit(ops).await
    }

    /// A note of no blob.
    fn take_in(&mut self, disk: DiskId, note: &BlobNote) {
        let NoteState::Published(payload) = &note.state else {
            return;
        };
        match NotePayload::decode(payload) {
            Ok(NotePayload::Mark) if note.group == NO_GROUP => {
                let mark = self.marks.entry(disk).or_default();
                *mark = note.order.max(*mark);
            }
            Ok(NotePayload::Group(row)) if row.id == note.group => self.add_group(note.order, row),
            _ => self.unread_notes += 1,
        }
    }

    pub(super) fn add_group(&mut self, order: NoteOrder, row: GroupRow) {
        let held = self.groups.get(&row.id);
        // A record that is newer by its generation, or else by its commit.
        let newer = held.is_none_or(|(held_order, held)| {
            (row.generation, order) > (held.generation, *held_order)
        });
        if newer {
            self.groups.insert(row.id, (order, row));
        }
    }

    /// A page of a disk's list.
    ///
    /// # Errors
    /// The scratch engine's.
    pub async fn add_shards(&mut self, listed: &[ListedShard]) -> Result<()> {
        let mut seen: BTreeMap<(GroupId, BlobId), (u32, bool)> = BTreeMap::new();
        for shard in listed {
            let of = seen.entry((shard.key.group, shard.key.blob)).or_default();
            match shard.finished && shard.key.index < 32 {
                true => of.0 |= 1 << shard.key.index,
                false => of.1 = true,
            }
        }
        let wanted: Vec<_> = seen
            .keys()
            .map(|(group, blob)| noted(*group, *blob))
            .collect();
        let facts: Vec<BlobFact> = self.many(&wanted).await?;
        let mut ops = Vec::new();
        for ((key, mut fact), (shards, unfinished)) in
            wanted.into_iter().zip(facts).zip(seen.into_values())
        {
            fact.shards |= shards;
            fact.unfinished |= unfinished;
            ops.push(Op::Put(key, pack(&fact)));
        }
        self.commit(ops).await
    }

    pub(super) async fn commit(&self, ops: Vec<Op>) -> Result<()> {
        let expect = Vec::new();
        if !ops.is_empty() {
            self.engine.commit(Commit { expect, ops }).await?;
        }
        Ok(())
    }

    async fn many<T: DeserializeOwned + Default>(&self, keys: &[Bytes]) -> Result<Vec<T>> {
        let found = self.engine.get_many(keys).await?.into_iter();
        found
            .map(|raw| raw.map_or_else(|| Ok(T::default()), |raw| unpack(&raw)))
            .collect()
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        let raw = self.engine.get(key).await?;
        raw.map(|raw| unpack(&raw)).transpose()
    }

    /// What the journal last said of a key.
    pub(super) async fn journal(&self, key: &[u8]) -> Result<Option<JournalFact>> {
        self.get(&tagged(b'j', key)).await
    }

    /// Whether a note says that the blob was deleted.
    pub(super) async fn is_deleted(&self, blob: &BlobRef) -> Result<bool> {
        let fact: Option<BlobFact> = self.get(&noted(blob.group, blob.blob)).await?;
        let note = fact.and_then(|fact| fact.note);
        Ok(matches!(note, Some((_, Noted::Deleted))))
    }

    /// Rows behind `after`, at most [`PAGE`], whose keys begin with `prefix`.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        prefix: &[u8],
        after: Option<&Bytes>,
    ) -> Result<Vec<(Bytes, T)>> {
        let mut range = KeyRange::prefix(prefix.to_vec());
        if let Some(after) = after {
            range.start = keys::after(after);
        }
        let rows = self.engine.scan(Scan::first(range, PAGE)).await?;
        let rows = rows.into_iter().filter_map(Entry::into_row);
        rows.map(|(key, raw)| Ok((key, unpack(&raw)?))).collect()
    }

    /// All rows whose keys begin with `prefix`: for what is few.
    pub(super) async fn all<T: DeserializeOwned>(&self, prefix: &[u8]) -> Result<Vec<(Bytes, T)>> {
        let mut all: Vec<(Bytes, T)> = Vec::new();
        loop {
            let after = all.last().map(|(key, _)| key.clone());
            let page = self.page(prefix, after.as_ref()).await?;
            let whole = page.len() < PAGE;
            all.extend(page);
            if whole {
                return Ok(all);
            }
        }
    }

    /// Rows of the journal's last word on a space of the catalog that are
    /// there still.
    pub(super) async fn journal_space(&self, space: u8) -> Result<Vec<(Bytes, NoteOrder, Bytes)>> {
        let rows = self.all::<JournalFact>(&[b'j', space]).await?.into_iter();
        let there = rows.filter_map(|(key, fact)| {
            let value = Bytes::from(fact.value?);
            Some((key.slice(1..), fact.order, value))
        });
        Ok(there.collect())
    }

    /// The disks that were read, of some.
    pub(super) fn read_of<'d>(&self, disks: impl IntoIterator<Item = &'d DiskId>) -> usize {
        let read = disks
            .into_iter()
            .filter(|disk| self.marks.contains_key(disk));
        read.count()
    }

    /// Buckets by their incarnation, where the journal has them.
    pub(super) async fn journal_buckets(
        &self,
    ) -> Result<HashMap<BucketIncarnation, (String, crate::model::BucketRow)>> {
        let mut buckets = HashMap::new();
        for (key, _, value) in self.journal_space(keys::space::BUCKET).await? {
            let row: crate::model::BucketRow = decode(&value)?;
            buckets.insert(row.incarnation, (keys::decode_bucket(&key)?, row));
        }
        Ok(buckets)
    }
}

fn overrules(order: NoteOrder, said: &Noted, held: Option<&(NoteOrder, Noted)>) -> bool {
    match (said, held) {
        (_, None) => true,
        (Noted::Deleted, Some((_, Noted::Is(_)))) => true,
        (Noted::Is(_), Some((_, Noted::Deleted))) => false,
        (_, Some((held, _))) => order > *held,
    }
}

pub(super) fn tagged(tag: u8, rest: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(1 + rest.len());
    key.push(tag);
    key.extend_from_slice(rest);
    key.into()
}

pub(super) fn noted(group: GroupId, blob: BlobId) -> Bytes {
    tagged(b'n', &keys::blob(group, blob)[1..])
}

/// The group and the blob of an `n` key.
pub(super) fn noted_of(key: &[u8]) -> Result<(GroupId, BlobId)> {
    let group = key.get(1..9).and_then(|bytes| bytes.try_into().ok());
    let blob = key.get(9..25).and_then(|bytes| bytes.try_into().ok());
    match (group, blob) {
        (Some(group), Some(blob)) => {
            Ok((GroupId::from_be_bytes(group), BlobId::from_be_bytes(blob)))
        }
        _ => Err(scratch_damaged()),
    }
}

/// What was said of one key of a bucket.
pub(super) fn of_key(incarnation: BucketIncarnation, key: &str) -> Vec<u8> {
    let mut out = vec![b'k'];
    out.put_u64(incarnation.0);
    out.extend_from_slice(&keys::escape(key));
    out.extend_from_slice(&keys::TERMINATOR);
    out
}

pub(super) fn said(
    incarnation: BucketIncarnation,
    key: &str,
    order: NoteOrder,
    uid: VersionUid,
) -> Bytes {
    let mut out = of_key(incarnation, key);
    out.put_u64(order.history);
    out.put_u64(order.commit.0);
    out.put_u128(uid.0);
    out.into()
}

/// Incarnation, key and order of a `k` key.
pub(super) fn said_of(key: &[u8]) -> Result<(BucketIncarnation, String, NoteOrder)> {
    const TAIL: usize = 32;
    let head = key.len().checked_sub(TAIL).ok_or_else(scratch_damaged)?;
    // The head is built as an upload's key is.
    let mut upload = vec![keys::space::UPLOAD];
    upload.extend_from_slice(&key[1..head]);
    upload.extend_from_slice(&[0; 16]);
    let (name, _) = keys::decode_upload(&upload)?;
    let number = |at: usize| -> Result<u64> {
        let bytes = key.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes).ok_or_else(scratch_damaged)
    };
    let order = NoteOrder {
        history: number(head)?,
        commit: CommitNumber(number(head + 8)?),
    };
    Ok((BucketIncarnation(number(1)?), name, order))
}

pub(super) fn parts_of(uid: VersionUid) -> Bytes {
    tagged(b'p', &uid.to_be_bytes())
}

pub(super) fn part(uid: VersionUid, number: u16, blob: BlobId) -> Bytes {
    let mut out = parts_of(uid).to_vec();
    out.put_u16(number);
    out.put_u128(blob.0);
    out.into()
}

pub(super) fn upload(uid: VersionUid) -> Bytes {
    tagged(b'u', &uid.to_be_bytes())
}

pub(super) fn published(uid: VersionUid) -> Bytes {
    tagged(b'v', &uid.to_be_bytes())
}

pub(super) fn pack<T: Serialize>(value: &T) -> Bytes {
    let bytes = postcard::to_stdvec(value);
    bytes
        .expect("facts hold nothing that postcard refuses")
        .into()
}

pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|_| scratch_damaged())
}

fn scratch_damaged() -> CatalogError {
    CatalogError::Damaged {
        why: "a row of the scratch engine is damaged".to_owned(),
    }
}

/// What was said of a key.
pub(super) type Sayings = Vec<(NoteOrder, Said)>;

//! What was found on disks and in the journal, gathered until all is there.
//!
//! Owns a scratch engine of its own, so that memory does not grow with the
//! number of objects; what grows with disks and groups alone is in memory.
//! Keys, by their first byte: `n` group, blob: a [`BlobFact`]; `j` a key of the
//! catalog: what the journal last said of it; `k` incarnation, key, order, uid:
//! what was [`Said`] of the key; `p` uid, part, blob: a [`PartFact`]; `u` uid:
//! an [`UploadFact`]; `v` uid: it was published.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shardgate_wire::note::{NO_BLOB, NO_GROUP};
use shardgate_wire::store::ListedShard;
use shardgate_wire::{
    BlobId, BlobNote, BucketIncarnation, CommitNumber, DiskId, GroupId, LineageId, NoteOrder,
    NoteState, SlotAssignment,
};

use super::decide::{BlobFact, Noted, Said};
use super::scratch::{noted, pack, tagged, unpack};
use crate::engine::log::decode_payload;
use crate::engine::{Commit, Engine, Entry, KeyRange, Op, Scan};
use crate::error::Result;
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

/// Commits from and to.
pub(super) type Span = (CommitNumber, CommitNumber);

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
    /// Disks some of whose notes are damaged or cannot be read: how many.
    pub(super) damaged: BTreeMap<DiskId, u64>,
    /// The lineages that disks were told of, and how far.
    pub(super) told: BTreeMap<LineageId, CommitNumber>,
    /// The lineage that the pool map names.
    pub(super) current: Option<LineageId>,
    lineages: Vec<LineageId>,
    /// The histories that anything was noted or committed under.
    pub(super) histories: BTreeSet<u64>,
    /// As of when a whole catalog was read: what that does not have, and was
    /// noted up to then, was deleted by then.
    pub(super) base: Option<NoteOrder>,
    /// What the journal last said of histories.
    pub(super) lineage: Option<LineageRow>,
    /// Commits of the journal that were read, in order, and of which history.
    spans: Vec<(u64, Span)>,
    /// The highest order that anything had.
    pub(super) last: NoteOrder,
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
            damaged: BTreeMap::new(),
            told: BTreeMap::new(),
            current: None,
            lineages: Vec::new(),
            histories: BTreeSet::new(),
            base: None,
            lineage: None,
            spans: Vec::new(),
            last: NoteOrder::default(),
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

    /// The lineage that the pool map names: the last one that there was.
    pub fn set_lineage(&mut self, lineage: LineageId) {
        self.current = Some(lineage);
        self.lineages.push(lineage);
    }

    /// The lineages that a catalog of before may be of.
    pub fn lineages(&self) -> &[LineageId] {
        &self.lineages
    }

    /// The history that was in force in an epoch, as far as is known: the
    /// last that was taken up to then.
    pub fn history_at(&self, epoch: u64) -> u64 {
        let known = self.histories.range(..=epoch);
        known.last().copied().unwrap_or(0)
    }

    /// The last commit that anything knows of. Of what disks were told only
    /// the last lineage counts: numbers of others are of other commits.
    pub(super) fn known_last(&self) -> NoteOrder {
        let counts = |lineage: &LineageId| self.current.is_none_or(|current| current == *lineage);
        let told = self.told.iter().filter(|(lineage, _)| counts(lineage));
        let told = told.map(|(_, commit)| NoteOrder {
            history: self.last.history,
            commit: *commit,
        });
        told.max().unwrap_or_default().max(self.last)
    }

    /// Up to where each disk that was read vouches: one that lost notes
    /// vouches for nothing.
    pub(super) fn vouching(&self) -> BTreeMap<DiskId, NoteOrder> {
        let mark = |(disk, mark): (&DiskId, &NoteOrder)| match self.damaged.contains_key(disk) {
            true => (*disk, NoteOrder::default()),
            false => (*disk, *mark),
        };
        self.marks.iter().map(mark).collect()
    }

    /// Whether everything that was committed after `order` was read in the
    /// journal.
    pub(super) fn is_known_since(&self, order: NoteOrder) -> bool {
        let last = self.known_last();
        let to_the_end = |(from, to): &Span| from.0 <= order.commit.0 + 1 && *to >= last.commit;
        order.history == last.history && self.last_spans().last().is_some_and(to_the_end)
    }

    /// What a disk was told last.
    pub fn add_told(&mut self, (lineage, commit): (LineageId, CommitNumber)) {
        if commit.0 > 0 {
            let told = self.told.entry(lineage).or_default();
            *told = commit.max(*told);
        }
    }

    /// The first record of a rebuild that came to no end, the newest of
    /// several first: it says what disks were told before it began, and which
    /// lineage was the last one then.
    ///
    /// # Errors
    /// [`crate::CatalogError::Damaged`]: it is none.
    pub fn add_unfinished(&mut self, first: Bytes) -> Result<()> {
        let changes = decode_payload(first)?;
        let rows = changes.iter().filter(|(key, _)| key[..] == *keys::LINEAGE);
        for value in rows.filter_map(|(_, value)| value.as_ref()) {
            let row: LineageRow = decode(value)?;
            let before = row.before.first().map(|(lineage, _)| *lineage);
            if self.current == Some(row.lineage) {
                self.current = before;
            }
            self.lineages.extend(before);
            // Nothing but what it made itself was committed under it.
            self.told.remove(&row.lineage);
            row.before.into_iter().for_each(|told| self.add_told(told));
        }
        Ok(())
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

    /// Stretches of the journal were read, behind those before; `history`: the
    /// one in force at their end.
    pub fn add_spans(&mut self, history: u64, spans: &[Span]) {
        self.spans.extend(spans.iter().map(|span| (history, *span)));
    }

    /// Those of the last history: numbers of others are of other commits.
    pub(super) fn last_spans(&self) -> Vec<Span> {
        let history = self.known_last().history;
        let spans = self.spans.iter().filter(|(of, _)| *of == history);
        spans.map(|(_, span)| *span).collect()
    }

    /// Records of the journal, in order, behind those before; `history` is the
    /// one in force before the first; gives the one in force behind the last.
    ///
    /// # Errors
    /// The scratch engine's; [`crate::CatalogError::Damaged`]: a payload is none.
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
                self.histories.insert(history);
                let since = self.base.is_none_or(|base| base.commit < commit);
                self.lineage = if since {
                    Some(row)
                } else {
                    self.lineage.take()
                };
            }
            let order = NoteOrder { history, commit };
            if self.base.is_some_and(|base| order <= base) {
                // It is in the catalog that was read.
                continue;
            }
            self.last = self.last.max(order);
            for (key, value) in changes {
                let fact = fact_of(order, value.as_deref());
                ops.push(Op::Put(tagged(b'j', &key), fact));
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
        if damaged > 0 {
            *self.damaged.entry(disk).or_default() += u64::from(damaged);
        }
        let mut best: BTreeMap<(GroupId, BlobId), BlobNote> = BTreeMap::new();
        for note in notes {
            self.last = self.last.max(note.order);
            self.histories.insert(note.order.history);
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
        let before = self.disks.keys().take_while(|known| **known < disk);
        let bit = 1 << (before.count() % 64);
        let mut ops = Vec::new();
        for ((key, fact), note) in wanted.into_iter().zip(&mut facts).zip(best.values()) {
            let said = match &note.state {
                NoteState::Deleted => Noted::Deleted,
                NoteState::Published(payload) => match NotePayload::decode(payload) {
                    Ok(payload) => Noted::Is(payload),
                    Err(_) => {
                        *self.damaged.entry(disk).or_default() += 1;
                        continue;
                    }
                },
            };
            match &fact.note {
                Some((order, held)) if (*order, held) == (note.order, &said) => fact.noted |= bit,
                held if overrules(note.order, &said, held.as_ref()) => {
                    fact.note = Some((note.order, said));
                    fact.noted = bit;
                }
                _ => continue,
            }
            ops.push(Op::Put(key, pack(fact)));
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
            _ => *self.damaged.entry(disk).or_default() += 1,
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

    /// Whether any disk has a shard of the blob.
    pub(super) async fn has_shards(&self, blob: &BlobRef) -> Result<bool> {
        let fact: Option<BlobFact> = self.get(&noted(blob.group, blob.blob)).await?;
        Ok(fact.is_some_and(|fact| fact.is_here()))
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

pub(super) fn fact_of(order: NoteOrder, value: Option<&[u8]>) -> Bytes {
    pack(&JournalFact {
        order,
        value: value.map(<[u8]>::to_vec),
    })
}

fn overrules(order: NoteOrder, said: &Noted, held: Option<&(NoteOrder, Noted)>) -> bool {
    match (said, held) {
        (_, None) => true,
        (Noted::Deleted, Some((_, Noted::Is(_)))) => true,
        (Noted::Is(_), Some((_, Noted::Deleted))) => false,
        (_, Some((held, _))) => order > *held,
    }
}

/// What was said of a key.
pub(super) type Sayings = Vec<(NoteOrder, Said)>;
